//! C1 to C3: points in time of a VM that are kept, and what is made from them.
//!
//! A cut is bracketed by the host's clock: it lies after the moment at which it was asked for and before
//! the moment at which the objects said that it had been taken. What was acked before the first must be
//! in it, what was issued after the second must not, and in between both are legal.

mod apart;
mod claims;
pub(super) mod rollback;

pub(super) use apart::check as apart;
pub(super) use claims::check as claims;

use super::case::Case;
use super::image::Image;
use crate::history::event::{CutClaims, CutState, Event, Fact, Purpose};
use crate::history::read::{Incarnation, Scan};

/// One cut, from the asking to what is said of it.
#[derive(Debug, Default)]
struct Cut<'a> {
    name: &'a str,
    means: &'a str,
    asked: Option<&'a Event>,
    taken: Option<(&'a Event, &'a CutClaims)>,
    /// What the guest's agent showed: event and whether it answered.
    agent: Vec<(u64, bool)>,
    /// The subject of the guest that was made from it.
    clone: Option<&'a str>,
    failed: Option<&'a str>,
}

impl<'a> Cut<'a> {
    /// The cuts of a case in the order in which they were first heard of.
    fn all(case: &Case<'a>) -> Vec<Self> {
        let mut cuts: Vec<Self> = Vec::new();
        for event in case.events() {
            let Fact::Cut { cut: fact, .. } = &event.fact else {
                continue;
            };
            let at = cuts.iter().position(|cut| cut.name == fact.name);
            let at = at.unwrap_or_else(|| {
                cuts.push(Self {
                    name: &fact.name,
                    means: &fact.means,
                    ..Self::default()
                });
                cuts.len() - 1
            });
            let Some(cut) = cuts.get_mut(at) else {
                continue;
            };
            match &fact.state {
                CutState::Agent { answers, .. } => cut.agent.push((event.seq, *answers)),
                CutState::Asked => cut.asked = cut.asked.or(Some(event)),
                CutState::Taken { claims } => cut.taken = cut.taken.or(Some((event, claims))),
                CutState::Cloned { subject } => cut.clone = Some(subject),
                CutState::Failed { why } => cut.failed = Some(why),
            }
        }
        cuts
    }

    /// The moments between which it lies.
    fn bracket(&self) -> Result<(u64, u64), String> {
        let name = self.name;
        match (self.asked, self.taken, self.failed) {
            (Some(asked), Some((taken, _)), _) => Ok((asked.at_ns, taken.at_ns)),
            (_, None, Some(why)) => Err(format!("{} {name} was not taken: {why}", self.means)),
            _ => Err(format!("the history does not say when {name} was taken")),
        }
    }
}

/// The read-backs of what was made from cuts, each with its cut and laid against the writes that it is
/// evidence of, or why that cannot be done.
fn made<'c, 'a>(
    case: &'c Case<'a>,
    cuts: &'c [Cut<'a>],
) -> impl Iterator<Item = Result<(&'c Cut<'a>, &'a Scan, Image<'a>), String>> + use<'c, 'a> {
    case.cut_scans().map(move |scan| {
        let name = scan.cut.as_deref().unwrap_or_default();
        let cut = cuts.iter().find(|cut| cut.name == name);
        let cut = cut.ok_or_else(|| format!("the history knows no cut {name}"))?;
        let image = Image::new(case.history, case.created(), scan)?;
        Ok((cut, scan, image))
    })
}

/// The loads of a trial, whoever wrote them.
fn loads<'a>(case: &Case<'a>) -> impl Iterator<Item = &'a Incarnation> + use<'a> {
    let trial = case.trial.name.to_owned();
    case.history.incarnations.iter().filter(move |life| {
        life.purpose == Purpose::Load && life.trial.as_deref() == Some(trial.as_str())
    })
}
