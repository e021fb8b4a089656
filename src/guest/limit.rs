//! Waiting under the caller's deadline.

use std::fmt::Display;

use tokio::time::timeout;

use super::error::GuestError;
use crate::cluster::Deadline;

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
