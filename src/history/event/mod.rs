//! The facts that a run records and the checks judge. Adding a variant or an optional field is
//! compatible; anything else raises [`VERSION`].

use serde::{Deserialize, Serialize};

use crate::probe::frame::{Identity, Opened};
use crate::probe::layout::Layout;

mod basic;
mod cut;
mod database;
mod evict;
mod hotplug;
mod inside;
mod lifecycle;
mod line;
mod live;
mod parts;
mod phase;
mod recipe;
mod storage;
pub use basic::{Outcome, Site};
pub use cut::{CutClaims, CutFact, CutState, CutVolume, RestoreFact};
pub use database::{DatabaseFact, Left, RowsFact};
pub use evict::{EvictionFact, Spoil};
pub use hotplug::{HotplugFact, ResizeFact};
pub use inside::{InsideDisk, InsideFact};
pub use lifecycle::{Deed, LifecycleFact};
pub use line::{Event, VERSION};
pub use live::{CaptureFact, FileSystemFact, FreezeFact, MigrationFact};
pub use parts::{
    ConditionFact, LedgerMode, Purpose, ReadVia, ReplicationFact, Reprotect, Residue, ScanFact,
    ShapeFact, Stage, VolumeFact,
};
pub use recipe::RecipeFact;
pub use storage::{MovedDisk, StorageFact};

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "type")]
pub enum Fact {
    /// The run begins. First event of every history.
    RunStarted {
        /// Run id, 32 hex digits.
        run_id: String,
        /// The seed behind every random choice.
        seed: u64,
        /// The version of virtproof.
        tool: String,
        /// BLAKE3 of the plan text, hex.
        plan_blake3: String,
        /// How the run was invoked, secrets never included.
        argv: Vec<String>,
        /// Whether the sites are simulated.
        lab: bool,
    },
    /// What ran, byte for byte.
    Tool {
        /// SHA-256 of the executable, hex; absent when it could not be read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sha256: Option<String>,
        /// BLAKE3 of the probe that is put into guests, hex.
        probe_blake3: String,
    },
    /// What was asked of both sites before anything was done.
    Preflight {
        /// Questions.
        asked: u64,
        /// What is missing, `site: what: trouble`.
        missing: Vec<String>,
    },
    /// Which cluster a site is, and the classes that the plan names, as they stood.
    SiteClasses {
        /// The site.
        site: Site,
        /// UID of its `kube-system` namespace, if that may be read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cluster: Option<String>,
        /// `Kind/name` → BLAKE3 of the class but its metadata, hex.
        classes: std::collections::BTreeMap<String, String>,
    },
    /// A site answered and said what it runs.
    SiteSeen {
        /// The site.
        site: Site,
        /// Kubernetes version.
        kubernetes: String,
        /// KubeVirt version, if a KubeVirt object could be read.
        kubevirt: Option<String>,
        /// The API server's clock minus this host's, milliseconds, with half the round trip as
        /// bound.
        clock_skew_ms: i64,
        /// Bound on that difference.
        clock_bound_ms: u64,
    },
    /// A trial begins: one scenario, its subjects.
    TrialStarted {
        /// Scenario id.
        scenario: String,
        /// Subjects.
        subjects: Vec<String>,
        /// The scenario's checks, by id: those that must come to a verdict.
        checks: Vec<String>,
        /// Whether every acked write must survive (planned moves).
        zero_loss: bool,
        /// The moment that the trial's fault is aimed at, such as `sync-start`; absent for a blind one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        aimed: Option<String>,
        /// Subjects that are a part of a VM, such as a plugged disk: the checks that each is judged by.
        #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
        parts: std::collections::BTreeMap<String, Vec<String>>,
    },
    /// A trial is over; its verdicts follow from the history.
    TrialEnded {
        /// How its steps went.
        outcome: Outcome,
    },
    /// A step is about to be done.
    StepStarted {
        /// Its name.
        step: String,
    },
    /// A step is over.
    StepEnded {
        /// Its name.
        step: String,
        /// How it went.
        outcome: Outcome,
    },
    /// A subject was made (or adopted): what its ledger will be.
    SubjectCreated {
        /// Plan workload it comes from.
        workload: String,
        /// Namespace on both sites.
        namespace: String,
        /// VM name on both sites.
        vm: String,
        /// Data volumes by ordinal.
        volumes: Vec<VolumeFact>,
        /// All PVCs of the VM, root disk included, that must be protected.
        pvcs: Vec<String>,
        /// The seed of this subject's address stream and payloads.
        seed: u64,
    },
    /// A probe run begins on a subject.
    IncarnationStarted {
        /// Incarnation, 16 hex digits.
        incarnation: String,
        /// Where.
        site: Site,
        /// Why.
        purpose: Purpose,
        /// The incarnation whose data it found on the disk, if any.
        parent: Option<String>,
        /// The guest and its volumes.
        identity: Identity,
        /// Ledger layout per volume, by ordinal.
        layouts: Vec<Layout>,
        /// Ack segment, path relative to the run directory.
        segment: String,
    },
    /// The cold region is filled and durable.
    Filled {
        /// Incarnation, hex.
        incarnation: String,
        /// Cells per volume ordinal.
        cells: Vec<u64>,
    },
    /// The load begins.
    LoadStarted {
        /// Incarnation, hex.
        incarnation: String,
        /// Writes per second asked for; 0 is unlimited.
        rate: u32,
        /// Writes between flushes; 0 is strict.
        batch: u32,
    },
    /// The load is over as far as the host can tell.
    LoadEnded {
        /// Incarnation, hex.
        incarnation: String,
        /// Whether the probe accounted for everything it issued (a `Stopped` frame was heard).
        accounted: bool,
        /// The last durability rank heard.
        last_rank: u64,
    },
    /// The ack segment of an incarnation was closed; ties its bytes into this chain.
    SegmentClosed {
        /// Incarnation, hex.
        incarnation: String,
        /// Path relative to the run directory.
        segment: String,
        /// Records in it.
        records: u64,
        /// The end of its hash chain, hex.
        root: String,
    },
    /// The ack stream broke or came back.
    Stream {
        /// Incarnation, hex.
        incarnation: String,
        /// `true` when connected.
        up: bool,
        /// What was seen.
        why: String,
    },
    /// A fault was planted, or the world broke by itself and virtproof noticed.
    Fault {
        /// Its name.
        name: String,
        /// Where.
        site: Option<Site>,
        /// Whether it stands (`true`) or was healed (`false`).
        active: bool,
        /// Parameters and remarks.
        detail: String,
    },
    /// A stage of the recovery closed.
    StageReached {
        /// Which.
        stage: Stage,
    },
    /// Fencing of a site was asked for or came to an end.
    Fencing {
        /// The site whose writes must stop.
        site: Site,
        /// How: `networkFence`, `stopVm`, `siteDown`.
        method: String,
        /// `None` when asked for, then how it went.
        outcome: Option<Outcome>,
    },
    /// Replication objects of a subject as observed on one site.
    Replication {
        /// Where.
        site: Site,
        /// Per PVC.
        volumes: Vec<ReplicationFact>,
    },
    /// The gate before a promotion, what it saw and what it decided.
    Gate {
        /// The site to be promoted.
        site: Site,
        /// Whether force was asked for.
        forced: bool,
        /// Whether promotion may go on.
        open: bool,
        /// Why.
        why: String,
    },
    /// A PVC of the subject stands on a site, bound to a volume.
    Claim {
        /// Where.
        site: Site,
        /// The PVC.
        pvc: String,
        /// Its PV.
        pv: String,
        /// The volume handle of its PV.
        handle: String,
        /// What the handle must be to hold the replica, `None` on the first site.
        expected: Option<String>,
    },
    /// The VM's run state as seen by the API server.
    Vm {
        /// Where.
        site: Site,
        /// `status.printableStatus` of the VM, empty when absent.
        status: String,
        /// `status.phase` of the VMI, empty when absent.
        phase: String,
        /// VMI UID.
        vmi_uid: Option<String>,
        /// Node.
        node: Option<String>,
    },
    /// SSH reached the guest.
    Guest {
        /// Where.
        site: Site,
        /// SSH host key fingerprint, `SHA256:…`.
        host_key: String,
        /// Whether it equals the one pinned for this volume lineage; `None` at first contact.
        host_key_pinned: Option<bool>,
        /// `/etc/machine-id`.
        machine_id: String,
        /// Boot id.
        boot_id: String,
    },
    /// A disk comes or goes under the running guest.
    Hotplug {
        /// Where.
        site: Site,
        /// Its volume.
        volume: String,
        /// What was seen.
        hotplug: HotplugFact,
    },
    /// A volume grows under the running guest.
    Resize {
        /// Where.
        site: Site,
        /// What was seen.
        resize: ResizeFact,
    },
    /// What the guest finds of its own hardware.
    Inside {
        /// Where.
        site: Site,
        /// What it finds.
        inside: InsideFact,
    },
    /// Data volumes as the probe opened them.
    Volumes {
        /// Where.
        site: Site,
        /// By ordinal.
        opened: Vec<Opened>,
    },
    /// All volumes of a subject were read back whole.
    Scanned {
        /// Where.
        site: Site,
        /// The incarnation that read.
        incarnation: String,
        /// The load incarnations whose writes this scan is evidence of, oldest first.
        judges: Vec<String>,
        /// Through which eyes.
        #[serde(default)]
        via: ReadVia,
        /// Whether every acked write of the newest load must be there, if not as `zero_loss` says.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        zero_loss: Option<bool>,
        /// The cut that the volumes were made from, if they were.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cut: Option<String>,
        /// Per volume.
        volumes: Vec<ScanFact>,
    },
    /// How the VM is defined and was started on a site.
    Shape {
        /// Where.
        site: Site,
        /// What was seen.
        shape: ShapeFact,
    },
    /// The guest tried to reach an address that it must not reach.
    Reach {
        /// Where the guest runs.
        site: Site,
        /// `host:port`.
        address: String,
        /// Whether a connection came about; `None` if that could not be tried.
        reached: Option<bool>,
        /// What was seen.
        said: String,
    },
    /// The way back to a protected state after a transition.
    Reprotection {
        /// The site that is primary now.
        site: Site,
        /// How far.
        progress: Reprotect,
    },
    /// A live migration is about to be asked for, or was seen.
    Migration {
        /// The site on which the VM moves between nodes.
        site: Site,
        /// What was seen.
        migration: MigrationFact,
    },
    /// A launcher pod is about to be evicted, or what was answered.
    Eviction {
        /// The site on which the pod is.
        site: Site,
        /// What was seen.
        eviction: EvictionFact,
    },
    /// An observer outside the guest asked it for echoes over the network. Recorded at the end.
    Echo {
        /// Where the guest runs.
        site: Site,
        /// `host:port` or address.
        address: String,
        /// When the first was sent, nanoseconds on the run's clock; the event's time is the end.
        from_ns: u64,
        /// Time between two, nanoseconds.
        interval_ns: u64,
        /// How many were sent.
        sent: u64,
        /// How many came back.
        answered: u64,
        /// The longest time without one coming back, nanoseconds.
        longest_ns: u64,
        /// The longest that ended on the stream on which it began: where one broke, another had to be
        /// made first. Absent where no stream is involved that could break.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        unbroken_ns: Option<u64>,
    },
    /// What a volume's writer found in its lease cell; even a copy of its memory would show there.
    Lease {
        /// Incarnation of the writer, hex.
        incarnation: String,
        /// Volume ordinal.
        volume: u8,
        /// How often it was read again since the fact before.
        reads: u64,
        /// The longest time between two of these reads, nanoseconds, guest clock.
        longest_ns: u64,
        /// Stamps that this writer did not put there.
        foreign: Vec<String>,
    },
    /// The guest's file systems are about to be frozen or thawed, or what came of it.
    Freeze {
        /// Where the guest runs.
        site: Site,
        /// How far it is.
        freeze: FreezeFact,
    },
    /// A workflow of a Recipe is walked over.
    Recipe {
        /// Where the guest runs.
        site: Site,
        /// How far it is.
        recipe: RecipeFact,
    },
    /// A database in the guest is written, or was read.
    Database {
        /// Where the guest runs.
        site: Site,
        /// What was seen.
        database: DatabaseFact,
    },
    /// The VM is about to be paused, rebooted, stopped or killed where it is, or what came of it.
    Lifecycle {
        /// Where.
        site: Site,
        /// What was seen.
        lifecycle: LifecycleFact,
    },
    /// A point in time of the VM's volumes is about to be taken, or was.
    Capture {
        /// Where.
        site: Site,
        /// Which.
        capture: CaptureFact,
    },
    /// A point in time of the VM's volumes that is kept, and what is said of it.
    Cut {
        /// Where.
        site: Site,
        /// Which, and how far it is.
        cut: CutFact,
    },
    /// The VM's data disks are about to move to other claims, or did.
    Storage {
        /// Where.
        site: Site,
        /// How far it is.
        storage: StorageFact,
    },
    /// The VM's volumes are about to be put back to a cut, or were.
    Restore {
        /// Where.
        site: Site,
        /// To which.
        restore: RestoreFact,
    },
    /// What was seen of the file system on a data volume.
    FileSystem {
        /// Where.
        site: Site,
        /// Volume ordinal.
        volume: u8,
        /// What.
        state: FileSystemFact,
    },
    /// The run directory's objects were swept after cleanup.
    Swept {
        /// Sites that could be reached and listed.
        sites: Vec<Site>,
        /// What was left.
        residue: Vec<Residue>,
    },
    /// A warning for the reader, never for a verdict.
    Note {
        /// Its text.
        text: String,
    },
    /// The run is over. Last event of a complete history.
    RunEnded {
        /// `completed`, `interrupted` or why it stopped.
        reason: String,
    },
}
