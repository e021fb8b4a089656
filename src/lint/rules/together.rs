//! What only two objects together show: selectors and the claims that they should find, hooks and the
//! VMs that they should freeze, captures and what a VM needs.

use std::collections::BTreeMap;

use kube::core::Selector;
use serde_json::Value;

use super::recipe::freeze::{Freezer, on_launcher};
use super::recipe::{Case, parameters};
use super::rules;
use crate::lint::claims::{self, Claim, keys};
use crate::lint::object::{Findings, Kind, Object, Set, labels};
use crate::workload::recipe::{Exec, Work};
use crate::workload::references;

rules! {
    LAUNCHER_LABEL = "pvc-selector-launcher-label" Error
        "`vm.kubevirt.io/name` and `kubevirt.io/domain` are on launcher pods and never on claims. The selector finds no PVC, and the VRG says DataReady True with the reason Unused."
        fix "Label the claims yourself, through `dataVolumeTemplates[].metadata.labels`, and select by that label."
        source "KubeVirt: labels; Ramen: VRG";
    MISSES = "pvc-selector-misses" Error
        "A claim of the VM that the selector does not find is not replicated: the VM comes back without it, or with an old one."
        fix "Give the claim the label; a DataVolume's labels go to its PVC."
        source "Ramen: VRG; KubeVirt: labels";
    PRIME = "pvc-selector-prime" Note
        "While CDI imports, its `prime-*` and scratch claims inherit the DataVolume's labels, and are selected and protected too."
        fix "Protect only after the import is done."
        source "Ramen issues 2353, 2362";
    NO_VM = "recipe-hook-selects-no-vm" Error
        "The hook's selector matches the launcher of no VM in these files, and an exec hook without pods succeeds. A launcher's `vm.kubevirt.io/name` is the VM's hostname if it has one, else its name, up to the first dot."
        fix "Select `kubevirt.io: virt-launcher` with `vm.kubevirt.io/name: VM`."
        source "Ramen: exec hook; KubeVirt: labels of launcher pods";
    OTHER_VM = "recipe-freezer-other-vm" Error
        "virt-freezer is told of a VM whose launcher the hook does not select: it runs in another VM's launcher, and fails or does nothing."
        fix "Let selector and --name mean the same VM, with one hook for each."
        source "KubeVirt: virt-freezer";
    MANY_VMS = "recipe-freezer-many-vms" Error
        "The hook selects the launchers of several VMs, and the command names one: it stops at the first that fails, and the others are not frozen."
        fix "Write one hook for each VM."
        source "Ramen: exec hook; KubeVirt: virt-freezer";
    NOT_CAPTURED = "vm-dependency-not-captured" Error
        "The capture takes the VM and leaves out what it needs: on the other site it does not start, or starts without its keys."
        fix "Give the Secret or ConfigMap the label by which the VM is selected."
        source "Ramen: kube object capture";
    VM_RECIPE_LABEL = "vm-recipe-label" Error
        "vm-recipe selects by values of the label `ramendr.openshift.io/k8s-resource-selector`, which you must put on the VM, on what it needs and on its claims."
        fix "Label it with a value of K8S_RESOURCE_SELECTOR, claims with one of PVC_RESOURCE_SELECTOR."
        source "Ramen: vm-recipe";
    VM_RECIPE_OWNER = "vm-recipe-cleanup" Warning
        "vm-recipe cleans up the old site only if every protected claim belongs to the VM, by a DataVolume or directly. With one that does not, AutoCleanup is False, NotFeasible, and you must clean up in time."
        fix "Make the claim by `dataVolumeTemplates`, or plan the manual cleanup."
        source "Ramen: vm-recipe";
}

pub(super) fn check(set: &Set, out: &mut Findings) {
    let claims = claims::all(set);
    for object in &set.objects {
        if matches!(object.kind, Kind::Vrg | Kind::Drpc) {
            protected(set, object, &claims, out);
            built_in(set, object, &claims, out);
            let selector = object.get("spec/kubeObjectProtection/kubeObjectSelector");
            captured(set, object, selector, &protects(object), out);
        }
    }
    // Told of where the Recipes are looked at.
    let mut told = Findings::default();
    for case in Case::all(set, &mut told) {
        hooks(&case, out);
        groups(&case, out);
    }
}

/// The namespaces that a VRG or DRPC protects; empty for any.
fn protects(object: &Object) -> Vec<String> {
    let list = object.get("spec/protectedNamespaces").as_array();
    let own = || vec![object.namespace.clone()];
    list.map_or_else(own, |list| {
        list.iter()
            .filter_map(|name| name.as_str().map(str::to_owned))
            .collect()
    })
}

