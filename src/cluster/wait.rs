//! Waiting: the one place where time passes. Work is repeated when something changes, or after a
//! growing delay when it failed, until it is done, the deadline passes or someone cancels.

use std::future::Future;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use tokio::sync::watch;

use super::deadline::{Deadline, LastSeen};
use super::error::Error;
use super::view::Seen;

/// Delays between failures, growing from 100 ms to 2 s with jitter.
#[derive(Debug)]
pub struct Pace {
    delays: ExponentialBackoff,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            delays: builder().build(),
        }
    }
}

pub(super) fn builder() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(2))
        .with_jitter()
        .without_max_times()
}

impl Pace {
    /// Waits for the next delay.
    pub async fn wait(&mut self) {
        if let Some(delay) = self.delays.next() {
            pause(delay).await;
        }
    }

    /// Starts again with the shortest delay.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

/// Lets time pass between attempts.
#[expect(
    clippy::disallowed_methods,
    reason = "the one pause between failed attempts; everything else waits for a change"
)]
pub(super) async fn pause(delay: Duration) {
    tokio::time::sleep(delay).await;
}

/// What makes a repeated step worth repeating.
#[derive(Debug, Default)]
pub struct Wake {
    changes: Vec<watch::Receiver<u64>>,
}

impl Wake {
    /// Nothing announces a change: the step is repeated at a growing delay. For conditions outside
    /// any API server, such as a port that does not answer yet.
    pub fn paced() -> Self {
        Self::default()
    }

    /// Changes of one more view count.
    #[must_use]
    pub fn and(mut self, changes: watch::Receiver<u64>) -> Self {
        self.changes.push(changes);
        self
    }

    fn mark_seen(&mut self) {
        for change in &mut self.changes {
            change.mark_unchanged();
        }
    }

    /// Returns at the next change; never, when there is nothing to listen to.
    async fn changed(&mut self) {
        if self.changes.is_empty() {
            return std::future::pending().await;
        }
        let mut waits: Vec<_> = self
            .changes
            .iter_mut()
            .map(|c| Box::pin(c.changed()))
            .collect();
        loop {
            let (outcome, index, mut rest) = futures::future::select_all(waits).await;
            if outcome.is_ok() {
                return;
            }
            // The view behind it is gone; the others still count.
            if rest.is_empty() {
                return std::future::pending().await;
            }
            tracing::debug!(index, "a view ended while it was waited for");
            waits = std::mem::take(&mut rest);
        }
    }
}

/// Repeats `step` until it is met. Between attempts it waits for `wake`; after a transient error it
/// waits a growing delay instead. Any other error ends the wait at once.
pub async fn repeat<R, F, Fut>(
    deadline: &Deadline,
    waiting_for: &str,
    mut wake: Wake,
    mut step: F,
) -> Result<R, Error>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<Seen<R>, Error>>,
{
    let last = LastSeen::new("nothing yet");
    let work = async {
        let mut pace = Pace::default();
        loop {
            wake.mark_seen();
            last.asks();
            match step().await {
                Ok(Seen::Met(result)) => return Ok(result),
                Ok(Seen::Not(why)) => {
                    last.saw(why);
                    if wake.changes.is_empty() {
                        pace.wait().await;
                    } else {
                        pace.reset();
                        wake.changed().await;
                    }
                }
                Err(e) if e.is_transient() => {
                    last.failed(e.to_string());
                    pace.wait().await;
                }
                Err(e) => return Err(e),
            }
        }
    };
    deadline.bound(waiting_for, || last.get(), work).await?
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::cluster::error::Tried;
    use crate::history::event::Site;

    fn unreachable() -> Error {
        Error::Unreachable {
            tried: Tried {
                site: Site::Primary,
                what: "GET x".into(),
            },
            url: "u".into(),
            seen: "refused".into(),
        }
    }

    fn deadline(seconds: u64) -> Deadline {
        Deadline::after(Duration::from_secs(seconds), &CancellationToken::new())
    }

    #[tokio::test(start_paused = true)]
    async fn transient_errors_do_not_end_a_wait() {
        let calls = AtomicU32::new(0);
        let limit = deadline(60);
        let done = repeat(&limit, "it", Wake::paced(), || async {
            match calls.fetch_add(1, Ordering::Relaxed) {
                0..3 => Err(unreachable()),
                3 => Ok(Seen::Not("soon".into())),
                _ => Ok(Seen::Met(7)),
            }
        });
        assert_eq!(done.await.expect("met"), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn a_timeout_tells_the_last_state_and_the_last_error() {
        let calls = AtomicU32::new(0);
        let error = repeat::<(), _, _>(&deadline(5), "the moon", Wake::paced(), || async {
            if calls.fetch_add(1, Ordering::Relaxed) == 0 {
                Ok(Seen::Not("half".into()))
            } else {
                Err(unreachable())
            }
        })
        .await
        .expect_err("never met");
        let Error::Timeout(timeout) = error else {
            panic!("{error}")
        };
        assert_eq!(timeout.last_seen, "half");
        assert!(
            timeout
                .last_error
                .as_deref()
                .is_some_and(|e| e.contains("refused"))
        );
        assert!(calls.load(Ordering::Relaxed) < 60, "no busy loop");
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_that_is_never_answered_is_no_sight() {
        let calls = AtomicU32::new(0);
        let error = repeat::<(), _, _>(&deadline(30), "it", Wake::paced(), || async {
            if calls.fetch_add(1, Ordering::Relaxed) == 0 {
                return Ok(Seen::Not("half".into()));
            }
            std::future::pending().await
        })
        .await
        .expect_err("never met");
        assert!(error.is_blind(), "{error}");
        assert!(error.to_string().contains("half"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_state_that_was_seen_last_is_one() {
        let error = repeat::<(), _, _>(&deadline(30), "it", Wake::paced(), || async {
            Ok(Seen::Not("half".into()))
        })
        .await
        .expect_err("never met");
        assert!(!error.is_blind(), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_ends_a_wait_at_once() {
        let limit = deadline(60);
        let error = repeat::<(), _, _>(&limit, "it", Wake::paced(), || async {
            Err(Error::Forbidden {
                tried: Tried {
                    site: Site::Primary,
                    what: "GET x".into(),
                },
                message: "no".into(),
            })
        });
        assert!(matches!(error.await, Err(Error::Forbidden { .. })));
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_between_step_and_wait_is_not_lost() {
        let (sender, receiver) = watch::channel(0_u64);
        let calls = AtomicU32::new(0);
        let limit = deadline(60);
        let done = repeat(&limit, "it", Wake::paced().and(receiver), || async {
            // The change arrives while the step runs.
            sender.send_modify(|v| *v += 1);
            match calls.fetch_add(1, Ordering::Relaxed) {
                0 => Ok(Seen::Not("first".into())),
                n => Ok(Seen::Met(n)),
            }
        });
        assert_eq!(done.await.expect("met"), 1);
    }
}
