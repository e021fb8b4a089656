//! VMs that are made from a member: one that reads copies of its volumes, and one that is cloned.

use std::collections::BTreeMap;

use anyhow::Context as _;

use super::{Member, instance};
use crate::history::event::VolumeFact;
use crate::history::recorder::Scope;
use crate::replicate::Set;
use crate::scenario::world::World;
use crate::workload::{Root, fit_name};

impl Member {
    /// Another guest that reads copies of its ledger volumes where it is: `copies` are their claims by
    /// ordinal. It has a name of its own in the history and shares the member's lane of the undo log,
    /// so that it is taken away before what it reads.
    pub(in crate::scenario) fn reader(
        &self,
        world: &World,
        copies: &[String],
        role: &str,
    ) -> anyhow::Result<Self> {
        let name = fit_name(self.name(), role);
        let namespace = &self.subject.namespace;
        let instance = instance(world, &self.workload, namespace, &name)?;
        let mut all = world.rendered.iter();
        let (_, rendered) = all
            .find(|(workload, _)| workload.name == self.workload.name)
            .context("the member's template is not among the rendered ones")?;
        let subject = rendered.reader(&instance, &self.subject.data_disks, copies);
        let set = Set {
            namespace: namespace.clone(),
            vm: subject.vm.clone(),
            pvcs: subject.claims.clone(),
        };
        let scope = Scope {
            subject: Some(name),
            ..self.scope.clone()
        };
        Ok(Self {
            scope,
            owner: self.owner.clone(),
            workload: self.workload.clone(),
            subject,
            set,
            volumes: Vec::new(),
            vol_ids: Vec::new(),
            way: None,
            captured: Vec::new(),
            loads: Vec::new(),
            loader: None,
            failed: None,
            cuts: Vec::new(),
            restored: None,
            twin: None,
            left: None,
            part: None,
            commits: None,
            inside: None,
            ..*self
        })
    }

    /// The VM that was cloned from it as of its last cut, on claims by volume name. It carries the
    /// same ledger; `scope` says whose its events are.
    pub(in crate::scenario) fn clone_of(
        &self,
        vm: &str,
        claims: &BTreeMap<String, String>,
        scope: Scope,
    ) -> anyhow::Result<Self> {
        let cut = self.cuts.last().context("nothing was cloned")?;
        let mut subject = self.subject.clone();
        vm.clone_into(&mut subject.vm);
        for disk in &mut subject.data_disks {
            let claim = claims.get(&disk.name);
            claim
                .with_context(|| format!("the clone has no volume {}", disk.name))?
                .clone_into(&mut disk.pvc);
        }
        subject.claims = claims.values().cloned().collect();
        if let Root::Persistent { pvc } = &mut subject.root {
            let data = |claim: &&String| subject.data_disks.iter().all(|d| d.pvc != **claim);
            let root = claims.values().find(data);
            root.context("the clone has no root volume")?
                .clone_into(pvc);
        }
        // It is there already, and nothing of it stands on the other site.
        (subject.objects, subject.peer_objects) = (Vec::new(), Vec::new());
        let set = Set {
            namespace: subject.namespace.clone(),
            vm: subject.vm.clone(),
            pvcs: subject.claims.clone(),
        };
        let volumes = self.volumes.iter().zip(&subject.data_disks);
        let volumes = volumes.map(|(volume, disk)| VolumeFact {
            pvc: disk.pvc.clone(),
            ..volume.clone()
        });
        Ok(Self {
            scope,
            owner: self.owner.clone(),
            workload: self.workload.clone(),
            volumes: volumes.collect(),
            subject,
            set,
            vol_ids: self.vol_ids.clone(),
            way: None,
            captured: Vec::new(),
            loads: self.loads.iter().take(cut.loads).cloned().collect(),
            loader: None,
            failed: None,
            frozen: None,
            inside: None,
            cuts: self.cuts.clone(),
            restored: Some(cut.name.clone()),
            aside: true,
            twin: None,
            left: None,
            part: None,
            commits: None,
            ..*self
        })
    }
}
