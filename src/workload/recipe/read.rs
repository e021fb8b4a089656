//! From an object to a [`Recipe`]: what the API server takes, and every reason why it would not.
//!
//! Fields that the CRD does not know are pruned there and passed over here, as are nulls.

use std::collections::BTreeSet;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::{Map, Value};

use super::API_VERSION;
use super::model::{
    Check, FailOn, Group, GroupKind, Hook, HookKind, OnError, Op, Recipe, Workflow,
};

/// One reason why the API server refuses an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Where, such as `spec/hooks/0/type`.
    pub path: String,
    /// What is wrong.
    pub what: String,
    /// What the CRD wants there.
    pub wanted: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}; {}",
            self.path.replace('/', "."),
            self.what,
            self.wanted
        )
    }
}

/// All reasons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused(pub Vec<Refusal>);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&all.join("\n"))
    }
}

impl std::error::Error for Refused {}

impl Recipe {
    /// Reads an object. Its parameters are not expanded.
    pub fn from_value(object: &Value) -> Result<Self, Refused> {
        match Self::read(object) {
            (Some(recipe), refusals) if refusals.is_empty() => Ok(recipe),
            (_, refusals) => Err(Refused(refusals)),
        }
    }

    /// Reads an object as far as it goes, with every reason why the API server would refuse it. What is
    /// refused has a default, but for a command that is a list of words: it keeps them.
    pub fn read(object: &Value) -> (Option<Self>, Vec<Refusal>) {
        let mut refusals = Vec::new();
        let recipe = recipe(object, &mut refusals);
        (recipe, refusals)
    }
}

/// A mapping that is being read, and where it stands.
struct Fields<'a, 'r> {
    map: &'a Map<String, Value>,
    path: String,
    refusals: &'r mut Vec<Refusal>,
}

impl<'a> Fields<'a, '_> {
    fn refuse(&mut self, path: String, what: impl Into<String>, wanted: &str) {
        self.refusals.push(Refusal {
            path,
            what: what.into(),
            wanted: wanted.to_owned(),
        });
    }

    fn at(&self, key: &str) -> String {
        join(&self.path, key)
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// A value made by `take`, or a refusal when there is one that it does not take.
    fn typed<T>(
        &mut self,
        key: &str,
        wanted: &str,
        take: impl Fn(&'a Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.get(key)?;
        let taken = take(value);
        if taken.is_none() {
            let what = format!("`{key}` is {}", describe(value));
            self.refuse(self.at(key), what, wanted);
        }
        taken
    }

    fn text(&mut self, key: &str) -> Option<String> {
        self.typed(key, "it must be a text", |v| v.as_str().map(str::to_owned))
    }

    /// A text that must be there; empty, and refused, when it is not.
    fn required(&mut self, key: &str) -> String {
        if self.get(key).is_none() {
            let what = format!("`{key}` is missing");
            self.refuse(self.path.clone(), what, "the CRD requires it");
        }
        self.text(key).unwrap_or_default()
    }

    fn flag(&mut self, key: &str) -> Option<bool> {
        self.typed(key, "it must be true or false", Value::as_bool)
    }

    fn integer(&mut self, key: &str) -> Option<i64> {
        self.typed(key, "it must be a whole number", |value| {
            value.as_i64().filter(|n| i32::try_from(*n).is_ok())
        })
    }

    fn texts(&mut self, key: &str) -> Vec<String> {
        let texts = |value: &Value| {
            let items = value.as_array()?.iter();
            items.map(|item| item.as_str().map(str::to_owned)).collect()
        };
        self.typed(key, "it must be a list of texts", texts)
            .unwrap_or_default()
    }

    /// One of a few words.
    fn word<T: Copy>(&mut self, key: &str, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(key)?;
        let found = words.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let wanted = format!("it must be one of {}", known.join(", "));
            self.refuse(self.at(key), format!("`{key}` is `{text}`"), &wanted);
        }
        found.map(|(_, value)| *value)
    }

    /// One of a few words that must be there.
    fn required_word<T: Copy + Default>(&mut self, key: &str, words: &[(&str, T)]) -> T {
        if self.get(key).is_none() {
            self.required(key);
        }
        self.word(key, words).unwrap_or_default()
    }

    fn selector(&mut self, key: &str) -> Option<LabelSelector> {
        let wanted =
            "it must be a LabelSelector: a mapping with `matchLabels` or `matchExpressions`";
        self.typed(key, wanted, |value| {
            value
                .is_object()
                .then(|| serde_json::from_value(value.clone()).ok())?
        })
    }

    /// The mappings of a list, each read by `read`; their names must differ.
    fn each<T>(
        &mut self,
        key: &str,
        read: impl Fn(&mut Fields<'a, '_>) -> T,
        name: impl Fn(&T) -> &str,
    ) -> Vec<T> {
        let items = self.typed(key, "it must be a list", Value::as_array);
        let mut out = Vec::new();
        let mut names = BTreeSet::new();
        for (index, item) in items.into_iter().flatten().enumerate() {
            let path = join(&self.at(key), &index.to_string());
            let Some(mut fields) = fields(item, path.clone(), self.refusals) else {
                continue;
            };
            let made = read(&mut fields);
            if !name(&made).is_empty() && !names.insert(name(&made).to_owned()) {
                let what = format!("there are two of the name `{}`", name(&made));
                self.refuse(join(&path, "name"), what, "names must differ");
            }
            out.push(made);
        }
        out
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}/{key}")
    }
}

