//! One shared watch per kind, scope and site, and waiting on it.
//!
//! A view starts with its first use and lives as long as its cluster. It survives every watch error
//! (outages are our subject), wakes its waiters on change and never polls. Objects that we just
//! wrote are seen at once, before the watch delivers them.

mod gone;
mod store;
#[cfg(test)]
mod tests;

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use kube::api::Api;
use kube::runtime::utils::{ResetTimerBackoff, StreamBackoff};
use kube::runtime::watcher;
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

pub use self::store::Objects;
use self::store::{Lenient, Store};
use super::deadline::Deadline;
use super::error::Error;
use super::kind::{Kind, ObjRef, Typed};
use super::wait::{Wake, builder};
use crate::history::event::Site;

/// Which objects of a kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Those of one namespace.
    Namespace(String),
    /// All of them, in all namespaces.
    All,
    /// Those in all namespaces that match a label selector, such as `Owner::selector()`.
    Labelled(String),
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespace(ns) => write!(f, "in {ns}"),
            Self::All => f.write_str("everywhere"),
            Self::Labelled(selector) => write!(f, "with {selector}"),
        }
    }
}

impl Scope {
    /// The path of one list page.
    pub(super) fn list_path(&self, kind: &Kind, limit: u32, token: &str) -> String {
        let namespace = match self {
            Self::Namespace(ns) => Some(ns.as_str()),
            _ => None,
        };
        let mut path = format!("{}?limit={limit}", kind.path(namespace));
        if let Self::Labelled(selector) = self {
            path.push_str("&labelSelector=");
            path.push_str(&escape(selector));
        }
        if !token.is_empty() {
            path.push_str("&continue=");
            path.push_str(&escape(token));
        }
        path
    }
}

/// Percent-encodes a query value.
fn escape(text: &str) -> String {
    use fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("writing to a String cannot fail");
        }
    }
    out
}

/// What a look at the world found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen<R> {
    /// What was awaited.
    Met(R),
    /// Something else, in words.
    Not(String),
}

/// The shared watch of one kind and scope.
pub struct View<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Clone for View<T> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<T> fmt::Debug for View<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View")
            .field("what", &self.shared.what)
            .finish_non_exhaustive()
    }
}

struct Shared<T> {
    what: String,
    store: Arc<Mutex<Store<T>>>,
    changes: watch::Sender<u64>,
    // Ends the watch with the last handle.
    _task: AbortOnDropHandle<()>,
}

impl<T: Typed> View<T> {
    /// Waits until `look` is met. `look` is called on every change, and only while the view holds a
    /// complete list, so absence is real. Watch errors do not end the wait; the last one is in the
    /// timeout.
    pub async fn until<R>(
        &self,
        deadline: &Deadline,
        waiting_for: &str,
        mut look: impl FnMut(&Objects<'_, T>) -> Seen<R>,
    ) -> Result<R, Error> {
        let last = Mutex::new(format!("no list of {} yet", self.shared.what));
        let last_seen = || {
            let seen = last.lock().unwrap_or_else(PoisonError::into_inner).clone();
            (seen, self.lock().trouble())
        };
        let work = async {
            let mut changes = self.shared.changes.subscribe();
            loop {
                changes.mark_unchanged();
                let seen = self.lock().objects().map(|objects| look(&objects));
                match seen {
                    Some(Seen::Met(result)) => return result,
                    Some(Seen::Not(why)) => {
                        *last.lock().unwrap_or_else(PoisonError::into_inner) = why;
                    }
                    None => {}
                }
                if changes.changed().await.is_err() {
                    // The sender lives in `shared`, which this view holds.
                    std::future::pending::<()>().await;
                }
            }
        };
        deadline.bound(waiting_for, last_seen, work).await
    }

    /// Waits until one object satisfies `look`, which sees `None` while there is none.
    pub async fn until_object<R>(
        &self,
        deadline: &Deadline,
        namespace: &str,
        name: &str,
        waiting_for: &str,
        mut look: impl FnMut(Option<&T>) -> Seen<R>,
    ) -> Result<R, Error> {
        self.until(deadline, waiting_for, |objects| {
            look(objects.get(namespace, name))
        })
        .await
    }

    /// Waits until an object is gone.
    pub async fn until_gone(
        &self,
        deadline: &Deadline,
        namespace: &str,
        name: &str,
    ) -> Result<(), Error> {
        let object = ObjRef::of::<T>(namespace, name);
        self.until_object(
            deadline,
            namespace,
            name,
            &format!("{object} to be gone"),
            |found| match found {
                None => Seen::Met(()),
                Some(object) => Seen::Not(lingering(object.meta())),
            },
        )
        .await
    }

    /// Announces changes, for `repeat`.
    pub fn wake(&self) -> Wake {
        Wake::paced().and(self.changes())
    }

    /// Announces changes, to be combined with other views' in a `Wake`.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// Looks once; `None` while the view has no complete list.
    pub fn peek<R>(&self, look: impl FnOnce(&Objects<'_, T>) -> R) -> Option<R> {
        self.lock().objects().map(|objects| look(&objects))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Store<T>> {
        self.shared
            .store
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why an object that should be gone is still there.
pub(super) fn lingering(
    meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
) -> String {
    let finalizers = meta.finalizers.as_deref().unwrap_or_default().join(", ");
    match &meta.deletion_timestamp {
        None => "present, deletion not asked for".into(),
        Some(since) if finalizers.is_empty() => format!("being deleted since {}", since.0),
        Some(since) => format!("being deleted since {}, finalizers: {finalizers}", since.0),
    }
}

/// The views of a cluster.
#[derive(Default)]
pub(super) struct Registry {
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
    pub(super) fn view<T: Typed>(
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
    pub(super) fn offer(&self, reference: &ObjRef, object: &Value) {
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
            let backoff = watcher::ExponentialBackoff::from(builder());
            // Restarting a list counts as progress for the stream, so only calm resets the delay.
            let backoff = ResetTimerBackoff::new(backoff, Duration::from_secs(10));
            let events = StreamBackoff::new(watcher(api, config).boxed(), backoff);
            let mut events = std::pin::pin!(events);
            while let Some(event) = events.next().await {
                if let Err(e) = &event {
                    tracing::debug!(what, error = %e, "watch failed; it will be resumed");
                }
                let news = store
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .apply(event);
                if news {
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
