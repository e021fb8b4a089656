//! One shared watch per kind, scope and site, and waiting on it.
//!
//! A view starts with its first use and lives as long as its cluster. It survives every watch error
//! (outages are our subject), wakes its waiters on change, and lists anew when its watch is silent
//! while somebody waits. Objects that we just wrote are seen at once, before the watch delivers them.

mod gone;
mod lively;
mod registry;
mod scope;
mod store;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

pub(super) use self::registry::Registry;
pub use self::scope::Scope;
pub(super) use self::scope::escape;
pub use self::store::Objects;
use self::store::Store;
use super::deadline::Deadline;
use super::error::Error;
use super::kind::{ObjRef, Typed};
use super::wait::Wake;

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
