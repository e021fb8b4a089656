//! What the gateway knows of its only neighbour, the guest: when it was heard, and since when a
//! question for its hardware address has not been answered.
//!
//! Contract: watches the frames that the gateway sends and receives; smoltcp asks and caches, but
//! does not tell. An answer is any ARP or IPv4 frame from the guest's address.

use std::net::Ipv4Addr;
use std::time::Duration;

use bytes::Bytes;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    EthernetRepr, Ipv4Packet,
};
use tokio::time::Instant;

use crate::lab::qemu::net::frame::Frame;
use crate::lab::qemu::net::{GATEWAY, GATEWAY_MAC, GUEST};

/// A guest that leaves its questions unanswered for so long is not there: Linux asks three times,
/// a second apart (`mcast_solicit`, `retrans_time_ms`; arp(7)).
const UNANSWERED: Duration = Duration::from_secs(3);
/// A guest that was silent for so long is asked for anew before it is dialled. Not shorter than
/// smoltcp's pause between two questions, which would only delay the answer.
pub(super) const STALE: Duration = Duration::from_secs(1);

/// The guest as the gateway knows it.
#[derive(Debug, Default)]
pub(super) struct Neighbour {
    heard: Option<Instant>,
    asked: Option<Instant>,
}

impl Neighbour {
    /// Takes note of a frame that came in.
    pub(super) fn received(&mut self, frame: &Frame, now: Instant) {
        if sender(frame) == Some(GUEST) {
            self.heard = Some(now);
            self.asked = None;
        }
    }

    /// Takes note of a frame that goes out.
    pub(super) fn sent(&mut self, frame: &Frame, now: Instant) {
        if self.asked.is_none() && is_question(frame) {
            self.asked = Some(now);
        }
    }

    /// When the guest was heard for the last time.
    pub(super) fn heard(&self) -> Option<Instant> {
        self.heard
    }

    /// Whether the guest was heard after `since`.
    pub(super) fn heard_since(&self, since: Instant) -> bool {
        self.heard.is_some_and(|heard| heard > since)
    }

    /// Whether the guest was silent for so long that its hardware address may be out of date.
    pub(super) fn is_stale(&self, now: Instant) -> bool {
        self.heard.is_none_or(|heard| heard + STALE <= now)
    }

    /// Whether a question waits for its answer.
    pub(super) fn is_asked(&self) -> bool {
        self.asked.is_some()
    }

    /// When somebody who waits since `since` can know that the guest is not there, if nothing comes.
    pub(super) fn given_up(&self, since: Instant) -> Option<Instant> {
        self.asked.map(|asked| asked.max(since) + UNANSWERED)
    }
}

/// The IPv4 address that a frame comes from, by ARP or by IP.
fn sender(frame: &Frame) -> Option<Ipv4Addr> {
    let ethernet = EthernetFrame::new_checked(frame.bytes()).ok()?;
    match ethernet.ethertype() {
        EthernetProtocol::Arp => arp(&ethernet).map(|arp| match arp {
            ArpRepr::EthernetIpv4 {
                source_protocol_addr,
                ..
            } => source_protocol_addr,
            _ => Ipv4Addr::UNSPECIFIED,
        }),
        EthernetProtocol::Ipv4 => {
            let packet = Ipv4Packet::new_checked(ethernet.payload()).ok()?;
            Some(packet.src_addr())
        }
        _ => None,
    }
}

fn arp(ethernet: &EthernetFrame<&Bytes>) -> Option<ArpRepr> {
    let packet = ArpPacket::new_checked(ethernet.payload()).ok()?;
    ArpRepr::parse(&packet).ok()
}

fn is_question(frame: &Frame) -> bool {
    let Ok(ethernet) = EthernetFrame::new_checked(frame.bytes()) else {
        return false;
    };
    ethernet.ethertype() == EthernetProtocol::Arp
        && matches!(
            arp(&ethernet),
            Some(ArpRepr::EthernetIpv4 { operation: ArpOperation::Request, target_protocol_addr, .. })
                if target_protocol_addr == GUEST
        )
}

/// A question of the gateway to all stations: who has the guest's address?
pub(super) fn question() -> Vec<u8> {
    let arp = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: GATEWAY_MAC,
        source_protocol_addr: GATEWAY,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: GUEST,
    };
    let ethernet = EthernetRepr {
        src_addr: GATEWAY_MAC,
        dst_addr: EthernetAddress::BROADCAST,
        ethertype: EthernetProtocol::Arp,
    };
    let mut bytes = vec![0; ethernet.buffer_len() + arp.buffer_len()];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes[..]);
    ethernet.emit(&mut frame);
    arp.emit(&mut ArpPacket::new_unchecked(frame.payload_mut()));
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_question_is_open_until_the_guest_is_heard() {
        let mut neighbour = Neighbour::default();
        let start = Instant::now();
        let asks = Frame::new(Bytes::from(question())).unwrap();
        neighbour.sent(&asks, start);
        neighbour.sent(&asks, start + STALE);
        assert_eq!(neighbour.given_up(start), Some(start + UNANSWERED));
        let late = start + 2 * STALE;
        assert_eq!(neighbour.given_up(late), Some(late + UNANSWERED));
        neighbour.received(&asks, late);
        assert!(
            neighbour.is_asked(),
            "the gateway's own question is no answer"
        );
        let mut answer = question();
        answer[21] = 2;
        answer[28..32].copy_from_slice(&GUEST.octets());
        neighbour.received(&Frame::new(Bytes::from(answer)).unwrap(), late);
        assert!(!neighbour.is_asked() && neighbour.heard_since(start));
        assert!(!neighbour.heard_since(late));
    }

    proptest! {
        #[test]
        fn no_frame_is_too_strange(bytes in prop::collection::vec(any::<u8>(), 14..80), kind: bool) {
            let mut bytes = bytes;
            bytes[12..14].copy_from_slice(if kind { &[8, 6] } else { &[8, 0] });
            let frame = Frame::new(Bytes::from(bytes)).unwrap();
            let mut neighbour = Neighbour::default();
            neighbour.received(&frame, Instant::now());
            neighbour.sent(&frame, Instant::now());
        }
    }
}
