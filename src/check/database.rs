//! A6 and A7: did what a database committed come back, whole and up to where it is owed?
//!
//! A transaction is owed if the host knew that it was committed before the point was taken that came
//! back: before the word that the guest is frozen, since the point lies behind that, or all of them
//! where every acknowledged write is owed. Whether the freeze was one is A1's question; a transaction
//! that was committed before it was asked for must be there in any case.
//!
//! That a hook of the guest agent quiesced the database is seen by what it left on the disk, never by how
//! it ended. What that is depends on the database: [`Left`].

use super::case::Case;
use super::finding::{Finding, moment};
use crate::history::event::{DatabaseFact, Event, Fact, FreezeFact, Left, Outcome, RowsFact};

/// A database that was read.
struct Read<'a> {
    event: &'a Event,
    log: Option<u64>,
    redo: Option<u64>,
    open: Option<u64>,
    check: &'a [String],
    rows: Option<RowsFact>,
    unread: &'a str,
}

impl Read<'_> {
    /// What its own check and its rows have against it.
    fn trouble(&self) -> Vec<String> {
        let mut trouble = Vec::new();
        if self.check.is_empty() {
            trouble.push("its check says nothing".into());
        }
        if self.check.iter().map(String::as_str).ne(["ok"]) {
            let said = self.check.iter();
            trouble.extend(said.map(|line| format!("its check says: {line}")));
        }
        match self.rows {
            None => trouble.push(format!("it cannot be read: {}", self.unread)),
            Some(rows) => trouble.extend(broken(rows)),
        }
        trouble
    }
}

/// What is wrong with rows that must be 1 to the last one.
fn broken(rows: RowsFact) -> Vec<String> {
    let RowsFact {
        count,
        first,
        last,
        strange,
        second,
        upto,
    } = rows;
    let mut wrong = Vec::new();
    if count > 0 && first != 1 {
        wrong.push(format!(
            "transactions 1 to {} are missing",
            first.saturating_sub(1)
        ));
    }
    if upto != last {
        wrong.push(format!(
            "transaction {} is missing, {last} is there",
            upto.saturating_add(1)
        ));
    } else if count != last.saturating_sub(first.saturating_sub(1)) {
        wrong.push(format!(
            "{count} transactions are there, the last is {last}"
        ));
    }
    if strange > 0 {
        wrong.push(format!(
            "{strange} transactions carry something else than was committed"
        ));
    }
    if second != last {
        wrong.push(format!(
            "one table is at transaction {last} and the other at {second}: one is there in part"
        ));
    }
    wrong
}

/// The databases of a case as they were read, in order.
fn reads<'a>(case: &Case<'a>) -> Vec<Read<'a>> {
    let read = case.events().filter_map(|event| match &event.fact {
        Fact::Database {
            database:
                DatabaseFact::Read {
                    log,
                    redo,
                    open,
                    check,
                    rows,
                    unread,
                },
            ..
        } => Some(Read {
            event,
            log: *log,
            redo: *redo,
            open: *open,
            check,
            rows: *rows,
            unread,
        }),
        _ => None,
    });
    read.collect()
}

/// What the hook was to leave of a database that was read at a moment, if it had one.
fn promised(case: &Case<'_>, read_ns: u64) -> Option<Left> {
    let before = case.events().take_while(|event| event.at_ns < read_ns);
    let made = before.filter_map(|event| match event.fact {
        Fact::Database {
            database: DatabaseFact::Made { hook, leaves, .. },
            ..
        } => Some(hook.then_some(leaves)),
        _ => None,
    });
    made.last().flatten()
}

/// What speaks against a hook that was to quiesce a database.
fn unquiesced(case: &Case<'_>, read: &Read<'_>) -> Option<String> {
    match promised(case, read.event.at_ns)? {
        Left::EmptyLog => match read.log {
            Some(0) => None,
            Some(bytes) => Some(format!(
                "its log holds {bytes} bytes where the agent's hook was to leave it empty: the hook did not run, or somebody wrote behind it"
            )),
            None => Some("nothing was said of its log".into()),
        },
        Left::ClosedTables => match read.open {
            Some(0) => None,
            Some(times) => Some(format!(
                "a table without transactions says that it is open ({times}) where the agent's hook was to close and lock it: the hook did not run, or somebody wrote behind it"
            )),
            None => Some("nothing was said of its open tables".into()),
        },
        Left::Checkpoint => uncovered(case, read),
    }
}

