//! Kinds written down as text: one `kind` line each.
//!
//! `kind GROUP VERSIONS KIND PLURAL namespaced|cluster [status] [short=A,B] [in=CATEGORY,…]`; the
//! first version is the stored one. `#` starts a comment line.

use super::{Kind, Origin};

/// The domain's kinds, which a bare Kubernetes does not have.
const TEXTS: &[&str] = &[
    include_str!("kinds/kubevirt.kinds"),
    include_str!("kinds/cdi.kinds"),
    include_str!("kinds/csi-addons.kinds"),
    include_str!("kinds/snapshot.kinds"),
];

/// All of the domain's kinds.
pub(super) fn kinds() -> Vec<Kind> {
    TEXTS
        .iter()
        .flat_map(|text| text.lines())
        .filter_map(kind)
        .collect()
}

fn kind(line: &str) -> Option<Kind> {
    let mut words = line.strip_prefix("kind ")?.split_whitespace();
    let mut word = || words.next().map(str::to_owned);
    let (group, versions, kind, plural, scope) = (word()?, word()?, word()?, word()?, word()?);
    let rest: Vec<&str> = words.collect();
    let listed = |prefix: &str| -> Vec<String> {
        rest.iter()
            .find_map(|word| word.strip_prefix(prefix))
            .map(|list| list.split(',').map(str::to_owned).collect())
            .unwrap_or_default()
    };
    Some(Kind {
        singular: kind.to_ascii_lowercase(),
        versions: versions.split(',').map(str::to_owned).collect(),
        group,
        kind,
        plural,
        short: listed("short="),
        categories: listed("in="),
        namespaced: scope == "namespaced",
        status: rest.contains(&"status"),
        generation: true,
        origin: Origin::Custom,
    })
}
