//! The catalogue as data: what each scenario is for, what it needs, does, checks, and where the
//! idea comes from. Documentation, `list`, `explain` and the runner all read this table.

mod rows;
mod steps;

use globset::Glob;

pub use steps::Step;

use crate::plan::Plan;
use crate::plan::model::Quiesce;

/// The scenarios that exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A VM on replicated storage boots, writes, restarts and still has everything.
    BootReplicated,
    /// A planned move loses nothing that was acknowledged.
    RelocateZeroLoss,
    /// The whole primary loses power under load; the secondary takes over.
    FailoverNodeDown,
    /// The secondary takes over although the primary lives and keeps trying to write.
    FailoverPrimaryUp,
    /// The secondary takes over, serves, and everything goes home again.
    FailbackResync,
    /// A VM moves between nodes of a site while it writes.
    MigrateUnderLoad,
    /// A node is drained: its VMs move and none is killed.
    MigrateDrain,
    /// Migrations are cancelled, robbed of their target, starved: nobody is harmed.
    MigrateAbort,
    /// A VM moves while syncs cross, and a failover after that still proves out.
    MigrateDuringSync,
    /// All VMs move at once.
    MigrateMass,
    /// A sync inside a freeze is what the secondary recovers from: file systems come back clean.
    FreezeCoversReplica,
    /// A VM is restarted and moved, and stays who it is.
    BootIdentity,
    /// A VM is paused, rebooted, stopped and started while it writes.
    RestartPause,
    /// The launcher of a VM that writes is killed.
    HardKill,
    /// A disk is plugged into a VM, lives through a restart and a migration, and is taken away.
    HotplugPersist,
    /// The data disks move to other claims under load.
    StorageMigrate,
    /// A VM whose disks moved fails over.
    StorageThenFailover,
    /// A disk that is plugged into a protected VM is protected too, and there after a failover.
    HotplugProtected,
    /// A volume grows under load, and so does its replica.
    ResizeOnline,
    /// The same without a freeze: journals are replayed, and that is all that is claimed.
    CrashBaseline,
    /// A Recipe's hooks reach the guest.
    FreezeThaw,
    /// What a failed hook brings about.
    HookFailure,
    /// A guest that nobody thaws thaws by itself.
    ThawGuarantee,
    /// A database's transactions survive a failover from a quiesced replica.
    Database,
    /// A VM is put back to a snapshot: what was before is there, what came later is gone.
    SnapshotRestore,
    /// Snapshots of several disks under load hold what they claim.
    SnapshotMultiDisk,
    /// A group snapshot of several disks under load is one point.
    SnapshotDiskGroup,
    /// Clones of restores and snapshots of clones, each the point that it was taken at.
    SnapshotChain,
    /// A restored VM is protected anew, and what comes back elsewhere is the restored line.
    SnapshotThenFailover,
    /// A clone equals its source at the cut, and then each goes its own way.
    CloneIndependent,
}

/// What a scenario needs of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Replicated volumes on two sites.
    Replication,
    /// `faults.powerOff` and `faults.powerOn` in the plan.
    PowerFault,
    /// VMs that KubeVirt can live-migrate (`LiveMigratable`: ReadWriteMany claims, a network binding
    /// that moves), and a second node that can take them.
    LiveMigration,
    /// The right to cordon nodes and to evict the VMs' launchers.
    Drain,
    /// The right to make MigrationPolicies.
    MigrationPolicy,
    /// VolumeGroupSnapshots of the VMs' storage.
    GroupSnapshots,
    /// VolumeSnapshots of the VMs' storage, and KubeVirt's snapshots, restores and clones.
    Snapshots,
    /// Guests that run programs, which the lab's simulated ones do not.
    RealGuests,
}

/// A row of the catalogue.
#[derive(Debug, Clone, Copy)]
pub struct Spec {
    /// Which.
    pub kind: Kind,
    /// Stable id.
    pub id: &'static str,
    /// What it proves, in a sentence.
    pub purpose: &'static str,
    /// What it needs.
    pub needs: &'static [Need],
    /// Its steps in order.
    pub steps: &'static [Step],
    /// The checks that must come to a verdict, by id.
    pub checks: &'static [&'static str],
    /// Whether every acknowledged write must survive every move. Read-backs after a planned move owe
    /// it in any case, and say so.
    pub zero_loss: bool,
    /// Where the scenario comes from.
    pub sources: &'static [&'static str],
}

