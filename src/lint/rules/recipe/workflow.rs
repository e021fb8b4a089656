//! The workflows of a Recipe: what is looked up, and what its references lead to.

use super::{Case, rules};
use crate::lint::object::Findings;
use crate::plan::problem::suggest;
use crate::workload::recipe::{FailOn, Unresolved, Work, Workflow};

rules! {
    NAME = "recipe-workflow-name" Error
        "Only workflows named `backup` and `restore` are ever looked up. Any other name is accepted and never run."
        fix "Name the workflow `backup` or `restore`; a recipeRef cannot choose another."
        source "Ramen: recipe workflows; a real controller accepted it without a word";
    NO_BACKUP = "recipe-no-backup" Error
        "Without a workflow `backup` the whole namespace is captured by default, and no hook ever runs. There is no warning."
        fix "Add a workflow `backup` with the hooks and groups in order."
        source "Ramen: recipe workflows";
    NO_RESTORE = "recipe-no-restore" Warning
        "Without a workflow `restore` the default restores the whole namespace from a backup named `default`, which a `backup` workflow does not make."
        fix "Add a workflow `restore` with at least one group."
        source "Ramen: recipe workflows";
    EMPTY = "recipe-empty-sequence" Error
        "An empty sequence has no first request: the controller logs `first request not found` and tries again for ever."
        fix "Put at least one group into the sequence."
        source "Ramen: recipe workflows";
    NO_GROUP = "recipe-no-group" Error
        "A sequence must hold at least one group; with hooks alone the Recipe is refused when it is read, and the VRG shows DataReady False."
        fix "Add `- group: NAME` between the hooks."
        source "Ramen: recipe workflows";
    REFERENCE = "recipe-hook-reference" Error
        "A hook step must be `hook/op` with exactly one slash, else the VRG shows DataReady False and is not tried again."
        fix "Write `hook: HOOK/OP`."
        source "Ramen: recipe workflows";
    UNKNOWN_HOOK = "recipe-unknown-hook" Error
        "A step that names no hook makes the VRG show DataReady False, `Failed to get recipe`, and it is not tried again."
        fix "Name a hook of `spec.hooks`."
        source "Ramen: recipe workflows; a real controller's answer";
    UNKNOWN_OP = "recipe-unknown-op" Error
        "A step whose hook has no such operation is passed over in silence: one line in the operator's log, and the workflow succeeds."
        fix "Name an operation of the hook: `ops` of an exec hook, `chks` of a check hook."
        source "Ramen: recipe workflows";
    UNKNOWN_GROUP = "recipe-unknown-group" Error
        "A step that names no group makes the VRG show DataReady False, `Failed to get recipe`, and it is not tried again."
        fix "Name a group of `spec.groups`."
        source "Ramen: recipe workflows";
    PANIC = "recipe-group-panics" Error
        "The controller looks for a group that is not in `spec.groups` at `spec.volumes`, and there is none: every reconcile panics, and the next PVC event in the namespace kills the whole manager."
        fix "Name a group of `spec.groups`; leave volumes out of the sequence."
        source "measured on a real controller, twice";
    VOLUMES = "recipe-volumes-in-sequence" Error
        "The volumes group only replaces the PVC selector. In a sequence it leaves an empty step behind: a capture or restore of everything, without a filter. It replicates nothing and nothing waits for it."
        fix "Remove the step; `spec.volumes` works without it."
        source "Ramen: recipe workflows";
    KEY = "recipe-step-key" Error
        "A step is `group: NAME` or `hook: HOOK/OP`; with any other key the Recipe is refused when it is read."
        fix "Write `group:` or `hook:`."
        source "Ramen: recipe workflows";
    TWO_KEYS = "recipe-step-two-keys" Error
        "Of a step with several keys the controller keeps one, by chance."
        fix "Write each group and hook as an item of its own."
        source "Ramen: recipe workflows";
    ESSENTIAL = "recipe-essential-unset" Warning
        "`essential` is false when it is not set, whatever the API's comment says, and a restore never looks at a group's. So with `essential-error` nothing stops the workflow."
        fix "Set `essential: true` on what must not fail, or take `failOn: any-error`."
        source "Ramen: recipe workflows";
    FULL_ERROR = "recipe-full-error" Warning
        "With `full-error` no failed step stops the workflow: what is left of it counts as captured or restored."
        fix "Take `failOn: any-error`, which is the default."
        source "Ramen: recipe workflows";
    NOT_AWAITED = "recipe-restore-not-awaited" Warning
        "A restore that does not fail on any error does not wait for its groups, and can count as complete in its first pass."
        fix "Take `failOn: any-error` for `restore`, which is the default."
        source "Ramen: recipe workflows";
    AGAIN = "recipe-runs-again" Note
        "Steps run from the first on at every reconcile: a pass ends at the first unfinished group, and the next one runs all hooks before it again. After 10 unfinished passes in a row the controller gives up, which a slow Velero can reach in under a minute."
        fix "Make every operation safe to repeat; watch for KubeObjectsCaptureError and an old captureToRecoverFrom."
        source "Ramen: recipe execution";
}

/// Whether a workflow of this name is ever looked up.
pub(in crate::lint) fn is_known(name: &str) -> bool {
    matches!(name, "backup" | "restore")
}

