//! Whether an answer has the recorded shape.
//!
//! Status and media type are the same; refusals have the same reason, code, details and causes;
//! everything else has the same fields of the same types, and the same values where a value is a
//! word of the protocol. Recordings that are shortened are compared as far as they go.

use serde_json::{Map, Value};

use crate::harness::{Answer, Line};
use crate::names::Names;

/// Fields whose values are words of the protocol.
const WORDS: &[&str] = &[
    "kind",
    "apiVersion",
    "phase",
    "manager",
    "operation",
    "subresource",
    "fieldsType",
    "responseKind",
    "scope",
    "singularName",
    "namespaced",
    "type",
    "priority",
    "deletionGracePeriodSeconds",
    "generation",
    "finalizers",
    "labels",
    "spec",
    "fieldsV1",
    "qosClass",
    "shortNames",
];

/// What is different, if anything.
pub(crate) fn compare(line: &Line, answer: &Answer, names: &Names) -> Result<(), String> {
    let recorded = line.response();
    if recorded["status"] != answer.status {
        return Err(format!(
            "status {} and not {}: {}",
            answer.status,
            recorded["status"],
            short(&answer.body)
        ));
    }
    for (field, exact) in [
        ("Content-Type", false),
        ("Retry-After", true),
        ("Warning", true),
    ] {
        let theirs = recorded["headers"][field].as_str().unwrap_or("");
        let mine: Vec<&str> = answer
            .headers
            .get_all(field)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .collect();
        let mine = mine.join(" | ");
        let media = |text: &str| text.split(';').next().unwrap_or("").to_owned();
        let same = if exact {
            theirs == mine
        } else {
            media(theirs) == media(&mine)
        };
        let untold = theirs.is_empty() && field == "Content-Type";
        if !same && !untold {
            return Err(format!("{field} {mine:?} and not {theirs:?}"));
        }
    }
    if let Some(events) = line.events() {
        return watch(events, answer, names);
    }
    let trimmed = ["trimmed", "size only", "profile=nopeer"]
        .iter()
        .any(|word| line.note().contains(word));
    body(&recorded["body"], &answer.body, trimmed, names)
}

fn short(value: &Value) -> String {
    value.to_string().chars().take(300).collect()
}

fn watch(recorded: &[Value], answer: &Answer, names: &Names) -> Result<(), String> {
    let types = |events: &[Value]| -> Vec<String> {
        events
            .iter()
            .map(|event| {
                let object = &event["object"];
                let object = object.pointer("/rows/0/object").unwrap_or(object);
                let name = object["metadata"]["name"].as_str().unwrap_or("");
                format!("{} {name}", event["type"].as_str().unwrap_or(""))
            })
            .collect()
    };
    let theirs: Vec<String> = types(recorded)
        .iter()
        .map(|event| names.translate_text(event))
        .collect();
    let mine = types(&answer.events);
    if theirs != mine {
        return Err(format!("events {mine:?} and not {theirs:?}"));
    }
    for (at, (theirs, mine)) in recorded.iter().zip(&answer.events).enumerate() {
        body(&theirs["object"], &mine["object"], false, names)
            .map_err(|why| format!("event {at}: {why}"))?;
    }
    Ok(())
}

fn body(recorded: &Value, ours: &Value, trimmed: bool, names: &Names) -> Result<(), String> {
    if recorded["kind"] == "Status" && recorded["status"] == "Failure" {
        return refusal(recorded, ours);
    }
    match recorded {
        Value::Null => Ok(()),
        Value::String(_) if trimmed => Ok(()),
        Value::String(text) if ours.is_string() => {
            let lines = |text: &str| text.lines().count();
            let mine = ours.as_str().unwrap_or("");
            if lines(text) == lines(mine) || text.is_empty() == mine.is_empty() {
                Ok(())
            } else {
                Err(format!("text {mine:?}"))
            }
        }
        _ => Shape { trimmed, names }.same(recorded, ours, "", false),
    }
}

