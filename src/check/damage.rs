//! D4 and D5: cells that are not whole, and whole cells in the wrong place.

use std::collections::BTreeMap;

use super::case::Case;
use super::finding::Finding;
use super::image::{Image, state};
use crate::probe::frame::{CellState, Seen};
use crate::probe::layout::WRITER_FILL;

/// How many cells of an image were whole or classified at all.
pub(super) fn examined(image: &Image<'_>) -> u64 {
    image.volumes.iter().map(|volume| volume.scan.read).sum()
}

/// Every listed cell that is not in the canary region, with its volume.
pub(super) fn listed<'i>(image: &'i Image<'_>) -> impl Iterator<Item = (usize, &'i Seen)> {
    image
        .volumes
        .iter()
        .enumerate()
        .flat_map(|(index, volume)| {
            let canary = &volume.layout.canary;
            let cells = volume.scan.cells.iter();
            cells
                .filter(|seen| !canary.contains(&seen.cell))
                .map(move |seen| (index, seen))
        })
}

pub(super) fn line(image: &Image<'_>, volume: usize, seen: &Seen) -> String {
    let name = image.volumes.get(volume).map_or("", |v| &v.fact.name);
    format!(
        "volume {volume} ({name}) cell {}: {}",
        seen.cell,
        state(&seen.state)
    )
}

/// The reach of sampling cold cells, in words.
pub(super) fn coverage(image: &Image<'_>) -> String {
    let strides: Vec<String> = image
        .volumes
        .iter()
        .map(|volume| match volume.layout.cold_stride {
            0 => "ends only".into(),
            1 => "every cell".into(),
            stride => format!("every {stride}th cell"),
        })
        .collect();
    format!(
        "{} cells read; cold region sampled at {}: damage between samples is not seen",
        examined(image),
        strides.join(", ")
    )
}

/// D4: torn or damaged cells. A torn cell is legal if the write that was under way had not been
/// acknowledged: not at all where nothing may be lost, else not before the recovered point.
pub(super) fn whole(case: &Case<'_>) -> Finding {
    super::each_image(case, |image| {
        let mut bad = Vec::new();
        let mut doubtful = Vec::new();
        let owed = torn(case, image);
        for (volume, seen) in listed(image) {
            match seen.state {
                CellState::Corrupt => bad.push(line(image, volume, seen)),
                CellState::Torn { wseq, writer, .. } => {
                    let line = line(image, volume, seen);
                    match owed.get(&(volume, seen.cell)) {
                        Some(false) if later_life(image, writer, wseq) => doubtful.push(line),
                        Some(false) => {}
                        Some(true) | None => bad.push(line),
                    }
                }
                _ => {}
            }
        }
        let coverage = coverage(image);
        if !bad.is_empty() {
            return Finding::fail(format!("{} cells are damaged or torn", bad.len()))
                .witnesses(&bad)
                .limit(coverage);
        }
        if !doubtful.is_empty() {
            return Finding::unsure(
                "torn cells may be of an earlier load's or of this load's writes",
            )
            .witnesses(&doubtful);
        }
        if examined(image) == 0 {
            return Finding::unsure("no cell was read");
        }
        let torn = image.torn.len();
        Finding::pass(format!(
            "no cell is damaged; {torn} torn by writes still under way"
        ))
        .limit(coverage)
    })
}

/// Whether a torn cell's write cannot be told from one of a load before.
fn later_life(image: &Image<'_>, writer: u32, wseq: u64) -> bool {
    !image.older.is_empty() && wseq > image.load.acks.watermark(writer)
}

/// For each torn log or hot cell that its newest write can have hit: whether that write was owed
/// whole. Torn cells that are not in the answer were hit by nothing that the ledger knows.
fn torn(case: &Case<'_>, image: &Image<'_>) -> BTreeMap<(usize, u64), bool> {
    let mut owed = BTreeMap::new();
    let mut wanted = BTreeMap::new();
    for (place, (writer, wseq)) in &image.torn {
        if *writer != WRITER_FILL && image.place(*writer, *wseq) == Some(*place) {
            let cell = image.volumes.get(place.0).map_or(0, |v| v.cell(place.1));
            owed.insert((place.0, cell), false);
            wanted.insert((*writer, *wseq), (place.0, cell));
        }
    }
    if wanted.is_empty() {
        return owed;
    }
    let strict = case.owes_all(image.scan);
    let newest = image.newest();
    let reached = newest.iter().flatten().map(|write| write.rank).max();
    for acked in image.load.acks.acked() {
        if let Some(place) = wanted.get(&(acked.writer, acked.wseq))
            && (strict || reached.is_some_and(|reached| acked.rank <= reached))
        {
            owed.insert(*place, true);
        }
    }
    owed
}

/// D5: cells that belong elsewhere.
pub(super) fn placed(case: &Case<'_>) -> Finding {
    super::each_image(case, |image| {
        let mut bad = Vec::new();
        let mut whole = 0_u64;
        let mut elsewhere = vec![0_u64; image.volumes.len()];
        for (volume, seen) in listed(image) {
            match seen.state {
                CellState::Misdirected { same_volume, .. } => {
                    bad.push(line(image, volume, seen));
                    if !same_volume && let Some(n) = elsewhere.get_mut(volume) {
                        *n += 1;
                    }
                }
                CellState::Ok { .. } => whole += 1,
                _ => {}
            }
        }
        let coverage = coverage(image);
        if !bad.is_empty() {
            let swapped: Vec<_> = (0..elsewhere.len())
                .filter(|volume| {
                    elsewhere[*volume] * 2 > image.volumes[*volume].present.len() as u64
                })
                .map(|volume| volume.to_string())
                .collect();
            let summary = if swapped.is_empty() {
                format!("{} cells hold what belongs elsewhere", bad.len())
            } else {
                format!(
                    "volume {} holds another volume's data",
                    swapped.join(" and ")
                )
            };
            return Finding::fail(summary).witnesses(&bad).limit(coverage);
        }
        let cold: u64 = image.volumes.iter().map(|volume| volume.scan.cold_ok).sum();
        if whole + cold == 0 {
            return Finding::unsure("no whole cell was found, so none says where it belongs");
        }
        Finding::pass(format!(
            "{} whole cells are where they belong",
            whole + cold
        ))
        .limit(coverage)
    })
}
