//! The VM that a snapshot is taken of: locking it, freezing its guest and thawing it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::condition;
use super::super::keys::{POD, PVC, REVISION, VM, VMI, claim_of, items, phase};
use super::super::site::Ctx;
use super::super::subresources;
use crate::lab::api::{ApiError, Part, meta};

/// Finalizer of a VM while it is being snapshotted.
const PROTECTED: &str = "snapshot.kubevirt.io/snapshot-source-protection";

/// The source of a snapshot as it is now.
pub(super) struct Source {
    pub(super) vm: Arc<Value>,
    vmi: Option<Arc<Value>>,
    /// Why it is not locked.
    pub(super) unlocked: String,
}

impl Source {
    /// The VM that a snapshot names, if there is one.
    pub(super) fn of(ctx: &Ctx, snapshot: &Value) -> Option<Self> {
        let namespace = meta::namespace(snapshot);
        let name = meta::text(snapshot, "/spec/source/name");
        let vm = ctx.store.get(VM, namespace, name)?;
        Some(Self {
            vmi: ctx.store.get(VMI, namespace, name),
            vm,
            unlocked: "Source not locked".to_owned(),
        })
    }

    pub(super) const fn online(&self) -> bool {
        self.vmi.is_some()
    }

    fn holds(&self, kind: &str) -> bool {
        let vmi = self.vmi.as_deref();
        vmi.is_some_and(|vmi| condition::is_true(vmi, kind))
    }

    pub(super) fn paused(&self) -> bool {
        self.holds("Paused")
    }

    /// Whether virt-handler heard the agent when it last asked.
    pub(super) fn agent(&self) -> bool {
        self.holds("AgentConnected")
    }

    /// Whether this snapshot has the VM for itself.
    pub(super) fn locked_by(&self, snapshot: &Value) -> bool {
        meta::text(&self.vm, "/status/snapshotInProgress") == meta::name(snapshot)
            && meta::finalizers(&self.vm).contains(&PROTECTED)
    }

    /// The claims of the VM by volume.
    pub(super) fn claims(&self) -> Vec<(String, String)> {
        let volumes = items(&self.vm, "/spec/template/spec/volumes").iter();
        let claims = volumes.filter_map(|volume| {
            let name = volume["name"].as_str()?;
            Some((name.to_owned(), claim_of(volume)?.to_owned()))
        });
        claims.collect()
    }

    /// Takes the VM for a snapshot, unless something stands in the way; that is tried again.
    pub(super) fn lock(&mut self, ctx: &Ctx, snapshot: &Value) -> Result<(), ApiError> {
        if let Some(why) = self.obstacle(ctx, snapshot) {
            self.unlocked = format!("Source not locked {why}");
            return Ok(());
        }
        let (namespace, name) = (meta::namespace(&self.vm), meta::name(&self.vm));
        let holder = json!(meta::name(snapshot));
        ctx.store.modify(VM, namespace, name, Part::Status, |vm| {
            super::put(vm, "snapshotInProgress", holder.clone());
        })?;
        self.vm = ctx.store.modify(VM, namespace, name, Part::Object, |vm| {
            meta::add_finalizer(vm, PROTECTED);
        })?;
        Ok(())
    }

    fn obstacle(&self, ctx: &Ctx, snapshot: &Value) -> Option<String> {
        let namespace = meta::namespace(&self.vm);
        let claims = self.claims();
        let full = format!("source {namespace}/{}", meta::name(&self.vm));
        for (_, name) in &claims {
            let claim = ctx.store.get(PVC, namespace, name);
            let why = match claim.as_deref() {
                None => "volume doesnt exist",
                Some(claim) if meta::deleting(claim) => "volume is being deleted",
                Some(claim) if phase(claim) != "Bound" => "volume not bound",
                Some(_) => continue,
            };
            return Some(format!("{full} {why}: {name}"));
        }
        if !self.online() {
            let pods = ctx.store.list(POD, Some(namespace));
            let uses = |pod: &&Arc<Value>| {
                !matches!(phase(pod), "Succeeded" | "Failed")
                    && items(pod, "/spec/volumes").iter().any(|volume| {
                        let used = claim_of(volume);
                        claims.iter().any(|(_, claim)| used == Some(claim))
                    })
            };
            let using = pods.iter().filter(uses).count();
            if using > 0 {
                return Some(format!("source is offline but {using} pods using PVCs"));
            }
        }
        let holder = meta::text(&self.vm, "/status/snapshotInProgress");
        (!holder.is_empty() && holder != meta::name(snapshot))
            .then(|| format!("snapshot \"{holder}\" in progress"))
    }

