//! Which objects a list or a watch covers.

use std::fmt;

use crate::cluster::kind::Kind;

/// Which objects of a kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Those of one namespace.
    Namespace(String),
    /// All of them, in all namespaces.
    All,
    /// Those in all namespaces that match a label selector, such as `Owner::selector()`.
    Labelled(String),
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespace(ns) => write!(f, "in {ns}"),
            Self::All => f.write_str("everywhere"),
            Self::Labelled(selector) => write!(f, "with {selector}"),
        }
    }
}

impl Scope {
    /// The path of one list page.
    pub(in crate::cluster) fn list_path(&self, kind: &Kind, limit: u32, token: &str) -> String {
        let namespace = match self {
            Self::Namespace(ns) => Some(ns.as_str()),
            _ => None,
        };
        let mut path = format!("{}?limit={limit}", kind.path(namespace));
        if let Self::Labelled(selector) = self {
            path.push_str("&labelSelector=");
            path.push_str(&escape(selector));
        }
        if !token.is_empty() {
            path.push_str("&continue=");
            path.push_str(&escape(token));
        }
        path
    }
}

/// Percent-encodes a query value.
pub(in crate::cluster) fn escape(text: &str) -> String {
    use fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("writing to a String cannot fail");
        }
    }
    out
}
