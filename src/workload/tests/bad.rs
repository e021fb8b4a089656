//! Every message that a manifest can get.

use super::*;

const GOOD: &str = "\
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: data
  labels: {virtproof.dev/ledger: raw}
spec:
  accessModes: [ReadWriteOnce]
  volumeMode: Block
  resources: {requests: {storage: 64Mi}}
---
apiVersion: kubevirt.io/v1
kind: VirtualMachine
metadata:
  name: vm
  annotations: {virtproof.dev/ssh-user: me}
spec:
  runStrategy: Always
  template:
    spec:
      domain:
        devices:
          disks:
            - {name: root, disk: {bus: virtio}}
            - {name: data, disk: {bus: virtio}}
          interfaces: [{name: net, masquerade: {}}]
      networks: [{name: net, pod: {}}]
      volumes:
        - {name: root, containerDisk: {image: fedora}}
        - {name: data, persistentVolumeClaim: {claimName: data}}
";

fn with(line: &str, instead: &str) -> String {
    assert_eq!(GOOD.matches(line).count(), 1, "{line}");
    GOOD.replace(line, instead)
}

fn cases() -> Vec<(&'static str, String)> {
    let strategy = "  runStrategy: Always";
    let label = "{virtproof.dev/ledger: raw}";
    let root = "{name: root, containerDisk: {image: fedora}}";
    let data_disk = "{name: data, disk: {bus: virtio}}";
    let data_volume = "{name: data, persistentVolumeClaim: {claimName: data}}";
    let networks = "      networks: [{name: net, pod: {}}]\n";
    let annotation = "virtproof.dev/ssh-user: me";
    let claim_only = GOOD.split("---\n").next().unwrap().to_owned();
    let vm_only = GOOD.split("---\n").nth(1).unwrap().to_owned();
    let cloud = |data: &str| {
        with(root, &format!("{root}\n        - {{name: ci, cloudInitNoCloud: {{userData: \"#cloud-config\\n{data}\"}}}}"))
            .replace(annotation, "x: y")
    };
    vec![
        ("empty", String::new()),
        ("a list", "- a\n".to_owned()),
        ("broken YAML", with(strategy, "  runStrategy: [")),
        ("duplicate key", with(strategy, &format!("{strategy}\n{strategy}"))),
        ("two defaults", with("image: fedora", "image: '${i:=a}${i:=b}'")),
        ("private characters", with("image: fedora", "image: \u{e000}")),
        ("no VM", claim_only),
        ("two VMs", format!("{GOOD}---\n{}", vm_only.replace("name: vm", "name: vm2"))),
        ("no kind", format!("{GOOD}---\na: 1\n")),
        ("a namespace", format!("{GOOD}---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: x}}\n")),
        ("a bare VMI", GOOD.replace("kind: VirtualMachine", "kind: VirtualMachineInstance")),
        ("a misspelt kind", GOOD.replace("kind: PersistentVolumeClaim", "kind: PersistentVolumClaim")),
        ("an old apiVersion", GOOD.replace("kubevirt.io/v1", "kubevirt.io/v1alpha3")),
        ("generateName", GOOD.replace("  name: vm\n", "  generateName: vm-\n")),
        ("no template", "apiVersion: kubevirt.io/v1\nkind: VirtualMachine\nmetadata: {name: x}\nspec: {running: true}\n".to_owned()),
        ("running and runStrategy", with(strategy, &format!("{strategy}\n  running: true"))),
        ("neither", with(&format!("{strategy}\n"), "")),
        ("running as text", with(strategy, "  running: 'yes'")),
        ("disk without volume", with("- {name: root, disk", "- {name: roof, disk")),
        ("same disk twice", with(data_disk, &format!("{data_disk}\n            - {data_disk}"))),
        ("claim from elsewhere", with("{claimName: data}", "{claimName: dat}")),
        ("no Secret", with(root, &format!("{root}\n        - {{name: s, secret: {{secretName: s}}}}"))),
        ("nothing to boot", with("containerDisk: {image: fedora}", "emptyDisk: {capacity: 1Gi}")),
        ("a blank root", with(root, "{name: root, persistentVolumeClaim: {claimName: data}}")),
        ("unknown ledger", with(label, "{virtproof.dev/ledger: raww}")),
        ("unknown file system", with(label, "{virtproof.dev/ledger: file, virtproof.dev/filesystem: ntfs}")),
        ("file system on a raw volume", with(label, "{virtproof.dev/ledger: raw, virtproof.dev/filesystem: xfs}")),
        ("too small for XFS", with(label, "{virtproof.dev/ledger: file, virtproof.dev/filesystem: xfs}")),
        ("ledger on the root", with("  volumeMode: Block", "  volumeMode: Block\n  dataSource: {kind: VolumeSnapshot, name: s}").replace("{name: root, disk: {bus: virtio}}", "{name: root, cdrom: {bus: sata}}").replace("containerDisk: {image: fedora}", "emptyDisk: {capacity: 1Gi}")),
        ("a small ledger", with("64Mi", "1Mi")),
        ("a ledger without a size", with("{requests: {storage: 64Mi}}", "{}")),
        ("a ledger on SCSI", with(data_disk, "{name: data, disk: {bus: scsi}}")),
        ("a long serial", with(data_disk, "{name: data, disk: {bus: virtio}, serial: abcdefghijklmnopqrstu}")),
        (
            "a ledger without a disk",
            with(
                &format!("            - {data_disk}\n"),
                "          filesystems: [{name: data, virtiofs: {}}]\n",
            ),
        ),
        ("an unused claim", with(data_volume, "{name: data, emptyDisk: {capacity: 1Gi}}")),
        ("no network", with(networks, "").replace("interfaces: [{name: net, masquerade: {}}]", "autoattachPodInterface: false")),
        ("network mismatch", with("networks: [{name: net", "networks: [{name: nett")),
        ("no user", with(annotation, "x: y")),
        ("user that is not made", cloud("users: [{name: you}]").replace("x: y", annotation)),
        (
            "a user without an entry to add to",
            cloud("users: [me]").replace("x: y", annotation),
        ),
        ("bad key annotation", with(annotation, &format!("{annotation}, virtproof.dev/ssh-key: magic"))),
    ]
}

