//! VolumeReplicationGroups and DRPlacementControls.

use serde_json::Value;

use super::recipe::parameters;
use super::rules;
use crate::lint::claims::keys;
use crate::lint::object::{Findings, Kind, Object, Set};

rules! {
    BY_HAND = "vrg-by-hand" Note
        "A DRPlacementControl makes the VRGs of both clusters and its agent reverts what is edited by hand. Without a hub you also do its work: the other VRG, the Recipe's copy, and `action`, without which nothing is restored."
        fix "Write a DRPlacementControl, unless you drive Ramen without a hub."
        source "Ramen: VRG";
    WORKFLOW_NAMES = "vrg-recipe-workflow-names" Error
        "A recipeRef cannot choose workflows: they are always `backup` and `restore`. The fields do not exist and are dropped or refused."
        fix "Remove them and name the Recipe's workflows `backup` and `restore`."
        source "measured on a real API server";
    STATE = "vrg-replication-state" Error
        "The CRD takes any text; the controller takes `primary` and `secondary`, and shows DataReady False for everything else."
        fix "Write `primary` or `secondary`, in lower case."
        source "Ramen: VRG; a real controller's answer";
    NO_MODE = "vrg-no-async-sync" Error
        "Without `async` and `sync` the CRD takes the VRG, and the controller protects nothing."
        fix "Add `async.schedulingInterval` for regional, or `sync` for metro."
        source "Ramen: VRG";
    NO_S3 = "vrg-no-s3" Warning
        "With the profile `NoS3`, or none, PVs, PVCs and Kubernetes objects are stored nowhere, so the other cluster cannot restore them."
        fix "Name an S3 profile of each cluster from Ramen's ConfigMap."
        source "Ramen: VRG";
    SELECTOR_ALL = "pvc-selector-everything" Warning
        "An empty selector takes every PVC of the namespace, with CDI's `prime-*` and scratch claims among them."
        fix "Select by a label of your own that only the VM's claims carry."
        source "Ramen: VRG (issues 2353, 2362)";
    SELECTOR_UID = "pvc-selector-uid" Error
        "`kubevirt.io/created-by` holds the VM's UID, which is another one on the other cluster, and after each restore."
        fix "Select by a label of your own."
        source "KubeVirt: labels";
    RECIPE_NAMESPACE = "recipe-ref-namespace" Error
        "An empty recipeRef.namespace is not the VRG's own: `Failed to get recipe`, DataReady False, whatever Ramen's documents say."
        fix "Write `recipeRef: {name: …, namespace: …}`."
        source "Ramen: recipe reference";
    RECIPE_ABSENT = "recipe-ref-absent" Warning
        "A Recipe that is not there makes the VRG show DataReady False, `Failed to get recipe`."
        fix "Correct name or namespace, or give the Recipe's file too."
        source "Ramen: recipe reference; a real controller's answer";
    VM_RECIPE = "vm-recipe-parameters" Error
        "The built-in vm-recipe needs PROTECTED_VMS, K8S_RESOURCE_SELECTOR and PVC_RESOURCE_SELECTOR; without any `recipeParameters` the controller panics."
        fix "Give all three."
        source "Ramen: vm-recipe";
    STOPPED = "recipe-stopped" Warning
        "The parameter STOP_RECIPE_RECONCILE stops every capture: what the other site would recover grows old, and nothing fails."
        fix "Remove it when the maintenance is over."
        source "Ramen: recipe execution";
    OVERRIDES = "recipe-volumes-override" Note
        "`spec.volumes` of a Recipe takes the place of the pvcSelector of whoever refers to it."
        fix "Keep both the same, or leave one out of consideration."
        source "Ramen: recipe reference";
    PROTECTED = "protected-namespaces" Error
        "`protectedNamespaces` is looked at only in Ramen's operations namespace: `ramen-ops`, on OpenShift `openshift-dr-ops`."
        fix "Move the object there, or remove `protectedNamespaces`."
        source "Ramen: VRG and DRPC";
    NAMESPACES = "recipe-namespaces" Error
        "The namespaces of a Recipe's groups and hooks must be the VRG's own or stand in `protectedNamespaces`, else the VRG shows DataReady False."
        fix "Add the namespace to `protectedNamespaces`, or change the Recipe."
        source "Ramen: recipe reference";
    ACTION = "drpc-action-cluster" Error
        "Failover needs `failoverCluster` and Relocate `preferredCluster`: without it there is nowhere to go."
        fix "Name the cluster."
        source "Ramen: DRPC";
    DRY_RUN = "drpc-dry-run" Error
        "A test failover needs `action: Failover` and another cluster than the preferred one; anything else is rejected."
        fix "Set `action: Failover` and `failoverCluster` to the other cluster."
        source "Ramen: DRPC";
    TWICE = "drpc-dry-run-twice" Warning
        "The original VM keeps running while a test failover runs its copy: one MAC address, one IP address, two guests."
        fix "Cut the copy's network off, or stop the original."
        source "Ramen: DRPC";
    SHARED = "drpc-shared-namespace" Error
        "Two DRPCs may protect one namespace only if both use vm-recipe, for different VMs; else Available turns False, `protect common resources from the same namespace`."
        fix "Use one DRPC for each namespace, or vm-recipe in both."
        source "Ramen: DRPC";
    UNCAPTURED = "drpc-nothing-captured" Warning
        "A DRPC for discovered applications captures objects only with `kubeObjectProtection`; without it the volumes fail over and no VM comes with them."
        fix "Add `kubeObjectProtection` with a selector or a recipeRef."
        source "Ramen: DRPC";
}

