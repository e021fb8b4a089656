//! On which terms a VMI migrates: the cluster's, or those of the MigrationPolicy that matches it
//! best; and how long the copying of its memory takes on these terms.

use std::time::Duration;

use serde_json::{Value, json};

use super::quota;
use crate::lab::api::meta;
use crate::lab::vm::schedule::bytes;
use crate::lab::vm::site::Ctx;

const POLICY: &str = "migrationpolicies.migrations.kubevirt.io";
const MIB: u64 = 1 << 20;
/// How fast a guest that works dirties its memory, bytes per second. Copying that is no faster never
/// comes to an end.
const DIRTIED: u64 = 2 * MIB;
/// `completionTimeoutPerGiB` of a cluster that sets none, in seconds.
const PER_GIB: u64 = 150;

/// The terms of one migration.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::lab::vm) struct Terms {
    /// The policy that they come from.
    pub(super) policy: Option<String>,
    /// Bytes per second, 0 for no limit. libvirt knows nothing below a MiB.
    pub(in crate::lab::vm) bandwidth: u64,
    per_gib: u64,
    memory: u64,
}

/// The terms on which a VMI migrates now.
pub(super) fn terms(ctx: &Ctx, vmi: &Value) -> Terms {
    let namespace = ctx.store.get("namespaces", "", meta::namespace(vmi));
    let policies = ctx.store.list(POLICY, None);
    let mut best: Option<(usize, &Value)> = None;
    for policy in &policies {
        let fits = match_of(policy, vmi, namespace.as_deref());
        // Of equals the first by name, as they are listed.
        if let Some(fits) = fits.filter(|fits| best.is_none_or(|(other, _)| *fits > other)) {
            best = Some((fits, policy));
        }
    }
    let policy = best.map(|(_, policy)| policy);
    let spec = policy.map(|policy| &policy["spec"]);
    let bandwidth = spec.map_or(0, |spec| bytes(&spec["bandwidthPerMigration"]));
    let per_gib = spec.and_then(|spec| spec["completionTimeoutPerGiB"].as_u64());
    Terms {
        policy: policy.map(|policy| meta::name(policy).to_owned()),
        bandwidth: bandwidth.div_ceil(MIB) * MIB,
        per_gib: per_gib.unwrap_or(PER_GIB),
        memory: bytes(&vmi["spec"]["domain"]["memory"]["guest"]),
    }
}

/// How many labels of a policy's selectors match, if all of them do and there are any.
fn match_of(policy: &Value, vmi: &Value, namespace: Option<&Value>) -> Option<usize> {
    let mut matched = 0;
    for (selector, object) in [
        ("/spec/selectors/namespaceSelector", namespace),
        ("/spec/selectors/virtualMachineInstanceSelector", Some(vmi)),
    ] {
        let wanted = policy.pointer(selector).and_then(Value::as_object);
        for (label, value) in wanted.into_iter().flatten() {
            if meta::label(object?, label) != value.as_str() {
                return None;
            }
            matched += 1;
        }
    }
    (matched > 0).then_some(matched)
}

impl Terms {
    /// How long the copying takes if it takes `unlimited` without a limit of the bandwidth; `None` if
    /// it is dirtied as fast as it is copied.
    pub(super) fn copying(&self, unlimited: Duration) -> Option<Duration> {
        match self.bandwidth.checked_sub(DIRTIED) {
            _ if self.bandwidth == 0 => Some(unlimited),
            None | Some(0) => None,
            Some(net) => {
                let seconds = Duration::from_secs(self.memory / net);
                Some(seconds.max(unlimited))
            }
        }
    }

    /// After how many seconds virt-launcher gives up. The memory counts in whole GB, rounded up.
    pub(in crate::lab::vm) fn limit(&self) -> u64 {
        self.per_gib * self.memory.div_ceil(1_000_000_000).max(1)
    }

    /// Writes them into a VMI's migration state.
    pub(super) fn tell(&self, state: &mut Value) {
        state["migrationConfiguration"] = json!({
            "allowAutoConverge": false,
            "allowPostCopy": false,
            "bandwidthPerMigration": self.bandwidth.to_string(),
            "completionTimeoutPerGiB": self.per_gib,
            "parallelMigrationsPerCluster": quota::PER_CLUSTER,
            "parallelOutboundMigrationsPerNode": quota::OUTBOUND,
        });
        if let Some(policy) = &self.policy {
            state["migrationPolicyName"] = json!(policy);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(bandwidth: u64, per_gib: u64) -> Terms {
        Terms {
            policy: None,
            bandwidth,
            per_gib,
            memory: 128 * MIB,
        }
    }

    #[test]
    fn copying_that_is_no_faster_than_the_guest_never_ends() {
        let base = Duration::from_secs(10);
        assert_eq!(terms(0, 150).copying(base), Some(base));
        assert_eq!(terms(MIB, 150).copying(base), None);
        assert_eq!(terms(DIRTIED, 150).copying(base), None);
        let slow = terms(DIRTIED + MIB, 150).copying(base);
        assert_eq!(slow, Some(Duration::from_secs(128)));
        assert_eq!(terms(MIB, 150).limit(), 150, "a part of a GB counts whole");
    }

    #[test]
    fn the_policy_whose_labels_all_match_and_most_of_them_is_taken() {
        let vmi = json!({"metadata": {"labels": {"a": "1", "b": "2"}}});
        let space = json!({"metadata": {"labels": {"n": "x"}}});
        let policy = |of_space: Value, of_vmi: Value| {
            json!({"spec": {"selectors": {
                "namespaceSelector": of_space, "virtualMachineInstanceSelector": of_vmi}}})
        };
        let fits = |policy: &Value| match_of(policy, &vmi, Some(&space));
        assert_eq!(fits(&policy(json!({"n": "x"}), json!({"a": "1"}))), Some(2));
        assert_eq!(fits(&policy(json!({}), json!({"a": "1"}))), Some(1));
        assert_eq!(fits(&policy(json!({"n": "y"}), json!({"a": "1"}))), None);
        assert_eq!(fits(&policy(json!({}), json!({}))), None, "no selector");
    }
}
