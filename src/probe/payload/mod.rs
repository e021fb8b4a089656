//! What fills a cell: a stream that does not compress, is another one in every sector of every write,
//! and can be generated again from the key that ends each sector.
//!
//! Contract: the payload of a sector follows from its key and its place in the cell. So one sector
//! proves by itself that it is whole, and one that carries a certain key is proved byte for byte.
//!
//! A scan generates every byte of a volume again, which must cost little beside reading it. Hence
//! 32-bit lanes side by side, and only shifts, sums and exclusive ors: every vector unit has them, and
//! an emulator hands them on to the real one. It is no cipher: nobody has to be withstood, only
//! compression and confusion.

#![expect(
    clippy::inline_always,
    reason = "what is not inlined is not compiled for the instructions that its caller may use"
)]

use super::cell::{Bytes, HEADER, SECTOR, low32};
use super::layout::mix;

/// Bytes of a key, the last of each sector.
pub const KEY: usize = 16;
/// What a sector ends with.
pub type Key = [u8; KEY];

const LANES: usize = 16;
/// What is generated at once.
const BLOCK: usize = 4 * LANES;
/// The last block of a sector, of which the key is a part.
const LAST: usize = SECTOR / BLOCK - 1;
/// Added in each step, so that no lane stands still: odd and without a pattern (the golden ratio).
const STEP: u32 = 0x9E37_79B9;

/// Writes the payload and the key of each sector, over all of the cell but its header.
pub fn fill(key: &Key, out: &mut Bytes) {
    let starts = Starts::of(key);
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        #[expect(
            unsafe_code,
            reason = "the processor was just asked whether it can do this"
        )]
        // SAFETY: the one requirement of `fill_by_avx2` is AVX2.
        return unsafe { fill_by_avx2(starts, key, out) };
    }
    fill_by_any(starts, key, out);
}

/// Whether every sector carries this key and the payload that follows from it. The header is not
/// looked at.
pub fn carries(key: &Key, bytes: &Bytes) -> bool {
    let starts = Starts::of(key);
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        #[expect(
            unsafe_code,
            reason = "the processor was just asked whether it can do this"
        )]
        // SAFETY: the one requirement of `carries_by_avx2` is AVX2.
        return unsafe { carries_by_avx2(starts, key, bytes) };
    }
    carries_by_any(starts, key, bytes)
}

/// The key of sector `index`, `None` unless its payload follows from it.
pub fn proved(index: usize, sector: &[u8; SECTOR]) -> Option<Key> {
    let key = *sector.last_chunk::<KEY>()?;
    let mut starts = Starts::of(&key);
    (0..index).for_each(|_| starts.next_sector());
    let mut different = Lanes::NONE;
    compare(starts.lanes, index, sector, &mut different);
    different.is_zero().then_some(key)
}