const RAMEN_OPS: [&str; 2] = ["ramen-ops", "openshift-dr-ops"];

pub(super) fn check(set: &Set, out: &mut Findings) {
    for vrg in set.of(Kind::Vrg) {
        group(set, vrg, out);
        shared(set, vrg, out);
    }
    for drpc in set.of(Kind::Drpc) {
        shared(set, drpc, out);
        control(set, drpc, out);
    }
}

fn group(set: &Set, vrg: &Object, out: &mut Findings) {
    if !set.any(&[Kind::Drpc]) {
        out.add(BY_HAND, vrg, "kind", "the VRG is written by hand");
    }
    if let Some(state) = vrg
        .text("spec/replicationState")
        .filter(|s| !matches!(*s, "primary" | "secondary"))
    {
        out.add(
            STATE,
            vrg,
            "spec/replicationState",
            format!("`{state}` is no state"),
        );
    }
    if vrg.get("spec").is_object()
        && vrg.get("spec/async").is_null()
        && vrg.get("spec/sync").is_null()
    {
        out.add(NO_MODE, vrg, "spec", "it has neither `async` nor `sync`");
    }
    let profiles = vrg.get("spec/s3Profiles");
    let none = profiles
        .as_array()
        .is_some_and(|list| list.iter().all(|profile| profile == "NoS3"));
    if none {
        out.add(NO_S3, vrg, "spec/s3Profiles", "nothing is stored");
    }
}

/// What VRGs and DRPCs have in common.
fn shared(set: &Set, object: &Object, out: &mut Findings) {
    let protection = object.get("spec/kubeObjectProtection");
    for (place, at) in [
        (
            "spec/kubeObjectProtection/recipeRef",
            &protection["recipeRef"],
        ),
        ("spec/kubeObjectProtection", protection),
    ] {
        for field in ["captureWorkflowName", "recoverWorkflowName"] {
            if !at[field].is_null() {
                let what = format!("`{field}` does not exist");
                out.add(WORKFLOW_NAMES, object, &format!("{place}/{field}"), what);
            }
        }
    }
    let selector = object.get("spec/pvcSelector");
    if selector.is_object() && keys(selector).is_empty() {
        out.add(
            SELECTOR_ALL,
            object,
            "spec/pvcSelector",
            "the selector takes every PVC",
        );
    }
    if keys(selector).contains(&"kubevirt.io/created-by") {
        out.add(
            SELECTOR_UID,
            object,
            "spec/pvcSelector",
            "the selector looks at a UID",
        );
    }
    let in_ops = object.namespace.is_empty() || RAMEN_OPS.contains(&object.namespace.as_str());
    if !object.get("spec/protectedNamespaces").is_null() && !in_ops {
        let what = format!("nobody looks at it in namespace `{}`", object.namespace);
        out.add(PROTECTED, object, "spec/protectedNamespaces", what);
    }
    reference(set, object, &protection["recipeRef"], out);
}

fn reference(set: &Set, object: &Object, reference: &Value, out: &mut Findings) {
    let stop = "spec/kubeObjectProtection/recipeParameters/STOP_RECIPE_RECONCILE";
    if object.get(stop).to_string().contains("true") {
        out.add(STOPPED, object, stop, "nothing is captured");
    }
    let Some(name) = reference["name"].as_str() else {
        return;
    };
    let path = "spec/kubeObjectProtection/recipeRef";
    let namespace = reference["namespace"].as_str().unwrap_or_default();
    if namespace.is_empty() {
        out.add(
            RECIPE_NAMESPACE,
            object,
            path,
            format!("the recipeRef `{name}` names no namespace"),
        );
    }
    if name == "vm-recipe" {
        let given = parameters(object);
        let needed = [
            "PROTECTED_VMS",
            "K8S_RESOURCE_SELECTOR",
            "PVC_RESOURCE_SELECTOR",
        ];
        for parameter in needed.into_iter().filter(|name| !given.contains_key(*name)) {
            let path = "spec/kubeObjectProtection";
            out.add(VM_RECIPE, object, path, format!("`{parameter}` is missing"));
        }
        return;
    }
    let Some(recipe) = set
        .of(Kind::Recipe)
        .find(|recipe| recipe.name == name && recipe.beside(namespace))
    else {
        if set.any(&[Kind::Recipe]) {
            let what = format!("no Recipe here is `{namespace}/{name}`");
            out.add(RECIPE_ABSENT, object, path, what);
        }
        return;
    };
    if recipe.get("spec/volumes").is_object() {
        let what = format!("Recipe {name} selects the volumes instead");
        out.add(OVERRIDES, object, "spec/pvcSelector", what);
    }
    namespaces(object, recipe, out);
}

