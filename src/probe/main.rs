//! The probe that is copied into a guest: `info`, `start`, `attach`, `scan`, `look`, `check`, `reach`,
//! `version`.
//!
//! Contract: std only, one static file, no trace but its socket. `start` leaves a daemon behind or
//! an error on standard error and nothing running.

#![expect(
    dead_code,
    reason = "the formats are shared with the host, which uses the other half of them"
)]

mod buffer;
mod cell;
mod classify;
mod codec;
mod config;
mod crc;
mod disk;
mod echo;
mod engine;
mod filesystem;
mod frame;
mod layout;
mod lease;
mod linux;
mod outbox;
mod payload;
mod platform;
mod reach;
mod scan;
mod session;
mod wire;

use std::fs::{self, File, Permissions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use config::{Config, MAX_CONFIG};
use filesystem::Told;
use linux::Linux;
use platform::{FileSystems, OpenError, Platform};
use session::{Daemon, Left};

/// Changes when host and probe of different builds could not understand each other.
const FORMAT: u32 = 2;
const USAGE: &str =
    "usage: probe info | start SOCKET | attach SOCKET | scan | look | check | reach | echo | version";

/// An error as it is shown: one line of what was tried and what was seen.
type Shown = String;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments.as_slice() {
        ["info"] => info(),
        ["start", socket] => start(socket),
        ["daemon", socket] => daemon(socket),
        ["attach", socket] => attach(socket),
        ["scan"] => scan_volumes(),
        ["look"] => told(filesystem::look),
        ["check"] => told(filesystem::check),
        ["reach"] => try_reaching(),
        ["echo"] => echo_back(),
        ["version"] => say(&format!(
            "virtproof-probe format {FORMAT} {}\n",
            std::env::consts::ARCH
        )),
        _ => Err(USAGE.to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If standard error is gone too there is nobody left to tell.
            writeln!(io::stderr(), "error: {error}").ok();
            ExitCode::FAILURE
        }
    }
}

fn say(text: &str) -> Result<(), Shown> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| format!("writing to standard output: {error}"))
}

fn info() -> Result<(), Shown> {
    let linux = Linux::default();
    let kernel = |name: &str| {
        fs::read_to_string(format!("/proc/sys/kernel/{name}"))
            .map(|text| text.trim().to_owned())
            .map_err(|error| format!("reading /proc/sys/kernel/{name}: {error}"))
    };
    let mut text = format!(
        "format {FORMAT}\nbuild {:08x}\narch {}\nboot_id {}\nmachine_id {}\nkernel {}\nhostname {}\n",
        // Lets the host see whether this is the file that it would upload.
        crc::crc32c(
            &fs::read("/proc/self/exe").map_err(|error| format!("reading itself: {error}"))?
        ),
        std::env::consts::ARCH,
        linux.boot_id(),
        linux.machine_id(),
        kernel("osrelease")?,
        kernel("hostname")?,
    );
    let disks = linux
        .disks()
        .map_err(|error| format!("listing /sys/block: {error}"))?;
    for disk in disks {
        text.push_str(&format!("disk {disk}\n"));
    }
    let cards = linux
        .cards()
        .map_err(|error| format!("listing /sys/class/net: {error}"))?;
    for (name, address) in cards {
        text.push_str(&format!("card {name} {address}\n"));
    }
    say(&text)
}

/// Reads a config to the end of `from`.
fn read_config(from: impl Read) -> Result<(Config, String), Shown> {
    let mut text = String::new();
    from.take(MAX_CONFIG as u64 + 1)
        .read_to_string(&mut text)
        .map_err(|error| format!("reading the config: {error}"))?;
    let config = Config::parse(&text).map_err(|error| error.to_string())?;
    Ok((config, text))
}

/// Starts the daemon as a process group of its own and waits until it listens.
fn start(socket: &str) -> Result<(), Shown> {
    let (_, text) = read_config(io::stdin())?;
    let failed = |error: io::Error| format!("starting the daemon: {error}");
    let (mut ours, theirs) = UnixStream::pair().map_err(failed)?;
    let mut child = Command::new("/proc/self/exe")
        .args(["daemon", socket])
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    ours.write_all(text.as_bytes())
        .and_then(|()| ours.shutdown(Shutdown::Write))
        .map_err(failed)?;
    let mut answer = String::new();
    BufReader::new(ours)
        .read_line(&mut answer)
        .map_err(failed)?;
    if answer == "ready\n" {
        return say("ready\n");
    }
    let status = child.wait().map_err(failed)?;
    Err(match answer.trim_end() {
        "" => format!("the daemon ended without a word: {status}"),
        answer => answer.to_owned(),
    })
}

