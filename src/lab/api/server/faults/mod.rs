//! Faults of the server itself: answers that come late, are refused, are untrue or break off, and
//! watches that end or fall silent.
//!
//! Contract: what goes over the wire is what the real server, or what stands before it, sends. Only
//! clients are struck; the lab's controllers use the store. Which of many requests is struck follows
//! from the seed and the order in which they come.

mod stream;
#[cfg(test)]
mod tests;
mod words;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Response, StatusCode};
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::respond::failure;
use super::route::Target;
use crate::lab::api::errors::ApiError;
use crate::lab::api::hooks::Body;
use crate::lab::api::meta;
use crate::lab::api::store::{Part, Store};
use crate::lab::faults::{Board, Fault};
use crate::probe::layout::mix;

/// What the other writer of `api-conflicts` leaves on an object.
const OTHER_WRITER: &str = "lab.virtproof.dev/other-writer";

/// What becomes of a request.
pub(super) enum Turn {
    /// It is served.
    Serve,
    /// It is answered so instead, and nothing is done.
    Refuse(Response<Body>),
    /// It is carried out, and the client is told this all the same.
    Deny(Response<Body>),
}

/// How often a fault could have struck, and since when.
#[derive(Debug)]
struct Occasions {
    count: u64,
    since: Instant,
}

/// The faults of one server.
#[derive(Debug)]
pub(super) struct Faults {
    board: Arc<Board>,
    seed: u64,
    occasions: Mutex<BTreeMap<Fault, Occasions>>,
}

impl Faults {
    pub(super) fn new(board: Arc<Board>, seed: u64) -> Self {
        Self {
            board,
            seed,
            occasions: Mutex::default(),
        }
    }

    /// Takes the next occasion of a fault: its number from 0, and how long the fault is awake.
    fn next(&self, fault: Fault) -> (u64, Duration) {
        let mut all = self
            .occasions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let one = all.entry(fault).or_insert_with(|| Occasions {
            count: 0,
            since: Instant::now(),
        });
        let count = one.count;
        one.count += 1;
        (count, one.since.elapsed())
    }

    /// A number drawn for the next occasion of a fault.
    fn draw(&self, fault: Fault) -> u64 {
        let (count, _) = self.next(fault);
        mix(self.seed ^ mix(((fault as u64) << 32) ^ count))
    }

    /// A parameter of a fault that is awake, not below zero.
    fn param(&self, fault: Fault, name: &str) -> Option<u64> {
        let value = self.board.param(fault, name)?;
        u64::try_from(value).ok()
    }

    /// A number drawn for a request that the fault's `share` of a hundred strikes.
    fn struck(&self, fault: Fault) -> Option<u64> {
        let share = self.param(fault, "share")?;
        let drawn = self.draw(fault);
        (drawn % 100 < share).then_some(drawn / 100)
    }

    /// How late a fault makes something: its parameter `name` in ms and up to `jitter` more.
    fn delay(&self, fault: Fault, name: &str) -> Option<Duration> {
        let least = self.param(fault, name)?;
        let jitter = self.param(fault, "jitter").unwrap_or(0);
        let more = self.draw(fault) % jitter.saturating_add(1);
        Some(Duration::from_millis(least.saturating_add(more)))
    }

    /// Decides about a request before anything is done for it. `proxied` requests belong to an
    /// aggregated API.
    pub(super) fn before(&self, store: &Store, target: &Target, proxied: bool) -> Turn {
        if self.throttles(target) {
            return Turn::Refuse(words::throttled(self.seed));
        }
        if !proxied && let Some(conflict) = self.other_writer(store, target) {
            return Turn::Refuse(failure(&conflict, &[]));
        }
        if target.resource_path
            && let Some(drawn) = self.struck(Fault::ApiErrors)
        {
            return error(target, proxied, drawn);
        }
        Turn::Serve
    }