/// The selector that counts: the Recipe's volumes, if the reference is here, else its own.
fn selector<'a>(set: &'a Set, object: &'a Object) -> (&'a Object, &'static str) {
    let name = object.text("spec/kubeObjectProtection/recipeRef/name");
    let recipe = set
        .of(Kind::Recipe)
        .find(|recipe| Some(recipe.name.as_str()) == name);
    match recipe {
        Some(recipe) if recipe.get("spec/volumes/labelSelector").is_object() => {
            (recipe, "spec/volumes/labelSelector")
        }
        _ => (object, "spec/pvcSelector"),
    }
}

fn protected(set: &Set, object: &Object, claims: &[Claim<'_>], out: &mut Findings) {
    if object.text("spec/kubeObjectProtection/recipeRef/name") == Some("vm-recipe") {
        return;
    }
    let (at, path) = selector(set, object);
    let written = at.get(path);
    // Without its values nothing can be said of a selector with placeholders.
    let Some(selector) = claims::selector(written).filter(|_| !written.to_string().contains('$'))
    else {
        return;
    };
    let namespaces = protects(object);
    let near: Vec<&Claim<'_>> = claims
        .iter()
        .filter(|claim| namespaces.iter().any(|name| claim.object.beside(name)))
        .collect();
    let found = near
        .iter()
        .any(|claim| claims::takes(&selector, &claim.labels));
    let launcher = ["vm.kubevirt.io/name", "kubevirt.io/domain", "kubevirt.io"];
    if let Some(key) = keys(written)
        .into_iter()
        .find(|key| launcher.contains(key))
        .filter(|_| !found)
    {
        out.add(
            LAUNCHER_LABEL,
            at,
            path,
            format!("no claim carries `{key}`"),
        );
    }
    for vm in set
        .of(Kind::Vm)
        .filter(|vm| namespaces.iter().any(|name| vm.beside(name)))
    {
        let volumes = vm.get("spec/template/spec/volumes").as_array();
        for name in volumes.into_iter().flatten().filter_map(claims::of_volume) {
            let own = near
                .iter()
                .find(|claim| claim.name == name && claim.object.beside(&vm.namespace));
            let Some(claim) = own else {
                continue;
            };
            if !claims::takes(&selector, &claim.labels) {
                let what = format!(
                    "{} does not select `{name}` of {}",
                    object.title(),
                    vm.title()
                );
                out.add(
                    MISSES,
                    claim.object,
                    &format!("{}/metadata", claim.path),
                    what,
                );
            } else if imports(claim) {
                let what = format!("`{name}` is imported, and CDI's claims carry its labels");
                out.add(PRIME, claim.object, &claim.path, what);
            }
        }
    }
}

/// Whether CDI fills a claim from somewhere.
fn imports(claim: &Claim<'_>) -> bool {
    let source = claim.source.and_then(Value::as_object);
    source.is_some_and(|map| !map.is_empty() && !map.contains_key("blank"))
}

/// Objects that a VM needs and a label selector leaves out.
fn captured(set: &Set, by: &Object, written: &Value, namespaces: &[String], out: &mut Findings) {
    let Some(selector) = claims::selector(written).filter(|_| !keys(written).is_empty()) else {
        return;
    };
    if written.to_string().contains('$') {
        return;
    }
    for vm in set
        .of(Kind::Vm)
        .filter(|vm| namespaces.iter().any(|name| vm.beside(name)))
    {
        if !claims::takes(&selector, &vm.labels()) {
            continue;
        }
        for (kind, name) in references(vm.get("spec/template/spec")) {
            if let Some(object) =
                companion(set, vm, kind, &name).filter(|o| !claims::takes(&selector, &o.labels()))
            {
                let what = format!("{} captures {} and not this", by.title(), vm.title());
                out.add(NOT_CAPTURED, object, "metadata", what);
            }
        }
    }
}

/// A Secret or ConfigMap that a VM refers to, if it is here.
fn companion<'a>(set: &'a Set, vm: &Object, kind: &str, name: &str) -> Option<&'a Object> {
    let same = |object: &&Object| {
        matches!(object.kind, Kind::Secret | Kind::ConfigMap)
            && object.kind.name() == kind
            && object.name == name
            && object.beside(&vm.namespace)
    };
    set.objects.iter().find(same)
}

fn groups(case: &Case<'_>, out: &mut Findings) {
    for (workflow, step) in &case.steps {
        if let Work::Group { group, .. } = &step.work
            && workflow == "backup"
        {
            let written = case.object.get(&format!("{}/labelSelector", group.path));
            captured(
                case.set,
                case.object,
                written,
                &group.included_namespaces,
                out,
            );
        }
    }
}

