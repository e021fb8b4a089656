//! What the CRDs want: which fields there are, of what shape, and which must be there.
//!
//! Only what an API server refuses or prunes is said here; what a controller makes of a value is a rule.

use serde_json::Value;

use super::object::Kind;
use crate::plan::problem::closest;
use crate::workload::recipe::describe;

/// The shape of a field.
#[derive(Debug, Clone, Copy)]
enum Shape {
    /// Anything; nobody looks into it.
    Any,
    /// A mapping whose fields are rows of their own.
    Map,
    /// A list of mappings whose fields are rows of their own, below `*`.
    List,
    Text,
    Flag,
    /// A list of texts.
    Texts,
    /// A mapping of texts.
    TextMap,
    /// A mapping of lists of texts.
    ListMap,
    /// A LabelSelector.
    Selector,
    /// One of these words.
    Word(&'static [&'static str]),
    /// `5m`, `1h`, `1d`.
    Interval,
    /// The same, or nothing.
    MaybeInterval,
}

/// Path below `spec`, shape, and whether it must be there when what is around it is.
type Row = (&'static str, Shape, bool);

use Shape::{
    Any, Flag, Interval, List, ListMap, Map, MaybeInterval, Selector, Text, TextMap, Texts, Word,
};

/// What the API server holds against an object.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Objection {
    /// It refuses the object.
    Refused { path: String, what: String },
    /// It drops a field that it does not know.
    Unknown { path: String, what: String },
}

/// Everything that it holds against a spec.
pub(super) fn objections(kind: Kind, value: &Value) -> Vec<Objection> {
    let rows = rows(kind);
    let mut out = Vec::new();
    if rows.is_empty() {
        return out;
    }
    let spec = &value["spec"];
    if spec.is_null() {
        out.push(Objection::Refused {
            path: String::new(),
            what: "`spec` is missing".to_owned(),
        });
        return out;
    }
    map(&rows, "", "spec", spec, &mut out);
    out
}

/// A mapping whose fields are the rows right below `prefix`.
fn map(rows: &[Row], prefix: &str, path: &str, value: &Value, out: &mut Vec<Objection>) {
    let Some(fields) = value.as_object() else {
        refuse(
            out,
            path,
            format!(
                "{} is {}, and must be a mapping",
                last(path),
                describe(value)
            ),
        );
        return;
    };
    let below = |row: &&Row| {
        let rest = row.0.strip_prefix(prefix);
        rest.is_some_and(|rest| !rest.is_empty() && !rest.contains('/'))
    };
    let own: Vec<&Row> = rows.iter().filter(below).collect();
    let name = |row: &Row| row.0[prefix.len()..].to_owned();
    for row in &own {
        let key = name(row);
        match fields.get(&key).filter(|value| !value.is_null()) {
            Some(value) => field(rows, row, &format!("{path}/{key}"), value, out),
            None if row.2 => refuse(
                out,
                path,
                format!("`{path}/{key}` is missing, and the CRD requires it"),
            ),
            None => {}
        }
    }
    for key in fields.keys() {
        let known: Vec<String> = own.iter().map(|row| name(row)).collect();
        if !known.contains(key) {
            let hint = closest(key, known.iter().map(String::as_str));
            let hint = hint.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            out.push(Objection::Unknown {
                path: format!("{path}/{key}"),
                what: format!("there is no field `{path}/{key}`{hint}"),
            });
        }
    }
}

fn field(rows: &[Row], row: &Row, path: &str, value: &Value, out: &mut Vec<Objection>) {
    let all_texts = |items: &Vec<Value>| items.iter().all(Value::is_string);
    let (fine, wanted): (bool, &str) = match row.1 {
        Any => (true, ""),
        Map => return map(rows, &format!("{}/", row.0), path, value, out),
        List => match value.as_array() {
            Some(items) => {
                for (index, item) in items.iter().enumerate() {
                    map(
                        rows,
                        &format!("{}/*/", row.0),
                        &format!("{path}/{index}"),
                        item,
                        out,
                    );
                }
                return;
            }
            None => (false, "a list"),
        },
        Text => (value.is_string(), "a text"),
        Flag => (value.is_boolean(), "true or false"),
        Texts => (value.as_array().is_some_and(all_texts), "a list of texts"),
        TextMap => (
            value
                .as_object()
                .is_some_and(|map| map.values().all(Value::is_string)),
            "a mapping of texts",
        ),
        ListMap => (
            value.as_object().is_some_and(|map| {
                let mut lists = map.values().map(Value::as_array);
                lists.all(|list| list.is_some_and(all_texts))
            }),
            "a mapping of lists of texts",
        ),
        Selector => (
            super::claims::is_selector(value),
            "a LabelSelector: a mapping with `matchLabels` or `matchExpressions`",
        ),
        Interval => (interval(value, false), "a number with m, h or d behind it"),
        MaybeInterval => (
            interval(value, true),
            "a number with m, h or d behind it, or empty",
        ),
        Word(words) => return word(words, path, value, out),
    };
    if !fine {
        let what = if matches!(row.1, Interval | MaybeInterval) && value.is_string() {
            format!("{} is {value}, and must be {wanted}", last(path))
        } else {
            format!(
                "{} is {}, and must be {wanted}",
                last(path),
                describe(value)
            )
        };
        refuse(out, path, what);
    }
}

