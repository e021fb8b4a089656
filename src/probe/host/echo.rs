//! The guest's network as somebody outside sees it: a number every 2 ms over an SSH stream of its own,
//! and how long none came back. No disk, no probe and no ack is involved.
//!
//! Contract: every silence counts, whether the guest, its network or the way to it caused it. What
//! cannot be told from a stream that broke is kept apart: a silence that ended on the same stream is
//! the guest's, one that a new stream ended may be the tunnel's.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::deploy::Reach;
use super::error::ProbeError;
use super::link::{at, pause};
use super::progress::{LinkState, Progress};
use crate::cluster::Deadline;
use crate::guest::{Patience, Shell, Streams};
use crate::history::recorder::Recorder;
use crate::probe::echo::NUMBER;
use crate::probe::remote::Remote;

/// How often a number is sent: the resolution of the whole. Observers that work side by side send so
/// often together, but each …
const EVERY: Duration = Duration::from_millis(2);
/// … this often at least.
const SELDOM: Duration = Duration::from_millis(50);
/// After so long a silence another stream is tried beside the one that is silent.
const SUSPECT: Duration = Duration::from_millis(300);
/// One attempt at another stream is given up after this long. A guest whose instructions are emulated
/// takes seconds for a login, and one that is given up half-way costs it as much as one that is not.
const ATTEMPT: Duration = Duration::from_secs(20);
/// So many numbers may be on the way: a stream that is stuck gains nothing from more.
const ON_THE_WAY: u64 = 500;

/// What an observer saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Echoes {
    /// When it began, run-monotonic nanoseconds; an echo had come before.
    pub from_ns: u64,
    /// Time between two numbers, nanoseconds.
    pub interval_ns: u64,
    /// Numbers sent.
    pub sent: u64,
    /// Numbers that came back.
    pub answered: u64,
    /// The longest time without one coming back, nanoseconds.
    pub longest_ns: u64,
    /// The longest of those that ended on the stream on which they began.
    pub unbroken_ns: u64,
}

/// An observer at work. Dropping it ends it.
pub struct Echo {
    stop: CancellationToken,
    task: AbortOnDropHandle<Echoes>,
}

impl Echo {
    /// Begins to observe as one of `observers` side by side; returns once the first echo has come.
    pub(super) async fn start(
        reach: Arc<Mutex<Reach>>,
        remote: Remote,
        probe: watch::Receiver<Progress>,
        recorder: Recorder,
        observers: u32,
        deadline: &Deadline,
    ) -> Result<Self, ProbeError> {
        let stop = deadline.cancel().child_token();
        let way = Way {
            reach,
            remote,
            every: (EVERY * observers.max(1)).min(SELDOM),
            probe,
            sent: Arc::default(),
            stop: stop.clone(),
        };
        let first = || "no echo yet".to_owned();
        let dialed = async { Ok(way.dial().await) };
        let line = crate::guest::within(deadline, "the first echo", first, dialed).await?;
        let task = AbortOnDropHandle::new(tokio::spawn(observe(way, line, recorder)));
        Ok(Self { stop, task })
    }

    /// Ends it and tells what was seen.
    pub async fn stop(self) -> Result<Echoes, ProbeError> {
        self.stop.cancel();
        self.task.await.map_err(|error| ProbeError::Closed {
            why: format!("its observer ended: {error}"),
        })
    }
}

/// How to get a stream.
struct Way {
    reach: Arc<Mutex<Reach>>,
    remote: Remote,
    every: Duration,
    /// How the probe's own stream fares.
    probe: watch::Receiver<Progress>,
    sent: Arc<AtomicU64>,
    stop: CancellationToken,
}

/// One stream. It holds its connection open.
struct Line {
    _shell: Shell,
    _guard: tokio_util::sync::DropGuard,
    stdout: Box<dyn AsyncRead + Send + Unpin>,
    answered: Arc<AtomicU64>,
    /// Bytes of a number that has not come back whole.
    rest: usize,
    _asking: AbortOnDropHandle<()>,
}

impl Way {
    /// Makes a stream and returns once a number came back on it. Tries for as long as it is let.
    async fn dial(&self) -> Line {
        let mut waits = Patience::running().waits();
        loop {
            match timeout(ATTEMPT, self.once()).await {
                Ok(Ok(line)) => return line,
                Ok(Err(error)) => tracing::debug!(%error, "a stream for echoes did not come about"),
                Err(_elapsed) => tracing::debug!("a stream for echoes stayed silent"),
            }
            pause(waits.next().unwrap_or(ATTEMPT)).await;
        }
    }

    /// Makes a stream in place of one that broke. What broke it breaks the probe's too, and a guest of
    /// one slow processor is not to do two key exchanges at once: the acks come first.
    async fn dial_anew(&self) -> Line {
        pause(SUSPECT).await;
        let mut probe = self.probe.clone();
        let heard = probe.wait_for(|probe| matches!(probe.link, LinkState::Up));
        match timeout(ATTEMPT, heard).await {
            Ok(Ok(_up)) => {}
            Ok(Err(_)) | Err(_) => {
                tracing::debug!("the probe's stream is not up, which echoes do not need");
            }
        }
        self.dial().await
    }

