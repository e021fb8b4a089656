//! The loop under every controller: keys come from watches and timers, each key is reconciled by
//! one task at a time, failures come back after a growing delay. As controller-runtime does it,
//! with time from the lab's clock.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{BoxStream, FuturesUnordered, SelectAll, Stream, StreamExt};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;

use crate::lab::api::{Change, ChangeKind, meta};
use crate::lab::clock::LabClock;

/// Namespace (empty for objects of the cluster) and name.
pub(in crate::lab) type Key = (String, String);

/// What a reconcile asks for, in lab time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::lab) enum After {
    /// Nothing more until something changes.
    Done,
    /// Look again after a time.
    Requeue(Duration),
    /// It failed: look again after a delay that doubles with each failure in a row.
    Retry,
}

const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(1000);

/// The key of an object.
pub(in crate::lab) fn key(object: &serde_json::Value) -> Key {
    (
        meta::namespace(object).to_owned(),
        meta::name(object).to_owned(),
    )
}

/// The key of an object that is new or whose spec changed: what wakes the csi-addons controllers.
pub(in crate::lab) fn new_generation(change: &Change) -> Vec<Key> {
    let before = change.previous.as_ref().map(|p| meta::generation(p));
    let changed = before != Some(meta::generation(&change.object));
    let wakes = change.kind != ChangeKind::Deleted && changed;
    wakes.then(|| key(&change.object)).into_iter().collect()
}

/// Where keys come from: watches, each with a map from a change to the keys that it concerns.
pub(in crate::lab) struct Sources {
    streams: SelectAll<BoxStream<'static, Vec<Key>>>,
}

impl Sources {
    /// No sources.
    pub(in crate::lab) fn new() -> Self {
        Self {
            streams: SelectAll::new(),
        }
    }

    /// Adds a watch.
    pub(in crate::lab) fn watch(
        mut self,
        mut changes: UnboundedReceiver<Change>,
        map: impl Fn(&Change) -> Vec<Key> + Send + 'static,
    ) -> Self {
        let stream = futures::stream::poll_fn(move |cx| match changes.poll_recv(cx) {
            Poll::Ready(change) => Poll::Ready(change.map(|c| map(&c))),
            Poll::Pending => Poll::Pending,
        });
        self.streams.push(stream.boxed());
        self
    }
}

/// A timer or a finished reconcile.
enum Tick {
    Due(Key, u64),
    Finished(Key, After),
}

struct Loop<R> {
    clock: LabClock,
    reconcile: R,
    work: FuturesUnordered<BoxFuture<'static, Tick>>,
    active: BTreeSet<Key>,
    again: BTreeSet<Key>,
    timers: BTreeMap<Key, u64>,
    failures: BTreeMap<Key, u32>,
    next: u64,
}

/// Reconciles until stopped. A reconcile that is under way when the stop comes is dropped.
pub(in crate::lab) async fn drive<R, F>(
    mut sources: Sources,
    clock: LabClock,
    stop: CancellationToken,
    reconcile: R,
) where
    R: Fn(Key) -> F + Send,
    F: Future<Output = After> + Send + 'static,
{
    let mut state = Loop {
        clock,
        reconcile,
        work: FuturesUnordered::new(),
        active: BTreeSet::new(),
        again: BTreeSet::new(),
        timers: BTreeMap::new(),
        failures: BTreeMap::new(),
        next: 0,
    };
    // An entry that is always pending keeps the set from ending the select when it is empty.
    state.work.push(Box::pin(std::future::pending()));
    loop {
        let work = Pin::new(&mut state.work);
        tokio::select! {
            () = stop.cancelled() => return,
            keys = sources.streams.next() => match keys {
                Some(keys) => keys.into_iter().for_each(|key| state.enqueue(key)),
                None => return,
            },
            tick = next(work) => match tick {
                Tick::Due(key, timer) => {
                    if state.timers.get(&key) == Some(&timer) {
                        state.timers.remove(&key);
                        state.enqueue(key);
                    }
                }
                Tick::Finished(key, after) => state.finished(key, after),
            },
        }
    }
}

