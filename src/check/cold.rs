//! D7: is what was written once, and the device itself, still there?

use super::case::Case;
use super::damage::{coverage, line};
use super::finding::Finding;
use super::hotplug::grown::growths;
use super::image::Image;
use super::order::rule;
use super::stale::extents;
use crate::probe::frame::{CellState, Opened};

/// D7.
pub(super) fn check(case: &Case<'_>) -> Finding {
    // A device of another size may be impossible to lay against its ledger, so sizes come first.
    let sizes = sizes(case);
    if !sizes.is_empty() {
        return Finding::fail("a device does not have the size that it had").witnesses(&sizes);
    }
    super::each_image(case, |image| {
        let mut bad = Vec::new();
        let mut unread = Vec::new();
        let mut kept = 0;
        for index in 0..image.volumes.len() {
            kept += volume(image, index, &mut bad, &mut unread);
        }
        let rule = rule(image);
        bad.extend(
            extents(image, rule)
                .iter()
                .filter(|extent| extent.zero)
                .map(|extent| {
                    format!(
                        "volume {} cells {} to {}: {} written cells are zero",
                        extent.volume, extent.cells.0, extent.cells.1, extent.lagging
                    )
                }),
        );
        let finding = if !bad.is_empty() {
            Finding::fail(format!("{} cells are lost", bad.len())).witnesses(&bad)
        } else if !unread.is_empty() {
            Finding::unsure("the cold region was not filled or not read whole").witnesses(&unread)
        } else {
            Finding::pass(format!(
                "all {kept} cold cells are there, the last one included"
            ))
        };
        finding
            .count("cold-cells", "cells", kept)
            .limit(coverage(image))
    })
}

/// The size that a volume must have at a moment: as the load found it, unless it was made to grow since.
fn size_by(case: &Case<'_>, opened: &Opened, at_ns: u64) -> u64 {
    let growths = growths(case);
    let since = growths
        .iter()
        .rfind(|growth| growth.had(opened.volume, at_ns));
    since.map_or(opened.size, |growth| growth.size().max(opened.size))
}

/// Volumes that were read back with another size than the load found.
fn sizes(case: &Case<'_>) -> Vec<String> {
    let mut bad = Vec::new();
    for scan in case.scans() {
        let load = scan.judges.last();
        let Some(load) = load.and_then(|name| case.history.incarnation(name)) else {
            continue;
        };
        for opened in &load.identity.volumes {
            let read = scan
                .volumes
                .iter()
                .find(|read| read.volume == opened.volume);
            let owed = size_by(case, opened, scan.at_ns);
            if let Some(read) = read.filter(|read| read.size != owed) {
                let change = if read.size < owed { "shrank" } else { "grew" };
                bad.push(format!(
                    "volume {} {change} from {owed} to {} bytes",
                    opened.volume, read.size
                ));
            }
        }
    }
    bad
}

/// Judges one volume and gives the cold cells that are as they should be.
fn volume(image: &Image<'_>, index: usize, bad: &mut Vec<String>, unread: &mut Vec<String>) -> u64 {
    let Some(volume) = image.volumes.get(index) else {
        return 0;
    };
    let (layout, scan) = (volume.layout, volume.scan);
    for seen in &scan.cells {
        let cold = seen.cell < layout.canary.start || seen.cell >= layout.hot.end;
        match seen.state {
            CellState::Unreadable { .. } => bad.push(line(image, index, seen)),
            CellState::Zeroed if cold => bad.push(line(image, index, seen)),
            _ => {}
        }
    }
    let expected = layout.cold_cells().count() as u64;
    let lives = image.older.iter().copied().chain([image.load]);
    let ordinal = scan.volume;
    let filled = lives
        .filter_map(|life| life.acks.filled().get(&ordinal))
        .max()
        .copied()
        .unwrap_or(0);
    if filled < expected {
        unread.push(format!(
            "volume {index}: {filled} of {expected} cold cells were heard to be filled"
        ));
    }
    let strange = scan
        .cells
        .iter()
        .filter(|seen| seen.cell < layout.canary.start || seen.cell >= layout.hot.end)
        .count() as u64;
    if scan.cold_ok.saturating_add(strange) < expected {
        unread.push(format!(
            "volume {index}: {} of {expected} cold cells were read",
            scan.cold_ok + strange
        ));
    }
    if scan.cold_ok == 0 {
        unread.push(format!("volume {index}: no cold cell is as it should be"));
    }
    scan.cold_ok
}
