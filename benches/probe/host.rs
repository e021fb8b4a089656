//! This host: two files on one of its file systems.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::process;

use crate::Wish;
use crate::place::{Held, Place, Talk};

/// Bytes of the ledger's file.
const LEDGER_MIB: u32 = 1024;
/// Bytes of fio's.
const FIO_MIB: u32 = 32;

pub(crate) struct Host {
    /// Probe and socket, with a short path: that of a socket is limited to 108 bytes.
    dir: TempDir,
    /// Removed at the end, with the files in it.
    data: TempDir,
    ours: String,
    theirs: String,
}

/// What there must be, and is not.
pub(crate) fn missing() -> Option<String> {
    let found = Command::new("fio")
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    match found {
        Ok(status) if status.success() => None,
        _ => Some("no fio here; install it (package fio)".to_owned()),
    }
}

impl Host {
    pub(crate) fn new(wish: &Wish) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("vp-bench-").tempdir()?;
        let data = tempfile::Builder::new()
            .prefix("bench-")
            .tempdir_in(&wish.dir);
        let data = data.with_context(|| format!("making a folder in {}", wish.dir.display()))?;
        let probe = dir.path().join("probe");
        fs::write(&probe, wish.probe.bytes())?;
        fs::set_permissions(&probe, Permissions::from_mode(0o700))?;
        let path = |name| data.path().join(name).display().to_string();
        let (ours, theirs) = (path("ledger"), path("fio"));
        Ok(Self {
            dir,
            data,
            ours,
            theirs,
        })
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }
}

impl Place for Host {
    fn describe(&self) -> String {
        let dir = self.data.path();
        let asked = Command::new("stat")
            .args(["-f", "-c", "%T"])
            .arg(dir)
            .output();
        let kind = asked.map(|answer| String::from_utf8_lossy(&answer.stdout).trim().to_owned());
        format!(
            "host: files of {LEDGER_MIB} MiB and {FIO_MIB} MiB on {} ({})",
            kind.unwrap_or_else(|_| "an unknown file system".to_owned()),
            dir.parent().unwrap_or(dir).display()
        )
    }

    fn probe(&self) -> String {
        self.path("probe")
    }

    fn socket(&self) -> String {
        self.path("socket")
    }

    fn ours(&self) -> &str {
        &self.ours
    }

    fn theirs(&self) -> &str {
        &self.theirs
    }

    fn prepare(&self) -> String {
        let zero = |file: &str, mib| {
            format!(
                "dd if=/dev/zero of={file} bs=1M count={mib} oflag=direct conv=fsync 2>/dev/null"
            )
        };
        let (ours, theirs) = (zero(&self.ours, LEDGER_MIB), zero(&self.theirs, FIO_MIB));
        format!("{ours} && {theirs}")
    }

    async fn run(&self, command: &str, stdin: &[u8]) -> anyhow::Result<String> {
        let mut child = process::Command::new("sh")
            .args(["-c", command])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut to) = child.stdin.take() {
            // A command that takes no input may have ended by now.
            to.write_all(stdin).await.ok();
        }
        let done = child.wait_with_output().await?;
        if !done.status.success() {
            let said = String::from_utf8_lossy(&done.stderr).into_owned();
            bail!("`{command}` failed: {}: {}", done.status, said.trim());
        }
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    }

    async fn talk(&self, command: &str) -> anyhow::Result<Talk> {
        let mut child = process::Command::new("sh")
            .args(["-c", &format!("exec {command}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        Ok(Talk {
            stdin: Box::new(stdin.context("its input")?),
            stdout: Box::new(stdout.context("its output")?),
            _held: Held::Child { _child: child },
        })
    }
}
