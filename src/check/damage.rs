//! D4 and D5: cells that are not whole, and whole cells in the wrong place.

use super::case::Case;
use super::finding::Finding;
use super::image::{Image, state};
use super::torn::{self, Torn};
use crate::probe::frame::{CellState, Seen};

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

/// D4: torn or damaged cells. A torn cell is legal if its write may have been under way.
pub(super) fn whole(case: &Case<'_>) -> Finding {
    super::each_image(case, |image| {
        let mut bad = Vec::new();
        let mut doubtful = Vec::new();
        let torn = torn::judge(case, image);
        for (volume, seen) in listed(image) {
            let line = || line(image, volume, seen);
            match seen.state {
                CellState::Corrupt => bad.push(line()),
                CellState::Torn { .. } => {
                    let word = image.slot(volume, seen.cell);
                    match word.and_then(|slot| torn.get(&(volume, slot))) {
                        Some(Torn::UnderWay) => {}
                        Some(Torn::Doubtful) => doubtful.push(line()),
                        Some(Torn::Broken(why)) => bad.push(format!("{}: {why}", line())),
                        None => bad.push(format!("{}: it is written only once", line())),
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
        Finding::pass(format!(
            "no cell is damaged; {} torn by writes still under way",
            torn.len()
        ))
        .limit(coverage)
    })
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
