//! VirtualMachines, DataVolumes and PVCs.

use serde_json::Value;

use super::rules;
use crate::lint::claims::{self, Claim};
use crate::lint::finding::Severity;
use crate::lint::object::{Findings, Kind, Object, Set};

rules! {
    UUID = "vm-firmware-uuid" Warning
        "KubeVirt writes a random firmware UUID when a VM is created. One that Git creates again on the other site gets another: licences, inventories and cloud-init take it for a new machine."
        fix "Set `spec.template.spec.domain.firmware.uuid`."
        source "KubeVirt: VirtualMachine";
    NOCLOUD = "vm-nocloud-instance" Warning
        "The NoCloud instance id is the firmware UUID. With a new one cloud-init takes the replica for a new instance: new SSH host keys, and user-data runs again."
        fix "Set `spec.template.spec.domain.firmware.uuid`, or use ConfigDrive, whose instance id is name and namespace."
        source "KubeVirt: cloud-init";
    FORMATS = "vm-cloud-init-formats" Error
        "When cloud-init takes the replica for a new instance, `disk_setup`, `fs_setup` and `mkfs` run again, on replicated data."
        fix "Set the firmware UUID, and guard every format with a test for what is there."
        source "KubeVirt: cloud-init";
    MAC = "vm-mac-address" Note
        "Without `macAddress` the guest gets another one on the other site: DHCP reservations, udev names and licences change."
        fix "Set `macAddress` on the interface."
        source "KubeVirt: interfaces";
    BRIDGE = "vm-bridge-binding" Warning
        "A bridge to the pod network cannot be live-migrated, and it is the default: LiveMigratable False, InterfaceNotLiveMigratable."
        fix "Write `masquerade: {}`."
        source "KubeVirt: live migration";
    RWO = "vm-rwo-claim" Warning
        "A claim that is not ReadWriteMany cannot be live-migrated: LiveMigratable False, DisksNotLiveMigratable."
        fix "Take ReadWriteMany with volumeMode Block, where the storage has it."
        source "KubeVirt: live migration";
    HOST = "vm-host-bound" Warning
        "Host devices, GPUs and virtiofs tie the VM to its node, and `host-passthrough` to its CPU model: it cannot be live-migrated, and the other site must have the same."
        fix "Remove it, or plan for a restart on a site that has the hardware."
        source "KubeVirt: live migration";
    EVICTION = "vm-eviction-blocked" Error
        "A VM that must be migrated but cannot be is never evicted: the drain is answered with 429 for ever."
        fix "Make it migratable, or take LiveMigrateIfPossible."
        source "KubeVirt: evictionStrategy";
    EVICTION_UNSET = "vm-eviction-unset" Note
        "Without an evictionStrategy of VM or cluster a drain stops the guest instead of moving it."
        fix "Set `evictionStrategy: LiveMigrate`."
        source "KubeVirt: evictionStrategy";
    STATE = "vm-persistent-state" Warning
        "A persistent TPM or EFI keeps its state in a claim of its own, `persistent-state-for-VM-…`, which stands in no manifest. Without it the other site's guest asks for its recovery key."
        fix "Replicate it too: it carries the label `persistent-state-for: VM`."
        source "KubeVirt: backend storage";
    ALWAYS = "vm-starts-by-itself" Warning
        "A VM that should always run starts as soon as its claims resolve: applied on the other site, it boots before the promotion, or beside the original, and a stopped one is started again by whoever keeps the manifest."
        fix "Write `runStrategy: Manual` or `Halted` for the peer, and start it when the volumes are primary."
        source "KubeVirt: runStrategy";
    RUNNING = "vm-running-field" Warning
        "`running` is deprecated, and together with `runStrategy` the VM is refused."
        fix "Write `runStrategy` alone."
        source "KubeVirt: VirtualMachine";
    REIMPORT = "dv-reimport" Warning
        "A DataVolume that finds no claim yet makes a new one: it imports its source again or takes an empty volume, and the VM boots, looks healthy, and its data is gone. One that finds a claim is refused."
        fix "Annotate it with `cdi.kubevirt.io/allowClaimAdoption: \"true\"` or `cdi.kubevirt.io/storage.checkStaticVolume: \"true\"`, or name claims instead of templates on the other site."
        source "CDI: claim adoption; Ramen: how VMs are handled";
    ADOPTION = "dv-adoption-blind" Note
        "Adoption checks nothing about the content: whatever claim has the name is taken."
        fix "Apply the VM only after the replica's claim is bound, and look for a marker in the guest."
        source "CDI: claim adoption";
    COLLECTED = "dv-deleted-after-completion" Warning
        "CDI up to 1.61 deletes the DataVolume when it is done, so its claim belongs to the VM; later ones ignore the annotation. The two sites then differ in ownership."
        fix "Remove the annotation."
        source "CDI: garbage collection";
    HOTPLUG = "vm-hotplug-volume" Warning
        "A hotplugged volume is attached by a pod of its own and easily left out: its claim carries no label of the VM, and an ephemeral one is gone after a restart."
        fix "Label its claim like the others, and plug it in the VM's spec."
        source "KubeVirt: hotplug";
    EPHEMERAL = "vm-ephemeral-volume" Warning
        "emptyDisk, ephemeral and hostDisk volumes are not replicated: what the guest writes there stays behind, or is lost at every stop."
        fix "Keep data that matters on a claim."
        source "KubeVirt: volumes";
}