    /// Gives the VM back.
    pub(super) fn unlock(&mut self, ctx: &Ctx, snapshot: &Value) -> Result<(), ApiError> {
        if meta::text(&self.vm, "/status/snapshotInProgress") != meta::name(snapshot) {
            return Ok(());
        }
        let (namespace, name) = (meta::namespace(&self.vm), meta::name(&self.vm));
        // Without the status the VM may be gone with its last finalizer.
        ctx.store.modify(VM, namespace, name, Part::Status, |vm| {
            super::put(vm, "snapshotInProgress", Value::Null);
        })?;
        self.vm = ctx.store.modify(VM, namespace, name, Part::Object, |vm| {
            meta::remove_finalizer(vm, PROTECTED);
        })?;
        Ok(())
    }

    /// Freezes the guest, if it has an agent and is not paused; else it is left out without a word.
    pub(super) async fn freeze(&self, ctx: &Ctx, timeout: Duration) -> Result<(), ApiError> {
        let frozen = self
            .vmi
            .as_deref()
            .map(|vmi| meta::text(vmi, "/status/fsFreezeStatus"));
        if frozen == Some("frozen") || self.paused() || !self.agent() {
            return Ok(());
        }
        let (namespace, name) = (meta::namespace(&self.vm), meta::name(&self.vm));
        subresources::freeze(ctx, namespace, name, timeout).await
    }

    /// Thaws it, on the same terms.
    pub(super) async fn thaw(&self, ctx: &Ctx, snapshot: &Value) -> Result<(), ApiError> {
        if !self.locked_by(snapshot) || self.paused() || !self.agent() {
            return Ok(());
        }
        let (namespace, name) = (meta::namespace(&self.vm), meta::name(&self.vm));
        subresources::unfreeze(ctx, namespace, name).await
    }

    /// The VM as the snapshot keeps it: while it runs, the definition that it was started from, with
    /// the volumes, disks and templates that it has now.
    pub(super) fn spec(&self, ctx: &Ctx) -> Result<Value, ApiError> {
        let mut spec = self.vm["spec"].clone();
        if let Some(vmi) = &self.vmi {
            let name = meta::text(vmi, "/status/virtualMachineRevisionName");
            let revision = ctx.store.get(REVISION, meta::namespace(&self.vm), name);
            let revision = revision
                .ok_or_else(|| ApiError::internal(format!("vm revision {name} doesn't exist")))?;
            spec = revision["data"]["spec"].clone();
            for at in [
                "/template/spec/volumes",
                "/template/spec/domain/devices/disks",
                "/dataVolumeTemplates",
            ] {
                let now = self.vm["spec"].pointer(at).cloned();
                if let (Some(field), Some(now)) = (spec.pointer_mut(at), now) {
                    *field = now;
                }
            }
        }
        Ok(json!({"metadata": simplified(&self.vm), "spec": spec, "status": {}}))
    }
}

/// The metadata of an object that stay with its copy.
pub(super) fn simplified(object: &Value) -> Value {
    let mut kept = json!({});
    for field in ["name", "namespace", "uid", "labels", "annotations"] {
        if let Some(value) = object["metadata"].get(field) {
            kept[field] = value.clone();
        }
    }
    kept
}
