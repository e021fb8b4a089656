//! Puts rows into effect: each in processes of this very program, as a user would.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use globset::Glob;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use super::seen::Seen;
use crate::check::Verdicts;
use crate::history::event::{Event, Fact};
use crate::lab::faults::{FaultSpec, How, Tamper, table};

/// Longest that one run may take: generous, since a machine under load must not make verdicts.
const LIMIT: Duration = Duration::from_secs(300);
/// The same with real guests, which boot in their own time.
const LIMIT_REAL: Duration = Duration::from_secs(3600);
/// Values of the lab's plan for every row: two VMs, so that one can be mistaken for the other.
const PLAN: [&str; 1] = ["workloads.0.count=2"];
/// By how much longer the deadlines that a row sets are with real guests.
const PATIENCE: u64 = 12;
/// Where a row's run directory and key lie in its folder.
const RUN: &str = "run";
const KEY: &str = "key.pem";

/// The rows that the globs name by fault, catalogue entry or check; all without a glob.
///
/// # Errors
/// A glob that is none or that names nothing.
pub fn chosen(only: &[String]) -> Result<Vec<&'static FaultSpec>, String> {
    let mut globs = Vec::new();
    for text in only {
        let glob = Glob::new(text)
            .map_err(|error| error.to_string())?
            .compile_matcher();
        let names = |row: &&FaultSpec| named(row, |name| glob.is_match(name));
        if !table().any(|row| names(&row)) {
            return Err(format!(
                "`{text}` names no fault, catalogue entry or check of the table (`virtproof selftest --list`)"
            ));
        }
        globs.push(glob);
    }
    let wanted = |row: &&FaultSpec| {
        only.is_empty() || named(row, |name| globs.iter().any(|glob| glob.is_match(name)))
    };
    Ok(table().filter(wanted).collect())
}

fn named(row: &FaultSpec, is: impl Fn(&str) -> bool) -> bool {
    let checks = row.red().iter().chain(row.doubts);
    is(row.name) || row.entries.iter().chain(checks).any(|name| is(name))
}

/// Runs rows below a folder.
pub struct Actor {
    /// This program.
    pub exe: PathBuf,
    /// The folder; a row's evidence lies in a folder of its own.
    pub out: PathBuf,
    /// Keep the evidence of rows that came out as ordained too.
    pub keep: bool,
    /// Run the rows on real guests under QEMU.
    pub real: bool,
}

impl Actor {
    /// Runs a row at a seed. An error means that the self-test itself cannot go on.
    pub async fn act(&self, row: &FaultSpec, seed: u64) -> anyhow::Result<Seen> {
        let dir = self.dir(row, seed);
        std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        let began = Instant::now();
        let mut shown = match row.how {
            How::Lab(_) => self.run(row, seed, &dir, &["--fault", row.name]).await?,
            How::Clean => self.run(row, seed, &dir, &[]).await?,
            How::Kill => self.kill(row, seed, &dir).await?,
            How::Tamper(tamper) => self.tamper(row, seed, &dir, tamper).await?,
            How::Nowhere => Seen::default(),
        };
        shown.seed = seed;
        shown.seconds = began.elapsed().as_secs_f64();
        Ok(shown)
    }

    /// Removes the evidence of a row that needs no looking at.
    pub fn tidy(&self, row: &FaultSpec, seed: u64) -> anyhow::Result<()> {
        let dir = self.dir(row, seed);
        if !self.keep && dir.exists() {
            std::fs::remove_dir_all(&dir).with_context(|| format!("removing {}", dir.display()))?;
        }
        Ok(())
    }

    fn dir(&self, row: &FaultSpec, seed: u64) -> PathBuf {
        self.out.join("rows").join(format!("{}-{seed}", row.name))
    }

