//! The wire between the gateway's network card and the switch, which the link's state rules.
//!
//! Contract: up and closed pass frames, stalled keeps them (bounded, in both directions), silent
//! loses them.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::lab::qemu::net::frame::Frame;
use crate::lab::qemu::net::link::Link;
use crate::lab::qemu::net::switch::{Plug, QUEUE, Switch};

/// Frames taken from the switch at once.
const BURST: usize = 64;

/// The gateway's port of the switch.
pub(super) struct Uplink {
    switch: Arc<Switch>,
    plug: Plug,
    inward: mpsc::Receiver<Frame>,
    held: VecDeque<Frame>,
    link: Link,
}

impl Uplink {
    pub(super) fn new(switch: Arc<Switch>, link: Link) -> Self {
        let (plug, inward) = switch.plug();
        let held = VecDeque::new();
        Self {
            switch,
            plug,
            inward,
            held,
            link,
        }
    }

    pub(super) fn link(&self) -> Link {
        self.link
    }

    /// Changes the state of the link; frames that were kept go where they now belong.
    pub(super) fn set(&mut self, link: Link) {
        self.link = link;
        if link != Link::Stalled {
            for frame in std::mem::take(&mut self.held) {
                self.send(frame);
            }
        }
    }

    /// Sends a frame of the gateway.
    pub(super) fn send(&mut self, frame: Frame) {
        match self.link {
            Link::Up | Link::Closed => self.plug.send(frame),
            Link::Stalled if self.held.len() < QUEUE => self.held.push_back(frame),
            Link::Stalled => self.switch.count_drop(),
            Link::Silent => {}
        }
    }

    /// Waits for frames for the gateway and adds them to `burst`; forever while the link is stalled.
    /// Loses none when it is cancelled.
    pub(super) async fn receive(&mut self, burst: &mut Vec<Frame>) {
        loop {
            if self.link == Link::Stalled || self.inward.recv_many(burst, BURST).await == 0 {
                return std::future::pending().await;
            }
            if self.link != Link::Silent {
                return;
            }
            burst.clear();
        }
    }
}
