//! Waiting under the caller's deadline.

use std::fmt::Display;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::error::GuestError;

/// A point in time and a cancellation token.
#[derive(Debug, Clone)]
pub struct Deadline {
    at: Instant,
    cancel: CancellationToken,
}

impl Deadline {
    /// A deadline `limit` from now that ends early when `cancel` fires.
    pub fn after(limit: Duration, cancel: &CancellationToken) -> Self {
        Self {
            at: Instant::now() + limit,
            cancel: cancel.clone(),
        }
    }

    /// A deadline for a part of this one: `limit` from now, but never later than its parent.
    #[must_use]
    pub fn within(&self, limit: Duration) -> Self {
        Self {
            at: self.at.min(Instant::now() + limit),
            cancel: self.cancel.clone(),
        }
    }

    /// Time left, zero when it has passed.
    pub fn remaining(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// Whether it has passed or was cancelled.
    pub fn is_over(&self) -> bool {
        self.cancel.is_cancelled() || self.remaining().is_zero()
    }

    /// The token behind it.
    pub const fn cancel(&self) -> &CancellationToken {
        &self.cancel
    }
}

/// Awaits `work` under `deadline`; the error says what was awaited and what was seen last.
pub(crate) async fn within<T>(
    deadline: &Deadline,
    waiting_for: impl Display,
    last_seen: impl FnOnce() -> String,
    work: impl Future<Output = Result<T, GuestError>>,
) -> Result<T, GuestError> {
    tokio::select! {
        biased;
        done = timeout(deadline.remaining(), work) => done.unwrap_or_else(|_elapsed| {
            Err(GuestError::Timeout {
                waiting_for: waiting_for.to_string(),
                last_seen: last_seen(),
            })
        }),
        () = deadline.cancel().cancelled() => Err(GuestError::Cancelled {
            waiting_for: waiting_for.to_string(),
        }),
    }
}
