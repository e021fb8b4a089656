use std::sync::Arc;

use russh::ChannelMsg;
use russh::client;
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg, PublicKeyOrCertificate};

use super::*;
use crate::lab::guest::testing::MemoryDisk;
use crate::probe::config::Config;
use crate::probe::embedded;
use crate::probe::frame::{CellState, FromGuest, ToGuest};
use crate::probe::remote::Remote;
use crate::probe::wire::Raw;

/// Accepts any host key and remembers it.
struct Client(Arc<Mutex<Option<String>>>);

impl client::Handler for Client {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        shown: &PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        let PublicKeyOrCertificate::PublicKey { key, .. } = shown else {
            return Ok(false);
        };
        *self.0.lock().unwrap() = Some(key.to_openssh().unwrap());
        Ok(true)
    }
}

fn key(seed: u8) -> PrivateKey {
    PrivateKey::from(Ed25519Keypair::from_seed(&[seed; 32]))
}

fn spec(root: Root, instance: &str) -> Spec {
    let public = key(1).public_key().to_openssh().unwrap();
    Spec {
        uid: "uid".into(),
        hostname: "vm".into(),
        seed: Seed {
            instance_id: Some(instance.into()),
            user_data: format!("#cloud-config\nssh_authorized_keys: ['{public}']\n"),
            public_keys: Vec::new(),
        },
        root,
        root_volume: None,
        mac: "02:00:00:00:00:01".into(),
        disks: Vec::new(),
        memory: 0,
        root_space: 1 << 30,
        entropy: 7,
        planted: Planted::default(),
    }
}

/// The data disk of a guest.
fn data(disk: Arc<dyn Disk>) -> GuestDisk {
    GuestDisk {
        name: "vdb".into(),
        volume: "data".into(),
        serial: "data".into(),
        read_only: false,
        errors: ErrorPolicy::Stop,
        disk,
    }
}

fn up(spec: &Spec) -> Arc<Guest> {
    let guest = Guest::boot(spec).unwrap();
    guest.bring_up();
    guest
}

async fn login(guest: &Guest, user: &str, with: u8) -> Option<(client::Handle<Client>, String)> {
    let stream = guest.connect(22).unwrap();
    let seen = Arc::new(Mutex::new(None));
    let config = Arc::new(client::Config::default());
    let mut handle = client::connect_stream(config, stream, Client(Arc::clone(&seen)))
        .await
        .unwrap();
    let key = PrivateKeyWithHashAlg::new(Arc::new(key(with)), None);
    let auth = handle.authenticate_publickey(user, key).await.unwrap();
    let shown = seen.lock().unwrap().clone().unwrap();
    auth.success().then_some((handle, shown))
}

async fn exec(
    handle: &client::Handle<Client>,
    line: &str,
    input: &[u8],
) -> (u32, Vec<u8>, Vec<u8>) {
    let mut channel = handle.channel_open_session().await.unwrap();
    channel.exec(true, line).await.unwrap();
    channel.data(input).await.unwrap();
    channel.eof().await.unwrap();
    let (mut status, mut out, mut err) = (None, Vec::new(), Vec::new());
    while let Some(message) = channel.wait().await {
        match message {
            ChannelMsg::Data { data } => out.extend_from_slice(&data),
            ChannelMsg::ExtendedData { data, .. } => err.extend_from_slice(&data),
            ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
            _ => {}
        }
    }
    (status.expect("an exit status"), out, err)
}

#[tokio::test]
async fn the_right_key_of_the_right_user_gets_a_shell() {
    let os = Os::from_reference("fedora");
    let guest = up(&spec(Root::Ephemeral(os), "i"));
    assert!(login(&guest, "fedora", 2).await.is_none());
    assert!(login(&guest, "root", 1).await.is_none());
    let (handle, shown) = login(&guest, "fedora", 1).await.unwrap();
    assert_eq!(Some(shown), guest.host_key());
    let (status, out, err) = exec(&handle, "whoami; cat /none", b"").await;
    assert_eq!(status, 1);
    assert_eq!(out, b"fedora\n");
    assert_eq!(err, b"cat: /none: No such file or directory\n");
    let big = vec![7_u8; 3 << 20];
    let (status, ..) = exec(&handle, "cat > /tmp/big", &big).await;
    assert_eq!(status, 0);
    let (_, back, _) = exec(&handle, "cat /tmp/big", b"").await;
    assert_eq!(back, big);
    assert!(matches!(guest.connect(80), Err(Dial::Refused)));
}

