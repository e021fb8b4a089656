//! YAML as a tree that remembers where each value stands, so that later findings can name the line.
//! Reading is bounded in size, depth and aliases; hostile text gives an error, never a panic.

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::options::{DuplicateKeyPolicy, MergeKeyPolicy};
use serde_saphyr::{Location, Spanned};

/// The largest text that is read, in bytes.
pub const MAX_TEXT: usize = 1 << 20;

/// A place in a text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct At {
    /// Line from 1; 0 is the text as a whole.
    pub line: u64,
    /// Column from 1.
    pub column: u64,
    /// Byte offset.
    pub offset: usize,
}

impl From<Location> for At {
    fn from(location: Location) -> Self {
        Self {
            line: location.line(),
            column: location.column(),
            offset: location
                .span()
                .byte_offset()
                .and_then(|offset| usize::try_from(offset).ok())
                .unwrap_or_default(),
        }
    }
}

/// A value and its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where it stands (an alias: where it is used).
    pub at: At,
    /// What it is.
    pub kind: Kind,
}

/// The kinds of values.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// Nothing.
    Null,
    /// `true` or `false`; `yes` and `on` are text.
    Bool(bool),
    /// An integer or a float.
    Number(Number),
    /// Text.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping in the order written. Keys may repeat: the reader of the tree looks for that.
    Map(Vec<(Key, Node)>),
}

/// A mapping key and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Where it stands.
    pub at: At,
    /// Its text.
    pub text: String,
}

impl Node {
    /// The value under a key of a mapping.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match &self.kind {
            Kind::Map(entries) => entries
                .iter()
                .find(|(found, _)| found.text == key)
                .map(|(_, value)| value),
            _ => None,
        }
    }

    /// The place of the value at a path of keys and indices, or of its nearest ancestor.
    pub fn place(&self, path: &[&str]) -> At {
        let Some((first, rest)) = path.split_first() else {
            return self.at;
        };
        let next = match &self.kind {
            Kind::List(items) => first.parse().ok().and_then(|index: usize| items.get(index)),
            _ => self.get(first),
        };
        next.map_or(self.at, |node| node.place(rest))
    }

    /// The tree without its places. Of repeated keys the last one stays.
    pub fn to_value(&self) -> Value {
        match &self.kind {
            Kind::Null => Value::Null,
            Kind::Bool(value) => Value::Bool(*value),
            Kind::Number(number) => Value::Number(number.clone()),
            Kind::Text(text) => Value::String(text.clone()),
            Kind::List(items) => Value::Array(items.iter().map(Self::to_value).collect()),
            Kind::Map(entries) => Value::Object(
                entries
                    .iter()
                    .map(|(key, value)| (key.text.clone(), value.to_value()))
                    .collect::<Map<_, _>>(),
            ),
        }
    }

    /// What it is, in a word or two.
    pub const fn describe(&self) -> &'static str {
        match &self.kind {
            Kind::Null => "nothing",
            Kind::Bool(_) => "a boolean",
            Kind::Number(_) => "a number",
            Kind::Text(_) => "text",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a mapping",
        }
    }

    /// The second and later keys of each mapping that repeats them, with the place of the first.
    pub fn repeated_keys(&self) -> Vec<(&Key, At)> {
        let mut found = Vec::new();
        self.collect_repeated(&mut found);
        found
    }

    fn collect_repeated<'a>(&'a self, found: &mut Vec<(&'a Key, At)>) {
        match &self.kind {
            Kind::Map(entries) => {
                let mut seen = std::collections::BTreeMap::new();
                for (key, value) in entries {
                    if let Some(first) = seen.get(key.text.as_str()) {
                        found.push((key, *first));
                    } else {
                        seen.insert(key.text.as_str(), key.at);
                    }
                    value.collect_repeated(found);
                }
            }
            Kind::List(items) => items.iter().for_each(|item| item.collect_repeated(found)),
            _ => {}
        }
    }
}

/// Text that is not YAML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    /// Where, as far as the parser knows.
    pub at: At,
    /// What it says.
    pub what: String,
}

