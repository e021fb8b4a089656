//! A template with its parameters filled in: one VM, what stands beside it, and what virtproof found
//! out about it.

use serde_json::Value;

use super::blank;
use super::cloudinit::Place;
use super::disks::{self, Data, Disks};
use super::identity::Identity;
use super::login::Login;
use super::manifest::{Manifest, Object};
use super::refs::{self, Target};
use super::template::Extra;
use crate::plan::model::{FileSystem, LedgerKind, VolumeMode};
use crate::plan::problem::Problems;

/// How the SSH key gets into the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Propagation {
    /// KubeVirt's `accessCredentials` through the NoCloud metadata.
    NoCloud,
    /// KubeVirt's `accessCredentials` through the ConfigDrive metadata.
    ConfigDrive,
    /// Written into the entry of a user that the cloud-config lists: metadata keys would only reach
    /// the image's default user.
    UserData,
    /// KubeVirt's `accessCredentials` through qemu-guest-agent.
    GuestAgent,
    /// Not at all: the image has it.
    None,
}

/// A rendered template.
#[derive(Debug, Clone, PartialEq)]
pub struct Rendered {
    pub(super) vm: Value,
    pub(super) secrets: Vec<Value>,
    pub(super) config_maps: Vec<Value>,
    pub(super) services: Vec<Value>,
    pub(super) claims: Vec<Value>,
    pub(super) data_volumes: Vec<Value>,
    pub(super) disks: Disks,
    pub(super) user_data: Option<Place>,
    ssh_user: String,
    propagation: Propagation,
    run_strategy: String,
    notes: Vec<String>,
}

/// The place of one VM in a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// VM name on both sites: a DNS label.
    pub name: String,
    /// Namespace on both sites.
    pub namespace: String,
    /// Run id, the value of `virtproof.dev/run`.
    pub run: String,
    /// Subject, the value of `virtproof.dev/subject`.
    pub subject: String,
    /// Plan workload, the value of `virtproof.dev/workload`.
    pub workload: String,
    /// Public key in OpenSSH form, one line.
    pub ssh_public_key: String,
    /// Identity on both sites.
    pub identity: Identity,
    /// StorageClass for claims that name none.
    pub storage_class: Option<String>,
}

/// A VM under test: what to create, and what to know about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Subject {
    /// VM name on both sites.
    pub vm: String,
    /// Namespace on both sites.
    pub namespace: String,
    /// Every PVC of the VM, which must all be protected.
    pub claims: Vec<String>,
    /// The ledger disks by ordinal.
    pub data_disks: Vec<DataDisk>,
    /// What it boots from.
    pub root: Root,
    /// Login name.
    pub ssh_user: String,
    /// `runStrategy` that makes it run: what to set on the peer when the time has come.
    pub run_strategy: String,
    /// Objects for the first site, in order of creation. The VM is last and starts at once.
    pub objects: Vec<Value>,
    /// Objects for the other site, in order of creation. Claims are not among them: they are handed
    /// over. The VM is last and `Halted`, and nothing in it can fill a volume again.
    pub peer_objects: Vec<Value>,
}

/// What a VM boots from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Root {
    /// A claim, which moves with the VM.
    Persistent {
        /// The PVC.
        pvc: String,
    },
    /// A container disk: each boot is a new machine.
    Ephemeral,
}

/// A ledger disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataDisk {
    /// Ledger ordinal.
    pub ordinal: u8,
    /// Volume and disk name in the VM.
    pub name: String,
    /// Its PVC.
    pub pvc: String,
    /// Serial, by which the guest finds it.
    pub serial: String,
    /// Volume mode; `None` when the StorageProfile decides.
    pub volume_mode: Option<VolumeMode>,
    /// How the ledger lies on it.
    pub ledger: LedgerKind,
    /// The file system for a ledger that is a file.
    pub filesystem: FileSystem,
}

impl Rendered {
    /// Checks a manifest and makes it complete; reports what stands in the way.
    pub(super) fn new(
        mut manifest: Manifest,
        extra: &Extra<'_>,
        problems: &mut Problems<'_>,
    ) -> Option<Self> {
        let mut notes = Vec::new();
        if manifest
            .vm
            .value
            .pointer("/spec/template/spec/domain")
            .is_none_or(|d| !d.is_object())
        {
            problems.add(
                manifest.vm.at("spec/template/spec"),
                "the VM has no `spec.template.spec.domain`",
                "a VirtualMachine with a template",
                "see docs/templates.md",
            );
            return None;
        }
        references(&mut manifest, problems);
        blank::disks(&mut manifest.vm.value);
        let found = disks::survey(&manifest, problems);
        let run_strategy = run_strategy(&mut manifest.vm, &mut notes, problems);
        blank::network(&mut manifest.vm, &mut notes, problems);
        let disks = if found.data.is_empty() {
            blank::data_volumes(
                &mut manifest,
                found,
                extra.data_volumes,
                &mut notes,
                problems,
            )
        } else {
            if !extra.data_volumes.is_empty() {
                problems.add(
                    manifest.vm.at(""),
                    "the plan gives `dataVolumes` and the template marks its own",
                    "one or the other",
                    "remove `dataVolumes` from the plan's workload",
                );
            }
            found
        };
        let login = Login::find(&mut manifest, extra.ssh_user, &mut notes, problems)?;
        let plain = |objects: Vec<Object>| objects.into_iter().map(|object| object.value).collect();
        Some(Self {
            vm: manifest.vm.value,
            secrets: plain(manifest.secrets),
            config_maps: plain(manifest.config_maps),
            services: plain(manifest.services),
            claims: plain(manifest.claims),
            data_volumes: plain(manifest.data_volumes),
            disks,
            user_data: login.place,
            ssh_user: login.user,
            propagation: login.propagation,
            run_strategy,
            notes,
        })
    }

