//! A real guest of the lab: two raw block volumes of the array, over NBD.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use virtproof::cluster::Deadline;
use virtproof::guest::{HostKeyRule, Job, Login, LoginKey, Pins, Shell};
use virtproof::history::event::Site;
use virtproof::lab::array::{self, Array};
use virtproof::lab::clock::LabClock;
use virtproof::lab::guest::cloudinit::Seed;
use virtproof::lab::guest::image::Os;
use virtproof::lab::guest::{ErrorPolicy, GuestDisk, Planted, Root, Spec};
use virtproof::lab::qemu::host::{self, Accel, Host, Wish as Accelerator};
use virtproof::lab::qemu::image::{self, BuildOptions, Layer};
use virtproof::lab::qemu::{Config, Hypervisor, Machine, Sessions};
use virtproof::lab::world;

use crate::place::{Held, Place, Talk};
use crate::{Wish, say};

/// Size of the ledger's volume.
const LEDGER_MIB: u64 = 128;
/// Size of fio's.
const FIO_MIB: u64 = 32;
/// How long anything here may take.
const LIMIT: Duration = Duration::from_secs(1200);
const DIR: &str = "/run/bench";

pub(crate) struct Guest {
    machine: Arc<Machine>,
    shell: Shell,
    deadline: Deadline,
    accel: Accel,
    ours: String,
    theirs: String,
    _dir: TempDir,
}

impl Guest {
    /// Boots a guest with fio and puts the probe into it. What this host lacks comes as the inner error.
    pub(crate) async fn start(wish: &Wish) -> anyhow::Result<Result<Self, String>> {
        let dir = tempfile::Builder::new().prefix("vp-bench-").tempdir()?;
        let config = match config(&dir).await {
            Ok(config) => config,
            Err(what) => return Ok(Err(what)),
        };
        let accel = config.accel;
        let key = LoginKey::generate("bench")?;
        let spec = spec(&key.public_line()?)?;
        let machine = match Hypervisor::new(config) {
            Ok(hypervisor) => hypervisor.start(&spec).await?,
            Err(what) => return Ok(Err(what.to_string())),
        };
        let deadline = Deadline::after(LIMIT, &CancellationToken::new());
        let ready = tokio::time::timeout(LIMIT, machine.ready()).await;
        if !ready.context("waiting for the guest to boot")? {
            bail!("the guest did not boot");
        }
        machine.bring_up();
        let login = Login {
            user: "root".to_owned(),
            key,
            pins: Arc::new(Pins::in_memory()),
            host_key: HostKeyRule::Fresh,
        };
        let stream = Box::new(machine.connect(22).await?);
        let shell = Shell::over(stream, "the guest", &login, &deadline, None).await?;
        let put = format!("mkdir -p {DIR} && cat > {DIR}/probe && chmod 0700 {DIR}/probe");
        let job = Job::new(&put).stdin(wish.probe.bytes());
        shell.run(&job, &deadline).await?.check()?;
        let (ours, theirs) = devices(&shell, &deadline).await?;
        Ok(Ok(Self {
            machine,
            shell,
            deadline,
            accel,
            ours,
            theirs,
            _dir: dir,
        }))
    }

    /// Ends the guest before its folder goes.
    pub(crate) async fn stop(self) {
        self.shell.close().await;
        self.machine.power_cut();
        self.machine.release();
    }
}

async fn config(dir: &TempDir) -> Result<Config, String> {
    let lacks = |error: &dyn std::fmt::Display| error.to_string();
    let host = Host::find(None).await.map_err(|e| lacks(&e))?;
    let accel = host::accel(&host, Accelerator::Tcg);
    let accel = accel.await.map_err(|e| lacks(&e))?;
    let options = BuildOptions {
        layers: BTreeSet::from([Layer::Bench]),
        cache: image::default_cache().map_err(|e| lacks(&e))?,
        refresh: false,
    };
    let build = move || image::build(&options, &mut |words| say(&format!("guest image: {words}")));
    let done = tokio::task::spawn_blocking(build).await;
    let image = done.map_err(|e| lacks(&e))?.map_err(|e| lacks(&e))?;
    Ok(Config {
        host,
        accel,
        image,
        init: image::Init::default(),
        dir: dir.path().to_owned(),
        sessions: Sessions::Break,
    })
}

