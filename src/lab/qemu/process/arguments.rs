//! From a [`Launch`] to QEMU's argument vector.
//!
//! Options go as JSON where QEMU 7.2 takes it (`-blockdev`, `-device`, `-netdev`), so that no byte of a
//! path needs escaping; the others double their commas.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::launch::{Begin, Drive, Launch, MAX_PORTS, NAME_BYTES, OnError, SERIAL_BYTES};
use crate::lab::qemu::host::Accel;

/// The longest path of a Unix socket: `sun_path` of unix(7) less its terminator.
pub const SOCKET_BYTES: usize = 107;

/// Id of the guest agent's port, as `VSERPORT_CHANGE` names it.
pub(super) const AGENT_PORT: &str = "agent-port";
/// Id of the guest agent's character device.
pub(super) const AGENT: &str = "agent";

/// Translated code kept per guest, in MiB. A lean Linux guest needs no more, and QEMU's default
/// would be a quarter of the host's memory, at most 1 GiB, for each guest.
const TB_SIZE: u32 = 64;

/// What cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum BadLaunch {
    /// A socket's path does not fit.
    #[error("the socket path {} has more than {SOCKET_BYTES} bytes, the most Linux takes; use a shorter folder", .0.display())]
    LongSocket(PathBuf),
    /// A path that QMP, which is UTF-8, cannot carry.
    #[error("the path {} is not UTF-8; rename it", .0.display())]
    NotUtf8(PathBuf),
    /// A drive's name.
    #[error(
        "drive name {0:?} is not {NAME_BYTES} or fewer letters, digits, '-', '.' and '_' after a letter"
    )]
    Name(String),
    /// Two drives of one name.
    #[error("drive name {0:?} is taken")]
    NameTaken(String),
    /// A serial number that the guest would see cut off.
    #[error(
        "serial {serial:?} of drive {drive} has more than {SERIAL_BYTES} bytes; a guest would see it cut off"
    )]
    Serial {
        /// The drive.
        drive: String,
        /// Its serial.
        serial: String,
    },
    /// No root port left, or the one asked for is not to be had.
    #[error("drive {drive} cannot have root port {}: the machine has {ports}, taken are {taken:?}",
        wanted.map_or_else(|| "any".into(), |port| format!("{port}")))]
    Port {
        /// The drive.
        drive: String,
        /// The port that was asked for.
        wanted: Option<u8>,
        /// Ports of the machine.
        ports: u8,
        /// Ports that other drives have.
        taken: Vec<u8>,
    },
    /// Too many root ports.
    #[error("{0} root ports for disks are more than the {MAX_PORTS} a q35 machine can have")]
    Ports(u8),
}

/// Where a QEMU's own sockets and files are.
#[derive(Debug, Clone)]
pub(super) struct Places {
    pub(super) qmp: PathBuf,
    pub(super) console: PathBuf,
    pub(super) agent: PathBuf,
    pub(super) pid: PathBuf,
    pub(super) log: PathBuf,
    pub(super) transcript: PathBuf,
}

impl Places {
    pub(super) fn new(dir: &Path) -> Result<Self, BadLaunch> {
        Ok(Self {
            qmp: socket(&dir.join("qmp.sock"))?.into(),
            console: socket(&dir.join("console.sock"))?.into(),
            agent: socket(&dir.join("agent.sock"))?.into(),
            pid: dir.join(super::orphans::PID_FILE),
            log: dir.join("qemu.log"),
            transcript: dir.join(super::CONSOLE_FILE),
        })
    }
}

/// A path that QEMU can bind or connect to.
pub(in crate::lab::qemu) fn socket(path: &Path) -> Result<&str, BadLaunch> {
    if path.as_os_str().len() > SOCKET_BYTES {
        return Err(BadLaunch::LongSocket(path.to_owned()));
    }
    utf8(path)
}

fn utf8(path: &Path) -> Result<&str, BadLaunch> {
    path.to_str()
        .ok_or_else(|| BadLaunch::NotUtf8(path.to_owned()))
}

/// In an option list, two commas stand for one.
fn escaped(text: &str) -> String {
    text.replace(',', ",,")
}

/// Gives every drive a root port, and refuses what QEMU would refuse or quietly change.
pub(super) fn place(drives: &mut [Drive], ports: u8) -> Result<(), BadLaunch> {
    if ports > MAX_PORTS {
        return Err(BadLaunch::Ports(ports));
    }
    for at in 0..drives.len() {
        let (before, rest) = drives.split_at_mut(at);
        let Some((drive, after)) = rest.split_first_mut() else {
            break;
        };
        if before.iter().any(|other| other.name == drive.name) {
            return Err(BadLaunch::NameTaken(drive.name.clone()));
        }
        let taken = before.iter().chain(&*after).filter_map(|other| other.port);
        admit(drive, &taken.collect::<Vec<_>>(), ports)?;
    }
    Ok(())
}

