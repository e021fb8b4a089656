//! The data disks move to other claims while the VM writes to them.
//!
//! KubeVirt is asked by the VM's own definition (`updateVolumesStrategy: Migration`) and does it by a
//! live migration that copies the disks. The claims that are left behind stay, so that they can be
//! read later: they must be as they were.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, bail};
use kube::Resource as _;
use serde_json::{Value, json};

use super::{boot, ended, instances, jobs, tell, watching};
use crate::cluster::crd::core::PersistentVolumeClaim;
use crate::cluster::crd::kubevirt::{
    VirtualMachine, VirtualMachineInstance, VirtualMachineInstanceMigration,
};
use crate::cluster::crd::meta::{Conditions as _, Truth};
use crate::cluster::undo::Undo;
use crate::cluster::{Deadline, Error, ObjRef, Patch, Scope, Seen, Typed as _, View, Wake, repeat};
use crate::history::event::{Fact, MigrationFact, MovedDisk, StorageFact};
use crate::probe::host::Prober;
use crate::replicate::handover;
use crate::scenario::member::{Left, Member};
use crate::scenario::step::provision;
use crate::scenario::world::World;
use crate::workload::{DataDisk, fit_name};

/// Label of a migration that KubeVirt makes because a VM's volumes are to be others.
const IN_PROGRESS: &str = "kubevirt.io/volume-update-in-progress";

/// Moves all data disks of the VM to claims of their own, in one order.
pub(in crate::scenario::step) async fn move_storage(
    world: &World,
    member: &mut Member,
) -> anyhow::Result<()> {
    let mut disks = Vec::new();
    for disk in &member.subject.data_disks {
        disks.push(destination(world, member, disk).await?);
    }
    // Claims go when nobody uses them any more, so the VM goes before these.
    let undo = Undo::Delete {
        site: member.site,
        object: member.vm(),
        uid: None,
    };
    let owner = &member.owner;
    owner.undo().record(owner.lane_name(), undo).await?;
    watching(world, member, async |prober| {
        moved(world, member, prober, &disks).await
    })
    .await?;
    let deadline = world.deadline(world.plan.deadlines().transition);
    for disk in &disks {
        let cluster = member.cluster(world);
        let stands = handover::bound(cluster, &member.set, &disk.to, None, &deadline).await?;
        provision::claim(world, member, member.site, stands).await?;
    }
    member.left = Some(Left {
        name: left_name(member),
        disks: member.subject.data_disks.clone(),
        loads: member.loads.len(),
    });
    let to = disks.into_iter().map(|disk| (disk.from, disk.to));
    member.rename_claims(&to.collect());
    Ok(())
}

fn left_name(member: &Member) -> String {
    fit_name(&member.subject.vm, "left")
}

