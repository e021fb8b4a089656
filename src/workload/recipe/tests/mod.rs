//! A Recipe in all its parts.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::workload::Embedded;

mod conditions;
mod expansion;
mod explanations;

/// A Recipe that freezes, captures and thaws, and checks after the restore.
fn quiesce() -> Value {
    json!({
        "apiVersion": API_VERSION, "kind": "Recipe",
        "metadata": {"name": "r", "namespace": "app"},
        "spec": {
            "appType": "vm",
            "volumes": {"name": "vols", "type": "volume", "labelSelector": {"matchLabels": {"app": "vm"}}},
            "groups": [
                {"name": "objects", "type": "resource", "includedNamespaces": ["app"], "essential": true},
                {"name": "back", "type": "resource", "backupRef": "objects", "essential": true},
            ],
            "hooks": [
                {"name": "quiesce", "type": "exec", "namespace": "app", "timeout": 60,
                 "labelSelector": {"matchLabels": {"kubevirt.io": "virt-launcher"}},
                 "ops": [
                    {"name": "freeze", "container": "compute", "timeout": 90, "inverseOp": "/thaw",
                     "command": "[\"/usr/bin/virt-freezer\",\"--freeze\"]"},
                    {"name": "thaw", "command": "/usr/bin/virt-freezer --unfreeze --name 'my vm'",
                     "onError": "continue", "inverseOp": "quiesce/freeze"},
                 ]},
                {"name": "ready", "type": "check", "namespace": "app", "nameSelector": "vm",
                 "selectResource": "kubevirt.io/v1/virtualmachines", "onError": "continue",
                 "chks": [{"name": "up", "condition": "{$.status.ready} == {true}"}]},
                {"name": "db", "type": "scale", "namespace": "app", "nameSelector": "db.*",
                 "selectResource": "deployment", "essential": true},
            ],
            "workflows": [
                {"name": "backup", "sequence": [
                    {"hook": "quiesce/freeze"}, {"group": "vols"}, {"group": "objects"}, {"hook": "quiesce/thaw"}]},
                {"name": "restore", "failOn": "essential-error", "sequence": [
                    {"group": "back"}, {"hook": "ready/up"}, {"hook": "db/up"}, {"hook": "quiesce/absent"}]},
            ],
        },
    })
}

fn read(value: &Value) -> Recipe {
    Recipe::from_value(value).unwrap()
}

fn at<'a>(value: &'a mut Value, pointer: &str) -> &'a mut Value {
    value.pointer_mut(pointer).unwrap()
}

#[test]
fn a_backup_is_resolved_into_its_steps() {
    let flow = read(&quiesce()).flow("backup").unwrap().unwrap();
    assert_eq!(flow.fail_on, FailOn::AnyError);
    let names: Vec<&str> = flow.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(names, ["quiesce/freeze", "vols", "objects", "quiesce/thaw"]);
    assert_eq!(flow.steps[0].path, "spec/workflows/0/sequence/0");
    let Work::Exec(freeze) = &flow.steps[0].work else {
        panic!("{:?}", flow.steps[0]);
    };
    assert_eq!(
        freeze.command.as_deref(),
        Ok(&["/usr/bin/virt-freezer".to_owned(), "--freeze".to_owned()][..])
    );
    assert_eq!(freeze.timeout, Duration::from_secs(90));
    assert_eq!(freeze.target.resource, "pod");
    assert!(freeze.failure_counts());
    let Inverse::Op(thaw) = &freeze.inverse else {
        panic!("{freeze:?}");
    };
    assert_eq!(
        (thaw.op.as_str(), thaw.timeout),
        ("thaw", Duration::from_secs(60))
    );
    assert_eq!(
        thaw.inverse,
        Inverse::None,
        "an inverse has no inverse of its own"
    );
    assert!(matches!(&flow.steps[1].work, Work::Volumes(group) if group.name == "vols"));
    assert!(flow.steps[2].essential);
    let Work::Exec(thaw) = &flow.steps[3].work else {
        panic!("{:?}", flow.steps[3]);
    };
    assert_eq!(thaw.command.as_ref().unwrap()[3], "my vm");
    assert!(!thaw.failure_counts(), "continue stands on the operation");
}

#[test]
fn a_restore_is_resolved_into_its_steps() {
    let flow = read(&quiesce()).flow("restore").unwrap().unwrap();
    assert_eq!(flow.fail_on, FailOn::EssentialError);
    let Work::Group { from, .. } = &flow.steps[0].work else {
        panic!("{:?}", flow.steps[0]);
    };
    assert_eq!(from, "objects");
    assert!(
        !flow.steps[0].essential,
        "a restore never looks at a group's essential"
    );
    let Work::Check(check) = &flow.steps[1].work else {
        panic!("{:?}", flow.steps[1]);
    };
    assert_eq!(check.on_error, OnError::Continue, "the hook's");
    assert_eq!(check.timeout, TIMEOUT);
    assert_eq!(
        check
            .expression
            .evaluate(&json!({"status": {"ready": true}})),
        Ok(true)
    );
    let Work::Scale(scale) = &flow.steps[2].work else {
        panic!("{:?}", flow.steps[2]);
    };
    assert_eq!(scale.op, ScaleOp::Up);
    assert!(flow.steps[2].essential);
    assert_eq!(flow.steps[3].work, Work::Nothing);
}

