//! Schemas from and to the OpenAPI dialect of CustomResourceDefinitions.

use serde_json::{Map, Value, json};

use super::{Bounds, Merge, Rule, Schema, Shape};

impl Schema {
    /// Reads a schema as a CustomResourceDefinition writes it.
    pub fn from_openapi(value: &Value) -> Self {
        let flag = |name: &str| value.get(name) == Some(&Value::Bool(true));
        let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or("");
        let shape = match text("type") {
            _ if flag("x-kubernetes-int-or-string") => Shape::IntOrString,
            "object" => Shape::Object,
            "array" => Shape::Array,
            "string" => Shape::String,
            "integer" => Shape::Integer,
            "number" => Shape::Number,
            "boolean" => Shape::Boolean,
            _ => Shape::Any,
        };
        let fields = value.get("properties").and_then(Value::as_object);
        let fields = fields.into_iter().flatten();
        let values = value.get("additionalProperties");
        Self {
            shape,
            fields: fields
                .map(|(name, field)| (name.clone(), Self::from_openapi(field)))
                .collect(),
            required: strings(value.get("required")),
            values: values
                .filter(|values| values.is_object())
                .map(|values| Box::new(Self::from_openapi(values))),
            items: value
                .get("items")
                .map(|items| Box::new(Self::from_openapi(items))),
            open: flag("x-kubernetes-preserve-unknown-fields")
                || values == Some(&Value::Bool(true)),
            nullable: flag("nullable"),
            always: false,
            embedded: flag("x-kubernetes-embedded-resource"),
            choices: value
                .get("enum")
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default(),
            default: value.get("default").cloned(),
            bounds: bounds(value),
            format: text("format").to_owned(),
            merge: merge(value),
            rules: rules(value),
            description: text("description").to_owned(),
        }
    }

    /// Writes the schema as a CustomResourceDefinition would.
    pub fn to_openapi(&self) -> Value {
        let mut out = Map::new();
        let mut put = |name: &str, value: Value| {
            out.insert(name.to_owned(), value);
        };
        if !self.description.is_empty() {
            put("description", json!(self.description));
        }
        if !self.shape.name().is_empty() {
            put("type", json!(self.shape.name()));
        }
        if !self.format.is_empty() {
            put("format", json!(self.format));
        }
        if let Some(default) = &self.default {
            put("default", default.clone());
        }
        if !self.choices.is_empty() {
            put("enum", json!(self.choices));
        }
        if !self.fields.is_empty() {
            let fields: Map<String, Value> = self
                .fields
                .iter()
                .map(|(name, field)| (name.clone(), field.to_openapi()))
                .collect();
            put("properties", Value::Object(fields));
        }
        if !self.required.is_empty() {
            put("required", json!(self.required));
        }
        if let Some(values) = &self.values {
            put("additionalProperties", values.to_openapi());
        }
        if let Some(items) = &self.items {
            put("items", items.to_openapi());
        }
        if self.nullable {
            put("nullable", json!(true));
        }
        if self.open {
            put("x-kubernetes-preserve-unknown-fields", json!(true));
        }
        if self.shape == Shape::IntOrString {
            put("x-kubernetes-int-or-string", json!(true));
        }
        self.write_extras(&mut out);
        Value::Object(out)
    }

    fn write_extras(&self, out: &mut Map<String, Value>) {
        let kind = if self.shape == Shape::Array {
            "x-kubernetes-list-type"
        } else {
            "x-kubernetes-map-type"
        };
        let mut put = |name: &str, value: Value| {
            out.insert(name.to_owned(), value);
        };
        match &self.merge {
            Merge::Default => {}
            Merge::Atomic => put(kind, json!("atomic")),
            Merge::Set => put(kind, json!("set")),
            Merge::Keys(keys) => {
                put(kind, json!("map"));
                put("x-kubernetes-list-map-keys", json!(keys));
            }
        }
        if !self.rules.is_empty() {
            let rules: Vec<Value> = self
                .rules
                .iter()
                .map(|rule| json!({"rule": rule.rule, "message": rule.message}))
                .collect();
            put("x-kubernetes-validations", json!(rules));
        }
        let bounds = &self.bounds;
        for (name, number) in [("minimum", bounds.minimum), ("maximum", bounds.maximum)] {
            if let Some(number) = number {
                put(name, json!(number));
            }
        }
        for (name, count) in [
            ("minLength", bounds.min_length),
            ("maxLength", bounds.max_length),
            ("minItems", bounds.min_items),
            ("maxItems", bounds.max_items),
        ] {
            if let Some(count) = count {
                put(name, json!(count));
            }
        }
        if let Some(pattern) = &bounds.pattern {
            put("pattern", json!(pattern));
        }
    }
}

fn strings(value: Option<&Value>) -> Vec<String> {
    let list = value.and_then(Value::as_array).into_iter().flatten();
    list.filter_map(|entry| entry.as_str().map(str::to_owned))
        .collect()
}

fn bounds(value: &Value) -> Bounds {
    let number = |name: &str| value.get(name).and_then(Value::as_f64);
    let count = |name: &str| value.get(name).and_then(Value::as_u64);
    Bounds {
        minimum: number("minimum"),
        maximum: number("maximum"),
        min_length: count("minLength"),
        max_length: count("maxLength"),
        min_items: count("minItems"),
        max_items: count("maxItems"),
        pattern: value
            .get("pattern")
            .and_then(Value::as_str)
            .map(str::to_owned),
    }
}

fn merge(value: &Value) -> Merge {
    let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or("");
    match (
        text("x-kubernetes-list-type"),
        text("x-kubernetes-map-type"),
    ) {
        ("atomic", _) | (_, "atomic") => Merge::Atomic,
        ("set", _) => Merge::Set,
        ("map", _) => Merge::Keys(strings(value.get("x-kubernetes-list-map-keys"))),
        _ => Merge::Default,
    }
}

fn rules(value: &Value) -> Vec<Rule> {
    let rules = value
        .get("x-kubernetes-validations")
        .and_then(Value::as_array);
    let text = |rule: &Value, name: &str| rule[name].as_str().unwrap_or("").to_owned();
    rules
        .into_iter()
        .flatten()
        .map(|rule| Rule {
            rule: text(rule, "rule"),
            message: text(rule, "message"),
        })
        .collect()
}
