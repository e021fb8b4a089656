//! One HTTP exchange with an API server: size limit, time limit, the safe retries, and both error
//! shapes (a `Status` object, or plain text as KubeVirt's GET subresources send).
//!
//! An error answer does not say that nothing was done: a server that gives up on etcd or on a
//! webhook, and a connection that breaks, leave it open. So only what may be done twice is repeated.

use std::time::Duration;

use backon::BackoffBuilder as _;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use kube::client::Body;
use serde_json::Value;

use super::error::{Error, Tried, chain};
use super::kind::ObjRef;
use super::wait::{builder, pause};

/// Largest answer that is read. A list page of 500 VMs stays well below it.
const MAX_BODY: usize = 64 << 20;
/// How long one attempt may take. Webhooks may use 30 s, and KubeVirt's freeze more than 10 s.
const ATTEMPT: Duration = Duration::from_secs(60);
/// How often a call that failed on the server, or broke off, is repeated.
const RETRIES: usize = 5;
/// How long a server that asks to be left alone for a while (429) is asked again.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest `Retry-After` that is waited out; a longer one is asked about in between.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// Longest text of a server that goes into an error.
const MAX_MESSAGE: usize = 600;
/// The media type of a list of operations.
pub(super) const JSON_PATCH: &str = "application/json-patch+json";

/// A whole answer.
#[derive(Debug)]
pub(super) struct Answer {
    /// HTTP status.
    pub(super) status: StatusCode,
    /// Headers.
    pub(super) headers: HeaderMap,
    /// Body.
    pub(super) body: Bytes,
}

/// An attempt without a whole answer.
enum Failed {
    /// It may not be made again: no connection, too long, too large, or no credentials.
    Finally(Error),
    /// The connection broke under it.
    Broke(Error),
}

/// The server as a caller sees it.
pub(super) struct Server<'a> {
    /// Its client.
    pub(super) client: &'a kube::Client,
    /// Its address, for errors.
    pub(super) url: &'a str,
}

impl Server<'_> {
    /// Sends a request and reads the whole answer, whatever its status. Repeats what the server said
    /// it did not take (429), when it says; and what failed there or broke off (5xx, a patch that
    /// met another writer) if it may be done twice.
    pub(super) async fn exchange(
        &self,
        tried: &Tried,
        request: &Request<Vec<u8>>,
    ) -> Result<Answer, Error> {
        let (twice, started) = (harmless_twice(request), tokio::time::Instant::now());
        let (mut delays, mut asked) = (builder().build(), builder().build());
        let mut failures = 0;
        loop {
            let got = self.once(tried, request.clone()).await;
            let wait = match &got {
                Err(Failed::Broke(_)) if twice => None,
                Ok(answer) if twice && failed(request, answer) => None,
                Ok(answer) => match retry_after(answer) {
                    Some(wait) if started.elapsed() < PATIENCE => Some(wait),
                    _ => return done(got),
                },
                Err(_) => return done(got),
            };
            let delay = if let Some(wait) = wait {
                asked.next().map(|own| own.max(wait))
            } else {
                failures += 1;
                delays.next().filter(|_| failures <= RETRIES)
            };
            let Some(delay) = delay else {
                return done(got);
            };
            pause(delay).await;
        }
    }

    async fn once(&self, tried: &Tried, request: Request<Vec<u8>>) -> Result<Answer, Failed> {
        let unreachable = |seen: String| Error::Unreachable {
            tried: tried.clone(),
            url: self.url.to_owned(),
            seen,
        };
        let exchange = async {
            let response =
                self.client
                    .send(request.map(Body::from))
                    .await
                    .map_err(|e| match &e {
                        kube::Error::Auth(_) => Failed::Finally(Error::Unauthorized {
                            tried: tried.clone(),
                            message: chain(&e),
                        }),
                        _ if connected(&e) => Failed::Broke(unreachable(chain(&e))),
                        _ => Failed::Finally(unreachable(chain(&e))),
                    })?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, MAX_BODY).collect().await.map_err(|e| {
                if e.is::<http_body_util::LengthLimitError>() {
                    Failed::Finally(Error::Answer {
                        tried: tried.clone(),
                        why: format!("it is larger than {MAX_BODY} bytes"),
                    })
                } else {
                    let why = format!("the answer broke off: {}", chain(e.as_ref()));
                    Failed::Broke(unreachable(why))
                }
            })?;
            Ok(Answer {
                status: parts.status,
                headers: parts.headers,
                body: body.to_bytes(),
            })
        };
        match tokio::time::timeout(ATTEMPT, exchange).await {
            Ok(done) => done,
            Err(_elapsed) => {
                let why = format!("no answer within {ATTEMPT:?}");
                Err(Failed::Finally(unreachable(why)))
            }
        }
    }
}

