//! Domains with real guests. Starting and moving one takes as long as it takes, so it happens beside
//! the controllers, who hear of it as work.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;

use super::attach::detach;
use super::boot;
use super::domain::{Attached, Domain};
use super::migration::{Broken, Terms};
use super::site::{Ctx, Key, Work};
use super::storage_move::Copies;
use super::{mismove, node};
use crate::history::event::Site;
use crate::lab::array::Array;
use crate::lab::faults::Moment;
use crate::lab::qemu::{Hypervisor, Limits, Machine, MoveError, Why};

/// Starts the guest of a domain, unless that is under way.
pub(super) fn launch(
    ctx: &Ctx,
    hypervisor: &Arc<Hypervisor>,
    vmi: &Arc<Value>,
    domain: Arc<Domain>,
) {
    if !domain.begin_start() {
        return;
    }
    let spec = boot::spec(ctx, vmi, &domain);
    let (site, hypervisor, vmi) = (Arc::clone(ctx), Arc::clone(hypervisor), Arc::clone(vmi));
    ctx.tracker.spawn(async move {
        let started = tokio::select! {
            () = site.token.cancelled() => return,
            started = hypervisor.start(&spec) => started,
        };
        match started {
            Ok(machine) => run(&site, &domain, machine).await,
            Err(error) => {
                let text = format!("server error. command SyncVMI failed: {error}");
                site.event(&vmi, "Warning", "SyncFailed", &text, node::HANDLER);
                domain.not_started();
                let again = Work::DomainStart(domain.uid.clone());
                site.after(site.timing.attach_retry, again);
            }
        }
    });
}

/// Puts a started guest into its domain and waits until it is up.
async fn run(site: &Ctx, domain: &Arc<Domain>, machine: Arc<Machine>) {
    if let Some(requests) = machine.requests() {
        node::listen(site, domain, requests);
    }
    domain.started(Arc::new(Arc::clone(&machine)));
    // Whoever ended the domain meanwhile found no guest to end.
    if domain.ended() || !site.powered.load(Ordering::Acquire) {
        machine.release();
        return;
    }
    if site.site == Site::Secondary {
        site.board.moment(Moment::Boot);
    }
    site.push(Work::DomainStarted(domain.uid.clone()));
    tokio::select! {
        () = site.token.cancelled() => {}
        up = machine.ready() => if up {
            site.push(Work::GuestUp(domain.uid.clone()));
        }
    }
}

/// How long the disks of a real guest that move along are copied, at least: long enough for the guest
/// to write meanwhile.
pub(super) const DISKS: Duration = Duration::from_secs(3);

/// A move of a real guest to another node.
pub(super) struct Trip {
    /// The migration.
    pub(super) job: Key,
    /// The node.
    pub(super) node: String,
    /// What is open there for the guest.
    pub(super) opened: Vec<Attached>,
    /// The disks that move along.
    pub(super) copies: Copies,
    /// What the migration may take.
    pub(super) terms: Terms,
}

/// What is to be open for a guest where it moves to: what its launcher brought there, and the plugged
/// volumes. A disk that is being copied it finds as it has it, and writes to both until the array leads
/// it to the copy. The error is what kubelet says; nothing more is open then than before.
pub(super) fn opened(
    (array, site): (&Array, Site),
    domain: &Domain,
    copied: &[&str],
    node: &str,
    mut brought: Vec<Attached>,
) -> Result<Vec<Attached>, String> {
    let is_copied = |open: &Attached| copied.contains(&open.volume.as_str());
    brought.retain(|open| !is_copied(open));
    let mut further = domain.attached();
    further.retain(is_copied);
    further.extend(domain.plugged());
    let mut opened = Vec::new();
    for open in further {
        // Of those that were opened already, dropping them closes them.
        let disk = array.attach(site, &open.handle, node, true);
        let disk = disk.map_err(|error| format!("rbd: map failed: {error}"))?;
        opened.push(Attached { disk, ..open });
    }
    brought.extend(opened);
    Ok(brought)
}