    /// Login name.
    pub fn ssh_user(&self) -> &str {
        &self.ssh_user
    }

    /// How the SSH key gets in.
    pub const fn propagation(&self) -> &Propagation {
        &self.propagation
    }

    /// `runStrategy` that makes it run.
    pub fn run_strategy(&self) -> &str {
        &self.run_strategy
    }

    /// Whether the root disk is a claim.
    pub const fn has_persistent_root(&self) -> bool {
        self.disks.root.is_some()
    }

    /// Whether the first site makes any of its claims through CDI.
    pub fn uses_cdi(&self) -> bool {
        let templates = self.vm.pointer("/spec/dataVolumeTemplates");
        !self.data_volumes.is_empty()
            || templates
                .and_then(Value::as_array)
                .is_some_and(|t| !t.is_empty())
    }

    /// How many claims the VM has, the root disk included.
    pub const fn claim_count(&self) -> usize {
        self.disks.claims.len()
    }

    /// The ledger disks: volume name, mode and ledger kind, by ordinal.
    pub fn ledger_disks(&self) -> impl Iterator<Item = (&str, Option<VolumeMode>, LedgerKind)> {
        self.disks.data.iter().map(
            |Data {
                 volume,
                 mode,
                 ledger,
                 ..
             }| (volume.as_str(), *mode, *ledger),
        )
    }

    /// What was added or changed that the manifest's author might not expect, for `preflight`.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

/// Run namespaces are new: whatever the VM refers to must come with it.
fn references(manifest: &mut Manifest, problems: &mut Problems<'_>) {
    let names = |objects: &[Object]| -> Vec<String> {
        objects
            .iter()
            .map(|object| object.name().to_owned())
            .collect()
    };
    let mut volumes = names(&manifest.data_volumes);
    volumes.extend(
        disks::list(&manifest.vm.value, "/spec/dataVolumeTemplates")
            .iter()
            .filter_map(|template| template["metadata"]["name"].as_str().map(ToOwned::to_owned)),
    );
    let mut claims = names(&manifest.claims);
    claims.extend(volumes.iter().cloned());
    let (secrets, config_maps) = (names(&manifest.secrets), names(&manifest.config_maps));
    let vms = std::slice::from_mut(&mut manifest.vm);
    let owners = vms
        .iter_mut()
        .chain(&mut manifest.data_volumes)
        .chain(&mut manifest.claims);
    for owner in owners {
        let mut missing = Vec::new();
        let Some(spec) = owner.value.get_mut("spec") else {
            continue;
        };
        refs::visit(spec, "spec", &mut |found| {
            let have = match found.target {
                Target::Secret => &secrets,
                Target::ConfigMap => &config_maps,
                Target::Claim => &claims,
                Target::DataVolume => &volumes,
            };
            if !found.optional && !have.contains(found.name) {
                missing.push((found.path, found.target, found.name.clone()));
            }
        });
        for (path, target, name) in missing {
            let kind = target.kind();
            problems.add(
                owner.at(&path),
                format!("there is no {kind} `{name}` in the manifest"),
                "everything that the VM needs: each run has its own namespace",
                format!("add a document with `kind: {kind}`"),
            );
        }
    }
}

/// The strategy that keeps the VM running; `running` is its older form.
fn run_strategy(vm: &mut Object, notes: &mut Vec<String>, problems: &mut Problems<'_>) -> String {
    let given = (
        vm.value["spec"]["running"].clone(),
        vm.value["spec"]["runStrategy"].clone(),
    );
    let bad = match &given {
        (Value::Null, Value::Null) => {
            Some(("spec", "neither `running` nor `runStrategy` is given"))
        }
        (Value::Null, Value::String(_)) | (Value::Bool(_), Value::Null) => None,
        (Value::Null, _) => Some(("spec/runStrategy", "`runStrategy` is not text")),
        (_, Value::Null) => Some(("spec/running", "`running` is not true or false")),
        _ => Some(("spec/running", "both `running` and `runStrategy` are given")),
    };
    if let Some((path, what)) = bad {
        let expected = "exactly one of them: KubeVirt refuses anything else";
        problems.add(vm.at(path), what, expected, "write `runStrategy: Always`");
    }
    let asked = given
        .1
        .as_str()
        .unwrap_or(if given.0 == true { "Always" } else { "Halted" });
    if let Some(spec) = vm.value["spec"].as_object_mut() {
        spec.remove("running");
    }
    if matches!(asked, "Always" | "RerunOnFailure") {
        return asked.to_owned();
    }
    notes.push(format!(
        "the VM is started with runStrategy Always instead of {asked}"
    ));
    "Always".to_owned()
}