fn done(got: Result<Answer, Failed>) -> Result<Answer, Error> {
    got.map_err(|failed| match failed {
        Failed::Finally(error) | Failed::Broke(error) => error,
    })
}

/// Whether there was a connection when a call failed. Without one the site may be down, which is
/// the callers' business.
fn connected(error: &kube::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(next) = cause {
        if let Some(client) = next.downcast_ref::<hyper_util::client::legacy::Error>() {
            return !client.is_connect();
        }
        cause = next.source();
    }
    false
}

/// Builds a JSON request; `body` is the content type and the body.
pub(super) fn request(
    tried: &Tried,
    method: &str,
    path: &str,
    body: Option<(&str, &Value)>,
) -> Result<Request<Vec<u8>>, Error> {
    // KubeVirt's PUT subresources answer 406 to a bare `application/json`.
    let mut builder = Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::ACCEPT, "application/json, */*");
    let mut bytes = Vec::new();
    if let Some((content_type, value)) = body {
        builder = builder.header(http::header::CONTENT_TYPE, content_type);
        bytes = value.to_string().into_bytes();
    }
    builder.body(bytes).map_err(|e| Error::Invalid {
        tried: tried.clone(),
        message: format!("no valid request for {path:?}: {e}"),
    })
}

/// Refuses a reference that cannot be put in a path.
pub(super) fn sound(tried: &Tried, object: &ObjRef) -> Result<(), Error> {
    match object.flaw() {
        None => Ok(()),
        Some(message) => Err(Error::Invalid {
            tried: tried.clone(),
            message,
        }),
    }
}

/// Whether a request may be sent again although the one before may have been carried out. Creations
/// bear fixed names, so that a second one meets the object of the first, and reviews change nothing;
/// merge patches and applications come to the same state; deletions name a UID. A JSON patch may
/// test the state before it, and KubeVirt's PUTs are orders.
fn harmless_twice(request: &Request<Vec<u8>>) -> bool {
    match *request.method() {
        Method::GET | Method::DELETE | Method::POST => true,
        Method::PATCH => {
            let kind = request.headers().get(http::header::CONTENT_TYPE);
            kind.is_none_or(|kind| kind != JSON_PATCH)
        }
        _ => false,
    }
}

/// Whether an answer says that the server, or what is before or behind it, failed. A 500 in plain
/// text is how KubeVirt's GET subresources say no; a refusal of another kind is not for us to doubt.
fn failed(request: &Request<Vec<u8>>, answer: &Answer) -> bool {
    match answer.status.as_u16() {
        502..=504 => true,
        500 => Refusal::read(&answer.body).status,
        409 if request.method() == Method::PATCH => {
            // Somebody else wrote while the server applied the patch; without a version of our own
            // in it, it holds for the new state as well.
            let ours = String::from_utf8_lossy(request.body()).contains("resourceVersion");
            !ours && Refusal::read(&answer.body).reason == "Conflict"
        }
        _ => false,
    }
}

/// How long a server that did not take a request wants to be left alone.
fn retry_after(answer: &Answer) -> Option<Duration> {
    if answer.status != StatusCode::TOO_MANY_REQUESTS {
        return None;
    }
    let seconds = answer.headers.get(http::header::RETRY_AFTER)?;
    let seconds = seconds.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_WAIT))
}

impl Answer {
    /// The body as JSON, or the error that the status stands for.
    pub(super) fn json(&self, tried: &Tried) -> Result<Value, Error> {
        self.ok(tried)?;
        serde_json::from_slice(&self.body).map_err(|e| Error::Answer {
            tried: tried.clone(),
            why: format!("not JSON: {e}"),
        })
    }

