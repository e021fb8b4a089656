//! The in-guest writer and reader, and the format of what it writes.
//!
//! Contract: acknowledges a write only after it is durable, says what it found, never judges.
//! May use: history (host-side stream handling only).
//!
//! The files [`cell`], [`layout`], [`disk`], [`frame`], [`engine`], [`session`] and [`scan`] are
//! std-only: `build.rs` compiles them a second time into the static probe binary whose root is
//! `main.rs` beside this file, so inside them sibling modules are named `super::…`, never `crate::…`.

pub mod cell;
pub mod disk;
pub mod frame;
pub mod layout;
