//! A copy of an image that is made under the guest which writes to it, as a hypervisor makes one when
//! a disk moves to another volume: what is stored is copied piece by piece, what is written meanwhile
//! goes to both, and in the end the guest goes on upon the copy.
//!
//! Contract: until the pivot the source alone is the truth and the copy may be thrown away at any time.
//! Images that move together do so at one instant. A disk that is open on the source is open on the
//! copy from then on; nothing reaches the source any more.

use super::core::{Core, Key};
use super::pages::Page;
use super::status::Outcome;
use super::{Array, Code, Status};
use crate::history::event::Site;
use crate::lab::world::PAGE;

/// A copy under way.
#[derive(Debug)]
pub(super) struct Copying {
    to: Key,
    /// The host on which the guest is to go on.
    host: String,
    /// Tells this copy from an earlier one of the same image.
    number: u64,
    /// Pages below this are on the copy.
    copied: u64,
}

impl Core {
    fn begin_copy(&mut self, from: &Key, to: &Key, host: &str) -> Outcome<u64> {
        let (source, target) = (self.image(from)?.size, self.image(to)?.size);
        if target < source {
            let text = format!("the destination has {target} bytes, fewer than {source}");
            return Err(Status::new(Code::InvalidArgument, text));
        }
        self.open_on(to, host)?;
        let number = self.fresh();
        let copying = Copying {
            to: to.clone(),
            host: host.to_owned(),
            number,
            copied: 0,
        };
        self.copies.insert(from.clone(), copying);
        Ok(number)
    }

    /// The handle by which a host writes to an image.
    fn open_on(&self, key: &Key, host: &str) -> Outcome<u64> {
        let mut open = self.image(key)?.attached.iter();
        let found = open.find(|(_, a)| a.host == host && a.writable && !a.dead);
        found.map(|(id, _)| *id).ok_or_else(|| {
            let text = format!("image {} is not open on {host}", key.1);
            Status::new(Code::FailedPrecondition, text)
        })
    }

    /// Copies what is stored below page `until`. False if this copy is no longer made.
    fn copy_until(&mut self, from: &Key, number: u64, until: u64) -> Outcome<bool> {
        let copying = self.copies.get(from).filter(|c| c.number == number);
        let Some(Copying {
            to, host, copied, ..
        }) = copying
        else {
            return Ok(false);
        };
        let (to, host, range) = (to.clone(), host.clone(), *copied..until);
        let source = self.image(from)?;
        let mut seen = source.pages.clone();
        for (index, page) in source.cached() {
            seen.set(index, page.clone());
        }
        let target = self.image_mut(&to)?;
        for (index, page) in target.pages.delta(&seen) {
            if range.contains(&index) {
                target.write(&host, index, page, true);
            }
        }
        if let Some(copying) = self.copies.get_mut(from) {
            copying.copied = until.max(range.start);
        }
        Ok(true)
    }

    /// What is written to an image goes to its copy too, as far as that has come.
    pub(super) fn write_to_copy(&mut self, from: &Key, at: u64, pages: &[Page], durable: bool) {
        let Some(copying) = self.copies.get(from) else {
            return;
        };
        let (to, host, copied) = (copying.to.clone(), copying.host.clone(), copying.copied);
        for (index, page) in (at..copied).zip(pages) {
            if self.misses_copy(&to, index, page) {
                continue;
            }
            if let Some(image) = self.images.get_mut(&to) {
                image.write(&host, index, page.clone(), durable);
            }
        }
    }

    /// A flush of an image is one of its copy too.
    pub(super) fn flush_copy(&mut self, from: &Key) {
        let to = self.copies.get(from).map(|copying| copying.to.clone());
        if let Some(image) = to.and_then(|to| self.images.get_mut(&to)) {
            image.flush();
        }
    }

    /// Whoever has the image open has its copy open instead.
    fn pivot(&mut self, from: &Key) -> Outcome {
        let Some(copying) = self.copies.get(from) else {
            let text = format!("no copy of image {} is being made", from.1);
            return Err(Status::new(Code::FailedPrecondition, text));
        };
        let (to, number, host) = (copying.to.clone(), copying.number, copying.host.clone());
        let new = self.open_on(&to, &host)?;
        let end = self.image(from)?.size / PAGE as u64;
        self.copy_until(from, number, end)?;
        self.copies.remove(from);
        let source = self.image_mut(from)?;
        source.flush();
        let old: Vec<u64> = source.attached.keys().copied().collect();
        source.attached.clear();
        self.image_mut(&to)?.flush();
        for place in self.relocated.values_mut() {
            if place.0 == *from && old.contains(&place.1) {
                *place = (to.clone(), new);
            }
        }
        for id in old {
            self.relocated.insert((from.clone(), id), (to.clone(), new));
        }
        Ok(())
    }

