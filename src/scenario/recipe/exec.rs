//! Exec hooks: a command in pods, and what it is to do to the guest.

use std::collections::BTreeSet;

use anyhow::Context as _;
use serde_json::Value;
use tokio::time::Instant;

use super::bound::{Effect, effect};
use super::walk::Walk;
use super::{Stopped, objects};
use crate::cluster::Error;
use crate::cluster::exec::{Command, Output, Ran};
use crate::cluster::undo::Undo;
use crate::history::event::{FreezeFact, Outcome, RecipeFact};
use crate::plan::model::RecipeMode;
use crate::scenario::member::Frozen;
use crate::scenario::step::freeze::tell as tell_freeze;
use crate::workload::recipe::{Exec, Inverse, OnError, Step};

/// As much of what a command wrote as is kept, in characters.
const SAID: usize = 500;

/// Does a step that is a command in pods.
pub(super) async fn step(
    walk: &mut Walk<'_>,
    step: &Step,
    exec: &Exec,
    stops: bool,
) -> anyhow::Result<()> {
    let stops = stops && exec.on_error == OnError::Fail;
    let Err(why) = run(walk, &step.name, exec, stops).await? else {
        return Ok(());
    };
    let counts = match walk.bound.mode {
        RecipeMode::Strict => exec.on_error == OnError::Fail,
        RecipeMode::Faithful => exec.failure_counts(),
    };
    let takes_back = counts || walk.bound.mode == RecipeMode::Strict;
    if let Inverse::Op(inverse) = &exec.inverse
        && takes_back
    {
        let name = format!("{}/{}", inverse.hook, inverse.op);
        // Best effort, as the controller does it: what came of it is on record.
        drop(run(walk, &name, inverse, false).await?);
    }
    if counts {
        return Err(Stopped(format!("{}: {why}", step.name)).into());
    }
    Ok(())
}

/// Runs a command wherever it is to run, and records what it is to do to the guest. The inner error is
/// the hook's; the outer one ends the trial.
async fn run(
    walk: &mut Walk<'_>,
    name: &str,
    exec: &Exec,
    stops: bool,
) -> anyhow::Result<Result<(), String>> {
    let words = exec.command.as_ref().map_or(&[][..], Vec::as_slice);
    let effect = effect(words);
    announce(walk, effect).await?;
    let done = everywhere(walk, name, exec, stops).await?;
    let (world, site) = (walk.world, walk.member.site);
    match (effect, &done) {
        (Effect::Freeze(_), Ok(())) => {
            // A freeze of what is frozen changes nothing.
            walk.member.frozen.get_or_insert_with(|| Frozen {
                storage: world.storage_now(site),
                at: Instant::now(),
                inside: None,
            });
            tell_freeze(world, walk.member, FreezeFact::Frozen).await?;
        }
        (Effect::Freeze(_), Err(why)) => {
            let why = why.clone();
            tell_freeze(world, walk.member, FreezeFact::Refused { why }).await?;
        }
        (Effect::Thaw, done) => {
            let outcome = match done {
                Ok(()) => Outcome::Ok,
                Err(why) => Outcome::Failed(why.clone()),
            };
            if done.is_ok() {
                walk.member.frozen = None;
            }
            tell_freeze(world, walk.member, FreezeFact::Thawed { outcome }).await?;
        }
        (Effect::Other, _) => {}
    }
    Ok(done)
}

/// Records what is about to be done to the guest; the thaw goes into the undo log before a freeze.
async fn announce(walk: &mut Walk<'_>, effect: Effect) -> anyhow::Result<()> {
    walk.froze |= matches!(effect, Effect::Freeze(_));
    let (world, member) = (walk.world, &*walk.member);
    match effect {
        Effect::Freeze(timer) => {
            let undo = Undo::Put {
                site: member.site,
                object: member.vmi(),
                subresource: "unfreeze".into(),
                body: None,
            };
            let owner = &member.owner;
            owner.undo().record(owner.lane_name(), undo).await?;
            let timeout_ms = u64::try_from(timer.as_millis()).unwrap_or(u64::MAX);
            tell_freeze(world, member, FreezeFact::Asked { timeout_ms }).await
        }
        Effect::Thaw => tell_freeze(world, member, FreezeFact::ThawAsked).await,
        Effect::Other => Ok(()),
    }
}

/// Runs a command in one pod after the other; the first failure is the last run.
async fn everywhere(
    walk: &Walk<'_>,
    name: &str,
    exec: &Exec,
    stops: bool,
) -> anyhow::Result<Result<(), String>> {
    // The controller logs what is wrong with either and goes on as with no pods.
    let (words, pods) = match (&exec.command, pods(walk, exec).await) {
        (Ok(words), Ok(pods)) => (words.as_slice(), pods),
        (_, Err(why)) => return nothing(walk, name, exec, stops, &why).await,
        (Err(error), _) => return nothing(walk, name, exec, stops, &error.to_string()).await,
    };
    if pods.is_empty() {
        return nothing(walk, name, exec, stops, "no pod matches").await;
    }
    let many = if exec.single_pod { 1 } else { pods.len() };
    for pod in &pods[..many] {
        if let Err(why) = in_pod(walk, name, exec, (pod, words), stops).await? {
            return Ok(Err(why));
        }
    }
    Ok(Ok(()))
}

