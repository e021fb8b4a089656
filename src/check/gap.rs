//! How long did acks stay away, on the host's clock?

use std::time::Duration;

use super::verdict::Status;
use crate::history::acks::AckLog;

/// The longest time between two durable writes in a window, bracketed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Gap {
    /// Not shorter.
    pub(super) low: u64,
    /// Not longer.
    pub(super) high: u64,
    /// Between the arrivals of two ack frames.
    pub(super) heard: u64,
}

/// The longest gap between neighbours among ack frames, by index ascending, that touches the window
/// `from..=to`. `None` if no frame lies before its end or none after.
pub(super) fn longest(acks: &AckLog, frames: &[usize], from: u64, to: u64) -> Option<Gap> {
    let mut longest: Option<Gap> = None;
    let mut closed = false;
    for pair in frames.windows(2) {
        let [before, after] = *pair else { continue };
        let (before, after) = (acks.bracket(before)?, acks.bracket(after)?);
        if after.high < from || before.high > to {
            continue;
        }
        closed |= after.high >= to;
        let gap = longest.get_or_insert_default();
        gap.low = gap.low.max(after.low.saturating_sub(before.high));
        gap.high = gap.high.max(after.high.saturating_sub(before.low));
        gap.heard = gap.heard.max(after.high.saturating_sub(before.high));
    }
    longest.filter(|_| closed)
}

/// Where a bracketed time lies against what is allowed; without an objective it passes.
pub(super) fn against(low: u64, high: u64, allowed: Option<Duration>) -> Status {
    let allowed = allowed.map_or(u64::MAX, |allowed| {
        u64::try_from(allowed.as_nanos()).unwrap_or(u64::MAX)
    });
    if low > allowed {
        Status::Fail
    } else if high > allowed {
        Status::Inconclusive
    } else {
        Status::Pass
    }
}
