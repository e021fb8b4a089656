//! Whether a plan could run: read-only questions to both sites, all asked before the answer is given.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

use crate::cluster::crd::cdi::DataVolume;
use crate::cluster::crd::core::NAMESPACE;
use crate::cluster::crd::csiaddons::{NetworkFence, NetworkFenceClass};
use crate::cluster::crd::kubevirt::{
    VirtualMachine, VirtualMachineInstance, VirtualMachineInstanceMigration,
};
use crate::cluster::crd::replication::{VolumeReplication, VolumeReplicationClass};
use crate::cluster::crd::snapshot::{VolumeSnapshot, VolumeSnapshotClass};
use crate::cluster::crd::vmsnapshot::{
    VirtualMachineClone, VirtualMachineRestore, VirtualMachineSnapshot,
};
use crate::cluster::{Ask, Cluster, Error, Kind, ObjRef, Sites, Typed as _};
use crate::history::event::{Fact, Site};
use crate::plan::Plan;
use crate::plan::model::{Driver, Fencing, Workload};
use crate::scenario::catalogue::{Need, Step, select};
use crate::workload::Rendered;

/// One question and its answer.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// Which site was asked.
    pub site: Site,
    /// What was asked.
    pub what: String,
    /// `None` when all is well; otherwise what is missing and what to do.
    pub trouble: Option<String>,
}

/// Asks everything that the plan needs of both sites.
pub async fn ask(plan: &Plan, rendered: &[(Workload, Rendered)], sites: &Sites) -> Vec<Finding> {
    let mut findings = Vec::new();
    for site in [Site::Primary, Site::Secondary] {
        let cluster = sites.of(site);
        let mut found = Found {
            site,
            findings: &mut findings,
        };
        if found.put("answers", cluster.versions().await.map(drop)) {
            kinds(plan, rendered, cluster, &mut found).await;
            classes(plan, cluster, &mut found).await;
            rights(plan, cluster, &mut found).await;
        }
    }
    findings
}

/// What is missing, as text; `None` when nothing is.
pub fn missing(findings: &[Finding]) -> Option<String> {
    let mut out = String::new();
    for finding in findings {
        if let Some(trouble) = &finding.trouble {
            writeln!(out, "  {}: {}: {trouble}", finding.site, finding.what)
                .expect("writing to a String");
        }
    }
    (!out.is_empty()).then(|| out.trim_end().to_owned())
}

struct Found<'a> {
    site: Site,
    findings: &'a mut Vec<Finding>,
}

impl Found<'_> {
    fn put(&mut self, what: impl Into<String>, answer: Result<(), Error>) -> bool {
        let trouble = answer.err().map(|e| e.to_string());
        let well = trouble.is_none();
        self.findings.push(Finding {
            site: self.site,
            what: what.into(),
            trouble,
        });
        well
    }
}

async fn kinds(
    plan: &Plan,
    rendered: &[(Workload, Rendered)],
    cluster: &Cluster,
    found: &mut Found<'_>,
) {
    let mut needed: Vec<Kind> = vec![VirtualMachine::KIND, VirtualMachineInstance::KIND];
    if rendered.iter().any(|(_, rendered)| rendered.uses_cdi()) {
        needed.push(DataVolume::KIND);
    }
    match plan.protection().driver {
        Driver::VolumeReplication { .. } => needed.push(VolumeReplication::KIND),
    }
    if matches!(plan.protection().fencing, Fencing::NetworkFence { .. }) {
        needed.push(NetworkFence::KIND);
    }
    if plan.protection().volume_snapshot_class.is_some() || does(plan, &[Step::ReadCut]) {
        needed.push(VolumeSnapshot::KIND);
    }
    if needs(plan, Need::LiveMigration) {
        needed.push(VirtualMachineInstanceMigration::KIND);
    }
    if does(plan, &[Step::Snapshot]) {
        needed.push(VirtualMachineSnapshot::KIND);
    }
    if does(plan, &[Step::Restore]) {
        needed.push(VirtualMachineRestore::KIND);
    }
    if does(plan, &[Step::Clone]) {
        needed.push(VirtualMachineClone::KIND);
    }
    for kind in needed {
        let answer = cluster.serves(&kind).await;
        found.put(format!("serves {}", kind.label()), answer);
    }
    if does(plan, &[Step::SnapshotGroup]) {
        let answer = cluster.group_snapshots().await.map(drop);
        found.put("serves VolumeGroupSnapshot", answer);
    }
}

