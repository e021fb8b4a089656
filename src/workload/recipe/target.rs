//! What a hook works on: objects of a namespace by labels, by name, or both.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt as _};
use regex::Regex;

use super::model::Hook;

/// The objects that a hook works on. Labels and names are alternatives: an object that both match is
/// taken twice, first with all that the labels match.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// The namespace.
    pub namespace: String,
    /// `selectResource` as it is written, else `pod`.
    pub resource: String,
    /// By labels.
    pub labels: Option<LabelSelector>,
    /// By name.
    pub names: Option<String>,
}

/// What a `nameSelector` is.
#[derive(Debug, Clone)]
pub enum Names {
    /// This very name.
    Exact(String),
    /// Every name in which the expression is found; it is not anchored.
    Pattern(Regex),
}

impl Names {
    /// As the controller reads it: what could be a name is one, everything else an expression.
    pub fn parse(text: &str) -> Result<Self, String> {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let name = text.starts_with(inner)
            && text.ends_with(inner)
            && text.chars().all(|c| inner(c) || c == '.' || c == '-');
        if name {
            return Ok(Self::Exact(text.to_owned()));
        }
        Regex::new(text)
            .map(Self::Pattern)
            .map_err(|error| format!("it is neither a name nor an expression: {error}"))
    }

    /// Whether it takes this name.
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == name,
            Self::Pattern(pattern) => pattern.is_match(name),
        }
    }
}

impl Target {
    pub(super) fn of(hook: &Hook) -> Self {
        let resource = hook.resource.as_deref().filter(|text| !text.is_empty());
        Self {
            namespace: hook.namespace.clone(),
            resource: resource.unwrap_or("pod").to_owned(),
            labels: hook.selector.clone(),
            names: hook.names.clone().filter(|text| !text.is_empty()),
        }
    }

    /// Whether it says at all what to work on. If not, an exec or check step is an error.
    pub const fn is_given(&self) -> bool {
        self.labels.is_some() || self.names.is_some()
    }

    /// Whether its labels take these. An empty selector takes everything; one that Kubernetes cannot
    /// read is an error, which the exec hook logs and takes for “no pods”.
    pub fn matches_labels(&self, labels: &BTreeMap<String, String>) -> Result<bool, String> {
        let Some(wanted) = &self.labels else {
            return Ok(false);
        };
        let selector = Selector::try_from(wanted.clone()).map_err(|error| error.to_string())?;
        Ok(selector.matches(labels))
    }

    /// Whether its name selector takes this name.
    pub fn matches_name(&self, name: &str) -> Result<bool, String> {
        match &self.names {
            Some(names) => Names::parse(names).map(|names| names.matches(name)),
            None => Ok(false),
        }
    }

    /// Those of `objects` that it takes, in its order, as it takes them: by labels, then by name.
    pub fn select<'a, T>(
        &self,
        objects: &'a [T],
        labels: impl Fn(&T) -> BTreeMap<String, String>,
        name: impl Fn(&T) -> String,
    ) -> Result<Vec<&'a T>, String> {
        let mut taken = Vec::new();
        for object in objects {
            if self.matches_labels(&labels(object))? {
                taken.push(object);
            }
        }
        for object in objects {
            if self.matches_name(&name(object))? {
                taken.push(object);
            }
        }
        Ok(taken)
    }
}
