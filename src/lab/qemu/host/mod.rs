//! What this host has for real guests: QEMU, its release, `setpriv`, memory, and whether KVM serves.

mod kvm;

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use super::qmp::Version;
pub use kvm::{KVM_DEADLINE, Kvm, probe_kvm};

/// The oldest release that serves: the first with `-netdev stream`, by which guests reach the lab's
/// network.
pub const OLDEST: Version = Version {
    major: 7,
    minor: 2,
    micro: 0,
};

/// How long `qemu --version` may take on an overloaded host.
const VERSION_DEADLINE: Duration = Duration::from_secs(30);

/// What runs the guests' instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Accel {
    /// Translation, by threads of QEMU. Works everywhere.
    #[default]
    Tcg,
    /// The processor.
    Kvm,
}

/// What the user wants to run the guests' instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wish {
    /// Translation.
    #[default]
    Tcg,
    /// The processor, or nothing.
    Kvm,
    /// The processor if it serves, else translation.
    Auto,
}

/// Why real guests cannot run here.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// No QEMU.
    #[error(
        "no {wanted} found; install it (Debian, Ubuntu: qemu-system-x86; Fedora: qemu-system-x86-core) or name its path"
    )]
    NoQemu {
        /// What was looked for.
        wanted: String,
    },
    /// It is there but cannot be run.
    #[error("{} could not be run: {source}; reinstall QEMU or name another", qemu.display())]
    CannotRun {
        /// The program.
        qemu: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It does not say its release.
    #[error("{} --version did not tell a release but {said:?}; name a qemu-system-x86_64", qemu.display())]
    NotQemu {
        /// The program.
        qemu: PathBuf,
        /// What it said, or how it ended.
        said: String,
    },
    /// Too old.
    #[error("{} is QEMU {found}; install {OLDEST} or newer", qemu.display())]
    TooOld {
        /// The program.
        qemu: PathBuf,
        /// Its release.
        found: Version,
    },
    /// KVM was wanted.
    #[error("KVM does not serve here: {0}; use TCG")]
    NoKvm(String),
    /// Sockets cannot lie there.
    #[error(
        "the sockets of guests do not fit under {}, whose path is too long for Linux; use a shorter folder, or a shorter TMPDIR", .0.display()
    )]
    LongFolder(PathBuf),
    /// Linux does not say how much memory there is.
    #[error("/proc/meminfo does not tell MemAvailable: {0}")]
    NoMemory(String),
}

/// What was found.
#[derive(Debug, Clone)]
pub struct Host {
    /// `qemu-system-x86_64`.
    pub qemu: PathBuf,
    /// Its release.
    pub version: Version,
    /// util-linux's `setpriv`, which ties a QEMU's life to ours. Without it a QEMU outlives a killed
    /// virtproof until the next clean-up.
    pub setpriv: Option<PathBuf>,
}

impl Host {
    /// Looks for QEMU, at `given` or in `PATH`, and for `setpriv` in `PATH`.
    pub async fn find(given: Option<&Path>) -> Result<Self, HostError> {
        let wanted = given.unwrap_or_else(|| Path::new("qemu-system-x86_64"));
        let qemu = in_path(wanted).ok_or_else(|| HostError::NoQemu {
            wanted: wanted.display().to_string(),
        })?;
        let version = release(&qemu).await?;
        if version < OLDEST {
            return Err(HostError::TooOld {
                qemu,
                found: version,
            });
        }
        let setpriv = in_path(Path::new("setpriv"));
        if setpriv.is_none() {
            tracing::warn!(
                "no setpriv found: a killed virtproof leaves its QEMUs running until the next \
                 clean-up; install util-linux"
            );
        }
        Ok(Self {
            qemu,
            version,
            setpriv,
        })
    }
}

/// Fulfils a wish, by the probe where it is about KVM.
pub async fn accel(host: &Host, wish: Wish) -> Result<Accel, HostError> {
    if wish == Wish::Tcg {
        return Ok(Accel::Tcg);
    }
    match (probe_kvm(host, KVM_DEADLINE).await, wish) {
        (Kvm::Usable, _) => Ok(Accel::Kvm),
        (Kvm::Unusable(why), Wish::Kvm) => Err(HostError::NoKvm(why)),
        (Kvm::Unusable(why), _) => {
            tracing::info!(why, "KVM does not serve; guests run under TCG");
            Ok(Accel::Tcg)
        }
    }
}

/// Resolves a program as a shell does: a name with a slash is a path, another is looked up.
fn in_path(program: &Path) -> Option<PathBuf> {
    if program.components().count() > 1 {
        return is_program(program).then(|| program.to_owned());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|candidate| is_program(candidate))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

async fn release(qemu: &Path) -> Result<Version, HostError> {
    let output = Command::new(qemu)
        .arg("--version")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let not_qemu = |said: String| HostError::NotQemu {
        qemu: qemu.to_owned(),
        said,
    };
    let Ok(output) = timeout(VERSION_DEADLINE, output).await else {
        return Err(not_qemu(format!("nothing in {VERSION_DEADLINE:?}")));
    };
    let output = output.map_err(|source| HostError::CannotRun {
        qemu: qemu.to_owned(),
        source,
    })?;
    let said = String::from_utf8_lossy(&output.stdout);
    let first = said.lines().next().unwrap_or_default();
    parse_release(first).ok_or_else(|| not_qemu(format!("{first} ({})", output.status)))
}

/// The release in the first line of `qemu --version`, as in `QEMU emulator version 7.2.22 (Debian …)`.
fn parse_release(line: &str) -> Option<Version> {
    let rest = line.strip_prefix("QEMU emulator version ")?;
    let number = rest.split([' ', '-', '(']).next()?;
    let mut parts = number.split('.').map(str::parse::<u32>);
    let mut part = || parts.next()?.ok();
    Some(Version {
        major: part()?,
        minor: part()?,
        micro: part()?,
    })
}

/// Memory that can be had now without swapping, in MiB.
pub fn available_mib() -> Result<u32, HostError> {
    let text = std::fs::read_to_string("/proc/meminfo")
        .map_err(|error| HostError::NoMemory(error.to_string()))?;
    parse_available(&text).ok_or_else(|| HostError::NoMemory("no such line".into()))
}

fn parse_available(meminfo: &str) -> Option<u32> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    u32::try_from(kib / 1024).ok()
}