/// The same code as any processor's, but with twice as many lanes in a register.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn fill_by_avx2(starts: Starts, key: &Key, out: &mut Bytes) {
    fill_by_any(starts, key, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn carries_by_avx2(starts: Starts, key: &Key, bytes: &Bytes) -> bool {
    carries_by_any(starts, key, bytes)
}

#[inline(always)]
fn fill_by_any(mut starts: Starts, key: &Key, out: &mut Bytes) {
    for (index, sector) in out.as_chunks_mut::<SECTOR>().0.iter_mut().enumerate() {
        let mut lanes = starts.lanes;
        for block in &mut sector.as_chunks_mut::<BLOCK>().0[first_block(index)..] {
            lanes.step();
            lanes.put(block);
        }
        sector[SECTOR - KEY..].copy_from_slice(key);
        starts.next_sector();
    }
}

#[inline(always)]
fn carries_by_any(mut starts: Starts, key: &Key, bytes: &Bytes) -> bool {
    let mut different = Lanes::NONE;
    let mut strange = 0;
    for (index, sector) in bytes.as_chunks::<SECTOR>().0.iter().enumerate() {
        compare(starts.lanes, index, sector, &mut different);
        let carried = sector.last_chunk::<KEY>().unwrap_or(&[0; KEY]);
        strange |= u128::from_le_bytes(*carried) ^ u128::from_le_bytes(*key);
        starts.next_sector();
    }
    different.is_zero() && strange == 0
}

/// Takes in where a sector's payload does not follow from the state that it starts from.
#[inline(always)]
fn compare(mut lanes: Lanes, index: usize, sector: &[u8; SECTOR], different: &mut Lanes) {
    let blocks = sector.as_chunks::<BLOCK>().0;
    for block in &blocks[first_block(index)..LAST] {
        lanes.step();
        different.add_difference(&lanes, block, LANES);
    }
    lanes.step();
    different.add_difference(&lanes, &blocks[LAST], LANES - KEY / 4);
}

/// The first block of a sector that the header leaves to the payload.
const fn first_block(sector: usize) -> usize {
    if sector == 0 { HEADER / BLOCK } else { 0 }
}

/// Where the streams of a cell's sectors start, one after the other.
#[derive(Debug, Clone, Copy)]
struct Starts {
    lanes: Lanes,
    apart: Lanes,
}

impl Starts {
    /// Where the first sector starts.
    fn of(key: &Key) -> Self {
        let [low, high] = [half(key, 0), half(key, 8)];
        let root = mix(low ^ mix(high));
        let mut lanes = [0; LANES];
        for (number, pair) in (0..).zip(lanes.as_chunks_mut::<2>().0) {
            let drawn = mix(root ^ number);
            *pair = [low32(drawn), low32(drawn >> 32)];
        }
        // How far two sectors are apart is another number in each lane, or the difference would show.
        let mut apart = lanes;
        apart.rotate_left(1);
        Self {
            lanes: Lanes(lanes),
            apart: Lanes(apart),
        }
    }

    #[inline(always)]
    const fn next_sector(&mut self) {
        let mut lane = 0;
        while lane < LANES {
            self.lanes.0[lane] = self.lanes.0[lane].wrapping_add(self.apart.0[lane]);
            lane += 1;
        }
    }
}

/// The state of a stream, which is what it puts out too.
///
/// The loops count by themselves: in a build without optimisation, as the lab's simulated guests run
/// in, iterators take twice the time, and with it they come to the same.
#[derive(Debug, Clone, Copy)]
struct Lanes([u32; LANES]);

impl Lanes {
    const NONE: Self = Self([0; LANES]);

    /// On to the next block. Each part of it can be undone, so that no two states become one.
    #[inline(always)]
    const fn step(&mut self) {
        let mut lane = 0;
        while lane < LANES {
            let mut x = self.0[lane];
            x ^= x << 13;
            x ^= x >> 17;
            self.0[lane] = x.wrapping_add(STEP);
            lane += 1;
        }
    }

    #[inline(always)]
    const fn put(&self, out: &mut [u8; BLOCK]) {
        let mut lane = 0;
        while lane < LANES {
            let at = 4 * lane;
            [out[at], out[at + 1], out[at + 2], out[at + 3]] = self.0[lane].to_le_bytes();
            lane += 1;
        }
    }

    #[inline(always)]
    const fn is_zero(&self) -> bool {
        let mut all = 0;
        let mut lane = 0;
        while lane < LANES {
            all |= self.0[lane];
            lane += 1;
        }
        all == 0
    }

    /// Takes in where the first `count` words of `block` are not what `lanes` put out.
    #[inline(always)]
    const fn add_difference(&mut self, lanes: &Self, block: &[u8; BLOCK], count: usize) {
        let mut lane = 0;
        while lane < count {
            self.0[lane] |= lanes.0[lane] ^ word(block, 4 * lane);
            lane += 1;
        }
    }
}

#[inline(always)]
const fn word<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn half(key: &Key, at: usize) -> u64 {
    u64::from(word(key, at + 4)) << 32 | u64::from(word(key, at))
}

#[cfg(test)]
mod tests;
