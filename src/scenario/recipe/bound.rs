//! A Recipe bound to one VM: parameters filled in, its workflow resolved, its hooks understood.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::plan::model::{RecipeMode, Workload};
use crate::scenario::member::Member;
use crate::scenario::world::World;
use crate::workload::recipe::{Flow, HookKind, Recipe, Step, Work, argv};

/// The workflow that takes points, and the one that brings a VM back from one.
const BACKUP: &str = "backup";
const RESTORE: &str = "restore";
/// The timer of `virt-freezer` when its command names none.
const TIMER: Duration = Duration::from_secs(300);

/// A Recipe bound to a VM.
pub(in crate::scenario) struct Bound {
    /// Its name.
    pub(super) name: String,
    /// How it is understood.
    pub(super) mode: RecipeMode,
    /// Its workflow; `None` if it has none of the name that is looked for.
    pub(super) flow: Option<Flow>,
    /// Whether any of its hooks is there to freeze, so that its points claim to be quiesced.
    pub(super) quiesces: bool,
    /// Whether its groups are restored, not captured.
    pub(super) restores: bool,
}

/// What a command does to the guest's file systems.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// It is to freeze them, by a timer that thaws them; zero is none.
    Freeze(Duration),
    /// It is to thaw them.
    Thaw,
    /// Something else.
    Other,
}

impl Bound {
    /// The Recipe of a member's workload.
    pub(in crate::scenario) fn of(world: &World, member: &Member) -> anyhow::Result<Self> {
        let workload = &member.workload;
        let recipe = world.recipes.get(&workload.name);
        let recipe = recipe.with_context(|| format!("workload {} has no Recipe", workload.name))?;
        let timer = world.plan.deadlines().unfreeze;
        Self::new(recipe, workload.recipe_mode, member, timer)
    }

    /// The Recipe of a member's workload for bringing the VM back, if the plan names one that says how.
    pub(in crate::scenario) fn restoring(
        world: &World,
        member: &Member,
    ) -> anyhow::Result<Option<Self>> {
        let workload = &member.workload;
        let recipe = world.recipes.get(&workload.name);
        let Some(recipe) = recipe.filter(|_| workload.recipe.is_some()) else {
            return Ok(None);
        };
        let timer = world.plan.deadlines().unfreeze;
        let bound = Self::bind(recipe, workload.recipe_mode, member, timer, RESTORE)?;
        Ok(Some(bound).filter(|bound| bound.flow.is_some()))
    }

    /// Binds a Recipe to a member.
    pub(super) fn new(
        recipe: &Recipe,
        mode: RecipeMode,
        member: &Member,
        timer: Duration,
    ) -> anyhow::Result<Self> {
        Self::bind(recipe, mode, member, timer, BACKUP)
    }

    fn bind(
        recipe: &Recipe,
        mode: RecipeMode,
        member: &Member,
        timer: Duration,
        workflow: &str,
    ) -> anyhow::Result<Self> {
        let mut given = member.workload.recipe_parameters.clone();
        given.extend(own(&member.subject.namespace, &member.subject.vm, timer));
        let recipe = recipe
            .expand(&given)
            .with_context(|| format!("Recipe {}", recipe.name))?;
        let flow = recipe.flow(workflow).transpose();
        let flow = flow.with_context(|| format!("Recipe {}, workflow {workflow}", recipe.name))?;
        for namespace in flow.iter().flat_map(|flow| &flow.steps).filter_map(place) {
            ensure!(
                namespace == member.subject.namespace,
                "a hook of Recipe {} works in namespace `{namespace}`, which is not the trial's; write \
                 `namespace: ${{NAMESPACE}}`",
                recipe.name,
            );
        }
        let restores = workflow == RESTORE;
        Ok(Self {
            quiesces: !restores && quiesces(&recipe),
            restores,
            name: recipe.name,
            mode,
            flow,
        })
    }

    /// Whether its points claim to be quiesced.
    pub(in crate::scenario) const fn quiesces(&self) -> bool {
        self.quiesces
    }

