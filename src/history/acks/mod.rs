//! What one probe run's stream amounts to: which writes became durable in which order, and between
//! which moments of the host's clock. About a byte per write, so that 10⁸ writes fit in memory.

use std::collections::{BTreeMap, BTreeSet};

use super::segment::Record;
use crate::probe::codec::AckView;
use crate::probe::frame::{FromGuest, Identity};
use crate::probe::wire::{FrameError, Raw};
use counts::Counts;
use walk::Walk;

mod counts;
mod walk;

/// The most writes of one incarnation that are judged.
pub const MAX_WRITES: u64 = 2_000_000_000;

/// The most consecutive frames that may be missing before a stream is refused as nonsense.
const MAX_GAP: u64 = 1 << 20;

/// One ack frame: consecutive durability ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// When the host had the frame.
    pub at_ns: u64,
    /// Its first rank.
    pub first_rank: u64,
    /// How many ranks.
    pub ranks: u32,
    /// A token that the guest had before any of them became durable, the last or one of the last.
    pub token: u32,
    /// Guest monotonic clock at the latest of them.
    pub mono_ns: u64,
    /// Longest gap between durable writes since the frame before, guest clock.
    pub max_gap_ns: u64,
}

/// One acked write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acked {
    /// Writer number.
    pub writer: u32,
    /// Its sequence number.
    pub wseq: u64,
    /// The rank at which it was durable.
    pub rank: u64,
    /// The frame that said so, index into [`AckLog::batches`].
    pub batch: usize,
}

/// The writers' own account when they were stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    /// When the host had it.
    pub at_ns: u64,
    /// Last issued wseq by writer.
    pub issued: BTreeMap<u32, u64>,
    /// The last durability rank.
    pub last_rank: u64,
}

/// What a probe said of itself when its stream was attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attach {
    /// When the host had it.
    pub at_ns: u64,
    /// The boot in which it runs.
    pub boot_id: String,
    /// Its process id.
    pub pid: u32,
}

/// A moment bracketed by the host's clock: it lies between `low` and `high`, nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bracket {
    /// Not before.
    pub low: u64,
    /// Not after.
    pub high: u64,
}

/// The stream of one incarnation, re-deliveries removed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AckLog {
    /// Per rank: `writer << 1` for one mark that advances its writer by one, else `marks << 1 | 1`
    /// and pairs of writer and advance. LEB128.
    code: Vec<u8>,
    batches: Vec<Batch>,
    ranks: u64,
    writes: u64,
    watermark: Counts,
    unknown: BTreeSet<(u32, u64)>,
    /// First eight bytes of the hash of each numbered frame, by seq - 1.
    seen: Vec<u64>,
    frames: Vec<u64>,
    tokens: Vec<(u32, u64)>,
    links: Vec<(u64, bool)>,
    first_ns: Option<u64>,
    last_ns: u64,
    identity: Option<Identity>,
    attaches: Vec<Attach>,
    filled: BTreeMap<u8, u64>,
    stopped: Option<Stopped>,
    failed: Vec<String>,
    hole: Option<String>,
}

impl AckLog {
    /// Takes in the next record of the segment; the error says why it contradicts those before, and
    /// leaves a log that is of no more use.
    pub fn absorb(&mut self, record: &Record) -> Result<(), String> {
        let at_ns = record.at_ns();
        self.first_ns.get_or_insert(at_ns);
        self.last_ns = self.last_ns.max(at_ns);
        match record {
            Record::Token { at_ns, n } => {
                if self.tokens.last().is_none_or(|(last, _)| last < n) {
                    self.tokens.push((*n, *at_ns));
                }
            }
            Record::Link { at_ns, up } => self.links.push((*at_ns, *up)),
            Record::Frame { at_ns, seq, bytes } => {
                let raw = Raw::parse(bytes).map_err(|e| format!("a frame is damaged: {e}"))?;
                if raw.seq != *seq {
                    return Err(format!("a frame of seq {} was filed as {seq}", raw.seq));
                }
                if self.is_new(&raw)? {
                    let nonsense = |e| format!("frame {seq} makes no sense: {e}");
                    match AckView::of(&raw).map_err(nonsense)? {
                        Some(ack) => self.ack(*at_ns, ack, nonsense)?,
                        None => self.take(*at_ns, FromGuest::decode(&raw).map_err(nonsense)?)?,
                    }
                }
                self.frames.push(*at_ns);
            }
        }
        Ok(())
    }

