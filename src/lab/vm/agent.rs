//! What virt-handler learns from the guest agent: AgentConnected, the guest's description, and
//! whether its file systems are frozen. It asks on a schedule, so the object lags behind the guest.

use std::sync::Arc;

use serde_json::json;

use super::Guests;
use super::condition::{self, Condition, Times};
use super::domain::Domain;
use super::guest::AgentReport;
use super::keys::{VMI, phase};
use super::site::{Ctx, Work, seconds, settle};
use crate::lab::api::{Part, meta};
use crate::lab::faults::Fault;

/// Asks the agent of a guest and writes what it said. A simulated guest's agent is asked again only
/// when what it says is to change, a real one on and on, as virt-launcher does.
pub(super) fn report(ctx: &Ctx, uid: &str) {
    let Some(domain) = ctx.domain(uid).filter(|domain| !domain.ended()) else {
        return;
    };
    let Some(guest) = domain.guest() else {
        return;
    };
    let site = Arc::clone(ctx);
    ctx.tracker.spawn(async move {
        let said = if guest.agent() {
            guest.report().await
        } else {
            None
        };
        match said {
            Some(said) => write(&site, &domain, &said),
            None if domain.agent_seen(false) => gone(&site, &domain),
            None => {}
        }
        if matches!(site.guests, Guests::Real(_)) && !domain.ended() {
            ask_later(&site, &domain.uid);
        }
    });
}

/// The agent of a guest answers no more.
pub(super) fn gone(ctx: &Ctx, domain: &Domain) {
    let (namespace, name) = &domain.vmi;
    let written = ctx.store.modify(VMI, namespace, name, Part::Any, |vmi| {
        condition::remove(vmi, "AgentConnected");
    });
    settle("a guest's agent that went", written);
}

/// Writes what the agent said into the VMI.
fn write(ctx: &Ctx, domain: &Domain, said: &AgentReport) {
    domain.agent_seen(true);
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
