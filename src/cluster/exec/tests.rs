//! Commands against a small WebSocket server: what is asked for, channels, ends and breaks.

use std::sync::Arc;
use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_util::sync::CancellationToken;

use super::{Command, KEPT, Ran};
use crate::cluster::testing::{Fake, Reply};
use crate::cluster::{Cluster, Deadline, Error};
use crate::history::event::Site;

type Socket = WebSocketStream<TcpStream>;

#[expect(
    clippy::result_large_err,
    clippy::unnecessary_wraps,
    reason = "the library's signature"
)]
fn shake(request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    assert_eq!(request.uri().path(), "/api/v1/namespaces/demo/pods/p/exec");
    assert_eq!(
        request.uri().query(),
        Some("stdout=true&stderr=true&command=%2Fbin%2Fecho&command=a%20b%26c&container=compute")
    );
    assert_eq!(
        request.headers()["sec-websocket-protocol"],
        "v5.channel.k8s.io, v4.channel.k8s.io"
    );
    let chosen = http::HeaderValue::from_static("v4.channel.k8s.io");
    response
        .headers_mut()
        .insert("sec-websocket-protocol", chosen);
    Ok(response)
}

fn deadline(limit: Duration) -> Deadline {
    Deadline::after(limit, &CancellationToken::new())
}

async fn run(cluster: &Arc<Cluster>, deadline: &Deadline) -> Result<Ran, Error> {
    let argv = ["/bin/echo".to_owned(), "a b&c".to_owned()];
    let command = Command {
        namespace: "demo",
        pod: "p",
        container: Some("compute"),
        argv: &argv,
    };
    cluster.exec(&command, deadline).await
}

/// Runs a command against a server that sends these frames and closes, or breaks off.
async fn against(frames: Vec<(u8, Vec<u8>)>, closes: bool) -> Result<Ran, Error> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    let mut config = kube::Config::new(url.parse().expect("a url"));
    config.default_retry = false;
    let client = kube::Client::try_from(config).expect("a client");
    let cluster = Cluster::with_client(Site::Primary, client, url);
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a connection");
        let mut socket: Socket = tokio_tungstenite::accept_hdr_async(stream, shake)
            .await
            .expect("a handshake");
        for (channel, mut bytes) in frames {
            bytes.insert(0, channel);
            socket
                .send(Message::Binary(bytes.into()))
                .await
                .expect("sent");
        }
        if closes {
            socket.close(None).await.expect("closed");
            while socket.next().await.is_some_and(|message| message.is_ok()) {}
        }
    });
    let ran = run(&cluster, &deadline(Duration::from_secs(20))).await;
    server.await.expect("the server's assertions hold");
    ran
}

fn failure(code: &str) -> (u8, Vec<u8>) {
    let status = json!({"status": "Failure", "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": code}]}});
    (3, status.to_string().into_bytes())
}

#[tokio::test]
async fn output_and_exit_code_come_on_their_channels() {
    let frames = vec![
        (1, Vec::new()),
        (1, b"out".to_vec()),
        (2, b"err".to_vec()),
        (9, b"not ours".to_vec()),
        (1, b"put".to_vec()),
        failure("7"),
    ];
    let ran = against(frames, true).await.expect("it ran");
    assert_eq!(ran.code, 7);
    assert_eq!(ran.stdout.text, "output");
    assert_eq!(ran.stderr.text, "err");
    assert!(!ran.stdout.truncated);
}

#[tokio::test]
async fn no_more_is_kept_than_may_be() {
    let chatty = vec![b'x'; KEPT / 2 + 1];
    let frames = vec![(1, chatty.clone()), (1, chatty), failure("1")];
    let ran = against(frames, true).await.expect("it ran");
    assert_eq!(ran.stdout.text.len(), KEPT);
    assert!(ran.stdout.truncated && !ran.stderr.truncated);
}

#[tokio::test]
async fn a_stream_that_breaks_leaves_the_end_open() {
    for closes in [false, true] {
        let error = against(vec![(1, b"x".to_vec())], closes)
            .await
            .expect_err("nobody said how it ended");
        assert!(error.is_unreachable() && error.is_blind(), "{error}");
    }
    // A Status counts although the server is gone at once.
    let ended = against(vec![failure("2")], false).await.expect("it ran");
    assert_eq!(ended.code, 2);
}

#[tokio::test]
async fn what_cannot_be_run_is_told_apart_from_what_failed() {
    let status =
        json!({"status": "Failure", "reason": "InternalError", "message": "container not found"});
    let error = against(vec![(3, status.to_string().into_bytes())], true).await;
    let error = error.expect_err("it was not run");
    assert!(
        matches!(error, Error::NotRun { .. }) && !error.is_blind(),
        "{error}"
    );
    let fake = Fake::start().await;
    let cluster = fake.cluster(Site::Primary);
    for (code, body, not_run) in [
        (500, json!("container not found (\"compute\")"), true),
        (
            400,
            json!({"kind": "Status", "message": "container x is not valid for pod p"}),
            true,
        ),
        (403, json!({"kind": "Status", "message": "no"}), false),
    ] {
        fake.reply("GET /api/v1/namespaces/demo/pods/p/exec", Reply(code, body));
        let error = run(&cluster, &deadline(Duration::from_secs(20))).await;
        let error = error.expect_err("refused");
        assert_eq!(matches!(error, Error::NotRun { .. }), not_run, "{error}");
        assert_eq!(
            matches!(error, Error::Forbidden { .. }),
            !not_run,
            "{error}"
        );
    }
}

#[tokio::test]
async fn waiting_ends_with_the_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    let config = kube::Config::new(url.parse().expect("a url"));
    let client = kube::Client::try_from(config).expect("a client");
    let cluster = Cluster::with_client(Site::Primary, client, url);
    let error = run(&cluster, &deadline(Duration::from_millis(50))).await;
    assert!(matches!(error, Err(Error::Timeout(_))), "{error:?}");
    let token = CancellationToken::new();
    token.cancel();
    let cancelled = Deadline::after(Duration::from_secs(20), &token);
    assert!(
        run(&cluster, &cancelled)
            .await
            .is_err_and(|e| e.is_cancelled())
    );
}