async fn classes(plan: &Plan, cluster: &Cluster, found: &mut Found<'_>) {
    match &plan.protection().driver {
        Driver::VolumeReplication { class } => {
            let answer = cluster
                .get::<VolumeReplicationClass>("", class)
                .await
                .map(drop);
            found.put(format!("has VolumeReplicationClass {class}"), answer);
        }
    }
    if let Fencing::NetworkFence { class, .. } = &plan.protection().fencing {
        let answer = cluster.get::<NetworkFenceClass>("", class).await.map(drop);
        found.put(format!("has NetworkFenceClass {class}"), answer);
    }
    if let Some(class) = &plan.protection().volume_snapshot_class {
        snapshot_class(cluster, class, found).await;
    }
    for class in storage_classes(plan) {
        let answer = storage_class(cluster, &class).await;
        let fixed = answer
            .as_ref()
            .is_ok_and(|c| c["allowVolumeExpansion"] != true);
        found.put(format!("has StorageClass {class}"), answer.map(drop));
        if fixed && does(plan, &[Step::Grow]) {
            found.findings.push(Finding {
                site: found.site,
                what: format!("StorageClass {class} lets claims grow"),
                trouble: Some(
                    "set its allowVolumeExpansion to true, or leave `resize.online` out".into(),
                ),
            });
        }
    }
}

/// Whether a scenario of the plan needs something.
fn needs(plan: &Plan, need: Need) -> bool {
    let chosen = select(plan.patterns()).unwrap_or_default();
    chosen.iter().any(|spec| spec.needs.contains(&need))
}

/// Whether a scenario of the plan does any of these steps.
fn does(plan: &Plan, steps: &[Step]) -> bool {
    let chosen = select(plan.patterns()).unwrap_or_default();
    let mut done = chosen.iter().flat_map(|spec| spec.steps);
    done.any(|step| steps.contains(step))
}

/// The subresources by which steps give orders to VMs.
const ORDERS: &[(Step, &str)] = &[
    (Step::Pause, "virtualmachineinstances/pause"),
    (Step::Pause, "virtualmachineinstances/unpause"),
    (Step::SoftReboot, "virtualmachineinstances/softreboot"),
    (Step::StopStart, "virtualmachines/start"),
    (Step::Plug, "virtualmachines/addvolume"),
    (Step::Plug, "virtualmachines/removevolume"),
];

/// The StorageClasses that the plan names, each once.
fn storage_classes(plan: &Plan) -> Vec<String> {
    let named = plan.workloads().iter().flat_map(|w| {
        let given = w.parameters.get("storageClass").cloned();
        given.into_iter().chain(
            w.data_volumes
                .iter()
                .filter_map(|d| d.storage_class.clone()),
        )
    });
    let mut named: Vec<String> = named.collect();
    if does(plan, &[Step::MoveStorage]) {
        named.extend(plan.migration().storage_class.clone());
    }
    named.sort();
    named.dedup();
    named
}

async fn storage_class(cluster: &Cluster, name: &str) -> Result<Value, Error> {
    let kind = Kind::cluster("storage.k8s.io", "v1", "StorageClass", "storageclasses");
    cluster.read(&ObjRef::new(kind, "", name)).await
}

