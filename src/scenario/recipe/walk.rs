//! Walking over a workflow, and what is owed to the guest when the walk is over.

use std::collections::BTreeMap;

use anyhow::Context as _;

use super::{Bound, Stopped, exec, job, objects, scale};
use crate::cluster::Pace;
use crate::history::event::{Fact, Outcome, RecipeFact};
use crate::plan::model::{Quiesce, RecipeMode};
use crate::scenario::member::Member;
use crate::scenario::step::freeze::{Point, release, resumes};
use crate::scenario::step::make;
use crate::scenario::world::World;
use crate::workload::recipe::{FailOn, MAX_ATTEMPTS, Step, Work};

/// Which part of a workflow is walked over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::scenario) enum Part {
    /// All of it, its points included.
    Whole,
    /// What stands before its first group.
    Before,
    /// What stands after its last group.
    After,
    /// All of a `restore` workflow.
    Restore,
}

/// A walk under way.
pub(super) struct Walk<'a> {
    pub(super) world: &'a World,
    pub(super) member: &'a mut Member,
    pub(super) bound: &'a Bound,
    /// Whether a freeze was asked for. One that failed may take hold later.
    pub(super) froze: bool,
    /// Points that were begun or taken, by step; `None` once taken.
    points: BTreeMap<usize, Option<Point>>,
}

/// Walks over a part of a Recipe's workflow. What stopped it is [`Stopped`]; the guest is thawed then,
/// and after the whole of it in any case.
pub(in crate::scenario) async fn walk(
    world: &World,
    member: &mut Member,
    bound: &Bound,
    part: Part,
) -> anyhow::Result<()> {
    let mut walk = Walk {
        world,
        member,
        bound,
        froze: false,
        points: BTreeMap::new(),
    };
    if part != Part::After {
        walk.tell(RecipeFact::Begun {
            recipe: bound.name.clone(),
            workflow: bound
                .flow
                .as_ref()
                .map_or_else(String::new, |f| f.name.clone()),
            mode: bound.mode.name().into(),
            hooks: bound.hooks(),
        })
        .await?;
    }
    let done = walk.part(part).await;
    let outcome = match &done {
        Ok(()) => Outcome::Ok,
        Err(_) if world.cancel.is_cancelled() => Outcome::Unknown("interrupted".into()),
        Err(error) => Outcome::Failed(format!("{error:#}")),
    };
    // Whoever stops in the middle leaves the guest frozen; nobody but us thaws it then.
    let released = if done.is_err() && (walk.froze || walk.member.frozen.is_some()) {
        release(world, walk.member, Quiesce::Recipe).await
    } else {
        Ok(())
    };
    if part != Part::Before || done.is_err() {
        walk.tell(RecipeFact::Ended { outcome }).await?;
    }
    released?;
    if part == Part::Whole && bound.quiesces {
        resumes(world, walk.member, Quiesce::Recipe).await?;
    }
    done
}

/// Walks over a `restore` workflow on the site that took over. Ramen goes through it again from the top
/// until it comes to its end, each time anew; who means what is written goes through it once.
pub(in crate::scenario) async fn restore(
    world: &World,
    member: &mut Member,
    bound: &Bound,
) -> anyhow::Result<()> {
    let deadline = world.deadline(world.plan.deadlines().boot);
    let mut pace = Pace::default();
    loop {
        let failed = match walk(world, member, bound, Part::Restore).await {
            Err(error) if error.is::<Stopped>() && bound.mode == RecipeMode::Faithful => error,
            done => return done,
        };
        let waiting = format!("the restore workflow of Recipe {}", bound.name);
        let last = || (format!("{failed:#}"), None);
        deadline.bound(&waiting, last, pace.wait()).await?;
    }
}

