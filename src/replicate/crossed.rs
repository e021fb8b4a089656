//! What crossed to the replicas since a moment, as their primaries tell it. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::Set;
use super::state::{Observation, VolumeState};

/// The syncs of a set that are newer than a moment, as far as anybody looked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crossed {
    since: Timestamp,
    /// Bytes by PVC and point in time, where they were told.
    syncs: BTreeMap<(String, Timestamp), Option<u64>>,
}

impl Crossed {
    /// Nothing yet; what is not newer than `since`, on the storage's clock, will not count.
    pub const fn since(since: Timestamp) -> Self {
        Self {
            since,
            syncs: BTreeMap::new(),
        }
    }

    /// Takes in what a site with primary volumes says. The same sync seen twice counts once.
    pub fn note(&mut self, observation: &Observation) {
        for (pvc, state) in &observation.volumes {
            let VolumeState::Seen(vr) = state else {
                continue;
            };
            if let Some(at) = &vr.status.last_sync_time
                && at.0 > self.since
            {
                let bytes = vr.status.last_sync_bytes;
                let bytes = bytes.and_then(|bytes| u64::try_from(bytes).ok());
                self.syncs.insert((pvc.clone(), at.0), bytes);
            }
        }
    }

    /// The newest point in time that any replica holds, or the moment since when.
    pub fn newest(&self) -> Timestamp {
        let times = self.syncs.keys().map(|(_, at)| *at);
        times.max().unwrap_or(self.since)
    }

    /// How many syncs the volume that had the fewest had; 0 for a set without volumes.
    pub fn syncs(&self, set: &Set) -> u32 {
        let counts = set.pvcs.iter().map(|pvc| {
            let own = self.syncs.keys().filter(|(of, _)| of == pvc);
            u32::try_from(own.count()).unwrap_or(u32::MAX)
        });
        counts.min().unwrap_or(0)
    }

    /// Bytes that these syncs moved, `None` if none of them tells.
    pub fn bytes(&self) -> Option<u64> {
        let told = self.syncs.values().flatten();
        told.copied().reduce(u64::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::crd::replication::VolumeReplication;
    use crate::history::event::Site;

    fn seen(syncs: &[(&str, Value)]) -> Observation {
        let volumes = syncs.iter().map(|(pvc, status)| {
            let vr: VolumeReplication = serde_json::from_value(json!({
                "metadata": {"name": pvc}, "spec": {"replicationState": "primary"},
                "status": status,
            }))
            .expect("a VolumeReplication");
            ((*pvc).to_owned(), VolumeState::Seen(Box::new(vr)))
        });
        Observation {
            site: Site::Secondary,
            volumes: volumes.collect(),
        }
    }

    fn sync(at: &str, bytes: u64) -> Value {
        json!({"lastSyncTime": at, "lastSyncBytes": bytes})
    }

    #[test]
    fn only_syncs_after_the_order_count_and_each_once() {
        let order = "2026-01-01T00:00:10Z";
        let mut crossed = Crossed::since(order.parse().expect("a time"));
        let set = Set {
            namespace: "ns".into(),
            vm: "vm".into(),
            pvcs: vec!["a".into(), "b".into()],
        };
        crossed.note(&seen(&[("a", sync(order, 7)), ("b", json!({}))]));
        assert_eq!((crossed.syncs(&set), crossed.bytes()), (0, None));
        assert_eq!(crossed.newest(), order.parse().expect("a time"));

        let first = seen(&[
            ("a", sync("2026-01-01T00:00:11Z", 4096)),
            ("b", json!({"lastSyncTime": "2026-01-01T00:00:12Z"})),
        ]);
        crossed.note(&first);
        crossed.note(&first);
        assert_eq!((crossed.syncs(&set), crossed.bytes()), (1, Some(4096)));
        let newest: Timestamp = "2026-01-01T00:00:12Z".parse().expect("a time");
        assert_eq!(crossed.newest(), newest);

        crossed.note(&seen(&[("a", sync("2026-01-01T00:00:13Z", 1))]));
        assert_eq!(crossed.syncs(&set), 1, "b has had one only");
        crossed.note(&seen(&[("b", sync("2026-01-01T00:00:13Z", 2))]));
        assert_eq!((crossed.syncs(&set), crossed.bytes()), (2, Some(4099)));
    }

    #[test]
    fn a_set_without_volumes_never_synced() {
        let none = Set {
            namespace: String::new(),
            vm: String::new(),
            pvcs: Vec::new(),
        };
        assert_eq!(Crossed::since(Timestamp::UNIX_EPOCH).syncs(&none), 0);
    }
}
