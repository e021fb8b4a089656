//! D2 and D3: is what came back a prefix of what was written, in the order that flushes imposed?
//!
//! A write `w` was durable at rank `ack(w)`; a write `v` was issued when `dep(v)` ranks were durable.
//! So `ack(w) <= dep(v)` says that `w` was safe before `v` existed, and an image with `v` but without
//! `w` never was on the disk. These edges form an interval order, so an image is legal exactly if
//! the smallest `ack` among missing writes exceeds the largest `dep` among present ones. No search,
//! one pass. The test beside this compares the rule with an exhaustive search.

use super::case::Case;
use super::finding::{Finding, time};
use super::image::{DAMAGED, Image, Write};
use super::verdict::Status;
use completion::Skipped;

mod completion;

/// The two ends of the rule for each volume.
#[derive(Debug)]
pub(super) struct Rule {
    missing: Vec<Option<Write>>,
    present: Vec<Option<Write>>,
}

impl Rule {
    pub(super) fn new(volumes: usize) -> Self {
        Self {
            missing: vec![None; volumes],
            present: vec![None; volumes],
        }
    }

    /// Takes in an acked write (`rank` is when it was durable) and the version that its cell holds.
    pub(super) fn acked(&mut self, write: Write, present: u64) {
        if present != DAMAGED
            && present < write.wseq
            && let Some(slot) = self.missing.get_mut(write.volume)
            && slot.is_none_or(|first| write.rank < first.rank)
        {
            *slot = Some(write);
        }
    }

    /// Takes in a present write (`rank` is what was durable when it was issued).
    pub(super) fn holds(&mut self, write: Write) {
        if let Some(slot) = self.present.get_mut(write.volume)
            && slot.is_none_or(|last| write.rank > last.rank)
        {
            *slot = Some(write);
        }
    }

    /// The pair that proves an image of these volumes illegal: a missing write that was durable
    /// before a present one was issued.
    pub(super) fn breach(&self, volumes: impl Fn(usize) -> bool) -> Option<(Write, Write)> {
        let missing = self.first_missing(&volumes)?;
        let known = self.present.iter().flatten();
        let known = known.filter(|write| volumes(write.volume));
        let present = known.copied().max_by_key(|write| write.rank)?;
        (missing.rank <= present.rank).then_some((missing, present))
    }

    /// The acked write of these volumes that is missing and was durable first.
    pub(super) fn first_missing(&self, volumes: impl Fn(usize) -> bool) -> Option<Write> {
        let missing = self.missing.iter().flatten();
        let known = missing.filter(|write| volumes(write.volume));
        known.copied().min_by_key(|write| write.rank)
    }

    /// The most that was durable when a present write of the volume was issued: the point that the
    /// volume is proven to have reached.
    pub(super) fn reached(&self, volume: usize) -> Option<u64> {
        self.present.get(volume)?.map(|write| write.rank)
    }
}

/// The rule applied to an image: one walk over all writes, however many checks ask.
pub(super) fn rule<'i>(image: &'i Image<'_>) -> &'i Rule {
    image.rule.get_or_init(|| apply(image))
}

fn apply(image: &Image<'_>) -> Rule {
    let mut rule = Rule::new(image.volumes.len());
    image
        .newest()
        .into_iter()
        .flatten()
        .for_each(|write| rule.holds(write));
    image.walk(|acked, (volume, slot), present| {
        let write = Write {
            volume,
            slot,
            writer: acked.writer,
            wseq: acked.wseq,
            rank: acked.rank,
            batch: acked.batch,
        };
        rule.acked(write, present);
    });
    // What was there before the load began was durable before its first write.
    for (volume, slot) in &image.reverted {
        let write = Write {
            volume: *volume,
            slot: *slot,
            writer: 0,
            wseq: 1,
            rank: 0,
            batch: usize::MAX,
        };
        rule.acked(write, 0);
    }
    rule
}

/// D2: each volume by itself.
pub(super) fn volumes(case: &Case<'_>) -> Finding {
    super::each_image(case, |image| {
        let rule = rule(image);
        let breaches: Vec<_> = (0..image.volumes.len())
            .filter_map(|volume| rule.breach(|v| v == volume))
            .collect();
        warned(said(image, rule, &breaches, "a volume"), || {
            (0..image.volumes.len())
                .filter_map(|volume| completion::skipped(image, |v| v == volume))
                .collect()
        })
    })
}

/// D3: all volumes of the VM as one.
pub(super) fn group(case: &Case<'_>) -> Finding {
    super::each_image(case, |image| {
        let rule = rule(image);
        let breaches: Vec<_> = rule.breach(|_| true).into_iter().collect();
        let mut finding = warned(said(image, rule, &breaches, "the VM"), || {
            completion::skipped(image, |_| true).into_iter().collect()
        });
        if image.volumes.len() == 1 {
            finding = finding.limit("one data volume: says no more than D2");
        }
        let acks = &image.load.acks;
        if let (Some(first), Some(last)) = (acks.batches().first(), acks.batches().last()) {
            let span = last.at_ns.saturating_sub(first.at_ns);
            let gap = span / acks.last_rank().max(1);
            finding = finding
                .measure(time("ack-gap", gap, gap, None))
                .limit(format!(
                    "volumes cut less than about {:.1} ms apart may look like one cut",
                    super::finding::seconds(gap) * 1e3
                ));
        }
        finding
    })
}

/// Adds to a pass what speaks against the order in which writes completed. Flushes decide; a storage
/// that keeps its promises may reorder between them, but one that claims write-order fidelity
/// does not.
fn warned(finding: Finding, skipped: impl FnOnce() -> Vec<Skipped>) -> Finding {
    if finding.status != Status::Pass {
        return finding;
    }
    let finding = finding.limit(
        "completion order is known within each writer, which has one write in flight; across writers only flushes tell",
    );
    skipped().into_iter().fold(finding, |finding, skipped| {
        finding.warning(skipped.in_words)
    })
}

fn said(image: &Image<'_>, rule: &Rule, breaches: &[(Write, Write)], of: &str) -> Finding {
    if let Some((missing, present)) = breaches.first() {
        let mut finding = Finding::fail(format!(
            "{of} came back with a write whose predecessor is missing: rank {} was durable before \
             the write that depends on rank {} was issued",
            missing.rank, present.rank
        ));
        for (missing, present) in breaches {
            finding = finding
                .witness(image.missing(missing))
                .witness(image.present(present));
        }
        return finding;
    }
    let silent: Vec<_> = (0..image.volumes.len())
        .filter(|volume| rule.reached(*volume).is_none())
        .collect();
    let finding = if silent.is_empty() && image.load.acks.writes() > 0 {
        Finding::pass(format!(
            "every present write has all writes that were durable before it ({} acked writes, {} volumes)",
            image.load.acks.writes(),
            image.volumes.len()
        ))
    } else if image.load.acks.writes() == 0 {
        Finding::unsure("no write of the load was acked, so nothing can be out of order")
    } else {
        Finding::unsure(format!(
            "no write of the load is present on volume {silent:?}, so nothing there can be out of order"
        ))
    };
    let heard = image.load.acks.last_rank();
    let beyond = image
        .newest()
        .iter()
        .flatten()
        .filter(|write| write.rank > heard)
        .count();
    let finding = finding.limit(
        "writes between the same two flushes may come back in any order; damaged cells are left to D4-D7",
    );
    if beyond == 0 {
        return finding;
    }
    finding.limit(format!(
        "{beyond} volumes hold writes that depend on acks which the host never heard"
    ))
}

#[cfg(test)]
mod tests;
