//! The documents of a manifest by kind: exactly one VM, and what may stand beside it.

use serde_json::Value;

use crate::plan::problem::{Problems, suggest};
use crate::plan::yaml::{At, Kind, Node};

/// The kinds that may stand beside the VM, with their apiVersions.
const KINDS: &[(&str, &str)] = &[
    ("VirtualMachine", "kubevirt.io/v1"),
    ("Secret", "v1"),
    ("ConfigMap", "v1"),
    ("Service", "v1"),
    ("PersistentVolumeClaim", "v1"),
    ("DataVolume", "cdi.kubevirt.io/v1beta1"),
];

/// A document with its places.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Object {
    node: Node,
    /// The document itself.
    pub(super) value: Value,
}

impl Object {
    /// A document that no text stands for.
    pub(super) fn added(value: Value) -> Self {
        Self {
            node: Node {
                at: At::default(),
                kind: Kind::Null,
            },
            value,
        }
    }

    /// `metadata.name`.
    pub(super) fn name(&self) -> &str {
        self.value["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// The place of a path of keys and indices separated by `/`, or of its nearest ancestor.
    pub(super) fn at(&self, path: &str) -> At {
        let steps: Vec<&str> = path.split('/').filter(|step| !step.is_empty()).collect();
        self.node.place(&steps)
    }
}

/// A sorted manifest.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Manifest {
    /// The VM.
    pub(super) vm: Object,
    /// Secrets.
    pub(super) secrets: Vec<Object>,
    /// ConfigMaps.
    pub(super) config_maps: Vec<Object>,
    /// Services.
    pub(super) services: Vec<Object>,
    /// PersistentVolumeClaims.
    pub(super) claims: Vec<Object>,
    /// DataVolumes that stand by themselves.
    pub(super) data_volumes: Vec<Object>,
}

impl Manifest {
    /// Sorts documents by kind, or reports why they are no manifest of one VM.
    pub(super) fn sort(documents: Vec<Node>, problems: &mut Problems<'_>) -> Option<Self> {
        let mut sorted: Vec<Vec<Object>> = KINDS.iter().map(|_| Vec::new()).collect();
        for node in documents {
            let Some(index) = kind_of(&node, problems) else {
                continue;
            };
            let object = Object {
                value: node.to_value(),
                node,
            };
            if sorted[index]
                .iter()
                .any(|other| other.name() == object.name())
            {
                problems.add(
                    object.at("metadata/name"),
                    format!(
                        "there are two {}s named `{}`",
                        KINDS[index].0,
                        object.name()
                    ),
                    "distinct names",
                    "rename or remove one",
                );
            }
            sorted[index].push(object);
        }
        let [
            mut vms,
            secrets,
            config_maps,
            services,
            claims,
            data_volumes,
        ] = <[Vec<Object>; 6]>::try_from(sorted).ok()?;
        if let Some(second) = vms.get(1) {
            problems.add(
                second.at("kind"),
                "there is more than one VirtualMachine",
                "exactly one VM per template",
                "split the manifest; `count` in the plan multiplies a VM",
            );
        }
        if vms.is_empty() && problems.is_empty() {
            problems.add(
                At::default(),
                "there is no VirtualMachine",
                "exactly one VM per template",
                "add a document with `kind: VirtualMachine`",
            );
        }
        let vm = (!vms.is_empty()).then(|| vms.swap_remove(0))?;
        Some(Self {
            vm,
            secrets,
            config_maps,
            services,
            claims,
            data_volumes,
        })
    }
}

/// The index of a document's kind in [`KINDS`], when it is a well-formed object of one of them.
fn kind_of(node: &Node, problems: &mut Problems<'_>) -> Option<usize> {
    if !matches!(node.kind, Kind::Map(_)) {
        let what = format!("the document is {}", node.describe());
        problems.add(node.at, what, "a Kubernetes object", "remove or correct it");
        return None;
    }
    let text = |path: &[&str]| {
        let found = path.iter().try_fold(node, |node, key| node.get(key));
        match found.map(|node| &node.kind) {
            Some(Kind::Text(text)) if !text.is_empty() => Some(text.as_str()),
            _ => None,
        }
    };
    for path in [&["apiVersion"][..], &["kind"], &["metadata", "name"]] {
        if text(path).is_none() {
            let what = format!("the object lacks `{}`", path.join("."));
            problems.add(node.at, what, "text", format!("add `{}:`", path.join(".")));
            return None;
        }
    }
    let (kind, version) = (text(&["kind"])?, text(&["apiVersion"])?);
    let Some(index) = KINDS.iter().position(|(known, _)| *known == kind) else {
        let fix = match kind {
            "VirtualMachineInstance" => {
                "make it the `spec.template` of a VirtualMachine".to_owned()
            }
            "Namespace" => "remove it: virtproof makes a namespace for each run".to_owned(),
            _ => suggest(
                kind,
                KINDS.iter().map(|(known, _)| *known),
                "apply it to both clusters beforehand and remove it here",
            ),
        };
        let names: Vec<&str> = KINDS.iter().map(|(known, _)| *known).collect();
        let expected = format!("one of {}", names.join(", "));
        let what = format!("a {kind} cannot be part of a template");
        problems.add(node.place(&["kind"]), what, expected, fix);
        return None;
    };
    if version != KINDS[index].1 {
        problems.add(
            node.place(&["apiVersion"]),
            format!("{kind} has the apiVersion `{version}`"),
            format!("`{}`", KINDS[index].1),
            "convert the object",
        );
        return None;
    }
    Some(index)
}
