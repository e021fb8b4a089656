//! All TCP connections of a gateway: their ports, their sockets and the end of both.
//!
//! Contract: a socket goes when both sides are done with it. At most [`LEAVING`] that only wait for
//! late segments (TIME-WAIT) or for the guest's hardware address are kept, oldest out first, so a
//! sequence of short connections does not pile up.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::task::{Context, Poll};

use smoltcp::iface::{Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use tokio::time::Instant;

use super::neighbour::Neighbour;
use super::stream::{Reply, Stream};
use crate::lab::qemu::net::{Dial, GATEWAY, GUEST};

/// Bytes that a socket holds in each direction, which bounds the TCP window.
const WINDOW: usize = 256 * 1024;
/// How many connections are made at once; half a gigabyte of windows. More are refused.
const LIVE: usize = 1024;
/// How many sockets without a client are kept.
const LEAVING: usize = 32;
/// The dynamic ports (RFC 6335), used one after the other, so that none comes again soon.
const PORTS: RangeInclusive<u16> = 49152..=65535;

/// A connection to be made.
pub(crate) struct Order {
    /// Port of the guest.
    pub(crate) port: u16,
    pub(crate) deadline: Instant,
    /// Epoch of the wire when it was asked for.
    pub(crate) epoch: u64,
    pub(crate) reply: Reply,
}

/// The connections.
pub(super) struct Streams {
    live: Vec<Stream>,
    leaving: VecDeque<SocketHandle>,
    next_port: u16,
}

impl Streams {
    pub(super) fn new() -> Self {
        Self {
            live: Vec::new(),
            leaving: VecDeque::new(),
            next_port: *PORTS.start(),
        }
    }

    /// Begins to dial.
    pub(super) fn dial(
        &mut self,
        order: Order,
        iface: &mut Interface,
        sockets: &mut SocketSet<'static>,
        now: Instant,
    ) {
        if self.live.len() >= LIVE {
            tracing::warn!(
                port = order.port,
                "{LIVE} connections to a guest are open: no more"
            );
            order.reply.send(Err(Dial::Refused)).ok();
            return;
        }
        let local = (GATEWAY, self.port(sockets));
        let mut socket = Socket::new(
            SocketBuffer::new(vec![0; WINDOW]),
            SocketBuffer::new(vec![0; WINDOW]),
        );
        socket.set_nagle_enabled(false);
        // Port 0 is the only address that cannot be dialled; Linux refuses it as well.
        if let Err(error) = socket.connect(iface.context(), (GUEST, order.port), local) {
            tracing::debug!(%error, port = order.port, "a guest's port cannot be dialled");
            order.reply.send(Err(Dial::Refused)).ok();
            return;
        }
        let handle = sockets.add(socket);
        let stream = Stream::dial(handle, order.epoch, order.reply, now, order.deadline);
        self.live.push(stream);
    }

    /// The next port that no socket uses; there are more ports than sockets.
    fn port(&mut self, sockets: &SocketSet<'_>) -> u16 {
        loop {
            let port = self.next_port;
            self.next_port = if port == *PORTS.end() {
                *PORTS.start()
            } else {
                port + 1
            };
            if !self.handles().any(|handle| {
                let local = sockets.get::<Socket<'_>>(handle).local_endpoint();
                local.is_some_and(|local| local.port == port)
            }) {
                return port;
            }
        }
    }

    fn handles(&self) -> impl Iterator<Item = SocketHandle> {
        let live = self.live.iter().map(|stream| stream.handle);
        live.chain(self.leaving.iter().copied())
    }

    /// Ends the streams of older epochs.
    pub(super) fn end_before(&mut self, epoch: u64, sockets: &mut SocketSet<'_>, why: Dial) {
        for stream in self.live.iter_mut().filter(|s| s.epoch < epoch) {
            stream.end(sockets.get_mut(stream.handle), why);
        }
    }

    /// Ends the attempts that are under way.
    pub(super) fn end_dialling(&mut self, sockets: &mut SocketSet<'_>, why: Dial) {
        for stream in self.live.iter_mut().filter(|s| s.is_dialling()) {
            stream.end(sockets.get_mut(stream.handle), why);
        }
    }

    /// Moves bytes between clients and sockets. Ready when something moved, so that the stack has
    /// to be polled.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, sockets: &mut SocketSet<'_>) -> Poll<()> {
        let mut moved = false;
        for stream in &mut self.live {
            moved |= stream.pump(cx, sockets.get_mut(stream.handle));
        }
        if moved {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// When [`Streams::check`] has to be called at the latest.
    pub(super) fn due(&self, neighbour: &Neighbour) -> Option<Instant> {
        let dues = self.live.iter().filter_map(|stream| stream.due(neighbour));
        dues.min()
    }

    /// Ends what has waited too long. Whether the guest's hardware address has to be asked for again.
    pub(super) fn check(
        &mut self,
        sockets: &mut SocketSet<'_>,
        neighbour: &Neighbour,
        now: Instant,
    ) -> bool {
        let mut doubt = false;
        for stream in &mut self.live {
            doubt |= stream.check(sockets.get_mut(stream.handle), neighbour, now);
        }
        doubt
    }

    /// Lets go of the sockets that are done. To be called after the stack was polled, so that their
    /// resets have left.
    pub(super) fn reclaim(&mut self, sockets: &mut SocketSet<'_>) {
        for over in self.live.extract_if(.., |stream| stream.is_over()) {
            self.leaving.push_back(over.handle);
        }
        self.leaving.retain(|handle| {
            let socket = sockets.get::<Socket<'_>>(*handle);
            let kept = socket.state() != State::Closed || socket.remote_endpoint().is_some();
            if !kept {
                sockets.remove(*handle);
            }
            kept
        });
        while self.leaving.len() > LEAVING {
            if let Some(oldest) = self.leaving.pop_front() {
                sockets.remove(oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use smoltcp::iface::Config;
    use smoltcp::wire::{HardwareAddress, IpCidr};
    use tokio::sync::oneshot;

    use super::*;
    use crate::lab::qemu::net::GATEWAY_MAC;
    use crate::lab::qemu::net::gateway::{Clock, Device};

    #[tokio::test(start_paused = true)]
    async fn sockets_are_reclaimed_and_ports_are_not_used_again_soon() {
        let (clock, mut device) = (Clock::new(), Device::default());
        let config = Config::new(HardwareAddress::Ethernet(GATEWAY_MAC));
        let now = Instant::now();
        let mut iface = Interface::new(config, &mut device, clock.stack(now));
        iface.update_ip_addrs(|a| a.push(IpCidr::new(GATEWAY.into(), 24)).unwrap());
        let mut sockets = SocketSet::new(Vec::new());
        let mut streams = Streams::new();
        let mut ports = Vec::new();
        for _ in 0..100 {
            let (reply, mut answer) = oneshot::channel();
            let order = Order {
                port: 22,
                deadline: now,
                epoch: 0,
                reply,
            };
            streams.dial(order, &mut iface, &mut sockets, now);
            let handle = streams.live[0].handle;
            ports.extend(sockets.get::<Socket<'_>>(handle).local_endpoint());
            // The guest does not answer ARP, so the resets never leave.
            streams.end_before(1, &mut sockets, Dial::Refused);
            assert_eq!(answer.try_recv().unwrap().unwrap_err(), Dial::Refused);
            iface.poll(clock.stack(now), &mut device, &mut sockets);
            streams.reclaim(&mut sockets);
            assert!(streams.live.is_empty());
        }
        assert_eq!(sockets.iter().count(), LEAVING);
        ports.dedup();
        assert!(ports.len() == 100 && ports.is_sorted());
        streams.next_port = *PORTS.end();
        assert_eq!(streams.port(&sockets), *PORTS.end());
        assert_eq!(streams.port(&sockets), *PORTS.start());
        streams.next_port = PORTS.start() + 70;
        assert_eq!(streams.port(&sockets), PORTS.start() + 100);
    }
}
