//! Where on a volume each region of the ledger lies, and which cell a writer touches at a sequence
//! number. Pure arithmetic, shared by the probe (to write) and the host (to replay the address
//! stream, so that addresses never travel).

use std::ops::Range;

/// Bytes in one ledger cell.
pub const CELL: usize = 4096;

/// The writer number of the log ring, which ping-pongs over all volumes of a VM.
pub const WRITER_LOG: u32 = 0;
/// The writer number of canary records, the only ones written between recovery and the last read.
pub const WRITER_CANARY: u32 = 0xFFFE;
/// The writer number of the one-time cold fill.
pub const WRITER_FILL: u32 = 0xFFFF;

/// How much of a volume each region takes, in cells, before fitting to the volume's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(probe_standalone), derive(serde::Serialize, serde::Deserialize))]
pub struct LayoutSpec {
    /// Canary ring length in cells.
    pub canary: u64,
    /// Log ring length in cells.
    pub log: u64,
    /// Hot region length in cells.
    pub hot: u64,
    /// Every how many cells the cold region carries a filled cell; 1 fills all of it, 0 none but
    /// the first and last cell of the volume.
    pub cold_stride: u64,
    /// Hot writers per volume; hot cell `i` belongs to writer `i % hot_writers`.
    pub hot_writers: u32,
}

impl Default for LayoutSpec {
    fn default() -> Self {
        Self {
            canary: 64,
            log: 1024,
            hot: 4096,
            cold_stride: 256,
            hot_writers: 1,
        }
    }
}

/// The regions of one volume. Cell 0 and the last cell are always cold, so that a truncated or
/// enlarged device shows at its ends.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(not(probe_standalone), derive(serde::Serialize, serde::Deserialize))]
pub struct Layout {
    /// Cells in the whole volume.
    pub cells: u64,
    /// Canary cells.
    pub canary: Range<u64>,
    /// Log ring cells.
    pub log: Range<u64>,
    /// Hot cells.
    pub hot: Range<u64>,
    /// The lease cell, see [`super::lease`]. No part of the ledger: no check judges what stands there.
    /// Empty in layouts made before there were leases.
    #[cfg_attr(not(probe_standalone), serde(default))]
    pub lease: Range<u64>,
    /// The rest up to the last cell, exclusive.
    pub cold: Range<u64>,
    /// Stride of the cold fill within `cold`, see [`LayoutSpec::cold_stride`].
    pub cold_stride: u64,
    /// Hot writers on this volume.
    pub hot_writers: u32,
}

/// A volume too small to hold a ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooSmall {
    /// Cells the volume has.
    pub have: u64,
    /// Cells the smallest ledger needs.
    pub need: u64,
}

impl std::fmt::Display for TooSmall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "the volume has {} cells of {CELL} bytes and a ledger needs at least {}",
            self.have, self.need
        )
    }
}
impl std::error::Error for TooSmall {}

const SMALLEST: u64 = 64;

impl Layout {
    /// Fits `spec` to a volume of `cells` cells; regions shrink in proportion when it is small.
    pub fn fit(cells: u64, spec: &LayoutSpec) -> Result<Self, TooSmall> {
        if cells < SMALLEST {
            return Err(TooSmall {
                have: cells,
                need: SMALLEST,
            });
        }
        // At most a quarter each to log and hot and a sixteenth to canaries leaves cold cells to lose.
        let canary = spec.canary.clamp(1, cells / 16);
        let log = spec.log.clamp(1, cells / 4);
        let writers = u64::from(spec.hot_writers.max(1));
        let hot = spec.hot.clamp(1, cells / 4).max(writers) / writers * writers;
        let a = 1 + canary;
        let b = a + log;
        let c = b + hot;
        // The cell comes out of the cold region, of which there is always more than that.
        let lease = c..c + 1;
        Ok(Self {
            cells,
            canary: 1..a,
            log: a..b,
            hot: b..c,
            cold: lease.end..cells - 1,
            lease,
            cold_stride: spec.cold_stride,
            hot_writers: spec.hot_writers.max(1),
        })
    }

