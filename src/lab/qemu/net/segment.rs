//! A segment as the lab sees it: opens, dials the guest, cuts and stalls its link, watches it.
//!
//! Contract: the socket is there as soon as [`Segment::open`] returns and gone when the segment is
//! dropped; so are its ports, its gateway and their streams.

use std::io::ErrorKind::NotFound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::error::{SegmentError, Unheard};
use super::gateway::{Command, EchoMonitor, Gateway, Order, Unanswered, Waiter};
use super::link::{Link, Wire};
use super::port;
use super::switch::Switch;
use crate::lab::guest::Dial;

/// The network of one guest.
#[derive(Debug)]
pub struct Segment {
    socket: Socket,
    wire: watch::Sender<Wire>,
    commands: mpsc::UnboundedSender<Command>,
    pub(super) ports: Ports,
}

/// What makes ports: the switch, and where their tasks belong.
#[derive(Debug, Clone)]
pub(super) struct Ports {
    switch: Arc<Switch>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// A socket file, which goes with its segment.
#[derive(Debug)]
struct Socket(PathBuf);

impl Drop for Socket {
    fn drop(&mut self) {
        let removed = std::fs::remove_file(&self.0);
        // Its directory may be gone already.
        if let Err(error) = removed.or_else(|e| if e.kind() == NotFound { Ok(()) } else { Err(e) })
        {
            tracing::warn!(%error, path = %self.0.display(), "a socket was not removed");
        }
    }
}

impl Segment {
    /// Opens a segment on a new Unix socket; the link is up. Ends with `stop` at the latest. Must be
    /// called within a Tokio runtime.
    pub fn open(path: &Path, stop: &CancellationToken) -> Result<Self, SegmentError> {
        let listener = UnixListener::bind(path).map_err(|why| SegmentError::Socket {
            path: path.to_owned(),
            why,
        })?;
        let ports = Ports {
            switch: Arc::default(),
            stop: stop.child_token(),
            tasks: TaskTracker::new(),
        };
        let (commands, orders) = mpsc::unbounded_channel();
        let (wire, wired) = watch::channel(Wire::new());
        let gateway = Gateway::new(Arc::clone(&ports.switch), *wired.borrow());
        let gateway = gateway.run(wired, orders, ports.stop.clone());
        ports.tasks.spawn(gateway);
        ports.tasks.spawn(ports.clone().accept(listener));
        Ok(Self {
            socket: Socket(path.to_owned()),
            wire,
            commands,
            ports,
        })
    }

    /// Where QEMU connects to.
    pub fn socket(&self) -> &Path {
        &self.socket.0
    }

    /// The value of QEMU's `-netdev` for a network card on this segment. The two QEMUs of a live
    /// migration get the same.
    pub fn netdev(&self, id: &str) -> String {
        // A comma in a value is written twice (QEMU, util/qemu-option.c).
        let path = self.socket.0.display().to_string().replace(',', ",,");
        format!("stream,id={id},server=off,addr.type=unix,addr.path={path}")
    }

    /// Opens a TCP connection to a port of the guest. Without an operating system that answers ARP
    /// it fails after three seconds or at the deadline, whichever is sooner; a stalled guest keeps
    /// the caller waiting until the deadline.
    pub async fn connect(&self, port: u16, deadline: Instant) -> Result<DuplexStream, Dial> {
        let Wire { link, epoch } = *self.wire.borrow();
        match link {
            Link::Silent => return Err(Dial::NoRoute),
            Link::Closed => return Err(Dial::Refused),
            Link::Up | Link::Stalled => {}
        }
        let (reply, answer) = oneshot::channel();
        let order = Command::Dial(Order {
            port,
            deadline,
            epoch,
            reply,
        });
        if self.commands.send(order).is_err() {
            return Err(Dial::NoRoute);
        }
        // A gateway that stopped meanwhile leads nowhere.
        answer.await.unwrap_or(Err(Dial::NoRoute))
    }

    /// Ends all streams at once on both sides, as when the address of the guest changed; new ones
    /// can be made at once. A live migration with KubeVirt's masquerade binding has this effect, one
    /// with a bridge has not.
    pub fn drop_streams(&self) {
        self.wire.send_modify(Wire::drop_streams);
    }

    /// What a peer notices now.
    pub fn link(&self) -> Link {
        self.wire.borrow().link
    }

    /// Brings the link up, stalls it, silences it or closes it with all its streams.
    pub fn set_link(&self, link: Link) {
        self.wire.send_modify(|wire| wire.set(link));
    }

    /// Asks the guest for an ICMP echo `every` so often (milliseconds are the resolution), until the
    /// monitor is stopped or dropped.
    pub fn echo(&self, every: Duration) -> EchoMonitor {
        let (monitor, watch) = EchoMonitor::new(every.max(Duration::from_millis(1)));
        if self.commands.send(Command::Echo(watch)).is_err() {
            tracing::debug!("an echo monitor watches a segment that has ended");
        }
        monitor
    }

    /// Waits until the guest is heard: an answer to ARP or any IPv4 packet.
    pub async fn reachable(&self, deadline: Instant) -> Result<(), Unheard> {
        let since = Instant::now();
        let (reply, answer) = oneshot::channel();
        let waiter = Waiter {
            since,
            deadline,
            reply,
        };
        // A segment that has ended drops the waiter, which ends the wait as well.
        self.commands.send(Command::Reach(waiter)).ok();
        let found = answer.await.unwrap_or_else(|_| {
            Err(Unanswered {
                waited: since.elapsed(),
                asked: 0,
                heard: None,
            })
        });
        found.map_err(|unanswered| Unheard {
            waited: unanswered.waited,
            asked: unanswered.asked,
            ports: self.ports(),
            heard: unanswered.heard,
        })
    }

    /// How many QEMU processes are connected.
    pub fn ports(&self) -> usize {
        // One port is the gateway's.
        self.ports.switch.ports().saturating_sub(1)
    }

    /// How many frames were dropped for want of room since the segment was opened.
    pub fn dropped(&self) -> u64 {
        self.ports.switch.dropped()
    }

    /// Ends the segment and waits until its tasks are gone.
    pub async fn close(self) {
        self.ports.stop.cancel();
        self.ports.tasks.close();
        self.ports.tasks.wait().await;
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.ports.stop.cancel();
    }
}

impl Ports {
    /// Plugs in every QEMU that connects.
    async fn accept(self, listener: UnixListener) {
        loop {
            let accepted = tokio::select! {
                () = self.stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((socket, _)) => self.plug_in(socket),
                Err(error) => {
                    // Going on would spin if descriptors ran out. QEMU is refused from now on and
                    // says so.
                    tracing::error!(%error, "a segment takes no more QEMUs");
                    return;
                }
            }
        }
    }

    /// Plugs in one end of a stream of frames.
    pub(super) fn plug_in(&self, frames: impl AsyncRead + AsyncWrite + Send + 'static) {
        let (plug, queue) = self.switch.plug();
        let port = port::serve(frames, plug, queue, self.stop.clone());
        self.tasks.spawn(port);
    }
}
