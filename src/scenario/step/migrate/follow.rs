//! What the objects of a migration tell, followed to its end.

use super::{instances, jobs, tell};
use crate::cluster::crd::kubevirt::{
    MigrationState, VirtualMachineInstance, VirtualMachineInstanceMigration,
};
use crate::cluster::{Deadline, Error, Seen, Wake, repeat};
use crate::history::event::MigrationFact;
use crate::scenario::member::Member;
use crate::scenario::world::World;

/// Records each change of a migration from when it was asked for until it is over, and gives its end.
pub(super) async fn follow(
    world: &World,
    member: &Member,
    asked: MigrationFact,
    uid: &str,
    deadline: &Deadline,
) -> anyhow::Result<MigrationFact> {
    let (ns, vm) = (&member.subject.namespace, &member.subject.vm);
    let (name, spoil, evacuates) = (&asked.name.clone(), asked.spoil, asked.evacuates);
    let (jobs, vmis) = (jobs(world, member), instances(world, member));
    let wake = Wake::paced().and(jobs.changes()).and(vmis.changes());
    let last = tokio::sync::Mutex::new(asked);
    let waiting = format!("migration {name} of VMI {vm} to end");
    let look = || async {
        let job = jobs.peek(|jobs| jobs.get(ns, name).cloned()).flatten();
        let vmi = vmis.peek(|vmis| vmis.get(ns, vm).cloned()).flatten();
        let seen = MigrationFact {
            spoil,
            evacuates,
            ..seen(name, uid, job.as_ref(), vmi.as_ref())
        };
        let gone = job.is_none() && jobs.peek(|_| ()).is_some();
        let mut last = last.lock().await;
        if *last != seen {
            if let Err(error) = tell(world, member, seen.clone()).await {
                return Ok(Seen::Met(Err(error)));
            }
            *last = seen.clone();
        }
        Ok::<_, Error>(match over(&seen, gone, vmi.as_ref()) {
            None => Seen::Met(Ok(seen)),
            Some(not_yet) => Seen::Not(not_yet),
        })
    };
    repeat(deadline, &waiting, wake, look).await?
}

/// What the job and the VMI tell of a migration together. The VMI's state counts only if it speaks of
/// this one: the state of the one before stays until the next begins.
fn seen(
    name: &str,
    uid: &str,
    job: Option<&VirtualMachineInstanceMigration>,
    vmi: Option<&VirtualMachineInstance>,
) -> MigrationFact {
    let mine = |state: &&MigrationState| state.migration_uid.as_deref() == Some(uid);
    let of_job = job.and_then(|job| job.status.migration_state.as_ref());
    let of_vmi = vmi.and_then(|vmi| vmi.status.migration_state.as_ref());
    let states = [of_vmi, of_job];
    let state = states.into_iter().flatten().find(mine);
    let state = state.cloned().unwrap_or_default();
    MigrationFact {
        name: name.to_owned(),
        phase: job.map_or_else(String::new, |job| job.status.phase.clone()),
        mode: state.mode.unwrap_or_default(),
        source_node: state.source_node.unwrap_or_default(),
        target_node: state.target_node.unwrap_or_default(),
        completed: state.completed,
        failed: state.failed,
        why: state.failure_reason.unwrap_or_default(),
        target_pod: state.target_pod.unwrap_or_default(),
        abort: state.abort_status.unwrap_or_default(),
        ..MigrationFact::default()
    }
}

