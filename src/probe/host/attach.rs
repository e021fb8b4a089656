//! One stream to a running probe, from `Hello` to its end, whichever way it ends.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};

use crate::guest::{Exit, Finished, GuestError, Streams};
use crate::probe::wire::Decoder;

use super::ear::Ear;
use super::error::ProbeError;

/// A stream on which nothing comes for so long is given up: a probe says that it is alive each
/// second, and a live migration breaks streams without a word.
const SILENCE: Duration = Duration::from_secs(5);
/// How often a numbered mark in time is sent.
const TOKEN_EVERY: Duration = Duration::from_millis(50);
/// Bytes read at once.
const CHUNK: usize = 64 * 1024;

/// Who is told while a stream is attached.
pub(super) trait Hearing: Sync {
    /// The first frame is about to be taken in: the stream is up.
    fn up(&self) -> impl Future<Output = Result<(), ProbeError>> + Send;
    /// Something was taken in.
    fn heard(&self);
}

/// The pace of time tokens; the only place that sets it.
fn token_pace() -> Interval {
    let mut pace = interval(TOKEN_EVERY);
    pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
    pace
}

/// Speaks and listens until the stream ends. `Ok` if the probe ended it in order.
pub(super) async fn attach(
    streams: Streams,
    ear: &Mutex<Ear>,
    speak: &Notify,
    hearing: &impl Hearing,
) -> Result<(), ProbeError> {
    let Streams {
        mut stdin,
        mut stdout,
        ended,
        guard,
    } = streams;
    let hello = lock(ear).hello();
    let mut heard_any = false;
    let stopped = {
        let talk = talk(&mut stdin, &hello, ear, speak);
        let listen = listen(&mut stdout, ear, speak, hearing, &mut heard_any);
        // The listener decides at the end: what it has read counts even if talking failed first.
        tokio::select! {
            biased;
            end = listen => end,
            end = talk => end,
        }
    };
    // Unread frames would hold up the end of the channel; they come again.
    drop(stdout);
    let finished = match stopped {
        Ok(()) => Some(ended.wait().await),
        // Why the channel ended says more than that nothing could be written to it.
        Err(ProbeError::Guest(_)) => timeout(SILENCE, ended.wait()).await.ok(),
        Err(_) => None,
    };
    drop(guard);
    match (stopped, finished) {
        (Err(error), None) => Err(error),
        (Ok(()), None) => Ok(()),
        (stopped, Some(finished)) => judge(stopped, finished, heard_any),
    }
}

/// What the end of `probe attach` means.
fn judge(
    stopped: Result<(), ProbeError>,
    finished: Finished,
    heard_any: bool,
) -> Result<(), ProbeError> {
    match finished.exit {
        Some(Exit::Status(0)) if heard_any => stopped,
        Some(_) if !heard_any => {
            let why = match finished.check() {
                Err(error) => error.to_string(),
                Ok(()) => "it closed the stream without a word".into(),
            };
            Err(ProbeError::Gone { why })
        }
        _ => Err(finished.check().err().map_or_else(
            || broken("listening to the probe", "the stream ended"),
            ProbeError::Guest,
        )),
    }
}

fn broken(doing: &str, why: impl Into<String>) -> ProbeError {
    ProbeError::Guest(GuestError::Broken {
        doing: doing.into(),
        why: why.into(),
    })
}

/// Reads frames until the stream ends between two of them.
pub(super) async fn listen(
    stdout: &mut (impl AsyncRead + Unpin),
    ear: &Mutex<Ear>,
    speak: &Notify,
    hearing: &impl Hearing,
    heard_any: &mut bool,
) -> Result<(), ProbeError> {
    let mut decoder = Decoder::default();
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = timeout(SILENCE, stdout.read(&mut chunk))
            .await
            .map_err(|_elapsed| broken("listening to the probe", "nothing came for 5 s"))?
            .map_err(|e| broken("listening to the probe", e.to_string()))?;
        if read == 0 {
            return decoder
                .finish()
                .map_err(|_partial| broken("listening to the probe", "it ended within a frame"));
        }
        decoder.push(&chunk[..read]);
        while let Some(raw) = decoder.next_frame()? {
            if !*heard_any {
                hearing.up().await?;
                *heard_any = true;
            }
            lock(ear).hear(raw)?;
        }
        hearing.heard();
        speak.notify_one();
    }
}

/// Says `Hello`, then what is due whenever something is, and a token every 50 ms.
pub(super) async fn talk(
    stdin: &mut (impl AsyncWrite + Unpin),
    hello: &[u8],
    ear: &Mutex<Ear>,
    speak: &Notify,
) -> Result<(), ProbeError> {
    let mut pace = token_pace();
    let mut out = hello.to_vec();
    loop {
        out.extend(lock(ear).speak());
        if !out.is_empty() {
            let written = async {
                stdin.write_all(&out).await?;
                stdin.flush().await
            };
            written
                .await
                .map_err(|e| broken("talking to the probe", e.to_string()))?;
            out.clear();
        }
        tokio::select! {
            _ = pace.tick() => out.extend(lock(ear).token()?),
            () = speak.notified() => {}
        }
    }
}

/// The ear, whose critical sections are short and never await.
pub(super) fn lock(ear: &Mutex<Ear>) -> std::sync::MutexGuard<'_, Ear> {
    ear.lock().unwrap_or_else(PoisonError::into_inner)
}
