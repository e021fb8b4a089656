//! Every kind of damage is planted in a whole cell and must be named; nothing may panic.

use proptest::prelude::*;

use super::super::cell::{Header, Kind, SECTOR, is_whole};
use super::super::frame::CellState;
use super::super::layout::CELL;
use super::{Expect, classify, first8};

const SEED: u64 = 99;
const HERE: Expect = Expect {
    seed: SEED,
    run_id: [7; 16],
    vol_id: [9; 16],
    cell: 4242,
};

fn header(wseq: u64) -> Header {
    Header {
        kind: Kind::Hot,
        run_id: HERE.run_id,
        vol_id: HERE.vol_id,
        incarnation: 0x0100_0001_dead_beef,
        writer: 3,
        op_index: 0,
        op_len: 1,
        wseq,
        gseq: wseq * 3,
        cell: HERE.cell,
        prev_wseq: 0,
        dep: wseq / 2,
        chain: 0,
        mono_ns: 17,
        token: 5,
        real_s: 1,
    }
}

fn encode(header: &Header, seed: u64) -> Box<[u8; CELL]> {
    let mut out = Box::new([0; CELL]);
    header.encode(seed, &mut out);
    out
}

fn sound(wseq: u64) -> CellState {
    CellState::Ok {
        kind: Kind::Hot,
        incarnation: 0x0100_0001_dead_beef,
        writer: 3,
        wseq,
        dep: wseq / 2,
        token: 5,
    }
}

fn is_ok(state: CellState) -> bool {
    matches!(state, CellState::Ok { .. })
}

#[test]
fn header_survives_the_disk() {
    let written = Header {
        kind: Kind::Log,
        run_id: [1; 16],
        vol_id: [2; 16],
        incarnation: 3,
        writer: 4,
        op_index: 5,
        op_len: 6,
        wseq: 7,
        gseq: 8,
        cell: 9,
        prev_wseq: 10,
        dep: 11,
        chain: 12,
        mono_ns: 13,
        token: 14,
        real_s: 15,
    };
    assert_eq!(Header::decode(&encode(&written, 1)), Some(written));
}

#[test]
fn whole_zero_and_foreign() {
    assert_eq!(classify(&encode(&header(8), SEED), &HERE), sound(8));
    assert_eq!(classify(&[0; CELL], &HERE), CellState::Zeroed);
    let other = Header {
        run_id: *b"another run's id",
        ..header(8)
    };
    let expected = CellState::Foreign {
        run: first8(&other.run_id),
    };
    assert_eq!(classify(&encode(&other, SEED + 1), &HERE), expected);
}

#[test]
fn payload_of_another_seed_is_damage_not_ours() {
    assert_eq!(
        classify(&encode(&header(8), SEED + 1), &HERE),
        CellState::Corrupt
    );
}

#[test]
fn misdirected_within_and_across_volumes() {
    let shifted = Header {
        cell: HERE.cell + 8,
        ..header(8)
    };
    assert_eq!(
        classify(&encode(&shifted, SEED), &HERE),
        CellState::Misdirected {
            same_volume: true,
            cell: HERE.cell + 8,
            vol: first8(&HERE.vol_id),
        }
    );
    let swapped = Header {
        vol_id: [8; 16],
        ..header(8)
    };
    assert_eq!(
        classify(&encode(&swapped, SEED), &HERE),
        CellState::Misdirected {
            same_volume: false,
            cell: HERE.cell,
            vol: first8(&[8; 16]),
        }
    );
}

/// No byte is left out, whichever field it belongs to: header, CRC, payload, stamps, those that are
/// always zero.
#[test]
fn every_single_byte_is_proved() {
    let sound = encode(&header(8), SEED);
    for at in 0..CELL {
        for change in [0x01, 0x80, 0xFF] {
            let mut bytes = sound.clone();
            bytes[at] ^= change;
            assert_eq!(classify(&bytes, &HERE), CellState::Corrupt, "byte {at}");
            assert!(!is_whole(&bytes), "byte {at}");
        }
    }
    assert!(is_whole(&sound));
}

