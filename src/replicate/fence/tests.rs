//! Addresses by source, and a fence that is believed only for the direction asked.

use std::time::Duration;

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::cluster::testing::Fake;
use crate::cluster::undo::UndoLog;

const FENCE: &str = "/apis/csiaddons.openshift.io/v1alpha1/networkfences/virtproof-run-1-primary";

fn deadline(limit: Duration) -> Deadline {
    Deadline::after(limit, &CancellationToken::new())
}

fn owner(dir: &tempfile::TempDir) -> Owner {
    let log = UndoLog::create(&dir.path().join("undo.jsonl"), "run-1").expect("a log");
    Owner::new("run-1", log)
}

async fn site() -> Fake {
    let fake = Fake::start().await;
    fake.put(
        "/apis/csiaddons.openshift.io/v1alpha1/networkfenceclasses/nfc",
        json!({"metadata": {"name": "nfc"}, "spec": {"provisioner": "rbd.csi.example"}}),
    );
    let node = |name: &str, address: &str| {
        json!({"metadata": {"name": name}, "status": {"addresses": [
            {"type": "Hostname", "address": name}, {"type": "InternalIP", "address": address}]}})
    };
    fake.put("/api/v1/nodes/b", node("b", "fd00::2"));
    fake.put("/api/v1/nodes/a", node("a", "10.0.0.1"));
    fake
}

#[tokio::test]
async fn addresses_come_from_the_best_source() {
    let fake = site().await;
    let cluster = fake.cluster(Site::Primary);
    let planned = ["192.0.2.0/24".to_owned()];
    let found = addresses(&cluster, "nfc", &planned).await.expect("planned");
    assert_eq!(found, (planned.to_vec(), "from the plan"));
    let found = addresses(&cluster, "nfc", &[]).await.expect("nodes");
    assert_eq!(found.0, ["10.0.0.1/32", "fd00::2/128"]);
    let sidecar = |driver: &str, cidr: &str| {
        json!({"metadata": {"namespace": "csi", "name": driver},
            "spec": {"driver": {"name": driver, "nodeID": "a"}},
            "status": {"state": "Connected", "networkFenceClientStatus": [
                {"networkFenceClassName": "nfc", "ClientDetails": [{"id": "x", "cidrs": [cidr]}]},
                {"networkFenceClassName": "other", "ClientDetails": [{"cidrs": ["1.1.1.1/32"]}]}]}})
    };
    let nodes = "/apis/csiaddons.openshift.io/v1alpha1/namespaces/csi/csiaddonsnodes";
    fake.put(
        &format!("{nodes}/a"),
        sidecar("rbd.csi.example", "10.9.0.1/32"),
    );
    fake.put(
        &format!("{nodes}/b"),
        sidecar("nfs.csi.example", "10.9.0.2/32"),
    );
    let found = addresses(&cluster, "nfc", &[]).await.expect("sidecars");
    assert_eq!(
        found,
        (vec!["10.9.0.1/32".to_owned()], "from CSIAddonsNode")
    );
}

#[tokio::test]
async fn a_fence_holds_when_the_storage_says_so_in_this_direction() {
    let (fake, dir) = (site().await, tempfile::tempdir().expect("a directory"));
    let (cluster, owner) = (fake.cluster(Site::Primary), owner(&dir));
    let limit = deadline(Duration::from_secs(20));
    let says = |result: &str, message: &str| {
        fake.change(
            FENCE,
            &json!({"status": {"result": result, "message": message}}),
        );
    };
    let controller = async {
        while fake.get(FENCE).is_none() {
            tokio::task::yield_now().await;
        }
        says("Failed", "rpc error: deadline exceeded");
        // A success of the other direction, left from before.
        says("Succeeded", "unfencing operation successful");
        says("Succeeded", "fencing operation successful");
    };
    let (held, ()) = tokio::join!(fence(&cluster, &owner, "nfc", &[], &limit), controller);
    let held = held.expect("fenced");
    assert_eq!(held.cidrs, ["10.0.0.1/32", "fd00::2/128"]);
    let undo = owner.undo().pending();
    assert!(
        matches!(&undo[..], [e] if matches!(&e.undo, Undo::Unfence { .. })),
        "{undo:?}"
    );

    let short = deadline(Duration::from_millis(200));
    let error = lift(&cluster, &held.name, &short)
        .await
        .expect_err("the old success is stale");
    assert!(error.to_string().contains("Unfenced asked for"), "{error}");
    says("Succeeded", "unfencing operation successful");
    lift(&cluster, &held.name, &limit).await.expect("lifted");

    // Fencing again reuses the object, and must not believe the old word either.
    let again = async {
        while fake.get(FENCE).expect("there")["spec"]["fenceState"] != "Fenced" {
            tokio::task::yield_now().await;
        }
        says("Succeeded", "fencing operation successful");
    };
    let (held, ()) = tokio::join!(fence(&cluster, &owner, "nfc", &[], &limit), again);
    held.expect("fenced again");
}

#[tokio::test]
async fn a_result_that_stays_empty_and_one_that_is_refused_are_told_apart() {
    let (fake, dir) = (site().await, tempfile::tempdir().expect("a directory"));
    let (cluster, owner) = (fake.cluster(Site::Primary), owner(&dir));
    let short = deadline(Duration::from_millis(300));
    let error = fence(&cluster, &owner, "nfc", &[], &short)
        .await
        .expect_err("no leader");
    assert!(error.to_string().contains("leader"), "{error}");
    let refused = json!({"status": {"result": "Failed", "message": "invalid CIDR 10.0.0.1/99"}});
    fake.change(FENCE, &refused);
    let error = fence(
        &cluster,
        &owner,
        "nfc",
        &[],
        &deadline(Duration::from_secs(20)),
    )
    .await;
    assert!(matches!(error, Err(Error::Stuck { .. })), "{error:?}");
}
