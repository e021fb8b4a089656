//! The channels of a command: 0 is its input, 1 and 2 its output, 3 the `Status` that ends it.

use bytes::Bytes;
use futures::stream::SplitSink;
use futures::{SinkExt, StreamExt};
use http::{Request, Response};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message};

use super::programs::{self, Ended};
use super::{Order, Started, Unable, V4, V5};
use crate::lab::api::{ApiError, Body};
use crate::lab::vm::site::Ctx;
use crate::lab::vm::socket::{Socket, upgrade};

const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
/// Largest frame that is sent.
const FRAME: usize = 32 << 10;

/// A client of `v5`: the API server upgrades at once and says the rest on channel 3.
pub(super) fn translated(
    ctx: &Ctx,
    request: Request<Incoming>,
    order: Order,
    started: Result<Started, Unable>,
) -> Response<Body> {
    let ctx = Ctx::clone(ctx);
    upgrade(request, V5, move |socket| async move {
        // An empty message says that the stream stands.
        let first = if order.stdout { STDOUT } else { STDERR };
        let started = started.map_err(|unable| {
            let why = format!("unable to upgrade connection: {}", unable.why);
            ApiError::internal(why).to_status()
        });
        serve(&ctx, socket, order, started, Dialect::Translated(first)).await;
    })
}

/// A client of `v4`: the node itself upgrades, once the command can be started.
pub(super) fn passed_on(
    ctx: &Ctx,
    request: Request<Incoming>,
    order: Order,
    started: Started,
) -> Response<Body> {
    let ctx = Ctx::clone(ctx);
    upgrade(request, V4, move |socket| async move {
        serve(&ctx, socket, order, Ok(started), Dialect::Node).await;
    })
}

/// Who words the end.
#[derive(Clone, Copy)]
enum Dialect {
    /// The API server, after what the node said; it begins with an empty message on a channel.
    Translated(u8),
    /// The node.
    Node,
}

type Sink = SplitSink<Socket, Message>;

async fn serve(
    ctx: &Ctx,
    socket: Socket,
    order: Order,
    started: Result<Started, Value>,
    dialect: Dialect,
) {
    let (mut sink, mut source) = socket.split();
    if let Dialect::Translated(channel) = dialect
        && !send(&mut sink, channel, &[]).await
    {
        return;
    }
    // A command goes on whether or not anybody listens.
    let (site, argv) = (Ctx::clone(ctx), order.argv.clone());
    let running = ctx.tracker.spawn(async move {
        match started {
            Ok(started) => Ok(programs::run(&site, &started.pod, &started.container, &argv).await),
            Err(status) => Err(status),
        }
    });
    tokio::pin!(running);
    let ended = loop {
        tokio::select! {
            () = ctx.token.cancelled() => return,
            ended = &mut running => break ended,
            message = source.next() => match message {
                None | Some(Err(_) | Ok(Message::Close(_))) => return,
                // Nothing here reads its input.
                Some(Ok(_)) => {}
            },
        }
    };
    let Ok(ended) = ended else { return };
    let status = match ended {
        Err(status) => status,
        Ok(Err(why)) => unstarted(&why, dialect),
        Ok(Ok(ended)) => {
            for (wanted, channel, bytes) in [
                (order.stdout, STDOUT, &ended.stdout),
                (order.stderr, STDERR, &ended.stderr),
            ] {
                for chunk in bytes.chunks(FRAME).filter(|_| wanted) {
                    if !send(&mut sink, channel, chunk).await {
                        return;
                    }
                }
            }
            status(&ended, &order.argv, dialect)
        }
    };
    if send(&mut sink, STATUS, status.to_string().as_bytes()).await {
        let frame = CloseFrame {
            code: CloseCode::Normal,
            reason: "".into(),
        };
        if sink.send(Message::Close(Some(frame))).await.is_err() {
            tracing::debug!("a client left before it was told the end of its command");
        }
    }
}

async fn send(sink: &mut Sink, channel: u8, bytes: &[u8]) -> bool {
    let mut frame = Vec::with_capacity(bytes.len() + 1);
    frame.push(channel);
    frame.extend_from_slice(bytes);
    sink.send(Message::Binary(Bytes::from(frame))).await.is_ok()
}

/// The runtime could not start the program. The API server words the node's `Status` once more.
fn unstarted(why: &str, dialect: Dialect) -> Value {
    let node = ApiError::internal(format!("error executing command in container: {why}"));
    match dialect {
        Dialect::Node => node.to_status(),
        Dialect::Translated(_) => ApiError::internal(node.message.as_str()).to_status(),
    }
}

fn status(ended: &Ended, argv: &[String], dialect: Dialect) -> Value {
    let code = ended.code;
    if code == 0 {
        return json!({"metadata": {}, "status": "Success"});
    }
    let why = match dialect {
        Dialect::Translated(_) => format!("command terminated with exit code {code}"),
        Dialect::Node => format!(
            "error executing command [{}], exit code {code}",
            argv.join(" ")
        ),
    };
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("command terminated with non-zero exit code: {why}"),
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
}
