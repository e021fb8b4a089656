//! The command line, as its users type it.

mod lab;
mod lint;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use lab::*;
pub use lint::*;

/// Rehearse disaster recovery for KubeVirt VMs and prove what survived.
#[derive(Debug, Parser)]
#[command(
    name = "virtproof",
    version,
    max_term_width = 100,
    disable_help_subcommand = true
)]
#[command(
    after_help = "Exit codes: 0 pass, 1 a check failed, 2 usage or plan, 3 preflight not met, \
    4 inconclusive or nothing ran, 5 passed but cleanup incomplete, 130 interrupted."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
    /// How results are printed.
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// More detail on standard error; repeat for more still.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// Output formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON document, or one event per line while running.
    Json,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Write a commented starter plan.
    Init(Init),
    /// Look, without touching anything, whether a plan could run.
    Preflight(PlanArg),
    /// Run a plan, or the built-in one against simulated sites.
    Run(Run),
    /// Judge a stored run again, offline.
    Check(RunDir),
    /// Write the reports of a stored run again, offline.
    Report(RunDir),
    /// Say whether a stored run is whole, and by whose word; where not, say where.
    Verify(Verify),
    /// Sign a sealed run directory that holds.
    Sign(Sign),
    /// Make a key to sign run directories with.
    Keygen(Keygen),
    /// List scenarios, checks and templates.
    List(List),
    /// Explain a scenario or a check.
    Explain(Explain),
    /// Find what is wrong with Recipes, VRGs, DRPCs, replications and VMs before a disaster does.
    Lint(Lint),
    /// Look into a Ramen Recipe.
    Recipe(RecipeArgs),
    /// Undo what is left of a run.
    Cleanup(RunDir),
    /// Plant every fault in simulated sites and show which check caught it.
    Selftest(Selftest),
    /// Run simulated sites for kubectl and others.
    Lab(Lab),
    /// Print a shell completion script.
    Completions(Completions),
}

/// `init`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  virtproof init > plan.yaml\n  virtproof init --out plan.yaml\n  \
    virtproof init --extract templates/"
)]
pub struct Init {
    /// Write the plan to this file; never overwrites one.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Write the embedded VM templates, and the Recipes below `recipes/`, into this folder instead.
    #[arg(long, value_name = "DIR", conflicts_with = "out")]
    pub extract: Option<PathBuf>,
}

/// A plan file.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  virtproof preflight plan.yaml")]
pub struct PlanArg {
    /// The plan.
    #[arg(value_name = "PLAN")]
    pub plan: PathBuf,
}

/// `run`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  virtproof run plan.yaml --out quarterly/\n  \
    virtproof run --lab\n  virtproof run --lab --fault drop-acked-write\n  \
    virtproof run --lab --guests qemu --only 'migrate.*'\n  \
    virtproof run plan.yaml --only 'failover.*'\n  \
    virtproof run plan.yaml --sign-key release.key"
)]
pub struct Run {
    /// The plan.
    #[arg(value_name = "PLAN", required_unless_present = "lab")]
    pub plan: Option<PathBuf>,
    /// Run against two simulated sites in this process; without PLAN, the built-in plan.
    #[arg(long)]
    pub lab: bool,
    /// What runs in the simulated sites' VMs.
    #[command(flatten)]
    pub guests: GuestArgs,
    /// Only scenarios that match this glob; may be repeated.
    #[arg(long, value_name = "GLOB")]
    pub only: Vec<String>,
    /// Where the run directory goes; must not exist or be empty.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Replace a value of the plan, such as `load.rate=500` or `workloads.0.count=1`; may be repeated.
    #[arg(long, value_name = "PATH=VALUE")]
    pub set: Vec<String>,
    /// Leave everything in place when a trial does not pass; `virtproof cleanup DIR` undoes it.
    #[arg(long)]
    pub keep_on_failure: bool,
    /// Plant a fault in the simulated sites; may be repeated. `virtproof lab fault --list` names them.
    #[arg(long, value_name = "NAME", requires = "lab")]
    pub fault: Vec<String>,
    /// The seed behind every random choice; drawn and printed when absent.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// A probe for guests of another architecture.
    #[arg(long, value_name = "FILE")]
    pub probe: Option<PathBuf>,
    /// Sign the run directory with this ed25519 key, PKCS#8 PEM; nobody else may read it.
    #[arg(
        long,
        value_name = "FILE",
        env = "VIRTPROOF_SIGN_KEY",
        hide_env_values = true
    )]
    pub sign_key: Option<PathBuf>,
}

