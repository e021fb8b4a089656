//! Snapshots of images for their users, and images made from them, as a CSI driver's CreateSnapshot
//! and CreateVolume do. A snapshot shares its pages with the image, so it costs nothing to take.
//!
//! Contract: a snapshot holds what was durable at one instant, never what only a host's cache held;
//! it outlives its image, and images made from it outlive it.

use std::time::Duration;

use jiff::Timestamp;

use super::core::{Core, Key, Now};
use super::pages::Pages;
use super::status::Outcome;
use super::{Array, Code, Status};
use crate::history::event::Site;
use crate::lab::world;

/// Lab time from the cut until a snapshot can be restored: storage that flattens or uploads says
/// `ready_to_use: false` until then.
const SETTLING: Duration = Duration::from_secs(2);

/// A snapshot as the array keeps it.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    source: String,
    pages: Pages,
    bytes: u64,
    cut: Now,
}

/// A snapshot as CreateSnapshot answers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its handle.
    pub handle: String,
    /// When it was cut, by the storage's clock.
    pub created: Timestamp,
    /// Bytes that an image made from it has at least.
    pub bytes: u64,
    /// Whether images can be made from it yet.
    pub ready: bool,
}

impl Core {
    /// Cuts a snapshot of an image under a name, or says how the one of that name fares.
    pub(super) fn cut_snapshot(&mut self, of: &Key, name: &str, now: Now) -> Outcome<Snapshot> {
        let key = (of.0, name.to_owned());
        if !self.snapshots.contains_key(&key) {
            let image = self.image(of)?;
            if !image.writable() {
                let text = format!(
                    "failed to create snapshot of {}: (30) Read-only file system",
                    of.1
                );
                return Err(Status::new(Code::Internal, text));
            }
            let kept = Kept {
                source: of.1.clone(),
                pages: image.pages.clone(),
                bytes: image.size,
                cut: now,
            };
            self.snapshots.insert(key.clone(), kept);
        }
        let kept = self.snapshot_at(&key)?;
        if kept.source != of.1 {
            let text = format!("snapshot {name} exists and is of image {}", kept.source);
            return Err(Status::new(Code::InvalidArgument, text));
        }
        Ok(Snapshot {
            handle: world::handle(key.0, name),
            created: kept.cut.wall,
            bytes: kept.bytes,
            ready: now.lab.saturating_sub(kept.cut.lab) >= SETTLING,
        })
    }

    /// Cuts several images at this instant, or says how the snapshots of these names fare.
    fn cut_group(&mut self, members: &[(Key, &str)], now: Now) -> Outcome<Vec<Snapshot>> {
        for (of, _) in members {
            self.image(of)?;
        }
        if self.is_late(members, now)? {
            let text = "an operation on this group of volumes already exists";
            return Err(Status::new(Code::Aborted, text));
        }
        let cut = members.iter();
        cut.map(|(of, name)| self.cut_snapshot(of, name, now))
            .collect()
    }

    fn snapshot_at(&self, key: &Key) -> Outcome<&Kept> {
        let absent = || {
            let text = format!("snapshot {} not found in {}", key.1, world::short(key.0));
            Status::new(Code::NotFound, text)
        };
        self.snapshots.get(key).ok_or_else(absent)
    }

    fn restore_snapshot(&mut self, from: &Key, to: &Key, bytes: u64) -> Outcome {
        let kept = self.snapshot_at(from)?;
        if kept.bytes > bytes {
            let text = format!("the snapshot has {} bytes, more than {bytes}", kept.bytes);
            return Err(Status::new(Code::InvalidArgument, text));
        }
        let (mut pages, source) = (kept.pages.clone(), kept.source.clone());
        self.create(to.clone(), bytes)?;
        self.strike_at_restore(to, &source, &mut pages);
        self.image_mut(to)?.pages = pages;
        Ok(())
    }
}

impl Array {
    /// Cuts a snapshot of an image under a name, or says how the one of that name fares: asking
    /// again is how its readiness is learned, as with CSI's CreateSnapshot. `Internal` for a replica,
    /// which nobody may snapshot.
    pub fn snapshot(&self, site: Site, handle: &str, name: &str) -> Outcome<Snapshot> {
        self.with(site, handle, |core, key, now| {
            core.cut_snapshot(key, name, now)
        })
    }

    /// Cuts snapshots of several images at one instant, each under its name, or says how those of these
    /// names fare, as CSI's CreateVolumeGroupSnapshot. `Aborted` while the storage is at it.
    pub fn snapshot_group(&self, site: Site, members: &[(&str, String)]) -> Outcome<Vec<Snapshot>> {
        let Some((first, _)) = members.first() else {
            return Ok(Vec::new());
        };
        let keys = members.iter();
        let keys = keys.map(|(handle, name)| Ok((Self::key(site, handle)?, name.as_str())));
        let keys = keys.collect::<Outcome<Vec<_>>>()?;
        self.with(site, first, |core, _, now| core.cut_group(&keys, now))
    }

