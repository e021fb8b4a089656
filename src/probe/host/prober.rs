//! One incarnation of a probe as scenarios hold it.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::cluster::Deadline;
use crate::guest::{GuestError, GuestFacts, HostSeen, Job, Patience, Shell};
use crate::history::event::ScanFact;
use crate::history::recorder::{Recorder, Scope};
use crate::history::segment::Closed;
use crate::probe::config::Config;
use crate::probe::frame::Identity;
use crate::probe::layout::{CELL, Layout, TooSmall};
use crate::probe::reach::{self, Tried};
use crate::probe::remote::Remote;

use super::attach::lock;
use super::binary::ProbeBinary;
use super::deploy::{Reach, deliver, prepare, start};
use super::ear::{Ear, Order};
use super::echo::Echo;
use super::error::ProbeError;
use super::link::{Link, at};
use super::progress::{LinkState, Progress, Stopped};

/// What a probe run is made of.
#[derive(Clone)]
pub struct Setup {
    /// How to reach the guest.
    pub reach: Reach,
    /// The probe.
    pub binary: ProbeBinary,
    /// What it is told to open and how; its incarnation must be new.
    pub config: Config,
    /// The history that keeps what is heard.
    pub recorder: Recorder,
    /// What the stream's ups and downs concern.
    pub scope: Scope,
    /// Name of the ack segment, new within the run.
    pub segment: String,
}

/// A probe in a guest, listened to until it is closed. Dropping it ends listening without closing
/// its segment, which then counts as cut off.
pub struct Prober {
    identity: Identity,
    facts: GuestFacts,
    host: HostSeen,
    config: Config,
    segment: String,
    reach: Arc<Mutex<Reach>>,
    again: Arc<Notify>,
    recorder: Recorder,
    ear: Arc<Mutex<Ear>>,
    speak: Arc<Notify>,
    progress: Arc<watch::Sender<Progress>>,
    task: JoinHandle<()>,
    close: CancellationToken,
    why_closed: Arc<OnceLock<String>>,
    _stop_on_drop: DropGuard,
}

impl Prober {
    /// Puts the probe into the guest, starts it, and returns once it is heard: it then holds every
    /// volume open and writes nothing. `shell` is a connection that the caller has already.
    ///
    /// A stream that breaks on the way is made anew. The start itself is safe to repeat: a probe
    /// that was started writes nothing before it is told to, and a second one of the same
    /// incarnation cannot take its place.
    pub async fn launch(
        setup: Setup,
        shell: Option<Shell>,
        deadline: &Deadline,
    ) -> Result<Self, ProbeError> {
        let remote = setup.reach.remote(setup.config.run_id);
        let mut shell = shell;
        let mut maybe_started = false;
        loop {
            let shell = match shell.take() {
                Some(shell) => shell,
                None => setup.reach.booting(deadline, None).await?,
            };
            let Setup { binary, config, .. } = &setup;
            let host = shell.host().clone();
            let deployed = async {
                let facts = prepare(&shell, &remote, binary, config, deadline).await?;
                let started = start(&shell, &remote, config, deadline).await;
                Ok((facts, started))
            };
            match deployed.await {
                Ok((facts, Ok(()))) => {
                    return Self::listen(setup, remote, shell, facts, host, deadline).await;
                }
                // Refused because the one that was started before holds the place: listen to it.
                Ok((facts, Err(ProbeError::Refused { .. }))) if maybe_started => {
                    return Self::listen(setup, remote, shell, facts, host, deadline).await;
                }
                Ok((_, Err(ProbeError::Guest(GuestError::Broken { .. })))) => maybe_started = true,
                Err(ProbeError::Guest(GuestError::Broken { .. })) => {}
                Ok((_, Err(error))) | Err(error) => return Err(error),
            }
        }
    }

