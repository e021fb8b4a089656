//! Hooks that fail on purpose: each way to fail, under each `onError`, between a freeze and its thaw, and
//! a guest whose agent was stopped. That no agent is there is not for `virt-freezer` to tell, which ends
//! with 0 then; a check hook asks for it.
//!
//! What a failed hook is to bring about is the Recipe's to declare and A5's to judge, so a walk that
//! stops is what this step is for and does not fail it.

use anyhow::Context as _;
use serde_json::{Value, json};

use super::{Bound, Part, Stopped, walk};
use crate::plan::model::RecipeMode;
use crate::scenario::member::Member;
use crate::scenario::step::agent::{Agent, bring};
use crate::scenario::world::World;
use crate::workload::recipe::Recipe;

/// How a hook fails: what it is called, and its command. The launcher has these programs, and not the
/// one that is missing.
const WAYS: [(&str, &str); 3] = [
    ("exits-with-1", r#"["/usr/bin/false"]"#),
    ("is-missing", r#"["/usr/bin/virtproof-is-not-here"]"#),
    ("takes-too-long", r#"["/usr/bin/sleep", "30"]"#),
];

/// What is declared of a hook that fails.
const ON_ERROR: [&str; 2] = ["fail", "continue"];

/// Walks over a workflow with a failing hook for each way to fail and each `onError`, and over one that
/// asks for the agent while there is none.
pub(in crate::scenario) async fn hook_failures(
    world: &World,
    member: &mut Member,
) -> anyhow::Result<()> {
    for (way, command) in WAYS {
        for on_error in ON_ERROR {
            fails(world, member, &failing(way, command, on_error)).await?;
        }
    }
    bring(world, member, Agent::Stopped).await?;
    let walked = without_agent(world, member).await;
    let started = bring(world, member, Agent::Started).await;
    walked.and(started)
}

/// The walks over workflows that ask for the agent while there is none.
async fn without_agent(world: &World, member: &mut Member) -> anyhow::Result<()> {
    for on_error in ON_ERROR {
        fails(world, member, &asking(on_error)).await?;
    }
    Ok(())
}

/// Walks over the workflow of a Recipe in which a hook fails.
async fn fails(world: &World, member: &mut Member, recipe: &Value) -> anyhow::Result<()> {
    let recipe = Recipe::from_value(recipe).context("the Recipe of this scenario")?;
    let timer = world.plan.deadlines().unfreeze;
    let mode: RecipeMode = member.workload.recipe_mode;
    let bound = Bound::new(&recipe, mode, member, timer)?;
    match walk(world, member, &bound, Part::Whole).await {
        Err(error) if !error.is::<Stopped>() => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// A Recipe that takes a point if the agent is connected, or all the same. It freezes nothing, so that
/// its points claim no more than what is there.
fn asking(on_error: &str) -> Value {
    json!({
        "apiVersion": crate::workload::recipe::API_VERSION,
        "kind": "Recipe",
        "metadata": {"name": format!("agent-is-gone-{on_error}")},
        "spec": {
            "appType": "vm",
            "groups": [{"name": "all", "type": "resource"}],
            "hooks": [{
                "name": "guest", "namespace": "${NAMESPACE}", "type": "check",
                "selectResource": "kubevirt.io/v1/virtualmachineinstances", "nameSelector": "${VM}",
                "onError": on_error, "timeout": 1,
                "chks": [{
                    "name": "agent",
                    "condition": r#"{$.status.conditions[?(@.type=="AgentConnected")].status} == {True}"#,
                }],
            }],
            "workflows": [{"name": "backup", "sequence": [{"hook": "guest/agent"}, {"group": "all"}]}],
        },
    })
}

/// A Recipe that freezes, holds for a moment so that the stall shows, fails, and thaws.
fn failing(way: &str, command: &str, on_error: &str) -> Value {
    let freezer = |flag: &str, more: &[&str]| {
        let words = [
            "/usr/bin/virt-freezer",
            flag,
            "--name",
            "${VM}",
            "--namespace",
            "${NAMESPACE}",
        ];
        json!(words.iter().chain(more).collect::<Vec<_>>()).to_string()
    };
    let op = |name: &str, command: String| json!({"name": name, "container": "compute", "command": command});
    let mut freeze = op(
        "freeze",
        freezer(
            "--freeze",
            &["--unfreezeTimeoutSeconds", "${UNFREEZE_SECONDS}"],
        ),
    );
    freeze["inverseOp"] = json!("thaw");
    let mut fails = op("fails", command.to_owned());
    fails["onError"] = json!(on_error);
    fails["timeout"] = json!(1);
    json!({
        "apiVersion": crate::workload::recipe::API_VERSION,
        "kind": "Recipe",
        "metadata": {"name": format!("{way}-{on_error}")},
        "spec": {
            "appType": "vm",
            "groups": [{"name": "all", "type": "resource"}],
            "hooks": [{
                "name": "vm", "namespace": "${NAMESPACE}", "type": "exec", "selectResource": "pod",
                "singlePodOnly": true,
                "labelSelector": {"matchLabels": {"kubevirt.io": "virt-launcher", "vm.kubevirt.io/name": "${VM}"}},
                "ops": [
                    freeze,
                    op("thaw", freezer("--unfreeze", &[])),
                    op("hold", r#"["/usr/bin/sleep", "0.5"]"#.to_owned()),
                    fails,
                ],
            }],
            "workflows": [{
                "name": "backup",
                "sequence": [{"hook": "vm/freeze"}, {"hook": "vm/hold"}, {"hook": "vm/fails"}, {"group": "all"}, {"hook": "vm/thaw"}],
            }],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::recipe::{Expression, Inverse, OnError, Work};

    #[test]
    fn every_recipe_of_it_is_one_and_fails_where_it_is_to() {
        let declared = ON_ERROR.into_iter().zip([OnError::Fail, OnError::Continue]);
        for (text, on_error) in declared.clone() {
            let recipe = Recipe::from_value(&asking(text)).expect("a Recipe");
            let flow = recipe
                .flow("backup")
                .expect("a workflow")
                .expect("resolved");
            let Work::Check(check) = &flow.steps[0].work else {
                panic!("{flow:?}");
            };
            assert_eq!(check.on_error, on_error);
            assert!(!matches!(check.expression, Expression::Unreadable(_)));
        }
        for (way, command) in WAYS {
            for (text, on_error) in declared.clone() {
                let recipe = Recipe::from_value(&failing(way, command, text)).expect("a Recipe");
                let flow = recipe
                    .flow("backup")
                    .expect("a workflow")
                    .expect("resolved");
                let Work::Exec(freeze) = &flow.steps[0].work else {
                    panic!("{flow:?}");
                };
                assert!(matches!(freeze.inverse, Inverse::Op(_)));
                let Work::Exec(fails) = &flow.steps[2].work else {
                    panic!("{flow:?}");
                };
                assert_eq!(fails.on_error, on_error);
                assert!(fails.command.is_ok());
            }
        }
    }
}
