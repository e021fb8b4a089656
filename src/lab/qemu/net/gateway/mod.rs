//! The gateway of a segment: the other end of everything the lab says to the guest.
//!
//! Contract: one task owns smoltcp's interface and all its sockets. It sleeps until a frame, a
//! client's byte, an order, a change of the link or a timer wakes it, and polls nothing meanwhile.
//! When it ends, all its streams end.

mod device;
mod echo;
mod neighbour;
mod reach;
mod silence;
mod stream;
mod streams;
mod uplink;

use std::future::poll_fn;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use bytes::Bytes;
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::wire::{HardwareAddress, IpCidr};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::frame::Frame;
use super::link::{Link, Wire};
use super::switch::Switch;
use super::{GATEWAY, GATEWAY_MAC, PREFIX};
use crate::lab::guest::Dial;
pub(super) use device::Device;
pub use echo::EchoMonitor;
use echo::Echoes;
pub(super) use echo::Watch;
use neighbour::{Neighbour, question};
use reach::Waiters;
pub(super) use reach::{Unanswered, Waiter};
pub use silence::{Answer, EchoReport, Silence};
pub(super) use streams::Order;
use streams::Streams;
use uplink::Uplink;

/// What a gateway is asked to do.
pub(super) enum Command {
    Dial(Order),
    Echo(Watch),
    Reach(Waiter),
}

/// Time as smoltcp counts it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    start: Instant,
}

impl Clock {
    pub(super) fn new() -> Self {
        let start = Instant::now();
        Self { start }
    }

    pub(super) fn stack(&self, at: Instant) -> smoltcp::time::Instant {
        let micros = at.duration_since(self.start).as_micros();
        smoltcp::time::Instant::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
    }

    pub(super) fn wall(&self, at: smoltcp::time::Instant) -> Instant {
        let micros = u64::try_from(at.total_micros()).unwrap_or(0);
        self.start + std::time::Duration::from_micros(micros)
    }
}

/// A gateway, to be [run](Gateway::run).
pub(super) struct Gateway {
    clock: Clock,
    iface: Interface,
    device: Device,
    sockets: SocketSet<'static>,
    uplink: Uplink,
    neighbour: Neighbour,
    streams: Streams,
    echoes: Echoes,
    waiters: Waiters,
    epoch: u64,
}

impl Gateway {
    pub(super) fn new(switch: Arc<Switch>, wire: Wire) -> Self {
        let clock = Clock::new();
        let mut config = Config::new(HardwareAddress::Ethernet(GATEWAY_MAC));
        // First sequence numbers differ from run to run; nobody has to be kept from guessing them.
        config.random_seed = RandomState::new().hash_one(GATEWAY);
        let mut device = Device::default();
        let mut iface = Interface::new(config, &mut device, clock.stack(clock.start));
        iface.update_ip_addrs(|addresses| {
            // The list is empty and has room for two.
            addresses.push(IpCidr::new(GATEWAY.into(), PREFIX)).ok();
        });
        Self {
            clock,
            iface,
            device,
            sockets: SocketSet::new(Vec::new()),
            uplink: Uplink::new(switch, wire.link),
            neighbour: Neighbour::default(),
            streams: Streams::new(),
            echoes: Echoes::default(),
            waiters: Waiters::default(),
            epoch: wire.epoch,
        }
    }

    /// Works until it is stopped or nobody can ask for anything any more.
    pub(super) async fn run(
        mut self,
        mut wire: watch::Receiver<Wire>,
        mut commands: mpsc::UnboundedReceiver<Command>,
        stop: CancellationToken,
    ) {
        let mut burst = Vec::new();
        loop {
            let due = self.turn(Instant::now());
            tokio::select! {
                () = stop.cancelled() => return,
                changed = wire.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let now = *wire.borrow_and_update();
                    self.rewire(now);
                }
                command = commands.recv() => {
                    let Some(command) = command else { return };
                    self.obey(command, Instant::now());
                }
                () = self.uplink.receive(&mut burst) => self.take(&mut burst, Instant::now()),
                () = poll_fn(|cx| self.streams.poll(cx, &mut self.sockets)) => {}
                () = reached(due) => {}
            }
        }
    }

    /// Everything that can be done now. When the next turn has to be at the latest.
    fn turn(&mut self, now: Instant) -> Option<Instant> {
        self.echoes.ask(&mut self.sockets, now);
        if self.streams.check(&mut self.sockets, &self.neighbour, now) {
            self.forget_neighbour();
        }
        if self.waiters.ask(&self.neighbour, now) {
            self.ask_for_guest();
        }
        let at = self.clock.stack(now);
        self.iface.poll(at, &mut self.device, &mut self.sockets);
        while let Some(frame) = self.device.take_sent() {
            // A question that has to wait is not asked yet; smoltcp repeats it.
            if self.uplink.link() != Link::Stalled {
                self.neighbour.sent(&frame, now);
            }
            self.uplink.send(frame);
        }
        self.echoes.hear(&mut self.sockets, now);
        self.streams.reclaim(&mut self.sockets);
        let stack = self.iface.poll_at(at, &self.sockets);
        let dues = [
            stack.map(|due| self.clock.wall(due)),
            self.echoes.due(),
            self.streams.due(&self.neighbour),
            self.waiters.due(),
        ];
        dues.into_iter().flatten().min()
    }

    fn take(&mut self, burst: &mut Vec<Frame>, now: Instant) {
        for frame in burst.drain(..) {
            self.neighbour.received(&frame, now);
            self.device.receive(frame);
        }
    }

    fn rewire(&mut self, wire: Wire) {
        let Wire { link, epoch } = wire;
        if link == Link::Silent {
            self.streams.end_dialling(&mut self.sockets, Dial::NoRoute);
            self.forget_neighbour();
        }
        if epoch != self.epoch {
            self.epoch = epoch;
            self.streams
                .end_before(epoch, &mut self.sockets, Dial::Refused);
        }
        if link != self.uplink.link() {
            self.uplink.set(link);
        }
    }

    fn obey(&mut self, command: Command, now: Instant) {
        match command {
            Command::Dial(order) if order.epoch < self.epoch => {
                // The link was closed after the caller asked, whose answer may be gone as well.
                order.reply.send(Err(Dial::Refused)).ok();
            }
            Command::Dial(order) => {
                if self.neighbour.is_stale(now) {
                    self.forget_neighbour();
                }
                self.streams
                    .dial(order, &mut self.iface, &mut self.sockets, now);
            }
            Command::Echo(watch) => self.echoes.watch(watch, &mut self.sockets, now),
            Command::Reach(waiter) => self.waiters.add(waiter, now),
        }
    }

    /// Makes smoltcp ask for the guest's hardware address before it sends the next packet.
    fn forget_neighbour(&mut self) {
        // smoltcp empties its neighbour cache whenever its own addresses may have changed.
        self.iface.update_ip_addrs(|_| {});
    }

    fn ask_for_guest(&mut self) {
        match Frame::new(Bytes::from(question())) {
            Ok(frame) => self.uplink.send(frame),
            Err(error) => tracing::error!(%error, "the gateway's question is no frame"),
        }
    }
}

/// Waits for an instant; without one, forever.
async fn reached(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
