//! A5: what a failed hook brought about.

use super::*;
use crate::history::event::{CaptureFact, RecipeFact};

fn failed() -> Outcome {
    Outcome::Failed("exit code 1".into())
}

/// A walk with one hook that ended so, declared to stop it or not; whether a point was taken, and how
/// the walk was said to end.
fn walk((hook, stops): (Outcome, bool), taken: bool, end: Option<Outcome>) -> Kit {
    let mut kit = Kit::frozen(3);
    kit.without(|fact| matches!(fact, Fact::Capture { .. }));
    let site = Site::Primary;
    let mut at = PAUSE + 100 * MS;
    let mut add = |fact: Fact| {
        kit.add(at, fact);
        at += MS;
    };
    let told = |recipe| Fact::Recipe { site, recipe };
    add(told(RecipeFact::Begun {
        recipe: "r".into(),
        workflow: "backup".into(),
        mode: "strict".into(),
        hooks: vec!["vm/freeze".into()],
    }));
    add(told(RecipeFact::HookEnded {
        hook: "vm/freeze".into(),
        target: "Pod n/p, container compute".into(),
        outcome: hook,
        code: None,
        said: String::new(),
        stops,
    }));
    if taken {
        add(Fact::Capture {
            site,
            capture: CaptureFact {
                means: "Recipe r".into(),
                quiesced: true,
                taken: true,
            },
        });
    }
    if let Some(outcome) = end {
        add(told(RecipeFact::Ended { outcome }));
    }
    kit
}

#[test]
fn a_hook_that_was_to_stop_the_workflow_must_have() {
    let stops = |taken, end| walk((failed(), true), taken, Some(end)).status("A5");
    assert_eq!(stops(false, failed()), Pass);
    assert_eq!(stops(true, Outcome::Ok), Fail, "swallowed");
    assert_eq!(stops(true, failed()), Fail, "too late");
    assert_eq!(stops(false, Outcome::Ok), Fail, "called a success");
    assert_eq!(
        stops(false, Outcome::Unknown("interrupted".into())),
        Inconclusive
    );
    // One that found nothing to work on is no success either.
    let nothing = || Outcome::Skipped("no pod matches".into());
    assert_eq!(
        walk((nothing(), true), true, Some(Outcome::Ok)).status("A5"),
        Fail
    );
    assert_eq!(
        walk((nothing(), true), false, Some(failed())).status("A5"),
        Pass
    );
}

#[test]
fn a_hook_that_was_to_let_the_workflow_go_on_must_have() {
    let goes_on = |taken, end| walk((failed(), false), taken, Some(end)).status("A5");
    assert_eq!(goes_on(true, Outcome::Ok), Pass);
    assert_eq!(goes_on(false, failed()), Fail);
}

#[test]
fn what_did_not_happen_is_not_judged() {
    assert_eq!(
        walk((Outcome::Ok, true), true, Some(Outcome::Ok)).status("A5"),
        Pass
    );
    assert_eq!(
        walk((Outcome::Ok, true), true, None).status("A5"),
        Inconclusive
    );
    assert_eq!(
        walk((Outcome::Ok, true), false, Some(Outcome::Ok)).status("A5"),
        Inconclusive
    );
    assert_eq!(
        walk((Outcome::Ok, true), false, Some(failed())).status("A5"),
        Inconclusive
    );
    assert_eq!(Kit::frozen(3).status("A5"), Inconclusive, "no walk");
    let mut nameless = walk((Outcome::Ok, true), true, Some(Outcome::Ok));
    nameless.change(|fact| {
        if let Fact::Recipe {
            recipe: RecipeFact::Begun { workflow, .. },
            ..
        } = fact
        {
            workflow.clear();
        }
    });
    assert_eq!(nameless.status("A5"), Inconclusive);
}
