//! NetworkFences: each generation is carried out once; nothing verifies it afterwards, and
//! deleting a fence does not lift it (replication.md §1.4).

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::engine::{After, Key, Sources, drive, new_generation};
use super::objects::settle;
use super::replication::led_with;
use super::{FENCE_CLASSES, FENCES, Storage};
use crate::lab::api::{ApiError, Part, meta};
use crate::lab::faults::Fault;
use crate::lab::world;

const FINALIZER: &str = "csiaddons.openshift.io/network-fence";

/// Runs the controller.
pub(super) async fn run(storage: Storage, stop: CancellationToken) {
    let sources = Sources::new().watch(storage.store.watch(FENCES), new_generation);
    let clock = storage.clock;
    drive(sources, clock, stop, move |key| {
        reconcile(storage.clone(), key)
    })
    .await;
}

async fn reconcile(s: Storage, (_, name): Key) -> After {
    s.array.powered(s.site).await;
    match s.store.get(FENCES, "", &name) {
        Some(fence) => settle(step(&s, &fence), "network fence"),
        None => After::Done,
    }
}

fn step(s: &Storage, fence: &Arc<Value>) -> Result<After, ApiError> {
    let name = meta::name(fence);
    if meta::deleting(fence) {
        s.store.modify(FENCES, "", name, Part::Object, |f| {
            meta::remove_finalizer(f, FINALIZER);
        })?;
        return Ok(After::Done);
    }
    let class = match meta::text(fence, "/spec/networkFenceClassName") {
        "" => None,
        named => match s.store.get(FENCE_CLASSES, "", named) {
            Some(class) => Some(class),
            None => return Ok(After::Retry),
        },
    };
    let driver = class.as_ref().map_or_else(
        || meta::text(fence, "/spec/driver").to_owned(),
        |class| meta::text(class, "/spec/provisioner").to_owned(),
    );
    if s.array.board().armed(Fault::NoLeader)
        || !led_with(&s.store, &driver, "network_fence.NETWORK_FENCE")
    {
        return Ok(After::Retry);
    }
    s.store.modify(FENCES, "", name, Part::Object, |f| {
        meta::add_finalizer(f, FINALIZER);
    })?;
    let cluster = class.as_ref().map_or_else(
        || meta::text(fence, "/spec/parameters/clusterID"),
        |class| meta::text(class, "/spec/parameters/clusterID"),
    );
    let (result, message, after) = match carry_out(s, fence, cluster) {
        Ok(message) => ("Succeeded", message.to_owned(), After::Done),
        Err(error) => ("Failed", error, After::Retry),
    };
    let said = json!({"message": message, "result": result});
    s.store.modify(FENCES, "", name, Part::Status, |f| {
        let status = meta::map_at(f, "status");
        for field in ["message", "result"] {
            status.insert(field.into(), said[field].clone());
        }
    })?;
    Ok(after)
}

/// Fences or releases the nodes whose addresses are in the CIDRs.
fn carry_out(s: &Storage, fence: &Value, cluster: &str) -> Result<&'static str, String> {
    let invalid = |text: &str| format!("rpc error: code = InvalidArgument desc = {text}");
    let listed = fence.pointer("/spec/cidrs").and_then(Value::as_array);
    let texts: Vec<&str> = listed
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if texts.is_empty() {
        return Err(invalid("CIDR block cannot be empty"));
    }
    if cluster.is_empty() {
        return Err(invalid(
            "failed to fetch clusterID: empty in the fence's parameters",
        ));
    }
    let mut cidrs = Vec::new();
    for text in texts {
        let cidr = Cidr::parse(text).ok_or_else(|| {
            format!("rpc error: code = Internal desc = invalid CIDR address: {text}")
        })?;
        cidrs.push(cidr);
    }
    let within = |ip: &Ipv4Addr| cidrs.iter().any(|c| c.contains(*ip));
    let hosts: Vec<String> = world::all_nodes()
        .into_iter()
        .filter(|(_, ip)| within(ip))
        .map(|(name, _)| name)
        .collect();
    if meta::text(fence, "/spec/fenceState") == "Unfenced" {
        lift(s, &hosts);
        Ok("unfencing operation successful")
    } else {
        block(s, hosts);
        Ok("fencing operation successful")
    }
}

/// Unblocks nodes, or with the fault `fence-leaves-blocklist` says so only.
fn lift(s: &Storage, hosts: &[String]) {
    let fault = Fault::BlocklistLeft;
    if s.array.board().armed(fault) {
        let detail = "the blocklist keeps its entries";
        s.array.record(fault, s.site, &hosts.join(","), detail);
    } else {
        s.array.unfence(s.site, hosts);
    }
}

/// Blocks nodes, with the fault `fence-late` after a while only.
fn block(s: &Storage, hosts: Vec<String>) {
    let late = s.array.board().param(Fault::FenceLate, "ms");
    let Some(late) = late.and_then(|ms| u64::try_from(ms).ok()) else {
        return s.array.fence(s.site, &hosts);
    };
    let detail = "takes hold later";
    let named = hosts.join(",");
    s.array.record(Fault::FenceLate, s.site, &named, detail);
    let (array, clock, site) = (s.array.clone(), s.clock, s.site);
    tokio::spawn(async move {
        clock.pass(Duration::from_millis(late)).await;
        array.fence(site, &hosts);
    });
}

/// A block of IPv4 addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cidr {
    network: u32,
    mask: u32,
}

impl Cidr {
    fn parse(text: &str) -> Option<Self> {
        let (address, length) = text.split_once('/')?;
        let address: Ipv4Addr = address.parse().ok()?;
        let length: u32 = length.parse().ok().filter(|n| *n <= 32)?;
        let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
        Some(Self {
            network: u32::from(address) & mask,
            mask,
        })
    }

    fn contains(self, ip: Ipv4Addr) -> bool {
        u32::from(ip) & self.mask == self.network
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_contains_its_addresses_only() {
        let ip = |text: &str| text.parse::<Ipv4Addr>().unwrap();
        let one = Cidr::parse("10.71.0.10/32").unwrap();
        assert!(one.contains(ip("10.71.0.10")) && !one.contains(ip("10.71.0.11")));
        let net = Cidr::parse("10.71.0.99/24").unwrap();
        assert!(net.contains(ip("10.71.0.1")) && !net.contains(ip("10.72.0.1")));
        assert!(Cidr::parse("0.0.0.0/0").unwrap().contains(ip("8.8.8.8")));
        for bad in ["10.71.0.10", "10.71.0.10/33", "nope", "nope/8", "1.2.3/8"] {
            assert_eq!(Cidr::parse(bad), None, "{bad}");
        }
    }
}