    async fn once(&self) -> Result<Line, ProbeError> {
        let deadline = Deadline::after(ATTEMPT, &self.stop);
        let Reach { route, login } = at(&self.reach);
        let shell = Shell::connect(&route, &login, &deadline, None).await?;
        let streams = shell.stream(&self.remote.echo(), &deadline).await?;
        let Streams {
            stdin,
            stdout,
            guard,
            ..
        } = streams;
        let answered = Arc::<AtomicU64>::default();
        let counts = (Arc::clone(&self.sent), Arc::clone(&answered));
        let asking = ask(stdin, self.every, counts);
        let mut line = Line {
            _shell: shell,
            _guard: guard,
            stdout,
            answered,
            rest: 0,
            _asking: AbortOnDropHandle::new(tokio::spawn(asking)),
        };
        while line.answered.load(Ordering::Relaxed) == 0 {
            if line.hear().await == 0 {
                return Err(ProbeError::Gone {
                    why: "the stream for echoes ended before the first".into(),
                });
            }
        }
        Ok(line)
    }
}

impl Line {
    /// Waits for bytes and counts whole numbers; 0 bytes at the end of the stream, however it ended.
    async fn hear(&mut self) -> usize {
        let mut buffer = [0; 512 * NUMBER];
        let read = self.stdout.read(&mut buffer).await.unwrap_or(0);
        let whole = (self.rest + read) / NUMBER;
        self.rest = (self.rest + read) % NUMBER;
        let whole = u64::try_from(whole).unwrap_or(u64::MAX);
        self.answered.fetch_add(whole, Ordering::Relaxed);
        read
    }
}

/// Sends numbers until the stream takes no more.
async fn ask(
    mut stdin: impl AsyncWrite + Unpin,
    every: Duration,
    (sent, answered): (Arc<AtomicU64>, Arc<AtomicU64>),
) {
    let mut pace = interval(every);
    pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut own: u64 = 0;
    loop {
        pace.tick().await;
        if own.saturating_sub(answered.load(Ordering::Relaxed)) >= ON_THE_WAY {
            continue;
        }
        own += 1;
        sent.fetch_add(1, Ordering::Relaxed);
        let asked = async {
            stdin.write_all(&own.to_le_bytes()).await?;
            stdin.flush().await
        };
        if let Err(error) = asked.await {
            tracing::debug!(%error, "a stream for echoes takes no more");
            return;
        }
    }
}

/// The silences so far.
#[derive(Debug)]
struct Silences {
    last: Instant,
    broken: bool,
    longest: Duration,
    unbroken: Duration,
}

impl Silences {
    const fn from(now: Instant) -> Self {
        Self {
            last: now,
            broken: false,
            longest: Duration::ZERO,
            unbroken: Duration::ZERO,
        }
    }

    /// Something came back.
    fn end(&mut self, now: Instant) {
        let silence = now.saturating_duration_since(self.last);
        self.longest = self.longest.max(silence);
        if !self.broken {
            self.unbroken = self.unbroken.max(silence);
        }
        (self.last, self.broken) = (now, false);
    }

    /// Nobody listens any more: the silence that lasts counts, and nobody knows what would have ended
    /// it.
    fn close(&mut self, now: Instant) {
        self.longest = self.longest.max(now.saturating_duration_since(self.last));
    }
}

/// Listens until told to stop, on a new stream wherever the old one falls silent.
async fn observe(way: Way, line: Line, recorder: Recorder) -> Echoes {
    let from_ns = recorder.now_ns();
    let mut silences = Silences::from(Instant::now());
    let mut answered = 0;
    let mut line = Some(line);
    let mut dial: Option<BoxFuture<'_, Line>> = None;
    loop {
        tokio::select! {
            biased;
            () = way.stop.cancelled() => break,
            heard = hear(line.as_mut()) => match heard {
                Some(0) => {
                    answered += line.take().map_or(0, |gone| gone.answered.load(Ordering::Relaxed));
                    silences.broken = true;
                    dial.get_or_insert_with(|| Box::pin(way.dial_anew()));
                }
                Some(_) => {
                    silences.end(Instant::now());
                    dial = None;
                }
                None => {
                    dial.get_or_insert_with(|| Box::pin(way.dial()));
                }
            },
            fresh = come(dial.as_mut()) => {
                dial = None;
                silences.broken = true;
                silences.end(Instant::now());
                let gone = line.replace(fresh);
                answered += gone.map_or(0, |gone| gone.answered.load(Ordering::Relaxed));
            }
        }
    }
    silences.close(Instant::now());
    let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    Echoes {
        from_ns,
        interval_ns: ns(way.every),
        sent: way.sent.load(Ordering::Relaxed),
        answered: answered + line.map_or(0, |line| line.answered.load(Ordering::Relaxed)),
        longest_ns: ns(silences.longest),
        unbroken_ns: ns(silences.unbroken),
    }
}

/// How many bytes came, `None` after a suspicious silence. Never, without a stream.
async fn hear(line: Option<&mut Line>) -> Option<usize> {
    match line {
        Some(line) => timeout(SUSPECT, line.hear()).await.ok(),
        None => std::future::pending().await,
    }
}

/// The new stream. Never, if none is being made.
async fn come(dial: Option<&mut BoxFuture<'_, Line>>) -> Line {
    match dial {
        Some(dial) => dial.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_that_a_new_stream_ended_is_kept_apart() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut silences = Silences::from(start);
        silences.end(at(2));
        silences.end(at(300));
        silences.broken = true;
        silences.end(at(1_300));
        silences.end(at(1_302));
        let ms = Duration::from_millis;
        assert_eq!((silences.longest, silences.unbroken), (ms(1_000), ms(298)));
        silences.close(at(4_000));
        assert_eq!((silences.longest, silences.unbroken), (ms(2_698), ms(298)));
    }
}
