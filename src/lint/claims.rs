//! The claims of the set: PVCs, DataVolumes and `dataVolumeTemplates`, and what selects them.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt as _};
use serde_json::Value;

use super::object::{Kind, Object, Set, labels};

/// A claim as a manifest makes it.
pub(super) struct Claim<'a> {
    pub(super) object: &'a Object,
    /// Where it stands in the object; empty for the object itself.
    pub(super) path: String,
    pub(super) name: String,
    /// The labels that the PVC will have.
    pub(super) labels: BTreeMap<String, String>,
    /// `spec.source` of a DataVolume.
    pub(super) source: Option<&'a Value>,
    pub(super) annotations: &'a Value,
    /// Empty when a StorageProfile chooses them.
    pub(super) modes: Vec<&'a str>,
}

/// Every claim of the set.
pub(super) fn all(set: &Set) -> Vec<Claim<'_>> {
    let mut claims: Vec<Claim<'_>> = set
        .objects
        .iter()
        .filter(|object| matches!(object.kind, Kind::Claim | Kind::DataVolume))
        .map(|object| claim(object, &object.value, String::new()))
        .collect();
    claims.extend(set.of(Kind::Vm).flat_map(templates));
    claims
}

/// The claims of a VM's `dataVolumeTemplates`.
pub(super) fn templates(vm: &Object) -> impl Iterator<Item = Claim<'_>> {
    let templates = vm.get("spec/dataVolumeTemplates").as_array();
    let indexed = templates.into_iter().flatten().enumerate();
    indexed.map(|(index, value)| claim(vm, value, format!("spec/dataVolumeTemplates/{index}")))
}

fn claim<'a>(object: &'a Object, value: &'a Value, path: String) -> Claim<'a> {
    let spec = &value["spec"];
    let is_claim = object.kind == Kind::Claim;
    let storage = [&spec["storage"], &spec["pvc"], spec];
    let modes = storage
        .iter()
        .find_map(|storage| storage["accessModes"].as_array());
    Claim {
        object,
        path,
        name: value["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
        labels: labels(&value["metadata"]["labels"]),
        source: (!is_claim).then_some(if spec["source"].is_null() {
            &spec["sourceRef"]
        } else {
            &spec["source"]
        }),
        annotations: &value["metadata"]["annotations"],
        modes: modes
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect(),
    }
}

/// The name of the claim of a VM's volume.
pub(super) fn of_volume(volume: &Value) -> Option<&str> {
    let claim = volume["persistentVolumeClaim"]["claimName"].as_str();
    claim.or_else(|| volume["dataVolume"]["name"].as_str())
}

/// Whether a value has the shape of a LabelSelector.
pub(super) fn is_selector(value: &Value) -> bool {
    value.is_object() && serde_json::from_value::<LabelSelector>(value.clone()).is_ok()
}

/// A selector as Kubernetes reads it; `None` when it cannot.
pub(super) fn selector(value: &Value) -> Option<Selector> {
    let selector: LabelSelector = serde_json::from_value(value.clone()).ok()?;
    Selector::try_from(selector).ok()
}

/// Whether a selector takes labels.
pub(super) fn takes(selector: &Selector, labels: &BTreeMap<String, String>) -> bool {
    selector.matches(labels)
}

/// The keys that a selector looks at.
pub(super) fn keys(value: &Value) -> Vec<&str> {
    let plain = value["matchLabels"].as_object().into_iter().flatten();
    let expressions = value["matchExpressions"].as_array().into_iter().flatten();
    plain
        .map(|(key, _)| key.as_str())
        .chain(expressions.filter_map(|expression| expression["key"].as_str()))
        .collect()
}