/// What speaks against a checkpoint between the moment when a freeze was asked for and the freeze itself:
/// what was acknowledged before that moment cannot lie behind it.
fn uncovered(case: &Case<'_>, read: &Read<'_>) -> Option<String> {
    // Without rows or a freeze there is something else to be said.
    let (rows, point) = (read.rows?, point(case, read.event.at_ns)?);
    let Some(redo) = read.redo else {
        return Some("nothing was said of its last checkpoint".into());
    };
    let covered = rows.last.saturating_sub(redo);
    let acked = acked(case, point.asked?);
    (covered < acked).then(|| {
        format!(
            "its last checkpoint holds transactions 1 to {covered}, and {acked} were acknowledged when the freeze was asked for: the agent's hook took none"
        )
    })
}

/// The newest transaction that was known to be committed at a moment.
fn acked(case: &Case<'_>, at_ns: u64) -> u64 {
    let before = case.events().filter(|event| event.at_ns <= at_ns);
    let acks = before.filter_map(|event| match &event.fact {
        Fact::Database {
            database: DatabaseFact::Acked { commit },
            ..
        } => Some(*commit),
        _ => None,
    });
    acks.max().unwrap_or(0)
}

/// Judges every read; the worst word counts.
fn each(case: &Case<'_>, judge: impl Fn(&Read<'_>) -> Finding) -> Finding {
    if acked(case, u64::MAX) == 0 {
        return Finding::unsure("no transaction was committed in this trial");
    }
    let words = reads(case).into_iter().map(|read| judge(&read));
    words
        .reduce(Finding::worst)
        .unwrap_or_else(|| Finding::unsure("the database was not read back in this trial"))
}

/// A6: each database that was read is sound and holds transactions 1 to the last one.
pub(super) fn whole(case: &Case<'_>) -> Finding {
    each(case, |read| {
        let mut trouble = read.trouble();
        trouble.extend(unquiesced(case, read));
        match (trouble.is_empty(), read.rows) {
            (true, Some(rows)) => Finding::pass(format!(
                "the database's own check says ok, and its transactions are 1 to {}",
                rows.last
            ))
            .count("transactions", "1", rows.count),
            _ => Finding::fail("the database did not come back whole")
                .witnesses(&trouble)
                .witness(format!("read in event {}", read.event.seq)),
        }
    })
}

/// A7: each database that was read holds what it owes.
pub(super) fn kept(case: &Case<'_>) -> Finding {
    each(case, |read| {
        let Some(rows) = read.rows.filter(|_| read.trouble().is_empty()) else {
            return Finding::unsure("the database did not come back whole, see A6");
        };
        let (until, when) = match owed(case, read.event.at_ns) {
            Ok(owed) => owed,
            Err(why) => return Finding::unsure(why),
        };
        let owed = acked(case, until);
        if owed == 0 {
            return Finding::unsure(format!("nothing was committed {when}"));
        }
        let all = acked(case, u64::MAX);
        let finding = if rows.last < owed {
            Finding::fail(format!(
                "{} transactions are lost that were committed {when}",
                owed - rows.last
            ))
            .witness(format!(
                "transaction {owed} was acknowledged by then, the newest that is there is {}",
                rows.last
            ))
            .witness(format!("read in event {}", read.event.seq))
        } else {
            Finding::pass(format!(
                "all {owed} transactions are there that were committed {when}"
            ))
        };
        finding
            .count("lost-transactions", "1", owed.saturating_sub(rows.last))
            .count("acknowledged-transactions", "1", all)
            .limit("a transaction whose acknowledgement never reached the host is not owed")
    })
}

/// Until when commits are owed to a read at a moment, and that in words.
fn owed(case: &Case<'_>, read_ns: u64) -> Result<(u64, String), String> {
    if case.trial.zero_loss || case.plan.protection().synchronous {
        return Ok((read_ns, "at any time".into()));
    }
    let point = point(case, read_ns);
    let until = point
        .ok_or("no point was taken behind a freeze, so no commit is owed")?
        .frozen;
    let when = format!("before the guest was frozen at {}", moment(until));
    Ok((until, when))
}

/// The freeze behind which the newest point was taken.
#[derive(Clone, Copy)]
struct Point {
    /// When it was first asked for, which every freeze says before: asked again, it is the same.
    asked: Option<u64>,
    /// When the guest was said to be frozen.
    frozen: u64,
}

fn point(case: &Case<'_>, read_ns: u64) -> Option<Point> {
    let (mut asked, mut frozen, mut covered) = (None, None, None);
    for event in case.events().take_while(|event| event.at_ns < read_ns) {
        match &event.fact {
            Fact::Freeze { freeze, .. } => match freeze {
                FreezeFact::Asked { .. } => asked = asked.or(Some(event.at_ns)),
                FreezeFact::Thawed {
                    outcome: Outcome::Ok,
                } => asked = None,
                FreezeFact::Frozen => {
                    frozen = Some(Point {
                        asked,
                        frozen: event.at_ns,
                    });
                }
                _ => {}
            },
            Fact::Capture { capture, .. } if capture.taken => covered = frozen.or(covered),
            _ => {}
        }
    }
    covered
}
