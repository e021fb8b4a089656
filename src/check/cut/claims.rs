//! C3: is a cut as consistent as its objects say?
//!
//! KubeVirt takes one VolumeSnapshot per claim, one after the other. Each of them is a point of its own
//! volume; that they belong together is claimed only where the guest is said to have been quiesced, and
//! then only for what a freeze holds: mounted file systems. A group snapshot claims one instant for all.
//! What nobody claims is measured and not judged.

use std::collections::BTreeSet;

use super::{Cut, made};
use crate::check::case::Case;
use crate::check::finding::Finding;
use crate::check::image::Image;
use crate::check::order::rule;
use crate::history::event::{CutClaims, Fact, FileSystemFact, LedgerMode};
use crate::history::read::Scan;

/// C3: the first read-back of what was made from each cut.
pub(in crate::check) fn check(case: &Case<'_>) -> Finding {
    let cuts = Cut::all(case);
    let mut known = BTreeSet::new();
    let mut since = 0;
    let mut words: Vec<Finding> = Vec::new();
    for made in made(case, &cuts) {
        let (cut, scan, image) = match made {
            Ok(made) => made,
            Err(why) => {
                words.push(Finding::unsure(why));
                continue;
            }
        };
        if known.insert(cut.name) {
            words.push(judge(case, cut, (scan, &image), since));
        }
        since = scan.seq;
    }
    words
        .into_iter()
        .reduce(Finding::worst)
        .unwrap_or_else(|| Finding::unsure("no cut of this trial was read back"))
}

/// Whether a cut claims that the guest's file systems were quiesced.
fn is_quiesced(claims: &CutClaims) -> bool {
    let says = |word: &str| claims.indications.iter().any(|i| i == word);
    says("GuestAgent") && !says("QuiesceTimeout") && !says("Paused")
}

#[derive(Default)]
struct Notes {
    bad: Vec<String>,
    unseen: Vec<String>,
    limits: Vec<String>,
}

