//! Round trips, hostile bytes and cuts at every place, for every frame.

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::frame::{Ack, Rank};
use super::super::wire::{Decoder, MAX_PAYLOAD, PREFIX};
use super::*;

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::Fill),
        Just(Kind::Hot),
        Just(Kind::Log),
        Just(Kind::Canary)
    ]
}

fn state() -> impl Strategy<Value = CellState> {
    let ok = (
        kind(),
        any::<u64>(),
        any::<u32>(),
        any::<u64>(),
        any::<u64>(),
        any::<u32>(),
    );
    prop_oneof![
        ok.prop_map(
            |(kind, incarnation, writer, wseq, dep, token)| CellState::Ok {
                kind,
                incarnation,
                writer,
                wseq,
                dep,
                token
            }
        ),
        any::<(u8, u64, u32)>().prop_map(|(sectors, wseq, writer)| CellState::Torn {
            sectors,
            wseq,
            writer
        }),
        Just(CellState::Corrupt),
        any::<(bool, u64, u64)>().prop_map(|(same_volume, cell, vol)| CellState::Misdirected {
            same_volume,
            cell,
            vol
        }),
        any::<u64>().prop_map(|run| CellState::Foreign { run }),
        Just(CellState::Zeroed),
        any::<i32>().prop_map(|errno| CellState::Unreadable { errno }),
    ]
}

fn opened() -> impl Strategy<Value = Opened> {
    (any::<u8>(), ".{0,20}", any::<u64>(), any::<[bool; 3]>()).prop_map(
        |(volume, path, size, [direct, dsync, write_back])| Opened {
            volume,
            path,
            size,
            grants: Grants {
                direct,
                dsync,
                write_back,
            },
        },
    )
}

fn ack() -> impl Strategy<Value = Ack> {
    let writer = prop_oneof![0u32..4, any::<u32>()];
    let rank =
        vec((writer, prop_oneof![0u64..9, any::<u64>()]), 0..5).prop_map(|marks| Rank { marks });
    (
        any::<[u64; 4]>(),
        any::<u32>(),
        prop_oneof![vec(rank.clone(), 0..8), vec(rank, 60..70)],
    )
        .prop_map(
            |([first_rank, mono_ns, real_ns, max_gap_ns], token, ranks)| Ack {
                first_rank,
                ranks,
                mono_ns,
                real_ns,
                token,
                max_gap_ns,
            },
        )
}

fn from_guest() -> impl Strategy<Value = FromGuest> {
    let identity = (
        any::<u64>(),
        ".{0,40}",
        ".{0,40}",
        any::<u32>(),
        vec(opened(), 0..4),
    )
        .prop_map(
            |(incarnation, boot_id, machine_id, pid, volumes)| Identity {
                incarnation,
                boot_id,
                machine_id,
                pid,
                volumes,
            },
        );
    prop_oneof![
        identity.prop_map(FromGuest::Opened),
        any::<(u8, u64)>().prop_map(|(volume, cells)| FromGuest::Filled { volume, cells }),
        ack().prop_map(FromGuest::Ack),
        any::<(u32, u64, i32)>().prop_map(|(writer, wseq, errno)| FromGuest::Unknown {
            writer,
            wseq,
            errno
        }),
        any::<(u64, u32)>().prop_map(|(mono_ns, token)| FromGuest::Alive { mono_ns, token }),
        (any::<(u8, u64, u64)>(), vec(".{0,40}", 0..4)).prop_map(
            |((volume, reads, longest_ns), foreign)| FromGuest::Lease(Lease {
                volume,
                reads,
                longest_ns,
                foreign,
            })
        ),
        (vec(any::<(u32, u64)>(), 0..6), any::<u64>())
            .prop_map(|(issued, last_rank)| FromGuest::Stopped { issued, last_rank }),
        any::<(u8, u64)>().prop_map(|(volume, size)| FromGuest::ScanBegin { volume, size }),
        vec(
            (any::<u64>(), state()).prop_map(|(cell, state)| Seen { cell, state }),
            0..20
        )
        .prop_map(FromGuest::Cells),
        any::<(u8, u64, u64)>().prop_map(|(volume, read, cold_ok)| FromGuest::ScanEnd {
            volume,
            read,
            cold_ok
        }),
        ".{0,60}".prop_map(FromGuest::Failed),
    ]
}

fn to_guest() -> impl Strategy<Value = ToGuest> {
    prop_oneof![
        any::<u64>().prop_map(|heard| ToGuest::Hello { heard }),
        any::<u64>().prop_map(ToGuest::Heard),
        any::<u32>().prop_map(ToGuest::Token),
        Just(ToGuest::Fill),
        Just(ToGuest::Canary),
        any::<(u32, u32)>().prop_map(|(rate, batch)| ToGuest::Start { rate, batch }),
        Just(ToGuest::Stop),
        Just(ToGuest::Quit),
    ]
}

