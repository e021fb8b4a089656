//! VM templates and Recipes to objects and findings.
//!
//! Contract: pure; text and parameters in, Kubernetes objects out; touches no cluster. A value can
//! fill a placeholder but never change the structure around it. A user's own manifest is taken as
//! `kubectl` would take it; what is added to it, and nothing else, is in `rendered`.
//! May use: plan, cluster::crd.

mod bind;
mod blank;
mod claims;
mod cloudinit;
pub mod database;
mod disks;
pub mod hooks;
mod identity;
mod login;
mod manifest;
mod placeholder;
mod reader;
pub mod recipe;
mod refs;
mod rendered;
mod template;

pub use identity::{Identity, fit_name};
pub use rendered::{DataDisk, Instance, Propagation, Rendered, Root, Subject};
pub use template::{Embedded, Extra, Parameter, Template, TemplateError, embedded, extract, names};

use crate::plan::model;
use std::path::Path;

/// Label with the run's id, on every object and every PVC.
pub const RUN_LABEL: &str = "virtproof.dev/run";
/// Label with the subject's name.
pub const SUBJECT_LABEL: &str = "virtproof.dev/subject";
/// Label with the plan workload's name.
pub const WORKLOAD_LABEL: &str = "virtproof.dev/workload";
/// Label that marks a claim as a data volume for the ledger: `raw` or `file`.
pub const LEDGER_LABEL: &str = "virtproof.dev/ledger";
/// Label beside `virtproof.dev/ledger: file`: the file system that the probe makes, `ext4` or `xfs`.
pub const FILESYSTEM_LABEL: &str = "virtproof.dev/filesystem";
/// Annotation on the VM with its login name.
pub const SSH_USER_ANNOTATION: &str = "virtproof.dev/ssh-user";
/// Annotation on the VM with the way its SSH key gets in: `cloud-init`, `guest-agent` or `none`.
pub const SSH_KEY_ANNOTATION: &str = "virtproof.dev/ssh-key";

/// The Secrets and ConfigMaps that a VM's spec names, by kind and name.
pub fn references(spec: &serde_json::Value) -> std::collections::BTreeSet<(&'static str, String)> {
    refs::named(spec)
}

/// Loads and renders the template of a plan's workload; `base` is the plan's folder.
pub fn render(workload: &model::Workload, base: &Path) -> Result<Rendered, TemplateError> {
    let template = Template::load(&workload.template, base)?;
    let extra = Extra {
        ssh_user: workload.ssh.user.as_deref(),
        data_volumes: &workload.data_volumes,
    };
    template.render(&workload.parameters, &extra)
}

#[cfg(test)]
mod tests;
