//! Watches: history first, then changes as they come, bookmarks, and the end by timeout.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::call::Call;
use super::faults::Faults;
use super::list::{bad_options, forbidden_option, number};
use super::respond::View;
use super::selector::Selector;
use super::table::{self, Include};
use crate::lab::api::errors::ApiError;
use crate::lab::api::hooks::Body;
use crate::lab::api::meta;
use crate::lab::api::registry::Kind;
use crate::lab::api::store::{Change, ChangeKind, Store};

/// How long a watch lasts when the client does not say: the real server picks 30 to 60 minutes.
const LONGEST: Duration = Duration::from_secs(45 * 60);
/// How often a bookmark is due.
const BOOKMARKS: Duration = Duration::from_secs(60);
/// The last bookmark comes this long before the end.
const BEFORE_END: Duration = Duration::from_secs(2);
/// How often a watch that a fault may end is asked about.
const CHECK: Duration = Duration::from_millis(100);

/// Answers a watch.
pub(super) fn watch(call: &Call) -> Result<Response<Body>, ApiError> {
    let format = call.format()?;
    let include = table::include(&call.query)?;
    let timeout = number(call, "timeoutSeconds")?;
    let initial = call.query.flag("sendInitialEvents");
    check_options(call, initial)?;
    let selector = Selector::parse(
        call.kind(),
        call.query.get("labelSelector"),
        call.query.get("fieldSelector"),
    )?
    .named(&call.target.name);
    let from = match call.query.get("resourceVersion") {
        "" | "0" => None,
        _ if initial => None,
        text => Some(text.parse::<u64>().map_err(|_parse| {
            let message = format!("strconv.ParseUint: parsing {text:?}: invalid syntax");
            ApiError::new(500, "", message)
        })?),
    };
    let start = call.shared.store.lock().watch_from(&call.kinds.key, from);
    let now = Instant::now();
    let seconds = timeout.and_then(|seconds| u64::try_from(seconds).ok());
    let end = now
        + seconds
            .filter(|s| *s > 0)
            .map_or(LONGEST, Duration::from_secs);
    let bookmarks = call.query.flag("allowWatchBookmarks");
    let mut watcher = Watcher {
        printer: Printer {
            view: format.view,
            include,
            kind: Arc::clone(&call.kinds.kind),
            api_version: call.kinds.api_version.clone(),
            shown_columns: false,
        },
        selector,
        namespace: call.target.namespace.clone(),
        store: call.shared.store.clone(),
        changes: start.changes,
        seen: start.seen,
        end,
        bookmark: bookmarks.then(|| next_bookmark(now, end)),
        ready: Vec::new(),
        over: false,
        faults: Arc::clone(&call.shared.faults),
        expiry: None,
    };
    call.shared.power.watches.send_modify(|count| *count += 1);
    watcher.begin(&start.first, start.too_old, initial && bookmarks);
    Ok(respond(watcher))
}

fn next_bookmark(now: Instant, end: Instant) -> Instant {
    let last = end.checked_sub(BEFORE_END).unwrap_or(now).max(now);
    last.min(now + BOOKMARKS)
}

fn check_options(call: &Call, initial: bool) -> Result<(), ApiError> {
    let wanted = call.query.get("resourceVersionMatch");
    let why = if initial && wanted != "NotOlderThan" {
        "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
    } else if !initial && !wanted.is_empty() {
        "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
    } else {
        return Ok(());
    };
    Err(bad_options(&[forbidden_option(
        "resourceVersionMatch",
        why,
    )]))
}

fn respond(watcher: Watcher) -> Response<Body> {
    let frames = stream::unfold(watcher, |mut watcher| async move {
        let bytes = watcher.next().await?;
        Some((Ok::<_, io::Error>(Frame::data(bytes)), watcher))
    });
    let mut response = Response::new(BodyExt::boxed_unsync(StreamBody::new(frames)));
    headers(response.headers_mut());
    response
}

fn headers(headers: &mut HeaderMap) {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(
        "cache-control",
        HeaderValue::from_static("no-cache, private"),
    );
}

/// Writes objects in the view that was asked for.
struct Printer {
    view: View,
    include: Include,
    kind: Arc<Kind>,
    api_version: String,
    shown_columns: bool,
}

impl Printer {
    fn print(&mut self, object: &Value) -> Value {
        match self.view {
            View::Object if self.kind.group == super::builtin::EVENTS_GROUP => {
                super::builtin::to_new_event(object)
            }
            View::Object => {
                let mut object = object.clone();
                object["apiVersion"] = json!(self.api_version);
                object
            }
            View::Metadata => table::partial(object),
            View::Table => {
                let columns = if self.shown_columns {
                    Value::Null
                } else {
                    table::columns(&self.kind)
                };
                self.shown_columns = true;
                let version = meta::text(object, "/metadata/resourceVersion");
                let row = table::row(&self.kind, object, self.include);
                table::table(&json!({"resourceVersion": version}), &columns, &[row])
            }
        }
    }
}

