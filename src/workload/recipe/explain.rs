//! What a Recipe will do, step by step, and what becomes of a failure.
//!
//! Two behaviours are told apart: the controller's own, which swallows, repeats and never looks back,
//! and the one that an author means, which an executor other than the controller can keep.

use serde::Serialize;

use super::model::{FailOn, MAX_ATTEMPTS, OnError, Recipe};
use super::resolve::{Condition, Exec, Inverse, Job, Scale, ScaleOp, Step, Work};
use super::target::Target;

/// Whose behaviour is explained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Behaviour {
    /// The controller's.
    Faithful,
    /// The author's.
    Strict,
}

/// A workflow, explained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// `backup` or `restore`.
    pub workflow: String,
    /// Whose behaviour.
    pub mode: Behaviour,
    /// When it runs, and how often.
    pub when: Vec<String>,
    /// Its steps, in order; none when there is no such workflow, or none that resolves.
    pub steps: Vec<Explained>,
    /// What holds of the workflow as a whole.
    pub caveats: Vec<String>,
}

/// A step, explained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explained {
    /// What the sequence calls it.
    pub name: String,
    /// What runs.
    pub what: String,
    /// Where: which pods, objects or namespaces.
    pub on: String,
    /// What happens when it fails.
    pub failure: Vec<String>,
}

/// Explains a workflow of a Recipe whose parameters are expanded.
pub fn explain(recipe: &Recipe, workflow: &str, mode: Behaviour) -> Explanation {
    let mut explanation = Explanation {
        workflow: workflow.to_owned(),
        mode,
        when: when(workflow, mode),
        steps: Vec::new(),
        caveats: Vec::new(),
    };
    match recipe.flow(workflow) {
        None => explanation.caveats = absent(recipe, workflow, mode),
        Some(Err(error)) => explanation
            .caveats
            .push(format!("Nothing runs: {error}. {}", unresolved(mode))),
        Some(Ok(flow)) => {
            explanation.steps = flow
                .steps
                .iter()
                .map(|step| explained(step, workflow, mode))
                .collect();
            explanation.caveats = caveats(&flow.steps, workflow, flow.fail_on, mode);
        }
    }
    explanation
}

fn texts(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|line| (*line).to_owned()).collect()
}

fn when(workflow: &str, mode: Behaviour) -> Vec<String> {
    match (workflow, mode) {
        ("restore", Behaviour::Faithful) => texts(&[
            "Where the VRG becomes primary with an `action` (Failover or Relocate), behind the volumes.",
            "From the first step again at every reconcile, until every group is restored.",
        ]),
        (_, Behaviour::Faithful) => vec![
            "On the primary, when captureInterval (5 min) has passed since the last capture."
                .to_owned(),
            format!(
                "From the first step again at every reconcile until every group is captured, so hooks before an \
                 unfinished group run several times; after {MAX_ATTEMPTS} unfinished passes in a row it gives up \
                 with KubeObjectsCaptureError."
            ),
        ],
        ("restore", Behaviour::Strict) => texts(&["Once, behind the volumes."]),
        (_, Behaviour::Strict) => texts(&["Once for each capture, each step once."]),
    }
}

fn absent(recipe: &Recipe, workflow: &str, mode: Behaviour) -> Vec<String> {
    let others: Vec<&str> = recipe
        .workflows
        .iter()
        .map(|workflow| workflow.name.as_str())
        .collect();
    let mut lines = vec![format!(
        "There is no workflow `{workflow}`; there is {}.",
        list(&others)
    )];
    lines.push(match (workflow, mode) {
        (_, Behaviour::Strict) => {
            "An author who wrote hooks means them to run: this is an error.".to_owned()
        }
        ("restore", _) => {
            "The default restores whole namespaces from the backup `default`; no hook runs."
                .to_owned()
        }
        _ => "The default captures whole namespaces; no hook ever runs, and nothing warns of it."
            .to_owned(),
    });
    lines
}

const fn unresolved(mode: Behaviour) -> &'static str {
    match mode {
        Behaviour::Faithful => {
            "The VRG shows DataReady False, `Failed to get recipe`, and is not tried again, unless the controller panics."
        }
        Behaviour::Strict => "The Recipe is refused before anything runs.",
    }
}

fn explained(step: &Step, workflow: &str, mode: Behaviour) -> Explained {
    let (what, on, failure) = match &step.work {
        Work::Exec(exec) => (command(exec), pods(exec, mode), exec_failure(exec, mode)),
        Work::Check(check) => (
            condition(check, mode),
            target(&check.target),
            check_failure(check, mode),
        ),
        Work::Scale(scale) => scaled(scale, mode),
        Work::Job(job) => jobbed(job, mode),
        Work::Group { group, from } if workflow == "restore" => (
            format!("restores the backup of the group `{from}`; what exists is kept as it is"),
            "the namespaces of that backup".to_owned(),
            texts(&[
                "PartiallyFailed counts as failed.",
                "The restore is tried again from the first step.",
            ]),
        ),
        Work::Group { group, .. } => captured(group, mode),
        Work::Volumes(group) => volumes(&group.name, mode),
        Work::Nothing => nothing(&step.name, mode),
    };
    Explained {
        name: step.name.clone(),
        what,
        on,
        failure,
    }
}

