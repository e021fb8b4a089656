//! VolumeSnapshots: binding, readiness, deletion, restoring, and what goes wrong.

use serde_json::{Value, json};

use super::{Lab, NS};
use crate::history::event::Site::Primary;
use crate::lab::api::{DeleteOptions, Part, meta};
use crate::lab::faults::Fault;
use crate::lab::storage::CLAIMS;
use crate::lab::storage::snapshots::group::{GROUP_CONTENTS, GROUPS};
use crate::lab::storage::snapshots::{CLASSES, CONTENTS, SNAPSHOTS};
use crate::lab::world;

impl Lab {
    fn snapshot(&self, name: &str, spec: &Value) {
        let object = json!({"metadata": {"name": name, "namespace": NS}, "spec": spec});
        self.store(Primary).create(SNAPSHOTS, object).unwrap();
    }

    async fn ready(&self, name: &str) -> std::sync::Arc<Value> {
        let found = self.until(Primary, SNAPSHOTS, name, |s| {
            s.pointer("/status/readyToUse") == Some(&json!(true))
        });
        found.await
    }

    /// The message of `status.error` once there is one.
    async fn failed(&self, name: &str) -> String {
        let found = self.until(Primary, SNAPSHOTS, name, |s| {
            s.pointer("/status/error").is_some()
        });
        meta::text(&*found.await, "/status/error/message").to_owned()
    }

    /// A claim bound to a volume whose first page holds `byte`.
    async fn filled(&self, name: &str, byte: u8) {
        self.claim(Primary, name, &json!({}));
        self.overwrite(name, byte).await;
    }

    async fn handle(&self, claim: &str) -> String {
        let (_, volume) = self.bound(Primary, claim).await;
        meta::text(&volume, "/spec/csi/volumeHandle").to_owned()
    }

    async fn overwrite(&self, claim: &str, byte: u8) {
        let handle = self.handle(claim).await;
        let disk = self.array.attach(Primary, &handle, "east-node-0", true);
        let disk = disk.unwrap();
        disk.write_at(0, &[byte; world::PAGE]).unwrap();
        disk.flush().unwrap();
    }

    async fn first_byte(&self, claim: &str) -> u8 {
        let handle = self.handle(claim).await;
        let disk = self.array.attach(Primary, &handle, "east-node-1", false);
        let mut page = [0; world::PAGE];
        disk.unwrap().read_at(0, &mut page).unwrap();
        page[0]
    }
}

fn of(claim: &str) -> Value {
    json!({"source": {"persistentVolumeClaimName": claim}})
}

