//! Every rule, with a manifest that breaks it and one that does not.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

mod bad;
mod seed;

fn source(text: &str) -> Source {
    Source {
        name: "a.yaml".to_owned(),
        text: text.to_owned(),
    }
}

fn report(text: &str) -> Report {
    let report = lint(&[source(text)]);
    assert_eq!(report.malformed, [], "{text}");
    report
}

/// The rules that a text breaks.
fn broken(text: &str) -> BTreeSet<&'static str> {
    report(text)
        .findings
        .iter()
        .map(|finding| finding.rule)
        .collect()
}

/// Rules that a text breaks badly enough to matter.
fn serious(text: &str) -> Vec<String> {
    let findings = report(text).findings;
    let serious = findings
        .iter()
        .filter(|finding| finding.severity != Severity::Note);
    serious
        .map(|f| format!("{}:{} {}: {}", f.line, f.rule, f.object, f.what))
        .collect()
}

const RECIPE: &str = "\
apiVersion: ramendr.openshift.io/v1alpha1
kind: Recipe
metadata: {name: quiesce, namespace: app}
spec:
  appType: vm
  groups:
    - name: objects
      type: resource
      includedNamespaces: [app]
      excludedResourceTypes: [pods]
      includeClusterResources: false
  hooks:
    - name: guest
      namespace: app
      type: exec
      labelSelector: {matchLabels: {kubevirt.io: virt-launcher, vm.kubevirt.io/name: web}}
      ops:
        - name: freeze
          container: compute
          command: /usr/bin/virt-freezer --freeze --name web --namespace app --unfreezeTimeoutSeconds 300
          timeout: 90
          inverseOp: thaw
        - name: thaw
          container: compute
          command: /usr/bin/virt-freezer --unfreeze --name web --namespace app
          timeout: 60
    - name: ready
      namespace: app
      type: check
      selectResource: kubevirt.io/v1/virtualmachines
      nameSelector: web
      timeout: 60
      chks:
        - name: up
          condition: '{$.status.ready} == {true}'
  workflows:
    - name: backup
      sequence:
        - hook: guest/freeze
        - group: objects
        - hook: guest/thaw
    - name: restore
      sequence:
        - group: objects
        - hook: ready/up
";

const PLAIN_RECIPE: &str = "\
apiVersion: ramendr.openshift.io/v1alpha1
kind: Recipe
metadata: {name: plain, namespace: app}
spec:
  appType: vm
  groups: [{name: objects, type: resource, includedNamespaces: [app], includeClusterResources: false}]
  workflows:
    - {name: backup, sequence: [{group: objects}]}
    - {name: restore, sequence: [{group: objects}]}
";

const VRG: &str = "\
apiVersion: ramendr.openshift.io/v1alpha1
kind: VolumeReplicationGroup
metadata: {name: web, namespace: app}
spec:
  pvcSelector: {matchLabels: {app: web}}
  replicationState: primary
  s3Profiles: [east, west]
  async: {schedulingInterval: 5m}
  kubeObjectProtection:
    recipeRef: {name: quiesce, namespace: app}
";

const DRPC: &str = "\
apiVersion: ramendr.openshift.io/v1alpha1
kind: DRPlacementControl
metadata: {name: web, namespace: app}
spec:
  pvcSelector: {matchLabels: {app: web}}
  drPolicyRef: {name: policy}
  placementRef: {name: web}
  preferredCluster: east
  failoverCluster: west
";

const POLICY: &str = "\
apiVersion: ramendr.openshift.io/v1alpha1
kind: DRPolicy
metadata: {name: policy}
spec:
  drClusters: [east, west]
  schedulingInterval: 5m
---
apiVersion: ramendr.openshift.io/v1alpha1
kind: DRCluster
metadata: {name: east}
spec: {s3ProfileName: east, cidrs: [10.0.0.0/24]}
---
apiVersion: ramendr.openshift.io/v1alpha1
kind: DRCluster
metadata: {name: west}
spec: {s3ProfileName: west}
";

