//! The driver's side of the csi-addons calls for one volume: class parameters to array verbs.

use std::time::Duration;

use serde_json::Value;

use super::strike;
use crate::lab::api::{Store, meta};
use crate::lab::array::{Code, MirrorSpec, MirrorState, Outcome, Status, SyncInfo};
use crate::lab::storage::Storage;
use crate::lab::storage::objects::{group, handle};
use crate::lab::world;

/// How long the controller waits for any call.
const DEADLINE: Duration = Duration::from_secs(3 * 60);
const NODES: &str = "csiaddonsnodes.csiaddons.openshift.io";

/// Whether a connected sidecar of the driver leads and can replicate (replication.md §1.2): the
/// lease names its holder, and the holder has said what it can do.
pub(in crate::lab::storage) fn led(store: &Store, driver: &str) -> bool {
    led_with(store, driver, "volume_replication.VOLUME_REPLICATION")
}

/// [`led`] for another capability.
pub(in crate::lab::storage) fn led_with(store: &Store, driver: &str, capability: &str) -> bool {
    let lease: String = driver
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .chain("-csi-addons".chars())
        .collect();
    store.list(NODES, None).iter().any(|node| {
        let held = store.get("leases.coordination.k8s.io", meta::namespace(node), &lease);
        let holder = held.map(|l| meta::text(&l, "/spec/holderIdentity").to_owned());
        let capabilities = node
            .pointer("/status/capabilities")
            .and_then(Value::as_array);
        meta::text(node, "/spec/driver/name") == driver
            && meta::text(node, "/status/state") == "Connected"
            && holder.is_some_and(|h| h == meta::text(node, "/spec/driver/nodeID"))
            && capabilities.is_some_and(|c| c.iter().any(|c| c == capability))
    })
}

/// What a primary is told about its replica.
pub(super) struct Replica {
    /// The last sync.
    pub(super) sync: SyncInfo,
    /// Whether the local side calls itself healthy.
    pub(super) state: Option<bool>,
    /// What it says of itself.
    pub(super) text: String,
}

/// One volume under one class.
#[derive(Clone)]
pub(super) struct Driver {
    storage: Storage,
    handle: String,
    provisioned_by: String,
    provisioner: String,
    mode: String,
    interval: String,
    group: Option<String>,
}

impl Driver {
    /// The driver for a claim's volume under a VolumeReplicationClass.
    pub(super) fn new(s: &Storage, class: &Value, claim: &Value, volume: &Value) -> Self {
        let parameter = |name: &str| {
            let of = class.pointer("/spec/parameters");
            of.map_or("", |p| meta::text(p, &format!("/{name}")))
                .to_owned()
        };
        let grouped = parameter(world::GROUP_PARAMETER) == "vm";
        Self {
            storage: s.clone(),
            handle: handle(volume).to_owned(),
            provisioned_by: meta::text(volume, "/spec/csi/driver").to_owned(),
            provisioner: meta::text(class, "/spec/provisioner").to_owned(),
            mode: parameter("mirroringMode"),
            interval: parameter("schedulingInterval"),
            group: grouped.then(|| group(&s.store, meta::namespace(claim), meta::name(claim))),
        }
    }

    fn spec(&self) -> Outcome<MirrorSpec> {
        let invalid = |text: String| Status::new(Code::InvalidArgument, text);
        if !["", "snapshot"].contains(&self.mode.as_str()) {
            return Err(invalid(format!(
                "mirroring mode \"{}\" not supported",
                self.mode
            )));
        }
        if self.provisioned_by != self.provisioner {
            let text = format!("volume {} is not of {}", self.handle, self.provisioner);
            return Err(invalid(text));
        }
        let interval = match self.interval.as_str() {
            "" => None,
            text => Some(schedule(text).ok_or_else(|| {
                invalid(format!(
                    "interval specified without d, h, m suffix \"{text}\""
                ))
            })?),
        };
        Ok(MirrorSpec {
            interval,
            group: self.group.clone(),
        })
    }

    /// EnableVolumeReplication.
    pub(super) fn enable(&self) -> Outcome {
        let s = &self.storage;
        s.array.enable(s.site, &self.handle, &self.spec()?)
    }

    /// PromoteVolume; it may take long, and the controller gives up before the driver does.
    pub(super) async fn promote(&self, force: bool) -> Outcome {
        let s = &self.storage;
        let mut spec = self.spec()?;
        if strike::paused(s) {
            spec.interval = None;
        }
        tokio::select! {
            done = s.array.promote(s.site, &self.handle, force, &spec) => done,
            () = s.clock.pass(DEADLINE) => {
                Err(Status::new(Code::DeadlineExceeded, "context deadline exceeded"))
            }
        }
    }

    /// DemoteVolume.
    pub(super) fn demote(&self) -> Outcome {
        self.storage.array.demote(self.storage.site, &self.handle)
    }

    /// ResyncVolume.
    pub(super) fn resync(&self, force: bool) -> Outcome<bool> {
        let s = &self.storage;
        s.array.resync(s.site, &self.handle, force)
    }

    /// DisableVolumeReplication.
    pub(super) fn disable(&self) -> Outcome {
        self.storage.array.disable(self.storage.site, &self.handle)
    }

    /// GetVolumeReplicationInfo. Health is what the *local* side says, so that a dead peer still
    /// looks healthy (replication.md §3).
    pub(super) fn info(&self) -> Outcome<Replica> {
        let s = &self.storage;
        let sync = s.array.info(s.site, &self.handle)?;
        let (state, text) = match s.array.mirror_state(s.site, &self.handle)? {
            MirrorState::Stopped if strike::paused(s) => (Some(false), "mirroring is paused"),
            MirrorState::Stopped => (Some(true), "local image is primary"),
            MirrorState::SplitBrain => (Some(false), "split-brain"),
            _ => (None, "local image is not primary"),
        };
        Ok(Replica {
            sync,
            state,
            text: text.to_owned(),
        })
    }

    /// How long to wait before asking again: half the interval, the whole of a short one, `None`
    /// for what Go's duration parser refuses, such as days.
    pub(super) fn info_interval(&self) -> Option<Duration> {
        let interval = schedule(&self.interval).filter(|_| !self.interval.ends_with('d'))?;
        let short = interval < Duration::from_secs(120);
        Some(if short { interval } else { interval / 2 })
    }
}

/// An interval as RBD's scheduler takes it: a number and `m`, `h` or `d`.
fn schedule(text: &str) -> Option<Duration> {
    let unit = match text.chars().last()? {
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return None,
    };
    let number = &text[..text.len() - 1];
    let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    let count: u64 = number.parse().ok().filter(|n| digits && *n > 0)?;
    Some(Duration::from_secs(count.checked_mul(unit)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_whole_minutes_hours_or_days() {
        for (text, seconds) in [
            ("1m", Some(60)),
            ("12h", Some(12 * 3600)),
            ("1d", Some(86_400)),
            ("0m", None),
            ("1.5m", None),
            ("+1m", None),
            ("90s", None),
            ("m", None),
            ("", None),
        ] {
            assert_eq!(schedule(text), seconds.map(Duration::from_secs), "{text}");
        }
    }
}
