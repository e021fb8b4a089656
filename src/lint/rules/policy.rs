//! DRPolicies, DRClusters, Placements, and the fences of clusters.

use serde_json::Value;

use super::rules;
use crate::lint::object::{Findings, Kind, Object, Set};

rules! {
    CLUSTERS = "drpolicy-clusters" Error
        "A DRPolicy is for exactly two different clusters."
        fix "Name two DRClusters."
        source "Ramen CRD";
    UNKNOWN_CLUSTER = "drpolicy-unknown-cluster" Warning
        "A DRPolicy whose DRCluster is not there shows Validated False, DRClusterNotFound."
        fix "Correct the name, or give the DRCluster's file too."
        source "Ramen: DRPolicy";
    METRO = "drpolicy-metro" Note
        "An empty or zero interval means metro: the storage is synchronous, and only fencing keeps two sites from writing at once."
        fix "Give an interval if regional replication is meant; else fence before each failover."
        source "Ramen: DRPolicy";
    NO_CIDRS = "drcluster-no-cidrs" Error
        "A cluster of a metro policy cannot be fenced without CIDRs: the failover waits in WaitForFencing."
        fix "List the CIDRs of its nodes in `spec.cidrs`."
        source "Ramen: DRCluster";
    FENCE_ASYNC = "drcluster-fence-async" Warning
        "Regional DR has no fencing: both sites can run, and `clusterFence` keeps neither from writing."
        fix "Stop the old site by other means before the VM starts on the new one."
        source "Ramen: DRCluster";
    MANUAL = "drcluster-manual-fence" Warning
        "With ManuallyFenced your word is taken: no NetworkFence is made and nothing is checked, before a failover that can make two writers."
        fix "Use `Fenced` with CIDRs, or prove the fence yourself."
        source "Ramen: DRCluster";
    CIDR = "cidr" Error
        "A CIDR that cannot be read makes the fence fail: a validation failure is not tried again."
        fix "Write ADDRESS/BITS."
        source "csi-addons: NetworkFence; Ramen: CIDRsValidated";
    NO_FENCE_CIDRS = "fence-no-cidrs" Error
        "A fence without CIDRs fences nobody; the driver refuses it, and that is not tried again."
        fix "List the node addresses of the cluster that is to be cut off."
        source "csi-addons: NetworkFence";
    FENCE_DRIVER = "fence-driver" Error
        "A NetworkFence needs `networkFenceClassName`, or `driver` and `secret`."
        fix "Name a NetworkFenceClass."
        source "csi-addons CRD";
    UNFENCE = "fence-delete" Note
        "Deleting a Fenced NetworkFence only drops its finalizer: the nodes stay fenced, for years with Ceph."
        fix "Set `fenceState: Unfenced` and wait for Succeeded before you delete it."
        source "csi-addons: NetworkFence";
    SCHEDULING = "placement-scheduling" Error
        "Ramen decides where the application runs only when the Placement's own scheduler is switched off."
        fix "Annotate it with `cluster.open-cluster-management.io/experimental-scheduling-disable: \"true\"`."
        source "Ramen: DRPC";
}

pub(super) fn check(set: &Set, out: &mut Findings) {
    for policy in set.of(Kind::DrPolicy) {
        clusters(set, policy, out);
    }
    for cluster in set.of(Kind::DrCluster) {
        self::cluster(set, cluster, out);
        cidrs(cluster, out);
    }
    for fence in set.of(Kind::Fence) {
        self::fence(fence, out);
        cidrs(fence, out);
    }
    for placement in set.of(Kind::Placement) {
        self::placement(set, placement, out);
    }
}