    /// Begins to listen to a probe that runs.
    async fn listen(
        setup: Setup,
        remote: Remote,
        shell: Shell,
        facts: GuestFacts,
        host: HostSeen,
        deadline: &Deadline,
    ) -> Result<Self, ProbeError> {
        let Setup {
            reach,
            config,
            recorder,
            scope,
            segment,
            ..
        } = setup;
        let writer = recorder.segment(&segment)?;
        let segment = writer.path().to_owned();
        let (incarnation, volumes) = (config.incarnation, config.volumes.len());
        let ear = Ear::new(
            recorder.clone(),
            scope.clone(),
            writer,
            incarnation,
            volumes,
        );
        let ear = Arc::new(Mutex::new(ear));
        let speak = Arc::new(Notify::new());
        let progress = Arc::new(watch::Sender::new(Progress::default()));
        let why_closed = Arc::new(OnceLock::new());
        let reach = Arc::new(Mutex::new(reach));
        let again = Arc::new(Notify::new());
        let close = deadline.cancel().child_token();
        let link = Link {
            reach: Arc::clone(&reach),
            again: Arc::clone(&again),
            remote,
            incarnation,
            ear: Arc::clone(&ear),
            speak: Arc::clone(&speak),
            progress: Arc::clone(&progress),
            recorder: recorder.clone(),
            scope,
            close: close.clone(),
            why_closed: Arc::clone(&why_closed),
        };
        let stop_on_drop = close.clone().drop_guard();
        let task = tokio::spawn(link.run(Some(shell)));
        let waiting = "the probe to hold every volume open";
        let identity = wait(&progress, deadline, waiting, |p| p.identity.clone()).await?;
        Ok(Self {
            identity,
            facts,
            host,
            config,
            segment,
            reach,
            again,
            recorder,
            ear,
            speak,
            progress,
            task,
            close,
            why_closed,
            _stop_on_drop: stop_on_drop,
        })
    }

    /// Who speaks: boot, machine, process and volumes as opened.
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The guest as the probe described it before it was started.
    pub const fn facts(&self) -> &GuestFacts {
        &self.facts
    }

    /// The guest's SSH host key when the probe was started.
    pub const fn host(&self) -> &HostSeen {
        &self.host
    }

    /// Path of the ack segment, relative to the run directory.
    pub fn segment(&self) -> &str {
        &self.segment
    }

    /// What the probe was told.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// How to reach its guest.
    pub fn reach(&self) -> Reach {
        at(&self.reach)
    }

    /// The ledger's regions on each volume, by ordinal.
    pub fn layouts(&self) -> Result<Vec<Layout>, TooSmall> {
        let cell = u64::try_from(CELL).unwrap_or(u64::MAX);
        let opened = self.identity.volumes.iter();
        opened
            .zip(&self.config.volumes)
            .map(|(opened, volume)| {
                let cells = volume.cells.unwrap_or(opened.size / cell);
                Layout::fit(cells, &self.config.layout)
            })
            .collect()
    }

    /// How far the probe is, now and from now on.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Waits until `done` finds what it looks for. Ends early when it cannot come any more: the
    /// probe gave up, is gone, or nobody listens.
    pub async fn wait<T>(
        &self,
        deadline: &Deadline,
        waiting_for: &str,
        done: impl FnMut(&Progress) -> Option<T>,
    ) -> Result<T, ProbeError> {
        wait(&self.progress, deadline, waiting_for, done).await
    }

    /// Fills the cold region of every volume; the cells written, by ordinal, once durable.
    pub async fn fill(&self, deadline: &Deadline) -> Result<Vec<u64>, ProbeError> {
        self.order(Order::Fill);
        let volumes = self.config.volumes.len();
        let done = |p: &Progress| {
            (p.filled.len() >= volumes).then(|| p.filled.values().copied().collect())
        };
        self.wait(deadline, "the cold fill to be durable", done)
            .await
    }

    /// Starts the load and returns once its first ack is heard. `rate` is writes per second over
    /// all writers (0: as fast as it goes), `batch` writes between flushes (0: strict).
    pub async fn start(
        &self,
        rate: u32,
        batch: u32,
        deadline: &Deadline,
    ) -> Result<(), ProbeError> {
        self.order(Order::Start { rate, batch });
        let done = |p: &Progress| p.loaded.then_some(());
        self.wait(deadline, "the first ack of the load", done).await
    }

    /// Stops the writers; returns their account of everything they issued.
    pub async fn stop(&self, deadline: &Deadline) -> Result<Stopped, ProbeError> {
        self.order(Order::Stop);
        let done = |p: &Progress| p.stopped.clone();
        self.wait(deadline, "the account of the stopped writers", done)
            .await
    }

