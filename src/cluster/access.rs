//! What we are allowed to do, asked before it is needed.

use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::{Value, json};

use super::answer::request;
use super::client::Cluster;
use super::error::Error;

/// How many questions are asked at a time.
const SIDE_BY_SIDE: usize = 8;

/// One thing that we want to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`.
    pub verb: &'static str,
    /// API group, empty for core.
    pub group: &'static str,
    /// Plural resource, or `resource/subresource`.
    pub resource: &'static str,
    /// Namespace; empty asks about all.
    pub namespace: String,
}

impl std::fmt::Display for Ask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        if !self.namespace.is_empty() {
            write!(f, " in {}", self.namespace)?;
        }
        Ok(())
    }
}

/// Something that we may not do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// What.
    pub ask: Ask,
    /// The authorizer's reason, often empty.
    pub reason: String,
}

impl Cluster {
    /// Asks the server about each, and returns what is denied, in the order asked.
    pub async fn denied(&self, asks: &[Ask]) -> Result<Vec<Denied>, Error> {
        let answers: Vec<Option<Denied>> = futures::stream::iter(asks.to_vec())
            .map(|ask| self.ask(ask))
            .buffered(SIDE_BY_SIDE)
            .try_collect()
            .await?;
        Ok(answers.into_iter().flatten().collect())
    }

    async fn ask(&self, ask: Ask) -> Result<Option<Denied>, Error> {
        let tried = self.tried(format!("asking whether we may {ask}"));
        let (resource, subresource) = ask.resource.split_once('/').unwrap_or((ask.resource, ""));
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {
                "verb": ask.verb, "group": ask.group, "resource": resource,
                "subresource": subresource, "namespace": ask.namespace,
            }},
        });
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        let body = Some(("application/json", &review));
        let request = request(&tried, "POST", path, body)?;
        let answer = self.exchange(&tried, &request).await?.json(&tried)?;
        if answer.pointer("/status/allowed").and_then(Value::as_bool) == Some(true) {
            return Ok(None);
        }
        let reason = answer
            .pointer("/status/reason")
            .and_then(Value::as_str)
            .unwrap_or_default();
        Ok(Some(Denied {
            ask,
            reason: reason.to_owned(),
        }))
    }
}
