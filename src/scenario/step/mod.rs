//! The steps, each in a file of its own kind, and the one place that says which is which.

pub(in crate::scenario) mod agent;
mod boot;
mod copies;
mod cut;
mod cut_group;
mod database;
pub(super) mod freeze;
mod fsfreeze;
mod grow;
mod hotplug;
mod inside;
mod left;
mod lifecycle;
mod look;
mod migrate;
mod probe;
mod promote;
mod protect;
mod provision;
mod reprotect;
mod second;
mod shape;
mod shared;
mod twin;

use std::pin::Pin;

pub(super) use boot::make;
pub(super) use database::end as end_commits;
pub(super) use migrate::{drain, mass};
pub(super) use probe::end_load;
pub(super) use shared::{fence, power_off, unfence};

use super::catalogue::Step;
use super::member::Member;
use super::recipe;
use super::world::World;

/// Whether a step is done once for all members of a trial, not by each on its own.
pub(super) const fn is_shared(step: Step) -> bool {
    matches!(
        step,
        Step::PowerOff | Step::Fence | Step::Unfence | Step::Drain | Step::MigrateAll | Step::Heal
    )
}

/// Does one member's part of a step. Boxed, because the steps' futures are large.
pub(super) fn run<'a>(
    world: &'a World,
    member: &'a mut Member,
    step: Step,
) -> Pin<Box<dyn Future<Output = anyhow::Result<()>> + 'a>> {
    match step {
        Step::Provision => Box::pin(provision::provision(world, member)),
        Step::Seed => Box::pin(probe::seed(world, member)),
        Step::Baseline => Box::pin(protect::baseline(world, member)),
        Step::Load => Box::pin(probe::load(world, member)),
        Step::Migrate => Box::pin(migrate::migrate(world, member)),
        Step::Abort => Box::pin(migrate::abort(world, member)),
        Step::MigrateAcross => Box::pin(migrate::across(world, member)),
        Step::Quiesce => Box::pin(hotplug::quiesce(world, member)),
        Step::Restart => Box::pin(boot::restart(world, member)),
        Step::StopSource => Box::pin(boot::stop_source(world, member)),
        Step::Pause => Box::pin(lifecycle::pause(world, member)),
        Step::SoftReboot => Box::pin(lifecycle::soft_reboot(world, member)),
        Step::StopStart => Box::pin(lifecycle::stop_start(world, member)),
        Step::Kill => Box::pin(lifecycle::kill(world, member)),
        Step::Plug => Box::pin(hotplug::plug(world, member)),
        Step::Unplug => Box::pin(hotplug::unplug(world, member)),
        Step::Join => Box::pin(hotplug::join(world, member)),
        Step::Grow => Box::pin(grow::grow(world, member)),
        Step::Demote => Box::pin(protect::demote(world, member)),
        Step::HandOver => Box::pin(promote::hand_over(world, member)),
        Step::Promote => Box::pin(promote::promote(world, member)),
        Step::Recover => Box::pin(boot::recover(world, member)),
        Step::Freeze => Box::pin(freeze::freeze(world, member)),
        Step::Capture => Box::pin(freeze::capture(world, member)),
        Step::Thaw => Box::pin(freeze::thaw(world, member)),
        Step::Abandon => Box::pin(freeze::abandon(world, member)),
        Step::Workflow => Box::pin(workflow(world, member)),
        Step::HookFailures => Box::pin(recipe::hook_failures(world, member)),
        Step::Commit => Box::pin(database::commit(world, member)),
        Step::ReadDatabase => Box::pin(database::read(world, member)),
        Step::Look => Box::pin(look::look(world, member)),
        Step::MoveStorage => Box::pin(migrate::move_storage(world, member)),
        Step::ReadLeft => Box::pin(left::read_left(world, member)),
        Step::Snapshot => Box::pin(cut::snapshot(world, member)),
        Step::SnapshotGroup => Box::pin(cut_group::snapshot_group(world, member)),
        Step::ReadCut => Box::pin(copies::read_cut(world, member)),
        Step::Release => Box::pin(cut::release(world, member)),
        Step::Restore => Box::pin(cut::restore(world, member)),
        Step::Clone => Box::pin(twin::clone(world, member)),
        Step::ReadClone => Box::pin(twin::read(world, member)),
        Step::ServeClone => Box::pin(twin::serve(world, member)),
        Step::Succeed => Box::pin(twin::succeed(world, member)),
        Step::ReadBack => Box::pin(hotplug::read_back(world, member)),
        Step::Serve => Box::pin(hotplug::serve(world, member)),
        Step::Reprotect => Box::pin(reprotect::reprotect(world, member)),
        Step::Return => Box::pin(boot::come_back(world, member)),
        Step::SecondRead => Box::pin(second::second_read(world, member)),
        // Shared: done by the trial.
        Step::PowerOff
        | Step::Fence
        | Step::Unfence
        | Step::Drain
        | Step::MigrateAll
        | Step::Heal => Box::pin(std::future::ready(Ok(()))),
    }
}

/// Walks over the whole workflow of the member's Recipe.
async fn workflow(world: &World, member: &mut Member) -> anyhow::Result<()> {
    let bound = recipe::Bound::of(world, member)?;
    recipe::walk(world, member, &bound, recipe::Part::Whole).await
}
