//! What virt-handler learns from the guest agent: AgentConnected, the guest's description, and
//! whether its file systems are frozen. It asks on a schedule, so the object lags behind the guest.

use std::sync::Arc;

use serde_json::json;

use super::condition::{self, Condition, Times};
use super::domain::Domain;
use super::guest::AgentReport;
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
    let site = Arc::clone(ctx);
    ctx.tracker.spawn(async move {
        if let Some(said) = guest.report().await {
            write(&site, &domain, &said);
        }
    });
}

/// Writes what the agent said into the VMI.
fn write(ctx: &Ctx, domain: &Domain, said: &AgentReport) {
    domain.agent_up();
    let (namespace, name) = &domain.vmi;
    let written = ctx.store.modify(VMI, namespace, name, Part::Any, |vmi| {
        if phase(vmi) != "Running" || meta::uid(vmi) != domain.uid {
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
        vmi["status"]["guestOSInfo"] = said.os.clone();
        if let Some(first) = vmi.pointer_mut("/status/interfaces/0")
            && let Some(interface) = &said.interface
        {
            first["infoSource"] = json!("domain, guest-agent");
            first["interfaceName"] = json!(interface);
        }
        if let Some(status) = vmi["status"].as_object_mut() {
            if said.frozen {
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