fn admit(drive: &mut Drive, taken: &[u8], ports: u8) -> Result<(), BadLaunch> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let named = drive.name.starts_with(|c: char| c.is_ascii_alphabetic())
        && drive.name.len() <= NAME_BYTES
        && drive.name.chars().all(plain);
    if !named {
        return Err(BadLaunch::Name(drive.name.clone()));
    }
    if drive.serial.len() > SERIAL_BYTES {
        return Err(BadLaunch::Serial {
            drive: drive.name.clone(),
            serial: drive.serial.clone(),
        });
    }
    let free = |port: &u8| *port < ports && !taken.contains(port);
    let port = match drive.port {
        Some(port) => Some(port).filter(free),
        None => (0..ports).find(free),
    };
    drive.port = Some(port.ok_or_else(|| BadLaunch::Port {
        drive: drive.name.clone(),
        wanted: drive.port,
        ports,
        taken: taken.to_vec(),
    })?);
    Ok(())
}

/// The NBD node under a drive; `turn` counts how often the server was opened anew.
pub(super) fn nbd_name(drive: &str, turn: u32) -> String {
    format!("{drive}-nbd{turn}")
}

/// Id of a drive's device.
pub(super) fn device_name(drive: &str) -> String {
    format!("disk-{drive}")
}

/// The connection to the NBD server. `reconnect-delay` 0: while the server is away, requests fail at
/// once, as those to a dead array do.
pub(super) fn nbd_node(drive: &Drive, turn: u32) -> Result<Value, BadLaunch> {
    Ok(json!({
        "driver": "nbd",
        "node-name": nbd_name(&drive.name, turn),
        "server": { "type": "unix", "path": socket(&drive.socket)? },
        "reconnect-delay": 0,
        "read-only": drive.read_only,
        "discard": "unmap",
    }))
}

/// The node that the device uses. It only passes requests on, so that the NBD node under it can be
/// exchanged while the guest runs (see [`super::drives`]).
pub(super) fn drive_node(drive: &Drive, turn: u32) -> Value {
    json!({
        "driver": "raw",
        "node-name": drive.name,
        "file": nbd_name(&drive.name, turn),
        "read-only": drive.read_only,
        "discard": "unmap",
    })
}

/// The device that the guest sees.
pub(super) fn drive_device(drive: &Drive) -> Value {
    let errors = match drive.errors {
        OnError::Report => "report",
        OnError::Stop => "stop",
        OnError::Ignore => "ignore",
    };
    let mut device = json!({
        "driver": "virtio-blk-pci",
        "id": device_name(&drive.name),
        "bus": drive.port.map(port_name),
        "drive": drive.name,
        "serial": drive.serial,
        "werror": errors,
        "rerror": errors,
        "write-cache": if drive.write_cache { "on" } else { "off" },
    });
    if let Some(index) = drive.boot_index {
        // 0 is the rank of `-kernel`, and QEMU refuses to give one twice.
        device["bootindex"] = (u16::from(index) + 1).into();
    }
    device
}

fn port_name(port: u8) -> String {
    format!("port{port}")
}

/// QEMU's arguments.
struct Arguments(Vec<OsString>);

impl Arguments {
    fn flag(&mut self, flag: &str) {
        self.0.push(flag.into());
    }

    fn pair(&mut self, flag: &str, value: impl Into<OsString>) {
        self.0.push(flag.into());
        self.0.push(value.into());
    }

    fn json(&mut self, flag: &str, value: &Value) {
        self.pair(flag, value.to_string());
    }
}

/// The argument vector. Drives must have been placed.
pub(super) fn arguments(launch: &Launch, places: &Places) -> Result<Vec<OsString>, BadLaunch> {
    let mut to = Arguments(Vec::new());
    machine(&mut to, launch);
    control(&mut to, launch, places)?;
    for port in 0..launch.ports {
        // Chassis and slot name the port to the guest, and must be unique; 0 is the root complex.
        to.json(
            "-device",
            &json!({
                "driver": "pcie-root-port", "id": port_name(port),
                "chassis": port + 1, "slot": port + 1, "bus": "pcie.0",
                "addr": format!("{:#x}", FIRST_PORT_SLOT + port),
            }),
        );
    }
    for drive in &launch.drives {
        to.json("-blockdev", &nbd_node(drive, 0)?);
        to.json("-blockdev", &drive_node(drive, 0));
        to.json("-device", &drive_device(drive));
    }
    if let Some(nic) = &launch.nic {
        // QEMU connects: the switch is there before its guests are.
        to.json(
            "-netdev",
            &json!({
                "type": "stream", "id": "net", "server": false,
                "addr": { "type": "unix", "path": socket(&nic.socket)? },
            }),
        );
        let mac: Vec<_> = nic.mac.iter().map(|byte| format!("{byte:02x}")).collect();
        to.json(
            "-device",
            // No option ROM: no guest of ours boots from the network.
            &json!({
                "driver": "virtio-net-pci", "netdev": "net", "mac": mac.join(":"),
                "romfile": "", "bus": "pcie.0", "addr": NIC_SLOT,
            }),
        );
    }
    if let Some(kernel) = &launch.kernel {
        to.pair("-kernel", &kernel.image);
        to.pair("-append", &kernel.cmdline);
        if let Some(initrd) = &kernel.initrd {
            to.pair("-initrd", initrd);
        }
    }
    Ok(to.0)
}

