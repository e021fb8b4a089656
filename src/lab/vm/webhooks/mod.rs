//! virt-api's admission webhooks.
//!
//! Contract: refuses what the recorded servers refuse, in their words, and fills in what they fill
//! in. Controllers write through the store and are not asked.

mod defaults;
mod rules;
mod snapshots;
mod strike;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::condition;
use super::keys::{VM, VMI, VMIM, is_final};
use super::snapshot::{CLONE, RESTORE, SNAPSHOT};
use crate::history::event::Site;
use crate::lab::api::{Admission, ApiError, Cause, Operation, Part, Review, meta};
use crate::lab::faults::{Board, Fault};

/// The webhooks of one site.
#[derive(Debug)]
pub struct Webhooks {
    seed: u64,
    drawn: AtomicU64,
    /// Where faults are planted that strike machines, on the site where they do.
    board: Option<Arc<Board>>,
    /// Where faults are planted that strike evictions.
    evictions: Option<Arc<Board>>,
}

impl Webhooks {
    /// Webhooks whose generated UUIDs follow from `seed`.
    pub const fn new(seed: u64) -> Self {
        Self {
            seed,
            drawn: AtomicU64::new(0),
            board: None,
            evictions: None,
        }
    }

    /// The same with what else stands in the admission chain of a site: on the primary, nothing that
    /// changes a machine.
    #[must_use]
    pub fn with_faults(mut self, site: Site, board: &Arc<Board>) -> Self {
        self.board = (site == Site::Secondary).then(|| Arc::clone(board));
        self.evictions = Some(Arc::clone(board));
        self
    }

    /// Fault `eviction-kills`: nobody stands between an eviction and its launcher.
    fn lets_evict(&self) -> bool {
        let board = self.evictions.as_ref();
        board.is_some_and(|board| board.armed(Fault::EvictionKills))
    }

    fn fresh(&self) -> Uuid {
        let n = self.drawn.fetch_add(1, Ordering::Relaxed);
        let hash = blake3::hash(format!("firmware/{}/{n}", self.seed).as_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash.as_bytes()[..16]);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }
}

impl Admission for Webhooks {
    fn mutate(&self, review: &Review<'_>, object: &mut Value) -> Result<(), ApiError> {
        let create = review.operation == Operation::Create;
        match (review.resource, review.subresource) {
            (VM, None) if review.operation != Operation::Delete => {
                decodes(object)?;
                if create {
                    if let Some(board) = &self.board {
                        strike::machine(board, object);
                    }
                    defaults::machine(object, || self.fresh());
                }
            }
            (VMI, None) if create => {
                defaults::instance(object, || self.fresh());
            }
            (VMI, None) => {
                // Without a status subresource, nothing but this keeps users out of the status.
                if let Some(old) = review.old {
                    object["status"] = old["status"].clone();
                }
            }
            (VMIM, None) if create => defaults::migration(object),
            _ => {}
        }
        Ok(())
    }

    fn validate(&self, review: &Review<'_>, object: &Value) -> Result<Vec<String>, ApiError> {
        let create = review.operation == Operation::Create;
        match (review.resource, review.subresource) {
            _ if review.operation == Operation::Delete => Ok(Vec::new()),
            (VM, None) => {
                refuse(
                    "virtualmachine-validator.kubevirt.io",
                    &rules::machine(object),
                )?;
                snapshots::under_way(review, object)?;
                let deprecated = object.pointer("/spec/running").is_some();
                let warning = "spec.running is deprecated, please use spec.runStrategy instead.";
                Ok(deprecated.then(|| warning.to_owned()).into_iter().collect())
            }
            (VMI, None) if create => {
                let hook = "virtualmachineinstances-create-validator.kubevirt.io";
                refuse(hook, &rules::instance("spec", &object["spec"])).map(|()| Vec::new())
            }
            (VMI, None) => instance_update(review, object).map(|()| Vec::new()),
            (VMIM, None) if create => migration(review, object).map(|()| Vec::new()),
            (SNAPSHOT, None) => snapshots::snapshot(review, object).map(|()| Vec::new()),
            (RESTORE, None) => snapshots::restore(review, object).map(|()| Vec::new()),
            (CLONE, None) => snapshots::clone(review, object).map(|()| Vec::new()),
            ("pods", Some("eviction")) if !self.lets_evict() => {
                eviction(review).map(|()| Vec::new())
            }
            _ => Ok(Vec::new()),
        }
    }
}

fn denied(hook: &str, why: &str) -> String {
    format!("admission webhook \"{hook}\" denied the request: {why}")
}

fn refuse(hook: &str, causes: &[Cause]) -> Result<(), ApiError> {
    if causes.is_empty() {
        return Ok(());
    }
    let all: Vec<&str> = causes.iter().map(|cause| cause.message.as_str()).collect();
    let causes: Vec<Value> = causes
        .iter()
        .map(|cause| {
            let mut entry = Map::new();
            for (field, text) in [
                ("reason", cause.reason),
                ("message", cause.message.as_str()),
                ("field", cause.field.as_str()),
            ] {
                if !text.is_empty() {
                    entry.insert(field.to_owned(), json!(text));
                }
            }
            Value::Object(entry)
        })
        .collect();
    Err(ApiError::new(422, "Invalid", denied(hook, &all.join(", ")))
        .with_details(json!({"causes": causes})))
}

