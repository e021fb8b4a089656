//! Who commits to the database in a guest, and the ear that hears of it. It goes on beside everything
//! else until the stream to the guest ends: nobody connects again, since what was not heard is not owed.

use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncBufReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader, Lines};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::cluster::Deadline;
use crate::guest::{Ended, Shell, Streams};
use crate::history::event::{DatabaseFact, Fact, Site};
use crate::history::recorder::{Recorder, Scope};

/// A transaction is ordered so often. Some time between two leaves others a chance to lock the database,
/// as most applications do.
const EVERY: Duration = Duration::from_millis(50);
/// The end of what its stream is waited for, once it is over.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Whoever commits in one guest.
pub(super) struct Commits {
    task: AbortOnDropHandle<anyhow::Result<()>>,
    heard: watch::Receiver<u64>,
    over: CancellationToken,
}

/// Where its facts go.
pub(super) struct Told {
    pub(super) recorder: Recorder,
    pub(super) scope: Scope,
    pub(super) site: Site,
}

impl Told {
    async fn tell(&self, database: DatabaseFact) -> anyhow::Result<()> {
        let site = self.site;
        let fact = Fact::Database { site, database };
        self.recorder.record(&self.scope, fact).await?;
        Ok(())
    }
}

impl Commits {
    /// Starts it: `command` commits a transaction for each line that it is given and says the number of
    /// each that was committed.
    pub(super) async fn start(
        shell: Shell,
        command: &str,
        told: Told,
        deadline: &Deadline,
    ) -> anyhow::Result<Self> {
        let streams = shell.stream(command, deadline).await?;
        let (hear, heard) = watch::channel(0);
        let over = CancellationToken::new();
        let listen = listen(shell, streams, told, hear, over.clone());
        Ok(Self {
            task: AbortOnDropHandle::new(tokio::spawn(listen)),
            heard,
            over,
        })
    }

    /// Waits until it has committed once.
    pub(super) async fn began(&mut self, deadline: &Deadline) -> anyhow::Result<()> {
        let first = self.heard.wait_for(|newest| *newest > 0);
        let none = || ("none is committed".to_owned(), None);
        let first = deadline.bound("the first transaction", none, first).await?;
        first.context("it ended before its first transaction; the history says why")?;
        Ok(())
    }

    /// Hears no more of it.
    pub(super) async fn end(self) -> anyhow::Result<()> {
        self.over.cancel();
        self.task.await.context("listening to commits")?
    }
}

/// Records each transaction until the stream ends or nobody wants to hear more.
async fn listen(
    shell: Shell,
    streams: Streams,
    told: Told,
    hear: watch::Sender<u64>,
    over: CancellationToken,
) -> anyhow::Result<()> {
    let Streams {
        mut stdin,
        stdout,
        ended,
        guard,
    } = streams;
    let mut lines = BufReader::new(stdout).lines();
    let why = tokio::select! {
        biased;
        why = commits(&mut lines, &told, &hear) => why?,
        () = order(&mut stdin) => None,
        () = over.cancelled() => None,
    };
    drop(lines);
    let why = match why {
        Some(why) => why,
        None => last_words(ended, &over).await,
    };
    drop(guard);
    told.tell(DatabaseFact::Ended { why }).await?;
    shell.close().await;
    Ok(())
}

/// Orders a transaction whenever it is time for one, for as long as somebody takes the order. What is ordered while
/// the guest stands still is done afterwards.
async fn order(stdin: &mut (impl AsyncWrite + Unpin)) {
    let mut pace = interval(EVERY);
    pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        pace.tick().await;
        let ordered = async {
            stdin.write_all(b"\n").await?;
            stdin.flush().await
        };
        if ordered.await.is_err() {
            // What was committed may still be heard, and the other end of the stream tells why.
            return std::future::pending().await;
        }
    }
}

/// Takes in lines until there are no more; says why where that is known by the lines themselves.
async fn commits(
    lines: &mut Lines<BufReader<impl tokio::io::AsyncRead + Unpin>>,
    told: &Told,
    hear: &watch::Sender<u64>,
) -> anyhow::Result<Option<String>> {
    let mut newest = 0_u64;
    loop {
        let line = match lines.next_line().await {
            Ok(Some(line)) => line,
            Ok(None) => return Ok(None),
            Err(error) => return Ok(Some(format!("the stream broke: {error}"))),
        };
        // Each follows the one before, or it is not what was asked for.
        let commit = newest + 1;
        if line.trim().parse() != Ok(commit) {
            return Ok(Some(format!("{line:?} came after transaction {newest}")));
        }
        newest = commit;
        // Where more is there already, one fact is enough for all.
        if lines.get_ref().buffer().contains(&b'\n') {
            continue;
        }
        told.tell(DatabaseFact::Acked { commit }).await?;
        // Whoever waited for the first may be gone.
        hear.send(commit).ok();
    }
}

/// How the command ended, if that is heard.
async fn last_words(ended: Ended, over: &CancellationToken) -> String {
    if over.is_cancelled() {
        return "nobody listens any more".into();
    }
    match tokio::time::timeout(LAST_WORDS, ended.wait()).await {
        Ok(finished) => finished.check().map_or_else(
            |error| error.to_string(),
            |()| "it ended by itself".to_owned(),
        ),
        Err(_elapsed) => "the stream ended".into(),
    }
}
