//! Subresources that become WebSockets: port-forward, console, vnc. Payload is raw bytes in binary
//! frames. Port-forward dials the guest before it upgrades, so a closed port is an HTTP error.

use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{Request, Response};
use hyper::body::Incoming;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::{Instant, MissedTickBehavior, sleep_until};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message};

use super::lifecycle::Call;
use super::reply;
use crate::history::event::Site;
use crate::lab::api::{ApiError, Body, meta};
use crate::lab::faults::Fault;
use crate::lab::guest::Dial;
use crate::lab::vm::condition;
use crate::lab::vm::keys::{VMI, phase};
use crate::lab::vm::site::Ctx;
use crate::lab::vm::socket::{Socket, upgrade};

const PROTOCOL: &str = "plain.kubevirt.io";
const SINGULAR: &str = "virtualmachineinstance.kubevirt.io";
/// virt-api pings this often with this payload, in real time: clients see it on the wire.
const PING: Duration = Duration::from_secs(1);
const PING_PAYLOAD: &[u8] = b"keep alive";
/// It gives up on a client whose last pong is older.
const PONG_WAIT: Duration = Duration::from_secs(60);

/// Answers a port-forward of a VMI.
pub(super) async fn port_forward(
    call: &Call<'_>,
    request: Request<Incoming>,
    rest: &[String],
) -> Response<Body> {
    let udp = rest.get(1).is_some_and(|protocol| protocol == "udp");
    let dialed = match dial(call, rest.first().map_or("", String::as_str), udp).await {
        Ok(dialed) => dialed,
        Err(error) => return reply::refused(&error),
    };
    let ctx = call.ctx.clone();
    upgrade(request, PROTOCOL, move |socket| async move {
        let far = match dialed {
            Some(stream) => stream,
            // UDP has no connection to fail; nobody answers in a lab guest.
            None => tokio::io::duplex(1).0,
        };
        bridge(&ctx, socket, far, udp).await;
    })
}

async fn dial(call: &Call<'_>, port: &str, udp: bool) -> Result<Option<DuplexStream>, ApiError> {
    let vmi = call
        .ctx
        .store
        .get(VMI, call.namespace, call.name)
        .ok_or_else(|| ApiError::not_found(SINGULAR, call.name))?;
    if condition::is_true(&vmi, "Paused") {
        return Err(ApiError::conflict(SINGULAR, call.name, "VMI is paused"));
    }
    let ip = meta::text(&vmi, "/status/interfaces/0/ipAddress");
    if ip.is_empty() {
        return Err(ApiError::bad_request("no network interfaces are present"));
    }
    let failed = |why: String| ApiError::internal(format!("dialing VM: {why}"));
    let Ok(number) = port.parse::<i64>() else {
        return Err(failed(format!("dial tcp: lookup tcp/{port}: unknown port")));
    };
    let Ok(number) = u16::try_from(number) else {
        return Err(failed(format!("dial tcp: address {number}: invalid port")));
    };
    if udp {
        return Ok(None);
    }
    let refused = |why: Dial| failed(format!("dial tcp {ip}:{number}: connect: {why}"));
    if cut(call.ctx) {
        return Err(refused(Dial::NoRoute));
    }
    let guest = call
        .ctx
        .domain(meta::uid(&vmi))
        .and_then(|domain| domain.guest())
        .ok_or_else(|| refused(Dial::NoRoute))?;
    guest.connect(number).await.map(Some).map_err(refused)
}

/// Fault `ack-stream-cut`: the way to the primary's guests is broken before the site is.
fn cut(ctx: &Ctx) -> bool {
    ctx.site == Site::Primary && ctx.board.armed(Fault::AckStreamCut)
}

/// Fault `port-forward-flaps`: how long a port-forward holds.
fn flap(ctx: &Ctx) -> Option<Duration> {
    let ms = ctx.board.param(Fault::PortForwardFlaps, "ms")?;
    u64::try_from(ms).ok().map(Duration::from_millis)
}

