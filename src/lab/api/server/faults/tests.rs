//! What clients see of each fault, over a real connection.

use std::sync::Arc;
use std::time::Duration;

use futures::AsyncBufReadExt as _;
use futures::{StreamExt as _, TryStreamExt as _};
use http::{HeaderMap, Request};
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::*;
use crate::lab::api::server::tests::client;
use crate::lab::api::{ApiServer, RunningServer, SiteConfig};
use crate::lab::clock::LabClock;
use crate::lab::faults::parse;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

struct Rig {
    server: RunningServer,
    board: Arc<Board>,
    client: kube::Client,
}

async fn rig() -> Rig {
    let board = Arc::new(Board::default());
    let mut config = SiteConfig::new("site", Store::new(3), LabClock::new(1.0));
    config.board = Arc::clone(&board);
    config.seed = 7;
    let server = ApiServer::start(config).await.unwrap();
    let client = client(&server, "admin").await;
    Rig {
        server,
        board,
        client,
    }
}

#[derive(Debug)]
struct Got {
    code: u16,
    headers: HeaderMap,
    text: String,
}

impl Got {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }
    fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).and_then(|v| v.to_str().ok());
        value.unwrap_or_default()
    }
}

impl Rig {
    fn plant(&self, text: &str) {
        let mut planting = parse(text).unwrap();
        planting.aim = None;
        self.board.put(planting);
    }

    async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Result<Got, String> {
        let kind = if method == "PATCH" {
            "application/merge-patch+json"
        } else {
            "application/json"
        };
        let bytes = body.map(|body| body.to_string().into_bytes());
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", kind)
            .body(Body::from(bytes.unwrap_or_default()))
            .unwrap();
        let answer = self.client.send(request).await.map_err(|e| e.to_string())?;
        let (parts, body) = answer.into_parts();
        let bytes = body.collect().await.map_err(|e| e.to_string())?.to_bytes();
        Ok(Got {
            code: parts.status.as_u16(),
            headers: parts.headers,
            text: String::from_utf8_lossy(&bytes).into_owned(),
        })
    }

    async fn create(&self, name: &str) -> Result<Got, String> {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
        self.call("POST", MAPS, Some(map)).await
    }

    fn there(&self, name: &str) -> Option<Arc<Value>> {
        self.server.store().get("configmaps", "default", name)
    }

    /// The lines of a watch until it ends, and how it ended.
    async fn watch(&self, query: &str) -> (Vec<String>, Option<String>) {
        let path = format!("{MAPS}?watch=true&{query}");
        let request = Request::get(path).body(Vec::new()).unwrap();
        let mut lines = match self.client.request_stream(request).await {
            Ok(stream) => stream.lines(),
            Err(error) => return (Vec::new(), Some(error.to_string())),
        };
        let mut seen = Vec::new();
        loop {
            match lines.try_next().await {
                Ok(Some(line)) => seen.push(line),
                Ok(None) => return (seen, None),
                Err(error) => return (seen, Some(error.to_string())),
            }
        }
    }
}

