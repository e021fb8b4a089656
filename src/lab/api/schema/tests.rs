use serde_json::{Value, json};

use super::{Schema, cel, fill, prune, unknown_fields, validate};

fn schema() -> Schema {
    Schema::from_openapi(&json!({
        "type": "object",
        "required": ["spec"],
        "properties": {
            "spec": {
                "type": "object",
                "required": ["state", "on"],
                "x-kubernetes-validations": [
                    {"rule": "has(self.b) == has(oldSelf.b)", "message": "b stays"}
                ],
                "properties": {
                    "state": {"type": "string", "enum": ["up", "down"]},
                    "on": {"type": "boolean", "default": false},
                    "n": {"type": "integer", "minimum": 1},
                    "b": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                    "class": {"type": "string", "x-kubernetes-validations": [
                        {"rule": "self == oldSelf", "message": "class is immutable"}
                    ]},
                    "list": {
                        "type": "array",
                        "x-kubernetes-list-type": "map",
                        "x-kubernetes-list-map-keys": ["name"],
                        "items": {"type": "object", "properties": {"name": {"type": "string"}}}
                    }
                }
            }
        }
    }))
}

fn messages(object: &Value, old: Option<&Value>) -> Vec<String> {
    validate(&schema(), object, old)
        .into_iter()
        .map(|cause| format!("{}: {}", cause.field, cause.message))
        .collect()
}

#[test]
fn unknown_fields_are_named_and_pruned_but_not_in_open_objects() {
    let mut object = json!({
        "kind": "Thing",
        "spec": {"x": 1, "b": {"kept": 1}, "list": [{"name": "a", "y": 2}]},
        "top": 1
    });
    let unknown = unknown_fields(&schema(), &object);
    assert_eq!(unknown, ["top", "spec.x", "spec.list[0].y"]);
    assert_eq!(prune(&schema(), &mut object), unknown);
    let left = json!({"kind": "Thing", "spec": {"b": {"kept": 1}, "list": [{"name": "a"}]}});
    assert_eq!(object, left);
}

#[test]
fn defaults_come_before_validation() {
    let mut object = json!({"spec": {"state": "up"}});
    fill(&schema(), &mut object);
    assert_eq!(object["spec"]["on"], false);
    assert_eq!(messages(&object, None), Vec::<String>::new());
}

#[test]
fn findings_are_worded_as_the_server_words_them() {
    let object =
        json!({"spec": {"state": "Up", "on": "x", "n": 0, "list": [{"name": "a"}, {"name": "a"}]}});
    let unchecked = "<nil>: Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
    assert_eq!(
        messages(&object, None),
        [
            "spec.state: Unsupported value: \"Up\": supported values: \"up\", \"down\"",
            "spec.on: Invalid value: \"string\": spec.on in body must be of type boolean: \"string\"",
            "spec.n: Invalid value: 0: spec.n in body should be greater than or equal to 1",
            "spec.list[1]: Duplicate value: {\"name\":\"a\"}",
            unchecked,
        ]
    );
    assert_eq!(
        messages(&json!({}), None),
        ["spec: Required value", unchecked]
    );
}

#[test]
fn rules_compare_with_the_stored_object() {
    let old = json!({"spec": {"state": "up", "on": true, "class": "a", "b": {}}});
    let mut new = old.clone();
    new["spec"]["class"] = json!("b");
    assert_eq!(messages(&new, None), Vec::<String>::new());
    assert_eq!(
        messages(&new, Some(&old)),
        ["spec.class: Invalid value: \"b\": class is immutable"]
    );
    let without = json!({"spec": {"state": "up", "on": true, "class": "a"}});
    assert_eq!(
        messages(&without, Some(&old)),
        ["spec: Invalid value: b stays"]
    );
}

#[test]
fn expressions() {
    let this = json!({"a": "x", "namespace": "n", "list": ["p", "q"], "n": 3});
    for (rule, expected) in [
        ("has(self.a) && !has(self.b)", Some(true)),
        (
            "(has(self.a) && !has(self.list)) || has(self.zz)",
            Some(false),
        ),
        ("has(self.__namespace__)", Some(true)),
        ("size(self.a) > 0", Some(true)),
        ("self.list.all(x, x in ['p', 'q'])", Some(true)),
        ("self.list.all(x, x in ['p'])", Some(false)),
        (
            "self.a.startsWith('x') && !self.a.contains('..')",
            Some(true),
        ),
        ("self != null ? has(self.a) : true", Some(true)),
        ("self.n >= 3", Some(true)),
        ("self == oldSelf", None),
        ("self.list.exists(x, x == 'p')", None),
    ] {
        assert_eq!(cel::holds(rule, &this, None), expected, "{rule}");
    }
}
