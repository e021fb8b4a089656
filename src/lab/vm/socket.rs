//! A client's request made into a WebSocket, as virt-api and the API server do.

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::subresources::text;
use crate::lab::api::{Body, full};

/// The server's end.
pub(super) type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

/// What a request says of itself in a header, empty if nothing.
fn field<'a>(request: &'a Request<Incoming>, name: &str) -> &'a str {
    let value = request.headers().get(name);
    value
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

/// Whether a request wants to become a stream of some kind (`websocket`, `SPDY/3.1`).
pub(super) fn wants(request: &Request<Incoming>, kind: &str) -> bool {
    let upgrades = field(request, "connection")
        .to_ascii_lowercase()
        .contains("upgrade");
    upgrades && field(request, "upgrade").eq_ignore_ascii_case(kind)
}

/// Whether a request offers a subprotocol.
pub(super) fn offers(request: &Request<Incoming>, protocol: &str) -> bool {
    let mut offered = field(request, "sec-websocket-protocol").split(',');
    offered.any(|one| one.trim() == protocol)
}

/// Switches protocols and hands the socket to `serve`, or says why the client is none. Answers with
/// the subprotocol if the client offers it.
pub(super) fn upgrade<F>(
    mut request: Request<Incoming>,
    protocol: &'static str,
    serve: impl FnOnce(Socket) -> F + Send + 'static,
) -> Response<Body>
where
    F: Future<Output = ()> + Send + 'static,
{
    let key = field(&request, "sec-websocket-key").to_owned();
    if !wants(&request, "websocket") || key.is_empty() {
        return not_a_client();
    }
    let ours = offers(&request, protocol);
    let switched = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match switched.await {
            Ok(stream) => {
                let io = TokioIo::new(stream);
                serve(WebSocketStream::from_raw_socket(io, Role::Server, None).await).await;
            }
            Err(error) => tracing::debug!(%error, "an upgrade did not happen"),
        }
    });
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answer = response.headers_mut();
    answer.insert(
        header::UPGRADE,
        header::HeaderValue::from_static("websocket"),
    );
    answer.insert(
        header::CONNECTION,
        header::HeaderValue::from_static("Upgrade"),
    );
    if let Ok(accept) = header::HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
        answer.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    if ours {
        let protocol = header::HeaderValue::from_static(protocol);
        answer.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    response
}

fn not_a_client() -> Response<Body> {
    let status = "{\n \"kind\": \"Status\",\n \"apiVersion\": \"v1\",\n \"metadata\": {},\n \
                  \"status\": \"Failure\",\n \"message\": \"websocket: the client is not using the \
                  websocket protocol: 'upgrade' token not found in 'Connection' header\",\n \
                  \"reason\": \"BadRequest\",\n \"code\": 400\n}";
    let mut response = text(400, format!("Bad Request\n{status}"));
    let version = header::HeaderValue::from_static("13");
    response
        .headers_mut()
        .insert("Sec-Websocket-Version", version);
    response
}
