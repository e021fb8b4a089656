//! Snapshots, restores and clones of whole VMs: phases, indications, refusals, and what is left.

use super::super::snapshot::{CLONE, CONTENT, RESTORE, SNAPSHOT};
use super::*;
use crate::lab::api::Part;
use crate::lab::storage::{self, Storage};
use crate::lab::world;

const VOLUME_SNAPSHOT: &str = "volumesnapshots.snapshot.storage.k8s.io";

/// A site with its storage, and a running VM with an agent and one claim, `data`.
async fn site() -> Rig {
    let rig = Rig::new().await;
    storage::seed(&rig.store, Site::Primary).unwrap();
    let controllers = Storage {
        site: Site::Primary,
        store: rig.store.clone(),
        array: rig.array.clone(),
        clock: LabClock::new(200.0),
    };
    storage::run(&controllers, &TaskTracker::new(), &rig.token);
    let claim = json!({
        "metadata": {"name": "data", "namespace": "default", "labels": {"mine": "yes"}},
        "spec": {
            "accessModes": ["ReadWriteMany"], "volumeMode": "Block",
            "storageClassName": world::CLASS_BLOCK,
            "resources": {"requests": {"storage": "1Mi"}},
        },
    });
    rig.store.create(PVC, claim).unwrap();
    rig.until(PVC, "data", |c| phase(c) == "Bound").await;
    let volumes = json!([
        {"name": "root", "containerDisk": {"image": "registry.example/containerdisks/fedora:42"}},
        {"name": "disk", "persistentVolumeClaim": {"claimName": "data"}},
    ]);
    rig.create(VM, machine("web", "Always", &volumes));
    rig.agent("web").await;
    rig
}

fn vm(name: &str) -> Value {
    json!({"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": name})
}

fn snapshot(name: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"source": vm("web"), "failureDeadline": "20s"},
    })
}

fn restore(name: &str, extra: &Value) -> Value {
    let mut spec = json!({"target": vm("web"), "virtualMachineSnapshotName": "snap"});
    for (field, value) in extra.as_object().into_iter().flatten() {
        spec[field.as_str()] = value.clone();
    }
    json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec})
}

impl Rig {
    async fn taken(&self, name: &str) -> Arc<Value> {
        self.create(SNAPSHOT, snapshot(name));
        self.until(SNAPSHOT, name, |s| {
            s.pointer("/status/readyToUse") == Some(&json!(true))
        })
        .await
    }

    async fn complete(&self, name: &str) -> Arc<Value> {
        self.until(RESTORE, name, |r| {
            r.pointer("/status/complete") == Some(&json!(true))
        })
        .await
    }
}

#[tokio::test]
async fn a_snapshot_locks_freezes_tells_and_takes_all_of_it_away_again() {
    let rig = site().await;
    let mut vms = rig.store.watch(VM);
    let taken = rig.taken("snap").await;
    assert_eq!(
        taken["status"]["indications"],
        json!(["GuestAgent", "Online"])
    );
    assert_eq!(phase(&taken), "Succeeded");
    let included = &taken["status"]["snapshotVolumes"]["includedVolumes"];
    assert_eq!(included, &json!(["disk"]));
    rig.until(VM, "web", |vm| {
        vm.pointer("/status/snapshotInProgress").is_none() && meta::finalizers(vm).len() == 1
    })
    .await;
    let held = steps(&mut vms, "/status/snapshotInProgress");
    assert_eq!(held, ["snap"], "the VM was locked meanwhile");
    let guest = rig.kubevirt.guest("default", "web").expect("it runs");
    assert!(!guest.frozen(), "it was thawed");
    let options = DeleteOptions::default();
    rig.store
        .delete(SNAPSHOT, "default", "snap", &options)
        .unwrap();
    rig.until_gone(SNAPSHOT, "snap").await;
    let name = meta::text(&taken, "/status/virtualMachineSnapshotContentName");
    rig.until_gone(CONTENT, name).await;
    let left = format!("vmsnapshot-{}-volume-disk", meta::uid(&taken));
    rig.until_gone(VOLUME_SNAPSHOT, &left).await;
}

