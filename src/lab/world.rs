//! What the lab's two sites are called and made of: nodes, addresses, storage names. One place, so
//! that the array, the controllers and the guests mean the same machines.

use crate::history::event::Site;

/// Bytes in a page of an array image, the same as a ledger cell.
pub const PAGE: usize = 4096;

/// Nodes on each site.
pub const NODES: usize = 3;

/// The CSI driver of both sites.
pub const DRIVER: &str = "block.lab.virtproof.dev";
/// Where the driver's pods, leases and `CSIAddonsNode` objects live.
pub const DRIVER_NAMESPACE: &str = "lab-storage";
/// The lease that the csi-addons sidecar's leader holds: the driver's name with everything that is
/// not alphanumeric made `-`, and `-csi-addons` (replication.md §1.2).
pub const DRIVER_LEASE: &str = "block-lab-virtproof-dev-csi-addons";

/// StorageClass of replicated volumes; the default one, for KubeVirt too.
pub const CLASS_BLOCK: &str = "lab-block";
/// StorageClass whose volumes are provisioned once a pod that uses them is scheduled.
pub const CLASS_WAIT: &str = "lab-block-wait";
/// StorageClass on storage that cannot replicate.
pub const CLASS_LOCAL: &str = "lab-local";
/// The provisioner of [`CLASS_LOCAL`].
pub const LOCAL_DRIVER: &str = "local.lab.virtproof.dev";

/// VolumeReplicationClass that cuts all volumes of a VM at one instant, every minute.
pub const MIRROR: &str = "lab-mirror";
/// The same every five minutes.
pub const MIRROR_5M: &str = "lab-mirror-5m";
/// VolumeReplicationClass that cuts each volume on its own schedule, as one VolumeReplication per
/// PVC does on real RBD (replication.md §6): volumes of a VM are not consistent with each other.
pub const MIRROR_INDEPENDENT: &str = "lab-independent";
/// Class parameter that asks for a consistency group: `vm` or `none`.
pub const GROUP_PARAMETER: &str = "consistencyGroup";
/// VolumeSnapshotClass of [`DRIVER`]; the default one.
pub const SNAPSHOT_CLASS: &str = "lab-snapshot";
/// VolumeGroupSnapshotClass of [`DRIVER`]; the default one.
pub const GROUP_SNAPSHOT_CLASS: &str = "lab-group-snapshot";
/// VolumeSnapshotClass whose snapshots stay on the array when their VolumeSnapshot goes.
pub const SNAPSHOT_RETAINED: &str = "lab-snapshot-retain";
/// NetworkFenceClass.
pub const FENCE_CLASS: &str = "lab-fence";

/// The short name of a site: prefix of its nodes and the pool in its volume handles.
pub const fn short(site: Site) -> &'static str {
    match site {
        Site::Primary => "east",
        Site::Secondary => "west",
    }
}

/// The names of a site's nodes.
pub fn nodes(site: Site) -> Vec<String> {
    (0..NODES)
        .map(|n| format!("{}-node-{n}", short(site)))
        .collect()
}

/// The address of the `n`-th node of a site.
pub fn node_ip(site: Site, n: usize) -> std::net::Ipv4Addr {
    let third = match site {
        Site::Primary => 71,
        Site::Secondary => 72,
    };
    let last = u8::try_from(10 + n).unwrap_or(u8::MAX);
    std::net::Ipv4Addr::new(10, third, 0, last)
}

/// All nodes of both sites with their addresses, in order.
pub fn all_nodes() -> Vec<(String, std::net::Ipv4Addr)> {
    [Site::Primary, Site::Secondary]
        .into_iter()
        .flat_map(|site| {
            nodes(site)
                .into_iter()
                .enumerate()
                .map(move |(n, name)| (name, node_ip(site, n)))
        })
        .collect()
}

/// The volume handle of image `id` on a site. Like that of ceph-csi it embeds where the image is,
/// so the peer's handle of the same image differs (replication.md §3, handle mapping).
pub fn handle(site: Site, id: &str) -> String {
    format!("lab-{}-{id}", short(site))
}

/// The image that a handle names, if the handle belongs to that site.
pub fn image_of(site: Site, handle: &str) -> Option<&str> {
    handle
        .strip_prefix("lab-")?
        .strip_prefix(short(site))?
        .strip_prefix('-')
        .filter(|id| !id.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_names_its_image_on_its_own_site_only() {
        let text = handle(Site::Primary, "a-b");
        assert_eq!(image_of(Site::Primary, &text), Some("a-b"));
        assert_eq!(image_of(Site::Secondary, &text), None);
        assert_eq!(image_of(Site::Primary, "lab-east-"), None);
    }

    #[test]
    fn node_addresses_are_distinct() {
        let all = all_nodes();
        let ips: std::collections::BTreeSet<_> = all.iter().map(|n| n.1).collect();
        assert_eq!((all.len(), ips.len()), (2 * NODES, 2 * NODES));
    }
}
