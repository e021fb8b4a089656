//! The probe inside a guest: uploaded bytes that equal the embedded probe run the probe library in
//! this process, over the guest's disks, with the words of the real executable.

mod blocking;
pub(super) mod filesystem;
mod freezes;
mod holds;
mod platform;

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::machine::{KERNEL, Machine};
use super::shell::{Status, Stdio};
use crate::probe::config::{Config, MAX_CONFIG};
use crate::probe::echo::NUMBER;
use crate::probe::embedded;
use crate::probe::filesystem::{Told, check, lines, look};
use crate::probe::platform::{FileSystems, OpenError};
use crate::probe::reach;
use crate::probe::remote::FORMAT;
use crate::probe::scan;
use crate::probe::session::Daemon;
use blocking::Blocking;
use freezes::Freezes;
use holds::Holds;
use platform::{Process, describe};

/// Stack of a thread that serves one stream.
const STACK: usize = 256 * 1024;
/// How much of a stream waits between probe and channel.
const PIPE: usize = 256 * 1024;

/// The probe processes of a guest, by the socket that they listen on.
#[derive(Default)]
pub(super) struct Probes {
    daemons: Mutex<BTreeMap<String, Arc<Daemon>>>,
    holds: Holds,
    freezes: Freezes,
    processes: AtomicU32,
}

impl Probes {
    /// Ends every daemon: a write in flight completes, no further one begins.
    pub(super) fn stop(&self) {
        for daemon in std::mem::take(&mut *self.lock()).into_values() {
            daemon.kill();
        }
        self.freezes.stop();
    }

    /// Whether a daemon listens on a socket path.
    pub(super) fn listens(&self, path: &str) -> bool {
        self.at(path).is_some()
    }

    fn at(&self, path: &str) -> Option<Arc<Daemon>> {
        let daemon = self.lock().get(path).cloned();
        daemon.filter(|daemon| !daemon.has_ended())
    }

    /// Whether a daemon with this process id runs.
    fn runs(&self, pid: u32) -> bool {
        let daemons = self.lock();
        let mut running = daemons.values().filter(|daemon| !daemon.has_ended());
        running.any(|daemon| daemon.identity().pid == pid)
    }

    /// Takes a device or file for a process alone.
    fn take(&self, what: &str, pid: u32) -> io::Result<()> {
        self.holds.take(what, pid, |pid| self.runs(pid))
    }

