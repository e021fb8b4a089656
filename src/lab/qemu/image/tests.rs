//! The module as a whole. What needs apt or QEMU runs where they are; elsewhere it says so, and with
//! `VIRTPROOF_CI=1` it fails.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use super::seed::{Seed, SeedUser, seed_tar};
use super::*;

/// The most that one step of a guest may take on a loaded host; it decides nothing but when a guest
/// that stands still is given up.
const PATIENCE: Duration = Duration::from_mins(4);
const GUEST: &str = "qemu-system-x86_64";

#[test]
fn the_cache_is_where_the_xdg_specification_says() {
    let with = |variables: &'static [(&str, &str)]| {
        cache_under(move |name| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| PathBuf::from(value))
        })
    };
    let both = with(&[("XDG_CACHE_HOME", "/c"), ("HOME", "/h")]).unwrap();
    assert_eq!(both, Path::new("/c/virtproof/guest"));
    let relative = with(&[("XDG_CACHE_HOME", "c"), ("HOME", "/h")]).unwrap();
    assert_eq!(relative, Path::new("/h/.cache/virtproof/guest"));
    assert!(matches!(with(&[]), Err(ImageError::NoCache)));
}

fn image(id: &str, layers: &[Layer]) -> Image {
    Image {
        id: id.into(),
        kernel: PathBuf::new(),
        kind: KernelKind::Pvh,
        initrd: PathBuf::new(),
        layers: layers.iter().copied().collect(),
        packages: Vec::new(),
        bytes: 0,
        built_at: SystemTime::UNIX_EPOCH,
    }
}

#[test]
fn the_newest_of_each_set_of_layers_is_used_and_only_our_own() {
    let images = vec![
        ("other".to_owned(), image("1", &[])),
        ("ours".to_owned(), image("2", &[])),
        ("ours".to_owned(), image("3", &[Layer::Bench])),
        ("ours".to_owned(), image("4", &[])),
    ];
    let kept: Vec<_> = newest(images, "ours")
        .into_iter()
        .map(|image| image.id)
        .collect();
    assert_eq!(kept, ["2", "3"]);
}

#[test]
fn an_image_of_ones_own_is_known_by_its_content() {
    let home = tempfile::tempdir().unwrap();
    let (kernel, initrd) = (home.path().join("vmlinuz"), home.path().join("initrd"));
    let absent = Image::own(&kernel, &initrd).unwrap_err().to_string();
    assert!(absent.contains("as a guest's kernel"), "{absent}");
    fs::write(&kernel, "kernel").unwrap();
    fs::write(&initrd, "").unwrap();
    let empty = Image::own(&kernel, &initrd).unwrap_err().to_string();
    assert!(
        empty.ends_with("as a guest's initrd: it is empty"),
        "{empty}"
    );
    fs::write(&initrd, "initrd").unwrap();
    let first = Image::own(&kernel, &initrd).unwrap();
    assert_eq!((first.kind, first.bytes), (KernelKind::Bzimage, 12));
    fs::write(&initrd, "initre").unwrap();
    assert_ne!(first.id, Image::own(&kernel, &initrd).unwrap().id);
}

#[test]
fn an_image_that_is_there_takes_no_apt() {
    let home = tempfile::tempdir().unwrap();
    let cache = Cache::new(home.path());
    let assembled = assemble::Assembled {
        kernel: b"kernel".into(),
        kind: KernelKind::Pvh,
        initrd: b"initrd".into(),
        packages: Vec::new(),
    };
    let layers = BTreeSet::from([Layer::Sqlite]);
    let held = cache.lock(&mut |_| {}).unwrap();
    let put = cache.put(&assembled, &layers, &builder()).unwrap();
    let options = BuildOptions {
        layers,
        cache: home.path().to_owned(),
        refresh: false,
    };
    // The lock is still held, so this neither waits nor builds.
    let found = build(&options, &mut |said| panic!("{said}")).unwrap();
    drop(held);
    assert_eq!(found, put);
    assert_eq!(list(home.path()).unwrap(), std::slice::from_ref(&put));
    assert_eq!(
        clean(home.path(), Clean::Superseded).unwrap(),
        Removed::default()
    );
    assert_eq!(clean(home.path(), Clean::All).unwrap().images, [put.id]);
    assert_eq!(list(home.path()).unwrap(), []);
}

