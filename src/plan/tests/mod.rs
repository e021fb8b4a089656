//! Every message that a bad plan can get, and the texts that go with the types.

use std::fmt::Write as _;

use super::*;
use crate::plan::model::{Quiesce, RecipeMode};

const SCENARIOS: &[&str] = &[
    "boot.replicated",
    "boot.identity",
    "migrate.under-load",
    "relocate.zero-loss",
    "failover.unplanned.node-down",
    "failover.unplanned.primary-up",
    "failback.resync",
    "recipe.freeze-covers-replica",
    "recipe.crash-baseline",
];

const KNOWN: Known<'_> = Known {
    scenarios: Some(SCENARIOS),
    templates: Some(&["cirros", "fedora-two-disks", "linux-two-disks-dvt"]),
    recipes: Some(&["vm-quiesce"]),
    files: true,
};

const GOOD: &str = "\
apiVersion: virtproof.dev/v1alpha1
kind: Plan
metadata: {name: quarterly-dr}
sites:
  primary: {context: east}
  secondary: {context: west}
protection:
  driver: volumeReplication
  volumeReplicationClass: rbd-1m
  schedulingInterval: 1m
workloads:
  - name: ledger
    template: cirros
    count: 3
    parameters: {dataSize: 2Gi, cores: 2, nested: true}
scenarios: [failover.*, boot.replicated, boot.*]
";

fn read(text: &str) -> Result<Loaded, PlanError> {
    parse(text, "plan.yaml", Path::new("/nowhere"), &KNOWN)
}

