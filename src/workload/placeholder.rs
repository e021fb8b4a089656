//! `${PARAM}` and `${PARAM:=default}`.
//!
//! Each placeholder is replaced by private-use characters of the same length before the YAML is
//! parsed, so that no value can touch the structure and no column moves; the scalars of the tree
//! then get the values. `$${` stands for `${`.

use std::collections::{BTreeMap, BTreeSet};

use crate::plan::problem::{Problems, suggest};
use crate::plan::yaml::{self, At, Kind, Node};

const OPEN: char = '\u{E000}';
const CLOSE: char = '\u{E001}';
const PAD: char = '\u{E002}';
/// Stands for an escaped `${`, padded to three characters.
const LITERAL: char = '\u{E003}';
const FIRST: u32 = 0xE100;
/// The most placeholders in one template; their numbers must fit the private-use area.
const MOST: usize = 4000;

/// One placeholder as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Placeholder {
    /// Its name.
    pub(super) name: String,
    /// What to take when no value is given.
    pub(super) default: Option<String>,
    raw: String,
}

/// A text whose placeholders are out of the YAML parser's way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Masked {
    /// The text with marks.
    pub(super) text: String,
    /// The placeholders by number.
    pub(super) found: Vec<Placeholder>,
}

/// Masks the placeholders of a text. The error says why that cannot be done.
pub(super) fn mask(text: &str) -> Result<Masked, String> {
    if text.contains(|c| ('\u{E000}'..='\u{F8FF}').contains(&c)) {
        return Err("the text holds private-use characters".to_owned());
    }
    let mut out = String::with_capacity(text.len() * 2);
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find('$') {
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        if let Some(after) = rest.strip_prefix("$${") {
            out.extend([LITERAL, PAD, PAD]);
            rest = after;
        } else if let Some((placeholder, after)) = read(rest) {
            if found.len() == MOST {
                return Err(format!("there are more than {MOST} placeholders"));
            }
            let number = FIRST + u32::try_from(found.len()).unwrap_or(0);
            let length = placeholder.raw.chars().count();
            out.push(OPEN);
            out.extend(char::from_u32(number));
            out.extend(std::iter::repeat_n(PAD, length.saturating_sub(3)));
            out.push(CLOSE);
            found.push(placeholder);
            rest = after;
        } else {
            out.push('$');
            rest = &rest[1..];
        }
    }
    out.push_str(rest);
    Ok(Masked { text: out, found })
}

/// A placeholder at the start of `text`, and what comes after it.
fn read(text: &str) -> Option<(Placeholder, &str)> {
    let inner = text.strip_prefix("${")?;
    let end = inner.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))?;
    let (name, tail) = inner.split_at(end);
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let (default, after) = if let Some(after) = tail.strip_prefix('}') {
        (None, after)
    } else {
        let (default, after) = tail.strip_prefix(":=")?.split_once('}')?;
        (Some(default), after)
    };
    if default.is_some_and(|default| default.contains(['\n', '\r', '$', '{'])) {
        return None;
    }
    let raw = &text[..text.len() - after.len()];
    let placeholder = Placeholder {
        name: name.to_owned(),
        default: default.map(ToOwned::to_owned),
        raw: raw.to_owned(),
    };
    Some((placeholder, after))
}

/// Fills the placeholders of trees.
pub(super) struct Fill<'a, 'p> {
    masked: &'a Masked,
    values: &'a BTreeMap<String, String>,
    problems: &'a mut Problems<'p>,
    used: BTreeSet<String>,
}

impl<'a, 'p> Fill<'a, 'p> {
    /// Values to be filled into the trees of `masked`.
    pub(super) const fn new(
        masked: &'a Masked,
        values: &'a BTreeMap<String, String>,
        problems: &'a mut Problems<'p>,
    ) -> Self {
        Self {
            masked,
            values,
            problems,
            used: BTreeSet::new(),
        }
    }

    /// Reports the values that no placeholder took.
    pub(super) fn finish(self) {
        let names: Vec<&str> = self
            .masked
            .found
            .iter()
            .map(|found| found.name.as_str())
            .collect();
        for given in self
            .values
            .keys()
            .filter(|given| !self.used.contains(*given))
        {
            let mut valid = names.clone();
            valid.sort_unstable();
            valid.dedup();
            let expected = if valid.is_empty() {
                "no parameters at all".to_owned()
            } else {
                format!("one of {}", valid.join(", "))
            };
            self.problems.add(
                At::default(),
                format!("the template has no parameter `{given}`"),
                expected,
                suggest(given, names.iter().copied(), "remove it from `parameters`"),
            );
        }
    }

    /// Fills a document. `script` says that it is text for the guest, where `${X}` may be a shell's.
    pub(super) fn fill(&mut self, node: &mut Node, script: bool) {
        match &mut node.kind {
            Kind::Text(text) if text.contains([OPEN, LITERAL]) || text.contains("${") => {
                let text = std::mem::take(text);
                node.kind = self.scalar(&text, node.at, script);
            }
            Kind::List(items) => items.iter_mut().for_each(|item| self.fill(item, script)),
            Kind::Map(entries) => {
                for (key, value) in entries.iter_mut() {
                    if key.text.contains([OPEN, LITERAL]) {
                        self.problems.add(
                            key.at,
                            "a placeholder stands in a key",
                            "placeholders in values only",
                            "write the key out",
                        );
                    }
                    self.fill(value, script || is_script(&key.text));
                }
                entries.retain(|(_, value)| {
                    !matches!(&value.kind, Kind::Null) || !self.is_mark(value.at)
                });
            }
            _ => {}
        }
    }