    /// The error that the status stands for, if any.
    pub(super) fn ok(&self, tried: &Tried) -> Result<(), Error> {
        if self.status.is_success() {
            return Ok(());
        }
        let text = Refusal::read(&self.body);
        Err(text.into_error(tried.clone(), self.status))
    }
}

/// The words of a refused call.
pub(super) struct Refusal {
    /// The message.
    pub(super) message: String,
    /// Whether it was a Status.
    status: bool,
    /// `reason` of a Status.
    reason: String,
    /// Whether a Status named an object.
    names_object: bool,
}

impl Refusal {
    /// Reads a `Status` object or plain text.
    pub(super) fn read(body: &[u8]) -> Self {
        let status = serde_json::from_slice::<Value>(body).ok();
        let field = |name: &str| {
            let text = status
                .as_ref()
                .and_then(|s| s.get(name))
                .and_then(Value::as_str);
            text.unwrap_or_default().to_owned()
        };
        if field("kind") != "Status" {
            return Self {
                message: shorten(String::from_utf8_lossy(body).trim()),
                status: false,
                reason: String::new(),
                names_object: false,
            };
        }
        let named = status
            .as_ref()
            .and_then(|s| s.pointer("/details/name"))
            .and_then(Value::as_str)
            .is_some_and(|n| !n.is_empty());
        Self {
            message: shorten(&field("message")),
            status: true,
            reason: field("reason"),
            names_object: named,
        }
    }

    /// The typed error.
    pub(super) fn into_error(self, tried: Tried, status: StatusCode) -> Error {
        let message = self.message;
        match status.as_u16() {
            401 => Error::Unauthorized { tried, message },
            403 => Error::Forbidden { tried, message },
            // An API server answers an unknown group or resource with plain text, an unknown object
            // with a Status that names it.
            404 if !self.names_object && is_unserved(&message) => Error::MissingKind {
                kind: tried.what.clone(),
                tried,
            },
            404 => Error::NotFound { tried, message },
            409 if self.reason == "AlreadyExists" => Error::AlreadyExists { tried, message },
            409 => Error::Conflict { tried, message },
            400 | 422 => Error::Invalid { tried, message },
            code => Error::Http {
                tried,
                code,
                message,
            },
        }
    }
}

fn is_unserved(message: &str) -> bool {
    message.starts_with("404 page not found")
        || message.contains("could not find the requested resource")
}

fn shorten(text: &str) -> String {
    if text.len() <= MAX_MESSAGE {
        return text.to_owned();
    }
    let mut end = MAX_MESSAGE;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::event::Site;

    fn error(code: u16, body: &str) -> Error {
        let tried = Tried {
            site: Site::Primary,
            what: "GET Pod a/b".into(),
        };
        let status = StatusCode::from_u16(code).expect("a status");
        Refusal::read(body.as_bytes()).into_error(tried, status)
    }

    #[test]
    fn both_error_shapes_become_typed_errors() {
        let gone = r#"{"kind":"Status","reason":"NotFound","code":404,"message":"pods \"b\" not found","details":{"name":"b","kind":"pods"}}"#;
        assert!(error(404, gone).is_not_found());
        assert!(matches!(
            error(404, "404 page not found\n"),
            Error::MissingKind { .. }
        ));
        let exists =
            r#"{"kind":"Status","reason":"AlreadyExists","message":"x","details":{"name":"b"}}"#;
        assert!(matches!(error(409, exists), Error::AlreadyExists { .. }));
        let paused = r#"{"kind":"Status","reason":"Conflict","message":"VMI is paused"}"#;
        assert!(matches!(error(409, paused), Error::Conflict { .. }));
        assert!(matches!(
            error(401, "Unauthorized"),
            Error::Unauthorized { .. }
        ));
        assert!(matches!(error(422, "{}"), Error::Invalid { .. }));
        let Error::Http { code, message, .. } =
            error(500, "VMI does not have guest agent connected")
        else {
            panic!("plain text 500");
        };
        assert_eq!(
            (code, message.as_str()),
            (500, "VMI does not have guest agent connected")
        );
    }

    #[test]
    fn a_servers_words_are_bounded() {
        let long = "é".repeat(5000);
        let Error::Http { message, .. } = error(500, &long) else {
            panic!("not http")
        };
        assert!(message.len() < 2 * MAX_MESSAGE, "{}", message.len());
    }
}
