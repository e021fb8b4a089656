//! M5: are the disks on the claims that they moved to, and is what they left behind as it was?
//!
//! The old claims are a point in time of the VM: they lie between the order to move and the word that it
//! is over. What was acked before the first must be there, and nothing that was issued after the second
//! may be. The guest alone cannot show that: one that still writes to its old disks finds everything.

use std::collections::BTreeMap;

use crate::check::case::Case;
use crate::check::cut::rollback;
use crate::check::finding::{Finding, moment};
use crate::check::image::Image;
use crate::history::event::{Event, Fact, MovedDisk, StorageFact};

/// One move of the disks.
#[derive(Debug)]
struct Relocation<'a> {
    asked: &'a Event,
    left: &'a str,
    disks: &'a [MovedDisk],
    refused: Option<&'a str>,
    moved: Option<(&'a Event, &'a BTreeMap<String, String>)>,
}

impl<'a> Relocation<'a> {
    fn all(case: &Case<'a>) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for event in case.events() {
            let Fact::Storage { storage, .. } = &event.fact else {
                continue;
            };
            if let StorageFact::Asked { left, disks } = storage {
                all.push(Self {
                    asked: event,
                    left,
                    disks,
                    refused: None,
                    moved: None,
                });
            }
            match (storage, all.last_mut()) {
                (StorageFact::Refused { why }, Some(last)) => last.refused = Some(why),
                (StorageFact::Moved { claims }, Some(last)) => last.moved = Some((event, claims)),
                _ => {}
            }
        }
        all
    }
}

/// M5: the worst of the moves.
pub(in crate::check) fn check(case: &Case<'_>) -> Finding {
    let words = Relocation::all(case);
    let words = words.iter().map(|relocation| judge(case, relocation));
    words
        .reduce(Finding::worst)
        .unwrap_or_else(|| Finding::unsure("no disk was to move to another claim in this trial"))
}

fn judge(case: &Case<'_>, relocation: &Relocation<'_>) -> Finding {
    let (moved, claims) = match (relocation.moved, relocation.refused) {
        (Some(moved), _) => moved,
        (None, Some(why)) => return Finding::fail(format!("the move was refused: {why}")),
        (None, None) => return Finding::unsure("the history does not say that the disks moved"),
    };
    let misplaced = relocation.disks.iter().filter_map(|disk| {
        let now = claims.get(&disk.volume);
        (now != Some(&disk.to)).then(|| {
            let now = now.map_or("none", String::as_str);
            let MovedDisk { volume, to, .. } = disk;
            format!(
                "{volume} is on claim {now} and was to move to {to}, event {}",
                moved.seq
            )
        })
    });
    let misplaced: Vec<String> = misplaced.collect();
    if !misplaced.is_empty() {
        return Finding::fail("the disks are not where they were to move to").witnesses(&misplaced);
    }
    let scan = case.cut_scans();
    let scan = scan.filter(|scan| scan.cut.as_deref() == Some(relocation.left));
    let Some(scan) = scan.last() else {
        return Finding::unsure("nobody read what the disks left behind");
    };
    match Image::new(case.history, case.created(), scan) {
        Ok(image) => inert(&image, relocation.asked.at_ns, moved.at_ns),
        Err(why) => Finding::unsure(why),
    }
}

fn inert(image: &Image<'_>, asked: u64, moved: u64) -> Finding {
    let later = rollback::later(image, moved);
    let kept = rollback::kept(image, asked);
    let since = rollback::discarded(image, &[], moved);
    if !later.is_empty() {
        return Finding::fail(format!(
            "the guest still wrote to the claims that its disks had left: {} writes of after the move are there",
            later.len()
        ))
        .witnesses(&later);
    }
    if kept.lost() > 0 {
        return Finding::fail(format!(
            "what the disks left behind is not as it was: {} writes of before the move are missing",
            kept.lost()
        ))
        .witnesses(kept.samples());
    }
    let looked = kept.whole();
    if looked == 0 || since == 0 {
        return Finding::unsure(
            "too little was written before and after the move to tell the old claims from the new ones",
        );
    }
    Finding::pass(format!(
        "all {looked} writes acked before {} are on what was left, and none of {since} written after {}",
        moment(asked),
        moment(moved)
    ))
    .limit("what was written while the disks moved may be on the old claims or not")
}
