//! Debug logs on standard error. Never evidence.

use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::cluster::QUIET_TARGETS;

/// Starts logging; `verbose` is how often `-v` was given.
pub(super) fn start(verbose: u8) -> anyhow::Result<()> {
    let level = match verbose {
        0 => LevelFilter::ERROR,
        1 => LevelFilter::INFO,
        _ => LevelFilter::DEBUG,
    };
    let screen = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .without_time()
        .with_filter(quiet(level)?);
    tracing_subscriber::registry().with(screen).try_init()?;
    Ok(())
}

/// Our own targets at `level`, everybody else's errors, and the noisy ones not at all.
fn quiet(level: LevelFilter) -> anyhow::Result<EnvFilter> {
    let mut text = format!("virtproof={level},{}", LevelFilter::ERROR);
    for target in QUIET_TARGETS {
        for part in [",", target, "=off"] {
            text.push_str(part);
        }
    }
    Ok(EnvFilter::try_new(text)?)
}