#[test]
fn cells_of_others_are_damage_if_a_byte_of_them_is() {
    let foreign = Header {
        run_id: [6; 16],
        ..header(8)
    };
    let neighbour = Header {
        vol_id: [8; 16],
        ..header(8)
    };
    for (header, seed) in [(foreign, SEED), (neighbour, SEED + 1)] {
        let sound = encode(&header, seed);
        assert_ne!(classify(&sound, &HERE), CellState::Corrupt);
        for at in (0..CELL).step_by(7) {
            let mut bytes = sound.clone();
            bytes[at] ^= 0x10;
            assert_eq!(classify(&bytes, &HERE), CellState::Corrupt, "byte {at}");
        }
    }
}

#[test]
fn same_stamp_of_another_incarnation_is_a_tear() {
    let new = encode(&header(8), SEED);
    let old = encode(
        &Header {
            incarnation: 1,
            ..header(8)
        },
        SEED,
    );
    let mut torn = old;
    torn[..3 * SECTOR].copy_from_slice(&new[..3 * SECTOR]);
    assert_eq!(
        classify(&torn, &HERE),
        CellState::Torn {
            sectors: 0b111,
            wseq: 8,
            writer: 3
        }
    );
}

proptest! {
    /// A sector that landed in another's place within the cell proves nothing.
    #[test]
    fn sectors_in_each_others_place_are_damage(a in 0..8_usize, b in 0..8_usize) {
        prop_assume!(a != b);
        let mut bytes = encode(&header(9), SEED);
        let sectors = bytes.as_chunks_mut::<SECTOR>().0;
        sectors.swap(a, b);
        prop_assert_eq!(classify(&bytes, &HERE), CellState::Corrupt);
    }

    #[test]
    fn any_bit_flip_is_damage(bit in 0..CELL * 8, wseq in 1..u64::MAX / 4) {
        let mut bytes = encode(&header(wseq), SEED);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(classify(&bytes, &HERE), CellState::Corrupt);
    }

    #[test]
    fn any_mix_of_two_writes_is_a_tear(mask in 1u8..255, old in 0u64..1000, ahead in 1u64..1000) {
        let new = encode(&header(old + ahead), SEED);
        // Version 0 stands for a cell that was never written.
        let mut bytes = if old == 0 { Box::new([0; CELL]) } else { encode(&header(old), SEED) };
        for sector in (0..8).filter(|sector| mask >> sector & 1 == 1) {
            let range = sector * SECTOR..(sector + 1) * SECTOR;
            bytes[range.clone()].copy_from_slice(&new[range]);
        }
        let expected = CellState::Torn { sectors: mask, wseq: old + ahead, writer: 3 };
        prop_assert_eq!(classify(&bytes, &HERE), expected);
    }

    #[test]
    fn a_tear_with_a_damaged_sector_is_damage(at in 0..CELL, cut in 1usize..8) {
        let mut bytes = encode(&header(9), SEED);
        bytes[..cut * SECTOR].copy_from_slice(&encode(&header(12), SEED)[..cut * SECTOR]);
        bytes[at] ^= 0x40;
        prop_assert_eq!(classify(&bytes, &HERE), CellState::Corrupt);
    }

    #[test]
    fn arbitrary_bytes_never_pass(bytes in proptest::collection::vec(any::<u8>(), CELL)) {
        let bytes: Box<[u8; CELL]> = bytes.into_boxed_slice().try_into().unwrap();
        prop_assert!(!is_ok(classify(&bytes, &HERE)));
    }

    #[test]
    fn a_sound_header_over_arbitrary_bytes_never_passes(tail in proptest::collection::vec(any::<u8>(), CELL - 128)) {
        let mut bytes = encode(&header(9), SEED);
        bytes[128..].copy_from_slice(&tail);
        prop_assert!(!is_ok(classify(&bytes, &HERE)));
    }
}
