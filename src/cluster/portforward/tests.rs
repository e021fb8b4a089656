//! The tunnel against a small WebSocket server: handshake, bytes, pings, ends and breaks.

use std::sync::Arc;

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::{PROTOCOL, Tunnel};
use crate::cluster::testing::{Fake, Reply};
use crate::cluster::{Cluster, Error};
use crate::history::event::Site;

type Socket = WebSocketStream<TcpStream>;

const PATH: &str = "/apis/subresources.kubevirt.io/v1/namespaces/demo/virtualmachineinstances/vm/portforward/22/tcp";

fn cluster(listener: &TcpListener) -> Arc<Cluster> {
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    let mut config = kube::Config::new(url.parse().expect("a url"));
    config.default_retry = false;
    let client = kube::Client::try_from(config).expect("a client");
    Cluster::with_client(Site::Primary, client, url)
}

#[expect(
    clippy::result_large_err,
    clippy::unnecessary_wraps,
    reason = "the library's signature"
)]
fn shake(request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    assert_eq!(request.uri().path(), PATH);
    assert_eq!(request.version(), http::Version::HTTP_11);
    let protocol = &request.headers()["sec-websocket-protocol"];
    assert_eq!(protocol, PROTOCOL);
    response
        .headers_mut()
        .insert("sec-websocket-protocol", protocol.clone());
    Ok(response)
}

/// Connects a tunnel to a server that does `serve` with the accepted socket.
async fn tunnel<F: Future<Output = ()> + Send + 'static>(
    serve: impl FnOnce(Socket) -> F + Send + 'static,
) -> (Tunnel, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let cluster = cluster(&listener);
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a connection");
        let socket = tokio_tungstenite::accept_hdr_async(stream, shake)
            .await
            .expect("a handshake");
        serve(socket).await;
    });
    let tunnel = cluster
        .port_forward("demo", "vm", 22)
        .await
        .expect("a tunnel");
    (tunnel, server)
}

fn binary(bytes: &'static [u8]) -> Message {
    Message::Binary(Bytes::from_static(bytes))
}

#[tokio::test]
async fn bytes_go_both_ways_in_binary_frames() {
    let (mut tunnel, server) = tunnel(|mut socket| async move {
        socket.send(Message::text("ignored")).await.expect("sent");
        socket.send(binary(b"SSH-2.0-")).await.expect("sent");
        socket.send(binary(b"")).await.expect("sent");
        socket.send(binary(b"lab\r\n")).await.expect("sent");
        let mut got = Vec::new();
        while got.len() < 100_000 {
            match socket.next().await.expect("more").expect("a message") {
                Message::Binary(bytes) => got.extend_from_slice(&bytes),
                other => panic!("{other:?}"),
            }
        }
        assert!(
            got.iter()
                .enumerate()
                .all(|(i, b)| usize::from(*b) == i % 251)
        );
        socket.close(None).await.expect("closed");
    })
    .await;
    let mut banner = [0; 13];
    tunnel.read_exact(&mut banner).await.expect("a banner");
    assert_eq!(&banner, b"SSH-2.0-lab\r\n");
    let bytes: Vec<u8> = (0..100_000_usize)
        .map(|i| u8::try_from(i % 251).expect("small"))
        .collect();
    tunnel.write_all(&bytes).await.expect("written");
    tunnel.flush().await.expect("flushed");
    let mut rest = Vec::new();
    tunnel
        .read_to_end(&mut rest)
        .await
        .expect("a normal close is the end of file");
    assert!(rest.is_empty());
    server.await.expect("the server's assertions hold");
}