/// Makes the claim that a disk is to move to: like the one that it has, of the plan's class.
async fn destination(world: &World, member: &Member, disk: &DataDisk) -> anyhow::Result<MovedDisk> {
    let (ns, kind) = (&member.subject.namespace, PersistentVolumeClaim::KIND);
    let cluster = member.cluster(world);
    let old = ObjRef::of::<PersistentVolumeClaim>(ns, &disk.pvc);
    let old = cluster.read(&old).await?;
    let (spec, to) = (&old["spec"], fit_name(&disk.pvc, "moved"));
    let class = match &world.plan.migration().storage_class {
        Some(class) => class.clone(),
        None => spec["storageClassName"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
    };
    // As large as the volume really is: a smaller one is refused in the middle of the migration.
    let size = old.pointer("/status/capacity/storage");
    let size = size.with_context(|| format!("claim {} does not say how large it is", disk.pvc))?;
    let object = json!({
        "apiVersion": kind.api_version(), "kind": kind.kind,
        "metadata": {"name": to, "namespace": ns},
        "spec": {
            "storageClassName": class,
            "accessModes": spec["accessModes"],
            "volumeMode": spec["volumeMode"],
            "resources": {"requests": {"storage": size}},
        },
    });
    cluster.create(&member.owner, object).await?;
    Ok(MovedDisk {
        volume: disk.name.clone(),
        from: disk.pvc.clone(),
        to,
        class,
    })
}

/// Orders the move and follows it to its end.
async fn moved(
    world: &World,
    member: &Member,
    prober: &Prober,
    disks: &[MovedDisk],
) -> anyhow::Result<()> {
    let deadline = world.deadline(world.plan.deadlines().transition);
    boot::state(world, member, member.site).await?;
    let cluster = member.cluster(world);
    let before = cluster.read(&member.vm()).await?;
    let known = jobs(world, member)
        .until(&deadline, "a list of migrations", |jobs| {
            Seen::Met(jobs.iter().map(|job| uid_of(job).to_owned()).collect())
        })
        .await?;
    let asked = StorageFact::Asked {
        left: left_name(member),
        disks: disks.to_vec(),
    };
    told(world, member, asked).await?;
    cluster
        .patch(&member.vm(), &Patch::Merge(order(&before, disks)))
        .await?;
    let (name, uid) = match begun(world, member, (&before, &known), &deadline).await? {
        Ok(job) => job,
        Err(why) => {
            told(world, member, StorageFact::Refused { why: why.clone() }).await?;
            bail!(
                "KubeVirt does not move the volumes of VM {}: {why}",
                member.subject.vm
            );
        }
    };
    let job = MigrationFact {
        name,
        ..MigrationFact::default()
    };
    tell(world, member, job.clone()).await?;
    ended(world, member, prober, job, &uid, &deadline).await?;
    let claims = settled(world, member, disks, &deadline).await?;
    told(world, member, StorageFact::Moved { claims }).await
}

/// The merge patch that has the disks' volumes name the new claims. A template of a DataVolume that no
/// volume names is refused, so those of the old claims go; the DataVolumes stay the VM's.
fn order(vm: &Value, disks: &[MovedDisk]) -> Value {
    let list = |at: &str| vm.pointer(at).and_then(Value::as_array).cloned();
    let mut volumes = list("/spec/template/spec/volumes").unwrap_or_default();
    for volume in &mut volumes {
        if let Some(disk) = disks
            .iter()
            .find(|disk| volume["name"] == disk.volume.as_str())
        {
            *volume = json!({
                "name": disk.volume, "persistentVolumeClaim": {"claimName": disk.to},
            });
        }
    }
    let mut spec = json!({
        "updateVolumesStrategy": "Migration",
        "template": {"spec": {"volumes": volumes}},
    });
    if let Some(mut templates) = list("/spec/dataVolumeTemplates") {
        let left = |name: &Value| disks.iter().any(|disk| *name == disk.from.as_str());
        templates.retain(|template| !left(&template["metadata"]["name"]));
        spec["dataVolumeTemplates"] = json!(templates);
    }
    json!({ "spec": spec })
}

fn uid_of(job: &VirtualMachineInstanceMigration) -> &str {
    job.meta().uid.as_deref().unwrap_or_default()
}

/// Waits for the migration that moves the disks, by name and UID; or for KubeVirt to ask for a restart
/// instead, and why.
async fn begun(
    world: &World,
    member: &Member,
    (before, known): (&Value, &BTreeSet<String>),
    deadline: &Deadline,
) -> anyhow::Result<Result<(String, String), String>> {
    let (ns, vm) = (&member.subject.namespace, &member.subject.vm);
    let scope = Scope::Namespace(ns.clone());
    let vms: View<VirtualMachine> = member.cluster(world).view(&scope);
    let jobs = jobs(world, member);
    let wake = Wake::paced().and(jobs.changes()).and(vms.changes());
    let waiting = format!("KubeVirt to migrate the volumes of VM {vm}");
    // A condition that stood before is about something else.
    let stood = |said: &str| {
        let all = before
            .pointer("/status/conditions")
            .and_then(Value::as_array);
        let mut all = all.into_iter().flatten();
        all.any(|one| one["type"] == "RestartRequired" && one["message"] == said)
    };
    let found = repeat(deadline, &waiting, wake, || async {
        let job = jobs.peek(|jobs| {
            let mut all = jobs.iter();
            let new = all.find(|job| {
                let labels = job.meta().labels.as_ref();
                let of = labels.and_then(|labels| labels.get(IN_PROGRESS));
                of == Some(vm) && !known.contains(uid_of(job))
            });
            new.map(|job| {
                let name = job.meta().name.clone().unwrap_or_default();
                (name, uid_of(job).to_owned())
            })
        });
        if let Some(job) = job.flatten() {
            return Ok(Seen::Met(Ok(job)));
        }
        let restart = vms.peek(|vms| {
            let said = vms
                .get(ns, vm)?
                .status
                .conditions
                .condition("RestartRequired")?;
            (said.status == Truth::True).then(|| said.message.clone())
        });
        Ok::<_, Error>(match restart.flatten().filter(|said| !stood(said)) {
            Some(why) => Seen::Met(Err(why)),
            None => Seen::Not("no such migration".into()),
        })
    });
    Ok(found.await?)
}

/// Waits until the VMI says that its volumes have moved; the claims that it names then.
async fn settled(
    world: &World,
    member: &Member,
    disks: &[MovedDisk],
    deadline: &Deadline,
) -> anyhow::Result<BTreeMap<String, String>> {
    let (ns, vm) = (&member.subject.namespace, &member.subject.vm);
    let waiting = format!("VMI {vm} to name the claims that its disks moved to");
    let look = |vmi: Option<&VirtualMachineInstance>| {
        let Some(vmi) = vmi else {
            return Seen::Not("no VMI".to_owned());
        };
        let claims = claims(&vmi.spec);
        let under_way = vmi.status.conditions.condition("VolumesChange").is_some();
        let there = |disk: &MovedDisk| claims.get(&disk.volume) == Some(&disk.to);
        if !under_way && disks.iter().all(there) {
            return Seen::Met(claims);
        }
        Seen::Not(format!("it names {claims:?}, VolumesChange {under_way}"))
    };
    let view = instances(world, member);
    Ok(view.until_object(deadline, ns, vm, &waiting, look).await?)
}

/// The claims that a VMI's volumes name.
fn claims(spec: &Value) -> BTreeMap<String, String> {
    let volumes = spec["volumes"].as_array().into_iter().flatten();
    let named = volumes.filter_map(|volume| {
        let direct = volume.pointer("/persistentVolumeClaim/claimName");
        let claim = direct.or_else(|| volume.pointer("/dataVolume/name"))?;
        Some((
            volume["name"].as_str()?.to_owned(),
            claim.as_str()?.to_owned(),
        ))
    });
    named.collect()
}

async fn told(world: &World, member: &Member, storage: StorageFact) -> anyhow::Result<()> {
    let site = member.site;
    member.tell(world, Fact::Storage { site, storage }).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_names_the_new_claims_and_gives_up_the_old_templates() {
        let disk = |volume: &str| MovedDisk {
            volume: volume.into(),
            from: format!("vm-{volume}"),
            to: format!("vm-{volume}-moved"),
            class: "other".into(),
        };
        let vm = json!({"spec": {
            "dataVolumeTemplates": [{"metadata": {"name": "vm-root"}}, {"metadata": {"name": "vm-raw"}}],
            "template": {"spec": {"volumes": [
                {"name": "root", "dataVolume": {"name": "vm-root"}},
                {"name": "raw", "dataVolume": {"name": "vm-raw"}},
                {"name": "seed", "cloudInitNoCloud": {}},
            ]}},
        }});
        let order = order(&vm, &[disk("raw")]);
        assert_eq!(order["spec"]["updateVolumesStrategy"], "Migration");
        let templates = &order["spec"]["dataVolumeTemplates"];
        assert_eq!(*templates, json!([{"metadata": {"name": "vm-root"}}]));
        let spec = &order["spec"]["template"]["spec"];
        let named = claims(spec);
        assert_eq!(named["raw"], "vm-raw-moved");
        assert_eq!((named["root"].as_str(), named.len()), ("vm-root", 2));
        assert_eq!(
            spec["volumes"][2],
            json!({"name": "seed", "cloudInitNoCloud": {}})
        );
    }
}
