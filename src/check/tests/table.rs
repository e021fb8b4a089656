//! The table itself: what a missing row looks like, and what a number of trials bounds.

use super::*;
use crate::history::read::History;

#[test]
fn a_check_that_is_taken_out_of_the_table_is_noticed() {
    let kit = Kit::relocate(3);
    let history = kit.history();
    assert_eq!(judge_with(CATALOGUE, &kit.plan, &history), kit.judge());
    for gone in CATALOGUE {
        let rest: Vec<CheckSpec> = CATALOGUE
            .iter()
            .filter(|spec| spec.id != gone.id)
            .copied()
            .collect();
        let verdicts = judge_with(&rest, &kit.plan, &history);
        let word = verdicts.verdicts.iter().find(|v| v.check == gone.id);
        let word = word.expect("it is still named by the trial");
        assert_eq!(word.status, Inconclusive, "{}", gone.id);
        assert!(word.summary.contains("no such check"), "{word:?}");
    }
}

/// The same trial again under other names, each aimed at a moment, one of them with another outcome.
fn repeated(kit: &Kit, aims: &[Option<&str>], failed: bool) -> History {
    let once = kit.history();
    let mut whole = once.clone();
    whole.events.clear();
    (whole.incarnations, whole.scans) = (Vec::new(), Vec::new());
    for (n, aim) in aims.iter().enumerate() {
        let name = Some(format!("t{n}"));
        for event in &once.events {
            let mut event = event.clone();
            if event.trial.is_some() {
                event.trial.clone_from(&name);
            } else if n > 0 {
                continue;
            }
            if let Fact::TrialStarted { aimed, .. } = &mut event.fact {
                *aimed = aim.map(str::to_owned);
            }
            whole.events.push(event);
        }
        for life in &once.incarnations {
            let mut life = life.clone();
            life.trial.clone_from(&name);
            life.name = format!("{}-{n}", life.name);
            whole.incarnations.push(life);
        }
        for scan in &once.scans {
            let mut scan = scan.clone();
            scan.trial.clone_from(&name);
            scan.reader = format!("{}-{n}", scan.reader);
            for judged in &mut scan.judges {
                *judged = format!("{judged}-{n}");
            }
            if failed && n == 0 {
                for seen in &mut scan.volumes[0].cells {
                    seen.state = CellState::Corrupt;
                }
            }
            whole.scans.push(scan);
        }
    }
    whole.head.clone_from(&once.head);
    whole
}

fn bound(history: &History, check: &str) -> Vec<String> {
    let verdicts = judge(&plan("{rpo: 2s, rto: 10s}"), history).verdicts;
    let mine = verdicts
        .iter()
        .filter(|v| v.check == check && v.status == Pass);
    mine.map(|v| v.limits.last().expect("a limit").clone())
        .collect()
}

#[test]
fn clean_samples_bound_the_rate_by_three_over_their_number() {
    let kit = Kit::relocate(3);
    assert_eq!(
        bound(&kit.history(), "D2"),
        [
            "1 clean sample in this run, at moments that were not aimed: a rate of violations below about 100 % (3/n) is not excluded"
        ]
    );
    let aims = [Some("promote"); 30];
    let told = bound(&repeated(&kit, &aims, false), "D2");
    assert_eq!(told.len(), 30);
    assert_eq!(
        told[0],
        "30 clean samples in this run, aimed at promote: a rate of violations below about 10 % (3/n) is not excluded"
    );
    // Checks whose word is no sample say nothing of rates.
    let verdict = kit.verdict("O1");
    assert!(verdict.limits.iter().all(|l| !l.contains("3/n")));
}

#[test]
fn samples_of_other_moments_and_failed_ones_bound_nothing() {
    let kit = Kit::relocate(3);
    let aims = [Some("promote"), Some("sync-end"), Some("sync-end"), None];
    let told = bound(&repeated(&kit, &aims, false), "D1");
    let counts: Vec<_> = told.iter().map(|l| l.split(' ').next()).collect();
    assert_eq!(counts, [Some("1"), Some("2"), Some("2"), Some("1")]);
    let failed = repeated(&kit, &[None, None, None], true);
    let told = bound(&failed, "D1");
    assert_eq!(
        told,
        vec![
            "2 of 3 samples in this run passed, at moments that were not aimed: no bound on the rate of violations";
            2
        ]
    );
}
