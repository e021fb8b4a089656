//! Templates and manifests, good and bad.

mod bad;
mod objects;
mod own;
mod published;
mod substitution;

use std::collections::BTreeMap;

use serde_json::Value;

use super::*;

/// Parameters from pairs.
fn parameters(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// An instance on the side of `run`.
fn instance(name: &str) -> Instance {
    Instance {
        name: name.to_owned(),
        namespace: "virtproof-r1".to_owned(),
        run: "r1".to_owned(),
        subject: format!("{name}-subject"),
        workload: "ledger".to_owned(),
        ssh_public_key: "ssh-ed25519 AAAAC3 virtproof".to_owned(),
        identity: Identity::derive("r1", name),
        storage_class: None,
    }
}

/// Renders a manifest without parameters.
fn render_text(text: &str, extra: &Extra<'_>) -> Result<Rendered, TemplateError> {
    Template::parse(text, "vm.yaml").and_then(|template| template.render(&BTreeMap::new(), extra))
}

/// Renders a manifest that must be good.
fn rendered(text: &str) -> Rendered {
    render_text(text, &Extra::default()).unwrap_or_else(|error| panic!("{error}"))
}

/// An embedded template with nothing but an image.
fn embedded_subject(name: &str) -> Subject {
    let template = Template::load(name, Path::new(".")).unwrap();
    let rendered = template.render(
        &parameters(&[("image", "fedora:latest")]),
        &Extra::default(),
    );
    rendered
        .unwrap_or_else(|error| panic!("{error}"))
        .bind(&instance("ledger-0"))
}

/// The object of a kind.
fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects
        .iter()
        .filter(|object| object["kind"] == kind)
        .collect()
}