/// Feeds `bytes` in pieces of `step` and collects the frames.
fn drain(bytes: &[u8], step: usize) -> Result<Vec<Raw>, FrameError> {
    let mut decoder = Decoder::default();
    let mut out = Vec::new();
    for piece in bytes.chunks(step) {
        decoder.push(piece);
        while let Some(raw) = decoder.next_frame()? {
            out.push(raw);
        }
    }
    decoder.finish()?;
    Ok(out)
}

proptest! {
    #[test]
    fn from_guest_round_trips(frames in vec((from_guest(), any::<u64>()), 1..5), step in 1usize..60) {
        let stream: Vec<u8> = frames.iter().flat_map(|(frame, seq)| frame.encode(*seq)).collect();
        let raws = drain(&stream, step).unwrap();
        let decoded: Vec<_> =
            raws.iter().map(|raw| (FromGuest::decode(raw).unwrap(), raw.seq)).collect();
        prop_assert_eq!(decoded, frames);
        let kept: Vec<u8> = raws.into_iter().flat_map(|raw| raw.bytes).collect();
        prop_assert_eq!(kept, stream);
    }

    #[test]
    fn to_guest_round_trips(frame in to_guest()) {
        let raw = Raw::parse(&frame.encode()).unwrap();
        prop_assert_eq!(ToGuest::decode(&raw).unwrap(), frame);
        prop_assert!(FromGuest::decode(&raw).is_err());
    }

    #[test]
    fn every_cut_is_noticed(frame in from_guest(), seq: u64, at in any::<prop::sample::Index>()) {
        let bytes = frame.encode(seq);
        let cut = &bytes[..at.index(bytes.len())];
        prop_assert_eq!(Raw::parse(cut), Err(FrameError::Truncated));
        let mut stream = cut;
        prop_assert_eq!(Raw::read(&mut stream).is_err(), !cut.is_empty());
        if !cut.is_empty() {
            prop_assert_eq!(drain(cut, 7), Err(FrameError::Truncated));
        }
    }

    #[test]
    fn every_flip_is_noticed(frame in from_guest(), at in any::<prop::sample::Index>()) {
        let mut bytes = frame.encode(3);
        let bit = at.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(drain(&bytes, 64).is_err());
    }

    #[test]
    fn a_cut_payload_is_noticed(frame in from_guest(), at in any::<prop::sample::Index>()) {
        let raw = Raw::parse(&frame.encode(1)).unwrap();
        prop_assume!(!raw.payload().is_empty());
        let short = &raw.payload()[..at.index(raw.payload().len())];
        let resealed = Raw::parse(&seal(raw.kind, 1, short)).unwrap();
        prop_assert!(FromGuest::decode(&resealed).is_err());
        let mut long = raw.payload().to_vec();
        long.push(0);
        let resealed = Raw::parse(&seal(raw.kind, 1, &long)).unwrap();
        prop_assert!(FromGuest::decode(&resealed).is_err());
    }

    #[test]
    fn arbitrary_payloads_never_panic(kind in 0u8..20, payload in vec(any::<u8>(), 0..200)) {
        for kind in [kind, kind | 0x80] {
            let raw = Raw::parse(&seal(kind, 0, &payload)).unwrap();
            if let Ok(frame) = FromGuest::decode(&raw) {
                let again = Raw::parse(&frame.encode(0)).unwrap();
                prop_assert_eq!(FromGuest::decode(&again).unwrap(), frame);
            }
            if let Ok(frame) = ToGuest::decode(&raw) {
                let again = Raw::parse(&frame.encode()).unwrap();
                prop_assert_eq!(ToGuest::decode(&again).unwrap(), frame);
            }
        }
    }

    #[test]
    fn arbitrary_streams_never_panic(bytes in vec(any::<u8>(), 1..200), step in 1usize..9) {
        prop_assert!(drain(&bytes, step).is_err());
    }
}

#[test]
fn never_resynchronises() {
    let good = ToGuest::Fill.encode();
    let mut decoder = Decoder::default();
    decoder.push(b"Last login: today\n");
    let error = decoder.next_frame().unwrap_err();
    assert!(matches!(error, FrameError::Magic(_)));
    decoder.push(&good);
    assert_eq!(decoder.next_frame(), Err(error));
}

#[test]
fn a_huge_length_is_refused_before_it_is_awaited() {
    let mut bytes = ToGuest::Fill.encode();
    let len = u32::try_from(MAX_PAYLOAD + 1).unwrap();
    bytes[4..8].copy_from_slice(&len.to_le_bytes());
    let mut decoder = Decoder::default();
    decoder.push(&bytes[..PREFIX]);
    assert_eq!(decoder.next_frame(), Err(FrameError::TooLong(len)));
}

#[test]
fn strict_acks_are_small() {
    let ranks = (0..64).map(|n| Rank {
        marks: vec![(u32::try_from(n % 3).unwrap(), 100_000 + n / 3)],
    });
    let ack = FromGuest::Ack(Ack {
        first_rank: 300_000,
        ranks: ranks.collect(),
        mono_ns: 1 << 40,
        real_ns: 1 << 60,
        token: 999,
        max_gap_ns: 1 << 20,
    });
    assert!(
        ack.encode(70_000).len() <= 64 * 3 + 60,
        "{}",
        ack.encode(70_000).len()
    );
}
