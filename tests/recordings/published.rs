//! The lab's kinds against the CustomResourceDefinitions that their projects publish: same names,
//! scope, versions and columns; no field that they do not have; the same required fields and
//! choices wherever the lab knows the fields at all.

use std::path::Path;

use serde_json::Value;
use virtproof::lab::api::registry::{Kind, Registry};
use virtproof::lab::api::schema::{Schema, Shape};

/// The published definitions; `None`, loudly, where they are not at hand.
fn definitions() -> Option<Vec<Value>> {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dirs = home.ancestors().skip(1).map(|dir| dir.join("shared/crds"));
    let Some(root) = dirs.into_iter().find(|dir| dir.exists()) else {
        eprintln!("SKIPPED: the published definitions are not there; nothing was compared");
        return None;
    };
    let mut found = Vec::new();
    for folder in std::fs::read_dir(root).expect("a folder") {
        let folder = folder.expect("an entry").path();
        for file in std::fs::read_dir(&folder).into_iter().flatten() {
            let file = file.expect("an entry").path();
            if file.extension().is_some_and(|end| end == "yaml") {
                let text = std::fs::read_to_string(&file).expect("text");
                found.extend(
                    text.split("\n---")
                        .filter_map(|part| serde_saphyr::from_str::<Value>(part).ok())
                        .filter(|object| object["kind"] == "CustomResourceDefinition"),
                );
            }
        }
    }
    Some(found)
}

fn strings(value: &Value) -> Vec<&str> {
    let list = value.as_array().into_iter().flatten();
    list.filter_map(Value::as_str).collect()
}

/// What is different about a kind.
fn differences(kind: &Kind, definition: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let spec = &definition["spec"];
    let stored = spec["versions"].as_array().and_then(|versions| {
        versions
            .iter()
            .find(|version| version["storage"] == Value::Bool(true))
    });
    let stored = stored.expect("a stored version");
    let mut check = |what: &str, ours: String, theirs: String| {
        if ours != theirs {
            found.push(format!("{what} {ours} and not {theirs}"));
        }
    };
    let scope = if kind.namespaced {
        "Namespaced"
    } else {
        "Cluster"
    };
    check(
        "scope",
        scope.into(),
        strings(&Value::from(vec![spec["scope"].clone()])).concat(),
    );
    check(
        "kind",
        kind.kind.clone(),
        spec["names"]["kind"].as_str().unwrap_or("").into(),
    );
    check(
        "short names",
        kind.short.join(","),
        strings(&spec["names"]["shortNames"]).join(","),
    );
    check(
        "stored version",
        kind.versions[0].clone(),
        stored["name"].as_str().unwrap_or("").into(),
    );
    let status = stored.pointer("/subresources/status").is_some();
    check(
        "status subresource",
        kind.status.to_string(),
        status.to_string(),
    );
    let columns = stored["additionalPrinterColumns"].as_array();
    let columns: Vec<String> = columns
        .into_iter()
        .flatten()
        .map(|c| format!("{} {}", c["name"], c["jsonPath"]))
        .collect();
    let ours: Vec<String> = kind
        .columns
        .iter()
        .map(|c| format!("{:?} {:?}", c.name, c.path))
        .collect();
    check("columns", ours.join(","), columns.join(","));
    let published = Schema::from_openapi(&stored["schema"]["openAPIV3Schema"]);
    fields(&kind.schema, &published, "", &mut found);
    found
}

fn fields(ours: &Schema, theirs: &Schema, path: &str, found: &mut Vec<String>) {
    if ours.shape != theirs.shape && ours.shape != Shape::Any {
        found.push(format!(
            "{path} is {:?} and not {:?}",
            ours.shape, theirs.shape
        ));
        return;
    }
    if !ours.choices.is_empty() && ours.choices != theirs.choices {
        found.push(format!(
            "{path} allows {:?} and not {:?}",
            ours.choices, theirs.choices
        ));
    }
    if ours.default != theirs.default {
        found.push(format!(
            "{path} defaults to {:?} and not {:?}",
            ours.default, theirs.default
        ));
    }
    if !ours.fields.is_empty() && !ours.open {
        let sorted = |names: &[String]| {
            let mut names = names.to_vec();
            names.sort();
            names
        };
        let (mine, needed) = (sorted(&ours.required), sorted(&theirs.required));
        if mine != needed {
            found.push(format!("{path} requires {mine:?} and not {needed:?}"));
        }
        for (name, _) in &theirs.fields {
            let own =
                path.is_empty() && matches!(name.as_str(), "apiVersion" | "kind" | "metadata");
            if !own && ours.field(name).is_none() {
                found.push(format!("{path}.{name} is not known"));
            }
        }
    }
    for (name, field) in &ours.fields {
        match theirs.field(name) {
            Some(other) => fields(field, other, &format!("{path}.{name}"), found),
            None if theirs.open => {}
            None => found.push(format!("{path}.{name} is not published")),
        }
    }
    for (mine, other) in [(&ours.items, &theirs.items), (&ours.values, &theirs.values)] {
        if let (Some(mine), Some(other)) = (mine, other) {
            fields(mine, other, &format!("{path}[]"), found);
        }
    }
}

#[test]
fn recordings_kinds_are_as_published() {
    let Some(definitions) = definitions() else {
        return;
    };
    let registry = Registry::full();
    let (mut compared, mut wrong) = (0, Vec::new());
    for definition in &definitions {
        let name = definition["metadata"]["name"].as_str().unwrap_or("");
        if let Some(kind) = registry.get(name) {
            compared += 1;
            let differences = differences(kind, definition);
            wrong.extend(
                differences
                    .into_iter()
                    .map(|what| format!("{name}: {what}")),
            );
        }
    }
    let custom = registry.iter().filter(|kind| kind.custom()).count();
    println!("{compared} of {custom} kinds of the lab are published here");
    assert_eq!(compared, custom, "kinds without a published definition");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
