//! Templates and manifests, good and bad.

use std::collections::BTreeMap;

use super::*;

pub(super) fn parameters(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn every_embedded_template_renders_with_an_image_alone() {
    for name in names() {
        let template = Template::load(name, Path::new(".")).unwrap();
        let rendered = template.render(
            &parameters(&[("image", "fedora:latest")]),
            &Extra::default(),
        );
        let rendered = rendered.unwrap_or_else(|error| panic!("{error}"));
        assert!(
            rendered.notes().is_empty(),
            "{name}: {:?}",
            rendered.notes()
        );
        assert_eq!(
            rendered.ledger_disks().count(),
            if name == "cirros" { 1 } else { 2 }
        );
    }
}
