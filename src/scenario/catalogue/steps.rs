//! The steps that scenarios are made of, in the field's order: settle, baseline, load, transition,
//! quiesce, cold read, canary, and the way back.

use crate::plan::Plan;

/// A step. Those that move a VM work from the site where it is to the other one, whichever that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Make the VMs on the primary and wait until they run and answer over SSH.
    Provision,
    /// Upload the probe, open the data volumes and fill the cold regions.
    Seed,
    /// Protect every PVC and wait for a full sync of everything seeded.
    Baseline,
    /// Write for as long as the plan says, replication going on.
    Load,
    /// Live-migrate the VMs to other nodes while their writers write, as often as the plan says.
    Migrate,
    /// Spoil live migrations on their way: cancel one, kill the target of one, starve one.
    Abort,
    /// Live-migrate the VMs again and again until three syncs have crossed meanwhile.
    MigrateAcross,
    /// Drain the nodes that carry the VMs, one after the other.
    Drain,
    /// Live-migrate all VMs at once.
    MigrateAll,
    /// Stop the writers with full accounting.
    Quiesce,
    /// Restart the VMs where they are.
    Restart,
    /// Pause the VMs under load and let them go on.
    Pause,
    /// Have the guests reboot themselves under load.
    SoftReboot,
    /// Stop the VMs and start them again under load, as a user would.
    StopStart,
    /// Kill the launchers of the VMs under load.
    Kill,
    /// Plug a further disk into the running guests and have a ledger written on it.
    Plug,
    /// Read that disk back and take it away under load.
    Unplug,
    /// Protect that disk with the others and wait for a sync of them all.
    Join,
    /// Grow a volume of the VMs under load and have a ledger written on what it grew by.
    Grow,
    /// Stop the VMs while their writers still write.
    StopSource,
    /// Cut the power of the whole primary.
    PowerOff,
    /// Keep the site that is left from writing any more, by the plan's fencing method.
    Fence,
    /// Demote every volume where the VMs ran and wait for the last sync.
    Demote,
    /// Bring PVs and PVCs to the other site.
    HandOver,
    /// Promote every volume on the other site, where the VMs are to be from then on.
    Promote,
    /// Make and start the VMs on the site that took over and wait until they run.
    Recover,
    /// Freeze the guests' file systems, by a timer that thaws them in any case.
    Freeze,
    /// Wait until a sync that began after the freeze has crossed.
    Capture,
    /// Thaw the guests' file systems and wait until they are written to again.
    Thaw,
    /// Leave the guests' file systems frozen until their timer thaws them.
    Abandon,
    /// Walk over the `backup` workflow of the Recipe, with a point of the replication for each group.
    Workflow,
    /// Walk over workflows whose hooks fail, in every way and under each `onError`.
    HookFailures,
    /// Make a database in the guests and commit one transaction after the other, until the guests end.
    Commit,
    /// Open the databases on the site that took over and read what came back.
    ReadDatabase,
    /// Look at the file systems past any mount, then have them mounted and checked.
    Look,
    /// Open the volumes read-only, write the canaries, then read everything back.
    ReadBack,
    /// Read clones of the volumes through another guest.
    SecondRead,
    /// Move the data disks to other claims while their writers write.
    MoveStorage,
    /// Read copies of the claims that the disks left behind, through another guest.
    ReadLeft,
    /// Take a snapshot of the VM through KubeVirt and wait until it can be restored.
    Snapshot,
    /// Take a group snapshot of the VM's claims and wait until it can be restored.
    SnapshotGroup,
    /// Read copies of the volumes, made from the newest snapshot, through another guest.
    ReadCut,
    /// End replication of the volumes; the replicas are given up with it.
    Release,
    /// Stop the VM and put its volumes back to the newest snapshot.
    Restore,
    /// Clone the VM through KubeVirt.
    Clone,
    /// Start the clone, or restart it, and read it back.
    ReadClone,
    /// Write a load on the clone until it is stopped.
    ServeClone,
    /// Go on with the clone in the VM's place.
    Succeed,
    /// Write a second load where the VMs are now; it goes on until something ends it.
    Serve,
    /// Halt the VMs on the site that was left, then lift its fence.
    Unfence,
    /// Make the site that was left the replica again and wait until it is protected.
    Reprotect,
    /// Start the VMs that stand halted on the site that they came from.
    Return,
    /// Let the old side come back, unfence it, and undo everything.
    Heal,
}

