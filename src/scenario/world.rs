//! What every step of a run shares: the plan, the sites, the history, and who we are in the guests.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::cluster::{Deadline, Owner, Sites};
use crate::guest::{LoginKey, Pins};
use crate::history::event::Site;
use crate::history::recorder::Recorder;
use crate::plan::Plan;
use crate::plan::model::Workload;
use crate::probe::host::ProbeBinary;
use crate::replicate::Driver;
use crate::workload::Rendered;
use crate::workload::recipe::Recipe;

/// The world of one run.
pub struct World {
    /// The plan.
    pub plan: Arc<Plan>,
    /// The folder that the plan's relative paths start from.
    pub base: PathBuf,
    /// Its sites.
    pub sites: Sites,
    /// The history.
    pub recorder: Recorder,
    /// On whose behalf objects are made; holds the undo log.
    pub owner: Owner,
    /// The replication driver.
    pub driver: Driver,
    /// Fires when the run is to stop. Healing does not listen to it.
    pub cancel: CancellationToken,
    /// The run.
    pub run_id: [u8; 16],
    /// The seed behind every random choice.
    pub seed: u64,
    /// The run's SSH key.
    pub key: LoginKey,
    /// Host keys by volume lineage.
    pub pins: Arc<Pins>,
    /// The probe for the guests.
    pub binary: ProbeBinary,
    /// Templates with their parameters filled in, by workload.
    pub rendered: Vec<(Workload, Rendered)>,
    /// The Recipe of each workload, by its name.
    pub recipes: BTreeMap<String, Recipe>,
    /// Mints incarnations.
    pub mint: Mint,
    /// How far each site's clock is ahead of ours at most, for comparing with `lastSyncTime`.
    pub ahead: [Duration; 2],
}

impl World {
    /// The run id as a label value and name part: its first eight hex digits.
    pub fn short(&self) -> String {
        short(&self.run_id)
    }

    /// A deadline for a part of the run.
    pub fn deadline(&self, limit: Duration) -> Deadline {
        Deadline::after(limit, &self.cancel)
    }

    /// Now, as the storage of a site may at most count it.
    pub fn storage_now(&self, site: Site) -> jiff::Timestamp {
        let ahead = self.ahead[usize::from(site == Site::Secondary)];
        jiff::Timestamp::now()
            .saturating_add(ahead)
            .unwrap_or(jiff::Timestamp::MAX)
    }
}

/// The first eight hex digits of a run id.
pub fn short(run_id: &[u8; 16]) -> String {
    hex(&run_id[..4])
}

/// Bytes as lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String");
        text
    })
}

/// Mints incarnations: site in the top 8 bits, a counter in the next 24, a nonce of the run in the
/// last 32. No two probe runs of a run share one.
#[derive(Debug)]
pub struct Mint {
    nonce: u32,
    next: AtomicU32,
}

impl Mint {
    /// A mint for a run.
    pub const fn new(nonce: u32) -> Self {
        Self {
            nonce,
            next: AtomicU32::new(1),
        }
    }

    /// A new incarnation on a site.
    pub fn incarnation(&self, site: Site) -> u64 {
        let site = match site {
            Site::Primary => 1_u64,
            Site::Secondary => 2,
        };
        let counter = u64::from(self.next.fetch_add(1, Ordering::Relaxed) & 0x00FF_FFFF);
        site << 56 | counter << 32 | u64::from(self.nonce)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn incarnations_differ_and_name_their_site() {
        let mint = Mint::new(7);
        let (a, b) = (
            mint.incarnation(Site::Primary),
            mint.incarnation(Site::Secondary),
        );
        assert_ne!(a, b);
        assert_eq!((a >> 56, b >> 56), (1, 2));
        assert_eq!(a & 0xFFFF_FFFF, 7);
    }
}