fn refusal(recorded: &Value, ours: &Value) -> Result<(), String> {
    let causes = |status: &Value| -> Vec<String> {
        let list = status.pointer("/details/causes").and_then(Value::as_array);
        let mut causes: Vec<String> = list
            .into_iter()
            .flatten()
            .map(|cause| format!("{} {}", cause["reason"], cause["field"]))
            .collect();
        causes.sort();
        causes
    };
    let fields = |status: &Value| -> Map<String, Value> {
        let details = status["details"].as_object().cloned().unwrap_or_default();
        details
            .into_iter()
            .filter(|(field, _)| !matches!(field.as_str(), "causes" | "name" | "uid"))
            .collect()
    };
    for field in ["kind", "status", "reason", "code"] {
        if recorded[field] != ours[field] {
            return Err(format!(
                "{field} {} and not {}: {}",
                ours[field],
                recorded[field],
                short(ours)
            ));
        }
    }
    if causes(recorded) != causes(ours) {
        return Err(format!(
            "causes {:?} and not {:?}",
            causes(ours),
            causes(recorded)
        ));
    }
    if fields(recorded) != fields(ours) {
        return Err(format!(
            "details {:?} and not {:?}",
            fields(ours),
            fields(recorded)
        ));
    }
    Ok(())
}

struct Shape<'a> {
    trimmed: bool,
    names: &'a Names,
}

