//! Users' own manifests, in the shapes in which KubeVirt users keep them.

use super::*;
use crate::plan::model::{AccessMode, DataVolume, FileSystem, LedgerKind, VolumeMode};

/// The smallest VM that people start with: a container disk, stopped, no login but cirros' own.
const SMALL: &str = "\
apiVersion: kubevirt.io/v1
kind: VirtualMachine
metadata:
  name: testvm
spec:
  running: false
  template:
    metadata:
      labels:
        kubevirt.io/domain: testvm
    spec:
      domain:
        devices:
          disks:
            - name: containerdisk
              disk:
                bus: virtio
            - name: cloudinitdisk
              disk:
                bus: virtio
          interfaces:
          - name: default
            masquerade: {}
        resources:
          requests:
            memory: 64M
      networks:
      - name: default
        pod: {}
      volumes:
        - name: containerdisk
          containerDisk:
            image: cirros:demo
        - name: cloudinitdisk
          cloudInitNoCloud:
            userDataBase64: IyEvYmluL3NoCmVjaG8gJHtIT01FfQo=
";

/// A VM with its disk in a template, a user of its own from a Secret, and a Service beside it.
const LARGE: &str = "\
apiVersion: v1
kind: Secret
metadata: {name: login}
stringData:
  userdata: |
    #cloud-config
    users:
      - name: ops
        sudo: ALL=(ALL) NOPASSWD:ALL
        ssh_authorized_keys: [ssh-ed25519 OLD]
    runcmd: [\"echo ${HOME} ${USER:-none}\"]
---
apiVersion: v1
kind: Service
metadata: {name: ssh, resourceVersion: '7'}
spec:
  selector: {vm.kubevirt.io/name: db, app: db}
  ports: [{port: 22}]
---
apiVersion: kubevirt.io/v1
kind: VirtualMachine
metadata:
  name: db
  labels: {app: db}
  ownerReferences: []
  finalizers: [x]
  uid: 0d9e2d0a
spec:
  runStrategy: RerunOnFailure
  dataVolumeTemplates:
    - metadata: {name: db-root, labels: {app: db}, creationTimestamp: null}
      spec:
        sourceRef: {kind: DataSource, name: fedora, namespace: golden}
        storage: {resources: {requests: {storage: 10Gi}}}
  template:
    metadata: {labels: {app: db}}
    spec:
      domain:
        cpu: {cores: 1}
        firmware: {bootloader: {efi: {secureBoot: false}}}
        devices:
          disks:
            - {name: ci, disk: {bus: sata}}
            - {name: root, disk: {}}
      volumes:
        - {name: ci, cloudInitNoCloud: {secretRef: {name: login}}}
        - {name: root, dataVolume: {name: db-root, hotpluggable: true}}
status: {ready: true}
";

#[test]
fn a_container_disk_vm_is_taken_unchanged() {
    let extra = Extra {
        ssh_user: Some("cirros"),
        data_volumes: &[],
    };
    let rendered = render_text(SMALL, &extra).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(rendered.propagation(), &Propagation::NoCloud);
    assert_eq!(rendered.notes().len(), 2, "{:?}", rendered.notes());
    let subject = rendered.bind(&instance("ledger-0"));
    assert_eq!(subject.root, Root::Ephemeral);
    assert_eq!(
        (subject.ssh_user.as_str(), subject.run_strategy.as_str()),
        ("cirros", "Always")
    );
    let pvcs = of_kind(&subject.objects, "PersistentVolumeClaim");
    let modes: Vec<_> = pvcs
        .iter()
        .map(|pvc| pvc["spec"]["volumeMode"].as_str().unwrap())
        .collect();
    assert_eq!(modes, ["Block", "Filesystem"]);
    let vm = subject.objects.last().unwrap();
    assert_eq!(vm["spec"]["running"], Value::Null);
    let spec = &vm["spec"]["template"]["spec"];
    assert_eq!(
        vm["spec"]["template"]["metadata"]["labels"]["kubevirt.io/domain"],
        "testvm"
    );
    assert_eq!(
        spec["volumes"][1]["cloudInitNoCloud"]["userDataBase64"],
        "IyEvYmluL3NoCmVjaG8gJHtIT01FfQo="
    );
    assert_eq!(spec["volumes"][0]["containerDisk"]["image"], "cirros:demo");
    assert_eq!(
        subject.claims,
        ["ledger-0-virtproof-data-0", "ledger-0-virtproof-data-1"]
    );
}

#[test]
fn the_plans_data_volumes_are_added() {
    let volume = |size, ledger| DataVolume {
        size,
        storage_class: Some("fast".to_owned()),
        volume_mode: VolumeMode::Block,
        access_mode: AccessMode::ReadWriteOnce,
        ledger,
        filesystem: FileSystem::Ext4,
    };
    let volumes = [
        volume(64 << 20, LedgerKind::File),
        volume(96 << 20, LedgerKind::Raw),
    ];
    let extra = Extra {
        ssh_user: Some("cirros"),
        data_volumes: &volumes,
    };
    let subject = render_text(SMALL, &extra).unwrap().bind(&instance("a"));
    let pvcs = of_kind(&subject.objects, "PersistentVolumeClaim");
    assert_eq!(pvcs[1]["spec"]["resources"]["requests"]["storage"], "96Mi");
    assert_eq!(pvcs[1]["spec"]["accessModes"][0], "ReadWriteOnce");
    assert_eq!(pvcs[0]["spec"]["storageClassName"], "fast");
    assert_eq!(pvcs[0]["metadata"]["labels"][LEDGER_LABEL], "file");
    assert_eq!(subject.data_disks[0].ledger, LedgerKind::File);
}

#[test]
fn a_listed_user_gets_the_key_in_its_own_entry() {
    let rendered = rendered(LARGE);
    assert_eq!(rendered.propagation(), &Propagation::UserData);
    let subject = rendered.bind(&instance("ledger-0"));
    assert_eq!(subject.ssh_user, "ops");
    let secrets = of_kind(&subject.objects, "Secret");
    assert_eq!(
        secrets.len(),
        1,
        "no Secret for a key that nobody would read"
    );
    let data = secrets[0]["stringData"]["userdata"].as_str().unwrap();
    let config = crate::plan::yaml::parse(data, true).unwrap()[0].to_value();
    let keys = &config["users"][0]["ssh_authorized_keys"];
    assert_eq!(
        keys,
        &serde_json::json!(["ssh-ed25519 OLD", "ssh-ed25519 AAAAC3 virtproof"])
    );
    assert_eq!(
        config["runcmd"][0], "echo ${HOME} ${USER:-none}",
        "a shell's own variables stay"
    );
    let vm = &subject.objects.last().unwrap()["spec"]["template"]["spec"];
    assert_eq!(vm["accessCredentials"], Value::Null);
    let name = &vm["volumes"][0]["cloudInitNoCloud"]["secretRef"]["name"];
    assert_eq!(name, &secrets[0]["metadata"]["name"]);
}

#[test]
fn server_side_metadata_and_status_do_not_travel() {
    let subject = rendered(LARGE).bind(&instance("ledger-0"));
    for object in subject.objects.iter().chain(&subject.peer_objects) {
        assert_eq!(object["status"], Value::Null);
        let keys: Vec<&String> = object["metadata"].as_object().unwrap().keys().collect();
        assert!(
            keys.iter()
                .all(|key| ["name", "namespace", "labels", "annotations"].contains(&key.as_str())),
            "{keys:?}"
        );
    }
}

#[test]
fn a_service_selects_its_own_vm() {
    let subject = rendered(LARGE).bind(&instance("ledger-0"));
    let selector = &of_kind(&subject.objects, "Service")[0]["spec"]["selector"];
    assert_eq!(selector["vm.kubevirt.io/name"], "ledger-0");
    assert_eq!(selector["app"], "db");
    let vm = subject.objects.last().unwrap();
    let labels = &vm["spec"]["template"]["metadata"]["labels"];
    assert_eq!(selector[SUBJECT_LABEL], labels[SUBJECT_LABEL]);
}

#[test]
fn what_is_missing_is_added_and_noted() {
    let rendered = rendered(LARGE);
    let notes = rendered.notes().join("; ");
    assert!(
        notes.contains("masquerade") && notes.contains("2 data volumes"),
        "{notes}"
    );
    let subject = rendered.bind(&instance("ledger-0"));
    let spec = &subject.objects.last().unwrap()["spec"]["template"]["spec"];
    assert_eq!(
        spec["networks"][0]["name"],
        spec["domain"]["devices"]["interfaces"][0]["name"]
    );
    assert_eq!(
        spec["domain"]["firmware"]["bootloader"]["efi"]["secureBoot"],
        false
    );
    assert_eq!(subject.run_strategy, "RerunOnFailure");
    assert_eq!(
        subject.root,
        Root::Persistent {
            pvc: "ledger-0-db-root".to_owned()
        }
    );
}

#[test]
fn without_cloud_init_a_volume_for_the_key_is_added() {
    let text = SMALL
        .replace("        - name: cloudinitdisk\n          cloudInitNoCloud:\n            userDataBase64: IyEvYmluL3NoCmVjaG8gJHtIT01FfQo=\n", "")
        .replace("            - name: cloudinitdisk\n              disk:\n                bus: virtio\n", "")
        .replace("  name: testvm\n", "  name: testvm\n  annotations: {virtproof.dev/ssh-user: cirros}\n");
    let subject = rendered(&text).bind(&instance("a"));
    let spec = &subject.objects.last().unwrap()["spec"]["template"]["spec"];
    let names: Vec<_> = spec["volumes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v["name"].as_str().unwrap())
        .collect();
    assert!(names.contains(&"virtproof-cloudinit"), "{names:?}");
    let method = &spec["accessCredentials"][0]["sshPublicKey"]["propagationMethod"];
    assert_eq!(method, &serde_json::json!({"noCloud": {}}));
}

#[test]
fn the_key_goes_where_the_annotation_says() {
    for (way, propagation) in [
        ("guest-agent", Propagation::GuestAgent),
        ("none", Propagation::None),
    ] {
        let annotations = format!(
            "  name: testvm\n  annotations:\n    virtproof.dev/ssh-user: cirros\n    virtproof.dev/ssh-key: {way}\n"
        );
        let rendered = rendered(&SMALL.replace("  name: testvm\n", &annotations));
        assert_eq!(rendered.propagation(), &propagation);
        let subject = rendered.bind(&instance("a"));
        let keys =
            &subject.objects.last().unwrap()["spec"]["template"]["spec"]["accessCredentials"];
        match propagation {
            Propagation::None => assert_eq!(keys, &Value::Null),
            _ => assert_eq!(
                keys[0]["sshPublicKey"]["propagationMethod"]["qemuGuestAgent"]["users"][0],
                "cirros"
            ),
        }
        assert_eq!(
            of_kind(&subject.objects, "Secret").len(),
            usize::from(way != "none")
        );
    }
}

#[test]
fn base64_user_data_and_secret_data_are_edited_in_place() {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    let config = "#cloud-config\nusers: [{name: ops}]\n";
    let inline = SMALL.replace("IyEvYmluL3NoCmVjaG8gJHtIT01FfQo=", &STANDARD.encode(config));
    let subject = rendered(&inline).bind(&instance("a"));
    let spec = &subject.objects.last().unwrap()["spec"]["template"]["spec"];
    let data = spec["volumes"][1]["cloudInitNoCloud"]["userDataBase64"]
        .as_str()
        .unwrap();
    let text = String::from_utf8(STANDARD.decode(data).unwrap()).unwrap();
    assert!(
        text.starts_with("#cloud-config\n") && text.contains("AAAAC3"),
        "{text}"
    );

    let secret = LARGE.split("---").next().unwrap();
    let encoded = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: login}}\ndata: {{userdata: {}}}\n",
        STANDARD.encode(config)
    );
    let subject = rendered(&LARGE.replace(secret, &encoded)).bind(&instance("a"));
    let data = of_kind(&subject.objects, "Secret")[0]["data"]["userdata"]
        .as_str()
        .unwrap();
    let text = String::from_utf8(STANDARD.decode(data).unwrap()).unwrap();
    assert!(text.contains("AAAAC3"), "{text}");
}