    /// Whether a process has a device or file for itself.
    fn is_taken(&self, what: &str) -> bool {
        self.holds.is_taken(what, |pid| self.runs(pid))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<Daemon>>> {
        self.daemons.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn process(&self, machine: &Arc<Machine>) -> Process {
        Process {
            machine: Arc::clone(machine),
            pid: 1000 + self.processes.fetch_add(1, Ordering::Relaxed),
        }
    }
}

/// Whether these bytes are the probe and run on this architecture.
pub(super) fn is_ours(content: &Bytes, arch: &str) -> bool {
    arch == embedded::ARCH && same(content)
}

fn same(content: &[u8]) -> bool {
    std::ptr::eq(content.as_ptr(), embedded::BINARY.as_ptr()) || content == embedded::BINARY
}

/// The bytes as a file's content; the probe's are shared by all guests that have it.
pub(super) fn shared(bytes: &[u8]) -> Bytes {
    if same(bytes) {
        Bytes::from_static(embedded::BINARY)
    } else {
        Bytes::copy_from_slice(bytes)
    }
}

/// Runs the probe with its subcommand.
pub(super) async fn run(
    machine: &Arc<Machine>,
    user: &str,
    arguments: &[String],
    stdio: &mut Stdio,
) -> Status {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["version"] => {
            let text = format!("virtproof-probe format {FORMAT} {}\n", embedded::ARCH);
            stdio.out.put(text.as_bytes()).await;
            Ok(())
        }
        ["info"] => {
            stdio.out.put(info(machine).as_bytes()).await;
            Ok(())
        }
        _ if user != "root" => Err("opening the disks: Permission denied".to_owned()),
        ["start", socket] => start(machine, socket, stdio).await,
        ["attach", socket] => attach(machine, socket, stdio).await,
        ["scan"] => scan(machine, stdio).await,
        ["look"] => told(machine, stdio, look).await,
        ["check"] => told(machine, stdio, check).await,
        ["freeze", socket, timer] => freezes::freeze(machine, socket, timer, stdio).await,
        ["frozen", socket] => freezes::frozen(machine, socket, stdio).await,
        ["thaw", socket] => freezes::thaw(machine, socket, stdio).await,
        ["reach"] => try_reaching(machine, stdio).await,
        ["echo"] => {
            echo(stdio).await;
            Ok(())
        }
        _ => Err(
            "usage: probe info | start SOCKET | attach SOCKET | scan | look | check | freeze SOCKET MS | frozen SOCKET | thaw SOCKET | reach | echo | version"
                .to_owned(),
        ),
    };
    match outcome {
        Ok(()) => 0,
        Err(error) => {
            stdio.err.put(format!("error: {error}\n").as_bytes()).await;
            1
        }
    }
}

fn info(machine: &Machine) -> String {
    let mut text = format!(
        "format {FORMAT}\narch {}\nboot_id {}\nmachine_id {}\nkernel {KERNEL}\nhostname {}\n",
        embedded::ARCH,
        machine.boot_id,
        machine.state.machine_id,
        machine.hostname,
    );
    for disk in &machine.disks() {
        text.push_str("disk ");
        text.push_str(&describe(disk).to_string());
        text.push('\n');
    }
    text.push_str("card eth0 ");
    text.push_str(&machine.mac);
    text.push('\n');
    text
}

async fn config(stdio: &mut Stdio) -> Result<Config, String> {
    let mut bytes = Vec::new();
    let limit = MAX_CONFIG as u64 + 1;
    let mut limited = (&mut stdio.input).take(limit);
    limited
        .read_to_end(&mut bytes)
        .await
        .map_err(|error| format!("reading the config: {error}"))?;
    let text = String::from_utf8(bytes).map_err(|error| format!("reading the config: {error}"))?;
    Config::parse(&text).map_err(|error| error.to_string())
}

async fn start(machine: &Arc<Machine>, socket: &str, stdio: &mut Stdio) -> Result<(), String> {
    let config = config(stdio).await?;
    if machine.probes.listens(socket) {
        return Err(format!("a probe is listening on {socket} already"));
    }
    let process = machine.probes.process(machine);
    let starting = machine.probes.holds.start(process.pid);
    // What it holds is held for as long as it opens, even if nobody waits for that any more.
    let opening = move || (Daemon::open(&config, &process), starting);
    let (opened, _starting) = tokio::task::spawn_blocking(opening)
        .await
        .map_err(|error| format!("starting the daemon: {error}"))?;
    let daemon = Arc::new(opened.map_err(|error| error.to_string())?);
    let before = machine
        .probes
        .lock()
        .insert(socket.to_owned(), Arc::clone(&daemon));
    if let Some(before) = before {
        before.kill();
    }
    if machine.power.is_off() {
        // The power went while the volumes were being opened.
        machine.probes.stop();
        return Err("starting the daemon: the guest has no power".to_owned());
    }
    stdio.out.put(b"ready\n").await;
    Ok(())
}

/// Says of each file volume what was seen of its file system, a line each.
async fn told(
    machine: &Arc<Machine>,
    stdio: &mut Stdio,
    ask: fn(&Config, &dyn FileSystems) -> Result<Vec<Told>, OpenError>,
) -> Result<(), String> {
    let config = config(stdio).await?;
    let process = machine.probes.process(machine);
    let told = tokio::task::spawn_blocking(move || ask(&config, &process))
        .await
        .map_err(|error| format!("looking at the file systems: {error}"))?
        .map_err(|error| error.to_string())?;
    stdio.out.put(lines(&told).as_bytes()).await;
    Ok(())
}

/// A lab guest stands in a bubble: whatever is outside never answers, unless a fault lets it out.
async fn try_reaching(machine: &Machine, stdio: &mut Stdio) -> Result<(), String> {
    let mut list = String::new();
    let mut limited = (&mut stdio.input).take(reach::MAX_LIST as u64);
    limited
        .read_to_string(&mut list)
        .await
        .map_err(|error| format!("reading the addresses: {error}"))?;
    let report = reach::report(&list, |host, port| machine.planted.connect(host, port))?;
    stdio.out.put(report.as_bytes()).await;
    Ok(())
}

/// Writes what comes back at once, until the client has nothing more to say.
async fn echo(stdio: &mut Stdio) {
    let mut buffer = [0; 64 * NUMBER];
    while let Ok(read @ 1..) = stdio.input.read(&mut buffer).await {
        stdio.out.put(&buffer[..read]).await;
    }
}

async fn attach(machine: &Arc<Machine>, socket: &str, stdio: &mut Stdio) -> Result<(), String> {
    let failed = |error: io::Error| format!("attaching to {socket}: {error}");
    let daemon = machine
        .probes
        .at(socket)
        .ok_or_else(|| failed(io::ErrorKind::ConnectionRefused.into()))?;
    let (near, far) = tokio::io::duplex(PIPE);
    let cut = CancellationToken::new();
    let from_daemon = cut.clone();
    in_thread("attachment", move |handle| {
        let (read, write) = tokio::io::split(far);
        let read = Blocking::new(read, handle.clone());
        let write = Blocking::new(write, handle);
        let cutter = from_daemon.clone();
        let left = daemon.serve_cut(read, write, Box::new(move || cutter.cancel()));
        if let Err(error) = left {
            tracing::debug!(%error, "an attachment to a simulated probe broke");
        }
        from_daemon.cancel();
    })
    .map_err(failed)?;
    bridge(near, &cut, stdio).await.map_err(failed)
}

/// Copies standard input to the daemon and the daemon to standard output until it ends.
async fn bridge(near: DuplexStream, cut: &CancellationToken, stdio: &mut Stdio) -> io::Result<()> {
    let (mut from_daemon, mut to_daemon) = tokio::io::split(near);
    let Stdio { input, out, .. } = stdio;
    let feeding = async {
        let copied = tokio::io::copy(input, &mut to_daemon).await;
        // Either end may go first; the daemon sees the end of the stream in both cases.
        to_daemon.shutdown().await.and(copied)
    };
    let reading = async {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match from_daemon.read(&mut buffer).await? {
                0 => return Ok::<(), io::Error>(()),
                read => out.put(&buffer[..read]).await,
            }
        }
    };
    tokio::pin!(feeding, reading);
    let mut fed = false;
    loop {
        tokio::select! {
            _ = &mut feeding, if !fed => fed = true,
            read = &mut reading => return read,
            () = cut.cancelled() => return Ok(()),
        }
    }
}

async fn scan(machine: &Arc<Machine>, stdio: &mut Stdio) -> Result<(), String> {
    let config = config(stdio).await?;
    let process = machine.probes.process(machine);
    let (mut near, far) = tokio::io::duplex(PIPE);
    let (done, outcome) = oneshot::channel();
    in_thread("scan", move |handle| {
        let mut out = io::BufWriter::with_capacity(64 * 1024, Blocking::new(far, handle));
        let scanned = scan::scan(&config, &process, &mut out).map_err(|error| error.to_string());
        if done.send(scanned).is_err() {
            tracing::debug!("nobody waits for a scan any more");
        }
    })
    .map_err(|error| format!("starting the scan: {error}"))?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match near.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(read) => stdio.out.put(&buffer[..read]).await,
        }
    }
    outcome
        .await
        .unwrap_or_else(|_| Err("the scan ended without a word".to_owned()))
}

fn in_thread(
    name: &str,
    work: impl FnOnce(tokio::runtime::Handle) + Send + 'static,
) -> io::Result<()> {
    let handle = tokio::runtime::Handle::current();
    std::thread::Builder::new()
        .name(name.to_owned())
        .stack_size(STACK)
        .spawn(move || work(handle))
        .map(drop)
}
