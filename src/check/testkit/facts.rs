//! What the run records around the load.

use std::path::Path;

use super::{FAULT, Kit, LOAD, MS, START, VM};
use crate::check::catalogue;
use crate::history::event::{
    ConditionFact, Fact, LedgerMode, Outcome, ReplicationFact, Site, Stage, VolumeFact,
};
use crate::plan::{Known, Plan};

const EPOCH_S: i64 = 1_800_000_000;

pub(in crate::check) fn plan(objectives: &str) -> Plan {
    let text = format!(
        "apiVersion: virtproof.dev/v1alpha1
kind: Plan
metadata: {{name: test}}
sites:
  primary: {{context: east}}
  secondary: {{context: west}}
protection:
  driver: volumeReplication
  volumeReplicationClass: fast
  schedulingInterval: 2s
workloads:
  - name: ledger
    template: any
objectives: {objectives}
scenarios: [relocate.zero-loss]
"
    );
    crate::plan::parse(&text, "test", Path::new("."), &Known::nothing())
        .expect("a plan")
        .plan
}

pub(super) fn stamp(at_ns: u64) -> jiff::Timestamp {
    let at = i128::from(EPOCH_S) * 1_000_000_000 + i128::from(at_ns);
    jiff::Timestamp::from_nanosecond(at).expect("in range")
}

/// `lastSyncTime` as a cluster writes it: whole seconds.
pub(in crate::check) fn second(at_ns: u64) -> jiff::Timestamp {
    stamp(at_ns / 1_000_000_000 * 1_000_000_000)
}

impl Kit {
    #[expect(clippy::too_many_lines, reason = "a whole trial as one table of facts")]
    pub(super) fn tell(&mut self) {
        let volumes = (0u8..2)
            .map(|ordinal| VolumeFact {
                ordinal,
                name: format!("data{ordinal}"),
                pvc: format!("pvc-{ordinal}"),
                vol_id: format!("{:032x}", 0xABC0 + u128::from(ordinal)),
                volume_mode: "Block".into(),
                ledger: LedgerMode::Raw,
            })
            .collect();
        let pvcs: Vec<String> = vec!["root".into(), "pvc-0".into(), "pvc-1".into()];
        let s = Some(VM);
        let mut facts = vec![
            (
                0,
                None,
                Fact::RunStarted {
                    run_id: "00".repeat(16),
                    seed: 1,
                    tool: "test".into(),
                    plan_blake3: String::new(),
                    argv: Vec::new(),
                    lab: true,
                },
            ),
            (0, None, seen(Site::Primary)),
            (0, None, seen(Site::Secondary)),
            (
                1,
                None,
                Fact::TrialStarted {
                    scenario: self.scenario.into(),
                    subjects: vec![VM.into()],
                    checks: catalogue().iter().map(|spec| spec.id.to_owned()).collect(),
                    zero_loss: self.zero_loss,
                    aimed: None,
                    parts: std::collections::BTreeMap::new(),
                },
            ),
            (
                2,
                None,
                Fact::StepStarted {
                    step: "move".into(),
                },
            ),
            (
                3,
                s,
                Fact::SubjectCreated {
                    workload: "ledger".into(),
                    namespace: "ns".into(),
                    vm: VM.into(),
                    volumes,
                    pvcs: pvcs.clone(),
                    seed: self.seed,
                },
            ),
            (
                START - 10 * MS,
                s,
                Fact::LoadStarted {
                    incarnation: format!("{LOAD:016x}"),
                    rate: 0,
                    batch: u32::try_from(self.batch).expect("small"),
                },
            ),
            (
                FAULT - 200 * MS,
                s,
                replication(Site::Primary, &pvcs, Some(second(FAULT - 1_500 * MS))),
            ),
            (FAULT - 100 * MS, s, guest(Site::Primary)),
            (
                FAULT + 10 * MS,
                s,
                Fact::Fencing {
                    site: Site::Primary,
                    method: "stopVm".into(),
                    outcome: None,
                },
            ),
            (FAULT + 90 * MS, s, stopped(Site::Primary)),
            (
                FAULT + 100 * MS,
                s,
                Fact::Fencing {
                    site: Site::Primary,
                    method: "stopVm".into(),
                    outcome: Some(Outcome::Ok),
                },
            ),
            (
                FAULT + 300 * MS,
                s,
                Fact::Gate {
                    site: Site::Secondary,
                    forced: !self.zero_loss,
                    open: true,
                    why: String::new(),
                },
            ),
            (
                FAULT + 600 * MS,
                s,
                replication(Site::Secondary, &pvcs, None),
            ),
            (FAULT + 2_000 * MS, s, running(Site::Secondary)),
            (FAULT + 2_500 * MS, s, guest(Site::Secondary)),
            (
                FAULT + 6_000 * MS,
                None,
                Fact::StepEnded {
                    step: "move".into(),
                    outcome: Outcome::Ok,
                },
            ),
            (
                FAULT + 6_100 * MS,
                None,
                Fact::TrialEnded {
                    outcome: Outcome::Ok,
                },
            ),
            (
                FAULT + 7_000 * MS,
                None,
                Fact::Swept {
                    sites: vec![Site::Primary, Site::Secondary],
                    residue: Vec::new(),
                },
            ),
            (
                FAULT + 7_100 * MS,
                None,
                Fact::RunEnded {
                    reason: "completed".into(),
                },
            ),
        ];
        for pvc in &pvcs {
            facts.push((
                FAULT + 400 * MS,
                s,
                Fact::Claim {
                    site: Site::Secondary,
                    pvc: pvc.clone(),
                    pv: format!("pv-{pvc}"),
                    handle: format!("west-{pvc}"),
                    expected: Some(format!("west-{pvc}")),
                },
            ));
        }
        let stages = [
            (Stage::Fault, 0),
            (Stage::Ordered, 50),
            (Stage::Fenced, 100),
            (Stage::HandedOver, 400),
            (Stage::Promoted, 500),
            (Stage::VmCreated, 700),
            (Stage::VmiRunning, 2_000),
            (Stage::SshBanner, 2_300),
            (Stage::SshAuth, 2_400),
            (Stage::DevicesOpen, 2_800),
            (Stage::FirstAck, 3_001),
        ];
        facts.extend(stages.map(|(stage, ms)| (FAULT + ms * MS, s, Fact::StageReached { stage })));
        self.facts = facts;
    }
}

