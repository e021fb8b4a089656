//! A Recipe and a VRG as people write them from hearsay: every error of theirs is named.

use super::*;

const SEED: &str = "\
apiVersion: ramendr.openshift.io/v1alpha1
kind: Recipe
metadata:
  name: vm-recipe-draft
  namespace: app
spec:
  hooks:
    - name: quiesce
      namespace: app
      labelSelector: vm.kubevirt.io/name=web
      ops:
        - name: freeze
          container: virt-launcher
          command: [/usr/bin/fsfreeze, -f, /mnt]
        - name: thaw
          container: virt-launcher
          command: [/usr/bin/fsfreeze, -u, /mnt]
  workflows:
    - name: vm-capture
      sequence:
        - hook: quiesce.freeze
        - group: volumes
        - hook: quiesce.thaw
---
apiVersion: ramendr.openshift.io/v1alpha1
kind: VolumeReplicationGroup
metadata:
  name: web
  namespace: app
spec:
  pvcSelector:
    matchLabels:
      vm.kubevirt.io/name: web
  kubeObjectProtection:
    recipeRef:
      name: vm-recipe-draft
      namespace: app
      captureWorkflowName: vm-capture
      recoverWorkflowName: vm-restore
---
apiVersion: kubevirt.io/v1
kind: VirtualMachine
metadata: {name: web, namespace: app}
spec:
  runStrategy: Always
  template:
    spec:
      domain: {devices: {}}
      volumes: [{name: root, persistentVolumeClaim: {claimName: root}}]
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: root, namespace: app}
spec: {accessModes: [ReadWriteOnce]}
";

#[test]
fn every_error_of_the_draft_is_named() {
    let report = report(SEED);
    let named = |rule: &str, words: &str| {
        let hit = report
            .findings
            .iter()
            .any(|f| f.rule == rule && f.what.contains(words));
        let all: Vec<_> = report
            .findings
            .iter()
            .map(|f| format!("{} {}", f.rule, f.what))
            .collect();
        assert!(hit, "no `{rule}` that says `{words}`:\n{}", all.join("\n"));
    };
    // What a real API server answered 422 for.
    named("refused", "`appType` is missing");
    named("refused", "`type` is missing");
    named("refused", "`labelSelector` is a text");
    named("refused", "`command` is a list");
    named("refused", "spec/replicationState` is missing");
    named("refused", "spec/s3Profiles` is missing");
    named("vrg-no-async-sync", "neither");
    named("vrg-recipe-workflow-names", "captureWorkflowName");
    named("vrg-recipe-workflow-names", "recoverWorkflowName");
    // What it would take and never do.
    named("recipe-workflow-name", "vm-capture");
    named("recipe-no-backup", "backup");
    named("recipe-hook-reference", "quiesce.freeze");
    named("recipe-group-panics", "volumes");
    named("recipe-container", "virt-launcher");
    named("recipe-freeze-not-guest", "fsfreeze");
    named("pvc-selector-launcher-label", "vm.kubevirt.io/name");
    named("pvc-selector-misses", "root");
    named("vrg-by-hand", "by hand");
    named("vm-starts-by-itself", "always");
    named("vm-rwo-claim", "root");
    named("vm-bridge-binding", "bridge");
    named("vm-firmware-uuid", "UUID");
}

#[test]
fn a_volumes_group_in_a_backup_is_an_error_with_and_without_spec_volumes() {
    let sequence = "        - group: objects\n        - hook: guest/thaw";
    assert!(RECIPE.contains(sequence));
    let text = RECIPE.replace(
        sequence,
        "        - group: volumes\n        - hook: guest/thaw",
    );
    let errors = |text: &str| {
        let findings = report(text).findings;
        let errors = findings.iter().filter(|f| f.severity == Severity::Error);
        errors.map(|f| f.rule).collect::<BTreeSet<_>>()
    };
    assert!(errors(&text).contains("recipe-group-panics"));
    let declared = text.replace("  appType: vm\n", "  appType: vm\n  volumes: {name: volumes, type: volume, labelSelector: {matchLabels: {app: web}}}\n");
    assert!(errors(&declared).contains("recipe-volumes-in-sequence"));
    assert!(!errors(&declared).contains("recipe-group-panics"));
}
