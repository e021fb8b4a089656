//! Where the stations of a segment are, as a learning bridge knows it (IEEE 802.1Q, 8.7 and 8.8).
//!
//! Contract: a frame for a known station goes to the port where that station sent its last frame
//! from; any other frame goes to all ports but its own. Pure: no queues, no time. Stations are
//! forgotten with their port, not by age.

use std::collections::BTreeMap;

use smoltcp::wire::EthernetAddress;

use super::frame::Frame;

/// A port of the switch, never used again after it is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PortId(pub(super) u64);

/// Where a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Towards {
    /// To one port.
    Port(PortId),
    /// To all ports but the one it came from.
    Others,
    /// Nowhere: its destination is behind the port that it came from.
    Nobody,
}

/// How many stations are remembered. When it is full, frames for further ones go to all ports, so a
/// guest that makes up addresses costs bandwidth and no memory.
pub(super) const STATIONS: usize = 1024;

/// The stations by hardware address.
#[derive(Debug, Default)]
pub(super) struct Table {
    stations: BTreeMap<EthernetAddress, PortId>,
}

impl Table {
    /// Learns where the sender of a frame is and says where the frame goes.
    pub(super) fn route(&mut self, from: PortId, frame: &Frame) -> Towards {
        self.learn(from, frame.src());
        match self.stations.get(&frame.dst()) {
            Some(port) if *port == from => Towards::Nobody,
            Some(port) => Towards::Port(*port),
            None => Towards::Others,
        }
    }

    /// Forgets the stations behind a port.
    pub(super) fn forget(&mut self, port: PortId) {
        self.stations.retain(|_, at| *at != port);
    }

    fn learn(&mut self, from: PortId, station: EthernetAddress) {
        let room = self.stations.len() < STATIONS || self.stations.contains_key(&station);
        // A group address never sends.
        if room && station.is_unicast() {
            self.stations.insert(station, from);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn frame(dst: [u8; 6], src: [u8; 6]) -> Frame {
        let bytes = [&dst[..], &src[..], &[8, 0]].concat();
        Frame::new(Bytes::from(bytes)).unwrap()
    }

    /// Addresses from a small pool, with a group address and the broadcast among them.
    fn address(pick: u8) -> [u8; 6] {
        match pick % 8 {
            6 => [0x33, 0x33, 0, 0, 0, 1],
            7 => [0xff; 6],
            n => [2, 0, 0, 0, 0, n],
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Frame { from: u64, dst: u8, src: u8 },
        Gone(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0_u64..4, any::<u8>(), any::<u8>())
                .prop_map(|(from, dst, src)| Step::Frame { from, dst, src }),
            1 => (0_u64..4).prop_map(Step::Gone),
        ]
    }

    proptest! {
        /// The model looks back through everything that ever happened.
        #[test]
        fn frames_go_where_their_station_was_seen_last(steps in prop::collection::vec(step(), 0..60)) {
            let mut table = Table::default();
            for (at, step) in steps.iter().enumerate() {
                let Step::Frame { from, dst, src } = step else {
                    if let Step::Gone(port) = step { table.forget(PortId(*port)); }
                    continue;
                };
                let to = address(*dst);
                let mut gone = Vec::new();
                let mut seen = None;
                for past in steps[..=at].iter().rev() {
                    match past {
                        Step::Gone(port) => gone.push(*port),
                        Step::Frame { from, src, .. } if address(*src) == to && to[0] & 1 == 0 => {
                            // Its newest sighting counts, if that port has not gone since.
                            seen = (!gone.contains(from)).then_some(*from);
                            break;
                        }
                        Step::Frame { .. } => {}
                    }
                }
                let expected = match seen {
                    None => Towards::Others,
                    Some(port) if port == *from => Towards::Nobody,
                    Some(port) => Towards::Port(PortId(port)),
                };
                prop_assert_eq!(table.route(PortId(*from), &frame(to, address(*src))), expected);
            }
        }
    }

    #[test]
    fn a_full_table_follows_the_stations_it_knows() {
        let mut table = Table::default();
        let station = |n: usize| {
            let n = u32::try_from(n).unwrap().to_be_bytes();
            [2, 0, n[0], n[1], n[2], n[3]]
        };
        for n in 0..STATIONS + 10 {
            table.route(PortId(0), &frame([0xff; 6], station(n)));
        }
        assert_eq!(table.stations.len(), STATIONS);
        let back = |table: &mut Table, n| table.route(PortId(1), &frame(station(n), [4; 6]));
        assert_eq!(back(&mut table, STATIONS + 5), Towards::Others);
        assert_eq!(back(&mut table, 5), Towards::Port(PortId(0)));
        table.route(PortId(2), &frame([0xff; 6], station(5)));
        assert_eq!(back(&mut table, 5), Towards::Port(PortId(2)));
    }
}
