//! Whatever the objects say, the gate opens only on the whole truth.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::cluster::crd::replication::VolumeReplication;

/// What a volume's object says, as plain data, so that the oracle need not ask the code under test.
#[derive(Debug, Clone)]
struct Said {
    desired: Option<&'static str>,
    state: &'static str,
    generation: i64,
    observed: Option<i64>,
    conditions: Vec<(&'static str, &'static str, &'static str, Option<i64>)>,
    deleting: bool,
}

impl Said {
    fn clean() -> Self {
        Self {
            desired: Some("secondary"),
            state: "Secondary",
            generation: 2,
            observed: Some(2),
            conditions: vec![
                ("Completed", "True", "Demoted", Some(2)),
                ("Degraded", "False", "Healthy", Some(2)),
                ("Resyncing", "False", "NotResyncing", Some(2)),
            ],
            deleting: false,
        }
    }

    fn object(&self) -> VolumeState {
        let conditions: Vec<Value> = self
            .conditions
            .iter()
            .map(|(type_, status, reason, observed)| {
                json!({"type": type_, "status": status, "reason": reason,
                    "observedGeneration": observed})
            })
            .collect();
        let mut object = json!({
            "metadata": {"name": "data", "generation": self.generation},
            "spec": {"replicationState": self.desired},
            "status": {"state": self.state, "observedGeneration": self.observed,
                "conditions": conditions},
        });
        if self.deleting {
            object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        let vr: VolumeReplication = serde_json::from_value(object).expect("an object");
        VolumeState::Seen(Box::new(vr))
    }

    /// The sentence of the csi-addons reference, word by word.
    fn is_clean(&self) -> bool {
        let holds = |type_: &str, status: &str| {
            self.conditions
                .iter()
                .find(|c| c.0 == type_)
                .is_some_and(|c| {
                    c.1 == status && c.3.is_none_or(|observed| observed == self.generation)
                })
        };
        let demoted = self
            .conditions
            .iter()
            .find(|c| c.0 == "Completed")
            .is_some_and(|c| c.2 == "Demoted");
        !self.deleting
            && self.observed == Some(self.generation)
            && self.desired == Some("secondary")
            && self.state == "Secondary"
            && holds("Completed", "True")
            && demoted
            && holds("Degraded", "False")
            && holds("Resyncing", "False")
    }
}

fn status() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["True", "False", "Unknown"])
}

fn observed() -> impl Strategy<Value = Option<i64>> {
    prop::sample::select(vec![None, Some(1), Some(2), Some(2), Some(2)])
}

/// Objects near the clean one, each field wrong now and then.
fn said() -> impl Strategy<Value = Said> {
    let desired = prop::sample::select(vec![
        Some("secondary"),
        Some("secondary"),
        Some("secondary"),
        Some("primary"),
        Some("resync"),
        None,
    ]);
    let state = prop::sample::select(vec!["Secondary", "Secondary", "Secondary", "Primary", ""]);
    let completed = (
        status(),
        prop::sample::select(vec!["Demoted", "Promoted"]),
        observed(),
    );
    let other = || (status(), observed());
    let noise = (any::<[bool; 3]>(), prop::bool::weighted(0.05));
    (
        desired,
        state,
        observed(),
        completed,
        other(),
        other(),
        noise,
    )
        .prop_map(
            |(desired, state, observed, completed, degraded, resyncing, (keep, deleting))| {
                let mut conditions = vec![
                    ("Completed", completed.0, completed.1, completed.2),
                    ("Degraded", degraded.0, "Any", degraded.1),
                    ("Resyncing", resyncing.0, "Any", resyncing.1),
                ];
                // Usually all three are there.
                if keep == [false, false, false] {
                    conditions.remove(1);
                }
                Said {
                    desired,
                    state,
                    generation: 2,
                    observed,
                    conditions,
                    deleting,
                }
            },
        )
}

fn mostly_clean() -> impl Strategy<Value = Said> {
    prop_oneof![3 => Just(Said::clean()), 1 => said()]
}

fn vm() -> impl Strategy<Value = SourceVm> {
    prop_oneof![
        4 => Just(SourceVm::Gone),
        1 => Just(SourceVm::Present("VMI phase Running".into())),
        1 => Just(SourceVm::Unknown("no answer".into())),
    ]
}

fn evidence() -> impl Strategy<Value = Evidence> {
    prop_oneof![
        Just(Evidence::Fenced("f".into())),
        Just(Evidence::Stopped("s".into())),
        Just(Evidence::Down("d".into())),
        Just(Evidence::PolicyNone),
    ]
}