fn word(words: &[&str], path: &str, value: &Value, out: &mut Vec<Objection>) {
    if value.as_str().is_some_and(|text| words.contains(&text)) {
        return;
    }
    let what = format!(
        "{} is {value}, and must be one of {}",
        last(path),
        words.join(", ")
    );
    refuse(out, path, what);
}

fn interval(value: &Value, or_empty: bool) -> bool {
    let Some(text) = value.as_str() else {
        return false;
    };
    let number = text.strip_suffix(['m', 'h', 'd']).unwrap_or_default();
    let digits = !number.is_empty() && number.chars().all(|c| c.is_ascii_digit());
    digits || (or_empty && text.is_empty())
}

fn refuse(out: &mut Vec<Objection>, path: &str, what: String) {
    out.push(Objection::Refused {
        path: path.to_owned(),
        what,
    });
}

/// The last name of a path, in the words of a finding.
fn last(path: &str) -> String {
    format!("`{path}`")
}

const STATES: Shape = Word(&["primary", "secondary", "resync"]);
const ACTIONS: Shape = Word(&["Failover", "Relocate"]);
const FENCES: Shape = Word(&["Unfenced", "Fenced", "ManuallyFenced", "ManuallyUnfenced"]);

/// The rows of a kind; empty for kinds whose CRDs are not held against them here.
fn rows(kind: Kind) -> Vec<Row> {
    let (own, shared): (&[Row], &[Row]) = match kind {
        Kind::Vrg => (VRG, PROTECTION),
        Kind::Drpc => (DRPC, PROTECTION),
        other => (single(other), &[]),
    };
    [own, shared].concat()
}

const fn single(kind: Kind) -> &'static [Row] {
    match kind {
        Kind::Recipe => RECIPE,
        Kind::DrPolicy => &[
            ("drClusters", Texts, true),
            ("networkMappingRef", Any, false),
            ("replicationClassSelector", Selector, false),
            ("schedulingInterval", MaybeInterval, true),
            ("volumeGroupSnapshotClassSelector", Selector, false),
            ("volumeSnapshotClassSelector", Selector, false),
        ],
        Kind::DrCluster => &[
            ("cidrs", Texts, false),
            ("clusterFence", FENCES, false),
            ("region", Text, false),
            ("s3ProfileName", Text, true),
        ],
        Kind::Vr => &[
            ("autoResync", Flag, false),
            ("dataSource", Map, true),
            ("dataSource/apiGroup", Text, false),
            ("dataSource/kind", Text, true),
            ("dataSource/name", Text, true),
            ("replicationHandle", Text, false),
            ("replicationState", STATES, true),
            ("volumeReplicationClass", Text, true),
        ],
        Kind::Vgr => &[
            ("autoResync", Flag, false),
            ("external", Flag, false),
            ("replicationState", STATES, true),
            ("source", Map, true),
            ("source/selector", Selector, true),
            ("volumeGroupReplicationClassName", Text, true),
            ("volumeGroupReplicationContentName", Text, false),
            ("volumeReplicationClassName", Text, false),
            ("volumeReplicationName", Text, false),
        ],
        Kind::VrClass | Kind::VgrClass => {
            &[("parameters", TextMap, false), ("provisioner", Text, true)]
        }
        Kind::Fence => &[
            ("cidrs", Texts, true),
            ("driver", Text, false),
            ("fenceState", Word(&["Fenced", "Unfenced"]), false),
            ("networkFenceClassName", Text, false),
            ("parameters", TextMap, false),
            ("secret", Any, false),
        ],
        _ => &[],
    }
}

