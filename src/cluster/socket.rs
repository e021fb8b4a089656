//! Turning a request into a WebSocket: what tunnels to guests and commands in pods have in common.

use bytes::Bytes;
use http::header::{
    CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper_util::rt::TokioIo;
use kube::client::Body;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::{client::generate_key, derive_accept_key};
use tokio_tungstenite::tungstenite::protocol::Role;

use super::client::Cluster;
use super::error::{Error, Tried, chain};

/// Largest error body that is read.
const MAX_ERROR: usize = 64 << 10;

/// A WebSocket to a site's API server.
pub(super) type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

/// What became of an upgrade.
pub(super) enum Upgrade {
    /// Protocols were switched, to the subprotocol that the server named, if it named one.
    Switched(Box<Socket>, Option<String>),
    /// The server answered as HTTP, with this status and body.
    Refused(StatusCode, Bytes),
}

impl Cluster {
    /// Asks for a WebSocket that speaks one of `protocols`, best first.
    pub(super) async fn upgrade(
        &self,
        tried: &Tried,
        path: &str,
        protocols: &[&str],
    ) -> Result<Upgrade, Error> {
        let answer = |why: String| Error::Answer {
            tried: tried.clone(),
            why,
        };
        let key = generate_key();
        let request = Request::get(path)
            .header(CONNECTION, HeaderValue::from_static("Upgrade"))
            .header(UPGRADE, HeaderValue::from_static("websocket"))
            .header(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"))
            .header(SEC_WEBSOCKET_KEY, &key)
            .header(SEC_WEBSOCKET_PROTOCOL, protocols.join(", "))
            .body(Body::empty())
            .map_err(|e| answer(format!("no valid request: {e}")))?;
        let unreachable = |seen: String| Error::Unreachable {
            tried: tried.clone(),
            url: self.url().to_owned(),
            seen,
        };
        let response = self
            .client()
            .send(request)
            .await
            .map_err(|e| unreachable(chain(&e)))?;
        let status = response.status();
        if status != StatusCode::SWITCHING_PROTOCOLS {
            let body = Limited::new(response.into_body(), MAX_ERROR)
                .collect()
                .await
                .map_err(|e| unreachable(chain(e.as_ref())))?
                .to_bytes();
            return Ok(Upgrade::Refused(status, body));
        }
        // Borrows the headers, not the response: its body would make this future unsendable.
        let headers = response.headers().clone();
        let header = |name| headers.get(name).and_then(|v| v.to_str().ok());
        if header(SEC_WEBSOCKET_ACCEPT) != Some(derive_accept_key(key.as_bytes()).as_str()) {
            return Err(answer(
                "the upgrade was not accepted by a WebSocket server".into(),
            ));
        }
        // The server may leave the subprotocol out, but must not choose another.
        let chosen = header(SEC_WEBSOCKET_PROTOCOL).map(str::to_owned);
        if let Some(other) = chosen.as_deref().filter(|p| !protocols.contains(p)) {
            return Err(answer(format!(
                "the server chose the subprotocol {other:?}"
            )));
        }
        let upgraded = hyper::upgrade::on(response)
            .await
            .map_err(|e| unreachable(chain(&e)))?;
        let socket =
            WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None).await;
        Ok(Upgrade::Switched(Box::new(socket), chosen))
    }
}