    /// Whether a frame was not heard before. A re-delivery must equal what was heard.
    fn is_new(&mut self, raw: &Raw) -> Result<bool, String> {
        if raw.seq == 0 {
            return Ok(true);
        }
        let hash = blake3::hash(&raw.bytes);
        let mut short = [0; 8];
        short.copy_from_slice(&hash.as_bytes()[..8]);
        let short = u64::from_le_bytes(short);
        let heard = u64::try_from(self.seen.len()).unwrap_or(u64::MAX);
        if raw.seq <= heard {
            let index = usize::try_from(raw.seq - 1).unwrap_or(usize::MAX);
            return if self.seen.get(index) == Some(&short) {
                Ok(false)
            } else {
                Err(format!(
                    "frame {} came twice with different contents",
                    raw.seq
                ))
            };
        }
        if raw.seq > heard + 1 {
            if raw.seq - heard > MAX_GAP {
                return Err(format!("frame {} follows frame {heard}", raw.seq));
            }
            self.hole = Some(format!(
                "frames {} to {} were never heard",
                heard + 1,
                raw.seq - 1
            ));
            let padded = usize::try_from(raw.seq - 1).unwrap_or(usize::MAX);
            self.seen.resize(padded, 0);
        }
        self.seen.push(short);
        Ok(true)
    }

    fn take(&mut self, at_ns: u64, frame: FromGuest) -> Result<(), String> {
        match frame {
            FromGuest::Opened(identity) => {
                if let Some(first) = &self.identity
                    && first.incarnation != identity.incarnation
                {
                    return Err("the stream changed its incarnation".into());
                }
                self.attaches.push(Attach {
                    at_ns,
                    boot_id: identity.boot_id.clone(),
                    pid: identity.pid,
                });
                self.identity.get_or_insert(identity);
            }
            FromGuest::Filled { volume, cells } => {
                self.filled.insert(volume, cells);
            }
            FromGuest::Unknown { writer, wseq, .. } => {
                self.unknown.insert((writer, wseq));
            }
            FromGuest::Stopped { issued, last_rank } => {
                self.stopped = Some(Stopped {
                    at_ns,
                    issued: issued.into_iter().collect(),
                    last_rank,
                });
            }
            FromGuest::Failed(text) => self.failed.push(text),
            // Acks are not taken apart as a whole, and the ear tells of leases in events of their own.
            FromGuest::Ack(_)
            | FromGuest::Alive { .. }
            | FromGuest::Lease(_)
            | FromGuest::ScanBegin { .. }
            | FromGuest::Cells(_)
            | FromGuest::ScanEnd { .. } => {}
        }
        Ok(())
    }

    fn ack(
        &mut self,
        at_ns: u64,
        mut ack: AckView<'_>,
        nonsense: impl Fn(FrameError) -> String,
    ) -> Result<(), String> {
        if ack.first_rank <= self.ranks {
            return Err(format!(
                "rank {} was acked twice, as the start of two frames",
                ack.first_rank
            ));
        }
        if ack.first_rank != self.ranks + 1 {
            self.hole = Some(format!(
                "ranks {} to {} were never heard",
                self.ranks + 1,
                ack.first_rank - 1
            ));
        }
        let count = u32::try_from(ack.left).map_err(|e| e.to_string())?;
        self.ranks = ack
            .first_rank
            .checked_add(u64::from(count))
            .ok_or("a rank is beyond all bounds")?
            - 1;
        self.batches.push(Batch {
            at_ns,
            first_rank: ack.first_rank,
            ranks: count,
            token: ack.token,
            mono_ns: ack.mono_ns,
            max_gap_ns: ack.max_gap_ns,
        });
        while let Some(marks) = ack.next_rank().map_err(&nonsense)? {
            self.rank(marks)?;
        }
        Ok(())
    }

    fn rank(&mut self, marks: &[(u32, u64)]) -> Result<(), String> {
        let alone = marks.len() == 1;
        if !alone {
            put_many(&mut self.code, marks.len());
        }
        for &(writer, wseq) in marks {
            let mark = self.watermark.of(writer);
            let step = wseq.checked_sub(*mark).ok_or_else(|| {
                format!("writer {writer} goes back from write {mark} to write {wseq}")
            })?;
            *mark = wseq;
            self.writes = self.writes.saturating_add(step);
            if alone && step == 1 {
                put(&mut self.code, u64::from(writer) << 1);
                continue;
            }
            if alone {
                put_many(&mut self.code, 1);
            }
            put(&mut self.code, u64::from(writer));
            put(&mut self.code, step);
        }
        if self.writes > MAX_WRITES {
            return Err(format!("more than {MAX_WRITES} writes of one incarnation"));
        }
        Ok(())
    }

