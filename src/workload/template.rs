//! Templates: where they come from, what parameters they take, and rendering.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::manifest::Manifest;
use super::placeholder::{Fill, Masked, mask};
use super::rendered::Rendered;
use crate::plan::model::DataVolume;
use crate::plan::problem::{self, Problem, Problems, suggest};
use crate::plan::yaml::{self, At, Node};

/// A template that virtproof brings along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Embedded {
    /// Its name in plans; that of its file when extracted, but for the extension.
    pub name: &'static str,
    /// Its text.
    pub text: &'static str,
}

macro_rules! embed {
    ($($name:literal),* $(,)?) => {
        &[$(Embedded { name: $name, text: include_str!(concat!("../../vm-templates/", $name, ".yaml")) }),*]
    };
}

/// The templates that virtproof brings along.
pub const fn embedded() -> &'static [Embedded] {
    embed![
        "cirros",
        "fedora-two-disks",
        "linux-two-disks-containerdisk",
        "linux-two-disks-dvt",
        "linux-two-disks-pvc",
    ]
}

/// Their names.
pub fn names() -> Vec<&'static str> {
    embedded().iter().map(|template| template.name).collect()
}

/// Writes the embedded templates into `dir`, the embedded Recipes below `recipes/` in it and the hooks for
/// guests below `guest-hooks/`, refusing to overwrite, and returns the files.
pub fn extract(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let (recipes, hooks) = (dir.join("recipes"), dir.join("guest-hooks"));
    let mut written = write_all(dir, embedded(), "yaml")?;
    written.extend(write_all(&recipes, super::recipe::embedded(), "yaml")?);
    written.extend(write_all(&hooks, super::database::hooks(), "sh")?);
    Ok(written)
}

fn write_all(dir: &Path, embedded: &[Embedded], extension: &str) -> io::Result<Vec<PathBuf>> {
    std::fs::create_dir_all(dir)?;
    let mut written = Vec::new();
    for template in embedded {
        let path = dir.join(format!("{}.{extension}", template.name));
        let mut file = std::fs::File::create_new(&path).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("cannot create {}: {error}", path.display()),
            )
        })?;
        io::Write::write_all(&mut file, template.text.as_bytes())?;
        written.push(path);
    }
    Ok(written)
}

/// Why a template cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// There is no embedded template of this name.
    #[error("there is no embedded template `{name}`; {fix}")]
    Unknown {
        /// The name.
        name: String,
        /// What to do.
        fix: String,
    },
    /// The file could not be read.
    #[error("cannot read the template {}; check the path and its permissions", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not a template for exactly one VM that virtproof can use.
    #[error("{}", problem::render(.0))]
    Invalid(Vec<Problem>),
}

/// A parameter that a template takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// Its default; without one a value must be given.
    pub default: Option<String>,
}

/// What the plan says beyond parameters.
#[derive(Debug, Clone, Copy, Default)]
pub struct Extra<'a> {
    /// Login name, before anything that the manifest says.
    pub ssh_user: Option<&'a str>,
    /// Data volumes to add when the manifest marks none; empty for the default pair.
    pub data_volumes: &'a [DataVolume],
}

/// A multi-document manifest with placeholders.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    file: String,
    text: String,
    masked: Masked,
    documents: Vec<Node>,
}

impl Template {
    /// Loads an embedded template by name, or a file when `reference` has a slash or ends in
    /// `.yaml`, `.yml` or `.json`; relative paths start at `base`.
    pub fn load(reference: &str, base: &Path) -> Result<Self, TemplateError> {
        if crate::plan::is_path(reference) {
            let path = base.join(reference);
            return match crate::plan::read_text(&path) {
                Ok(text) => Self::parse(&text, &path.display().to_string()),
                Err(source) => Err(TemplateError::Read { path, source }),
            };
        }
        match embedded()
            .iter()
            .find(|template| template.name == reference)
        {
            Some(template) => Self::parse(template.text, reference),
            None => Err(TemplateError::Unknown {
                name: reference.to_owned(),
                fix: suggest(
                    reference,
                    names(),
                    &format!("take one of {} or give a path", names().join(", ")),
                ),
            }),
        }
    }

    /// Reads template text; `file` names it in messages.
    pub fn parse(text: &str, file: &str) -> Result<Self, TemplateError> {
        let mut problems = Problems::new(file, text);
        let parsed = mask(text).map(|masked| {
            let documents = yaml::parse(&masked.text, true);
            (masked, documents)
        });
        let (masked, documents) = match parsed {
            Ok((masked, Ok(documents))) => (masked, documents),
            Ok((_, Err(bad))) => {
                problems.add(bad.at, bad.what, "YAML", "correct the syntax");
                return Err(TemplateError::Invalid(problems.into_sorted()));
            }
            Err(what) => {
                problems.add(At::default(), what, "a template", "remove them");
                return Err(TemplateError::Invalid(problems.into_sorted()));
            }
        };
        for (key, first) in documents.iter().flat_map(Node::repeated_keys) {
            problems.add(
                key.at,
                format!("the key `{}` stands twice", key.text),
                format!("each key once; the first is in line {}", first.line),
                "remove one of the two",
            );
        }
        conflicts(&masked, &mut problems);
        if !problems.is_empty() {
            return Err(TemplateError::Invalid(problems.into_sorted()));
        }
        Ok(Self {
            file: file.to_owned(),
            text: text.to_owned(),
            masked,
            documents,
        })
    }

    /// The parameters by name. One without a default that occurs only in a script for the guest may
    /// be the shell's own variable and need not be given.
    pub fn parameters(&self) -> Vec<Parameter> {
        let mut by_name: BTreeMap<&str, Option<String>> = BTreeMap::new();
        for found in &self.masked.found {
            let entry = by_name.entry(&found.name).or_default();
            if entry.is_none() {
                entry.clone_from(&found.default);
            }
        }
        by_name
            .into_iter()
            .map(|(name, default)| Parameter {
                name: name.to_owned(),
                default,
            })
            .collect()
    }

    /// Fills in the parameters and checks that the result is one VM that virtproof can use.
    pub fn render(
        &self,
        parameters: &BTreeMap<String, String>,
        extra: &Extra<'_>,
    ) -> Result<Rendered, TemplateError> {
        let mut problems = Problems::new(&self.file, &self.text);
        let mut documents = self.documents.clone();
        let mut fill = Fill::new(&self.masked, parameters, &mut problems);
        for document in &mut documents {
            fill.fill(document, false);
        }
        fill.finish();
        let rendered = Manifest::sort(documents, &mut problems)
            .and_then(|manifest| Rendered::new(manifest, extra, &mut problems));
        match rendered {
            Some(rendered) if problems.is_empty() => Ok(rendered),
            _ => Err(TemplateError::Invalid(problems.into_sorted())),
        }
    }
}

/// A parameter with two defaults would mean two things.
fn conflicts(masked: &Masked, problems: &mut Problems<'_>) {
    let mut first: BTreeMap<&str, &str> = BTreeMap::new();
    for found in &masked.found {
        let Some(default) = &found.default else {
            continue;
        };
        let before = *first.entry(&found.name).or_insert(default);
        if before != default {
            problems.add(
                At::default(),
                format!(
                    "`{}` has the defaults `{before}` and `{default}`",
                    found.name
                ),
                "one default",
                "give the default once and write `${NAME}` elsewhere",
            );
        }
    }
}