pub(super) fn check(case: &Case<'_>, out: &mut Findings) {
    let recipe = &case.recipe;
    for workflow in recipe
        .workflows
        .iter()
        .filter(|workflow| !is_known(&workflow.name))
    {
        let what = format!("nobody ever runs the workflow `{}`", workflow.name);
        out.add(NAME, case.object, &format!("{}/name", workflow.path), what);
    }
    let written = !recipe.workflows.is_empty() || !recipe.hooks.is_empty();
    let backup = recipe.workflow("backup").is_some();
    if written && !backup {
        out.add(
            NO_BACKUP,
            case.object,
            "spec/workflows",
            "there is no workflow `backup`",
        );
    }
    if backup && recipe.workflow("restore").is_none() {
        out.add(
            NO_RESTORE,
            case.object,
            "spec/workflows",
            "there is no workflow `restore`",
        );
    }
    for workflow in &recipe.workflows {
        sequence(case, workflow, out);
        fail_on(case, workflow, out);
    }
}

fn sequence(case: &Case<'_>, workflow: &Workflow, out: &mut Findings) {
    let path = format!("{}/sequence", workflow.path);
    // A sequence that the API server refuses has been told of.
    if workflow.sequence.is_empty() && case.object.get(&path).is_array() {
        out.add(
            EMPTY,
            case.object,
            &path,
            format!("the sequence of `{}` is empty", workflow.name),
        );
    }
    let hooks_only = workflow
        .sequence
        .iter()
        .flatten()
        .all(|(key, _)| key != "group");
    if !workflow.sequence.is_empty() && hooks_only {
        let what = format!("the sequence of `{}` holds no group", workflow.name);
        out.add(NO_GROUP, case.object, &path, what);
    }
    for (index, entry) in workflow.sequence.iter().enumerate() {
        if entry.len() > 1 {
            let keys: Vec<&str> = entry.iter().map(|(key, _)| key.as_str()).collect();
            let what = format!("the step has the keys {}", keys.join(" and "));
            out.add(TWO_KEYS, case.object, &format!("{path}/{index}"), what);
        }
    }
    for step in case.recipe.steps(workflow) {
        match step {
            Ok(step) => match &step.work {
                Work::Nothing => unknown_op(case, &step.path, &step.name, out),
                Work::Volumes(group) => {
                    let what = format!("the step names the volumes group `{}`", group.name);
                    out.add(VOLUMES, case.object, &format!("{}/group", step.path), what);
                }
                _ => {}
            },
            Err(unresolved) => lost(case, &unresolved, out),
        }
    }
    let runs_hook = |(name, step): &&(String, _)| {
        let step: &crate::workload::recipe::Step = step;
        *name == workflow.name
            && matches!(step.work, Work::Exec(_) | Work::Scale(_) | Work::Job { .. })
    };
    if let Some((_, step)) = case.steps.iter().find(runs_hook) {
        let what = format!(
            "`{}` runs several times in one `{}`",
            step.name, workflow.name
        );
        out.add(AGAIN, case.object, &step.path, what);
    }
}

fn unknown_op(case: &Case<'_>, path: &str, name: &str, out: &mut Findings) {
    let (hook, op) = name.split_once('/').unwrap_or((name, ""));
    let known = case.recipe.hook(hook).into_iter().flat_map(|hook| {
        let ops = hook.ops.iter().map(|op| op.name.as_str());
        ops.chain(hook.checks.iter().map(|check| check.name.as_str()))
    });
    let hint = suggest(op, known, "it has no operation like it");
    let what = format!("the hook `{hook}` has no `{op}`; {hint}");
    out.add(UNKNOWN_OP, case.object, &format!("{path}/hook"), what);
}

fn lost(case: &Case<'_>, unresolved: &Unresolved, out: &mut Findings) {
    let groups = || case.recipe.groups.iter().map(|group| group.name.as_str());
    let hooks = || case.recipe.hooks.iter().map(|hook| hook.name.as_str());
    let (rule, leaf, what) = match unresolved {
        Unresolved::Reference { reference, .. } => (
            REFERENCE,
            "hook",
            format!("`{reference}` is not of the form hook/op"),
        ),
        Unresolved::Hook { hook, .. } => {
            let hint = suggest(hook, hooks(), "there is none like it");
            (
                UNKNOWN_HOOK,
                "hook",
                format!("there is no hook `{hook}`; {hint}"),
            )
        }
        Unresolved::Group { group, .. } => {
            let hint = suggest(group, groups(), "there is none like it");
            (
                UNKNOWN_GROUP,
                "group",
                format!("there is no group `{group}`; {hint}"),
            )
        }
        Unresolved::Panic { group, .. } => {
            let what = format!("there is no group `{group}` and no `spec.volumes`");
            (PANIC, "group", what)
        }
        Unresolved::Key { key, .. } => (
            KEY,
            key.as_str(),
            format!("`{key}` is neither `group` nor `hook`"),
        ),
        Unresolved::NoGroup { .. } => return,
    };
    out.add(
        rule,
        case.object,
        &format!("{}/{leaf}", unresolved.path()),
        what,
    );
}

fn fail_on(case: &Case<'_>, workflow: &Workflow, out: &mut Findings) {
    let path = format!("{}/failOn", workflow.path);
    let name = &workflow.name;
    if !is_known(name) {
        return;
    }
    if workflow.fail_on == FailOn::FullError {
        out.add(
            FULL_ERROR,
            case.object,
            &path,
            format!("`{name}` never stops"),
        );
    }
    let mut own = case.steps.iter().filter(|(of, _)| of == name);
    if workflow.fail_on == FailOn::EssentialError && !own.any(|(_, step)| step.essential) {
        let what = format!("no step of `{name}` is essential");
        out.add(ESSENTIAL, case.object, &path, what);
    }
    if name == "restore" && workflow.fail_on != FailOn::AnyError {
        let what = format!("`restore` fails on {} only", workflow.fail_on.text());
        out.add(NOT_AWAITED, case.object, &path, what);
    }
}
