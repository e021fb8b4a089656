//! Reaching into guests to undo: from the run itself, or from a later process that has no more than the
//! plan, the run directory and the cluster.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use futures::FutureExt as _;
use futures::future::LocalBoxFuture;

use super::member::route;
use super::world::World;
use crate::cluster::crd::kubevirt::VirtualMachineInstance;
use crate::cluster::undo::{Hands, Thaw, Undo, UndoLog};
use crate::cluster::{Deadline, Sites};
use crate::guest::{HostKeyRule, Login, LoginKey, Pins};
use crate::plan::Plan;
use crate::probe::host::{Reach, thaw_files};

/// The run's key in its directory, below what is never sealed: there only while a later process would
/// need it to thaw a guest.
const KEY_FILE: &str = "login-key";

/// What it takes to log in to the guests of a plan.
pub struct GuestHands<'a> {
    plan: &'a Plan,
    sites: &'a Sites,
    key: Option<LoginKey>,
    pins: Arc<Pins>,
}

impl<'a> GuestHands<'a> {
    /// With the key that is given, `None` if there is none any more.
    pub const fn new(
        plan: &'a Plan,
        sites: &'a Sites,
        key: Option<LoginKey>,
        pins: Arc<Pins>,
    ) -> Self {
        Self {
            plan,
            sites,
            key,
            pins,
        }
    }

    /// Of a run that goes on.
    pub fn of(world: &'a World) -> Self {
        let pins = Arc::clone(&world.pins);
        Self::new(&world.plan, &world.sites, Some(world.key.clone()), pins)
    }

    async fn thawed(&self, what: &Thaw, deadline: &Deadline) -> anyhow::Result<()> {
        let reach = self.reach(what).await?;
        // What is not frozen any more has been thawed by its timer, or by somebody else.
        thaw_files(&reach, &what.command, &what.stdin, deadline).await?;
        Ok(())
    }

    async fn reach(&self, what: &Thaw) -> anyhow::Result<Reach> {
        let mut workloads = self.plan.workloads().iter();
        let workload = workloads.find(|workload| workload.name == what.workload);
        let workload = workload.with_context(|| format!("no workload {}", what.workload))?;
        let Some(key) = &self.key else {
            bail!("the run's SSH key is gone; the guest's own timer thaws it");
        };
        let cluster = self.sites.of(what.site);
        let namespace = what.object.namespace.as_deref().unwrap_or_default();
        let name = &what.object.name;
        let vmi = cluster
            .get::<VirtualMachineInstance>(namespace, name)
            .await?;
        let interface = vmi.status.interfaces.first();
        let address = interface.and_then(|interface| interface.ip_address.as_deref());
        let guest = (namespace, name.as_str(), address);
        Ok(Reach {
            route: route(&workload.ssh, cluster, guest, (key, &self.pins))?,
            login: Login {
                user: what.user.clone(),
                key: key.clone(),
                pins: Arc::clone(&self.pins),
                host_key: HostKeyRule::Fresh,
            },
        })
    }
}

impl Hands for GuestHands<'_> {
    fn thaw<'a>(
        &'a self,
        thaw: &'a Thaw,
        deadline: &'a Deadline,
    ) -> LocalBoxFuture<'a, Result<(), String>> {
        async move {
            let thawed = self.thawed(thaw, deadline).await;
            thawed.map_err(|error| format!("{error:#}"))
        }
        .boxed_local()
    }
}

/// Keeps the key of a run in its directory, where only its owner can read it.
pub fn keep_key(dir: &Path, key: &LoginKey) -> anyhow::Result<()> {
    let path = dir.join(KEY_FILE);
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    Ok(key.save(&path)?)
}

/// The key that a run kept, if it kept one.
pub fn kept_key(dir: &Path) -> anyhow::Result<Option<LoginKey>> {
    let path = dir.join(KEY_FILE);
    let there = path.try_exists();
    if !there.with_context(|| format!("looking for {}", path.display()))? {
        return Ok(None);
    }
    Ok(Some(LoginKey::load(&path)?))
}

/// Removes the key that a run kept once nothing is left that would need it.
pub fn drop_key(dir: &Path, log: &UndoLog) -> anyhow::Result<()> {
    let pending = log.pending();
    if pending
        .iter()
        .any(|entry| matches!(entry.undo, Undo::Thaw(_)))
    {
        return Ok(());
    }
    let path = dir.join(KEY_FILE);
    match std::fs::remove_file(&path) {
        Ok(()) => {
            // Nothing else may be in there, or consoles of guests.
            std::fs::remove_dir(dir).ok();
            Ok(())
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("removing {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_stays_for_as_long_as_a_guest_may_be_frozen() {
        let dir = tempfile::tempdir().expect("a directory");
        let (keys, log) = (dir.path().join("guests"), dir.path().join("undo.jsonl"));
        let log = UndoLog::create(&log, "run-1").expect("a log");
        assert!(kept_key(&keys).expect("a look").is_none());
        drop_key(&keys, &log).expect("nothing to remove");
        let key = LoginKey::generate("test").expect("a key");
        keep_key(&keys, &key).expect("kept");
        let undo = Undo::Thaw(Box::new(Thaw {
            site: crate::history::event::Site::Primary,
            object: crate::cluster::ObjRef::of::<VirtualMachineInstance>("n", "v"),
            uid: "u".into(),
            workload: "w".into(),
            user: "root".into(),
            command: "c".into(),
            stdin: String::new(),
        }));
        let id = log.record(None, undo).await.expect("recorded");
        drop_key(&keys, &log).expect("kept again");
        let kept = kept_key(&keys).expect("a look").expect("a key");
        assert_eq!(kept.public_line().ok(), key.public_line().ok());
        log.done(id).await.expect("done");
        drop_key(&keys, &log).expect("removed");
        assert!(kept_key(&keys).expect("a look").is_none() && !keys.exists());
    }
}
