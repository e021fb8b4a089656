//! One scenario run on the VMs of one workload: its members go through the steps side by side, each
//! at its own pace, and meet only where a step concerns the whole site.

use std::collections::BTreeMap;

use futures::future::join_all;

use super::catalogue::{Spec, Step};
use super::hands::GuestHands;
use super::member::Member;
use super::step;
use super::trouble::Trouble;
use super::world::World;
use crate::cluster::undo::{Left, replay};
use crate::cluster::{Deadline, Kind};
use crate::history::event::{Fact, Outcome, Site};
use crate::history::recorder::Scope;

/// What a part of a VM is judged by, of the scenario's checks; the rest is the VM's.
const PART: [&str; 8] = ["D1", "D2", "D3", "D4", "D5", "D6", "D7", "G1"];
/// What it is judged by besides where it joined the others.
const JOINED: &str = "O2";
/// Namespaces, as they are made.
const NAMESPACE: Kind = Kind::cluster("", "v1", "Namespace", "namespaces");

/// A trial under way.
pub struct Trial {
    spec: &'static Spec,
    scope: Scope,
    namespace: String,
    members: Vec<Member>,
    failed: Option<Trouble>,
}

impl Trial {
    /// Announces a trial of `spec` on the `workload`-th workload of the plan; `number` tells trials
    /// of a run apart, and `aimed` is the moment that a planted fault waits for.
    pub async fn announce(
        world: &World,
        spec: &'static Spec,
        workload: usize,
        number: usize,
        aimed: Option<String>,
    ) -> anyhow::Result<Self> {
        let scope = Scope::trial(format!("t{number}"));
        let namespace = format!(
            "{}-{}-t{number}",
            world.plan.namespace_prefix(),
            world.short()
        );
        let (workload, rendered) = &world.rendered[workload];
        let zero_loss = spec.zero_loss || world.plan.protection().synchronous;
        let members = (0..workload.count)
            .map(|i| {
                Member::new(
                    world,
                    &scope,
                    &namespace,
                    (workload, rendered),
                    zero_loss,
                    i,
                )
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        let mut subjects: Vec<String> = members.iter().map(|m| m.name().to_owned()).collect();
        let mut parts = BTreeMap::new();
        let mut part = |step, name: fn(&Member) -> String| {
            if spec.steps.contains(&step) {
                let names: Vec<String> = members.iter().map(name).collect();
                parts.extend(names.iter().map(|name| (name.clone(), judged(spec))));
                subjects.extend(names);
            }
        };
        part(Step::Plug, Member::plugged_name);
        part(Step::Grow, Member::grown_name);
        let fact = Fact::TrialStarted {
            scenario: spec.id.into(),
            subjects,
            checks: spec
                .checks_in(&world.plan)
                .into_iter()
                .map(str::to_owned)
                .collect(),
            zero_loss,
            aimed,
            parts,
        };
        world.recorder.record(&scope, fact).await?;
        Ok(Self {
            spec,
            scope,
            namespace,
            members,
            failed: None,
        })
    }

    /// Its id.
    pub fn id(&self) -> &str {
        self.scope.trial.as_deref().unwrap_or_default()
    }

    /// Its namespace on both sites.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Goes through all steps but the last, `heal`, and records how it ended. An error here means
    /// that the history itself could not be kept.
    pub async fn run(&mut self, world: &World) -> anyhow::Result<()> {
        if let Err(error) = self.namespaces(world).await {
            self.failed = Some(Trouble::of("namespaces", &error));
        }
        let mut steps = self.spec.steps_in(&world.plan);
        steps.retain(|step| *step != Step::Heal);
        let mut rest = steps.as_slice();
        while let Some((first, others)) = rest.split_first() {
            if !self.going() {
                break;
            }
            if step::is_shared(*first) {
                self.shared(world, *first).await?;
                rest = others;
            } else {
                let alone = rest.iter().take_while(|s| !step::is_shared(**s)).count();
                let lanes = self
                    .members
                    .iter_mut()
                    .map(|m| lane(world, m, &rest[..alone]));
                for recorded in join_all(lanes).await {
                    recorded?;
                }
                rest = &rest[alone..];
            }
        }
        self.close_streams(world).await;
        let outcome = self.outcome(world);
        world
            .recorder
            .record(&self.scope, Fact::TrialEnded { outcome })
            .await?;
        Ok(())
    }

    /// Whether it went through all its steps.
    pub fn is_ok(&self) -> bool {
        self.failed.is_none() && self.members.iter().all(|m| m.failed.is_none())
    }

    /// A whole site is moved only with every member that belongs to it.
    fn going(&self) -> bool {
        self.failed.is_none() && self.members.iter().any(|m| m.failed.is_none())
    }

    fn outcome(&self, world: &World) -> Outcome {
        let whole = self.failed.iter().map(|trouble| (String::new(), trouble));
        let members = self.members.iter().filter_map(|m| {
            let trouble = m.failed.as_ref()?;
            Some((format!("{}: ", m.name()), trouble))
        });
        uninterrupted(world, Trouble::outcome(whole.chain(members)))
    }

    async fn namespaces(&self, world: &World) -> anyhow::Result<()> {
        for site in [Site::Primary, Site::Secondary] {
            let object = serde_json::json!({
                "apiVersion": NAMESPACE.api_version(), "kind": NAMESPACE.kind,
                "metadata": {"name": self.namespace},
            });
            world.sites.of(site).create(&world.owner, object).await?;
        }
        Ok(())
    }

    async fn shared(&mut self, world: &World, step: Step) -> anyhow::Result<()> {
        let name = step.name().to_owned();
        world
            .recorder
            .record(&self.scope, Fact::StepStarted { step: name.clone() })
            .await?;
        let mut well: Vec<Member> = Vec::new();
        let mut ill: Vec<Member> = Vec::new();
        for member in self.members.drain(..) {
            if member.failed.is_none() {
                well.push(member);
            } else {
                ill.push(member);
            }
        }
        let done = match step {
            Step::PowerOff => step::power_off(world, &self.scope, &mut well).await,
            Step::Fence => step::fence(world, &mut well).await,
            Step::Unfence => step::unfence(world, &well).await,
            Step::Drain => Box::pin(step::drain(world, &well)).await,
            Step::MigrateAll => Box::pin(step::mass(world, &mut well, &name)).await,
            _ => Ok(()),
        };
        self.members = well;
        self.members.append(&mut ill);
        let outcome = outcome_of(world, &done);
        if let Err(error) = done {
            self.failed = Some(Trouble::of(&name, &error));
        }
        world
            .recorder
            .record(
                &self.scope,
                Fact::StepEnded {
                    step: name,
                    outcome,
                },
            )
            .await?;
        Ok(())
    }

    /// Streams that a failed step left open: their segments are closed so that what they hold counts.
    async fn close_streams(&mut self, world: &World) {
        for member in &mut self.members {
            if let Err(error) = step::end_commits(member).await {
                tracing::warn!(member = member.name(), %error, "not all commits are on record");
            }
            let disk = member.part.take();
            if let Some(mut one) = disk {
                close_stream(world, &mut one).await;
            }
            close_stream(world, member).await;
        }
    }
}

/// The checks of a part in a trial of a scenario.
fn judged(spec: &Spec) -> Vec<String> {
    let joins = spec.steps.contains(&Step::Join);
    let own = PART.iter().chain(joins.then_some(&JOINED));
    let asked = own.filter(|id| spec.checks.contains(id));
    asked.map(|id| (*id).to_owned()).collect()
}

async fn close_stream(world: &World, member: &mut Member) {
    if let Err(error) = step::end_load(world, member).await {
        tracing::warn!(member = member.name(), %error, "an ack segment was not closed");
    }
}

/// One member's way through steps of its own.
async fn lane(world: &World, member: &mut Member, steps: &[Step]) -> anyhow::Result<()> {
    for step in steps {
        if member.failed.is_some() {
            return Ok(());
        }
        let name = step.name().to_owned();
        member
            .tell(world, Fact::StepStarted { step: name.clone() })
            .await?;
        let done = step::run(world, member, *step).await;
        let mut outcome = outcome_of(world, &done);
        match (done, &outcome) {
            (Err(error), Outcome::Failed(_)) if step.only_looks() => {
                outcome = Outcome::Unknown(format!("could not look: {error:#}"));
            }
            (Err(error), _) => member.failed = Some(Trouble::of(&name, &error)),
            (Ok(()), _) => {}
        }
        member
            .tell(
                world,
                Fact::StepEnded {
                    step: name,
                    outcome,
                },
            )
            .await?;
    }
    Ok(())
}

fn outcome_of(world: &World, done: &anyhow::Result<()>) -> Outcome {
    let trouble = done.as_ref().err().map(|error| Trouble {
        why: format!("{error:#}"),
        ..Trouble::of("", error)
    });
    let troubles = trouble.iter().map(|trouble| (String::new(), trouble));
    uninterrupted(world, Trouble::outcome(troubles))
}

/// What an interruption stopped may have happened.
fn uninterrupted(world: &World, outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Ok => Outcome::Ok,
        _ if world.cancel.is_cancelled() => Outcome::Unknown("interrupted".into()),
        other => other,
    }
}

/// Undoes everything that the run still has to undo, newest first, then looks for what is left.
/// Does not listen to the run's cancellation: it is what runs after it.
pub async fn heal(
    world: &World,
    scope: &Scope,
    namespaces: &[String],
    deadline: &Deadline,
) -> anyhow::Result<Vec<Left>> {
    let step = Step::Heal.name().to_owned();
    world
        .recorder
        .record(scope, Fact::StepStarted { step: step.clone() })
        .await?;
    let hands = GuestHands::of(world);
    let left = replay(world.owner.undo(), &world.sites, &hands, deadline).await;
    let troubles: Vec<Trouble> = left
        .iter()
        .map(|l| Trouble {
            why: format!("{}: {}", l.entry.undo.describe(), l.why),
            blind: l.blind,
        })
        .collect();
    let outcome = Trouble::outcome(troubles.iter().map(|trouble| (String::new(), trouble)));
    let swept = world.sites.sweep(world.owner.undo(), namespaces).await;
    for why in &swept.trouble {
        let text = format!("could not look for leftovers: {why}");
        world.recorder.record(scope, Fact::Note { text }).await?;
    }
    let fact = Fact::Swept {
        sites: swept.sites,
        residue: swept.residue,
    };
    world.recorder.record(scope, fact).await?;
    world
        .recorder
        .record(scope, Fact::StepEnded { step, outcome })
        .await?;
    Ok(left)
}
