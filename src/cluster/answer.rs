//! One HTTP exchange with an API server: size limit, time limit, the few safe retries, and both
//! error shapes (a `Status` object, or plain text as KubeVirt's GET subresources send).

use std::time::Duration;

use backon::BackoffBuilder as _;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use kube::client::Body;
use serde_json::Value;

use super::error::{Error, Tried, chain};
use super::kind::ObjRef;
use super::wait::pause;

/// Largest answer that is read. A list page of 500 VMs stays well below it.
const MAX_BODY: usize = 64 << 20;
/// How long one attempt may take. Webhooks may use 30 s, and KubeVirt's freeze more than 10 s.
const ATTEMPT: Duration = Duration::from_secs(60);
/// How often a call that the server did not take is repeated.
const RETRIES: usize = 5;
/// Longest text of a server that goes into an error.
const MAX_MESSAGE: usize = 600;

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

/// The server as a caller sees it.
pub(super) struct Server<'a> {
    /// Its client.
    pub(super) client: &'a kube::Client,
    /// Its address, for errors.
    pub(super) url: &'a str,
}

impl Server<'_> {
    /// Sends a request and reads the whole answer, whatever its status. Repeats what the server said
    /// it did not take (429), and reads that a proxy or an aggregated API could not serve (503, 504).
    pub(super) async fn exchange(
        &self,
        tried: &Tried,
        request: &Request<Vec<u8>>,
    ) -> Result<Answer, Error> {
        let mut delays = backon::ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(100))
            .with_max_delay(Duration::from_secs(2))
            .with_max_times(RETRIES)
            .with_jitter()
            .build();
        loop {
            let answer = self.once(tried, request.clone()).await?;
            if !may_repeat(request.method(), &answer) {
                return Ok(answer);
            }
            let Some(delay) = delays.next() else {
                return Ok(answer);
            };
            pause(delay).await;
        }
    }

    async fn once(&self, tried: &Tried, request: Request<Vec<u8>>) -> Result<Answer, Error> {
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
                        kube::Error::Auth(_) => Error::Unauthorized {
                            tried: tried.clone(),
                            message: chain(&e),
                        },
                        _ => unreachable(chain(&e)),
                    })?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, MAX_BODY).collect().await.map_err(|e| {
                if e.is::<http_body_util::LengthLimitError>() {
                    Error::Answer {
                        tried: tried.clone(),
                        why: format!("it is larger than {MAX_BODY} bytes"),
                    }
                } else {
                    unreachable(format!("the answer broke off: {}", chain(e.as_ref())))
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
            Err(_elapsed) => Err(unreachable(format!("no answer within {ATTEMPT:?}"))),
        }
    }
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

fn may_repeat(method: &Method, answer: &Answer) -> bool {
    match answer.status {
        StatusCode::TOO_MANY_REQUESTS => answer.headers.contains_key(http::header::RETRY_AFTER),
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => method == Method::GET,
        _ => false,
    }
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
