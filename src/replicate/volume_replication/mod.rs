//! csi-addons VolumeReplication, one per PVC and of the same name. The peers' objects are separate:
//! each site's controller knows only its own side.

mod look;

use serde_json::{Value, json};

pub(super) use self::look::{observe, question, wake};
use self::look::{seen, source_vm};
use super::gate::{self, Mode, SourceVm};
use super::state::{VolumeState, demoted, demoted_clean, promoted, replicates_after, synced_after};
use super::{Goal, Pass, Progress, Set, Work};
use crate::cluster::crd::replication::{ReplicationState, VolumeReplication};
use crate::cluster::{Error, ObjRef, Patch, Propagation, Typed as _};
use crate::history::event::Site;

/// The driver; holds the class of both sites.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeReplicationDriver {
    class: String,
}

impl VolumeReplicationDriver {
    pub(super) const fn new(class: String) -> Self {
        Self { class }
    }

    /// One step.
    pub(super) async fn drive(&self, work: &Work<'_>, goal: &Goal) -> Result<Progress, Error> {
        match goal {
            Goal::Protected { site } => {
                self.each(work, *site, ReplicationState::Primary, false, promoted)
                    .await
            }
            Goal::Synced { site, newer_than } => {
                Ok(all(&seen(work, *site), |vr| synced_after(vr, *newer_than)))
            }
            Goal::Demoted { site } => self.demote(work, *site).await,
            Goal::Primary(pass) => self.promote(work, pass).await,
            Goal::Resynced { site, newer_than } => {
                // The loser stays Degraded while its peer is primary: that is health. Only the
                // primary can tell that data crosses.
                let ours = self
                    .each(work, *site, ReplicationState::Secondary, true, demoted)
                    .await?;
                let peers = all(&seen(work, site.peer()), |vr| {
                    replicates_after(vr, *newer_than)
                });
                Ok(ours.and(peers))
            }
            Goal::Follows { site } => {
                self.each(work, *site, ReplicationState::Secondary, false, demoted)
                    .await
            }
            Goal::Released { discard_replicas } => release(work, *discard_replicas).await,
        }
    }

    async fn demote(&self, work: &Work<'_>, site: Site) -> Result<Progress, Error> {
        // Storage drivers may demote under a running VM, whose writes are then lost.
        let cluster = work.sites.of(site);
        match source_vm(cluster, work.set).await {
            SourceVm::Gone => {}
            SourceVm::Present(what) => {
                return Ok(Progress::Pending(format!(
                    "the VM is not gone on the {site} site, so nothing is demoted: {what}"
                )));
            }
            SourceVm::Unknown(why) => return Ok(Progress::Pending(why)),
        }
        // Never autoResync here: a spurious split-brain would then copy the older side back.
        self.each(
            work,
            site,
            ReplicationState::Secondary,
            false,
            demoted_clean,
        )
        .await
    }

    async fn promote(&self, work: &Work<'_>, pass: &Pass) -> Result<Progress, Error> {
        if !pass.covers(work.set) {
            let why = "the gate's pass is for other volumes; ask the gate again";
            return Ok(Progress::Stuck(why.into()));
        }
        let volumes = seen(work, pass.site());
        let started = volumes.iter().any(|(_, state)| is_asked_primary(state));
        if !pass.forced() && !started {
            // Time has passed since the gate was asked; nothing is promoted yet, so ask again.
            let mode = Mode::Planned;
            let question = question(work.sites, work.set, pass.site(), mode).await;
            if let Err(closed) = gate::admit(&question) {
                return Ok(Progress::Pending(format!(
                    "the gate has closed again: {closed}"
                )));
            }
        }
        self.each(
            work,
            pass.site(),
            ReplicationState::Primary,
            false,
            promoted,
        )
        .await
    }