#[test]
fn a_workflow_of_another_name_is_not_there() {
    let mut value = quiesce();
    *at(&mut value, "/spec/workflows/0/name") = json!("vm-capture");
    assert_eq!(read(&value).flow("backup"), None);
}

#[test]
fn every_reference_that_leads_nowhere_is_named() {
    let outcome = |entry: Value, volumes: bool| {
        let mut value = quiesce();
        if !volumes {
            at(&mut value, "/spec")
                .as_object_mut()
                .unwrap()
                .remove("volumes");
        }
        *at(&mut value, "/spec/workflows/0/sequence") = json!([{"group": "objects"}, entry]);
        read(&value).flow("backup").unwrap()
    };
    let path = || "spec/workflows/0/sequence/1".to_owned();
    let group = || "vols2".to_owned();
    assert_eq!(
        outcome(json!({"group": "vols2"}), true),
        Err(Unresolved::Group {
            path: path(),
            group: group()
        })
    );
    assert_eq!(
        outcome(json!({"group": "vols2"}), false),
        Err(Unresolved::Panic {
            path: path(),
            group: group()
        })
    );
    for reference in ["quiesce", "quiesce.freeze", "quiesce/a/b"] {
        let reference = reference.to_owned();
        assert_eq!(
            outcome(json!({"hook": reference}), true),
            Err(Unresolved::Reference {
                path: path(),
                reference
            })
        );
    }
    assert!(matches!(
        outcome(json!({"hook": "nobody/op"}), true),
        Err(Unresolved::Hook { .. })
    ));
    assert!(matches!(
        outcome(json!({"hooks": "a/b"}), true),
        Err(Unresolved::Key { .. })
    ));
    let mut value = quiesce();
    *at(&mut value, "/spec/workflows/0/sequence") = json!([{"hook": "quiesce/freeze"}]);
    assert!(matches!(
        read(&value).flow("backup"),
        Some(Err(Unresolved::NoGroup { .. }))
    ));
    *at(&mut value, "/spec/workflows/0/sequence") = json!([]);
    assert_eq!(
        read(&value).flow("backup").unwrap().unwrap().steps,
        [],
        "the CRD takes it"
    );
}

#[test]
fn a_failure_counts_only_with_an_inverse() {
    let mut value = quiesce();
    let ops = "/spec/hooks/0/ops/0";
    *at(&mut value, &format!("{ops}/inverseOp")) = json!("thwa");
    let first = |value: &Value| match read(value)
        .flow("backup")
        .unwrap()
        .unwrap()
        .steps
        .remove(0)
        .work
    {
        Work::Exec(exec) => exec,
        other => panic!("{other:?}"),
    };
    let missing = first(&value);
    assert_eq!(missing.inverse, Inverse::Missing("thwa".to_owned()));
    assert!(missing.failure_counts());
    at(&mut value, ops)
        .as_object_mut()
        .unwrap()
        .remove("inverseOp");
    assert!(!first(&value).failure_counts());
}

#[test]
fn what_the_crd_refuses_is_named_with_its_place() {
    let bad = json!({
        "apiVersion": "recipe.ramendr.io/v1alpha1", "kind": "Recipe", "metadata": {"name": "r"},
        "spec": {
            "hooks": [{
                "name": "fs", "namespace": "app", "labelSelector": "app=vm", "onError": "ignore",
                "ops": [{"name": "freeze", "command": ["fsfreeze", "-f"], "timeout": "30s"}, {"name": "freeze", "command": ""}],
            }],
            "groups": [{"name": "a", "type": "volumes"}, {"name": "a", "type": "resource"}],
            "workflows": [{"name": "backup", "failOn": "never"}, "restore"],
            "volumes": [],
        },
    });
    let refused = Recipe::from_value(&bad).unwrap_err();
    let paths: Vec<&str> = refused
        .0
        .iter()
        .map(|refusal| refusal.path.as_str())
        .collect();
    let expected = [
        "apiVersion",
        "spec",
        "spec/volumes",
        "spec/groups/0/type",
        "spec/groups/1/name",
        "spec/hooks/0",
        "spec/hooks/0/labelSelector",
        "spec/hooks/0/onError",
        "spec/hooks/0/ops/0/command",
        "spec/hooks/0/ops/0/timeout",
        "spec/hooks/0/ops/1/command",
        "spec/hooks/0/ops/1/name",
        "spec/workflows/0",
        "spec/workflows/0/failOn",
        "spec/workflows/1",
    ];
    assert_eq!(paths, expected, "{refused}");
    let (recipe, _) = Recipe::read(&bad);
    let hook = &recipe.unwrap().hooks[0];
    assert_eq!(
        argv(&hook.ops[0].command).unwrap(),
        ["fsfreeze", "-f"],
        "what was meant"
    );
}

