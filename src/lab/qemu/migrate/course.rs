//! The course of one migration, from events; and the order after a failed one.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::time::{self, timeout, timeout_at};

use super::control::{Progress, begin, progress, tell};
use super::{After, Migrated, Options, Switchover, Why};
use crate::lab::qemu::process::{Process, Status, socket};
use crate::lab::qemu::qmp::{Event, EventKind, Events, EventsError, MigrationStatus, QmpError};

/// How long one step between QEMU's own words may take: a cancel, the target's first breath, the source's
/// second. Each is a matter of milliseconds on an idle host.
const STEP: Duration = Duration::from_secs(60);

/// The pace at which a source that is done is asked whether it has filled in its figures.
const FIGURES: Duration = Duration::from_millis(5);

/// A migration under way.
pub(super) struct Course<'a> {
    source: &'a Process,
    target: &'a Process,
    from: Events,
    to: Events,
    /// The guest ran when it began.
    ran: bool,
    stopped: Option<Instant>,
    resumed: Option<Instant>,
}

/// Why the wait for the source ended early.
enum Cut {
    Abort,
    Limit,
}

impl<'a> Course<'a> {
    /// From now on, no event is missed.
    pub(super) fn new(source: &'a Process, target: &'a Process) -> Self {
        Self {
            source,
            target,
            from: source.events(),
            to: target.events(),
            ran: false,
            stopped: None,
            resumed: None,
        }
    }

    /// Begins, and follows to the end.
    pub(super) async fn run(&mut self, options: &Options) -> Result<Migrated, Why> {
        let deadline = time::Instant::now() + options.limit;
        let path = self.target.dir().join("migrate.sock");
        let uri = format!("unix:{}", socket(&path).map_err(Why::Socket)?);
        let status = self.source.status().await;
        self.ran = status
            .map_err(|source| Why::Control {
                end: "source",
                source,
            })?
            .running;
        begin(self.source, self.target, options, &uri).await?;
        let _telling = options
            .progress
            .as_ref()
            .map(|to| tell(self.source.qmp(), to));
        let cut = tokio::select! {
            sent = self.sent() => {
                sent?;
                None
            }
            () = options.abort.cancelled() => Some(Cut::Abort),
            () = time::sleep_until(deadline) => Some(Cut::Limit),
        };
        if let Some(cut) = cut {
            self.cancel(cut, options.limit).await?;
        }
        self.taken_up().await?;
        self.measure().await
    }

    /// Waits until the source has sent everything and the target has taken it.
    async fn sent(&mut self) -> Result<(), Why> {
        // It may be over already, when this is the wait after a cancel.
        let mut status = Some(self.status().await?);
        loop {
            match status {
                Some(MigrationStatus::Completed) => return Ok(()),
                Some(MigrationStatus::Failed | MigrationStatus::Cancelled) => {
                    return Err(self.failed().await);
                }
                _ => {}
            }
            status = tokio::select! {
                event = self.from.next() => match event {
                    Ok(event) => self.source_event(&event),
                    Err(EventsError::Missed(_)) => Some(self.status().await?),
                    Err(EventsError::Lost(_)) => return Err(self.source_died().await),
                },
                _exit = self.target.exited() => return Err(self.target_died().await),
            };
        }
    }

    fn source_event(&mut self, event: &Event) -> Option<MigrationStatus> {
        match &event.kind {
            EventKind::Stop => self.stopped = Some(event.read_at),
            EventKind::Migration(status) => return Some(status.clone()),
            _ => {}
        }
        None
    }

    async fn status(&self) -> Result<MigrationStatus, Why> {
        let now = match progress(self.source.qmp()).await {
            Ok(now) => now,
            Err(error) => return Err(self.mute(error).await),
        };
        Ok(match now.status.as_str() {
            "completed" => MigrationStatus::Completed,
            "failed" => MigrationStatus::Failed,
            "cancelled" => MigrationStatus::Cancelled,
            other => MigrationStatus::Other(other.into()),
        })
    }

    /// What it means that the source did not answer.
    async fn mute(&self, error: QmpError) -> Why {
        match error {
            QmpError::Lost { .. } => self.source_died().await,
            source => Why::Control {
                end: "source",
                source,
            },
        }
    }

    /// Cancels; `Ok` if that came too late.
    async fn cancel(&mut self, cut: Cut, limit: Duration) -> Result<(), Why> {
        // Before the cancel: it is the state in which time ran out.
        let last = progress(self.source.qmp()).await.unwrap_or_default();
        let cancelled = self
            .source
            .qmp()
            .execute("migrate_cancel", Value::Null)
            .await;
        let ended = match cancelled {
            Ok(_) => timeout(STEP, self.sent()).await,
            // Of a source that does not listen, no more can be learnt.
            Err(error) => {
                tracing::warn!(%error, "a migration could not be cancelled");
                Ok(Err(Why::Aborted))
            }
        };
        match ended {
            Ok(Ok(())) => Ok(()),
            Ok(Err(died @ Why::SourceDied(_))) => Err(died),
            // A target ends when its source cancels. Without a word, its death will end it all.
            Ok(Err(_)) | Err(_) => Err(match cut {
                Cut::Abort => Why::Aborted,
                Cut::Limit => Why::TimedOut {
                    waited: limit,
                    last,
                },
            }),
        }
    }

