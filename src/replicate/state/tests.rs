//! The condition table of csi-addons, row by row, against what each row allows.

use serde_json::{Value, json};

use super::*;

/// One row of the controller's table: event, spec, state, conditions, and what it proves.
struct Row {
    event: &'static str,
    desired: &'static str,
    state: &'static str,
    conditions: &'static [(&'static str, &'static str, &'static str)],
    promoted: bool,
    demoted: bool,
    clean: bool,
}

const ROWS: &[Row] = &[
    Row {
        event: "promote ok",
        desired: "primary",
        state: "Primary",
        conditions: &[
            ("Completed", "True", "Promoted"),
            ("Degraded", "False", "Healthy"),
            ("Resyncing", "False", "NotResyncing"),
        ],
        promoted: true,
        demoted: false,
        clean: false,
    },
    Row {
        event: "promote error",
        desired: "primary",
        state: "Unknown",
        conditions: &[
            ("Completed", "False", "FailedToPromote"),
            ("Degraded", "True", "Error"),
            ("Resyncing", "False", "NotResyncing"),
            ("Validated", "True", "PrerequisiteMet"),
        ],
        promoted: false,
        demoted: false,
        clean: false,
    },
    Row {
        event: "promote error after an earlier promotion keeps the state",
        desired: "primary",
        state: "Primary",
        conditions: &[
            ("Completed", "False", "FailedToPromote"),
            ("Degraded", "True", "Error"),
            ("Resyncing", "False", "NotResyncing"),
        ],
        promoted: false,
        demoted: false,
        clean: false,
    },
    Row {
        event: "first demote ok",
        desired: "secondary",
        state: "Secondary",
        conditions: &[
            ("Completed", "True", "Demoted"),
            ("Degraded", "True", "VolumeDegraded"),
            ("Resyncing", "False", "NotResyncing"),
        ],
        promoted: false,
        demoted: true,
        clean: false,
    },
    Row {
        event: "demote error",
        desired: "secondary",
        state: "Primary",
        conditions: &[
            ("Completed", "False", "FailedToDemote"),
            ("Degraded", "True", "Error"),
            ("Resyncing", "False", "NotResyncing"),
        ],
        promoted: false,
        demoted: false,
        clean: false,
    },
    Row {
        event: "resync running",
        desired: "secondary",
        state: "Secondary",
        conditions: &[
            ("Completed", "True", "Demoted"),
            ("Degraded", "True", "VolumeDegraded"),
            ("Resyncing", "True", "ResyncTriggered"),
        ],
        promoted: false,
        demoted: true,
        clean: false,
    },
    Row {
        event: "both ends secondary and in sync",
        desired: "secondary",
        state: "Secondary",
        conditions: &[
            ("Completed", "True", "Demoted"),
            ("Degraded", "False", "Healthy"),
            ("Resyncing", "False", "NotResyncing"),
        ],
        promoted: false,
        demoted: true,
        clean: true,
    },
    Row {
        event: "resync error",
        desired: "secondary",
        state: "Secondary",
        conditions: &[
            ("Completed", "False", "FailedToResync"),
            ("Degraded", "True", "Error"),
            ("Resyncing", "False", "FailedToResync"),
        ],
        promoted: false,
        demoted: false,
        clean: false,
    },
];

fn vr(row: &Row, generation: i64, observed: Option<i64>) -> VolumeReplication {
    let conditions: Vec<Value> = row
        .conditions
        .iter()
        .map(|(type_, status, reason)| {
            json!({"type": type_, "status": status, "reason": reason,
                "observedGeneration": observed})
        })
        .collect();
    serde_json::from_value(json!({
        "metadata": {"name": "data", "generation": generation,
            "creationTimestamp": Timestamp::now().to_string()},
        "spec": {"replicationState": row.desired},
        "status": {"state": row.state, "conditions": conditions, "observedGeneration": observed},
    }))
    .expect("a VolumeReplication")
}

#[test]
fn each_row_proves_what_it_should_and_nothing_else() {
    for row in ROWS {
        let vr = vr(row, 3, Some(3));
        assert_eq!(
            promoted(&vr) == Progress::Done,
            row.promoted,
            "{}: promoted",
            row.event
        );
        assert_eq!(
            demoted(&vr) == Progress::Done,
            row.demoted,
            "{}: demoted",
            row.event
        );
        assert_eq!(
            demoted_clean(&vr) == Progress::Done,
            row.clean,
            "{}: clean",
            row.event
        );
    }
}

#[test]
fn no_row_proves_anything_about_a_newer_spec() {
    for row in ROWS {
        for observed in [Some(2), None] {
            let vr = vr(row, 3, observed);
            for progress in [promoted(&vr), demoted(&vr), demoted_clean(&vr)] {
                assert!(
                    matches!(progress, Progress::Pending(_)),
                    "{}: {progress:?}",
                    row.event
                );
            }
        }
    }
}

