use std::sync::Arc;

use russh::ChannelMsg;
use russh::client;
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg, PublicKeyOrCertificate};

use super::*;
use crate::lab::guest::testing::MemoryDisk;

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
        disks: Vec::new(),
        root_space: 1 << 30,
        entropy: 7,
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
