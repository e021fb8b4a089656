//! What an echo viewpoint saw of the guest: how often it answered and how long it did not.
//!
//! Contract: pure bookkeeping over instants, with bounded memory. A silence is the time in which the
//! guest owed an answer, so a pause of the observer, who asks nothing meanwhile, is none.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// How many unanswered requests are remembered one by one, more than eight seconds of them at 2 ms.
/// Later ones still count; the silence begins with the oldest anyway.
const OWED: usize = 4096;
/// How many of the longest silences are kept.
const KEPT: usize = 16;

/// One request that was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// When the request left.
    pub asked: Instant,
    /// When its answer came.
    pub arrived: Instant,
}

/// A time in which requests were not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Silence {
    /// The last answer before, if there was one: the guest was there after `asked`.
    pub before: Option<Answer>,
    /// When the oldest unanswered request left: from here on the guest owed an answer.
    pub since: Instant,
    /// The first answer after, or none if the silence lasted until the monitor stopped.
    pub after: Option<Answer>,
    /// When it ended: the arrival of `after`, or the stop of the monitor.
    pub until: Instant,
}

impl Silence {
    /// How long the guest owed an answer.
    pub fn length(&self) -> Duration {
        self.until.duration_since(self.since)
    }

    /// The longest that the guest can have been away: from the last answered request to the first
    /// answer, or to the stop of the monitor.
    pub fn at_most(&self) -> Duration {
        let from = self.before.map_or(self.since, |before| before.asked);
        self.until.duration_since(from)
    }
}

/// What an echo monitor saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EchoReport {
    /// Requests made, those included that found no room or no station to go to.
    pub sent: u64,
    /// Requests answered, each counted once. An answer that was overtaken by a later one is not.
    pub answered: u64,
    /// The longest silences, longest first, at most 16. The time that an answer ordinarily takes is
    /// a silence too.
    pub silences: Vec<Silence>,
    /// By how much a request left late at most. Silences up to this length can be the observer's.
    pub lag: Duration,
}

impl EchoReport {
    /// The longest silence, if anything was ever asked.
    pub fn longest(&self) -> Option<Silence> {
        self.silences.first().copied()
    }
}

/// The bookkeeping of one monitor.
#[derive(Debug, Default)]
pub(super) struct Record {
    sent: u64,
    answered: u64,
    /// Number of the newest request that was answered; requests count from 1.
    newest: u64,
    last: Option<Answer>,
    owed: VecDeque<(u64, Instant)>,
    silences: Vec<Silence>,
    lag: Duration,
}

impl Record {
    /// A request leaves, which was due at `due`. Its number.
    pub(super) fn ask(&mut self, due: Instant, now: Instant) -> u64 {
        self.sent += 1;
        self.lag = self.lag.max(now.saturating_duration_since(due));
        if self.owed.len() < OWED {
            self.owed.push_back((self.sent, now));
        }
        self.sent
    }

    /// The answer to request `number`, which left at `asked`, came in. What was never asked, or is
    /// answered already, counts for nothing.
    pub(super) fn answer(&mut self, number: u64, asked: Instant, now: Instant) {
        if number <= self.newest || number > self.sent {
            return;
        }
        let answer = Answer {
            asked,
            arrived: now,
        };
        if let Some((_, since)) = self.owed.front().copied() {
            self.keep(since, Some(answer), now);
        }
        while self.owed.front().is_some_and(|(owed, _)| *owed <= number) {
            self.owed.pop_front();
        }
        self.newest = number;
        self.answered += 1;
        self.last = Some(answer);
    }

    /// Everything seen until now.
    pub(super) fn report(mut self, now: Instant) -> EchoReport {
        if let Some((_, since)) = self.owed.front().copied() {
            self.keep(since, None, now);
        }
        EchoReport {
            sent: self.sent,
            answered: self.answered,
            silences: self.silences,
            lag: self.lag,
        }
    }

    fn keep(&mut self, since: Instant, after: Option<Answer>, until: Instant) {
        let silence = Silence {
            before: self.last,
            since,
            after,
            until,
        };
        let longer = |kept: &Silence| kept.length() >= silence.length();
        let at = self.silences.partition_point(longer);
        if at < KEPT {
            self.silences.insert(at, silence);
            self.silences.truncate(KEPT);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EVERY: Duration = Duration::from_millis(2);

    proptest! {
        /// Requests every 2 ms, some lost, the others answered at once: the longest silence is the
        /// longest run of lost ones.
        #[test]
        fn the_longest_run_of_lost_requests_is_the_longest_silence(
            lost in prop::collection::vec(any::<bool>(), 1..300),
        ) {
            let start = Instant::now();
            let mut record = Record::default();
            let mut now = start;
            for lost in &lost {
                let number = record.ask(now, now);
                if !lost { record.answer(number, now, now); }
                now += EVERY;
            }
            let runs = lost.split(|lost| !lost).map(<[bool]>::len);
            let longest = u32::try_from(runs.max().unwrap()).unwrap();
            let sent = lost.len() as u64;
            let report = record.report(now);
            prop_assert_eq!(report.sent, sent);
            prop_assert_eq!(report.answered, lost.iter().filter(|lost| !**lost).count() as u64);
            let found = report.longest().unwrap();
            prop_assert_eq!(found.length(), EVERY * longest);
            prop_assert!(found.before.is_none_or(|before| before.asked < found.since));
            prop_assert!(found.at_most() >= found.length());
            prop_assert!(report.silences.is_sorted_by(|a, b| a.length() >= b.length()));
            prop_assert!(report.silences.len() <= KEPT);
        }

        #[test]
        fn answers_to_nothing_count_for_nothing(answers in prop::collection::vec(0_u64..12, 0..40)) {
            let start = Instant::now();
            let mut record = Record::default();
            for _ in 0..8 { record.ask(start, start); }
            let mut expected = 0;
            let mut newest = 0;
            for number in answers {
                if number > newest && number <= 8 { (newest, expected) = (number, expected + 1); }
                record.answer(number, start, start);
            }
            prop_assert_eq!(record.report(start).answered, expected);
        }
    }

    #[test]
    fn a_pause_of_the_observer_is_lag_and_no_silence() {
        let start = Instant::now();
        let mut record = Record::default();
        let first = record.ask(start, start);
        record.answer(first, start, start);
        let late = start + Duration::from_secs(1);
        let second = record.ask(start + EVERY, late);
        record.answer(second, late, late + EVERY);
        let report = record.report(late + EVERY);
        assert_eq!(report.longest().unwrap().length(), EVERY);
        assert_eq!(report.lag, Duration::from_millis(998));
    }

    #[test]
    fn a_long_silence_is_whole_though_its_requests_are_not_all_kept() {
        let start = Instant::now();
        let mut record = Record::default();
        let mut now = start;
        for _ in 0..2 * OWED {
            record.ask(now, now);
            now += EVERY;
        }
        let number = record.ask(now, now);
        record.answer(number, now, now);
        let longest = record.report(now).longest().unwrap();
        assert_eq!((longest.since, longest.until), (start, now));
    }
}