    /// The hooks of its workflow in order.
    pub(super) fn hooks(&self) -> Vec<String> {
        let steps = self.flow.iter().flat_map(|flow| &flow.steps);
        let hooks = steps.filter(|step| place(step).is_some());
        hooks.map(|step| step.name.clone()).collect()
    }
}

/// The parameters that virtproof fills in.
fn own(namespace: &str, vm: &str, timer: Duration) -> BTreeMap<String, Vec<String>> {
    // A timer of less than a second would be none.
    let seconds = timer.as_secs_f64().ceil().max(1.0);
    [
        ("NAMESPACE", namespace.to_owned()),
        ("VM", vm.to_owned()),
        ("UNFREEZE_SECONDS", format!("{seconds:.0}")),
    ]
    .map(|(name, value)| (name.to_owned(), vec![value]))
    .into()
}

/// The namespace that a hook works in; `None` for what is no hook.
fn place(step: &Step) -> Option<&str> {
    Some(match &step.work {
        Work::Exec(exec) => &exec.target.namespace,
        Work::Check(condition) => &condition.target.namespace,
        Work::Scale(scale) => &scale.target.namespace,
        Work::Job(job) => &job.namespace,
        Work::Group { .. } | Work::Volumes(_) | Work::Nothing => return None,
    })
}

/// Whether a Recipe may be walked over at all, known before anything is made. In `strict` nothing freezes
/// without a timer that thaws, as nothing else of a plan does, and no hook is a Job: the published CRD
/// knows none, so an API server refuses the whole Recipe. `faithful` takes what Ramen takes.
pub fn admissible(recipe: &Recipe, workload: &Workload, timer: Duration) -> anyhow::Result<()> {
    if workload.recipe_mode == RecipeMode::Faithful {
        return Ok(());
    }
    let mut given = workload.recipe_parameters.clone();
    given.extend(own("namespace", "vm", timer));
    let name = &recipe.name;
    let recipe = recipe
        .expand(&given)
        .with_context(|| format!("Recipe {name}"))?;
    for hook in &recipe.hooks {
        ensure!(
            hook.kind != HookKind::Job,
            "hook `{}` of Recipe {name} is of type job, which the published Recipe CRD refuses; make it a \
             command in a pod, or set `recipeMode: faithful` to run it as Ramen does where the CRD knows it",
            hook.name
        );
        for op in &hook.ops {
            let words = argv(&op.command).unwrap_or_default();
            ensure!(
                effect(&words) != Effect::Freeze(Duration::ZERO),
                "`{}/{}` of Recipe {name} freezes without a timer: if nobody thaws, the guest stands still \
                 for ever; let virt-freezer freeze, with `--unfreezeTimeoutSeconds ${{UNFREEZE_SECONDS}}`",
                hook.name,
                op.name
            );
        }
    }
    Ok(())
}

fn quiesces(recipe: &Recipe) -> bool {
    let mut ops = recipe.hooks.iter().flat_map(|hook| &hook.ops);
    ops.any(|op| argv(&op.command).is_ok_and(|argv| matches!(effect(&argv), Effect::Freeze(_))))
}

/// What a command does, as far as it is known: `virt-freezer` freezes the guest, `fsfreeze` is written
/// by those who think that it does.
pub(super) fn effect(argv: &[String]) -> Effect {
    let Some((program, flags)) = argv.split_first() else {
        return Effect::Other;
    };
    let has = |flag: &str| flags.iter().any(|given| given == flag);
    match program.rsplit('/').next() {
        Some("virt-freezer") if has("--freeze") => Effect::Freeze(timer(flags)),
        Some("virt-freezer") if has("--unfreeze") => Effect::Thaw,
        Some("fsfreeze") if has("-f") || has("--freeze") => Effect::Freeze(Duration::ZERO),
        Some("fsfreeze") if has("-u") || has("--unfreeze") => Effect::Thaw,
        _ => Effect::Other,
    }
}