/// Answers a console or vnc of a VMI.
pub(super) async fn terminal(
    call: &Call<'_>,
    request: Request<Incoming>,
    sub: &str,
) -> Response<Body> {
    let Some(vmi) = call.ctx.store.get(VMI, call.namespace, call.name) else {
        return reply::refused(&ApiError::not_found(SINGULAR, call.name));
    };
    match phase(&vmi) {
        "Running" => {}
        "Failed" => {
            let error = ApiError::conflict(SINGULAR, call.name, "VMI is in failed status");
            return reply::refused(&error);
        }
        _ => return reply::refused(&ApiError::bad_request("VMI is not running")),
    }
    let greeting: Vec<u8> = if sub == "vnc" {
        b"RFB 003.008\n".to_vec()
    } else {
        let guest = call
            .ctx
            .domain(meta::uid(&vmi))
            .and_then(|domain| domain.guest());
        match guest {
            Some(guest) => guest.console().await,
            None => Vec::new(),
        }
    };
    // The recorded console of a guest without an operating system stays silent for clients that
    // attach late; only a booted one has a prompt to repeat.
    let ctx = call.ctx.clone();
    upgrade(request, PROTOCOL, move |socket| async move {
        let (near, mut far) = tokio::io::duplex(64 * 1024);
        if far.write_all(&greeting).await.is_ok() {
            bridge(&ctx, socket, near, true).await;
        }
        drop(far);
    })
}

/// Copies between the WebSocket and a stream until either ends, with virt-api's keep-alive. A quiet
/// stream (`hold`) keeps the socket open after its end, as consoles do.
async fn bridge(ctx: &Ctx, socket: Socket, far: DuplexStream, hold: bool) {
    let (mut sink, mut source) = socket.split();
    let (mut from_guest, mut to_guest) = tokio::io::split(far);
    let mut buffer = vec![0; 32 * 1024];
    let mut ticks = tokio::time::interval(PING);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = Instant::now();
    let begun = Instant::now();
    let mut open = true;
    let end = loop {
        let flap = if hold { None } else { flap(ctx) };
        tokio::select! {
            () = ctx.token.cancelled() => break None,
            () = sleep_until(begun + flap.unwrap_or_default()), if flap.is_some() => break None,
            _ = ticks.tick() => {
                if cut(ctx) || heard.elapsed() > PONG_WAIT {
                    break None;
                }
                if sink.send(Message::Ping(Bytes::from_static(PING_PAYLOAD))).await.is_err() {
                    break None;
                }
            }
            read = from_guest.read(&mut buffer), if open => match read {
                Ok(0) | Err(_) if hold => open = false,
                Ok(0) => break Some(1000),
                Err(_) => break Some(1011),
                Ok(n) => {
                    let frame = Message::Binary(Bytes::copy_from_slice(&buffer[..n]));
                    if cut(ctx) || sink.send(frame).await.is_err() {
                        break None;
                    }
                }
            },
            message = source.next() => match message {
                None | Some(Err(_)) => break None,
                Some(Ok(Message::Close(_))) => break Some(1000),
                Some(Ok(Message::Pong(_))) => heard = Instant::now(),
                Some(Ok(Message::Binary(bytes))) => {
                    if cut(ctx) || (to_guest.write_all(&bytes).await.is_err() && !hold) {
                        break None;
                    }
                }
                Some(Ok(_)) => {}
            },
        }
    };
    if let Some(code) = end {
        let frame = CloseFrame {
            code: u16::into(code),
            reason: "".into(),
        };
        if sink.send(Message::Close(Some(frame))).await.is_err() {
            tracing::debug!("a client left before it was told the end of its stream");
        }
    }
}

/// The VMI behind a port-forward of a VM.
pub(super) fn started(call: &Call<'_>) -> Result<(), ApiError> {
    let vmi: Option<std::sync::Arc<Value>> = call.ctx.store.get(VMI, call.namespace, call.name);
    let vm = call
        .ctx
        .store
        .get(crate::lab::vm::keys::VM, call.namespace, call.name);
    match (vm, vmi) {
        (None, _) => Err(ApiError::not_found(super::lifecycle::SINGULAR, call.name)),
        (Some(_), None) => Err(call.conflict("VMI is not started")),
        (Some(_), Some(_)) => Ok(()),
    }
}
