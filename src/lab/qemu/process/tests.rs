use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use tokio::time::timeout;

use super::*;
use crate::lab::qemu::qmp::{Event, EventKind};
use crate::lab::qemu::testing::guest::{BANNER, Then};
use crate::lab::qemu::testing::nbd::NbdDisk;
use crate::lab::qemu::testing::{Bench, LONG, drive, real_host, see};

async fn find<T>(events: &mut Events, pick: impl FnMut(&Event) -> Option<T>) -> T {
    timeout(LONG, events.find(pick)).await.unwrap().unwrap()
}

fn is(kind: &EventKind) -> impl FnMut(&Event) -> Option<()> {
    move |event| (event.kind == *kind).then_some(())
}

#[tokio::test]
async fn a_guest_boots_counts_pauses_resumes_and_is_reset_in_place() {
    let Some(bench) = Bench::new(Then::CountOn).await else {
        return;
    };
    let guest = bench.counting(&bench.launch()).await;
    assert!(guest.status().await.unwrap().running);
    assert!(guest.is_tied() == bench.host.setpriv.is_some());
    let mut events = guest.events();
    guest.pause().await.unwrap();
    find(&mut events, is(&EventKind::Stop)).await;
    let status = guest.status().await.unwrap();
    assert_eq!((status.running, status.status.as_str()), (false, "paused"));
    let stands = bench.disk.count();
    guest.powerdown().await.unwrap();
    find(&mut events, is(&EventKind::Powerdown)).await;
    assert_eq!(bench.disk.count(), stands);
    guest.resume().await.unwrap();
    find(&mut events, is(&EventKind::Resume)).await;
    let at = guest.console().length();
    let on = see(&guest, at, "+").await;
    guest.reset().await.unwrap();
    let reset = |event: &Event| match &event.kind {
        EventKind::Reset { guest, reason } => Some((*guest, reason.clone())),
        _ => None,
    };
    assert_eq!(
        find(&mut events, reset).await,
        (false, "host-qmp-system-reset".into())
    );
    let again = see(&guest, on, BANNER).await;
    see(&guest, again, "+00000001").await;
    guest.quit().await.unwrap();
    let exit = guest.exited().await;
    assert!(exit.status.success());
    let shutdown = exit.shutdown.unwrap();
    assert_eq!(
        (shutdown.guest, shutdown.reason.as_str()),
        (false, "host-qmp-quit")
    );
}

#[tokio::test]
async fn a_guest_that_shuts_itself_down_ends_qemu_and_one_that_reboots_does_not() {
    let Some(bench) = Bench::new(Then::ShutDown).await else {
        return;
    };
    let guest = bench.start(&bench.launch()).await;
    let exit = timeout(LONG, guest.exited()).await.unwrap();
    assert!(exit.status.success());
    let shutdown = exit.shutdown.unwrap();
    assert_eq!(
        (shutdown.guest, shutdown.reason.as_str()),
        (true, "guest-shutdown")
    );
    let ended = guest
        .console()
        .await_marker(0, "never said", LONG)
        .await
        .unwrap_err();
    assert!(
        matches!(&ended, ConsoleError::Ended { end, .. } if end.ends_with("+00000003\n")),
        "{ended}"
    );
    assert!(
        guest
            .status()
            .await
            .unwrap_err()
            .to_string()
            .contains("closed its control socket")
    );

    let Some(bench) = Bench::new(Then::Reset).await else {
        return;
    };
    let guest = bench.start(&bench.launch()).await;
    let first = see(&guest, 0, "+00000003").await;
    see(&guest, first, BANNER).await;
    assert_eq!(guest.exit(), None);
}

#[tokio::test]
async fn a_kill_is_final_and_may_be_repeated() {
    let Some(bench) = Bench::new(Then::CountOn).await else {
        return;
    };
    let guest = bench.counting(&bench.launch()).await;
    let (one, other) = tokio::join!(guest.kill(), guest.exited());
    assert_eq!(one, other);
    assert_eq!(one.shutdown, None);
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&one.status),
        Some(9)
    );
    assert_eq!(guest.kill().await, one);
    assert_eq!(orphans(bench.folder.path()).unwrap().len(), 0);
    let again = bench.counting(&bench.launch()).await;
    assert_ne!(again.pid(), guest.pid());
}

#[tokio::test]
async fn a_machine_can_begin_paused() {
    let Some(bench) = Bench::new(Then::CountOn).await else {
        return;
    };
    let mut launch = bench.launch();
    launch.begin = Begin::Paused;
    let guest = bench.start(&launch).await;
    assert_eq!(guest.status().await.unwrap().status, "prelaunch");
    let silent = guest
        .console()
        .await_marker(0, BANNER, Duration::ZERO)
        .await;
    assert!(matches!(silent, Err(ConsoleError::Timeout { end, .. }) if end.is_empty()));
    guest.resume().await.unwrap();
    see(&guest, 0, BANNER).await;
}

