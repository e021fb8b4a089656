//! A small API server for tests of this module and its users: objects by path, watches that can be
//! cut or expired, finalizers, and replies on demand.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Cluster;
use crate::history::event::Site;

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// A reply that is given instead of the usual one.
#[derive(Debug, Clone)]
pub(crate) struct Reply(pub(crate) u16, pub(crate) Value);

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    /// Version, path, type, object.
    events: Vec<(u64, String, &'static str, Value)>,
    version: u64,
    /// Watches from before this version are answered with 410.
    oldest: u64,
    requests: Vec<String>,
    replies: VecDeque<(String, Reply)>,
    /// So many requests more are answered 429, with so many seconds to wait.
    throttled: (u32, u32),
    /// Watches say nothing.
    stalled: bool,
    down: bool,
}

/// The server.
#[derive(Clone)]
pub(crate) struct Fake {
    state: Arc<Mutex<State>>,
    news: watch::Sender<u64>,
    cut: Arc<Mutex<CancellationToken>>,
    url: String,
}

impl Fake {
    /// Starts a server on a free port.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/", listener.local_addr().expect("an address"));
        let fake = Self {
            state: Arc::default(),
            news: watch::channel(0).0,
            cut: Arc::default(),
            url,
        };
        let server = fake.clone();
        tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    return;
                };
                let (fake, cut) = (server.clone(), server.token());
                if server.lock().down {
                    continue;
                }
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let fake = fake.clone();
                        async move { Ok::<_, Infallible>(fake.answer(request).await) }
                    });
                    let builder =
                        hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    tokio::select! {
                        // How a client ends a connection is its own affair.
                        _ = builder.serve_connection(TokioIo::new(stream), service) => {}
                        () = cut.cancelled() => {}
                    }
                });
            }
        });
        fake
    }

    /// A client of this server.
    pub(crate) fn cluster(&self, site: Site) -> Arc<Cluster> {
        let mut config = kube::Config::new(self.url.parse().expect("a url"));
        config.default_retry = false;
        let client = kube::Client::try_from(config).expect("a client");
        Cluster::with_client(site, client, self.url.clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn token(&self) -> CancellationToken {
        self.cut
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Cuts every connection.
    pub(crate) fn cut(&self) {
        std::mem::take(&mut *self.cut.lock().unwrap_or_else(PoisonError::into_inner)).cancel();
    }

    /// Takes the power away or gives it back.
    pub(crate) fn set_down(&self, down: bool) {
        self.lock().down = down;
        if down {
            self.cut();
        }
    }

    /// Forgets the events so far, so that watches must start over with a list.
    pub(crate) fn expire(&self) {
        let mut state = self.lock();
        state.oldest = state.version;
    }

    /// Answers the next request whose `METHOD path` starts with `prefix` with `reply`.
    pub(crate) fn reply(&self, prefix: &str, reply: Reply) {
        self.lock().replies.push_back((prefix.to_owned(), reply));
    }

    /// Makes every watch stay open and silent.
    pub(crate) fn stall(&self) {
        self.lock().stalled = true;
    }

    /// Answers the next `times` requests with 429 and `Retry-After: seconds`.
    pub(crate) fn throttle(&self, times: u32, seconds: u32) {
        self.lock().throttled = (times, seconds);
    }

    /// `METHOD path` of every request so far, watches included.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.lock().requests.clone()
    }

    /// Puts an object, as a controller would.
    pub(crate) fn put(&self, path: &str, mut object: Value) {
        let mut state = self.lock();
        let known = state.objects.contains_key(path);
        if let Some(old) = state.objects.get(path) {
            object["metadata"]["uid"] = old["metadata"]["uid"].clone();
        }
        state.store(path, object, if known { "MODIFIED" } else { "ADDED" });
        drop(state);
        self.announce();
    }

    /// Changes an object, as a controller would.
    pub(crate) fn change(&self, path: &str, merge: &Value) {
        let mut object = self.get(path).expect("the object to change");
        json_patch::merge(&mut object, merge);
        self.put(path, object);
    }

    /// The object at a path.
    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.lock().objects.get(path).cloned()
    }

    /// Removes an object, finalizers or not.
    pub(crate) fn remove(&self, path: &str) {
        self.lock().remove(path);
        self.announce();
    }

    fn announce(&self) {
        self.news.send_modify(|n| *n += 1);
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let body = body
            .collect()
            .await
            .map(http_body_util::Collected::to_bytes)
            .unwrap_or_default();
        let what = format!("{} {path}", parts.method);
        {
            let mut state = self.lock();
            state.requests.push(what.clone());
            if let (times @ 1.., seconds) = state.throttled {
                state.throttled.0 = times - 1;
                let mut wait = reply(429, &Value::String("Too many requests".into()));
                let headers = wait.headers_mut();
                headers.insert(http::header::RETRY_AFTER, seconds.into());
                return wait;
            }
            let scripted = state
                .replies
                .iter()
                .position(|(prefix, _)| what.starts_with(prefix));
            if let Some((_, Reply(code, value))) = scripted.and_then(|i| state.replies.remove(i)) {
                return reply(code, &value);
            }
        }
        if query.contains("watch=true") {
            return self.watch(&path, &query);
        }
        let body = serde_json::from_slice(&body).unwrap_or_default();
        let response = self.lock().serve(&parts.method, &path, &query, body);
        self.announce();
        response
    }

    fn watch(&self, path: &str, query: &str) -> Response<Body> {
        let from = parameter(query, "resourceVersion")
            .and_then(|v| v.parse().ok())
            .unwrap_or(0_u64);
        let only = wanted_name(query);
        let (fake, path, cut) = (self.clone(), format!("{path}/"), self.token());
        let news = self.news.subscribe();
        let lines = futures::stream::unfold((from, news, false), move |(at, mut news, ended)| {
            let (fake, path, only) = (fake.clone(), path.clone(), only.clone());
            let cut = cut.clone();
            async move {
                if ended {
                    return None;
                }
                loop {
                    news.mark_unchanged();
                    let (next, text, gone) = fake.events_after(at, &path, only.as_deref());
                    if !text.is_empty() {
                        let frame = Frame::data(Bytes::from(text));
                        return Some((Ok(frame), (next, news, gone)));
                    }
                    tokio::select! {
                        changed = news.changed() => changed.ok()?,
                        () = cut.cancelled() => {
                            return Some((Err(std::io::ErrorKind::ConnectionReset.into()), (at, news, true)));
                        }
                    }
                }
            }
        });
        Response::new(UnsyncBoxBody::new(StreamBody::new(lines)))
    }

    fn events_after(&self, at: u64, path: &str, only: Option<&str>) -> (u64, String, bool) {
        let state = self.lock();
        if state.stalled {
            return (at, String::new(), false);
        }
        if at < state.oldest {
            let gone = json!({"type": "ERROR", "object": {
                "kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}});
            return (at, format!("{gone}\n"), true);
        }
        let wanted = state.events.iter().filter(|(version, place, _, _)| {
            *version > at
                && in_collection(place, path)
                && only.is_none_or(|suffix| place.ends_with(suffix))
        });
        let mut text = String::new();
        for (_, _, type_, object) in wanted {
            text.push_str(&json!({"type": type_, "object": object}).to_string());
            text.push('\n');
        }
        (state.version, text, false)
    }
}

fn parameter(query: &str, name: &str) -> Option<String> {
    let decoded = query.replace("%3D", "=").replace("%2F", "/");
    decoded
        .split('&')
        .find_map(|p| p.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
}

/// `/name` of a `metadata.name` field selector.
fn wanted_name(query: &str) -> Option<String> {
    parameter(query, "fieldSelector").map(|f| f.replace("metadata.name=", "/"))
}

/// Whether an object has the label that a `name=value` selector asks for.
fn is_labelled(query: &str, object: &Value) -> bool {
    parameter(query, "labelSelector").is_none_or(|selector| {
        let (name, value) = selector.split_once('=').expect("a plain selector");
        object["metadata"]["labels"][name] == value
    })
}

/// Whether an object at `place` is in the collection `path/`, of one namespace or of all.
fn in_collection(place: &str, path: &str) -> bool {
    if place
        .strip_prefix(path)
        .is_some_and(|name| !name.contains('/'))
    {
        return true;
    }
    let Some((base, plural)) = path.trim_end_matches('/').rsplit_once('/') else {
        return false;
    };
    place
        .strip_prefix(&format!("{base}/namespaces/"))
        .and_then(|rest| rest.split_once('/'))
        .is_some_and(|(_, rest)| {
            rest.strip_prefix(plural)
                .is_some_and(|r| r.starts_with('/'))
        })
}

impl State {
    fn store(&mut self, path: &str, mut object: Value, type_: &'static str) -> Value {
        self.version += 1;
        let meta = &mut object["metadata"];
        meta["resourceVersion"] = json!(self.version.to_string());
        if meta["uid"].is_null() {
            meta["uid"] = json!(format!("uid-{}", self.version));
        }
        self.objects.insert(path.to_owned(), object.clone());
        self.events
            .push((self.version, path.to_owned(), type_, object.clone()));
        object
    }

    fn remove(&mut self, path: &str) {
        if let Some(mut object) = self.objects.remove(path) {
            self.version += 1;
            object["metadata"]["resourceVersion"] = json!(self.version.to_string());
            self.events
                .push((self.version, path.to_owned(), "DELETED", object));
        }
    }

    fn serve(&mut self, method: &Method, path: &str, query: &str, body: Value) -> Response<Body> {
        match *method {
            Method::GET => match self.objects.get(path) {
                Some(object) => reply(200, object),
                None if is_collection(path) => {
                    let prefix = format!("{path}/");
                    let only = wanted_name(query);
                    let items: Vec<&Value> = self
                        .objects
                        .iter()
                        .filter(|(place, object)| {
                            in_collection(place, &prefix)
                                && only.as_ref().is_none_or(|name| place.ends_with(name))
                                && is_labelled(query, object)
                        })
                        .map(|(_, object)| object)
                        .collect();
                    let version = self.version.to_string();
                    reply(
                        200,
                        &json!({"metadata": {"resourceVersion": version}, "items": items}),
                    )
                }
                None => missing(path),
            },
            Method::POST => {
                let name = body["metadata"]["name"].as_str().unwrap_or_default();
                let place = format!("{path}/{name}");
                if self.objects.contains_key(&place) {
                    return status(409, "AlreadyExists", name);
                }
                reply(201, &self.store(&place, body, "ADDED"))
            }
            Method::PATCH => match self.objects.get(path).cloned() {
                Some(mut object) => {
                    json_patch::merge(&mut object, &body);
                    reply(200, &self.store(path, object, "MODIFIED"))
                }
                None => missing(path),
            },
            Method::DELETE => self.delete(path, &body),
            _ => reply(200, &Value::Null),
        }
    }

    fn delete(&mut self, path: &str, options: &Value) -> Response<Body> {
        let Some(mut object) = self.objects.get(path).cloned() else {
            return missing(path);
        };
        let wanted = &options["preconditions"]["uid"];
        if !wanted.is_null() && *wanted != object["metadata"]["uid"] {
            return status(409, "Conflict", path);
        }
        let kept = object["metadata"]["finalizers"]
            .as_array()
            .is_some_and(|f| !f.is_empty());
        if kept {
            object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            self.store(path, object, "MODIFIED");
        } else {
            self.remove(path);
        }
        reply(200, &json!({"kind": "Status", "status": "Success"}))
    }
}

/// Collections have an odd number of segments after the version, objects an even one.
fn is_collection(path: &str) -> bool {
    let segments = path.trim_matches('/').split('/').count();
    let base = if path.starts_with("/api/") { 2 } else { 3 };
    (segments - base.min(segments)) % 2 == 1
}

fn missing(path: &str) -> Response<Body> {
    status(404, "NotFound", path.rsplit('/').next().unwrap_or_default())
}

fn status(code: u16, reason: &str, name: &str) -> Response<Body> {
    let body = json!({
        "kind": "Status", "status": "Failure", "code": code, "reason": reason,
        "message": format!("{name:?}: {reason}"), "details": {"name": name},
    });
    reply(code, &body)
}

fn reply(code: u16, value: &Value) -> Response<Body> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    let body = Full::new(Bytes::from(text))
        .map_err(|never| match never {})
        .boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(code).expect("a status");
    response
}
