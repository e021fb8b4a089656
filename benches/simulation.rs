//! Histories per minute of the simulation, and what they came to. `cargo bench --bench simulation`
//! measures on one thread; `-- legal FROM TO THREADS` runs a campaign of one's own.

use std::time::Instant;

use virtproof::sim::{Campaign, Kind, run};

fn main() {
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| arg != "--bench")
        .collect();
    let number = |at: usize, default: u64| {
        args.get(at)
            .map_or(default, |text| text.parse().expect("a number"))
    };
    let kinds = match args.first() {
        Some(kind) => vec![kind.parse::<Kind>().expect("legal or faulty")],
        None => vec![Kind::Legal, Kind::Faulty],
    };
    let (from, to) = (number(1, 0), number(2, 20_000));
    let threads = usize::try_from(number(3, 1)).expect("a number of threads");
    for kind in kinds {
        campaign(kind, from, to, threads);
    }
}

#[expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]
#[expect(
    clippy::cast_precision_loss,
    reason = "counts of histories are far below 2^53"
)]
fn campaign(kind: Kind, from: u64, to: u64, threads: usize) {
    let began = Instant::now();
    let seeds = from..to;
    let tally = run(&Campaign { seeds, kind }, threads, |_| {}).expect("the simulation's plan");
    let took = began.elapsed().as_secs_f64();
    println!(
        "{}: {} histories in {took:.1} s on {threads} threads, {:.0} a minute; {} false failures, {} misses; fingerprint {:016x}",
        kind.name(),
        tally.histories,
        tally.histories as f64 / took * 60.0,
        tally.false_failure_count,
        tally.miss_count,
        tally.fingerprint
    );
    println!(
        "green {:?}\ninconclusive {:#?}",
        tally.green, tally.inconclusive
    );
    println!("shapes {:?}", tally.shapes);
    for (family, count) in &tally.by_family {
        println!("{family}: {count:?}");
    }
    for failure in tally.misses.iter().chain(&tally.false_failures).take(20) {
        println!(
            "{} {:?}: {}",
            failure.command(),
            failure.family,
            failure.what
        );
    }
}
