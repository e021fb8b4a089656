//! C1: is what was made from a cut the cut: all of it, and nothing that came later?
//!
//! The second half is the point. A restore that does nothing leaves everything that was acknowledged
//! before the cut where it was; only that what came later is gone shows that something was put back.

use super::{Cut, loads, made};
use crate::check::case::Case;
use crate::check::damage::{line, listed};
use crate::check::finding::{Finding, moment};
use crate::check::image::Image;
use crate::history::read::{Incarnation, Scan};
use crate::probe::frame::CellState;

/// C1: each read-back of what was made from a cut.
pub(in crate::check) fn check(case: &Case<'_>) -> Finding {
    let cuts = Cut::all(case);
    let words = made(case, &cuts).map(|made| match made {
        Ok((cut, scan, image)) => judge(case, cut, scan, &image),
        Err(why) => Finding::unsure(why),
    });
    words.reduce(Finding::worst).unwrap_or_else(|| {
        Finding::unsure("nothing that was made from a cut was read back in this trial")
    })
}

fn judge(case: &Case<'_>, cut: &Cut<'_>, scan: &Scan, image: &Image<'_>) -> Finding {
    let (asked, taken) = match cut.bracket() {
        Ok(bracket) => bracket,
        Err(why) => return Finding::unsure(why),
    };
    let strangers: Vec<&Incarnation> = loads(case)
        .filter(|life| !scan.judges.contains(&life.name))
        .collect();
    let mut back = came_back(image, &strangers);
    let before = image.load.at_ns <= asked;
    if before {
        back.extend(later(image, taken));
    }
    let kept = if before {
        kept(image, asked)
    } else {
        rebuilt(image)
    };
    let discarded = discarded(image, &strangers, taken);
    let finding = match (&kept, back.is_empty()) {
        (Kept::Lost(_), _) | (_, false) => Finding::fail(format!(
            "what was made from {} is not the cut: {} writes of before it are missing, {} of after it are there",
            cut.name,
            kept.lost(),
            back.len()
        ))
        .witnesses(kept.samples())
        .witnesses(&back),
        (Kept::Unseen(why), true) => Finding::unsure(why.clone()),
        (Kept::Whole(0), true) => Finding::unsure(format!(
            "nothing was acked before {} was asked for, so nothing could be missing",
            cut.name
        )),
        (Kept::Whole(_), true) if discarded == 0 => Finding::unsure(format!(
            "nothing is known to have been written after {} was taken, so a restore that does nothing would look the same",
            cut.name
        )),
        (Kept::Whole(looked), true) => Finding::pass(format!(
            "all {looked} writes acked before {} are there, and none of {discarded} written after {}",
            moment(asked),
            moment(taken)
        )),
    };
    finding
        .limit("writes acked or issued while the cut was being taken may be there or not")
        .count("discarded-writes", "writes", discarded)
}

/// What became of the writes of before the cut.
pub(in crate::check) enum Kept {
    /// All that were looked for are there.
    Whole(u64),
    /// Some are not; the first few, in words, and how many.
    Lost((Vec<String>, u64)),
    Unseen(String),
}

impl Kept {
    pub(in crate::check) fn samples(&self) -> &[String] {
        match self {
            Self::Lost((samples, _)) => samples,
            Self::Whole(_) | Self::Unseen(_) => &[],
        }
    }

    /// How many were looked for, if all of them are there.
    pub(in crate::check) const fn whole(&self) -> u64 {
        match self {
            Self::Whole(looked) => *looked,
            Self::Lost(_) | Self::Unseen(_) => 0,
        }
    }

    pub(in crate::check) const fn lost(&self) -> u64 {
        match self {
            Self::Lost((_, lost)) => *lost,
            Self::Whole(_) | Self::Unseen(_) => 0,
        }
    }
}

/// The load was under way or over when the cut was asked for: what was acked by then must be there.
pub(in crate::check) fn kept(image: &Image<'_>, asked: u64) -> Kept {
    let batches = image.load.acks.batches();
    let by_then = |batch: usize| batches.get(batch).is_some_and(|b| b.at_ns <= asked);
    let losses = image.losses(|batch, _| by_then(batch));
    if losses.writes > 0 {
        Kept::Lost((losses.samples, losses.writes))
    } else {
        Kept::Whole(losses.looked)
    }
}

/// The load was written on what had been restored: no cell may be older than it was then.
fn rebuilt(image: &Image<'_>) -> Kept {
    if !image.based {
        return Kept::Unseen("what was restored was not read back before it was written to".into());
    }
    let older = image.reverted.iter().map(|(volume, slot)| {
        format!(
            "{} is older than it was after the restore",
            image.spot(*volume, *slot)
        )
    });
    let older: Vec<String> = older.collect();
    let cells = image.volumes.iter().map(|volume| volume.cells.len() as u64);
    if older.is_empty() {
        Kept::Whole(cells.sum())
    } else {
        let lost = older.len() as u64;
        Kept::Lost((older, lost))
    }
}

/// Cells that hold a write of a life which the cut cannot know.
fn came_back(image: &Image<'_>, strangers: &[&Incarnation]) -> Vec<String> {
    let stranger = |state: &CellState| match state {
        CellState::Ok { incarnation, .. } => {
            strangers.iter().find(|life| life.number == *incarnation)
        }
        _ => None,
    };
    let found = listed(image).filter_map(|(volume, seen)| {
        let life = stranger(&seen.state)?;
        let subject = life.subject.as_deref().unwrap_or_default();
        Some(format!(
            "came back: {}, written by {subject} from {} on",
            line(image, volume, seen),
            moment(life.at_ns)
        ))
    });
    found.collect()
}

/// Cells that hold a write of the load itself which was issued after the cut had been taken.
pub(in crate::check) fn later(image: &Image<'_>, taken: u64) -> Vec<String> {
    let found = listed(image).filter_map(|(volume, seen)| {
        let at = image.since(&seen.state).filter(|at| *at > taken)?;
        Some(format!(
            "{}, issued after {} when the cut had been taken at {}",
            line(image, volume, seen),
            moment(at),
            moment(taken)
        ))
    });
    found.collect()
}

/// How many writes are known to have been made after the cut that must not be there.
pub(in crate::check) fn discarded(
    image: &Image<'_>,
    strangers: &[&Incarnation],
    taken: u64,
) -> u64 {
    let theirs = strangers.iter().filter(|life| life.at_ns > taken);
    let theirs: u64 = theirs.map(|life| life.acks.writes()).sum();
    let acks = &image.load.acks;
    let late = acks.acked().filter(|acked| {
        let bracket = acks.bracket(acked.batch);
        image.load.at_ns <= taken && bracket.is_some_and(|bracket| bracket.low > taken)
    });
    theirs + late.count() as u64
}