fn judge(
    case: &Case<'_>,
    cut: &Cut<'_>,
    (scan, image): (&Scan, &Image<'_>),
    since: u64,
) -> Finding {
    let (asked, _) = match cut.bracket() {
        Ok(bracket) => bracket,
        Err(why) => return Finding::unsure(why),
    };
    let Some((taken, claims)) = cut.taken else {
        return Finding::unsure(format!("nothing is known of {}", cut.name));
    };
    if image.load.at_ns > asked {
        return Finding::unsure(format!(
            "what was made from {} had been written to before it was read back",
            cut.name
        ));
    }
    let mut notes = Notes::default();
    order(cut, claims, image, &mut notes);
    agent(cut, claims, &mut notes);
    if is_quiesced(claims) {
        let window = (taken.seq.max(since), scan.seq);
        file_systems(case, image, window, &mut notes);
    } else {
        let said = claims.indications.join(", ");
        notes.limits.push(format!(
            "{} claims no quiesced file systems ({said}): crash consistent only",
            cut.name
        ));
    }
    let mut says = claims.indications.clone();
    if claims.one_instant {
        says.push("that all volumes are of one instant".into());
    }
    let told = format!("{} {} says {}", cut.means, cut.name, says.join(", "));
    let finding = if !notes.bad.is_empty() {
        Finding::fail(format!("{told}, and it is not so")).witnesses(&notes.bad)
    } else if !notes.unseen.is_empty() {
        Finding::unsure(format!("{told}, and not all of that was looked at"))
            .witnesses(&notes.unseen)
    } else {
        Finding::pass(format!("{told}, and it is so"))
    };
    finding.limits(notes.limits)
}

/// The order of what is there: of each volume, and of those that are claimed to be one.
fn order(cut: &Cut<'_>, claims: &CutClaims, image: &Image<'_>, notes: &mut Notes) {
    let rule = rule(image);
    let mut prove = |what: &str, volumes: &dyn Fn(usize) -> bool| {
        if let Some((missing, present)) = rule.breach(volumes) {
            notes.bad.push(format!("{what} is no prefix:"));
            notes.bad.push(image.missing(&missing));
            notes.bad.push(image.present(&present));
        }
    };
    for index in 0..image.volumes.len() {
        prove(&format!("volume {index}"), &|volume| volume == index);
    }
    let is_file = |volume: usize| {
        let found = image.volumes.get(volume);
        found.is_some_and(|found| found.fact.ledger == LedgerMode::File)
    };
    let apart = rule.breach(|_| true).is_some();
    if claims.one_instant {
        prove("the whole that is claimed to be of one instant", &|_| true);
    } else if is_quiesced(claims) {
        prove("all quiesced file systems together", &is_file);
    }
    if !claims.one_instant {
        notes.limits.push(format!(
            "{} does not claim one instant for all volumes; {}",
            cut.name,
            if apart {
                "taken together they are no point that the guest was ever in"
            } else {
                "they happen to be one point all the same"
            }
        ));
    }
    if image.load.acks.writes() == 0 {
        let why = "no write of the load was acked, so nothing can be out of order";
        notes.unseen.push(why.into());
    }
}

/// What is said of the agent, against what the agent showed before and after.
fn agent(cut: &Cut<'_>, claims: &CutClaims, notes: &mut Notes) {
    let says = |word: &str| claims.indications.iter().any(|i| i == word);
    let told = says("GuestAgent") || says("NoGuestAgent");
    if !told {
        return;
    }
    if cut.agent.is_empty() {
        let why = format!("nobody asked the guest's agent around {}", cut.name);
        notes.limits.push(why);
        return;
    }
    let events: Vec<String> = cut.agent.iter().map(|(seq, _)| seq.to_string()).collect();
    let events = events.join(" and ");
    if says("GuestAgent") && cut.agent.iter().all(|(_, answers)| !answers) {
        notes.bad.push(format!(
            "it says GuestAgent, and the agent answered neither before nor after, events {events}"
        ));
    }
    if says("NoGuestAgent") && cut.agent.len() > 1 && cut.agent.iter().all(|(_, a)| *a) {
        notes.bad.push(format!(
            "it says NoGuestAgent, and the agent answered before and after, events {events}"
        ));
    }
}

/// Quiesced file systems come back clean: ext4 asks for no recovery; XFS leaves its log dirty on
/// purpose and is left to its checker.
fn file_systems(case: &Case<'_>, image: &Image<'_>, (from, to): (u64, u64), notes: &mut Notes) {
    let carriers = image
        .volumes
        .iter()
        .filter(|volume| volume.fact.ledger == LedgerMode::File);
    for volume in carriers {
        let name = &volume.fact.name;
        let seen: Vec<(u64, &FileSystemFact)> = case
            .events()
            .filter(|event| from < event.seq && event.seq < to)
            .filter_map(|event| match &event.fact {
                Fact::FileSystem {
                    volume: of, state, ..
                } if *of == volume.fact.ordinal => Some((event.seq, state)),
                _ => None,
            })
            .collect();
        let sound = seen.iter().find_map(|(seq, state)| match state {
            FileSystemFact::Checked { sound, said, .. } => Some((*seq, *sound, said)),
            _ => None,
        });
        if let Some((seq, false, said)) = sound {
            notes
                .bad
                .push(format!("{name}: it is not sound: {said}, event {seq}"));
        }
        match seen.first() {
            Some((seq, FileSystemFact::Raw { kind, dirty, said })) if kind.starts_with("ext") => {
                match dirty {
                    Some(true) => notes.bad.push(format!(
                        "{name}: it is said to be quiesced, and {kind} needs its journal replayed ({said}), event {seq}"
                    )),
                    Some(false) => {}
                    None => notes
                        .unseen
                        .push(format!("{name}: its superblock could not be read")),
                }
            }
            Some((_, FileSystemFact::Raw { kind, .. })) => {
                if sound.is_none() {
                    notes.limits.push(format!(
                        "{name}: {kind} does not show on the disk that it was frozen, and its checker did not run"
                    ));
                }
            }
            Some(_) => notes
                .unseen
                .push(format!("{name}: it was mounted before anybody looked at it")),
            None => notes.unseen.push(format!("{name}: nobody looked at it")),
        }
    }
}