/// Says why a test does not run here, which on a machine of the project's own CI is a failure.
fn skipped(why: &str) {
    assert!(std::env::var_os("VIRTPROOF_CI").is_none(), "{why}");
    eprintln!("SKIPPED: {why}");
}

/// An image from this host's apt, in the user's cache as a run of virtproof has it.
fn image_here() -> Option<Image> {
    if Command::new(GUEST).arg("--version").output().is_err() {
        skipped("no QEMU here");
        return None;
    }
    let options = BuildOptions {
        layers: BTreeSet::new(),
        cache: default_cache().unwrap(),
        refresh: false,
    };
    match build(&options, &mut |said| eprintln!("{said}")) {
        Ok(image) => Some(image),
        Err(
            error @ (ImageError::NoTool { .. }
            | ImageError::Unknown { .. }
            | ImageError::Apt { .. }),
        ) => {
            skipped(&error.to_string());
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// A guest under QEMU whose console and agent are pipes and sockets, so nothing is polled.
struct Guest {
    qemu: Child,
    home: PathBuf,
    console: Receiver<String>,
}

impl Guest {
    fn boot(image: &Image, home: &Path, boot: &Boot<'_>) -> Self {
        let socket = |name: &str| format!("unix:{},server=on,wait=off", home.join(name).display());
        let agent = format!(
            "socket,id=agent,path={},server=on,wait=off",
            home.join("agent").display()
        );
        let mut qemu = Command::new(GUEST);
        qemu.args([
            "-M",
            "q35",
            "-accel",
            "tcg,thread=multi,tb-size=64",
            "-cpu",
            "max",
            "-m",
            &image.memory_mib().unwrap().to_string(),
        ])
        .args([
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
            "-display",
            "none",
        ])
        .args(["-serial", "stdio", "-qmp", &socket("qmp")])
        .args([OsString::from("-kernel"), image.kernel.clone().into()])
        .args([OsString::from("-initrd"), image.initrd.clone().into()])
        .args(["-append", &cmdline(boot).unwrap()])
        .args(["-device", "virtio-serial-pci", "-chardev", &agent])
        .args([
            "-device",
            "virtserialport,chardev=agent,name=org.qemu.guest_agent.0",
        ]);
        for (name, serial) in [
            ("seed", seed::SERIAL),
            ("root", "root-0"),
            ("data", "data-0"),
        ] {
            let file = home.join(name);
            let drive = format!(
                "driver=raw,node-name={name},file.driver=file,file.filename={}",
                file.display()
            );
            let device = format!("virtio-blk-pci,drive={name},serial={serial}");
            qemu.args(["-blockdev", &drive, "-device", &device]);
        }
        let mut qemu = qemu
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(qemu.stdout.take().unwrap()).split(b'\n');
        let (told, console) = mpsc::channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                if told.send(line).is_err() {
                    break;
                }
            }
        });
        let home = home.to_owned();
        Self {
            qemu,
            home,
            console,
        }
    }

    /// The console's lines up to and including `last`; all to the end of QEMU without it.
    fn console_to(&self, last: Option<&str>) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            match self.console.recv_timeout(PATIENCE) {
                Ok(line) => lines.push(line),
                Err(mpsc::RecvTimeoutError::Disconnected) if last.is_none() => return lines,
                Err(error) => panic!("{error} while waiting for {last:?} after {lines:?}"),
            }
            if lines.last().map(String::as_str) == last {
                return lines;
            }
        }
    }

    /// A JSON command to a socket, and the first answer that is one.
    fn ask(&self, socket: &str, commands: &[&str]) -> serde_json::Value {
        let mut stream = UnixStream::connect(self.home.join(socket)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        for command in commands {
            writeln!(stream, "{{\"execute\":\"{command}\"}}").unwrap();
        }
        let answers = BufReader::new(stream).lines().map(|line| {
            let line = line.unwrap();
            serde_json::from_str::<serde_json::Value>(&line).unwrap()
        });
        let mut returns =
            answers.filter_map(|mut answer| answer.get_mut("return").map(serde_json::Value::take));
        returns.nth(commands.len() - 1).unwrap()
    }

    /// Presses the power button; what the console says until QEMU is gone.
    fn power_down(mut self) -> Vec<String> {
        self.ask("qmp", &["qmp_capabilities", "system_powerdown"]);
        let lines = self.console_to(None);
        assert!(self.qemu.wait().unwrap().success());
        lines
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _gone_already = self.qemu.kill();
        let _reaped_already = self.qemu.wait();
    }
}

