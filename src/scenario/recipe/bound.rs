//! A Recipe bound to one VM: parameters filled in, its workflow resolved, its hooks understood.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::plan::model::RecipeMode;
use crate::scenario::member::Member;
use crate::scenario::world::World;
use crate::workload::recipe::{Flow, Recipe, Step, Target, Work, argv};

/// The workflow that is walked over.
const WORKFLOW: &str = "backup";
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
        Self::new(
            recipe,
            workload.recipe_mode,
            member,
            world.plan.deadlines().unfreeze,
        )
    }

    /// Binds a Recipe to a member.
    pub(super) fn new(
        recipe: &Recipe,
        mode: RecipeMode,
        member: &Member,
        timer: Duration,
    ) -> anyhow::Result<Self> {
        let mut given = member.workload.recipe_parameters.clone();
        given.extend(own(&member.subject.namespace, &member.subject.vm, timer));
        let recipe = recipe
            .expand(&given)
            .with_context(|| format!("Recipe {}", recipe.name))?;
        let flow = recipe.flow(WORKFLOW).transpose();
        let flow = flow.with_context(|| format!("Recipe {}, workflow {WORKFLOW}", recipe.name))?;
        for target in flow.iter().flat_map(|flow| &flow.steps).filter_map(target) {
            ensure!(
                target.namespace == member.subject.namespace,
                "a hook of Recipe {} works in namespace `{}`, which is not the trial's; write \
                 `namespace: ${{NAMESPACE}}`",
                recipe.name,
                target.namespace
            );
        }
        Ok(Self {
            quiesces: quiesces(&recipe),
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
        let hooks = steps.filter(|step| target(step).is_some());
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

/// What a step works on.
fn target(step: &Step) -> Option<&Target> {
    match &step.work {
        Work::Exec(exec) => Some(&exec.target),
        Work::Check(condition) => Some(&condition.target),
        Work::Scale(scale) => Some(&scale.target),
        Work::Job { .. } | Work::Group { .. } | Work::Volumes(_) | Work::Nothing => None,
    }
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
