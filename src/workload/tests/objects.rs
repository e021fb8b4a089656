//! What is created on either site.

use super::*;
use std::path::PathBuf;

use crate::plan::text::is_dns_label;

#[test]
fn embedded_templates_render_with_an_image_alone() {
    for name in names() {
        let template = Template::load(name, Path::new(".")).unwrap();
        let given = parameters(&[("image", "fedora:latest")]);
        let rendered = template.render(&given, &Extra::default());
        let rendered = rendered.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(rendered.notes(), [""; 0], "{name}");
        let ledgers = if name == "cirros" { 1 } else { 2 };
        assert_eq!(rendered.ledger_disks().count(), ledgers, "{name}");
        let persistent = name != "linux-two-disks-containerdisk";
        assert_eq!(rendered.has_persistent_root(), persistent, "{name}");
    }
}

#[test]
fn the_lab_plan_renders() {
    let known = crate::plan::Known {
        templates: Some(&names()),
        ..crate::plan::Known::nothing()
    };
    let plan = crate::plan::lab(Path::new("."), &known).unwrap_or_else(|error| panic!("{error}"));
    for workload in plan.plan.workloads() {
        let rendered = render(workload, &plan.dir).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(
            (rendered.ledger_disks().count(), rendered.claim_count()),
            (2, 3)
        );
    }
}

#[test]
fn starters_render() {
    for driver in model::DriverKind::ALL {
        let text = crate::plan::starter(*driver);
        let known = crate::plan::Known::nothing();
        let plan = crate::plan::parse(text, "starter.yaml", Path::new("."), &known).unwrap();
        for workload in plan.plan.workloads() {
            render(workload, &plan.dir).unwrap_or_else(|error| panic!("{error}"));
        }
    }
}

#[test]
fn every_object_and_every_claim_carries_the_labels() {
    for name in names() {
        let subject = embedded_subject(name);
        let mut labelled: Vec<&Value> = subject
            .objects
            .iter()
            .chain(&subject.peer_objects)
            .collect();
        let vm = subject.objects.last().unwrap();
        labelled.push(&vm["spec"]["template"]);
        labelled.extend(
            vm["spec"]["dataVolumeTemplates"]
                .as_array()
                .into_iter()
                .flatten(),
        );
        for object in labelled {
            let labels = &object["metadata"]["labels"];
            assert_eq!(labels[RUN_LABEL], "r1", "{name}: {object}");
            assert_eq!(labels[SUBJECT_LABEL], "ledger-0-subject");
            assert_eq!(labels[WORKLOAD_LABEL], "ledger");
        }
    }
}

/// F18: CDI would import a fresh image into the claim that should hold the replica.
#[test]
fn nothing_on_the_peer_can_make_or_fill_a_volume() {
    for name in names() {
        let subject = embedded_subject(name);
        for kind in ["DataVolume", "PersistentVolumeClaim"] {
            assert_eq!(
                of_kind(&subject.peer_objects, kind),
                Vec::<&Value>::new(),
                "{name}"
            );
        }
        let vm = subject.peer_objects.last().unwrap();
        assert_eq!(vm["spec"]["dataVolumeTemplates"], Value::Null);
        assert_eq!(vm["spec"]["runStrategy"], "Halted");
        let volumes = vm["spec"]["template"]["spec"]["volumes"]
            .as_array()
            .unwrap();
        assert!(
            volumes.iter().all(|volume| volume["dataVolume"].is_null()),
            "{name}"
        );
        let claims: Vec<_> = volumes
            .iter()
            .filter_map(|volume| volume["persistentVolumeClaim"]["claimName"].as_str())
            .collect();
        assert_eq!(
            claims, subject.claims,
            "{name}: the peer uses exactly the claims handed over"
        );
    }
}