#[tokio::test]
async fn identity_lies_on_the_root_volume_and_host_keys_change_with_the_instance() {
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new(64));
    let blank = Guest::boot(&spec(Root::Volume(Arc::clone(&disk)), "i")).unwrap();
    assert!(!blank.booted());
    assert!(matches!(blank.connect(22), Err(Dial::NoRoute)));
    assert!(blank.console().contains("No bootable device"));
    image::install(disk.as_ref(), &Os::from_reference("fedora")).unwrap();
    let mut facts = Vec::new();
    for (uid, instance) in [("a", "i"), ("b", "i"), ("c", "j")] {
        let mut spec = spec(Root::Volume(Arc::clone(&disk)), instance);
        spec.uid = uid.into();
        let guest = up(&spec);
        let (handle, shown) = login(&guest, "fedora", 1).await.unwrap();
        let (_, machine_id, _) = exec(&handle, "cat /etc/machine-id", b"").await;
        let (_, boot_id, _) = exec(&handle, "cat /proc/sys/kernel/random/boot_id", b"").await;
        assert!(guest.shut_down());
        facts.push((shown, machine_id, boot_id));
    }
    assert_eq!(facts[0].0, facts[1].0, "same instance, same host key");
    assert_ne!(
        facts[1].0, facts[2].0,
        "a new instance deletes the host keys"
    );
    assert_eq!(
        facts[0].1, facts[2].1,
        "the machine-id stays with the volume"
    );
    assert_ne!(facts[0].2, facts[1].2, "each boot has its own boot id");
}

#[tokio::test]
async fn a_clean_shutdown_closes_streams_and_a_power_cut_leaves_them_silent() {
    let os = Os::from_reference("fedora");
    let guest = up(&spec(Root::Ephemeral(os.clone()), "i"));
    let (handle, _) = login(&guest, "fedora", 1).await.unwrap();
    assert!(guest.shut_down());
    assert!(guest.is_off());
    assert!(handle.await.is_ok() || guest.is_off());
    let guest = up(&spec(Root::Ephemeral(os), "i"));
    let (handle, _) = login(&guest, "fedora", 1).await.unwrap();
    guest.power_cut();
    assert!(matches!(guest.connect(22), Err(Dial::NoRoute)));
    assert!(
        !handle.is_closed(),
        "nothing tells the peer of a dead guest"
    );
    guest.release();
    // The join ends, one way or the other, because the stream ended.
    drop(handle.await);
}

/// Uploads the probe and starts it on the data disks of a guest.
async fn started(handle: &client::Handle<Client>, remote: &Remote, config: &Config) -> String {
    let (status, ..) = exec(handle, &remote.upload(), embedded::BINARY).await;
    assert_eq!(status, 0);
    let (status, out, _) = exec(handle, &remote.info(), b"").await;
    assert_eq!(status, 0);
    let text = config.to_string();
    let line = remote.start(config.incarnation);
    let (status, ready, err) = exec(handle, &line, text.as_bytes()).await;
    assert_eq!(
        (status, ready.as_slice()),
        (0, b"ready\n".as_slice()),
        "{err:?}"
    );
    String::from_utf8(out).unwrap()
}

fn ledger(incarnation: u64, target: &str) -> Config {
    let id = "22".repeat(16);
    let text = format!(
        "run {}\nseed 5\nincarnation {incarnation:016x}\npurpose {}\nlayout canary=4 log=16 hot=32 \
         cold_stride=8 hot_writers=1\nvolume 0 {id} {target}\nexpect {incarnation:016x}\n",
        "11".repeat(16),
        if incarnation == 1 { "load" } else { "verify" },
    );
    Config::parse(&text).unwrap()
}

