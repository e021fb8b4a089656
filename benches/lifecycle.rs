//! What a VM costs from its creation to its removal: time and API requests, in the lab.
//!
//! `cargo bench --bench lifecycle -- [VMS…]` runs the planned move of the catalogue on so many
//! simulated VMs at once, with the built-in plan, and counts at the API servers of both sites what was
//! asked of them. The lab's own controllers do not go through them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use virtproof::check::verdict::Status;
use virtproof::history::event::{Event, Fact, Site};
use virtproof::lab::api::RunningServer;
use virtproof::lab::{Guests, Lab, LabConfig};
use virtproof::plan::{self, Known};
use virtproof::run::{self, Request};

const SCENARIO: &str = "relocate.zero-loss";
/// What the table shows, by the last step that belongs to it.
const PHASES: [(&str, &str); 5] = [
    ("create to running", "provision"),
    ("fill and first sync", "baseline"),
    ("load", "load"),
    ("relocate", "recover"),
    ("read back", "read-back"),
];
const CLEANUP: &str = "clean up";

fn main() -> ExitCode {
    let words = std::env::args().skip(1).filter(|word| word != "--bench");
    let counts: Result<Vec<usize>, _> = words.map(|word| word.parse()).collect();
    let outcome = counts.map_err(anyhow::Error::from).and_then(|counts| {
        let counts = if counts.is_empty() {
            vec![1, 10, 50]
        } else {
            counts
        };
        tokio::runtime::Runtime::new()?.block_on(all(&counts))
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]
fn say(text: &str) {
    println!("{text}");
}

async fn all(counts: &[usize]) -> anyhow::Result<()> {
    say("| VMs | phase | seconds | requests | a VM | by verb |");
    say("|---|---|---|---|---|---|");
    for count in counts {
        one(*count).await.with_context(|| format!("{count} VMs"))?;
    }
    Ok(())
}

type Verbs = BTreeMap<&'static str, u64>;

/// Where the run was at a moment, and what had been asked by then.
struct Mark {
    phase: &'static str,
    at_ns: u64,
    verbs: Verbs,
}

fn asked(lab: &Lab) -> Verbs {
    let mut sum = Verbs::new();
    for site in [Site::Primary, Site::Secondary] {
        let known = lab.server(site).map(RunningServer::requests_by_verb);
        for (verb, count) in known.unwrap_or_default() {
            *sum.entry(verb).or_default() += count;
        }
    }
    sum
}

async fn one(count: usize) -> anyhow::Result<()> {
    let dir = tempfile::Builder::new().prefix("vp-bench-").tempdir()?;
    let config = LabConfig {
        dir: dir.path().to_owned(),
        seed: 5,
        time_scale: LabConfig::FAST,
        guests: Guests::Simulated,
    };
    let lab = Arc::new(Lab::start(&config).await?);
    let request = request(dir.path(), count)?;
    let cancel = CancellationToken::new();
    let mut marks = None;
    let ended = run::run(&request, &cancel, |recorder| {
        let events = recorder.subscribe();
        marks = Some(tokio::spawn(watch(events, Arc::clone(&lab))));
    })
    .await?;
    let marks = marks.context("the run began")?.await??;
    let status = ended.view.status;
    table(count, &marks);
    let lab = Arc::into_inner(lab).context("the lab is still in use")?;
    lab.stop().await;
    dir.close()?;
    // What is slower than an objective is for a bench to tell, not to fail on.
    if status != Some(Status::Pass) {
        say(&format!("| {count} | | | | | the run came to {status:?} |"));
    }
    Ok(())
}

fn request(dir: &Path, count: usize) -> anyhow::Result<Request> {
    let sets = [
        format!("workloads.0.count={count}"),
        format!("scenarios=[{SCENARIO}]"),
        // So many VMs on two cores take longer than the three that the plan is made for.
        "deadlines={boot: 4m, ssh: 4m, sync: 4m, transition: 4m, cleanup: 4m}".to_owned(),
    ];
    Ok(Request {
        plan: plan::lab_with(dir, &sets, &Known::nothing())?,
        only: Vec::new(),
        out: dir.join("run"),
        keep_on_failure: false,
        seed: 5,
        probe: None,
        argv: Vec::new(),
        lab: true,
        simulated: true,
        faults: Vec::new(),
        sign_key: None,
    })
}

/// Notes when each phase ended for the last of the VMs.
async fn watch(mut events: Receiver<Arc<Event>>, lab: Arc<Lab>) -> anyhow::Result<Vec<Mark>> {
    let mut marks = Vec::new();
    let mut still: BTreeMap<&str, usize> = BTreeMap::new();
    let mut mark = |phase, event: &Event| {
        marks.push(Mark {
            phase,
            at_ns: event.at_ns,
            verbs: asked(&lab),
        });
    };
    loop {
        let event = match events.recv().await {
            Ok(event) => event,
            Err(RecvError::Lagged(missed)) => bail!("{missed} events came too fast"),
            Err(RecvError::Closed) => break,
        };
        match &event.fact {
            Fact::TrialStarted { subjects, .. } => {
                still.extend(PHASES.map(|(phase, _)| (phase, subjects.len())));
                mark("preflight", &event);
            }
            Fact::StepEnded { step, .. } => {
                let ended = PHASES.iter().find(|(_, last)| last == step);
                if let Some((phase, _)) = ended
                    && let Some(left) = still.get_mut(phase)
                {
                    *left -= 1;
                    if *left == 0 {
                        mark(phase, &event);
                    }
                }
            }
            Fact::RunEnded { .. } => mark(CLEANUP, &event),
            _ => {}
        }
    }
    Ok(marks)
}

fn table(count: usize, marks: &[Mark]) {
    for pair in marks.windows(2) {
        let [from, to] = pair else { continue };
        row(count, to.phase, from, to);
    }
    if let (Some(first), Some(last)) = (marks.first(), marks.last()) {
        row(count, "all of it", first, last);
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn row(count: usize, phase: &str, from: &Mark, to: &Mark) {
    let before = |verb| from.verbs.get(verb).copied().unwrap_or(0);
    let verbs = to
        .verbs
        .iter()
        .map(|(verb, sum)| (*verb, sum - before(*verb)));
    let verbs: Vec<_> = verbs.filter(|(_, sum)| *sum > 0).collect();
    let total: u64 = verbs.iter().map(|(_, sum)| sum).sum();
    let words: Vec<_> = verbs
        .iter()
        .map(|(verb, sum)| format!("{verb} {sum}"))
        .collect();
    say(&format!(
        "| {count} | {phase} | {:.1} | {total} | {:.1} | {} |",
        (to.at_ns - from.at_ns) as f64 / 1e9,
        total as f64 / count as f64,
        words.join(", ")
    ));
}
