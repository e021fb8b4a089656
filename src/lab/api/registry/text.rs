//! Kinds written down as text, so that a schema fits on a page.
//!
//! - `kind GROUP VERSIONS KIND PLURAL namespaced|cluster [status] [generation] [builtin] [short=A,B]
//!   [in=CATEGORY]` starts a kind; group `-` is core, the first version is the stored one, `VERSION~` is deprecated.
//! - `about TEXT` describes it; `column NAME TYPE JSONPATH [PRIORITY]` adds a printer column.
//! - `type NAME [open] [atomic]` starts a type that fields name as `&NAME`.
//! - Indented lines are fields: `NAME[!][,NAME…] TYPE [flags] [| description]`; `!` is required.
//!   Types: `string int int32 bool number time micro quantity intstr object open any map(T) list(T)
//!   &NAME`. Deeper lines are fields of the object, or of the list's items.
//! - Flags: `="default"`, `in(A,B)`, `min= max= minlen= maxlen= minitems= maxitems= re=`,
//!   `key=A,B` (list merged by fields), `set`, `atomic`, `null`, `always`.
//! - `? RULE => MESSAGE` is a rule in CEL on the field or object that is one step less indented.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::Value;

use super::{Column, Kind, Origin};
use crate::lab::api::schema::{Merge, Rule, Schema, Shape};

const TEXTS: &[&str] = &[
    include_str!("kinds/shared.kinds"),
    include_str!("kinds/core.kinds"),
    include_str!("kinds/kubevirt.kinds"),
    include_str!("kinds/cdi.kinds"),
    include_str!("kinds/csi-addons.kinds"),
    include_str!("kinds/snapshot.kinds"),
];

/// The pattern that the published schemas use for quantities.
const QUANTITY: &str = r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$";

/// All kinds that are written down, the built-in ones first.
pub(super) fn kinds() -> &'static [Kind] {
    static KINDS: LazyLock<Vec<Kind>> = LazyLock::new(|| match read(TEXTS) {
        Ok(kinds) => kinds,
        Err(error) => {
            // A test reads the same text, so that this cannot get into a release.
            tracing::error!(%error, "the kinds are not readable");
            Vec::new()
        }
    });
    &KINDS
}

/// A line that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{line}`: {why}")]
struct BadLine {
    line: String,
    why: String,
}

fn bad(line: &str, why: impl Into<String>) -> BadLine {
    BadLine {
        line: line.to_owned(),
        why: why.into(),
    }
}

/// A field that lines below may still add to.
struct Open {
    depth: usize,
    names: Vec<String>,
    schema: Schema,
    required: bool,
}

#[derive(Default)]
struct Reader {
    types: HashMap<String, Schema>,
    kinds: Vec<Kind>,
    /// The kind or type that is being read, at depth 0, and the fields that are open below it.
    stack: Vec<Open>,
    kind: Option<Kind>,
    about: String,
}