pub(super) fn check(set: &Set, out: &mut Findings) {
    let claims = claims::all(set);
    for vm in set.of(Kind::Vm) {
        identity(vm, out);
        strategy(set, vm, out);
        volumes(vm, out);
        let stuck = stuck(vm, &claims, out);
        eviction(vm, stuck, out);
    }
    for claim in &claims {
        data_volume(set, claim, out);
    }
}

const TEMPLATE: &str = "spec/template/spec";

fn identity(vm: &Object, out: &mut Findings) {
    if vm.get("spec/template").is_null() {
        return;
    }
    let domain = format!("{TEMPLATE}/domain");
    let uuid = vm.text(&format!("{domain}/firmware/uuid"));
    let mut volumes = vm.items(&format!("{TEMPLATE}/volumes"));
    let cloud = volumes.find(|(_, volume)| !volume["cloudInitNoCloud"].is_null());
    match (uuid, cloud) {
        (None, Some((path, volume))) => {
            out.add(
                NOCLOUD,
                vm,
                &path,
                "a VM that is created again is a new instance",
            );
            let data = volume["cloudInitNoCloud"]["userData"]
                .as_str()
                .unwrap_or_default();
            let word = ["disk_setup", "fs_setup", "mkfs"]
                .into_iter()
                .find(|word| data.contains(word));
            if let Some(word) = word {
                out.add(FORMATS, vm, &path, format!("`{word}` would run again"));
            }
        }
        (None, None) => out.add(UUID, vm, &domain, "there is no firmware UUID"),
        (Some(_), _) => {}
    }
    for (path, interface) in vm.items(&format!("{domain}/devices/interfaces")) {
        if interface["macAddress"].is_null() {
            out.add(MAC, vm, &path, "the interface has no MAC address");
        }
    }
}

fn strategy(set: &Set, vm: &Object, out: &mut Findings) {
    let running = vm.get("spec/running");
    if !running.is_null() {
        let both = !vm.get("spec/runStrategy").is_null();
        let severity = if both {
            Severity::Error
        } else {
            Severity::Warning
        };
        out.add_as(severity, RUNNING, vm, "spec/running", "`running` is set");
    }
    let replicated = set.any(&[Kind::Vrg, Kind::Drpc, Kind::Vr, Kind::Vgr]);
    for (path, always) in [
        (
            "spec/runStrategy",
            vm.text("spec/runStrategy") == Some("Always"),
        ),
        ("spec/running", running == true),
    ] {
        if always && replicated {
            out.add(
                ALWAYS,
                vm,
                path,
                "the VM always runs, and its volumes are replicated",
            );
        }
    }
}

fn volumes(vm: &Object, out: &mut Findings) {
    for (path, volume) in vm.items(&format!("{TEMPLATE}/volumes")) {
        let name = volume["name"].as_str().unwrap_or_default();
        for kind in ["emptyDisk", "ephemeral", "hostDisk"] {
            if !volume[kind].is_null() {
                out.add(
                    EPHEMERAL,
                    vm,
                    &path,
                    format!("the volume `{name}` is an {kind}"),
                );
            }
        }
        for kind in ["persistentVolumeClaim", "dataVolume"] {
            if volume[kind]["hotpluggable"] == true {
                out.add(
                    HOTPLUG,
                    vm,
                    &path,
                    format!("the volume `{name}` is hotplugged"),
                );
            }
        }
    }
    let domain = format!("{TEMPLATE}/domain");
    for (path, persistent) in [
        (format!("{domain}/devices/tpm"), "persistent"),
        (format!("{domain}/firmware/bootloader/efi"), "persistent"),
    ] {
        if vm.get(&path)[persistent] == true {
            out.add(
                STATE,
                vm,
                &path,
                "its state is kept in a claim that no manifest names",
            );
        }
    }
}

