//! `virtproof lint` and `virtproof recipe explain` as their users meet them.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn virtproof(arguments: &[&str], dir: &Path, stdin: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_virtproof"))
        .args(arguments)
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("virtproof starts");
    let mut pipe = child.stdin.take().expect("a pipe");
    // One that reads nothing may be gone already.
    pipe.write_all(stdin.as_bytes()).ok();
    drop(pipe);
    child.wait_with_output().expect("virtproof ends")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_page_of_rules_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/lint-rules.md");
    let page = virtproof::lint::page();
    if std::env::var_os("VIRTPROOF_REGENERATE").is_some() {
        std::fs::write(&path, &page).expect("written");
    }
    let stands = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stands == page,
        "docs/lint-rules.md is stale; run with VIRTPROOF_REGENERATE=1"
    );
}

const BAD: &str = "\
apiVersion: ramendr.openshift.io/v1alpha1
kind: Recipe
metadata: {name: bad, namespace: app}
spec:
  appType: vm
  groups: [{name: vm, type: resource, includedNamespaces: [app], includeClusterResources: false}]
  workflows:
    - {name: backup, sequence: [{group: vm}, {group: volumes}]}
    - {name: restore, sequence: [{group: vm}]}
";

const WARNED: &str = "\
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data, namespace: app}
spec: {accessModes: [ReadWriteOnce]}
---
apiVersion: cdi.kubevirt.io/v1beta1
kind: DataVolume
metadata: {name: root, namespace: app}
spec: {source: {blank: {}}, storage: {resources: {requests: {storage: 1Gi}}}}
";

const OTHER: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n";

#[test]
fn exit_codes_say_what_was_found() {
    let dir = tempfile::tempdir().expect("folder");
    let path = |name: &str| dir.path().join(name);
    std::fs::create_dir_all(path("all/inner")).expect("folders");
    for (name, text) in [
        ("bad.yaml", BAD),
        ("warned.yaml", WARNED),
        ("all/other.yml", OTHER),
        ("broken.yaml", "a: ["),
    ] {
        std::fs::write(path(name), text).expect("written");
    }
    let extracted = virtproof(&["init", "--extract", "own"], dir.path(), "");
    assert_eq!(
        extracted.status.code(),
        Some(0),
        "{}",
        text(&extracted.stderr)
    );
    let check = |arguments: &[&str], code: i32, words: &[&str]| {
        let done = virtproof(&[&["lint"], arguments].concat(), dir.path(), BAD);
        let said = text(&done.stdout) + &text(&done.stderr);
        assert_eq!(done.status.code(), Some(code), "{arguments:?}: {said}");
        for word in words {
            assert!(
                said.contains(word),
                "{arguments:?} does not say `{word}`:\n{said}"
            );
        }
    };
    check(
        &["bad.yaml"],
        1,
        &[
            "bad.yaml:8:",
            "recipe-group-panics",
            "kills the whole manager",
            "1 error,",
        ],
    );
    check(&["-"], 1, &["-:8:", "recipe-group-panics"]);
    check(
        &["warned.yaml"],
        0,
        &["dv-reimport", "0 errors, 1 warning,"],
    );
    check(&["--strict", "warned.yaml"], 1, &["dv-reimport"]);
    check(
        &["own/recipes"],
        0,
        &["0 errors, 0 warnings", "in 5 objects"],
    );
    check(&["own/recipes", "--strict"], 0, &[]);
    check(
        &["all"],
        4,
        &[
            "not looked at: Deployment (apps/v1)",
            "nothing was looked at",
        ],
    );
    std::fs::write(
        path("all/inner/bad.json"),
        "{\"apiVersion\": \"v1\", \"kind\": \"List\", \"items\": []}",
    )
    .expect("written");
    check(&["all"], 4, &["nothing was looked at"]);
    check(&["broken.yaml"], 2, &["broken.yaml:1:", "no YAML"]);
    check(&["absent.yaml"], 2, &["absent.yaml"]);
    check(&[], 2, &["FILE"]);
    check(
        &["--rules"],
        0,
        &["recipe-group-panics", "vm-nocloud-instance"],
    );
}

#[test]
fn programs_read_json_and_sarif() {
    let dir = tempfile::tempdir().expect("folder");
    std::fs::write(dir.path().join("bad.yaml"), BAD).expect("written");
    let done = virtproof(
        &[
            "lint",
            "bad.yaml",
            "--format",
            "json",
            "--sarif",
            "out.sarif",
        ],
        dir.path(),
        "",
    );
    assert_eq!(done.status.code(), Some(1), "{}", text(&done.stderr));
    let report: serde_json::Value = serde_json::from_slice(&done.stdout).expect("JSON");
    assert_eq!(report["counts"]["errors"], 1);
    assert_eq!(report["findings"][0]["line"], 8);
    let log = std::fs::read_to_string(dir.path().join("out.sarif")).expect("a log");
    let log: serde_json::Value = serde_json::from_str(&log).expect("JSON");
    assert_eq!(
        log["runs"][0]["results"][0]["ruleId"],
        report["findings"][0]["rule"]
    );
    let piped = virtproof(&["lint", "bad.yaml", "--sarif", "-"], dir.path(), "");
    let same: serde_json::Value = serde_json::from_slice(&piped.stdout).expect("nothing but SARIF");
    assert_eq!(same, log);
}

#[test]
fn a_recipe_is_explained_as_ramen_does_it_and_as_it_is_meant() {
    let dir = tempfile::tempdir().expect("folder");
    virtproof(&["init", "--extract", "own"], dir.path(), "");
    let file = "own/recipes/vm-quiesce.yaml";
    let given = [
        "--param",
        "VM=web",
        "--param",
        "NAMESPACE=app",
        "--param",
        "UNFREEZE_SECONDS=300",
    ];
    let explain = |more: &[&str]| {
        virtproof(
            &[&["recipe", "explain", file], more].concat(),
            dir.path(),
            "",
        )
    };
    let done = explain(&given);
    let said = text(&done.stdout);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    for word in [
        "Workflow backup",
        "\"--name\" \"web\"",
        "vm.kubevirt.io/name=web",
        "There is no finally",
        "Workflow restore",
    ] {
        assert!(said.contains(word), "no `{word}` in\n{said}");
    }
    assert_eq!(text(&done.stderr), "");
    let bare = explain(&["--workflow", "backup"]);
    assert!(text(&bare.stderr).contains("without a value: NAMESPACE, UNFREEZE_SECONDS, VM"));
    assert!(
        text(&bare.stdout).contains("\"--name\" \"\"") && !text(&bare.stdout).contains("restore")
    );
    let strict = explain(&[&given[..], &["--mode", "strict", "--format", "json"]].concat());
    let strict: serde_json::Value = serde_json::from_slice(&strict.stdout).expect("JSON");
    assert_eq!(strict["workflows"][0]["steps"][0]["name"], "vm/freeze");
    let unknown = explain(&["--param", "WM=web"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(text(&unknown.stderr).contains("no parameter `WM`"));
    let refused = virtproof(
        &["recipe", "explain", "-"],
        dir.path(),
        &BAD.replace("  appType: vm\n", ""),
    );
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        text(&refused.stderr).contains("`appType` is missing"),
        "{}",
        text(&refused.stderr)
    );
}