    /// Where a handle leads by now, if it is not where it was opened.
    pub(super) fn relocated(&self, key: &Key, id: u64) -> Option<(Key, u64)> {
        if self.relocated.is_empty() {
            return None;
        }
        self.relocated.get(&(key.clone(), id)).cloned()
    }

    /// Gives up the copies that a site, or one host of it, was making.
    pub(super) fn drop_copies(&mut self, site: Site, host: Option<&str>) {
        self.copies.retain(|from, copying| {
            from.0 != site || host.is_some_and(|host| copying.host != host)
        });
    }
}

impl Array {
    /// Begins to copy an image onto another one of the site that is open on `host`, where whoever
    /// writes to the first is to go on. The copy's number. `InvalidArgument` if it has no room.
    pub fn begin_copy(&self, site: Site, from: &str, to: &str, host: &str) -> Outcome<u64> {
        let to = Self::key(site, to)?;
        self.with(site, from, |core, from, _| core.begin_copy(from, &to, host))
    }

    /// Copies on until `part` of `parts` of the image are copied. False if that copy was given up.
    pub fn copy_on(
        &self,
        site: Site,
        from: &str,
        number: u64,
        (part, parts): (u32, u32),
    ) -> Outcome<bool> {
        self.with(site, from, |core, from, _| {
            let pages = core.image(from)?.size / PAGE as u64;
            let until = pages * u64::from(part) / u64::from(parts.max(1));
            core.copy_until(from, number, until)
        })
    }

    /// Whoever writes to these images writes to their copies from now on, at one instant for all. None
    /// does if one of them cannot.
    pub fn pivot(&self, site: Site, images: &[&str]) -> Outcome {
        let keys = images.iter().map(|image| Self::key(site, image));
        let keys = keys.collect::<Outcome<Vec<_>>>()?;
        let Some(first) = images.first() else {
            return Ok(());
        };
        self.with(site, first, |core, _, _| {
            for key in &keys {
                let copying = core.copies.get(key).map(|c| (c.to.clone(), c.host.clone()));
                let (to, host) = copying.ok_or_else(|| {
                    let text = format!("no copy of image {} is being made", key.1);
                    Status::new(Code::FailedPrecondition, text)
                })?;
                core.open_on(&to, &host)?;
            }
            keys.iter().try_for_each(|key| core.pivot(key))
        })
    }