/// Types and required fields of a Recipe are read by `workload::recipe`; here are its names only.
const RECIPE: &[Row] = &[
    ("appType", Any, false),
    ("volumes", Any, false),
    ("groups", List, false),
    ("groups/*/name", Any, false),
    ("groups/*/type", Any, false),
    ("groups/*/backupRef", Any, false),
    ("groups/*/essential", Any, false),
    ("groups/*/excludedNamespaces", Any, false),
    ("groups/*/excludedResourceTypes", Any, false),
    ("groups/*/includeClusterResources", Any, false),
    ("groups/*/includedNamespaces", Any, false),
    ("groups/*/includedNamespacesByLabel", Any, false),
    ("groups/*/includedResourceTypes", Any, false),
    ("groups/*/labelSelector", Any, false),
    ("groups/*/nameSelector", Any, false),
    ("groups/*/parent", Any, false),
    ("groups/*/restoreOverwriteResources", Any, false),
    ("groups/*/restoreStatus", Any, false),
    ("groups/*/selectResource", Any, false),
    ("hooks", List, false),
    ("hooks/*/name", Any, false),
    ("hooks/*/namespace", Any, false),
    ("hooks/*/type", Any, false),
    ("hooks/*/selectResource", Any, false),
    ("hooks/*/labelSelector", Any, false),
    ("hooks/*/nameSelector", Any, false),
    ("hooks/*/singlePodOnly", Any, false),
    ("hooks/*/onError", Any, false),
    ("hooks/*/timeout", Any, false),
    ("hooks/*/essential", Any, false),
    ("hooks/*/skipHookIfNotPresent", Any, false),
    ("hooks/*/ops", List, false),
    ("hooks/*/ops/*/name", Any, false),
    ("hooks/*/ops/*/container", Any, false),
    ("hooks/*/ops/*/command", Any, false),
    ("hooks/*/ops/*/onError", Any, false),
    ("hooks/*/ops/*/timeout", Any, false),
    ("hooks/*/ops/*/inverseOp", Any, false),
    ("hooks/*/chks", List, false),
    ("hooks/*/chks/*/name", Any, false),
    ("hooks/*/chks/*/condition", Any, false),
    ("hooks/*/chks/*/onError", Any, false),
    ("hooks/*/chks/*/timeout", Any, false),
    ("jobs", Any, false),
    ("workflows", List, false),
    ("workflows/*/name", Any, false),
    ("workflows/*/failOn", Any, false),
    ("workflows/*/sequence", Any, false),
];

const VRG: &[Row] = &[
    ("action", ACTIONS, false),
    ("async", Map, false),
    ("async/peerClasses", Any, false),
    ("async/replicationClassSelector", Selector, false),
    ("async/schedulingInterval", Interval, true),
    ("async/volumeGroupSnapshotClassSelector", Selector, false),
    ("async/volumeSnapshotClassSelector", Selector, false),
    ("dryRun", Flag, false),
    ("prepareForFinalSync", Flag, false),
    ("protectedNamespaces", Texts, false),
    ("pvcSelector", Selector, true),
    ("replicationState", Text, true),
    ("runFinalSync", Flag, false),
    ("s3Profiles", Texts, true),
    ("staticIPTranslationSpec", Any, false),
    ("sync", Any, false),
    ("volSync", Any, false),
];

const DRPC: &[Row] = &[
    ("action", ACTIONS, false),
    ("drPolicyRef", Any, true),
    ("dryRun", Flag, false),
    ("failoverCluster", Text, false),
    ("placementRef", Any, true),
    ("preferredCluster", Text, false),
    ("protectedNamespaces", Texts, false),
    ("pvcSelector", Selector, true),
    ("retainNamespaceSCCAcrossPeers", Flag, false),
    ("volSyncSpec", Any, false),
];