    /// Writes one canary on each volume and waits until all are durable. The run-monotonic time at
    /// which the last of their acks was received; [`ProbeError::WriteFailed`] if one failed.
    pub async fn canary(&self, deadline: &Deadline) -> Result<u64, ProbeError> {
        let (before, until) = self.tell(Ear::canary);
        let settled = |p: &Progress| {
            let failed = p.canary_failed.filter(|(wseq, _)| *wseq > before);
            match (failed, p.last_ack_recv_ns) {
                (Some((_, errno)), _) => Some(Err(errno)),
                (None, Some(at_ns)) if p.canaries >= until => Some(Ok(at_ns)),
                _ => None,
            }
        };
        let waiting_for = "a durable canary on each volume";
        let outcome = self.wait(deadline, waiting_for, settled).await?;
        outcome.map_err(|errno| ProbeError::WriteFailed { errno })
    }

    /// Waits for a durability rank above `rank`: the proof that acks still come.
    pub async fn rank_above(&self, rank: u64, deadline: &Deadline) -> Result<u64, ProbeError> {
        let done = |p: &Progress| (p.last_rank > rank).then_some(p.last_rank);
        let waiting_for = format!("a durable write after rank {rank}");
        self.wait(deadline, &waiting_for, done).await
    }

    /// Waits for the ack of a write that became durable after this call, whatever was heard late.
    pub async fn ack_from_now(&self, deadline: &Deadline) -> Result<(), ProbeError> {
        let sent = lock(&self.ear).last_token();
        let done = |p: &Progress| (p.acked_token > sent).then_some(());
        let waiting_for = "the ack of a write from now on";
        self.wait(deadline, waiting_for, done).await
    }

    /// Waits until the writers have told of the lease of every volume once more: who else wrote to it
    /// until now would show.
    pub async fn leases_from_now(&self, deadline: &Deadline) -> Result<(), ProbeError> {
        let before = self.progress.borrow().leases.clone();
        let volumes = self.config.volumes.len();
        let done = |p: &Progress| {
            let anew = p.leases.iter();
            let anew = anew.filter(|(volume, told)| before.get(volume) < Some(*told));
            (anew.count() >= volumes).then_some(())
        };
        self.wait(deadline, "a look at every lease from now on", done)
            .await
    }

    /// The guest went on elsewhere: it is to be reached like this from now on. The present stream is
    /// given up, for one to an address that nobody has any more may stay silent for long.
    pub fn reach_anew(&self, reach: Reach) {
        let mut place = self.reach.lock().unwrap_or_else(PoisonError::into_inner);
        *place = reach;
        drop(place);
        self.again.notify_one();
    }

    /// Begins to ask the guest's network for echoes, on streams of its own beside the probe's. When
    /// this returns the first echo has come. Of `observers` side by side each asks less often.
    pub async fn echo(&self, observers: u32, deadline: &Deadline) -> Result<Echo, ProbeError> {
        let remote = self.reach().remote(self.config.run_id);
        Echo::start(
            Arc::clone(&self.reach),
            remote,
            self.progress.subscribe(),
            self.recorder.clone(),
            observers,
            deadline,
        )
        .await
    }

    /// Asks who answers where the probe's guest should be, whether the probe is still in it or not, and
    /// whatever volumes it has.
    pub async fn who(
        &self,
        binary: &ProbeBinary,
        deadline: &Deadline,
    ) -> Result<(GuestFacts, HostSeen), ProbeError> {
        let reach = self.reach();
        let shell = reach.booting(deadline, None).await?;
        let host = shell.host().clone();
        let remote = reach.remote(self.config.run_id);
        let facts = deliver(&shell, &remote, binary, deadline).await;
        shell.close().await;
        Ok((facts?, host))
    }

    /// Reads all volumes back whole, beside the probe, which must not be writing load. The frames
    /// are kept as `scans/NAME.bin`; `expect` are the incarnations whose cold cells, where they are
    /// as they should be, need no listing.
    pub async fn scan(
        &self,
        expect: &[u64],
        name: &str,
        deadline: &Deadline,
    ) -> Result<Vec<ScanFact>, ProbeError> {
        let config = Config {
            expect: expect.to_vec(),
            ..self.config.clone()
        };
        super::scan::scan(&self.reach(), &config, &self.recorder, name, deadline).await
    }