/// There is nothing to run the command in.
async fn nothing(
    walk: &Walk<'_>,
    name: &str,
    exec: &Exec,
    stops: bool,
    why: &str,
) -> anyhow::Result<Result<(), String>> {
    walk.tell(RecipeFact::HookEnded {
        hook: name.to_owned(),
        target: String::new(),
        outcome: Outcome::Skipped(why.to_owned()),
        code: None,
        said: String::new(),
        stops,
    })
    .await?;
    let succeeds = walk.bound.mode == RecipeMode::Faithful && !exec.single_pod;
    Ok(if succeeds {
        Ok(())
    } else {
        Err(why.to_owned())
    })
}

/// A pod that a command is run in: its name and first container.
struct Pod {
    name: String,
    first: Option<String>,
}

/// The pods that a hook means. The controller takes them whatever their phase, those that a migration
/// left Completed among them.
async fn pods(walk: &Walk<'_>, exec: &Exec) -> Result<Vec<Pod>, String> {
    if exec.target.resource != "pod" {
        let kind = &exec.target.resource;
        return Err(format!("virtproof runs commands in pods, not by {kind}"));
    }
    let all = objects::list(walk.member.cluster(walk.world), &exec.target).await?;
    let runs = |pod: &&Value| {
        let going = pod.pointer("/metadata/deletionTimestamp").is_none();
        going && pod.pointer("/status/phase").and_then(Value::as_str) == Some("Running")
    };
    let strict = walk.bound.mode == RecipeMode::Strict;
    let taken = all.iter().filter(|pod| !strict || runs(pod));
    let mut pods: Vec<Pod> = taken
        .map(|pod| Pod {
            name: objects::name(pod),
            first: pod
                .pointer("/spec/containers/0/name")
                .and_then(Value::as_str)
                .map(str::to_owned),
        })
        .collect();
    if strict {
        let mut seen = BTreeSet::new();
        pods.retain(|pod| seen.insert(pod.name.clone()));
    }
    Ok(pods)
}

async fn in_pod(
    walk: &Walk<'_>,
    name: &str,
    exec: &Exec,
    (pod, argv): (&Pod, &[String]),
    stops: bool,
) -> anyhow::Result<Result<(), String>> {
    let namespace = &exec.target.namespace;
    let container = exec.container.as_deref().or(pod.first.as_deref());
    let target = format!(
        "Pod {namespace}/{}, container {}",
        pod.name,
        container.unwrap_or("?")
    );
    walk.tell(RecipeFact::HookAsked {
        hook: name.to_owned(),
        kind: "exec".into(),
        target: target.clone(),
        what: exec.text.clone(),
    })
    .await?;
    let command = Command {
        namespace,
        pod: &pod.name,
        container,
        argv,
    };
    let deadline = walk.world.deadline(exec.timeout);
    let ran = walk
        .member
        .cluster(walk.world)
        .exec(&command, &deadline)
        .await;
    if let Err(error) = &ran
        && error.is_cancelled()
    {
        ran.map(drop).context("running a hook")?;
        return Ok(Ok(()));
    }
    let (code, said, outcome) = ended(&ran);
    walk.tell(RecipeFact::HookEnded {
        hook: name.to_owned(),
        target,
        outcome: outcome.clone(),
        code,
        said,
        stops,
    })
    .await?;
    Ok(match outcome {
        Outcome::Ok => Ok(()),
        Outcome::Failed(why) | Outcome::Unknown(why) | Outcome::Skipped(why) => Err(why),
    })
}

fn ended(ran: &Result<Ran, Error>) -> (Option<i32>, String, Outcome) {
    match ran {
        Ok(ran) => {
            let said = said(&ran.stdout, &ran.stderr);
            let outcome = match ran.code {
                0 => Outcome::Ok,
                code => Outcome::Failed(format!("it ended with exit code {code}: {said}")),
            };
            (Some(ran.code), said, outcome)
        }
        Err(error) if error.is_blind() => {
            (None, String::new(), Outcome::Unknown(error.to_string()))
        }
        Err(error) => (None, String::new(), Outcome::Failed(error.to_string())),
    }
}

fn said(stdout: &Output, stderr: &Output) -> String {
    let both = format!("{}\n{}", stdout.text.trim(), stderr.text.trim());
    let mut kept: String = both.trim().chars().take(SAID).collect();
    if stdout.truncated || stderr.truncated || kept.len() < both.trim().len() {
        kept.push('…');
    }
    kept
}
