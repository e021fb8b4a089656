//! Conditions of KubeVirt objects, whose times are written in three ways: both, only the
//! transition, or neither, depending on which component wrote them.

use serde_json::{Value, json};

use crate::lab::api::meta;

/// Which times a condition carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Times {
    /// Probe and transition, as virt-controller writes Ready=False.
    Both,
    /// Transition only.
    Transition,
    /// Neither, as virt-handler writes LiveMigratable.
    Neither,
}

/// A condition to be set.
#[derive(Debug, Clone, Copy)]
pub(super) struct Condition<'a> {
    /// Type.
    pub(super) kind: &'a str,
    /// `True` or `False`.
    pub(super) status: bool,
    /// Reason, left out when empty.
    pub(super) reason: &'a str,
    /// Message, left out when empty.
    pub(super) message: &'a str,
    /// Which times it carries.
    pub(super) times: Times,
}

/// The condition of a type.
pub(super) fn get<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object
        .pointer("/status/conditions")?
        .as_array()?
        .iter()
        .find(|condition| condition["type"] == kind)
}

/// Whether a condition is there and true.
pub(super) fn is_true(object: &Value, kind: &str) -> bool {
    get(object, kind).is_some_and(|condition| condition["status"] == "True")
}

/// The reason of a condition that is there and false.
pub(super) fn false_reason<'a>(object: &'a Value, kind: &str) -> Option<&'a str> {
    get(object, kind)
        .filter(|condition| condition["status"] == "False")
        .and_then(|condition| condition["reason"].as_str())
}

/// Sets a condition; one that says the same already keeps its times.
pub(super) fn set(object: &mut Value, condition: &Condition<'_>) {
    let status = if condition.status { "True" } else { "False" };
    let now = meta::now();
    let mut entry = json!({"type": condition.kind, "status": status});
    for (field, text) in [("reason", condition.reason), ("message", condition.message)] {
        if !text.is_empty() {
            entry[field] = json!(text);
        }
    }
    let (probe, transition) = match condition.times {
        Times::Both => (json!(now), json!(now)),
        Times::Transition => (Value::Null, json!(now)),
        Times::Neither => (Value::Null, Value::Null),
    };
    let same = get(object, condition.kind).is_some_and(|old| {
        ["status", "reason", "message"]
            .iter()
            .all(|field| old.get(field) == entry.get(field))
    });
    if same {
        return;
    }
    entry["lastProbeTime"] = probe;
    entry["lastTransitionTime"] = transition;
    put(object, entry);
}

/// Puts a whole condition in the place of the one of its type, or at the end.
pub(super) fn put(object: &mut Value, entry: Value) {
    if !object["status"]["conditions"].is_array() {
        object["status"]["conditions"] = json!([]);
    }
    let Some(all) = object["status"]["conditions"].as_array_mut() else {
        return;
    };
    match all.iter_mut().find(|old| old["type"] == entry["type"]) {
        Some(old) => *old = entry,
        None => all.push(entry),
    }
}

/// Takes a condition away.
pub(super) fn remove(object: &mut Value, kind: &str) {
    if let Some(all) = object
        .pointer_mut("/status/conditions")
        .and_then(Value::as_array_mut)
    {
        all.retain(|condition| condition["type"] != kind);
    }
}

/// Moves a condition behind the others.
pub(super) fn to_end(object: &mut Value, kind: &str) {
    if let Some(entry) = get(object, kind).cloned() {
        remove(object, kind);
        put(object, entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READY: Condition<'static> = Condition {
        kind: "Ready",
        status: false,
        reason: "GuestNotRunning",
        message: "m",
        times: Times::Both,
    };

    #[test]
    fn the_same_condition_is_not_written_again() {
        let mut object = json!({});
        set(&mut object, &READY);
        object["status"]["conditions"][0]["lastTransitionTime"] = json!("then");
        set(&mut object, &READY);
        assert_eq!(get(&object, "Ready").unwrap()["lastTransitionTime"], "then");
        let true_now = Condition {
            status: true,
            reason: "",
            message: "",
            times: Times::Transition,
            ..READY
        };
        set(&mut object, &true_now);
        assert!(is_true(&object, "Ready"));
        let entry = get(&object, "Ready").unwrap();
        assert_eq!(
            (entry.get("reason"), &entry["lastProbeTime"]),
            (None, &Value::Null)
        );
        remove(&mut object, "Ready");
        assert_eq!(object["status"]["conditions"], json!([]));
    }
}
