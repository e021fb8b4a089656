//! The in-guest writer and reader, and the format of what it writes.
//!
//! Contract: acknowledges a write only after it is durable, says what it found, never judges.
//! May use: history (host-side stream handling only).
//!
//! All files here but [`embedded`], [`remote`] and [`memory`] are std-only: `build.rs` compiles them a second time
//! into the static probe binary whose root is `main.rs` beside this file, so inside them sibling
//! modules are named `super::…`, never `crate::…`.

pub mod buffer;
pub mod cell;
pub mod classify;
pub mod codec;
pub mod config;
pub mod crc;
pub mod disk;
pub mod echo;
pub mod embedded;
pub mod engine;
pub mod filesystem;
pub mod frame;
pub mod hold;
pub mod host;
pub mod layout;
pub mod lease;
pub mod linux;
pub mod memory;
pub mod outbox;
pub mod payload;
pub mod platform;
pub mod reach;
pub mod remote;
pub mod scan;
pub mod session;
mod window;
pub mod wire;

#[cfg(test)]
mod testkit;
#[cfg(test)]
mod tests;
