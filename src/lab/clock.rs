//! The lab's time. Schedules that take minutes on a real system (mirror snapshots, controller
//! requeues, grace periods) run `scale` times faster; timestamps stay true wall-clock time.

use std::time::Duration;

use jiff::SignedDuration;

use super::faults::{Board, Fault};
use crate::history::event::Site;

/// By how much the clock of a site's control plane is off (fault `cluster-clock-skew`): ahead on the
/// primary, as much behind on the secondary.
pub fn skew(board: &Board, site: Site) -> SignedDuration {
    let seconds = board.param(Fault::ClusterClockSkew, "seconds").unwrap_or(0);
    SignedDuration::from_secs(match site {
        Site::Primary => seconds,
        Site::Secondary => -seconds,
    })
}

/// How much faster than real the lab's schedules run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LabClock {
    scale: f64,
}

impl LabClock {
    /// A clock whose schedules run `scale` times faster than real; 1.0 is real time.
    pub const fn new(scale: f64) -> Self {
        Self { scale }
    }

    /// How long a wait of `real` takes in the lab.
    pub fn wait(&self, real: Duration) -> Duration {
        real.div_f64(self.scale.max(f64::MIN_POSITIVE))
    }

    /// How much lab time passes while `elapsed` passes on the wall.
    pub fn lab(&self, elapsed: Duration) -> Duration {
        elapsed.mul_f64(self.scale.max(f64::MIN_POSITIVE))
    }

    /// Holds a thread for the time of an access to storage. Guests write in true time, so this is not
    /// scaled.
    #[expect(
        clippy::disallowed_methods,
        reason = "simulated storage takes its time here and nowhere else"
    )]
    pub fn access(&self, takes: Duration) {
        std::thread::sleep(takes);
    }

    /// Waits for `real` as the lab counts it. It *is* the passing of
    /// simulated time, never a stand-in for a condition.
    #[expect(
        clippy::disallowed_methods,
        reason = "simulated time passes here and nowhere else"
    )]
    pub async fn pass(&self, real: Duration) {
        tokio::time::sleep(self.wait(real)).await;
    }

    /// Waits for a time that a client asked for and measures by its own clock, such as the timer of a
    /// freeze: guests and clients live in true time, so this is not scaled.
    #[expect(
        clippy::disallowed_methods,
        reason = "a timer that a client set runs out here and nowhere else"
    )]
    pub async fn keep(&self, asked: Duration) {
        tokio::time::sleep(asked).await;
    }
}
