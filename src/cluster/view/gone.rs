//! Waiting for one object of any kind to be gone, with a watch of its own.

use futures::StreamExt as _;
use kube::api::{Api, DynamicObject};
use kube::runtime::utils::{ResetTimerBackoff, StreamBackoff};
use kube::runtime::watcher;

use super::lingering;
use super::lively::Lively;
use crate::cluster::client::Cluster;
use crate::cluster::deadline::{Deadline, LastSeen};
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
        let resource = object.kind.resource();
        let api: Api<DynamicObject> = match &object.namespace {
            Some(ns) => Api::namespaced_with(self.client().clone(), ns, &resource),
            None => Api::all_with(self.client().clone(), &resource),
        };
        let last = LastSeen::new("deletion asked for");
        let work = async {
            let calm = std::time::Duration::from_secs(10);
            let mut states = Lively::new(|| {
                let backoff = watcher::ExponentialBackoff::from(builder());
                let backoff = ResetTimerBackoff::new(backoff, calm);
                let states = watcher::watch_object(api.clone(), &object.name);
                StreamBackoff::new(states, backoff).boxed()
            });
            while let Some(state) = states.next(|| true).await {
                // Each state is one of a list or of the watch after it; an error may precede a list.
                if state.is_ok() {
                    states.listed();
                }
                match state {
                    Ok(None) => return,
                    Ok(Some(found)) if found.metadata.uid.as_deref() != Some(uid) => return,
                    Ok(Some(found)) => last.saw(lingering(&found.metadata)),
                    Err(e) => last.failed(chain(&e)),
                }
            }
            // The backoff never gives up, so the stream does not end.
            std::future::pending::<()>().await;
        };
        deadline
            .bound(&format!("{object} to be gone"), || last.get(), work)
            .await
    }
}
