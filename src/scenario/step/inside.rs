//! What the guest finds of its own hardware, looked at whenever a probe is started in it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::cluster::crd::kubevirt::{Interface, VirtualMachineInstance};
use crate::guest::GuestFacts;
use crate::history::event::{Fact, InsideDisk, InsideFact};
use crate::scenario::member::Member;
use crate::scenario::world::World;

/// Records what a guest said of its hardware, and the families of its addresses.
pub(super) async fn record(
    world: &World,
    member: &Member,
    facts: &GuestFacts,
) -> anyhow::Result<()> {
    let (ns, vm) = (&member.subject.namespace, &member.subject.vm);
    let cluster = member.cluster(world);
    let vmi = cluster.find::<VirtualMachineInstance>(ns, vm).await?;
    let interfaces = vmi.map(|vmi| vmi.status.interfaces).unwrap_or_default();
    let disks = facts.disks.iter().map(|disk| InsideDisk {
        name: disk.name.clone(),
        serial: disk.serial.clone(),
        size: disk.size,
        read_only: disk.read_only,
    });
    let inside = InsideFact {
        hostname: facts.hostname.clone(),
        disks: disks.collect(),
        cards: facts.cards.iter().cloned().collect(),
        families: families(&interfaces),
    };
    let site = member.site;
    member.tell(world, Fact::Inside { site, inside }).await
}

/// The families of the addresses that a VMI tells, each once.
fn families(interfaces: &[Interface]) -> Vec<String> {
    let addresses = interfaces
        .iter()
        .flat_map(|interface| interface.ip_address.iter().chain(&interface.ip_addresses));
    let families: BTreeSet<&str> = addresses
        .filter_map(|address| address.parse::<IpAddr>().ok())
        .map(|address| if address.is_ipv4() { "IPv4" } else { "IPv6" })
        .collect();
    families.into_iter().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_family_counts_once() {
        let interface = |first: &str, all: &[&str]| Interface {
            ip_address: Some(first.into()),
            ip_addresses: all.iter().map(|&address| address.into()).collect(),
            name: None,
        };
        let both = interface("192.0.2.1", &["192.0.2.1", "2001:db8::1"]);
        assert_eq!(
            families(&[both, interface("192.0.2.7", &[])]),
            ["IPv4", "IPv6"]
        );
        assert!(families(&[interface("", &[])]).is_empty());
    }
}