/// What the built-in vm-recipe wants of the VMs that it names.
fn built_in(set: &Set, object: &Object, claims: &[Claim<'_>], out: &mut Findings) {
    if object.text("spec/kubeObjectProtection/recipeRef/name") != Some("vm-recipe") {
        return;
    }
    let given = parameters(object);
    let values = |name: &str| given.get(name).cloned().unwrap_or_default();
    let (vms, objects) = (values("PROTECTED_VMS"), values("K8S_RESOURCE_SELECTOR"));
    let pvcs = values("PVC_RESOURCE_SELECTOR");
    let labelled = |labels: &BTreeMap<String, String>, values: &[String]| {
        let value = labels.get("ramendr.openshift.io/k8s-resource-selector");
        value.is_some_and(|value| values.contains(value))
    };
    for vm in set.of(Kind::Vm).filter(|vm| vms.contains(&vm.name)) {
        let needed = references(vm.get("spec/template/spec"));
        let needed = needed
            .iter()
            .filter_map(|(kind, name)| companion(set, vm, kind, name));
        for object in needed
            .chain([vm])
            .filter(|object| !labelled(&object.labels(), &objects))
        {
            out.add(
                VM_RECIPE_LABEL,
                object,
                "metadata",
                "vm-recipe does not select it",
            );
        }
        let volumes = vm.get("spec/template/spec/volumes").as_array();
        for name in volumes.into_iter().flatten().filter_map(claims::of_volume) {
            let Some(claim) = claims.iter().find(|claim| claim.name == name) else {
                continue;
            };
            if !labelled(&claim.labels, &pvcs) {
                let what = format!("vm-recipe does not select the claim `{name}`");
                out.add(
                    VM_RECIPE_LABEL,
                    claim.object,
                    &format!("{}/metadata", claim.path),
                    what,
                );
            }
            if claim.object.kind != Kind::Vm {
                let what = format!("the claim `{name}` does not belong to {}", vm.title());
                out.add(VM_RECIPE_OWNER, claim.object, "metadata", what);
            }
        }
    }
}

/// Hooks and the launchers that they should select.
fn hooks(case: &Case<'_>, out: &mut Findings) {
    // Without their values nothing can be said of selectors with placeholders.
    if !case.complete {
        return;
    }
    for (_, exec) in case
        .execs()
        .filter(|(_, exec)| on_launcher(exec) && exec.target.labels.is_some())
    {
        let near: Vec<&Object> = case
            .set
            .of(Kind::Vm)
            .filter(|vm| vm.beside(&exec.target.namespace))
            .collect();
        if near.is_empty() {
            continue;
        }
        let Some(matched) = matched(exec, &near) else {
            continue;
        };
        let path = case.op_path(exec);
        let hook = case
            .recipe
            .hook(&exec.hook)
            .map_or_else(String::new, |hook| hook.path.clone());
        if matched.is_empty() {
            let names: Vec<&str> = near.iter().map(|vm| vm.name.as_str()).collect();
            let what = format!("it selects no launcher of {}", names.join(", "));
            out.add(NO_VM, case.object, &format!("{hook}/labelSelector"), what);
            continue;
        }
        let Some(name) = Freezer::of(exec).and_then(|freezer| freezer.name) else {
            continue;
        };
        if !matched.iter().any(|vm| vm.name == name) {
            let what = format!(
                "the command names `{name}`, the hook selects `{}`",
                matched[0].name
            );
            out.add(OTHER_VM, case.object, &format!("{path}/command"), what);
        } else if matched.len() > 1 && !exec.single_pod {
            let what = format!(
                "the hook selects {} VMs, the command names `{name}`",
                matched.len()
            );
            out.add(MANY_VMS, case.object, &format!("{path}/command"), what);
        }
    }
}

/// The VMs whose launchers a hook selects; `None` for a selector that cannot be read.
fn matched<'a>(exec: &Exec, vms: &[&'a Object]) -> Option<Vec<&'a Object>> {
    let selector = Selector::try_from(exec.target.labels.clone()?).ok()?;
    let selects = |vm: &&&Object| claims::takes(&selector, &launcher(vm));
    Some(vms.iter().filter(selects).copied().collect())
}

/// The labels of a VM's launcher pod that are known beforehand.
fn launcher(vm: &Object) -> BTreeMap<String, String> {
    let mut found = labels(&vm.get("spec/template/metadata")["labels"]);
    let host = vm.text("spec/template/spec/hostname").unwrap_or(&vm.name);
    let short: String = host
        .split('.')
        .next()
        .unwrap_or(host)
        .chars()
        .take(63)
        .collect();
    found.insert("vm.kubevirt.io/name".to_owned(), short);
    found.insert("kubevirt.io".to_owned(), "virt-launcher".to_owned());
    found
}
