//! A6 and A7: databases that came back whole, damaged, with gaps and too old.

use super::*;
use crate::history::event::{CaptureFact, DatabaseFact, FreezeFact, Left, RowsFact};

/// What came back: transactions 1 to the last.
fn rows(last: u64) -> RowsFact {
    RowsFact {
        count: last,
        first: u64::from(last > 0),
        last,
        strange: 0,
        second: last,
        upto: last,
    }
}

fn told(site: Site, database: DatabaseFact) -> Fact {
    Fact::Database { site, database }
}

fn read(check: &[&str], rows: Option<RowsFact>) -> Fact {
    logged(Some(4096), check, rows)
}

fn logged(log: Option<u64>, check: &[&str], rows: Option<RowsFact>) -> Fact {
    left([log, None, None], check, rows)
}

/// A database of whose log, checkpoint and tables this was seen before it was opened.
fn left([log, redo, open]: [Option<u64>; 3], check: &[&str], rows: Option<RowsFact>) -> Fact {
    let unread = if rows.is_some() { "" } else { "malformed" };
    let read = DatabaseFact::Read {
        log,
        redo,
        open,
        check: check.iter().map(|line| (*line).to_owned()).collect(),
        rows,
        unread: unread.to_owned(),
    };
    told(Site::Secondary, read)
}

/// A freeze at whose answer transactions 1 to 20 were known, and 21 to 25 soon after it; then this was
/// read.
fn kit(found: Fact) -> Kit {
    let mut kit = Kit::frozen(3);
    for commit in 1..=25 {
        let late = if commit > 20 { 100 * MS } else { 0 };
        let at = PAUSE - 200 * MS + commit * MS + 2 * late;
        kit.add(at, told(Site::Primary, DatabaseFact::Acked { commit }));
    }
    kit.add(FAULT + 2_900 * MS, found);
    kit
}

fn words(kit: &Kit) -> (Status, Status) {
    (kit.status("A6"), kit.status("A7"))
}

#[test]
fn a_database_owes_what_was_committed_before_the_freeze() {
    for (last, kept) in [(25, Pass), (22, Pass), (20, Pass), (19, Fail), (0, Fail)] {
        let kit = kit(read(&["ok"], Some(rows(last))));
        assert_eq!(words(&kit), (Pass, kept), "{last}");
    }
}

#[test]
fn where_nothing_may_be_lost_it_owes_all() {
    for (last, kept) in [(25, Pass), (24, Fail)] {
        let mut kit = kit(read(&["ok"], Some(rows(last))));
        kit.change(|fact| {
            if let Fact::TrialStarted { zero_loss, .. } = fact {
                *zero_loss = true;
            }
        });
        assert_eq!(words(&kit), (Pass, kept), "{last}");
    }
}

#[test]
fn damage_gaps_and_parts_of_transactions_are_found() {
    let whole = rows(25);
    let bad = [
        read(&["Page 4: btreeInitPage() returns error code 11"], None),
        read(&["ok"], None),
        read(&[], Some(whole)),
        read(&["ok", "row 3 missing from index"], Some(whole)),
        read(
            &["ok"],
            Some(RowsFact {
                count: 24,
                upto: 7,
                ..whole
            }),
        ),
        read(
            &["ok"],
            Some(RowsFact {
                count: 24,
                first: 2,
                ..whole
            }),
        ),
        read(&["ok"], Some(RowsFact { count: 24, ..whole })),
        read(
            &["ok"],
            Some(RowsFact {
                strange: 1,
                ..whole
            }),
        ),
        read(
            &["ok"],
            Some(RowsFact {
                second: 24,
                ..whole
            }),
        ),
        read(
            &["ok"],
            Some(RowsFact {
                second: 26,
                ..whole
            }),
        ),
        read(
            &["ok"],
            Some(RowsFact {
                second: 3,
                ..rows(0)
            }),
        ),
    ];
    for fact in bad {
        // One finding, not two.
        assert_eq!(words(&kit(fact.clone())), (Fail, Inconclusive), "{fact:?}");
    }
}

/// A hook that was to leave this was put in place before the freeze, which was first asked for when 15
/// transactions were known.
fn hooked(mut kit: Kit, hook: bool, leaves: Left) -> Kit {
    let made = DatabaseFact::Made {
        version: "a database 3".into(),
        directory: "/srv/db".into(),
        hook,
        leaves,
    };
    kit.add(PAUSE - 500 * MS, told(Site::Primary, made));
    let asked = |fact: &Fact| {
        matches!(
            fact,
            Fact::Freeze {
                freeze: FreezeFact::Asked { .. },
                ..
            }
        )
    };
    kit.without(asked);
    let again = || Fact::Freeze {
        site: Site::Primary,
        freeze: FreezeFact::Asked { timeout_ms: 0 },
    };
    kit.add(PAUSE - 184 * MS - MS / 2, again());
    // A walk that is repeated asks again, and the hook finds nothing to do.
    kit.add(PAUSE + 5 * MS, again());
    kit
}

#[test]
fn a_hook_that_was_to_quiesce_it_must_have() {
    let empty = |log| ([log, Some(0), Some(0)], Left::EmptyLog);
    let closed = |open| ([Some(0), Some(0), open], Left::ClosedTables);
    // Of 25 that came back as many as that lie behind the checkpoint.
    let covered = |redo| ([Some(0), redo, Some(0)], Left::Checkpoint);
    for ((seen, leaves), whole) in [
        (empty(Some(0)), Pass),
        (empty(Some(32)), Fail),
        (empty(None), Fail),
        (closed(Some(0)), Pass),
        (closed(Some(1)), Fail),
        (closed(None), Fail),
        (covered(Some(0)), Pass),
        (covered(Some(10)), Pass),
        (covered(Some(11)), Fail),
        (covered(Some(25)), Fail),
        (covered(None), Fail),
    ] {
        let kit = |hook| hooked(kit(left(seen, &["ok"], Some(rows(25)))), hook, leaves);
        assert_eq!(words(&kit(true)), (whole, Pass), "{seen:?} {leaves:?}");
        assert_eq!(words(&kit(false)), (Pass, Pass), "{seen:?} {leaves:?}");
    }
}

#[test]
fn what_did_not_happen_is_not_judged() {
    let whole = || read(&["ok"], Some(rows(25)));
    let mut unread = kit(whole());
    unread.without(|fact| {
        matches!(
            fact,
            Fact::Database {
                database: DatabaseFact::Read { .. },
                ..
            }
        )
    });
    assert_eq!(words(&unread), (Inconclusive, Inconclusive));
    let mut idle = kit(whole());
    idle.without(|fact| {
        matches!(
            fact,
            Fact::Database {
                database: DatabaseFact::Acked { .. },
                ..
            }
        )
    });
    assert_eq!(words(&idle), (Inconclusive, Inconclusive));
    let mut unfrozen = kit(whole());
    unfrozen.without(|fact| {
        matches!(
            fact,
            Fact::Freeze {
                freeze: FreezeFact::Frozen,
                ..
            }
        )
    });
    assert_eq!(words(&unfrozen), (Pass, Inconclusive));
    let mut untaken = kit(whole());
    untaken.without(|fact| {
        matches!(
            fact,
            Fact::Capture {
                capture: CaptureFact { taken: true, .. },
                ..
            }
        )
    });
    assert_eq!(words(&untaken), (Pass, Inconclusive));
}
