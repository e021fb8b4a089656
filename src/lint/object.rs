//! The objects of all texts, with their places.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use serde_json::Value;

use super::Source;
use super::finding::{Finding, Rule, Severity};
use crate::plan::problem::visible;
use crate::plan::yaml::{self, At, Kind as YamlKind, Malformed, Node};

/// The kinds that rules look at, and those that other objects' rules need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Recipe,
    Vrg,
    Drpc,
    DrPolicy,
    DrCluster,
    Placement,
    Vr,
    Vgr,
    VrClass,
    VgrClass,
    Fence,
    Vm,
    DataVolume,
    Claim,
    Secret,
    ConfigMap,
}

/// Kind, API group, name, and the versions that are current.
const KINDS: &[(Kind, &str, &str, &[&str])] = &[
    (Kind::Recipe, RAMEN, "Recipe", &["v1alpha1"]),
    (Kind::Vrg, RAMEN, "VolumeReplicationGroup", &["v1alpha1"]),
    (Kind::Drpc, RAMEN, "DRPlacementControl", &["v1alpha1"]),
    (Kind::DrPolicy, RAMEN, "DRPolicy", &["v1alpha1"]),
    (Kind::DrCluster, RAMEN, "DRCluster", &["v1alpha1"]),
    (
        Kind::Placement,
        "cluster.open-cluster-management.io",
        "Placement",
        &["v1beta1", "v1beta2"],
    ),
    (Kind::Vr, REPLICATION, "VolumeReplication", &["v1alpha1"]),
    (
        Kind::Vgr,
        REPLICATION,
        "VolumeGroupReplication",
        &["v1alpha1"],
    ),
    (
        Kind::VrClass,
        REPLICATION,
        "VolumeReplicationClass",
        &["v1alpha1"],
    ),
    (
        Kind::VgrClass,
        REPLICATION,
        "VolumeGroupReplicationClass",
        &["v1alpha1"],
    ),
    (
        Kind::Fence,
        "csiaddons.openshift.io",
        "NetworkFence",
        &["v1alpha1"],
    ),
    (Kind::Vm, "kubevirt.io", "VirtualMachine", &["v1"]),
    (
        Kind::DataVolume,
        "cdi.kubevirt.io",
        "DataVolume",
        &["v1beta1"],
    ),
    (Kind::Claim, "", "PersistentVolumeClaim", &["v1"]),
    (Kind::Secret, "", "Secret", &["v1"]),
    (Kind::ConfigMap, "", "ConfigMap", &["v1"]),
];

const RAMEN: &str = "ramendr.openshift.io";
const REPLICATION: &str = "replication.storage.openshift.io";

impl Kind {
    /// Whether there are rules for it.
    pub(super) const fn has_rules(self) -> bool {
        !matches!(self, Self::Secret | Self::ConfigMap)
    }

    /// Its name in manifests.
    pub(super) fn name(self) -> &'static str {
        KINDS
            .iter()
            .find(|(kind, ..)| *kind == self)
            .map_or("", |(_, _, name, _)| name)
    }
}

/// An object for whose kind there are no rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// The file.
    pub file: String,
    /// Line from 1.
    pub line: u64,
    /// Its kind, or what it is instead of an object.
    pub kind: String,
}

/// An object.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) kind: Kind,
    pub(super) file: String,
    pub(super) name: String,
    /// Empty when it names none.
    pub(super) namespace: String,
    pub(super) value: Value,
    /// The right apiVersion, if it has another.
    pub(super) outdated: Option<String>,
    node: Node,
}

impl Object {
    /// The place of a path of keys and indices separated by `/` (a slash in a key is `~1`), or of its
    /// nearest ancestor. A place is where the value starts.
    pub(super) fn at(&self, path: &str) -> At {
        let steps = path.split('/').filter(|step| !step.is_empty());
        let steps: Vec<String> = steps.map(|step| step.replace("~1", "/")).collect();
        let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
        self.node.place(&steps)
    }

    /// The value at a path such as `spec/template`; null if there is none.
    pub(super) fn get(&self, path: &str) -> &Value {
        self.value
            .pointer(&format!("/{path}"))
            .unwrap_or(&Value::Null)
    }

    /// The items of the list at a path, each with its own path.
    pub(super) fn items<'a>(
        &'a self,
        path: &str,
    ) -> impl Iterator<Item = (String, &'a Value)> + use<'a> {
        let path = path.to_owned();
        let items = self.get(&path).as_array().into_iter().flatten().enumerate();
        items.map(move |(index, item)| (format!("{path}/{index}"), item))
    }

    /// The text at a path.
    pub(super) fn text(&self, path: &str) -> Option<&str> {
        self.get(path).as_str().filter(|text| !text.is_empty())
    }

    /// Whether an annotation has a value.
    pub(super) fn annotated(&self, key: &str, value: &str) -> bool {
        self.get("metadata")["annotations"][key] == value
    }

    /// Its labels.
    pub(super) fn labels(&self) -> BTreeMap<String, String> {
        labels(&self.get("metadata")["labels"])
    }

    /// Whether it can be in the namespace of another: an object that names none can be in any.
    pub(super) fn beside(&self, namespace: &str) -> bool {
        self.namespace.is_empty() || namespace.is_empty() || self.namespace == namespace
    }

    /// How findings call it.
    pub(super) fn title(&self) -> String {
        let slash = if self.namespace.is_empty() { "" } else { "/" };
        format!(
            "{} {}{slash}{}",
            self.kind.name(),
            self.namespace,
            self.name
        )
    }
}

