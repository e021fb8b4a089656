//! Label and field selectors.

use serde_json::Value;

use super::names;
use crate::lab::api::errors::ApiError;
use crate::lab::api::meta;
use crate::lab::api::registry::Kind;

/// Which objects a list or watch shows.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<FieldTest>,
}

#[derive(Debug, Clone, PartialEq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Debug, Clone, PartialEq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Missing,
}

#[derive(Debug, Clone, PartialEq)]
struct FieldTest {
    pointer: String,
    value: String,
    equal: bool,
}

impl Selector {
    /// Reads both selectors of a request.
    pub(super) fn parse(kind: &Kind, labels: &str, fields: &str) -> Result<Self, ApiError> {
        Ok(Self {
            labels: parse_labels(labels).map_err(|why| {
                ApiError::bad_request(format!("unable to parse requirement: {why}"))
            })?,
            fields: parse_fields(kind, fields)?,
        })
    }

    /// The same, and only the object with this name.
    pub(super) fn named(mut self, name: &str) -> Self {
        if !name.is_empty() {
            self.fields.push(FieldTest {
                pointer: "/metadata/name".to_owned(),
                value: name.to_owned(),
                equal: true,
            });
        }
        self
    }

    /// Whether everything is shown.
    pub(super) const fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether an object is shown.
    pub(super) fn matches(&self, object: &Value) -> bool {
        self.labels.iter().all(|requirement| {
            let label = meta::label(object, &requirement.key);
            match &requirement.test {
                Test::In(values) => label.is_some_and(|v| values.iter().any(|value| value == v)),
                Test::NotIn(values) => label.is_none_or(|v| values.iter().all(|value| value != v)),
                Test::Exists => label.is_some(),
                Test::Missing => label.is_none(),
            }
        }) && self.fields.iter().all(|test| {
            let found = match object.pointer(&test.pointer) {
                Some(Value::String(text)) => text.clone(),
                Some(Value::Null) | None => String::new(),
                Some(other) => other.to_string(),
            };
            (found == test.value) == test.equal
        })
    }
}

/// Field selectors beyond name and namespace, by resource key: the label and where it reads.
const FIELDS: &[(&str, &[&str])] = &[
    (
        "pods",
        &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
    ),
    (
        "events",
        &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
    ),
    ("namespaces", &["status.phase"]),
    ("nodes", &["spec.unschedulable"]),
    ("secrets", &["type"]),
];

fn parse_fields(kind: &Kind, text: &str) -> Result<Vec<FieldTest>, ApiError> {
    let known = FIELDS
        .iter()
        .find(|(key, _)| *key == kind.key() || *key == "events" && kind.kind == "Event")
        .map_or(&[][..], |(_, fields)| fields);
    text.split(',')
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (field, value, equal) = if let Some((field, value)) = part.split_once("!=") {
                (field, value, false)
            } else if let Some((field, value)) = part.split_once("==") {
                (field, value, true)
            } else if let Some((field, value)) = part.split_once('=') {
                (field, value, true)
            } else {
                return Err(ApiError::bad_request(format!(
                    "invalid selector: '{text}'; can't understand '{part}'"
                )));
            };
            let stored = field.replace("regarding.", "involvedObject.");
            if !matches!(field, "metadata.name" | "metadata.namespace")
                && !known.contains(&stored.as_str())
            {
                return Err(ApiError::bad_request(if kind.custom() {
                    format!("field label not supported: {field}")
                } else {
                    format!(
                        "\"{field}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
                    )
                }));
            }
            Ok(FieldTest {
                pointer: format!("/{}", stored.replace('.', "/")),
                value: value.to_owned(),
                equal,
            })
        })
        .collect()
}

/// Reads a label selector; the errors are those of the real parser.
fn parse_labels(text: &str) -> Result<Vec<Requirement>, String> {
    let mut lexer = Lexer { rest: text };
    let mut requirements = Vec::new();
    while lexer.peek().is_some() {
        requirements.push(requirement(&mut lexer)?);
        match lexer.next() {
            None => break,
            Some(",") => {}
            Some(other) => {
                return Err(format!("found '{other}', expected: ',' or 'end of string'"));
            }
        }
    }
    Ok(requirements)
}