const VR: &str = "\
apiVersion: replication.storage.openshift.io/v1alpha1
kind: VolumeReplication
metadata: {name: data, namespace: app}
spec:
  volumeReplicationClass: five
  replicationState: secondary
  dataSource: {apiGroup: '', kind: PersistentVolumeClaim, name: data}
---
apiVersion: replication.storage.openshift.io/v1alpha1
kind: VolumeReplicationClass
metadata:
  name: five
  labels: {ramendr.openshift.io/storageid: s, ramendr.openshift.io/replicationid: r}
spec:
  provisioner: rbd.csi.ceph.com
  parameters:
    replication.storage.openshift.io/replication-secret-name: secret
    schedulingInterval: 5m
";

const VGR: &str = "\
apiVersion: replication.storage.openshift.io/v1alpha1
kind: VolumeGroupReplication
metadata: {name: data, namespace: app}
spec:
  volumeReplicationClassName: five
  volumeGroupReplicationClassName: group
  replicationState: secondary
  source: {selector: {matchLabels: {app: web}}}
";

const FENCE: &str = "\
apiVersion: csiaddons.openshift.io/v1alpha1
kind: NetworkFence
metadata: {name: east}
spec:
  networkFenceClassName: ceph
  fenceState: Unfenced
  cidrs: [10.0.0.0/24, 'fd00::/64']
";

const VM: &str = "\
apiVersion: kubevirt.io/v1
kind: VirtualMachine
metadata: {name: web, namespace: app, labels: {app: web}}
spec:
  runStrategy: Manual
  dataVolumeTemplates:
    - metadata:
        name: root
        labels: {app: web}
        annotations: {cdi.kubevirt.io/storage.checkStaticVolume: 'true'}
      spec:
        source: {blank: {}}
        storage: {accessModes: [ReadWriteMany], resources: {requests: {storage: 1Gi}}}
  template:
    metadata: {labels: {tier: front}}
    spec:
      evictionStrategy: LiveMigrate
      domain:
        firmware: {uuid: 5d307ca9-b3ef-428c-8861-06e72d69f223}
        devices:
          disks: [{name: root, disk: {bus: virtio}}]
          interfaces: [{name: default, masquerade: {}, macAddress: '02:00:00:00:00:01'}]
      networks: [{name: default, pod: {}}]
      volumes:
        - {name: root, dataVolume: {name: root}}
        - {name: seed, cloudInitNoCloud: {userData: '#cloud-config'}}
        - {name: key, secret: {secretName: key}}
---
apiVersion: v1
kind: Secret
metadata: {name: key, namespace: app, labels: {app: web}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: spare, namespace: app, labels: {app: web}}
spec: {accessModes: [ReadWriteMany]}
";

#[test]
fn good_manifests_are_clean() {
    for text in [RECIPE, PLAIN_RECIPE, VRG, DRPC, POLICY, VR, VGR, FENCE, VM] {
        assert_eq!(serious(text), Vec::<String>::new(), "{text}");
    }
    let all = [RECIPE, VRG, DRPC, POLICY, VR, FENCE, VM].join("---\n");
    assert_eq!(serious(&all), Vec::<String>::new());
}

#[test]
fn embedded_recipes_are_clean() {
    for recipe in crate::workload::recipe::embedded() {
        assert_eq!(
            serious(recipe.text),
            Vec::<String>::new(),
            "{}",
            recipe.name
        );
        let values = "{VM: [web], NAMESPACE: [app], UNFREEZE_SECONDS: ['300']}";
        let used = ["VM", "UNFREEZE_SECONDS"]
            .into_iter()
            .filter(|name| !recipe.text.contains(&format!("${{{name}}}")));
        let reference = format!(
            "name: {}, namespace: app}}\n    recipeParameters: {values}",
            recipe.name
        );
        let vrg = VRG.replace("name: quiesce, namespace: app}", &reference);
        let set = [
            recipe
                .text
                .replace("metadata:\n", "metadata:\n  namespace: app\n"),
            vrg,
            VM.to_owned(),
        ]
        .join("---\n");
        let found = serious(&set);
        let unused: Vec<_> = found
            .iter()
            .filter(|line| line.contains("recipe-parameter-unused"))
            .collect();
        assert_eq!(found.len(), unused.len(), "{found:?}");
        assert_eq!(unused.len(), used.count(), "{found:?}");
    }
}