#[tokio::test]
async fn a_qemu_that_does_not_start_says_why() {
    let Some(bench) = Bench::new(Then::CountOn).await else {
        return;
    };
    let dir = bench.folder.path().join("fails");
    let mut launch = bench.launch();
    launch
        .drives
        .push(drive("absent", &bench.folder.path().join("absent.sock")));
    let error = Process::start(&bench.host, &launch, &dir)
        .await
        .unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, StartError::Exited { .. }), "{text}");
    assert!(
        text.contains("absent.sock") && text.contains("No such file"),
        "{text}"
    );

    let mut launch = bench.launch();
    launch.memory_mib = 1 << 30;
    let error = Process::start(&bench.host, &launch, &dir)
        .await
        .unwrap_err();
    assert!(matches!(error, StartError::Exited { .. }), "{error}");

    let mut host = bench.host.clone();
    host.setpriv = None;
    host.qemu = "/nonexistent/qemu".into();
    let error = Process::start(&host, &bench.launch(), &dir)
        .await
        .unwrap_err();
    assert!(matches!(error, StartError::Spawn { .. }), "{error}");

    let long = bench.folder.path().join("x".repeat(SOCKET_BYTES));
    let error = Process::start(&bench.host, &bench.launch(), &long)
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("use a shorter folder"),
        "{error}"
    );
}

#[tokio::test]
async fn an_error_that_is_reported_reaches_the_guest_and_ends_with_its_cause() {
    let Some(bench) = Bench::new(Then::CountOn).await else {
        return;
    };
    let guest = bench.counting(&bench.launch()).await;
    let mut events = guest.events();
    bench.disk.set_broken(true);
    let failed = find(&mut events, io_error).await;
    assert_eq!(failed.0, "disk0");
    assert_eq!(failed.1, "report");
    let bad = see(&guest, guest.console().length(), "!").await;
    bench.disk.set_broken(false);
    see(&guest, bad, "+").await;
    // An array that goes away altogether, and comes back.
    bench.disk.vanish();
    let bad = see(&guest, guest.console().length(), "!").await;
    bench.disk.come_back();
    see(&guest, bad, "+").await;
}

fn io_error(event: &Event) -> Option<(String, String)> {
    match &event.kind {
        EventKind::BlockIoError(error) => Some((error.node_name.clone()?, error.action.clone())),
        _ => None,
    }
}

#[tokio::test]
async fn an_error_that_stops_is_never_seen_by_the_guest() {
    let Some(bench) = Bench::new(Then::CountOn).await else {
        return;
    };
    let mut launch = bench.launch();
    launch.drives[0].errors = OnError::Stop;
    let guest = bench.counting(&launch).await;
    let mut events = guest.events();
    bench.disk.set_broken(true);
    assert_eq!(find(&mut events, io_error).await.1, "stop");
    find(&mut events, is(&EventKind::Stop)).await;
    assert_eq!(guest.status().await.unwrap().status, "io-error");
    bench.disk.set_broken(false);
    let at = guest.console().length();
    guest.resume().await.unwrap();
    let on = see(&guest, at, "+").await;
    see(&guest, on, "+").await;
    let said = guest.console().tail(0).await.unwrap();
    assert!(!said.contains(&b'!'), "{}", String::from_utf8_lossy(&said));
}

#[tokio::test]
async fn an_error_that_is_ignored_is_a_write_that_never_was() {
    let Some(bench) = Bench::new(Then::CountOn).await else {
        return;
    };
    let mut launch = bench.launch();
    launch.drives[0].errors = OnError::Ignore;
    let guest = bench.counting(&launch).await;
    let mut events = guest.events();
    bench.disk.set_broken(true);
    assert_eq!(find(&mut events, io_error).await.1, "ignore");
    let writes = bench.disk.writes();
    let on = see(&guest, guest.console().length(), "+").await;
    see(&guest, on, "+").await;
    assert_eq!(bench.disk.writes(), writes);
}

#[tokio::test]
async fn a_read_only_drive_takes_no_write() {
    let Some(bench) = Bench::new(Then::CountOn).await else {
        return;
    };
    let mut launch = bench.launch();
    launch.drives[0].read_only = true;
    let guest = bench.start(&launch).await;
    see(&guest, 0, "!00000001").await;
    assert_eq!(bench.disk.writes(), 0);
}

