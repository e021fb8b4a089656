//! A history told in words: what was written, cut, struck and heard, what came back, and what each
//! check said against what it must say.

use std::fmt::{self, Write as _};

use super::cells::{Base, Cell, What};
use super::draw::small;
use super::guest::Write;
use super::oracle::Must;
use super::passage::Passage;
use super::shape::Shape;
use super::tell::came;
use super::trial::{self, Fate, Judged};
use super::world::World;
use super::{Judge, Kind};
use crate::plan::{Plan, PlanError};
use crate::probe::layout::mix;

/// A history in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Story {
    /// Whether a check did not say what it must.
    pub fails: bool,
    /// Writes issued in it.
    pub writes: usize,
    /// The text, with a newline at its end.
    pub text: String,
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Tells the history of a seed.
pub fn replay(seed: u64, kind: Kind) -> Result<Story, PlanError> {
    replay_with(seed, kind, &crate::check::judge)
}

/// The same with another judge.
pub fn replay_with(seed: u64, kind: Kind, judge: &Judge<'_>) -> Result<Story, PlanError> {
    Ok(Story::new(Shape::drawn(seed, kind), &super::plan()?, judge))
}

impl Story {
    pub(super) fn new(shape: Shape, plan: &Plan, judge: &Judge<'_>) -> Self {
        let judged = trial::run(shape, plan, judge);
        let mut text = String::new();
        // Writing to a string cannot fail.
        let told = tell(&mut text, &judged);
        debug_assert!(told.is_ok());
        Self {
            fails: !judged.odd.is_empty(),
            writes: judged.world.writes.len(),
            text,
        }
    }
}

/// One number for a history and its judgement.
pub(super) fn fingerprint(judged: &Judged) -> u64 {
    let world = &judged.world;
    let writes = world.writes.iter().flat_map(|write| {
        [
            write.wseq,
            write.cell,
            write.issued,
            write.durable,
            write.applied,
            write.heard,
        ]
    });
    let cells = world.passages.iter().flat_map(|passage| {
        let cells = passage.disks.iter().flatten();
        cells.map(|held| held.cell ^ code(held) << 8)
    });
    let words = judged.words.iter().map(|(.., status)| *status as u64);
    writes
        .chain(cells)
        .chain(words)
        .fold(world.shape.seed, |hash, part| mix(hash ^ part))
}

fn code(held: &Cell) -> u64 {
    match held.what {
        What::Whole(Base::Write(index)) => 16 + index as u64,
        What::Torn { new, mask, .. } => (16 + new as u64) << 8 | u64::from(mask),
        What::Flipped { bit, .. } => (bit as u64) << 32,
        What::Whole(Base::Zero) => 1,
        What::Whole(Base::Fill) => 2,
        What::Whole(Base::Canary { wseq, .. }) => 3 + (wseq << 16),
        What::Foreign => 4,
        What::Unreadable => 5,
        What::Unread => 6,
    }
}

fn tell(text: &mut String, judged: &Judged) -> fmt::Result {
    let world = &judged.world;
    let shape = &world.shape;
    writeln!(
        text,
        "seed {}: {} volumes of {} cells, {} hot writers each, {}, {}",
        shape.seed,
        shape.volumes,
        shape.layout.cells,
        shape.layout.hot_writers,
        match shape.batch {
            0 => "every write durable by itself".into(),
            n => format!("a flush every {n} writes"),
        },
        shape
            .family
            .map_or_else(|| "no fault".into(), |family| family.spec().name.to_owned()),
    )?;
    for (leg, passage) in world.passages.iter().enumerate() {
        load(text, world, leg, passage)?;
        came_back(text, world, leg, passage)?;
    }
    writeln!(text, "\nchecks:")?;
    for (check, demand, status) in &judged.words {
        let verdict = judged.verdicts.verdicts.iter().find(|v| v.check == *check);
        let said = verdict.map_or("", |verdict| &verdict.summary);
        let must = match demand {
            Must::Fail => "must fail".into(),
            Must::NotFail(None) => "must not fail".into(),
            Must::NotFail(Some(why)) => format!("must not fail, may not know: {why}"),
            Must::Either => "may say anything".into(),
        };
        writeln!(text, "  {check} {must}; {status:?}: {said}")?;
        for line in verdict.iter().flat_map(|verdict| &verdict.witness) {
            writeln!(text, "     {line}")?;
        }
    }
    match judged.fate {
        Fate::Undetectable(why) => {
            writeln!(text, "undetectable, {}: {}", why.name(), why.sentence())?;
        }
        other => writeln!(text, "{other:?}")?,
    }
    for odd in &judged.odd {
        writeln!(text, "{:?}: {} said {}", odd.odd, odd.check, odd.said)?;
    }
    Ok(())
}