fn jobbed(job: &Job, mode: Behaviour) -> (String, String, Vec<String>) {
    let what = format!("runs the job `{}` of spec.jobs", job.job);
    let failure = match (mode, &job.template) {
        (Behaviour::Strict, _) => {
            "The Recipe is refused before anything runs: the published CRD knows no hooks of type job."
        }
        (Behaviour::Faithful, None) => {
            "There is no such job, or the CRD pruned it: the step fails, whatever onError says."
        }
        (Behaviour::Faithful, Some(_)) => {
            "A job of this name that exists is taken as it is. If it fails, or takes too long, onError says what becomes of that."
        }
    };
    (
        what,
        format!("namespace {}", job.namespace),
        texts(&[failure]),
    )
}

fn command(exec: &Exec) -> String {
    match &exec.command {
        Ok(words) => {
            let words: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
            format!(
                "runs {} without a shell, for up to {} s",
                words.join(" "),
                exec.timeout.as_secs()
            )
        }
        Err(error) => format!("has no command: {error}"),
    }
}

fn pods(exec: &Exec, mode: Behaviour) -> String {
    let container = match &exec.container {
        Some(name) => format!("container {name}"),
        None => "the first container".to_owned(),
    };
    let pods = match (exec.single_pod, mode) {
        (true, Behaviour::Faithful) => "the first pod, in any phase,",
        (false, Behaviour::Faithful) => "every pod, in any phase, one after another,",
        (true, Behaviour::Strict) => "one running pod",
        (false, Behaviour::Strict) => "every running pod",
    };
    let of = match exec.target.resource.as_str() {
        "pod" => String::new(),
        resource => format!(" of each {resource}"),
    };
    format!("{container} of {pods}{of} {}", selected(&exec.target))
}

fn target(target: &Target) -> String {
    format!("{} {}", target.resource, selected(target))
}

/// What a hook selects, in words.
fn selected(target: &Target) -> String {
    let mut by = Vec::new();
    if let Some(labels) = &target.labels {
        let text = match kube::core::Selector::try_from(labels.clone()) {
            Ok(selector) if selector.selects_all() => "any labels".to_owned(),
            Ok(selector) => format!("labels {selector}"),
            Err(error) => format!("labels that cannot be read ({error})"),
        };
        by.push(text);
    }
    if let Some(names) = &target.names {
        by.push(format!("name {names}"));
    }
    let by = if by.is_empty() {
        "nothing selected".to_owned()
    } else {
        by.join(" or ")
    };
    format!("in namespace {} with {by}", target.namespace)
}

fn exec_failure(exec: &Exec, mode: Behaviour) -> Vec<String> {
    let undo = match &exec.inverse {
        Inverse::Op(inverse) => format!(
            "`{}/{}` is run, whose own failure is only logged",
            inverse.hook, inverse.op
        ),
        Inverse::Missing(name) => format!("`{name}` is looked for, which does not exist"),
        Inverse::None => "nothing is taken back".to_owned(),
    };
    let mut lines = Vec::new();
    match mode {
        Behaviour::Faithful => {
            lines.push(
                "No pod at all is a success, as is a list that fails or a command without words."
                    .to_owned(),
            );
            lines.push(match (exec.on_error, exec.failure_counts()) {
                (OnError::Continue, _) => "A failed command is passed over (onError: continue).".to_owned(),
                (OnError::Fail, true) => format!("A failed command stops at that pod, {undo}, and the step fails."),
                (OnError::Fail, false) => {
                    "A failed command stops at that pod, and the step succeeds all the same: there is no inverseOp."
                        .to_owned()
                }
            });
        }
        Behaviour::Strict => {
            lines.push("No pod is a failure, as is a command without words.".to_owned());
            lines.push(match exec.on_error {
                OnError::Continue => {
                    "A failed command is recorded and passed over (onError: continue).".to_owned()
                }
                OnError::Fail => format!("A failed command fails the step; {undo}."),
            });
        }
    }
    lines
}

fn condition(check: &Condition, mode: Behaviour) -> String {
    let seconds = check.timeout.as_secs();
    match mode {
        Behaviour::Faithful => format!(
            "waits up to {seconds} s until there is an object, then evaluates once, on every object: {}",
            check.expression
        ),
        Behaviour::Strict => format!(
            "waits up to {seconds} s until it holds on every object: {}",
            check.expression
        ),
    }
}

fn check_failure(check: &Condition, mode: Behaviour) -> Vec<String> {
    let absent = if check.skip_if_absent {
        "No object within the time is a success (skipHookIfNotPresent)."
    } else {
        "No object within the time fails the step."
    };
    let mut lines = texts(&[absent]);
    for error in check.expression.errors() {
        lines.push(format!("It cannot be read, which fails the step: {error}."));
    }
    if mode == Behaviour::Faithful {
        lines.push("A path that is not there fails the step whatever onError says.".to_owned());
    }
    lines.push(match check.on_error {
        OnError::Fail => "A condition that does not hold fails the step.".to_owned(),
        OnError::Continue => {
            "A condition that does not hold is passed over (onError: continue).".to_owned()
        }
    });
    lines
}

