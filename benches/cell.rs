//! What a cell costs where nothing else does: writing it whole, and proving every byte of it.
//!
//! `cargo bench --bench cell -- [ROUNDS]`. The best of so many rounds over 64 cells, so that what else
//! the machine does counts little.

use std::process::ExitCode;
use std::time::Instant;

use virtproof::probe::cell::{Bytes, Header, Kind};
use virtproof::probe::classify::{Expect, classify};
use virtproof::probe::frame::CellState;
use virtproof::probe::layout::CELL;

const CELLS: u32 = 64;
const SEED: u64 = 99;
const RUN: [u8; 16] = [7; 16];
const VOLUME: [u8; 16] = [9; 16];

fn header(cell: u64) -> Header {
    Header {
        kind: Kind::Fill,
        run_id: RUN,
        vol_id: VOLUME,
        incarnation: 0x0100_0001_0000_0001,
        writer: 3,
        op_index: 0,
        op_len: 1,
        wseq: cell + 1,
        gseq: cell * 3,
        cell,
        prev_wseq: 0,
        dep: cell / 2,
        chain: 0,
        mono_ns: 17,
        token: 5,
        real_s: 1,
    }
}

#[expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]
fn main() -> ExitCode {
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    let rounds = words
        .next_back()
        .map_or(Ok(5000), |word| word.parse::<u32>());
    let Ok(rounds) = rounds else {
        println!("the one argument is a number of rounds");
        return ExitCode::FAILURE;
    };
    let mut cells: Vec<Bytes> = (0..CELLS).map(|_| [0; CELL]).collect();
    let encode = best(rounds, &mut cells, |cell, bytes| {
        header(cell).encode(SEED, bytes);
        true
    });
    let prove = best(rounds, &mut cells, |cell, bytes| {
        let expect = Expect {
            seed: SEED,
            run_id: RUN,
            vol_id: VOLUME,
            cell,
        };
        matches!(classify(bytes, &expect), CellState::Ok { .. })
    });
    let (Some(encode), Some(prove)) = (encode, prove) else {
        println!("a cell that was written was not found whole");
        return ExitCode::FAILURE;
    };
    println!("writing a cell {encode} ns, proving one {prove} ns");
    ExitCode::SUCCESS
}

/// Nanoseconds a cell in the fastest round, `None` if `work` fails on any.
fn best(rounds: u32, cells: &mut [Bytes], work: impl Fn(u64, &mut Bytes) -> bool) -> Option<u128> {
    let mut best = None;
    for _ in 0..rounds {
        let began = Instant::now();
        for (cell, bytes) in (0..).zip(&mut *cells) {
            if !work(std::hint::black_box(cell), bytes) {
                return None;
            }
        }
        let took = began.elapsed().as_nanos() / u128::from(CELLS);
        best = Some(best.map_or(took, |best: u128| best.min(took)));
    }
    best
}