#[tokio::test]
async fn pings_are_answered_while_reading() {
    let (mut tunnel, server) = tunnel(|mut socket| async move {
        socket
            .send(Message::Ping(Bytes::from_static(b"keep alive")))
            .await
            .expect("sent");
        match socket.next().await.expect("an answer").expect("a message") {
            Message::Pong(payload) => assert_eq!(payload.as_ref(), b"keep alive"),
            other => panic!("{other:?}"),
        }
        socket.send(binary(b"alive")).await.expect("sent");
        socket.close(None).await.expect("closed");
    })
    .await;
    let mut text = String::new();
    tunnel.read_to_string(&mut text).await.expect("read");
    assert_eq!(text, "alive");
    server.await.expect("the pong came");
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_not_an_end_of_file() {
    let (mut tunnel, server) = tunnel(|mut socket| async move {
        socket.send(binary(b"half")).await.expect("sent");
        // No close frame: what a live migration or a dead API server looks like.
        drop(socket);
    })
    .await;
    let mut text = String::new();
    let error = tunnel.read_to_string(&mut text).await.expect_err("cut");
    assert_ne!(error.kind(), std::io::ErrorKind::InvalidData, "{error}");
    server.await.expect("served");
}

#[tokio::test]
async fn an_abnormal_close_is_an_error_with_its_reason() {
    let (mut tunnel, server) = tunnel(|mut socket| async move {
        let frame = CloseFrame {
            code: CloseCode::Error,
            reason: "the guest is gone".into(),
        };
        socket.close(Some(frame)).await.expect("closed");
    })
    .await;
    let error = tunnel.read(&mut [0; 8]).await.expect_err("abnormal");
    assert!(error.to_string().contains("the guest is gone"), "{error}");
    server.await.expect("served");
}

#[tokio::test]
async fn shutting_down_closes_the_stream_for_the_server() {
    let (mut tunnel, server) = tunnel(|mut socket| async move {
        let last = socket.next().await.expect("a message").expect("no error");
        assert!(matches!(last, Message::Close(_)), "{last:?}");
    })
    .await;
    tunnel.shutdown().await.expect("closed");
    server.await.expect("the close came");
}

#[tokio::test]
async fn refusals_are_typed() {
    let fake = Fake::start().await;
    let cluster = fake.cluster(Site::Primary);
    let status = |reason: &str, message: &str| {
        json!({"kind": "Status", "reason": reason, "message": message,
            "details": {"name": "vm"}})
    };
    let refused = "dialing VM: dial tcp 10.0.0.1:22: connect: connection refused";
    fake.reply("GET", Reply(500, status("InternalError", refused)));
    let error = cluster
        .port_forward("demo", "vm", 22)
        .await
        .expect_err("refused");
    let Error::DialRefused { message, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(message, refused);
    assert!(error.is_transient(), "worth another try");

    fake.reply("GET", Reply(409, status("Conflict", "VMI is paused")));
    let error = cluster
        .port_forward("demo", "vm", 22)
        .await
        .expect_err("paused");
    assert!(matches!(error, Error::Conflict { .. }), "{error}");
    fake.reply("GET", Reply(404, status("NotFound", "no such VMI")));
    assert!(
        cluster
            .port_forward("demo", "vm", 22)
            .await
            .expect_err("absent")
            .is_not_found()
    );
    fake.reply("GET", Reply(401, json!("Unauthorized")));
    let error = cluster
        .port_forward("demo", "vm", 22)
        .await
        .expect_err("unauthorized");
    assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
    fake.reply("GET", Reply(403, status("Forbidden", "no portforward")));
    let error = cluster
        .port_forward("demo", "vm", 22)
        .await
        .expect_err("forbidden");
    assert!(matches!(error, Error::Forbidden { .. }), "{error}");
    fake.reply("GET", Reply(200, json!({})));
    let error = cluster
        .port_forward("demo", "vm", 22)
        .await
        .expect_err("no upgrade");
    assert!(matches!(error, Error::Answer { .. }), "{error}");
    fake.set_down(true);
    let error = cluster
        .port_forward("demo", "vm", 22)
        .await
        .expect_err("down");
    assert!(error.is_unreachable(), "{error}");
}

#[tokio::test]
async fn a_server_that_is_no_websocket_server_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let cluster = cluster(&listener);
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut request = [0; 2048];
        assert!(stream.read(&mut request).await.expect("a request") > 0);
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
            Upgrade: websocket\r\nSec-WebSocket-Accept: wrong\r\n\r\n";
        stream.write_all(answer).await.expect("answered");
        std::future::pending::<()>().await;
    });
    let error = cluster
        .port_forward("demo", "vm", 22)
        .await
        .expect_err("a wrong key");
    assert!(matches!(error, Error::Answer { .. }), "{error}");
}
