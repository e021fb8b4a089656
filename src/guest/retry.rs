//! Connecting again until the guest answers. Only the establishment of a connection is repeated:
//! nothing has run in the guest by then.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

use super::error::{GuestError, Remedy};
use super::limit::within;
use super::route::Route;
use super::shell::{Login, OnMilestone, Shell};
use crate::cluster::Deadline;

/// How long to wait between attempts and for one attempt, and how to take a refused key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patience {
    /// The first wait between attempts.
    pub first: Duration,
    /// The longest wait between attempts.
    pub longest: Duration,
    /// One attempt is given up after this long, so that a stream that leads nowhere does not use up
    /// the whole deadline.
    pub attempt: Duration,
    /// Whether a refused key is worth another try: cloud-init may install it after sshd is up.
    pub booting: bool,
}

impl Patience {
    /// For a guest that is coming up: short waits, because the time to its first answer is
    /// measured.
    pub const fn booting() -> Self {
        Self {
            first: Duration::from_millis(50),
            longest: Duration::from_millis(500),
            attempt: Duration::from_secs(20),
            booting: true,
        }
    }

    /// For a guest that answered before.
    pub const fn running() -> Self {
        Self {
            booting: false,
            ..Self::booting()
        }
    }

    /// The waits, growing, with jitter, without end.
    pub(crate) fn waits(&self) -> impl Iterator<Item = Duration> + Send + use<> {
        ExponentialBuilder::default()
            .with_min_delay(self.first)
            .with_max_delay(self.longest)
            .with_factor(2.0)
            .with_jitter()
            .without_max_times()
            .build()
    }
}

/// Connects, and connects again while the cause of the failure is of the kind that passes.
pub async fn connect(
    route: &Route,
    login: &Login,
    patience: &Patience,
    deadline: &Deadline,
    on: Option<OnMilestone>,
) -> Result<Shell, GuestError> {
    let mut waits = patience.waits();
    loop {
        let attempt = deadline.within(patience.attempt);
        let error = match Shell::connect(route, login, &attempt, on.clone()).await {
            Ok(shell) => return Ok(shell),
            Err(error) => error,
        };
        let again = match error.remedy() {
            Remedy::Again => true,
            Remedy::WhileBooting => patience.booting,
            // The attempt's own limit, not the caller's deadline.
            Remedy::Stop => matches!(error, GuestError::Timeout { .. }) && !deadline.is_over(),
        };
        if !again {
            return Err(error);
        }
        tracing::debug!(%route, %error, "no shell yet");
        let wait = waits.next().unwrap_or(patience.longest);
        pause(deadline, route, &error, wait).await?;
    }
}

/// The wait between two attempts: pacing, ended early by the deadline.
#[expect(
    clippy::disallowed_methods,
    reason = "the pace of connection attempts; the condition awaited is the next attempt's success"
)]
async fn pause(
    deadline: &Deadline,
    route: &Route,
    error: &GuestError,
    wait: Duration,
) -> Result<(), GuestError> {
    let last_seen = || error.to_string();
    let pace = async {
        tokio::time::sleep(wait).await;
        Ok(())
    };
    within(deadline, format!("a shell on {route}"), last_seen, pace).await
}