/// Which cluster a site is, and digests of the classes that the plan names. What cannot be read is
/// left out: it is for the record, and no verdict rests on it.
pub(super) async fn site_classes(plan: &Plan, sites: &Sites, site: Site) -> Fact {
    let cluster = sites.of(site);
    let mut classes = BTreeMap::new();
    for name in storage_classes(plan) {
        if let Ok(class) = storage_class(cluster, &name).await {
            classes.insert(format!("StorageClass/{name}"), class_digest(class));
        }
    }
    match &plan.protection().driver {
        Driver::VolumeReplication { class: name } => {
            let object = ObjRef::new(VolumeReplicationClass::KIND, "", name);
            if let Ok(class) = cluster.read(&object).await {
                let key = format!("VolumeReplicationClass/{name}");
                classes.insert(key, class_digest(class));
            }
        }
    }
    let own = cluster
        .read(&ObjRef::new(NAMESPACE, "", "kube-system"))
        .await;
    let uid = own.ok().and_then(|own| {
        let uid = own.pointer("/metadata/uid")?;
        uid.as_str().map(str::to_owned)
    });
    Fact::SiteClasses {
        site,
        cluster: uid,
        classes,
    }
}

/// A class that keeps the storage's snapshots would leave them behind.
async fn snapshot_class(cluster: &Cluster, name: &str, found: &mut Found<'_>) {
    let answer = cluster.get::<VolumeSnapshotClass>("", name).await;
    let keeps = answer.as_ref().is_ok_and(|c| c.deletion_policy != "Delete");
    let there = found.put(format!("has VolumeSnapshotClass {name}"), answer.map(drop));
    if there && keeps {
        found.findings.push(Finding {
            site: found.site,
            what: format!("VolumeSnapshotClass {name} leaves nothing behind"),
            trouble: Some(
                "its deletionPolicy is not Delete; name a class whose snapshots go with their \
                 VolumeSnapshot"
                    .into(),
            ),
        });
    }
}

/// BLAKE3 of a class but its metadata, which differs between sites; keys sorted.
fn class_digest(mut class: Value) -> String {
    if let Some(object) = class.as_object_mut() {
        object.remove("metadata");
    }
    class.sort_all_objects();
    blake3::hash(class.to_string().as_bytes())
        .to_hex()
        .to_string()
}

/// The rights that a plan needs.
fn asks(plan: &Plan) -> Vec<Ask> {
    let mut asks = Vec::new();
    let mut want = |group: &'static str, resource: &'static str, verbs: &[&'static str]| {
        asks.extend(verbs.iter().map(|verb| Ask {
            verb,
            group,
            resource,
            namespace: String::new(),
        }));
    };
    always(&mut want);
    for (_, subresource) in ORDERS.iter().filter(|(step, _)| does(plan, &[*step])) {
        want("subresources.kubevirt.io", subresource, &["update"]);
    }
    lives(plan, &mut want);
    cuts(plan, &mut want);
    if matches!(plan.protection().fencing, Fencing::NetworkFence { .. }) {
        want("csiaddons.openshift.io", "networkfences", OWN);
    }
    asks
}