fn message(text: &str) -> String {
    match read(text) {
        Ok(_) => "ACCEPTED".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// The good plan with one line replaced (`-` removes it, `+` adds below).
fn with(line: &str, instead: &str) -> String {
    assert_eq!(GOOD.matches(line).count(), 1, "{line}");
    GOOD.replace(line, instead)
}

#[test]
fn a_good_plan_is_typed() {
    let loaded = read(GOOD).unwrap();
    let plan = &loaded.plan;
    assert_eq!(
        plan.scenarios(),
        [
            "failover.unplanned.node-down",
            "failover.unplanned.primary-up",
            "boot.replicated",
            "boot.identity"
        ]
    );
    assert_eq!(plan.protection().scheduling_interval.as_secs(), 60);
    assert_eq!(plan.load().hot, 16 << 20);
    assert_eq!(plan.deadlines().sync.as_secs(), 900);
    let workload = &plan.workloads()[0];
    assert_eq!(workload.parameters["cores"], "2");
    assert_eq!(workload.parameters["nested"], "true");
    assert_eq!(workload.ssh.route, model::Route::PortForward);
    assert_eq!(
        loaded.blake3,
        blake3::hash(GOOD.as_bytes()).to_hex().as_str()
    );
    assert_eq!(loaded.text, GOOD);
}

#[test]
fn evidence_is_read_without_a_catalogue_or_files() {
    let text = with("template: cirros", "template: ./gone.yaml");
    let text = text.replace("boot.*]", "renamed.since]");
    let loaded = parse(&text, "plan.yaml", Path::new("/nowhere"), &Known::nothing()).unwrap();
    assert_eq!(loaded.plan.patterns()[2], "renamed.since");
    assert_eq!(loaded.plan.scenarios(), [""; 0]);
}

#[test]
fn embedded_plans_are_valid() {
    for driver in model::DriverKind::ALL {
        read(starter(*driver)).unwrap_or_else(|error| panic!("{error}"));
    }
    let known = Known {
        files: false,
        ..KNOWN
    };
    let lab = lab(Path::new("."), &known).unwrap_or_else(|error| panic!("{error}"));
    let workload = &lab.plan.workloads()[0];
    assert_eq!((workload.count, lab.plan.scenarios().len()), (3, 8));
    assert!(!lab.plan.faults().power_off.is_empty());
    // The way back writes twice.
    let needs = lab.plan.load().duration * 7;
    assert!(
        needs.as_secs() < 30,
        "the lab run must stay well under a minute"
    );
}

#[test]
fn commented_lines_of_the_starter_are_valid_too() {
    for driver in model::DriverKind::ALL {
        let lines = starter(*driver).lines().map(|line| {
            let Some(hash) = line.find("# ") else {
                return line.to_owned();
            };
            let (indent, rest) = (&line[..hash], &line[hash + 2..]);
            let is_field = rest.trim_start().split_once(':').is_some_and(|(key, _)| {
                let known = [
                    "handleMap",
                    "volumeSnapshotClass",
                    "faults",
                    "powerOff",
                    "powerOn",
                ];
                known.contains(&key)
            });
            if is_field && indent.trim().is_empty() {
                format!("{indent}{rest}")
            } else {
                line.to_owned()
            }
        });
        let text = lines.collect::<Vec<_>>().join("\n");
        let plan = read(&text).unwrap_or_else(|error| panic!("{error}")).plan;
        let protection = plan.protection();
        assert_eq!(
            (plan.faults().power_off.len(), protection.handle_map.len()),
            (2, 1)
        );
        assert!(protection.volume_snapshot_class.is_some());
    }
}

/// Name of each case and its plan.
#[expect(clippy::too_many_lines, reason = "a table of cases, not a procedure")]
fn bad_plans() -> Vec<(&'static str, String)> {
    let protection = "  volumeReplicationClass: rbd-1m";
    let workload = "    count: 3";
    let parameters = "    parameters: {dataSize: 2Gi, cores: 2, nested: true}";
    let scenarios = "scenarios: [failover.*, boot.replicated, boot.*]";
    let more = |line: &str, added: &str| with(line, &format!("{line}\n{added}"));
    vec![
        ("empty file", String::new()),
        ("only a comment", "# nothing\n".to_owned()),
        ("not a mapping", "- a\n- b\n".to_owned()),
        ("two documents", format!("{GOOD}---\n{GOOD}")),
        ("broken syntax", with(workload, "    count: [3")),
        ("tab", with(workload, "\tcount: 3")),
        (
            "unknown key",
            with(protection, "  volumReplicationClas: rbd-1m"),
        ),
        (
            "unknown key without a near one",
            more(workload, "    colour: blue"),
        ),
        (
            "unknown top-level key",
            format!("{GOOD}objetives: {{rpo: 2m}}\n"),
        ),
        ("merge key", more(workload, "    <<: {count: 4}")),
        ("duplicate key", more(workload, "    count: 4")),
        (
            "missing keys",
            "apiVersion: virtproof.dev/v1alpha1\nkind: Plan\n".to_owned(),
        ),
        (
            "wrong version and kind",
            GOOD.replace("v1alpha1", "v1")
                .replace("kind: Plan", "kind: Pla"),
        ),
        ("bad name", with("quarterly-dr", "Quarterly_DR")),
        (
            "same site twice",
            with("{context: west}", "{context: east}"),
        ),
        (
            "default site twice",
            GOOD.replace("{context: east}", "{}")
                .replace("{context: west}", "{}"),
        ),
        (
            "missing kubeconfig",
            with("{context: west}", "{kubeconfig: west.yaml}"),
        ),
        (
            "unknown driver",
            with("driver: volumeReplication", "driver: volumereplication"),
        ),
        (
            "driver without its class",
            with(&format!("{protection}\n"), ""),
        ),
        (
            "number for a duration",
            with("schedulingInterval: 1m", "schedulingInterval: 60"),
        ),
        (
            "bad duration",
            with("schedulingInterval: 1m", "schedulingInterval: fast"),
        ),
        (
            "zero duration",
            with("schedulingInterval: 1m", "schedulingInterval: 0s"),
        ),
        (
            "fields of another fencing method",
            more(
                protection,
                "  fencing: {method: stopVm, cidrs: [192.0.2.1/32], networkFenceClass: f}",
            ),
        ),
        (
            "fencing without its class",
            more(
                protection,
                "  fencing: {method: networkFence, cidrs: [192.0.2.1]}",
            ),
        ),
        (
            "ambiguous handle map",
            more(protection, "  handleMap: {a: x, b: x, c: ''}"),
        ),
        (
            "snapshot class without a name",
            more(protection, "  volumeSnapshotClass: ''"),
        ),
        ("null section", more(protection, "  fencing:")),
        (
            "no workloads",
            GOOD.replace(
                &GOOD[GOOD.find("workloads:").unwrap()..GOOD.find("scenarios:").unwrap()],
                "workloads: []\n",
            ),
        ),
        (
            "same workload twice",
            more(parameters, "  - {name: ledger, template: cirros}"),
        ),
        ("count zero", with("count: 3", "count: 0")),
        ("negative count", with("count: 3", "count: -1")),
        ("count as text", with("count: 3", "count: three")),
        ("too many", with("count: 3", "count: 4294967296")),
        (
            "unknown template",
            with("template: cirros", "template: ciros"),
        ),
        (
            "missing template file",
            with("template: cirros", "template: ./mine.yaml"),
        ),
        ("unknown recipe", more(workload, "    recipe: quiesce")),
        (
            "parameters of a wrong type",
            with(parameters, "    parameters: {ratio: 1.5, list: [1]}"),
        ),
        (
            "bad parameters",
            with(
                parameters,
                "    parameters: {data-size: 2Gi, text: \"a\\n\\e[31m\"}",
            ),
        ),
        (
            "bad ssh",
            more(
                workload,
                "    ssh: {user: '-x', port: 0, keyFile: id, jumpHost: me@there}",
            ),
        ),
        (
            "jump without host",
            more(workload, "    ssh: {route: jump}"),
        ),
        (
            "jump to nowhere",
            more(workload, "    ssh: {route: jump, jumpHost: nowhere}"),
        ),
        (
            "port out of range",
            more(workload, "    ssh: {port: 70000}"),
        ),
        (
            "data volumes of a wrong kind",
            more(
                workload,
                "    dataVolumes: [{size: 1Gi, volumeMode: block, ledger: disk}, {}]",
            ),
        ),
        (
            "bad data volumes",
            more(
                workload,
                "    dataVolumes: [{size: 1Gb}, {size: 1Mi}, {size: 10000001}, {size: 99999Pi}]",
            ),
        ),
        (
            "too many data volumes",
            more(
                workload,
                &format!("    dataVolumes: [{}]", "{size: 1Gi},".repeat(17)),
            ),
        ),
        (
            "bad objectives",
            format!(
                "{GOOD}objectives: {{rpo: 2 minuts, rto: 0s, freezeStall: -1s, migrationBlackout: 1 month}}\n"
            ),
        ),
        (
            "bad isolation",
            format!(
                "{GOOD}isolation: {{unreachable: [db.example.com, 'db:5432', 'db:5432', 'http://db:80']}}\n"
            ),
        ),
        ("no scenarios", with(scenarios, "scenarios: []")),
        (
            "unknown scenario",
            with(scenarios, "scenarios: [relocate.zero-los]"),
        ),
        (
            "glob without a match",
            with(scenarios, "scenarios: ['negative.*']"),
        ),
        ("broken glob", with(scenarios, "scenarios: ['boot.[']")),
        (
            "same scenario twice",
            with(scenarios, "scenarios: [boot.identity, boot.identity]"),
        ),
        (
            "scenarios as text",
            with(scenarios, "scenarios: boot.identity"),
        ),
        (
            "load of a wrong type",
            format!("{GOOD}load: {{coldStride: 1.5, duration: 1}}\n"),
        ),
        (
            "bad load",
            format!("{GOOD}load: {{rate: 2000000, batch: 70000, hot: 0, log: 5000}}\n"),
        ),
        ("escapes", with("kind: Plan", "kind: \"\\e[31mPlan\"")),
        (
            "half a fault",
            format!("{GOOD}faults: {{powerOff: ['']}}\n"),
        ),
        ("bad deadline", format!("{GOOD}deadlines: {{boot: 5 mn}}\n")),
        (
            "several at once",
            GOOD.replace("rbd-1m\n", "rbd-1m\n  synchronos: true\n")
                .replace("count: 3", "count: 0")
                .replace("1m\nwork", "1x\nwork"),
        ),
        (
            "hostile text",
            format!("{GOOD}\"\\e[31m\u{7f}evil\": {{}}\n"),
        ),
    ]
}

#[test]
fn every_bad_plan_gets_a_message() {
    let mut shown = String::new();
    for (name, text) in bad_plans() {
        write!(shown, "=== {name}\n{}\n\n", message(&text)).unwrap();
    }
    assert!(!shown.contains("ACCEPTED"), "{shown}");
    insta::assert_snapshot!("bad-plans", shown);
}

#[test]
fn unreadable_files_say_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let missing = load(&dir.path().join("none.yaml"), &KNOWN).unwrap_err();
    assert!(
        missing.to_string().contains("none.yaml; check the path"),
        "{missing}"
    );
    let huge = dir.path().join("huge.yaml");
    std::fs::write(&huge, vec![b'#'; yaml::MAX_TEXT + 10]).unwrap();
    let error = load(&huge, &KNOWN).unwrap_err().to_string();
    assert!(error.contains("the limit is 1048576"), "{error}");
    let binary = dir.path().join("binary.yaml");
    std::fs::write(&binary, [0xff, 0xfe]).unwrap();
    assert!(matches!(load(&binary, &KNOWN), Err(PlanError::Read { .. })));
}

#[test]
fn paths_start_at_the_plan() {
    let dir = tempfile::tempdir().unwrap();
    let plan = dir.path().join("plan.yaml");
    std::fs::write(&plan, with("template: cirros", "template: vm/mine.yaml")).unwrap();
    assert!(load(&plan, &KNOWN).is_err());
    std::fs::create_dir(dir.path().join("vm")).unwrap();
    std::fs::write(dir.path().join("vm/mine.yaml"), "").unwrap();
    assert_eq!(load(&plan, &KNOWN).unwrap().dir, dir.path());
}

/// Compares a generated file with what is checked in; `VIRTPROOF_REGENERATE=1` writes it instead.
fn checked_in(path: &str, wanted: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("VIRTPROOF_REGENERATE").is_some() {
        std::fs::write(&path, wanted).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == wanted,
        "{} is stale: run the tests once with VIRTPROOF_REGENERATE=1",
        path.display()
    );
}

#[test]
fn the_schema_is_up_to_date() {
    let text = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
    checked_in("docs/plan.schema.json", &text);
}

#[test]
fn the_schema_and_the_reader_agree() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    let value = |text: &str| yaml::parse(text, false).unwrap()[0].to_value();
    assert!(validator.is_valid(&value(GOOD)));
    assert!(validator.is_valid(&value(LAB)));
    for (name, text) in bad_plans() {
        let Ok(nodes) = yaml::parse(&text, false) else {
            continue;
        };
        let [node] = nodes.as_slice() else {
            continue;
        };
        let mut problems = Problems::new("plan.yaml", &text);
        shape::check(node, &schema(), &mut problems);
        assert_eq!(
            problems.is_empty(),
            validator.is_valid(&node.to_value()),
            "{name}"
        );
    }
}

