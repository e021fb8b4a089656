//! One TCP connection of the gateway to the guest and the byte stream that stands for it.
//!
//! Contract: bytes, ends of either direction and resets go both ways. The client's side is a bounded
//! pipe, the guest's side a TCP socket, so whoever reads slowly slows the other down. Nothing here
//! waits: [`Stream::pump`] does what can be done now and leaves a waker for the rest.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{Socket, State};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::neighbour::{Neighbour, STALE};
use crate::lab::qemu::net::Dial;

/// How much the pipe to a client holds in each direction.
const PIPE: usize = 64 * 1024;
/// A connection that no client holds any more is reset when nothing moved for so long, as Linux does
/// with orphans (`tcp_fin_timeout`, tcp(7)).
const ORPHAN: Duration = Duration::from_mins(1);

/// Who gets the stream when it is made.
pub(crate) type Reply = oneshot::Sender<Result<DuplexStream, Dial>>;

/// One connection.
pub(super) struct Stream {
    pub(super) handle: SocketHandle,
    /// Epoch of the wire in which it was asked for.
    pub(super) epoch: u64,
    phase: Phase,
}

enum Phase {
    Dialling(Dialling),
    Open(Open),
    Over,
}

struct Dialling {
    reply: Reply,
    started: Instant,
    deadline: Instant,
    /// The guest's hardware address was asked for again, because it did not react.
    doubted: bool,
}

struct Open {
    client: DuplexStream,
    /// The client sends no more.
    client_done: bool,
    /// The guest sends no more, and the client was told.
    guest_done: bool,
    orphan: Option<Orphan>,
}

/// A connection that its client left to itself.
struct Orphan {
    queued: usize,
    since: Instant,
}

impl Stream {
    pub(super) fn dial(
        handle: SocketHandle,
        epoch: u64,
        reply: Reply,
        started: Instant,
        deadline: Instant,
    ) -> Self {
        let dialling = Dialling {
            reply,
            started,
            deadline,
            doubted: false,
        };
        Self {
            handle,
            epoch,
            phase: Phase::Dialling(dialling),
        }
    }

    /// Whether nobody waits for this connection any more.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }

    /// Whether it is still being made.
    pub(super) fn is_dialling(&self) -> bool {
        matches!(self.phase, Phase::Dialling(_))
    }

    /// Ends it on both sides: the guest gets a reset, the client the end of the stream, or `why` if
    /// it still waits for it.
    pub(super) fn end(&mut self, socket: &mut Socket<'_>, why: Dial) {
        socket.abort();
        if let Phase::Dialling(dialling) = std::mem::replace(&mut self.phase, Phase::Over) {
            // A caller that went away needs no answer.
            dialling.reply.send(Err(why)).ok();
        }
    }

    /// Moves what can be moved; whether anything was.
    pub(super) fn pump(&mut self, cx: &mut Context<'_>, socket: &mut Socket<'_>) -> bool {
        match &mut self.phase {
            Phase::Dialling(dialling) => {
                let gone = dialling.reply.poll_closed(cx).is_ready();
                match socket.state() {
                    State::Closed => self.end(socket, Dial::Refused),
                    _ if gone => self.end(socket, Dial::TimedOut),
                    State::SynSent | State::SynReceived => return false,
                    _ => self.open(),
                }
                true
            }
            Phase::Open(open) => {
                let moved = open.pump(cx, socket);
                if open.is_over(socket) {
                    self.phase = Phase::Over;
                    return true;
                }
                moved
            }
            Phase::Over => false,
        }
    }

    fn open(&mut self) {
        let (near, client) = tokio::io::duplex(PIPE);
        let open = Phase::Open(Open {
            client,
            client_done: false,
            guest_done: false,
            orphan: None,
        });
        if let Phase::Dialling(dialling) = std::mem::replace(&mut self.phase, open) {
            // If the caller went away, its end of the pipe is dropped, which closes the connection.
            dialling.reply.send(Ok(near)).ok();
        }
    }

    /// When [`Stream::check`] has to be called at the latest.
    pub(super) fn due(&self, neighbour: &Neighbour) -> Option<Instant> {
        match &self.phase {
            Phase::Dialling(dialling) => {
                let doubt = (!dialling.doubted).then(|| dialling.started + STALE);
                let given_up = neighbour.given_up(dialling.started);
                [Some(dialling.deadline), doubt, given_up]
                    .into_iter()
                    .flatten()
                    .min()
            }
            Phase::Open(open) => open.orphan.as_ref().map(|orphan| orphan.since + ORPHAN),
            Phase::Over => None,
        }
    }

