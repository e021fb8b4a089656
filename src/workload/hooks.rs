//! Recipes for quiescing: where they come from, and reading them with every mistake at its line.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::recipe::{self, Recipe};
use super::template::Embedded;
use crate::plan::problem::{self, Problem, Problems, suggest};
use crate::plan::yaml::{self, At};

/// The Recipe for scenarios that need one where a workload names none.
pub const DEFAULT: &str = "vm-quiesce";

/// The Recipes that virtproof brings along. Those that begin with `trap-` are wrong on purpose.
fn embedded() -> impl Iterator<Item = &'static Embedded> {
    recipe::embedded().iter().chain(recipe::traps())
}

/// Their names.
pub fn names() -> Vec<&'static str> {
    embedded().map(|recipe| recipe.name).collect()
}

/// Why a Recipe cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// There is no embedded Recipe of this name.
    #[error("there is no embedded Recipe `{name}`; {fix}")]
    Unknown {
        /// The name.
        name: String,
        /// What to do.
        fix: String,
    },
    /// The file could not be read.
    #[error("cannot read the Recipe {}; check the path and its permissions", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is no Recipe that an API server takes.
    #[error("{}", problem::render(.0))]
    Invalid(Vec<Problem>),
}

/// Loads an embedded Recipe by name, or a file; relative paths start at `base`.
pub fn load(reference: &str, base: &Path) -> Result<Recipe, RecipeError> {
    if crate::plan::is_path(reference) {
        let path = base.join(reference);
        return match crate::plan::read_text(&path) {
            Ok(text) => parse(&text, &path.display().to_string()),
            Err(source) => Err(RecipeError::Read { path, source }),
        };
    }
    match embedded().find(|recipe| recipe.name == reference) {
        Some(recipe) => parse(recipe.text, reference),
        None => Err(RecipeError::Unknown {
            name: reference.to_owned(),
            fix: suggest(
                reference,
                names(),
                &format!("take one of {} or give a path", names().join(", ")),
            ),
        }),
    }
}

/// Reads Recipe text; `file` names it in messages.
pub fn parse(text: &str, file: &str) -> Result<Recipe, RecipeError> {
    let mut problems = Problems::new(file, text);
    let recipe = read(text, &mut problems);
    match recipe {
        Some(recipe) if problems.is_empty() => Ok(recipe),
        _ => Err(RecipeError::Invalid(problems.into_sorted())),
    }
}

fn read(text: &str, problems: &mut Problems<'_>) -> Option<Recipe> {
    let documents = match yaml::parse(text, true) {
        Ok(documents) => documents,
        Err(bad) => {
            problems.add(bad.at, bad.what, "YAML", "correct the syntax");
            return None;
        }
    };
    let [root] = documents.as_slice() else {
        let what = format!("the file holds {} documents", documents.len());
        problems.add(At::default(), what, "one Recipe", "give each Recipe a file");
        return None;
    };
    let object: Value = root.to_value();
    let place = |path: &str| {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        root.place(&parts)
    };
    let recipe = match Recipe::from_value(&object) {
        Ok(recipe) => recipe,
        Err(refused) => {
            for refusal in refused.0 {
                let at = place(&refusal.path);
                problems.add(at, refusal.what, refusal.wanted, "see `virtproof lint`");
            }
            return None;
        }
    };
    for workflow in &recipe.workflows {
        if let Err(error) = recipe.resolve(workflow) {
            let at = place(error.path());
            let expected = "a sequence of groups and `hook/op` of this Recipe";
            problems.add(at, error.to_string(), expected, "see `virtproof lint`");
        }
    }
    Some(recipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_embedded_recipe_is_one() {
        for recipe in embedded() {
            let read = parse(recipe.text, recipe.name);
            assert!(read.is_ok(), "{}: {read:?}", recipe.name);
        }
        assert!(names().contains(&DEFAULT));
    }

    /// The text of the Recipe that is taken where none is named.
    fn default() -> &'static str {
        let found = embedded().find(|recipe| recipe.name == DEFAULT);
        found.expect("it is embedded").text
    }

    #[test]
    fn mistakes_are_told_with_their_line() {
        let text = default().replace("type: exec", "type: execute");
        let line = text
            .lines()
            .position(|l| l.contains("execute"))
            .expect("a line")
            + 1;
        let Err(RecipeError::Invalid(problems)) = parse(&text, "mine.yaml") else {
            panic!("it is taken");
        };
        assert_eq!(problems[0].line, u64::try_from(line).expect("small"));
        let lost = default().replace("- hook: vm/thaw", "- hook: vn/thaw");
        let said = parse(&lost, "mine.yaml")
            .expect_err("no such hook")
            .to_string();
        assert!(
            said.contains("there is no hook `vn`") && said.contains("mine.yaml:"),
            "{said}"
        );
        assert!(
            load("vm-quiece", Path::new(".")).is_err_and(|e| e.to_string().contains("vm-quiesce"))
        );
        assert!(matches!(
            load("./none.yaml", Path::new(".")),
            Err(RecipeError::Read { .. })
        ));
    }
}
