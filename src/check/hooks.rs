//! A5: was what a hook met told, and done, as the Recipe declares?
//!
//! A hook's own word says nothing of the guest: A1 to A4 ask that. This check asks what became of the
//! workflow once a hook failed, or found nothing to work on.

use super::case::Case;
use super::finding::Finding;
use crate::history::event::{Event, Fact, Outcome, RecipeFact};

/// One walk over a workflow.
#[derive(Debug, Default)]
struct Walk<'a> {
    begun: u64,
    hooks: usize,
    named: bool,
    restores: bool,
    /// Hooks that came to an end, in order.
    ended: Vec<Hook<'a>>,
    /// Points that were taken, or groups that were restored, by event.
    taken: Vec<u64>,
    outcome: Option<&'a Outcome>,
}

#[derive(Debug)]
struct Hook<'a> {
    event: u64,
    name: &'a str,
    outcome: &'a Outcome,
    stops: bool,
}

impl Hook<'_> {
    /// Why it does not count as done, if so.
    fn trouble(&self) -> Option<&str> {
        match self.outcome {
            Outcome::Ok => None,
            Outcome::Failed(why) | Outcome::Unknown(why) | Outcome::Skipped(why) => Some(why),
        }
    }
}

/// A5.
pub(super) fn check(case: &Case<'_>) -> Finding {
    walks(case)
        .iter()
        .map(judge)
        .reduce(Finding::worst)
        .unwrap_or_else(|| Finding::unsure("no workflow of a Recipe was walked over in this trial"))
}

fn walks<'a>(case: &Case<'a>) -> Vec<Walk<'a>> {
    let mut walks: Vec<Walk<'a>> = Vec::new();
    for event in case.events() {
        if let Fact::Recipe {
            recipe: RecipeFact::Begun {
                workflow, hooks, ..
            },
            ..
        } = &event.fact
        {
            walks.push(Walk {
                begun: event.seq,
                hooks: hooks.len(),
                named: !workflow.is_empty(),
                restores: workflow == "restore",
                ..Walk::default()
            });
        }
        if let Some(walk) = walks.last_mut().filter(|walk| walk.outcome.is_none()) {
            walk.take(event);
        }
    }
    walks
}

impl<'a> Walk<'a> {
    /// What its groups are for.
    const fn deed(&self) -> &'static str {
        if self.restores {
            "group was restored"
        } else {
            "point was taken"
        }
    }

    fn take(&mut self, event: &'a Event) {
        match &event.fact {
            Fact::Recipe {
                recipe:
                    RecipeFact::HookEnded {
                        hook,
                        outcome,
                        stops,
                        ..
                    },
                ..
            } => self.ended.push(Hook {
                event: event.seq,
                name: hook,
                outcome,
                stops: *stops,
            }),
            Fact::Recipe {
                recipe: RecipeFact::Ended { outcome },
                ..
            } => self.outcome = Some(outcome),
            Fact::Capture { capture, .. } if capture.taken => self.taken.push(event.seq),
            Fact::Recipe {
                recipe: RecipeFact::Restored { .. },
                ..
            } => self.taken.push(event.seq),
            _ => {}
        }
    }
}

fn judge(walk: &Walk<'_>) -> Finding {
    let at = walk.begun;
    let Some(outcome) = walk.outcome else {
        return Finding::unsure(format!("the walk of event {at} has no end"));
    };
    if !walk.named || walk.hooks == 0 {
        return Finding::unsure("the Recipe has no workflow with hooks that would be looked for");
    }
    let stopped = walk.ended.iter().find_map(|hook| {
        let why = hook.trouble().filter(|_| hook.stops)?;
        Some((hook, why))
    });
    if let Some((hook, why)) = stopped {
        return stops(walk, hook, why, outcome);
    }
    let met = walk.ended.iter().filter(|hook| hook.trouble().is_some());
    let met = met.count();
    match outcome {
        Outcome::Ok if walk.taken.is_empty() => {
            Finding::unsure(format!("the workflow ended well and no {}", walk.deed()))
        }
        Outcome::Ok if met > 0 => Finding::pass(format!(
            "{met} hooks failed, and the workflow went on as was declared"
        )),
        Outcome::Ok => Finding::pass(format!("all {} runs of hooks ended well", walk.ended.len())),
        Outcome::Failed(why) if met > 0 => Finding::fail(format!(
            "a hook failed that was declared to let the workflow go on, and it did not: {why}"
        ))
        .witness(format!("event {at}")),
        Outcome::Failed(why) | Outcome::Unknown(why) | Outcome::Skipped(why) => {
            Finding::unsure(format!("the workflow did not come to its end: {why}"))
        }
    }
}

/// A hook met trouble that was to stop the workflow.
fn stops(walk: &Walk<'_>, hook: &Hook<'_>, why: &str, outcome: &Outcome) -> Finding {
    let name = hook.name;
    if let Some(taken) = walk.taken.iter().find(|taken| **taken > hook.event) {
        return Finding::fail(format!(
            "{name} failed and was to stop the workflow, and a {} all the same",
            walk.deed()
        ))
        .witness(format!("event {}, then event {taken}: {why}", hook.event));
    }
    match outcome {
        Outcome::Failed(_) => Finding::pass(format!(
            "{name} failed and stopped the workflow, as was declared"
        )),
        Outcome::Ok => Finding::fail(format!(
            "{name} failed and was to stop the workflow, which reports success"
        ))
        .witness(format!("event {}: {why}", hook.event)),
        Outcome::Unknown(end) | Outcome::Skipped(end) => Finding::unsure(format!(
            "{name} failed, and it is open how the workflow ended: {end}"
        )),
    }
}
