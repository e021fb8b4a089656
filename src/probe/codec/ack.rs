//! Acks, the frames of which there are many: three bytes for a write of a strict load.

use super::super::frame::{Ack, Rank};
use super::super::wire::{FrameError, Get, Put, Raw};

/// An ack as it lies in its frame, read rank by rank.
#[derive(Debug)]
pub struct AckView<'a> {
    /// As in [`Ack`].
    pub first_rank: u64,
    /// As in [`Ack`].
    pub mono_ns: u64,
    /// As in [`Ack`].
    pub real_ns: u64,
    /// As in [`Ack`].
    pub token: u32,
    /// As in [`Ack`].
    pub max_gap_ns: u64,
    /// How many ranks are still to be read.
    pub left: usize,
    get: Get<'a>,
    last: Watermarks,
    marks: Vec<(u32, u64)>,
}

impl<'a> AckView<'a> {
    /// The ack in a frame, `None` if the frame is of another type.
    pub fn of(raw: &'a Raw) -> Result<Option<Self>, FrameError> {
        if raw.kind != super::ACK {
            return Ok(None);
        }
        let mut get = Get(raw.payload());
        Ok(Some(Self {
            first_rank: get.uint()?,
            mono_ns: get.uint()?,
            real_ns: get.uint()?,
            token: get.narrow("token")?,
            max_gap_ns: get.uint()?,
            left: get.count()?,
            get,
            last: Watermarks::default(),
            marks: Vec::new(),
        }))
    }

    /// The marks of the next rank, `None` after the last, with which the frame must end.
    pub fn next_rank(&mut self) -> Result<Option<&[(u32, u64)]>, FrameError> {
        let Some(left) = self.left.checked_sub(1) else {
            self.get.end()?;
            return Ok(None);
        };
        self.left = left;
        self.marks.clear();
        for _ in 0..self.get.count()? {
            let writer = self.get.narrow("writer")?;
            let last = self.last.of(writer);
            *last = self.get.near(*last)?;
            self.marks.push((writer, *last));
        }
        Ok(Some(&self.marks))
    }

    /// All of it.
    pub(super) fn read(mut self) -> Result<Ack, FrameError> {
        let mut ranks = Vec::new();
        while let Some(marks) = self.next_rank()? {
            let marks = marks.to_vec();
            ranks.push(Rank { marks });
        }
        Ok(Ack {
            first_rank: self.first_rank,
            ranks,
            mono_ns: self.mono_ns,
            real_ns: self.real_ns,
            token: self.token,
            max_gap_ns: self.max_gap_ns,
        })
    }
}

pub(super) fn put(put: &mut Put, ack: &Ack) {
    put.uint(ack.first_rank);
    put.uint(ack.mono_ns);
    put.uint(ack.real_ns);
    put.uint(ack.token);
    put.uint(ack.max_gap_ns);
    put.len(ack.ranks.len());
    let mut marks = Watermarks::default();
    for rank in &ack.ranks {
        put.len(rank.marks.len());
        for &(writer, wseq) in &rank.marks {
            put.uint(writer);
            let last = marks.of(writer);
            put.near(wseq, *last);
            *last = wseq;
        }
    }
}

/// The last watermark of each writer within one frame. A VM has a handful of writers, so the list
/// is searched; a hostile frame can only make it as long as [`Watermarks::MOST`].
#[derive(Debug, Default)]
struct Watermarks(Vec<(u32, u64)>);

impl Watermarks {
    const MOST: usize = 64;

    /// The place for `writer`; beyond [`Self::MOST`] writers share one, on both sides alike.
    fn of(&mut self, writer: u32) -> &mut u64 {
        let found = self.0.iter().position(|(known, _)| *known == writer);
        let index = found.unwrap_or_else(|| {
            if self.0.len() < Self::MOST {
                self.0.push((writer, 0));
            }
            self.0.len() - 1
        });
        &mut self.0[index].1
    }
}