#[tokio::test]
async fn a_disk_grows_under_a_running_guest() {
    let Some(bench) = Bench::new(Then::CountOn).await else {
        return;
    };
    let guest = bench.counting(&bench.launch()).await;
    let early = guest.resize("disk0", 2 << 20).await.unwrap_err();
    assert!(matches!(early, DriveError::Qmp { .. }), "{early}");
    for size in [2_usize << 20, 4 << 20] {
        bench.disk.grow(size);
        guest.resize("disk0", size as u64).await.unwrap();
        let nodes = guest
            .qmp()
            .execute("query-named-block-nodes", json!({"flat": true}));
        let nodes = nodes.await.unwrap();
        let sizes: Vec<_> = nodes.as_array().unwrap().iter().collect();
        assert_eq!(sizes.len(), 2, "the old connection is gone");
        assert!(
            sizes
                .iter()
                .all(|node| node["image"]["virtual-size"] == size)
        );
        let on = see(&guest, guest.console().length(), "+").await;
        see(&guest, on, "+").await;
    }
    let unknown = guest.resize("nope", 1).await.unwrap_err();
    assert_eq!(unknown.to_string(), "the machine has no drive nope");
}

#[tokio::test]
async fn disks_are_plugged_and_a_guest_without_a_system_does_not_let_go() {
    let Some(bench) = Bench::new(Then::CountOn).await else {
        return;
    };
    let guest = bench.counting(&bench.launch()).await;
    let second = NbdDisk::serve(&bench.folder.path().join("second.sock"), vec![0; 1 << 20]);
    guest.hotplug(drive("disk1", second.path())).await.unwrap();
    let ports: Vec<_> = guest.drives().iter().map(|drive| drive.port).collect();
    assert_eq!(ports, [Some(0), Some(1)]);
    let full = guest
        .hotplug(drive("disk2", second.path()))
        .await
        .unwrap_err();
    assert!(
        matches!(full, DriveError::Bad(BadLaunch::Port { .. })),
        "{full}"
    );
    let taken = guest
        .hotplug(drive("disk1", second.path()))
        .await
        .unwrap_err();
    assert!(
        matches!(taken, DriveError::Bad(BadLaunch::NameTaken(_))),
        "{taken}"
    );
    for _ in 0..2 {
        let held = guest
            .unplug("disk0", Duration::from_millis(10))
            .await
            .unwrap_err();
        assert!(matches!(held, DriveError::Held { .. }), "{held}");
    }
    assert_eq!(guest.drives().len(), 2);
    guest.kill().await;
}

/// A reset takes away what the guest was asked to let go of.
#[tokio::test]
async fn a_disk_that_is_let_go_of_leaves_nothing_behind() {
    let Some(bench) = Bench::new(Then::CountOn).await else {
        return;
    };
    let guest = bench.counting(&bench.launch()).await;
    let second = NbdDisk::serve(&bench.folder.path().join("second.sock"), vec![0; 1 << 20]);
    let mut events = guest.events();
    // It goes while it is waited for.
    guest.hotplug(drive("disk1", second.path())).await.unwrap();
    let (gone, ()) = tokio::join!(guest.unplug("disk1", LONG), async {
        // Polled second: on this one connection the reset comes after the request.
        guest.reset().await.unwrap();
    });
    gone.unwrap();
    assert_eq!(guest.drives().len(), 1);
    // It went in between.
    guest.hotplug(drive("disk1", second.path())).await.unwrap();
    let held = guest.unplug("disk1", Duration::ZERO).await.unwrap_err();
    assert!(matches!(held, DriveError::Held { .. }), "{held}");
    guest.reset().await.unwrap();
    // The first of them was that of the disk before.
    for _ in 0..2 {
        find(&mut events, |event| match &event.kind {
            EventKind::DeviceDeleted { device } => {
                (device.as_deref() == Some("disk-disk1")).then_some(())
            }
            _ => None,
        })
        .await;
    }
    guest.unplug("disk1", LONG).await.unwrap();
    assert_eq!(guest.drives().len(), 1);
    let unknown = guest.unplug("disk1", LONG).await.unwrap_err();
    assert!(matches!(unknown, DriveError::Unknown(_)), "{unknown}");
}

#[tokio::test]
async fn a_failed_plug_leaves_nothing_behind() {
    let Some(bench) = Bench::new(Then::CountOn).await else {
        return;
    };
    let guest = bench.counting(&bench.launch()).await;
    let path = bench.folder.path().join("second.sock");
    let absent = guest.hotplug(drive("disk1", &path)).await.unwrap_err();
    assert!(absent.to_string().contains("No such file"), "{absent}");
    let second = NbdDisk::serve(&path, vec![0; 1 << 20]);
    guest.hotplug(drive("disk1", second.path())).await.unwrap();
}

