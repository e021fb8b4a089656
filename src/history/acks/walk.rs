//! From the compact code back to writes.

use super::counts::Counts;
use super::{AckLog, Acked};

/// Replays the compact code.
pub(super) struct Walk<'a> {
    log: &'a AckLog,
    at: usize,
    batch: usize,
    /// Ranks of the batch that were already read.
    within: u32,
    rank: u64,
    marks: u64,
    writer: u32,
    left: u64,
    position: Counts,
}

impl<'a> Walk<'a> {
    pub(super) const fn new(log: &'a AckLog) -> Self {
        Self {
            log,
            at: 0,
            batch: 0,
            within: 0,
            rank: 0,
            marks: 0,
            writer: 0,
            left: 0,
            position: Counts::new(),
        }
    }

    pub(super) fn next_write(&mut self) -> Option<Acked> {
        loop {
            if self.left > 0 {
                self.left -= 1;
                let at = self.position.of(self.writer);
                *at += 1;
                return Some(Acked {
                    writer: self.writer,
                    wseq: *at,
                    rank: self.rank,
                    batch: self.batch,
                });
            }
            if self.marks > 0 {
                self.marks -= 1;
                self.writer = u32::try_from(self.get()?).ok()?;
                self.left = self.get()?;
                continue;
            }
            self.next_rank()?;
        }
    }

    fn next_rank(&mut self) -> Option<()> {
        let mut batch = self.log.batches.get(self.batch)?;
        while self.within == batch.ranks {
            self.batch += 1;
            self.within = 0;
            batch = self.log.batches.get(self.batch)?;
        }
        self.rank = batch.first_rank + u64::from(self.within);
        self.within += 1;
        let head = self.get()?;
        if head & 1 == 0 {
            self.writer = u32::try_from(head >> 1).ok()?;
            self.left = 1;
        } else {
            self.marks = head >> 1;
        }
        Some(())
    }

    fn get(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = *self.log.code.get(self.at)?;
            self.at += 1;
            value |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}
