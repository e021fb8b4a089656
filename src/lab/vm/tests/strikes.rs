//! The planted faults of KubeVirt and its guests, and the moments that others are aimed at.

use super::*;
use crate::lab::faults::{Moment, parse};
use crate::lab::guest::Dial;

impl Rig {
    fn plant(&self, text: &str) {
        self.board.put(parse(text).unwrap());
    }

    fn reasons(&self, reason: &str) -> Vec<String> {
        let events = self.store.list("events", Some("default"));
        let those = events.iter().filter(|e| e["reason"] == reason);
        those
            .map(|e| meta::text(e, "/message").to_owned())
            .collect()
    }
}

#[tokio::test]
async fn a_launcher_does_not_start_without_the_secrets_that_its_vm_names() {
    let rig = Rig::on(Site::Secondary).await;
    rig.plant("secret-missing");
    let secret =
        json!({"metadata": {"name": "keys", "namespace": "default"}, "stringData": {"k": "v"}});
    rig.store.create("secrets", secret).unwrap();
    let mut vm = machine("a", "Always", &fedora());
    vm["spec"]["template"]["spec"]["accessCredentials"] = json!([{"sshPublicKey": {
        "source": {"secret": {"secretName": "keys"}}, "propagationMethod": {"noCloud": {}}}}]);
    rig.create(VM, vm);
    let mut events = rig.store.watch("events");
    let failed = async {
        while rig.reasons("FailedMount").is_empty() {
            events.recv().await.expect("the store lives");
        }
    };
    tokio::time::timeout(Duration::from_secs(20), failed)
        .await
        .expect("the mount fails");
    assert!(rig.reasons("FailedMount")[0].contains("secret \"keys\" not found"));
    assert_eq!(rig.store.get("secrets", "default", "keys"), None);
    let pods = rig.store.list(POD, Some("default"));
    assert!(pods.iter().all(|pod| phase(pod) == "Pending"));
}

#[tokio::test]
async fn a_late_stop_is_reported_at_once_and_the_guest_lives_on_for_a_while() {
    let mut rig = Rig::new().await;
    rig.plant("fence-late:ms=200000");
    rig.create(VM, machine("a", "Always", &fedora()));
    rig.ready("a").await;
    let guest = rig.kubevirt.guest("default", "a").unwrap();
    assert_eq!(rig.put("virtualmachines/a/stop", "{}").await.0, 202);
    rig.until_gone(VMI, "a").await;
    assert!(!guest.is_off());
    let off = async {
        while !guest.is_off() || !rig.kubevirt.ctx.all_domains().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), off)
        .await
        .expect("it is put down in the end, and its domain with it");
}

#[tokio::test]
async fn a_guest_without_its_agent_runs_and_says_nothing_of_itself() {
    let mut rig = Rig::new().await;
    rig.plant("agent-missing");
    rig.create(VM, machine("a", "Always", &fedora()));
    rig.ready("a").await;
    let guest = rig.kubevirt.guest("default", "a").unwrap();
    let up = async {
        while guest.connect(22).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), up)
        .await
        .expect("the guest boots");
    assert!(!guest.agent());
    let frozen = rig
        .put(
            "virtualmachineinstances/a/freeze",
            r#"{"unfreezeTimeout":"5m0s"}"#,
        )
        .await;
    assert_eq!(frozen.0, 500);
    assert!(
        frozen.1.contains("Guest agent is not responding"),
        "{frozen:?}"
    );
}

