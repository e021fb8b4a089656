//! The gateway's network card, as smoltcp sees it: queues of frames in memory.

use std::collections::VecDeque;

use bytes::Bytes;
use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::time::Instant;

use crate::lab::qemu::net::frame::{Frame, GATEWAY_FRAME};

/// Frames in both directions. What the stack sends is taken after every poll, so the sending side
/// is bounded by what the stack's sockets may have under way.
#[derive(Debug, Default)]
pub(crate) struct Device {
    received: VecDeque<Frame>,
    sent: VecDeque<Frame>,
}

impl Device {
    /// A frame for the stack.
    pub(crate) fn receive(&mut self, frame: Frame) {
        self.received.push_back(frame);
    }

    /// A frame of the stack.
    pub(crate) fn take_sent(&mut self) -> Option<Frame> {
        self.sent.pop_front()
    }
}

/// A received frame, about to be read by the stack.
pub(crate) struct Received(Frame);

/// A place for one frame to send.
pub(crate) struct Sending<'a>(&'a mut VecDeque<Frame>);

impl phy::RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(self.0.bytes())
    }
}

impl phy::TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let mut bytes = vec![0; len];
        let result = write(&mut bytes);
        match Frame::new(Bytes::from(bytes)) {
            Ok(frame) => self.0.push_back(frame),
            Err(error) => tracing::error!(%error, "the gateway made a frame that cannot be sent"),
        }
        result
    }
}

impl phy::Device for Device {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sending<'_>)> {
        let frame = self.received.pop_front()?;
        Some((Received(frame), Sending(&mut self.sent)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        Some(Sending(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = GATEWAY_FRAME;
        capabilities
    }
}
