//! From plan, history and verdicts to the one value that all reports show.

use std::collections::BTreeMap;

use super::marks::marks;
use super::view::{
    Bracket, Mark, Series, SiteView, StageView, StepView, SubjectView, Timeline, TrialView,
    VERSION, View,
};
use crate::check::verdict::{Status, Verdict};
use crate::history::event::{Event, Fact, Outcome, Stage};
use crate::history::read::{History, Incarnation};
use crate::plan::Plan;
use crate::probe::layout::WRITER_CANARY;

/// Bins on a timeline.
const BINS: usize = 240;

/// Builds the view.
pub fn build(plan: &Plan, history: &History, verdicts: &[Verdict]) -> View {
    let mut view = header(plan, history, verdicts);
    for event in &history.events {
        if let (
            Some(trial),
            Fact::TrialStarted {
                scenario,
                subjects,
                aimed,
                ..
            },
        ) = (&event.trial, &event.fact)
        {
            let mut shown = trial_view(history, verdicts, trial, scenario, subjects);
            shown.aimed.clone_from(aimed);
            view.trials.push(shown);
        }
    }
    view
}

fn header(plan: &Plan, history: &History, verdicts: &[Verdict]) -> View {
    let mut counts = BTreeMap::new();
    for verdict in verdicts {
        let word = super::view::word(Some(verdict.status)).to_owned();
        *counts.entry(word).or_insert(0) += 1;
    }
    let first = history.events.first();
    let last = history.events.last();
    let mut view = View {
        version: VERSION,
        name: plan.name().to_owned(),
        run_id: String::new(),
        seed: 0,
        tool: String::new(),
        plan_blake3: String::new(),
        history_head: history.head.clone(),
        lab: false,
        started: first.map_or(jiff::Timestamp::UNIX_EPOCH, |e| e.wall),
        seconds: last.map_or(0.0, |e| secs(e.at_ns)),
        ended: String::new(),
        status: worst(verdicts.iter()),
        counts,
        sites: Vec::new(),
        faults: Vec::new(),
        notes: history.truncated.iter().cloned().collect(),
        residue: None,
        trials: Vec::new(),
        record: super::record::record(plan, history, verdicts),
    };
    for event in &history.events {
        absorb(&mut view, &event.fact);
    }
    view
}

fn absorb(view: &mut View, fact: &Fact) {
    match fact {
        Fact::RunStarted {
            run_id,
            seed,
            tool,
            plan_blake3,
            lab,
            ..
        } => {
            view.run_id.clone_from(run_id);
            view.seed = *seed;
            view.tool.clone_from(tool);
            view.plan_blake3.clone_from(plan_blake3);
            view.lab = *lab;
        }
        Fact::SiteSeen {
            site,
            kubernetes,
            kubevirt,
            clock_skew_ms,
            clock_bound_ms,
        } => {
            let site = SiteView {
                site: site.to_string(),
                kubernetes: kubernetes.clone(),
                kubevirt: kubevirt.clone(),
                skew: format!("{clock_skew_ms} ms (± {clock_bound_ms} ms)"),
                cluster: None,
                classes: BTreeMap::new(),
            };
            if !view.sites.contains(&site) {
                view.sites.push(site);
            }
        }
        Fact::SiteClasses {
            site,
            cluster,
            classes,
        } => {
            let site = site.to_string();
            for seen in view.sites.iter_mut().filter(|seen| seen.site == site) {
                seen.cluster.clone_from(cluster);
                seen.classes.clone_from(classes);
            }
        }
        Fact::Fault {
            name,
            active: true,
            detail,
            ..
        } if detail == PLANTED => {
            view.faults.push(name.clone());
        }
        Fact::Note { text } => view.notes.push(text.clone()),
        Fact::Swept { residue, .. } => {
            let left = view.residue.get_or_insert_with(Vec::new);
            let lines = residue
                .iter()
                .map(|r| format!("{}: {} {} ({})", r.site, r.kind, r.name, r.why));
            left.extend(lines);
        }
        Fact::RunEnded { reason } => view.ended.clone_from(reason),
        _ => {}
    }
}

/// The detail of a fault event that announces a fault planted into the simulated sites.
pub const PLANTED: &str = "planted";

