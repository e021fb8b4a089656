//! The faults that the simulation plants, and why some of them leave no trace: as data.

use super::shape::Move;

/// A family of planted faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Family {
    DropAckedWrite,
    ReorderAcrossBarrier,
    GroupSkew,
    TornAckedWrite,
    BitFlip,
    MisdirectedWrite,
    SwapVolumes,
    StaleExtent,
    SkippedExtent,
    RecycledVolume,
    OlderPoint,
    SyncTimeLies,
    SyncStalled,
    ResizedDevice,
    UnreadableExtent,
    LostFinalSync,
    TwoWriters,
    LyingFlush,
    MidDelta,
    GhostWrite,
    FreshVolume,
    ResurrectedWrite,
}

/// One row of [`FAMILIES`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Spec {
    pub(super) family: Family,
    pub(super) name: &'static str,
    /// The checks of which one must fail.
    pub(super) ordained: &'static [&'static str],
    pub(super) what: &'static str,
    /// The transitions in which it can strike.
    pub(super) moves: &'static [Move],
    /// It needs two volumes.
    pub(super) group: bool,
}

const ANY: &[Move] = &[
    Move::Quiesced,
    Move::Stopped,
    Move::NodeDown,
    Move::PrimaryUp,
    Move::Restart,
];
const REPLICATED: &[Move] = &[
    Move::Quiesced,
    Move::Stopped,
    Move::NodeDown,
    Move::PrimaryUp,
];
const UNPLANNED: &[Move] = &[Move::NodeDown, Move::PrimaryUp];
const PLANNED: &[Move] = &[Move::Quiesced, Move::Stopped];

const fn row(
    family: Family,
    name: &'static str,
    ordained: &'static [&'static str],
    moves: &'static [Move],
    what: &'static str,
) -> Spec {
    Spec {
        family,
        name,
        ordained,
        what,
        moves,
        group: false,
    }
}

const fn group(spec: Spec) -> Spec {
    Spec {
        group: true,
        ..spec
    }
}

/// Every family, in the order of reports.
pub(super) const FAMILIES: &[Spec] = &[
    row(
        Family::DropAckedWrite,
        "drop-acked-write",
        &["D1", "D2", "D3"],
        REPLICATED,
        "one acknowledged write never reaches the volume that comes back",
    ),
    row(
        Family::ReorderAcrossBarrier,
        "reorder-across-barrier",
        &["D2", "D3"],
        UNPLANNED,
        "a write reaches the replica although it came after the cut",
    ),
    group(row(
        Family::GroupSkew,
        "group-skew",
        &["D3"],
        UNPLANNED,
        "each volume is cut at a moment of its own",
    )),
    row(
        Family::TornAckedWrite,
        "torn-acked-write",
        &["D4"],
        ANY,
        "some sectors of an acknowledged write are from the write before",
    ),
    row(
        Family::BitFlip,
        "bit-flip",
        &["D4"],
        ANY,
        "one bit of one cell flips",
    ),
    row(
        Family::MisdirectedWrite,
        "misdirected-write",
        &["D5"],
        REPLICATED,
        "one write lands on another cell",
    ),
    group(row(
        Family::SwapVolumes,
        "swap-volumes",
        &["D5"],
        REPLICATED,
        "two volumes are exchanged",
    )),
    row(
        Family::StaleExtent,
        "stale-extent",
        &["D1", "D2", "D3", "D6"],
        REPLICATED,
        "a run of cells is kept from an older snapshot",
    ),
    row(
        Family::SkippedExtent,
        "skipped-extent",
        &["D1", "D2", "D3", "D7"],
        REPLICATED,
        "a run of cells never reached the replica and is zero",
    ),
    row(
        Family::RecycledVolume,
        "recycled-volume",
        &["D6"],
        REPLICATED,
        "a run of cells holds another run's ledger",
    ),
    row(
        Family::OlderPoint,
        "older-point",
        &["R2"],
        UNPLANNED,
        "an older snapshot is promoted than the claimed one",
    ),
    row(
        Family::SyncTimeLies,
        "sync-time-lies",
        &["R2"],
        UNPLANNED,
        "the claimed sync time advances and the data does not",
    ),
    row(
        Family::SyncStalled,
        "sync-stalled",
        &["R1"],
        UNPLANNED,
        "replication stops long before the fault",
    ),
    row(
        Family::ResizedDevice,
        "resized-device",
        &["D7"],
        ANY,
        "a device comes back shorter or longer",
    ),
    row(
        Family::UnreadableExtent,
        "unreadable-extent",
        &["D7"],
        ANY,
        "a run of cells cannot be read",
    ),
    row(
        Family::LostFinalSync,
        "lost-final-sync",
        &["D1"],
        PLANNED,
        "a planned move promotes the last periodic snapshot",
    ),
    row(
        Family::TwoWriters,
        "two-live-writers",
        &["S1"],
        &[Move::PrimaryUp],
        "the old side goes on writing although it was said to be fenced",
    ),
    row(
        Family::LyingFlush,
        "lying-flush",
        &["D1", "D2", "D3"],
        &[Move::Restart],
        "flushes are acknowledged and not done before the power fails",
    ),
    row(
        Family::MidDelta,
        "mid-delta",
        &["D2", "D3"],
        UNPLANNED,
        "promotion while a snapshot is half transferred",
    ),
    row(
        Family::GhostWrite,
        "ghost-write",
        &["D1", "D2", "D3"],
        REPLICATED,
        "a delayed duplicate of an earlier write lands over a later one",
    ),
    row(
        Family::FreshVolume,
        "fresh-volume",
        &["D7"],
        REPLICATED,
        "a blank volume comes up in place of the replica",
    ),
    row(
        Family::ResurrectedWrite,
        "resurrected-write",
        &["S3"],
        REPLICATED,
        "the resync of the old side leaves one write that had been discarded",
    ),
];

