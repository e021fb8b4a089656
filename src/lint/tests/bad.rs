//! Rule, good manifest, bad manifest.

use super::{DRPC, FENCE, PLAIN_RECIPE, POLICY, RECIPE, VGR, VM, VR, VRG};

type Case = (&'static str, String, String);

/// `base` with one passage replaced.
fn with(base: &str, from: &str, to: &str) -> String {
    assert_eq!(base.matches(from).count(), 1, "`{from}` in\n{base}");
    base.replace(from, to)
}

/// A case whose bad manifest is a good one with one passage replaced.
fn case(rule: &'static str, base: &str, from: &str, to: &str) -> Case {
    (rule, base.to_owned(), with(base, from, to))
}

fn two(first: &str, second: &str) -> String {
    format!("{first}---\n{second}")
}

pub(super) fn cases() -> Vec<Case> {
    [
        published(),
        workflows(),
        sequences(),
        hooks(),
        checks(),
        other_hooks(),
        freezes(),
        groups(),
        parameters(),
        vrgs(),
        drpcs(),
        policies(),
        replications(),
        classes(),
        vms(),
        disks(),
        together(),
        dependencies(),
    ]
    .concat()
}

fn published() -> Vec<Case> {
    vec![
        case("refused", RECIPE, "  appType: vm\n", ""),
        case(
            "unknown-field",
            RECIPE,
            "          inverseOp: thaw\n",
            "          inverseOperation: thaw\n",
        ),
        case(
            "api-version",
            RECIPE,
            "ramendr.openshift.io/v1alpha1",
            "recipe.ramendr.io/v1alpha1",
        ),
    ]
}

fn workflows() -> Vec<Case> {
    let backup = "    - name: backup\n";
    let restore = "    - name: restore\n      sequence:\n        - group: objects\n        - hook: ready/up\n";
    vec![
        case(
            "recipe-workflow-name",
            RECIPE,
            backup,
            "    - name: vm-capture\n",
        ),
        case(
            "recipe-no-backup",
            RECIPE,
            backup,
            "    - name: vm-capture\n",
        ),
        case("recipe-no-restore", RECIPE, restore, ""),
        case(
            "recipe-essential-unset",
            RECIPE,
            backup,
            "    - name: backup\n      failOn: essential-error\n",
        ),
        case(
            "recipe-full-error",
            RECIPE,
            backup,
            "    - name: backup\n      failOn: full-error\n",
        ),
        case(
            "recipe-restore-not-awaited",
            RECIPE,
            "    - name: restore\n",
            "    - name: restore\n      failOn: full-error\n",
        ),
        (
            "recipe-runs-again",
            PLAIN_RECIPE.to_owned(),
            RECIPE.to_owned(),
        ),
    ]
}

fn sequences() -> Vec<Case> {
    let freeze = "        - hook: guest/freeze\n";
    let group = "        - group: objects\n        - hook: guest/thaw\n";
    let volumes = "  appType: vm\n  volumes: {name: vols, type: volume}\n";
    let declared = with(RECIPE, "  appType: vm\n", volumes);
    vec![
        case(
            "recipe-empty-sequence",
            PLAIN_RECIPE,
            "backup, sequence: [{group: objects}]",
            "backup, sequence: []",
        ),
        case(
            "recipe-no-group",
            RECIPE,
            group,
            "        - hook: guest/thaw\n",
        ),
        case(
            "recipe-hook-reference",
            RECIPE,
            freeze,
            "        - hook: guest.freeze\n",
        ),
        case(
            "recipe-unknown-hook",
            RECIPE,
            freeze,
            "        - hook: gast/freeze\n",
        ),
        case(
            "recipe-unknown-op",
            RECIPE,
            freeze,
            "        - hook: guest/frieze\n",
        ),
        case(
            "recipe-unknown-group",
            &declared,
            group,
            "        - group: object\n        - hook: guest/thaw\n",
        ),
        case(
            "recipe-group-panics",
            RECIPE,
            group,
            "        - group: volumes\n        - hook: guest/thaw\n",
        ),
        case(
            "recipe-volumes-in-sequence",
            &declared,
            group,
            "        - group: objects\n        - group: vols\n",
        ),
        case(
            "recipe-step-key",
            RECIPE,
            freeze,
            "        - hooks: guest/freeze\n",
        ),
        case(
            "recipe-step-two-keys",
            RECIPE,
            freeze,
            "        - {hook: guest/freeze, group: objects}\n",
        ),
    ]
}

fn hooks() -> Vec<Case> {
    let selector = "      labelSelector: {matchLabels: {kubevirt.io: virt-launcher, vm.kubevirt.io/name: web}}\n";
    let freeze =
        "/usr/bin/virt-freezer --freeze --name web --namespace app --unfreezeTimeoutSeconds 300";
    let names = |pattern: &str| format!("      nameSelector: '{pattern}'\n");
    let plain = "        - name: thaw\n";
    let extra = "        - {name: sync, command: /bin/sync, timeout: 9}\n        - name: thaw\n";
    let used = with(
        &with(RECIPE, plain, extra),
        "        - hook: guest/freeze\n",
        "        - hook: guest/freeze\n        - hook: guest/sync\n",
    );
    let undone = with(&used, "timeout: 9}", "timeout: 9, inverseOp: thaw}");
    vec![
        case("recipe-hook-no-selector", RECIPE, selector, ""),
        case("recipe-name-selector", RECIPE, selector, &names("(")),
        (
            "recipe-name-unanchored",
            with(RECIPE, selector, &names("^virt-launcher-web-.*")),
            with(RECIPE, selector, &names("virt-launcher-web-.*")),
        ),
        ("recipe-failure-swallowed", undone, used),
        case(
            "recipe-inverse-unknown",
            RECIPE,
            "inverseOp: thaw",
            "inverseOp: other/thaw",
        ),
        (
            "recipe-zero-pods",
            PLAIN_RECIPE.to_owned(),
            RECIPE.to_owned(),
        ),
        (
            "recipe-completed-launcher",
            PLAIN_RECIPE.to_owned(),
            RECIPE.to_owned(),
        ),
        case(
            "recipe-timeout-default",
            RECIPE,
            "          timeout: 90\n",
            "",
        ),
        case(
            "recipe-command-unreadable",
            RECIPE,
            freeze,
            "'[\"/usr/bin/virt-freezer\",]'",
        ),
        case(
            "recipe-no-shell",
            RECIPE,
            freeze,
            "sync && /usr/bin/virt-freezer --freeze",
        ),
        case(
            "recipe-exec-resource",
            RECIPE,
            selector,
            &format!("{selector}      selectResource: virtualmachine\n"),
        ),
        case(
            "recipe-on-error-word",
            RECIPE,
            "          inverseOp: thaw\n",
            "          inverseOp: thaw\n          onError: ignore\n",
        ),
        case(
            "recipe-newer-crd",
            RECIPE,
            selector,
            &format!("{selector}      skipHookIfNotPresent: true\n"),
        ),
    ]
}

fn checks() -> Vec<Case> {
    let condition = "'{$.status.ready} == {true}'";
    let resource = "      selectResource: kubevirt.io/v1/virtualmachines\n";
    vec![
        case(
            "recipe-check-condition",
            RECIPE,
            condition,
            "'{$.status.ready} == true'",
        ),
        case(
            "recipe-check-precedence",
            RECIPE,
            condition,
            "'{$.a} == {1} && {$.b} == {1} || {$.c} == {1}'",
        ),
        case(
            "recipe-check-text-order",
            RECIPE,
            condition,
            "'{$.status.phase} >= {Running}'",
        ),
        (
            "recipe-check-once",
            PLAIN_RECIPE.to_owned(),
            RECIPE.to_owned(),
        ),
        case(
            "recipe-check-absent-field",
            RECIPE,
            condition,
            "'{$.status.fsFreezeStatus} != {frozen}'",
        ),
        case(
            "recipe-check-resource",
            RECIPE,
            resource,
            "      selectResource: virtualmachine\n",
        ),
    ]
}

fn other_hooks() -> Vec<Case> {
    let scale = |text: &str| {
        let hook = format!(
            "  hooks:\n    - {{name: db, namespace: app, type: scale, nameSelector: db, {text}}}\n"
        );
        let recipe = with(RECIPE, "  hooks:\n", &hook);
        with(
            &recipe,
            "        - hook: guest/freeze\n",
            "        - hook: db/down\n        - hook: guest/freeze\n",
        )
    };
    let good = scale("selectResource: deployment");
    vec![
        (
            "recipe-scale-resource",
            good.clone(),
            scale("selectResource: kubevirt.io/v1/virtualmachines"),
        ),
        (
            "recipe-scale-op",
            good.clone(),
            with(&good, "hook: db/down", "hook: db/off"),
        ),
        (
            "recipe-scale-continue",
            good.clone(),
            scale("selectResource: deployment, onError: continue"),
        ),
    ]
}

#[expect(clippy::too_many_lines, reason = "a table: a case after the other")]
fn freezes() -> Vec<Case> {
    let freeze =
        "/usr/bin/virt-freezer --freeze --name web --namespace app --unfreezeTimeoutSeconds 300";
    let container = "        - name: freeze\n          container: compute\n";
    let inverse = "          inverseOp: thaw\n";
    let pods = with(RECIPE, "      excludedResourceTypes: [pods]\n", "");
    let quiet = with(
        VM,
        "    metadata: {labels: {tier: front}}\n",
        "    metadata: {annotations: {kubevirt.io/skip-backup-hooks: 'true'}}\n",
    );
    vec![
        case(
            "recipe-freeze-not-guest",
            RECIPE,
            freeze,
            "fsfreeze -f /mnt",
        ),
        case(
            "recipe-container",
            RECIPE,
            container,
            "        - name: freeze\n          container: virt-launcher\n",
        ),
        case(
            "recipe-container-unset",
            RECIPE,
            container,
            "        - name: freeze\n",
        ),
        case("recipe-freeze-no-inverse", RECIPE, inverse, ""),
        case(
            "recipe-freeze-continue",
            RECIPE,
            inverse,
            "          inverseOp: thaw\n          onError: continue\n",
        ),
        case(
            "recipe-freeze-without-thaw",
            RECIPE,
            "        - hook: guest/thaw\n",
            "",
        ),
        case(
            "recipe-freeze-forever",
            RECIPE,
            "--unfreezeTimeoutSeconds 300",
            "--unfreezeTimeoutSeconds=0",
        ),
        case(
            "recipe-freeze-timer",
            RECIPE,
            " --unfreezeTimeoutSeconds 300",
            "",
        ),
        case(
            "recipe-freeze-timeout",
            RECIPE,
            "          timeout: 90\n",
            "          timeout: 600\n",
        ),
        case(
            "recipe-freezer-flags",
            RECIPE,
            "--freeze --name web",
            "--freeze --vm web",
        ),
        case(
            "recipe-freezer-namespace",
            RECIPE,
            "--freeze --name web --namespace app",
            "--freeze --name web --namespace default",
        ),
        (
            "recipe-freeze-not-replica",
            PLAIN_RECIPE.to_owned(),
            RECIPE.to_owned(),
        ),
        (
            "recipe-no-finally",
            PLAIN_RECIPE.to_owned(),
            RECIPE.to_owned(),
        ),
        (
            "recipe-freezer-exit-zero",
            PLAIN_RECIPE.to_owned(),
            RECIPE.to_owned(),
        ),
        (
            "recipe-thaw-unverified",
            PLAIN_RECIPE.to_owned(),
            RECIPE.to_owned(),
        ),
        ("recipe-velero-thaws", two(&pods, &quiet), two(&pods, VM)),
        case(
            "recipe-velero-thaws",
            RECIPE,
            "      excludedResourceTypes: [pods]\n",
            "",
        ),
    ]
}

fn groups() -> Vec<Case> {
    let group = "includedNamespaces: [app], includeClusterResources: false}";
    let restored = "{name: restore, sequence: [{group: objects}]}";
    let own = |text: &str| {
        let groups = format!("{group}, {{name: back, type: resource{text}}}");
        let recipe = with(PLAIN_RECIPE, group, &groups);
        with(
            &recipe,
            restored,
            "{name: restore, sequence: [{group: back}]}",
        )
    };
    vec![
        case(
            "recipe-ignored-field",
            PLAIN_RECIPE,
            group,
            "includedNamespaces: [app], restoreOverwriteResources: true}",
        ),
        (
            "recipe-restore-namespaces",
            own(", backupRef: objects"),
            own(", backupRef: objects, includedNamespaces: [app]"),
        ),
        ("recipe-backup-ref", own(", backupRef: objects"), own("")),
        case(
            "recipe-group-unfiltered",
            PLAIN_RECIPE,
            group,
            "includeClusterResources: false}",
        ),
        case(
            "recipe-cluster-resources",
            PLAIN_RECIPE,
            group,
            "includedNamespaces: [app]}",
        ),
        case(
            "recipe-group-type",
            PLAIN_RECIPE,
            "type: resource",
            "type: volume",
        ),
        case(
            "recipe-existing-kept",
            &with(PLAIN_RECIPE, restored, "{name: other, sequence: []}"),
            "name: other, sequence: []",
            "name: restore, sequence: [{group: objects}]",
        ),
        case(
            "recipe-group-selector",
            PLAIN_RECIPE,
            group,
            "includedNamespaces: [app], labelSelector: {matchExpressions: [{key: a, operator: Has}]}}",
        ),
    ]
}

fn parameters() -> Vec<Case> {
    let recipe = with(
        RECIPE,
        "includedNamespaces: [app]",
        "includedNamespaces: ['${NS}']",
    );
    let given = |text: &str| {
        let parameters = format!("  kubeObjectProtection:\n    recipeParameters: {{{text}}}\n");
        two(
            &recipe,
            &with(VRG, "  kubeObjectProtection:\n", &parameters),
        )
    };
    let name = with(
        &recipe,
        "vm.kubevirt.io/name: web}",
        "vm.kubevirt.io/name: '$NS'}",
    );
    let expanded = |values: &str| {
        given("NS: [app]")
            .replace(&recipe, &name)
            .replace("NS: [app]", values)
    };
    vec![
        ("recipe-parameter-undefined", given("NS: [app]"), given("")),
        (
            "recipe-parameter-unused",
            given("NS: [app]"),
            given("NS: [app], VMS: [web]"),
        ),
        (
            "recipe-expansion",
            expanded("NS: [app]"),
            expanded("NS: [app, other]"),
        ),
        case(
            "recipe-dollar",
            RECIPE,
            "/usr/bin/virt-freezer --unfreeze",
            "'[\"/bin/sh\",\"-c\",\"a; exit $?\"]' #",
        ),
    ]
}

fn vrgs() -> Vec<Case> {
    let both = two(RECIPE, VRG);
    let volumes = "  appType: vm\n  volumes: {name: vols, type: volume, labelSelector: {matchLabels: {app: web}}}\n";
    let built_in = "    recipeRef: {name: vm-recipe, namespace: ramen-ops}\n";
    let parameters = "    recipeParameters: {PROTECTED_VMS: [web], K8S_RESOURCE_SELECTOR: [a], PVC_RESOURCE_SELECTOR: [a]}\n";
    let reference = "    recipeRef: {name: quiesce, namespace: app}\n";
    vec![
        ("vrg-by-hand", two(VRG, DRPC), VRG.to_owned()),
        case(
            "vrg-recipe-workflow-names",
            VRG,
            "{name: quiesce, ",
            "{name: quiesce, captureWorkflowName: vm-capture, ",
        ),
        case(
            "vrg-replication-state",
            VRG,
            "replicationState: primary",
            "replicationState: Primary",
        ),
        case(
            "vrg-no-async-sync",
            VRG,
            "  async: {schedulingInterval: 5m}\n",
            "",
        ),
        case("vrg-no-s3", VRG, "[east, west]", "[NoS3]"),
        case(
            "pvc-selector-everything",
            VRG,
            "{matchLabels: {app: web}}",
            "{}",
        ),
        case(
            "pvc-selector-uid",
            VRG,
            "{app: web}",
            "{kubevirt.io/created-by: 6f1d}",
        ),
        case(
            "recipe-ref-namespace",
            VRG,
            "{name: quiesce, namespace: app}",
            "{name: quiesce}",
        ),
        case(
            "recipe-ref-absent",
            &both,
            "recipeRef: {name: quiesce,",
            "recipeRef: {name: quiescence,",
        ),
        (
            "vm-recipe-parameters",
            with(VRG, reference, &format!("{built_in}{parameters}")),
            with(VRG, reference, built_in),
        ),
        case(
            "recipe-stopped",
            VRG,
            "  kubeObjectProtection:\n",
            "  kubeObjectProtection:\n    recipeParameters: {STOP_RECIPE_RECONCILE: ['true']}\n",
        ),
        (
            "recipe-volumes-override",
            both.clone(),
            with(&both, "  appType: vm\n", volumes),
        ),
        case(
            "protected-namespaces",
            VRG,
            "  s3Profiles:",
            "  protectedNamespaces: [web]\n  s3Profiles:",
        ),
        case(
            "recipe-namespaces",
            &both,
            "includedNamespaces: [app]",
            "includedNamespaces: [app, other]",
        ),
    ]
}

fn drpcs() -> Vec<Case> {
    let preferred = "  preferredCluster: east\n";
    let failover = with(
        DRPC,
        preferred,
        "  action: Failover\n  preferredCluster: east\n",
    );
    let test = with(
        &failover,
        "  action: Failover\n",
        "  action: Failover\n  dryRun: true\n",
    );
    let other = with(DRPC, "name: web, namespace", "name: db, namespace");
    let elsewhere = with(&other, "namespace: app", "namespace: db");
    let ops = with(DRPC, "namespace: app", "namespace: ramen-ops");
    let captured = with(
        &ops,
        preferred,
        "  kubeObjectProtection: {kubeObjectSelector: {matchLabels: {app: web}}}\n",
    );
    vec![
        case(
            "drpc-action-cluster",
            &failover,
            "  failoverCluster: west\n",
            "",
        ),
        case(
            "drpc-dry-run",
            &test,
            "action: Failover",
            "action: Relocate",
        ),
        ("drpc-dry-run-twice", failover.clone(), test.clone()),
        (
            "drpc-shared-namespace",
            two(DRPC, &elsewhere),
            two(DRPC, &other),
        ),
        ("drpc-nothing-captured", captured, ops),
    ]
}

fn policies() -> Vec<Case> {
    let placement = |annotation: &str| {
        let text = format!(
            "apiVersion: cluster.open-cluster-management.io/v1beta1\nkind: Placement\nmetadata: {{name: web, namespace: app{annotation}}}\n"
        );
        two(DRPC, &text)
    };
    let off = ", annotations: {cluster.open-cluster-management.io/experimental-scheduling-disable: 'true'}";
    let metro = with(POLICY, "schedulingInterval: 5m", "schedulingInterval: ''");
    let reachable = with(
        &metro,
        "{s3ProfileName: west}",
        "{s3ProfileName: west, cidrs: [10.0.1.0/24]}",
    );
    vec![
        case("drpolicy-clusters", POLICY, "[east, west]", "[east, east]"),
        case(
            "drpolicy-unknown-cluster",
            POLICY,
            "[east, west]",
            "[east, vest]",
        ),
        ("drpolicy-metro", POLICY.to_owned(), metro.clone()),
        ("drcluster-no-cidrs", reachable, metro),
        case(
            "drcluster-fence-async",
            POLICY,
            "{s3ProfileName: west}",
            "{s3ProfileName: west, clusterFence: Fenced}",
        ),
        case(
            "drcluster-manual-fence",
            POLICY,
            "{s3ProfileName: west}",
            "{s3ProfileName: west, clusterFence: ManuallyFenced}",
        ),
        case("cidr", POLICY, "10.0.0.0/24", "10.0.0.0/33"),
        case("fence-no-cidrs", FENCE, "[10.0.0.0/24, 'fd00::/64']", "[]"),
        case(
            "fence-driver",
            FENCE,
            "  networkFenceClassName: ceph\n",
            "  driver: rbd.csi.ceph.com\n",
        ),
        case("fence-delete", FENCE, "Unfenced", "Fenced"),
        ("placement-scheduling", placement(off), placement("")),
    ]
}

fn replications() -> Vec<Case> {
    let secondary = "replicationState: secondary";
    let second = VR
        .split("---\n")
        .next()
        .unwrap()
        .replace("name: data, namespace", "name: again, namespace");
    let claims = two(VR, VM);
    let selected = with(&claims, "name: data}\n", "name: spare}\n");
    vec![
        case(
            "vr-data-source",
            VR,
            "kind: PersistentVolumeClaim",
            "kind: VirtualMachine",
        ),
        case(
            "vr-auto-resync",
            VR,
            secondary,
            "autoResync: true\n  replicationState: secondary",
        ),
        case("vr-resync", VR, secondary, "replicationState: resync"),
        case(
            "vr-forced-promotion",
            VR,
            secondary,
            "replicationState: primary",
        ),
        ("vr-claim-twice", VR.to_owned(), two(VR, &second)),
        ("vr-claim-twice", two(&claims, VGR), two(&selected, VGR)),
        case(
            "replication-class-absent",
            VR,
            "volumeReplicationClass: five",
            "volumeReplicationClass: fife",
        ),
        case(
            "vgr-external",
            VGR,
            secondary,
            "external: true\n  replicationState: secondary",
        ),
        case(
            "vgr-no-replication-class",
            VGR,
            "  volumeReplicationClassName: five\n",
            "",
        ),
        case(
            "vgr-selector-everything",
            VGR,
            "{matchLabels: {app: web}}",
            "{}",
        ),
    ]
}

fn classes() -> Vec<Case> {
    let interval = "    schedulingInterval: 5m\n";
    vec![
        case(
            "class-parameter-prefix",
            VR,
            "replication-secret-name",
            "replication-secret",
        ),
        case(
            "class-interval",
            VR,
            interval,
            "    schedulingInterval: 1d\n",
        ),
        case(
            "class-interval-wrong",
            VR,
            interval,
            "    schedulingInterval: 5min\n",
        ),
        case("class-no-interval", VR, interval, ""),
        case(
            "class-interval-mismatch",
            &two(POLICY, VR),
            interval,
            "    schedulingInterval: 10m\n",
        ),
        case(
            "class-labels",
            VR,
            "ramendr.openshift.io/storageid: s",
            "storageid: s",
        ),
    ]
}

fn vms() -> Vec<Case> {
    let firmware = "        firmware: {uuid: 5d307ca9-b3ef-428c-8861-06e72d69f223}\n";
    let seed = "        - {name: seed, cloudInitNoCloud: {userData: '#cloud-config'}}\n";
    let bare = with(VM, seed, "");
    let formats = with(
        VM,
        "'#cloud-config'",
        "'#cloud-config\n\n          fs_setup: [{device: /dev/vdb}]'",
    );
    let devices = "          disks: [{name: root, disk: {bus: virtio}}]\n";
    let blocked = with(
        VM,
        "accessModes: [ReadWriteMany], resources",
        "accessModes: [ReadWriteOnce], resources",
    );
    vec![
        case("vm-firmware-uuid", &bare, firmware, ""),
        case("vm-nocloud-instance", VM, firmware, ""),
        case("vm-cloud-init-formats", &formats, firmware, ""),
        case(
            "vm-mac-address",
            VM,
            ", macAddress: '02:00:00:00:00:01'",
            "",
        ),
        case("vm-bridge-binding", VM, "masquerade: {}", "bridge: {}"),
        ("vm-rwo-claim", VM.to_owned(), blocked.clone()),
        case(
            "vm-host-bound",
            VM,
            devices,
            &format!("{devices}          gpus: [{{name: gpu, deviceName: vendor/gpu}}]\n"),
        ),
        ("vm-eviction-blocked", VM.to_owned(), blocked),
        case(
            "vm-eviction-unset",
            VM,
            "      evictionStrategy: LiveMigrate\n",
            "",
        ),
        case(
            "vm-persistent-state",
            VM,
            devices,
            &format!("{devices}          tpm: {{persistent: true}}\n"),
        ),
        (
            "vm-starts-by-itself",
            two(VM, VRG),
            with(&two(VM, VRG), "runStrategy: Manual", "runStrategy: Always"),
        ),
        case(
            "vm-running-field",
            VM,
            "runStrategy: Manual",
            "running: true",
        ),
    ]
}

fn disks() -> Vec<Case> {
    let checked = "        annotations: {cdi.kubevirt.io/storage.checkStaticVolume: 'true'}\n";
    let root = "        - {name: root, dataVolume: {name: root}}\n";
    vec![
        case("dv-reimport", VM, checked, ""),
        case(
            "dv-adoption-blind",
            VM,
            checked,
            "        annotations: {cdi.kubevirt.io/allowClaimAdoption: 'true'}\n",
        ),
        case(
            "dv-deleted-after-completion",
            VM,
            checked,
            "        annotations: {cdi.kubevirt.io/storage.deleteAfterCompletion: 'true'}\n",
        ),
        case(
            "vm-hotplug-volume",
            VM,
            root,
            "        - {name: root, dataVolume: {name: root, hotpluggable: true}}\n",
        ),
        case(
            "vm-ephemeral-volume",
            VM,
            root,
            &format!("{root}        - {{name: tmp, emptyDisk: {{capacity: 1Gi}}}}\n"),
        ),
    ]
}

fn together() -> Vec<Case> {
    let set = two(&two(RECIPE, VRG), VM);
    let both = two(VRG, VM);
    let label = "        labels: {app: web}\n";
    let second = VM
        .split("---\n")
        .next()
        .unwrap()
        .replace("{name: web, namespace", "{name: db, namespace");
    let tier = with(
        &set,
        "{kubevirt.io: virt-launcher, vm.kubevirt.io/name: web}",
        "{kubevirt.io: virt-launcher, tier: front}",
    );
    vec![
        case(
            "pvc-selector-launcher-label",
            &both,
            "{matchLabels: {app: web}}",
            "{matchLabels: {vm.kubevirt.io/name: web}}",
        ),
        case("pvc-selector-misses", &both, label, ""),
        case(
            "pvc-selector-prime",
            &both,
            "source: {blank: {}}",
            "source: {http: {url: 'https://images.example/a.qcow2'}}",
        ),
        case(
            "recipe-hook-selects-no-vm",
            &set,
            "vm.kubevirt.io/name: web}",
            "vm.kubevirt.io/name: wep}",
        ),
        case(
            "recipe-freezer-other-vm",
            &set,
            "--freeze --name web",
            "--freeze --name db",
        ),
        ("recipe-freezer-many-vms", tier.clone(), two(&tier, &second)),
    ]
}

fn dependencies() -> Vec<Case> {
    let selected = with(
        &two(VRG, VM),
        "    recipeRef: {name: quiesce, namespace: app}\n",
        "    kubeObjectSelector: {matchLabels: {app: web}}\n",
    );
    let secret = "{name: key, namespace: app, labels: {app: web}}";
    let group = "includedNamespaces: [app], includeClusterResources: false}";
    let grouped = two(
        &with(
            PLAIN_RECIPE,
            group,
            "includedNamespaces: [app], labelSelector: {matchLabels: {app: web}}, includeClusterResources: false}",
        ),
        VM,
    );
    let label = "ramendr.openshift.io/k8s-resource-selector: a";
    let built_in = two(
        &with(
            VRG,
            "    recipeRef: {name: quiesce, namespace: app}\n",
            "    recipeRef: {name: vm-recipe, namespace: ramen-ops}\n    recipeParameters: {PROTECTED_VMS: [web], K8S_RESOURCE_SELECTOR: [a], PVC_RESOURCE_SELECTOR: [a]}\n",
        ),
        &VM.replace("{app: web}", &format!("{{{label}}}")),
    );
    let plain = "        - {name: root, dataVolume: {name: root}}\n";
    vec![
        case(
            "vm-dependency-not-captured",
            &selected,
            secret,
            "{name: key, namespace: app}",
        ),
        case(
            "vm-dependency-not-captured",
            &grouped,
            secret,
            "{name: key, namespace: app}",
        ),
        case(
            "vm-recipe-label",
            &built_in,
            &format!("{{name: key, namespace: app, labels: {{{label}}}}}"),
            "{name: key, namespace: app}",
        ),
        case(
            "vm-recipe-cleanup",
            &built_in,
            plain,
            &format!(
                "{plain}        - {{name: spare, persistentVolumeClaim: {{claimName: spare}}}}\n"
            ),
        ),
    ]
}