/// Reports what keeps a VM from being migrated, and whether there is anything.
fn stuck(vm: &Object, claims: &[Claim<'_>], out: &mut Findings) -> bool {
    let before = out.0.len();
    let domain = format!("{TEMPLATE}/domain");
    bridge(vm, &domain, out);
    for device in ["hostDevices", "gpus", "filesystems"] {
        let path = format!("{domain}/devices/{device}");
        if vm
            .get(&path)
            .as_array()
            .is_some_and(|list| !list.is_empty())
        {
            out.add(HOST, vm, &path, format!("the VM has {device}"));
        }
    }
    if vm.text(&format!("{domain}/cpu/model")) == Some("host-passthrough") {
        out.add(
            HOST,
            vm,
            &format!("{domain}/cpu/model"),
            "the VM has the node's CPU",
        );
    }
    for (path, volume) in vm.items(&format!("{TEMPLATE}/volumes")) {
        let Some(name) = claims::of_volume(volume) else {
            continue;
        };
        let own = |claim: &&Claim<'_>| claim.name == name && claim.object.beside(&vm.namespace);
        let Some(claim) = claims.iter().find(own) else {
            continue;
        };
        if !claim.modes.is_empty() && !claim.modes.contains(&"ReadWriteMany") {
            let what = format!("the claim `{name}` is {}", claim.modes.join(" and "));
            out.add(RWO, vm, &path, what);
        }
    }
    out.0.len() > before
}

fn bridge(vm: &Object, domain: &str, out: &mut Findings) {
    let allowed = vm.get("spec/template/metadata")["annotations"]["kubevirt.io/allow-pod-bridge-network-live-migration"]
        .is_string();
    if allowed || vm.get("spec/template").is_null() {
        return;
    }
    let networks = vm.get(&format!("{TEMPLATE}/networks")).as_array();
    let on_pod = |name: &Value| {
        networks.is_none_or(|list| {
            list.iter()
                .any(|network| network["name"] == *name && !network["pod"].is_null())
        })
    };
    let path = format!("{domain}/devices/interfaces");
    let detached = vm.get(&format!("{domain}/devices"))["autoattachPodInterface"] == false;
    match vm.get(&path).as_array() {
        None if !detached => out.add(
            BRIDGE,
            vm,
            domain,
            "without interfaces the VM has a bridge to the pod network",
        ),
        None => {}
        Some(_) => {
            for (path, interface) in vm.items(&path) {
                let bindings = [
                    "masquerade",
                    "sriov",
                    "binding",
                    "slirp",
                    "passt",
                    "passtBinding",
                    "macvtap",
                ];
                let bound = bindings.iter().any(|binding| !interface[binding].is_null());
                if !bound && on_pod(&interface["name"]) {
                    let what = format!(
                        "the interface {} is a bridge to the pod network",
                        interface["name"]
                    );
                    out.add(BRIDGE, vm, &path, what);
                }
            }
        }
    }
}

fn eviction(vm: &Object, stuck: bool, out: &mut Findings) {
    let path = format!("{TEMPLATE}/evictionStrategy");
    match vm.text(&path) {
        Some("LiveMigrate") if stuck => {
            out.add(EVICTION, vm, &path, "it must be migrated, and cannot be");
        }
        None if !vm.get("spec/template").is_null() => {
            out.add(EVICTION_UNSET, vm, TEMPLATE, "it has no evictionStrategy");
        }
        _ => {}
    }
}

fn data_volume(set: &Set, claim: &Claim<'_>, out: &mut Findings) {
    let Some(source) = claim.source else {
        return;
    };
    let annotated = |key: &str| claim.annotations[format!("cdi.kubevirt.io/{key}")].as_str();
    let adopts = annotated("allowClaimAdoption") == Some("true");
    let checks = annotated("storage.checkStaticVolume") == Some("true");
    let restored = annotated("storage.prePopulated").is_some();
    if annotated("storage.deleteAfterCompletion").is_some() {
        out.add(
            COLLECTED,
            claim.object,
            &claim.path,
            format!("`{}` may be deleted when it is done", claim.name),
        );
    }
    if adopts {
        out.add(
            ADOPTION,
            claim.object,
            &claim.path,
            format!("`{}` takes any claim of its name", claim.name),
        );
    }
    if !adopts && !checks && !restored {
        let from = source.as_object().and_then(|map| map.keys().next());
        let from = from.map_or("its source", String::as_str);
        let replicated = set.any(&[Kind::Vrg, Kind::Drpc, Kind::Vr, Kind::Vgr]);
        let severity = if replicated {
            Severity::Error
        } else {
            Severity::Warning
        };
        let what = format!(
            "`{}` is made anew from `{from}` where its claim is not there yet",
            claim.name
        );
        out.add_as(severity, REIMPORT, claim.object, &claim.path, what);
    }
}
