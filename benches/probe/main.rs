//! The probe against fio and dd, on this host and in a real guest of the lab.
//!
//! `cargo bench --bench probe -- [host] [guest] [--pairs N] [--seconds S] [--writers N] [--dir DIR]
//! [--probe FILE]`. Both sides of a pair run one after the other on the same storage, pair after pair
//! in one run, so that what else the machine does strikes both; `docs/performance.md` says what is
//! measured. What the machine lacks is said and skipped.

mod fio;
mod guest;
mod host;
mod ledger;
mod pairs;
mod place;
mod read;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use virtproof::probe::host::ProbeBinary;

use ledger::Ledger;
use pairs::Pairs;
use place::Place;

/// What was asked for.
pub(crate) struct Wish {
    host: bool,
    guest: bool,
    /// Pairs of each comparison.
    pairs: usize,
    /// How long each side of a pair writes.
    window: Duration,
    /// Writers of the probe, jobs of fio.
    pub(crate) writers: u32,
    /// Where the host's files go.
    pub(crate) dir: PathBuf,
    /// The probe; the embedded one unless another build is to be measured.
    pub(crate) probe: ProbeBinary,
}

impl Wish {
    fn read(mut words: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let mut wish = Self {
            host: false,
            guest: false,
            pairs: 5,
            window: Duration::from_secs(1),
            writers: 2,
            dir: PathBuf::from(env!("CARGO_TARGET_TMPDIR")),
            probe: ProbeBinary::embedded(),
        };
        while let Some(word) = words.next() {
            let mut value = || {
                words
                    .next()
                    .with_context(|| format!("{word} needs a value"))
            };
            match word.as_str() {
                "--bench" => {}
                "host" => wish.host = true,
                "guest" => wish.guest = true,
                "--pairs" => wish.pairs = value()?.parse()?,
                "--seconds" => wish.window = Duration::from_secs_f64(value()?.parse()?),
                "--writers" => wish.writers = value()?.parse()?,
                "--dir" => wish.dir = value()?.into(),
                "--probe" => wish.probe = ProbeBinary::load(value()?.as_ref())?,
                other => bail!("`{other}` is not known; see the head of benches/probe/main.rs"),
            }
        }
        if wish.writers < 2 || wish.pairs == 0 {
            bail!("a ledger has at least two writers (log and hot), and one pair is the least");
        }
        if !wish.host && !wish.guest {
            (wish.host, wish.guest) = (true, true);
        }
        Ok(wish)
    }
}

fn main() -> ExitCode {
    let outcome = Wish::read(std::env::args().skip(1)).and_then(|wish| {
        let runtime = tokio::runtime::Runtime::new()?;
        runtime.block_on(measure(&wish))
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]
pub(crate) fn say(text: &str) {
    println!("{text}");
}

async fn measure(wish: &Wish) -> anyhow::Result<()> {
    if wish.host {
        if let Some(what) = host::missing() {
            say(&format!("host: skipped: {what}"));
        } else {
            let host = host::Host::new(wish)?;
            compare(&host, wish).await.context("on the host")?;
        }
    }
    if wish.guest {
        match guest::Guest::start(wish).await? {
            Err(what) => say(&format!("guest: skipped: {what}")),
            Ok(guest) => {
                let compared = compare(&guest, wish).await.context("in the guest");
                guest.stop().await;
                compared?;
            }
        }
    }
    Ok(())
}

/// All comparisons in one place.
async fn compare(place: &impl Place, wish: &Wish) -> anyhow::Result<()> {
    say(&format!("\n{}", place.describe()));
    place.run(&place.prepare(), b"").await?;
    let mut ledger = Ledger::start(place, wish.writers).await?;
    let writers = wish.writers;
    let cases = [
        ("strict ledger, fio --sync=dsync".to_owned(), 0),
        ("flush each 32, fio --fdatasync=32".to_owned(), 32),
    ];
    for (name, batch) in cases {
        let mut pairs = Pairs::new(
            &format!("{name}, {writers} writers"),
            "writes/s",
            "us CPU each",
        );
        // One of each to warm up, thrown away.
        for pair in 0..=wish.pairs {
            let ours = ledger.load(place, batch, wish.window).await?;
            let theirs = fio::run(place, writers, batch, wish.window).await?;
            if pair > 0 {
                pairs.push(ours, theirs);
            }
        }
        say(&pairs.to_string());
    }
    let mut pairs = Pairs::new("full scan, dd iflag=direct bs=1M", "MB/s", "ms CPU per GB");
    let times = read::times(place, wish.window).await?;
    for _ in 0..wish.pairs {
        let ours = read::scan(place, &ledger, times).await?;
        let theirs = read::dd(place, times).await?;
        pairs.push(ours, theirs);
    }
    say(&pairs.to_string());
    ledger.quit().await
}