fn us(at: u64) -> String {
    if came(at) {
        format!("{}", at / 1000)
    } else {
        "never".into()
    }
}

fn load(text: &mut String, world: &World, leg: usize, passage: &Passage) -> fmt::Result {
    let how = &world.shape.legs[leg];
    writeln!(
        text,
        "\nload {leg} on the {} from {} us, {:?}, hearing {:?}, fault at {} us, wrote until {} us",
        world.site(leg, 0),
        us(passage.load.start),
        how.how,
        how.hearing,
        us(passage.load.fault),
        us(passage.load.end)
    )?;
    for index in passage.load.writes.clone() {
        writeln!(text, "  {}", write_line(index, &world.writes[index]))?;
    }
    Ok(())
}

fn write_line(index: usize, write: &Write) -> String {
    format!(
        "#{index} writer {} write {} volume {} cell {}: issued {} with {} ranks durable, applied {}, {} at rank {}, heard {}{}",
        write.writer,
        write.wseq,
        write.volume,
        write.cell,
        us(write.issued),
        write.dep,
        us(write.applied),
        us(write.durable),
        write.rank,
        us(write.heard),
        if write.unknown { ", failed" } else { "" },
    )
}

fn came_back(text: &mut String, world: &World, leg: usize, passage: &Passage) -> fmt::Result {
    for (at, snapshot) in passage.snapshots.iter().enumerate() {
        let complete = us(snapshot.complete);
        writeln!(
            text,
            "  snapshot {at} cut {} us, complete {complete} us",
            us(snapshot.cut)
        )?;
    }
    for (point, seen) in &passage.claims {
        writeln!(text, "  claimed {} us, seen {} us", us(*point), us(*seen))?;
    }
    let cuts: Vec<String> = passage.cuts.iter().map(|cut| us(*cut)).collect();
    writeln!(text, "  came back cut at {} us", cuts.join(", "))?;
    if let Some(index) = passage.tear {
        writeln!(text, "  #{index} was under way and is torn")?;
    }
    if let Some(struck) = &passage.struck {
        writeln!(text, "  fault: {struck}")?;
    }
    for (volume, disk) in passage.disks.iter().enumerate() {
        let layout = &world.layouts[volume];
        for cell in 0..layout.cells {
            let (held, clean) = (disk[small(cell)], passage.clean[volume][small(cell)]);
            let written = layout.log.start <= cell && cell < layout.hot.end;
            if held != clean {
                writeln!(
                    text,
                    "  volume {volume} cell {cell}: {:?} of volume {} cell {}, without the fault {:?}",
                    held.what, held.volume, held.cell, clean.what
                )?;
            } else if written && held.what != What::Whole(Base::Zero) {
                writeln!(text, "  volume {volume} cell {cell}: {:?}", held.what)?;
            }
        }
    }
    writeln!(
        text,
        "  first canary {} us, read back on the {} at {} us",
        us(passage.times.back),
        world.site(leg, 1),
        us(passage.times.scanned)
    )
}