// Slots of the root bus are fixed, so that both ends of a migration agree whatever was plugged when.
const NIC_SLOT: &str = "0x2";
const SERIAL_SLOT: &str = "0x3";
const FIRST_PORT_SLOT: u8 = 0x4;

fn machine(to: &mut Arguments, launch: &Launch) {
    to.flag("-nodefaults");
    to.flag("-no-user-config");
    to.pair("-display", "none");
    to.pair("-name", format!("guest={}", escaped(&launch.name)));
    to.pair("-uuid", launch.uuid.to_string());
    to.pair("-machine", "q35");
    to.pair(
        "-accel",
        match launch.accel {
            Accel::Tcg => format!("tcg,thread=multi,tb-size={TB_SIZE}"),
            Accel::Kvm => "kvm".into(),
        },
    );
    to.pair("-cpu", "max");
    to.pair("-m", launch.memory_mib.to_string());
    to.pair("-smp", launch.vcpus.to_string());
    // As libvirt runs KubeVirt's guests: a reboot stays within the process, a shutdown or a panic ends
    // it, and SHUTDOWN tells which.
    to.pair(
        "-action",
        "reboot=reset,shutdown=poweroff,panic=shutdown,watchdog=reset",
    );
    if launch.clock_off != 0 {
        to.pair("-rtc", format!("base={}", clock_base(launch.clock_off)));
    }
    match launch.begin {
        // A running machine too begins paused: nothing happens before somebody can see it.
        Begin::Running | Begin::Paused => to.flag("-S"),
        Begin::Incoming => to.pair("-incoming", "defer"),
    }
}

/// The time in UTC that a clock shows which is so many seconds ahead, as `-rtc` takes it.
fn clock_base(off: i64) -> String {
    let now = jiff::Timestamp::now();
    let shown = now.checked_add(jiff::SignedDuration::from_secs(off));
    // Only years are refused that QEMU does not know either.
    shown
        .unwrap_or(now)
        .strftime("%Y-%m-%dT%H:%M:%S")
        .to_string()
}