fn trial_view(
    history: &History,
    verdicts: &[Verdict],
    trial: &str,
    scenario: &str,
    subjects: &[String],
) -> TrialView {
    let events: Vec<&Event> = history
        .events
        .iter()
        .filter(|e| e.trial.as_deref() == Some(trial))
        .collect();
    let mine = || verdicts.iter().filter(|v| v.trial == trial);
    let outcome = events.iter().find_map(|e| match &e.fact {
        Fact::TrialEnded { outcome } => Some(say(outcome)),
        _ => None,
    });
    let start = events.first().map_or(0.0, |e| secs(e.at_ns));
    TrialView {
        id: trial.to_owned(),
        scenario: scenario.to_owned(),
        status: worst(mine()),
        outcome: outcome.unwrap_or_else(|| "not ended".into()),
        seconds: events.last().map_or(0.0, |e| secs(e.at_ns)) - start,
        aimed: None,
        steps: steps(&events),
        verdicts: mine().filter(|v| v.subject.is_empty()).cloned().collect(),
        subjects: subjects
            .iter()
            .map(|name| {
                let events: Vec<&Event> = events
                    .iter()
                    .copied()
                    .filter(|e| e.subject.as_deref().is_none_or(|s| s == name))
                    .collect();
                let verdicts = mine().filter(|v| &v.subject == name).cloned().collect();
                subject_view(history, &events, verdicts, trial, name)
            })
            .collect(),
    }
}

fn steps(events: &[&Event]) -> Vec<StepView> {
    let mut open: BTreeMap<(Option<&str>, &str), f64> = BTreeMap::new();
    let mut out = Vec::new();
    for event in events {
        let subject = event.subject.as_deref();
        match &event.fact {
            Fact::StepStarted { step } => {
                open.insert((subject, step), secs(event.at_ns));
            }
            Fact::StepEnded { step, outcome } => {
                let at = open
                    .remove(&(subject, step))
                    .unwrap_or_else(|| secs(event.at_ns));
                let name = subject.map_or_else(|| step.clone(), |s| format!("{step} ({s})"));
                let seconds = secs(event.at_ns) - at;
                out.push(StepView {
                    name,
                    outcome: say(outcome),
                    at,
                    seconds,
                });
            }
            _ => {}
        }
    }
    for ((subject, step), at) in open {
        let name = subject.map_or_else(|| step.to_owned(), |s| format!("{step} ({s})"));
        out.push(StepView {
            name,
            outcome: "not ended".into(),
            at,
            seconds: 0.0,
        });
    }
    out
}

fn subject_view(
    history: &History,
    events: &[&Event],
    verdicts: Vec<Verdict>,
    trial: &str,
    name: &str,
) -> SubjectView {
    let runs: Vec<&Incarnation> = history
        .incarnations
        .iter()
        .filter(|i| i.trial.as_deref() == Some(trial) && i.subject.as_deref() == Some(name))
        .collect();
    let recovers = recovers(events);
    let stages = if recovers { stages(events) } else { Vec::new() };
    let measure = |check: &str, measure: &str| {
        let verdict = verdicts.iter().find(|v| v.check == check)?;
        let m = verdict.measures.iter().find(|m| m.name == measure)?;
        Some(Bracket {
            low: m.low,
            high: m.high,
            target: m.target,
        })
    };
    let lost = measure("R1", "lost-writes").or_else(|| measure("D1", "lost-writes"));
    SubjectView {
        name: name.to_owned(),
        status: worst(verdicts.iter()),
        timeline: timeline(events, &runs, recovers),
        stages,
        rpo: measure("R1", "rpo"),
        blackout: measure("M1", "blackout"),
        stall: stall(&verdicts),
        rto: measure("T1", "rto"),
        acked: runs.iter().map(|run| run.acks.writes()).sum(),
        lost: lost.map(|b| whole(b.high)),
        coverage: super::record::coverage(events),
        unprotected: super::record::unprotected(events),
        verdicts,
    }
}

/// The longest freeze of all.
fn stall(verdicts: &[Verdict]) -> Option<Bracket> {
    let measures = verdicts
        .iter()
        .filter(|v| v.check == "A4")
        .flat_map(|v| &v.measures);
    let stalls = measures.filter(|m| m.name == "freeze-stall");
    let longest = stalls.max_by(|a, b| a.high.total_cmp(&b.high))?;
    Some(Bracket {
        low: longest.low,
        high: longest.high,
        target: longest.target,
    })
}

/// A count that travelled as a float.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts of writes are whole, not negative and far below 2^52"
)]
fn whole(value: f64) -> u64 {
    value.max(0.0).round() as u64
}