#[tokio::test]
async fn without_an_agent_or_for_a_paused_guest_nothing_is_frozen_and_that_is_said() {
    let mut rig = site().await;
    assert_eq!(
        rig.put("virtualmachineinstances/web/pause", "{}").await.0,
        200
    );
    let taken = rig.taken("paused").await;
    assert_eq!(taken["status"]["indications"], json!(["Online", "Paused"]));
    let silent = rig.store.modify(VMI, "default", "web", Part::Any, |vmi| {
        condition::remove(vmi, "AgentConnected");
        condition::remove(vmi, "Paused");
    });
    silent.unwrap();
    let taken = rig.taken("silent").await;
    let said = &taken["status"]["indications"];
    assert_eq!(said, &json!(["NoGuestAgent", "Online"]));
}

#[tokio::test]
async fn a_freeze_that_fails_is_tried_again_until_the_deadline() {
    let rig = site().await;
    // The object says that the agent is there, and the guest does not answer it.
    rig.board.plant(Fault::AgentMissing);
    let mut late = snapshot("late");
    late["spec"]["failureDeadline"] = json!("2s");
    rig.create(SNAPSHOT, late);
    let stuck = rig
        .until(SNAPSHOT, "late", |s| {
            !meta::text(s, "/status/error/message").is_empty()
        })
        .await;
    let why = meta::text(&stuck, "/status/error/message").to_owned();
    assert!(why.contains("QEMU guest agent is not connected"), "{why}");
    let failed = rig.until(SNAPSHOT, "late", |s| phase(s) == "Failed").await;
    let said = condition::get(&failed, "Failure").expect("a condition");
    assert_eq!(said["reason"], "snapshot deadline exceeded");
    rig.until(VM, "web", |vm| {
        vm.pointer("/status/snapshotInProgress").is_none()
    })
    .await;
}

#[tokio::test]
async fn a_restore_in_place_replaces_the_claim_once_the_vm_stands() {
    let mut rig = site().await;
    rig.taken("snap").await;
    let old = rig.store.get(PVC, "default", "data").expect("a claim");
    let extra = json!({"targetReadinessPolicy": "FailImmediate"});
    rig.create(RESTORE, restore("hasty", &extra));
    let failed = rig
        .until(RESTORE, "hasty", |r| condition::is_true(r, "Failure"))
        .await;
    assert_ne!(failed["status"]["complete"], true);
    let options = DeleteOptions::default();
    rig.store
        .delete(RESTORE, "default", "hasty", &options)
        .unwrap();
    rig.until_gone(RESTORE, "hasty").await;
    let extra = json!({
        "targetReadinessPolicy": "StopTarget", "volumeRestorePolicy": "InPlace",
    });
    rig.create(RESTORE, restore("back", &extra));
    let done = rig.complete("back").await;
    let restored = &done["status"]["restores"][0];
    assert_eq!(restored["persistentVolumeClaim"], "data");
    let new = rig.store.get(PVC, "default", "data").expect("a claim");
    assert_ne!(
        meta::uid(&new),
        meta::uid(&old),
        "another claim of that name"
    );
    assert_eq!(meta::label(&new, "mine"), Some("yes"));
    let vm = rig.store.get(VM, "default", "web").expect("the VM");
    assert!(vm.pointer("/status/restoreInProgress").is_none());
    assert_eq!(
        vm["spec"]["runStrategy"], "Halted",
        "as it was when it was restored"
    );
    assert_eq!(rig.put("virtualmachines/web/start", "{}").await.0, 202);
    rig.agent("web").await;
}

