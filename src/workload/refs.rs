//! References from a spec to Secrets, ConfigMaps, claims and DataVolumes of the same namespace.

use serde_json::Value;

/// What a reference points at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    /// A Secret.
    Secret,
    /// A ConfigMap.
    ConfigMap,
    /// A PVC, or the DataVolume that will make it.
    Claim,
    /// A DataVolume.
    DataVolume,
}

impl Target {
    /// Its kind.
    pub(super) const fn kind(self) -> &'static str {
        match self {
            Self::Secret => "Secret",
            Self::ConfigMap => "ConfigMap",
            Self::Claim => "PersistentVolumeClaim",
            Self::DataVolume => "DataVolume",
        }
    }
}

/// A reference found by [`visit`].
pub(super) struct Found<'a> {
    /// What it points at.
    pub(super) target: Target,
    /// The name, which may be changed.
    pub(super) name: &'a mut String,
    /// Where it stands, keys and indices separated by `/`.
    pub(super) path: String,
    /// Whether the object may be missing.
    pub(super) optional: bool,
}

/// Visits every reference in a spec. The field names are those of the KubeVirt and CDI types.
pub(super) fn visit(spec: &mut Value, path: &str, see: &mut dyn FnMut(Found<'_>)) {
    match spec {
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                visit(item, &format!("{path}/{index}"), see);
            }
        }
        Value::Object(entries) => {
            let optional = entries.get("optional").and_then(Value::as_bool) == Some(true);
            for (key, value) in entries.iter_mut() {
                let here = format!("{path}/{key}");
                if let Some(target) = target(key, value)
                    && let Some((name, path)) = name_in(value, &here)
                {
                    see(Found {
                        target,
                        name,
                        path,
                        optional,
                    });
                } else {
                    visit(value, &here, see);
                }
            }
        }
        _ => {}
    }
}

/// The Secrets and ConfigMaps that a spec names, by kind and name.
pub(super) fn named(spec: &Value) -> std::collections::BTreeSet<(&'static str, String)> {
    let mut named = std::collections::BTreeSet::new();
    visit(&mut spec.clone(), "", &mut |found| {
        if matches!(found.target, Target::Secret | Target::ConfigMap) {
            named.insert((found.target.kind(), found.name.clone()));
        }
    });
    named
}

fn target(key: &str, value: &Value) -> Option<Target> {
    match key {
        "secretRef"
        | "userDataSecretRef"
        | "networkDataSecretRef"
        | "secretName"
        | "imagePullSecret" => Some(Target::Secret),
        // Sysprep names its Secret by `name`; a plain volume by `secretName`, found one level down.
        "secret" if value["name"].is_string() => Some(Target::Secret),
        "certConfigMap" | "configMap" => Some(Target::ConfigMap),
        "claimName" => Some(Target::Claim),
        "dataSource" | "dataSourceRef" if value["kind"] == "PersistentVolumeClaim" => {
            Some(Target::Claim)
        }
        "dataVolume" => Some(Target::DataVolume),
        _ => None,
    }
}

fn name_in<'a>(value: &'a mut Value, path: &str) -> Option<(&'a mut String, String)> {
    match value {
        Value::String(name) => Some((name, path.to_owned())),
        Value::Object(entries) => match entries.get_mut("name") {
            Some(Value::String(name)) => Some((name, format!("{path}/name"))),
            _ => None,
        },
        _ => None,
    }
}