impl Walk<'_> {
    pub(super) async fn tell(&self, recipe: RecipeFact) -> anyhow::Result<()> {
        let site = self.member.site;
        self.member
            .tell(self.world, Fact::Recipe { site, recipe })
            .await
    }

    async fn part(&mut self, part: Part) -> anyhow::Result<()> {
        let bound = self.bound;
        let steps = bound.flow.as_ref().map_or(&[][..], |flow| &flow.steps);
        let is_point = |step: &Step| matches!(step.work, Work::Group { .. } | Work::Volumes(_));
        match part {
            // Nothing is named as it is looked for: the point is taken as if there were no Recipe.
            Part::Whole if steps.is_empty() => self.point("without a workflow").await,
            Part::Whole => self.passes(steps).await,
            Part::Restore => self.pass(steps).await.map(drop),
            Part::Before => {
                let first = steps.iter().position(is_point).unwrap_or(steps.len());
                self.pass(&steps[..first]).await.map(drop)
            }
            Part::After => {
                let last = steps.iter().rposition(is_point).map_or(0, |at| at + 1);
                self.pass(&steps[last..]).await.map(drop)
            }
        }
    }

    /// Ramen goes through the sequence from the top until every group of it is done; who means what is
    /// written goes through it once.
    async fn passes(&mut self, steps: &[Step]) -> anyhow::Result<()> {
        for _attempt in 0..MAX_ATTEMPTS {
            if self.pass(steps).await? {
                return Ok(());
            }
        }
        let why = format!("{MAX_ATTEMPTS} passes did not come to an end");
        Err(Stopped(why).into())
    }

    /// One pass; whether it came to the end.
    async fn pass(&mut self, steps: &[Step]) -> anyhow::Result<bool> {
        let fail_on = self
            .bound
            .flow
            .as_ref()
            .map_or(FailOn::AnyError, |f| f.fail_on);
        let (mut failed, mut tried) = (Vec::new(), 0);
        for (index, step) in steps.iter().enumerate() {
            let decisive = match fail_on {
                FailOn::AnyError => true,
                FailOn::EssentialError => step.essential,
                FailOn::FullError => false,
            };
            tried += 1;
            match self.step(index, step, decisive).await {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(error) if error.is::<Stopped>() && !decisive => failed.push(error),
                Err(error) => return Err(error),
            }
        }
        match failed.pop() {
            Some(last) if failed.len() + 1 == tried => Err(last.context("every step failed")),
            _ => Ok(true),
        }
    }

    /// One step; whether the pass goes on.
    async fn step(&mut self, index: usize, step: &Step, stops: bool) -> anyhow::Result<bool> {
        match &step.work {
            Work::Exec(one) => exec::step(self, step, one, stops).await?,
            Work::Check(condition) => objects::check(self, step, condition, stops).await?,
            Work::Scale(one) => scale::step(self, step, one, stops).await?,
            Work::Job(one) => job::step(self, step, one, stops).await?,
            Work::Nothing if self.bound.mode == RecipeMode::Strict => {
                let why = format!("{}: the hook has no such operation", step.name);
                return Err(Stopped(why).into());
            }
            Work::Nothing => {}
            Work::Group { .. } | Work::Volumes(_) if self.bound.restores => {
                self.restored(step).await?;
            }
            Work::Group { .. } | Work::Volumes(_) => {
                let done = self.group(index, step).await;
                return done.map_err(|error| self.failed(step, error));
            }
        }
        Ok(true)
    }

    /// A group that failed is a failed step like any other, and `failOn` says what comes of it; that the
    /// run was told to stop is not its failure.
    fn failed(&self, step: &Step, error: anyhow::Error) -> anyhow::Error {
        if self.world.cancel.is_cancelled() {
            return error;
        }
        Stopped(format!("{}: {error:#}", step.name)).into()
    }

    /// A group is restored: the VM and what it needs are made, unless they stand there already.
    async fn restored(&mut self, step: &Step) -> anyhow::Result<()> {
        if let Err(error) = make(self.world, self.member).await {
            return Err(self.failed(step, error));
        }
        let group = step.name.clone();
        self.tell(RecipeFact::Restored { group }).await
    }

    /// A group: begun on the first meeting and awaited on the next, from the top, or both at once.
    async fn group(&mut self, index: usize, step: &Step) -> anyhow::Result<bool> {
        match self.points.remove(&index) {
            None => {
                let means = format!("Recipe {}, group {}", self.bound.name, step.name);
                let point = self.begin(means).await?;
                if self.bound.mode == RecipeMode::Faithful {
                    self.points.insert(index, Some(point));
                    return Ok(false);
                }
                self.finish(point).await?;
            }
            Some(Some(point)) => self.finish(point).await?,
            Some(None) => {}
        }
        self.points.insert(index, None);
        Ok(true)
    }

    async fn point(&mut self, what: &str) -> anyhow::Result<()> {
        let point = self
            .begin(format!("Recipe {}, {what}", self.bound.name))
            .await?;
        self.finish(point).await
    }

    async fn begin(&self, means: String) -> anyhow::Result<Point> {
        Point::begin(self.world, self.member, means, self.bound.quiesces).await
    }

    async fn finish(&self, point: Point) -> anyhow::Result<()> {
        let taken = point.finish(self.world, self.member).await;
        taken.context("taking the point")
    }
}
