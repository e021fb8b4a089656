//! Migrations that wait, that are given up, and what they leave behind.

use super::*;
use crate::lab::api::Part;
use crate::lab::vm::keys::MIGRATION_FINALIZER;

/// Asks for a migration as a user does.
fn ask(rig: &Rig, name: &str, vmi: &str) {
    let job = json!({"metadata": {"name": name, "namespace": "default"}, "spec": {"vmiName": vmi}});
    rig.create(VMIM, job);
}

/// A policy under which no copying ends, and for how many seconds per GiB.
fn starve(rig: &Rig, per_gib: u64) {
    let policy = json!({"metadata": {"name": "slow"}, "spec": {
        "bandwidthPerMigration": "1Mi", "completionTimeoutPerGiB": per_gib,
        "selectors": {"namespaceSelector": {"slow": "yes"}}}});
    rig.store
        .create("migrationpolicies.migrations.kubevirt.io", policy)
        .unwrap();
    rig.store
        .modify("namespaces", "", "default", Part::Any, |space| {
            space["metadata"]["labels"]["slow"] = json!("yes");
        })
        .unwrap();
}

async fn ready(rig: &mut Rig, names: &[&str]) {
    for name in names {
        rig.create(VM, machine(name, "Always", &fedora()));
    }
    for name in names {
        rig.agent(name).await;
    }
}

fn state<'a>(vmi: &'a Value, field: &str) -> &'a Value {
    &vmi["status"]["migrationState"][field]
}

fn messages(rig: &Rig, about: &str) -> Vec<String> {
    let events = rig.store.list("events", Some("default"));
    let those = events.iter().filter(|event| {
        event["reason"] == "FailedMigration" && event["involvedObject"]["name"] == about
    });
    those
        .map(|event| meta::text(event, "/message").to_owned())
        .collect()
}

#[tokio::test]
async fn no_more_than_two_leave_a_node_at_once_and_the_others_have_their_turn() {
    let rig = Rig::new().await;
    let names = ["a", "b", "c", "d"];
    for name in names {
        let mut vm = machine(name, "Always", &fedora());
        let selector = json!({"kubernetes.io/hostname": "east-node-0"});
        vm["spec"]["template"]["spec"]["nodeSelector"] = selector;
        rig.create(VM, vm);
    }
    for name in names {
        rig.ready(name).await;
        // Nothing but the first node would take it otherwise.
        let vmi = rig.store.get(VMI, "default", name).unwrap();
        assert_eq!(vmi["status"]["nodeName"], "east-node-0");
        rig.store
            .modify(VMI, "default", name, Part::Any, |vmi| {
                vmi["spec"]["nodeSelector"] = json!({});
            })
            .unwrap();
    }
    let mut jobs = rig.store.watch(VMIM);
    for name in names {
        ask(&rig, &format!("m-{name}"), name);
    }
    for name in names {
        rig.until(VMI, name, |vmi| state(vmi, "completed") == true)
            .await;
    }
    let (mut running, mut most) = (std::collections::BTreeSet::new(), 0);
    while let Ok(change) = jobs.try_recv() {
        let name = meta::name(&change.object).to_owned();
        match phase(&change.object) {
            "" | "Pending" => {}
            "Succeeded" | "Failed" => {
                running.remove(&name);
            }
            _ => {
                running.insert(name);
            }
        }
        most = most.max(running.len());
    }
    assert_eq!(most, 2);
}

#[tokio::test]
async fn a_cancelled_migration_is_completed_and_failed_and_the_guest_stays() {
    let mut rig = Rig::new().await;
    ready(&mut rig, &["a"]).await;
    let before = rig.store.get(VMI, "default", "a").unwrap();
    starve(&rig, 36_000);
    ask(&rig, "m", "a");
    rig.until(VMIM, "m", |job| phase(job) == "Running").await;
    let again = webhooks::refusal(&rig.store, "default", "a").unwrap();
    assert!(
        again.starts_with("in-flight migration detected."),
        "{again}"
    );
    let vmi = rig
        .until(VMI, "a", |vmi| !state(vmi, "startTimestamp").is_null())
        .await;
    assert_eq!(state(&vmi, "migrationPolicyName"), "slow");
    let target = state(&vmi, "targetPod").as_str().unwrap().to_owned();
    let mut seen = rig.store.watch(VMI);
    rig.store
        .delete(VMIM, "default", "m", &DeleteOptions::default())
        .unwrap();
    let after = rig
        .until(VMI, "a", |vmi| state(vmi, "completed") == true)
        .await;
    rig.until_gone(VMIM, "m").await;
    rig.until_gone(POD, &target).await;
    assert_eq!(state(&after, "failed"), true);
    assert_eq!(state(&after, "abortStatus"), "Succeeded");
    assert_eq!(
        state(&after, "failureReason"),
        "Live migration has been aborted"
    );
    let asked = steps(&mut seen, "/status/migrationState/abortStatus");
    assert!(asked.contains(&"Aborting".to_owned()), "{asked:?}");
    assert_eq!(after["status"]["nodeName"], before["status"]["nodeName"]);
    assert_eq!(meta::uid(&after), meta::uid(&before));
    assert_eq!(
        messages(&rig, "m"),
        ["source node reported migration failed"]
    );
    let guest = rig.kubevirt.guest("default", "a").unwrap();
    assert!(guest.connect(22).await.is_ok());
}

