//! Waiting until the guest is there: ARP requests until any frame of the guest comes.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::neighbour::Neighbour;

/// Pause between two questions. A guest is noticed so late at most after its network came up.
const PACE: Duration = Duration::from_millis(200);

/// What waiting came to nothing with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unanswered {
    pub(crate) waited: Duration,
    pub(crate) asked: u64,
    pub(crate) heard: Option<Duration>,
}

/// Somebody who waits for the guest.
pub(crate) struct Waiter {
    pub(crate) since: Instant,
    pub(crate) deadline: Instant,
    pub(crate) reply: oneshot::Sender<Result<(), Unanswered>>,
}

/// Everybody who waits for the guest.
#[derive(Default)]
pub(super) struct Waiters {
    waiters: Vec<(Waiter, u64)>,
    due: Option<Instant>,
}

impl Waiters {
    /// Lets one more wait.
    pub(super) fn add(&mut self, waiter: Waiter, now: Instant) {
        self.waiters.push((waiter, 0));
        self.due = Some(now);
    }

    /// When [`Waiters::ask`] has to be called.
    pub(super) fn due(&self) -> Option<Instant> {
        let deadlines = self.waiters.iter().map(|(waiter, _)| waiter.deadline);
        self.due.into_iter().chain(deadlines).min()
    }

    /// Answers those who waited long enough. Whether a question has to go out.
    pub(super) fn ask(&mut self, neighbour: &Neighbour, now: Instant) -> bool {
        let done = |(waiter, _): &mut (Waiter, u64)| {
            neighbour.heard_since(waiter.since)
                || waiter.deadline <= now
                || waiter.reply.is_closed()
        };
        for (waiter, asked) in self.waiters.extract_if(.., done) {
            let unanswered = Unanswered {
                waited: now.duration_since(waiter.since),
                asked,
                heard: neighbour.heard().map(|heard| now.duration_since(heard)),
            };
            let heard = neighbour.heard_since(waiter.since);
            // Whoever went away needs no answer.
            waiter
                .reply
                .send(if heard { Ok(()) } else { Err(unanswered) })
                .ok();
        }
        if self.waiters.is_empty() {
            self.due = None;
        }
        let asks = self.due.is_some_and(|due| due <= now);
        if asks {
            self.due = Some(now + PACE);
            for (_, asked) in &mut self.waiters {
                *asked += 1;
            }
        }
        asks
    }
}
