//! H1 to H3: did a disk come and go as it was ordered, did that leave the others alone, and did a disk
//! grow for whoever uses it?

use super::case::Case;
use crate::history::event::{Event, Fact, HotplugFact, Outcome};

pub(super) mod grown;
mod others;
mod there;

pub(super) use grown::check as grown;
pub(super) use others::check as others;
pub(super) use there::check as there;

/// A disk that was to come or to go.
#[derive(Debug, Clone)]
struct Change<'a> {
    adding: bool,
    serial: &'a str,
    /// The fact that it is about to be asked for.
    asked: &'a Event,
    /// Whether it was taken.
    taken: bool,
    /// The last report of the VMI before the next change, with the pod.
    reported: Option<(u64, &'a str, &'a str)>,
    /// What the guest showed.
    seen: Option<(&'a Event, bool)>,
}

/// The changes of a case, in the order in which they were asked for.
fn changes<'a>(case: &Case<'a>) -> Vec<Change<'a>> {
    let mut changes: Vec<Change<'a>> = Vec::new();
    for event in case.events() {
        let Fact::Hotplug { hotplug, .. } = &event.fact else {
            continue;
        };
        if let HotplugFact::Asked { adding, serial } = hotplug {
            changes.push(Change {
                adding: *adding,
                serial,
                asked: event,
                taken: false,
                reported: None,
                seen: None,
            });
        }
        let Some(change) = changes.last_mut() else {
            continue;
        };
        match hotplug {
            HotplugFact::Asked { .. } => {}
            HotplugFact::Answered { outcome, .. } => change.taken = *outcome == Outcome::Ok,
            HotplugFact::Reported {
                phase, attach_pod, ..
            } => change.reported = Some((event.seq, phase, attach_pod)),
            HotplugFact::Seen { present } => change.seen = Some((event, *present)),
        }
    }
    changes
}