#[test]
fn the_vm_is_the_same_machine_on_both_sites() {
    for name in names() {
        let subject = embedded_subject(name);
        let (here, there) = (
            subject.objects.last().unwrap(),
            subject.peer_objects.last().unwrap(),
        );
        assert_eq!(here["metadata"], there["metadata"]);
        let domain = |vm: &Value| vm["spec"]["template"]["spec"]["domain"].clone();
        assert_eq!(domain(here), domain(there), "{name}");
        assert!(domain(here)["firmware"]["uuid"].is_string());
        assert!(domain(here)["devices"]["interfaces"][0]["macAddress"].is_string());
        assert_eq!(
            of_kind(&subject.objects, "Secret"),
            of_kind(&subject.peer_objects, "Secret")
        );
    }
}

#[test]
fn data_disks_say_what_the_vm_has() {
    for name in names() {
        let subject = embedded_subject(name);
        let spec = &subject.objects.last().unwrap()["spec"]["template"]["spec"];
        for (index, data) in subject.data_disks.iter().enumerate() {
            assert_eq!(usize::from(data.ordinal), index);
            assert!(data.serial.len() <= 20 && subject.claims.contains(&data.pvc));
            let disks = spec["domain"]["devices"]["disks"].as_array().unwrap();
            let disk = disks
                .iter()
                .find(|disk| disk["name"] == data.name.as_str())
                .unwrap();
            assert_eq!(disk["serial"], data.serial.as_str());
        }
    }
}

#[test]
fn instances_of_one_template_share_nothing() {
    let template = Template::load("linux-two-disks-pvc", Path::new(".")).unwrap();
    let given = parameters(&[("image", "fedora:latest")]);
    let rendered = template.render(&given, &Extra::default()).unwrap();
    let names = |name: &str| -> Vec<String> {
        let subject = rendered.bind(&instance(name));
        subject
            .objects
            .iter()
            .map(|object| format!("{}/{}", object["kind"], object["metadata"]["name"]))
            .collect()
    };
    let (one, two) = (names("ledger-0"), names("ledger-1"));
    assert!(
        one.iter().all(|name| !two.contains(name)),
        "{one:?} {two:?}"
    );
}

#[test]
fn long_names_stay_dns_labels() {
    let template = Template::load("linux-two-disks-dvt", Path::new(".")).unwrap();
    let given = parameters(&[("image", "fedora:latest")]);
    let rendered = template.render(&given, &Extra::default()).unwrap();
    let subject = rendered.bind(&instance(&"l".repeat(63)));
    for claim in &subject.claims {
        assert!(is_dns_label(claim, 63), "{claim}");
    }
    assert_eq!(
        subject
            .claims
            .iter()
            .collect::<std::collections::BTreeSet<_>>()
            .len(),
        3
    );
}

#[test]
fn the_class_of_the_plan_only_fills_gaps() {
    let template = Template::load("linux-two-disks-pvc", Path::new(".")).unwrap();
    let mut at = instance("a");
    at.storage_class = Some("site-default".to_owned());
    let classes = |given: &[(&str, &str)]| -> Vec<Value> {
        let subject = template
            .render(&parameters(given), &Extra::default())
            .unwrap()
            .bind(&at);
        let class = |object: &&Value| match object["kind"].as_str() {
            Some("DataVolume") => Some(object["spec"]["pvc"]["storageClassName"].clone()),
            Some("PersistentVolumeClaim") => Some(object["spec"]["storageClassName"].clone()),
            _ => None,
        };
        subject
            .objects
            .iter()
            .filter_map(|object| class(&object))
            .collect()
    };
    assert_eq!(classes(&[("image", "i")]), ["site-default"; 3]);
    assert_eq!(
        classes(&[("image", "i"), ("storageClass", "mine")]),
        ["mine"; 3]
    );
}