#[test]
fn every_rule_is_broken_by_its_bad_manifest_and_not_by_its_good_one() {
    let mut seen = BTreeSet::new();
    for (rule, good, bad) in bad::cases() {
        assert!(
            !broken(&good).contains(rule),
            "{rule} finds fault with:\n{good}"
        );
        let found = broken(&bad);
        assert!(
            found.contains(rule),
            "{rule} is not among {found:?}:\n{bad}"
        );
        seen.insert(rule);
    }
    let all: BTreeSet<&str> = rules().iter().map(|rule| rule.id).collect();
    assert_eq!(all.len(), rules().len(), "ids are unique");
    let untested: Vec<_> = all.difference(&seen).collect();
    assert!(untested.is_empty(), "rules without a case: {untested:?}");
}

#[test]
fn rules_say_what_to_do_in_sentences() {
    for rule in rules() {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        assert!(rule.id.chars().all(plain), "{}", rule.id);
        assert!(
            rule.why.ends_with('.') && rule.fix.ends_with('.'),
            "{}",
            rule.id
        );
        assert!(
            !rule.source.is_empty() && !rule.source.ends_with('.'),
            "{}",
            rule.id
        );
    }
}

#[test]
fn findings_stand_where_the_fault_is() {
    let text = RECIPE.replace(
        "          container: compute\n          command: /usr/bin/virt-freezer --unfreeze",
        "          container: virt-launcher\n          command: /usr/bin/virt-freezer --unfreeze",
    );
    let report = report(&text);
    let finding = report
        .findings
        .iter()
        .find(|f| f.rule == "recipe-container")
        .unwrap();
    assert_eq!(
        text.lines()
            .nth(usize::try_from(finding.line).unwrap() - 1)
            .unwrap()
            .trim(),
        "container: virt-launcher"
    );
    assert_eq!(finding.object, "Recipe app/quiesce");
    let shown = render(&report, &[source(&text)], |_, text| text.to_owned());
    assert!(
        shown.contains(&format!(
            "a.yaml:{}:22: error: Recipe app/quiesce",
            finding.line
        )),
        "{shown}"
    );
    assert!(
        shown.contains("| ") && shown.contains("source: KubeVirt"),
        "{shown}"
    );
}

#[test]
fn lists_are_opened_and_unknown_kinds_are_named() {
    let item = VM
        .split("---\n")
        .next()
        .unwrap()
        .lines()
        .flat_map(|line| ["    ", line, "\n"])
        .collect::<String>();
    let list = format!("apiVersion: v1\nkind: List\nitems:\n  -\n{item}");
    assert_eq!(report(&list).looked_at, 1);
    let other = report(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n---\nfoo: bar\n---\n- 1\n---\napiVersion: cooking.example/v1\nkind: Recipe\n",
    );
    assert_eq!((other.looked_at, other.findings.len()), (0, 0));
    let kinds: Vec<&str> = other
        .skipped
        .iter()
        .map(|skipped| skipped.kind.as_str())
        .collect();
    assert_eq!(
        kinds,
        [
            "Deployment (apps/v1)",
            "a mapping without a kind",
            "a list without a kind",
            "Recipe (cooking.example/v1)"
        ]
    );
    assert_eq!(other.skipped[1].line, 5);
    let broken = lint(&[source("a: [")]);
    assert_eq!((broken.looked_at, broken.malformed.len()), (0, 1));
}