pub(super) fn seen(site: Site) -> Fact {
    Fact::SiteSeen {
        site,
        kubernetes: "v1.36".into(),
        kubevirt: None,
        clock_skew_ms: 0,
        clock_bound_ms: 2,
    }
}

pub(in crate::check) fn running(site: Site) -> Fact {
    Fact::Vm {
        site,
        status: "Running".into(),
        phase: "Running".into(),
        vmi_uid: None,
        node: None,
    }
}

pub(in crate::check) fn stopped(site: Site) -> Fact {
    Fact::Vm {
        site,
        status: "Stopped".into(),
        phase: String::new(),
        vmi_uid: None,
        node: None,
    }
}

pub(in crate::check) fn guest(site: Site) -> Fact {
    Fact::Guest {
        site,
        host_key: "SHA256:k".into(),
        host_key_pinned: (site == Site::Secondary).then_some(true),
        machine_id: "machine".into(),
        boot_id: match site {
            Site::Primary => "boot-a".into(),
            Site::Secondary => "boot-b".into(),
        },
    }
}

pub(in crate::check) fn replication(
    site: Site,
    pvcs: &[String],
    synced: Option<jiff::Timestamp>,
) -> Fact {
    let condition = |status: &str| ConditionFact {
        status: status.into(),
        reason: String::new(),
        message: String::new(),
    };
    let volumes = pvcs.iter().map(|pvc| ReplicationFact {
        pvc: pvc.clone(),
        desired: "primary".into(),
        state: "Primary".into(),
        current: true,
        conditions: [
            ("Completed".to_owned(), condition("True")),
            ("Degraded".to_owned(), condition("False")),
        ]
        .into(),
        last_sync_time: synced,
        message: String::new(),
    });
    Fact::Replication {
        site,
        volumes: volumes.collect(),
    }
}
