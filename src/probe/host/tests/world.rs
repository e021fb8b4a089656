//! A guest with the real probe engine over disks in memory, behind an SSH server in the process.

use std::io::Write as _;
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use futures::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::cluster::Deadline;
use crate::guest::testing::{End, Io, Sshd, login, soon};
use crate::guest::{BoxStream, LoginKey, Route};
use crate::history::recorder::{Recorder, Scope};
use crate::history::segment::{Ending, Reader, Record};
use crate::probe::config::Config;
use crate::probe::frame::FromGuest;
use crate::probe::host::{ProbeBinary, ProbeError, Prober, Reach, Setup};
use crate::probe::remote::{Remote, Request};
use crate::probe::session::Daemon;
use crate::probe::testkit::Bench;
use crate::probe::wire::Raw;

/// What a mutex of the guest holds.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

/// What the guest is and how it misbehaves.
pub(super) struct Guest {
    pub(super) bench: Bench,
    pub(super) uname: Mutex<String>,
    pub(super) disks: Mutex<String>,
    /// Whether /run is mounted noexec until a tmpfs of its own is mounted.
    pub(super) noexec: Mutex<bool>,
    uploaded: Mutex<Option<Vec<u8>>>,
    pub(super) daemon: Mutex<Option<Arc<Daemon>>>,
    /// Probes that were started; attempts that found one running do not count.
    pub(super) starts: AtomicU32,
    pub(super) scans: AtomicU32,
    /// So many scans break off half way.
    pub(super) half_scans: AtomicU32,
}

impl Guest {
    pub(super) fn new(bench: Bench) -> Self {
        let disk =
            |n: usize| format!("disk vd{n} serial={n} size=655360 write_cache=writeback ro=0\n");
        let disks = (0..bench.config.volumes.len()).map(disk).collect();
        Self {
            bench,
            uname: Mutex::new("Linux x86_64\n".into()),
            disks: Mutex::new(disks),
            noexec: Mutex::new(false),
            uploaded: Mutex::new(None),
            daemon: Mutex::new(None),
            starts: AtomicU32::new(0),
            scans: AtomicU32::new(0),
            half_scans: AtomicU32::new(0),
        }
    }

    fn info(&self) -> Result<String, (u32, String)> {
        match &*held(&self.uploaded) {
            None => Err((127, "sh: no such file".into())),
            Some(_) if *held(&self.noexec) => Err((126, "sh: permission denied".into())),
            Some(bytes) => Ok(format!(
                "format 2\nbuild {:08x}\narch x86_64\nboot_id boot\nmachine_id \nkernel 6\nhostname g\n{}",
                crate::probe::crc::crc32c(bytes),
                held(&self.disks)
            )),
        }
    }

    fn start(&self, text: &str) -> Result<String, (u32, String)> {
        let failed = |error: String| (1, format!("error: {error}\n"));
        let config = Config::parse(text).map_err(|e| failed(e.to_string()))?;
        let mut place = held(&self.daemon);
        if place.is_some() {
            return Err(failed("a probe is listening already".into()));
        }
        let daemon = Daemon::open(&config, &self.bench).map_err(|e| failed(e.to_string()))?;
        *place = Some(Arc::new(daemon));
        self.starts.fetch_add(1, Ordering::SeqCst);
        drop(place);
        Ok("ready\n".into())
    }

    fn scan(&self, text: &str) -> Vec<u8> {
        self.scans.fetch_add(1, Ordering::SeqCst);
        let config = Config::parse(text).unwrap();
        let mut bytes = Vec::new();
        crate::probe::scan::scan(&config, &self.bench, &mut bytes).unwrap();
        bytes
    }

    async fn attach(&self, mut io: Io) -> End {
        let daemon = held(&self.daemon).clone();
        let Some(daemon) = daemon else {
            io.stderr
                .write_all(b"error: attaching: no such file")
                .await
                .unwrap();
            return End::Status(1);
        };
        let (ours, theirs) = StdStream::pair().unwrap();
        std::thread::spawn(move || {
            let (read, cut) = (theirs.try_clone()?, theirs.try_clone()?);
            let cut = Box::new(move || drop(cut.shutdown(std::net::Shutdown::Both)));
            daemon.serve_cut(read, theirs, cut)
        });
        ours.set_nonblocking(true).unwrap();
        let (mut read, mut write) = UnixStream::from_std(ours).unwrap().into_split();
        let commands = async {
            // Either end may go first.
            tokio::io::copy(&mut io.stdin, &mut write).await.ok();
            write.shutdown().await.ok();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            _ = tokio::io::copy(&mut read, &mut io.stdout) => {}
            () = commands => {}
        }
        if held(&self.daemon).as_ref().is_some_and(|d| d.has_ended()) {
            *held(&self.daemon) = None;
        }
        End::Status(0)
    }
}

