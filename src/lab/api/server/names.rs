//! The rules for names, labels and keys, with the server's words for what breaks them.

use std::sync::LazyLock;

use regex::Regex;

/// A rule: the whole text must match; a prefix of the complaint; what is shown as examples.
struct Rule {
    pattern: &'static str,
    complaint: &'static str,
    longest: usize,
    regex: LazyLock<Option<Regex>>,
}

impl Rule {
    fn complain(&self, text: &str) -> Option<String> {
        let regex = self.regex.as_ref()?;
        let whole = regex
            .find(text)
            .is_some_and(|found| found.len() == text.len());
        if text.len() > self.longest {
            return Some(format!("must be no more than {} characters", self.longest));
        }
        (!whole).then(|| {
            format!(
                "{}, regex used for validation is '{}')",
                self.complaint, self.pattern
            )
        })
    }
}

macro_rules! rule {
    ($name:ident, $pattern:expr, $longest:expr, $complaint:expr) => {
        static $name: Rule = Rule {
            pattern: $pattern,
            complaint: $complaint,
            longest: $longest,
            regex: LazyLock::new(|| Regex::new(concat!("^(?:", $pattern, ")$")).ok()),
        };
    };
}

rule!(
    SUBDOMAIN,
    r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*",
    253,
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com'"
);
rule!(
    LABEL,
    r"[a-z0-9]([-a-z0-9]*[a-z0-9])?",
    63,
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc'"
);
rule!(
    LABEL_NAME,
    r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]",
    63,
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc'"
);
rule!(
    LABEL_VALUE,
    r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?",
    63,
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345'"
);
rule!(
    CONFIG_KEY,
    r"[-._a-zA-Z0-9]+",
    253,
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name'"
);

/// What is wrong with an object's name in most resources.
pub(super) fn subdomain(text: &str) -> Option<String> {
    SUBDOMAIN.complain(text)
}

/// What is wrong with a namespace's name.
pub(super) fn label(text: &str) -> Option<String> {
    LABEL.complain(text)
}

/// What is wrong with the name part of a label key.
pub(super) fn label_name(text: &str) -> Option<String> {
    LABEL_NAME.complain(text)
}

/// What is wrong with a label's value.
pub(super) fn label_value(text: &str) -> Option<String> {
    LABEL_VALUE.complain(text)
}

/// What is wrong with a key of a ConfigMap or Secret.
pub(super) fn config_key(text: &str) -> Option<String> {
    CONFIG_KEY.complain(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_texts_are_judged() {
        assert_eq!(subdomain("a.b-c"), None);
        assert!(subdomain("Bad_Name").is_some_and(|why| why.ends_with("[a-z0-9])?)*')")));
        assert!(label("a.b").is_some());
        assert_eq!(label_value(""), None);
        assert!(label_value("-x-").is_some());
        assert!(config_key("a b").is_some());
    }
}
