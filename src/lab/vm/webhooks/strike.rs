//! Faults of the admission chain on the target: what others that stand in it make of a VM.

use serde_json::{Value, json};

use crate::lab::faults::{Board, Fault};

const DOMAIN: &str = "/spec/template/spec/domain";

/// Changes a VM that is being made on the target, as the planted faults say.
pub(super) fn machine(board: &Board, vm: &mut Value) {
    let Some(domain) = vm.pointer_mut(DOMAIN) else {
        return;
    };
    if board.armed(Fault::MacChanged) {
        other_macs(domain);
    }
    if board.armed(Fault::FirmwareUuidChanged)
        && let Some(firmware) = domain.get_mut("firmware").and_then(Value::as_object_mut)
    {
        // What is missing is drawn anew by virt-api.
        firmware.shift_remove("uuid");
    }
    if board.armed(Fault::DiskOrderChanged) {
        other_order(domain);
    }
}

/// A MAC pool gives out addresses of its own range, whatever was asked for.
fn other_macs(domain: &mut Value) {
    let interfaces = domain.pointer_mut("/devices/interfaces");
    let interfaces = interfaces.and_then(Value::as_array_mut);
    for (index, interface) in (1..=u8::MAX).zip(interfaces.into_iter().flatten()) {
        interface["macAddress"] = json!(format!("02:60:05:00:00:{index:02x}"));
    }
}

/// The last two disks that carry a serial, which are data disks, change places.
fn other_order(domain: &mut Value) {
    let disks = domain.pointer_mut("/devices/disks");
    let Some(disks) = disks.and_then(Value::as_array_mut) else {
        return;
    };
    let data: Vec<usize> = (0..disks.len())
        .filter(|at| disks[*at].get("serial").is_some())
        .collect();
    if let [.., first, second] = data.as_slice() {
        disks.swap(*first, *second);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn struck(fault: &str) -> Value {
        let board = Board::default();
        board.put(crate::lab::faults::parse(fault).unwrap());
        let mut vm = json!({"spec": {"template": {"spec": {"domain": {
            "firmware": {"uuid": "u", "serial": "s"},
            "devices": {
                "disks": [{"name": "root"}, {"name": "a", "serial": "1"}, {"name": "b", "serial": "2"}],
                "interfaces": [{"name": "default", "macAddress": "02:00:00:00:00:01"}],
            },
        }}}}});
        machine(&board, &mut vm);
        vm.pointer(DOMAIN).unwrap().clone()
    }

    #[test]
    fn each_fault_changes_what_it_says_and_nothing_else() {
        let whole = struck("wrong-guest");
        let changed = |fault: &str, part: &str, to: &Value| {
            let mut domain = struck(fault);
            assert_eq!(domain.pointer(part), Some(to), "{fault}");
            *domain.pointer_mut(part).unwrap() = whole.pointer(part).unwrap().clone();
            assert_eq!(domain, whole, "{fault}");
        };
        let mac = json!("02:60:05:00:00:01");
        changed("mac-changed", "/devices/interfaces/0/macAddress", &mac);
        let firmware = json!({"serial": "s"});
        changed("firmware-uuid-changed", "/firmware", &firmware);
        let order =
            json!([{"name": "root"}, {"name": "b", "serial": "2"}, {"name": "a", "serial": "1"}]);
        changed("disk-order-changed", "/devices/disks", &order);
    }
}