    /// Makes the guest try each address, `host:port`, over TCP; what came of each, in order.
    pub async fn try_reaching(
        &self,
        addresses: &[String],
        deadline: &Deadline,
    ) -> Result<Vec<Tried>, ProbeError> {
        let patience = Patience::running();
        let reach = self.reach();
        let Reach { route, login } = &reach;
        let shell = crate::guest::connect(route, login, &patience, deadline, None).await?;
        let command = reach.remote(self.config.run_id).reach();
        let list = addresses.join("\n");
        let job = Job::new(&command).stdin(list.as_bytes());
        let output = shell.run(&job, deadline).await?.check()?;
        shell.close().await;
        reach::parse(&output.text(), addresses).map_err(|said| ProbeError::Refused { said })
    }

    /// Ends the probe process, then closes.
    pub async fn quit(self, deadline: &Deadline) -> Result<Closed, ProbeError> {
        self.order(Order::Quit);
        let over = |p: &Progress| matches!(p.link, LinkState::Over { .. }).then_some(());
        match wait(&self.progress, deadline, "the probe to end", over).await {
            // Over is what was asked for; closing tells what can still go wrong.
            Ok(())
            | Err(
                ProbeError::Closed { .. } | ProbeError::Failed { .. } | ProbeError::Gone { .. },
            ) => {}
            Err(error) => {
                let closed = self.close().await;
                return closed.and(Err(error));
            }
        }
        self.close().await
    }

    /// Ends listening because the guest is known to be dead, stopped or fenced; `why` is what the
    /// history then says of the stream.
    pub fn guest_gone(&self, why: &str) {
        let why = why.to_owned();
        if let Err(later) = self.why_closed.set(why) {
            tracing::debug!(later, "listening was ended before");
        }
        self.close.cancel();
    }

    /// Ends listening and closes the segment: nothing more will be heard, and everything that was
    /// is accounted for. A prober that is only dropped leaves a segment that counts as cut off.
    pub async fn close(self) -> Result<Closed, ProbeError> {
        let Self {
            ear, task, close, ..
        } = self;
        close.cancel();
        let ended = task.await;
        let unheard = |why: &str| ProbeError::Closed { why: why.into() };
        ended.map_err(|e| unheard(&e.to_string()))?;
        let ear = Arc::into_inner(ear).ok_or_else(|| unheard("its segment is still in use"))?;
        let ear = ear.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(ear.into_segment().close()?)
    }

    fn order(&self, order: Order) {
        self.tell(|ear| ear.order(order));
    }

    /// Changes what is due, and shows the progress that is left of it before anyone waits.
    fn tell<T>(&self, change: impl FnOnce(&mut Ear) -> T) -> T {
        let mut ear = lock(&self.ear);
        let told = change(&mut ear);
        self.progress.send_replace(ear.progress().clone());
        drop(ear);
        self.speak.notify_one();
        told
    }
}

async fn wait<T>(
    sender: &watch::Sender<Progress>,
    deadline: &Deadline,
    waiting_for: &str,
    mut done: impl FnMut(&Progress) -> Option<T>,
) -> Result<T, ProbeError> {
    let mut progress = sender.subscribe();
    let work = async {
        loop {
            let now = progress.borrow_and_update().clone();
            if let Some(found) = done(&now) {
                return Ok(Ok(found));
            }
            let ended = match (now.failed, now.link) {
                (Some(said), _) => Some(ProbeError::Failed { said }),
                (_, LinkState::Gone { why }) => Some(ProbeError::Gone { why }),
                (_, LinkState::Over { why }) => Some(ProbeError::Closed { why }),
                _ => None,
            };
            if let Some(error) = ended {
                return Ok(Err(error));
            }
            if progress.changed().await.is_err() {
                let why = "its task ended".into();
                return Ok(Err(ProbeError::Closed { why }));
            }
        }
    };
    let last_seen = || sender.borrow().to_string();
    crate::guest::within(deadline, waiting_for, last_seen, work).await?
}
