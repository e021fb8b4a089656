//! The faults that a lab can plant, and the moments that they can be aimed at.

/// Every fault that the lab can plant. What each does stands in its row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    /// One acknowledged write never reaches the replica, later ones do.
    DropAckedWrite,
    /// A later write reaches the replica although a flushed earlier one does not.
    ReorderAcrossBarrier,
    /// Volume B's replica is cut later than volume A's.
    GroupSkew,
    /// Half the sectors of an acked cell are from the write before.
    TornAckedWrite,
    /// One bit of a cold cell flips on the replica.
    BitFlipCold,
    /// One write lands eight cells further on.
    MisdirectedWrite,
    /// Two data volumes' replicas are exchanged.
    SwapVolumes,
    /// A run of cells on the replica is kept from the snapshot before.
    StaleExtent,
    /// The replica is a volume that still carries another run's ledger.
    RecycledVolume,
    /// An extent of the cold region never reaches the replica.
    SkippedExtent,
    /// The replica is promoted from an older snapshot than `lastSyncTime` says.
    OlderPoint,
    /// Syncs stop while replication still reports healthy.
    SyncStalled,
    /// Demote skips the final sync and still reports clean.
    RelocateWithoutFinalSync,
    /// The claim on the target is provisioned fresh and empty instead of bound to the replica.
    FreshEmptyDisk,
    /// Fencing is acknowledged and not enforced; stopping the old VM likewise.
    TwoLiveWriters,
    /// Promotion hangs far longer than it should.
    PromoteStalls,
    /// The VM on the target stays halted although it is told to run.
    VmLeftHalted,
    /// One PVC of each VM is left without replication.
    UnprotectedVolume,
    /// An object survives cleanup: its finalizer is put back.
    LeftoverAfterCleanup,
    /// The wrong guest's disks come up on the target.
    WrongGuest,
    /// Fencing and stopping are acknowledged at once and take hold later.
    FenceLate,
    /// The VM gets other MAC addresses on the target.
    MacChanged,
    /// The VM gets another firmware UUID on the target.
    FirmwareUuidChanged,
    /// The VM's data disks stand in another order on the target.
    DiskOrderChanged,
    /// The Secrets that the VM names are not there on the target.
    SecretMissing,
    /// The guest on the target reaches addresses that it must not reach.
    ReachesProduction,
    /// The side that was promoted never takes a scheduled mirror snapshot again.
    ReplicationPaused,
    /// A VolumeReplication says Completed although its volume was never promoted.
    CompletedNotPrimary,
    /// A promotion that succeeded is reported as failed for ever.
    PromotionUnrecognised,
    /// A secondary's VolumeReplication cannot be deleted.
    VrStuckTerminating,
    /// The restored PV is reserved for a claim that no longer exists.
    ClaimrefMismatch,
    /// The promotion is reported before the volume can be attached.
    VmBeforePromotion,
    /// The launcher lives on under a stopped VM, and the demotion does not mind.
    DemoteUnderRunningVm,
    /// Lifting a fence is acknowledged and not carried out.
    BlocklistLeft,
    /// No csi-addons sidecar of the driver leads.
    NoLeader,
    /// The root volume is a clone whose parent is not mirrored.
    ParentNotMirrored,
    /// Somebody deletes a primary's VolumeReplication, and the replica goes with it.
    ReplicaRemovedWithVr,
    /// The guest makes itself new SSH host keys on the target.
    NewIdentity,
    /// The clocks of the sites' control planes are off.
    ClusterClockSkew,
    /// The guest agent does not run.
    AgentMissing,
    /// The guest agent runs no hooks around a freeze.
    AgentHookless,
    /// The guest agent answers late.
    AgentSlow,
    /// Nothing listens for SSH in the guest on the target.
    SshdDown,
    /// SSH comes up late in the guest on the target.
    SshdSlow,
    /// The guests' clocks are off.
    GuestClock,
    /// The guest's file systems are frozen and nobody thaws them.
    GuestFrozen,
    /// The guest reboots by itself.
    GuestReboots,
    /// Ledger files lie on a file system whose journal is replayed before the read-back.
    JournalReplay,
    /// A freeze acts on the launcher's pod, says that it succeeded, and the guest knows nothing of it.
    FreezeInPod,
    /// The agent cannot freeze, and its error is swallowed.
    FreezeSwallowed,
    /// A freeze takes longer than virt-api waits for it.
    FreezeSlow,
    /// The launcher does not thaw when the timer of a freeze runs out.
    TimerLost,
    /// `fsfreeze` in the guest ends with 0 and neither freezes nor thaws.
    FsfreezeIdles,
    /// A thaw inside the guest is answered and lost on its way.
    GuestThawLost,
    /// What holds a freeze inside the guest is killed, and its timer with it.
    HolderKilled,
    /// Beside each launcher lies one that an earlier migration left Completed.
    LauncherLeft,
    /// A freeze keeps writers out and leaves the journal as it is.
    FreezeUnclean,
    /// A thaw is acknowledged and not carried out.
    ThawSwallowed,
    /// A page of the database in the guest is lost on the replica.
    DatabasePageLost,
    /// The replica of the volume with the database stops following while the others go on.
    DatabaseBehind,
    /// No mirror snapshot is taken while file systems are frozen.
    SnapshotOutsideFreeze,
    /// Every stream to the guests breaks well before the site does.
    AckStreamCut,
    /// Every answer of the API servers comes late.
    ApiLatency,
    /// Another writer is first on every so many changes.
    ApiConflicts,
    /// Priority and fairness rejects a share of the requests for a while.
    ApiThrottled,
    /// Priority and fairness rejects every write, for good.
    ApiThrottledForever,
    /// A share of the requests fails on the server; half of the failed writes took place.
    ApiErrors,
    /// A share of the answers, watches among them, breaks off in the middle.
    ApiResets,
    /// Watches end soon because their version is too old.
    WatchGone,
    /// Watches stay open and say nothing.
    WatchStalled,
    /// Status lags behind the spec, and watches behind the store.
    StaleGeneration,
    /// Every port-forward breaks after a while.
    PortForwardFlaps,
    /// The agent thaws by itself right after a freeze, and its next thaw says so.
    AgentGivesUp,
    /// The agent thaws by itself right after a freeze, and nobody is told.
    AgentGivesUpUnseen,
    /// A VolumeSnapshot stays unready for ever after an error that was cleared.
    SnapshotNeverReady,
    /// Flushes are acknowledged while the data stays in a cache that is lost.
    LyingFlush,
    /// A part of the newest delta is on the promoted replica.
    MidDeltaPromote,
    /// The promoted device is shorter than its source.
    TruncatedDevice,
    /// The promoted device is longer than its source.
    EnlargedDevice,
    /// Reads of an extent of the promoted device fail.
    UnreadableExtent,
    /// The guest reads through a cache that holds older data.
    StaleReadCache,
    /// `lastSyncTime` advances, data does not.
    SyncTimeLies,
    /// A resync copies the older side over the new primary.
    ResyncOverwritesPrimary,
    /// A resync deletes the image and does not make it again.
    ResyncDeletesGoodImage,
    /// A resync is said to go on and never begins.
    ResyncNeverProgresses,
    /// A volume that follows again is called split and degraded for ever.
    DegradedForever,
    /// The snapshot schedule is not set after a failover.
    ScheduleNotRearmed,
    /// The way back copies up to the latest mirror snapshot and no further.
    ResyncToLastSnapshot,
    /// A planned promotion is refused as busy and forced in silence.
    BusyPromoteForced,
    /// The image is demoted behind an object that says primary.
    BackendDemoted,
    /// A delta is lost for good while the replica counts as idle and whole.
    ReplicaCorruptIdle,
    /// Legal: a write under way at the cut is torn on the replica.
    TornInFlight,
    /// Legal: writes that no flush covered are lost.
    UnsyncedRollback,
    /// Legal: some of the writes that no flush covered are kept, in any order.
    ReorderWithoutBarrier,
    /// Legal: storage is many times slower.
    SlowStorage,
    /// The guest stands still for long while it migrates.
    PauseAtMigration,
    /// The guest is rebooted on the other node instead of migrated.
    RebootForMigration,
    /// Both launchers of a migration stay alive, and both write.
    TwoLaunchers,
    /// The target of a migration lacks what the source held in its cache.
    DirtyCacheLost,
    /// An eviction ends the launcher instead of having its guest migrated.
    EvictionKills,
    /// An eviction is told to have triggered an evacuation, and no migration comes.
    EvacuationNeverComes,
    /// A migration that was given up is said to have failed, and the guest is at the target.
    FailedButMoved,
    /// A migration that failed is said to have succeeded.
    FailureHidden,
    /// After a migration that was given up, what was copied goes on at the target too.
    AbortLeavesTwo,
    /// The loss of its target takes the guest of a migration down.
    TargetTakesSource,
    /// Of many guests that migrate, one is rebooted on the way.
    OneOfManyRebooted,
    /// Of many guests that are to migrate, one never gets its turn.
    OneOfManyLeft,
    /// No sync crosses any more once a guest has migrated.
    MoveStopsSync,
    /// Once a guest has migrated its syncs are told and not done.
    MoveBlindsSync,
    /// The kernel on the target gives the data disks other names.
    DisksRenamed,
    /// A pause is acknowledged and reported, and the guest runs on.
    PauseSwallowed,
    /// A guest goes on long after its pause is said to be over.
    UnpauseLate,
    /// A guest is reset when its pause is over.
    ResetForUnpause,
    /// A soft reboot is acknowledged and the guest does not react.
    SoftRebootSwallowed,
    /// A launcher that is deleted by force lives on.
    KillSwallowed,
    /// A hotplugged volume is said to be ready and the guest never gets the disk.
    PlugUnseen,
    /// A hotplugged volume reaches the VMI alone, and is gone after a restart.
    PlugForgotten,
    /// The guest stands still while it gets a disk.
    PlugStalls,
    /// Another disk of the guest is taken away than the one that was to be.
    UnplugWrongDisk,
    /// The members of a group snapshot are cut one after the other.
    GroupSnapshotSkew,
    /// Writes during the copy of a disk that moves to another volume are not on the copy.
    CopyMissesWrites,
    /// A disk is said to have moved to another volume, and the guest writes to the old one.
    MoveIsNoOp,
    /// A disk that moved to another volume is replicated in name only.
    MovedDiskUnprotected,
    /// A volume that joins a group under load is left out of its mirror snapshots.
    JoinerLeftOut,
    /// A volume has grown, and its guest is never told.
    ResizeUnseen,
    /// A replica keeps the size that it had when its volume was small.
    ReplicaKeepsSize,
    /// What a volume has grown by is not blank.
    GrownRecycled,
    /// A restore says that it is complete and leaves every volume as it is.
    RestoreIsNoOp,
    /// A volume that is made from a snapshot lacks one write that the snapshot holds.
    RestoreLosesWrite,
    /// A volume that is made from a snapshot shares its blocks with the snapshot's source.
    CloneSharesBlocks,
    /// The replica of a restored volume holds what was replicated before the restore.
    ReplicaOfDiscarded,
}

/// A moment of a run that a fault can be aimed at: until it comes, the fault sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Moment {
    /// Every VM of the first trial writes.
    Load,
    /// A mirror snapshot with writes of a load begins to cross.
    SyncStart,
    /// A mirror snapshot with writes of a load has crossed.
    SyncEnd,
    /// A volume is being demoted.
    Demote,
    /// A volume is being promoted.
    Promote,
    /// A guest's file systems were just frozen.
    Freeze,
    /// A guest's file systems were just thawed.
    Thaw,
    /// A guest boots on the secondary.
    Boot,
}

impl Moment {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::Load,
        Self::SyncStart,
        Self::SyncEnd,
        Self::Demote,
        Self::Promote,
        Self::Freeze,
        Self::Thaw,
        Self::Boot,
    ];

    /// Its name after the `@` of `--fault NAME@MOMENT`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::SyncStart => "sync-start",
            Self::SyncEnd => "sync-end",
            Self::Demote => "demote",
            Self::Promote => "promote",
            Self::Freeze => "freeze",
            Self::Thaw => "thaw",
            Self::Boot => "boot",
        }
    }
}
