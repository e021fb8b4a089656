//! The guest of a domain as the node that runs it sees it: power, network, agent.
//!
//! Contract: each call means the same whether the guest is simulated or real. What takes time in a
//! guest is awaited; what a node knows or does by itself is not.

mod real;
mod simulated;

use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::io::DuplexStream;

use crate::lab::guest::{Dial, GuestDisk};
use crate::lab::qemu::Machine;
pub use crate::lab::qemu::{AgentReport, FileSystem};

/// A started guest.
pub trait Guest: Send + Sync {
    /// The operating system came up: the network answers from now on.
    fn bring_up(&self);

    /// Keeps sshd from answering, or lets it.
    fn hold_sshd(&self, held: bool);

    /// The guest went on at another address: streams to the old one end.
    fn moved(&self);

    /// Whether it would react to its power button: an operating system is up and runs.
    fn reacts(&self) -> bool;

    /// Whether it has no power any more.
    fn is_off(&self) -> bool;

    /// Whether its agent is connected, as far as the node knows.
    fn agent(&self) -> bool;

    /// Whether its file systems are frozen, as far as the launcher knows.
    fn frozen(&self) -> bool;

    /// What its serial console has to show to somebody who attaches.
    fn console(&self) -> BoxFuture<'_, Vec<u8>>;

    /// Cuts the power: no further access to any disk, streams fall silent. Blocks for the access that
    /// is under way.
    fn power_cut(&self);

    /// Cuts the power and gives the address up, so that streams end at last.
    fn release(&self);

    /// Opens a TCP stream to a port.
    fn connect(&self, port: u16) -> BoxFuture<'_, Result<DuplexStream, Dial>>;

    /// Asks the agent; `None` if it does not answer.
    fn report(&self) -> BoxFuture<'_, Option<AgentReport>>;

    /// Stops or resumes the virtual CPUs. The error is the hypervisor's.
    fn pause(&self, paused: bool) -> BoxFuture<'_, Result<(), String>>;

    /// The power button; true once the guest switched itself off, false if it does not react.
    fn shut_down(&self) -> BoxFuture<'_, bool>;

    /// Starts it again in place, at once if `hard`. False if it has to be booted anew instead, and is
    /// off by then.
    fn reboot(&self, hard: bool) -> BoxFuture<'_, bool>;

    /// Freezes its file systems. The number to give to [`Self::expire`] when the safety timer runs
    /// out, or `None` if they were frozen already, in which case the first timer keeps running. The
    /// error is the agent's.
    fn freeze(&self) -> BoxFuture<'_, Result<Option<u64>, String>>;

    /// Thaws, and says whether there was something to thaw; if not, that is no error.
    fn thaw(&self) -> BoxFuture<'_, Result<bool, String>>;

    /// The safety timer of a freeze ran out; whether the freeze still held, and was ended.
    fn expire(&self, freeze: u64) -> BoxFuture<'_, bool>;

    /// Gives it a further disk. The error says why it did not get it.
    fn plug(&self, disk: GuestDisk) -> BoxFuture<'_, Result<(), String>>;

    /// Tells it that the disk of a volume has so many bytes by now. The error says why it was not told.
    fn resize(&self, volume: String, bytes: u64) -> BoxFuture<'_, Result<(), String>>;

    /// Takes the disk of a volume away. The error says why the guest has it still.
    fn unplug(&self, volume: String) -> BoxFuture<'_, Result<(), String>>;

    /// The machine, if it is real: only such a one is moved by its hypervisor.
    fn real(&self) -> Option<&Arc<Machine>> {
        None
    }
}
