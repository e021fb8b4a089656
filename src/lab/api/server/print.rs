//! The cells of tables: columns of built-in kinds, and JSON paths for custom ones.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::lab::api::meta;
use crate::lab::api::registry::Column;

/// The description of the Age column.
pub(super) const AGE: &str = "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.";

/// A column of a built-in kind.
#[derive(Clone, Copy)]
pub(super) struct Cell {
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
    pub(super) about: &'static str,
    pub(super) priority: i64,
    pub(super) print: fn(&Value) -> Value,
}

const fn cell(name: &'static str, print: fn(&Value) -> Value) -> Cell {
    Cell {
        name,
        kind: "string",
        about: "",
        priority: 0,
        print,
    }
}

const fn wide(name: &'static str, print: fn(&Value) -> Value) -> Cell {
    Cell {
        priority: 1,
        ..cell(name, print)
    }
}

const AGE_CELL: Cell = Cell {
    about: AGE,
    ..cell("Age", age)
};

/// Text at a pointer.
fn at(object: &Value, pointer: &str) -> Value {
    json!(meta::text(object, pointer))
}

/// Text at a pointer, or `<none>`, `<unset>` and the like.
fn or(object: &Value, pointer: &str, missing: &str) -> Value {
    match meta::text(object, pointer) {
        "" => json!(missing),
        text => json!(text),
    }
}

fn count(object: &Value, pointer: &str) -> usize {
    match object.pointer(pointer) {
        Some(Value::Object(map)) => map.len(),
        Some(Value::Array(list)) => list.len(),
        _ => 0,
    }
}

/// Time since creation.
pub(super) fn age(object: &Value) -> Value {
    since(meta::text(object, "/metadata/creationTimestamp"))
}

fn since(text: &str) -> Value {
    match text.parse::<Timestamp>() {
        Ok(at) => json!(human(Timestamp::now().as_second() - at.as_second())),
        Err(_) => json!("<unknown>"),
    }
}

/// A duration as `kubectl` writes it: two units at most.
fn human(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |big: i64, unit: &str, small: i64, small_unit: &str| {
        if small == 0 {
            format!("{big}{unit}")
        } else {
            format!("{big}{unit}{small}{small_unit}")
        }
    };
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1..120 => format!("{}s", seconds.max(0)),
        120..600 => two(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        _ => two(days / 365, "y", days % 365, "d"),
    }
}

fn access_modes(object: &Value, pointer: &str) -> Value {
    let modes = object.pointer(pointer).and_then(Value::as_array);
    let short: Vec<&str> = modes
        .into_iter()
        .flatten()
        .map(|mode| match mode.as_str() {
            Some("ReadWriteOnce") => "RWO",
            Some("ReadOnlyMany") => "ROX",
            Some("ReadWriteMany") => "RWX",
            Some("ReadWriteOncePod") => "RWOP",
            _ => "",
        })
        .collect();
    json!(short.join(","))
}

fn pod_ready(pod: &Value) -> Value {
    let statuses = pod
        .pointer("/status/containerStatuses")
        .and_then(Value::as_array);
    let ready = statuses
        .into_iter()
        .flatten()
        .filter(|status| status["ready"] == json!(true))
        .count();
    json!(format!("{ready}/{}", count(pod, "/spec/containers")))
}

fn pod_status(pod: &Value) -> Value {
    if meta::deleting(pod) {
        return json!("Terminating");
    }
    match meta::text(pod, "/status/reason") {
        "" => at(pod, "/status/phase"),
        reason => json!(reason),
    }
}

fn pod_restarts(pod: &Value) -> Value {
    let statuses = pod
        .pointer("/status/containerStatuses")
        .and_then(Value::as_array);
    let restarts: i64 = statuses
        .into_iter()
        .flatten()
        .filter_map(|status| status["restartCount"].as_i64())
        .sum();
    json!(restarts.to_string())
}

fn pod_gates(pod: &Value) -> Value {
    match count(pod, "/spec/readinessGates") {
        0 => json!("<none>"),
        gates => {
            let wanted = pod.pointer("/spec/readinessGates");
            let wanted = wanted.and_then(Value::as_array).into_iter().flatten();
            let ready = wanted
                .filter(|gate| condition(pod, meta::text(gate, "/conditionType")) == "True")
                .count();
            json!(format!("{ready}/{gates}"))
        }
    }
}