/// Whether there was an outage to recover from: a VM that stays where it is closes stages too whenever
/// somebody logs in to it.
fn recovers(events: &[&Event]) -> bool {
    let begun = |event: &&Event| {
        matches!(
            event.fact,
            Fact::StageReached {
                stage: Stage::Fault | Stage::Ordered | Stage::Promoted
            }
        )
    };
    events.iter().any(begun)
}

/// Stages in the order they closed; each lasts from the one before.
fn stages(events: &[&Event]) -> Vec<StageView> {
    let mut before: Option<f64> = None;
    let mut out = Vec::new();
    for event in events {
        let Fact::StageReached { stage } = &event.fact else {
            continue;
        };
        let at = secs(event.at_ns);
        if let Some(before) = before {
            out.push(StageView {
                name: stage_name(*stage),
                at,
                seconds: at - before,
            });
        }
        before = Some(at);
    }
    out
}

pub(super) fn stage_name(stage: Stage) -> String {
    serde_json::to_value(stage)
        .ok()
        .and_then(|v| v.as_str().map(str::to_owned))
        .unwrap_or_default()
}

fn timeline(events: &[&Event], runs: &[&Incarnation], recovers: bool) -> Timeline {
    let beats = |run: &Incarnation| -> Vec<(f64, u64)> {
        let mut acks = run.acks.acked().peekable();
        let mut out = Vec::new();
        for (index, batch) in run.acks.batches().iter().enumerate() {
            let mut n = 0;
            while acks.next_if(|a| a.batch == index).is_some() {
                n += 1;
            }
            out.push((secs(batch.at_ns), n));
        }
        out
    };
    let all: Vec<_> = runs.iter().map(|run| (*run, beats(run))).collect();
    let marks = marks(events, recovers);
    let times = || {
        let acks = all.iter().flat_map(|(_, beats)| beats.iter().map(|b| b.0));
        acks.chain(marks.iter().map(|m| m.at))
    };
    let (start, end) = times().fold((f64::MAX, f64::MIN), |(a, b), t| (a.min(t), b.max(t)));
    if start >= end {
        return Timeline::default();
    }
    let pad = (end - start) * 0.02;
    let (start, end) = ((start - pad).max(0.0), end + pad);
    #[expect(clippy::cast_precision_loss, reason = "a few hundred bins")]
    let bin = (end - start) / BINS as f64;
    let series = all.iter().map(|(run, beats)| {
        let mut acks = vec![0; BINS];
        for (at, n) in beats {
            let index = usize::try_from(whole(((at - start) / bin).floor()));
            if let Some(slot) = index.ok().and_then(|index| acks.get_mut(index)) {
                *slot += n;
            }
        }
        Series {
            incarnation: run.name.clone(),
            site: run.site.to_string(),
            acks,
        }
    });
    Timeline {
        start,
        end,
        bin,
        series: series.collect(),
        gap: gap(runs, &marks),
        marks,
    }
}

/// From the last load ack heard before the first mark of a transition to the first canary ack.
fn gap(runs: &[&Incarnation], marks: &[Mark]) -> Option<(f64, f64)> {
    marks
        .iter()
        .find(|m| m.kind == "stage" || m.kind == "fault")?;
    let load = runs.first()?.acks.batches();
    let after = runs.iter().skip(1).find_map(|run| {
        let canary = run.acks.acked().find(|a| a.writer == WRITER_CANARY)?;
        run.acks.batches().get(canary.batch).map(|b| secs(b.at_ns))
    })?;
    let before = load.iter().map(|b| secs(b.at_ns)).rfind(|at| *at < after)?;
    Some((before, after))
}

fn say(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Ok => "ok".into(),
        Outcome::Failed(why) => format!("failed: {why}"),
        Outcome::Unknown(why) => format!("unknown: {why}"),
        Outcome::Skipped(why) => format!("skipped: {why}"),
    }
}

fn worst<'a>(verdicts: impl Iterator<Item = &'a Verdict>) -> Option<Status> {
    verdicts.map(|v| v.status).max()
}

/// Nanoseconds as seconds; f64 keeps microseconds for a century.
#[expect(
    clippy::cast_precision_loss,
    reason = "microseconds are enough for a picture"
)]
pub(super) fn secs(ns: u64) -> f64 {
    ns as f64 / 1e9
}
