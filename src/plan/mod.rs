//! The plan: text in, one validated immutable value out.
//!
//! Contract: the only reader of plan YAML; nobody re-reads YAML or the environment later. Reports
//! everything that is wrong at once, each with file, line, what was expected and what to do.
//! May use: nothing in this crate.

mod database;
pub mod file;
pub mod model;
mod overrides;
pub mod problem;
mod quiesce;
mod shape;
mod starter;
pub mod text;
mod validate;
pub mod yaml;

use std::io::Read;
use std::path::{Path, PathBuf};

pub use model::Plan;
pub use problem::Problem;
pub use shape::schema;
pub use starter::{LAB, LAB_QEMU, lab, lab_qemu_with, lab_with, starter};

pub(crate) use validate::is_path;

use problem::Problems;

/// The only apiVersion there is.
pub const API_VERSION: &str = "virtproof.dev/v1alpha1";

/// A plan as loaded.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The validated plan.
    pub plan: Plan,
    /// Its text, to be kept with the evidence.
    pub text: String,
    /// BLAKE3 of the text, hex.
    pub blake3: String,
    /// The folder that relative paths in the plan start from.
    pub dir: PathBuf,
}

/// What names a plan may use. `None` leaves that kind of name unchecked, as when old evidence is
/// judged by a later version.
#[derive(Debug, Clone, Copy, Default)]
pub struct Known<'a> {
    /// Scenario ids in catalogue order.
    pub scenarios: Option<&'a [&'a str]>,
    /// Embedded templates.
    pub templates: Option<&'a [&'a str]>,
    /// Embedded Recipes.
    pub recipes: Option<&'a [&'a str]>,
    /// Whether files that the plan names must exist.
    pub files: bool,
}

impl Known<'_> {
    /// Checks no names and no files.
    pub const fn nothing() -> Self {
        Self {
            scenarios: None,
            templates: None,
            recipes: None,
            files: false,
        }
    }
}

/// Why a plan cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The file could not be read.
    #[error("cannot read the plan {}; check the path and its permissions", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A value cannot be set as asked.
    #[error("{0}; paths are those of docs/plan.md")]
    Set(String),
    /// It can be read and is not a valid plan.
    #[error("{}", problem::render(.0))]
    Invalid(Vec<Problem>),
}

/// Reads and validates the plan in a file.
pub fn load(path: &Path, known: &Known<'_>) -> Result<Loaded, PlanError> {
    load_with(path, &[], known)
}

/// The same, with the values of `sets`, each `PATH=VALUE`, in place.
pub fn load_with(path: &Path, sets: &[String], known: &Known<'_>) -> Result<Loaded, PlanError> {
    let text = read_text(path).map_err(|source| PlanError::Read {
        path: path.to_owned(),
        source,
    })?;
    let dir = match path.parent() {
        Some(dir) if dir != Path::new("") => dir.to_owned(),
        _ => PathBuf::from("."),
    };
    let text = overrides::apply(&text, sets).map_err(PlanError::Set)?;
    parse(&text, &path.display().to_string(), &dir, known)
}

/// Reads at most one byte more than the limit, so that the size check sees that there is more.
pub(crate) fn read_text(path: &Path) -> std::io::Result<String> {
    let limit = u64::try_from(yaml::MAX_TEXT).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    std::fs::File::open(path)?
        .take(limit + 1)
        .read_to_end(&mut bytes)?;
    String::from_utf8(bytes).map_err(|_not_text| {
        std::io::Error::new(std::io::ErrorKind::InvalidData, "it is not UTF-8 text")
    })
}

/// Reads and validates plan text. `file` names it in messages; `dir` is where its relative paths
/// start.
pub fn parse(text: &str, file: &str, dir: &Path, known: &Known<'_>) -> Result<Loaded, PlanError> {
    let mut problems = Problems::new(file, text);
    let plan = read(text, dir, known, &mut problems);
    match plan {
        Some(plan) if problems.is_empty() => Ok(Loaded {
            plan,
            text: text.to_owned(),
            blake3: blake3::hash(text.as_bytes()).to_hex().to_string(),
            dir: dir.to_owned(),
        }),
        _ => Err(PlanError::Invalid(problems.into_sorted())),
    }
}

fn read(text: &str, dir: &Path, known: &Known<'_>, problems: &mut Problems<'_>) -> Option<Plan> {
    let root = document(text, problems)?;
    for (key, first) in root.repeated_keys() {
        problems.add(
            key.at,
            format!("the key `{}` stands twice", key.text),
            format!("each key once; the first is in line {}", first.line),
            "remove one of the two",
        );
    }
    shape::check(&root, &schema(), problems);
    // Unknown keys do not keep the rest from being judged; a wrong type does.
    let pruned = shape::prune(&root, &schema());
    let file: file::PlanFile = match serde_json::from_value(pruned) {
        Ok(file) => file,
        Err(error) => {
            if problems.is_empty() {
                problems.add(root.at, error.to_string(), "a plan", "see docs/plan.md");
            }
            return None;
        }
    };
    validate::validate(&file, &root, dir, known, problems)
}

/// The one document of a plan.
fn document(text: &str, problems: &mut Problems<'_>) -> Option<yaml::Node> {
    let mut documents = match yaml::parse(text, false) {
        Ok(documents) => documents,
        Err(bad) => {
            problems.add(bad.at, bad.what, "YAML", "correct the syntax");
            return None;
        }
    };
    if documents.len() > 1 {
        let what = "the file holds more than one document";
        problems.add(documents[1].at, what, "one plan", "split it into files");
        return None;
    }
    let root = documents.pop();
    if root.is_none() {
        let what = "the file holds no plan";
        let fix = "start with `virtproof init`";
        problems.add(yaml::At::default(), what, "a mapping", fix);
    }
    root
}

#[cfg(test)]
mod tests;
