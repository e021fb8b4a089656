//! Structural schemas: what a kind's objects look like, as CustomResourceDefinitions write it down
//! and as our own kinds do (see `registry::text`).
//!
//! Pure: pruning, defaulting and validation take a schema and JSON and give JSON and findings.

mod cel;
mod fill;
mod parse;
mod prune;
mod validate;

#[cfg(test)]
mod tests;

use serde_json::Value;

pub use fill::fill;
pub use prune::{prune, unknown_fields};
pub use validate::validate;

/// What JSON a schema takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shape {
    /// Anything.
    #[default]
    Any,
    /// A map with known fields, or with values of one schema.
    Object,
    /// A list.
    Array,
    /// Text.
    String,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// True or false.
    Boolean,
    /// A number or text (`x-kubernetes-int-or-string`).
    IntOrString,
}

impl Shape {
    /// The `type` of OpenAPI; empty for those that have none.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Any | Self::IntOrString => "",
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

/// How a list or map is merged by server-side apply.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Merge {
    /// Lists are replaced whole, maps are merged.
    #[default]
    Default,
    /// Replaced whole.
    Atomic,
    /// A list without duplicates, merged by value.
    Set,
    /// A list merged by these fields of its items.
    Keys(Vec<String>),
}

/// A rule in CEL with its message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The expression over `self` and `oldSelf`.
    pub rule: String,
    /// What to say when it is false.
    pub message: String,
}

/// Bounds on values. `None` is unbounded.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Bounds {
    /// Least number.
    pub minimum: Option<f64>,
    /// Greatest number.
    pub maximum: Option<f64>,
    /// Least characters.
    pub min_length: Option<u64>,
    /// Most characters.
    pub max_length: Option<u64>,
    /// Least items.
    pub min_items: Option<u64>,
    /// Most items.
    pub max_items: Option<u64>,
    /// A regular expression that text must match.
    pub pattern: Option<String>,
}

/// The schema of one value.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the OpenAPI dialect, and they are independent"
)]
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Schema {
    /// What JSON it takes.
    pub shape: Shape,
    /// Known fields, in the order of their definition.
    pub fields: Vec<(String, Self)>,
    /// Fields that must be there.
    pub required: Vec<String>,
    /// Schema of a map's values.
    pub values: Option<Box<Self>>,
    /// Schema of a list's items.
    pub items: Option<Box<Self>>,
    /// Whether unknown fields are kept.
    pub open: bool,
    /// Whether null is a value.
    pub nullable: bool,
    /// Whether the server always writes it, even if it is empty (a Go struct without omitempty).
    pub always: bool,
    /// Whether it embeds a whole object, whose metadata is then a known field.
    pub embedded: bool,
    /// The only values allowed; empty allows all.
    pub choices: Vec<Value>,
    /// What is filled in when it is missing.
    pub default: Option<Value>,
    /// Bounds.
    pub bounds: Bounds,
    /// `date-time`, `int32` and the like.
    pub format: String,
    /// How it is merged.
    pub merge: Merge,
    /// Rules in CEL.
    pub rules: Vec<Rule>,
    /// For `kubectl explain`.
    pub description: String,
}

impl Schema {
    /// A schema of a shape.
    pub fn of(shape: Shape) -> Self {
        Self {
            shape,
            ..Self::default()
        }
    }

    /// An object of which nothing is known and everything is kept.
    pub fn anything() -> Self {
        Self {
            open: true,
            ..Self::of(Shape::Object)
        }
    }

    /// The schema of a field.
    pub fn field(&self, name: &str) -> Option<&Self> {
        self.fields
            .iter()
            .find(|(field, _)| field == name)
            .map(|(_, schema)| schema)
            .or(self.values.as_deref())
    }

    /// The schema at a path of fields; list items are stepped into.
    pub fn at<'a>(&'a self, path: &str) -> Option<&'a Self> {
        path.split('.').try_fold(self, |schema, step| {
            let mut schema = schema;
            while let Some(items) = &schema.items {
                schema = items;
            }
            schema.field(step)
        })
    }

    /// Whether any rule in CEL is anywhere in it.
    pub fn has_rules(&self) -> bool {
        !self.rules.is_empty()
            || self.fields.iter().any(|(_, schema)| schema.has_rules())
            || self
                .values
                .as_ref()
                .is_some_and(|schema| schema.has_rules())
            || self.items.as_ref().is_some_and(|schema| schema.has_rules())
    }
}

/// A field path as validation messages write it: dots, and brackets for list positions.
pub(super) fn join(path: &str, field: &str) -> String {
    if path.is_empty() {
        field.to_owned()
    } else {
        format!("{path}.{field}")
    }
}
