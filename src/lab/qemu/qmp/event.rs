//! QMP events: typed where this driver acts on them, raw otherwise.

use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::Value;
use tokio::sync::broadcast;

use super::{LinkError, Shared, lock};

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// When we read it, on the host's monotonic clock: never before it happened.
    pub read_at: Instant,
    /// When QEMU sent it, on the host's wall clock, since 1970; zero if QEMU could not tell.
    pub sent_at: Duration,
}

/// What happened. Meanings are those of QEMU's QMP reference.
#[derive(Debug, Clone, PartialEq)]
pub enum EventKind {
    /// The machine ends; with action `shutdown=poweroff` QEMU exits next.
    Shutdown {
        /// The guest wanted it.
        guest: bool,
        /// QEMU's `ShutdownCause`, such as `guest-shutdown` or `host-qmp-quit`.
        reason: String,
    },
    /// The machine was reset in place.
    Reset {
        /// The guest wanted it.
        guest: bool,
        /// QEMU's `ShutdownCause`, such as `guest-reset` or `host-qmp-system-reset`.
        reason: String,
    },
    /// The virtual CPUs stand still.
    Stop,
    /// The virtual CPUs are about to run. Sent before the first of them does.
    Resume,
    /// The power button was pressed on behalf of the host; what the guest makes of it is its own.
    Powerdown,
    /// A request to a disk failed.
    BlockIoError(BlockIoError),
    /// A migration, outgoing or incoming, has a new status.
    Migration(MigrationStatus),
    /// The guest let go of a device that was to be unplugged.
    DeviceDeleted {
        /// Its id, if it had one.
        device: Option<String>,
    },
    /// The guest's kernel panicked and told so.
    GuestPanicked {
        /// What QEMU does about it.
        action: String,
    },
    /// A program in the guest opened or closed its end of a virtio-serial port.
    VserportChange {
        /// Id of the port's device.
        id: String,
        /// Whether it is open now.
        open: bool,
    },
    /// Any other event.
    Other {
        /// QEMU's name of it.
        name: String,
        /// Its data, `Null` if there is none.
        data: Value,
    },
}

/// A failed request to a disk, as `BLOCK_IO_ERROR` tells it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct BlockIoError {
    /// Node under the device. Missing if it has none.
    pub node_name: Option<String>,
    /// `read` or `write`.
    pub operation: String,
    /// What QEMU did: `report`, `ignore` or `stop`.
    pub action: String,
    /// Words of the host's system, not for matching.
    #[serde(default)]
    pub reason: String,
    /// The storage is full. Only told with action `stop`.
    #[serde(default)]
    pub nospace: bool,
}

/// QEMU's `MigrationStatus`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MigrationStatus {
    /// There never was one.
    None,
    /// Being set up.
    Setup,
    /// Memory is being sent while the guest runs.
    Active,
    /// The guest stands still; the rest is being sent.
    Device,
    /// A cancel is being carried out.
    Cancelling,
    /// Cancelled.
    Cancelled,
    /// Done.
    Completed,
    /// Failed.
    Failed,
    /// A status of a kind of migration that this driver never asks for, or of a newer QEMU.
    #[serde(untagged)]
    Other(String),
}

#[derive(Deserialize)]
struct Cause {
    guest: bool,
    reason: String,
}

#[derive(Deserialize)]
struct Envelope {
    event: String,
    #[serde(default)]
    data: Value,
    timestamp: Timestamp,
}

/// Both are -1 if QEMU could not read its clock.
#[derive(Deserialize)]
struct Timestamp {
    seconds: i64,
    microseconds: i64,
}

impl Timestamp {
    fn since_1970(&self) -> Duration {
        let seconds = u64::try_from(self.seconds).unwrap_or(0);
        let micros = u64::try_from(self.microseconds).unwrap_or(0);
        Duration::from_secs(seconds) + Duration::from_micros(micros)
    }
}

/// Decodes a message that has the key `event`.
pub(super) fn parse(message: Value) -> Result<Event, serde_json::Error> {
    let envelope: Envelope = serde_json::from_value(message)?;
    let sent_at = envelope.timestamp.since_1970();
    Ok(Event {
        kind: kind(envelope.event, envelope.data)?,
        read_at: Instant::now(),
        sent_at,
    })
}

fn kind(name: String, data: Value) -> Result<EventKind, serde_json::Error> {
    #[derive(Deserialize)]
    struct Status {
        status: MigrationStatus,
    }
    #[derive(Deserialize)]
    struct Device {
        device: Option<String>,
    }
    #[derive(Deserialize)]
    struct Panic {
        action: String,
    }
    #[derive(Deserialize)]
    struct Port {
        id: String,
        open: bool,
    }
    let from = serde_json::from_value::<Cause>;
    Ok(match name.as_str() {
        "SHUTDOWN" => {
            from(data).map(|Cause { guest, reason }| EventKind::Shutdown { guest, reason })?
        }
        "RESET" => from(data).map(|Cause { guest, reason }| EventKind::Reset { guest, reason })?,
        "STOP" => EventKind::Stop,
        "RESUME" => EventKind::Resume,
        "POWERDOWN" => EventKind::Powerdown,
        "BLOCK_IO_ERROR" => EventKind::BlockIoError(serde_json::from_value(data)?),
        "MIGRATION" => EventKind::Migration(serde_json::from_value::<Status>(data)?.status),
        "DEVICE_DELETED" => EventKind::DeviceDeleted {
            device: serde_json::from_value::<Device>(data)?.device,
        },
        "GUEST_PANICKED" => EventKind::GuestPanicked {
            action: serde_json::from_value::<Panic>(data)?.action,
        },
        "VSERPORT_CHANGE" => {
            let Port { id, open } = serde_json::from_value(data)?;
            EventKind::VserportChange { id, open }
        }
        _ => EventKind::Other { name, data },
    })
}

/// Why there is no next event.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EventsError {
    /// The subscriber was too slow; the stream goes on after the gap.
    #[error("{0} events of QEMU were missed: the subscriber did not keep up")]
    Missed(u64),
    /// The connection ended.
    #[error("no more events: {0}")]
    Lost(#[source] LinkError),
}

/// A subscription to the events of one QEMU.
pub struct Events {
    receiver: broadcast::Receiver<Event>,
    shared: Shared,
}

impl Events {
    pub(super) fn new(receiver: broadcast::Receiver<Event>, shared: Shared) -> Self {
        Self { receiver, shared }
    }

    /// The next event. Nothing is lost if the caller stops waiting.
    pub async fn next(&mut self) -> Result<Event, EventsError> {
        self.receiver.recv().await.map_err(|error| match error {
            broadcast::error::RecvError::Lagged(count) => EventsError::Missed(count),
            broadcast::error::RecvError::Closed => {
                let ended = lock(&self.shared).ended.clone();
                EventsError::Lost(ended.unwrap_or(LinkError::Closed))
            }
        })
    }

    /// The first event, from the next one on, that `pick` takes.
    pub async fn find<T>(
        &mut self,
        mut pick: impl FnMut(&Event) -> Option<T>,
    ) -> Result<T, EventsError> {
        loop {
            let event = self.next().await?;
            if let Some(found) = pick(&event) {
                return Ok(found);
            }
        }
    }
}
