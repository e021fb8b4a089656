//! The second reader: what the storage holds, seen past every cache of the guest under test.
//!
//! After a read-back each ledger volume is snapshotted, the snapshots are restored, and another guest
//! reads the copies. Nothing writes meanwhile, so both must find the same cells (D8). The reader is a
//! machine of its own in the history too: its events bear its own name, and only its findings bear
//! the subject's.

use anyhow::{Context as _, bail};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use serde_json::{Value, json};

use super::{boot, probe, provision::name};
use crate::cluster::crd::snapshot::VolumeSnapshot;
use crate::cluster::{Deadline, Scope, Seen};
use crate::history::event::{Fact, ReadVia, ScanFact};
use crate::probe::config::{Config, Purpose};
use crate::probe::host::{Reach, inspect};
use crate::scenario::member::Member;
use crate::scenario::world::World;
use crate::workload::{DataDisk, fit_name};

/// Reads clones of the member's ledger volumes through another guest.
pub(super) async fn second_read(world: &World, member: &mut Member) -> anyhow::Result<()> {
    let Some(class) = &world.plan.protection().volume_snapshot_class else {
        bail!("the plan names no volumeSnapshotClass");
    };
    let deadline = world.deadline(world.plan.deadlines().boot);
    let cut = snapshots(world, member, class, &member.subject.data_disks).await?;
    let reader = reader(world, member, &cut, ("copy", "reader"), &deadline).await?;
    let seen = read(world, member, &reader, member.loads.len()).await?;
    tell(world, member, seen, None).await
}

/// Starts another guest on copies that are restored from the VolumeSnapshots of the data disks, by
/// ordinal; `copy` and `role` are the last parts of the copies' and the reader's names.
pub(super) async fn reader(
    world: &World,
    member: &Member,
    snapshots: &[(&DataDisk, String)],
    (copy, role): (&str, &str),
    deadline: &Deadline,
) -> anyhow::Result<Member> {
    let restored = snapshots.iter().map(|(disk, snapshot)| async move {
        ready(world, member, snapshot, deadline).await?;
        restore(world, member, disk, snapshot, copy).await
    });
    let copies = try_join_all(restored).await?;
    let reader = member.reader(world, &copies, role)?;
    for object in &reader.subject.objects {
        reader
            .cluster(world)
            .create(&reader.owner, object.clone())
            .await?;
    }
    boot::running(world, &reader, deadline)
        .await
        .context("waiting for the reader to run")?;
    Ok(reader)
}

/// Asks for a snapshot of each disk; the disks with the snapshots' names.
pub(super) async fn snapshots<'a>(
    world: &World,
    member: &Member,
    class: &str,
    disks: &'a [DataDisk],
) -> anyhow::Result<Vec<(&'a DataDisk, String)>> {
    let asked = disks.iter().map(|disk| async move {
        let name = snapshot(world, member, class, disk).await?;
        Ok::<_, anyhow::Error>((disk, name))
    });
    try_join_all(asked).await
}

/// Asks for a snapshot of one volume.
async fn snapshot(
    world: &World,
    member: &Member,
    class: &str,
    disk: &DataDisk,
) -> anyhow::Result<String> {
    let name = fit_name(&disk.pvc, "second");
    let object = json!({
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshot",
        "metadata": {"name": name, "namespace": member.subject.namespace},
        "spec": {
            "volumeSnapshotClassName": class,
            "source": {"persistentVolumeClaimName": disk.pvc},
        },
    });
    let cluster = member.cluster(world);
    cluster.create(&member.owner, object).await?;
    Ok(name)
}

/// Waits until a snapshot can be restored. An error on the way is not the end: controllers clear it
/// when a later attempt succeeds.
async fn ready(
    world: &World,
    member: &Member,
    name: &str,
    deadline: &Deadline,
) -> anyhow::Result<()> {
    let namespace = &member.subject.namespace;
    let scope = Scope::Namespace(namespace.clone());
    let view = member.cluster(world).view::<VolumeSnapshot>(&scope);
    let waiting = format!("VolumeSnapshot {name} to be ready");
    view.until_object(deadline, namespace, name, &waiting, |found| match found {
        Some(snapshot) if snapshot.status.ready_to_use == Some(true) => Seen::Met(()),
        Some(snapshot) => Seen::Not(snapshot.describe()),
        None => Seen::Not("no VolumeSnapshot".into()),
    })
    .await?;
    Ok(())
}

