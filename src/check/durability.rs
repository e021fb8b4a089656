//! D1: is every write there that the guest acknowledged and the host heard?

use super::case::{Case, deaf};
use super::finding::Finding;
use super::image::Image;
use crate::probe::layout::CELL;

/// D1.
pub(super) fn check(case: &Case<'_>) -> Finding {
    let words = case.scans().zip(case.images());
    let owed = words.filter(|(scan, _)| case.owes_all(scan));
    owed.map(|(_, image)| match image {
        Ok(image) => judge(case, image),
        Err(why) => Finding::unsure(why.clone()),
    })
    .reduce(Finding::worst)
    .unwrap_or_else(|| Finding::unsure("no read-back had to hold every acknowledged write"))
}

fn judge(case: &Case<'_>, image: &Image<'_>) -> Finding {
    let losses = image.losses(|_, _| true);
    let limit = format!(
        "{} acked writes on {} volumes; writes overwritten by a later present one count as present",
        losses.looked,
        image.volumes.len()
    );
    if losses.writes > 0 {
        let bytes = losses.cells * CELL as u64;
        return Finding::fail(format!(
            "{} acked writes on {} cells are not there",
            losses.writes, losses.cells
        ))
        .witnesses(&losses.samples)
        .limit(limit)
        .count("lost-writes", "writes", losses.writes)
        .count("lost-bytes", "bytes", bytes);
    }
    let mut any = vec![false; image.volumes.len()];
    image.walk(|_, (volume, _), _| {
        if let Some(any) = any.get_mut(volume) {
            *any = true;
        }
    });
    let empty: Vec<_> = (0..any.len()).filter(|volume| !any[*volume]).collect();
    if !empty.is_empty() {
        return Finding::unsure(format!("nothing was acked on volume {empty:?}")).limit(limit);
    }
    let ordered = case.ordered_down(image.load).or_else(|| case.fault());
    let until = ordered.unwrap_or(image.scan.at_ns);
    if image.load.at_ns < until
        && let Some(deaf) = deaf(image.load, until)
    {
        return Finding::unsure(format!("no heard write is missing, but {deaf}")).limit(limit);
    }
    Finding::pass(format!("all {} acked writes are there", losses.looked))
        .limit(limit)
        .limit("writes acked in the guest but never heard by the host are not owed")
        .count("lost-writes", "writes", 0)
}