    /// Whether a placeholder begins at this place: then an empty value leaves the field out.
    fn is_mark(&self, at: At) -> bool {
        self.masked
            .text
            .get(at.offset..)
            .is_some_and(|rest| rest.starts_with(OPEN))
    }

    fn scalar(&mut self, text: &str, at: At, script: bool) -> Kind {
        if !script && text.contains("${") {
            self.problems.add(
                at,
                "`${` does not begin a placeholder here",
                "`${NAME}` or `${NAME:=default}`",
                "correct it, or write `$${` for a literal `${`",
            );
        }
        let mut out = String::new();
        let mut rest = text;
        while let Some(start) = rest.find([OPEN, LITERAL]) {
            out.push_str(&rest[..start]);
            let mut chars = rest[start..].chars();
            if chars.next() == Some(OPEN) {
                let number = chars.next().map_or(0, u32::from).wrapping_sub(FIRST);
                rest = rest.split_once(CLOSE).map_or("", |(_, rest)| rest);
                let value = self.value(number, at, script);
                out.push_str(&value);
            } else {
                out.push_str("${");
                rest = chars.as_str().trim_start_matches(PAD);
            }
        }
        out.push_str(rest);
        let whole =
            text.starts_with(OPEN) && text.matches(OPEN).count() == 1 && text.ends_with(CLOSE);
        if !script && self.is_plain(at) {
            typed(out, whole)
        } else {
            Kind::Text(out)
        }
    }

    /// Whether the scalar is written without quotes and so may become a number or boolean.
    fn is_plain(&self, at: At) -> bool {
        let Some((before, rest)) = self.masked.text.split_at_checked(at.offset) else {
            return false;
        };
        let quoted = rest.starts_with(['"', '\'', '|', '>', '!', '&']);
        // The place of a block scalar is its first line of text: its header ends the line before.
        let above = before.trim_end_matches(' ').strip_suffix('\n');
        let header = above
            .and_then(|above| above.trim_end().lines().next_back())
            .is_some_and(|line| {
                let code = line.split(" #").next().unwrap_or(line);
                code.split_whitespace()
                    .next_back()
                    .is_some_and(is_block_header)
            });
        !quoted && !header
    }

    fn value(&mut self, number: u32, at: At, script: bool) -> String {
        let index = usize::try_from(number).unwrap_or(usize::MAX);
        let Some(placeholder) = self.masked.found.get(index) else {
            return String::new();
        };
        let name = &placeholder.name;
        if let Some(value) = self.values.get(name) {
            self.used.insert(name.clone());
            self.check(name, value, at, script);
            return value.clone();
        }
        let default = placeholder.default.as_ref().or_else(|| {
            let mut same = self.masked.found.iter().filter(|other| other.name == *name);
            same.find_map(|other| other.default.as_ref())
        });
        match default {
            Some(default) => default.clone(),
            // In a script an undeclared name is the shell's own variable.
            None if script => placeholder.raw.clone(),
            None => {
                self.problems.add(
                    at,
                    format!("the parameter `{name}` has no value"),
                    "a value: the template has no default",
                    format!("add `{name}:` under the workload's `parameters`"),
                );
                String::new()
            }
        }
    }

    fn check(&mut self, name: &str, value: &str, at: At, script: bool) {
        let plain = |c: char| c.is_ascii_alphanumeric() || " ._/@+=:,-".contains(c);
        let unsafe_in_script = !value.chars().all(plain)
            || value.contains(": ")
            || value.ends_with(':')
            || value.starts_with([' ', '-', '@', '=', ',', ':'])
            || value.ends_with(' ');
        if value.contains(char::is_control) {
            let what = format!("the value of `{name}` holds control characters");
            self.problems
                .add(at, what, "one line of text", "correct the value");
        } else if script && unsafe_in_script {
            self.problems.add(
                at,
                format!("the value of `{name}` could change the meaning of this text"),
                "letters, digits, inner spaces and `._/@+=:,-`",
                "put the whole text into your own template",
            );
        }
    }
}

/// Whether a word is what stands before a literal or folded block: `|`, `>-`, `|2+`.
fn is_block_header(word: &str) -> bool {
    word.strip_prefix(['|', '>']).is_some_and(|rest| {
        rest.chars()
            .all(|c| c.is_ascii_digit() || c == '+' || c == '-')
    })
}

/// The type that YAML gives a plain scalar; only scalars come out, whatever the text looks like.
fn typed(text: String, whole: bool) -> Kind {
    if whole && text.is_empty() {
        return Kind::Null;
    }
    match yaml::parse(&text, false).map(|mut nodes| (nodes.len(), nodes.pop())) {
        Ok((1, Some(node))) if matches!(node.kind, Kind::Bool(_) | Kind::Number(_)) => node.kind,
        _ => Kind::Text(text),
    }
}

/// Whether what stands under a key is text for the guest rather than for Kubernetes.
fn is_script(key: &str) -> bool {
    [
        "userData",
        "networkData",
        "userdata",
        "networkdata",
        "data",
        "stringData",
    ]
    .contains(&key)
}
