//! What the driver sees: cheaply through the shared watch while it drives, afresh from the servers
//! when a gate decides.

use crate::cluster::crd::kubevirt::{VirtualMachine, VirtualMachineInstance};
use crate::cluster::crd::replication::VolumeReplication;
use crate::cluster::{Cluster, Error, Scope, Sites, Wake};
use crate::history::event::Site;
use crate::replicate::gate::{Mode, Question, SourceVm};
use crate::replicate::state::{Observation, VolumeState};
use crate::replicate::{Set, Work};

/// The set's objects as the site's watch has them; our own writes are in it at once.
pub(super) fn seen(work: &Work<'_>, site: Site) -> Vec<(String, VolumeState)> {
    let set = work.set;
    let view = work
        .sites
        .of(site)
        .view::<VolumeReplication>(&Scope::Namespace(set.namespace.clone()));
    let volumes = view.peek(|objects| {
        set.pvcs
            .iter()
            .map(|pvc| {
                let state = match objects.get(&set.namespace, pvc) {
                    Some(vr) => VolumeState::Seen(Box::new(vr.clone())),
                    None => VolumeState::Absent,
                };
                (pvc.clone(), state)
            })
            .collect()
    });
    volumes.unwrap_or_else(|| {
        let why = format!("no list of VolumeReplications from the {site} site yet");
        set.pvcs
            .iter()
            .map(|pvc| (pvc.clone(), VolumeState::Unknown(why.clone())))
            .collect()
    })
}

/// Changes that are worth another step.
pub(in crate::replicate) fn wake(work: &Work<'_>) -> Wake {
    let scope = Scope::Namespace(work.set.namespace.clone());
    [Site::Primary, Site::Secondary]
        .into_iter()
        .fold(Wake::paced(), |wake, site| {
            let cluster = work.sites.of(site);
            wake.and(cluster.view::<VolumeReplication>(&scope).changes())
                .and(cluster.view::<VirtualMachineInstance>(&scope).changes())
        })
}

/// Reads the set's objects afresh from the server.
pub(in crate::replicate) async fn observe(
    cluster: &Cluster,
    set: &Set,
) -> Result<Observation, Error> {
    let mut volumes = Vec::with_capacity(set.pvcs.len());
    for pvc in &set.pvcs {
        let state = match cluster
            .find::<VolumeReplication>(&set.namespace, pvc)
            .await?
        {
            Some(vr) => VolumeState::Seen(Box::new(vr)),
            None => VolumeState::Absent,
        };
        volumes.push((pvc.clone(), state));
    }
    Ok(Observation {
        site: cluster.site(),
        volumes,
    })
}

/// Gathers what the gate needs to know before `site` is promoted, afresh from the other site.
pub(in crate::replicate) async fn question(
    sites: &Sites,
    set: &Set,
    site: Site,
    mode: Mode,
) -> Question {
    let peer = sites.of(site.peer());
    // The VM first: what is gone now and may not come back cannot write after the volumes were read.
    let source_vm = source_vm(peer, set).await;
    let source = match observe(peer, set).await {
        Ok(observation) => observation.volumes,
        Err(e) => {
            let why = e.to_string();
            set.pvcs
                .iter()
                .map(|pvc| (pvc.clone(), VolumeState::Unknown(why.clone())))
                .collect()
        }
    };
    Question {
        site,
        mode,
        source_vm,
        source,
    }
}

/// What a site says about the set's VM.
pub(super) async fn source_vm(cluster: &Cluster, set: &Set) -> SourceVm {
    let vmi = match cluster
        .find::<VirtualMachineInstance>(&set.namespace, &set.vm)
        .await
    {
        Ok(vmi) => vmi,
        Err(e) => return SourceVm::Unknown(e.to_string()),
    };
    if let Some(vmi) = vmi {
        return SourceVm::Present(vmi.describe());
    }
    let vm = match cluster
        .find::<VirtualMachine>(&set.namespace, &set.vm)
        .await
    {
        Ok(vm) => vm,
        Err(e) => return SourceVm::Unknown(e.to_string()),
    };
    match vm {
        Some(vm) if vm.metadata.deletion_timestamp.is_none() && vm.will_start() => {
            SourceVm::Present("no VMI, but the VM's run strategy will start one".into())
        }
        _ => SourceVm::Gone,
    }
}
