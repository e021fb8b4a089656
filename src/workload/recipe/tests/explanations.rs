//! What is said of a Recipe.

use super::*;

fn said(value: &Value, workflow: &str, mode: Behaviour) -> Explanation {
    explain(&read(value), workflow, mode)
}

fn all(explanation: &Explanation) -> String {
    let steps = explanation.steps.iter().flat_map(|step| {
        [step.what.clone(), step.on.clone()]
            .into_iter()
            .chain(step.failure.clone())
    });
    let whole = explanation.when.iter().chain(&explanation.caveats).cloned();
    whole.chain(steps).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_controllers_behaviour_is_told_with_its_traps() {
    let backup = said(&quiesce(), "backup", Behaviour::Faithful);
    let names: Vec<&str> = backup.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(names, ["quiesce/freeze", "vols", "objects", "quiesce/thaw"]);
    let text = all(&backup);
    for words in [
        "after 10 unfinished passes",
        "No pod at all is a success",
        "`quiesce/thaw` is run, whose own failure is only logged, and the step fails",
        "for up to 90 s",
        "in any phase",
        "every pod, in any phase, one after another, in namespace app with labels kubevirt.io=virt-launcher",
        "everything is captured or restored, unfiltered",
        "passed over (onError: continue)",
        "There is no finally",
        "replicated on their own schedule",
    ] {
        assert!(text.contains(words), "no `{words}` in\n{text}");
    }
    let restore = all(&said(&quiesce(), "restore", Behaviour::Faithful));
    for words in [
        "backup of the group `objects`",
        "then evaluates once",
        "passed over, and the workflow succeeds",
        "not awaited",
    ] {
        assert!(restore.contains(words), "no `{words}` in\n{restore}");
    }
}

#[test]
fn what_an_author_means_is_told_apart() {
    let text = all(&said(&quiesce(), "backup", Behaviour::Strict));
    assert!(
        text.contains("No pod is a failure") && text.contains("taken back on every way out"),
        "{text}"
    );
    assert!(
        !text.contains("No pod at all is a success") && !text.contains("no finally"),
        "{text}"
    );
}

#[test]
fn a_swallowed_failure_a_missing_workflow_and_a_panic_are_told() {
    let mut value = quiesce();
    at(&mut value, "/spec/hooks/0/ops/0")
        .as_object_mut()
        .unwrap()
        .remove("inverseOp");
    let text = all(&said(&value, "backup", Behaviour::Faithful));
    assert!(
        text.contains("succeeds all the same: there is no inverseOp"),
        "{text}"
    );
    at(&mut value, "/spec")
        .as_object_mut()
        .unwrap()
        .remove("volumes");
    let lost = said(&value, "backup", Behaviour::Faithful);
    assert!(
        lost.steps.is_empty() && all(&lost).contains("panics"),
        "{lost:?}"
    );
    *at(&mut value, "/spec/workflows/0/name") = json!("vm-capture");
    let none = all(&said(&value, "backup", Behaviour::Faithful));
    assert!(
        none.contains("there is `vm-capture`, `restore`") && none.contains("no hook ever runs"),
        "{none}"
    );
}

#[test]
fn embedded_recipes_resolve_once_their_parameters_are_given() {
    for Embedded { name, text } in embedded() {
        let node = crate::plan::yaml::parse(text, true).unwrap().remove(0);
        let recipe = read(&node.to_value());
        assert_eq!(recipe.name, *name);
        let values = recipe
            .parameters()
            .into_iter()
            .map(|name| (name, vec!["x".to_owned()]));
        let full = recipe.expand(&values.collect()).unwrap();
        for workflow in ["backup", "restore"] {
            let flow = full.flow(workflow).unwrap().unwrap();
            assert!(!flow.steps.is_empty(), "{name} {workflow}");
        }
    }
}
