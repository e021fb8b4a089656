//! The webhooks of snapshots, restores and clones, and what a VM may not do while one is under way.

use serde_json::Value;

use super::refuse;
use crate::lab::api::{ApiError, Cause, Review, meta};
use crate::lab::vm::keys::{items, run_strategy};
use crate::lab::vm::snapshot::RESTORE;

/// What is wrong with the VM that an object names.
fn machine(at: &str, named: &Value) -> Option<Cause> {
    let (kind, field, message) = match (named["apiGroup"].as_str(), named["kind"].as_str()) {
        (None, _) => ("FieldValueNotFound", "apiGroup", "missing apiGroup"),
        (Some("kubevirt.io"), Some("VirtualMachine")) => return None,
        (Some("kubevirt.io"), _) => ("FieldValueInvalid", "kind", "invalid kind"),
        (Some(_), _) => ("FieldValueInvalid", "apiGroup", "invalid apiGroup"),
    };
    Some(Cause::new(kind, format!("{at}.{field}"), message))
}

/// A change of what must not change, if the object is not new.
fn immutable(review: &Review<'_>, object: &Value) -> Option<Vec<Cause>> {
    let old = review.old?;
    let same = old["spec"] == object["spec"];
    let why = "spec in immutable after creation";
    let cause = (!same).then(|| Cause::new("FieldValueInvalid", "spec", why));
    Some(cause.into_iter().collect())
}

/// A VirtualMachineSnapshot.
pub(super) fn snapshot(review: &Review<'_>, object: &Value) -> Result<(), ApiError> {
    let hook = "virtualmachinesnapshot-validator.snapshot.kubevirt.io";
    let causes = immutable(review, object).unwrap_or_else(|| {
        machine("spec.source", &object["spec"]["source"])
            .into_iter()
            .collect()
    });
    refuse(hook, &causes)
}

/// A VirtualMachineRestore.
pub(super) fn restore(review: &Review<'_>, object: &Value) -> Result<(), ApiError> {
    let hook = "virtualmachinerestore-validator.snapshot.kubevirt.io";
    if let Some(causes) = immutable(review, object) {
        return refuse(hook, &causes);
    }
    let spec = &object["spec"];
    let mut causes: Vec<Cause> = machine("spec.target", &spec["target"])
        .into_iter()
        .collect();
    if causes.is_empty() {
        causes.extend(patches(items(spec, "/patches")));
        causes.extend(overrides(items(spec, "/volumeRestoreOverrides")));
        causes.extend(policies(spec));
    }
    for other in review.store.list(RESTORE, Some(review.namespace)) {
        let complete = other.pointer("/status/complete") == Some(&Value::Bool(true));
        // One that failed counts as in progress for ever.
        if other["spec"]["target"] == spec["target"] && !complete {
            let why = format!(
                "VirtualMachineRestore \"{}\" in progress",
                meta::name(&other)
            );
            causes.push(Cause::new("FieldValueInvalid", "spec.target", why));
        }
    }
    refuse(hook, &causes)
}

/// A patch is taken apart at commas and colons, so a value with a colon in it is refused.
fn patches(patches: &[Value]) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut bad = |why: String| causes.push(Cause::new("FieldValueInvalid", "spec.patches", why));
    for patch in patches {
        let patch = patch.as_str().unwrap_or_default();
        for pair in patch.trim_matches(['{', '}']).split(',') {
            let parts: Vec<&str> = pair.split(':').map(str::trim).collect();
            let [key, value] = parts.as_slice() else {
                bad(format!(
                    "patch format is not valid - one \":\" expected in a single key-value json \
                     patch: {pair}"
                ));
                continue;
            };
            let allowed = [
                "\"/metadata/labels/",
                "\"/metadata/annotations/",
                "\"/spec/",
            ];
            if *key == "\"path\"" && allowed.iter().all(|start| !value.starts_with(start)) {
                bad(format!(
                    "patching is valid only for elements under /spec/ only: {pair}"
                ));
            }
        }
    }
    causes
}

fn overrides(overrides: &[Value]) -> Vec<Cause> {
    let mut causes = Vec::new();
    for (at, one) in overrides.iter().enumerate() {
        let field = format!("spec.volumeRestoreOverrides[{at}]");
        if meta::text(one, "/volumeName").is_empty() {
            let named = format!("{field}.volumeName");
            causes.push(Cause::new(
                "FieldValueRequired",
                named,
                "must provide a volume name",
            ));
        }
        let empty = ["restoreName", "labels", "annotations"]
            .iter()
            .all(|f| one[*f].is_null());
        if empty {
            let why = "must provide at least one overriden field";
            causes.push(Cause::new("FieldValueRequired", field, why));
        }
    }
    causes
}

fn policies(spec: &Value) -> Vec<Cause> {
    let known: [(&str, &str, &[&str]); 2] = [
        (
            "volumeRestorePolicy",
            "volume restore policy",
            &["InPlace", "RandomizeNames", "PrefixTargetName"],
        ),
        (
            "volumeOwnershipPolicy",
            "volume ownership policy",
            &["Vm", "None"],
        ),
    ];
    let wrong = known.iter().filter_map(|(field, word, values)| {
        let given = spec[*field].as_str()?;
        let why = format!("{word} \"{given}\" doesn't exist");
        (!values.contains(&given))
            .then(|| Cause::new("FieldValueInvalid", format!("spec.{field}"), why))
    });
    wrong.collect()
}

/// A VirtualMachineClone.
pub(super) fn clone(review: &Review<'_>, object: &Value) -> Result<(), ApiError> {
    let hook = "vm-clone-validator.clone.kubevirt.io";
    if let Some(causes) = immutable(review, object) {
        return refuse(hook, &causes);
    }
    let spec = &object["spec"];
    let mut causes: Vec<Cause> = machine("spec.source", &spec["source"])
        .into_iter()
        .collect();
    if spec["target"].is_object() {
        causes.extend(machine("spec.target", &spec["target"]));
        let (from, to) = (&spec["source"]["name"], &spec["target"]["name"]);
        if from == to {
            let why =
                "Target name cannot be equal to source name when both are in the same namespace";
            causes.push(Cause::new("FieldValueInvalid", "spec.target", why));
        }
    }
    refuse(hook, &causes)
}

/// A VM is neither started while a restore of it is under way, nor given other volumes or another
/// run strategy while a snapshot is.
pub(super) fn under_way(review: &Review<'_>, vm: &Value) -> Result<(), ApiError> {
    let Some(old) = review.old.filter(|old| old["spec"] != vm["spec"]) else {
        return Ok(());
    };
    let no = |why: String| {
        let cause = Cause::new("FieldValueNotSupported", "spec", why);
        refuse("virtualmachine-validator.kubevirt.io", &[cause])
    };
    let restore = meta::text(old, "/status/restoreInProgress");
    if !restore.is_empty() && run_strategy(vm) != "Halted" {
        return no(format!(
            "Cannot start VM until restore \"{restore}\" completes"
        ));
    }
    let snapshot = meta::text(old, "/status/snapshotInProgress");
    if snapshot.is_empty() {
        return Ok(());
    }
    let volumes = "/spec/template/spec/volumes";
    if items(old, volumes) != items(vm, volumes) {
        return no(format!(
            "Cannot update vm disks or volumes until snapshot \"{snapshot}\" completes"
        ));
    }
    if run_strategy(old) != run_strategy(vm) {
        return no(format!(
            "Cannot update vm running state until snapshot \"{snapshot}\" completes"
        ));
    }
    Ok(())
}
