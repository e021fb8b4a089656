//! Echo viewpoints: ICMP echo requests to the guest at a steady pace (RFC 792).
//!
//! Contract: a monitor asks until its handle stops or is dropped. Each request carries its number and
//! its time, so an answer needs no table. A request that cannot leave is one that is not answered.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::icmp::{Endpoint, PacketBuffer, PacketMetadata, Socket};
use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr, IpAddress};
use tokio::time::Instant;

use super::silence::{EchoReport, Record};
use crate::lab::qemu::net::GUEST;

/// Packets that wait in a socket in either direction.
const PACKETS: usize = 128;
/// Room for one of them: eight bytes of header and the payload.
const PACKET: usize = 8 + PAYLOAD;
/// The number of the request, then microseconds since the monitor started, both in network order.
const PAYLOAD: usize = 16;

/// Somebody who asks the guest for echoes and takes notes.
#[derive(Debug)]
pub struct EchoMonitor {
    record: Arc<Mutex<Record>>,
}

impl EchoMonitor {
    /// A monitor for the gateway to run, and its handle.
    pub(crate) fn new(every: Duration) -> (Self, Watch) {
        let record = Arc::<Mutex<Record>>::default();
        let watch = Watch {
            record: Arc::downgrade(&record),
            every,
        };
        (Self { record }, watch)
    }

    /// Ends the monitor and returns what it saw.
    pub fn stop(self) -> EchoReport {
        let record = std::mem::take(&mut *lock(&self.record));
        record.report(Instant::now())
    }
}

/// A monitor on its way to the gateway.
#[derive(Debug)]
pub(crate) struct Watch {
    record: Weak<Mutex<Record>>,
    every: Duration,
}

fn lock(record: &Mutex<Record>) -> MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Monitor {
    watch: Watch,
    handle: SocketHandle,
    ident: u16,
    started: Instant,
    due: Instant,
}

/// The monitors of a gateway.
#[derive(Default)]
pub(super) struct Echoes {
    monitors: Vec<Monitor>,
    idents: u16,
}

impl Echoes {
    /// Begins a monitor.
    pub(super) fn watch(&mut self, watch: Watch, sockets: &mut SocketSet<'static>, now: Instant) {
        self.idents = self.idents.wrapping_add(1);
        let buffer = || {
            let room = vec![0; PACKETS * PACKET];
            PacketBuffer::new(vec![PacketMetadata::EMPTY; PACKETS], room)
        };
        let mut socket = Socket::new(buffer(), buffer());
        if let Err(error) = socket.bind(Endpoint::Ident(self.idents)) {
            tracing::error!(%error, "an echo monitor cannot be started");
            return;
        }
        self.monitors.push(Monitor {
            watch,
            handle: sockets.add(socket),
            ident: self.idents,
            started: now,
            due: now,
        });
    }

    /// When the next request is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.monitors.iter().map(|monitor| monitor.due).min()
    }

    /// Makes the requests that are due. Forgets the monitors whose handle is gone.
    pub(super) fn ask(&mut self, sockets: &mut SocketSet<'_>, now: Instant) {
        self.monitors.retain_mut(|monitor| {
            if monitor.due > now {
                return true;
            }
            let Some(record) = monitor.watch.record.upgrade() else {
                sockets.remove(monitor.handle);
                return false;
            };
            monitor.ask(&mut lock(&record), sockets.get_mut(monitor.handle), now);
            true
        });
    }

    /// Takes note of the answers that have come.
    pub(super) fn hear(&mut self, sockets: &mut SocketSet<'_>, now: Instant) {
        for monitor in &self.monitors {
            let socket = sockets.get_mut::<Socket<'_>>(monitor.handle);
            while let Ok((packet, from)) = socket.recv() {
                let Some((number, asked)) = read(packet).filter(|_| from == IpAddress::from(GUEST))
                else {
                    continue;
                };
                let asked = monitor.started.checked_add(Duration::from_micros(asked));
                let Some(asked) = asked.filter(|asked| *asked <= now) else {
                    continue;
                };
                if let Some(record) = monitor.watch.record.upgrade() {
                    lock(&record).answer(number, asked, now);
                }
            }
        }
    }
}

impl Monitor {
    fn ask(&mut self, record: &mut Record, socket: &mut Socket<'_>, now: Instant) {
        let number = record.ask(self.due, now);
        // A late request is not made up for: two at once would tell no more than one.
        self.due = (self.due + self.watch.every).max(now + self.watch.every / 2);
        let asked = now.duration_since(self.started).as_micros();
        let mut payload = [0; PAYLOAD];
        payload[..8].copy_from_slice(&number.to_be_bytes());
        payload[8..].copy_from_slice(&u64::try_from(asked).unwrap_or(u64::MAX).to_be_bytes());
        let [.., high, low] = number.to_be_bytes();
        let seq_no = u16::from_be_bytes([high, low]);
        let request = Icmpv4Repr::EchoRequest {
            ident: self.ident,
            seq_no,
            data: &payload,
        };
        match socket.send(request.buffer_len(), GUEST.into()) {
            Ok(room) => request.emit(
                &mut Icmpv4Packet::new_unchecked(room),
                &ChecksumCapabilities::default(),
            ),
            Err(error) => tracing::trace!(%error, number, "an echo request was not sent"),
        }
    }
}

/// Number and time of the request that a packet answers.
fn read(packet: &[u8]) -> Option<(u64, u64)> {
    let packet = Icmpv4Packet::new_checked(packet).ok()?;
    let Ok(Icmpv4Repr::EchoReply { data, .. }) =
        Icmpv4Repr::parse(&packet, &ChecksumCapabilities::default())
    else {
        return None;
    };
    let (number, rest) = data.split_first_chunk::<8>()?;
    let (asked, rest) = rest.split_first_chunk::<8>()?;
    rest.is_empty()
        .then_some((u64::from_be_bytes(*number), u64::from_be_bytes(*asked)))
}
