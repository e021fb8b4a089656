//! What a TCP peer of the guest notices of its network.

/// State of the link between the gateway and the guest, the same words as for simulated guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// Frames pass.
    Up,
    /// The virtual CPUs stand still: frames wait, as many as a queue holds.
    Stalled,
    /// Power is gone: frames are lost. Nothing answers and nothing is closed either.
    Silent,
    /// The guest closed its sockets, or its address is gone: streams end, new ones are refused.
    /// Frames still pass, so that the guest learns of it.
    Closed,
}

/// The link with the count of how often its streams were ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wire {
    pub(super) link: Link,
    /// A stream of an older epoch has ended, whether its task has noticed yet or not.
    pub(super) epoch: u64,
}

impl Wire {
    /// A new segment passes frames.
    pub(super) fn new() -> Self {
        Self {
            link: Link::Up,
            epoch: 0,
        }
    }

    pub(super) fn set(&mut self, link: Link) {
        self.link = link;
        if link == Link::Closed {
            self.drop_streams();
        }
    }

    pub(super) fn drop_streams(&mut self) {
        self.epoch += 1;
    }
}
