//! A view with a bit of everything, for tests of the renderers.

use std::collections::BTreeMap;

use super::view::{
    Bracket, Mark, Open, Preflight, Record, Series, SiteView, StageView, StepView, SubjectView,
    Timeline, TrialView, VERSION, View,
};
use crate::check::verdict::{Measure, Status, Verdict};

/// A run with one failover that lost too much and whose subject names try to break the markup.
pub fn view() -> View {
    View {
        version: VERSION,
        name: "quarterly <dr>".into(),
        run_id: "00112233445566778899aabbccddeeff".into(),
        seed: 7,
        tool: "0.1.0".into(),
        plan_blake3: "ab".repeat(32),
        history_head: "cd".repeat(32),
        lab: true,
        started: jiff::Timestamp::UNIX_EPOCH,
        seconds: 41.25,
        ended: "completed".into(),
        status: Some(Status::Fail),
        counts: BTreeMap::from([
            ("pass".into(), 1),
            ("fail".into(), 1),
            ("inconclusive".into(), 1),
        ]),
        sites: vec![SiteView {
            site: "primary".into(),
            kubernetes: "v1.36.2".into(),
            kubevirt: Some("v1.9.0".into()),
            skew: "12 ms (± 510 ms)".into(),
            cluster: Some("6f3a4c1e-5b8e-4a52-9d0c-2f1f6f7f0c11".into()),
            classes: BTreeMap::from([("VolumeReplicationClass/rbd-1m".into(), "01".repeat(32))]),
        }],
        faults: vec!["sync-stalled".into()],
        notes: vec!["the second | note".into()],
        residue: Some(Vec::new()),
        trials: vec![trial()],
        record: record(),
    }
}

fn record() -> Record {
    Record {
        approver: "head of operations".into(),
        sha256: Some("ef".repeat(32)),
        preflight: Some(Preflight {
            asked: 22,
            missing: Vec::new(),
        }),
        deviations: vec!["t1 ledger-0<script> power-off failed: no answer".into()],
        artefacts: BTreeMap::from([("plan.yaml".into(), "ab".repeat(32))]),
        findings: vec![Open {
            check: "R1".into(),
            trial: "t1".into(),
            subject: "ledger-0<script>".into(),
            status: Status::Fail,
            summary: "6.9 s of writes are lost".into(),
            owner: String::new(),
            due: String::new(),
        }],
        ..Record::default()
    }
}

fn trial() -> TrialView {
    TrialView {
        id: "t1".into(),
        scenario: "failover.unplanned.node-down".into(),
        status: Some(Status::Fail),
        outcome: "ok".into(),
        seconds: 20.0,
        aimed: Some("sync-start".into()),
        steps: vec![StepView {
            name: "power-off".into(),
            outcome: "ok".into(),
            at: 12.0,
            seconds: 0.2,
        }],
        verdicts: vec![verdict(
            "O4",
            "",
            Status::Inconclusive,
            "the secondary did not answer",
        )],
        subjects: vec![subject()],
    }
}

fn subject() -> SubjectView {
    SubjectView {
        name: "ledger-0<script>".into(),
        status: Some(Status::Fail),
        verdicts: vec![
            verdict(
                "D2",
                "ledger-0<script>",
                Status::Pass,
                "both volumes are legal crash states",
            ),
            Verdict {
                witness: vec!["first missing: writer 0, write 911".into()],
                measures: vec![Measure {
                    name: "rpo".into(),
                    unit: "s".into(),
                    low: 6.5,
                    high: 6.9,
                    target: Some(5.0),
                }],
                ..verdict(
                    "R1",
                    "ledger-0<script>",
                    Status::Fail,
                    "6.9 s of writes are lost",
                )
            },
        ],
        timeline: timeline(),
        stages: vec![
            StageView {
                name: "handed-over".into(),
                at: 13.0,
                seconds: 1.0,
            },
            StageView {
                name: "promoted".into(),
                at: 15.5,
                seconds: 2.5,
            },
            StageView {
                name: "first-ack".into(),
                at: 16.0,
                seconds: 0.5,
            },
        ],
        blackout: None,
        stall: None,
        rpo: Some(Bracket {
            low: 6.5,
            high: 6.9,
            target: Some(5.0),
        }),
        rto: Some(Bracket {
            low: 4.0,
            high: 4.0,
            target: Some(20.0),
        }),
        acked: 4210,
        lost: Some(1320),
        coverage: Some(100.0),
        unprotected: Some(7.5),
    }
}

fn timeline() -> Timeline {
    let acks = |from: usize, to: usize| {
        (0..240)
            .map(|i| u64::from(i >= from && i < to) * 20)
            .collect()
    };
    Timeline {
        start: 4.0,
        end: 18.0,
        bin: 14.0 / 240.0,
        series: vec![
            Series {
                incarnation: "01".into(),
                site: "primary".into(),
                acks: acks(20, 137),
            },
            Series {
                incarnation: "02".into(),
                site: "secondary".into(),
                acks: acks(206, 208),
            },
        ],
        marks: vec![
            Mark {
                at: 12.0,
                kind: "fault".into(),
                label: "site-power-off".into(),
            },
            Mark {
                at: 12.1,
                kind: "stage".into(),
                label: "fenced".into(),
            },
            Mark {
                at: 15.5,
                kind: "stage".into(),
                label: "promoted".into(),
            },
        ],
        gap: Some((12.0, 16.0)),
    }
}

fn verdict(check: &str, subject: &str, status: Status, summary: &str) -> Verdict {
    Verdict {
        check: check.into(),
        trial: "t1".into(),
        scenario: "failover.unplanned.node-down".into(),
        subject: subject.into(),
        status,
        summary: summary.into(),
        witness: Vec::new(),
        warnings: Vec::new(),
        limits: vec!["one cut was tried".into()],
        measures: Vec::new(),
    }
}