#[test]
fn a_condition_of_an_older_generation_does_not_count() {
    // The group controller copies statuses and overwrites the outer generation; here one lags.
    let mut vr = vr(&ROWS[6], 3, Some(3));
    vr.status.conditions[1].observed_generation = Some(2);
    assert!(matches!(demoted_clean(&vr), Progress::Pending(_)));
    vr.status.conditions[1].observed_generation = None;
    assert_eq!(demoted_clean(&vr), Progress::Done);
    vr.status.conditions.remove(2);
    assert!(
        matches!(demoted_clean(&vr), Progress::Pending(_)),
        "absent is not False"
    );
}

#[test]
fn a_clone_whose_parent_is_not_mirrored_is_stuck() {
    let mut stuck = vr(&ROWS[1], 1, Some(1));
    stuck.status.conditions[3].status = Truth::False;
    let Progress::Stuck(why) = promoted(&stuck) else {
        panic!("{:?}", promoted(&stuck))
    };
    assert!(why.contains("parent"), "{why}");
    // A Validated=False left over from before a success is no obstacle.
    let mut fine = vr(&ROWS[0], 1, Some(1));
    fine.status
        .conditions
        .push(stuck.status.conditions[3].clone());
    assert_eq!(promoted(&fine), Progress::Done);
}

#[test]
fn a_status_that_stays_blank_is_stuck_after_a_while() {
    let born = Timestamp::now();
    let vr: VolumeReplication = serde_json::from_value(json!({
        "metadata": {"name": "data", "generation": 1, "creationTimestamp": born.to_string()},
        "spec": {"replicationState": "primary"},
    }))
    .expect("a VolumeReplication");
    assert!(matches!(promoted(&vr), Progress::Pending(_)));
    let later = born + BLANK_LIMIT + Duration::from_secs(2);
    let Progress::Stuck(why) = blank(&vr, later) else {
        panic!("not stuck")
    };
    assert!(why.contains("CSIAddonsNode"), "{why}");
    let earlier = born - BLANK_LIMIT - Duration::from_secs(2);
    assert!(
        matches!(blank(&vr, earlier), Progress::Pending(_)),
        "our clock may be behind"
    );
}

#[test]
fn an_object_that_is_being_deleted_is_stuck() {
    let mut vr = vr(&ROWS[0], 1, Some(1));
    vr.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
        Timestamp::now(),
    ));
    vr.metadata.finalizers = Some(vec!["replication.storage.openshift.io".into()]);
    let Progress::Stuck(why) = promoted(&vr) else {
        panic!("not stuck")
    };
    assert!(why.contains("replication.storage.openshift.io"), "{why}");
}

#[test]
fn only_a_later_sync_time_is_a_sync() {
    let mut vr = vr(&ROWS[0], 1, Some(1));
    let at = |text: &str| text.parse::<Timestamp>().expect("a timestamp");
    let asked = at("2026-11-22T10:00:00Z");
    assert!(
        matches!(synced_after(&vr, asked), Progress::Pending(_)),
        "none yet"
    );
    for (text, done) in [
        ("2026-11-22T09:59:59Z", false),
        ("2026-11-22T10:00:00Z", false),
        ("2026-11-22T10:00:01Z", true),
    ] {
        vr.status.last_sync_time = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(
            text,
        )));
        assert_eq!(synced_after(&vr, asked) == Progress::Done, done, "{text}");
    }
    vr.status.message = "split-brain detected".into();
    assert!(matches!(synced_after(&vr, asked), Progress::Stuck(_)));
}

#[test]
fn a_set_has_synced_to_its_slowest_volume() {
    let at = |text: &str| text.parse::<Timestamp>().expect("a timestamp");
    let seen = |text: Option<&str>| {
        let mut vr = vr(&ROWS[0], 1, Some(1));
        vr.status.last_sync_time =
            text.map(|t| k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(t)));
        VolumeState::Seen(Box::new(vr))
    };
    let observation = |volumes: Vec<VolumeState>| Observation {
        site: Site::Primary,
        volumes: volumes.into_iter().map(|v| ("p".to_owned(), v)).collect(),
    };
    let (early, late) = ("2026-11-22T10:00:00Z", "2026-11-22T10:05:00Z");
    let both = observation(vec![seen(Some(late)), seen(Some(early))]);
    assert_eq!(both.synced_to(), Some(at(early)));
    assert_eq!(both.facts().len(), 2);
    assert_eq!(both.facts()[0].conditions["Completed"].reason, "Promoted");
    assert!(both.facts()[0].current);
    let one = observation(vec![seen(Some(late)), seen(None)]);
    assert_eq!(one.synced_to(), None);
    let absent = observation(vec![seen(Some(late)), VolumeState::Absent]);
    assert_eq!((absent.synced_to(), absent.facts().len()), (None, 1));
    assert_eq!(
        observation(vec![]).synced_to(),
        None,
        "nothing is not in sync"
    );
}