#[test]
fn the_reference_names_every_field() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/plan.md");
    let page = std::fs::read_to_string(page).unwrap_or_default();
    let (begin, end) = ("<!-- fields: generated -->\n", "<!-- end of fields -->\n");
    let (head, rest) = page.split_once(begin).expect("docs/plan.md has the marker");
    let (_, tail) = rest
        .split_once(end)
        .expect("docs/plan.md has the end marker");
    checked_in(
        "docs/plan.md",
        &format!("{head}{begin}{}{end}{tail}", reference::tables()),
    );
}

mod reference;

#[test]
fn a_vm_is_frozen_by_its_recipe_if_it_has_one() {
    let read = |more: &str| {
        let text = LAB.replace("    count: 3\n", &format!("    count: 3\n{more}"));
        let known = Known::nothing();
        parse(&text, "plan.yaml", Path::new("."), &known)
            .map(|loaded| loaded.plan.workloads()[0].clone())
    };
    assert_eq!(read("").unwrap().quiesce, Quiesce::Subresource);
    let own = read("    recipe: vm-quiesce\n    recipeMode: faithful\n").unwrap();
    assert_eq!(
        (own.quiesce, own.recipe_mode),
        (Quiesce::Recipe, RecipeMode::Faithful)
    );
    let kept = read("    recipe: vm-quiesce\n    quiesce: subresource\n").unwrap();
    assert_eq!(kept.quiesce, Quiesce::Subresource);
    for more in ["    quiesce: recipe\n", "    recipeParameters: {A: [b]}\n"] {
        let said = read(more).unwrap_err().to_string();
        assert!(said.contains("needs a Recipe"), "{said}");
    }
}
