//! Fencing a site's nodes from its storage with a csi-addons NetworkFence.
//!
//! The object is made on the site whose storage must refuse, with the addresses of the nodes that
//! must not write. It is never verified again by the controller, and deleting it while fenced leaves
//! the addresses blocked: its undo entry lifts it and only then deletes it.

use std::collections::BTreeSet;

use serde_json::json;

use super::Error;
use crate::cluster::crd::core::Node;
use crate::cluster::crd::csiaddons::{
    CSIAddonsNode, NetworkFence, NetworkFenceClass, NetworkFenceStatus,
};
use crate::cluster::undo::Undo;
use crate::cluster::{Cluster, Deadline, ObjRef, Owner, Patch, Scope, Seen, Typed as _};
use crate::history::event::Site;

/// A fence that took hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// The NetworkFence.
    pub name: String,
    /// The site that holds it.
    pub at: Site,
    /// What it fences, in CIDR form.
    pub cidrs: Vec<String>,
    /// Where the addresses come from.
    pub source: &'static str,
}

impl std::fmt::Display for Fence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "NetworkFence {} on the {} site over {} ({})",
            self.name,
            self.at,
            self.cidrs.join(", "),
            self.source
        )
    }
}

/// The addresses to fence on a site: the plan's, else those by which the storage knows its clients,
/// else the nodes' own. The last are wrong behind NAT or with a separate storage network.
pub async fn addresses(
    cluster: &Cluster,
    class: &str,
    planned: &[String],
) -> Result<(Vec<String>, &'static str), Error> {
    if !planned.is_empty() {
        return Ok((planned.to_vec(), "from the plan"));
    }
    let driver = cluster
        .get::<NetworkFenceClass>("", class)
        .await?
        .spec
        .provisioner;
    let sidecars = cluster.list::<CSIAddonsNode>(&Scope::All).await?;
    let known = clients(&sidecars, class, &driver);
    if !known.is_empty() {
        return Ok((known, "from CSIAddonsNode"));
    }
    let found = internal_addresses(&cluster.list::<Node>(&Scope::All).await?);
    if found.is_empty() {
        return Err(Error::Plan(format!(
            "no address to fence is known on the {} site; set protection.fencing.cidrs",
            cluster.site()
        )));
    }
    Ok((found, "from the nodes"))
}

fn clients(sidecars: &[CSIAddonsNode], class: &str, driver: &str) -> Vec<String> {
    let cidrs: BTreeSet<String> = sidecars
        .iter()
        .filter(|node| node.spec.driver.name == driver)
        .flat_map(|node| &node.status.network_fence_client_status)
        .filter(|status| status.network_fence_class_name == class)
        .flat_map(|status| &status.client_details)
        .flat_map(|client| client.cidrs.iter().cloned())
        .collect();
    cidrs.into_iter().collect()
}

fn internal_addresses(nodes: &[Node]) -> Vec<String> {
    let cidrs: BTreeSet<String> = nodes
        .iter()
        .filter_map(|node| node.status.as_ref()?.addresses.as_ref())
        .flatten()
        .filter(|address| address.type_ == "InternalIP")
        .filter_map(|address| address.address.parse::<std::net::IpAddr>().ok())
        .map(|ip| format!("{ip}/{}", if ip.is_ipv4() { 32 } else { 128 }))
        .collect();
    cidrs.into_iter().collect()
}

/// What a run's fence over a site is called.
pub fn name(owner: &Owner, site: Site) -> String {
    format!("virtproof-{}-{site}", short(owner.run()))
}

/// Fences and waits until the storage says so.
pub async fn fence(
    cluster: &Cluster,
    owner: &Owner,
    class: &str,
    planned: &[String],
    deadline: &Deadline,
) -> Result<Fence, Error> {
    let (cidrs, source) = addresses(cluster, class, planned).await?;
    let fence = Fence {
        name: name(owner, cluster.site()),
        at: cluster.site(),
        cidrs,
        source,
    };
    let manifest = json!({
        "apiVersion": NetworkFence::KIND.api_version(),
        "kind": NetworkFence::KIND.kind,
        "metadata": {"name": fence.name},
        "spec": {
            "networkFenceClassName": class, "fenceState": "Fenced", "cidrs": fence.cidrs,
        },
    });
    let undo = Undo::Unfence {
        site: cluster.site(),
        name: fence.name.clone(),
    };
    let standing: NetworkFence = cluster.create_undone_by(owner, manifest, undo).await?;
    if standing.spec.fence_state == "Unfenced" || standing.spec.cidrs != fence.cidrs {
        // Left from an earlier step of this run.
        let spec = json!({"spec": {"fenceState": "Fenced", "cidrs": fence.cidrs}});
        let object = ObjRef::of::<NetworkFence>("", &fence.name);
        cluster.patch(&object, &Patch::Merge(spec)).await?;
    }
    settle(
        cluster,
        deadline,
        &fence.name,
        "take hold",
        NetworkFence::is_fenced,
    )
    .await?;
    Ok(fence)
}

/// Lifts a fence and waits until the storage says so. The object stays, for the undo log to delete.
pub async fn lift(cluster: &Cluster, name: &str, deadline: &Deadline) -> Result<(), Error> {
    let object = ObjRef::of::<NetworkFence>("", name);
    let spec = json!({"spec": {"fenceState": "Unfenced"}});
    cluster.patch(&object, &Patch::Merge(spec)).await?;
    settle(
        cluster,
        deadline,
        name,
        "be lifted",
        NetworkFence::is_lifted,
    )
    .await
}

async fn settle(
    cluster: &Cluster,
    deadline: &Deadline,
    name: &str,
    what: &str,
    settled: fn(&NetworkFence) -> bool,
) -> Result<(), Error> {
    let waiting_for = format!("NetworkFence {name} to {what}");
    let view = cluster.view::<NetworkFence>(&Scope::All);
    let verdict = view
        .until_object(deadline, "", name, &waiting_for, |found| match found {
            Some(fence) if settled(fence) => Seen::Met(Ok(())),
            Some(fence) if is_refused(&fence.status) => Seen::Met(Err(fence.describe())),
            Some(fence) => Seen::Not(fence.describe()),
            None => Seen::Not("no such object".into()),
        })
        .await?;
    verdict.map_err(|why| Error::Stuck {
        goal: waiting_for,
        why: format!("{why}. Correct the class or the addresses"),
    })
}

/// Validation failures are not retried by the controller; RPC errors are.
fn is_refused(status: &NetworkFenceStatus) -> bool {
    status.result == "Failed"
        && ["cidr", "CIDR", "clusterID", "InvalidArgument"]
            .iter()
            .any(|word| status.message.contains(word))
}

fn short(run: &str) -> &str {
    run.get(..12).unwrap_or(run)
}

#[cfg(test)]
mod tests;