fn names(policy: &Object) -> Vec<&str> {
    let list = policy.get("spec/drClusters").as_array();
    list.into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

/// Whether a policy is for synchronous storage.
fn is_metro(policy: &Object) -> bool {
    let interval = policy.get("spec/schedulingInterval").as_str();
    interval.is_some_and(|text| {
        text.trim_end_matches(['m', 'h', 'd'])
            .trim_start_matches('0')
            .is_empty()
    })
}

fn clusters(set: &Set, policy: &Object, out: &mut Findings) {
    let names = names(policy);
    let path = "spec/drClusters";
    if policy.get(path).is_array() && (names.len() != 2 || names[0] == names[1]) {
        out.add(
            CLUSTERS,
            policy,
            path,
            format!("it names {} clusters", names.len()),
        );
    }
    let known = |name: &str| set.of(Kind::DrCluster).any(|cluster| cluster.name == name);
    if set.any(&[Kind::DrCluster]) {
        for name in names.iter().filter(|name| !known(name)) {
            out.add(
                UNKNOWN_CLUSTER,
                policy,
                path,
                format!("no DRCluster here is `{name}`"),
            );
        }
    }
    if is_metro(policy) {
        out.add(
            METRO,
            policy,
            "spec/schedulingInterval",
            "the policy is for metro",
        );
    }
}

fn cluster(set: &Set, cluster: &Object, out: &mut Findings) {
    let policies: Vec<&Object> = set
        .of(Kind::DrPolicy)
        .filter(|policy| names(policy).contains(&cluster.name.as_str()))
        .collect();
    let empty = cluster
        .get("spec/cidrs")
        .as_array()
        .is_none_or(Vec::is_empty);
    if empty && policies.iter().any(|policy| is_metro(policy)) {
        out.add(NO_CIDRS, cluster, "spec", "it has no CIDRs");
    }
    let fence = cluster.text("spec/clusterFence").unwrap_or_default();
    if fence == "ManuallyFenced" {
        out.add(
            MANUAL,
            cluster,
            "spec/clusterFence",
            "nobody checks the fence",
        );
    }
    let regional = !policies.is_empty() && policies.iter().all(|policy| !is_metro(policy));
    if regional && fence.ends_with("Fenced") {
        out.add(
            FENCE_ASYNC,
            cluster,
            "spec/clusterFence",
            "the fence keeps nobody from writing",
        );
    }
}

fn cidrs(object: &Object, out: &mut Findings) {
    for (path, cidr) in object.items("spec/cidrs") {
        if let Some(text) = cidr.as_str().filter(|text| !is_cidr(text)) {
            out.add(CIDR, object, &path, format!("`{text}` is no CIDR"));
        }
    }
}

fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else {
        return false;
    };
    let most = match address.parse() {
        Ok(std::net::IpAddr::V4(_)) => 32,
        Ok(std::net::IpAddr::V6(_)) => 128,
        Err(_no_address) => return false,
    };
    bits.parse::<u8>().is_ok_and(|bits| bits <= most)
}

fn fence(fence: &Object, out: &mut Findings) {
    if fence
        .get("spec/cidrs")
        .as_array()
        .is_some_and(Vec::is_empty)
    {
        out.add(NO_FENCE_CIDRS, fence, "spec/cidrs", "there are no CIDRs");
    }
    let has = |field: &str| !fence.get(&format!("spec/{field}")).is_null();
    if fence.get("spec").is_object()
        && !has("networkFenceClassName")
        && !(has("driver") && has("secret"))
    {
        out.add(
            FENCE_DRIVER,
            fence,
            "spec",
            "it names no class, and not driver and secret",
        );
    }
    if fence.text("spec/fenceState") != Some("Unfenced") {
        out.add(
            UNFENCE,
            fence,
            "spec/fenceState",
            "to delete it is not to unfence",
        );
    }
}

fn placement(set: &Set, placement: &Object, out: &mut Findings) {
    let governed = set.of(Kind::Drpc).any(|drpc| {
        drpc.text("spec/placementRef/name") == Some(&placement.name)
            && drpc.beside(&placement.namespace)
    });
    let key = "cluster.open-cluster-management.io/experimental-scheduling-disable";
    if governed && !placement.annotated(key, "true") {
        out.add(SCHEDULING, placement, "metadata", "its own scheduler is on");
    }
}
