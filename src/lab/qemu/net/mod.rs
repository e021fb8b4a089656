//! The network of one guest under QEMU: an Ethernet segment within the process, without root, tap
//! devices or QEMU's own user network.
//!
//! Contract: every VirtualMachineInstance has its own [`Segment`], a Unix socket which its QEMU, and
//! during a live migration both QEMUs, dial with `-netdev stream`. A learning switch joins them to a
//! gateway, which opens TCP connections to the guest as KubeVirt's virt-api does. The guest is always
//! [`GUEST`] and the gateway [`GATEWAY`], as KubeVirt's masquerade binding gives every guest the same
//! address. Every queue is bounded: a full one drops frames and counts them, as Ethernet does. What a
//! guest sends can end its own port, never the process.

mod error;
mod frame;
mod gateway;
mod link;
mod port;
mod segment;
mod switch;
mod table;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::net::Ipv4Addr;

use smoltcp::wire::EthernetAddress;

pub use crate::lab::guest::Dial;
pub use error::{SegmentError, Unheard};
pub use gateway::{Answer, EchoMonitor, EchoReport, Silence};
pub use link::Link;
pub use segment::Segment;

/// Address of every guest, which its image sets without asking DHCP.
pub const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// Address of the gateway, the only other station of a segment.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 1);
/// Bits of the network part of both addresses.
pub const PREFIX: u8 = 24;
/// Hardware address of the gateway: locally administered, the same on every segment, so that the
/// neighbour table of a guest that moves stays right.
pub const GATEWAY_MAC: EthernetAddress = EthernetAddress([0x02, 0x00, 0x0a, 0x00, 0x02, 0x01]);
