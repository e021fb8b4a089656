//! The run itself: trials one after the other, each healed before the next begins.

use std::path::PathBuf;
use std::sync::OnceLock;

use tokio_util::sync::CancellationToken;

use super::error::RunError;
use super::{begin, finish};
use crate::check::verdict::Status;
use crate::cluster::Deadline;
use crate::cluster::undo::Left;
use crate::evidence::{SignKey, UNSEALED};
use crate::history::event::Fact;
use crate::history::recorder::{Recorder, Scope};
use crate::plan::Loaded;
use crate::report::PLANTED;
use crate::report::view::View;
use crate::scenario::catalogue::{Need, Spec, select};
use crate::scenario::{Trial, World, drop_key, heal, hex};

/// What to run and where to keep it.
pub struct Request {
    /// The plan.
    pub plan: Loaded,
    /// Globs; when given, only scenarios that match one.
    pub only: Vec<String>,
    /// The run directory.
    pub out: PathBuf,
    /// Leave a trial that did not pass as it is, and stop.
    pub keep_on_failure: bool,
    /// The seed behind every random choice.
    pub seed: u64,
    /// A probe for guests of another architecture.
    pub probe: Option<PathBuf>,
    /// How virtproof was called.
    pub argv: Vec<String>,
    /// Whether the sites are simulated.
    pub lab: bool,
    /// Whether their guests are too.
    pub simulated: bool,
    /// Faults planted in the simulated sites.
    pub faults: Vec<String>,
    /// The key that signs the run directory; without one it is sealed unsigned.
    pub sign_key: Option<SignKey>,
}

/// How a run ended.
pub struct Ended {
    /// What the reports show.
    pub view: View,
    /// What could not be undone.
    pub left: Vec<Left>,
    /// Whether it was interrupted.
    pub interrupted: bool,
    /// Whether a trial was left in place on purpose.
    pub kept: bool,
}

/// Runs a plan. `watch` is called with the recorder before anything happens. Verdicts and reports
/// are written on every path that touched a site, an interrupted one too.
pub async fn run(
    request: &Request,
    cancel: &CancellationToken,
    watch: impl FnOnce(&Recorder),
) -> Result<Ended, RunError> {
    let specs = chosen(request)?;
    begin::directory(request)?;
    let recorder = Recorder::create(&request.out).map_err(RunError::evidence)?;
    watch(&recorder);
    let run_id = *uuid::Uuid::new_v4().as_bytes();
    opening(request, &recorder, &run_id).await?;
    let world = match begin::world(request, &recorder, run_id, cancel).await {
        Ok(world) => world,
        Err(error) => {
            close(&recorder, "not begun").await?;
            return Err(error);
        }
    };
    let mut left = Vec::new();
    let kept = trials(&world, request, &specs, &mut left)
        .await
        .map_err(RunError::Evidence)?;
    let interrupted = cancel.is_cancelled();
    close(
        &recorder,
        if interrupted {
            "interrupted"
        } else {
            "completed"
        },
    )
    .await?;
    drop_key(&request.out.join(UNSEALED), world.owner.undo()).map_err(RunError::Evidence)?;
    drop(world);
    drop(recorder);
    let judged = finish::judge(&request.out)?;
    finish::keep(&request.out, &judged, finish::Keep::All)?;
    finish::seal(&request.out, &judged, request.sign_key.as_ref())?;
    Ok(Ended {
        view: judged.view().clone(),
        left,
        interrupted,
        kept,
    })
}

fn chosen(request: &Request) -> Result<Vec<&'static Spec>, RunError> {
    let usage = |why: String| RunError::Usage(anyhow::anyhow!(why));
    let mut specs = select(request.plan.plan.patterns()).map_err(usage)?;
    if !request.only.is_empty() {
        let only = select(&request.only).map_err(usage)?;
        specs.retain(|spec| only.iter().any(|o| o.kind == spec.kind));
        if specs.is_empty() {
            return Err(usage(format!(
                "--only {} leaves none of the plan's scenarios",
                request.only.join(" --only ")
            )));
        }
    }
    match specs.iter().find_map(|spec| lacking(request, spec)) {
        Some(why) => Err(usage(why)),
        None => Ok(specs),
    }
}