fn read(texts: &[&str]) -> Result<Vec<Kind>, BadLine> {
    let mut reader = Reader::default();
    for text in texts {
        for line in text.lines() {
            if !line.trim().is_empty() && !line.starts_with('#') {
                reader.line(line)?;
            }
        }
        reader.finish();
    }
    Ok(reader.kinds)
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<(), BadLine> {
        let depth = (line.len() - line.trim_start().len()) / 2;
        let text = line.trim();
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        match (depth, word) {
            (0, "kind") => {
                self.finish();
                self.kind = Some(kind(rest).ok_or_else(|| bad(line, "not a kind"))?);
                self.start(String::new(), Schema::of(Shape::Object));
            }
            (0, "type") => {
                self.finish();
                let mut words = rest.split_whitespace();
                let name = words.next().unwrap_or("").to_owned();
                let mut schema = Schema::of(Shape::Object);
                for word in words {
                    flag(&mut schema, word).map_err(|why| bad(line, why))?;
                }
                self.start(name, schema);
            }
            (0, "about") => rest.clone_into(&mut self.about),
            (0, "column") => {
                let kind = self.kind.as_mut().ok_or_else(|| bad(line, "no kind"))?;
                kind.columns
                    .push(column(rest).ok_or_else(|| bad(line, "not a column"))?);
            }
            (0, _) => return Err(bad(line, "not a known word")),
            (_, "?") => self.rule(depth, rest).map_err(|why| bad(line, why))?,
            (_, _) => self.field(depth, text).map_err(|why| bad(line, why))?,
        }
        Ok(())
    }

    fn start(&mut self, name: String, schema: Schema) {
        self.stack = vec![Open {
            depth: 0,
            names: vec![name],
            schema,
            required: false,
        }];
    }

    /// Closes fields that are as deep as `depth` or deeper.
    fn close(&mut self, depth: usize) {
        while self.stack.len() > 1 && self.stack.last().is_some_and(|open| open.depth >= depth) {
            let (Some(done), Some(parent)) = (self.stack.pop(), self.stack.last_mut()) else {
                return;
            };
            let target = innermost(&mut parent.schema);
            for name in done.names {
                if done.required {
                    target.required.push(name.clone());
                }
                target.fields.push((name, done.schema.clone()));
            }
        }
    }

    fn finish(&mut self) {
        self.close(1);
        let Some(mut done) = self.stack.pop() else {
            return;
        };
        self.stack.clear();
        let about = std::mem::take(&mut self.about);
        if let Some(mut kind) = self.kind.take() {
            done.schema.description = about;
            kind.schema = done.schema.into();
            self.kinds.push(kind);
        } else {
            let name = done.names.pop().unwrap_or_default();
            self.types.insert(name, done.schema);
        }
    }

    fn rule(&mut self, depth: usize, text: &str) -> Result<(), String> {
        let (rule, message) = text.split_once(" => ").ok_or("no =>")?;
        self.close(depth);
        let owner = self.stack.last_mut().ok_or("no field above")?;
        owner.schema.rules.push(Rule {
            rule: rule.to_owned(),
            message: message.to_owned(),
        });
        Ok(())
    }

    fn field(&mut self, depth: usize, text: &str) -> Result<(), String> {
        self.close(depth);
        let (definition, description) = text.split_once(" | ").unwrap_or((text, ""));
        let mut words = definition.split_whitespace();
        let names = words.next().unwrap_or("");
        let mut schema = self.of_type(words.next().ok_or("no type")?)?;
        for word in words {
            flag(&mut schema, word)?;
        }
        if !description.is_empty() {
            description.clone_into(&mut schema.description);
        }
        self.stack.push(Open {
            depth,
            names: names
                .trim_end_matches('!')
                .split(',')
                .map(str::to_owned)
                .collect(),
            schema,
            required: names.ends_with('!'),
        });
        Ok(())
    }

    fn of_type(&self, word: &str) -> Result<Schema, String> {
        if let Some(name) = word.strip_prefix('&') {
            return self
                .types
                .get(name)
                .cloned()
                .ok_or_else(|| format!("no type {name}"));
        }
        if let Some(inner) = inside(word, "list(") {
            let mut schema = Schema::of(Shape::Array);
            schema.items = Some(Box::new(self.of_type(inner)?));
            return Ok(schema);
        }
        if let Some(inner) = inside(word, "map(") {
            let mut schema = Schema::of(Shape::Object);
            schema.values = Some(Box::new(self.of_type(inner)?));
            return Ok(schema);
        }
        let with_format = |shape, format: &str| {
            let mut schema = Schema::of(shape);
            format.clone_into(&mut schema.format);
            schema
        };
        Ok(match word {
            "string" => Schema::of(Shape::String),
            "int" => with_format(Shape::Integer, "int64"),
            "int32" => with_format(Shape::Integer, "int32"),
            "bool" => Schema::of(Shape::Boolean),
            "number" => Schema::of(Shape::Number),
            "time" => with_format(Shape::String, "date-time"),
            "micro" => with_format(Shape::String, "micro-time"),
            "intstr" => Schema::of(Shape::IntOrString),
            "quantity" => {
                let mut schema = Schema::of(Shape::IntOrString);
                schema.bounds.pattern = Some(QUANTITY.to_owned());
                schema
            }
            "object" => Schema::of(Shape::Object),
            "open" => Schema::anything(),
            "any" => Schema {
                open: true,
                ..Schema::default()
            },
            other => return Err(format!("no type {other}")),
        })
    }
}

/// The object that lines below a field describe: itself, or what its list holds.
fn innermost(schema: &mut Schema) -> &mut Schema {
    if schema.items.is_none() {
        return schema;
    }
    match &mut schema.items {
        Some(items) => innermost(items),
        None => unreachable!("checked above"),
    }
}

fn inside<'a>(word: &'a str, prefix: &str) -> Option<&'a str> {
    word.strip_prefix(prefix)?.strip_suffix(')')
}

