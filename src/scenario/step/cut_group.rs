//! Taking a group snapshot of a VM's claims: one instant for all of them, as the storage says.
//!
//! No freeze is asked for. What it claims is order across the volumes, and that alone.

use anyhow::Context as _;
use kube::Resource as _;
use serde_json::{Value, json};

use super::cut;
use crate::cluster::crd::snapshot::VolumeSnapshot;
use crate::cluster::{Deadline, Scope, Seen};
use crate::history::event::{CutClaims, CutState, CutVolume};
use crate::scenario::member::{Member, Taken};
use crate::scenario::world::World;
use crate::workload::{RUN_LABEL, SUBJECT_LABEL};

const GROUP: &str = "VolumeGroupSnapshot";

/// Takes a VolumeGroupSnapshot of all claims of the VM and waits until each member can be restored.
pub(super) async fn snapshot_group(world: &World, member: &mut Member) -> anyhow::Result<()> {
    let name = cut::next_name(member);
    let told = (GROUP, name.as_str());
    let cluster = member.cluster(world);
    let kind = cluster.group_snapshots().await?;
    let mut object = json!({
        "apiVersion": kind.api_version(),
        "kind": kind.kind,
        "metadata": {"name": name, "namespace": member.subject.namespace},
        "spec": {"source": {"selector": {"matchLabels": {
            RUN_LABEL: member.owner.run(), SUBJECT_LABEL: member.name(),
        }}}},
    });
    if let Some(class) = &world.plan.protection().volume_group_snapshot_class {
        object["spec"]["volumeGroupSnapshotClassName"] = json!(class);
    }
    cut::tell(world, member, told, CutState::Asked).await?;
    let made: Value = cluster.create(&member.owner, object).await?;
    let uid = made.pointer("/metadata/uid").and_then(Value::as_str);
    let uid = uid.context("the group snapshot has no UID")?;
    let deadline = world.deadline(world.plan.deadlines().sync);
    let taken = members(world, member, (&name, uid), Want::Taken, &deadline).await;
    let volumes = match taken {
        Ok(volumes) => volumes,
        Err(error) => {
            let group = cluster.read(&cluster.reference(&made).await?).await?;
            let said = group
                .pointer("/status/error/message")
                .and_then(Value::as_str);
            let said = said.unwrap_or("it tells of no error");
            let why = format!("{error:#}; {said}");
            cut::tell(world, member, told, CutState::Failed { why: why.clone() }).await?;
            anyhow::bail!(why);
        }
    };
    let claims = CutClaims {
        indications: Vec::new(),
        one_instant: true,
        volumes: volumes.clone(),
    };
    cut::tell(world, member, told, CutState::Taken { claims }).await?;
    members(world, member, (&name, uid), Want::Ready, &deadline).await?;
    member.cuts.push(Taken {
        loads: member.loads.len(),
        volumes,
        name,
    });
    Ok(())
}

/// How far members are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Want {
    /// They have been cut.
    Taken,
    /// They can be restored.
    Ready,
}

/// Waits until each claim of the VM has a member of the group that is as far as wanted.
async fn members(
    world: &World,
    member: &Member,
    (name, uid): (&str, &str),
    want: Want,
    deadline: &Deadline,
) -> anyhow::Result<Vec<CutVolume>> {
    let namespace = &member.subject.namespace;
    let scope = Scope::Namespace(namespace.clone());
    let view = member.cluster(world).view::<VolumeSnapshot>(&scope);
    let state = if want == Want::Taken {
        "taken"
    } else {
        "ready"
    };
    let waiting = format!("{GROUP} {name} to be {state}");
    let pvcs = &member.set.pvcs;
    let found = view.until(deadline, &waiting, |all| {
        let of = all.iter().filter(|snapshot| is_of(snapshot, uid));
        let of: Vec<&VolumeSnapshot> = of.collect();
        let mut volumes = Vec::new();
        for pvc in pvcs {
            let found = of.iter().find(|snapshot| {
                let claim = snapshot.spec.pointer("/source/persistentVolumeClaimName");
                claim.and_then(Value::as_str) == Some(pvc)
            });
            let Some(found) = found else {
                return Seen::Not(format!("no member for claim {pvc}"));
            };
            let far = match want {
                Want::Taken => found.status.creation_time.is_some(),
                Want::Ready => found.status.ready_to_use == Some(true),
            };
            if !far {
                return Seen::Not(format!("the member for claim {pvc}: {}", found.describe()));
            }
            volumes.push(CutVolume {
                pvc: pvc.clone(),
                snapshot: found.meta().name.clone().unwrap_or_default(),
                created: found.status.creation_time.as_ref().map(|at| at.0),
            });
        }
        Seen::Met(volumes)
    });
    Ok(found.await?)
}

fn is_of(snapshot: &VolumeSnapshot, group: &str) -> bool {
    let owners = snapshot.meta().owner_references.iter().flatten();
    owners.into_iter().any(|owner| owner.uid == group)
}
