//! The scheduler: which node a launcher pod runs on, and what keeps it from being scheduled.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::condition::{self, Condition, Times};
use super::keys::{POD, PV, PVC, UNPAUSED, claim_of, items, phase};
use super::migration;
use super::site::{Ctx, Work, key, settle};
use crate::lab::api::{ApiError, Part, meta};
use crate::lab::world;

/// Memory that a node has for guests.
const NODE_MEMORY: u64 = 512 << 30;

/// A quantity in bytes; one that does not parse is nothing.
pub(super) fn bytes(quantity: &Value) -> u64 {
    let text = quantity.as_str().unwrap_or("0");
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let number: u64 = text[..digits].parse().unwrap_or(0);
    let scale = match &text[digits..] {
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        _ => 1,
    };
    number.saturating_mul(scale)
}

/// The node with the fewest live launchers that fits the selector, other than those in `avoid`; or
/// what is wrong with the nodes, in the scheduler's words. Pods that ended take no room.
fn pick(ctx: &Ctx, pod: &Value, avoid: &str) -> Result<String, String> {
    let busy = ctx.store.list(POD, None);
    let load = |node: &str| {
        busy.iter()
            .filter(|pod| !matches!(phase(pod), "Succeeded" | "Failed"))
            .filter(|pod| meta::text(pod, "/spec/nodeName") == node)
            .count()
    };
    let mut fitting: Vec<(usize, String)> = Vec::new();
    let mut others: BTreeMap<&str, usize> = BTreeMap::new();
    for node in &ctx.store.list("nodes", None) {
        let name = meta::name(node);
        match unfit(pod, node, avoid) {
            None => fitting.push((load(name), name.to_owned())),
            Some(why) => *others.entry(why).or_default() += 1,
        }
    }
    fitting.sort();
    fitting.into_iter().next().map_or_else(
        || {
            let others = others.iter().map(|(why, nodes)| format!("{nodes} {why}"));
            Err(others.collect::<Vec<_>>().join(", "))
        },
        |(_, node)| Ok(node),
    )
}

/// Why a pod cannot run on a node, or `None`.
fn unfit(pod: &Value, node: &Value, avoid: &str) -> Option<&'static str> {
    let wanted = pod.pointer("/spec/nodeSelector").and_then(Value::as_object);
    let mut wanted = wanted.into_iter().flatten();
    if node.pointer("/spec/unschedulable") == Some(&Value::Bool(true)) {
        Some("node(s) were unschedulable")
    } else if !wanted.all(|(key, value)| meta::label(node, key) == value.as_str()) {
        Some("node(s) didn't match Pod's node affinity/selector")
    } else if meta::name(node) == avoid {
        Some("node(s) didn't match pod anti-affinity rules")
    } else {
        None
    }
}

/// Gives a launcher pod a node, or says in its status why there is none.
pub(super) fn schedule(ctx: &Ctx, pod: &Arc<Value>) -> Result<(), ApiError> {
    let (namespace, name) = key(pod);
    let memory = bytes(&pod["spec"]["containers"][0]["resources"]["requests"]["memory"]);
    let avoid = meta::annotation(pod, migration::AVOID).unwrap_or_default();
    let total = world::NODES;
    let choice = if memory > NODE_MEMORY {
        Err(format!("{total} Insufficient memory"))
    } else {
        pick(ctx, pod, avoid)
    };
    let claims: Vec<&str> = items(pod, "/spec/volumes")
        .iter()
        .filter_map(claim_of)
        .collect();
    let choice = choice.and_then(|node| match bound(ctx, &namespace, &claims, &node) {
        None => Ok(node),
        Some(why) => Err(why),
    });
    let node = match choice {
        Ok(node) => node,
        Err(why) => {
            let text = format!(
                "0/{total} nodes are available: {why}. preemption: 0/{total} nodes are available: \
                 {total} Preemption is not helpful for scheduling."
            );
            ctx.store
                .modify(POD, &namespace, &name, Part::Status, |pod| {
                    condition::set(
                        pod,
                        &Condition {
                            kind: "PodScheduled",
                            status: false,
                            reason: "Unschedulable",
                            message: &text,
                            times: Times::Transition,
                        },
                    );
                })?;
            ctx.event(
                pod,
                "Warning",
                "FailedScheduling",
                &text,
                "default-scheduler",
            );
            return Ok(());
        }
    };
    let text = format!("Successfully assigned {namespace}/{name} to {node}");
    ctx.event(pod, "Normal", "Scheduled", &text, "default-scheduler");
    ctx.store.modify(POD, &namespace, &name, Part::Any, |pod| {
        pod["spec"]["nodeName"] = json!(node);
        assigned(pod, &node);
    })?;
    ctx.after(ctx.timing.pod_start, Work::PodStarted(key(pod)));
    Ok(())
}