/// Takes a group, a resource and the verbs that are needed on it.
type Want<'a> = &'a mut dyn FnMut(&'static str, &'static str, &[&'static str]);

/// What may be done to objects of our own …
const OWN: &[&str] = &["get", "list", "watch", "create", "patch", "delete"];
/// … that are never changed.
const FIXED: &[&str] = &["get", "list", "watch", "create", "delete"];

/// What every plan needs.
fn always(want: Want<'_>) {
    want("", "namespaces", &["create", "delete"]);
    want("", "persistentvolumeclaims", OWN);
    want("", "persistentvolumes", OWN);
    want("", "secrets", &["get", "create", "delete"]);
    want("", "configmaps", &["get"]);
    let watched: &[&str] = &["get", "list", "watch"];
    want("kubevirt.io", "virtualmachines", OWN);
    want("kubevirt.io", "virtualmachineinstances", watched);
    let group = "subresources.kubevirt.io";
    want(group, "virtualmachines/stop", &["update"]);
    want(group, "virtualmachineinstances/portforward", &["get"]);
    let group = "cdi.kubevirt.io";
    want(group, "datavolumes", &["get", "create", "delete"]);
    let group = "replication.storage.openshift.io";
    want(group, "volumereplications", OWN);
}

/// What scenarios need whose VMs live on: moves, kills, freezes, hooks.
fn lives(plan: &Plan, want: Want<'_>) {
    if needs(plan, Need::LiveMigration) {
        want("kubevirt.io", "virtualmachineinstancemigrations", FIXED);
    }
    if needs(plan, Need::Drain) {
        want("", "nodes", &["get", "patch"]);
        want("", "pods", &["get", "list", "watch"]);
        want("", "pods/eviction", &["create"]);
    }
    if needs(plan, Need::MigrationPolicy) {
        let own: &[&str] = &["get", "create", "patch", "delete"];
        want("migrations.kubevirt.io", "migrationpolicies", own);
        want("", "pods", &["delete"]);
    }
    if does(plan, &[Step::Kill]) {
        want("", "pods", &["get", "list", "watch", "delete"]);
    }
    let chosen = select(plan.scenarios()).unwrap_or_default();
    if chosen
        .iter()
        .any(|spec| spec.freezes_through_kubevirt(plan))
    {
        let group = "subresources.kubevirt.io";
        want(group, "virtualmachineinstances/freeze", &["update"]);
        want(group, "virtualmachineinstances/unfreeze", &["update"]);
        want(group, "virtualmachineinstances/guestosinfo", &["get"]);
    }
    if chosen.iter().any(|spec| spec.runs_hooks(plan)) {
        want("", "pods", &["list"]);
        // A WebSocket is a GET; since 1.35 it needs the right to create as well.
        want("", "pods/exec", &["get", "create"]);
    }
}

/// What snapshots, restores and clones need.
fn cuts(plan: &Plan, want: Want<'_>) {
    if does(plan, &[Step::Snapshot, Step::Clone]) {
        let group = "subresources.kubevirt.io";
        want(group, "virtualmachineinstances/guestosinfo", &["get"]);
    }
    let group = "snapshot.kubevirt.io";
    if does(plan, &[Step::Snapshot]) {
        want(group, "virtualmachinesnapshots", FIXED);
        want(group, "virtualmachinesnapshotcontents", &["get"]);
    }
    if does(plan, &[Step::Restore]) {
        want(group, "virtualmachinerestores", FIXED);
    }
    if does(plan, &[Step::Clone]) {
        want("clone.kubevirt.io", "virtualmachineclones", FIXED);
    }
    if does(plan, &[Step::SnapshotGroup]) {
        let group = "groupsnapshot.storage.k8s.io";
        want(group, "volumegroupsnapshots", &["get", "create", "delete"]);
    }
    let group = "snapshot.storage.k8s.io";
    if does(plan, &[Step::ReadCut]) {
        want(group, "volumesnapshots", &["get", "list", "watch"]);
    }
    if plan.protection().volume_snapshot_class.is_some() {
        want(group, "volumesnapshots", FIXED);
        want(group, "volumesnapshotcontents", &["list"]);
    }
}

/// Asks for rights and says which are missing.
async fn rights(plan: &Plan, cluster: &Cluster, found: &mut Found<'_>) {
    let asks = asks(plan);
    match cluster.denied(&asks).await {
        Ok(denied) if denied.is_empty() => {
            found.put(format!("grants {} rights", asks.len()), Ok(()));
        }
        Ok(denied) => {
            for one in denied {
                let what = format!("lets us {}", one.ask);
                let why = if one.reason.is_empty() {
                    "denied"
                } else {
                    &one.reason
                };
                let trouble = Some(format!("{why}; grant it, see docs/rbac.md"));
                found.findings.push(Finding {
                    site: found.site,
                    what,
                    trouble,
                });
            }
        }
        Err(error) => {
            found.put("tells what we may do", Err(error));
        }
    }
}