#[tokio::test]
async fn by_default_a_restore_makes_claims_of_new_names() {
    let rig = site().await;
    rig.taken("snap").await;
    let extra = json!({"targetReadinessPolicy": "StopTarget"});
    rig.create(RESTORE, restore("back", &extra));
    let done = rig.complete("back").await;
    let new = format!("restore-{}-disk", meta::uid(&done));
    assert_eq!(
        done["status"]["restores"][0]["persistentVolumeClaim"],
        new.as_str()
    );
    let vm = rig.store.get(VM, "default", "web").expect("the VM");
    let claim = "/spec/template/spec/volumes/1/persistentVolumeClaim/claimName";
    assert_eq!(vm.pointer(claim), Some(&json!(new)));
    assert!(
        rig.store.get(PVC, "default", "data").is_some(),
        "the old one stays"
    );
    let owner = rig.store.get(PVC, "default", &new).expect("a claim");
    assert_eq!(meta::controller(&owner).expect("an owner")["name"], "web");
}

#[tokio::test]
async fn a_clone_is_another_machine_and_takes_its_helpers_with_it() {
    let rig = site().await;
    let clone = json!({
        "metadata": {"name": "copy", "namespace": "default"},
        "spec": {
            "source": vm("web"), "target": vm("web-2"),
            "newMacAddresses": {"default": "02-00-00-00-00-07"}, "newSMBiosSerial": "other",
        },
    });
    let mut clones = rig.store.watch(CLONE);
    rig.create(CLONE, clone);
    rig.until(CLONE, "copy", |c| phase(c) == "Succeeded").await;
    assert_eq!(
        steps(&mut clones, "/status/phase"),
        [
            "SnapshotInProgress",
            "RestoreInProgress",
            "CreatingTargetVM",
            "Succeeded"
        ]
    );
    let of = |name: &str| rig.store.get(VM, "default", name).expect("a VM");
    let (source, copy) = (of("web"), of("web-2"));
    let domain = "/spec/template/spec/domain";
    let at = |vm: &Value, path: &str| vm.pointer(&format!("{domain}{path}")).cloned();
    assert_eq!(
        at(&copy, "/devices/interfaces/0/macAddress"),
        Some(json!("02-00-00-00-00-07"))
    );
    assert_eq!(at(&copy, "/firmware/serial"), Some(json!("other")));
    assert_ne!(at(&copy, "/firmware/uuid"), at(&source, "/firmware/uuid"));
    assert_eq!(copy["spec"]["runStrategy"], "Halted");
    rig.until_gone(
        SNAPSHOT,
        &format!("tmp-snapshot-{}", meta::uid(&rig.clone_named("copy"))),
    )
    .await;
}

impl Rig {
    fn clone_named(&self, name: &str) -> Arc<Value> {
        self.store.get(CLONE, "default", name).expect("a clone")
    }

    /// What the webhooks say to a new object.
    fn refusal(&self, resource: &str, object: &Value) -> String {
        let user = User {
            name: "admin".into(),
            uid: String::new(),
            groups: Vec::new(),
        };
        let review = Review {
            operation: Operation::Create,
            resource,
            subresource: None,
            namespace: "default",
            name: meta::name(object),
            old: None,
            user: &user,
            dry_run: false,
            store: &self.store,
        };
        let said = self.webhooks.validate(&review, object);
        said.expect_err("refused").message.clone()
    }
}

#[tokio::test]
async fn what_cannot_be_is_refused_in_the_servers_words() {
    let rig = Rig::new().await;
    let cases = [
        (
            json!({"target": {"kind": "VirtualMachine", "name": "x"}}),
            "missing apiGroup",
        ),
        (json!({"volumeRestorePolicy": "Overwrite"}), "doesn't exist"),
        (
            json!({"patches": ["{\"op\": \"replace\", \"path\": \"/metadata/name\"}"]}),
            "under /spec/",
        ),
        (
            json!({"patches": ["{\"path\": \"/spec/a\", \"value\": \"02:00\"}"]}),
            "one \":\" expected",
        ),
        (
            json!({"volumeRestoreOverrides": [{"volumeName": "a"}]}),
            "at least one",
        ),
    ];
    for (extra, part) in cases {
        let said = rig.refusal(RESTORE, &restore("r", &extra));
        assert!(said.contains(part), "{extra}: {said}");
    }
    rig.store
        .create(RESTORE, restore("first", &json!({})))
        .unwrap();
    let said = rig.refusal(RESTORE, &restore("second", &json!({})));
    assert!(said.contains("\"first\" in progress"), "{said}");
}