/// Whether a plan provides for something.
type Provides = fn(&Spec, &Plan) -> bool;

/// The checks that rest on something that not every plan provides for.
const RESTS_ON: &[(&str, Provides)] = &[
    ("D8", |_, plan| Step::SecondRead.is_in(plan)),
    ("M5", |_, plan| Step::ReadLeft.is_in(plan)),
    ("O6", |_, plan| !plan.unreachable().is_empty()),
    // Where no workflow is walked over by itself, a Recipe has its word in the recovery.
    ("A5", |spec, plan| {
        let mut workloads = plan.workloads().iter();
        spec.walks() || workloads.all(|workload| workload.recipe.is_some())
    }),
];

impl Spec {
    /// Its steps, as far as a plan provides for them.
    pub fn steps_in(&self, plan: &Plan) -> Vec<Step> {
        let steps = self.steps.iter().copied();
        steps.filter(|step| step.is_in(plan)).collect()
    }

    /// Whether it freezes guests.
    pub fn freezes(&self) -> bool {
        let freezing = [Step::Freeze, Step::Workflow, Step::HookFailures];
        freezing.iter().any(|step| self.steps.contains(step))
    }

    /// Whether it walks over a Recipe's workflow whatever the plan says.
    fn walks(&self) -> bool {
        let walks = [Step::Workflow, Step::HookFailures];
        walks.iter().any(|step| self.steps.contains(step))
    }

    /// Whether it runs hooks of Recipes under a plan.
    pub fn runs_hooks(&self, plan: &Plan) -> bool {
        let mut workloads = plan.workloads().iter();
        self.walks()
            || self.steps.contains(&Step::Recover) && workloads.any(|w| w.recipe.is_some())
            || self.freezes() && workloads.any(|w| w.quiesce == Quiesce::Recipe)
    }

    /// Whether it freezes guests through KubeVirt under a plan, and not only from inside.
    pub fn freezes_through_kubevirt(&self, plan: &Plan) -> bool {
        let mut workloads = plan.workloads().iter();
        self.runs_hooks(plan) || self.freezes() && workloads.any(|w| w.quiesce != Quiesce::Guest)
    }

    /// Its checks, as far as a plan provides for what they rest on.
    pub fn checks_in(&self, plan: &Plan) -> Vec<&'static str> {
        let rest = |id: &str| RESTS_ON.iter().find(|(check, _)| *check == id);
        let checks = self.checks.iter().copied();
        checks
            .filter(|id| rest(id).is_none_or(|(_, provides)| provides(self, plan)))
            .collect()
    }
}

#[cfg(test)]
const ALWAYS: &[&str] = &["D2", "D3", "D4", "D5", "D6", "D7", "O1", "O2", "O4", "G1"];

/// The catalogue, in the order in which a reader should meet it.
pub fn catalogue() -> impl Iterator<Item = &'static Spec> {
    rows::ALL.iter().copied().flatten()
}

/// The row of a scenario by id.
pub fn by_id(id: &str) -> Option<&'static Spec> {
    catalogue().find(|spec| spec.id == id)
}

