//! Subresource calls: PUT and GET with KubeVirt's habits.
//!
//! A PUT that fails with 500 may still take effect later (a freeze slower than virt-api's 10 s), so
//! callers undo after errors too. GETs answer every failure as plain text with status 500.

use serde_json::Value;

use super::answer::{request, sound};
use super::client::Cluster;
use super::error::Error;
use super::kind::ObjRef;
use super::owner::Owner;
use super::undo::Undo;

/// Group and version of KubeVirt's subresources.
const SUBRESOURCES: &str = "/apis/subresources.kubevirt.io/v1";

/// How a subresource is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Read.
    Get,
    /// Act.
    Put,
}

impl Method {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Put => "PUT",
        }
    }
}

/// The path of a KubeVirt subresource: `plural` is `virtualmachines` or `virtualmachineinstances`.
pub(super) fn path(object: &ObjRef, subresource: &str) -> String {
    let ns = object.namespace.as_deref().unwrap_or_default();
    format!(
        "{SUBRESOURCES}/namespaces/{ns}/{}/{}/{subresource}",
        object.kind.plural, object.name
    )
}

impl Cluster {
    /// Calls a KubeVirt subresource of a VM or VMI, `freeze` or `guestosinfo`. `Null` when the
    /// answer is empty, as it is for most PUTs.
    pub async fn subresource(
        &self,
        method: Method,
        object: &ObjRef,
        subresource: &str,
        body: Option<&Value>,
    ) -> Result<Value, Error> {
        let tried = self.tried(format!("{} {object} {subresource}", method.as_str()));
        sound(&tried, object)?;
        self.call(&tried, method.as_str(), &path(object, subresource), body)
            .await
    }

    /// The same, with the call that undoes it (another PUT on the same object, `unfreeze`) written
    /// down first.
    pub async fn subresource_recorded(
        &self,
        owner: &Owner,
        object: &ObjRef,
        subresource: &str,
        body: Option<&Value>,
        (inverse, with): (&str, Option<Value>),
    ) -> Result<Value, Error> {
        let undo = Undo::Put {
            site: self.site(),
            object: object.clone(),
            subresource: inverse.to_owned(),
            body: with,
        };
        owner.undo().record(owner.lane_name(), undo).await?;
        self.subresource(Method::Put, object, subresource, body)
            .await
    }

    async fn call(
        &self,
        tried: &super::Tried,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Error> {
        let body = body.map(|b| ("application/json", b));
        let request = request(tried, method, path, body)?;
        let answer = self.exchange(tried, &request).await?;
        answer.ok(tried)?;
        if answer.body.is_empty() {
            return Ok(Value::Null);
        }
        answer.json(tried)
    }
}
