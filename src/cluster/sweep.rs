//! Looking for what a run left behind, by its label, on both sites.

use k8s_openapi::api::core::v1::PersistentVolume;
use serde_json::Value;

use super::client::Cluster;
use super::crd;
use super::crd::snapshot::VolumeSnapshotContent;
use super::error::Error;
use super::kind::{Kind, ObjRef, Typed as _};
use super::owner::RUN_LABEL;
use super::sites::Sites;
use super::undo::{Undo, UndoLog};
use super::view::{Scope, lingering};
use crate::history::event::{Residue, Site};

/// Cluster-scoped kinds that controllers make for objects of ours, and where they name the
/// namespace of that object.
const MADE_FOR_US: &[(Kind, &str)] = &[
    (PersistentVolume::KIND, "/spec/claimRef/namespace"),
    (
        VolumeSnapshotContent::KIND,
        "/spec/volumeSnapshotRef/namespace",
    ),
];

/// What a sweep found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// Sites that answered every question, so that nothing listed means that nothing is left.
    pub sites: Vec<Site>,
    /// What was left.
    pub residue: Vec<Residue>,
    /// Why a site is not among `sites`.
    pub trouble: Vec<String>,
}

impl Sites {
    /// Lists everything with the run's label, of every kind that we make and of every kind in the
    /// undo log, and what controllers made for objects in the run's namespaces, which carries no
    /// label of ours: PersistentVolumes and VolumeSnapshotContents.
    pub async fn sweep(&self, log: &UndoLog, namespaces: &[String]) -> Swept {
        let mut kinds: Vec<Kind> = crd::swept().collect();
        for entry in log.pending() {
            if let Undo::Delete { object, .. } = entry.undo
                && !kinds.contains(&object.kind)
            {
                kinds.push(object.kind);
            }
        }
        let mut swept = Swept::default();
        for site in [Site::Primary, Site::Secondary] {
            match sweep_site(self.of(site), log.run(), &kinds, namespaces).await {
                Ok(residue) => {
                    swept.sites.push(site);
                    swept.residue.extend(residue);
                }
                Err(e) => swept.trouble.push(e.to_string()),
            }
        }
        swept.residue.sort();
        swept.residue.dedup();
        swept
    }
}

async fn sweep_site(
    cluster: &Cluster,
    run: &str,
    kinds: &[Kind],
    namespaces: &[String],
) -> Result<Vec<Residue>, Error> {
    let scope = Scope::Labelled(format!("{RUN_LABEL}={run}"));
    let mut residue = Vec::new();
    for kind in kinds {
        let found = match cluster.list_values(kind, &scope).await {
            Ok(found) => found,
            // A kind that is not served has no objects.
            Err(Error::MissingKind { .. }) => continue,
            Err(e) => return Err(e),
        };
        residue.extend(
            found
                .iter()
                .map(|object| describe(cluster.site(), kind, object)),
        );
    }
    for (kind, at) in MADE_FOR_US {
        let made = match cluster.list_values(kind, &Scope::All).await {
            Ok(made) => made,
            Err(Error::MissingKind { .. }) => continue,
            Err(e) => return Err(e),
        };
        let ours = made.iter().filter(|object| {
            let of = object.pointer(at).and_then(Value::as_str);
            of.is_some_and(|of| namespaces.iter().any(|ours| ours == of))
        });
        residue.extend(ours.map(|object| describe(cluster.site(), kind, object)));
    }
    Ok(residue)
}

fn describe(site: Site, kind: &Kind, object: &Value) -> Residue {
    let text = |path: &str| {
        object
            .pointer(path)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let reference = ObjRef::new(
        kind.clone(),
        text("/metadata/namespace"),
        text("/metadata/name"),
    );
    let meta = object.get("metadata").cloned().unwrap_or_default();
    let mut why = match serde_json::from_value(meta) {
        Ok(meta) => lingering(&meta),
        Err(e) => format!("present, metadata unreadable: {e}"),
    };
    let message = text("/status/message");
    if !message.is_empty() {
        why.push_str("; status: ");
        why.push_str(message);
    }
    Residue {
        site,
        kind: kind.label(),
        name: reference.place(),
        why,
    }
}
