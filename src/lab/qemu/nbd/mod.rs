//! Disks for QEMU: a [`Disk`] served over the Network Block Device protocol on a Unix socket.
//!
//! Contract: one export per socket, any number of clients. What a reply says is true of the Disk when
//! the reply is sent: a write was taken, a flush returned, a failure is the Disk's own. A connection
//! is served by its own thread, its requests strictly in the order they came, so that the order in
//! which a guest writes is the order in which the array logs. The server is a plain NOTLS server of
//! the fixed newstyle; section names in these files are those of `proto.md` of the NBD project
//! (<https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md>).
//!
//! The Disk takes whole pages only, so the export announces a minimum block size of 4096 and answers
//! `NBD_EINVAL` to anything else ("Block size constraints"). QEMU honours the announced size by
//! reading and writing back whole pages for a guest that writes sectors; give the guest's device
//! `logical_block_size=4096` to spare it that.
//!
//! Standing still, losing the storage and closing are verbs of `Server`, decided in one place, the
//! gate, which every access to the Disk passes.

mod export;
mod failure;
mod gate;
mod handshake;
mod payload;
mod replies;
mod request;
mod server;
mod storage;
#[cfg(test)]
mod tests;
mod transmission;
mod wire;

pub use export::Export;
pub use server::{ListenError, Server};

#[cfg(doc)]
use crate::probe::disk::Disk;