/// The second half of [`qemus_do_not_outlive_us`]: a process that starts a guest and is killed.
#[tokio::test]
async fn a_parent_to_be_killed() {
    let (Some(dir), Some(tied)) = (
        std::env::var_os("VIRTPROOF_TEST_DIR"),
        std::env::var_os("VIRTPROOF_TEST_TIED"),
    ) else {
        return;
    };
    let mut host = real_host().await.unwrap();
    if tied == "no" {
        host.setpriv = None;
    }
    let mut launch = crate::lab::qemu::testing::launch(Path::new("unused"));
    launch.drives.clear();
    let guest = Process::start(&host, &launch, Path::new(&dir))
        .await
        .unwrap();
    println!("guest {}", guest.pid());
    std::future::pending::<()>().await;
}

/// Starts the parent, waits for its guest, kills it with SIGKILL.
fn kill_a_parent(dir: &Path, tied: &str) -> rustix::process::Pid {
    let mut parent = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "--nocapture",
            "lab::qemu::process::tests::a_parent_to_be_killed",
        ])
        .env("VIRTPROOF_TEST_DIR", dir)
        .env("VIRTPROOF_TEST_TIED", tied)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(parent.stdout.take().unwrap()).lines();
    let pid = lines
        .map(|line| line.unwrap())
        .find_map(|line| {
            line.split_once("guest ")
                .map(|(_, pid)| pid.parse().unwrap())
        })
        .expect("the parent told its guest's pid");
    parent.kill().unwrap();
    parent.wait().unwrap();
    rustix::process::Pid::from_raw(pid).unwrap()
}

/// Whether a process ends within a long time.
fn ends(pid: rustix::process::Pid) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let Ok(handle) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else {
        return true;
    };
    let limit = Timespec::try_from(LONG).unwrap();
    poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&limit)).unwrap() == 1
}

#[tokio::test]
async fn qemus_do_not_outlive_us() {
    let Some(host) = real_host().await else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    if host.setpriv.is_some() {
        let dir = folder.path().join("tied");
        assert!(ends(kill_a_parent(&dir, "yes")), "the kernel kills it");
        // Its pid file was left behind, and means nothing any more.
        assert_eq!(orphans(folder.path()).unwrap().len(), 0);
        assert!(!dir.join(orphans::PID_FILE).exists());
    }
    let dir = folder.path().join("site/untied");
    let pid = kill_a_parent(&dir, "no");
    let mut found = orphans(folder.path()).unwrap();
    assert_eq!(found.len(), 1);
    let orphan = found.remove(0);
    assert_eq!(orphan.pid(), pid.as_raw_nonzero().get().unsigned_abs());
    assert_eq!(orphan.dir(), dir);
    orphan.kill().unwrap();
    assert!(ends(pid));
    assert!(!dir.join(orphans::PID_FILE).exists());
}

#[test]
fn a_pid_that_means_another_process_by_now_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(orphans::PID_FILE);
    for content in [
        std::process::id().to_string(),
        "0".into(),
        "-1".into(),
        "x".into(),
        String::new(),
    ] {
        fs::write(&file, &content).unwrap();
        assert_eq!(orphans(folder.path()).unwrap().len(), 0, "{content}");
        assert!(!file.exists());
    }
}

#[tokio::test]
async fn a_machine_with_every_port_taken_a_card_and_a_kernel_starts() {
    let Some(bench) = Bench::new(Then::CountOn).await else {
        return;
    };
    let folder = bench.folder.path();
    let switch = tokio::net::UnixListener::bind(folder.join("switch,.sock")).unwrap();
    let kernel = folder.join("kernel,");
    write_kernel(&kernel);
    let mut launch = bench.launch();
    launch.ports = MAX_PORTS;
    launch.drives = (0..MAX_PORTS)
        .map(|port| drive(&format!("disk{port}"), bench.disk.path()))
        .collect();
    launch.nic = Some(Nic {
        socket: folder.join("switch,.sock"),
        mac: [0x52, 0x54, 0, 0, 0, 1],
    });
    launch.kernel = Some(Kernel {
        image: kernel,
        initrd: None,
        cmdline: "a=b,c".into(),
    });
    let guest = bench.start(&launch).await;
    switch.accept().await.unwrap();
    see(&guest, 0, "multiboot").await;
    assert!(guest.agent().is_some());
}

/// A Multiboot kernel that says one word on the serial port.
fn write_kernel(path: &Path) {
    let base = 0x10_0000_u32;
    let (magic, flags) = (0x1bad_b002_u32, 0x1_0000_u32);
    let sum = 0u32.wrapping_sub(magic + flags);
    let mut image: Vec<u8> = [magic, flags, sum, base, base, 0, 0, base + 32]
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect();
    image.extend([0x66, 0xba, 0xf8, 0x03]); // mov dx, 0x3f8
    for byte in b"multiboot" {
        image.extend([0xb0, *byte, 0xee]); // mov al, byte; out dx, al
    }
    image.extend([0xf4, 0xeb, 0xfd]); // hlt; jmp
    fs::write(path, image).unwrap();
}
