//! S3: which acknowledged writes did the losing side keep beyond the fork, and did they stay away?
//!
//! The read-back after the failover shows the fork: what the new side took over of the old side's
//! load. The rest of that load is discarded when the old side is resynced. Read back after the
//! resync, the volumes must hold the new side's line whole and nothing of what was discarded.

use super::case::Case;
use super::finding::Finding;
use super::image::{Image, Losses, Write};
use super::rpo::between;
use crate::history::read::Incarnation;

/// S3: each read-back of a line that was forked off another.
pub(super) fn check(case: &Case<'_>) -> Finding {
    let words = case.images().iter().filter_map(|image| match image {
        Ok(image) => {
            let lost = image.older.last()?;
            (lost.site != image.load.site).then(|| judge(case, image, lost))
        }
        Err(why) => Some(Finding::unsure(why.clone())),
    });
    words.reduce(Finding::worst).unwrap_or_else(|| {
        Finding::unsure("no volume was read back after the other side had been resynced")
    })
}

fn judge(case: &Case<'_>, image: &Image<'_>, lost: &Incarnation) -> Finding {
    let fork = case
        .images()
        .iter()
        .flatten()
        .rfind(|fork| fork.load.name == lost.name && fork.scan.seq < image.load.seq);
    let Some(fork) = fork.filter(|_| image.based) else {
        return Finding::unsure("no read-back shows where the two sides parted");
    };
    let discarded = fork.losses(|_, _| true);
    let mut bad: Vec<String> = image
        .resurrected
        .iter()
        .map(|(volume, slot)| resurrected(image, *volume, *slot))
        .collect();
    let owed = case.owes_all(image.scan);
    let gone = if owed {
        image.losses(|_, _| true)
    } else {
        Losses::default()
    };
    bad.extend(gone.samples.iter().cloned());
    let kept = image.load.acks.writes();
    let finding = if !bad.is_empty() {
        Finding::fail(format!(
            "{} discarded writes came back, {} acked writes of the surviving line are gone",
            image.resurrected.len(),
            gone.writes
        ))
        .witnesses(&bad)
    } else if kept == 0 {
        Finding::unsure("the surviving line acked nothing that could have been overwritten")
    } else if image.scan.site != lost.site {
        Finding::unsure(format!(
            "the {}, which lost, was not read back after its resync",
            lost.site
        ))
    } else {
        Finding::pass(said(fork, lost, &discarded))
    };
    let finding = finding
        .count("discarded-writes", "writes", discarded.writes)
        .limit("as far as the losing side's acks were heard");
    if owed {
        finding.count("overwritten-writes", "writes", gone.writes)
    } else {
        finding.limit("not every write of the surviving line is owed, so none is missed")
    }
}

/// The discarded set in words: how many, from when to when.
fn said(fork: &Image<'_>, lost: &Incarnation, discarded: &Losses) -> String {
    let one = |write: &Write| {
        let at = fork.load.acks.bracket(write.batch);
        let at = at.map_or_else(String::new, |at| format!(" {}", between(at.low, at.high)));
        format!("rank {} acked{at}", write.rank)
    };
    match (&discarded.first, &discarded.last) {
        (Some(begin), Some(end)) => format!(
            "{} acked writes of the {} were discarded, {} to {}, and stayed away",
            discarded.writes,
            lost.site,
            one(begin),
            one(end)
        ),
        _ => format!("no acked write of the {} had to be discarded", lost.site),
    }
}

fn resurrected(image: &Image<'_>, volume: usize, slot: usize) -> String {
    let cells = image.volumes.get(volume).map(|known| known.cells);
    let found = cells.and_then(|cells| cells.get(slot));
    format!(
        "came back: {}, {}, was discarded when the sides parted",
        image.spot(volume, slot),
        found.map_or_else(String::new, |seen| super::image::state(&seen.state))
    )
}
