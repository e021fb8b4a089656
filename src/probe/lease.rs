//! The stamp in a volume's lease cell, which nobody but the writer of the load may put there.
//!
//! Contract: no two stamps are equal, and none can be foreseen: a copy of the writer with the same
//! memory, such as a second virt-launcher that goes on after a live migration, makes other ones. Each
//! carries a nonce drawn from the kernel for it alone, and both clocks to the nanosecond, because two
//! copies of one kernel may draw the same nonce until they reseed.
//!
//! Layout, little-endian, in the first sector of the cell, so that a torn write shows: magic 8,
//! `run_id` 16, `vol_id` 16, incarnation u64, number u64, mono_ns u64, real_ns u64, nonce 16, boot id
//! 36 (text, zero-padded), CRC32C u32 of all before it. The rest of the cell is zero.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};

use super::cell::Bytes;
use super::crc::crc32c;

/// The first bytes of a lease cell, format included.
const MAGIC: &[u8; 8] = b"VPLEASE1";
/// Bytes of a stamp.
pub const STAMP: usize = 128;
const CRC: usize = STAMP - 4;
const BOOT: usize = 88;

/// A stamp as it stands in the cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The run.
    pub run_id: [u8; 16],
    /// The logical volume.
    pub vol_id: [u8; 16],
    /// The probe run that wrote it.
    pub incarnation: u64,
    /// How many that probe run had put there with this one.
    pub number: u64,
    /// Guest monotonic clock, nanoseconds.
    pub mono_ns: u64,
    /// Guest wall clock, nanoseconds since the epoch.
    pub real_ns: u64,
    /// Drawn from the kernel for this stamp.
    pub nonce: [u8; 16],
    /// Boot id, as text, zero-padded.
    pub boot: [u8; 36],
}

/// A boot id as a stamp carries it: what does not fit is cut off.
pub fn boot(id: &str) -> [u8; 36] {
    let mut boot = [0; 36];
    for (to, from) in boot.iter_mut().zip(id.bytes()) {
        *to = from;
    }
    boot
}

impl Stamp {
    /// The bytes of the stamp.
    pub fn encode(&self) -> [u8; STAMP] {
        let mut out = [0; STAMP];
        out[..8].copy_from_slice(MAGIC);
        out[8..24].copy_from_slice(&self.run_id);
        out[24..40].copy_from_slice(&self.vol_id);
        out[40..48].copy_from_slice(&self.incarnation.to_le_bytes());
        out[48..56].copy_from_slice(&self.number.to_le_bytes());
        out[56..64].copy_from_slice(&self.mono_ns.to_le_bytes());
        out[64..72].copy_from_slice(&self.real_ns.to_le_bytes());
        out[72..BOOT].copy_from_slice(&self.nonce);
        out[BOOT..CRC].copy_from_slice(&self.boot);
        let crc = crc32c(&out[..CRC]);
        out[CRC..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads the stamp in a cell, `None` unless its magic and CRC fit.
    pub fn decode(bytes: &Bytes) -> Option<Self> {
        if bytes[..8] != *MAGIC || bytes[CRC..STAMP] != crc32c(&bytes[..CRC]).to_le_bytes() {
            return None;
        }
        let u64_at = |at: usize| u64::from_le_bytes(array_at(bytes, at));
        Some(Self {
            run_id: array_at(bytes, 8),
            vol_id: array_at(bytes, 24),
            incarnation: u64_at(40),
            number: u64_at(48),
            mono_ns: u64_at(56),
            real_ns: u64_at(64),
            nonce: array_at(bytes, 72),
            boot: array_at(bytes, BOOT),
        })
    }
}

fn array_at<const N: usize>(bytes: &Bytes, at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let len = self.boot.iter().position(|&byte| byte == 0);
        let boot = String::from_utf8_lossy(&self.boot[..len.unwrap_or(self.boot.len())]);
        write!(
            f,
            "stamp {} of incarnation {:016x} on boot {boot}, nonce {:032x}",
            self.number,
            self.incarnation,
            u128::from_be_bytes(self.nonce)
        )
    }
}

/// What stands in a lease cell, in words.
pub fn describe(bytes: &Bytes) -> String {
    if let Some(stamp) = Stamp::decode(bytes) {
        return stamp.to_string();
    }
    if bytes.iter().all(|&byte| byte == 0) {
        return "nothing but zeros".to_owned();
    }
    format!(
        "bytes that are no stamp, CRC32C {:08x},",
        crc32c(&bytes[..])
    )
}

/// The kernel's random numbers.
#[derive(Debug)]
pub struct Nonces(File);

impl Nonces {
    /// Opens the kernel's generator, once: the root file system may be frozen later.
    pub fn open() -> io::Result<Self> {
        File::open("/dev/urandom").map(Self)
    }

    /// A nonce that was never drawn before.
    pub fn draw(&mut self) -> io::Result<[u8; 16]> {
        let mut nonce = [0; 16];
        self.0.read_exact(&mut nonce)?;
        Ok(nonce)
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::CELL;
    use super::*;
    use proptest::prelude::*;

    fn cell(stamp: &Stamp) -> Bytes {
        let mut bytes = [0; CELL];
        bytes[..STAMP].copy_from_slice(&stamp.encode());
        bytes
    }

    prop_compose! {
        fn stamp()(run_id: [u8; 16], vol_id: [u8; 16], nonce: [u8; 16], numbers: [u64; 4], id in "[0-9a-f-]{0,40}") -> Stamp {
            let [incarnation, number, mono_ns, real_ns] = numbers;
            Stamp { run_id, vol_id, incarnation, number, mono_ns, real_ns, nonce, boot: boot(&id) }
        }
    }

    proptest! {
        #[test]
        fn round_trips_and_any_other_bit_is_seen(stamp in stamp(), at in 0..STAMP * 8) {
            let mut bytes = cell(&stamp);
            prop_assert_eq!(Stamp::decode(&bytes), Some(stamp));
            bytes[at / 8] ^= 1 << (at % 8);
            prop_assert_eq!(Stamp::decode(&bytes), None);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), CELL)) {
            let bytes: Bytes = bytes.try_into().unwrap();
            prop_assert!(!describe(&bytes).is_empty());
        }
    }

    #[test]
    fn a_stamp_reads_as_who_put_it_there() {
        let stamp = Stamp {
            run_id: [1; 16],
            vol_id: [2; 16],
            incarnation: 0x10,
            number: 3,
            mono_ns: 4,
            real_ns: 5,
            nonce: [0xab; 16],
            boot: boot("b-1"),
        };
        let nonce = "ab".repeat(16);
        assert_eq!(
            describe(&cell(&stamp)),
            format!("stamp 3 of incarnation 0000000000000010 on boot b-1, nonce {nonce}")
        );
        assert_eq!(describe(&[0; CELL]), "nothing but zeros");
        assert!(describe(&[7; CELL]).starts_with("bytes that are no stamp"));
    }

    #[test]
    fn nonces_differ() {
        let mut nonces = Nonces::open().unwrap();
        assert_ne!(nonces.draw().unwrap(), nonces.draw().unwrap());
    }
}
