//! Parse and dispatch; the only place that prints or exits.
//!
//! Contract: exit codes stand in [`exit`]; results go to standard output, progress to standard
//! error.
//! May use: everything.

pub mod args;
mod catalogue;
pub mod document;
mod evidence;
pub mod exit;
mod guests;
mod init;
mod lab;
mod lint;
mod offline;
mod output;
mod progress;
mod recipe;
mod run;
mod selftest;
mod signals;
mod trace;

use std::process::ExitCode;

use args::{Cli, Format, Verb};
use exit::Exit;

use crate::check::verdict::Status;
use crate::report::table;
use crate::report::view::View;
use crate::run::RunError;

/// Runs the command line to its exit code.
pub fn main(cli: Cli) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(format_args!("cannot start: {error}"));
            return Exit::Usage.into();
        }
    };
    let ended = runtime.block_on(Box::pin(dispatch(cli)));
    // A blocked thread must not keep a finished command from ending.
    runtime.shutdown_background();
    ended
        .unwrap_or_else(|error| {
            complain(format_args!("{error:#}"));
            code(&error)
        })
        .into()
}

async fn dispatch(cli: Cli) -> anyhow::Result<Exit> {
    let format = cli.format;
    match cli.verb {
        Verb::Init(init) => init::init(&init),
        Verb::Preflight(plan) => run::preflight(&plan.plan, format, cli.verbose).await,
        Verb::Run(run) => run::run(&run, format, cli.verbose).await,
        Verb::Check(dir) => offline::check(&dir.dir, format),
        Verb::Report(dir) => offline::report(&dir.dir),
        Verb::Verify(verify) => evidence::verify(&verify, format),
        Verb::Sign(sign) => evidence::sign(&sign, format),
        Verb::Keygen(keygen) => evidence::keygen(&keygen),
        Verb::List(list) => catalogue::list(&list, format),
        Verb::Explain(explain) => catalogue::explain(&explain),
        Verb::Lint(args) => lint::lint(&args, format),
        Verb::Recipe(args) => recipe::recipe(&args.verb, format),
        Verb::Cleanup(dir) => run::cleanup(&dir.dir, cli.verbose).await,
        Verb::Selftest(args) => selftest::selftest(&args, format).await,
        Verb::Lab(lab) => lab::lab(lab.verb, format, cli.verbose).await,
        Verb::Completions(completions) => catalogue::completions(&completions),
    }
}

/// The exit code of an error.
fn code(error: &anyhow::Error) -> Exit {
    match error.downcast_ref::<RunError>() {
        Some(RunError::Preflight(_)) => Exit::Preflight,
        Some(RunError::Evidence(_)) => Exit::Inconclusive,
        Some(RunError::Usage(_)) | None => Exit::Usage,
    }
}

/// Says what went wrong; if even that cannot be written, the exit code still tells.
fn complain(what: std::fmt::Arguments<'_>) {
    output::note(format_args!("virtproof: {what}")).ok();
}

/// Prints a judged run: the table for people, the view for programs.
fn show(view: &View, format: Format) -> std::io::Result<()> {
    match format {
        Format::Text => output::raw(table::render(view, paint)),
        Format::Json => output::line(serde_json::to_string(view)?),
    }
}

/// Colour by status; `anstream` takes it out again where it does not belong.
fn paint(status: Option<Status>, text: &str) -> String {
    use owo_colors::OwoColorize;
    match status {
        Some(Status::Pass) => text.green().to_string(),
        Some(Status::Fail) => text.red().to_string(),
        Some(Status::Inconclusive) | None => text.yellow().to_string(),
    }
}