#[tokio::test]
async fn sshd_stays_down_or_comes_late_on_the_target() {
    for (fault, comes) in [("sshd-down", false), ("sshd-slow:seconds=100", true)] {
        let rig = Rig::on(Site::Secondary).await;
        rig.plant(fault);
        rig.create(VM, machine("a", "Always", &fedora()));
        rig.agent("a").await;
        let guest = rig.kubevirt.guest("default", "a").unwrap();
        assert_eq!(
            guest.connect(22).await.err(),
            Some(Dial::Refused),
            "{fault}"
        );
        if comes {
            let up = async {
                while guest.connect(22).await.is_err() {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(Duration::from_secs(20), up)
                .await
                .expect("it comes");
        }
    }
}

#[tokio::test]
async fn boots_on_the_target_freezes_and_thaws_wake_what_is_aimed_at_them() {
    let mut rig = Rig::on(Site::Secondary).await;
    for (name, moment) in [
        ("bit-flip-cold", Moment::Boot),
        ("torn-acked-write", Moment::Freeze),
        ("skipped-extent", Moment::Thaw),
    ] {
        rig.plant(&format!("{name}@{}", moment.name()));
    }
    let awake = |rig: &Rig| {
        [
            Fault::BitFlipCold,
            Fault::TornAckedWrite,
            Fault::SkippedExtent,
        ]
        .map(|fault| rig.board.armed(fault))
    };
    assert_eq!(awake(&rig), [false; 3]);
    rig.create(VM, machine("a", "Always", &fedora()));
    rig.agent("a").await;
    assert_eq!(awake(&rig), [true, false, false]);
    let thaw = "virtualmachineinstances/a/unfreeze";
    // Thawing what is thawed is no moment.
    assert_eq!(rig.put(thaw, "").await.0, 200);
    assert_eq!(awake(&rig), [true, false, false]);
    let freeze = "virtualmachineinstances/a/freeze";
    let body = r#"{"unfreezeTimeout":"5m0s"}"#;
    assert_eq!(rig.put(freeze, body).await.0, 200);
    assert_eq!(awake(&rig), [true, true, false]);
    assert_eq!(rig.put(thaw, "").await.0, 200);
    assert_eq!(awake(&rig), [true; 3]);
}

/// Lets VM `a` come up, migrates it, and waits until that is said to have succeeded.
async fn migrated(rig: &mut Rig) {
    rig.create(VM, machine("a", "Always", &fedora()));
    rig.agent("a").await;
    assert_eq!(rig.put("virtualmachines/a/migrate", "{}").await.0, 202);
    rig.until(VMI, "a", |vmi| {
        vmi["status"]["migrationState"]["completed"] == true
    })
    .await;
    let name = meta::name(&rig.store.list(VMIM, None)[0]).to_owned();
    rig.until(VMIM, &name, |job| phase(job) == "Succeeded")
        .await;
}

/// Whether the launcher that the VM left ends within a time.
async fn source_ends(rig: &mut Rig, within: Duration) -> bool {
    let vmi = rig.store.get(VMI, "default", "a").unwrap();
    let source = meta::text(&vmi, "/status/migrationState/sourcePod").to_owned();
    let ends = rig.until(POD, &source, |pod| phase(pod) == "Succeeded");
    tokio::time::timeout(within, ends).await.is_ok()
}

#[tokio::test]
async fn a_second_launcher_outlives_its_migration() {
    let mut rig = Rig::new().await;
    migrated(&mut rig).await;
    assert!(source_ends(&mut rig, Duration::from_secs(20)).await);
    let mut rig = Rig::new().await;
    rig.plant("two-launchers");
    migrated(&mut rig).await;
    assert!(!source_ends(&mut rig, Duration::from_millis(300)).await);
}

#[tokio::test]
async fn a_guest_may_stand_still_or_boot_instead_of_moving() {
    let mut rig = Rig::new().await;
    rig.plant("pause-at-migration:ms=40");
    migrated(&mut rig).await;
    let guest = rig.kubevirt.guest("default", "a").unwrap();
    assert!(guest.connect(22).await.is_ok(), "it goes on");
    let mut rig = Rig::new().await;
    rig.plant("reboot-for-migration");
    rig.create(VM, machine("a", "Always", &fedora()));
    rig.agent("a").await;
    let before = rig.kubevirt.guest("default", "a").unwrap();
    assert_eq!(rig.put("virtualmachines/a/migrate", "{}").await.0, 202);
    let off = async {
        while !before.is_off() {
            tokio::task::yield_now().await;
        }
    };
    let off = tokio::time::timeout(Duration::from_secs(20), off).await;
    assert!(off.is_ok(), "the guest that was there is gone");
}