    /// Ends what has waited too long. Whether the guest's hardware address is in doubt and has to be
    /// asked for again.
    pub(super) fn check(
        &mut self,
        socket: &mut Socket<'_>,
        neighbour: &Neighbour,
        now: Instant,
    ) -> bool {
        match &mut self.phase {
            Phase::Dialling(dialling) => {
                if neighbour
                    .given_up(dialling.started)
                    .is_some_and(|at| at <= now)
                {
                    self.end(socket, Dial::NoRoute);
                } else if dialling.deadline <= now {
                    let unanswered = neighbour.is_asked();
                    self.end(
                        socket,
                        if unanswered {
                            Dial::NoRoute
                        } else {
                            Dial::TimedOut
                        },
                    );
                } else if !dialling.doubted && dialling.started + STALE <= now {
                    dialling.doubted = true;
                    return !neighbour.heard_since(dialling.started);
                }
            }
            Phase::Open(open) => {
                if open
                    .orphan
                    .as_ref()
                    .is_some_and(|orphan| orphan.since + ORPHAN <= now)
                {
                    self.end(socket, Dial::TimedOut);
                }
            }
            Phase::Over => {}
        }
        false
    }
}

impl Open {
    fn pump(&mut self, cx: &mut Context<'_>, socket: &mut Socket<'_>) -> bool {
        let sent = self.send(cx, socket);
        let received = self.deliver(cx, socket);
        self.watch_orphan(cx, socket);
        sent || received
    }

    fn send(&mut self, cx: &mut Context<'_>, socket: &mut Socket<'_>) -> bool {
        let mut moved = false;
        while !self.client_done && socket.can_send() {
            let client = Pin::new(&mut self.client);
            let read = socket.send(|space| {
                let mut buffer = ReadBuf::new(space);
                let read = client.poll_read(cx, &mut buffer);
                let filled = buffer.filled().len();
                (filled, read.map_ok(|()| filled))
            });
            match read {
                Ok(Poll::Pending) | Err(_) => break,
                Ok(Poll::Ready(Ok(n))) if n > 0 => {}
                Ok(Poll::Ready(_)) => {
                    self.client_done = true;
                    socket.close();
                }
            }
            moved = true;
        }
        moved
    }

    fn deliver(&mut self, cx: &mut Context<'_>, socket: &mut Socket<'_>) -> bool {
        let mut moved = false;
        while socket.can_recv() {
            let client = Pin::new(&mut self.client);
            let written = socket.recv(|bytes| {
                let written = client.poll_write(cx, bytes);
                let n = if let Poll::Ready(Ok(n)) = written {
                    n
                } else {
                    0
                };
                (n, written)
            });
            match written {
                Ok(Poll::Pending) | Err(_) => break,
                Ok(Poll::Ready(Ok(_))) => {}
                Ok(Poll::Ready(Err(_))) => {
                    // Nobody will ever read what the guest sends: that is a reset.
                    socket.abort();
                    self.guest_done = true;
                    return true;
                }
            }
            moved = true;
        }
        if !socket.may_recv() && !self.guest_done {
            self.guest_done = Pin::new(&mut self.client).poll_shutdown(cx).is_ready();
            moved |= self.guest_done;
        }
        moved
    }

    /// Whether nothing is left to be done for the client.
    fn is_over(&self, socket: &Socket<'_>) -> bool {
        self.guest_done && matches!(socket.state(), State::Closed | State::TimeWait)
    }

    /// An orphan's time starts anew whenever the guest takes bytes.
    fn watch_orphan(&mut self, cx: &mut Context<'_>, socket: &Socket<'_>) {
        if !self.client_done || (!self.guest_done && !self.client_is_gone(cx)) {
            return;
        }
        let queued = socket.send_queue();
        if self
            .orphan
            .as_ref()
            .is_none_or(|orphan| orphan.queued != queued)
        {
            let since = Instant::now();
            self.orphan = Some(Orphan { queued, since });
        }
    }

    /// Writing nothing to a pipe fails if and only if its reader is gone.
    fn client_is_gone(&mut self, cx: &mut Context<'_>) -> bool {
        matches!(
            Pin::new(&mut self.client).poll_write(cx, &[]),
            Poll::Ready(Err(_))
        )
    }
}