/// Instance types bring the hardware, so the manifest lists volumes only.
#[test]
fn volumes_without_disks_get_them_as_in_kubevirt() {
    let text = "\
apiVersion: kubevirt.io/v1
kind: VirtualMachine
metadata: {name: typed}
spec:
  runStrategy: Halted
  instancetype: {name: u1.small}
  preference: {name: fedora}
  dataVolumeTemplates:
    - metadata: {name: data, labels: {virtproof.dev/ledger: raw}}
      spec: {source: {blank: {}}, storage: {resources: {requests: {storage: 1Gi}}}}
  template:
    spec:
      domain: {devices: {}}
      volumes:
        - {name: root, containerDisk: {image: fedora}}
        - {name: data, dataVolume: {name: data}}
        - {name: ci, cloudInitNoCloud: {userData: \"#cloud-config\\nuser: fedora\"}}
";
    let rendered = rendered(text);
    let subject = rendered.bind(&instance("a"));
    let spec = &subject.objects.last().unwrap()["spec"]["template"]["spec"];
    let disks = spec["domain"]["devices"]["disks"].as_array().unwrap();
    let names: Vec<_> = disks
        .iter()
        .map(|disk| disk["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["root", "data", "ci"]);
    assert_eq!(disks[0], serde_json::json!({"name": "root"}));
    assert_eq!(disks[1]["serial"], subject.data_disks[0].serial.as_str());
    assert_eq!(
        (subject.root, subject.ssh_user.as_str()),
        (Root::Ephemeral, "fedora")
    );
    assert_eq!(
        subject.data_disks[0].volume_mode, None,
        "the StorageProfile decides"
    );
}
