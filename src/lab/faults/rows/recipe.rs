//! Faults of Recipes: in what they say, in what their hooks meet, and in who is to thaw.

use super::{
    DATABASE, FREEZE_THAW, HOOK_FAILURE, MYSQL, NODE_DOWN, POSTGRESQL, SQLITE, THAW_GUARANTEE,
};
use crate::lab::faults::{Fault, FaultSpec, How, Phase, Place};

/// A Recipe or the reading of it is wrong; nothing is planted.
const fn written(name: &'static str, summary: &'static str) -> FaultSpec {
    FaultSpec::new(How::Clean, name, summary).at(Place::Tool, Phase::Recipe)
}

/// The agent of a guest with a database runs no hook.
const fn hookless(name: &'static str, summary: &'static str) -> FaultSpec {
    FaultSpec::lab(Fault::AgentHookless, name, summary)
        .at(Place::Guest, Phase::Recipe)
        .seen_in(DATABASE)
        .real_only()
        .fires(&["A6"])
        .sources(&[
            "qemu: qemu-ga --fsfreeze-hook",
            "debian: qemu-guest-agent.service",
        ])
}

/// A database comes back with a hole.
const fn page_lost(name: &'static str, summary: &'static str) -> FaultSpec {
    FaultSpec::lab(Fault::DatabasePageLost, name, summary)
        .at(Place::Array, Phase::Promote)
        .seen_in(DATABASE)
        .real_only()
        .fires(&["A6"])
        .doubts(&["A7"])
}

/// The rows.
pub(super) const ROWS: &[FaultSpec] = &[
    written(
        "workflow-misnamed",
        "the Recipe names its workflow as Ramen does not look for it, so that no hook runs",
    )
    .entries(&["35"])
    .seen_in(FREEZE_THAW)
    .plan(&["workloads.0.recipe=trap-misnamed-workflow"])
    .fires(&["A1"])
    .doubts(&["A4", "A5"]),
    written(
        "fsfreeze-in-the-pod",
        "the Recipe runs fsfreeze in the launcher's pod, and its error is swallowed",
    )
    .entries(&["36", "37"])
    .seen_in(FREEZE_THAW)
    .plan(&[
        "workloads.0.recipe=trap-fsfreeze-in-the-pod",
        "workloads.0.recipeMode=faithful",
    ])
    .fires(&["A1", "A5"])
    .doubts(&["A4"]),
    written(
        "hook-error-swallowed",
        "hooks without inverseOp fail, are declared to stop the capture, and it goes on",
    )
    .seen_in(HOOK_FAILURE)
    .plan(&[
        "objectives.freezeStall=15s",
        "workloads.0.recipe=vm-quiesce",
        "workloads.0.recipeMode=faithful",
    ])
    .fires(&["A5"])
    .sources(&["ramen: ExecHook.Execute returns the error only where inverseOp is set"]),
    written(
        "restore-hook-swallowed",
        "a hook behind the restore fails without inverseOp, and the restore counts as carried out",
    )
    .seen_in(NODE_DOWN)
    .plan(&[
        "workloads.0.recipe=trap-restore-hook-fails",
        "workloads.0.recipeMode=faithful",
    ])
    .fires(&["A5"])
    .sources(&["ramen: ExecHook.Execute returns the error only where inverseOp is set"]),
    FaultSpec::lab(
        Fault::AgentMissing,
        "freezer-without-agent",
        "virt-freezer finds no agent and exits with 0",
    )
    .entries(&["37"])
    .at(Place::Guest, Phase::Recipe)
    .seen_in(FREEZE_THAW)
    .fires(&["A1"])
    .doubts(&["A4"])
    .sources(&["kubevirt: cmd/virt-freezer"]),
    FaultSpec::lab(
        Fault::AgentMissing,
        "hooks-without-agent",
        "virt-freezer finds no agent and exits with 0, in workflows whose later hooks fail",
    )
    .entries(&["37"])
    .at(Place::Guest, Phase::Recipe)
    .seen_in(HOOK_FAILURE)
    .plan(&["objectives.freezeStall=15s"])
    .fires(&["A1"])
    .doubts(&["A4"])
    .sources(&["kubevirt: cmd/virt-freezer"]),
    FaultSpec::lab(
        Fault::LauncherLeft,
        "launcher-left-completed",
        "the selector also matches a launcher that a migration left Completed, and the hook goes there",
    )
    .at(Place::Controller, Phase::Recipe)
    .seen_in(FREEZE_THAW)
    .plan(&[
        "workloads.0.recipe=vm-quiesce",
        "workloads.0.recipeMode=faithful",
    ])
    .fires(&["A1", "O1"])
    .sources(&["ramen: pods of exec hooks are not filtered by phase"]),
    FaultSpec::lab(
        Fault::SnapshotOutsideFreeze,
        "silent-auto-thaw",
        "the point comes later than the freezer's timer, which thaws in silence; the thaw succeeds",
    )
    .entries(&["38"])
    .at(Place::Array, Phase::Recipe)
    .seen_in(FREEZE_THAW)
    .plan(&["deadlines.unfreeze=2s"])
    .fires(&["A4"]),
    FaultSpec::lab(
        Fault::SnapshotOutsideFreeze,
        "refreeze-keeps-the-timer",
        "each pass freezes anew, and the timer of the first freeze runs out all the same",
    )
    .at(Place::Array, Phase::Recipe)
    .seen_in(FREEZE_THAW)
    .plan(&[
        "deadlines.unfreeze=2s",
        "workloads.0.recipe=vm-quiesce",
        "workloads.0.recipeMode=faithful",
    ])
    .fires(&["A4"])
    .sources(&["ramen: a workflow is run from the top on every reconcile"]),
    FaultSpec::lab(
        Fault::TimerLost,
        "freeze-timer-lost",
        "the launcher does not thaw when the timer of a freeze runs out",
    )
    .entries(&["39"])
    .at(Place::Controller, Phase::Recipe)
    .seen_in(THAW_GUARANTEE)
    .plan(&["deadlines.unfreeze=2s"])
    .fires(&["A4"]),
    hookless(
        "agent-without-hooks",
        "the guest agent was started without -F, as Debian's unit does it: it freezes, and the hook is not run",
    )
    .plan(SQLITE),
    hookless(
        "postgresql-without-hooks",
        "the guest agent of a PostgreSQL server was started without -F: it freezes, and no checkpoint is taken",
    )
    .plan(POSTGRESQL),
    hookless(
        "mysql-without-hooks",
        "the guest agent of a MariaDB server was started without -F: it freezes, and tables stand open",
    )
    .plan(MYSQL),
    page_lost(
        "database-page-lost",
        "a page of the database is lost on the replica of a disk that carries no ledger",
    ),
    page_lost(
        "postgresql-page-lost",
        "half a page of a table of PostgreSQL is lost on the replica, from before the last checkpoint",
    )
    .plan(POSTGRESQL),
    FaultSpec::lab(
        Fault::DatabaseBehind,
        "database-behind",
        "the replica of the disk with the database stops following, that of the disks with the ledger goes on",
    )
    .at(Place::Array, Phase::Replication)
    .seen_in(DATABASE)
    .real_only()
    .fires(&["A7"]),
];