/// Moves the guest of a domain.
pub(super) fn migrate(ctx: &Ctx, domain: &Arc<Domain>, machine: Arc<Machine>, trip: Trip) {
    let (site, domain) = (Arc::clone(ctx), Arc::clone(domain));
    ctx.tracker.spawn(async move {
        let from = domain.place().node;
        let devices = boot::devices_of(&trip.opened);
        let limits = Limits {
            bandwidth: trip.terms.bandwidth,
            limit: Duration::from_secs(trip.terms.limit()),
        };
        let moved = machine.migrate(devices, trip.copies.made(), limits).await;
        match moved {
            Ok(()) => {
                detach(&site, &trip.opened, &from);
                mismove::stand_still(&site, &domain).await;
                site.push(Work::Migrated(trip.job));
            }
            Err(error) => {
                detach(&site, &trip.opened, &trip.node);
                site.push(Work::MigrationFailed(trip.job, broken(&error, &trip.terms)));
            }
        }
    });
}

/// What virt-launcher makes of a move that QEMU did not make.
fn broken(error: &MoveError, terms: &Terms) -> Broken {
    match error {
        MoveError::Migrate(failed) => match failed.why {
            Why::Aborted => Broken::Cancelled,
            Why::TimedOut { .. } => Broken::Overdue(terms.limit()),
            _ => Broken::Lost(error.to_string()),
        },
        MoveError::GivenUp => Broken::Cancelled,
        MoveError::Overdue(_) => Broken::Overdue(terms.limit()),
        _ => Broken::Lost(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::domain::Place;
    use super::*;
    use crate::history::event::Site::Primary;
    use crate::lab::array;
    use crate::lab::clock::LabClock;
    use crate::lab::world::handle;

    const BYTES: u64 = 1 << 20;

    fn open(array: &Array, volume: &str, image: &str, node: &str) -> Attached {
        let handle = handle(Primary, image);
        // There from an earlier call.
        array.create(Primary, &handle, BYTES).ok();
        let disk = array.attach(Primary, &handle, node, true).unwrap();
        Attached {
            volume: volume.into(),
            handle,
            disk,
            bytes: BYTES,
        }
    }

    fn domain(array: &Array) -> Arc<Domain> {
        let place = Place {
            node: "east-node-0".into(),
            pod: "launcher".into(),
            pod_uid: "1".into(),
            ip: Ipv4Addr::LOCALHOST,
        };
        let own = ["root", "data"].map(|name| open(array, name, name, "east-node-0"));
        let vmi = ("default".into(), "a".into());
        let domain = Domain::new("uid".into(), vmi, place, own.to_vec());
        domain.plug(open(array, "late", "late", "east-node-0"));
        domain
    }

    fn array() -> Array {
        let config = array::Config::default();
        Array::new(config, LabClock::new(1.0), Arc::default())
    }

    #[test]
    fn a_plugged_disk_goes_along_and_one_that_moves_is_written_through_to_its_copy() {
        let array = array();
        let domain = domain(&array);
        let brought = vec![
            open(&array, "root", "root", "east-node-1"),
            open(&array, "data", "new", "east-node-1"),
        ];
        let new = brought[1].clone();
        let at = (&array, Primary);
        let (old, copy) = (handle(Primary, "data"), new.handle.clone());
        array
            .begin_copy(Primary, &old, &copy, "east-node-1")
            .unwrap();
        let opened = opened(at, &domain, &["data"], "east-node-1", brought).unwrap();
        let all = opened
            .iter()
            .map(|open| (open.volume.as_str(), open.handle.clone()));
        let wanted = ["root", "data", "late"].map(|name| (name, handle(Primary, name)));
        assert_eq!(all.collect::<Vec<_>>(), wanted);
        let data = &opened[1].disk;
        data.write_at(0, &[7; 4096]).unwrap();
        array.pivot(Primary, &[&old]).unwrap();
        data.write_at(4096, &[8; 4096]).unwrap();
        let mut seen = [0; 8192];
        new.disk.read_at(0, &mut seen).unwrap();
        assert_eq!((seen[0], seen[8191]), (7, 8));
        let late = array.attachments(Primary, &handle(Primary, "late"));
        assert_eq!(late, ["east-node-0", "east-node-1"]);
    }

    #[test]
    fn what_cannot_be_opened_leaves_nothing_open() {
        let array = array();
        let domain = domain(&array);
        let mut absent = open(&array, "gone", "gone", "east-node-0");
        absent.handle = handle(Primary, "nowhere");
        domain.plug(absent);
        let at = (&array, Primary);
        let refused = opened(at, &domain, &[], "east-node-1", Vec::new());
        let error = refused.err().unwrap();
        assert!(error.starts_with("rbd: map failed"), "{error}");
        let late = array.attachments(Primary, &handle(Primary, "late"));
        assert_eq!(late, ["east-node-0"]);
    }
}