/// A run directory.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  virtproof check virtproof-20261122-201500/")]
pub struct RunDir {
    /// The run directory.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

/// `verify`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  virtproof verify quarterly-dr/
  virtproof verify quarterly-dr/ --key release.key.pub
  virtproof verify quarterly-dr/ --require-signature --format json

Exit codes: 0 whole, and signed as demanded; 1 something does not hold, and the output says where;
2 no such directory or key; 4 only another version of virtproof can tell.")]
pub struct Verify {
    /// The run directory.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// The public key that must have signed it, PEM.
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Refuse an unsigned run directory.
    #[arg(long)]
    pub require_signature: bool,
}

/// `sign`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  virtproof sign quarterly-dr/ --key release.key")]
pub struct Sign {
    /// The run directory, which must hold and not be signed yet.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// The private key, PKCS#8 PEM; nobody else may read it.
    #[arg(
        long,
        value_name = "FILE",
        env = "VIRTPROOF_SIGN_KEY",
        hide_env_values = true
    )]
    pub key: PathBuf,
}

/// `keygen`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  virtproof keygen --out release.key

The same with OpenSSL:
  openssl genpkey -algorithm ed25519 -out release.key && chmod 600 release.key
  openssl pkey -in release.key -pubout -out release.key.pub")]
pub struct Keygen {
    /// Where the private key goes; its public half goes to FILE.pub. Never overwrites either.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// `list`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  virtproof list\n  virtproof list --sources")]
pub struct List {
    /// Show where each scenario comes from.
    #[arg(long)]
    pub sources: bool,
}

/// `explain`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  virtproof explain relocate.zero-loss\n  virtproof explain D3")]
pub struct Explain {
    /// A scenario id or a check id.
    #[arg(value_name = "ID")]
    pub id: String,
}

/// `selftest`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  virtproof selftest\n  virtproof selftest --only D1 --seeds 5\n  \
    virtproof selftest --only 'F*' --out matrix/\n  \
    virtproof selftest --guests qemu --jobs 1 --only D1"
)]
pub struct Selftest {
    /// Only rows that match this glob by fault name, catalogue entry (16, F16) or check (D1); may be
    /// repeated.
    #[arg(long, value_name = "GLOB")]
    pub only: Vec<String>,
    /// How many seeds each row is run at.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seeds: u64,
    /// The first of them.
    #[arg(long, value_name = "N", default_value_t = 11)]
    pub seed: u64,
    /// How many rows run at the same time.
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub jobs: usize,
    /// Where the matrix goes, and the evidence of rows that did not come out as ordained.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Keep the evidence of every row.
    #[arg(long)]
    pub keep: bool,
    /// What runs in the simulated sites' VMs.
    #[arg(long, value_enum, value_name = "KIND", default_value_t = GuestKind::Sim)]
    pub guests: GuestKind,
    /// How many simulated histories of each kind are judged too; 0 for none.
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    pub histories: u64,
    /// Tell one simulated history, shrunk if it is judged wrongly, and stop.
    #[arg(long, value_name = "KIND:SEED", conflicts_with_all = ["only", "list"])]
    pub replay: Option<Replay>,
    /// List the rows and stop.
    #[arg(long)]
    pub list: bool,
}

/// `legal:SEED` or `faulty:SEED`.
#[derive(Debug, Clone, Copy)]
pub struct Replay {
    /// Legal or faulty.
    pub kind: crate::sim::Kind,
    /// The seed.
    pub seed: u64,
}

impl std::str::FromStr for Replay {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, seed) = text
            .split_once(':')
            .ok_or("expected legal:SEED or faulty:SEED")?;
        Ok(Self {
            kind: kind.parse()?,
            seed: seed.parse().map_err(|error| format!("{seed}: {error}"))?,
        })
    }
}

/// `completions`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  virtproof completions bash > ~/.local/share/bash-completion/completions/virtproof"
)]
pub struct Completions {
    /// The shell.
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}
