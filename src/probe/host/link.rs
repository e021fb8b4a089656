//! Keeping a probe heard: attaches, and attaches again for as long as anyone listens.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::cluster::Deadline;
use crate::guest::{GuestError, Milestone, OnMilestone, Patience, Shell};
use crate::history::event::Fact;
use crate::history::recorder::{Recorder, Scope};
use crate::probe::remote::Remote;

use super::attach::{Hearing, attach, lock};
use super::deploy::Reach;
use super::ear::Ear;
use super::error::ProbeError;
use super::progress::{LinkState, Progress};

/// One attempt to connect and attach is given up after this long.
const ATTEMPT: Duration = Duration::from_secs(20);
/// A stream that was up for so long is made anew at once when it breaks: the guest may have moved. One
/// that breaks sooner would break again.
const STEADY: Duration = Duration::from_secs(1);
/// So many attempts in a row must find the guest without the probe before it counts as gone.
const GONE_AFTER: u32 = 2;

/// What listening needs.
pub(super) struct Link {
    /// How to reach the guest now; it changes when the guest moves to another address.
    pub(super) reach: Arc<Mutex<Reach>>,
    pub(super) remote: Remote,
    pub(super) incarnation: u64,
    pub(super) ear: Arc<Mutex<Ear>>,
    pub(super) speak: Arc<Notify>,
    pub(super) progress: Arc<watch::Sender<Progress>>,
    pub(super) recorder: Recorder,
    pub(super) scope: Scope,
    /// Gives up the present stream, or the attempt to make one, for a new one.
    pub(super) again: Arc<Notify>,
    /// Ends listening.
    pub(super) close: CancellationToken,
    /// Why it was ended, if somebody said.
    pub(super) why_closed: Arc<OnceLock<String>>,
}

impl Hearing for Link {
    async fn up(&self) -> Result<(), ProbeError> {
        {
            let mut ear = lock(&self.ear);
            ear.link(true)?;
            let progress = ear.progress_mut();
            progress.link = LinkState::Up;
            progress.attaches += 1;
        }
        self.note(true, "attached").await
    }

    fn heard(&self) {
        // Under the lock, so that an older state never replaces a newer one.
        let ear = lock(&self.ear);
        self.progress.send_replace(ear.progress().clone());
    }
}

impl Link {
    /// Listens until told to stop, or until nothing can be gained any more.
    pub(super) async fn run(self, mut shell: Option<Shell>) {
        let patience = Patience::running();
        let mut waits = patience.waits();
        let mut without_probe = 0;
        let why = loop {
            let before = lock(&self.ear).progress().attaches;
            let since = Instant::now();
            let Some(end) = self
                .close
                .run_until_cancelled(self.once_or_again(shell.take()))
                .await
            else {
                break self.closed();
            };
            let (was_up, quitting) = {
                let ear = lock(&self.ear);
                (ear.progress().attaches > before, ear.quitting())
            };
            if was_up {
                waits = patience.waits();
            }
            let why = match &end {
                Ok(()) => "the probe ended the stream".into(),
                Err(ProbeError::Gone { why }) => why.clone(),
                Err(error) => error.to_string(),
            };
            without_probe = match &end {
                Err(ProbeError::Gone { .. }) => without_probe + 1,
                _ => 0,
            };
            if quitting && matches!(end, Ok(()) | Err(ProbeError::Gone { .. })) {
                break "the probe was told to quit".to_owned();
            }
            let state = if without_probe >= GONE_AFTER {
                LinkState::Gone { why: why.clone() }
            } else {
                LinkState::Down { why: why.clone() }
            };
            if let Err(error) = self.down(was_up, state, &why).await {
                break error.to_string();
            }
            if end.is_err_and(|error| !error.is_break()) {
                break why;
            }
            if was_up && since.elapsed() >= STEADY {
                continue;
            }
            let wait = waits.next().unwrap_or(patience.longest);
            if self.close.run_until_cancelled(pause(wait)).await.is_none() {
                break self.closed();
            }
        };
        let was_up = matches!(lock(&self.ear).progress().link, LinkState::Up);
        let over = LinkState::Over { why: why.clone() };
        if let Err(error) = self.down(was_up, over, &why).await {
            tracing::error!(%error, "the end of a probe's stream could not be recorded");
        }
    }

    fn closed(&self) -> String {
        let why = self.why_closed.get();
        why.map_or_else(|| "closed".to_owned(), Clone::clone)
    }

    /// Attaches once, until the stream ends or somebody knows better. A login that the guest is answering
    /// where it is known to be is not given up for another: where a key exchange takes seconds, one begun
    /// anew all the time never ends.
    async fn once_or_again(&self, shell: Option<Shell>) -> Result<(), ProbeError> {
        let route = at(&self.reach).route.to_string();
        let answers = Arc::<AtomicBool>::default();
        let mut end = std::pin::pin!(self.once(shell, &answers));
        loop {
            tokio::select! {
                biased;
                end = &mut end => return end,
                () = self.again.notified() => {
                    let there = at(&self.reach).route.to_string() == route;
                    if !(there && answers.load(Ordering::Relaxed)) {
                        return Err(ProbeError::Guest(GuestError::Broken {
                            doing: "listening to the probe".into(),
                            why: "it is to be reached anew".into(),
                        }));
                    }
                }
            }
        }
    }

    /// Connects if need be, and attaches once. `answers` from the guest's first words until its login is
    /// over.
    async fn once(
        &self,
        shell: Option<Shell>,
        answers: &Arc<AtomicBool>,
    ) -> Result<(), ProbeError> {
        let deadline = Deadline::after(ATTEMPT, &self.close);
        let shell = if let Some(shell) = shell.filter(|shell| !shell.is_closed()) {
            shell
        } else {
            let Reach { route, login } = at(&self.reach);
            let heard = Arc::clone(answers);
            let on: OnMilestone = Arc::new(move |reached| {
                if reached >= Milestone::Banner {
                    heard.store(true, Ordering::Relaxed);
                }
            });
            Shell::connect(&route, &login, &deadline, Some(on)).await?
        };
        let command = self.remote.attach(self.incarnation);
        let streams = shell.stream(&command, &deadline).await?;
        answers.store(false, Ordering::Relaxed);
        let end = Box::pin(attach(streams, &self.ear, &self.speak, self)).await;
        shell.close().await;
        end
    }

    /// Notes that the probe is not heard.
    async fn down(&self, was_up: bool, state: LinkState, why: &str) -> Result<(), ProbeError> {
        {
            let mut ear = lock(&self.ear);
            if was_up {
                ear.link(false)?;
            }
            ear.progress_mut().link = state;
        }
        self.heard();
        if was_up {
            self.note(false, why).await?;
        }
        Ok(())
    }

    async fn note(&self, up: bool, why: &str) -> Result<(), ProbeError> {
        let fact = Fact::Stream {
            incarnation: format!("{:016x}", self.incarnation),
            up,
            why: why.to_owned(),
        };
        self.recorder.record(&self.scope, fact).await?;
        Ok(())
    }
}

/// How to reach the guest at this moment.
pub(super) fn at(reach: &Mutex<Reach>) -> Reach {
    reach.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// The wait between two attempts to attach.
#[expect(
    clippy::disallowed_methods,
    reason = "the pace of attempts to attach; the condition awaited is the next attempt's success"
)]
pub(super) async fn pause(wait: Duration) {
    tokio::time::sleep(wait).await;
}