/// `None` once a migration is over, else what is missing. A failed one is also completed, so failure
/// is asked for first. The job may say it before the VMI does, and one that was deleted is gone then:
/// a spoiled one is over when the VMI, if it knows of it, says so too. One that succeeded is over when
/// the VMI is where it was to go: two watches tell of the two objects, in any order.
fn over(seen: &MigrationFact, gone: bool, vmi: Option<&VirtualMachineInstance>) -> Option<String> {
    let failed = seen.phase == "Failed";
    if seen.spoil.is_some() {
        let known = !seen.target_node.is_empty();
        if (failed || gone) && (seen.failed || !known) {
            return None;
        }
    } else if failed || seen.failed {
        return None;
    }
    let node = vmi.and_then(|vmi| vmi.status.node_name.as_deref());
    let there = node == Some(seen.target_node.as_str());
    if seen.phase == "Succeeded" && seen.completed && !seen.failed && there {
        return None;
    }
    Some(format!(
        "phase {:?}, completed {}, the VMI on node {} and to go to {:?}",
        seen.phase,
        seen.completed,
        node.unwrap_or("(none)"),
        seen.target_node
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn job(phase: &str) -> VirtualMachineInstanceMigration {
        serde_json::from_value(json!({"metadata": {}, "status": {"phase": phase}})).expect("a job")
    }

    fn vmi(node: &str, state: &Value) -> VirtualMachineInstance {
        let status = json!({"phase": "Running", "nodeName": node, "migrationState": state});
        serde_json::from_value(json!({"metadata": {}, "status": status})).expect("a VMI")
    }

    fn state(uid: &str, more: &Value) -> Value {
        let mut state =
            json!({"migrationUid": uid, "sourceNode": "a", "targetNode": "b", "mode": "PreCopy"});
        for (key, value) in more.as_object().into_iter().flatten() {
            state[key] = value.clone();
        }
        state
    }

    #[test]
    fn the_state_of_an_earlier_migration_is_not_taken_for_this_one() {
        let (job, vmi) = (
            job("Pending"),
            vmi("a", &state("u0", &json!({"completed": true}))),
        );
        let seen = seen("vm-m2", "u1", Some(&job), Some(&vmi));
        assert_eq!((seen.phase.as_str(), seen.completed), ("Pending", false));
        assert!(seen.target_node.is_empty());
        assert!(over(&seen, false, Some(&vmi)).is_some());
    }

    #[test]
    fn failure_is_read_before_completion() {
        let failed =
            json!({"completed": true, "failed": true, "failureReason": "Target pod is down"});
        let vmi = vmi("a", &state("u1", &failed));
        let seen = seen("vm-m1", "u1", Some(&job("Running")), Some(&vmi));
        assert!(seen.failed && seen.why == "Target pod is down");
        assert_eq!(over(&seen, false, Some(&vmi)), None);
    }

    #[test]
    fn a_migration_that_succeeded_is_over_when_the_vmi_is_there() {
        let done = state("u1", &json!({"completed": true}));
        let (before, after) = (vmi("a", &done), vmi("b", &done));
        let seen = seen("vm-m1", "u1", Some(&job("Succeeded")), Some(&before));
        let missing = over(&seen, false, Some(&before)).expect("not there yet");
        assert!(missing.contains("on node a"), "{missing}");
        assert_eq!(over(&seen, false, Some(&after)), None);
    }

    #[test]
    fn a_spoiled_migration_is_over_when_the_vmi_knows_too() {
        let spoiled = |seen: MigrationFact| MigrationFact {
            spoil: Some(crate::history::event::Spoil::Cancel),
            ..seen
        };
        let under_way = vmi("a", &state("u1", &json!({"abortStatus": "Aborting"})));
        let told = spoiled(seen("vm-m1", "u1", Some(&job("Failed")), Some(&under_way)));
        assert_eq!(told.abort, "Aborting");
        assert!(over(&told, false, Some(&under_way)).is_some());
        assert!(over(&told, true, Some(&under_way)).is_some(), "job gone");
        let end = json!({"completed": true, "failed": true, "abortStatus": "Succeeded"});
        let ended = vmi("a", &state("u1", &end));
        let told = spoiled(seen("vm-m1", "u1", None, Some(&ended)));
        assert_eq!(over(&told, true, Some(&ended)), None);
        let before = vmi("a", &state("u0", &end));
        let told = spoiled(seen("vm-m1", "u1", None, Some(&before)));
        assert!(over(&told, false, Some(&before)).is_some(), "not seen yet");
        assert_eq!(over(&told, true, Some(&before)), None, "never begun");
    }
}