/// The namespaces of a Recipe must be those that its referrer protects.
fn namespaces(object: &Object, recipe: &Object, out: &mut Findings) {
    let protected = object.get("spec/protectedNamespaces").as_array();
    let allowed = |name: &str| {
        let listed = protected.is_some_and(|list| list.iter().any(|item| item == name));
        name == object.namespace || listed || name.contains('$') || name.is_empty()
    };
    if object.namespace.is_empty() {
        return;
    }
    for (at, group) in recipe.items("spec/groups") {
        let listed = group["includedNamespaces"].as_array().into_iter().flatten();
        for name in listed
            .filter_map(Value::as_str)
            .filter(|name| !allowed(name))
        {
            let path = format!("{at}/includedNamespaces");
            let what = format!("{} does not protect `{name}`", object.title());
            out.add(NAMESPACES, recipe, &path, what);
        }
    }
    for (at, hook) in recipe.items("spec/hooks") {
        let name = hook["namespace"].as_str().unwrap_or_default();
        if !allowed(name) {
            let what = format!("{} does not protect `{name}`", object.title());
            out.add(NAMESPACES, recipe, &format!("{at}/namespace"), what);
        }
    }
}

fn control(set: &Set, drpc: &Object, out: &mut Findings) {
    let (failover, preferred) = (
        drpc.text("spec/failoverCluster"),
        drpc.text("spec/preferredCluster"),
    );
    let action = drpc.text("spec/action");
    let missing = match action {
        Some("Failover") if failover.is_none() => Some("failoverCluster"),
        Some("Relocate") if preferred.is_none() => Some("preferredCluster"),
        _ => None,
    };
    if let Some(field) = missing {
        let what = format!("`{}` has no `{field}`", action.unwrap_or_default());
        out.add(ACTION, drpc, "spec/action", what);
    }
    if drpc.get("spec/dryRun") == true {
        if action != Some("Failover") {
            out.add(
                DRY_RUN,
                drpc,
                "spec/dryRun",
                "a test failover needs `action: Failover`",
            );
        } else if failover.is_some() && failover == preferred {
            out.add(
                DRY_RUN,
                drpc,
                "spec/dryRun",
                "a test failover needs another cluster",
            );
        } else {
            out.add(TWICE, drpc, "spec/dryRun", "the original keeps running");
        }
    }
    let discovered = RAMEN_OPS.contains(&drpc.namespace.as_str());
    if discovered && drpc.get("spec/kubeObjectProtection").is_null() {
        out.add(UNCAPTURED, drpc, "spec", "no object is captured");
    }
    for other in set
        .of(Kind::Drpc)
        .take_while(|other| !std::ptr::eq(*other, drpc))
    {
        common(drpc, other, out);
    }
}

/// The namespaces that a DRPC protects.
fn protects(drpc: &Object) -> Vec<&str> {
    match drpc.get("spec/protectedNamespaces").as_array() {
        Some(list) => list.iter().filter_map(Value::as_str).collect(),
        None => vec![drpc.namespace.as_str()],
    }
}

fn common(drpc: &Object, other: &Object, out: &mut Findings) {
    let vms = |object: &Object| {
        let name = object.text("spec/kubeObjectProtection/recipeRef/name");
        (name == Some("vm-recipe")).then(|| {
            parameters(object)
                .remove("PROTECTED_VMS")
                .unwrap_or_default()
        })
    };
    let mine = protects(drpc);
    let Some(namespace) = protects(other)
        .into_iter()
        .find(|name| !name.is_empty() && mine.contains(name))
    else {
        return;
    };
    if let (Some(mine), Some(theirs)) = (vms(drpc), vms(other))
        && !mine.iter().any(|vm| theirs.contains(vm))
    {
        return;
    }
    let what = format!("`{namespace}` is protected by {} too", other.title());
    out.add(SHARED, drpc, "spec", what);
}
