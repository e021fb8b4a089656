//! L2: did the guest boot anew, and KubeVirt make another VMI, exactly where that was ordered?
//!
//! Between two looks at the guest its boot id must differ if an order in between boots it, and be the
//! same if none does. So must the UID of its VMI.

use super::{Order, orders};
use crate::check::case::Case;
use crate::check::finding::Finding;
use crate::history::event::{Deed, Fact};

/// L2.
pub(in crate::check) fn check(case: &Case<'_>) -> Finding {
    let orders = orders(case);
    if orders.is_empty() {
        return Finding::unsure("no order was given to the VM in this trial");
    }
    let (boots, instances) = (boots(case), instances(case));
    let mut notes = Notes::default();
    compare("boot", &boots, &orders, Deed::boots, &mut notes);
    compare("VMI", &instances, &orders, Deed::remakes, &mut notes);
    for order in orders.iter().filter(|order| order.deed.boots()) {
        let at = order.asked.seq;
        let looked = |looks: &[Look<'_>]| {
            looks.iter().any(|look| look.seq < at) && looks.iter().any(|look| look.seq > at)
        };
        if !looked(&boots) || !looked(&instances) {
            notes.unseen.push(format!(
                "nobody looked before and after the {}, event {at}",
                order.deed.name()
            ));
        }
    }
    if !notes.bad.is_empty() {
        return Finding::fail("the guest did not boot exactly where it was told to")
            .witnesses(&notes.bad);
    }
    if !notes.unseen.is_empty() {
        return Finding::unsure("too little was seen of the guest's boots")
            .witnesses(&notes.unseen);
    }
    let said: Vec<&str> = orders.iter().map(|order| order.deed.name()).collect();
    Finding::pass(format!(
        "{} looks at the guest show {} boots, as ordered: {}",
        boots.len(),
        1 + notes.changes,
        said.join(", ")
    ))
    .limit(
        "a guest that boots twice where it was told to once is not told from one that boots once",
    )
}

#[derive(Debug, Default)]
struct Notes {
    bad: Vec<String>,
    unseen: Vec<String>,
    /// How often the boot or the VMI changed as ordered; the boots count.
    changes: usize,
}

/// What answered at some event.
#[derive(Debug, Clone, Copy)]
struct Look<'a> {
    seq: u64,
    id: &'a str,
}

/// The boot ids that were seen: of logins, which every probe run begins with.
fn boots<'a>(case: &Case<'a>) -> Vec<Look<'a>> {
    let logins = case.events().filter_map(|event| match &event.fact {
        Fact::Guest { boot_id, .. } => Some(Look {
            seq: event.seq,
            id: boot_id,
        }),
        _ => None,
    });
    logins.collect()
}

/// The UIDs of the VMIs that were seen running.
fn instances<'a>(case: &Case<'a>) -> Vec<Look<'a>> {
    let seen = case.events().filter_map(|event| match &event.fact {
        Fact::Vm {
            vmi_uid: Some(uid),
            phase,
            ..
        } if phase == "Running" => Some(Look {
            seq: event.seq,
            id: uid,
        }),
        _ => None,
    });
    seen.collect()
}

/// Holds each two neighbouring looks against the orders between them.
fn compare(
    what: &str,
    looks: &[Look<'_>],
    orders: &[Order<'_>],
    changes: fn(Deed) -> bool,
    notes: &mut Notes,
) {
    for pair in looks.windows(2) {
        let [before, after] = *pair else { continue };
        let between = |order: &&Order<'_>| {
            before.seq < order.asked.seq && order.asked.seq < after.seq && changes(order.deed)
        };
        let order = orders.iter().find(between);
        let same = before.id == after.id;
        let seen = format!("event {} against event {}", before.seq, after.seq);
        match order {
            Some(order) if same => notes.bad.push(format!(
                "{what} {} is still there after the {}, {seen}",
                before.id,
                order.deed.name()
            )),
            Some(_) => notes.changes += usize::from(what == "boot"),
            None if !same => notes.bad.push(format!(
                "{what} {} took the place of {} and nobody ordered it, {seen}",
                after.id, before.id
            )),
            None => {}
        }
    }
}