fn condition<'a>(object: &'a Value, kind: &str) -> &'a str {
    let conditions = object.pointer("/status/conditions");
    let conditions = conditions.and_then(Value::as_array).into_iter().flatten();
    conditions
        .into_iter()
        .find(|condition| condition["type"] == kind)
        .and_then(|condition| condition["status"].as_str())
        .unwrap_or("")
}

fn claim_status(claim: &Value) -> Value {
    if meta::deleting(claim) {
        return json!("Terminating");
    }
    at(claim, "/status/phase")
}

fn claim_of(volume: &Value) -> Value {
    match meta::text(volume, "/spec/claimRef/name") {
        "" => json!(""),
        name => json!(format!(
            "{}/{name}",
            meta::text(volume, "/spec/claimRef/namespace")
        )),
    }
}

fn node_status(node: &Value) -> Value {
    let ready = match condition(node, "Ready") {
        "True" => "Ready",
        "" => "Unknown",
        _ => "NotReady",
    };
    if node.pointer("/spec/unschedulable") == Some(&json!(true)) {
        return json!(format!("{ready},SchedulingDisabled"));
    }
    json!(ready)
}

fn event_object(event: &Value) -> Value {
    let kind = meta::text(event, "/involvedObject/kind").to_ascii_lowercase();
    json!(format!(
        "{kind}/{}",
        meta::text(event, "/involvedObject/name")
    ))
}

fn event_seen(event: &Value) -> Value {
    match meta::text(event, "/lastTimestamp") {
        "" => since(meta::text(event, "/eventTime")),
        time => since(time),
    }
}

/// The name; a default StorageClass says that it is one.
pub(super) fn name(object: &Value) -> Value {
    let default = meta::annotation(object, "storageclass.kubernetes.io/is-default-class");
    let name = meta::name(object);
    json!(
        if default == Some("true") && object["kind"] == "StorageClass" {
            format!("{name} (default)")
        } else {
            name.to_owned()
        }
    )
}

const PODS: &[Cell] = &[
    cell("Ready", pod_ready),
    cell("Status", pod_status),
    cell("Restarts", pod_restarts),
    AGE_CELL,
    wide("IP", |o| or(o, "/status/podIP", "<none>")),
    wide("Node", |o| or(o, "/spec/nodeName", "<none>")),
    wide("Nominated Node", |o| {
        or(o, "/status/nominatedNodeName", "<none>")
    }),
    wide("Readiness Gates", pod_gates),
];
const CLAIMS: &[Cell] = &[
    cell("Status", claim_status),
    cell("Volume", |o| at(o, "/spec/volumeName")),
    cell("Capacity", |o| at(o, "/status/capacity/storage")),
    cell("Access Modes", |o| access_modes(o, "/status/accessModes")),
    cell("StorageClass", |o| at(o, "/spec/storageClassName")),
    cell("VolumeAttributesClass", |o| {
        or(o, "/spec/volumeAttributesClassName", "<unset>")
    }),
    AGE_CELL,
    wide("VolumeMode", |o| or(o, "/spec/volumeMode", "<unset>")),
];
const VOLUMES: &[Cell] = &[
    cell("Capacity", |o| at(o, "/spec/capacity/storage")),
    cell("Access Modes", |o| access_modes(o, "/spec/accessModes")),
    cell("Reclaim Policy", |o| {
        at(o, "/spec/persistentVolumeReclaimPolicy")
    }),
    cell("Status", claim_status),
    cell("Claim", claim_of),
    cell("StorageClass", |o| at(o, "/spec/storageClassName")),
    cell("VolumeAttributesClass", |o| {
        or(o, "/spec/volumeAttributesClassName", "<unset>")
    }),
    cell("Reason", |o| at(o, "/status/reason")),
    AGE_CELL,
    wide("VolumeMode", |o| or(o, "/spec/volumeMode", "<unset>")),
];
const NODES: &[Cell] = &[
    cell("Status", node_status),
    cell("Roles", |_| json!("<none>")),
    AGE_CELL,
    cell("Version", |o| at(o, "/status/nodeInfo/kubeletVersion")),
];
const EVENTS: &[Cell] = &[
    cell("Last Seen", event_seen),
    cell("Type", |o| at(o, "/type")),
    cell("Reason", |o| at(o, "/reason")),
    cell("Object", event_object),
    cell("Message", |o| at(o, "/message")),
];
const CLASSES: &[Cell] = &[
    cell("Provisioner", |o| at(o, "/provisioner")),
    cell("ReclaimPolicy", |o| or(o, "/reclaimPolicy", "Delete")),
    cell("VolumeBindingMode", |o| {
        or(o, "/volumeBindingMode", "Immediate")
    }),
    cell("AllowVolumeExpansion", |o| {
        json!(o["allowVolumeExpansion"] == json!(true))
    }),
    AGE_CELL,
];
const DATA: &[Cell] = &[
    Cell {
        about: "The number of entries.",
        ..cell("Data", |o| {
            json!(count(o, "/data") + count(o, "/binaryData"))
        })
    },
    AGE_CELL,
];

