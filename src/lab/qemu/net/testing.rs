//! A guest for the tests: its own TCP/IP stack behind QEMU's framing, over any byte stream.

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep_until;
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use super::frame::{Frame, codec};
use super::gateway::{Clock, Device};
use super::{GUEST, PREFIX, Segment};

/// Hardware address of the guest.
pub(super) const MAC: EthernetAddress = EthernetAddress([0x52, 0x54, 0, 0, 0, 1]);
/// Port that gives back what it gets and closes when its peer does.
pub(super) const ECHO: u16 = 7;
/// Port that takes bytes, if it is told to read.
pub(super) const DISCARD: u16 = 9;
/// Port that waits for the end of what its peer sends and then says how many bytes that were.
pub(super) const COUNT: u16 = 13;
/// Port that sends [`STREAM`] bytes of [`pattern`] and closes.
pub(super) const CHARGEN: u16 = 19;
/// Port that resets a connection once it gets a byte.
pub(super) const RESET: u16 = 5;
/// Port where nobody listens.
pub(super) const CLOSED: u16 = 4;
/// Bytes that [`CHARGEN`] sends.
pub(super) const STREAM: usize = 4 * 1024 * 1024;

/// How many sockets listen on each port, the connections that the guest can take at once.
const BACKLOG: usize = 64;
const BUFFER: usize = 64 * 1024;

/// Byte `at` of a stream that shows loss, doubling and disorder.
pub(super) fn pattern(at: usize) -> u8 {
    u8::try_from((at % 251) ^ (at / 4093 % 256)).unwrap()
}

/// What the guest saw.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Connections that are open.
    pub(super) open: usize,
    /// Connections that were reset by the peer.
    pub(super) resets: usize,
    /// Bytes taken by [`DISCARD`].
    pub(super) discarded: usize,
}

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}
type Wire = Framed<Box<dyn Io>, LengthDelimitedCodec>;

enum Order {
    /// Goes on at another port; the old one stays plugged in and is read no more.
    Move(Wire),
    /// The virtual CPUs stop: no frame is taken and none sent.
    Pause(bool),
    /// Frames with TCP in them are lost.
    Deaf(bool),
    /// Whether [`DISCARD`] reads.
    Read(bool),
    /// QEMU dies.
    Kill,
}

/// A running guest. It ends when this is dropped.
pub(super) struct FakeGuest {
    orders: mpsc::UnboundedSender<Order>,
    pub(super) seen: watch::Receiver<Seen>,
}

/// One end of a stream of frames, the other end of which is plugged into the segment.
pub(super) fn plug(segment: &Segment) -> DuplexStream {
    let (near, far) = tokio::io::duplex(256 * 1024);
    segment.ports.plug_in(far);
    near
}