impl Family {
    pub(super) fn spec(self) -> &'static Spec {
        let found = FAMILIES.iter().find(|spec| spec.family == self);
        // The table is complete by a test; the first row stands in so that this is total.
        found.unwrap_or(&FAMILIES[0])
    }
}

/// Why a planted fault cannot be seen by anybody who has only the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason {
    Nothing,
    SameImage,
    Unread,
    Canary,
    Unheard,
    Unacked,
    LegalPrefix,
    UnderWay,
    OtherLife,
    Overlap,
    Claim,
    WithinObjective,
}

impl Reason {
    /// Its id in counts.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing-to-strike",
            Self::SameImage => "same-image",
            Self::Unread => "unread-cells",
            Self::Canary => "canary-cells",
            Self::Unheard => "never-heard",
            Self::Unacked => "never-acked",
            Self::LegalPrefix => "legal-prefix",
            Self::UnderWay => "may-be-under-way",
            Self::OtherLife => "torn-between-loads",
            Self::Overlap => "overlap-within-a-token",
            Self::Claim => "nothing-owed-by-the-claim",
            Self::WithinObjective => "within-the-objective",
        }
    }

    /// Why it cannot be seen.
    pub(super) const fn sentence(self) -> &'static str {
        match self {
            Self::Nothing => {
                "The history held nothing of the kind that the fault strikes, so nothing was changed."
            }
            Self::SameImage => {
                "Every cell that the fault struck holds the same as without it: it was written again before the cut, or was equal at both points."
            }
            Self::Unread => "Only cold cells that the plan's stride leaves out were struck.",
            Self::Canary => {
                "Only canary cells were struck, which are written anew after each recovery and carry nothing that is judged."
            }
            Self::Unheard => {
                "Only writes are affected whose acks never reached the host before the fault, so nobody owes them."
            }
            Self::Unacked => {
                "Only writes are affected that had not been acknowledged, so they may be there or not."
            }
            Self::LegalPrefix => {
                "The image is another one that a crash may leave: nothing that is there was issued after what is missing had become durable."
            }
            Self::UnderWay => {
                "The torn write may have been under way at the recovered point: nothing that is there was issued after it had become durable."
            }
            Self::OtherLife => {
                "Sectors do not say of which load they are, and the torn cell's highest number is an earlier load's."
            }
            Self::Overlap => {
                "No ack of the old side carries a token that was sent after the new side's first ack had been heard."
            }
            Self::Claim => {
                "Sync times are whole seconds: no missing write was heard to be durable before the claimed second began."
            }
            Self::WithinObjective => {
                "The loss is within the objective, or may be within it: the objective lies inside the bracket."
            }
        }
    }
}

/// Every reason.
pub(super) const REASONS: &[Reason] = &[
    Reason::Nothing,
    Reason::SameImage,
    Reason::Unread,
    Reason::Canary,
    Reason::Unheard,
    Reason::Unacked,
    Reason::LegalPrefix,
    Reason::UnderWay,
    Reason::OtherLife,
    Reason::Overlap,
    Reason::Claim,
    Reason::WithinObjective,
];