impl Shape<'_> {
    /// `exact`: values count too, not only types.
    fn same(&self, theirs: &Value, mine: &Value, path: &str, exact: bool) -> Result<(), String> {
        match (theirs, mine) {
            (Value::Object(theirs), Value::Object(mine)) => self.maps(theirs, mine, path, exact),
            (Value::Array(theirs), Value::Array(mine)) => self.lists(theirs, mine, path, exact),
            (Value::String(text), _) if text == "REDACTED" || text.starts_with("... trimmed") => {
                Ok(())
            }
            (Value::String(a), Value::String(b)) => {
                let a = self.names.translate_text(a);
                let token = "kube-api-access-";
                let generated = a.starts_with(token) && b.starts_with(token);
                if exact && a != *b && !is_time(&a) && !generated {
                    return Err(format!("{path} is {b:?} and not {a:?}"));
                }
                Ok(())
            }
            (a, b) if exact && a != b => Err(format!("{path} is {b} and not {a}")),
            (a, b) if std::mem::discriminant(a) == std::mem::discriminant(b) => Ok(()),
            (a, b) => Err(format!("{path} is {} and not {}", short(b), short(a))),
        }
    }

    fn maps(
        &self,
        theirs: &Map<String, Value>,
        mine: &Map<String, Value>,
        path: &str,
        exact: bool,
    ) -> Result<(), String> {
        let mine: Map<String, Value> = mine.clone();
        let known: Map<String, Value> = theirs
            .iter()
            .filter(|(field, _)| !field.starts_with("_trimmed"))
            .map(|(field, value)| (self.names.translate_text(field), value.clone()))
            .collect();
        if !self.trimmed && !path.ends_with("data") {
            let missing: Vec<&String> = known.keys().filter(|f| !mine.contains_key(*f)).collect();
            // The recorder took `managedFields` out of many answers.
            let more: Vec<&String> = mine
                .keys()
                .filter(|field| !known.contains_key(*field) && *field != "managedFields")
                .collect();
            if !missing.is_empty() || !more.is_empty() {
                return Err(format!("{path} lacks {missing:?} and has {more:?}"));
            }
        }
        for (field, value) in &known {
            let Some(other) = mine.get(field) else {
                return Err(format!("{path} lacks {field}"));
            };
            let exact = exact || WORDS.contains(&field.as_str());
            self.same(value, other, &format!("{path}.{field}"), exact)?;
        }
        Ok(())
    }

    fn lists(
        &self,
        theirs: &[Value],
        mine: &[Value],
        path: &str,
        exact: bool,
    ) -> Result<(), String> {
        // The order of rules is that of a hash map in the recorded server.
        let sorted = |rules: &[Value]| {
            let mut rules = rules.to_vec();
            rules.sort_by_key(ToString::to_string);
            rules
        };
        // Entries are ordered by the second of their write.
        let by_writer = |entries: &[Value]| {
            let mut entries = entries.to_vec();
            entries.sort_by_key(|e| {
                format!("{} {} {}", e["manager"], e["operation"], e["subresource"])
            });
            entries
        };
        if path.ends_with(".managedFields") {
            let (theirs, mine) = (by_writer(theirs), by_writer(mine));
            return self.each(&theirs, &mine, path, exact);
        }
        let (ours, known) = (sorted(mine), sorted(theirs));
        let (theirs, mine) = if path.ends_with("Rules") {
            (&known[..], &ours[..])
        } else {
            (theirs, mine)
        };
        let cut = theirs
            .iter()
            .any(|item| item.as_str().is_some_and(|t| t.starts_with("... trimmed")));
        if self.trimmed || cut {
            for item in theirs.iter().filter(|item| identity(item).is_some()) {
                let found = mine.iter().find(|other| identity(other) == identity(item));
                let Some(found) = found else {
                    return Err(format!("{path} has no {:?}", identity(item)));
                };
                self.same(item, found, path, exact)?;
            }
            return Ok(());
        }
        self.each(theirs, mine, path, exact)
    }

    fn each(
        &self,
        theirs: &[Value],
        mine: &[Value],
        path: &str,
        exact: bool,
    ) -> Result<(), String> {
        if theirs.len() != mine.len() {
            let mine: Vec<_> = mine
                .iter()
                .map(|item| identity(item).unwrap_or_default())
                .collect();
            return Err(format!(
                "{path} has {} items {mine:?} and not {}",
                mine.len(),
                theirs.len()
            ));
        }
        for (at, (theirs, mine)) in theirs.iter().zip(mine).enumerate() {
            let path = format!("{path}[{at}]");
            if is_stub(theirs) {
                self.stub(theirs, mine, &path)?;
            } else {
                self.same(theirs, mine, &path, exact)?;
            }
        }
        Ok(())
    }

    /// Items of which the recording kept only name and labels.
    fn stub(&self, theirs: &Value, mine: &Value, path: &str) -> Result<(), String> {
        let name = theirs["metadata"]["name"].as_str().unwrap_or("");
        let (name, labels) = (
            self.names.translate_text(name),
            &theirs["metadata"]["labels"],
        );
        let relabelled =
            theirs["metadata"].get("labels").is_some() && mine["metadata"]["labels"] != *labels;
        if mine["metadata"]["name"] != name.as_str() || relabelled {
            return Err(format!("{path} is {} and not {theirs}", short(mine)));
        }
        Ok(())
    }
}

fn is_time(text: &str) -> bool {
    text.len() > 18 && text.as_bytes()[4] == b'-' && text.contains('T') && text.ends_with('Z')
}

fn is_stub(item: &Value) -> bool {
    let only = |value: &Value, fields: &[&str]| {
        value
            .as_object()
            .is_some_and(|map| map.keys().all(|field| fields.contains(&field.as_str())))
    };
    only(item, &["metadata"]) && only(&item["metadata"], &["name", "labels"])
}

/// What a list item is known by.
fn identity(item: &Value) -> Option<String> {
    match item {
        Value::String(text) if !text.starts_with("... trimmed") => return Some(text.clone()),
        _ => {}
    }
    ["name", "resource", "subresource", "version", "groupVersion"]
        .iter()
        .find_map(|field| item[*field].as_str())
        .or_else(|| item["metadata"]["name"].as_str())
        .or_else(|| item["metadata"].as_object().map(|_| ""))
        .map(str::to_owned)
}