    /// Gives up the copy of an image, if one is being made.
    pub fn abandon_copy(&self, site: Site, from: &str) {
        if let Ok(key) = Self::key(site, from) {
            self.shared.lock().copies.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::history::event::Site::Primary;
    use crate::lab::array::Config;
    use crate::lab::clock::LabClock;
    use crate::lab::world::handle;
    use crate::probe::disk::{Disk, Grants};

    const PAGES: u64 = 64;
    const BYTES: u64 = PAGES * PAGE as u64;

    fn array(dsync: bool) -> Array {
        let grants = Grants {
            direct: true,
            dsync,
            write_back: true,
        };
        let config = Config {
            grants,
            ..Config::default()
        };
        Array::new(config, LabClock::new(1.0), std::sync::Arc::default())
    }

    fn write(disk: &dyn Disk, page: u64, byte: u8) {
        disk.write_at(page * PAGE as u64, &[byte; PAGE]).unwrap();
    }

    fn first_byte(disk: &dyn Disk, page: u64) -> u8 {
        let mut bytes = [0; PAGE];
        disk.read_at(page * PAGE as u64, &mut bytes).unwrap();
        bytes[0]
    }

    #[test]
    fn the_guest_goes_on_upon_the_copy_and_the_source_stays_as_it_was() {
        let array = array(true);
        let [a, b] = ["a", "b"].map(|id| handle(Primary, id));
        array.create(Primary, &a, BYTES).unwrap();
        array.create(Primary, &b, 2 * BYTES).unwrap();
        let guest = array.attach(Primary, &a, "east-node-0", true).unwrap();
        write(guest.as_ref(), 1, 1);
        let target = array.attach(Primary, &b, "east-node-1", true).unwrap();
        array.begin_copy(Primary, &a, &b, "east-node-1").unwrap();
        array.pivot(Primary, &[&a]).unwrap();
        write(guest.as_ref(), 2, 2);
        assert_eq!(
            (first_byte(guest.as_ref(), 1), first_byte(guest.as_ref(), 2)),
            (1, 2)
        );
        assert_eq!(first_byte(target.as_ref(), 2), 2);
        assert!(
            array.attachments(Primary, &a).is_empty(),
            "nobody has it open"
        );
        assert_eq!(array.attachments(Primary, &b), ["east-node-1"]);
        let left = array.attach(Primary, &a, "east-node-2", false).unwrap();
        assert_eq!(
            (first_byte(left.as_ref(), 1), first_byte(left.as_ref(), 2)),
            (1, 0)
        );
        assert_eq!(guest.size(), BYTES, "the guest is not told of another size");
        let c = handle(Primary, "c");
        array.create(Primary, &c, 2 * BYTES).unwrap();
        let last = array.attach(Primary, &c, "east-node-0", true).unwrap();
        array.begin_copy(Primary, &b, &c, "east-node-0").unwrap();
        array.pivot(Primary, &[&b]).unwrap();
        drop(target);
        write(guest.as_ref(), 3, 3);
        assert_eq!(
            (first_byte(last.as_ref(), 1), first_byte(last.as_ref(), 3)),
            (1, 3),
            "it moves again"
        );
        drop(last);
        assert!(guest.flush().is_err(), "the handle behind it is closed");
    }

    #[test]
    fn a_copy_needs_room_and_an_open_destination_and_can_be_given_up() {
        let array = array(true);
        let [a, small, b] = ["a", "small", "b"].map(|id| handle(Primary, id));
        for (image, bytes) in [(&a, BYTES), (&small, BYTES / 2), (&b, BYTES)] {
            array.create(Primary, image, bytes).unwrap();
        }
        let guest = array.attach(Primary, &a, "east-node-0", true).unwrap();
        let code = |to: &str| {
            array
                .begin_copy(Primary, &a, to, "east-node-1")
                .map_err(|e| e.code)
        };
        assert_eq!(code(&small), Err(Code::InvalidArgument));
        assert_eq!(code(&b), Err(Code::FailedPrecondition));
        let target = array.attach(Primary, &b, "east-node-1", true).unwrap();
        let number = code(&b).unwrap();
        assert_eq!(array.copy_on(Primary, &a, number, (1, 2)), Ok(true));
        array.abandon_copy(Primary, &a);
        assert_eq!(array.copy_on(Primary, &a, number, (2, 2)), Ok(false));
        assert!(array.pivot(Primary, &[&a]).is_err());
        write(guest.as_ref(), 0, 9);
        assert_eq!(first_byte(target.as_ref(), 0), 0);
        assert_eq!(array.attachments(Primary, &a), ["east-node-0"]);
    }

    proptest! {
        #[test]
        fn whatever_is_written_meanwhile_the_copy_is_the_source(
            dsync: bool,
            before in prop::collection::vec((0..PAGES, 0_u8..4), 0..20),
            // A page and a byte to write, or how far to copy.
            meanwhile in prop::collection::vec((0..PAGES, 0_u8..4, prop::option::of(0_u32..=8)), 0..40),
        ) {
            let array = array(dsync);
            let [a, b] = ["a", "b"].map(|id| handle(Primary, id));
            array.create(Primary, &a, BYTES).unwrap();
            array.create(Primary, &b, BYTES).unwrap();
            let guest = array.attach(Primary, &a, "east-node-0", true).unwrap();
            let _target = array.attach(Primary, &b, "east-node-1", true).unwrap();
            let mut told = BTreeMap::new();
            for (page, byte) in before {
                write(guest.as_ref(), page, byte);
                told.insert(page, byte);
            }
            let number = array.begin_copy(Primary, &a, &b, "east-node-1").unwrap();
            for (page, byte, copied) in meanwhile {
                if let Some(part) = copied {
                    prop_assert_eq!(array.copy_on(Primary, &a, number, (part, 8)), Ok(true));
                } else {
                    write(guest.as_ref(), page, byte);
                    told.insert(page, byte);
                }
            }
            array.pivot(Primary, &[&a]).unwrap();
            for page in 0..PAGES {
                prop_assert_eq!(first_byte(guest.as_ref(), page), told.get(&page).copied().unwrap_or(0));
            }
        }
    }
}