    /// Every write that was heard to be durable, in rank order. Writes whose outcome the probe does
    /// not know are left out: they may be present or not.
    pub fn acked(&self) -> impl Iterator<Item = Acked> + '_ {
        let mut walk = Walk::new(self);
        std::iter::from_fn(move || walk.next_write())
            .filter(|acked| self.unknown.is_empty() || !self.is_unknown(acked.writer, acked.wseq))
    }

    /// Whether the outcome of a write is unknown to the probe itself.
    pub fn is_unknown(&self, writer: u32, wseq: u64) -> bool {
        self.unknown.contains(&(writer, wseq))
    }

    /// Whether any write met an error, so that its outcome is unknown.
    pub fn met_errors(&self) -> bool {
        !self.unknown.is_empty()
    }

    /// The last write of a writer that was heard to be durable, 0 for none.
    pub fn watermark(&self, writer: u32) -> u64 {
        self.watermark.get(writer)
    }

    /// The ack frames in order.
    pub fn batches(&self) -> &[Batch] {
        &self.batches
    }

    /// Writes heard to be durable, those of unknown outcome below a watermark included.
    pub const fn writes(&self) -> u64 {
        self.writes
    }

    /// The last rank heard.
    pub const fn last_rank(&self) -> u64 {
        self.ranks
    }

    /// Between which moments the writes of a batch became durable: after its token was sent, before
    /// its frame was heard.
    pub fn bracket(&self, batch: usize) -> Option<Bracket> {
        let batch = self.batches.get(batch)?;
        Some(Bracket {
            low: self.sent(batch.token),
            high: batch.at_ns,
        })
    }

    /// When the host sent token `n` or the last one before it; the first record of the stream for
    /// an ack from before any token.
    pub fn sent(&self, n: u32) -> u64 {
        let after = self.tokens.partition_point(|(token, _)| *token <= n);
        after
            .checked_sub(1)
            .and_then(|at| self.tokens.get(at))
            .map_or_else(|| self.first_ns.unwrap_or(0), |(_, at)| *at)
    }

    /// The index of the last batch heard at or before `at_ns`.
    pub fn last_batch_at(&self, at_ns: u64) -> Option<usize> {
        self.batches
            .partition_point(|batch| batch.at_ns <= at_ns)
            .checked_sub(1)
    }

    /// When the last frame of any kind was heard at or before `at_ns`.
    pub fn last_frame_at(&self, at_ns: u64) -> Option<u64> {
        let after = self.frames.partition_point(|at| *at <= at_ns);
        self.frames.get(after.checked_sub(1)?).copied()
    }

    /// The longest stretch of `from..=to` in which nothing was heard, nanoseconds.
    pub fn longest_silence(&self, from: u64, to: u64) -> u64 {
        let start = self.frames.partition_point(|at| *at < from);
        let inside = self.frames[start..]
            .iter()
            .copied()
            .take_while(|at| *at <= to);
        let mut before = from;
        let mut longest = 0;
        for at in inside.chain(std::iter::once(to)) {
            longest = longest.max(at.saturating_sub(before));
            before = at;
        }
        longest
    }

    /// Who spoke, if the stream began.
    pub const fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// Who answered at each attach of the stream, in order.
    pub fn attaches(&self) -> &[Attach] {
        &self.attaches
    }

    /// Cells of the cold fill that were heard to be durable, by volume ordinal.
    pub const fn filled(&self) -> &BTreeMap<u8, u64> {
        &self.filled
    }

    /// The writers' account, if they were stopped in order.
    pub const fn stopped(&self) -> Option<&Stopped> {
        self.stopped.as_ref()
    }

    /// Why the probe gave up, if it did.
    pub fn failed(&self) -> &[String] {
        &self.failed
    }

    /// Whether the stream came up and broke, and when.
    pub fn links(&self) -> &[(u64, bool)] {
        &self.links
    }

    /// What is missing in the middle of the stream.
    pub fn hole(&self) -> Option<&str> {
        self.hole.as_deref()
    }

    /// When the first record was taken.
    pub const fn first_ns(&self) -> Option<u64> {
        self.first_ns
    }

    /// When the last record was taken.
    pub const fn last_ns(&self) -> u64 {
        self.last_ns
    }
}

/// What stands before the marks of a rank that are told one by one.
fn put_many(code: &mut Vec<u8>, marks: usize) {
    put(code, u64::try_from(marks).unwrap_or(0) << 1 | 1);
}

fn put(code: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        code.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    code.push(value.to_le_bytes()[0]);
}

#[cfg(test)]
mod tests;
