//! The commands of a migration.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::task::AbortOnDropHandle;

use super::{Options, Why};
use crate::lab::qemu::process::Process;
use crate::lab::qemu::qmp::{Qmp, QmpError};

/// The pace at which progress is told. Nothing waits for it.
const PACE: Duration = Duration::from_millis(250);

/// Capabilities wanted of both ends; see the module above for why.
const CAPABILITIES: [&str; 3] = ["events", "return-path", "validate-uuid"];

/// How far a migration is, by `query-migrate` of the source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Progress {
    /// QEMU's `MigrationStatus`; empty before the beginning.
    pub status: String,
    /// Memory. `None` before it is sent.
    pub ram: Option<Ram>,
    /// Why it failed, if it did.
    pub error_desc: Option<String>,
    /// Milliseconds since it began.
    total_time: u64,
    downtime: u64,
    setup_time: u64,
}

/// What was sent and what is left.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Ram {
    /// Bytes sent.
    pub transferred: u64,
    /// Bytes of guest memory left to send.
    pub remaining: u64,
    /// Bytes of guest memory.
    pub total: u64,
    /// Passes over dirty memory.
    pub dirty_sync_count: u64,
}

impl Progress {
    /// Time since it began, or what it took.
    pub fn total(&self) -> Duration {
        Duration::from_millis(self.total_time)
    }

    /// How long the guest stood still; zero before the end.
    pub fn downtime(&self) -> Duration {
        Duration::from_millis(self.downtime)
    }

    /// How long setting up took.
    pub fn setup(&self) -> Duration {
        Duration::from_millis(self.setup_time)
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = if self.status.is_empty() {
            "not begun"
        } else {
            &self.status
        };
        let Some(ram) = &self.ram else {
            return f.write_str(status);
        };
        write!(
            f,
            "{status}, {} bytes sent, {} of {} left, pass {}",
            ram.transferred, ram.remaining, ram.total, ram.dirty_sync_count
        )
    }
}

/// How far the migration from this source is.
pub(super) async fn progress(qmp: &Qmp) -> Result<Progress, QmpError> {
    qmp.query("query-migrate", Value::Null).await
}

/// Limits the bandwidth of a migration, also of one under way, to bytes per second; 0 is no limit.
pub async fn set_bandwidth(source: &Process, bytes: u64) -> Result<(), QmpError> {
    let parameters = json!({ "max-bandwidth": bytes });
    source
        .qmp()
        .execute("migrate-set-parameters", parameters)
        .await
        .map(drop)
}

/// Sets up both ends, and starts.
pub(super) async fn begin(
    source: &Process,
    target: &Process,
    options: &Options,
    uri: &str,
) -> Result<(), Why> {
    let at = |end| move |source| Why::Control { end, source };
    for (qmp, end) in [(source.qmp(), "source"), (target.qmp(), "target")] {
        capabilities(qmp).await.map_err(at(end))?;
    }
    let downtime = u64::try_from(options.downtime_limit.as_millis()).unwrap_or(u64::MAX);
    let parameters = json!({
        "max-bandwidth": options.max_bandwidth,
        "downtime-limit": downtime,
    });
    let set = source.qmp().execute("migrate-set-parameters", parameters);
    set.await.map_err(at("source"))?;
    let listen = target
        .qmp()
        .execute("migrate-incoming", json!({ "uri": uri }));
    listen.await.map_err(at("target"))?;
    let send = source.qmp().execute("migrate", json!({ "uri": uri }));
    send.await.map(drop).map_err(at("source"))
}

/// Switches on what is wanted and known: a newer QEMU may do without a capability because it always
/// does as that asked.
async fn capabilities(qmp: &Qmp) -> Result<(), QmpError> {
    #[derive(Deserialize)]
    struct Known {
        capability: String,
    }
    let known: Vec<Known> = qmp.query("query-migrate-capabilities", Value::Null).await?;
    let wanted: Vec<_> = CAPABILITIES
        .iter()
        .filter(|wanted| known.iter().any(|known| known.capability == **wanted))
        .map(|wanted| json!({ "capability": wanted, "state": true }))
        .collect();
    let arguments = json!({ "capabilities": wanted });
    qmp.execute("migrate-set-capabilities", arguments)
        .await
        .map(drop)
}

/// Tells the progress until dropped.
pub(super) fn tell(qmp: &Qmp, to: &watch::Sender<Progress>) -> AbortOnDropHandle<()> {
    let (qmp, to) = (qmp.clone(), to.clone());
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut pace = interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
        // Ends with the source.
        while let Ok(progress) = progress(&qmp).await {
            to.send_replace(progress);
            pace.tick().await;
        }
    }))
}