    fn command(&self, dir: &Path, args: &[impl AsRef<OsStr>]) -> Command {
        let mut command = Command::new(&self.exe);
        command
            .args(args)
            // What a killed run leaves of its lab goes with the row's folder.
            .env("TMPDIR", dir)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// The command line of a row's run.
    fn line(&self, row: &FaultSpec, seed: &str, out: &str, more: &[&str]) -> Vec<String> {
        let mut args = vec!["run", "--lab", "--seed", seed, "--only", row.scenario];
        args.extend(["--out", out]);
        if self.real {
            args.extend(["--guests", "qemu"]);
        }
        args.extend(more);
        let mut args: Vec<String> = args.into_iter().map(str::to_owned).collect();
        for set in PLAN.iter().chain(row.plan) {
            let set = if self.real {
                patient(set)
            } else {
                (*set).to_owned()
            };
            args.extend(["--set".to_owned(), set]);
        }
        args
    }

    fn limit(&self) -> Duration {
        if self.real { LIMIT_REAL } else { LIMIT }
    }

    async fn run(
        &self,
        row: &FaultSpec,
        seed: u64,
        dir: &Path,
        more: &[&str],
    ) -> anyhow::Result<Seen> {
        let (seed, out) = (seed.to_string(), text(&dir.join(RUN))?);
        let mut shown = self.ended(dir, &self.line(row, &seed, &out, more)).await?;
        shown.refused = matches!(shown.exit, Some(2 | 3));
        take(&mut shown, &dir.join(RUN))?;
        Ok(shown)
    }

    /// Runs this program to its end and keeps the last of what it said.
    async fn ended(&self, dir: &Path, args: &[impl AsRef<OsStr>]) -> anyhow::Result<Seen> {
        let running = self.command(dir, args).output();
        let limit = self.limit();
        let Ok(done) = tokio::time::timeout(limit, running).await else {
            return Ok(Seen {
                said: format!("no end within {limit:?}"),
                ..Seen::default()
            });
        };
        let done = done.with_context(|| format!("running {}", self.exe.display()))?;
        let said = String::from_utf8_lossy(&done.stderr);
        let last: Vec<&str> = said.lines().rev().take(3).collect();
        Ok(Seen {
            exit: done.status.code(),
            said: last.into_iter().rev().collect::<Vec<_>>().join("; "),
            ..Seen::default()
        })
    }

    /// Kills a run with signal 9 once every VM writes, then has its directory judged.
    async fn kill(&self, row: &FaultSpec, seed: u64, dir: &Path) -> anyhow::Result<Seen> {
        let (seed, out) = (seed.to_string(), text(&dir.join(RUN))?);
        let args = self.line(row, &seed, &out, &["--format", "json"]);
        let mut child = self
            .command(dir, &args)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let stdout = child.stdout.take().context("the run's output")?;
        let loaded = tokio::time::timeout(self.limit(), under_load(BufReader::new(stdout))).await;
        child.kill().await.context("killing the run")?;
        match loaded {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Ok(broken(&format!("{error:#}"))),
            Err(_late) => return Ok(broken("the load did not begin in time")),
        }
        self.judged(dir).await
    }

    /// Lets `check` judge what lies in a row's run directory.
    async fn judged(&self, dir: &Path) -> anyhow::Result<Seen> {
        let run = text(&dir.join(RUN))?;
        let mut shown = self
            .ended(dir, &["check", &run, "--format", "json"])
            .await?;
        let verdicts = crate::run::judge(&dir.join(RUN));
        match verdicts {
            Ok(judged) => shown.take(judged.verdicts()),
            Err(error) => shown.said = format!("{error:#}"),
        }
        Ok(shown)
    }

    /// Changes the evidence of a run that passed.
    async fn tamper(
        &self,
        row: &FaultSpec,
        seed: u64,
        dir: &Path,
        tamper: Tamper,
    ) -> anyhow::Result<Seen> {
        let key = text(&dir.join(KEY))?;
        let made = self.ended(dir, &["keygen", "--out", &key]).await?;
        if made.exit != Some(0) {
            return Ok(made);
        }
        let whole = self.run(row, seed, dir, &["--sign-key", &key]).await?;
        if whole.exit != Some(0) {
            return Ok(broken(&format!(
                "the run to be changed did not pass: {}",
                whole.said
            )));
        }
        let (run, public) = (dir.join(RUN), format!("{key}.pub"));
        let verify = ["verify", &text(&run)?, "--key", &public];
        let before = self.ended(dir, &verify).await?;
        if before.exit != Some(0) {
            return Ok(broken(&format!(
                "the whole bundle was refused: {}",
                before.said
            )));
        }
        match tamper {
            Tamper::TruncateSegment => {
                halve(&run.join("acks"))?;
                self.judged(dir).await
            }
            Tamper::EditSigned => {
                flip(&run.join("report.md"))?;
                let mut shown = self.ended(dir, &verify).await?;
                shown.refused = shown.exit == Some(1);
                Ok(shown)
            }
        }
    }
}

/// A value of the plan for real guests: a deadline in seconds is that much longer.
fn patient(set: &str) -> String {
    let longer = set.strip_prefix("deadlines.").and_then(|rest| {
        let (name, seconds) = rest.split_once('=')?;
        let seconds: u64 = seconds.strip_suffix('s')?.parse().ok()?;
        Some(format!("deadlines.{name}={}s", seconds * PATIENCE))
    });
    longer.unwrap_or_else(|| set.to_owned())
}

fn broken(why: &str) -> Seen {
    Seen {
        said: why.into(),
        ..Seen::default()
    }
}

fn text(path: &Path) -> anyhow::Result<String> {
    let text = path.to_str().map(str::to_owned);
    text.with_context(|| format!("{} is not UTF-8", path.display()))
}

/// Takes in the verdicts of a run, if it came to any.
fn take(seen: &mut Seen, run: &Path) -> anyhow::Result<()> {
    let path = run.join(crate::run::VERDICTS_FILE);
    if path.exists() {
        let verdicts: Verdicts = serde_json::from_str(&std::fs::read_to_string(&path)?)
            .with_context(|| format!("reading {}", path.display()))?;
        seen.take(&verdicts);
    }
    Ok(())
}

/// Reads a run's events until every VM of its first trial writes.
async fn under_load(stdout: impl tokio::io::AsyncBufRead + Unpin) -> anyhow::Result<()> {
    let mut lines = stdout.lines();
    let mut waiting_for = usize::MAX;
    while let Some(line) = lines.next_line().await? {
        let event: Event = serde_json::from_str(&line).context("an event of the run")?;
        match event.fact {
            Fact::TrialStarted {
                subjects, parts, ..
            } => waiting_for = subjects.len().saturating_sub(parts.len()),
            Fact::LoadStarted { .. } => waiting_for = waiting_for.saturating_sub(1),
            _ => {}
        }
        if waiting_for == 0 {
            return Ok(());
        }
    }
    bail!("the run ended before its load began")
}

/// Cuts the largest file of a folder in half.
fn halve(folder: &Path) -> anyhow::Result<()> {
    let mut files: Vec<_> = std::fs::read_dir(folder)?
        .map(|entry| entry.and_then(|e| Ok((e.metadata()?.len(), e.path()))))
        .collect::<Result<_, _>>()?;
    files.sort();
    let (size, path) = files.pop().context("no ack segment")?;
    let file = std::fs::OpenOptions::new().write(true).open(path)?;
    Ok(file.set_len(size / 2)?)
}

/// Changes one byte in the middle of a file.
fn flip(path: &Path) -> anyhow::Result<()> {
    let mut bytes = std::fs::read(path)?;
    let middle = bytes.len() / 2;
    *bytes.get_mut(middle).context("an empty file")? ^= 1;
    Ok(std::fs::write(path, bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_guests_are_given_more_time_and_nothing_else() {
        assert_eq!(patient("deadlines.ssh=8s"), "deadlines.ssh=96s");
        for other in ["load.batch=16", "deadlines.ssh=1m", "objectives.rpo=8s"] {
            assert_eq!(patient(other), other);
        }
    }
}
