//! A probe run: volumes opened, engine running, and one host at a time attached to it.
//!
//! Contract: every numbered frame reaches the host in order, however often the stream breaks; only
//! the newest attachment is served and older ones are cut; a host that does not speak the protocol
//! is cut and harms nothing.

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, scope};
use std::time::Duration;

use super::config::{Config, Purpose, Target, Volume};
use super::disk::Disk;
use super::engine::{Engine, Mail, Prepared};
use super::frame::{FromGuest, Identity, Opened, ToGuest};
use super::layout::{CELL, Layout};
use super::outbox::OutOfStep;
use super::platform::{Access, OpenError, Platform};
use super::window::open;
use super::wire::Raw;

/// How long the probe is silent at most while a host is attached.
const ALIVE_EVERY: Duration = Duration::from_secs(1);
/// About how many bytes of frames go into one write.
const BURST: usize = 64 * 1024;
const STACK: usize = 256 * 1024;

/// Breaks the stream of an attachment, so that a blocked read on it returns.
pub type Cut = Box<dyn Fn() + Send + Sync>;

/// Why an attachment ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// The host closed the stream between two frames.
    Closed,
    /// A newer attachment took its place.
    Replaced,
    /// The host told the probe to end, and it has.
    Quit,
    /// The probe had ended.
    Ended,
}

/// A probe run.
pub struct Daemon {
    engine: Engine,
    identity: Identity,
    attachments: Mutex<Attachments>,
    newest: AtomicU64,
}

#[derive(Default)]
struct Attachments {
    current: Option<Arc<Cut>>,
}

impl Daemon {
    /// Opens the volumes and starts the engine, holding: with [`Purpose::Verify`] nothing is
    /// written until the host says so.
    pub fn open(config: &Config, platform: &dyn Platform) -> Result<Self, OpenError> {
        let mut prepared = Vec::new();
        let mut opened = Vec::new();
        for (ordinal, volume) in config.volumes.iter().enumerate() {
            let found = open(platform, volume, config.purpose, Access::Write)?;
            let named = |what: String| format!("volume {ordinal} ({}): {what}", found.path);
            if config.purpose == Purpose::Load && matches!(volume.target, Target::Raw(_)) {
                refuse_strangers(&*found.disk).map_err(|mut error| {
                    error.what = named(error.what);
                    error
                })?;
            }
            let layout = fit(volume, config, &*found.disk)
                .map_err(|error| OpenError::new(named(error.to_string())))?;
            opened.push(Opened {
                volume: u8::try_from(ordinal).unwrap_or(u8::MAX),
                path: found.path.clone(),
                size: found.disk.size(),
                grants: found.disk.grants(),
            });
            prepared.push(Prepared {
                disk: found.disk,
                layout,
                vol_id: volume.vol_id,
                path: found.path,
            });
        }
        let identity = identity(config, platform, opened);
        let engine = Engine::start(config, prepared, platform.clock(), &identity)
            .map_err(|error| OpenError::io("starting the writers", error))?;
        Ok(Self {
            engine,
            identity,
            attachments: Mutex::default(),
            newest: AtomicU64::new(0),
        })
    }

    /// The volumes as opened, and the guest.
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Stops as a power cut would: no further disk write begins after this returns, and nothing
    /// more is told. The attachment is cut.
    pub fn kill(&self) {
        self.engine.end();
        self.cut_current();
    }

    /// Whether the probe has ended, by [`Self::kill`] or because the host said so.
    pub fn has_ended(&self) -> bool {
        self.engine.has_ended()
    }

    /// Serves a host on the calling thread until the stream ends. Without a way to cut the stream a
    /// replaced or killed attachment ends only when the host closes it.
    pub fn serve(&self, read: impl Read, write: impl Write + Send) -> io::Result<Left> {
        self.serve_cut(read, write, Box::new(|| {}))
    }

    /// As [`Self::serve`], with a way to break the stream from outside.
    pub fn serve_cut(
        &self,
        mut read: impl Read,
        mut write: impl Write + Send,
        cut: Cut,
    ) -> io::Result<Left> {
        let Some(heard) = read_hello(&mut read)? else {
            return Ok(Left::Closed);
        };
        if let Err(error) = self.engine.resume(heard) {
            let frame = FromGuest::Failed(error.to_string()).encode(0);
            write.write_all(&frame)?;
            write.flush()?;
            return Err(out_of_step(error));
        }
        let cut = Arc::new(cut);
        let mine = self.take_over(&cut);
        let mut replaced = false;
        let outcome = scope(|scope| {
            let cut_sender = Arc::clone(&cut);
            let sender = Builder::new()
                .name("sender".to_owned())
                .stack_size(STACK)
                .spawn_scoped(scope, move || {
                    let sent = self.send(&mut write, heard, mine);
                    cut_sender();
                    sent
                })?;
            let outcome = self.listen(&mut read, mine);
            replaced = !self.leave(mine);
            cut();
            // What the host said last decides: a stream that broke while it was written to breaks
            // for the reader too.
            sender.join().ok();
            outcome
        });
        match outcome {
            Ok(left) => Ok(left),
            Err(_) if self.engine.has_ended() => Ok(Left::Ended),
            Err(_) if replaced => Ok(Left::Replaced),
            Err(error) => Err(error),
        }
    }