    /// Asks for a state on every volume of a site, and tells how far the slowest is.
    async fn each(
        &self,
        work: &Work<'_>,
        site: Site,
        wanted: ReplicationState,
        auto_resync: bool,
        judge: fn(&VolumeReplication) -> Progress,
    ) -> Result<Progress, Error> {
        let cluster = work.sites.of(site);
        let mut progress = Progress::Done;
        for (pvc, state) in seen(work, site) {
            let step = match state {
                VolumeState::Unknown(why) => Progress::Pending(why),
                VolumeState::Absent => {
                    let manifest = self.manifest(work.set, &pvc, wanted, auto_resync);
                    cluster.create(work.owner, manifest).await?;
                    Progress::Pending(format!("VolumeReplication {pvc} was just made"))
                }
                VolumeState::Seen(vr)
                    if vr.metadata.deletion_timestamp.is_none()
                        && (vr.spec.replication_state != Some(wanted)
                            || vr.spec.auto_resync != auto_resync) =>
                {
                    let object = reference(work.set, &pvc);
                    let spec = json!({
                        "replicationState": wanted.as_str(), "autoResync": auto_resync,
                    });
                    cluster
                        .patch(&object, &Patch::Merge(json!({ "spec": spec })))
                        .await?;
                    Progress::Pending(format!("VolumeReplication {pvc} was just changed"))
                }
                VolumeState::Seen(vr) => judge(&vr),
            };
            progress = progress.and(step);
        }
        Ok(progress)
    }

    fn manifest(&self, set: &Set, pvc: &str, wanted: ReplicationState, auto_resync: bool) -> Value {
        json!({
            "apiVersion": VolumeReplication::KIND.api_version(),
            "kind": VolumeReplication::KIND.kind,
            "metadata": {"namespace": set.namespace, "name": pvc},
            "spec": {
                "volumeReplicationClass": self.class,
                "replicationState": wanted.as_str(),
                "autoResync": auto_resync,
                "dataSource": {"apiGroup": "", "kind": "PersistentVolumeClaim", "name": pvc},
            },
        })
    }
}

fn reference(set: &Set, pvc: &str) -> ObjRef {
    ObjRef::of::<VolumeReplication>(&set.namespace, pvc)
}

fn is_asked_primary(state: &VolumeState) -> bool {
    matches!(state, VolumeState::Seen(vr)
        if vr.spec.replication_state == Some(ReplicationState::Primary))
}

/// Ends replication: primaries first, because their disabling removes the replicas, and a secondary
/// that is not replaying refuses to be disabled before that.
async fn release(work: &Work<'_>, discard_replicas: bool) -> Result<Progress, Error> {
    let both = [seen(work, Site::Primary), seen(work, Site::Secondary)];
    let flat: Vec<_> = both.iter().flatten().cloned().collect();
    if let Err(closed) = gate::may_release(&flat, discard_replicas) {
        return Ok(Progress::Stuck(closed.to_string()));
    }
    let mut progress = Progress::Done;
    for primaries in [true, false] {
        for (site, volumes) in [Site::Primary, Site::Secondary].into_iter().zip(&both) {
            for (pvc, state) in volumes {
                let VolumeState::Seen(vr) = state else {
                    if let VolumeState::Unknown(why) = state {
                        progress = progress.and(Progress::Pending(why.clone()));
                    }
                    continue;
                };
                if (vr.status.state == "Primary") != primaries {
                    continue;
                }
                if vr.metadata.deletion_timestamp.is_none() {
                    let object = reference(work.set, pvc);
                    let uid = vr.metadata.uid.as_deref();
                    let cluster = work.sites.of(site);
                    cluster
                        .delete(&object, uid, Propagation::Background)
                        .await?;
                }
                let finalizers = vr
                    .metadata
                    .finalizers
                    .as_deref()
                    .unwrap_or_default()
                    .join(", ");
                progress = progress.and(Progress::Pending(format!(
                    "VolumeReplication {pvc} on the {site} site is being deleted (finalizers: {finalizers}) {}",
                    vr.status.message
                )));
            }
        }
        if progress != Progress::Done {
            return Ok(progress);
        }
    }
    Ok(progress)
}

fn all(
    volumes: &[(String, VolumeState)],
    judge: impl Fn(&VolumeReplication) -> Progress,
) -> Progress {
    volumes
        .iter()
        .fold(Progress::Done, |progress, (pvc, state)| {
            progress.and(match state {
                VolumeState::Seen(vr) => judge(vr),
                VolumeState::Absent => {
                    Progress::Stuck(format!("PVC {pvc} has no VolumeReplication"))
                }
                VolumeState::Unknown(why) => Progress::Pending(why.clone()),
            })
        })
}