fn flag(schema: &mut Schema, word: &str) -> Result<(), String> {
    let list = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
    if let Some(default) = word.strip_prefix('=') {
        let value = serde_json::from_str(default).map_err(|error| error.to_string())?;
        schema.default = Some(value);
        return Ok(());
    }
    if let Some(choices) = inside(word, "in(") {
        schema.choices = list(choices).into_iter().map(Value::from).collect();
        return Ok(());
    }
    if let Some((name, value)) = word.split_once('=') {
        let bounds = &mut schema.bounds;
        let number = || value.parse::<u64>().map_err(|error| error.to_string());
        let real = || value.parse::<f64>().map_err(|error| error.to_string());
        match name {
            "min" => bounds.minimum = Some(real()?),
            "max" => bounds.maximum = Some(real()?),
            "minlen" => bounds.min_length = Some(number()?),
            "maxlen" => bounds.max_length = Some(number()?),
            "minitems" => bounds.min_items = Some(number()?),
            "maxitems" => bounds.max_items = Some(number()?),
            "re" => bounds.pattern = Some(value.to_owned()),
            "key" => schema.merge = Merge::Keys(list(value)),
            _ => return Err(format!("no flag {name}")),
        }
        return Ok(());
    }
    match word {
        "set" => schema.merge = Merge::Set,
        "atomic" => schema.merge = Merge::Atomic,
        "null" => schema.nullable = true,
        "always" => schema.always = true,
        "open" => schema.open = true,
        _ => return Err(format!("no flag {word}")),
    }
    Ok(())
}

fn column(text: &str) -> Option<Column> {
    let mut words = text.split_whitespace();
    Some(Column {
        name: words.next()?.to_owned(),
        kind: words.next()?.to_owned(),
        path: words.next()?.to_owned(),
        priority: words.next().map_or(Some(0), |word| word.parse().ok())?,
    })
}

fn kind(text: &str) -> Option<Kind> {
    let mut words = text.split_whitespace();
    let mut word = || words.next().map(str::to_owned);
    let (group, versions, kind, plural, scope) = (word()?, word()?, word()?, word()?, word()?);
    let rest: Vec<&str> = words.collect();
    let listed = |prefix: &str| -> Vec<String> {
        rest.iter()
            .find_map(|word| word.strip_prefix(prefix))
            .map(|list| list.split(',').map(str::to_owned).collect())
            .unwrap_or_default()
    };
    let builtin = rest.contains(&"builtin");
    let old = |version: &str| version.strip_suffix('~').map(str::to_owned);
    Some(Kind {
        singular: kind.to_ascii_lowercase(),
        list_kind: format!("{kind}List"),
        deprecated: versions.split(',').filter_map(old).collect(),
        versions: versions
            .split(',')
            .map(|version| version.trim_end_matches('~').to_owned())
            .collect(),
        group: if group == "-" { String::new() } else { group },
        kind,
        plural,
        short: listed("short="),
        categories: listed("in="),
        namespaced: scope == "namespaced",
        status: rest.contains(&"status"),
        generation: !builtin || rest.contains(&"generation"),
        origin: if builtin {
            Origin::Builtin
        } else {
            Origin::Custom
        },
        schema: Schema::default().into(),
        columns: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_readable() {
        let kinds = read(TEXTS).unwrap();
        assert!(kinds.len() > 40, "{}", kinds.len());
        for kind in &kinds {
            assert!(
                !kind.schema.description.is_empty(),
                "{} says nothing",
                kind.kind
            );
        }
    }

    #[test]
    fn nested_lines_become_fields_of_objects_and_items() {
        let text = "type T\n  a! string in(x,y)\nkind g v1 K ks cluster status\nabout Kay.\n  spec! object\n    list list(object) key=n\n      n! string ='q'\n        ? self == oldSelf => n stays\n    t &T | A tee.\n    ? has(self.t) => t is needed\n  status object\n";
        let kinds = read(&[&text.replace("'q'", "\"q\"")]).unwrap();
        let schema = &kinds[0].schema;
        assert_eq!(schema.required, ["spec"]);
        let spec = schema.field("spec").unwrap();
        assert_eq!(spec.rules[0].message, "t is needed");
        let item = spec.field("list").unwrap().items.as_ref().unwrap();
        assert_eq!(item.required, ["n"]);
        assert_eq!(item.field("n").unwrap().rules[0].message, "n stays");
        assert_eq!(spec.field("t").unwrap().description, "A tee.");
        assert_eq!(schema.at("spec.t.a").unwrap().choices.len(), 2);
        assert!(schema.field("status").is_some());
    }

    #[test]
    fn who_asks_for_a_deprecated_version_is_told_the_best_of_the_others() {
        let kinds = read(&["kind g v1beta2,v1,v1beta1~ K ks cluster\nabout Kay."]).unwrap();
        let kind = &kinds[0];
        assert_eq!(kind.versions, ["v1beta2", "v1", "v1beta1"]);
        assert_eq!(kind.api_version(), "g/v1beta2");
        assert_eq!((kind.warning("v1"), kind.warning("v1beta2")), (None, None));
        let warned = kind.warning("v1beta1").unwrap();
        assert_eq!(warned, "g/v1beta1 K is deprecated; use g/v1 K");
    }

    #[test]
    fn a_bad_line_is_named() {
        let error = read(&["kind g v1 K ks cluster\n  a strng"]).unwrap_err();
        assert_eq!(error.to_string(), "`  a strng`: no type strng");
    }
}