#[test]
fn extraction_never_overwrites() {
    let dir = tempfile::tempdir().unwrap();
    let files = extract(&dir.path().join("templates")).unwrap();
    let (templates, rest) = files.split_at(embedded().len());
    let (recipes, hooks) = rest.split_at(recipe::embedded().len());
    assert!(!hooks.is_empty());
    let lie_in = |files: &[PathBuf], folder: &str| {
        let mut folders = files.iter().map(|file| file.parent());
        folders.all(|dir| dir.is_some_and(|dir| dir.ends_with(folder)))
    };
    assert!(lie_in(recipes, "recipes") && lie_in(hooks, "guest-hooks"));
    for file in templates {
        let template = Template::load(file.to_str().unwrap(), Path::new("/")).unwrap();
        assert!(!template.parameters().is_empty());
    }
    let error = extract(&dir.path().join("templates")).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists);
}

/// Nothing of the subject may be touched by its reader, and the probe must find the copies by the
/// subject's serials.
#[test]
fn a_reader_is_another_machine_with_copies_of_the_ledger_disks() {
    for name in names() {
        let subject = embedded_subject(name);
        let template = Template::load(name, Path::new(".")).unwrap();
        let rendered = template
            .render(
                &parameters(&[("image", "fedora:latest")]),
                &Extra::default(),
            )
            .unwrap();
        let copies: Vec<String> = (0..subject.data_disks.len())
            .map(|n| format!("copy-{n}"))
            .collect();
        let reader = rendered.reader(&instance("ledger-0-reader"), &subject.data_disks, &copies);
        let made: Vec<String> = reader
            .objects
            .iter()
            .map(|object| object["metadata"]["name"].to_string())
            .collect();
        for object in &subject.objects {
            let taken = object["metadata"]["name"].to_string();
            assert!(!made.contains(&taken), "{name}: {taken} is the subject's");
        }
        for disk in &subject.data_disks {
            assert!(
                !format!("{:?}", reader.objects).contains(&format!("\"{}\"", disk.pvc)),
                "{name}: {} is named",
                disk.pvc
            );
        }
        let makers = ["PersistentVolumeClaim", "DataVolume"]
            .iter()
            .flat_map(|kind| of_kind(&reader.objects, kind))
            .count();
        let vm = reader.objects.last().unwrap();
        let templates = vm["spec"]["dataVolumeTemplates"]
            .as_array()
            .map_or(0, Vec::len);
        let roots = usize::from(matches!(reader.root, Root::Persistent { .. }));
        assert_eq!(makers + templates, roots, "{name}: only the root is made");
        assert_eq!(of_kind(&reader.objects, "Service"), Vec::<&Value>::new());

        let of = |vm: &Value| vm["spec"]["template"]["spec"].clone();
        let (theirs, own) = (of(subject.objects.last().unwrap()), of(vm));
        let mac = |spec: &Value| spec["domain"]["devices"]["interfaces"][0]["macAddress"].clone();
        assert_ne!(mac(&theirs), mac(&own), "{name}");
        assert_ne!(
            theirs["domain"]["firmware"]["uuid"],
            own["domain"]["firmware"]["uuid"]
        );
        for (disk, copy) in reader.data_disks.iter().zip(&copies) {
            assert_eq!(disk.pvc, *copy);
            let named = |list: &Value| {
                let list = list.as_array().unwrap().iter();
                list.filter(|item| item["name"] == disk.name.as_str())
                    .cloned()
                    .collect::<Vec<_>>()
            };
            let device = &named(&own["domain"]["devices"]["disks"])[0];
            assert_eq!(device["serial"], disk.serial.as_str(), "{name}");
            assert_eq!(device["disk"]["readonly"], true, "{name}");
            let volume = &named(&own["volumes"])[0];
            assert_eq!(volume["persistentVolumeClaim"]["claimName"], copy.as_str());
            assert!(volume["dataVolume"].is_null());
        }
        let serials = |disks: &[DataDisk]| -> Vec<String> {
            disks.iter().map(|disk| disk.serial.clone()).collect()
        };
        assert_eq!(serials(&reader.data_disks), serials(&subject.data_disks));
    }
}