fn control(to: &mut Arguments, launch: &Launch, places: &Places) -> Result<(), BadLaunch> {
    to.pair("-pidfile", &places.pid);
    let mut chardev = |id: &str, path: &Path| {
        let path = escaped(utf8(path)?);
        // QEMU is the client: we listen before it starts, so nothing needs to be waited for or polled.
        to.pair("-chardev", format!("socket,id={id},path={path},server=off"));
        Ok(())
    };
    chardev("qmp", &places.qmp)?;
    chardev("console", &places.console)?;
    if launch.agent {
        chardev(AGENT, &places.agent)?;
    }
    to.pair("-mon", "chardev=qmp,mode=control");
    to.pair("-serial", "chardev:console");
    if launch.agent {
        to.json(
            "-device",
            &json!({
                "driver": "virtio-serial-pci", "id": "serial", "bus": "pcie.0", "addr": SERIAL_SLOT,
            }),
        );
        to.json(
            "-device",
            &json!({
                "driver": "virtserialport", "id": AGENT_PORT, "chardev": AGENT,
                "name": "org.qemu.guest_agent.0", "bus": "serial.0",
            }),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::qemu::process::{Kernel, Nic};
    use crate::lab::qemu::testing::{drive, launch};
    use proptest::prelude::*;

    fn vector(launch: &Launch) -> Vec<String> {
        let mut launch = launch.clone();
        place(&mut launch.drives, launch.ports).unwrap();
        let places = Places::new(Path::new("/run/a,b")).unwrap();
        let all = arguments(&launch, &places).unwrap();
        all.into_iter()
            .map(|argument| argument.into_string().unwrap())
            .collect()
    }

    fn has(vector: &[String], pair: [&str; 2]) -> bool {
        vector.windows(2).any(|window| window == pair)
    }

    #[test]
    fn a_launch_becomes_arguments() {
        let mut guest = launch(Path::new("/nbd,0"));
        guest.begin = Begin::Incoming;
        guest.nic = Some(Nic {
            socket: "/switch".into(),
            mac: [0x52, 0x54, 0, 0, 0, 0xff],
        });
        guest.kernel = Some(Kernel {
            image: "/vmlinux,x".into(),
            initrd: Some("/initrd".into()),
            cmdline: "console=ttyS0 a=b,c".into(),
        });
        let vector = vector(&guest);
        for pair in [
            ["-name", "guest=counter,, the first"],
            ["-incoming", "defer"],
            [
                "-chardev",
                "socket,id=qmp,path=/run/a,,b/qmp.sock,server=off",
            ],
            ["-pidfile", "/run/a,b/qemu.pid"],
            ["-kernel", "/vmlinux,x"],
            ["-append", "console=ttyS0 a=b,c"],
            ["-accel", "tcg,thread=multi,tb-size=64"],
        ] {
            assert!(has(&vector, pair), "{pair:?} in {vector:?}");
        }
        assert!(!vector.contains(&"-S".into()));
        let devices: Vec<Value> = vector
            .windows(2)
            .filter(|pair| pair[0] == "-device")
            .map(|pair| serde_json::from_str(&pair[1]).unwrap())
            .collect();
        let nic = devices
            .iter()
            .find(|device| device["driver"] == "virtio-net-pci")
            .unwrap();
        assert_eq!(nic["mac"], "52:54:00:00:00:ff");
        let disk = devices
            .iter()
            .find(|device| device["driver"] == "virtio-blk-pci")
            .unwrap();
        assert_eq!(disk["bus"], "port0");
        assert_eq!(disk["werror"], "report");
    }

    #[test]
    fn a_clock_is_set_only_where_it_is_off() {
        let mut guest = launch(Path::new("/nbd"));
        assert!(!vector(&guest).contains(&"-rtc".into()));
        for off in [300, -300] {
            guest.clock_off = off;
            let vector = vector(&guest);
            let at = vector.iter().position(|flag| flag == "-rtc").unwrap() + 1;
            let base = vector[at].strip_prefix("base=").unwrap();
            let base: jiff::Timestamp = format!("{base}Z").parse().unwrap();
            let seen = base.as_second() - jiff::Timestamp::now().as_second();
            assert!((off - seen).abs() < 60, "{off}: {seen}");
        }
    }

    #[test]
    fn what_qemu_would_refuse_or_cut_off_is_refused() {
        let plain = |name: &str| drive(name, Path::new("/s"));
        let refused = |drives: &[Drive], ports| place(&mut drives.to_vec(), ports).unwrap_err();
        for name in ["", "0a", "a b", "a,b", "#a", "abcdefghijklmnopqrstu"] {
            assert!(
                matches!(refused(&[plain(name)], 1), BadLaunch::Name(_)),
                "{name}"
            );
        }
        let mut long = plain("a");
        long.serial = "123456789012345678901".into();
        assert!(
            refused(&[long], 1)
                .to_string()
                .contains("more than 20 bytes")
        );
        assert!(matches!(
            refused(&[plain("a"), plain("a")], 2),
            BadLaunch::NameTaken(_)
        ));
        assert!(matches!(refused(&[], MAX_PORTS + 1), BadLaunch::Ports(15)));
        assert_eq!(
            refused(&[plain("a"), plain("b")], 1).to_string(),
            "drive b cannot have root port any: the machine has 1, taken are [0]"
        );
        let path = PathBuf::from("x".repeat(SOCKET_BYTES + 1));
        assert!(matches!(socket(&path), Err(BadLaunch::LongSocket(_))));
    }

    proptest! {
        /// Whatever ports are asked for, no two drives share one, and what was asked for is given.
        #[test]
        fn every_drive_has_its_own_port(
            wishes in proptest::collection::vec(proptest::option::of(0_u8..6), 0..8),
            ports in 0_u8..8,
        ) {
            let mut drives: Vec<Drive> = wishes.iter().enumerate().map(|(at, wish)| Drive {
                port: *wish,
                ..drive(&format!("d{at}"), Path::new("/s"))
            }).collect();
            if place(&mut drives, ports).is_ok() {
                let mut given: Vec<u8> = drives.iter().map(|drive| drive.port.unwrap()).collect();
                for (wish, given) in wishes.iter().zip(&given) {
                    prop_assert!(wish.is_none_or(|wish| wish == *given));
                }
                given.sort_unstable();
                given.dedup();
                prop_assert_eq!(given.len(), wishes.len());
                prop_assert!(given.iter().all(|port| *port < ports));
            }
        }
    }
}
