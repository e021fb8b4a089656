//! What the disks of a VM are: the one it boots from, those that carry a ledger, and the claims
//! behind them.

use serde_json::Value;

use super::claims::{Claim, claim_name, claims};
use super::manifest::{Manifest, Object};
use super::{FILESYSTEM_LABEL, LEDGER_LABEL};
use crate::plan::model::{FileSystem, LedgerKind, VolumeMode};
use crate::plan::problem::Problems;
use crate::plan::text::{format_quantity, quantity};

/// Where in a VM its disks and volumes are.
pub(super) const DISKS: &str = "/spec/template/spec/domain/devices/disks";
/// See [`DISKS`].
pub(super) const VOLUMES: &str = "/spec/template/spec/volumes";
/// Longest serial that a virtio disk shows.
const SERIAL: usize = 20;
/// Most ledger disks of one VM.
const MOST: usize = 16;
/// The smallest ledger disk.
const SMALLEST: u64 = 8 << 20;

/// A ledger disk by its names in the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Data {
    /// Volume and disk name.
    pub(super) volume: String,
    /// Claim name.
    pub(super) claim: String,
    /// Serial that the manifest gives.
    pub(super) serial: Option<String>,
    /// Volume mode; `None` when the StorageProfile decides.
    pub(super) mode: Option<VolumeMode>,
    /// How the ledger lies on it.
    pub(super) ledger: LedgerKind,
    /// The file system for a ledger that is a file.
    pub(super) filesystem: FileSystem,
}

/// The outcome of a survey.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Disks {
    /// The claim of the root disk; `None` when it is a container disk or a kernel boot.
    pub(super) root: Option<String>,
    /// All claims in volume order.
    pub(super) claims: Vec<String>,
    /// Ledger disks by ordinal.
    pub(super) data: Vec<Data>,
}

/// Surveys the disks of a manifest.
pub(super) fn survey(manifest: &Manifest, problems: &mut Problems<'_>) -> Disks {
    let mut survey = Survey {
        vm: &manifest.vm,
        claims: claims(manifest),
        problems,
    };
    survey.names();
    survey.unused();
    let disks = Disks {
        root: survey.root(),
        claims: survey
            .used()
            .into_iter()
            .map(|claim| claim.name.clone())
            .collect(),
        data: survey.data(),
    };
    survey.ledger_not_on_root(&disks);
    disks
}

/// A list in a document; empty when it is not there.
pub(super) fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value
        .pointer(pointer)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

struct Survey<'a, 'p, 't> {
    vm: &'a Object,
    claims: Vec<Claim<'a>>,
    problems: &'p mut Problems<'t>,
}