    /// Faults `api-throttled` and `api-throttled-forever`. Streams that last are not subject to
    /// priority and fairness, nor are the health checks.
    fn throttles(&self, target: &Target) -> bool {
        if !target.resource_path || lasts(target) {
            return false;
        }
        if self.board.armed(Fault::ApiThrottledForever) && writes(target) {
            return true;
        }
        let fault = Fault::ApiThrottled;
        let Some(seconds) = self.param(fault, "seconds") else {
            return false;
        };
        let (_, awake) = self.next(fault);
        awake < Duration::from_secs(seconds) && self.struck(fault).is_some()
    }

    /// Fault `api-conflicts`: another writer is first, and really writes.
    fn other_writer(&self, store: &Store, target: &Target) -> Option<ApiError> {
        if !matches!(target.verb, "update" | "patch") || target.name.is_empty() {
            return None;
        }
        let every = self.param(Fault::ApiConflicts, "every")?.max(1);
        let (count, _) = self.next(Fault::ApiConflicts);
        if count % every != 0 {
            return None;
        }
        let key = target.key();
        let namespace = if key == "namespaces" {
            ""
        } else {
            &target.namespace
        };
        let write = |object: &mut serde_json::Value| {
            meta::map_at(object, "metadata")
                .entry("annotations")
                .or_insert_with(|| json!({}))[OTHER_WRITER] = json!(count.to_string());
        };
        let written = store.modify(&key, namespace, &target.name, Part::Object, write);
        written.ok().map(|_| ApiError::stale(&key, &target.name))
    }

    /// What happens to an answer on its way out.
    pub(super) async fn after(&self, target: &Target, answer: Response<Body>) -> Response<Body> {
        let mut answer = answer;
        if let Some(late) = self.delay(Fault::ApiLatency, "ms") {
            sleep_until(Instant::now() + late).await;
        }
        let watch = target.verb == "watch";
        let lag = [(Fault::ApiLatency, "ms"), (Fault::StaleGeneration, "watch")]
            .into_iter()
            .filter_map(|(fault, name)| self.delay(fault, name))
            .max();
        if watch && let Some(lag) = lag {
            answer = answer.map(|body| stream::late(body, lag));
        }
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS
            && let Some(drawn) = self.struck(Fault::ApiResets)
        {
            answer = if watch {
                answer.map(|body| stream::cut_watch(body, drawn))
            } else {
                stream::cut(answer)
            };
        }
        answer
    }

    /// Fault `watch-stalled`: whether watches say nothing any more, not even their end.
    pub(super) fn silent(&self) -> bool {
        self.board.armed(Fault::WatchStalled)
    }

    /// Fault `watch-gone`: how long a watch lasts from now on before its version is too old.
    pub(super) fn expiry(&self) -> Option<Duration> {
        self.delay(Fault::WatchGone, "ms")
    }

    /// Whether watches may yet have to end by `watch-gone`, so that it is worth asking again.
    pub(super) fn may_expire(&self) -> bool {
        self.board.planted().contains(&Fault::WatchGone)
    }
}

/// Whether a request changes something.
fn writes(target: &Target) -> bool {
    matches!(
        target.verb,
        "create" | "update" | "patch" | "delete" | "deletecollection"
    )
}

/// Whether a request becomes a stream that lasts.
fn lasts(target: &Target) -> bool {
    matches!(
        target.subresource.as_str(),
        "portforward" | "console" | "vnc" | "exec" | "attach"
    )
}

/// Fault `api-errors`: one of the ways in which a server or what is behind it fails. Half of the
/// writes that are said to have failed were carried out.
fn error(target: &Target, proxied: bool, drawn: u64) -> Turn {
    let say = |error: ApiError| failure(&error, &[]);
    match (writes(target), drawn % 4) {
        (_, 0) => Turn::Refuse(words::unavailable(proxied)),
        (false, _) if proxied => Turn::Refuse(words::unavailable(true)),
        (true, 1) if target.group == "kubevirt.io" => Turn::Refuse(say(words::no_webhook(target))),
        (true, 2) => Turn::Deny(say(words::etcd())),
        (true, 3) => Turn::Deny(say(words::timeout())),
        _ => Turn::Refuse(say(words::etcd())),
    }
}