    /// Makes this attachment the one that is served.
    fn take_over(&self, cut: &Arc<Cut>) -> u64 {
        let mut attachments = self.lock();
        let mine = self.newest.fetch_add(1, Ordering::SeqCst) + 1;
        let older = attachments.current.replace(Arc::clone(cut));
        drop(attachments);
        self.engine.nudge();
        if let Some(older) = older {
            older();
        }
        mine
    }

    /// Stops the sender of this attachment. False if a newer one had done so.
    fn leave(&self, mine: u64) -> bool {
        let mut attachments = self.lock();
        let newest = self.is_newest(mine);
        if newest {
            attachments.current = None;
            self.newest.fetch_add(1, Ordering::SeqCst);
        }
        drop(attachments);
        self.engine.nudge();
        newest
    }

    fn cut_current(&self) {
        let current = self.lock().current.take();
        if let Some(cut) = current {
            cut();
        }
    }

    fn is_newest(&self, mine: u64) -> bool {
        self.newest.load(Ordering::SeqCst) == mine
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Attachments> {
        self.attachments
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Delivers frames after `heard` and signs of life until somebody else is served.
    fn send(&self, write: &mut impl Write, heard: u64, mine: u64) -> io::Result<()> {
        if heard > 0 {
            write.write_all(&FromGuest::Opened(self.identity.clone()).encode(0))?;
            write.flush()?;
        }
        let mut next = heard + 1;
        loop {
            let mail = self
                .engine
                .mail(next, BURST, ALIVE_EVERY, || self.is_newest(mine));
            match mail {
                Mail::Over => return Ok(()),
                Mail::Nothing => write.write_all(&self.engine.alive().encode(0))?,
                Mail::Frames(frames) => {
                    next += frames.len() as u64;
                    write.write_all(&frames.concat())?;
                }
            }
            write.flush()?;
        }
    }

    /// Obeys the host until the stream ends.
    fn listen(&self, read: &mut impl Read, mine: u64) -> io::Result<Left> {
        loop {
            let raw = Raw::read(read)?;
            if self.engine.has_ended() {
                return Ok(Left::Ended);
            }
            if !self.is_newest(mine) {
                return Ok(Left::Replaced);
            }
            let Some(raw) = raw else {
                return Ok(Left::Closed);
            };
            match ToGuest::decode(&raw)? {
                ToGuest::Hello { .. } => {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "a second hello on one attachment",
                    ));
                }
                ToGuest::Heard(seq) => self.engine.heard(seq).map_err(out_of_step)?,
                ToGuest::Token(token) => self.engine.token(token),
                ToGuest::Fill => self.engine.fill(),
                ToGuest::Canary => self.engine.canary(),
                ToGuest::Start { rate, batch } => self.engine.run(rate, batch),
                ToGuest::Stop => self.engine.stop(),
                ToGuest::Quit => {
                    self.engine.end();
                    return Ok(Left::Quit);
                }
            }
        }
    }
}

/// The first frame of an attachment, `None` if the host left without one.
fn read_hello(read: &mut impl Read) -> io::Result<Option<u64>> {
    let Some(raw) = Raw::read(read)? else {
        return Ok(None);
    };
    match ToGuest::decode(&raw)? {
        ToGuest::Hello { heard } => Ok(Some(heard)),
        other => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("expected hello as the first frame, saw {other:?}"),
        )),
    }
}

fn out_of_step(error: OutOfStep) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Who the guest and the probe in it are.
pub(super) fn identity(config: &Config, platform: &dyn Platform, volumes: Vec<Opened>) -> Identity {
    Identity {
        incarnation: config.incarnation,
        boot_id: platform.boot_id(),
        machine_id: platform.machine_id(),
        pid: platform.pid(),
        volumes,
    }
}

/// The regions of a volume: fitted to the size that it was filled at, if that is known.
pub(super) fn fit(
    volume: &Volume,
    config: &Config,
    disk: &dyn Disk,
) -> Result<Layout, super::layout::TooSmall> {
    let cells = volume.cells.unwrap_or_else(|| disk.size() / CELL as u64);
    Layout::fit(cells, &config.layout)
}

/// Where file systems, partition tables and volume managers leave their marks: the first 68 KiB.
const MARKS: usize = 17;

/// Refuses a device that holds anything but zeros or a ledger where a ledger will be written.
fn refuse_strangers(disk: &dyn Disk) -> Result<(), OpenError> {
    let cells = usize::try_from(disk.size() / CELL as u64).unwrap_or(usize::MAX);
    let mut buffer = super::buffer::Aligned::new(MARKS.min(cells));
    disk.read_at(0, buffer.bytes_mut())
        .map_err(|error| OpenError::io("reading its first cells", error))?;
    let stranger = buffer
        .bytes()
        .as_chunks::<CELL>()
        .0
        .iter()
        .position(|cell| {
            cell.iter().any(|&byte| byte != 0)
                && super::cell::Header::decode(cell).is_none()
                && super::lease::Stamp::decode(cell).is_none()
        });
    match stranger {
        Some(cell) => Err(OpenError::new(format!(
            "cell {cell} holds data that is no ledger, so this may be somebody's disk; blank it if it is not"
        ))),
        None => Ok(()),
    }
}
