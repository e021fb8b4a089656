//! What `lint` and `recipe` are told.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// `lint`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  virtproof lint recipe.yaml vrg.yaml vm.yaml
  virtproof lint manifests/ --strict --sarif lint.sarif
  kustomize build overlays/east | virtproof lint -
  virtproof lint --rules

Exit codes: 0 nothing but notes, or warnings without --strict; 1 errors, or warnings with --strict;
2 a file cannot be read or is no YAML; 4 nothing was looked at, because no object is of a known kind.")]
pub struct Lint {
    /// Files or folders of YAML or JSON manifests, looked at together; `-` is standard input.
    #[arg(value_name = "FILE", required_unless_present = "rules")]
    pub files: Vec<PathBuf>,
    /// Warnings count like errors.
    #[arg(long)]
    pub strict: bool,
    /// Also write the findings as SARIF 2.1.0 to this file; `-` is standard output, without the text.
    #[arg(long, value_name = "FILE")]
    pub sarif: Option<PathBuf>,
    /// List the rules and stop.
    #[arg(long, conflicts_with_all = ["files", "strict", "sarif"])]
    pub rules: bool,
}

/// `recipe`.
#[derive(Debug, Args)]
pub struct RecipeArgs {
    /// What to do with it.
    #[command(subcommand)]
    pub verb: RecipeVerb,
}

/// What can be done with a Recipe.
#[derive(Debug, Subcommand)]
pub enum RecipeVerb {
    /// Say what a Recipe will do, step by step, and what happens when a step fails.
    Explain(RecipeExplain),
}

/// `recipe explain`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  virtproof recipe explain recipe.yaml
  virtproof recipe explain recipe.yaml --workflow backup --param VM=web --param NAMESPACE=app
  virtproof recipe explain recipe.yaml --mode strict --format json

Exit codes: 0 explained; 2 it cannot be read, or is no Recipe that an API server takes.")]
pub struct RecipeExplain {
    /// The Recipe; `-` is standard input.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Only this workflow.
    #[arg(long, value_enum, value_name = "NAME")]
    pub workflow: Option<WorkflowName>,
    /// A value of a parameter, as in `recipeParameters`; repeat a name to give several values.
    #[arg(long = "param", value_name = "NAME=VALUE")]
    pub parameters: Vec<String>,
    /// `faithful`: as Ramen does it; `strict`: as its author means it.
    #[arg(long, value_enum, value_name = "MODE", default_value_t = Mode::Faithful)]
    pub mode: Mode,
}

/// The workflows that Ramen runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WorkflowName {
    /// At every capture interval, on the primary.
    Backup,
    /// Once, where the VM is recovered.
    Restore,
}

/// Whose behaviour is explained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Ramen's, with what it swallows and repeats.
    Faithful,
    /// The author's: every failure counts, what was frozen is thawed.
    Strict,
}