/// What both protect Kubernetes objects by.
const PROTECTION: &[Row] = &[
    ("kubeObjectProtection", Map, false),
    ("kubeObjectProtection/captureInterval", Text, false),
    ("kubeObjectProtection/kubeObjectSelector", Selector, false),
    ("kubeObjectProtection/recipeParameters", ListMap, false),
    ("kubeObjectProtection/recipeRef", Map, false),
    ("kubeObjectProtection/recipeRef/name", Text, false),
    ("kubeObjectProtection/recipeRef/namespace", Text, false),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::plan::yaml;

    /// Kinds with rows, and the files that publish them.
    const PUBLISHED: &[(Kind, &str)] = &[
        (Kind::Recipe, "recipe/ramendr.openshift.io_recipes.yaml"),
        (
            Kind::Vrg,
            "ramen/ramendr.openshift.io_volumereplicationgroups.yaml",
        ),
        (
            Kind::Drpc,
            "ramen/ramendr.openshift.io_drplacementcontrols.yaml",
        ),
        (Kind::DrPolicy, "ramen/ramendr.openshift.io_drpolicies.yaml"),
        (
            Kind::DrCluster,
            "ramen/ramendr.openshift.io_drclusters.yaml",
        ),
        (
            Kind::Vr,
            "csi-addons/replication.storage.openshift.io_volumereplications.yaml",
        ),
        (
            Kind::Vgr,
            "csi-addons/replication.storage.openshift.io_volumegroupreplications.yaml",
        ),
        (
            Kind::VrClass,
            "csi-addons/replication.storage.openshift.io_volumereplicationclasses.yaml",
        ),
        (
            Kind::VgrClass,
            "csi-addons/replication.storage.openshift.io_volumegroupreplicationclasses.yaml",
        ),
        (
            Kind::Fence,
            "csi-addons/csiaddons.openshift.io_networkfences.yaml",
        ),
    ];

    /// Fields of newer CRDs than the published one, which a rule warns of.
    const NEWER: &[&str] = &["jobs", "hooks/*/skipHookIfNotPresent"];

    fn published() -> Option<PathBuf> {
        let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/crds");
        let dir = std::env::var_os("VIRTPROOF_CRDS").map_or(beside, PathBuf::from);
        dir.is_dir().then_some(dir)
    }

    /// The fields right below a place of a schema, and those that an author must write.
    fn fields(schema: &Value) -> (BTreeSet<String>, BTreeSet<String>) {
        let properties = schema["properties"].as_object();
        let names = properties
            .into_iter()
            .flatten()
            .map(|(name, _)| name.clone())
            .collect();
        let required = schema["required"].as_array().into_iter().flatten();
        let required = required.filter_map(Value::as_str);
        // The API server fills defaults in before it looks for what is missing.
        let written = required.filter(|name| schema["properties"][name]["default"].is_null());
        (names, written.map(str::to_owned).collect())
    }

    fn compare(kind: Kind, prefix: &str, schema: &Value) {
        let all = rows(kind);
        let rows: Vec<&Row> = all
            .iter()
            .filter(|row| {
                row.0
                    .strip_prefix(prefix)
                    .is_some_and(|rest| !rest.contains('/'))
            })
            .collect();
        let (names, required) = fields(schema);
        let own = |row: &&&Row| !NEWER.contains(&row.0);
        let ours = rows
            .iter()
            .filter(own)
            .map(|row| row.0[prefix.len()..].to_owned());
        assert_eq!(ours.collect::<BTreeSet<_>>(), names, "{kind:?} {prefix}");
        if kind != Kind::Recipe {
            let ours = rows
                .iter()
                .filter(|row| row.2)
                .map(|row| row.0[prefix.len()..].to_owned());
            assert_eq!(ours.collect::<BTreeSet<_>>(), required, "{kind:?} {prefix}");
        }
        for row in rows {
            let below = &schema["properties"][&row.0[prefix.len()..]];
            match row.1 {
                Map => compare(kind, &format!("{}/", row.0), below),
                List => compare(kind, &format!("{}/*/", row.0), &below["items"]),
                Word(words) => {
                    let listed = below["enum"].as_array().into_iter().flatten();
                    let listed: BTreeSet<&str> = listed.filter_map(Value::as_str).collect();
                    assert_eq!(
                        words.iter().copied().collect::<BTreeSet<_>>(),
                        listed,
                        "{}",
                        row.0
                    );
                }
                Interval => assert_eq!(below["pattern"], "^\\d+[mhd]$", "{}", row.0),
                MaybeInterval => assert_eq!(below["pattern"], "^(|\\d+[mhd])$", "{}", row.0),
                _ => {}
            }
        }
    }

    #[test]
    fn rows_are_those_of_the_published_crds() {
        let Some(dir) = published() else {
            eprintln!("SKIPPED: no published CRDs here");
            return;
        };
        for (kind, file) in PUBLISHED {
            let text = std::fs::read_to_string(dir.join(file)).unwrap();
            let crd = yaml::parse(&text, true).unwrap().remove(0).to_value();
            let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            compare(*kind, "", &schema["properties"]["spec"]);
        }
    }
}
