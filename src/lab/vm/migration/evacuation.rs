//! The evacuation controller: a VMI whose launcher somebody wants to evict is migrated instead.

use serde_json::{Value, json};

use crate::lab::api::{ApiError, meta};
use crate::lab::faults::Fault;
use crate::lab::vm::condition::{self, Condition, Times};
use crate::lab::vm::keys::{MIGRATION_FINALIZER, VMIM};
use crate::lab::vm::site::{Ctx, key};
use crate::lab::vm::{vmi, webhooks};

/// A VMI that is marked for evacuation from its node gets a migration of its own, unless its
/// strategy leaves that to somebody else.
pub(in crate::lab::vm) fn evacuate(ctx: &Ctx, vmi: &Value) -> Result<(), ApiError> {
    let node = meta::text(vmi, "/status/evacuationNodeName");
    if node.is_empty() || node != meta::text(vmi, "/status/nodeName") {
        return Ok(());
    }
    let strategy = meta::text(vmi, "/spec/evictionStrategy");
    if !matches!(strategy, "LiveMigrate" | "LiveMigrateIfPossible")
        || ctx.board.armed(Fault::EvacuationNeverComes)
    {
        return Ok(());
    }
    vmi::modify(ctx, vmi, |vmi| {
        condition::set(
            vmi,
            &Condition {
                kind: "EvictionRequested",
                status: true,
                reason: "EvictionRequested",
                message: "VMI is marked for eviction",
                times: Times::Both,
            },
        );
    })?;
    let (namespace, name) = key(vmi);
    if webhooks::refusal(&ctx.store, &namespace, &name).is_some() {
        return Ok(());
    }
    let job = ctx.store.create(
        VMIM,
        json!({
            "apiVersion": "kubevirt.io/v1",
            "kind": "VirtualMachineInstanceMigration",
            "metadata": {
                "generateName": "kubevirt-evacuation-",
                "namespace": namespace,
                "labels": {"kubevirt.io/vmi-name": name},
                "annotations": {"kubevirt.io/evacuationMigration": node},
                "finalizers": [MIGRATION_FINALIZER],
            },
            "spec": {"vmiName": name},
        }),
    )?;
    let text = format!("Created Migration {}", meta::name(&job));
    ctx.event(
        vmi,
        "Normal",
        "SuccessfulCreate",
        &text,
        "evacuation-controller",
    );
    Ok(())
}