fn from(snapshot: &str, size: &str) -> Value {
    json!({
        "dataSource": {
            "apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": snapshot,
        },
        "resources": {"requests": {"storage": size}},
    })
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_is_bound_ready_restored_and_taken_away_whole() {
    let lab = Lab::start();
    lab.filled("data", 1).await;
    lab.snapshot("snap", &of("data"));
    let source = lab.until(Primary, CLAIMS, "data", |c| {
        meta::finalizers(c).contains(&"snapshot.storage.kubernetes.io/pvc-as-source-protection")
    });
    source.await;
    let snapshot = lab.ready("snap").await;
    lab.overwrite("data", 2).await;
    assert_eq!(
        snapshot["spec"]["volumeSnapshotClassName"],
        world::SNAPSHOT_CLASS,
        "the default class of the driver"
    );
    assert_eq!(snapshot["status"]["restoreSize"], "1Gi");
    assert!(snapshot["status"]["creationTime"].is_string());
    let bound = meta::text(&snapshot, "/status/boundVolumeSnapshotContentName").to_owned();
    assert_eq!(bound, format!("snapcontent-{}", meta::uid(&snapshot)));
    let content = lab.store(Primary).get(CONTENTS, "", &bound).unwrap();
    assert_eq!(
        content["spec"]["volumeSnapshotRef"]["uid"],
        meta::uid(&snapshot)
    );
    assert_eq!(
        content["spec"]["source"]["volumeHandle"],
        lab.handle("data").await
    );
    assert_eq!(
        meta::annotation(
            &content,
            "snapshot.storage.kubernetes.io/volumesnapshot-being-created"
        ),
        None
    );
    let (source, _) = lab.bound(Primary, "data").await;
    assert_eq!(meta::finalizers(&source), ["kubernetes.io/pvc-protection"]);
    assert_eq!(
        lab.reasons(Primary, "snap"),
        ["CreatingSnapshot", "SnapshotCreated", "SnapshotReady"]
    );

    lab.claim(Primary, "copy", &from("snap", "2Gi"));
    let (copy, _) = lab.bound(Primary, "copy").await;
    assert_eq!(copy["spec"]["dataSourceRef"], copy["spec"]["dataSource"]);
    assert_eq!(lab.first_byte("copy").await, 1, "as it was at the cut");

    lab.delete(Primary, SNAPSHOTS, "snap");
    lab.gone(Primary, SNAPSHOTS, "snap").await;
    assert!(lab.store(Primary).get(CONTENTS, "", &bound).is_none());
    let handle = meta::text(&content, "/status/snapshotHandle");
    assert!(lab.array.snapshot_status(Primary, handle).is_err());
    assert_eq!(
        lab.first_byte("copy").await,
        1,
        "a restored volume lives on"
    );
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_cannot_be_restored_says_why_and_waits() {
    let lab = Lab::start();
    lab.filled("data", 1).await;
    lab.claim(Primary, "early", &from("snap", "1Gi"));
    lab.pass(5).await;
    lab.snapshot("snap", &of("data"));
    lab.ready("snap").await;
    lab.bound(Primary, "early").await;
    lab.claim(Primary, "small", &from("snap", "512Mi"));
    lab.pass(60).await;
    let small = lab.store(Primary).get(CLAIMS, NS, "small").unwrap();
    assert_eq!(small["status"]["phase"], "Pending");
    let events = lab.store(Primary).list("events", Some(NS));
    let said = |claim: &str, part: &str| {
        events.iter().any(|e| {
            meta::text(e, "/involvedObject/name") == claim
                && meta::text(e, "/message").contains(part)
        })
    };
    assert!(said(
        "early",
        "volumesnapshots.snapshot.storage.k8s.io \"snap\" not found"
    ));
    assert!(said("small", "is less than the size 1073741824"));

    lab.delete(Primary, SNAPSHOTS, "snap");
    lab.pass(60).await;
    assert!(
        lab.store(Primary).get(SNAPSHOTS, NS, "snap").is_some(),
        "a claim waits to be filled from it"
    );
    lab.delete(Primary, CLAIMS, "small");
    lab.gone(Primary, SNAPSHOTS, "snap").await;
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_cannot_be_taken_says_why() {
    let lab = Lab::start();
    lab.snapshot("none", &of("absent"));
    let said = lab.failed("none").await;
    assert!(said.contains("cannot get claim from snapshot"), "{said}");
    lab.claim(Primary, "absent", &json!({}));
    lab.ready("none").await;
    lab.filled("data", 1).await;
    let mut unknown = of("data");
    unknown["volumeSnapshotClassName"] = json!("later");
    lab.snapshot("unclassed", &unknown);
    let said = lab.failed("unclassed").await;
    assert!(said.contains("\"later\" not found"), "{said}");
    let class = json!({
        "metadata": {"name": "later"}, "driver": world::DRIVER, "deletionPolicy": "Retain",
    });
    lab.store(Primary).create(CLASSES, class).unwrap();
    let snapshot = lab.ready("unclassed").await;
    assert!(
        snapshot.pointer("/status/error").is_none(),
        "cleared on success"
    );

    let bound = meta::text(&snapshot, "/status/boundVolumeSnapshotContentName").to_owned();
    lab.delete(Primary, SNAPSHOTS, "unclassed");
    lab.gone(Primary, SNAPSHOTS, "unclassed").await;
    let kept = lab.store(Primary).get(CONTENTS, "", &bound).unwrap();
    let handle = meta::text(&kept, "/status/snapshotHandle");
    assert!(
        lab.array.snapshot_status(Primary, handle).is_ok(),
        "retained"
    );

    let given = json!({
        "metadata": {"name": "given"},
        "spec": {
            "driver": world::DRIVER, "deletionPolicy": "Delete",
            "source": {"snapshotHandle": handle},
            "volumeSnapshotRef": {"name": "again", "namespace": NS},
        },
    });
    lab.store(Primary).create(CONTENTS, given).unwrap();
    let source = json!({"source": {"volumeSnapshotContentName": "given"}});
    lab.snapshot("other", &source);
    assert!(
        lab.failed("other")
            .await
            .contains("bound to a different snapshot")
    );
    lab.snapshot("again", &source);
    let again = lab.ready("again").await;
    assert_eq!(again["status"]["boundVolumeSnapshotContentName"], "given");
    lab.delete(Primary, SNAPSHOTS, "again");
    lab.gone(Primary, SNAPSHOTS, "again").await;
    assert!(lab.array.snapshot_status(Primary, handle).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_planted_fault_leaves_a_snapshot_unready_without_an_error() {
    let lab = Lab::start();
    lab.filled("data", 1).await;
    lab.array.board().plant(Fault::SnapshotNeverReady);
    lab.snapshot("snap", &of("data"));
    assert!(lab.failed("snap").await.contains("code = Unavailable"));
    lab.pass(3600).await;
    let stuck = lab.store(Primary).get(SNAPSHOTS, NS, "snap").unwrap();
    assert_eq!(stuck["status"]["readyToUse"], false);
    assert!(stuck.pointer("/status/error").is_none(), "cleared");
    assert!(stuck["status"]["creationTime"].is_string(), "it was cut");
    let strikes = lab.array.strikes();
    assert!(strikes.iter().any(|s| s.fault == Fault::SnapshotNeverReady));
    lab.delete(Primary, SNAPSHOTS, "snap");
    lab.gone(Primary, SNAPSHOTS, "snap").await;
    let options = DeleteOptions::default();
    lab.store(Primary)
        .delete(CLAIMS, NS, "data", &options)
        .unwrap();
    lab.gone(Primary, CLAIMS, "data").await;
}

#[tokio::test(start_paused = true)]
async fn a_group_is_cut_at_one_instant_shown_by_members_and_taken_away_whole() {
    let lab = Lab::start();
    for (name, byte) in [("a", 1), ("b", 2)] {
        lab.claim(Primary, name, &json!({}));
        let store = lab.store(Primary);
        let labelled = store.modify(CLAIMS, NS, name, Part::Object, |claim| {
            claim["metadata"]["labels"]["app"] = json!("vm");
        });
        labelled.unwrap();
        lab.overwrite(name, byte).await;
    }
    lab.filled("other", 3).await;
    let group = |name: &str, app: &str| {
        let source = json!({"selector": {"matchLabels": {"app": app}}});
        let object =
            json!({"metadata": {"name": name, "namespace": NS}, "spec": {"source": source}});
        lab.store(Primary).create(GROUPS, object).unwrap();
    };
    group("g", "vm");
    let ready = |o: &Value| o.pointer("/status/readyToUse") == Some(&json!(true));
    let found = lab.until(Primary, GROUPS, "g", ready).await;
    for name in ["a", "b"] {
        lab.overwrite(name, 9).await;
    }
    assert_eq!(
        found["spec"]["volumeGroupSnapshotClassName"],
        world::GROUP_SNAPSHOT_CLASS
    );
    let content = meta::text(&found, "/status/boundVolumeGroupSnapshotContentName").to_owned();
    let content = lab
        .store(Primary)
        .get(GROUP_CONTENTS, "", &content)
        .unwrap();
    let infos = content["status"]["volumeSnapshotInfoList"]
        .as_array()
        .unwrap();
    let times: Vec<_> = infos.iter().map(|info| &info["creationTime"]).collect();
    assert!(times.len() == 2 && times[0] == times[1], "{times:?}");
    let members = lab.store(Primary).list(SNAPSHOTS, Some(NS));
    assert_eq!(
        members.len(),
        2,
        "one for each claim that the selector finds"
    );
    for (number, member) in members.iter().enumerate() {
        let name = meta::name(member).to_owned();
        let member = lab.ready(&name).await;
        assert_eq!(member["status"]["volumeGroupSnapshotName"], "g");
        assert_eq!(
            member["metadata"]["ownerReferences"][0]["uid"],
            meta::uid(&found)
        );
        let claim = meta::text(&member, "/spec/source/persistentVolumeClaimName");
        let copy = format!("copy-{number}");
        lab.claim(Primary, &copy, &from(&name, "1Gi"));
        assert_eq!(
            lab.first_byte(&copy).await,
            if claim == "a" { 1 } else { 2 }
        );
    }
    assert_eq!(lab.store(Primary).list(CONTENTS, None).len(), 2);
    let options = DeleteOptions::default();
    lab.store(Primary)
        .delete(GROUPS, NS, "g", &options)
        .unwrap();
    lab.gone(Primary, GROUPS, "g").await;
    for resource in [SNAPSHOTS, CONTENTS, GROUP_CONTENTS] {
        assert!(
            lab.store(Primary).list(resource, None).is_empty(),
            "{resource}"
        );
    }
    group("none", "absent");
    let error = |o: &Value| o.pointer("/status/error").is_some();
    let failed = lab.until(Primary, GROUPS, "none", error).await;
    let said = meta::text(&failed, "/status/error/message");
    assert!(said.ends_with("not applied to any PVC"), "{said}");
}
