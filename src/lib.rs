//! virtproof rehearses disaster recovery for KubeVirt virtual machines and proves, from inside the
//! guest, what survived. `docs/architecture.md` explains the modules and who may use whom.

pub mod check;
pub mod cli;
pub mod cluster;
pub mod evidence;
pub mod guest;
pub mod history;
pub mod lab;
pub mod lint;
pub mod plan;
pub mod probe;
pub mod replicate;
pub mod report;
pub mod run;
pub mod scenario;
pub mod selftest;
pub mod sim;
pub mod workload;
