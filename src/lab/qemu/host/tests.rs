use super::*;
use crate::lab::qemu::testing::real_host;

#[test]
fn releases_are_read_from_what_distributions_print() {
    for (line, found) in [
        (
            "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)",
            Some((7, 2, 22)),
        ),
        ("QEMU emulator version 10.0.2", Some((10, 0, 2))),
        (
            "QEMU emulator version 9.1.50 (v9.1.0-1-gabc)",
            Some((9, 1, 50)),
        ),
        ("QEMU emulator version 8.2.0-rc1(x)", Some((8, 2, 0))),
        ("GNU bash, version 5.2", None),
        ("QEMU emulator version x.y", None),
    ] {
        let version = parse_release(line).map(|v| (v.major, v.minor, v.micro));
        assert_eq!(version, found, "{line}");
    }
}

#[test]
fn available_memory_is_read_in_mib() {
    let text = "MemTotal:  24681 kB\nMemAvailable:   2048000 kB\nBuffers: 1 kB\n";
    assert_eq!(parse_available(text), Some(2000));
    assert_eq!(parse_available("MemTotal: 1 kB\n"), None);
    assert!(available_mib().unwrap() > 0);
}

#[tokio::test]
async fn what_is_missing_is_said_with_what_to_do() {
    let none = Host::find(Some(Path::new("/nonexistent/qemu")))
        .await
        .unwrap_err();
    assert!(
        none.to_string()
            .starts_with("no /nonexistent/qemu found; install it")
    );
    let other = Host::find(Some(Path::new("true"))).await.unwrap_err();
    assert!(matches!(other, HostError::NotQemu { .. }), "{other}");
    let folder = tempfile::tempdir().unwrap();
    let old = folder.path().join("old");
    std::fs::write(&old, "#!/bin/sh\necho QEMU emulator version 6.2.0\n").unwrap();
    std::fs::set_permissions(&old, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let old = Host::find(Some(&old)).await.unwrap_err();
    assert!(
        old.to_string()
            .ends_with("is QEMU 6.2.0; install 7.2.0 or newer")
    );
}

#[tokio::test]
async fn the_probe_tells_a_machine_that_runs_from_one_that_does_not() {
    let Some(host) = real_host().await else {
        return;
    };
    let slow = Duration::from_secs(120);
    assert_eq!(kvm::probe(&host, Accel::Tcg, slow).await, Kvm::Usable);
    let never = kvm::probe(&host, Accel::Tcg, Duration::ZERO).await;
    assert!(matches!(never, Kvm::Unusable(why) if why.contains("was not done after 0 s")));
}

#[tokio::test]
async fn a_wish_for_kvm_is_fulfilled_where_it_serves() {
    let Some(host) = real_host().await else {
        return;
    };
    assert_eq!(accel(&host, Wish::default()).await.unwrap(), Accel::Tcg);
    let found = probe_kvm(&host, KVM_DEADLINE).await;
    eprintln!("KVM here: {found:?}");
    let (auto, only) = (
        accel(&host, Wish::Auto).await.unwrap(),
        accel(&host, Wish::Kvm).await,
    );
    match found {
        Kvm::Usable => {
            assert_eq!(auto, Accel::Kvm);
            assert_eq!(only.unwrap(), Accel::Kvm);
        }
        Kvm::Unusable(_) => {
            assert_eq!(auto, Accel::Tcg);
            assert!(matches!(only, Err(HostError::NoKvm(_))));
        }
    }
}