/// The mutating webhook decodes the VM before it looks at it.
fn decodes(vm: &Value) -> Result<(), ApiError> {
    let hook = "virtualmachines-mutator.kubevirt.io";
    if vm.pointer("/spec/template").is_none_or(Value::is_null) {
        return refuse(
            hook,
            &[Cause::new("", "", "spec.template in body is required")],
        );
    }
    if rules::quantities(&vm["spec"]["template"]["spec"]) {
        return Ok(());
    }
    let why = "quantities must match the regular expression \
               '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
    Err(ApiError::new(400, "", denied(hook, why)))
}

fn instance_update(review: &Review<'_>, object: &Value) -> Result<(), ApiError> {
    let Some(old) = review.old else {
        return Ok(());
    };
    let hook = "virtualmachineinstances-update-validator.kubevirt.io";
    let not_supported = |why: &str| refuse(hook, &[Cause::new("FieldValueNotSupported", "", why)]);
    if old["spec"] != object["spec"] {
        return not_supported("update of VMI object is restricted");
    }
    let reserved = |object: &Value| -> Map<String, Value> {
        let labels = object
            .pointer("/metadata/labels")
            .and_then(Value::as_object);
        labels
            .into_iter()
            .flatten()
            .filter(|(key, _)| key.starts_with("kubevirt.io/"))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    };
    if reserved(old) == reserved(object) {
        Ok(())
    } else {
        not_supported(
            "modification of the following reserved kubevirt.io/ labels on a VMI object is prohibited",
        )
    }
}

fn migration(review: &Review<'_>, job: &Value) -> Result<(), ApiError> {
    let hook = "migration-create-validator.kubevirt.io";
    let name = meta::text(job, "/spec/vmiName");
    if name.is_empty() {
        return refuse(
            hook,
            &[Cause::new(
                "FieldValueRequired",
                "spec.vmiName",
                "vmiName is missing",
            )],
        );
    }
    let no = |why: String| Err(ApiError::new(400, "", denied(hook, &why)));
    let namespace = review.namespace;
    match refusal(review.store, namespace, name) {
        None => Ok(()),
        Some(why) => no(why),
    }
}

/// Why a VMI cannot be migrated now, in the words of the migration webhook.
pub(super) fn refusal(
    store: &crate::lab::api::Store,
    namespace: &str,
    name: &str,
) -> Option<String> {
    let Some(vmi) = store.get(VMI, namespace, name) else {
        return Some(format!("the VMI \"{namespace}/{name}\" does not exist"));
    };
    if is_final(&vmi) {
        return Some("Cannot migrate VMI in finalized state.".to_owned());
    }
    if let Some(condition) = condition::get(&vmi, "LiveMigratable")
        && condition["status"] == "False"
    {
        let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
        return Some(format!(
            "Cannot migrate VMI, Reason: {}, Message: {}",
            text("reason"),
            text("message")
        ));
    }
    let in_flight = store
        .list(VMIM, Some(namespace))
        .into_iter()
        .find(|job| meta::text(job, "/spec/vmiName") == name && !is_final(job))?;
    Some(format!(
        "in-flight migration detected. Active migration job ({}) is currently already in progress \
         for VMI {name}.",
        meta::uid(&in_flight)
    ))
}

/// Evicting a launcher pod marks the VMI for evacuation instead; the caller gets 429 and shall ask
/// again, as for a disruption budget.
fn eviction(review: &Review<'_>) -> Result<(), ApiError> {
    let Some(pod) = review.old else {
        return Ok(());
    };
    if meta::label(pod, "kubevirt.io") != Some("virt-launcher") {
        return Ok(());
    }
    let name = meta::annotation(pod, "kubevirt.io/domain").unwrap_or_default();
    let Some(vmi) = review.store.get(VMI, review.namespace, name) else {
        return Ok(());
    };
    let strategy = meta::text(&vmi, "/spec/evictionStrategy");
    let migratable = condition::is_true(&vmi, "LiveMigratable");
    let act = match strategy {
        "LiveMigrate" | "External" => true,
        "LiveMigrateIfPossible" => migratable,
        _ => false,
    };
    // The launcher of a VMI that went elsewhere is not what the strategy protects.
    let left = meta::text(pod, "/spec/nodeName") != meta::text(&vmi, "/status/nodeName");
    if is_final(&vmi) || !act || left {
        return Ok(());
    }
    let hook = "virt-launcher-eviction-interceptor.kubevirt.io";
    let full = format!("{}/{name}", review.namespace);
    let deny = |why: &str| Err(ApiError::new(429, "", denied(hook, why)));
    if strategy == "LiveMigrate" && !migratable {
        return deny(&format!(
            "VMI {full} is configured with an eviction strategy but is not live-migratable"
        ));
    }
    let evacuating = !meta::text(&vmi, "/status/evacuationNodeName").is_empty();
    if !evacuating && !review.dry_run {
        let node = meta::text(&vmi, "/status/nodeName").to_owned();
        review
            .store
            .modify(VMI, review.namespace, name, Part::Any, |vmi| {
                vmi["status"]["evacuationNodeName"] = json!(node);
            })?;
    }
    let prefix = if evacuating {
        "Evacuation in progress: "
    } else {
        ""
    };
    deny(&format!(
        "{prefix}Eviction triggered evacuation of VMI \"{full}\""
    ))
}

#[cfg(test)]
mod tests;
