use std::sync::Arc;

use super::*;
use crate::lab::guest::cloudinit::Seed;
use crate::lab::guest::image::Os;
use crate::lab::guest::{Guest, Request, Root, Spec};

fn machine(root_space: u64) -> Arc<Machine> {
    guest(root_space).machine.clone().unwrap()
}

fn guest(root_space: u64) -> Arc<Guest> {
    let guest = Guest::boot(&Spec {
        uid: "u".into(),
        hostname: "db-0".into(),
        seed: Seed {
            instance_id: Some("i".into()),
            user_data: "#cloud-config\nusers: [default, {name: plain}]\n".into(),
            public_keys: Vec::new(),
        },
        root: Root::Ephemeral(Os::from_reference("fedora")),
        root_volume: None,
        mac: "02:00:00:00:00:01".into(),
        disks: Vec::new(),
        memory: 0,
        root_space,
        entropy: 1,
        planted: crate::lab::guest::Planted::default(),
    });
    guest.unwrap()
}

async fn said(
    machine: &Arc<Machine>,
    user: &str,
    line: &str,
    input: &[u8],
) -> (u32, String, String) {
    let mut stdio = Stdio {
        input: Box::new(std::io::Cursor::new(input.to_vec())),
        out: Out::Gathered(Vec::new()),
        err: Out::Gathered(Vec::new()),
    };
    let status = Shell::new(Arc::clone(machine), user.to_owned())
        .run(line, &mut stdio)
        .await;
    let text = |out: Out| match out {
        Out::Gathered(bytes) => String::from_utf8(bytes).unwrap(),
        Out::Stream(_) => unreachable!("nothing replaced the streams"),
    };
    (status, text(stdio.out), text(stdio.err))
}

#[tokio::test]
async fn an_upload_lands_whole_and_is_not_ours_to_execute() {
    let machine = machine(1 << 30);
    let line = "mkdir -p -m 0700 /run/vp/r && cat > /run/vp/r/probe.new && chmod 0700 \
                /run/vp/r/probe.new && mv /run/vp/r/probe.new /run/vp/r/probe";
    assert_eq!(said(&machine, "root", line, b"\x7fELFxyz").await.0, 0);
    let (status, out, _) = said(&machine, "root", "cat /run/vp/r/probe", b"").await;
    assert_eq!((status, out.as_str()), (0, "\x7fELFxyz"));
    let (status, _, err) = said(&machine, "root", "/run/vp/r/probe info", b"").await;
    assert_eq!(status, 126);
    assert!(err.contains("Exec format error"), "{err}");
}

#[tokio::test]
async fn run_needs_sudo_and_sudo_needs_rights() {
    let machine = machine(1 << 30);
    let make = "mkdir -p /run/vp";
    let (status, _, err) = said(&machine, "fedora", make, b"").await;
    assert_eq!(
        (status, err.as_str()),
        (1, "mkdir: /run/vp: Permission denied\n")
    );
    let sudo = "sudo -n sh -c 'mkdir -p /run/vp && cat > /run/vp/f' && sudo -n cat /run/vp/f";
    let (status, out, _) = said(&machine, "fedora", sudo, b"bytes").await;
    assert_eq!((status, out.as_str()), (0, "bytes"));
    let (status, _, err) = said(&machine, "plain", "sudo -n true", b"").await;
    assert_eq!(
        (status, err.as_str()),
        (1, "sudo: a password is required\n")
    );
}

#[tokio::test]
async fn lists_stop_and_go_on_as_in_a_shell() {
    let machine = machine(1 << 30);
    for (line, status, out) in [
        ("false && echo no", 1, ""),
        ("false || echo yes", 0, "yes\n"),
        ("false; echo yes", 0, "yes\n"),
        ("uname -sm", 0, "Linux x86_64\n"),
        ("hostname && id -u", 0, "db-0\n0\n"),
        ("test -e /etc/machine-id && echo here", 0, "here\n"),
        ("[ -d /etc/machine-id ] || echo file", 0, "file\n"),
        (
            "cat /none 2>&1",
            1,
            "cat: /none: No such file or directory\n",
        ),
        ("cat /none 2>/dev/null", 1, ""),
        ("nosuch 2>/dev/null", 127, ""),
        ("/run/none 2>/dev/null", 127, ""),
    ] {
        let (got, text, _) = said(&machine, "root", line, b"").await;
        assert_eq!((got, text.as_str()), (status, out), "{line}");
    }
}

#[tokio::test]
async fn a_full_root_file_system_says_so() {
    let machine = machine(8);
    let (status, _, err) = said(&machine, "root", "cat > /root/f", b"more than eight").await;
    assert_eq!(status, 1);
    assert!(err.contains("No space left on device"), "{err}");
    assert_eq!(
        said(&machine, "root", "cat > /run/f", b"more than eight")
            .await
            .0,
        0
    );
}

#[tokio::test]
async fn the_agent_is_stopped_by_root_alone_and_the_hypervisor_hears_of_it_once() {
    let guest = guest(1 << 30);
    guest.bring_up();
    let machine = guest.machine.clone().unwrap();
    let mut asked = guest.requests().unwrap();
    assert!(guest.agent());
    let stop = "systemctl stop qemu-guest-agent";
    let (status, _, err) = said(&machine, "plain", stop, b"").await;
    assert!(status == 1 && err.contains("authentication"), "{err}");
    let (status, _, err) = said(&machine, "root", "systemctl stop nobody", b"").await;
    assert!(status == 5 && err.contains("not found"), "{err}");
    assert!(guest.agent() && asked.try_recv().is_err());
    for _ in 0..2 {
        assert_eq!(said(&machine, "root", stop, b"").await.0, 0);
        assert!(!guest.agent());
    }
    let start = "systemctl start qemu-guest-agent.service";
    assert_eq!(said(&machine, "root", start, b"").await.0, 0);
    assert!(guest.agent());
    let heard = std::iter::from_fn(|| asked.try_recv().ok());
    assert_eq!(heard.collect::<Vec<_>>(), [Request::Agent, Request::Agent]);
}