/// What `start` leaves behind. Its standard input is the socket on which `start` waits.
fn daemon(socket: &str) -> Result<(), Shown> {
    let failed = |error: io::Error| format!("talking to the starter: {error}");
    let fd = io::stdin().as_fd().try_clone_to_owned().map_err(failed)?;
    let mut starter = UnixStream::from(fd);
    let opened = read_config(&starter).and_then(|(config, _)| {
        let daemon = Daemon::open(&config, &Linux::default()).map_err(|error| error.to_string())?;
        Ok((daemon, listen(socket)?))
    });
    let answer = match &opened {
        Ok(_) => "ready\n".to_owned(),
        Err(error) => format!("{}\n", error.replace('\n', " ")),
    };
    starter
        .write_all(answer.as_bytes())
        .and_then(|()| starter.shutdown(Shutdown::Both))
        .map_err(failed)?;
    let (daemon, listener) = opened?;
    serve(socket, &listener, daemon)
}

/// Listens on `socket`, for root alone. A stale socket is replaced, a live one is not.
fn listen(socket: &str) -> Result<UnixListener, Shown> {
    let failed = |error: io::Error| format!("listening on {socket}: {error}");
    if fs::symlink_metadata(socket).is_ok() {
        if UnixStream::connect(socket).is_ok() {
            return Err(format!("a probe is listening on {socket} already"));
        }
        fs::remove_file(socket).map_err(failed)?;
    }
    let listener = UnixListener::bind(socket).map_err(failed)?;
    fs::set_permissions(socket, Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

/// Serves hosts, each on a thread, until one of them says quit.
fn serve(socket: &str, listener: &UnixListener, daemon: Daemon) -> Result<(), Shown> {
    let daemon = Arc::new(daemon);
    while !daemon.has_ended() {
        let Ok((stream, _)) = listener.accept() else {
            // Out of descriptors or memory: the writers go on, and the host will try again.
            thread::park_timeout(Duration::from_millis(100));
            continue;
        };
        let daemon = Arc::clone(&daemon);
        let path = socket.to_owned();
        let attachment = move || {
            // A host that breaks the protocol or the stream has lost its attachment, no more.
            if let Ok(Left::Quit) = serve_one(&daemon, stream) {
                // The accept above has to return for the end to be noticed.
                UnixStream::connect(&path).ok();
            }
        };
        // Without a thread the stream is dropped here, which the host sees.
        thread::Builder::new().spawn(attachment).ok();
    }
    fs::remove_file(socket).map_err(|error| format!("removing {socket}: {error}"))
}

fn serve_one(daemon: &Daemon, stream: UnixStream) -> io::Result<Left> {
    let read = BufReader::new(stream.try_clone()?);
    let cut = stream.try_clone()?;
    daemon.serve_cut(
        read,
        stream,
        Box::new(move || {
            // A stream that is down already needs no cutting.
            cut.shutdown(Shutdown::Both).ok();
        }),
    )
}

/// Bridges standard input and output to the daemon until it closes.
fn attach(socket: &str) -> Result<(), Shown> {
    let failed = |error: io::Error| format!("attaching to {socket}: {error}");
    let mut stream = UnixStream::connect(socket).map_err(failed)?;
    let mut commands = stream.try_clone().map_err(failed)?;
    thread::spawn(move || {
        // Either end may go first; the daemon sees the end of the stream in both cases.
        io::copy(&mut io::stdin().lock(), &mut commands).ok();
        commands.shutdown(Shutdown::Write).ok();
    });
    io::copy(&mut stream, &mut plain_stdout().map_err(failed)?).map_err(failed)?;
    Ok(())
}

fn scan_volumes() -> Result<(), Shown> {
    let (config, _) = read_config(io::stdin())?;
    let out = plain_stdout().map_err(|error| format!("opening standard output: {error}"))?;
    let mut out = BufWriter::with_capacity(64 * 1024, out);
    scan::scan(&config, &Linux::default(), &mut out).map_err(|error| error.to_string())
}

/// Says of each file volume what was seen of its file system, a line each.
fn told(
    ask: impl Fn(&Config, &dyn FileSystems) -> Result<Vec<Told>, OpenError>,
) -> Result<(), Shown> {
    let (config, _) = read_config(io::stdin())?;
    let told = ask(&config, &Linux::default()).map_err(|error| error.to_string())?;
    say(&filesystem::lines(&told))
}

/// Tries the addresses on standard input.
fn try_reaching() -> Result<(), Shown> {
    let mut list = String::new();
    io::stdin()
        .take(reach::MAX_LIST as u64)
        .read_to_string(&mut list)
        .map_err(|error| format!("reading the addresses: {error}"))?;
    say(&reach::report(&list, reach::connect)?)
}

/// Answers whoever measures whether the guest can be reached.
fn echo_back() -> Result<(), Shown> {
    let failed = |error: io::Error| format!("echoing: {error}");
    let out = plain_stdout().map_err(failed)?;
    echo::echo(io::stdin().lock(), out).map_err(failed)
}

/// Standard output without the line buffer, which would hold frames back.
fn plain_stdout() -> io::Result<File> {
    Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?))
}
