//! Watches that are not believed for ever. A watch that stays open and says nothing looks like one
//! to which nothing happens (kubernetes#118525); bookmarks would tell them apart, but are not passed
//! on, and the client's own limit is minutes. So while somebody waits, a silent watch is replaced by
//! a fresh list and a new watch: soon at first, then less and less often.

use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use tokio::time::{Instant, timeout_at};

/// The silence after which a watch is first doubted.
const FIRST: Duration = Duration::from_secs(2);
/// The longest silence that is believed.
const LONGEST: Duration = Duration::from_secs(10);
/// How long a list may take before it is asked for again. One attempt of any other call is as long.
const LIST: Duration = Duration::from_secs(60);

/// A stream of watch events that is made anew when it was silent for too long.
pub(super) struct Lively<T, F> {
    make: F,
    stream: BoxStream<'static, T>,
    patience: Duration,
    since: Instant,
    listing: bool,
}

impl<T, F: FnMut() -> BoxStream<'static, T>> Lively<T, F> {
    /// A stream by `make`, which must begin with a list.
    pub(super) fn new(mut make: F) -> Self {
        Self {
            stream: make(),
            make,
            patience: FIRST,
            since: Instant::now(),
            listing: true,
        }
    }

    /// The next event; `None` when the stream is over. `wanted` says whether anybody waits.
    pub(super) async fn next(&mut self, wanted: impl Fn() -> bool) -> Option<T> {
        loop {
            let patience = if self.listing { LIST } else { self.patience };
            match timeout_at(self.since + patience, self.stream.next()).await {
                Ok(event) => {
                    self.since = Instant::now();
                    return event;
                }
                Err(_elapsed) if wanted() => {
                    self.stream = (self.make)();
                    self.listing = true;
                    self.patience = (self.patience * 2).min(LONGEST);
                }
                Err(_elapsed) => self.patience = FIRST,
            }
            self.since = Instant::now();
        }
    }

    /// Says that the list is complete; what comes now comes from the watch.
    pub(super) const fn listed(&mut self) {
        self.listing = false;
    }

    /// Says that a list begins, or must begin again.
    pub(super) const fn relisting(&mut self) {
        self.listing = true;
    }

    /// Says that there was news: by the watch, or by a list that the watch should have announced.
    pub(super) const fn news(&mut self) {
        self.patience = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_silent_stream_is_made_anew_only_while_it_is_wanted() {
        let begin = Instant::now();
        let mut made = Vec::new();
        let mut lively = Lively::new(|| {
            made.push(begin.elapsed().as_secs());
            let list = stream::iter([made.len()]);
            list.chain(stream::pending()).boxed()
        });
        for _ in 0..5 {
            assert!(lively.next(|| true).await.is_some());
            lively.listed();
        }
        // Nobody waits: the silence is believed, and doubted early again afterwards.
        let unwanted = tokio::time::timeout(Duration::from_secs(60), lively.next(|| false));
        assert!(unwanted.await.is_err());
        assert_eq!(lively.patience, FIRST);
        drop(lively);
        assert_eq!(made, [0, 2, 6, 14, 24]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_list_is_waited_for() {
        let mut made = 0;
        let mut lively = Lively::new(|| {
            made += 1;
            let slow = stream::once(tokio::time::sleep_until(
                Instant::now() + Duration::from_secs(30),
            ));
            slow.boxed()
        });
        assert!(lively.next(|| true).await.is_some());
        drop(lively);
        assert_eq!(made, 1);
    }
}
