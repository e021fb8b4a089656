//! M3: is every acknowledged write still there after a live migration?

use super::moves;
use crate::check::case::Case;
use crate::check::finding::Finding;
use crate::check::image_after;

/// M3: the first read-back after the last migration.
pub(in crate::check) fn check(case: &Case<'_>) -> Finding {
    let moves = moves(case);
    let (Some(first), Some(last)) = (moves.first(), moves.last()) else {
        return Finding::unsure("the VM was not migrated in this trial");
    };
    let (from, to) = match (first.window(), last.window()) {
        (Ok((from, _)), Ok((_, to))) => (from, to),
        (Err(why), _) | (_, Err(why)) => return Finding::unsure(why),
    };
    let image = match image_after(case, to) {
        Ok(image) => image,
        Err(why) => return Finding::unsure(why),
    };
    let Some(reader) = case.history.incarnation(&image.scan.reader) else {
        return Finding::unsure("the history does not know who read back");
    };
    let batches = image.load.acks.batches();
    let heard = |batch: usize| batches.get(batch).map_or(u64::MAX, |batch| batch.at_ns);
    // What is acked while the volumes are read may or may not be in the reading.
    let losses = image.losses(|batch, _| heard(batch) <= reader.at_ns);
    let mut within = 0_u64;
    image.walk(|acked, _, _| {
        let at = heard(acked.batch);
        within += u64::from(from <= at && at <= to);
    });
    let limit = format!(
        "{} acked writes compared, {within} of them acked while the VM was migrated",
        losses.looked
    );
    let cached: Vec<String> = reader
        .identity
        .volumes
        .iter()
        .filter(|volume| !volume.grants.direct)
        .map(|volume| format!("{} was read through the guest's cache", volume.path))
        .collect();
    let finding = if losses.writes > 0 {
        Finding::fail(format!(
            "{} acked writes on {} cells did not survive the migration",
            losses.writes, losses.cells
        ))
        .witnesses(&losses.samples)
    } else if !cached.is_empty() {
        Finding::unsure("what was read may not be what is on the volumes").witnesses(&cached)
    } else if within == 0 {
        Finding::unsure("nothing was acked while the VM was migrated")
    } else {
        Finding::pass(format!("all {} acked writes are there", losses.looked))
    };
    finding
        .limit(limit)
        .count("lost-writes", "writes", losses.writes)
}