#[tokio::test]
async fn throttled_requests_hear_when_to_come_back_and_others_pass() {
    let rig = rig().await;
    rig.plant("api-throttled:share=100,seconds=60");
    let got = rig.call("GET", MAPS, None).await.unwrap();
    assert_eq!(got.code, 429);
    assert_eq!(got.text, "Too many requests, please try again later.\n");
    assert_eq!(got.header("retry-after"), "1");
    assert_eq!(got.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(got.header("x-content-type-options"), "nosniff");
    assert_eq!(got.header("x-kubernetes-pf-flowschema-uid").len(), 36);
    let health = rig.call("GET", "/readyz", None).await.unwrap();
    assert_eq!(health.code, 200, "health checks are exempt");
    rig.plant("api-throttled:share=100,seconds=0");
    let after = rig.call("GET", MAPS, None).await.unwrap();
    assert_eq!(after.code, 200, "the window is over");
    rig.server.shutdown().await;
}

#[tokio::test]
async fn throttling_for_ever_strikes_writes_only() {
    let rig = rig().await;
    rig.plant("api-throttled-forever");
    for _ in 0..3 {
        assert_eq!(rig.create("a").await.unwrap().code, 429);
    }
    assert!(rig.there("a").is_none());
    assert_eq!(rig.call("GET", MAPS, None).await.unwrap().code, 200);
    rig.server.shutdown().await;
}

#[tokio::test]
async fn a_conflict_comes_of_another_writer_who_really_wrote() {
    let rig = rig().await;
    assert_eq!(rig.create("a").await.unwrap().code, 201);
    let before = rig.there("a").unwrap();
    rig.plant("api-conflicts:every=2");
    let map = format!("{MAPS}/a");
    let patch = || Some(json!({"data": {"k": "v"}}));
    let got = rig.call("PATCH", &map, patch()).await.unwrap();
    let status = got.json();
    assert_eq!((got.code, &status["reason"]), (409, &json!("Conflict")));
    assert_eq!(
        status["message"],
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again"
    );
    assert_eq!(
        status["details"],
        json!({"name": "a", "kind": "configmaps"})
    );
    let after = rig.there("a").unwrap();
    assert_ne!(
        meta::text(&before, "/metadata/resourceVersion"),
        meta::text(&after, "/metadata/resourceVersion")
    );
    assert!(after["data"].is_null(), "nothing of the patch was applied");
    assert_eq!(rig.call("PATCH", &map, patch()).await.unwrap().code, 200);
    rig.server.shutdown().await;
}

#[tokio::test]
async fn some_writes_that_failed_took_place_and_some_did_not() {
    let rig = rig().await;
    rig.plant("api-errors:share=100");
    let (mut denied, mut refused, mut codes) = (0, 0, std::collections::BTreeSet::new());
    for at in 0..40 {
        let name = format!("a{at}");
        let got = rig.create(&name).await.unwrap();
        codes.insert(got.code);
        assert!(got.code >= 500, "{got:?}");
        match (got.code, rig.there(&name).is_some()) {
            (503, false) => assert!(got.text.contains("503 Service Unavailable")),
            (504, true) => assert_eq!(got.json()["reason"], "Timeout"),
            (500, there) => {
                let status = got.json();
                assert_eq!(status["message"], "etcdserver: request timed out");
                assert!(status["reason"].is_null() && status["details"].is_null());
                if there {
                    denied += 1;
                } else {
                    refused += 1;
                }
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(denied > 0 && refused > 0, "{denied} {refused}");
    assert_eq!(codes.into_iter().collect::<Vec<_>>(), [500, 503, 504]);
    rig.server.shutdown().await;
}

#[tokio::test]
async fn answers_break_off_in_the_middle_though_the_write_took_place() {
    let rig = rig().await;
    rig.plant("api-resets:share=100");
    for name in ["a", "b"] {
        let broke = rig.create(name).await.expect_err("half an answer");
        assert!(!broke.is_empty());
        assert!(rig.there(name).is_some(), "{name} was not made");
    }
    let (_, end) = rig.watch("resourceVersion=0").await;
    assert!(end.is_some(), "a watch that is cut does not end in order");
    rig.board.heal(Fault::ApiResets);
    assert_eq!(rig.call("GET", MAPS, None).await.unwrap().code, 200);
    rig.server.shutdown().await;
}

#[tokio::test]
async fn an_expired_watch_says_so_and_ends() {
    let rig = rig().await;
    rig.plant("watch-gone:ms=50,jitter=0");
    let (lines, end) = rig.watch("").await;
    assert_eq!(end, None, "it ends in order");
    let last: Value = serde_json::from_str(lines.last().unwrap()).unwrap();
    assert_eq!(last["type"], "ERROR");
    let status = &last["object"];
    assert_eq!(
        (&status["code"], &status["reason"]),
        (&json!(410), &json!("Expired"))
    );
    let message = status["message"].as_str().unwrap();
    assert!(
        message.starts_with("too old resource version: "),
        "{message}"
    );
    rig.server.shutdown().await;
}

#[tokio::test]
async fn a_watch_that_runs_already_is_struck_when_the_fault_wakes() {
    let rig = rig().await;
    rig.board
        .put(parse("watch-gone:ms=50,jitter=0@load").unwrap());
    let watch = rig.watch("timeoutSeconds=60");
    let wake = async {
        tokio::task::yield_now().await;
        rig.board.moment(crate::lab::faults::Moment::Load);
    };
    let ((lines, _), ()) = tokio::join!(watch, wake);
    assert!(lines.last().unwrap().contains("\"code\":410"), "{lines:?}");
    rig.server.shutdown().await;
}

#[tokio::test]
async fn a_stalled_watch_stays_open_and_silent() {
    let rig = rig().await;
    rig.plant("watch-stalled");
    let path = format!("{MAPS}?watch=true&timeoutSeconds=1&allowWatchBookmarks=true");
    let request = Request::get(path).body(Vec::new()).unwrap();
    let mut lines = rig.client.request_stream(request).await.unwrap().lines();
    assert_eq!(rig.create("a").await.unwrap().code, 201);
    let heard = tokio::time::timeout(Duration::from_millis(1500), lines.try_next()).await;
    assert!(heard.is_err(), "it said {heard:?}");
    drop(lines);
    rig.server.shutdown().await;
}

#[tokio::test]
async fn late_answers_and_late_events_keep_their_order() {
    let rig = rig().await;
    rig.plant("api-latency:ms=100,jitter=0");
    let begin = Instant::now();
    assert_eq!(rig.create("a").await.unwrap().code, 201);
    assert!(begin.elapsed() >= Duration::from_millis(100));
    for name in ["b", "c"] {
        rig.create(name).await.unwrap();
    }
    let (lines, end) = rig.watch("timeoutSeconds=1").await;
    assert_eq!(end, None);
    let names: Vec<Value> = lines
        .iter()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["object"]["metadata"]["name"].clone()
        })
        .collect();
    assert_eq!(names, ["a", "b", "c", "kube-root-ca.crt"]);
    rig.server.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn late_frames_each_come_a_lag_after_they_were_sent() {
    let lag = Duration::from_secs(3);
    let sent = futures::stream::iter(["a", "b"]).then(|text| async move {
        sleep_until(Instant::now() + Duration::from_secs(1)).await;
        Ok(hyper::body::Frame::data(bytes::Bytes::from_static(
            text.as_bytes(),
        )))
    });
    let begin = Instant::now();
    let body = http_body_util::BodyExt::boxed_unsync(http_body_util::StreamBody::new(sent));
    let mut late = stream::late(body, lag).into_data_stream();
    for (text, due) in [("a", 4), ("b", 5)] {
        assert_eq!(late.try_next().await.unwrap().unwrap(), text);
        assert_eq!(begin.elapsed().as_secs(), due);
    }
}