fn program(guest: Arc<Guest>, command: &str, mut io: Io) -> BoxFuture<'static, End> {
    let request = Remote::parse(command)
        .expect("only the probe's commands are run")
        .1;
    Box::pin(async move {
        if request == Request::Echo {
            let done = tokio::io::copy(&mut io.stdin, &mut io.stdout).await;
            return End::Status(u32::from(done.is_err()));
        }
        let mut input = Vec::new();
        if !matches!(request, Request::Attach { .. }) {
            io.stdin.read_to_end(&mut input).await.unwrap();
        }
        let text = String::from_utf8_lossy(&input).into_owned();
        let answer = match request {
            Request::Attach { .. } => return guest.attach(io).await,
            Request::Echo => unreachable!("answered above"),
            Request::Uname => Ok(held(&guest.uname).clone()),
            Request::OwnTmpfs => {
                *held(&guest.noexec) = false;
                *held(&guest.uploaded) = None;
                Ok(String::new())
            }
            Request::Upload => {
                *held(&guest.uploaded) = Some(input);
                Ok(String::new())
            }
            Request::Info => guest.info(),
            Request::Start { .. } => guest.start(&text),
            // Nothing on this bench is a file volume.
            Request::Look
            | Request::Check
            | Request::Freeze { .. }
            | Request::Frozen
            | Request::Thaw => Ok(String::new()),
            Request::Reach => crate::probe::reach::report(&text, |host, _| match host {
                "near" => Ok(()),
                _ => Err(std::io::ErrorKind::TimedOut.into()),
            })
            .map_err(|why| (1, why)),
            Request::Scan => {
                let bytes = guest.scan(&text);
                let half =
                    guest.scans.load(Ordering::SeqCst) <= guest.half_scans.load(Ordering::SeqCst);
                let told = if half { bytes.len() / 2 } else { bytes.len() };
                io.stdout.write_all(&bytes[..told]).await.unwrap();
                return if half { End::Silence } else { End::Status(0) };
            }
        };
        let (status, out, err) = match answer {
            Ok(out) => (0, out, String::new()),
            Err((status, err)) => (status, String::new(), err),
        };
        io.stdout.write_all(out.as_bytes()).await.ok();
        io.stderr.write_all(err.as_bytes()).await.ok();
        End::Status(status)
    })
}

/// A guest, and a run directory to keep what it says.
pub(super) struct World {
    pub(super) guest: Arc<Guest>,
    pub(super) sshd: Arc<Sshd>,
    pub(super) setup: Setup,
    pub(super) dir: tempfile::TempDir,
}

impl World {
    /// A guest reached over the streams that `wrap` makes of the server's.
    pub(super) fn new(
        bench: Bench,
        wrap: impl Fn(u32, tokio::io::DuplexStream) -> BoxStream + Send + Sync + 'static,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let recorder = Recorder::create(dir.path().join("run")).unwrap();
        let key = LoginKey::generate("test").unwrap();
        let config = bench.config.clone();
        let guest = Arc::new(Guest::new(bench));
        let inside = Arc::clone(&guest);
        let sshd = Sshd::new(&key, move |command, io| {
            program(Arc::clone(&inside), &command, io)
        });
        let sshd = Arc::new(sshd);
        let server = Arc::clone(&sshd);
        let route: Route = crate::guest::testing::route_by(move |n| Ok(wrap(n, server.accept())));
        let setup = Setup {
            reach: Reach {
                route,
                login: login(&key),
            },
            binary: ProbeBinary::new(&b"a probe"[..], "x86_64"),
            config,
            recorder,
            scope: Scope::trial("t").subject("vm-0"),
            segment: "vm-0-1".into(),
        };
        Self {
            guest,
            sshd,
            setup,
            dir,
        }
    }

    /// A guest over streams that do not break.
    pub(super) fn sound() -> Self {
        Self::new(Bench::new(2, 1, false, 7), |_, stream| Box::new(stream))
    }

    pub(super) async fn launch(&self) -> Result<Prober, ProbeError> {
        Prober::launch(self.setup.clone(), None, &soon()).await
    }

    pub(super) async fn launch_error(&self) -> ProbeError {
        match self.launch().await {
            Ok(_) => panic!("the probe must not start"),
            Err(error) => error,
        }
    }

    pub(super) fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }
}

/// The records of a segment and how it ends.
pub(super) fn records(path: &Path) -> (Vec<Record>, Ending) {
    let mut reader = Reader::open(path).unwrap();
    let mut records = Vec::new();
    while let Some(record) = reader.next().unwrap() {
        records.push(record);
    }
    (records, reader.ending().unwrap().clone())
}

/// The numbered frames of a segment; panics unless each is there once, in order, with rising times
/// and unbroken tokens.
pub(super) fn frames(records: &[Record]) -> Vec<FromGuest> {
    let (mut frames, mut tokens, mut last_ns, mut up) = (Vec::new(), 0, 0, false);
    for record in records {
        assert!(record.at_ns() >= last_ns, "times rise");
        last_ns = record.at_ns();
        match record {
            Record::Frame { seq, bytes, .. } => {
                assert!(up, "frames come while the stream is up");
                assert_eq!(*seq, frames.len() as u64 + 1, "each frame once, in order");
                let raw = Raw::parse(bytes).unwrap();
                assert_eq!(raw.seq, *seq);
                frames.push(FromGuest::decode(&raw).unwrap());
            }
            Record::Token { n, .. } => {
                tokens += 1;
                assert_eq!(*n, tokens);
            }
            Record::Link { up: now, .. } => {
                assert_ne!(*now, up, "ups and downs alternate");
                up = *now;
            }
        }
    }
    assert!(!up, "the last word on the stream is that it is down");
    frames
}

/// A deadline shorter than any machine is slow.
pub(super) fn within(seconds: u64) -> Deadline {
    soon().within(std::time::Duration::from_secs(seconds))
}

/// Puts something that is no ledger on a disk.
pub(super) fn scribble(bench: &Bench) {
    bench.rack.disk(0).damage(0, |cell| {
        (&mut cell[..]).write_all(b"a file system").unwrap();
    });
}
