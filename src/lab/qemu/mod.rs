//! Real guests: kernels under QEMU whose disks are the array's volumes, served over NBD.
//!
//! Contract: a guest here is a [`Machine`], started by the [`Hypervisor`]; the controllers treat it as
//! they treat a simulated one. The same array lies under both, so the same write log, volatile cache,
//! replication and planted faults do. Every QEMU dies with this process, and what a kill left behind is
//! found by its pid file.

pub mod admission;
pub mod agent;
pub mod host;
mod hypervisor;
pub mod image;
mod machine;
pub mod migrate;
pub mod nbd;
pub mod net;
pub mod process;
pub mod qmp;
#[cfg(test)]
mod testing;

pub use hypervisor::{Config, Hypervisor, LaunchError, Sessions};
pub use machine::{AgentReport, FileSystem, Limits, Machine, MoveError};
pub use migrate::Why;
pub use process::{CONSOLE_FILE, Orphan, orphans};