    /// Waits until the target runs the guest, or holds it if it did not run before.
    async fn taken_up(&mut self) -> Result<(), Why> {
        let deadline = time::Instant::now() + STEP;
        let mut completed = false;
        while !completed || (self.ran && self.resumed.is_none()) {
            match timeout_at(deadline, self.to.next()).await {
                Ok(Ok(event)) => completed |= self.target_event(&event),
                Ok(Err(EventsError::Missed(_))) => {}
                Ok(Err(EventsError::Lost(_))) => return Err(self.target_died().await),
                Err(_elapsed) => return Err(Why::NotTakenUp(STEP)),
            }
        }
        // Only a courtesy to those who talk to the agent next; they will learn of any trouble.
        if let Err(error) = self.target.refresh_agent().await {
            tracing::warn!(%error, "whether the agent's port is open is unknown");
        }
        Ok(())
    }

    /// Whether it tells that all was taken up.
    fn target_event(&mut self, event: &Event) -> bool {
        match &event.kind {
            EventKind::Resume => self.resumed = Some(event.read_at),
            EventKind::Migration(MigrationStatus::Completed) => return true,
            _ => {}
        }
        false
    }

    async fn measure(&self) -> Result<Migrated, Why> {
        let end = match self.last_figures().await {
            Ok(end) => end,
            Err(error) => return Err(self.mute(error).await),
        };
        let ram = end.ram.clone().unwrap_or_default();
        let switchover = self.stopped.zip(self.resumed);
        Ok(Migrated {
            total: end.total(),
            downtime: end.downtime(),
            setup: end.setup(),
            transferred: ram.transferred,
            iterations: ram.dirty_sync_count,
            switchover: switchover.map(|(stopped, resumed)| Switchover { stopped, resumed }),
        })
    }

    /// QEMU says "completed" before it fills in its figures, and leaves the state `finish-migrate` after;
    /// of the latter there is no event. If it never does, the figures are what they are.
    async fn last_figures(&self) -> Result<Progress, QmpError> {
        let deadline = time::Instant::now() + STEP;
        let mut pace = time::interval(FIGURES);
        while self.source.status().await?.status == "finish-migrate"
            && time::Instant::now() < deadline
        {
            pace.tick().await;
        }
        progress(self.source.qmp()).await
    }

    /// QEMU gave up; mostly because an end died, and then that is the reason.
    async fn failed(&self) -> Why {
        if self.target.status().await.is_err() {
            return self.target_died().await;
        }
        match progress(self.source.qmp()).await {
            Ok(end) => Why::Failed(end.error_desc.unwrap_or_else(|| "it gave no reason".into())),
            Err(_) => self.source_died().await,
        }
    }

    async fn target_died(&self) -> Why {
        Why::TargetDied(last_words(self.target).await)
    }

    async fn source_died(&self) -> Why {
        Why::SourceDied(last_words(self.source).await)
    }

    /// After a failure: no target, and a source that runs if it ran before and may.
    pub(super) async fn settle(&mut self, why: &Why) -> After {
        self.target.kill().await;
        loop {
            // QEMU tells RESUME before the CPUs run, and what a dead one told is read to its end.
            match self.to.next().await {
                Ok(event) => {
                    self.target_event(&event);
                }
                // Among them may have been the one that matters.
                Err(EventsError::Missed(_)) => self.resumed = Some(Instant::now()),
                Err(EventsError::Lost(_)) => break,
            }
        }
        if self.source.exit().is_some() || matches!(why, Why::SourceDied(_)) {
            return After::Gone;
        }
        if self.resumed.is_some() {
            return After::Outdated;
        }
        match timeout(STEP, self.revive()).await {
            Ok(after) => after,
            Err(_elapsed) => After::Stuck(format!("no change within {} s", STEP.as_secs())),
        }
    }

    /// QEMU itself resumes a guest whose migration failed; this waits for that, and does it where QEMU
    /// does not.
    async fn revive(&mut self) -> After {
        loop {
            let (now, migration) = match self.state().await {
                Ok(both) => both,
                Err(error) => return self.lost(&error),
            };
            let over = matches!(
                migration.as_str(),
                "" | "none" | "completed" | "failed" | "cancelled"
            );
            match now.status.as_str() {
                // The next event may tell more.
                _ if !over || now.status == "finish-migrate" => match self.from.next().await {
                    Ok(_) | Err(EventsError::Missed(_)) => {}
                    Err(EventsError::Lost(_)) => return After::Gone,
                },
                _ if now.running => return After::Runs,
                "postmigrate" if self.ran => {
                    if let Err(error) = self.source.resume().await {
                        return self.lost(&error);
                    }
                }
                _ => return After::Stands(now.status),
            }
        }
    }

    /// The source's run state, and the status of its migration. The latter is asked first: a migration
    /// that is over does not change the former any more.
    async fn state(&self) -> Result<(Status, String), QmpError> {
        let migration = progress(self.source.qmp()).await?.status;
        Ok((self.source.status().await?, migration))
    }

    fn lost(&self, error: &QmpError) -> After {
        if self.source.exit().is_some() {
            After::Gone
        } else {
            After::Stuck(error.to_string())
        }
    }
}

/// Its log is complete once it has ended.
async fn last_words(process: &Process) -> String {
    if timeout(STEP, process.exited()).await.is_err() {
        return "its connection ended, but it did not".into();
    }
    process.last_words()
}
