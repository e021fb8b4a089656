//! The switch of a segment: ports with bounded queues around a [`Table`].
//!
//! Contract: sending never waits. A frame for a port whose queue is full is dropped and counted; a
//! port that is unplugged is forgotten with its stations.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;

use super::frame::Frame;
use super::table::{PortId, Table, Towards};

/// How many frames wait for one port: 3 MB of full ones, several times a TCP window.
pub(super) const QUEUE: usize = 2048;

/// A switch, shared by its ports.
#[derive(Debug, Default)]
pub(super) struct Switch {
    fabric: Mutex<Fabric>,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Fabric {
    table: Table,
    queues: BTreeMap<PortId, mpsc::Sender<Frame>>,
    next: u64,
}

/// The near end of a port: sends into the switch. Dropping it unplugs the port.
#[derive(Debug)]
pub(super) struct Plug {
    switch: Arc<Switch>,
    id: PortId,
}

impl Switch {
    /// Adds a port; what the switch has for it arrives at the receiver.
    pub(super) fn plug(self: &Arc<Self>) -> (Plug, mpsc::Receiver<Frame>) {
        let (queue, frames) = mpsc::channel(QUEUE);
        let mut fabric = self.lock();
        let id = PortId(fabric.next);
        fabric.next += 1;
        fabric.queues.insert(id, queue);
        drop(fabric);
        let switch = Arc::clone(self);
        (Plug { switch, id }, frames)
    }

    /// How many ports are plugged in.
    pub(super) fn ports(&self) -> usize {
        self.lock().queues.len()
    }

    /// How many frames were dropped for want of room.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Counts a frame that was dropped for want of room outside of the switch.
    pub(super) fn count_drop(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Fabric> {
        self.fabric.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn offer(&self, queue: &mpsc::Sender<Frame>, frame: Frame) {
        // A closed queue belongs to a port that is about to be unplugged: lost as well.
        if queue.try_send(frame).is_err() {
            self.count_drop();
        }
    }
}

impl Plug {
    /// Sends a frame to wherever its destination is.
    pub(super) fn send(&self, frame: Frame) {
        let mut fabric = self.switch.lock();
        match fabric.table.route(self.id, &frame) {
            Towards::Nobody => {}
            Towards::Port(port) => {
                if let Some(queue) = fabric.queues.get(&port) {
                    self.switch.offer(queue, frame);
                }
            }
            Towards::Others => {
                for (_, queue) in fabric.queues.iter().filter(|(id, _)| **id != self.id) {
                    self.switch.offer(queue, frame.clone());
                }
            }
        }
    }
}

impl Drop for Plug {
    fn drop(&mut self) {
        let mut fabric = self.switch.lock();
        fabric.queues.remove(&self.id);
        fabric.table.forget(self.id);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn frame(dst: u8, src: u8) -> Frame {
        let bytes = [[dst; 6], [src; 6]].concat();
        Frame::new(Bytes::from([&bytes[..], &[8, 0]].concat())).unwrap()
    }

    #[test]
    fn a_full_queue_drops_and_counts_and_a_port_goes_with_its_stations() {
        let switch = Arc::<Switch>::default();
        let (left, mut to_left) = switch.plug();
        let (right, mut to_right) = switch.plug();
        left.send(frame(4, 2));
        assert_eq!(to_right.try_recv().unwrap(), frame(4, 2));
        assert!(to_left.try_recv().is_err(), "a frame came back to its port");
        for _ in 0..QUEUE + 3 {
            right.send(frame(2, 4));
        }
        assert_eq!(switch.dropped(), 3);
        assert_eq!(to_left.len(), QUEUE);
        let (third, mut to_third) = switch.plug();
        third.send(frame(4, 6));
        assert!(to_third.is_empty() && to_left.len() == QUEUE && to_right.len() == 1);
        assert_eq!(to_right.try_recv().unwrap(), frame(4, 6));
        drop(right);
        assert_eq!(switch.ports(), 2);
        left.send(frame(4, 2));
        assert_eq!(
            to_third.try_recv().unwrap(),
            frame(4, 2),
            "flooded once its port is gone"
        );
    }
}
