//! Waiting for one object of any kind to be gone, with a watch of its own.

use futures::StreamExt as _;
use kube::api::{Api, DynamicObject};
use kube::core::ApiResource;
use kube::runtime::utils::{ResetTimerBackoff, StreamBackoff};
use kube::runtime::watcher;

use super::lingering;
use crate::cluster::client::Cluster;
use crate::cluster::deadline::Deadline;
use crate::cluster::error::{Error, chain};
use crate::cluster::kind::ObjRef;
use crate::cluster::wait::builder;

impl Cluster {
    /// Waits until the object with this UID is gone; another object of the same name does not count.
    pub async fn until_gone_at(
        &self,
        deadline: &Deadline,
        object: &ObjRef,
        uid: &str,
    ) -> Result<(), Error> {
        let kind = &object.kind;
        let resource = ApiResource {
            group: kind.group.to_string(),
            version: kind.version.to_string(),
            api_version: kind.api_version(),
            kind: kind.kind.to_string(),
            plural: kind.plural.to_string(),
        };
        let api: Api<DynamicObject> = match &object.namespace {
            Some(ns) => Api::namespaced_with(self.client().clone(), ns, &resource),
            None => Api::all_with(self.client().clone(), &resource),
        };
        let last = std::sync::Mutex::new((String::from("deletion asked for"), None));
        let note = |seen: Option<String>, error: Option<String>| {
            let mut last = last
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            if let Some(seen) = seen {
                last.0 = seen;
            }
            last.1 = error;
        };
        let work = async {
            let calm = std::time::Duration::from_secs(10);
            let backoff =
                ResetTimerBackoff::new(watcher::ExponentialBackoff::from(builder()), calm);
            let states = watcher::watch_object(api, &object.name).boxed();
            let mut states = std::pin::pin!(StreamBackoff::new(states, backoff));
            while let Some(state) = states.next().await {
                match state {
                    Ok(None) => return,
                    Ok(Some(found)) if found.metadata.uid.as_deref() != Some(uid) => return,
                    Ok(Some(found)) => note(Some(lingering(&found.metadata)), None),
                    Err(e) => note(None, Some(chain(&e))),
                }
            }
            // The backoff never gives up, so the stream does not end.
            std::future::pending::<()>().await;
        };
        let last_seen = || {
            last.lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .clone()
        };
        deadline
            .bound(&format!("{object} to be gone"), last_seen, work)
            .await
    }
}
