//! The table of checks.

use super::case::Case;
use super::finding::Finding;
use super::{
    cold, cut, damage, database, discarded, durability, fence, fidelity, freeze, honesty, hooks,
    hotplug, identity, inside, isolation, lifecycle, migration, order, outcome, protection,
    reprotection, residue, rpo, rto, second, split, stale,
};

/// What a check gives its word on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Per {
    /// Each subject of a trial.
    Subject,
    /// A trial as a whole.
    Trial,
}

/// One check.
#[derive(Debug, Clone, Copy)]
pub struct CheckSpec {
    /// Its id, stable.
    pub id: &'static str,
    /// A few words.
    pub title: &'static str,
    /// What a pass proves.
    pub what: &'static str,
    /// What it cannot see.
    pub limits: &'static str,
    /// What it gives its word on.
    pub per: Per,
    /// Whether each trial is a sample of a rate, so that `n` clean ones bound it at about 3/n.
    pub sampled: bool,
    pub(super) run: fn(&Case<'_>) -> Finding,
}

const fn subject(
    id: &'static str,
    title: &'static str,
    what: &'static str,
    limits: &'static str,
    run: fn(&Case<'_>) -> Finding,
) -> CheckSpec {
    CheckSpec {
        id,
        title,
        what,
        limits,
        per: Per::Subject,
        sampled: false,
        run,
    }
}

const fn sampled(spec: CheckSpec) -> CheckSpec {
    CheckSpec {
        sampled: true,
        ..spec
    }
}

/// Every check, in the order of reports.
pub const CATALOGUE: &[CheckSpec] = &[
    sampled(subject(
        "D1",
        "no acknowledged write is lost",
        "Every write that the guest acknowledged and the host heard is on its volume, or a later one in its place.",
        "Writes acknowledged in the guest whose ack never reached the host are not owed.",
        durability::check,
    )),
    sampled(subject(
        "D2",
        "each volume is crash consistent",
        "Each volume is a prefix of what was written to it: no write is there whose predecessor, durable before it was issued, is missing.",
        "Writes between two flushes may come back in any order; that is legal.",
        order::volumes,
    )),
    sampled(subject(
        "D3",
        "all volumes are one consistent cut",
        "The volumes of the VM together are a prefix of what was written to all of them.",
        "A skew between volumes shorter than the gap between two acks is not seen.",
        order::group,
    )),
    subject(
        "D4",
        "no cell is damaged or torn",
        "Every cell that was read is whole; torn ones are only those whose write was under way.",
        "Cold cells between samples are not read unless the stride is one cell.",
        damage::whole,
    ),
    subject(
        "D5",
        "every write is where it belongs",
        "No cell holds what was meant for another cell or volume.",
        "Cold cells between samples are not read unless the stride is one cell.",
        damage::placed,
    ),
    subject(
        "D6",
        "nothing stale or foreign came back",
        "No cell is of another run or of a life that is over, and no extent is older than the rest of its volume.",
        "One cell alone that is too old is found by D1 and D2.",
        stale::check,
    ),
    subject(
        "D7",
        "nothing written once is lost",
        "The cold region and both ends of each device are there, at the size that they had.",
        "Cold cells between samples are not read unless the stride is one cell.",
        cold::check,
    ),
    subject(
        "D8",
        "guest and storage agree",
        "What the guest reads is what the storage holds, as another guest reads it from clones of snapshots.",
        "Cells written between the two looks are left aside; an error that both readers share is not seen.",
        second::check,
    ),
    sampled(subject(
        "R1",
        "loss is within the RPO",
        "The work lost, from the first missing acknowledged write to the end of the service, is within the objective.",
        "Needs 100 acks per second; the bracket is as wide as the hearing was poor.",
        rpo::check,
    )),
    sampled(subject(
        "R2",
        "replication held what it claimed",
        "Everything acknowledged before the newest claimed sync time is there.",
        "Sync times have one second; clocks are compared to within the time of a request.",
        honesty::check,
    )),
    subject(
        "T1",
        "recovery is within the RTO",
        "The time from the last acknowledged write before the fault to the first durable write after it is within the objective.",
        "Both ends are known to within a token interval.",
        rto::total,
    ),
    subject(
        "T2",
        "the stages account for the outage",
        "The named stages of the recovery follow each other and sum to the outage within 1 %, 100 ms or the longest pause between acks before it.",
        "A stage ends when the host noticed it.",
        rto::stages,
    ),
    subject(
        "S1",
        "two sites never wrote at once",
        "No write of the old side became durable after the new side's first one, and the old side was listened to or surely off.",
        "An overlap shorter than one token interval is not seen.",
        split::check,
    ),
    subject(
        "S2",
        "the fence held when it was said to",
        "No write of the old side became durable after its fence was said to hold or after the new side's first one.",
        "The latency is known to within a token interval; where the old guest was stopped, nothing tried to write.",
        fence::check,
    ),
    subject(
        "S3",
        "what was discarded stayed away",
        "After a resync the surviving line is whole and no write that was discarded at the fork came back.",
        "Discarded writes are counted as far as their acks were heard.",
        discarded::check,
    ),
    subject(
        "M1",
        "the blackout is within its objective",
        "While the VM was migrated, no longer than allowed passed without a durable write, nor without an echo of its network on a stream that held.",
        "Known to within a token interval, and where the stream broke, to within the guest clock's step. Where the echoes' stream broke, as a tunnel to the node that the guest left does, their silence is measured and not judged.",
        migration::blackout,
    ),
    subject(
        "M2",
        "the guest lived on, once",
        "The same VMI, boot, probe process and incarnation went on on another node, or where it was if its migration failed as it was made to or its eviction was refused, and nobody else wrote to its volumes. No eviction took the launcher from under it.",
        "A second writer that lived for less than the time between two lease reads is not seen.",
        migration::lived,
    ),
    subject(
        "M3",
        "migration kept every write",
        "Every write acknowledged before and while the VM was migrated is there, read past the guest's cache on the target.",
        "Writes whose ack never reached the host are not owed.",
        migration::kept,
    ),
    CheckSpec {
        id: "M4",
        title: "nobody is left out of the count",
        what: "Every VM of the trial moved, and the longest of all their blackouts is within the objective; the figures count those that failed as endless.",
        limits: "How many the cluster lets move at once is told and not judged.",
        per: Per::Trial,
        sampled: false,
        run: migration::many,
    },
    subject(
        "M5",
        "the disks moved, and what they left is inert",
        "The VMI names the claims that its disks were to move to, and copies of the old claims hold everything from before the move and nothing from after it.",
        "Writes under way while the disks moved may be on the old claims or not; that all of them are on the new ones is D1's and M3's.",
        migration::left,
    ),
    subject(
        "L1",
        "the pause was real, and no longer than ordered",
        "While the VM was paused its guest wrote nothing, and it wrote again within the objective after it was resumed.",
        "Known to within a token interval. The objective is `migrationBlackout`.",
        lifecycle::pause,
    ),
    subject(
        "L2",
        "the guest booted where it was told to",
        "The boot id and the VMI changed with each order that boots the guest or remakes its VMI, and at no other time.",
        "A guest that boots twice between two looks is not told from one that boots once.",
        lifecycle::boots,
    ),
    subject(
        "L3",
        "what was killed stayed dead",
        "No write of a guest that was killed became durable after the first one of the guest that took its place.",
        "A guest whose stream broke with its death is not heard; only what is heard speaks against it.",
        lifecycle::dead,
    ),
    subject(
        "H1",
        "a disk came, stayed and went as ordered",
        "A plugged disk was reported ready, was brought by a pod of its own and shown by the guest at every login until it was to go, and then by nobody; the guest lost no other disk.",
        "What is on the disk is judged as a subject of its own.",
        hotplug::there,
    ),
    subject(
        "H2",
        "the other disks were left alone",
        "While a disk came and went, the writers of the others stood still for no longer than allowed.",
        "Known to within a token interval. The objective is `migrationBlackout`.",
        hotplug::others,
    ),
    subject(
        "H3",
        "a volume grew for its guest",
        "A volume that was made to grow has its new size in the guest without a reboot, and at every later login, on the other site too; what it grew by was blank.",
        "What is written on the new part is judged as a subject of its own.",
        hotplug::grown,
    ),
    subject(
        "A1",
        "the freeze was real",
        "While it was said to be frozen the guest wrote nothing to its file systems and went on writing to raw volumes.",
        "Needs a volume with a file system and a raw one, both under load.",
        freeze::seen,
    ),
    subject(
        "A2",
        "the point lies inside the freeze",
        "The recovered point lies between the answer to the freeze and the asking for the thaw, and file volumes hold what they held then.",
        "Dated by raw volumes to within a token interval.",
        freeze::point,
    ),
    subject(
        "A3",
        "file systems came back as claimed",
        "Where a point claims quiesced file systems, ext4 asked for no recovery before any mount, and XFS was sound to its checker after log recovery; elsewhere both mounted and were sound to their checkers after a replay.",
        "Other file systems are not judged.",
        freeze::unmounted,
    ),
    subject(
        "A4",
        "the thaw came in time",
        "The guest was thawed before it would have thawed by itself, or by itself when nobody else was to; its file systems stood still for no longer than allowed.",
        "Known to within a token interval; a guest whose power is cut while it is frozen needs no thaw.",
        freeze::thaw,
    ),
    subject(
        "A5",
        "hooks were taken at their word",
        "A hook that failed, or found nothing to work on, stopped its workflow or let it go on as the Recipe declares, and what stopped was not called a success.",
        "A hook's exit code says nothing of the guest; A1 to A4 do.",
        hooks::check,
    ),
    subject(
        "A6",
        "the database came back whole",
        "The database's own check finds nothing, its transactions are the first ones without a gap, each as it was committed, and none is there in part. Where a hook of the guest agent was to quiesce it, what that hook leaves behind was there: an empty log of SQLite, a checkpoint of PostgreSQL that was begun after the freeze had been asked for, closed tables of MariaDB.",
        "A database's own check sees its structure; what a transaction carries is compared beside it.",
        database::whole,
    ),
    subject(
        "A7",
        "committed transactions survived",
        "Every transaction that the database acknowledged before the guest was frozen for the point that came back is there; all of them where nothing may be lost.",
        "A transaction whose acknowledgement never reached the host is not owed.",
        database::kept,
    ),
    subject(
        "C1",
        "what was restored is the cut",
        "Every write acknowledged before the cut was asked for is there, and nothing that was issued after it had been taken.",
        "Writes under way while the cut was taken may be there or not; needs writes before and after it.",
        cut::rollback::check,
    ),
    subject(
        "C2",
        "a clone and its source are independent",
        "Both were written to after the clone was made, each holds its own writes, and neither holds a write of the other.",
        "Sharing that shows on no written cell is not seen.",
        cut::apart,
    ),
    subject(
        "C3",
        "the cut is as consistent as it claims",
        "Each volume is a prefix; all of them together where one instant is claimed, those with file systems where quiescing is; quiesced file systems were clean before any mount; what is said of the agent is what the agent showed.",
        "Order across volumes that nobody claims is measured and not judged.",
        cut::claims,
    ),
    subject(
        "O1",
        "the plan ran to its end",
        "All steps and gates went as ordered, the guest was freshly booted where it had to be, and the VM runs on its target.",
        "Says nothing of data.",
        outcome::check,
    ),
    subject(
        "O2",
        "every PVC was protected and mapped",
        "Every PVC was replicated before the transition, and each claim on the target holds its own replica.",
        "Rests on what the replication objects say; R2 and D1 test them.",
        protection::check,
    ),
    subject(
        "O3",
        "the VM is the same machine",
        "Firmware, machine type, MAC addresses, disks and their order, Secrets and ConfigMaps, run strategy, CPU and memory are those of the source.",
        "Compares definitions, not what the guest makes of them.",
        fidelity::check,
    ),
    CheckSpec {
        id: "O4",
        title: "nothing is left behind",
        what: "After cleanup both sites were swept and held no object of the run.",
        limits: "Only kinds that virtproof makes are looked for.",
        per: Per::Trial,
        sampled: false,
        run: residue::check,
    },
    subject(
        "O5",
        "protection was restored",
        "After the transition the VM was protected again: replication is healthy and current, and two syncs newer than the order came.",
        "Rests on what the replication objects say.",
        reprotection::check,
    ),
    subject(
        "O6",
        "the rehearsal was isolated",
        "The guest could reach none of the addresses that it must not reach.",
        "Only the plan's addresses are tried, over TCP.",
        isolation::check,
    ),
    subject(
        "G1",
        "the right guest came up",
        "The disks carry this subject's ledger, the SSH host key is the pinned one, and the machine id is the one before.",
        "A machine id is comparable only if the root disk is kept.",
        identity::check,
    ),
    subject(
        "G2",
        "the guest finds itself as it was",
        "In every boot the guest's kernel shows the same disks by serial in the same order, the same network cards, host name and address families.",
        "Firmware is compared as defined, by O3.",
        inside::check,
    ),
];