fn timer(flags: &[String]) -> Duration {
    let flag = "--unfreezeTimeoutSeconds";
    let mut given = flags.iter().enumerate().filter_map(|(at, word)| {
        let rest = word.strip_prefix(flag)?;
        match rest.strip_prefix('=') {
            Some(value) => Some(value),
            None if rest.is_empty() => flags.get(at + 1).map(String::as_str),
            None => None,
        }
    });
    let seconds = given.next_back().and_then(|value| value.parse().ok());
    seconds.map_or(TIMER, Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Effect {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        effect(&words)
    }

    #[test]
    fn commands_are_known_by_what_they_do() {
        let seconds = |n| Effect::Freeze(Duration::from_secs(n));
        assert_eq!(of("/usr/bin/virt-freezer --freeze --name v"), seconds(300));
        assert_eq!(
            of("virt-freezer --freeze --unfreezeTimeoutSeconds 7"),
            seconds(7)
        );
        assert_eq!(
            of("virt-freezer --freeze --unfreezeTimeoutSeconds=0"),
            seconds(0)
        );
        assert_eq!(of("virt-freezer --unfreeze"), Effect::Thaw);
        assert_eq!(of("/usr/sbin/fsfreeze -f /mnt"), seconds(0));
        assert_eq!(of("fsfreeze --unfreeze /mnt"), Effect::Thaw);
        for other in ["", "echo --freeze", "virt-freezer"] {
            assert_eq!(of(other), Effect::Other, "{other}");
        }
    }

    /// What is said of a Recipe with one hook, in a mode.
    fn refusal(hook: &serde_json::Value, mode: RecipeMode) -> Option<String> {
        let recipe = Recipe::from_value(&serde_json::json!({
            "apiVersion": crate::workload::recipe::API_VERSION,
            "kind": "Recipe",
            "metadata": {"name": "mine"},
            "spec": {"appType": "vm", "hooks": [hook]},
        }));
        let dir = std::path::Path::new(".");
        let plan = crate::plan::lab(dir, &crate::plan::Known::nothing()).expect("the lab's plan");
        let workload = Workload {
            recipe_mode: mode,
            ..plan.plan.workloads()[0].clone()
        };
        let admitted = admissible(
            &recipe.expect("a Recipe"),
            &workload,
            Duration::from_secs(20),
        );
        admitted.err().map(|error| error.to_string())
    }

    #[test]
    fn what_would_freeze_for_ever_is_refused_by_who_means_what_is_written() {
        let freezing = |seconds: &str| {
            serde_json::json!({
                "name": "vm", "namespace": "n", "type": "exec", "nameSelector": "p",
                "ops": [{"name": "freeze", "command":
                    format!("virt-freezer --freeze --name v --namespace n --unfreezeTimeoutSeconds {seconds}")}],
            })
        };
        let refused = refusal(&freezing("0"), RecipeMode::Strict).expect("refused");
        assert!(
            refused.contains("vm/freeze") && refused.contains("timer"),
            "{refused}"
        );
        assert_eq!(refusal(&freezing("0"), RecipeMode::Faithful), None);
        assert_eq!(
            refusal(&freezing("${UNFREEZE_SECONDS}"), RecipeMode::Strict),
            None
        );
    }

    #[test]
    fn jobs_are_refused_as_by_the_published_crd() {
        let job = serde_json::json!({"name": "j", "namespace": "n", "type": "job"});
        let refused = refusal(&job, RecipeMode::Strict).expect("refused");
        assert!(
            refused.contains("`j`") && refused.contains("CRD"),
            "{refused}"
        );
        assert_eq!(refusal(&job, RecipeMode::Faithful), None);
    }

    #[test]
    fn a_timer_is_never_rounded_to_none() {
        let given = own("n", "v", Duration::from_millis(300));
        assert_eq!(given["UNFREEZE_SECONDS"], ["1"]);
        assert_eq!(
            own("n", "v", Duration::from_millis(2100))["UNFREEZE_SECONDS"],
            ["3"]
        );
    }
}
