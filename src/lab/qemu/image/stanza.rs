//! What a package list says about a package.
//!
//! Format: deb-control(5), paragraphs of `Field: value` with continuation lines; the grammar of
//! relationship fields is Debian Policy §7.1.

use std::collections::BTreeMap;

/// The fields of one package that are used here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Stanza {
    /// Name.
    pub(super) package: String,
    /// Version.
    pub(super) version: String,
    /// Names in `Pre-Depends` and `Depends`, alternatives included, versions left out.
    pub(super) depends: Vec<String>,
    /// Whether it is in the section for libraries.
    pub(super) is_library: bool,
    /// SHA256 of the package file, lower case hexadecimal.
    pub(super) sha256: String,
    /// Size of the package file in bytes.
    pub(super) size: u64,
}

impl Stanza {
    /// `NAME=VERSION`, as `apt-get download` takes it.
    pub(super) fn pinned(&self) -> String {
        format!("{}={}", self.package, self.version)
    }
}

/// The packages of a list, by name; the first of several versions, which is how apt-cache puts the
/// candidate. A paragraph without name, version or digest cannot be fetched and is left out.
pub(super) fn parse(text: &str) -> BTreeMap<String, Stanza> {
    let mut stanzas = BTreeMap::new();
    for paragraph in text.split("\n\n") {
        let stanza = paragraph_of(paragraph);
        let hex =
            |digest: &str| digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit());
        if !stanza.package.is_empty() && !stanza.version.is_empty() && hex(&stanza.sha256) {
            stanzas.entry(stanza.package.clone()).or_insert(stanza);
        }
    }
    stanzas
}

fn paragraph_of(paragraph: &str) -> Stanza {
    let mut stanza = Stanza::default();
    // A continuation line starts with a space, so it never reads as one of these fields; apt-cache
    // prints relationship fields on one line each.
    for line in paragraph.lines() {
        let Some((field, value)) = line.split_once(':') else {
            continue;
        };
        let value = value.trim();
        match field {
            "Package" => value.clone_into(&mut stanza.package),
            "Version" => value.clone_into(&mut stanza.version),
            "Pre-Depends" | "Depends" => stanza.depends.extend(names(value)),
            // Outside of `main` the component comes before: `universe/libs`.
            "Section" => stanza.is_library = value.rsplit('/').next() == Some("libs"),
            "SHA256" => stanza.sha256 = value.to_ascii_lowercase(),
            "Size" => stanza.size = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    stanza
}

/// The names in a relationship field: `libc6 (>= 2.34), debconf:any | debconf-2.0`.
fn names(value: &str) -> impl Iterator<Item = String> {
    value.split([',', '|']).filter_map(|relation| {
        let name = relation.trim().split([' ', ':', '(', '[', '<']).next()?;
        (!name.is_empty()).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn digest(digit: &str) -> String {
        digit.repeat(64)
    }

    #[test]
    fn fields_are_read_and_the_candidate_comes_first() {
        let text = format!(
            "Package: alpha\nVersion: 1:2.0-1\nPre-Depends: init (>= 1)\n\
             Depends: libc6 (>= 2.34), perl:any | awk <!nodoc>, libx\nSection: libs\nDescription: text\n \
             Size: 9\nSize: 1200\nSHA256: {}\n\nPackage: alpha\nVersion: 1.0\nSHA256: {}\n\n\
             Package: no-digest\nVersion: 1\n",
            digest("A"),
            digest("b"),
        );
        let stanzas = parse(&text);
        assert_eq!(stanzas.len(), 1);
        let alpha = &stanzas["alpha"];
        assert_eq!(alpha.pinned(), "alpha=1:2.0-1");
        assert_eq!(alpha.depends, ["init", "libc6", "perl", "awk", "libx"]);
        assert!(alpha.is_library);
        assert_eq!(
            (alpha.size, alpha.sha256.as_str()),
            (1200, digest("a").as_str())
        );
    }

    proptest! {
        #[test]
        fn no_list_makes_it_panic(text in "([A-Z][a-z]{0,8}: ?[ -~é]{0,40}\n{1,2}){0,12}") {
            for (name, stanza) in parse(&text) {
                prop_assert_eq!(name, stanza.package);
            }
        }

        #[test]
        fn relations_come_back(wanted in prop::collection::vec("[a-z0-9][a-z0-9+.-]{1,12}", 0..6)) {
            let field = wanted
                .iter()
                .map(|name| format!("{name}:any (>= 1.2~)"))
                .collect::<Vec<_>>()
                .join(", ");
            prop_assert_eq!(names(&field).collect::<Vec<_>>(), wanted);
        }
    }
}