/// A folder with the disks of a guest.
fn disks(instance: &str) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let user = SeedUser {
        name: "tester".into(),
        keys: vec!["ssh-ed25519 AAAA test".into()],
        sudo: true,
    };
    let seed = Seed {
        hostname: "guest-1".into(),
        instance_id: Some(instance.into()),
        users: vec![user],
    };
    fs::write(home.path().join("seed"), seed_tar(&seed).unwrap()).unwrap();
    for name in ["root", "data"] {
        File::create(home.path().join(name))
            .unwrap()
            .set_len(1 << 30)
            .unwrap();
    }
    home
}

/// ext4's state, little endian at 0x3a of the superblock at 1024 (Linux `ext4.h`): 1 is clean. The
/// incompatible features are at 0x60; bit 2 of them says that the journal is to be replayed.
fn is_clean_ext4(disk: &Path) -> bool {
    let mut superblock = [0; 2048];
    File::open(disk)
        .unwrap()
        .read_exact(&mut superblock)
        .unwrap();
    let superblock = &superblock[1024..];
    assert_eq!(superblock[0x38..0x3a], [0x53, 0xef], "no ext4");
    superblock[0x3a] & 3 == 1 && superblock[0x60] & 4 == 0
}

#[test]
fn a_guest_boots_from_memory_answers_its_agent_and_powers_down() {
    let Some(image) = image_here() else {
        return;
    };
    let home = disks("one");
    let guest = Guest::boot(&image, home.path(), &Boot::default());
    let said = guest.console_to(Some(marker::READY));
    assert_eq!(
        said.first().map(String::as_str),
        Some(marker::BOOTING),
        "{said:?}"
    );
    assert!(
        said.contains(&format!("{}{}", marker::ROOT, marker::MEMORY)),
        "{said:?}"
    );
    assert_eq!(guest.ask("agent", &["guest-get-osinfo"])["id"], "debian");
    assert_eq!(
        guest.ask("agent", &["guest-get-host-name"])["host-name"],
        "guest-1"
    );
    assert_eq!(guest.ask("agent", &["guest-fsfreeze-status"]), "thawed");
    let said = guest.power_down();
    assert!(
        said.iter().any(|line| line == marker::GOING_DOWN),
        "{said:?}"
    );
}

#[test]
fn a_root_disk_is_installed_only_when_told_and_is_clean_after_a_shutdown() {
    let Some(image) = image_here() else {
        return;
    };
    let home = disks("one");
    let root = |install| Boot {
        root: Root::Disk {
            serial: "root-0",
            install,
            init: Init::Busybox,
        },
        ..Boot::default()
    };
    let guest = Guest::boot(&image, home.path(), &root(false));
    guest.console_to(Some(marker::NO_BOOT));
    guest.power_down();
    let mut untouched = [0; 4096];
    File::open(home.path().join("root"))
        .unwrap()
        .read_exact(&mut untouched)
        .unwrap();
    assert_eq!(
        untouched, [0; 4096],
        "a disk was written without being told to"
    );

    let guest = Guest::boot(&image, home.path(), &root(true));
    let said = guest.console_to(Some(marker::READY));
    assert!(
        said.iter().any(|line| line == marker::INSTALLED),
        "{said:?}"
    );
    assert_eq!(guest.ask("agent", &["guest-fsfreeze-freeze"]), 1);
    assert_eq!(guest.ask("agent", &["guest-fsfreeze-status"]), "frozen");
    assert_eq!(guest.ask("agent", &["guest-fsfreeze-thaw"]), 1);
    guest.power_down();
    assert!(is_clean_ext4(&home.path().join("root")));

    let guest = Guest::boot(&image, home.path(), &root(false));
    let said = guest.console_to(Some(marker::READY));
    assert!(
        said.contains(&format!("{}root-0", marker::ROOT)),
        "{said:?}"
    );
    assert_eq!(
        guest.ask("agent", &["guest-get-host-name"])["host-name"],
        "guest-1"
    );
    guest.power_down();
}
