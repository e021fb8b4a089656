//! Replays recorded requests against a lab site and compares the answers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use virtproof::lab::api::RunningServer;

use crate::names::Names;
use crate::shape;

/// One line of a recording.
#[derive(Debug, Clone)]
pub(crate) struct Line(Value);

impl Line {
    pub(crate) fn id(&self) -> &str {
        self.0["id"].as_str().unwrap_or("")
    }

    pub(crate) fn note(&self) -> &str {
        self.0["note"].as_str().unwrap_or("")
    }

    pub(crate) fn request(&self) -> &Value {
        &self.0["request"]
    }

    pub(crate) fn response(&self) -> &Value {
        &self.0["response"]
    }

    pub(crate) fn events(&self) -> Option<&Vec<Value>> {
        self.0["events"].as_array()
    }

    pub(crate) fn path(&self) -> &str {
        self.0["request"]["path"].as_str().unwrap_or("")
    }
}

/// The lines of a recording; `None`, loudly, where the recordings are not at hand.
pub(crate) fn lines(file: &str) -> Option<Vec<Line>> {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = home
        .ancestors()
        .skip(1)
        .map(|dir| dir.join("shared/recordings").join(file))
        .find(|path| path.exists())
        .unwrap_or_else(|| PathBuf::from(file));
    match std::fs::read_to_string(&path) {
        Ok(text) => Some(
            text.lines()
                .map(|line| Line(serde_json::from_str(line).expect("a recording is JSON lines")))
                .collect(),
        ),
        Err(error) => {
            eprintln!(
                "SKIPPED: {} is not there ({error}); nothing was compared",
                path.display()
            );
            None
        }
    }
}

/// An answer of the lab.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
    pub(crate) events: Vec<Value>,
}

/// A client of one server: sends requests exactly as they were recorded.
#[derive(Clone)]
pub(crate) struct Client {
    address: std::net::SocketAddr,
    tls: tokio_rustls::TlsConnector,
    tokens: BTreeMap<&'static str, String>,
}

impl Client {
    pub(crate) fn new(server: &RunningServer) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        let ca = rustls::pki_types::CertificateDer::from_pem_slice(server.ca_pem().as_bytes());
        roots.add(ca.expect("PEM")).expect("a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("TLS versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self {
            address: server.addr(),
            tls: Arc::new(config).into(),
            tokens: ["admin", "rig-limited"]
                .into_iter()
                .filter_map(|user| Some((user, server.token(user)?.to_owned())))
                .chain([("bad", "no-such-token".to_owned())])
                .collect(),
        }
    }

    /// Sends a request and reads the whole answer; streams are read until the server ends them or
    /// `enough` events are there.
    pub(crate) async fn send(&self, request: &Value, enough: Option<usize>) -> Answer {
        let stream = TcpStream::connect(self.address)
            .await
            .expect("a connection");
        let name = ServerName::try_from("localhost").expect("a name");
        let stream = self.tls.connect(name, stream).await.expect("TLS");
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .expect("HTTP");
        let connection = tokio::spawn(connection);
        let response = sender
            .send_request(self.build(request))
            .await
            .expect("an answer");
        let (parts, mut body) = response.into_parts();
        let mut bytes = Vec::new();
        let full = |bytes: &[u8]| {
            let lines = bytes.split(|byte| *byte == b'\n').count().saturating_sub(1);
            enough.is_some_and(|enough| lines >= enough)
        };
        while !full(&bytes) {
            let Some(frame) = body.frame().await else {
                break;
            };
            if let Ok(data) = frame.expect("a body").into_data() {
                bytes.extend_from_slice(&data);
            }
        }
        drop((sender, body));
        connection.abort();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let watched = request["path"]
            .as_str()
            .is_some_and(|p| p.contains("watch"));
        let events = if watched && parts.status == 200 {
            text.lines()
                .map(|line| serde_json::from_str(line).expect("an event is JSON"))
                .collect()
        } else {
            Vec::new()
        };
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: serde_json::from_str(&text).unwrap_or(Value::String(text)),
            events,
        }
    }

    fn build(&self, request: &Value) -> Request<Full<Bytes>> {
        let method = request["method"].as_str().unwrap_or("GET");
        let mut builder = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).expect("a method"))
            .uri(request["path"].as_str().expect("a path"))
            .header("Host", "localhost");
        for (name, value) in request["headers"].as_object().into_iter().flatten() {
            builder = builder.header(name, value.as_str().unwrap_or(""));
        }
        let user = request["as"].as_str().unwrap_or("admin");
        let user = user.split_whitespace().next().unwrap_or("admin");
        if let Some(token) = self.tokens.get(user) {
            builder = builder.header("Authorization", format!("Bearer {token}"));
        }
        let body = match &request["body"] {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        builder
            .body(Full::new(Bytes::from(body)))
            .expect("a request")
    }

    /// Does something that the recorder did beside its lines; it must succeed.
    pub(crate) async fn must(&self, method: &str, path: &str, body: Value) -> Value {
        let kind = if method == "PATCH" {
            "application/merge-patch+json"
        } else {
            "application/json"
        };
        let request = json!({
            "method": method, "path": path, "body": body,
            "headers": {"Content-Type": kind, "Accept": "application/json"},
        });
        let answer = self.send(&request, None).await;
        assert!(answer.status < 300, "{method} {path}: {}", answer.body);
        answer.body
    }
}

/// What came of a replay.
#[derive(Debug, Default)]
pub(crate) struct Report {
    agree: usize,
    worded: usize,
    refusals: usize,
    differ: Vec<(String, String)>,
}

impl Report {
    /// Notes how one line went.
    pub(crate) fn note(&mut self, line: &Line, answer: &Answer, names: &Names) {
        match shape::compare(line, answer, names) {
            Ok(()) => self.agree += 1,
            Err(why) => self.differ.push((line.id().to_owned(), why)),
        }
        let recorded = &line.response()["body"];
        if recorded["status"] == "Failure" {
            self.refusals += 1;
            let text = names.translate_text(recorded["message"].as_str().unwrap_or(""));
            self.worded += usize::from(answer.body["message"] == text.as_str());
        }
    }

    /// Prints the count and holds it against the table of reasons: every disagreement must have its
    /// reason, every reason its disagreement, and at least `least` percent must agree.
    pub(crate) fn judge(&self, name: &str, reasons: &[(&str, &str)], least: usize) {
        let total = self.agree + self.differ.len();
        println!("{name}: {} of {total} agree", self.agree);
        println!(
            "{name}: {} of {} refusals are the same word for word",
            self.worded, self.refusals
        );
        let mut unexplained = Vec::new();
        for (id, why) in &self.differ {
            match reasons.iter().find(|(known, _)| known == id) {
                Some((_, reason)) => println!("  {id}: {why}\n    because {reason}"),
                None => unexplained.push(format!("{id}: {why}")),
            }
        }
        let stale: Vec<&str> = reasons
            .iter()
            .map(|(id, _)| *id)
            .filter(|id| !self.differ.iter().any(|(differs, _)| differs == id))
            .collect();
        assert!(
            unexplained.is_empty(),
            "{} of {total} agree; no reason is written down for:\n{}",
            self.agree,
            unexplained.join("\n")
        );
        assert!(
            stale.is_empty(),
            "these agree by now, drop their reasons: {stale:?}"
        );
        assert!(
            total > 0 && self.agree * 100 >= total * least,
            "less than {least} % agree"
        );
    }
}
