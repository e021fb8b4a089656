//! Defaults of built-in kinds, and what admission plugins of every cluster fill in.

use serde_json::{Map, Value, json};

use crate::lab::api::meta;

/// Sets a field unless it is there.
fn set(map: &mut Map<String, Value>, field: &str, value: Value) {
    if map.get(field).is_none_or(Value::is_null) {
        map.insert(field.to_owned(), value);
    }
}

/// Takes empty lists away that are only written for bookkeeping.
fn drop_empty(map: &mut Map<String, Value>, field: &str) {
    if map.get(field) == Some(&json!([])) {
        map.shift_remove(field);
    }
}

/// Defaults that the API types have.
pub(in crate::lab::api::server) fn defaults(key: &str, object: &mut Value) {
    match key {
        "pods" => pod(meta::map_at(object, "spec")),
        "deployments.apps" => deployment(meta::map_at(object, "spec")),
        "persistentvolumeclaims" => {
            let spec = meta::map_at(object, "spec");
            set(spec, "volumeMode", json!("Filesystem"));
            set(spec, "resources", json!({}));
            mirror_data_source(spec);
        }
        "persistentvolumes" => {
            let spec = meta::map_at(object, "spec");
            set(spec, "volumeMode", json!("Filesystem"));
            set(spec, "persistentVolumeReclaimPolicy", json!("Retain"));
        }
        "storageclasses.storage.k8s.io" => {
            if let Some(fields) = object.as_object_mut() {
                set(fields, "reclaimPolicy", json!("Delete"));
                set(fields, "volumeBindingMode", json!("Immediate"));
            }
        }
        "secrets" => secret(object),
        "services" => {
            let spec = meta::map_at(object, "spec");
            set(spec, "type", json!("ClusterIP"));
            set(spec, "sessionAffinity", json!("None"));
        }
        "namespaces" => {
            let name = meta::name(object).to_owned();
            let labels = meta::entry(object, "labels", || json!({}));
            labels["kubernetes.io/metadata.name"] = json!(name);
        }
        "customresourcedefinitions.apiextensions.k8s.io" => definition(object),
        _ => {}
    }
}

fn pod(spec: &mut Map<String, Value>) {
    set(spec, "restartPolicy", json!("Always"));
    set(spec, "terminationGracePeriodSeconds", json!(30));
    set(spec, "dnsPolicy", json!("ClusterFirst"));
    set(spec, "securityContext", json!({}));
    set(spec, "schedulerName", json!("default-scheduler"));
    set(spec, "enableServiceLinks", json!(true));
    for list in ["containers", "initContainers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            if let Some(container) = container.as_object_mut() {
                container_defaults(container);
            }
        }
    }
}

fn container_defaults(container: &mut Map<String, Value>) {
    set(container, "resources", json!({}));
    set(
        container,
        "terminationMessagePath",
        json!("/dev/termination-log"),
    );
    set(container, "terminationMessagePolicy", json!("File"));
    let image = container.get("image").and_then(Value::as_str).unwrap_or("");
    let tag = image.rsplit('/').next().unwrap_or("").split_once(':');
    let latest = tag.is_none_or(|(_, tag)| tag == "latest") && !image.contains('@');
    let policy = if latest { "Always" } else { "IfNotPresent" };
    set(container, "imagePullPolicy", json!(policy));
}

fn deployment(spec: &mut Map<String, Value>) {
    set(spec, "replicas", json!(1));
    set(spec, "revisionHistoryLimit", json!(10));
    set(spec, "progressDeadlineSeconds", json!(600));
    let rolling = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}});
    set(spec, "strategy", rolling);
    if let Some(template) = spec.get_mut("template") {
        pod(meta::map_at(template, "spec"));
    }
}

/// `dataSource` and `dataSourceRef` say the same, where the older one can.
fn mirror_data_source(spec: &mut Map<String, Value>) {
    let (source, reference) = (
        spec.get("dataSource").cloned(),
        spec.get("dataSourceRef").cloned(),
    );
    match (source, reference) {
        (Some(source), None) => {
            spec.insert("dataSourceRef".to_owned(), source);
        }
        (None, Some(reference)) if reference.get("namespace").is_none() => {
            let kind = reference["kind"].as_str().unwrap_or("");
            if matches!(kind, "PersistentVolumeClaim" | "VolumeSnapshot") {
                spec.insert("dataSource".to_owned(), reference);
            }
        }
        _ => {}
    }
}

/// `stringData` is written to `data`.
fn secret(object: &mut Value) {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let Some(fields) = object.as_object_mut() else {
        return;
    };
    set(fields, "type", json!("Opaque"));
    if let Some(Value::Object(plain)) = fields.shift_remove("stringData") {
        let data = meta::map_at(object, "data");
        for (key, text) in plain {
            let text = text.as_str().unwrap_or("").to_owned();
            data.insert(key, json!(STANDARD.encode(text)));
        }
    }
}

