//! How long something may take, and whether someone asked to stop. Passed down, never re-invented:
//! a child never outlives its parent.

use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::{Error, Timeout};

/// A look that takes longer than this when a wait gives up counts as not answered: a server that is
/// well answers far sooner, and one that throttles us asks for a second at least.
const UNANSWERED: Duration = Duration::from_secs(1);

/// What a wait has seen so far, for the error when it gives up.
#[derive(Debug)]
pub(super) struct LastSeen(Mutex<Sight>);

#[derive(Debug)]
struct Sight {
    state: String,
    error: Option<String>,
    /// Whether any look was answered with a state.
    seen: bool,
    /// Since when a look is under way.
    asked: Option<Instant>,
}

impl LastSeen {
    /// Nothing but this.
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(Mutex::new(Sight {
            state: text.into(),
            error: None,
            seen: false,
            asked: None,
        }))
    }

    /// A look is under way; what it finds is told by one of the next two.
    pub(super) fn asks(&self) {
        self.lock().asked = Some(Instant::now());
    }

    /// A state was seen, so nothing is wrong at the moment.
    pub(super) fn saw(&self, state: String) {
        *self.lock() = Sight {
            state,
            error: None,
            seen: true,
            asked: None,
        };
    }

    /// Looking failed.
    pub(super) fn failed(&self, error: String) {
        let mut sight = self.lock();
        sight.error = Some(error);
        sight.asked = None;
    }

    /// The last state, and the error since: of the last look, or that there was none.
    pub(super) fn get(&self) -> (String, Option<String>) {
        let sight = self.lock();
        let silent = sight.asked.map(|at| at.elapsed());
        let unanswered = silent
            .filter(|silent| *silent > UNANSWERED)
            .map(|silent| format!("the last look was not answered for {silent:.0?}"));
        let blind = (!sight.seen).then(|| "no look was answered".to_owned());
        let error = sight.error.clone().or(blind);
        (sight.state.clone(), unanswered.or(error))
    }

    fn lock(&self) -> MutexGuard<'_, Sight> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A point in time and a cancellation token.
#[derive(Debug, Clone)]
pub struct Deadline {
    started: Instant,
    at: Instant,
    cancel: CancellationToken,
}

impl Deadline {
    /// A deadline `limit` from now that ends early when `cancel` fires.
    pub fn after(limit: Duration, cancel: &CancellationToken) -> Self {
        let started = Instant::now();
        Self {
            started,
            at: started + limit,
            cancel: cancel.clone(),
        }
    }

    /// A deadline for a part of this one: `limit` from now, but never later than its parent.
    #[must_use]
    pub fn within(&self, limit: Duration) -> Self {
        let started = Instant::now();
        Self {
            started,
            at: self.at.min(started + limit),
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

    /// Runs `work` under this deadline. `last_seen` is asked only when it gives up.
    pub async fn bound<T>(
        &self,
        waiting_for: &str,
        last_seen: impl FnOnce() -> (String, Option<String>),
        work: impl Future<Output = T>,
    ) -> Result<T, Error> {
        tokio::select! {
            biased;
            done = work => Ok(done),
            () = self.cancel.cancelled() => Err(Error::Cancelled {
                waiting_for: waiting_for.to_owned(),
                last_seen: last_seen().0,
            }),
            () = tokio::time::sleep_until(self.at) => {
                let (last_seen, last_error) = last_seen();
                Err(Timeout {
                    waiting_for: waiting_for.to_owned(),
                    last_seen,
                    last_error,
                    waited: self.started.elapsed(),
                }
                .into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_child_never_outlives_its_parent() {
        let parent = Deadline::after(Duration::from_secs(5), &CancellationToken::new());
        let child = parent.within(Duration::from_mins(1));
        let begin = Instant::now();
        let error = child
            .bound(
                "never",
                || ("nothing".into(), None),
                std::future::pending::<()>(),
            )
            .await
            .expect_err("a future that never ends cannot be done");
        assert_eq!(begin.elapsed().as_secs(), 5);
        let Error::Timeout(timeout) = error else {
            panic!("{error}")
        };
        assert_eq!(timeout.waiting_for, "never");
        assert_eq!(timeout.last_seen, "nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_is_not_a_timeout() {
        let token = CancellationToken::new();
        let deadline = Deadline::after(Duration::from_secs(5), &token);
        token.cancel();
        let error = deadline
            .bound("it", || ("x".into(), None), std::future::pending::<()>())
            .await
            .expect_err("cancelled");
        assert!(error.is_cancelled(), "{error}");
    }
}