fn wire(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Wire {
    Framed::new(Box::new(io), codec())
}

impl FakeGuest {
    pub(super) fn start(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let (orders, inbox) = mpsc::unbounded_channel();
        let (tell, seen) = watch::channel(Seen::default());
        tokio::spawn(Machine::boot(wire(io)).run(inbox, tell));
        Self { orders, seen }
    }

    pub(super) fn move_to(&self, io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        self.order(Order::Move(wire(io)));
    }

    pub(super) fn pause(&self, paused: bool) {
        self.order(Order::Pause(paused));
    }

    pub(super) fn deaf(&self, deaf: bool) {
        self.order(Order::Deaf(deaf));
    }

    pub(super) fn read(&self, reads: bool) {
        self.order(Order::Read(reads));
    }

    pub(super) fn kill(&self) {
        self.order(Order::Kill);
    }

    fn order(&self, order: Order) {
        assert!(self.orders.send(order).is_ok(), "the guest is gone");
    }

    pub(super) async fn until(&mut self, met: impl FnMut(&Seen) -> bool) -> Seen {
        *self.seen.wait_for(met).await.unwrap()
    }
}

struct Service {
    handle: SocketHandle,
    port: u16,
    active: bool,
    fin: bool,
    done: usize,
}

struct Machine {
    wire: Wire,
    old: Vec<Wire>,
    clock: Clock,
    device: Device,
    iface: Interface,
    sockets: SocketSet<'static>,
    services: Vec<Service>,
    paused: bool,
    deaf: bool,
    reads: bool,
    seen: Seen,
}

impl Machine {
    fn boot(wire: Wire) -> Self {
        let clock = Clock::new();
        let mut device = Device::default();
        let config = Config::new(HardwareAddress::Ethernet(MAC));
        let start = smoltcp::time::Instant::from_micros(0);
        let mut iface = Interface::new(config, &mut device, start);
        iface.update_ip_addrs(|a| a.push(IpCidr::new(GUEST.into(), PREFIX)).unwrap());
        let mut sockets = SocketSet::new(Vec::new());
        let ports = [ECHO, DISCARD, COUNT, CHARGEN, RESET];
        let listen = |port| {
            let buffer = || SocketBuffer::new(vec![0; BUFFER]);
            Service {
                handle: sockets.add(Socket::new(buffer(), buffer())),
                port,
                active: false,
                fin: false,
                done: 0,
            }
        };
        let ports = ports.into_iter().flat_map(|port| [port; BACKLOG]);
        let services = ports.map(listen).collect();
        Self {
            wire,
            old: Vec::new(),
            clock,
            device,
            iface,
            sockets,
            services,
            paused: false,
            deaf: false,
            reads: true,
            seen: Seen::default(),
        }
    }

    async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>, tell: watch::Sender<Seen>) {
        loop {
            let due = if self.paused {
                None
            } else {
                self.turn(&tell).await
            };
            tokio::select! {
                order = orders.recv() => match order {
                    None | Some(Order::Kill) => return,
                    Some(order) => self.obey(order).await,
                },
                frame = self.wire.next(), if !self.paused => match frame {
                    Some(Ok(frame)) => self.take(Frame::new(frame.freeze()).unwrap()),
                    _ => return,
                },
                () = async { sleep_until(due.unwrap()).await }, if due.is_some() => {}
            }
        }
    }

    fn take(&mut self, frame: Frame) {
        let tcp = frame.bytes().get(23) == Some(&6);
        if !(self.deaf && tcp) {
            self.device.receive(frame);
        }
    }

    async fn obey(&mut self, order: Order) {
        match order {
            Order::Pause(paused) => self.paused = paused,
            Order::Deaf(deaf) => self.deaf = deaf,
            Order::Read(reads) => self.reads = reads,
            Order::Kill => unreachable!("ends the loop"),
            Order::Move(wire) => {
                self.old.push(std::mem::replace(&mut self.wire, wire));
                self.wire.send(announcement()).await.unwrap();
            }
        }
    }

    async fn turn(&mut self, tell: &watch::Sender<Seen>) -> Option<tokio::time::Instant> {
        loop {
            let now = self.clock.stack(tokio::time::Instant::now());
            let _ = self.iface.poll(now, &mut self.device, &mut self.sockets);
            let worked = self.serve();
            tell.send_if_modified(|seen| std::mem::replace(seen, self.seen) != self.seen);
            while let Some(frame) = self.device.take_sent() {
                // A port that is gone shows when it is read.
                if self.wire.feed(frame.into_bytes()).await.is_err() {
                    return None;
                }
            }
            let flushed = SinkExt::<Bytes>::flush(&mut self.wire).await;
            if !worked || flushed.is_err() {
                let due = self.iface.poll_at(now, &self.sockets);
                return due.map(|due| self.clock.wall(due));
            }
        }
    }

    fn serve(&mut self) -> bool {
        let mut worked = false;
        self.seen.open = 0;
        for service in &mut self.services {
            let socket = self.sockets.get_mut::<Socket<'_>>(service.handle);
            worked |= service.serve(socket, self.reads, &mut self.seen);
            self.seen.open += usize::from(service.active);
        }
        worked
    }
}

impl Service {
    fn serve(&mut self, socket: &mut Socket<'_>, reads: bool, seen: &mut Seen) -> bool {
        use State::{CloseWait, Closed, Closing, LastAck, TimeWait};
        self.fin |= matches!(socket.state(), CloseWait | LastAck | Closing | TimeWait);
        if matches!(socket.state(), Closed | TimeWait) {
            seen.resets += usize::from(self.active && !self.fin);
            (self.active, self.fin, self.done) = (false, false, 0);
            socket.abort();
            socket.listen(self.port).unwrap();
            return true;
        }
        self.active = socket.is_active() && socket.state() != State::SynReceived;
        let mut worked = false;
        let peer_done = self.fin && !socket.can_recv();
        match self.port {
            ECHO if socket.can_recv() && socket.can_send() => {
                let mut bytes = vec![0; BUFFER];
                let room = socket.send_capacity() - socket.send_queue();
                let n = socket.recv_slice(&mut bytes[..room]).unwrap();
                worked = socket.send_slice(&bytes[..n]).unwrap() > 0;
            }
            DISCARD | COUNT if socket.can_recv() && (reads || self.port == COUNT) => {
                let n = socket.recv(|bytes| (bytes.len(), bytes.len())).unwrap();
                self.done += n;
                seen.discarded += n;
                worked = true;
            }
            COUNT if peer_done && socket.may_send() => {
                let said = format!("{}", self.done);
                worked = socket.send_slice(said.as_bytes()).unwrap() > 0;
            }
            CHARGEN if socket.can_send() && self.done < STREAM => {
                let done = self.done;
                let fill = |room: &mut [u8]| {
                    let n = room.len().min(STREAM - done);
                    (0..n).for_each(|at| room[at] = pattern(done + at));
                    (n, n)
                };
                self.done += socket.send(fill).unwrap();
                worked = true;
            }
            RESET if socket.can_recv() => {
                socket.abort();
                // Its own reset is not the peer's.
                self.fin = true;
                return false;
            }
            _ => {}
        }
        let generated = self.port == CHARGEN && self.done == STREAM;
        if (peer_done || generated) && socket.may_send() && !(worked && self.port == ECHO) {
            socket.close();
            worked = true;
        }
        worked
    }
}

/// What QEMU sends when a guest goes on at the target of a migration (`qemu_announce_self`): a
/// reverse ARP request from the guest's hardware address to all.
pub(super) fn announcement() -> Bytes {
    let mut frame = [[0xff; 6], MAC.0].concat();
    frame.extend([0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3]);
    frame.extend([&MAC.0[..], &[0; 4], &MAC.0, &[0; 4]].concat());
    Bytes::from(frame)
}