fn requirement(lexer: &mut Lexer<'_>) -> Result<Requirement, String> {
    let missing = lexer.peek() == Some("!");
    if missing {
        lexer.next();
    }
    let key = identifier(lexer)?;
    check_key(&key)?;
    if missing {
        return Ok(Requirement {
            key,
            test: Test::Missing,
        });
    }
    let test = match lexer.peek() {
        None | Some(",") => Test::Exists,
        Some(operator @ ("=" | "==" | "!=")) => {
            let negative = operator == "!=";
            lexer.next();
            let value = match lexer.peek() {
                None | Some(",") => String::new(),
                Some(_) => identifier(lexer)?,
            };
            check_value(&key, &value)?;
            if negative {
                Test::NotIn(vec![value])
            } else {
                Test::In(vec![value])
            }
        }
        Some(operator @ ("in" | "notin")) => {
            let negative = operator == "notin";
            lexer.next();
            let values = values(lexer)?;
            for value in &values {
                check_value(&key, value)?;
            }
            if negative {
                Test::NotIn(values)
            } else {
                Test::In(values)
            }
        }
        Some(other) => {
            return Err(format!(
                "found '{other}', expected: in, notin, =, ==, !=, gt, lt"
            ));
        }
    };
    Ok(Requirement { key, test })
}

fn values(lexer: &mut Lexer<'_>) -> Result<Vec<String>, String> {
    match lexer.next() {
        Some("(") => {}
        other => return Err(format!("found '{}' expected: '('", other.unwrap_or(""))),
    }
    let mut values = Vec::new();
    loop {
        match lexer.next() {
            Some(")") => return Ok(values),
            Some(",") => {}
            Some(value) => values.push(value.to_owned()),
            None => return Err("found '', expected: ',' or ')'".to_owned()),
        }
    }
}

fn identifier(lexer: &mut Lexer<'_>) -> Result<String, String> {
    match lexer.next() {
        Some(token @ ("=" | "==" | "!=" | "(" | ")" | "," | "!")) => {
            Err(format!("found '{token}', expected: identifier"))
        }
        Some(token) => Ok(token.to_owned()),
        None => Err("found '', expected: identifier".to_owned()),
    }
}

fn check_key(key: &str) -> Result<(), String> {
    let name = key.rsplit('/').next().unwrap_or(key);
    match names::label_name(name) {
        None => Ok(()),
        Some(why) => Err(format!("<nil>: Invalid value: {key:?}: {why}")),
    }
}

fn check_value(key: &str, value: &str) -> Result<(), String> {
    match names::label_value(value) {
        None => Ok(()),
        Some(why) => Err(format!("values[0][{key}]: Invalid value: {value:?}: {why}")),
    }
}

#[derive(Clone, Copy)]
struct Lexer<'a> {
    rest: &'a str,
}

impl<'a> Lexer<'a> {
    fn peek(&self) -> Option<&'a str> {
        (*self).clone_next()
    }

    fn clone_next(mut self) -> Option<&'a str> {
        self.next()
    }

    fn next(&mut self) -> Option<&'a str> {
        self.rest = self.rest.trim_start();
        if self.rest.is_empty() {
            return None;
        }
        let marks = ["==", "!=", "=", "!", "(", ")", ","];
        let length = marks
            .iter()
            .find(|mark| self.rest.starts_with(**mark))
            .map_or_else(
                || {
                    self.rest
                        .find(|c: char| c.is_whitespace() || "=!(),".contains(c))
                        .unwrap_or(self.rest.len())
                },
                |mark| mark.len(),
            );
        let (token, rest) = self.rest.split_at(length);
        self.rest = rest;
        Some(token)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::lab::api::registry::Registry;

    fn matches(labels: &str, object: &Value) -> bool {
        let registry = Registry::builtin();
        let kind = registry.get("configmaps").unwrap();
        Selector::parse(kind, labels, "").unwrap().matches(object)
    }

    #[test]
    fn labels() {
        let object = json!({"metadata": {"labels": {"app": "x"}}});
        for (text, expected) in [
            ("app=x", true),
            ("app==x,app!=y", true),
            ("app in (x,y)", true),
            ("app notin (x)", false),
            ("other notin (x)", true),
            ("!app", false),
            ("app", true),
            ("", true),
        ] {
            assert_eq!(matches(text, &object), expected, "{text}");
        }
    }

    #[test]
    fn errors_are_worded_as_the_server_words_them() {
        let registry = Registry::builtin();
        let kind = registry.get("configmaps").unwrap();
        for (labels, fields, message) in [
            (
                "app===x",
                "",
                "unable to parse requirement: found '=', expected: identifier",
            ),
            (
                "app in x",
                "",
                "unable to parse requirement: found 'x' expected: '('",
            ),
            (
                "",
                "metadata.name",
                "invalid selector: 'metadata.name'; can't understand 'metadata.name'",
            ),
        ] {
            let error = Selector::parse(kind, labels, fields).unwrap_err();
            assert_eq!(error.message, message);
        }
    }
}
