//! Numbered frames that the host has not journaled yet.
//!
//! Contract: nothing is ever dropped. A full outbox still takes frames, because they report what
//! has happened already; whoever makes things happen asks [`Outbox::has_room`] first.

use std::collections::VecDeque;
use std::sync::Arc;

use super::frame::FromGuest;

/// Unheard frames in order, numbered from 1.
#[derive(Debug)]
pub struct Outbox {
    frames: VecDeque<Arc<[u8]>>,
    /// The number of `frames[0]`.
    first: u64,
    bytes: u64,
    limit: u64,
}

/// The host claims to have heard what cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfStep {
    /// What the host says it has heard.
    pub heard: u64,
    /// The oldest number that it can have heard up to.
    pub oldest: u64,
    /// The newest.
    pub newest: u64,
}

impl std::fmt::Display for OutOfStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "the host says that it has heard frame {}, but only {} to {} are possible",
            self.heard, self.oldest, self.newest
        )
    }
}
impl std::error::Error for OutOfStep {}

impl Outbox {
    /// An outbox that has room while it holds less than `limit` bytes.
    pub const fn new(limit: u64) -> Self {
        Self {
            frames: VecDeque::new(),
            first: 1,
            bytes: 0,
            limit,
        }
    }

    /// Takes a frame and gives it the next number.
    pub fn push(&mut self, frame: &FromGuest) {
        let bytes: Arc<[u8]> = frame.encode(self.newest() + 1).into();
        self.bytes += bytes.len() as u64;
        self.frames.push_back(bytes);
    }

    /// The number of the newest frame, 0 if there was none.
    pub fn newest(&self) -> u64 {
        self.first + self.frames.len() as u64 - 1
    }

    /// Whether more may be caused to happen.
    pub const fn has_room(&self) -> bool {
        self.bytes < self.limit
    }

    /// The frame with this number, if it is held.
    pub fn get(&self, seq: u64) -> Option<&Arc<[u8]>> {
        let index = usize::try_from(seq.checked_sub(self.first)?).ok()?;
        self.frames.get(index)
    }

    /// Starts delivery over after `heard`, which must connect to what is held.
    pub fn resume(&mut self, heard: u64) -> Result<(), OutOfStep> {
        if heard < self.first - 1 {
            return Err(self.out_of_step(heard));
        }
        self.forget(heard)
    }

    /// Forgets the frames up to `heard`; numbers that are forgotten already do no harm, but nothing
    /// that is yet to come can have been heard.
    pub fn forget(&mut self, heard: u64) -> Result<(), OutOfStep> {
        if heard > self.newest() {
            return Err(self.out_of_step(heard));
        }
        while self.first <= heard
            && let Some(frame) = self.frames.pop_front()
        {
            self.bytes -= frame.len() as u64;
            self.first += 1;
        }
        Ok(())
    }

    fn out_of_step(&self, heard: u64) -> OutOfStep {
        OutOfStep {
            heard,
            oldest: self.first - 1,
            newest: self.newest(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(volume: u8) -> FromGuest {
        FromGuest::Filled { volume, cells: 1 }
    }

    #[test]
    fn forgets_only_what_was_heard() {
        let mut outbox = Outbox::new(1000);
        for volume in 0..5 {
            outbox.push(&frame(volume));
        }
        outbox.forget(2).unwrap();
        assert_eq!(outbox.newest(), 5);
        assert!(outbox.get(2).is_none());
        assert_eq!(**outbox.get(3).unwrap(), *frame(2).encode(3));
        outbox.forget(1).unwrap();
        assert_eq!(outbox.forget(6).unwrap_err().newest, 5);
        outbox.forget(5).unwrap();
        assert_eq!(outbox.newest(), 5);
        outbox.push(&frame(9));
        assert_eq!(**outbox.get(6).unwrap(), *frame(9).encode(6));
    }

    #[test]
    fn a_host_out_of_step_is_told_so() {
        let mut outbox = Outbox::new(1000);
        for volume in 0..5 {
            outbox.push(&frame(volume));
        }
        assert_eq!(outbox.resume(2), Ok(()));
        for heard in [0, 1, 6] {
            let error = OutOfStep {
                heard,
                oldest: 2,
                newest: 5,
            };
            assert_eq!(outbox.resume(heard), Err(error));
        }
    }

    #[test]
    fn room_comes_back_with_hearing() {
        let mut outbox = Outbox::new(1);
        assert!(outbox.has_room());
        outbox.push(&frame(0));
        assert!(!outbox.has_room());
        outbox.forget(1).unwrap();
        assert!(outbox.has_room());
    }
}
