//! The validation rules of virt-api's webhooks, as pure functions from a spec to its causes. Wording
//! and order are those of the recorded refusals.

use serde_json::{Map, Value};

use crate::lab::api::Cause;
use crate::lab::vm::keys::items;

const BUSES: [&str; 4] = ["virtio", "scsi", "sata", "usb"];
const MODELS: [&str; 7] = [
    "e1000", "e1000e", "igb", "ne2k_pci", "pcnet", "rtl8139", "virtio",
];
const EVICTION: [&str; 4] = ["None", "LiveMigrate", "LiveMigrateIfPossible", "External"];
const STRATEGIES: [&str; 6] = [
    "Always",
    "Halted",
    "Manual",
    "RerunOnFailure",
    "Once",
    "WaitAsReceiver",
];

/// What is wrong with a VirtualMachine.
pub(super) fn machine(vm: &Value) -> Vec<Cause> {
    let spec = &vm["spec"];
    let mut causes = instance("spec.template.spec", &spec["template"]["spec"]);
    let volumes = items(spec, "/template/spec/volumes");
    for (at, template) in items(spec, "/dataVolumeTemplates").iter().enumerate() {
        let name = &template["metadata"]["name"];
        let used = volumes.iter().any(|volume| {
            volume.pointer("/dataVolume/name") == Some(name)
                || volume.pointer("/persistentVolumeClaim/claimName") == Some(name)
        });
        if !used {
            let field = format!("spec.dataVolumeTemplate[{at}]");
            let text = format!(
                "DataVolumeTemplate entry {field} must be referenced in the VMI template's 'volumes' list"
            );
            causes.push(Cause::new("FieldValueRequired", field, text));
        }
    }
    causes.extend(strategy(spec));
    causes
}

fn strategy(spec: &Value) -> Option<Cause> {
    let running = spec.get("running").filter(|value| !value.is_null());
    match (running, spec["runStrategy"].as_str()) {
        (Some(_), Some(_)) => Some(invalid(
            "spec.running".to_owned(),
            "Running and RunStrategy are mutually exclusive. Note that Running is deprecated, please \
             use RunStrategy instead"
                .to_owned(),
        )),
        (None, None) => Some(invalid(
            "spec.running".to_owned(),
            "RunStrategy must be specified".to_owned(),
        )),
        (None, Some(strategy)) if !STRATEGIES.contains(&strategy) => Some(invalid(
            "spec.runStrategy".to_owned(),
            format!("Invalid RunStrategy ({strategy})"),
        )),
        _ => None,
    }
}

/// What is wrong with a VMI spec that stands at `at`.
pub(super) fn instance(at: &str, spec: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let disks = items(spec, "/domain/devices/disks");
    let volumes = items(spec, "/volumes");
    let disks_at = format!("{at}.domain.devices.disks");
    causes.extend(duplicates(&disks_at, disks));
    for (n, disk) in disks.iter().enumerate() {
        let name = disk["name"].as_str().unwrap_or_default();
        if !volumes.iter().any(|volume| volume["name"] == name) {
            causes.push(invalid(
                format!("{disks_at}[{n}].name"),
                format!("{disks_at}[{n}].Name '{name}' not found."),
            ));
        }
    }
    for (n, disk) in disks.iter().enumerate() {
        causes.extend(bus(&format!("{disks_at}[{n}]"), disk));
    }
    let volumes_at = format!("{at}.volumes");
    causes.extend(duplicates(&volumes_at, volumes));
    for (n, volume) in volumes.iter().enumerate() {
        let sources = volume
            .as_object()
            .map_or(0, |volume| volume.len().saturating_sub(1));
        if sources != 1 {
            causes.push(invalid(
                format!("{volumes_at}[{n}]"),
                format!("{volumes_at}[{n}] must have exactly one source type set"),
            ));
        }
    }
    causes.extend(networks(at, spec));
    if let Some(strategy) = spec["evictionStrategy"].as_str()
        && !EVICTION.contains(&strategy)
    {
        let field = format!("{at}.evictionStrategy");
        let text = format!("{field} is set with an unrecognized option: {strategy}");
        causes.push(invalid(field, text));
    }
    causes
}

fn duplicates(at: &str, entries: &[Value]) -> Vec<Cause> {
    let mut causes = Vec::new();
    for (n, entry) in entries.iter().enumerate() {
        let twin = entries[..n]
            .iter()
            .position(|before| before["name"] == entry["name"]);
        if let Some(twin) = twin {
            causes.push(invalid(
                format!("{at}[{n}].name"),
                format!("{at}[{n}] and {at}[{twin}] must not have the same Name."),
            ));
        }
    }
    causes
}

