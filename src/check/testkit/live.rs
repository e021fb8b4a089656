//! Guests that live on: migrated to another node, or frozen for a while.

use super::{Draw, FAULT, Kit, LOAD, MS, START, Stall};
use crate::history::event::{
    CaptureFact, Deed, Fact, FileSystemFact, FreezeFact, LedgerMode, LifecycleFact, MigrationFact,
    Outcome, Site,
};
use crate::history::segment::Record;

/// When a migrated guest stands still, and a frozen one is frozen.
pub(in crate::check) const PAUSE: u64 = START + 1_000 * MS;

impl Kit {
    /// The stream breaks for a while: what was acked meanwhile is heard at once at its end, and no token
    /// crosses.
    pub(in crate::check) fn hear_at_once(&mut self, silence: std::ops::Range<u64>) {
        for record in &mut self.load {
            if let Record::Frame { at_ns, .. } = record
                && silence.contains(at_ns)
            {
                *at_ns = silence.end;
            }
        }
        self.load.sort_by_key(Record::at_ns);
        let lost = |record: &Record| matches!(record, Record::Token { at_ns, .. } if silence.contains(at_ns));
        self.load.retain(|record| !lost(record));
    }

    /// A live migration in which the guest stands still for some milliseconds, its clock for `lag` of
    /// them.
    pub(in crate::check) fn migrated(seed: u64, pause_ms: u64, lag_ms: u64) -> Self {
        let to = PAUSE + pause_ms * MS;
        let stall = Stall {
            from: PAUSE,
            to,
            writers: vec![0, 1, 2],
            lag: lag_ms * MS,
        };
        let mut kit = Self::stalled(seed, 0, "migrate.under-load", true, Some(stall));
        let last = kit.ranks.len() as u64;
        kit.cut(last, &mut Draw(seed));
        (kit.verify_site, kit.verify_boot) = (Site::Primary, "boot-a");
        kit.add(PAUSE - 200 * MS, vm("uid-1", "node-1"));
        kit.add(PAUSE - 100 * MS, migration(MigrationFact::default()));
        kit.add(
            to + 50 * MS,
            migration(MigrationFact {
                phase: "Succeeded".into(),
                source_node: "node-1".into(),
                target_node: "node-2".into(),
                completed: true,
                ..MigrationFact::default()
            }),
        );
        kit.add(to + 60 * MS, vm("uid-1", "node-2"));
        for volume in 0..2 {
            kit.add(
                to + 300 * MS,
                Fact::Lease {
                    incarnation: format!("{LOAD:016x}"),
                    volume,
                    reads: 5,
                    longest_ns: 100 * MS,
                    foreign: Vec::new(),
                },
            );
        }
        kit
    }

    /// A pause that was ordered for one second, in which the guest stands still for some milliseconds,
    /// its clock for `lag` of them; then a stop and a start.
    pub(in crate::check) fn paused(seed: u64, still_ms: u64, lag_ms: u64) -> Self {
        let stall = Stall {
            from: PAUSE,
            to: PAUSE + still_ms * MS,
            writers: vec![0, 1, 2],
            lag: lag_ms * MS,
        };
        let mut kit = Self::stalled(seed, 0, "lifecycle.restart-pause", true, Some(stall));
        let last = kit.ranks.len() as u64;
        kit.cut(last, &mut Draw(seed));
        kit.verify_site = Site::Primary;
        let over = PAUSE + PAUSED_MS * MS;
        kit.order(Deed::Pause, PAUSE - 30 * MS, PAUSE + 10 * MS);
        kit.order(Deed::Unpause, over - 20 * MS, over + 10 * MS);
        kit.order(Deed::Stop, FAULT, FAULT + 500 * MS);
        kit.order(Deed::Start, FAULT + 600 * MS, FAULT + 650 * MS);
        kit.add(PAUSE - 200 * MS, vm("uid-1", "node-1"));
        kit.add(FAULT + 2_050 * MS, vm("uid-2", "node-1"));
        kit
    }

    /// An order that was taken.
    pub(in crate::check) fn order(&mut self, deed: Deed, asked: u64, answered: u64) -> &mut Self {
        let outcome = Outcome::Ok;
        self.add(asked, lifecycle(LifecycleFact::Asked { deed }));
        self.add(
            answered,
            lifecycle(LifecycleFact::Answered { deed, outcome }),
        )
    }