fn question(mode: Mode, source_vm: SourceVm, volumes: &[Said]) -> Question {
    Question {
        site: Site::Secondary,
        mode,
        source_vm,
        source: volumes
            .iter()
            .enumerate()
            .map(|(i, said)| (format!("pvc-{i}"), said.object()))
            .collect(),
    }
}

proptest! {
    #[test]
    fn a_planned_promotion_needs_every_volume_clean_and_the_vm_gone(
        volumes in prop::collection::vec(mostly_clean(), 0..5),
        source_vm in vm(),
    ) {
        let open = admit(&question(Mode::Planned, source_vm.clone(), &volumes));
        let right = !volumes.is_empty()
            && source_vm == SourceVm::Gone
            && volumes.iter().all(Said::is_clean);
        prop_assert_eq!(open.is_ok(), right, "{:?}", open);
        if let Ok(pass) = open {
            prop_assert!(!pass.forced());
            prop_assert_eq!(pass.site(), Site::Secondary);
        }
    }

    #[test]
    fn one_volume_that_is_not_clean_closes_the_gate(
        count in 1_usize..5, at in any::<prop::sample::Index>(), odd in said(),
    ) {
        let mut volumes = vec![Said::clean(); count];
        let at = at.index(count);
        volumes[at] = odd.clone();
        let open = admit(&question(Mode::Planned, SourceVm::Gone, &volumes));
        prop_assert_eq!(open.is_ok(), odd.is_clean());
        if let Err(Closed(why)) = open {
            let pvc = format!("pvc-{at} ");
            prop_assert!(why.contains(&pvc), "{} does not name it", why);
        }
    }

    #[test]
    fn a_volume_that_cannot_be_read_closes_the_gate(
        count in 1_usize..5, at in any::<prop::sample::Index>(), absent in any::<bool>(),
    ) {
        let mut question = question(Mode::Planned, SourceVm::Gone, &vec![Said::clean(); count]);
        question.source[at.index(count)].1 =
            if absent { VolumeState::Absent } else { VolumeState::Unknown("down".into()) };
        prop_assert!(admit(&question).is_err());
    }

    #[test]
    fn force_never_passes_a_peer_that_is_seen_to_write(
        volumes in prop::collection::vec(said(), 0..4), source_vm in vm(), evidence in evidence(),
    ) {
        let mode = Mode::Forced(evidence.clone());
        let open = admit(&question(mode, source_vm.clone(), &volumes));
        let present = matches!(source_vm, SourceVm::Present(_));
        let contradicted = present && matches!(evidence, Evidence::Stopped(_) | Evidence::Down(_));
        prop_assert_eq!(open.is_ok(), !volumes.is_empty() && !contradicted);
        if let Ok(pass) = open {
            prop_assert!(pass.forced());
            prop_assert!(pass.why().contains("forced"));
        }
    }

    #[test]
    fn a_primary_is_released_only_when_its_replica_may_go(
        volumes in prop::collection::vec(said(), 0..4),
    ) {
        let both: Vec<_> = volumes.iter().map(|s| ("pvc".to_owned(), s.object())).collect();
        let primary =
            volumes.iter().any(|s| s.desired == Some("primary") || s.state == "Primary");
        prop_assert_eq!(may_release(&both, false).is_ok(), !primary);
        prop_assert!(may_release(&both, true).is_ok());
    }
}

#[test]
fn a_pass_is_for_the_volumes_that_were_asked_about() {
    let pass = admit(&question(
        Mode::Planned,
        SourceVm::Gone,
        &[Said::clean(), Said::clean()],
    ))
    .expect("open");
    let set = |pvcs: &[&str]| Set {
        namespace: "demo".into(),
        vm: "vm".into(),
        pvcs: pvcs.iter().map(|p| (*p).to_owned()).collect(),
    };
    assert!(pass.covers(&set(&["pvc-0", "pvc-1"])));
    assert!(!pass.covers(&set(&["pvc-0", "pvc-1", "pvc-2"])));
    assert!(!pass.covers(&set(&["pvc-0"])));
}

#[test]
fn what_cannot_be_read_is_not_released() {
    let unknown = [("pvc".to_owned(), VolumeState::Unknown("down".into()))];
    assert!(may_release(&unknown, false).is_err());
    assert!(may_release(&[("pvc".to_owned(), VolumeState::Absent)], false).is_ok());
}