#[test]
fn sarif_names_rules_and_places() {
    let report = lint(&[Source {
        name: "dir/my file.yaml".to_owned(),
        text: RECIPE.replace("inverseOp: thaw", "inverseOp: thwa"),
    }]);
    let log = sarif(&report);
    assert_eq!(log["version"], "2.1.0");
    let run = &log["runs"][0];
    let result = run["results"]
        .as_array()
        .unwrap()
        .iter()
        .find(|r| r["ruleId"] == "recipe-inverse-unknown")
        .unwrap();
    let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
    assert_eq!(
        run["tool"]["driver"]["rules"][index]["id"],
        "recipe-inverse-unknown"
    );
    assert_eq!(result["level"], "error");
    let place = &result["locations"][0]["physicalLocation"];
    assert_eq!(place["artifactLocation"]["uri"], "dir/my%20file.yaml");
    assert_eq!(place["region"]["startLine"], 22);
}

#[test]
fn the_templates_that_come_along_are_read_with_their_defaults() {
    let template = VM.replace(
        "accessModes: [ReadWriteMany], resources",
        "accessModes: ['${modes:=ReadWriteOnce}'], resources",
    );
    assert!(broken(&template).contains("vm-rwo-claim"));
    let unknown = VM.replace(
        "accessModes: [ReadWriteMany], resources",
        "accessModes: '${modes}', resources",
    );
    assert!(!broken(&unknown).contains("vm-rwo-claim"));
}

/// Pieces of manifests in any order, and noise.
fn hostile() -> impl Strategy<Value = String> {
    let lines: Vec<String> = [RECIPE, VRG, VM, VR, VGR, POLICY, FENCE, DRPC]
        .iter()
        .flat_map(|text| text.lines())
        .map(str::to_owned)
        .collect();
    let noise = "[ a-z\\-:\\[\\]{}'\"&*!|>#$0-9é\u{1b}]{0,24}";
    let line =
        prop_oneof![6 => prop::sample::select(lines), 1 => noise, 1 => Just("---".to_owned())];
    prop::collection::vec(line, 0..60).prop_map(|lines| lines.join("\n"))
}

/// A good manifest in which some words changed their place.
fn mutated() -> impl Strategy<Value = String> {
    let base = prop::sample::select(vec![RECIPE, VRG, VM, VR, VGR, POLICY, FENCE, DRPC]);
    let instead = prop::sample::select(vec![
        "",
        "null",
        "[]",
        "{}",
        "7",
        "true",
        "'x'",
        "[1, {a: b}]",
        "{a: [b]}",
        "${X}",
        "-1",
        "\"\\u0007\"",
    ]);
    (
        base,
        prop::collection::vec((any::<prop::sample::Index>(), instead), 1..4),
    )
        .prop_map(|(base, changes)| {
            let mut lines: Vec<String> = base.lines().map(str::to_owned).collect();
            for (at, instead) in changes {
                let at = at.index(lines.len());
                let line = &mut lines[at];
                if let Some(colon) = line.find(": ") {
                    line.truncate(colon + 2);
                    line.push_str(instead);
                }
            }
            lines.join("\n")
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn hostile_text_never_panics(text in hostile()) {
        let report = lint(&[source(&text)]);
        let shown = render(&report, &[source(&text)], |_, text| text.to_owned());
        let escapes = shown.contains('\u{1b}');
        prop_assert!(!escapes, "{}", shown);
        prop_assert!(sarif(&report)["runs"].is_array());
    }

    #[test]
    fn changed_manifests_never_panic(text in mutated()) {
        let report = lint(&[source(&text)]);
        for finding in &report.findings {
            prop_assert!(finding.line >= 1 && finding.line <= text.lines().count() as u64, "{:?}", finding);
            let rings = finding.what.contains('\u{7}');
            prop_assert!(!rings, "{:?}", finding);
        }
    }
}
