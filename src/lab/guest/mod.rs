//! Simulated guests: an SSH server in the process whose disks are the array's volumes.
//!
//! Contract: a guest runs no host command and reads no host file. What it writes stops with its
//! power, not with its process; what it keeps between boots lies on its volumes.

pub mod image;
#[cfg(test)]
pub(crate) mod testing;
