use super::*;

fn campaign(kind: Kind, n: u64) -> Tally {
    let seeds = 0..n;
    run(&Campaign { seeds, kind }, 2, |_| {}).expect("a plan")
}

#[test]
fn legal() {
    let tally = campaign(Kind::Legal, 3_000);
    for f in tally.false_failures.iter().take(12) {
        println!("{} {} {}", f.command(), f.what, f.verdicts);
    }
    assert!(tally.is_clean(), "{}", tally.false_failure_count);
}

#[test]
fn faulty() {
    let tally = campaign(Kind::Faulty, 3_000);
    println!("{:#?}", tally.by_family);
    for f in tally.false_failures.iter().chain(&tally.misses).take(12) {
        println!("{} {:?} {}", f.command(), f.family, f.what);
    }
    assert!(tally.is_clean(), "{} {}", tally.false_failure_count, tally.miss_count);
}