fn definition(object: &mut Value) {
    let spec = meta::map_at(object, "spec");
    set(spec, "conversion", json!({"strategy": "None"}));
    if let Some(names) = spec.get_mut("names").and_then(Value::as_object_mut) {
        let kind = names
            .get("kind")
            .and_then(Value::as_str)
            .unwrap_or("")
            .to_owned();
        set(names, "listKind", json!(format!("{kind}List")));
        set(names, "singular", json!(kind.to_ascii_lowercase()));
    }
}

/// The first status, and what the admission plugins of every cluster add to new objects.
pub(in crate::lab::api::server) fn start(key: &str, object: &mut Value) {
    match key {
        "pods" => start_pod(object),
        "persistentvolumeclaims" => {
            object["status"] = json!({"phase": "Pending"});
            meta::add_finalizer(object, "kubernetes.io/pvc-protection");
        }
        "persistentvolumes" => {
            object["status"] = json!({"phase": "Pending"});
            meta::add_finalizer(object, "kubernetes.io/pv-protection");
        }
        "deployments.apps" | "services" | "volumeattachments.storage.k8s.io" => {
            object["status"] = json!({});
        }
        "customresourcedefinitions.apiextensions.k8s.io" => {
            let versions = object.pointer("/spec/versions").and_then(Value::as_array);
            let stored: Vec<Value> = versions
                .into_iter()
                .flatten()
                .filter(|version| version["storage"] == json!(true))
                .map(|version| version["name"].clone())
                .collect();
            object["status"] = json!({
                "conditions": null,
                "acceptedNames": {"plural": "", "kind": ""},
                "storedVersions": stored,
            });
        }
        _ => {}
    }
}

/// Status and quality of service, and the plugins ServiceAccount, Priority and
/// DefaultTolerationSeconds.
fn start_pod(pod: &mut Value) {
    let name = meta::name(pod).to_owned();
    let spec = meta::map_at(pod, "spec");
    drop_empty(spec, "containers");
    set(spec, "serviceAccountName", json!("default"));
    let account = spec.get("serviceAccountName").cloned().unwrap_or_default();
    set(spec, "serviceAccount", account);
    set(spec, "priority", json!(0));
    set(spec, "preemptionPolicy", json!("PreemptLowerPriority"));
    let mut tolerations = spec
        .get("tolerations")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    for key in [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    ] {
        if !tolerations
            .iter()
            .any(|toleration| toleration["key"] == key)
        {
            tolerations.push(json!({
                "key": key,
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": 300,
            }));
        }
    }
    spec.insert("tolerations".to_owned(), json!(tolerations));
    if spec.get("automountServiceAccountToken") != Some(&json!(false)) {
        mount_token(spec, &name);
    }
    pod["status"] = json!({"phase": "Pending", "qosClass": quality(pod)});
}

fn mount_token(spec: &mut Map<String, Value>, name: &str) {
    let digest = blake3::hash(name.as_bytes()).to_hex();
    let volume = format!("kube-api-access-{}", &digest[..5]);
    let source = json!({"name": volume, "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [
            {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
        ]}},
    ]}});
    push(spec, "volumes", source);
    for list in ["containers", "initContainers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            if let Some(container) = container.as_object_mut() {
                let mount = json!({
                    "name": volume,
                    "readOnly": true,
                    "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
                });
                push(container, "volumeMounts", mount);
            }
        }
    }
}

fn push(map: &mut Map<String, Value>, field: &str, item: Value) {
    let list = map.entry(field.to_owned()).or_insert_with(|| json!([]));
    if let Some(list) = list.as_array_mut() {
        list.push(item);
    }
}

/// `Guaranteed` when every container limits cpu and memory to what it requests, `BestEffort` when
/// none asks for anything, else `Burstable`.
fn quality(pod: &Value) -> &'static str {
    let containers = pod.pointer("/spec/containers").and_then(Value::as_array);
    let containers = containers.map_or(&[][..], Vec::as_slice);
    let wants = |container: &Value, what: &str| {
        container["resources"][what]
            .as_object()
            .is_some_and(|map| !map.is_empty())
    };
    let none = containers
        .iter()
        .all(|c| !wants(c, "requests") && !wants(c, "limits"));
    let equal = containers.iter().all(|c| {
        ["cpu", "memory"].iter().all(|name| {
            let limit = &c["resources"]["limits"][*name];
            let request = &c["resources"]["requests"][*name];
            !limit.is_null() && (request.is_null() || request == limit)
        })
    });
    match (none, equal) {
        (true, _) => "BestEffort",
        (_, true) => "Guaranteed",
        _ => "Burstable",
    }
}
