//! Exit codes. They are part of the interface (`README.md`) and stand here only.

use crate::check::verdict::Status;

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Exit {
    /// Every verdict is a pass, and cleanup left nothing.
    Pass = 0,
    /// A check failed.
    Failed = 1,
    /// Usage, plan or template error: nothing was done.
    Usage = 2,
    /// Preflight not met: a site, kind, class or right is missing; nothing was done.
    Preflight = 3,
    /// Inconclusive, or nothing ran.
    Inconclusive = 4,
    /// Everything passed, but cleanup is incomplete.
    Residue = 5,
    /// Interrupted; the report was still written.
    Interrupted = 130,
}

impl Exit {
    /// The exit code for a judged run. `None` stands for a run without a single verdict.
    pub const fn from_status(worst: Option<Status>) -> Self {
        match worst {
            Some(Status::Pass) => Self::Pass,
            Some(Status::Fail) => Self::Failed,
            Some(Status::Inconclusive) | None => Self::Inconclusive,
        }
    }

    /// What it means, for `--help` and docs.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Pass => "every check passed",
            Self::Failed => "a check failed",
            Self::Usage => "usage, plan or template error; nothing was done",
            Self::Preflight => "preflight not met; nothing was done",
            Self::Inconclusive => "inconclusive, or nothing ran",
            Self::Residue => "passed, but cleanup is incomplete",
            Self::Interrupted => "interrupted; the report is still written",
        }
    }

    /// All of them, in numeric order.
    pub const ALL: [Self; 7] = [
        Self::Pass,
        Self::Failed,
        Self::Usage,
        Self::Preflight,
        Self::Inconclusive,
        Self::Residue,
        Self::Interrupted,
    ];
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