    /// The cold cells that the fill writes, in ascending order: first, every stride-th, last.
    pub fn cold_cells(&self) -> impl Iterator<Item = u64> + use<> {
        let step = usize::try_from(self.cold_stride).unwrap_or(usize::MAX);
        let inner = if step == 0 {
            self.cold.start..self.cold.start
        } else {
            self.cold.clone()
        };
        std::iter::once(0)
            .chain(inner.step_by(step.max(1)))
            .chain(std::iter::once(self.cells - 1))
    }
}

/// The stateless mixer behind the address stream and the payload generator (the SplitMix64
/// finaliser, Steele, Lea and Flood, OOPSLA 2014).
pub const fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Where a write goes: volume ordinal within the VM and cell within that volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// Volume ordinal within the VM.
    pub volume: u8,
    /// Cell index within the volume.
    pub cell: u64,
}

/// The hot writer number of writer `k` on `volume`.
pub fn hot_writer(layouts: &[Layout], volume: usize, k: u32) -> u32 {
    1 + layouts[..volume].iter().map(|l| l.hot_writers).sum::<u32>() + k
}

/// The address that `writer` uses for its `wseq`-th write (`wseq` counts from 1 in each
/// incarnation), or `None` for a writer that this VM does not have. `layouts` is indexed by volume
/// ordinal. Canary `n` goes to volume `n % volumes`, ring position `n / volumes`, as the log does.
pub fn address(layouts: &[Layout], seed: u64, writer: u32, wseq: u64) -> Option<Address> {
    if layouts.is_empty() || wseq == 0 {
        return None;
    }
    let volumes = layouts.len() as u64;
    let ring = |pick: fn(&Layout) -> &Range<u64>| {
        let volume = (wseq - 1) % volumes;
        let region = pick(&layouts[usize::try_from(volume).ok()?]);
        let cell = region.start + ((wseq - 1) / volumes) % (region.end - region.start);
        Some(Address {
            volume: u8::try_from(volume).ok()?,
            cell,
        })
    };
    match writer {
        WRITER_LOG => ring(|l| &l.log),
        WRITER_CANARY => ring(|l| &l.canary),
        hot => {
            let mut k = hot - 1;
            for (volume, layout) in layouts.iter().enumerate() {
                if k < layout.hot_writers {
                    let lanes = u64::from(layout.hot_writers);
                    let slots = (layout.hot.end - layout.hot.start) / lanes;
                    let draw = mix(seed ^ mix(u64::from(writer) << 32 ^ wseq)) % slots;
                    let cell = layout.hot.start + draw * lanes + u64::from(k);
                    return Some(Address {
                        volume: u8::try_from(volume).ok()?,
                        cell,
                    });
                }
                k -= layout.hot_writers;
            }
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The regions follow each other without gap or overlap, whatever is asked for, and the lease
        /// is a cell of its own that no writer and no fill ever touches.
        #[test]
        fn regions_tile_the_volume(
            cells in SMALLEST..100_000, canary: u64, log: u64, hot: u64,
            cold_stride in 0_u64..300, seed: u64, wseq in 1_u64..,
        ) {
            let spec = LayoutSpec { canary, log, hot, cold_stride, hot_writers: 1 };
            let layout = Layout::fit(cells, &spec).unwrap();
            let ends = [&layout.canary, &layout.log, &layout.hot, &layout.lease, &layout.cold];
            let mut at = 1;
            for region in ends {
                prop_assert_eq!(region.start, at);
                prop_assert!(!region.is_empty());
                at = region.end;
            }
            prop_assert_eq!(at, cells - 1);
            prop_assert_eq!(layout.lease.end - layout.lease.start, 1);
            let leased = layout.lease.start;
            prop_assert!(layout.cold_cells().all(|cell| cell != leased));
            let layouts = [layout];
            for writer in [WRITER_LOG, WRITER_CANARY, 1] {
                let at = address(&layouts, seed, writer, wseq).unwrap();
                prop_assert!(at.cell != leased && at.cell < cells);
            }
        }
    }

    #[test]
    fn a_layout_of_before_there_were_leases_is_understood() {
        let old = serde_json::json!({
            "cells": 64, "canary": {"start": 1, "end": 3}, "log": {"start": 3, "end": 7},
            "hot": {"start": 7, "end": 11}, "cold": {"start": 11, "end": 63},
            "cold_stride": 1, "hot_writers": 1,
        });
        let layout: Layout = serde_json::from_value(old).unwrap();
        assert!(layout.lease.is_empty());
    }
}
