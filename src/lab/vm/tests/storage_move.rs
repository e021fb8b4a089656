//! Disks that move to other claims: how, when not, taken back, and what a lost VMI leaves.

use super::*;
use crate::lab::api::Part;
use crate::lab::vm::storage_move::RECOVERY;
use crate::lab::world;

const PROGRESS: &str = "kubevirt.io/volume-update-in-progress";

fn volumes() -> Value {
    let mut volumes = fedora();
    let data = json!({"name": "data", "persistentVolumeClaim": {"claimName": "old"}});
    volumes.as_array_mut().unwrap().push(data);
    volumes
}

/// A running VM `a` whose disk `data` is on claim `old`.
async fn running(rig: &Rig) {
    rig.claim("old");
    rig.create(VM, machine("a", "Always", &volumes()));
    rig.agent("a").await;
}

/// Puts the disk on another claim, by a strategy.
fn order(rig: &Rig, claim: &str, strategy: &str) {
    let changed = rig.store.modify(VM, "default", "a", Part::Object, |vm| {
        vm["spec"]["updateVolumesStrategy"] = json!(strategy);
        let volumes = vm.pointer_mut("/spec/template/spec/volumes").unwrap();
        for volume in volumes.as_array_mut().unwrap() {
            if volume["name"] == "data" {
                volume["persistentVolumeClaim"]["claimName"] = json!(claim);
            }
        }
    });
    changed.unwrap();
}

fn names(vmi: &Value, claim: &str) -> bool {
    let mut volumes = items(vmi, "/spec/volumes").iter();
    volumes.any(|volume| claim_of(volume) == Some(claim))
}

fn jobs(rig: &Rig) -> Vec<Arc<Value>> {
    let mut jobs = rig.store.list(VMIM, Some("default"));
    jobs.retain(|job| meta::label(job, PROGRESS) == Some("a"));
    jobs
}

fn restart(vm: &Value) -> &str {
    let required = condition::get(vm, "RestartRequired");
    required.map_or("", |required| {
        required["message"].as_str().unwrap_or_default()
    })
}

#[tokio::test]
async fn a_disk_moves_under_the_guest_and_the_old_claim_is_let_go() {
    let rig = Rig::new().await;
    running(&rig).await;
    rig.claim("new");
    let mut seen = rig.store.watch(VMI);
    let boots = rig.kubevirt.guest("default", "a").unwrap();
    order(&rig, "new", "Migration");
    rig.until(VMI, "a", |vmi| {
        !items(vmi, "/status/migratedVolumes").is_empty()
    })
    .await;
    let vmi = rig
        .until(VMI, "a", |vmi| {
            names(vmi, "new")
                && vmi["status"]["migrationState"]["completed"] == true
                && condition::get(vmi, "VolumesChange").is_none()
        })
        .await;
    assert!(vmi.pointer("/status/migratedVolumes").is_none());
    let told = items(&vmi, "/status/volumeStatus").iter();
    let mut claims = told.filter_map(|v| v.pointer("/persistentVolumeClaimInfo/claimName"));
    assert!(claims.any(|claim| claim == "new"));
    let mut changed = false;
    while let Ok(change) = seen.try_recv() {
        changed |= condition::is_true(&change.object, "VolumesChange");
    }
    assert!(changed, "the condition was there meanwhile");
    let vm = rig
        .until(VM, "a", |vm| {
            vm.pointer("/status/volumeUpdateState").is_none()
        })
        .await;
    assert!(!restart(&vm).contains("volume"), "{}", restart(&vm));
    let [job] = &jobs(&rig)[..] else {
        panic!("one migration")
    };
    rig.until(VMIM, meta::name(job), |job| phase(job) == "Succeeded")
        .await;
    let open = |id: &str| {
        rig.array
            .attachments(Site::Primary, &world::handle(Site::Primary, id))
    };
    assert_eq!(open("new"), [meta::text(&vmi, "/status/nodeName")]);
    assert!(open("old").is_empty());
    let same = rig.kubevirt.guest("default", "a").unwrap();
    assert!(Arc::ptr_eq(&boots, &same) && same.connect(22).await.is_ok());
}

