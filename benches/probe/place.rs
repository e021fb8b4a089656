//! Where both sides of a comparison run: a shell, a probe, a volume for each.

use anyhow::Context as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::DropGuard;

/// A command that is talked to.
pub(crate) struct Talk {
    pub(crate) stdin: Box<dyn AsyncWrite + Send + Unpin>,
    pub(crate) stdout: Box<dyn AsyncRead + Send + Unpin>,
    /// What ends it when it is dropped.
    pub(crate) _held: Held,
}

/// What keeps a [`Talk`] alive.
pub(crate) enum Held {
    Child { _child: tokio::process::Child },
    Channel { _guard: DropGuard },
}

/// A machine with two volumes.
pub(crate) trait Place {
    /// What is measured here, for the reader.
    fn describe(&self) -> String;

    /// The probe's command line.
    fn probe(&self) -> String;

    /// The probe's socket.
    fn socket(&self) -> String;

    /// The volume of the ledger.
    fn ours(&self) -> &str;

    /// The volume of fio.
    fn theirs(&self) -> &str;

    /// The command that writes both volumes whole, so that no side meets unallocated space.
    fn prepare(&self) -> String;

    /// Runs a shell command to its successful end; what it printed.
    async fn run(&self, command: &str, stdin: &[u8]) -> anyhow::Result<String>;

    /// Begins a command that is talked to.
    async fn talk(&self, command: &str) -> anyhow::Result<Talk>;
}

/// Runs a command and says how long it took in seconds by that machine's own clock, and how much CPU
/// its children used in seconds.
pub(crate) async fn timed(
    place: &impl Place,
    command: &str,
    stdin: &[u8],
) -> anyhow::Result<(f64, f64)> {
    let script = format!(
        "read from rest < /proc/uptime; {command}; read to rest < /proc/uptime; echo took $from $to; times"
    );
    let said = place.run(&script, stdin).await?;
    let mut lines = said.lines().skip_while(|line| !line.starts_with("took "));
    let parsed = (|| {
        let mut took = lines.next()?.split_ascii_whitespace().skip(1);
        let mut second = || took.next()?.parse::<f64>().ok();
        let (from, to) = (second()?, second()?);
        // The shell's own times come first, its children's after.
        let cpu = lines.nth(1)?.split_ascii_whitespace().map(minutes);
        Some((to - from, cpu.sum::<Option<f64>>()?))
    })();
    parsed.with_context(|| format!("`{command}` was timed as {said:?}"))
}

/// Seconds of `1m2.34s`.
fn minutes(text: &str) -> Option<f64> {
    let (minutes, seconds) = text.strip_suffix('s')?.split_once('m')?;
    Some(minutes.parse::<f64>().ok()? * 60.0 + seconds.parse::<f64>().ok()?)
}