impl Step {
    /// The step's name in events and reports, and what it does, for `explain`.
    #[expect(clippy::too_many_lines, reason = "a table: two lines a step")]
    const fn told(self) -> (&'static str, &'static str) {
        match self {
            Self::Provision => (
                "provision",
                "make the VMs on the primary; wait until they run and answer over SSH",
            ),
            Self::Seed => (
                "seed",
                "upload the probe, open the data volumes, fill their cold regions",
            ),
            Self::Baseline => (
                "baseline",
                "replicate every PVC; wait for a full sync of everything seeded",
            ),
            Self::Load => (
                "load",
                "write for as long as the plan says, replication going on",
            ),
            Self::Migrate => (
                "migrate",
                "live-migrate the VMs under load, as often as the plan says",
            ),
            Self::Abort => (
                "abort",
                "cancel one live migration, kill the target of one, starve one; let the next one through",
            ),
            Self::MigrateAcross => (
                "migrate-across",
                "live-migrate the VMs again and again until three syncs have crossed meanwhile",
            ),
            Self::Drain => (
                "drain",
                "cordon each node that carries a VM, evict the VM's launcher until it is gone, uncordon",
            ),
            Self::MigrateAll => (
                "migrate-all",
                "ask for the live migration of all VMs at once, at the plan's pace",
            ),
            Self::Quiesce => (
                "quiesce",
                "stop the writers and account for everything issued",
            ),
            Self::Restart => (
                "restart",
                "stop and start the VMs where they are; the boot id must change",
            ),
            Self::Pause => (
                "pause",
                "pause the VMs under load for three seconds, then let them go on",
            ),
            Self::SoftReboot => (
                "soft-reboot",
                "have the guests reboot themselves under load; wait for another boot",
            ),
            Self::StopStart => (
                "stop-start",
                "stop and start the VMs under load by their subresources; another VMI must run",
            ),
            Self::Kill => (
                "kill",
                "kill the launchers under load; wait until the run strategy brought the VMs back",
            ),
            Self::Plug => (
                "plug",
                "plug a further disk into the running guests; write a ledger on it beside the load",
            ),
            Self::Unplug => (
                "unplug",
                "read the plugged disk back and take it away while the others are written to",
            ),
            Self::Join => (
                "join",
                "protect the plugged disk with the others; wait for a sync of them all",
            ),
            Self::Grow => (
                "grow",
                "double a raw volume under load; wait until the guest shows it; write a ledger behind its old end",
            ),
            Self::StopSource => (
                "stop-source",
                "stop the VMs while their writers still write",
            ),
            Self::PowerOff => (
                "power-off",
                "cut the power of every node of the primary under load",
            ),
            Self::Fence => (
                "fence",
                "keep the living site that is left from writing, by the plan's fencing method",
            ),
            Self::Demote => (
                "demote",
                "demote every volume where the VMs ran; wait until the last data crossed",
            ),
            Self::HandOver => (
                "hand-over",
                "bring PVs and PVCs to the other site, bound to the replicas",
            ),
            Self::Promote => (
                "promote",
                "promote every volume on the other site, through the gate",
            ),
            Self::Recover => (
                "recover",
                "make and start the VMs on the site that took over; wait until they run",
            ),
            Self::Freeze => (
                "freeze",
                "freeze the guests' file systems, with a timer that thaws them in any case",
            ),
            Self::Capture => (
                "capture",
                "wait until a sync that began after the freeze has crossed for every volume",
            ),
            Self::Thaw => (
                "thaw",
                "thaw the guests' file systems; wait until they are written to again",
            ),
            Self::Abandon => (
                "abandon",
                "thaw nothing; wait until the timer has thawed the guests and they write again",
            ),
            Self::Workflow => (
                "workflow",
                "walk over the Recipe's backup workflow, with a point of the replication for each group",
            ),
            Self::HookFailures => (
                "hook-failures",
                "walk over workflows whose hooks fail, in every way and under each onError, the last with the guest agent stopped",
            ),
            Self::Commit => (
                "commit",
                "make a database in the guests; commit one transaction after the other beside the load",
            ),
            Self::ReadDatabase => (
                "read-database",
                "open the databases before anything but the boot has written; have them checked and read",
            ),
            Self::Look => (
                "look",
                "look at the file systems past any mount, then have them mounted and checked",
            ),
            Self::ReadBack => (
                "read-back",
                "open the volumes, write one canary each, read everything back cold",
            ),
            Self::SecondRead => (
                "second-read",
                "read clones of the volumes through another guest, if the plan has a snapshot class",
            ),
            Self::MoveStorage => (
                "move-storage",
                "have KubeVirt move the data disks to claims of another class under load, in one order",
            ),
            Self::ReadLeft => (
                "read-left",
                "read copies of the claims that were left behind, if the plan has a snapshot class",
            ),
            Self::Snapshot => (
                "snapshot",
                "take a VirtualMachineSnapshot; wait until it can be restored",
            ),
            Self::SnapshotGroup => (
                "snapshot-group",
                "take a VolumeGroupSnapshot of the VM's claims; wait until it can be restored",
            ),
            Self::ReadCut => (
                "read-cut",
                "restore copies of the newest snapshot beside the VM and read them in another guest",
            ),
            Self::Release => (
                "release",
                "end replication of the volumes and give up their replicas",
            ),
            Self::Restore => (
                "restore",
                "stop the VM and put its volumes back to the newest snapshot, in place",
            ),
            Self::Clone => ("clone", "clone the VM by a VirtualMachineClone"),
            Self::ReadClone => (
                "read-clone",
                "start the clone, or restart it, and read it back",
            ),
            Self::ServeClone => (
                "serve-clone",
                "write a load on the clone, then stop it with a full account",
            ),
            Self::Succeed => (
                "succeed",
                "start the clone and go on with it in the VM's place",
            ),
            Self::Serve => (
                "serve",
                "write a second load on what was recovered; it goes on until it is stopped",
            ),
            Self::Unfence => (
                "unfence",
                "halt the old VMs, which may run behind the fence, then lift it",
            ),
            Self::Reprotect => (
                "reprotect",
                "give up the old site's copies; wait until they follow again and synced twice",
            ),
            Self::Return => (
                "return",
                "start the VMs that stand halted on the site that they came from",
            ),
            Self::Heal => (
                "heal",
                "bring the old side back, unfence it, undo everything",
            ),
        }
    }

    /// Its name in events and reports.
    pub const fn name(self) -> &'static str {
        self.told().0
    }

    /// What it does, for `explain`.
    pub const fn does(self) -> &'static str {
        self.told().1
    }

    /// Whether it only gathers evidence that one check needs: where it cannot, the trial goes on and
    /// that check has nothing to judge.
    pub const fn only_looks(self) -> bool {
        matches!(self, Self::SecondRead | Self::ReadLeft | Self::Look)
    }

    /// Whether a plan provides for it.
    pub(super) fn is_in(self, plan: &Plan) -> bool {
        !matches!(self, Self::SecondRead | Self::ReadLeft)
            || plan.protection().volume_snapshot_class.is_some()
    }
}