#[tokio::test]
async fn what_cannot_be_moved_asks_for_a_restart() {
    let rig = Rig::new().await;
    running(&rig).await;
    rig.claim("new");
    order(&rig, "new", "Replacement");
    let said = "the volumes replacement is effective only after restart";
    rig.until(VM, "a", |vm| restart(vm) == said).await;
    order(&rig, "old", "Replacement");
    rig.until(VM, "a", |vm| restart(vm) != said).await;
    let shared = rig.store.modify(VMI, "default", "a", Part::Any, |vmi| {
        let disks = vmi.pointer_mut("/spec/domain/devices/disks").unwrap();
        for disk in disks.as_array_mut().unwrap() {
            disk["shareable"] = json!(true);
        }
    });
    shared.unwrap();
    order(&rig, "new", "Migration");
    let said = "invalid volumes to update with migration: shareable: [data]";
    let vm = rig.until(VM, "a", |vm| restart(vm) == said).await;
    assert!(vm.pointer("/status/volumeUpdateState").is_none());
    assert!(jobs(&rig).is_empty());
}

#[tokio::test]
async fn a_destination_without_room_fails_again_and_again_until_the_move_is_taken_back() {
    let rig = Rig::new().await;
    running(&rig).await;
    rig.claim("new");
    let handle = world::handle(Site::Primary, "new");
    rig.array.delete(Site::Primary, &handle).unwrap();
    rig.array.create(Site::Primary, &handle, 1 << 19).unwrap();
    order(&rig, "new", "Migration");
    let vmi = rig
        .until(VMI, "a", |vmi| {
            vmi["status"]["migrationState"]["failed"] == true
        })
        .await;
    let why = meta::text(&vmi, "/status/migrationState/failureReason");
    assert!(
        why.contains("destination volume is smaller than the source volume"),
        "{why}"
    );
    let first = meta::text(&vmi, "/status/migrationState/migrationUid").to_owned();
    rig.until(VMI, "a", |vmi| {
        let state = &vmi["status"]["migrationState"];
        state["failed"] == true && state["migrationUid"] != first.as_str()
    })
    .await;
    order(&rig, "old", "Migration");
    let vmi = rig
        .until(VMI, "a", |vmi| {
            names(vmi, "old") && condition::get(vmi, "VolumesChange").is_none()
        })
        .await;
    assert!(vmi.pointer("/status/migratedVolumes").is_none());
    rig.until(VM, "a", |vm| {
        vm.pointer("/status/volumeUpdateState").is_none()
    })
    .await;
    let guest = rig.kubevirt.guest("default", "a").unwrap();
    assert!(guest.connect(22).await.is_ok());
}

#[tokio::test]
async fn a_vm_that_lost_its_vmi_in_the_middle_starts_only_once_its_volumes_are_put_back() {
    let rig = Rig::new().await;
    running(&rig).await;
    // The claim that the disk is to move to never comes, so the migration never ends.
    order(&rig, "new", "Migration");
    rig.until(VM, "a", |vm| condition::is_true(vm, "VolumesChange"))
        .await;
    rig.store
        .delete(VMI, "default", "a", &DeleteOptions::default())
        .unwrap();
    rig.until(VM, "a", |vm| condition::is_true(vm, RECOVERY))
        .await;
    rig.until_gone(VMI, "a").await;
    let vm = rig.store.get(VM, "default", "a").unwrap();
    assert!(!meta::deleting(&vm) && rig.store.get(VMI, "default", "a").is_none());
    order(&rig, "old", "Migration");
    let vm = rig.ready("a").await;
    assert!(condition::get(&vm, RECOVERY).is_none());
    assert!(names(&rig.store.get(VMI, "default", "a").unwrap(), "old"));
}