fn bus(at: &str, disk: &Value) -> Option<Cause> {
    let device = ["disk", "cdrom", "lun"]
        .into_iter()
        .find(|device| disk.get(device).is_some())?;
    let bus = disk[device]["bus"].as_str().filter(|bus| !bus.is_empty())?;
    if BUSES.contains(&bus) {
        return None;
    }
    Some(invalid(
        format!("{at}.{device}.bus"),
        format!(
            "{at} is set with an unrecognized bus {bus}, must be one of: [{}]",
            BUSES.join(" ")
        ),
    ))
}

fn networks(at: &str, spec: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let networks = items(spec, "/networks");
    let interfaces = items(spec, "/domain/devices/interfaces");
    for (n, interface) in interfaces.iter().enumerate() {
        let field = format!("{at}.domain.devices.interfaces[{n}]");
        let name = interface["name"].as_str().unwrap_or_default();
        let network = networks.iter().find(|network| network["name"] == name);
        let on_pod = network.is_some_and(|network| network.get("pod").is_some());
        if interface.get("masquerade").is_some() && !on_pod && !spec["networks"].is_null() {
            causes.push(invalid(
                format!("{field}.name"),
                "Masquerade interface only implemented with pod network".to_owned(),
            ));
        }
        if network.is_none() && !spec["networks"].is_null() {
            causes.push(invalid(
                format!("{field}.name"),
                format!("{field}.name '{name}' not found."),
            ));
        }
        if let Some(model) = interface["model"].as_str()
            && !MODELS.contains(&model)
        {
            causes.push(Cause::new(
                "FieldValueNotSupported",
                format!("{field}.model"),
                format!("interface {field}.name uses model {model} that is not supported."),
            ));
        }
    }
    causes
}

fn invalid(field: String, message: String) -> Cause {
    Cause::new("FieldValueInvalid", field, message)
}

/// Whether every quantity under `resources` and `memory` parses; what the mutating webhook says if
/// not. It decodes the object before anything else looks at it.
pub(super) fn quantities(spec: &Value) -> bool {
    let domain = &spec["domain"];
    let resources = ["requests", "limits"]
        .into_iter()
        .filter_map(|side| domain["resources"][side].as_object())
        .flat_map(Map::values);
    resources
        .chain(domain.pointer("/memory/guest"))
        .filter_map(Value::as_str)
        .all(quantity)
}

/// A Kubernetes quantity: digits, then a decimal or binary suffix or an exponent.
fn quantity(text: &str) -> bool {
    const SUFFIXES: [&str; 17] = [
        "", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei", "K",
    ];
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let digits = unsigned
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(digits);
    let exponent = suffix
        .strip_prefix(['e', 'E'])
        .is_some_and(|power| power.parse::<i32>().is_ok());
    number.chars().any(|c| c.is_ascii_digit())
        && number.matches('.').count() <= 1
        && (exponent || SUFFIXES.contains(&suffix))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn base() -> Value {
        json!({"spec": {"runStrategy": "Halted", "template": {"spec": {
            "domain": {"devices": {
                "disks": [{"name": "root", "disk": {"bus": "virtio"}}],
                "interfaces": [{"name": "default", "masquerade": {}}]}},
            "networks": [{"name": "default", "pod": {}}],
            "volumes": [{"name": "root", "containerDisk": {"image": "i"}}]}}}})
    }

    fn fields(vm: &Value) -> Vec<String> {
        machine(vm).into_iter().map(|cause| cause.field).collect()
    }

    #[test]
    fn a_whole_vm_passes() {
        assert_eq!(machine(&base()), []);
    }

    #[test]
    fn each_rule_names_its_field() {
        for (pointer, value, want) in [
            ("/spec/runStrategy", json!("Sometimes"), "spec.runStrategy"),
            (
                "/spec/template/spec/volumes/0",
                json!({"name": "root"}),
                "spec.template.spec.volumes[0]",
            ),
            (
                "/spec/template/spec/domain/devices/disks/0/disk/bus",
                json!("floppy"),
                "spec.template.spec.domain.devices.disks[0].disk.bus",
            ),
            (
                "/spec/template/spec/volumes/0/name",
                json!("other"),
                "spec.template.spec.domain.devices.disks[0].name",
            ),
        ] {
            let mut vm = base();
            *vm.pointer_mut(pointer).unwrap() = value;
            assert_eq!(fields(&vm), [want]);
        }
    }

    #[test]
    fn an_interface_without_network_has_two_causes() {
        let mut vm = base();
        vm["spec"]["template"]["spec"]["networks"] = json!([]);
        let field = "spec.template.spec.domain.devices.interfaces[0].name";
        assert_eq!(fields(&vm), [field, field]);
    }

    #[test]
    fn quantities_are_decimal_or_binary() {
        for (text, good) in [
            ("128Mi", true),
            ("0", true),
            ("1.5G", true),
            ("1e3", true),
            ("-1", true),
            ("lots", false),
            ("1Mib", false),
            ("1.2.3", false),
            ("", false),
        ] {
            assert_eq!(quantity(text), good, "{text}");
        }
    }
}
