//! R2: did replication hold what it claimed? Everything that was acked before the newest
//! `lastSyncTime` seen at or before the promotion must be there.

use super::case::Case;
use super::finding::{Finding, moment};
use crate::history::event::{Event, Fact, Site, Stage};

/// A claim of one volume, on the run's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Claim {
    /// The claimed point, no later than this.
    at_ns: u64,
    stamp: jiff::Timestamp,
    site: Site,
    /// Seq of the event that carries it.
    seq: u64,
}

/// R2.
pub(super) fn check(case: &Case<'_>) -> Finding {
    let from = case.fault().unwrap_or(0);
    let image = match super::image_after(case, from) {
        Ok(image) => image,
        Err(why) => return Finding::unsure(why),
    };
    let until = case.stage(Stage::Promoted).unwrap_or(image.scan.at_ns);
    let claims: Vec<Option<Claim>> = image
        .volumes
        .iter()
        .map(|volume| claim(case, &volume.fact.pvc, until))
        .collect();
    let acks = &image.load.acks;
    let owed = |batch: usize, volume: usize| {
        let heard = acks.batches().get(batch).map(|batch| batch.at_ns);
        let claimed = claims.get(volume).copied().flatten();
        matches!((heard, claimed), (Some(heard), Some(claim)) if heard <= claim.at_ns)
    };
    let losses = image.losses(owed);
    let mut looked = vec![0_u64; image.volumes.len()];
    image.walk(|acked, (volume, _), _| {
        if owed(acked.batch, volume)
            && let Some(looked) = looked.get_mut(volume)
        {
            *looked += 1;
        }
    });
    let told: Vec<String> = claims
        .iter()
        .enumerate()
        .filter_map(|(volume, claim)| {
            let claim = (*claim)?;
            Some(format!(
                "volume {volume}: {} (event {}, {} site) claims {}, which is {} or later on the run's clock",
                image.volumes.get(volume)?.fact.pvc,
                claim.seq,
                claim.site,
                claim.stamp,
                moment(claim.at_ns)
            ))
        })
        .collect();
    let finding = if losses.writes > 0 {
        Finding::fail(format!(
            "{} writes acked before the claimed sync time are not there",
            losses.writes
        ))
        .witnesses(&losses.samples)
        .witnesses(&told)
    } else if let Some(volume) = claims.iter().position(Option::is_none) {
        Finding::unsure(format!(
            "no lastSyncTime of volume {volume} was seen before the promotion, or the clock of its site was never compared"
        ))
    } else if let Some(volume) = looked.iter().position(|looked| *looked == 0) {
        Finding::unsure(format!(
            "nothing was acked on volume {volume} before the claimed sync time"
        ))
    } else {
        Finding::pass(format!(
            "all {} writes acked before the claimed sync times are there",
            losses.looked
        ))
    };
    finding
        .limits(told)
        .limit(
            "a sync time counts as the beginning of its second, less the clock comparison's error",
        )
        .count("owed-writes", "writes", losses.looked)
}

/// The newest claim about a PVC that was seen at or before `until`, whichever site made it.
fn claim(case: &Case<'_>, pvc: &str, until: u64) -> Option<Claim> {
    let mut newest: Option<Claim> = None;
    for event in case.events().filter(|event| event.at_ns <= until) {
        let Fact::Replication { site, volumes } = &event.fact else {
            continue;
        };
        let stamps = volumes
            .iter()
            .filter(|volume| volume.pvc == pvc)
            .filter_map(|volume| volume.last_sync_time);
        for stamp in stamps {
            let Some((at_ns, _)) = claimed(case, *site, event, stamp) else {
                continue;
            };
            let claim = Claim {
                at_ns,
                stamp,
                site: *site,
                seq: event.seq,
            };
            if newest.is_none_or(|newest| newest.at_ns < claim.at_ns) {
                newest = Some(claim);
            }
        }
    }
    newest
}

/// Between which moments of the run's clock a stamp that a site wrote lies, as an event that was seen
/// about then translates it. `None` if the site's clock was never compared.
pub(super) fn claimed(
    case: &Case<'_>,
    site: Site,
    event: &Event,
    stamp: jiff::Timestamp,
) -> Option<(u64, u64)> {
    let (skew_ms, bound_ms) = skew(case, site, event.seq)?;
    let skew = i128::from(skew_ms) * 1_000_000;
    let age = event.wall.as_nanosecond() - (stamp.as_nanosecond() - skew);
    let bound = i128::from(bound_ms) * 1_000_000;
    let at = i128::from(event.at_ns) - age;
    let clamp = |at: i128| u64::try_from(at.max(0)).unwrap_or(u64::MAX);
    // Clusters cut times to whole seconds, so the true point is at `stamp` or later.
    Some((clamp(at - bound), clamp(at + bound + 1_000_000_000)))
}

/// The last comparison of a site's clock with the host's before an event: difference and bound.
fn skew(case: &Case<'_>, wanted: Site, before: u64) -> Option<(i64, u64)> {
    let seen = case
        .history
        .events
        .iter()
        .filter(|event| event.seq < before);
    seen.filter_map(|event| match event.fact {
        Fact::SiteSeen {
            site,
            clock_skew_ms,
            clock_bound_ms,
            ..
        } if site == wanted => Some((clock_skew_ms, clock_bound_ms)),
        _ => None,
    })
    .next_back()
}