/// What the plan or the lab lacks that a scenario needs, and what to do about it.
fn lacking(request: &Request, spec: &Spec) -> Option<String> {
    let unmet = |need: &Need| {
        match need {
        // Every plan has a driver; whether its objects are there is the preflight's question, as it is
        // with KubeVirt's snapshots. Whether a VMI can be migrated only KubeVirt can say, once it runs.
        Need::Replication
        | Need::LiveMigration
        | Need::Drain
        | Need::MigrationPolicy
        | Need::Snapshots
        | Need::GroupSnapshots => None,
        Need::RealGuests => request.simulated.then(|| {
            format!(
                "{} needs guests that run programs, and the lab's simulated ones run none; add `--guests qemu`, or leave the scenario out",
                spec.id
            )
        }),
        Need::PowerFault => {
            let faults = request.plan.plan.faults();
            let missing: Vec<_> = [
                ("faults.powerOff", &faults.power_off),
                ("faults.powerOn", &faults.power_on),
            ]
            .into_iter()
            .filter(|(_, command)| command.is_empty())
            .map(|(name, _)| name)
            .collect();
            (!missing.is_empty()).then(|| {
                format!(
                    "{} cuts the primary's power, but the plan has no {}; give the command, or leave the scenario out",
                    spec.id,
                    missing.join(" and no ")
                )
            })
        }
    }
    };
    spec.needs.iter().find_map(unmet)
}

async fn opening(
    request: &Request,
    recorder: &Recorder,
    run_id: &[u8; 16],
) -> Result<(), RunError> {
    let started = Fact::RunStarted {
        run_id: hex(run_id),
        seed: request.seed,
        tool: env!("CARGO_PKG_VERSION").into(),
        plan_blake3: request.plan.blake3.clone(),
        argv: request.argv.clone(),
        lab: request.lab,
    };
    recorder
        .record(&Scope::run(), started)
        .await
        .map_err(RunError::evidence)?;
    let tool = Fact::Tool {
        sha256: own_digest(),
        probe_blake3: begin::probe(request)?.blake3(),
    };
    recorder
        .record(&Scope::run(), tool)
        .await
        .map_err(RunError::evidence)?;
    for name in &request.faults {
        let fact = Fact::Fault {
            name: name.clone(),
            site: None,
            active: true,
            detail: PLANTED.into(),
        };
        recorder
            .record(&Scope::run(), fact)
            .await
            .map_err(RunError::evidence)?;
    }
    Ok(())
}

/// SHA-256 of this executable, computed once; `None` if it cannot be read any more.
fn own_digest() -> Option<String> {
    static OWN: OnceLock<Option<String>> = OnceLock::new();
    let read = || {
        let file = std::fs::File::open("/proc/self/exe");
        let digests = file.and_then(crate::evidence::digests);
        digests.ok().map(|digests| digests.sha256)
    };
    OWN.get_or_init(read).clone()
}

async fn close(recorder: &Recorder, reason: &str) -> Result<(), RunError> {
    let fact = Fact::RunEnded {
        reason: reason.into(),
    };
    recorder
        .record(&Scope::run(), fact)
        .await
        .map_err(RunError::evidence)?;
    Ok(())
}

/// The moment that the planted faults are aimed at, as their texts say: `NAME@MOMENT`.
fn aimed(faults: &[String]) -> Option<String> {
    let moments = faults.iter().filter_map(|fault| fault.rsplit_once('@'));
    let moments: Vec<&str> = moments.map(|(_, moment)| moment).collect();
    (!moments.is_empty()).then(|| moments.join(", "))
}

/// Runs all trials. Returns whether one was left in place on purpose.
async fn trials(
    world: &World,
    request: &Request,
    specs: &[&'static Spec],
    left: &mut Vec<Left>,
) -> anyhow::Result<bool> {
    let mut number = 0;
    for spec in specs {
        for workload in 0..world.rendered.len() {
            if world.cancel.is_cancelled() {
                return Ok(false);
            }
            number += 1;
            let mut trial =
                Trial::announce(world, spec, workload, number, aimed(&request.faults)).await?;
            trial.run(world).await?;
            let interrupted = world.cancel.is_cancelled();
            if request.keep_on_failure && !interrupted && !passed(request, &trial) {
                return Ok(true);
            }
            // Healing must happen even when the run was told to stop.
            let deadline =
                Deadline::after(world.plan.deadlines().cleanup, &CancellationToken::new());
            let scope = Scope::trial(trial.id());
            let namespaces = [trial.namespace().to_owned()];
            left.extend(heal(world, &scope, &namespaces, &deadline).await?);
        }
    }
    Ok(false)
}

/// Whether a trial went through and none of its verdicts so far is a failure.
fn passed(request: &Request, trial: &Trial) -> bool {
    let judged = trial.is_ok().then(|| finish::judge(&request.out));
    match judged {
        Some(Ok(judged)) => judged
            .verdicts()
            .verdicts
            .iter()
            .all(|v| v.trial != trial.id() || v.check == "O4" || v.status != Status::Fail),
        Some(Err(error)) => {
            tracing::warn!(%error, "the trial could not be judged yet; it is kept");
            false
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::aimed;

    #[test]
    fn a_trial_tells_what_its_faults_are_aimed_at() {
        let faults = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        assert_eq!(aimed(&faults(&["group-skew"])), None);
        let two = ["promote-stalls:seconds=3@promote", "bit-flip-cold"];
        assert_eq!(aimed(&faults(&two)), Some("promote".into()));
    }
}