fn fields<'a, 'r>(
    value: &'a Value,
    path: String,
    refusals: &'r mut Vec<Refusal>,
) -> Option<Fields<'a, 'r>> {
    match value {
        Value::Object(map) => Some(Fields {
            map,
            path,
            refusals,
        }),
        other => {
            refusals.push(Refusal {
                path,
                what: format!("it is {}", describe(other)),
                wanted: "it must be a mapping".to_owned(),
            });
            None
        }
    }
}

/// What a value is, in a word or two.
pub(crate) const fn describe(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}

fn recipe(object: &Value, refusals: &mut Vec<Refusal>) -> Option<Recipe> {
    let mut top = fields(object, String::new(), refusals)?;
    for (key, wanted) in [("apiVersion", API_VERSION), ("kind", "Recipe")] {
        let found = top.text(key).unwrap_or_default();
        if found != wanted {
            let what = format!("`{key}` is `{found}`");
            top.refuse(key.to_owned(), what, &format!("it must be `{wanted}`"));
        }
    }
    let metadata = &object["metadata"];
    let name = metadata["name"].as_str().unwrap_or_default().to_owned();
    let namespace = metadata["namespace"].as_str().map(str::to_owned);
    let nothing = Value::Object(Map::new());
    let spec = object.get("spec").unwrap_or(&nothing);
    let mut spec = fields(spec, "spec".to_owned(), refusals)?;
    Some(Recipe {
        name,
        namespace,
        app_type: spec.required("appType"),
        volumes: volumes(&mut spec),
        groups: spec.each("groups", group, |group| &group.name),
        hooks: spec.each("hooks", hook, |hook| &hook.name),
        workflows: spec.each("workflows", workflow, |workflow| &workflow.name),
        object: object.clone(),
    })
}

fn volumes(spec: &mut Fields<'_, '_>) -> Option<Group> {
    let value = spec.get("volumes")?;
    let mut fields = fields(value, spec.at("volumes"), spec.refusals)?;
    Some(group(&mut fields))
}

fn group(fields: &mut Fields<'_, '_>) -> Group {
    let kinds = [
        ("volume", GroupKind::Volume),
        ("resource", GroupKind::Resource),
    ];
    Group {
        path: fields.path.clone(),
        name: fields.required("name"),
        kind: fields.required_word("type", &kinds),
        backup_ref: fields.text("backupRef").filter(|text| !text.is_empty()),
        included_namespaces: fields.texts("includedNamespaces"),
        included_types: fields.texts("includedResourceTypes"),
        excluded_types: fields.texts("excludedResourceTypes"),
        selector: fields.selector("labelSelector"),
        cluster_resources: fields.flag("includeClusterResources"),
        essential: fields.flag("essential"),
    }
}

fn hook(fields: &mut Fields<'_, '_>) -> Hook {
    let kinds = [
        ("exec", HookKind::Exec),
        ("scale", HookKind::Scale),
        ("check", HookKind::Check),
        ("job", HookKind::Job),
    ];
    let ends = [("fail", OnError::Fail), ("continue", OnError::Continue)];
    Hook {
        path: fields.path.clone(),
        name: fields.required("name"),
        namespace: fields.required("namespace"),
        kind: fields.required_word("type", &kinds),
        resource: fields.text("selectResource"),
        selector: fields.selector("labelSelector"),
        names: fields.text("nameSelector"),
        single_pod: fields.flag("singlePodOnly").unwrap_or_default(),
        on_error: fields.word("onError", &ends).unwrap_or_default(),
        timeout: fields.integer("timeout"),
        essential: fields.flag("essential"),
        skip_if_absent: fields.flag("skipHookIfNotPresent").unwrap_or_default(),
        ops: fields.each("ops", op, |op| &op.name),
        checks: fields.each("chks", check, |check| &check.name),
    }
}

fn op(fields: &mut Fields<'_, '_>) -> Op {
    let words = fields.get("command").filter(|value| value.is_array());
    let mut command = fields.required("command");
    if let Some(words) = words {
        command = words.to_string();
    }
    if command.is_empty() && fields.get("command").is_some_and(Value::is_string) {
        let path = fields.at("command");
        fields.refuse(path, "`command` is empty", "it must hold a command");
    }
    Op {
        path: fields.path.clone(),
        name: fields.required("name"),
        container: fields.text("container").filter(|text| !text.is_empty()),
        command,
        on_error: fields.text("onError"),
        timeout: fields.integer("timeout"),
        inverse: fields.text("inverseOp").filter(|text| !text.is_empty()),
    }
}

fn check(fields: &mut Fields<'_, '_>) -> Check {
    Check {
        path: fields.path.clone(),
        name: fields.required("name"),
        condition: fields.text("condition").unwrap_or_default(),
        on_error: fields.text("onError"),
        timeout: fields.integer("timeout"),
    }
}

fn workflow(fields: &mut Fields<'_, '_>) -> Workflow {
    let words = [
        ("any-error", FailOn::AnyError),
        ("essential-error", FailOn::EssentialError),
        ("full-error", FailOn::FullError),
    ];
    if fields.get("sequence").is_none() {
        let path = fields.path.clone();
        fields.refuse(path, "`sequence` is missing", "the CRD requires it");
    }
    let entry = |entry: &mut Fields<'_, '_>| -> Vec<(String, String)> {
        let keys: Vec<String> = entry.map.keys().cloned().collect();
        let pairs = keys.into_iter().filter_map(|key| {
            let text = entry.text(&key)?;
            Some((key, text))
        });
        pairs.collect()
    };
    Workflow {
        path: fields.path.clone(),
        name: fields.required("name"),
        fail_on: fields.word("failOn", &words).unwrap_or_default(),
        sequence: fields.each("sequence", entry, |_| ""),
    }
}