fn assigned(pod: &mut Value, node: &str) {
    let address = world::all_nodes()
        .into_iter()
        .find(|(name, _)| name == node);
    if let Some((_, ip)) = address {
        pod["status"]["hostIP"] = json!(ip.to_string());
    }
    pod["status"]["startTime"] = json!(meta::now());
    for (kind, status, reason, message) in [
        ("PodScheduled", true, "", ""),
        (
            UNPAUSED,
            true,
            "NotPaused",
            "the virtual machine is not paused",
        ),
        (
            "Initialized",
            false,
            "ContainersNotInitialized",
            "containers with incomplete status",
        ),
        (
            "Ready",
            false,
            "ContainersNotReady",
            "containers with unready status: [compute]",
        ),
        (
            "ContainersReady",
            false,
            "ContainersNotReady",
            "containers with unready status: [compute]",
        ),
    ] {
        condition::set(
            pod,
            &Condition {
                kind,
                status,
                reason,
                message,
                times: Times::Transition,
            },
        );
    }
}

/// Why the claims of a pod keep it from being scheduled, or `None`. Claims that wait for a consumer
/// learn their node on the way.
fn bound(ctx: &Ctx, namespace: &str, claims: &[&str], node: &str) -> Option<String> {
    let mut why = None;
    for claim in claims {
        match ctx.store.get(PVC, namespace, claim) {
            None => why = Some(format!("persistentvolumeclaim \"{claim}\" not found")),
            Some(pvc) if phase(&pvc) == "Bound" => {}
            Some(_) => {
                choose_node(ctx, namespace, claim, node);
                why = Some("pod has unbound immediate PersistentVolumeClaims".to_owned());
            }
        }
    }
    why
}

pub(super) fn choose_node(ctx: &Ctx, namespace: &str, claim: &str, node: &str) {
    let annotation = "volume.kubernetes.io/selected-node";
    let chosen = ctx
        .store
        .modify(PVC, namespace, claim, Part::Object, |pvc| {
            if meta::annotation(pvc, annotation).is_none() {
                pvc["metadata"]["annotations"][annotation] = json!(node);
            }
        });
    settle("choosing a node for a claim", chosen);
}

/// Gives a claim that waits for its first consumer a node.
pub(super) fn select_node(ctx: &Ctx, namespace: &str, claim: &str) {
    if let Some(node) = world::nodes(ctx.site).first() {
        choose_node(ctx, namespace, claim, node);
    }
}

/// The array handle behind a claim.
pub(super) fn handle_of(ctx: &Ctx, namespace: &str, claim: &str) -> Option<String> {
    let pvc = ctx.store.get(PVC, namespace, claim)?;
    let pv = ctx
        .store
        .get(PV, "", meta::text(&pvc, "/spec/volumeName"))?;
    match meta::text(&pv, "/spec/csi/volumeHandle") {
        "" => None,
        handle => Some(handle.to_owned()),
    }
}
