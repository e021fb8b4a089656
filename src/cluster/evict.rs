//! Evictions: the API by which nodes are drained. A refusal is an answer here, not an error: KubeVirt
//! says 429 to the eviction of a launcher and has its guest migrated instead.

use serde_json::json;

use super::answer::{Refusal, request, sound};
use super::client::Cluster;
use super::error::Error;
use super::kind::ObjRef;
use crate::cluster::crd::core::Pod;

/// What came of an eviction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evicted {
    /// HTTP status.
    pub code: u16,
    /// What a server that refused said, else empty.
    pub said: String,
}

impl Cluster {
    /// Asks for the eviction of a pod, of this UID and no other of its name.
    pub async fn evict(&self, namespace: &str, pod: &str, uid: &str) -> Result<Evicted, Error> {
        let object = ObjRef::of::<Pod>(namespace, pod);
        let tried = self.tried(format!("evict {object}"));
        sound(&tried, &object)?;
        let eviction = json!({
            "apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": {"name": pod, "namespace": namespace},
            "deleteOptions": {"preconditions": {"uid": uid}},
        });
        let path = format!("{}/eviction", object.path());
        let body = Some(("application/json", &eviction));
        let request = request(&tried, "POST", &path, body)?;
        let answer = self.exchange(&tried, &request).await?;
        let code = answer.status.as_u16();
        if matches!(code, 404 | 409 | 429) {
            let said = Refusal::read(&answer.body).message;
            return Ok(Evicted { code, said });
        }
        answer.ok(&tried)?;
        let said = String::new();
        Ok(Evicted { code, said })
    }
}
