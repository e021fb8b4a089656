//! The part of Kubernetes' JSONPath that a condition may hold: names, indices, `[*]` and one filter
//! per bracket.

use serde_json::Value;

use super::expression::Operator;

/// A path from the root of an object.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Path(Vec<Segment>);

#[derive(Debug, Clone, PartialEq)]
enum Segment {
    Key(String),
    /// Negative from the end.
    Index(i64),
    All,
    /// Items whose value at the path compares so; without a comparison, items that have the path.
    Filter(Path, Option<(Operator, Value)>),
}

impl Path {
    /// Reads what stands behind the root (`$` or `@`).
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut segments = Vec::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            if first == '[' {
                let end = closing(rest).ok_or("a bracket is not closed")?;
                segments.push(bracket(rest[1..end].trim())?);
                rest = &rest[end + 1..];
                continue;
            }
            // Inside a filter the dot behind `@` may be missing.
            let name = rest.strip_prefix('.').unwrap_or(rest);
            let end = name.find(['.', '[']).unwrap_or(name.len());
            match &name[..end] {
                "" => return Err("a name is missing behind a dot".to_owned()),
                "*" => segments.push(Segment::All),
                key => segments.push(Segment::Key(key.to_owned())),
            }
            rest = &name[end..];
        }
        Ok(Self(segments))
    }

    /// The first value at the path.
    pub(super) fn first<'a>(&self, root: &'a Value) -> Option<&'a Value> {
        let mut found = vec![root];
        for segment in &self.0 {
            found = found.iter().flat_map(|value| segment.step(value)).collect();
        }
        found.first().copied()
    }
}

impl Segment {
    fn step<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match (self, value) {
            (Self::Key(key), Value::Object(map)) => map.get(key).into_iter().collect(),
            (Self::Index(index), Value::Array(items)) => {
                let length = i64::try_from(items.len()).unwrap_or(i64::MAX);
                let at = if *index < 0 { length + index } else { *index };
                let at = usize::try_from(at).ok();
                at.and_then(|at| items.get(at)).into_iter().collect()
            }
            (Self::All, Value::Array(items)) => items.iter().collect(),
            (Self::All, Value::Object(map)) => map.values().collect(),
            (Self::Filter(path, wanted), Value::Array(items)) => {
                let keep = |item: &&Value| match (path.first(item), wanted) {
                    (Some(found), Some((operator, literal))) => same(found, *operator, literal),
                    (found, None) => found.is_some(),
                    (None, Some(_)) => false,
                };
                items.iter().filter(keep).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// Compares inside a filter: numbers and texts, each with its kind.
fn same(found: &Value, operator: Operator, literal: &Value) -> bool {
    let order = match (found, literal) {
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (Value::Number(a), Value::Number(b)) => a
            .as_f64()
            .zip(b.as_f64())
            .and_then(|(a, b)| a.partial_cmp(&b)),
        _ => None,
    };
    order.is_some_and(|order| operator.holds(order))
}

/// The index of the bracket that closes the first one; brackets in quotes do not count.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if open == c => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

fn bracket(text: &str) -> Result<Segment, String> {
    if text == "*" {
        return Ok(Segment::All);
    }
    if let Some(key) = unquoted(text) {
        return Ok(Segment::Key(key.to_owned()));
    }
    if let Some(filter) = text.strip_prefix("?(").and_then(|t| t.strip_suffix(')')) {
        return self::filter(filter.trim());
    }
    let index = text.parse();
    index
        .map(Segment::Index)
        .map_err(|error| format!("`[{text}]` is no index, name or filter: {error}"))
}

fn filter(text: &str) -> Result<Segment, String> {
    let inner = text
        .strip_prefix('@')
        .ok_or_else(|| format!("the filter `{text}` does not start with `@`"))?;
    if inner.contains("[?") {
        return Err("a filter stands inside a filter".to_owned());
    }
    let Some((at, operator)) = Operator::find(inner) else {
        return Path::parse(inner).map(|path| Segment::Filter(path, None));
    };
    let (path, rest) = inner.split_at(at);
    let literal = rest[operator.text().len()..].trim();
    let value = match unquoted(literal) {
        Some(text) => Value::from(text),
        None => serde_json::from_str(literal)
            .map_err(|error| format!("`{literal}` is no literal of a filter: {error}"))?,
    };
    // `@type.==` is taken like `@.type ==`.
    let path = Path::parse(path.trim().trim_end_matches('.'))?;
    Ok(Segment::Filter(path, Some((operator, value))))
}

/// The text inside a pair of quotes.
pub(super) fn unquoted(text: &str) -> Option<&str> {
    ['"', '\'']
        .into_iter()
        .find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote))
}