/// Asks for a claim like the volume's own, filled from its snapshot.
async fn restore(
    world: &World,
    member: &Member,
    disk: &DataDisk,
    snapshot: &str,
    copy: &str,
) -> anyhow::Result<String> {
    let cluster = member.cluster(world);
    let namespace = &member.subject.namespace;
    let source = cluster
        .get::<PersistentVolumeClaim>(namespace, &disk.pvc)
        .await?;
    let name = fit_name(&disk.pvc, copy);
    let spec = like(&source, snapshot)
        .with_context(|| format!("the claim {} does not say what it is", disk.pvc))?;
    let object = json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    });
    cluster.create(&member.owner, object).await?;
    Ok(name)
}

/// The spec of a claim for a copy of a bound claim's volume: as large as the volume really is.
fn like(source: &PersistentVolumeClaim, snapshot: &str) -> Option<Value> {
    let (spec, status) = (source.spec.as_ref()?, source.status.as_ref()?);
    let size = status.capacity.as_ref()?.get("storage")?;
    Some(json!({
        "accessModes": spec.access_modes,
        "volumeMode": spec.volume_mode,
        "storageClassName": spec.storage_class_name,
        "resources": {"requests": {"storage": size}},
        "dataSource": {
            "apiGroup": "snapshot.storage.k8s.io",
            "kind": "VolumeSnapshot",
            "name": snapshot,
        },
    }))
}

/// What a reader found.
pub(super) struct Read {
    /// The probe run that read.
    pub(super) incarnation: String,
    /// The loads that it is evidence of.
    pub(super) judges: Vec<String>,
    /// What was on the volumes.
    pub(super) volumes: Vec<ScanFact>,
}

/// Records what was read of copies: of a cut, or of the member's volumes as they are now.
pub(super) async fn tell(
    world: &World,
    member: &Member,
    read: Read,
    cut: Option<String>,
) -> anyhow::Result<()> {
    let scanned = Fact::Scanned {
        site: member.site,
        incarnation: read.incarnation,
        judges: read.judges,
        via: ReadVia::Clone,
        zero_loss: None,
        cut,
        volumes: read.volumes,
    };
    member.tell(world, scanned).await
}

/// Reads the copies in the reader, as evidence of the member's first so many loads.
pub(super) async fn read(
    world: &World,
    member: &Member,
    reader: &Member,
    loads: usize,
) -> anyhow::Result<Read> {
    let reach = reach(world, reader).await?;
    let number = world.mint.incarnation(member.site);
    let (judges, expect) = member.judged(loads);
    let config = Config {
        expect,
        ..member.config(world, number, Purpose::Verify)
    };
    let file = format!("{}-{}", reader.name(), name(number));
    let reading = world.deadline(world.plan.deadlines().sync);
    let seen = inspect(
        &reach,
        &world.binary,
        &config,
        &world.recorder,
        &file,
        &reading,
    )
    .await
    .context("reading the copies")?;
    let guest = Fact::Guest {
        site: member.site,
        host_key: seen.host.fingerprint,
        host_key_pinned: seen.host.pinned,
        machine_id: seen.guest.machine_id,
        boot_id: seen.guest.boot_id,
    };
    reader.tell(world, guest).await?;
    Ok(Read {
        incarnation: name(number),
        judges,
        volumes: seen.volumes,
    })
}

/// How to reach a reader.
pub(super) async fn reach(world: &World, reader: &Member) -> anyhow::Result<Reach> {
    let login = world.deadline(world.plan.deadlines().ssh);
    let address = probe::address(world, reader, &login).await?;
    reader.reach(world, address.as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_asked_for_as_large_as_the_volume_is() {
        let claim = |status: Value| -> PersistentVolumeClaim {
            let spec = json!({
                "accessModes": ["ReadWriteMany"], "volumeMode": "Block",
                "storageClassName": "fast", "volumeName": "pv-1",
                "resources": {"requests": {"storage": "1G"}},
            });
            serde_json::from_value(json!({"spec": spec, "status": status})).expect("a claim")
        };
        let bound = claim(json!({"phase": "Bound", "capacity": {"storage": "954Mi"}}));
        let spec = like(&bound, "snap").expect("a spec");
        assert_eq!(spec["resources"]["requests"]["storage"], "954Mi");
        assert_eq!(spec["dataSource"]["name"], "snap");
        assert_eq!(
            (&spec["volumeMode"], &spec["storageClassName"]),
            (&json!("Block"), &json!("fast"))
        );
        assert!(spec.get("volumeName").is_none(), "a volume of its own");
        assert_eq!(like(&claim(json!({"phase": "Pending"})), "snap"), None);
    }
}