async fn next<S: Stream<Item = Tick> + Unpin>(mut work: S) -> Tick {
    match work.next().await {
        Some(tick) => tick,
        None => std::future::pending().await,
    }
}

impl<R, F> Loop<R>
where
    R: Fn(Key) -> F,
    F: Future<Output = After> + Send + 'static,
{
    fn enqueue(&mut self, key: Key) {
        if !self.active.insert(key.clone()) {
            self.again.insert(key);
            return;
        }
        let done = (self.reconcile)(key.clone());
        self.work
            .push(Box::pin(async move { Tick::Finished(key, done.await) }));
    }

    fn finished(&mut self, key: Key, after: After) {
        self.active.remove(&key);
        let wait = match after {
            After::Done => None,
            After::Requeue(wait) => Some(wait),
            After::Retry => {
                let failures = self.failures.entry(key.clone()).or_default();
                let wait = FIRST_RETRY.saturating_mul(1 << (*failures).min(20));
                *failures += 1;
                Some(wait.min(LAST_RETRY))
            }
        };
        if after != After::Retry {
            self.failures.remove(&key);
        }
        self.timers.remove(&key);
        if self.again.remove(&key) {
            self.enqueue(key);
        } else if let Some(wait) = wait {
            self.next += 1;
            let (timer, clock) = (self.next, self.clock);
            self.timers.insert(key.clone(), timer);
            self.work.push(Box::pin(async move {
                clock.pass(wait).await;
                Tick::Due(key, timer)
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::sync::mpsc::unbounded_channel;

    use super::*;
    use crate::lab::api::Store;

    #[tokio::test(start_paused = true)]
    async fn a_failing_key_comes_back_ever_later_and_a_change_comes_at_once() {
        let store = Store::new(1);
        let (seen, mut runs) = unbounded_channel();
        let stop = CancellationToken::new();
        let sources = Sources::new().watch(store.watch("configmaps"), |c| {
            let mine = meta::name(&c.object) == "a";
            mine.then(|| key(&c.object)).into_iter().collect()
        });
        let answers = Arc::new(Mutex::new(vec![
            After::Done,
            After::Requeue(Duration::from_secs(30)),
            After::Retry,
            After::Retry,
        ]));
        let driven = tokio::spawn(drive(
            sources,
            LabClock::new(1.0),
            stop.clone(),
            move |key| {
                let (seen, answers) = (seen.clone(), Arc::clone(&answers));
                async move {
                    seen.send((tokio::time::Instant::now(), key)).unwrap();
                    answers.lock().unwrap().pop().unwrap_or(After::Done)
                }
            },
        ));
        let object = serde_json::json!({"metadata": {"name": "a", "namespace": "default"}});
        store.create("configmaps", object).unwrap();
        let mut times = Vec::new();
        for _ in 0..4 {
            let (at, key) = runs.recv().await.unwrap();
            assert_eq!(key, ("default".to_owned(), "a".to_owned()));
            times.push(at);
        }
        let waits: Vec<Duration> = times.windows(2).map(|w| w[1] - w[0]).collect();
        assert!(waits[0] >= FIRST_RETRY && waits[1] >= FIRST_RETRY * 2);
        assert!(waits[2] >= Duration::from_secs(30));
        let before = tokio::time::Instant::now();
        store
            .modify(
                "configmaps",
                "default",
                "a",
                crate::lab::api::Part::Object,
                |o| {
                    o["data"] = serde_json::json!({"k": "v"});
                },
            )
            .unwrap();
        let (at, _) = runs.recv().await.unwrap();
        assert!(at - before < Duration::from_millis(1));
        stop.cancel();
        driven.await.unwrap();
    }
}
