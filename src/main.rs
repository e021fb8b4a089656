//! The `virtproof` command: parses, dispatches and turns the answer into an exit code.

use std::process::ExitCode;

use clap::Parser;
use virtproof::cli::args::Cli;

fn main() -> ExitCode {
    virtproof::cli::main(Cli::parse())
}