fn spec(key: &str) -> anyhow::Result<Spec> {
    let array = Array::new(array::Config::default(), LabClock::new(1.0), Arc::default());
    let node = &world::nodes(Site::Primary)[0];
    let volume = |name: &str, mib: u64| -> anyhow::Result<GuestDisk> {
        let handle = world::handle(Site::Primary, name);
        let made = array.create(Site::Primary, &handle, mib << 20);
        made.map_err(|status| anyhow::anyhow!(status.message))?;
        Ok(GuestDisk {
            name: name.to_owned(),
            volume: name.to_owned(),
            serial: name.to_owned(),
            read_only: false,
            errors: ErrorPolicy::Report,
            disk: array.attach(Site::Primary, &handle, node, true)?,
        })
    };
    Ok(Spec {
        uid: "5b1c9d0e-7d0c-4f1b-9a43-6c1f3f0d2a10".to_owned(),
        hostname: "bench".to_owned(),
        seed: Seed {
            instance_id: Some("bench".to_owned()),
            user_data: "#cloud-config\ndisable_root: false\n".to_owned(),
            public_keys: vec![key.to_owned()],
        },
        root: Root::Ephemeral(Os::from_reference("fedora:latest")),
        root_volume: None,
        mac: "02:00:00:00:00:0b".to_owned(),
        disks: vec![volume("ledger", LEDGER_MIB)?, volume("fio", FIO_MIB)?],
        memory: 384,
        root_space: 1 << 30,
        entropy: 1,
        planted: Planted::default(),
    })
}

/// The block devices of the ledger and of fio, by their serials.
async fn devices(shell: &Shell, deadline: &Deadline) -> anyhow::Result<(String, String)> {
    let list = "for d in /sys/block/vd*; do echo /dev/${d##*/} $(cat $d/serial); done";
    let said = shell.exec(list, deadline).await?.text();
    let find = |serial: &str| {
        let mut rows = said.lines().filter_map(|line| line.split_once(' '));
        let found = rows.find(|(_, known)| known.trim() == serial);
        found
            .map(|(path, _)| path.to_owned())
            .with_context(|| format!("no disk {serial} among {said:?}"))
    };
    Ok((find("ledger")?, find("fio")?))
}

impl Place for Guest {
    fn describe(&self) -> String {
        format!(
            "guest: QEMU ({:?}, 1 vCPU), raw block volumes of {LEDGER_MIB} MiB and {FIO_MIB} MiB of the lab's array over NBD",
            self.accel
        )
    }

    fn probe(&self) -> String {
        format!("{DIR}/probe")
    }

    fn socket(&self) -> String {
        format!("{DIR}/socket")
    }

    fn ours(&self) -> &str {
        &self.ours
    }

    fn theirs(&self) -> &str {
        &self.theirs
    }

    fn prepare(&self) -> String {
        let zero = |device: &str, mib| {
            format!("dd if=/dev/zero of={device} bs=1M count={mib} 2>/dev/null && sync")
        };
        let (ours, theirs) = (zero(&self.ours, LEDGER_MIB), zero(&self.theirs, FIO_MIB));
        format!("{ours} && {theirs}")
    }

    async fn run(&self, command: &str, stdin: &[u8]) -> anyhow::Result<String> {
        let job = Job::new(command).stdin(stdin);
        Ok(self.shell.run(&job, &self.deadline).await?.check()?.text())
    }

    async fn talk(&self, command: &str) -> anyhow::Result<Talk> {
        let streams = self.shell.stream(command, &self.deadline).await?;
        Ok(Talk {
            stdin: streams.stdin,
            stdout: streams.stdout,
            _held: Held::Channel {
                _guard: streams.guard,
            },
        })
    }
}
