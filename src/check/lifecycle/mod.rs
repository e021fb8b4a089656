//! L1 to L3: was a pause as long as it was ordered, did the guest boot where it was told to and nowhere
//! else, and did one that was killed stay dead?

use super::case::Case;
use super::finding::Finding;
use crate::history::event::{Deed, Event, Fact, LifecycleFact, Outcome};

mod boots;
mod dead;
mod pause;

pub(super) use boots::check as boots;
pub(super) use dead::check as dead;
pub(super) use pause::check as pause;

/// An order to the VM.
#[derive(Debug, Clone, Copy)]
struct Order<'a> {
    deed: Deed,
    /// The fact that it is about to be given.
    asked: &'a Event,
    /// The answer.
    answer: Option<(&'a Event, &'a Outcome)>,
}

impl Order<'_> {
    /// When it was answered, if it was taken.
    fn taken(&self) -> Option<u64> {
        let (event, outcome) = self.answer?;
        (*outcome == Outcome::Ok).then_some(event.at_ns)
    }
}

/// The orders of a case, in the order in which they were given.
fn orders<'a>(case: &Case<'a>) -> Vec<Order<'a>> {
    let mut orders: Vec<Order<'a>> = Vec::new();
    for event in case.events() {
        let Fact::Lifecycle { lifecycle, .. } = &event.fact else {
            continue;
        };
        match lifecycle {
            LifecycleFact::Asked { deed } => orders.push(Order {
                deed: *deed,
                asked: event,
                answer: None,
            }),
            LifecycleFact::Answered { deed, outcome } => {
                let open = |order: &&mut Order<'a>| order.deed == *deed && order.answer.is_none();
                if let Some(order) = orders.iter_mut().rfind(open) {
                    order.answer = Some((event, outcome));
                }
            }
            LifecycleFact::Reported { .. } => {}
        }
    }
    orders
}

/// The worst of several words; none at all is no word.
fn worst(words: impl Iterator<Item = Finding>, none: &str) -> Finding {
    words
        .reduce(Finding::worst)
        .unwrap_or_else(|| Finding::unsure(none))
}