fn scaled(scale: &Scale, mode: Behaviour) -> (String, String, Vec<String>) {
    let what = match &scale.op {
        ScaleOp::Down => "scales to 0 and keeps the number in an annotation".to_owned(),
        ScaleOp::Up => "scales back to the number in the annotation".to_owned(),
        ScaleOp::Sync => format!(
            "waits up to {} s until all replicas are ready",
            scale.timeout.as_secs()
        ),
        ScaleOp::Unknown(op) => format!("fails: `{op}` is no operation"),
    };
    let mut lines = texts(&["Nothing found fails the step."]);
    if mode == Behaviour::Faithful {
        lines.push("onError: continue is not honoured.".to_owned());
    }
    (what, target(&scale.target), lines)
}

fn captured(group: &super::model::Group, mode: Behaviour) -> (String, String, Vec<String>) {
    let types = if group.included_types.is_empty() {
        "all types".to_owned()
    } else {
        group.included_types.join(", ")
    };
    let without = if group.excluded_types.is_empty() {
        String::new()
    } else {
        format!(", without {}", group.excluded_types.join(", "))
    };
    let cluster = if group.cluster_resources == Some(true) {
        "with"
    } else {
        "without"
    };
    let what =
        format!("captures {types}{without}, {cluster} cluster resources, to every S3 profile");
    let on = match group.included_namespaces.as_slice() {
        [] => "every namespace that Velero may read".to_owned(),
        names => format!("namespaces {}", names.join(", ")),
    };
    let failure = match mode {
        Behaviour::Faithful => texts(&[
            "Velero works on its own: the pass ends here until the group is done, and the next one starts at the first step.",
            "A failed capture is deleted and tried again; the steps after it do not run, a thaw among them.",
        ]),
        Behaviour::Strict => {
            texts(&["A failed capture fails the workflow; what was frozen is thawed."])
        }
    };
    (what, on, failure)
}

fn volumes(name: &str, mode: Behaviour) -> (String, String, Vec<String>) {
    match mode {
        Behaviour::Faithful => (
            format!(
                "leaves an empty step for the volumes group `{name}`: everything is captured or restored, unfiltered"
            ),
            "every namespace that Velero may read".to_owned(),
            texts(&["It replicates nothing and waits for no replication."]),
        ),
        Behaviour::Strict => (
            format!(
                "means that the volumes of `{name}` are replicated at this point, which no Recipe can do"
            ),
            "the replication's own schedule".to_owned(),
            texts(&["It is refused."]),
        ),
    }
}

fn nothing(name: &str, mode: Behaviour) -> (String, String, Vec<String>) {
    let failure = match mode {
        Behaviour::Faithful => "The step is passed over, and the workflow succeeds.",
        Behaviour::Strict => "The Recipe is refused.",
    };
    (
        format!("names no operation: `{name}` does not exist"),
        "nothing".to_owned(),
        texts(&[failure]),
    )
}

fn caveats(steps: &[Step], workflow: &str, fail_on: FailOn, mode: Behaviour) -> Vec<String> {
    let mut lines = vec![match fail_on {
        FailOn::AnyError => "The first failed step stops the pass.".to_owned(),
        FailOn::EssentialError => {
            let named: Vec<&str> = steps
                .iter()
                .filter(|step| step.essential)
                .map(|step| step.name.as_str())
                .collect();
            format!(
                "Only a failed essential step stops the pass; essential is {}.",
                list(&named)
            )
        }
        FailOn::FullError => "No failed step stops the pass.".to_owned(),
    }];
    if steps.is_empty() {
        lines.push("The sequence is empty: there is no first request, and the controller tries again for ever.".to_owned());
    }
    let hooks = steps.iter().any(|step| matches!(step.work, Work::Exec(_)));
    let grouped = steps
        .iter()
        .any(|step| matches!(step.work, Work::Group { .. }));
    match mode {
        Behaviour::Faithful if workflow == "backup" && hooks && grouped => {
            lines.push(
                "There is no finally: after a failed group, or when the controller gives up, later hooks never run. A \
                 guest that was frozen stays so until virt-freezer's timer."
                    .to_owned(),
            );
            lines.push(
                "Volumes are replicated on their own schedule: the hooks say nothing of what a replica holds.".to_owned(),
            );
        }
        Behaviour::Faithful if workflow == "restore" && fail_on != FailOn::AnyError => {
            lines.push(
                "Groups are not awaited: the restore can count as complete in its first pass."
                    .to_owned(),
            );
        }
        Behaviour::Strict if hooks => {
            lines.push(
                "What an operation with an inverseOp did is taken back on every way out."
                    .to_owned(),
            );
        }
        _ => {}
    }
    lines
}

fn list(names: &[&str]) -> String {
    match names {
        [] => "none".to_owned(),
        names => names
            .iter()
            .map(|name| format!("`{name}`"))
            .collect::<Vec<_>>()
            .join(", "),
    }
}
