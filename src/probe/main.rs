//! The probe that is copied into a guest: `info`, `start`, `attach`, `scan`, `look`, `check`, `freeze`,
//! `frozen`, `thaw`, `reach`, `echo`, `version`.
//!
//! Contract: std only, one static file, no trace but its sockets. `start` leaves a daemon behind or
//! an error on standard error and nothing running, and so does `freeze` with what holds the freeze.

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
mod hold;
mod layout;
mod lease;
mod linux;
mod outbox;
mod payload;
mod platform;
mod reach;
mod scan;
mod session;
mod window;
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
use std::time::{Duration, Instant};

use config::{Config, MAX_CONFIG};
use filesystem::Told;
use hold::Hold;
use linux::Linux;
use platform::{FileSystems, OpenError, Platform};
use session::{Daemon, Left};

/// Changes when host and probe of different builds could not understand each other.
const FORMAT: u32 = 2;
const USAGE: &str =
    "usage: probe info | start SOCKET | attach SOCKET | scan | look | check | freeze SOCKET MS | frozen SOCKET | thaw SOCKET | reach | echo | version";

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
        ["freeze", socket, timer] => freeze(socket, timer),
        ["hold", socket, timer] => hold_frozen(socket, timer),
        ["frozen", socket] => frozen(socket),
        ["thaw", socket] => thaw(socket),
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

/// Starts the daemon and waits until it listens.
fn start(socket: &str) -> Result<(), Shown> {
    let answer = leave_behind(&["daemon", socket])?;
    if answer == "ready\n" {
        return say(&answer);
    }
    Err(answer.trim_end().to_owned())
}

/// Starts this program with these words as a process group of its own, gives it the config, and returns
/// what it answers. It outlives this process.
fn leave_behind(words: &[&str]) -> Result<String, Shown> {
    let (_, text) = read_config(io::stdin())?;
    let failed = |error: io::Error| format!("starting the daemon: {error}");
    let (mut ours, theirs) = UnixStream::pair().map_err(failed)?;
    let mut child = Command::new("/proc/self/exe")
        .args(words)
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
    ours.read_to_string(&mut answer).map_err(failed)?;
    if answer.trim().is_empty() {
        let status = child.wait().map_err(failed)?;
        return Err(format!("the daemon ended without a word: {status}"));
    }
    Ok(answer)
}

/// The socket on which whoever left this process behind waits: its standard input.
fn starter() -> Result<UnixStream, Shown> {
    let fd = io::stdin().as_fd().try_clone_to_owned();
    fd.map(UnixStream::from).map_err(to_starter)
}

fn to_starter(error: io::Error) -> Shown {
    format!("talking to the starter: {error}")
}

/// Answers the starter, which then goes.
fn answer(starter: &mut UnixStream, text: &str) -> Result<(), Shown> {
    starter
        .write_all(text.as_bytes())
        .and_then(|()| starter.shutdown(Shutdown::Both))
        .map_err(to_starter)
}

/// What `start` leaves behind.
fn daemon(socket: &str) -> Result<(), Shown> {
    let mut starter = starter()?;
    let opened = read_config(&starter).and_then(|(config, _)| {
        let daemon = Daemon::open(&config, &Linux::default()).map_err(|error| error.to_string())?;
        Ok((daemon, listen(socket)?))
    });
    let said = match &opened {
        Ok(_) => "ready\n".to_owned(),
        Err(error) => one_line(error),
    };
    answer(&mut starter, &said)?;
    let (daemon, listener) = opened?;
    serve(socket, &listener, daemon)
}

fn one_line(error: &str) -> String {
    format!("{}\n", error.replace('\n', " "))
}

/// Freezes the file systems of the file volumes and says so, a line each. What holds them lives on.
fn freeze(socket: &str, timer: &str) -> Result<(), Shown> {
    let answer = leave_behind(&["hold", socket, timer])?;
    match answer.strip_prefix("frozen\n") {
        Some(lines) => say(lines),
        None => Err(answer.trim_end().to_owned()),
    }
}

/// What `freeze` leaves behind: a timer that thaws, and a socket for who thaws before.
fn hold_frozen(socket: &str, timer: &str) -> Result<(), Shown> {
    let mut starter = starter()?;
    let timer: u64 = timer.parse().map_err(|error| format!("the timer {timer}: {error}"))?;
    let begun = read_config(&starter).and_then(|(config, _)| {
        let hold = Arc::new(Hold::new(&config, Arc::new(Linux::default())));
        Ok((hold, listen(socket)?))
    });
    let (hold, listener) = match begun {
        Ok(begun) => begun,
        Err(error) => return answer(&mut starter, &one_line(&error)),
    };
    // Before anything is frozen: without a timer nothing may be.
    let until = Instant::now() + Duration::from_millis(timer);
    let (guarded, path) = (Arc::clone(&hold), socket.to_owned());
    let guard = move || {
        if guarded.guard(until) {
            fs::remove_file(&path).ok();
            std::process::exit(0);
        }
    };
    if let Err(error) = thread::Builder::new().spawn(guard) {
        fs::remove_file(socket).ok();
        return answer(&mut starter, &one_line(&format!("starting the timer: {error}")));
    }
    let frozen = hold.freeze();
    let said = match &frozen {
        Ok(told) => format!("frozen\n{}", filesystem::lines(told)),
        Err(error) => one_line(error),
    };
    // Whoever asked may be gone, which changes nothing.
    answer(&mut starter, &said).ok();
    while !hold.is_over() {
        if let Ok((stream, _)) = listener.accept() {
            // One that says nothing, or hears nothing, is left alone.
            obey(stream, &hold).ok();
        } else {
            thread::park_timeout(Duration::from_millis(100));
        }
    }
    fs::remove_file(socket).map_err(|error| format!("removing {socket}: {error}"))
}

/// Does what one client of the hold asks for.
fn obey(mut stream: UnixStream, hold: &Hold) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut word = String::new();
    BufReader::new(stream.try_clone()?.take(16)).read_line(&mut word)?;
    let told = match word.as_str() {
        "thaw\n" => hold.end(),
        "frozen\n" => Some(hold.ask()),
        _ => None,
    };
    stream.write_all(filesystem::lines(&told.unwrap_or_default()).as_bytes())
}

/// What the hold that listens on `socket` answers to a word; `None` if there is none.
fn ask_hold(socket: &str, word: &str) -> Option<String> {
    let mut stream = UnixStream::connect(socket).ok()?;
    writeln!(stream, "{word}").ok()?;
    let mut said = String::new();
    stream.read_to_string(&mut said).ok()?;
    (!said.is_empty()).then_some(said)
}

/// Says whether the file systems are held frozen.
fn frozen(socket: &str) -> Result<(), Shown> {
    let (config, _) = read_config(io::stdin())?;
    match ask_hold(socket, "frozen") {
        Some(said) => say(&said),
        None => say(&filesystem::lines(&hold::unheld(&config))),
    }
}

/// Has the hold thaw, or thaws itself where what held was killed.
fn thaw(socket: &str) -> Result<(), Shown> {
    let (config, _) = read_config(io::stdin())?;
    match ask_hold(socket, "thaw") {
        Some(said) => say(&said),
        None => say(&filesystem::lines(&hold::thaw_bare(&config, &Linux::default()))),
    }
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
