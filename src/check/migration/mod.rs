//! M1 to M5: did the VM live on through a live migration, how long did it stand still, did it keep
//! everything, is nobody left out of the count, and did the disks that were to move do so?

use super::case::Case;
use super::finding::Finding;
use crate::history::event::{Event, Fact, MigrationFact, Site, Spoil};

mod blackout;
mod evicted;
mod kept;
mod left;
mod lived;
mod many;

pub(super) use blackout::check as blackout;
pub(super) use kept::check as kept;
pub(super) use left::check as left;
pub(super) use lived::check as lived;
pub(super) use many::check as many;

/// One live migration.
#[derive(Debug, Clone, Copy)]
struct Move<'a> {
    site: Site,
    name: &'a str,
    /// How it was spoiled, if it was.
    spoil: Option<Spoil>,
    /// The first fact that names it; where it came of an eviction, the eviction.
    asked: &'a Event,
    /// The fact that says that it is over.
    end: Option<(&'a Event, &'a MigrationFact)>,
}

impl Move<'_> {
    /// From when to when, if it came to an end.
    fn window(&self) -> Result<(u64, u64), String> {
        let (end, _) = self
            .end
            .ok_or_else(|| format!("migration {} has no end in the history", self.name))?;
        Ok((self.asked.at_ns, end.at_ns))
    }
}

/// The migrations of a case by name, in the order in which they were asked for.
fn moves<'a>(case: &Case<'a>) -> Vec<Move<'a>> {
    let mut moves: Vec<Move<'a>> = Vec::new();
    let mut evicted: Option<&'a Event> = None;
    for event in case.events() {
        if let Fact::Eviction { eviction, .. } = &event.fact
            && eviction.code.is_none()
        {
            evicted = Some(event);
        }
        let Fact::Migration { site, migration } = &event.fact else {
            continue;
        };
        let over = migration.completed
            || migration.failed
            || matches!(migration.phase.as_str(), "Succeeded" | "Failed");
        let end = over.then_some((event, migration));
        match moves.iter_mut().find(|known| known.name == migration.name) {
            Some(known) => known.end = known.end.or(end),
            None => moves.push(Move {
                site: *site,
                name: &migration.name,
                spoil: migration.spoil,
                asked: evicted.filter(|_| migration.evacuates).unwrap_or(event),
                end,
            }),
        }
    }
    moves
}

/// Judges every migration; the worst of them speaks for all, and of equals the one that measured most.
fn each(case: &Case<'_>, judge: impl Fn(&Move<'_>) -> Finding) -> Finding {
    let found: Vec<Finding> = moves(case).iter().map(judge).collect();
    let all = found.len();
    let most = |finding: &Finding| {
        let measured = finding.measures.iter();
        let judged = measured.filter(|measure| measure.name == "blackout");
        judged.map(|measure| measure.high).fold(0.0, f64::max)
    };
    let worst = found.iter().max_by(|a, b| {
        let by_measure = || most(a).total_cmp(&most(b));
        a.status.cmp(&b.status).then_with(by_measure)
    });
    let Some(worst) = worst else {
        return Finding::unsure("the VM was not migrated in this trial");
    };
    if all == 1 {
        return worst.clone();
    }
    let alike = found.iter().filter(|other| other.status == worst.status);
    let limit = format!(
        "{} of {all} migrations came out so, the worst is shown",
        alike.count()
    );
    worst.clone().limit(limit)
}
