//! G2: does the guest find its own hardware as it was before it was restarted or moved?
//!
//! O3 compares definitions. A definition that is kept may still come up otherwise: another PCI
//! topology renames disks, a serial is not handed down, an address family is not offered.

use super::case::Case;
use super::finding::Finding;
use crate::history::event::{Fact, InsideDisk, InsideFact, Site};

/// A look at the hardware of a guest.
type Look<'a> = (u64, Site, &'a InsideFact);

/// G2: every look against the first.
pub(super) fn check(case: &Case<'_>) -> Finding {
    let looks: Vec<Look<'_>> = case
        .events()
        .filter_map(|event| match &event.fact {
            Fact::Inside { site, inside } => Some((event.seq, *site, inside)),
            _ => None,
        })
        .collect();
    let Some((first, later)) = looks.split_first().filter(|(_, later)| !later.is_empty()) else {
        return Finding::unsure("nobody looked at the guest's hardware twice");
    };
    let (mut bad, mut unseen) = (Vec::new(), Vec::new());
    for look in later {
        compare(first, look, &mut bad);
        blind(look, &mut unseen);
    }
    blind(first, &mut unseen);
    let boots = boots(case);
    if !bad.is_empty() {
        return Finding::fail("the guest finds itself on other hardware").witnesses(&bad);
    }
    if boots < 2 {
        unseen.push("the guest was not seen to boot twice".into());
    }
    if !unseen.is_empty() {
        return Finding::unsure("too little was seen of the guest's hardware").witnesses(&unseen);
    }
    let inside = first.2;
    Finding::pass(format!(
        "in {boots} boots the guest found {} disks with their serials in the same order, {} network cards and {}",
        inside.disks.len(),
        inside.cards.len(),
        inside.families.join(" and ")
    ))
    .limit("the size of disks is for D7 to judge")
}

/// How many boots were seen.
fn boots(case: &Case<'_>) -> usize {
    let seen = case.events().filter_map(|event| match &event.fact {
        Fact::Guest { boot_id, .. } => Some(boot_id.as_str()),
        _ => None,
    });
    seen.collect::<std::collections::BTreeSet<_>>().len()
}

/// What a look did not get to see.
fn blind((seq, _, inside): &Look<'_>, unseen: &mut Vec<String>) {
    for (what, none) in [
        ("disk", inside.disks.is_empty()),
        ("network card", inside.cards.is_empty()),
        ("address", inside.families.is_empty()),
    ] {
        if none {
            unseen.push(format!("event {seq} shows no {what}"));
        }
    }
}

fn compare((from, home, was): &Look<'_>, (to, site, is): &Look<'_>, bad: &mut Vec<String>) {
    let mut differs = |what: &str, was: String, is: String| {
        if was != is {
            bad.push(format!(
                "{what} is [{is}] on the {site}, event {to}, and was [{was}] on the {home}, event {from}"
            ));
        }
    };
    differs("the order of disks and serials", disks(was), disks(is));
    differs("the hardware of the network", cards(was), cards(is));
    differs("the host name", was.hostname.clone(), is.hostname.clone());
    // A look that saw no address is not one of other addresses.
    if !was.families.is_empty() && !is.families.is_empty() {
        differs(
            "the family of addresses",
            was.families.join(" "),
            is.families.join(" "),
        );
    }
}

fn disks(inside: &InsideFact) -> String {
    let told = |disk: &InsideDisk| {
        let serial = if disk.serial.is_empty() {
            "-"
        } else {
            &disk.serial
        };
        let mode = if disk.read_only { " read-only" } else { "" };
        format!("{} {serial}{mode}", disk.name)
    };
    let told: Vec<String> = inside.disks.iter().map(told).collect();
    told.join(", ")
}

fn cards(inside: &InsideFact) -> String {
    let told = inside.cards.iter();
    let told: Vec<String> = told
        .map(|(name, address)| format!("{name} {address}"))
        .collect();
    told.join(", ")
}
