use std::collections::HashSet;

use proptest::prelude::*;

use super::super::cell::SECTORS;
use super::super::crc::crc32c;
use super::super::layout::CELL;
use super::*;

fn filled(key: &Key) -> Box<Bytes> {
    let mut out = Box::new([0; CELL]);
    fill(key, &mut out);
    out
}

/// Keys as one writer makes them in turn.
fn keys() -> impl Iterator<Item = Key> {
    (0..512_u128).map(|wseq| (7 << 96 | 3 << 64 | wseq << 32 | 0x1092).to_le_bytes())
}

fn sector_of(bytes: &Bytes, index: usize) -> &[u8; SECTOR] {
    &bytes.as_chunks::<SECTOR>().0[index]
}

/// What is on disks must be generated again by every later build of this format.
#[test]
fn the_stream_is_what_it_was() {
    let known = [(0, 0x00a9_395f), (1, 0xd2db_5924), (u128::MAX, 0xa297_c7f7)];
    for (key, crc) in known {
        let cell = filled(&u128::to_le_bytes(key));
        assert_eq!(crc32c(&cell[HEADER..]), crc, "{key:x}");
    }
}

#[test]
fn every_kind_of_processor_generates_the_same() {
    for key in keys().take(8) {
        let mut plain = Box::new([0; CELL]);
        fill_by_any(Starts::of(&key), &key, &mut plain);
        assert_eq!(plain, filled(&key));
        assert!(carries_by_any(Starts::of(&key), &key, &plain));
        assert!(carries(&key, &plain));
        plain[CELL - 1] ^= 1;
        assert!(!carries_by_any(Starts::of(&key), &key, &plain));
        assert!(!carries(&key, &plain));
    }
}

/// Byte values are as even as chance has them, in the stream and in the differences that a filter
/// before a compressor takes.
#[test]
fn nothing_is_there_to_compress() {
    let cells: Vec<_> = keys().map(|key| filled(&key)).collect();
    let words: Vec<u32> = cells
        .iter()
        .flat_map(|cell| &cell.as_chunks::<SECTOR>().0[1..])
        .flat_map(|sector| sector[..SECTOR - KEY].as_chunks::<4>().0)
        .map(|word| u32::from_le_bytes(*word))
        .collect();
    // To itself, the lane beside, the block before, sectors before, the cell before.
    let sector = (SECTOR - KEY) / 4;
    let cell = (SECTORS - 1) * sector;
    for apart in [0, 1, LANES, sector - 1, sector, 2 * sector, cell] {
        let mut counts = [0_u32; 256];
        for at in apart..words.len() {
            let before = if apart == 0 { 0 } else { words[at - apart] };
            for byte in (words[at] ^ before).to_le_bytes() {
                counts[usize::from(byte)] += 1;
            }
        }
        let expected = f64::from(counts.iter().sum::<u32>()) / 256.0;
        let chi: f64 = counts
            .iter()
            .map(|&count| (f64::from(count) - expected).powi(2) / expected)
            .sum();
        // 255 degrees of freedom: six standard deviations, 22.6 each, to either side.
        assert!((120.0..391.0).contains(&chi), "{apart} words apart: {chi}");
    }
}

/// No stretch of eight bytes comes twice, wherever it begins: there is nothing to share either.
#[test]
fn nothing_is_there_twice() {
    let mut seen = HashSet::new();
    for key in keys().take(64) {
        let cell = filled(&key);
        for index in 0..SECTORS {
            let sector = sector_of(&cell, index);
            let from = first_block(index) * BLOCK;
            for stretch in sector[from..SECTOR - KEY].windows(8) {
                let word = u64::from_le_bytes(stretch.try_into().unwrap());
                assert!(seen.insert(word), "{stretch:?}");
            }
        }
    }
}

#[test]
fn zeros_are_no_sector() {
    assert!((0..SECTORS).all(|index| proved(index, &[0; SECTOR]).is_none()));
}

proptest! {
    #[test]
    fn what_is_filled_matches_and_proves_itself(key: Key) {
        let bytes = filled(&key);
        prop_assert!(carries(&key, &bytes));
        for index in 0..SECTORS {
            prop_assert_eq!(proved(index, sector_of(&bytes, index)), Some(key));
            let elsewhere = (index + 1) % SECTORS;
            prop_assert_eq!(proved(elsewhere, sector_of(&bytes, index)), None);
        }
    }

    /// About half the bits of each sector change with one bit of the key.
    #[test]
    fn each_bit_of_the_key_changes_all_of_the_payload(key: Key, bit in 0..128_u32) {
        let other = (u128::from_le_bytes(key) ^ 1 << bit).to_le_bytes();
        let (bytes, others) = (filled(&key), filled(&other));
        prop_assert!(!carries(&key, &others));
        for index in 0..SECTORS {
            let pairs = sector_of(&bytes, index).iter().zip(sector_of(&others, index));
            let from = first_block(index) * BLOCK;
            let payload = pairs.skip(from).take(SECTOR - KEY - from);
            let flipped: u32 = payload.map(|(a, b)| (a ^ b).count_ones()).sum();
            let bits = u32::try_from((SECTOR - KEY - from) * 8).unwrap();
            prop_assert!(flipped.abs_diff(bits / 2) < bits / 10, "{} of {}", flipped, bits);
        }
    }

    #[test]
    fn a_changed_byte_is_seen_wherever_it_is(key: Key, at in HEADER..CELL, change in 1..=u8::MAX) {
        let mut bytes = filled(&key);
        bytes[at] ^= change;
        prop_assert!(!carries(&key, &bytes));
        for index in 0..SECTORS {
            let whole = proved(index, sector_of(&bytes, index)).is_some();
            prop_assert_eq!(whole, index != at / SECTOR);
        }
    }
}