#[test]
fn the_good_one_is_good() {
    let subject = rendered(GOOD).bind(&instance("a"));
    assert_eq!((subject.ssh_user.as_str(), subject.claims.len()), ("me", 1));
}

#[test]
fn every_bad_manifest_gets_a_message() {
    let mut shown = String::new();
    for (name, text) in cases() {
        let error = match render_text(&text, &Extra::default()) {
            Ok(_) => "ACCEPTED".to_owned(),
            Err(error) => error.to_string(),
        };
        shown += &["=== ", name, "\n", &error, "\n\n"].concat();
    }
    assert!(!shown.contains("ACCEPTED"), "{shown}");
    insta::assert_snapshot!("bad-manifests", shown);
}

#[test]
fn data_volumes_of_the_plan_and_of_the_template_exclude_each_other() {
    let volumes = [model::DataVolume {
        size: 1 << 30,
        storage_class: None,
        volume_mode: model::VolumeMode::Block,
        access_mode: model::AccessMode::ReadWriteOnce,
        ledger: model::LedgerKind::Raw,
        filesystem: model::FileSystem::Ext4,
    }];
    let extra = Extra {
        ssh_user: None,
        data_volumes: &volumes,
    };
    let error = render_text(GOOD, &extra).unwrap_err().to_string();
    assert!(
        error.contains("remove `dataVolumes` from the plan's workload"),
        "{error}"
    );
}

#[test]
fn unknown_templates_and_files_say_what_to_do() {
    let near = Template::load("fedora-two-disk", Path::new("."))
        .unwrap_err()
        .to_string();
    assert!(near.contains("did you mean `fedora-two-disks`?"), "{near}");
    let far = Template::load("windows", Path::new("."))
        .unwrap_err()
        .to_string();
    assert!(
        far.contains("linux-two-disks-pvc") && far.contains("or give a path"),
        "{far}"
    );
    let none = Template::load("./none.yaml", Path::new("/nowhere"))
        .unwrap_err()
        .to_string();
    assert!(
        none.contains("/nowhere/./none.yaml; check the path"),
        "{none}"
    );
}
