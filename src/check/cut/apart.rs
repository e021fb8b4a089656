//! C2: are a clone and its source two machines, or do they share blocks?
//!
//! Both carry the same ledger up to the cut. Whatever either writes from then on bears the number of its
//! own probe run, so a cell of one that holds a write of the other shows what they share.

use super::{Cut, loads, made};
use crate::check::case::Case;
use crate::check::finding::Finding;
use crate::check::image::{Image, state};
use crate::history::read::{Incarnation, Scan};
use crate::probe::frame::CellState;

/// C2: each clone.
pub(in crate::check) fn check(case: &Case<'_>) -> Finding {
    let cuts = Cut::all(case);
    let clones = cuts.iter().filter_map(|cut| Some((cut, cut.clone?)));
    let words = clones.map(|(cut, clone)| judge(case, &cuts, cut, clone));
    words
        .reduce(Finding::worst)
        .unwrap_or_else(|| Finding::unsure("nothing was cloned in this trial"))
}

/// One of the two machines.
struct Side<'a> {
    of: String,
    /// The last load that it wrote after the cut.
    load: Option<&'a Incarnation>,
    /// Every probe run that ever wrote on it alone.
    numbers: Vec<u64>,
}

impl<'a> Side<'a> {
    fn new(case: &Case<'a>, subject: &str, taken: u64) -> Self {
        let mine = |life: &&Incarnation| {
            life.subject.as_deref() == Some(subject)
                && life.trial.as_deref() == Some(case.trial.name)
                && life.at_ns > taken
        };
        let lives = case.history.incarnations.iter().filter(mine);
        let load = loads(case)
            .filter(mine)
            .filter(|life| life.acks.writes() > 0);
        Self {
            of: subject.to_owned(),
            load: load.last(),
            numbers: lives.map(|life| life.number).collect(),
        }
    }
}

fn judge<'a>(case: &Case<'a>, cuts: &[Cut<'a>], cut: &Cut<'a>, clone: &str) -> Finding {
    let taken = match cut.bracket() {
        Ok((_, taken)) => taken,
        Err(why) => return Finding::unsure(why),
    };
    let source = Side::new(case, case.subject, taken);
    let copy = Side::new(case, clone, taken);
    let (Some(ours), Some(theirs)) = (source.load, copy.load) else {
        return Finding::unsure(
            "the clone and its source were not both written to afterwards, so nothing could show that they share anything",
        );
    };
    let until = ours.acks.last_ns().max(theirs.acks.last_ns());
    let own = case
        .scans()
        .filter(|scan| scan.cut.is_none() && scan.at_ns > until)
        .map(|scan| Image::new(case.history, case.created(), scan).map(|image| (scan, image)));
    let copied = made(case, cuts).filter_map(|made| match made {
        Ok((of, scan, image)) => {
            (of.name == cut.name && scan.at_ns > until).then_some(Ok((scan, image)))
        }
        Err(why) => Some(Err(why)),
    });
    let own = side(own, &source, &copy, ours);
    let copied = side(copied, &copy, &source, theirs);
    own.worst(copied)
}

/// The last word on one side: it holds its own writes and none of the other's.
fn side<'a>(
    read: impl Iterator<Item = Result<(&'a Scan, Image<'a>), String>>,
    mine: &Side<'_>,
    other: &Side<'_>,
    load: &Incarnation,
) -> Finding {
    let Some(read) = read.last() else {
        return Finding::unsure(format!(
            "{} was not read back after both had been written to",
            mine.of
        ));
    };
    let image = match read {
        Ok((_, image)) => image,
        Err(why) => return Finding::unsure(why),
    };
    let mut bad = Vec::new();
    for (index, volume) in image.volumes.iter().enumerate() {
        for seen in &volume.scan.cells {
            if let CellState::Ok { incarnation, .. } = seen.state
                && other.numbers.contains(&incarnation)
            {
                bad.push(format!(
                    "{} volume {index} ({}) cell {} holds {}, which {} wrote",
                    mine.of,
                    volume.fact.name,
                    seen.cell,
                    state(&seen.state),
                    other.of
                ));
            }
        }
    }
    let whole = image.load.name == load.name;
    let lost = image.losses(|_, _| whole);
    if !bad.is_empty() || lost.writes > 0 {
        return Finding::fail(format!(
            "{} holds {} writes of {} and lacks {} of its own",
            mine.of,
            bad.len(),
            other.of,
            lost.writes
        ))
        .witnesses(&bad)
        .witnesses(&lost.samples);
    }
    if !whole {
        return Finding::unsure(format!("the last load of {} was not read back", mine.of));
    }
    if lost.looked == 0 {
        return Finding::unsure(format!("no acked write of {} could be looked for", mine.of));
    }
    Finding::pass(format!(
        "{} holds its own {} acked writes and none of {}",
        mine.of, lost.looked, other.of
    ))
}
