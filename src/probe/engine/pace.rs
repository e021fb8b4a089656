//! How fast the writers go together.

use std::time::{Duration, Instant};

/// How far behind its schedule the load may fall and still catch up.
const SLACK: Duration = Duration::from_millis(50);

/// Hands out the times at which writes are due.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    interval: Duration,
    next: Instant,
}

impl Pace {
    /// `rate` writes per second from `now` on; 0 is as fast as it goes.
    pub(super) fn new(rate: u32, now: Instant) -> Self {
        let interval = match rate {
            0 => Duration::ZERO,
            rate => Duration::from_secs(1) / rate,
        };
        Self {
            interval,
            next: now,
        }
    }

    /// Takes the next due time. After a stall longer than [`SLACK`] the missed ones are forgone.
    pub(super) fn take(&mut self, now: Instant) -> Instant {
        let due = self.next.max(now.checked_sub(SLACK).unwrap_or(now));
        self.next = due + self.interval;
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_writes_and_forgoes_what_a_stall_missed() {
        let start = Instant::now();
        let mut pace = Pace::new(100, start);
        let step = Duration::from_millis(10);
        assert_eq!(pace.take(start), start);
        assert_eq!(pace.take(start), start + step);
        let late = start + Duration::from_secs(5);
        let first = pace.take(late);
        assert_eq!(first + SLACK, late);
        assert_eq!(pace.take(late), first + step);
    }

    #[test]
    fn rate_zero_is_always_due() {
        let start = Instant::now();
        let mut pace = Pace::new(0, start);
        for _ in 0..3 {
            assert!(pace.take(start) <= start);
        }
    }
}