    /// How the snapshot with this handle fares.
    pub fn snapshot_status(&self, site: Site, handle: &str) -> Outcome<Snapshot> {
        self.with(site, handle, |core, key, now| {
            let of = (key.0, core.snapshot_at(key)?.source.clone());
            core.cut_snapshot(&of, &key.1, now)
        })
    }

    /// Deletes a snapshot; fine if it is gone already. Images made from it keep their pages.
    pub fn delete_snapshot(&self, site: Site, handle: &str) -> Outcome {
        self.with(site, handle, |core, key, _| {
            core.snapshots.remove(key);
            Ok(())
        })
    }

    /// Makes the image `to` of `bytes` bytes, at least the snapshot's, with its content.
    pub fn restore(&self, site: Site, snapshot: &str, to: &str, bytes: u64) -> Outcome {
        let to = Self::key(site, to)?;
        self.with(site, snapshot, |core, from, _| {
            core.restore_snapshot(from, &to, bytes)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::event::Site::{Primary, Secondary};
    use crate::lab::array::{Config, MirrorSpec};
    use crate::lab::clock::LabClock;
    use crate::lab::world::{PAGE, handle};
    use crate::probe::disk::Grants;

    const BYTES: u64 = 64 * PAGE as u64;

    fn array() -> Array {
        let grants = Grants {
            direct: true,
            dsync: false,
            write_back: true,
        };
        let config = Config {
            grants,
            ..Config::default()
        };
        Array::new(config, LabClock::new(1.0), std::sync::Arc::default())
    }

    fn first_byte(array: &Array, handle: &str) -> u8 {
        let disk = array.attach(Primary, handle, "east-node-1", false).unwrap();
        let mut page = [0; PAGE];
        disk.read_at(0, &mut page).unwrap();
        page[0]
    }

    #[tokio::test(start_paused = true)]
    async fn a_snapshot_holds_what_was_durable_then_and_outlives_its_image() {
        let array = array();
        let (image, copy) = (handle(Primary, "a"), handle(Primary, "b"));
        array.create(Primary, &image, BYTES).unwrap();
        let disk = array.attach(Primary, &image, "east-node-0", true).unwrap();
        disk.write_at(0, &[1; PAGE]).unwrap();
        disk.flush().unwrap();
        disk.write_at(0, &[2; PAGE]).unwrap();
        let cut = array.snapshot(Primary, &image, "s").unwrap();
        assert_eq!((cut.ready, cut.bytes), (false, BYTES));
        disk.flush().unwrap();
        LabClock::new(1.0).pass(SETTLING).await;
        let again = array.snapshot(Primary, &image, "s").unwrap();
        assert!(again.ready && again.created == cut.created, "one cut");
        assert_eq!(array.snapshot_status(Primary, &cut.handle), Ok(again));
        drop(disk);
        array.delete(Primary, &image).unwrap();
        array
            .restore(Primary, &cut.handle, &copy, 2 * BYTES)
            .unwrap();
        array.delete_snapshot(Primary, &cut.handle).unwrap();
        array.delete_snapshot(Primary, &cut.handle).unwrap();
        assert_eq!(first_byte(&array, &copy), 1);
        assert_eq!(array.size(Primary, &copy), Ok(2 * BYTES));
    }

    #[test]
    fn what_cannot_be_snapshotted_or_restored_is_refused() {
        let array = array();
        let [a, b, c] = ["a", "b", "c"].map(|id| handle(Primary, id));
        let code = |outcome: Outcome<Snapshot>| outcome.map(|s| s.handle).map_err(|e| e.code);
        assert_eq!(code(array.snapshot(Primary, &a, "s")), Err(Code::NotFound));
        for image in [&a, &b] {
            array.create(Primary, image, BYTES).unwrap();
        }
        let cut = array.snapshot(Primary, &a, "s").unwrap();
        assert_eq!(
            code(array.snapshot(Primary, &b, "s")),
            Err(Code::InvalidArgument),
            "the name is taken by another image"
        );
        let small = array.restore(Primary, &cut.handle, &c, BYTES / 2);
        assert_eq!(small.map_err(|e| e.code), Err(Code::InvalidArgument));
        assert!(!array.exists(Primary, &c));
        let spec = MirrorSpec {
            interval: None,
            group: None,
        };
        array.enable(Primary, &a, &spec).unwrap();
        array.demote(Primary, &a).unwrap();
        assert_eq!(code(array.snapshot(Primary, &a, "t")), Err(Code::Internal));
        assert_eq!(
            code(array.snapshot_status(Secondary, &cut.handle)),
            Err(Code::NotFound),
            "a handle of the other site names nothing"
        );
    }
}
