//! The views of a site: started when first asked for, shared from then on, and told of our own
//! writes.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use kube::api::Api;
use kube::runtime::utils::{ResetTimerBackoff, StreamBackoff};
use kube::runtime::watcher::{self, Event, watcher};
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::lively::Lively;
use super::store::{self, Lenient, Store};
use super::{Scope, Shared, View};
use crate::cluster::kind::{Kind, ObjRef, Typed};
use crate::cluster::wait::builder;
use crate::history::event::Site;

/// The views of a cluster.
#[derive(Default)]
pub(in crate::cluster) struct Registry {
    views: Mutex<HashMap<(TypeId, Scope), Box<dyn Erased>>>,
}

/// What can be done with a view of any type.
trait Erased: Send + Sync {
    fn as_any(&self) -> &dyn Any;
    fn kind(&self) -> Kind;
    fn offer(&self, scope: &Scope, object: &Value);
}

impl<T: Typed> Erased for View<T> {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn kind(&self) -> Kind {
        T::KIND
    }

    fn offer(&self, scope: &Scope, object: &Value) {
        let Ok(lenient) = serde_json::from_value::<Lenient<T>>(object.clone()) else {
            return;
        };
        if store::in_scope(scope, lenient.metadata()) && self.lock().offer(lenient) {
            self.shared.changes.send_modify(|version| *version += 1);
        }
    }
}

impl Registry {
    /// The view of a kind and scope, started if it is the first.
    pub(in crate::cluster) fn view<T: Typed>(
        &self,
        site: Site,
        client: &kube::Client,
        scope: &Scope,
    ) -> View<T> {
        let mut views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = views
            .entry((TypeId::of::<T>(), scope.clone()))
            .or_insert_with(|| Box::new(start::<T>(site, client.clone(), scope)));
        entry
            .as_any()
            .downcast_ref::<View<T>>()
            .expect("the key holds the type")
            .clone()
    }

    /// Shows an object that was just written to the views that would see it anyway.
    pub(in crate::cluster) fn offer(&self, reference: &ObjRef, object: &Value) {
        let views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        for ((_, scope), view) in views.iter() {
            if view.kind() == reference.kind {
                view.offer(scope, object);
            }
        }
    }
}

fn start<T: Typed>(site: Site, client: kube::Client, scope: &Scope) -> View<T> {
    let kind = T::KIND;
    let resource = kind.resource();
    let (api, config): (Api<Lenient<T>>, _) = match scope {
        Scope::Namespace(ns) if kind.namespaced => (
            Api::namespaced_with(client, ns, &resource),
            watcher::Config::default(),
        ),
        Scope::Labelled(selector) => (
            Api::all_with(client, &resource),
            watcher::Config::default().labels(selector),
        ),
        Scope::Namespace(_) | Scope::All => {
            (Api::all_with(client, &resource), watcher::Config::default())
        }
    };
    let store = Arc::new(Mutex::new(Store::default()));
    let (changes, _) = watch::channel(0);
    let task = {
        let (store, changes) = (Arc::clone(&store), changes.clone());
        let what = format!("{kind} {scope} on the {site} site");
        tokio::spawn(async move {
            let mut events = Lively::new(|| {
                // Restarting a list counts as progress for the stream, so only calm resets the delay.
                let backoff = watcher::ExponentialBackoff::from(builder());
                let backoff = ResetTimerBackoff::new(backoff, Duration::from_secs(10));
                StreamBackoff::new(watcher(api.clone(), config.clone()), backoff).boxed()
            });
            while let Some(event) = events.next(|| changes.receiver_count() > 0).await {
                match &event {
                    Err(e) => tracing::debug!(what, error = %e, "watch failed; it will be resumed"),
                    Ok(Event::Init) => events.relisting(),
                    Ok(Event::InitDone) => events.listed(),
                    _ => {}
                }
                let news = store
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .apply(event);
                if news {
                    events.news();
                    changes.send_modify(|version| *version += 1);
                }
            }
        })
    };
    View {
        shared: Arc::new(Shared {
            what: format!("{kind} {scope} on the {site} site"),
            store,
            changes,
            _task: AbortOnDropHandle::new(task),
        }),
    }
}