/// Attaches to the probe, fills, and runs until `acks` ranks are durable.
async fn written(handle: &client::Handle<Client>, line: &str, acks: u64) -> u64 {
    let mut channel = handle.channel_open_session().await.unwrap();
    channel.exec(true, line).await.unwrap();
    for command in [
        ToGuest::Hello { heard: 0 },
        ToGuest::Fill,
        ToGuest::Start { rate: 0, batch: 0 },
    ] {
        channel.data(command.encode().as_slice()).await.unwrap();
    }
    let mut bytes: Vec<u8> = Vec::new();
    let mut ranks = 0;
    while ranks < acks {
        match channel.wait().await.expect("the stream lives") {
            ChannelMsg::Data { data } => bytes.extend_from_slice(&data),
            ChannelMsg::ExtendedData { data, .. } => panic!("{:?}", str::from_utf8(&data)),
            _ => continue,
        }
        let mut rest = bytes.as_slice();
        while let Ok(Some(raw)) = Raw::read(&mut rest) {
            if let Ok(FromGuest::Ack(ack)) = FromGuest::decode(&raw) {
                ranks = ack.first_rank + ack.ranks.len() as u64 - 1;
            }
        }
    }
    ranks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_probe_writes_until_the_power_goes_and_the_next_boot_reads_it_back() {
    for target in ["raw serial=data", "file serial=data mount=/run/m fs=ext4"] {
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new(1024));
        let mut spec = spec(Root::Ephemeral(Os::from_reference("fedora")), "i");
        spec.disks = vec![data(Arc::clone(&disk))];
        let remote = Remote::new([0x11; 16], false);
        let guest = up(&spec);
        let (handle, _) = login(&guest, "fedora", 1).await.unwrap();
        let info = started(&handle, &remote, &ledger(1, target)).await;
        assert!(info.contains("disk vdb serial=data size=4194304"), "{info}");
        let ranks = written(&handle, &remote.attach(1), 50).await;
        guest.power_cut();
        let image = |disk: &Arc<dyn Disk>| {
            let mut bytes = vec![0; 4 << 20];
            disk.read_at(0, &mut bytes).unwrap();
            bytes
        };
        let at_cut = image(&disk);
        let guest = up(&spec);
        let (handle, _) = login(&guest, "fedora", 1).await.unwrap();
        assert_eq!(
            exec(&handle, &remote.info(), b"").await.0,
            127,
            "/run is gone"
        );
        assert_eq!(image(&disk), at_cut, "nothing was written after the cut");
        assert_eq!(exec(&handle, &remote.upload(), embedded::BINARY).await.0, 0);
        let config = ledger(2, target).to_string();
        let (status, frames, err) = exec(&handle, &remote.scan(), config.as_bytes()).await;
        assert_eq!(status, 0, "{:?}", str::from_utf8(&err));
        let mut rest = frames.as_slice();
        let mut found = 0;
        while let Some(raw) = Raw::read(&mut rest).unwrap() {
            if let FromGuest::Cells(cells) = FromGuest::decode(&raw).unwrap() {
                found += cells
                    .iter()
                    .filter(|cell| matches!(cell.state, CellState::Ok { incarnation: 1, .. }))
                    .count();
            }
        }
        assert!(found > 16, "{target}: {found} cells after {ranks} ranks");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_that_one_probe_writes_no_other_gets() {
    for (target, refused) in [
        (
            "raw serial=data",
            "opening /dev/vdb: Device or resource busy (os error 16)",
        ),
        (
            "file serial=data mount=/run/m fs=ext4",
            "opening /run/m/ledger.vpl: another probe holds it",
        ),
    ] {
        let mut spec = spec(Root::Ephemeral(Os::from_reference("fedora")), "i");
        spec.disks = vec![data(Arc::new(MemoryDisk::new(1024)))];
        let remote = Remote::new([0x11; 16], false);
        let guest = up(&spec);
        let (handle, _) = login(&guest, "fedora", 1).await.unwrap();
        started(&handle, &remote, &ledger(1, target)).await;
        written(&handle, &remote.attach(1), 5).await;
        let second = ledger(2, target).to_string();
        let start = remote.start(2);
        let (status, _, said) = exec(&handle, &start, second.as_bytes()).await;
        let said = String::from_utf8(said).unwrap();
        assert_eq!((status, said.trim()), (1, &*format!("error: {refused}")));
        // Whoever only reads disturbs nobody.
        assert_eq!(exec(&handle, &remote.scan(), second.as_bytes()).await.0, 0);
        // A raw write past a mounted file system is refused as well, and so is a mount under a probe.
        let across = if target.starts_with("raw") {
            "file serial=data mount=/run/m fs=ext4"
        } else {
            "raw serial=data"
        };
        let (status, _, said) =
            exec(&handle, &start, ledger(2, across).to_string().as_bytes()).await;
        assert_eq!(status, 1);
        let said = String::from_utf8(said).unwrap();
        assert!(said.contains("/dev/vdb: Device or resource busy"), "{said}");
        // The first one quits, and what it held is free.
        let mut channel = handle.channel_open_session().await.unwrap();
        channel.exec(true, remote.attach(1)).await.unwrap();
        for command in [ToGuest::Hello { heard: 0 }, ToGuest::Quit] {
            channel.data(command.encode().as_slice()).await.unwrap();
        }
        while channel.wait().await.is_some() {}
        let (status, _, said) = exec(&handle, &start, second.as_bytes()).await;
        assert_eq!(status, 0, "{:?}", String::from_utf8(said));
    }
}

#[tokio::test]
async fn a_guest_of_another_architecture_cannot_execute_the_probe() {
    let os = Os::from_reference("fedora-aarch64");
    let guest = up(&spec(Root::Ephemeral(os), "i"));
    let (handle, _) = login(&guest, "fedora", 1).await.unwrap();
    let remote = Remote::new([1; 16], false);
    assert_eq!(exec(&handle, &remote.upload(), embedded::BINARY).await.0, 0);
    let (status, _, err) = exec(&handle, &remote.info(), b"").await;
    assert_eq!(status, 126);
    assert!(str::from_utf8(&err).unwrap().contains("Exec format error"));
}