    /// A freeze of one second in whose middle the point is taken that comes back. Volume 0 is raw, and
    /// volume 1 carries a file system.
    pub(in crate::check) fn frozen(seed: u64) -> Self {
        Self::frozen_for(seed, &[0, 2], 500)
    }

    /// The same with these writers stopped, and the point taken so many milliseconds after.
    pub(in crate::check) fn frozen_for(seed: u64, writers: &[u32], taken_ms: u64) -> Self {
        Self::frozen_until(seed, writers, 1_000, taken_ms)
    }

    /// The same in which they go on after so many milliseconds, whatever is said.
    pub(in crate::check) fn frozen_until(
        seed: u64,
        writers: &[u32],
        held_ms: u64,
        taken_ms: u64,
    ) -> Self {
        let (from, to) = (PAUSE, PAUSE + 1_000 * MS);
        let stall = Stall {
            from,
            to: from + held_ms * MS,
            writers: writers.to_vec(),
            lag: 0,
        };
        let mut kit = Self::stalled(seed, 0, "freeze.quiesced", false, Some(stall));
        let point = from + taken_ms * MS;
        let rank = kit.ranks.iter().filter(|at| **at <= point).count() as u64;
        let held: &[u32] = if taken_ms < held_ms { writers } else { &[] };
        kit.cut_but(rank, &mut Draw(seed), held);
        kit.change(|fact| {
            if let Fact::SubjectCreated { volumes, .. } = fact {
                volumes[1].ledger = LedgerMode::File;
            }
        });
        kit.add(
            from - 20 * MS,
            freeze(FreezeFact::Asked { timeout_ms: 5_000 }),
        );
        kit.add(from + 10 * MS, freeze(FreezeFact::Frozen));
        let capture = |taken| Fact::Capture {
            site: Site::Primary,
            capture: CaptureFact {
                means: "VirtualMachineSnapshot".into(),
                quiesced: true,
                taken,
            },
        };
        kit.add(from + 300 * MS, capture(false));
        kit.add(from + 700 * MS, capture(true));
        kit.add(
            from + 400 * MS,
            file_system(FileSystemFact::Live { frozen: true }),
        );
        kit.add(to - 10 * MS, freeze(FreezeFact::ThawAsked));
        let outcome = Outcome::Ok;
        kit.add(to + 10 * MS, freeze(FreezeFact::Thawed { outcome }));
        kit.add(FAULT + 2_800 * MS, file_system(raw("ext4", Some(false))));
        kit
    }
}

/// For how long a pause is ordered.
pub(in crate::check) const PAUSED_MS: u64 = 1_000;

pub(in crate::check) fn lifecycle(lifecycle: LifecycleFact) -> Fact {
    let site = Site::Primary;
    Fact::Lifecycle { site, lifecycle }
}

pub(in crate::check) fn freeze(freeze: FreezeFact) -> Fact {
    let site = Site::Primary;
    Fact::Freeze { site, freeze }
}

pub(in crate::check) fn file_system(state: FileSystemFact) -> Fact {
    let site = match state {
        FileSystemFact::Live { .. } => Site::Primary,
        _ => Site::Secondary,
    };
    Fact::FileSystem {
        site,
        volume: 1,
        state,
    }
}

/// What was seen past any mount.
pub(in crate::check) fn raw(kind: &str, dirty: Option<bool>) -> FileSystemFact {
    FileSystemFact::Raw {
        kind: kind.into(),
        dirty,
        said: "as told".into(),
    }
}

pub(in crate::check) fn migration(migration: MigrationFact) -> Fact {
    let site = Site::Primary;
    let name = "move-1".into();
    let migration = MigrationFact { name, ..migration };
    Fact::Migration { site, migration }
}

pub(in crate::check) fn vm(uid: &str, node: &str) -> Fact {
    Fact::Vm {
        site: Site::Primary,
        status: "Running".into(),
        phase: "Running".into(),
        vmi_uid: Some(uid.into()),
        node: Some(node.into()),
    }
}
