//! What every report shows: one owned, serialisable value, built once from the evidence.
//! `report.json` is this value; the other reports are functions of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::check::verdict::{Status, Verdict};

/// The version of `report.json`.
pub const VERSION: u32 = 1;

/// A whole run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct View {
    /// Schema version.
    pub version: u32,
    /// Plan name.
    pub name: String,
    /// Run id.
    pub run_id: String,
    /// Seed behind every random choice.
    pub seed: u64,
    /// Version of virtproof that ran.
    pub tool: String,
    /// BLAKE3 of the plan text.
    pub plan_blake3: String,
    /// BLAKE3 chain head of the history.
    pub history_head: String,
    /// Whether the sites were simulated.
    pub lab: bool,
    /// Wall clock at start.
    pub started: jiff::Timestamp,
    /// Seconds from first to last event.
    pub seconds: f64,
    /// How the run ended; empty when the history has no end.
    pub ended: String,
    /// Worst verdict, `None` when there is none.
    pub status: Option<Status>,
    /// Verdicts by status.
    pub counts: BTreeMap<String, usize>,
    /// What the sites run.
    pub sites: Vec<SiteView>,
    /// Faults planted on purpose.
    pub faults: Vec<String>,
    /// Notes and warnings.
    pub notes: Vec<String>,
    /// What was left after cleanup, `None` when nobody swept.
    pub residue: Option<Vec<String>>,
    /// Trials in the order they ran.
    pub trials: Vec<TrialView>,
    /// The record of the exercise.
    pub record: Record,
}

/// What auditors ask of an exercise beyond its verdicts. Empty texts are for people to fill in.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Who ordered the run.
    pub invoker: String,
    /// Who approved it.
    pub approver: String,
    /// Change ticket.
    pub change: String,
    /// SHA-256 of the executable that ran.
    pub sha256: Option<String>,
    /// BLAKE3 of the probe that it put into guests.
    pub probe_blake3: Option<String>,
    /// What was asked of the sites first, if the history has it.
    pub preflight: Option<Preflight>,
    /// Steps that did not go as planned, and what the history lacks.
    pub deviations: Vec<String>,
    /// The evidence that verdicts rest on: file → BLAKE3, for an ack segment the end of its chain.
    pub artefacts: BTreeMap<String, String>,
    /// What did not pass.
    pub findings: Vec<Open>,
}

/// The outcome of the preflight.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Preflight {
    /// Questions.
    pub asked: u64,
    /// What was missing.
    pub missing: Vec<String>,
}

/// A verdict that is not a pass, to be followed up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Open {
    /// Check id.
    pub check: String,
    /// Trial.
    pub trial: String,
    /// VM; empty for the trial as a whole.
    pub subject: String,
    /// The word.
    pub status: Status,
    /// What was found.
    pub summary: String,
    /// Who takes care of it; to be filled in.
    pub owner: String,
    /// By when; to be filled in.
    pub due: String,
}

/// One site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SiteView {
    /// `primary` or `secondary`.
    pub site: String,
    /// Kubernetes version.
    pub kubernetes: String,
    /// KubeVirt version.
    pub kubevirt: Option<String>,
    /// Clock skew, text with bound.
    pub skew: String,
    /// UID of the cluster's `kube-system` namespace, if it was read.
    pub cluster: Option<String>,
    /// Classes that the plan names: `Kind/name` → BLAKE3 of the class but its metadata.
    pub classes: BTreeMap<String, String>,
}

/// One scenario run on one workload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrialView {
    /// Trial id.
    pub id: String,
    /// Scenario id.
    pub scenario: String,
    /// Worst verdict.
    pub status: Option<Status>,
    /// `ok`, or what went wrong.
    pub outcome: String,
    /// Seconds it took.
    pub seconds: f64,
    /// The moment that its fault was aimed at, if it was aimed.
    pub aimed: Option<String>,
    /// Steps with their outcome and seconds.
    pub steps: Vec<StepView>,
    /// Verdicts on the trial as a whole.
    pub verdicts: Vec<Verdict>,
    /// Its VMs.
    pub subjects: Vec<SubjectView>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepView {
    /// Its name.
    pub name: String,
    /// `ok`, or what went wrong.
    pub outcome: String,
    /// Seconds from the run's start.
    pub at: f64,
    /// Seconds it took.
    pub seconds: f64,
}

/// One VM under test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SubjectView {
    /// Its name.
    pub name: String,
    /// Worst verdict.
    pub status: Option<Status>,
    /// Its verdicts.
    pub verdicts: Vec<Verdict>,
    /// Its timeline, in seconds from the run's start.
    pub timeline: Timeline,
    /// RTO stages: what closed, and seconds since the one before.
    pub stages: Vec<StageView>,
    /// Loss in time, if judged.
    pub rpo: Option<Bracket>,
    /// The longest time without a durable write in a live migration, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blackout: Option<Bracket>,
    /// The longest time for which frozen file systems took no write, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stall: Option<Bracket>,
    /// Outage, if judged.
    pub rto: Option<Bracket>,
    /// Acked writes heard.
    pub acked: u64,
    /// Acked writes lost, if judged.
    pub lost: Option<u64>,
    /// Percent of its volumes that the last read-back read.
    pub coverage: Option<f64>,
    /// Seconds from the order to replicate the other way until replicas were fresh, if seen.
    pub unprotected: Option<f64>,
}

/// A measured number with its bracket and target, seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bracket {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Target.
    pub target: Option<f64>,
}

/// One closed stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageView {
    /// Its name.
    pub name: String,
    /// Seconds from the run's start at which it closed.
    pub at: f64,
    /// Seconds it took.
    pub seconds: f64,
}

/// Acks over time and what happened around them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Timeline {
    /// First second shown.
    pub start: f64,
    /// Last second shown.
    pub end: f64,
    /// Width of a bin, seconds.
    pub bin: f64,
    /// Ack counts per incarnation.
    pub series: Vec<Series>,
    /// Marks.
    pub marks: Vec<Mark>,
    /// From the last ack before the transition to the first after it.
    pub gap: Option<(f64, f64)>,
}

/// Acks of one incarnation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Incarnation, hex.
    pub incarnation: String,
    /// Site.
    pub site: String,
    /// Acks heard per bin, from the timeline's start.
    pub acks: Vec<u64>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mark {
    /// Seconds from the run's start.
    pub at: f64,
    /// `fault`, `stage`, `fence`, `load`, `migration`, `freeze`, `cut`, `hotplug`, `order`.
    pub kind: String,
    /// Label.
    pub label: String,
}

/// The word for a status, or for none at all.
pub const fn word(status: Option<Status>) -> &'static str {
    match status {
        Some(Status::Pass) => "pass",
        Some(Status::Fail) => "fail",
        Some(Status::Inconclusive) => "inconclusive",
        None => "nothing judged",
    }
}