struct Watcher {
    printer: Printer,
    selector: Selector,
    namespace: String,
    store: Store,
    changes: mpsc::UnboundedReceiver<Change>,
    /// Changes up to this version were sent or are not wanted.
    seen: u64,
    end: Instant,
    bookmark: Option<Instant>,
    /// Lines that can be sent at once.
    ready: Vec<u8>,
    over: bool,
    faults: Arc<Faults>,
    /// When fault `watch-gone` ends it.
    expiry: Option<Instant>,
}

impl Watcher {
    fn begin(&mut self, first: &[Change], too_old: Option<u64>, mark: bool) {
        if let Some(oldest) = too_old {
            self.expire(oldest);
            return;
        }
        for change in first {
            self.take(change);
        }
        if mark {
            self.push_bookmark(true);
        }
    }

    /// Says that history before `oldest` is gone, which ends the watch.
    fn expire(&mut self, oldest: u64) {
        let message = format!("too old resource version: {} ({oldest})", self.seen);
        let status = ApiError::expired(message).to_status();
        self.push("ERROR", &status);
        self.over = true;
    }

    fn push(&mut self, kind: &str, object: &Value) {
        let line = json!({"type": kind, "object": object});
        self.ready.extend_from_slice(line.to_string().as_bytes());
        self.ready.push(b'\n');
    }

    fn push_bookmark(&mut self, initial: bool) {
        let mut bookmark = json!({
            "kind": self.printer.kind.kind,
            "apiVersion": self.printer.api_version,
            "metadata": {"resourceVersion": self.seen.to_string()},
        });
        if self.printer.kind.group.is_empty() || !self.printer.kind.custom() {
            // Built-in kinds write their empty parts as well.
            crate::lab::api::fields::materialize(&self.printer.kind.schema, &mut bookmark);
        }
        if initial {
            bookmark["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        self.push("BOOKMARK", &bookmark);
    }

    fn wants(&self, object: &Value) -> bool {
        let home = self.namespace.is_empty()
            || !self.printer.kind.namespaced
            || meta::namespace(object) == self.namespace;
        home && self.selector.matches(object)
    }

    /// Queues the event that a change is to this watcher: a change into the selection is an
    /// addition, out of it a deletion.
    fn take(&mut self, change: &Change) {
        let was = change.previous.as_ref().is_some_and(|old| self.wants(old));
        let is = change.kind != ChangeKind::Deleted && self.wants(&change.object);
        let (kind, object) = match (was, is) {
            (false, false) => return,
            (false, true) => ("ADDED", Arc::clone(&change.object)),
            (true, true) => ("MODIFIED", Arc::clone(&change.object)),
            (true, false) if change.kind == ChangeKind::Deleted => {
                ("DELETED", Arc::clone(&change.object))
            }
            (true, false) => {
                // It left the selection: the old state, at the version of the change.
                let mut old = change.previous.as_deref().cloned().unwrap_or_default();
                meta::metadata(&mut old).insert(
                    "resourceVersion".to_owned(),
                    json!(change.version.to_string()),
                );
                ("DELETED", Arc::new(old))
            }
        };
        let object = self.printer.print(&object);
        self.push(kind, &object);
    }

    /// The next bytes; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.faults.silent() {
                std::future::pending::<()>().await;
            }
            if !self.ready.is_empty() {
                return Some(Bytes::from(std::mem::take(&mut self.ready)));
            }
            if self.over {
                return None;
            }
            let mark = self.bookmark.unwrap_or(self.end);
            if self.expiry.is_none() {
                self.expiry = self.faults.expiry().map(|last| Instant::now() + last);
            }
            let check = self.expiry.unwrap_or_else(|| Instant::now() + CHECK);
            tokio::select! {
                biased;
                change = self.changes.recv() => match change {
                    Some(change) if change.version > self.seen => {
                        self.seen = change.version;
                        self.take(&change);
                    }
                    Some(_) => {}
                    None => self.over = true,
                },
                () = sleep_until(self.end) => self.over = true,
                () = sleep_until(check), if self.faults.may_expire() => {
                    if self.expiry.is_some() {
                        self.expire(self.store.version());
                    }
                }
                () = sleep_until(mark), if self.bookmark.is_some() => {
                    // A watch from the future has nothing to mark yet.
                    if self.seen <= self.store.version() {
                        self.push_bookmark(false);
                    }
                    let next = next_bookmark(mark, self.end);
                    self.bookmark = (next > mark).then_some(next);
                }
            }
        }
    }
}