/// The columns of a built-in kind, after the name.
pub(super) fn columns(key: &str) -> &'static [Cell] {
    match key {
        "pods" => PODS,
        "persistentvolumeclaims" => CLAIMS,
        "persistentvolumes" => VOLUMES,
        "nodes" => NODES,
        "events" | "events.events.k8s.io" => EVENTS,
        "storageclasses.storage.k8s.io" => CLASSES,
        "configmaps" => DATA,
        "secrets" => {
            const {
                &[
                    cell("Type", |o| at(o, "/type")),
                    cell("Data", |o| json!(count(o, "/data"))),
                    AGE_CELL,
                ]
            }
        }
        "namespaces" => const { &[cell("Status", |o| at(o, "/status/phase")), AGE_CELL] },
        "serviceaccounts" => {
            const { &[cell("Secrets", |o| json!(count(o, "/secrets"))), AGE_CELL] }
        }
        "leases.coordination.k8s.io" => {
            const { &[cell("Holder", |o| at(o, "/spec/holderIdentity")), AGE_CELL] }
        }
        "customresourcedefinitions.apiextensions.k8s.io" => {
            const { &[cell("Created At", |o| at(o, "/metadata/creationTimestamp"))] }
        }
        "deployments.apps" => {
            const {
                &[
                    cell("Ready", |o| {
                        let number = |p: &str| o.pointer(p).and_then(Value::as_i64).unwrap_or(0);
                        json!(format!(
                            "{}/{}",
                            number("/status/readyReplicas"),
                            number("/spec/replicas")
                        ))
                    }),
                    AGE_CELL,
                ]
            }
        }
        _ => const { &[AGE_CELL] },
    }
}

/// A cell of a custom resource.
pub(super) fn custom(column: &Column, object: &Value) -> Value {
    let Some(value) = path(object, &column.path) else {
        return Value::Null;
    };
    match (column.kind.as_str(), value) {
        ("date", Value::String(text)) => since(text),
        ("integer" | "number", value) if value.is_number() => value.clone(),
        ("boolean", Value::Bool(value)) => json!(value),
        ("string", Value::String(text)) => json!(text),
        ("string", other) => json!(other.to_string()),
        _ => Value::Null,
    }
}

/// The subset of JSONPath that printer columns use: fields, positions, and
/// `[?(@.field=='value')]`.
fn path<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    let mut value = object;
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(test) = rest.strip_prefix("[?(@.") {
            let (test, after) = test.split_once(")]")?;
            let (field, wanted) = test.split_once("==")?;
            let wanted = wanted.trim_matches(['\'', '"']);
            value = value
                .as_array()?
                .iter()
                .find(|item| item[field] == wanted)?;
            rest = after;
        } else if let Some(index) = rest.strip_prefix('[') {
            let (index, after) = index.split_once(']')?;
            value = value.get(index.parse::<usize>().ok()?)?;
            rest = after;
        } else {
            let field = rest.strip_prefix('.')?;
            let end = field.find(['.', '[']).unwrap_or(field.len());
            value = value.get(&field[..end])?;
            rest = &field[end..];
        }
    }
    (!value.is_null()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_printer_columns() {
        let object = json!({"status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "interfaces": [{"ipAddress": "10.0.0.1"}],
        }});
        for (text, expected) in [
            (
                ".status.conditions[?(@.type=='Ready')].status",
                Some("True"),
            ),
            (".status.interfaces[0].ipAddress", Some("10.0.0.1")),
            (".status.interfaces[1].ipAddress", None),
            (".status.absent", None),
        ] {
            assert_eq!(
                path(&object, text).and_then(Value::as_str),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn ages_have_two_units_at_most() {
        for (seconds, text) in [
            (0, "0s"),
            (119, "119s"),
            (125, "2m5s"),
            (600, "10m"),
            (3 * 3600 + 60, "3h1m"),
            (86_400, "24h"),
            (3 * 86_400 + 3600, "3d1h"),
        ] {
            assert_eq!(human(seconds), text);
        }
    }
}
