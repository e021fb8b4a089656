//! G1: is the guest that came up the one that went down?

use super::case::Case;
use super::damage::{line, listed};
use super::finding::Finding;
use crate::history::event::{Fact, Purpose};
use crate::probe::frame::CellState;

/// G1.
pub(super) fn check(case: &Case<'_>) -> Finding {
    let mut bad = Vec::new();
    let mut unseen = Vec::new();
    cells(case, &mut bad, &mut unseen);
    logins(case, &mut bad, &mut unseen);
    readers(case, &mut bad);
    if !bad.is_empty() {
        return Finding::fail("another guest or another guest's disks came up").witnesses(&bad);
    }
    if !unseen.is_empty() {
        return Finding::unsure("too little says which guest came up").witnesses(&unseen);
    }
    Finding::pass("the disks carry this guest's ledger and the guest is the one known before")
        .limits(new_keys(case))
        .limit("a machine id is compared only if the root disk is kept, see the guest events")
}

/// Logins that were shown another host key than before, which only the machine id vouches for.
fn new_keys(case: &Case<'_>) -> Vec<String> {
    let logins = case.events().filter_map(|event| match &event.fact {
        Fact::Guest {
            site,
            host_key_pinned: Some(false),
            ..
        } => Some(format!(
            "the guest on the {site} showed a new SSH host key and the machine id known before, event {}",
            event.seq
        )),
        _ => None,
    });
    logins.collect()
}

/// The ledgers must be this subject's.
fn cells(case: &Case<'_>, bad: &mut Vec<String>, unseen: &mut Vec<String>) {
    if case.images().is_empty() {
        unseen.push("no volume was read back".into());
    }
    for image in case.images() {
        let image = match image {
            Ok(image) => image,
            Err(why) => {
                unseen.push(why.clone());
                continue;
            }
        };
        let own: Vec<u64> = image
            .volumes
            .iter()
            .filter_map(|volume| u64::from_str_radix(volume.fact.vol_id.get(..16)?, 16).ok())
            .collect();
        let mut whole: u64 = image.volumes.iter().map(|volume| volume.scan.cold_ok).sum();
        let mut strangers = Vec::new();
        for (volume, seen) in listed(image) {
            match seen.state {
                CellState::Ok { .. } => whole += 1,
                CellState::Misdirected {
                    same_volume: false,
                    vol,
                    ..
                } if !own.contains(&vol) => strangers.push(line(image, volume, seen)),
                CellState::Foreign { .. } => strangers.push(line(image, volume, seen)),
                _ => {}
            }
        }
        if strangers.len() as u64 > whole {
            bad.push(format!(
                "{} cells are of another VM or run and {whole} of this one",
                strangers.len()
            ));
            bad.extend(strangers.into_iter().take(3));
        } else if whole == 0 {
            unseen.push("no whole cell was found on its disks".into());
        }
    }
}

/// Host keys and machine ids as SSH saw them.
fn logins(case: &Case<'_>, bad: &mut Vec<String>, unseen: &mut Vec<String>) {
    let kept = case
        .created()
        .is_some_and(|created| created.pvcs.len() > created.volumes.len());
    let mut first: Option<&str> = None;
    let mut seen = 0;
    for event in case.events() {
        let Fact::Guest {
            site,
            host_key,
            host_key_pinned,
            machine_id,
            ..
        } = &event.fact
        else {
            continue;
        };
        seen += 1;
        // cloud-init makes new host keys for a new instance-id (`ssh_deletekeys`), so a key alone
        // does not tell another guest from this one on a disk that still has its machine id.
        let same = kept && !machine_id.is_empty() && first == Some(machine_id.as_str());
        if *host_key_pinned == Some(false) && !same {
            bad.push(format!(
                "host key {host_key} on the {site} is not the one known for its disks, and no machine id says that the guest is the same, event {}",
                event.seq
            ));
        }
        if !kept || machine_id.is_empty() {
            continue;
        }
        match first {
            Some(first) if first != machine_id => bad.push(format!(
                "machine id {machine_id} on the {site} was {first} before, event {}",
                event.seq
            )),
            _ => first = Some(machine_id),
        }
    }
    if seen == 0 {
        unseen.push("nobody logged in".into());
    }
}

/// The read-backs must be by probe runs that only read, on the boot that they say.
fn readers(case: &Case<'_>, bad: &mut Vec<String>) {
    for scan in case.scans() {
        let Some(reader) = case.history.incarnation(&scan.reader) else {
            bad.push(format!("event {} names a reader that never ran", scan.seq));
            continue;
        };
        if reader.site != scan.site {
            bad.push(format!(
                "event {} is of the {}, its reader ran on the {}",
                scan.seq, scan.site, reader.site
            ));
        }
        let spoke = reader.acks.identity();
        if let Some(spoke) = spoke.filter(|spoke| spoke.boot_id != reader.identity.boot_id) {
            bad.push(format!(
                "reader {} spoke from boot {} and was started on boot {}",
                reader.name, spoke.boot_id, reader.identity.boot_id
            ));
        }
        if reader.purpose == Purpose::Load && case.moves() {
            bad.push(format!(
                "event {} was read by a probe that also wrote",
                scan.seq
            ));
        }
    }
}