#[test]
fn commands_have_words_and_no_shell() {
    let words = |text: &str| argv(text).unwrap();
    assert_eq!(words("[\"a\", \"b c\"]"), ["a", "b c"]);
    assert_eq!(
        words("sh -c 'echo $HOME; x'"),
        ["sh", "-c", "echo $HOME; x"]
    );
    assert_eq!(words("echo  a\\ b \"c\\\"d\""), ["echo", "a b", "c\"d"]);
    assert_eq!(words("sync && echo *"), ["sync", "&&", "echo", "*"]);
    for bad in ["[not json]", "[\"a\",]", "[1]"] {
        assert!(matches!(argv(bad), Err(CommandError::Json(_))), "{bad}");
    }
    for bad in ["echo 'a", "echo \"a", "echo \\"] {
        assert_eq!(argv(bad), Err(CommandError::Quotes), "{bad}");
    }
}

#[test]
fn targets_take_labels_then_names() {
    let mut value = quiesce();
    at(&mut value, "/spec/hooks/0")["nameSelector"] = json!("launcher");
    let hook = &mut at(&mut value, "/spec/hooks/0")["labelSelector"];
    *hook = json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["vm"]}]});
    let flow = read(&value).flow("backup").unwrap().unwrap();
    let Work::Exec(exec) = &flow.steps[0].work else {
        panic!("{:?}", flow.steps[0]);
    };
    let pods = [
        ("launcher", "other"),
        ("virt-launcher-vm-x", "vm"),
        ("launcher-2", "vm"),
    ];
    let labels = |pod: &(&str, &str)| BTreeMap::from([("app".to_owned(), pod.1.to_owned())]);
    let taken = exec
        .target
        .select(&pods, labels, |pod| pod.0.to_owned())
        .unwrap();
    let taken: Vec<&str> = taken.iter().map(|pod| pod.0).collect();
    assert_eq!(taken, ["virt-launcher-vm-x", "launcher-2", "launcher"]);
    let pattern = Names::parse("^virt.launcher").unwrap();
    assert!(pattern.matches("virt-launcher-vm") && !pattern.matches("a-virt-launcher"));
    assert!(Names::parse("(").is_err());
}

/// A value of any shape with the words of a Recipe in it.
fn anything() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "name",
        "type",
        "hooks",
        "ops",
        "exec",
        "check",
        "group",
        "hook",
        "volumes",
        "command",
        "a/b",
        "backup",
        "sequence",
        "workflows",
        "groups",
        "spec",
        "labelSelector",
        "matchLabels",
        "timeout",
        "",
        "${X}",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        word.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((word.clone(), inner), 0..6).prop_map(|entries| entries
                .into_iter()
                .map(|(k, v)| (k.to_owned(), v))
                .collect::<serde_json::Map<_, _>>()
                .into()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn reading_is_total(spec in anything()) {
        let object = json!({"apiVersion": API_VERSION, "kind": "Recipe", "metadata": {"name": "r"}, "spec": spec});
        match Recipe::from_value(&object) {
            Ok(recipe) => for workflow in &recipe.workflows {
                if let Ok(flow) = recipe.resolve(workflow) {
                    let entries: usize = workflow.sequence.iter().map(Vec::len).sum();
                    prop_assert_eq!(flow.steps.len(), entries);
                }
            },
            Err(refused) => prop_assert!(!refused.0.is_empty()),
        }
    }

    #[test]
    fn a_changed_recipe_is_read_or_refused(pointer in prop::sample::select(vec![
        "/spec", "/spec/hooks", "/spec/hooks/0", "/spec/hooks/0/ops/0/command", "/spec/workflows/0/sequence",
        "/spec/workflows/0/sequence/1", "/spec/groups/0", "/spec/volumes", "/spec/hooks/1/chks",
    ]), instead in anything()) {
        let mut value = quiesce();
        *at(&mut value, pointer) = instead;
        if let Ok(recipe) = Recipe::from_value(&value) {
            for name in ["backup", "restore"] {
                // Resolving says yes or no, and what it names is there.
                if let Some(Ok(flow)) = recipe.flow(name) {
                    for step in &flow.steps {
                        let found = recipe.object.pointer(&format!("/{}", step.path));
                        prop_assert!(found.is_some(), "{}", step.path);
                    }
                }
            }
        }
    }

    #[test]
    fn quoted_words_come_back(words in prop::collection::vec("[a-z \"$;&]{1,6}", 1..5)) {
        let json = serde_json::to_string(&words).unwrap();
        prop_assert_eq!(&argv(&json).unwrap(), &words);
        let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
        prop_assert_eq!(&argv(&quoted.join(" ")).unwrap(), &words);
    }
}