/// Reads a text of one or more documents; empty documents are left out. With `merge`, `<<` merges as
/// `kubectl` does; without, it is a key like any other.
pub fn parse(text: &str, merge: bool) -> Result<Vec<Node>, Malformed> {
    if text.len() > MAX_TEXT {
        return Err(Malformed {
            at: At::default(),
            what: format!("it has {} bytes and the limit is {MAX_TEXT}", text.len()),
        });
    }
    let options = serde_saphyr::options! {
        strict_booleans: true,
        with_snippet: false,
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        merge_keys: if merge { MergeKeyPolicy::Merge } else { MergeKeyPolicy::AsOrdinary },
        budget: serde_saphyr::budget! {
            max_depth: 48,
            max_nodes: 100_000,
            max_events: 200_000,
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_documents: 100,
            max_total_scalar_bytes: 4 * MAX_TEXT,
        },
    };
    serde_saphyr::from_multiple_with_options::<Node>(text, options)
        .map(|nodes| {
            nodes
                .into_iter()
                .filter(|node| node.kind != Kind::Null)
                .collect()
        })
        .map_err(|error| Malformed {
            at: error.location().map_or_else(At::default, At::from),
            what: without_place(&error.to_string()),
        })
}

/// The parser's words without the place that it appends, which [`Malformed`] holds by itself.
fn without_place(message: &str) -> String {
    let end = message.rfind(" at line ").unwrap_or(message.len());
    message[..end].to_owned()
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Kind>::deserialize(deserializer)?;
        Ok(Self {
            at: spanned.referenced.into(),
            kind: spanned.value,
        })
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KindVisitor)
    }
}

struct KindVisitor;

impl<'de> Visitor<'de> for KindVisitor {
    type Value = Kind;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Kind, E> {
        Ok(Kind::Null)
    }

    fn visit_none<E>(self) -> Result<Kind, E> {
        Ok(Kind::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Kind, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Kind, E> {
        Ok(Kind::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Kind, E> {
        Ok(Kind::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Kind, E> {
        Ok(Kind::Number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Kind, E> {
        Number::from_f64(value)
            .map(Kind::Number)
            .ok_or_else(|| E::custom("infinite and undefined numbers have no place here"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Kind, E> {
        Ok(Kind::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Kind, E> {
        Ok(Kind::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Kind, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Kind::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Kind, A::Error> {
        let mut map = Vec::new();
        while let Some(key) = entries.next_key::<Spanned<String>>()? {
            let key = Key {
                at: key.referenced.into(),
                text: key.value,
            };
            map.push((key, entries.next_value()?));
        }
        Ok(Kind::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_know_their_place() {
        let nodes = parse("a: 1\nb:\n  - x: yes\n  - \"y\"\n---\nc: ~\n", true).unwrap();
        assert_eq!(nodes.len(), 2);
        let b = nodes[0].place(&["b", "0", "x"]);
        assert_eq!((b.line, b.column), (3, 8));
        let y = nodes[0].place(&["b", "1"]);
        assert_eq!((y.line, y.column, y.offset), (4, 5, 23));
        assert_eq!(nodes[1].place(&["c"]).line, 6);
        assert_eq!(
            nodes[0].to_value(),
            serde_json::json!({"a": 1, "b": [{"x": "yes"}, "y"]})
        );
    }

    #[test]
    fn repeated_keys_are_found_at_every_depth() {
        let node = parse("a: 1\nb: {c: 1, c: 2}\na: 2\n", false)
            .unwrap()
            .remove(0);
        let found: Vec<_> = node
            .repeated_keys()
            .into_iter()
            .map(|(key, first)| (key.text.clone(), key.at.line, first.line))
            .collect();
        assert_eq!(found, [("c".to_owned(), 2, 2), ("a".to_owned(), 3, 1)]);
    }

    #[test]
    fn bombs_are_refused() {
        let deep = "[".repeat(10_000);
        assert!(parse(&deep, true).is_err());
        let levels = (1_u8..12).map(|level| {
            let (name, of) = (char::from(b'a' + level), char::from(b'a' + level - 1));
            let many = format!("*{of},").repeat(8);
            format!("{name}: &{name} [{many}]")
        });
        let levels: Vec<String> = levels.collect();
        let laughs = format!("a: &a [x,x,x,x,x,x,x,x]\n{}\n", levels.join("\n"));
        assert!(parse(&laughs, true).is_err());
        assert!(parse(&" ".repeat(MAX_TEXT + 1), true).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn hostile_text_never_panics(text in "[\\PC\\n\\t ]{0,200}", merge: bool) {
            if let Err(malformed) = parse(&text, merge) {
                prop_assert!(!malformed.what.is_empty());
            }
        }

        #[test]
        fn yaml_like_text_never_panics(text in "(([a-c]|- |: |\\{|\\}|\\[|\\]|&x |\\*x|<<|!!str |\\||>|\"|'|#|---|\n|  |1|~|\\.\\.\\.){0,60})") {
            for node in parse(&text, true).unwrap_or_default() {
                prop_assert!(node.at.line <= text.lines().count() as u64 + 1);
                prop_assert_eq!(node.to_value().is_null(), false);
            }
        }
    }
}