#[tokio::test]
async fn a_starved_migration_is_given_up_in_time() {
    let mut rig = Rig::new().await;
    ready(&mut rig, &["a"]).await;
    starve(&rig, 5);
    ask(&rig, "m", "a");
    let after = rig
        .until(VMI, "a", |vmi| state(vmi, "completed") == true)
        .await;
    assert_eq!(state(&after, "failed"), true);
    let why = state(&after, "failureReason").as_str().unwrap();
    assert!(why.ends_with("seconds and has been aborted"), "{why}");
    rig.until(VMIM, "m", |job| {
        job["status"]["migrationState"]["failed"] == true
            && !meta::finalizers(job).contains(&MIGRATION_FINALIZER)
    })
    .await;
}

#[tokio::test]
async fn a_migration_whose_target_is_killed_fails_and_the_guest_stays() {
    let mut rig = Rig::new().await;
    ready(&mut rig, &["a"]).await;
    starve(&rig, 36_000);
    ask(&rig, "m", "a");
    let vmi = rig
        .until(VMI, "a", |vmi| !state(vmi, "startTimestamp").is_null())
        .await;
    let target = state(&vmi, "targetPod").as_str().unwrap().to_owned();
    rig.store
        .delete(POD, "default", &target, &DeleteOptions::default())
        .unwrap();
    rig.until(VMIM, "m", |job| phase(job) == "Failed").await;
    let after = rig
        .until(VMI, "a", |vmi| state(vmi, "completed") == true)
        .await;
    assert_eq!(state(&after, "failed"), true);
    let why = "Migration target pod was removed during active migration.";
    assert_eq!(messages(&rig, "m"), [why]);
    let guest = rig.kubevirt.guest("default", "a").unwrap();
    assert!(guest.connect(22).await.is_ok());
}

#[tokio::test]
async fn a_target_that_no_node_takes_is_given_up_after_five_minutes() {
    let mut rig = Rig::new().await;
    ready(&mut rig, &["a"]).await;
    for node in crate::lab::world::nodes(Site::Primary) {
        rig.store
            .modify("nodes", "", &node, Part::Any, |node| {
                node["spec"]["unschedulable"] = json!(true);
            })
            .unwrap();
    }
    ask(&rig, "m", "a");
    let pod = |rig: &Rig| {
        let pods = rig.store.list(POD, Some("default"));
        pods.into_iter()
            .find(|pod| meta::label(pod, "kubevirt.io/migrationJobUID").is_some())
    };
    rig.until(VMIM, "m", |job| phase(job) == "Scheduling").await;
    let target = pod(&rig).expect("a target");
    let told = rig
        .until(POD, meta::name(&target), |pod| {
            condition::get(pod, "PodScheduled").is_some()
        })
        .await;
    let why = condition::get(&told, "PodScheduled").unwrap()["message"].to_string();
    assert!(why.contains("3 node(s) were unschedulable"), "{why}");
    rig.until(VMIM, "m", |job| phase(job) == "Failed").await;
    assert_eq!(pod(&rig), None);
}

#[tokio::test]
async fn five_jobs_that_are_over_are_kept_and_so_is_every_launcher_that_was_left() {
    let mut rig = Rig::new().await;
    ready(&mut rig, &["a"]).await;
    for n in 0..7 {
        let name = format!("m{n}");
        ask(&rig, &name, "a");
        rig.until(VMIM, &name, |job| phase(job) == "Succeeded")
            .await;
    }
    rig.until_gone(VMIM, "m1").await;
    let vmi = rig.store.get(VMI, "default", "a").unwrap();
    let last = state(&vmi, "sourcePod").as_str().unwrap();
    rig.until(POD, last, |pod| phase(pod) == "Succeeded").await;
    let jobs = rig.store.list(VMIM, Some("default"));
    let mut names: Vec<&str> = jobs.iter().map(|job| meta::name(job)).collect();
    names.sort_unstable();
    assert_eq!(names, ["m2", "m3", "m4", "m5", "m6"]);
    let pods = rig.store.list(POD, Some("default"));
    let left = pods.iter().filter(|pod| phase(pod) == "Succeeded").count();
    assert_eq!(
        (left, pods.len()),
        (7, 8),
        "they match every selector of the VM"
    );
}

#[tokio::test]
async fn an_evicted_launcher_without_a_strategy_takes_its_guest_down() {
    let mut rig = Rig::new().await;
    ready(&mut rig, &["a"]).await;
    let vmi = rig.store.get(VMI, "default", "a").unwrap();
    let guest = rig.kubevirt.guest("default", "a").unwrap();
    let pod = vmi::launcher_pod(&rig.kubevirt.ctx, &vmi).unwrap();
    rig.store
        .delete(POD, "default", meta::name(&pod), &DeleteOptions::default())
        .unwrap();
    rig.until_gone(POD, meta::name(&pod)).await;
    rig.until(VMI, "a", |now| {
        meta::uid(now) != meta::uid(&vmi) && phase(now) == "Running"
    })
    .await;
    assert!(guest.is_off());
}
