//! Bad input that only shows against sites: each is refused with its exit code and a text that says
//! what to do, and leaves nothing behind.

mod common;

use std::path::Path;

use common::{Lab, virtproof};

const FEDORA: &str = "template: linux-two-disks-dvt";

fn refused(dir: &Path, plan: &str, code: i32, words: &[&str]) {
    std::fs::write(dir.join("plan.yaml"), plan).expect("the plan");
    let out = dir.join("run");
    let (ended, said) = virtproof(dir, &["run", "plan.yaml", "--out", "run"]);
    assert_eq!(ended, Some(code), "{said}");
    for word in words {
        assert!(said.contains(word), "it does not say `{word}`:\n{said}");
    }
    let undo = std::fs::read_to_string(out.join("undo.jsonl")).unwrap_or_default();
    assert!(!undo.contains("\"record\""), "something was done: {undo}");
    if out.exists() {
        std::fs::remove_dir_all(&out).expect("removed");
    }
}

#[test]
fn what_the_sites_lack_is_told_before_anything_is_done() {
    let dir = tempfile::tempdir().expect("folder");
    let dir = dir.path();
    let _lab = Lab::up(dir, str::to_owned);
    let plan = virtproof::plan::LAB;
    let class = plan.replace(
        "volumeReplicationClass: lab-mirror",
        "volumeReplicationClass: absent",
    );
    assert_ne!(class, plan);
    refused(
        dir,
        &class,
        3,
        &[
            "preflight not met",
            "VolumeReplicationClass absent",
            "secondary",
        ],
    );
    let (start, end) = (plan.find("faults:"), plan.find("deadlines:"));
    let (start, end) = start.zip(end).expect("both keys");
    let powerless = format!("{}{}", &plan[..start], &plan[end..]);
    refused(
        dir,
        &powerless,
        2,
        &[
            "failover.unplanned.node-down",
            "faults.powerOff",
            "faults.powerOn",
        ],
    );
    let storage = plan.replace("storageClass: lab-block", "storageClass: absent");
    assert_ne!(storage, plan);
    refused(dir, &storage, 3, &["StorageClass absent"]);

    let disk = "apiVersion: kubevirt.io/v1\nkind: VirtualMachine\nmetadata: {name: vm}\nspec:\n  \
        runStrategy: Always\n  template:\n    spec:\n      domain:\n        devices: {}\n      \
        volumes: []\n";
    std::fs::write(dir.join("diskless.yaml"), disk).expect("a manifest");
    let diskless = plan.replace(FEDORA, "template: ./diskless.yaml");
    assert_ne!(diskless, plan);
    refused(dir, &diskless, 2, &["diskless.yaml", "disk"]);

    let off = virtproof(dir, &["lab", "power", "secondary", "off", "--dir", "."]);
    assert_eq!(off.0, Some(0));
    refused(dir, plan, 3, &["secondary", "no answer from"]);
}

#[test]
fn a_run_directory_in_use_is_never_written_over() {
    let dir = tempfile::tempdir().expect("folder");
    let dir = dir.path();
    std::fs::create_dir(dir.join("run")).expect("folder");
    std::fs::write(dir.join("run/precious"), "x").expect("a file");
    let (code, said) = virtproof(dir, &["run", "--lab", "--out", "run"]);
    assert_eq!(
        (code, said.contains("not empty")),
        (Some(2), true),
        "{said}"
    );
    assert_eq!(
        std::fs::read_dir(dir.join("run")).expect("folder").count(),
        1
    );
}

#[test]
fn a_guest_of_another_architecture_is_named_with_what_to_do() {
    let dir = tempfile::tempdir().expect("folder");
    let dir = dir.path();
    let _lab = Lab::up(dir, |plan| {
        plan.replace("image: fedora:latest", "image: fedora-aarch64:latest")
    });
    let run = [
        "run",
        "plan.yaml",
        "--only",
        "boot.replicated",
        "--out",
        "run",
    ];
    let (code, said) = virtproof(dir, &run);
    // The VMs were made, so it is no preflight: the trial failed, and nothing of it is left.
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("aarch64") && said.contains("--probe"),
        "{said}"
    );
    let (code, said) = virtproof(dir, &["cleanup", "run"]);
    assert_eq!(
        (code, said.contains("nothing is left")),
        (Some(0), true),
        "{said}"
    );
}