/// A mapping of texts.
pub(super) fn labels(value: &Value) -> BTreeMap<String, String> {
    let entries = value.as_object().into_iter().flatten();
    entries
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

/// All objects.
#[derive(Debug, Default)]
pub(super) struct Set {
    pub(super) objects: Vec<Object>,
}

impl Set {
    /// Reads all texts.
    pub(super) fn read(sources: &[Source]) -> (Self, Vec<Skipped>, Vec<(String, Malformed)>) {
        let (mut set, mut skipped, mut malformed) = (Self::default(), Vec::new(), Vec::new());
        for source in sources {
            match yaml::parse(&source.text, true) {
                Ok(documents) => {
                    let defaults = defaults(&source.text);
                    for node in documents {
                        set.take(node, &source.name, &defaults, &mut skipped);
                    }
                }
                Err(bad) => malformed.push((source.name.clone(), bad)),
            }
        }
        (set, skipped, malformed)
    }

    fn take(
        &mut self,
        node: Node,
        file: &str,
        defaults: &HashMap<String, String>,
        skipped: &mut Vec<Skipped>,
    ) {
        let text = |key: &str| match node.get(key).map(|node| &node.kind) {
            Some(YamlKind::Text(text)) => text.clone(),
            _ => String::new(),
        };
        let (version, kind) = (text("apiVersion"), text("kind"));
        if kind == "List"
            && let Some(Node {
                kind: YamlKind::List(items),
                ..
            }) = node.get("items")
        {
            for item in items.clone() {
                self.take(item, file, defaults, skipped);
            }
            return;
        }
        let (group, version_only) = version.rsplit_once('/').unwrap_or(("", &version));
        // A Recipe of a neighbouring group is the one that its author meant.
        let near = |wanted: &str| group == wanted || (wanted == RAMEN && group.contains("ramen"));
        let known = KINDS
            .iter()
            .find(|(_, wanted, name, _)| *name == kind && near(wanted));
        let Some((known, wanted, _, versions)) = known else {
            let what = if kind.is_empty() {
                format!("{} without a kind", node.describe())
            } else {
                visible(format!("{kind} ({version})"))
            };
            skipped.push(Skipped {
                file: file.to_owned(),
                line: node.at.line,
                kind: what,
            });
            return;
        };
        let current = group == *wanted && versions.contains(&version_only);
        let slash = if wanted.is_empty() { "" } else { "/" };
        let mut value = node.to_value();
        if matches!(known, Kind::Vm | Kind::DataVolume | Kind::Claim) {
            fill(&mut value, defaults);
        }
        let metadata = |key: &str| {
            value["metadata"][key]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        self.objects.push(Object {
            kind: *known,
            file: file.to_owned(),
            name: metadata("name"),
            namespace: metadata("namespace"),
            outdated: (!current).then(|| format!("{wanted}{slash}{}", versions[0])),
            value,
            node,
        });
    }

    /// The objects of a kind.
    pub(super) fn of(&self, kind: Kind) -> impl Iterator<Item = &Object> {
        self.objects
            .iter()
            .filter(move |object| object.kind == kind)
    }

    /// Whether there is one of these kinds.
    pub(super) fn any(&self, kinds: &[Kind]) -> bool {
        self.objects
            .iter()
            .any(|object| kinds.contains(&object.kind))
    }
}

/// Findings that are being collected.
#[derive(Debug, Default)]
pub(super) struct Findings(pub(super) Vec<Finding>);

impl Findings {
    /// Adds a finding at a path of an object.
    pub(super) fn add(
        &mut self,
        rule: &'static Rule,
        object: &Object,
        path: &str,
        what: impl Into<String>,
    ) {
        self.add_as(rule.severity, rule, object, path, what);
    }

    /// The same with a severity of its own.
    pub(super) fn add_as(
        &mut self,
        severity: Severity,
        rule: &'static Rule,
        object: &Object,
        path: &str,
        what: impl Into<String>,
    ) {
        let at = object.at(path);
        self.0.push(Finding {
            rule: rule.id,
            severity,
            file: object.file.clone(),
            line: at.line,
            column: at.column,
            object: visible(object.title()),
            what: visible(what.into()),
            why: rule.why,
            fix: rule.fix,
            source: rule.source,
        });
    }
}

/// The defaults of a VM template's placeholders, `${NAME:=default}`.
fn defaults(text: &str) -> HashMap<String, String> {
    let mut found = HashMap::new();
    for piece in text.split("${").skip(1) {
        let inner = piece.split('}').next().unwrap_or_default();
        if let Some((name, default)) = inner.split_once(":=") {
            found.insert(name.to_owned(), default.to_owned());
        }
    }
    found
}

/// Puts the defaults into a VM template's values; a placeholder that fills a value without a default
/// leaves its field out, because nothing can be said of it.
fn fill(value: &mut Value, defaults: &HashMap<String, String>) {
    match value {
        Value::String(text) => {
            let name = text
                .strip_prefix("${")
                .and_then(|rest| rest.strip_suffix('}'));
            let name = name.map(|name| name.split(":=").next().unwrap_or(name));
            if let Some(default) = name.and_then(|name| defaults.get(name)) {
                *text = default.clone();
            } else if name.is_some_and(|name| !name.contains(['$', '{', '}'])) {
                *value = Value::Null;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| fill(item, defaults)),
        Value::Object(map) => map.values_mut().for_each(|value| fill(value, defaults)),
        _ => {}
    }
}