/// The scenarios that the plan's ids and globs name, each once, in the plan's order; within a glob
/// in the catalogue's. The text of the first pattern that is no glob or matches nothing otherwise.
pub fn select(patterns: &[String]) -> Result<Vec<&'static Spec>, String> {
    let mut chosen: Vec<&'static Spec> = Vec::new();
    for pattern in patterns {
        let glob = Glob::new(pattern)
            .map_err(|error| error.to_string())?
            .compile_matcher();
        let mut any = false;
        for spec in catalogue().filter(|spec| glob.is_match(spec.id)) {
            any = true;
            if chosen.iter().all(|c| c.kind != spec.kind) {
                chosen.push(spec);
            }
        }
        if !any {
            let known: Vec<_> = catalogue().map(|spec| spec.id).collect();
            return Err(format!(
                "`{pattern}` matches no scenario; there are {}",
                known.join(", ")
            ));
        }
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_judges_the_image_and_cleans_up() {
        for spec in catalogue() {
            for check in ALWAYS {
                // Nothing is replicated where nothing is protected.
                let owed = *check != "O2" || spec.steps.contains(&Step::Baseline);
                assert!(
                    !owed || spec.checks.contains(check),
                    "{} lacks {check}",
                    spec.id
                );
            }
            assert_eq!(spec.steps.last(), Some(&Step::Heal), "{}", spec.id);
            let read = spec.steps.iter().position(|s| *s == Step::ReadBack);
            let load = spec.steps.iter().position(|s| *s == Step::Load);
            assert!(load < read, "{} reads before it writes", spec.id);
        }
    }

    /// Whether the first move of a scenario is made without a demotion.
    fn is_forced(spec: &Spec) -> bool {
        let promote = spec.steps.iter().position(|s| *s == Step::Promote);
        let demote = spec.steps.iter().position(|s| *s == Step::Demote);
        promote.is_some_and(|at| demote.is_none_or(|demoted| at < demoted))
    }

    #[test]
    fn zero_loss_is_owed_by_exactly_the_scenarios_that_force_nothing() {
        for spec in catalogue() {
            assert_eq!(spec.zero_loss, !is_forced(spec), "{}", spec.id);
            assert!(
                !spec.zero_loss || spec.checks.contains(&"D1"),
                "{}",
                spec.id
            );
        }
    }

    #[test]
    fn every_promotion_has_a_demotion_or_a_dead_peer_before_it() {
        for spec in catalogue() {
            let mut laid_open = false;
            for step in spec.steps {
                match step {
                    Step::Demote | Step::Fence | Step::PowerOff => laid_open = true,
                    Step::Promote => {
                        assert!(laid_open, "{} promotes beside a living writer", spec.id);
                        laid_open = false;
                    }
                    _ => {}
                }
            }
        }
    }

    #[test]
    fn what_a_plan_does_not_provide_for_is_neither_done_nor_judged() {
        let known = crate::plan::Known::nothing();
        let dir = std::path::Path::new(".");
        let with = crate::plan::lab(dir, &known).expect("the lab's plan").plan;
        let text = crate::plan::LAB.replace("  volumeSnapshotClass: lab-snapshot\n", "");
        let without = crate::plan::parse(&text, "plan.yaml", dir, &known).expect("a plan");
        let text = crate::plan::LAB.replace("    count:", "    recipe: vm-quiesce\n    count:");
        let by_recipe = crate::plan::parse(&text, "plan.yaml", dir, &known)
            .expect("a plan")
            .plan;
        let mut fewer = 0;
        for spec in catalogue() {
            assert_eq!(spec.steps_in(&with), spec.steps);
            let all = spec.checks_in(&with);
            assert!(spec.checks.iter().all(|id| all.contains(id) || *id == "A5"));
            assert_eq!(spec.checks_in(&by_recipe), spec.checks);
            let steps = spec.steps_in(&without.plan);
            let checks = spec.checks_in(&without.plan);
            let had = spec.checks_in(&with);
            assert!(!steps.contains(&Step::SecondRead) && !checks.contains(&"D8"));
            let left_out = (spec.steps.len() - steps.len(), had.len() - checks.len());
            assert_eq!(left_out.0, left_out.1, "{}: one without the other", spec.id);
            fewer += left_out.0;
        }
        assert!(fewer > 0, "no scenario has a second reader");
    }

    #[test]
    fn selection_follows_the_plan_and_repeats_nothing() {
        let ids = |patterns: &[&str]| {
            let patterns: Vec<String> = patterns.iter().map(|p| (*p).to_owned()).collect();
            select(&patterns).map(|specs| specs.iter().map(|s| s.id).collect::<Vec<_>>())
        };
        assert_eq!(
            ids(&[
                "failover.*",
                "boot.replicated",
                "failover.unplanned.node-down"
            ]),
            Ok(vec![
                "failover.unplanned.node-down",
                "failover.unplanned.primary-up",
                "boot.replicated"
            ])
        );
        assert!(ids(&["nothing.*"]).is_err_and(|e| e.contains("nothing.*")));
        assert!(ids(&["[", "boot.*"]).is_err());
    }
}
