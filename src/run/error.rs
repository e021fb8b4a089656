//! Why a run could not be done or kept, by what the exit code says of it.

/// A run that did not come to verdicts.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The plan, a template, a key or a path is wrong: nothing was done.
    #[error("{0:#}")]
    Usage(anyhow::Error),
    /// A site, kind, class or right is missing: nothing was done.
    #[error("preflight not met:\n{0}")]
    Preflight(String),
    /// The evidence cannot be kept or read.
    #[error("{0:#}")]
    Evidence(anyhow::Error),
}

impl RunError {
    /// Wraps something that is wrong with what the user gave.
    pub fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self::Usage(error.into())
    }

    /// Wraps something that is wrong with the run directory.
    pub fn evidence(error: impl Into<anyhow::Error>) -> Self {
        Self::Evidence(error.into())
    }
}