impl<'a> Survey<'a, '_, '_> {
    fn disks(&self) -> &'a [Value] {
        list(&self.vm.value, DISKS)
    }

    fn volumes(&self) -> &'a [Value] {
        list(&self.vm.value, VOLUMES)
    }

    fn volume(&self, name: &str) -> Option<&'a Value> {
        self.volumes().iter().find(|volume| volume["name"] == name)
    }

    fn claim_of(&self, volume: &Value) -> Option<&Claim<'a>> {
        let name = claim_name(volume)?;
        self.claims.iter().find(|claim| claim.name == name)
    }

    fn used(&self) -> Vec<&Claim<'a>> {
        self.volumes()
            .iter()
            .filter_map(|volume| self.claim_of(volume))
            .collect()
    }

    /// Names that KubeVirt itself would refuse, and disks without a volume.
    fn names(&mut self) {
        for (what, pointer, items) in [
            ("disk", DISKS, self.disks()),
            ("volume", VOLUMES, self.volumes()),
        ] {
            for (index, item) in items.iter().enumerate() {
                let at = self.vm.at(&format!("{pointer}/{index}/name"));
                let Some(name) = item["name"].as_str() else {
                    self.problems
                        .add(at, format!("a {what} has no name"), "text", "name it");
                    continue;
                };
                if items[..index].iter().any(|other| other["name"] == name) {
                    let what = format!("two {what}s are named `{name}`");
                    self.problems.add(at, what, "distinct names", "rename one");
                }
                if what == "disk" && self.volume(name).is_none() {
                    let expected: Vec<&str> = self
                        .volumes()
                        .iter()
                        .filter_map(|volume| volume["name"].as_str())
                        .collect();
                    self.problems.add(
                        at,
                        format!("the disk `{name}` has no volume"),
                        format!(
                            "a volume of the same name; there are {}",
                            expected.join(", ")
                        ),
                        crate::plan::problem::suggest(name, expected, "add the volume"),
                    );
                }
            }
        }
    }

    /// A claim that the VM does not use would be created, replicated and never looked at.
    fn unused(&mut self) {
        let used: Vec<&str> = self.volumes().iter().filter_map(claim_name).collect();
        for claim in self
            .claims
            .iter()
            .filter(|claim| !used.contains(&claim.name.as_str()))
        {
            self.problems.add(
                claim.at,
                format!("the VM does not use the volume `{}`", claim.name),
                "only volumes of the VM",
                "add it to the VM's `volumes` or remove it",
            );
        }
        for (index, claim) in self.claims.iter().enumerate() {
            if self.claims[..index]
                .iter()
                .any(|other| other.name == claim.name)
            {
                let what = format!("two objects make the claim `{}`", claim.name);
                self.problems.add(
                    claim.at,
                    what,
                    "one maker per claim",
                    "rename or remove one",
                );
            }
        }
    }

    /// The claim of the disk that the firmware will find bootable.
    fn root(&mut self) -> Option<String> {
        let mut order: Vec<(u64, &Value)> = self
            .disks()
            .iter()
            .map(|disk| (disk["bootOrder"].as_u64().unwrap_or(u64::MAX), disk))
            .collect();
        order.sort_by_key(|(order, disk)| (*order, disk["cdrom"].is_object()));
        for (_, disk) in order {
            let Some(volume) = disk["name"].as_str().and_then(|name| self.volume(name)) else {
                continue;
            };
            if volume["containerDisk"].is_object() || volume["ephemeral"].is_object() {
                return None;
            }
            match self.claim_of(volume) {
                Some(claim) if claim.has_content() => return Some(claim.name.clone()),
                _ => {}
            }
        }
        let kernel = "/spec/template/spec/domain/firmware/kernelBoot";
        if self.vm.value.pointer(kernel).is_none() {
            self.problems.add(
                self.vm.at(DISKS),
                "the VM has no disk to boot from",
                "a containerDisk, or a volume that is filled from a source (a DataVolume that is not \
                 blank, or a PVC with a dataSource)",
                "add a root disk; see docs/templates.md",
            );
        }
        None
    }

    fn data(&mut self) -> Vec<Data> {
        let mut found = Vec::new();
        let marked: Vec<Claim<'a>> = self
            .used()
            .into_iter()
            .filter(|claim| !claim.maker["metadata"]["labels"][LEDGER_LABEL].is_null())
            .cloned()
            .collect();
        for (index, disk) in self.disks().iter().enumerate() {
            let Some(volume) = disk["name"].as_str().and_then(|name| self.volume(name)) else {
                continue;
            };
            let Some(claim) = marked
                .iter()
                .find(|claim| claim_name(volume) == Some(&claim.name))
            else {
                continue;
            };
            let ledger = self.ledger(claim);
            let filesystem = self.filesystem(claim, ledger);
            let smallest = match ledger {
                LedgerKind::Raw => SMALLEST,
                LedgerKind::File => filesystem.smallest(),
            };
            self.size(claim, smallest);
            self.device(index, disk);
            found.push(Data {
                volume: disk["name"].as_str().unwrap_or_default().to_owned(),
                claim: claim.name.clone(),
                serial: disk["serial"].as_str().map(ToOwned::to_owned),
                mode: claim.volume_mode(),
                ledger,
                filesystem,
            });
        }
        for claim in &marked {
            if !found.iter().any(|data| data.claim == claim.name) {
                let what = format!("the ledger volume `{}` is no disk of the VM", claim.name);
                let fix = "use it as a disk or remove the label";
                self.problems
                    .add(claim.at, what, "a disk, not a shared file system", fix);
            }
        }
        self.serials(&found);
        found
    }

    fn ledger(&mut self, claim: &Claim<'_>) -> LedgerKind {
        match claim.ledger() {
            Some("raw") => LedgerKind::Raw,
            Some("file") => LedgerKind::File,
            other => {
                let found = other.unwrap_or("not text");
                let what = format!("the label `{LEDGER_LABEL}` is `{found}`");
                self.problems
                    .add(claim.at, what, "`raw` or `file`", "correct the label");
                LedgerKind::Raw
            }
        }
    }

    fn filesystem(&mut self, claim: &Claim<'_>, ledger: LedgerKind) -> FileSystem {
        let label = claim.filesystem();
        match (label.as_str(), ledger) {
            (None, _) if label.is_null() => FileSystem::default(),
            (Some("ext4"), LedgerKind::File) => FileSystem::Ext4,
            (Some("xfs"), LedgerKind::File) => FileSystem::Xfs,
            (found, _) => {
                let found = found.unwrap_or("not text");
                let what = format!("the label `{FILESYSTEM_LABEL}` is `{found}`");
                let expected = format!("`ext4` or `xfs`, beside `{LEDGER_LABEL}: file`");
                self.problems
                    .add(claim.at, what, expected, "correct or remove the label");
                FileSystem::default()
            }
        }
    }

    fn size(&mut self, claim: &Claim<'_>, smallest: u64) {
        let size = &claim.request()["resources"]["requests"]["storage"];
        let read = match size {
            Value::String(text) => quantity(text),
            Value::Number(number) => quantity(&number.to_string()),
            _ => Err("it has no `resources.requests.storage`".to_owned()),
        };
        match read {
            Ok(bytes) if bytes >= smallest => {}
            Ok(_) => {
                let what = format!("the ledger volume `{}` is too small", claim.name);
                let expected = format!("at least {}", format_quantity(smallest));
                self.problems
                    .add(claim.at, what, expected, "make it larger");
            }
            Err(why) => {
                let what = format!("the size of the ledger volume `{}`: {why}", claim.name);
                self.problems.add(
                    claim.at,
                    what,
                    "a quantity such as `2Gi`",
                    "correct the size",
                );
            }
        }
    }

    /// The probe finds its disks by virtio serial.
    fn device(&mut self, index: usize, disk: &Value) {
        let at = self.vm.at(&format!("{DISKS}/{index}"));
        let name = disk["name"].as_str().unwrap_or_default();
        let bus = disk["disk"]["bus"].as_str().unwrap_or("virtio");
        if disk["cdrom"].is_object() || disk["lun"].is_object() || bus != "virtio" {
            self.problems.add(
                at,
                format!("the ledger disk `{name}` is not a virtio disk"),
                "`disk: {bus: virtio}`: its serial is how it is found in the guest",
                "change the bus or remove the ledger label from its volume",
            );
        }
        if disk["disk"]["readonly"] == true || disk["shareable"] == true {
            let what = format!("the ledger disk `{name}` is read-only or shareable");
            let fix = "remove the flag or the ledger label";
            self.problems
                .add(at, what, "a disk that one guest writes", fix);
        }
        if let Some(serial) = disk["serial"].as_str()
            && (serial.is_empty() || serial.len() > SERIAL || !serial.bytes().all(is_serial))
        {
            let what = format!("the serial `{serial}` of the ledger disk `{name}` cannot be used");
            let expected = format!("1 to {SERIAL} letters, digits, `-` and `_`");
            self.problems
                .add(at, what, expected, "shorten it or leave it out");
        }
    }

    fn serials(&mut self, data: &[Data]) {
        for (index, disk) in data.iter().enumerate() {
            let twice = |other: &Data| other.serial.is_some() && other.serial == disk.serial;
            if data[..index].iter().any(twice) {
                let what = format!(
                    "the ledger disk `{}` has the serial of another",
                    disk.volume
                );
                self.problems.add(
                    self.vm.at(DISKS),
                    what,
                    "distinct serials",
                    "leave them out",
                );
            }
        }
        if data.len() > MOST {
            let what = format!("there are {} ledger disks", data.len());
            self.problems.add(
                self.vm.at(DISKS),
                what,
                format!("at most {MOST}"),
                "mark fewer",
            );
        }
    }

    fn ledger_not_on_root(&mut self, disks: &Disks) {
        if let Some(root) = &disks.root
            && disks.data.iter().any(|data| data.claim == *root)
        {
            self.problems.add(
                self.vm.at(DISKS),
                format!("the root volume `{root}` is marked for the ledger"),
                "the ledger on other volumes: it would overwrite the system",
                format!("remove the label `{LEDGER_LABEL}` from it"),
            );
        }
    }
}

const fn is_serial(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}
