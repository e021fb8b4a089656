//! What virt-handler learns from the guest agent: AgentConnected, the guest's description, and
//! whether its file systems are frozen. It asks on a schedule, so the object lags behind the guest.

use serde_json::{Value, json};

use super::condition::{self, Condition, Times};
use super::domain::Domain;
use super::keys::{VMI, phase};
use super::site::{Ctx, Work, seconds, settle};
use crate::lab::api::{Part, meta};
use crate::lab::faults::Fault;

/// The agent of a guest was asked; writes what it said and, while it answers, asks again only when
/// the frozen state is to change.
pub(super) fn report(ctx: &Ctx, uid: &str) {
    let Some(domain) = ctx.domain(uid).filter(|domain| !domain.ended()) else {
        return;
    };
    let Some(guest) = domain.guest().filter(|guest| guest.agent()) else {
        return;
    };
    domain.agent_up();
    let (namespace, name) = &domain.vmi;
    let frozen = guest.freezer().frozen();
    let about = os_info(&domain);
    let written = ctx.store.modify(VMI, namespace, name, Part::Any, |vmi| {
        if phase(vmi) != "Running" || meta::uid(vmi) != uid {
            return;
        }
        condition::set(
            vmi,
            &Condition {
                kind: "AgentConnected",
                status: true,
                reason: "",
                message: "",
                times: Times::Both,
            },
        );
        vmi["status"]["guestOSInfo"] = about.clone();
        if let Some(first) = vmi.pointer_mut("/status/interfaces/0") {
            first["infoSource"] = json!("domain, guest-agent");
            first["interfaceName"] = json!("eth0");
        }
        if let Some(status) = vmi["status"].as_object_mut() {
            if frozen {
                status.insert("fsFreezeStatus".to_owned(), json!("frozen"));
            } else {
                status.shift_remove("fsFreezeStatus");
            }
        }
    });
    settle("what the guest agent said", written);
}

/// Asks the agent of a guest once more, as late as the polling interval makes it.
pub(super) fn ask_later(ctx: &Ctx, uid: &str) {
    let slow = seconds(ctx, Fault::AgentSlow).unwrap_or_default();
    let lag = ctx.timing.agent_lag + slow;
    ctx.after(lag, Work::AgentUp(uid.to_owned()));
}

/// `status.guestOSInfo` of a VMI.
pub(super) fn os_info(domain: &Domain) -> Value {
    let Some(guest) = domain.guest() else {
        return json!({});
    };
    let Some(os) = guest.os() else {
        return json!({});
    };
    json!({
        "id": os.id,
        "name": os.id,
        "prettyName": format!("{} (lab)", os.id),
        "kernelRelease": crate::lab::guest::KERNEL,
        "machine": os.arch,
        "version": "1",
        "versionId": "1",
    })
}
