//! Recipes through the built binary: their hooks reach the guest, and what they meet is told.

#[path = "common/program.rs"]
mod program;

use std::path::Path;

use program::virtproof;
use virtproof::check::Verdicts;
use virtproof::check::verdict::Status;
use virtproof::history::event::{Fact, FreezeFact, Outcome, RecipeFact};
use virtproof::history::read::History;

/// Runs a scenario in a lab of its own with one VM.
fn run(dir: &Path, scenario: &str, sets: &[&str]) -> (Option<i32>, String, History) {
    let mut arguments = vec![
        "run", "--lab", "--seed", "3", "--only", scenario, "--out", "run",
    ];
    for set in ["workloads.0.count=1"].iter().chain(sets) {
        arguments.extend(["--set", set]);
    }
    let (code, said) = virtproof(dir, &arguments);
    let history = History::open(&dir.join("run")).expect("a history");
    (code, said, history)
}

/// The facts of Recipes in order.
fn told(history: &History) -> Vec<&RecipeFact> {
    let facts = history.events.iter().filter_map(|event| match &event.fact {
        Fact::Recipe { recipe, .. } => Some(recipe),
        _ => None,
    });
    facts.collect()
}

fn status(dir: &Path, check: &str) -> Status {
    let text = std::fs::read_to_string(dir.join("run/verdicts.json")).expect("verdicts");
    let verdicts: Verdicts = serde_json::from_str(&text).expect("verdicts");
    let found = verdicts.verdicts.iter().find(|v| v.check == check);
    found.expect("a verdict").status
}

#[test]
fn simulated_guests_have_no_database_and_say_so() {
    let dir = tempfile::tempdir().expect("folder");
    let (code, said) = virtproof(dir.path(), &["run", "--lab", "--only", "recipe.db"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("--guests qemu"), "{said}");
}

#[test]
fn hooks_reach_the_guest_once_for_each_capture() {
    for mode in ["strict", "faithful"] {
        let dir = tempfile::tempdir().expect("folder");
        let sets = [
            "workloads.0.recipe=vm-quiesce".to_owned(),
            format!("workloads.0.recipeMode={mode}"),
        ];
        let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
        let (code, said, history) = run(dir.path(), "recipe.freeze-thaw", &sets);
        assert_eq!(code, Some(0), "{said}");
        let told = told(&history);
        let walks = told
            .iter()
            .filter(|t| matches!(t, RecipeFact::Begun { .. }));
        assert_eq!(walks.count(), 2);
        let runs = |wanted: &str| {
            let ended = told.iter().filter(|t| {
                matches!(t, RecipeFact::HookEnded { hook, outcome: Outcome::Ok, code: Some(0), .. } if hook == wanted)
            });
            ended.count()
        };
        // Ramen begins from the top again once a group is under way.
        let freezes = if mode == "faithful" { 4 } else { 2 };
        assert_eq!((runs("vm/freeze"), runs("vm/thaw")), (freezes, 2), "{mode}");
    }
}

#[test]
fn a_failed_hook_brings_about_what_was_declared() {
    let dir = tempfile::tempdir().expect("folder");
    let (code, said, history) = run(dir.path(), "recipe.hook-failure", &[]);
    assert_eq!(code, Some(0), "{said}");
    let ends = told(&history).into_iter().filter_map(|told| match told {
        RecipeFact::Ended { outcome } => Some(matches!(outcome, Outcome::Ok)),
        _ => None,
    });
    // Each way to fail under `fail`, then under `continue`; the last is that there is no agent.
    let went_on: Vec<bool> = ends.collect();
    assert_eq!(went_on, [false, true].repeat(4));
    let agent = history.events.iter().filter_map(|event| match &event.fact {
        Fact::Note { text } => text.strip_prefix("the guest agent was "),
        _ => None,
    });
    let agent: Vec<&str> = agent.collect();
    assert_eq!(agent, ["stopped in the guest", "started in the guest"]);
    let thawed = history.events.iter().filter(|event| {
        matches!(
            &event.fact,
            Fact::Freeze {
                freeze: FreezeFact::Thawed {
                    outcome: Outcome::Ok
                },
                ..
            }
        )
    });
    assert!(thawed.count() >= 6, "somebody was left frozen");
    assert_eq!(status(dir.path(), "A5"), Status::Pass);
}

#[test]
fn a_recipe_with_a_mistake_is_refused_at_its_line() {
    let dir = tempfile::tempdir().expect("folder");
    let good = include_str!("../recipes/vm-quiesce.yaml");
    let bad = good.replace("type: exec", "type: execute");
    let line = bad
        .lines()
        .position(|l| l.contains("type: execute"))
        .expect("a line")
        + 1;
    std::fs::write(dir.path().join("mine.yaml"), bad).expect("written");
    let path = dir.path().join("mine.yaml");
    let set = format!("workloads.0.recipe={}", path.display());
    let (code, said) = virtproof(
        dir.path(),
        &[
            "run",
            "--lab",
            "--only",
            "boot.replicated",
            "--out",
            "run",
            "--set",
            &set,
        ],
    );
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains(&format!("mine.yaml:{line}")), "{said}");
}
