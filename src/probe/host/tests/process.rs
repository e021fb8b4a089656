//! The embedded probe itself, as a process of this machine on files, behind the SSH server.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use super::world::{World, frames, records};
use crate::guest::LoginKey;
use crate::guest::testing::{Cut, End, Io, Sshd, login, route_by, soon};
use crate::probe::config::{Config, Locator, Target};
use crate::probe::host::{ProbeBinary, Prober, Progress, Reach, Setup};
use crate::probe::remote::{Remote, Request};
use crate::probe::testkit::Heard;

/// What the commands of the probe do in `dir`, which stands for its place in a guest.
fn program(dir: PathBuf, command: &str, mut io: Io) -> BoxFuture<'static, End> {
    let request = Remote::parse(command).expect("only the probe's commands").1;
    Box::pin(async move {
        let probe = dir.join("probe");
        let socket = |incarnation| dir.join(format!("{incarnation:x}.sock"));
        let mut process = Command::new(&probe);
        match request {
            Request::Uname => {
                let said = format!("Linux {}\n", std::env::consts::ARCH);
                io.stdout.write_all(said.as_bytes()).await.unwrap();
                return End::Status(0);
            }
            Request::OwnTmpfs => return End::Status(1),
            Request::Upload => {
                let mut bytes = Vec::new();
                io.stdin.read_to_end(&mut bytes).await.unwrap();
                std::fs::write(&probe, bytes).unwrap();
                let mode = std::fs::Permissions::from_mode(0o700);
                std::fs::set_permissions(&probe, mode).unwrap();
                return End::Status(0);
            }
            Request::Info if !probe.exists() => return End::Status(127),
            Request::Info => process.arg("info"),
            Request::Start { incarnation } => process.arg("start").arg(socket(incarnation)),
            Request::Attach { incarnation } => process.arg("attach").arg(socket(incarnation)),
            Request::Scan => process.arg("scan"),
            Request::Look => process.arg("look"),
            Request::Check => process.arg("check"),
            Request::Freeze { timer_ms } => process
                .arg("freeze")
                .arg(dir.join("freeze.sock"))
                .arg(timer_ms.to_string()),
            Request::Frozen => process.arg("frozen").arg(dir.join("freeze.sock")),
            Request::Thaw => process.arg("thaw").arg(dir.join("freeze.sock")),
            Request::Reach => process.arg("reach"),
            Request::Echo => process.arg("echo"),
        };
        bridge(process, io).await
    })
}

/// Runs a process on the streams of a channel.
async fn bridge(mut process: Command, mut io: Io) -> End {
    process
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = process.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let feed = async {
        // The process may end first, and the client may leave first.
        tokio::io::copy(&mut io.stdin, &mut stdin).await.ok();
        drop(stdin);
        std::future::pending::<()>().await;
    };
    let tell = async {
        let out = tokio::io::copy(&mut out, &mut io.stdout);
        let err = tokio::io::copy(&mut err, &mut io.stderr);
        let (_told, _told_too) = tokio::join!(out, err);
    };
    tokio::select! {
        () = feed => {}
        () = tell => {}
    }
    let status = child.wait().await.unwrap();
    End::Status(status.code().map_or(255, i32::cast_unsigned))
}

/// The config of the world's guest, with files of `dir` for disks.
fn on_files(config: &Config, dir: &Path) -> Config {
    let mut config = config.clone();
    for (ordinal, volume) in config.volumes.iter_mut().enumerate() {
        let path = dir.join(format!("disk{ordinal}"));
        std::fs::File::create(&path)
            .unwrap()
            .set_len(640 * 1024)
            .unwrap();
        volume.target = Target::Raw(Locator::Path(path.to_str().unwrap().into()));
    }
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_probe_is_started_heard_and_scanned_over_breaking_streams() {
    let world = World::sound();
    let dir = world.dir.path().join("guest");
    std::fs::create_dir(&dir).unwrap();
    let key = LoginKey::generate("test").unwrap();
    let place = dir.clone();
    let sshd = Sshd::new(&key, move |command, io| {
        program(place.clone(), &command, io)
    });
    let sshd = Arc::new(sshd);
    let upload = ProbeBinary::embedded().bytes().len() as u64;
    let route = route_by(move |n| {
        // The first connection carries the upload and breaks under load, as do some later ones.
        let budget = match n {
            // Far more than everything before the load takes, far less than the load brings.
            0 => upload + 200_000,
            1..=3 => 9000,
            _ => u64::MAX,
        };
        Ok(Box::new(Cut::after(sshd.accept(), budget)))
    });
    let setup = Setup {
        reach: Reach {
            route,
            login: login(&key),
        },
        binary: ProbeBinary::embedded(),
        config: on_files(&world.setup.config, &dir),
        ..world.setup.clone()
    };
    let prober = Prober::launch(setup, None, &soon()).await.unwrap();
    prober.fill(&soon()).await.unwrap();
    prober.start(0, 8, &soon()).await.unwrap();
    let broken = |p: &Progress| (p.attaches > 2).then_some(());
    prober
        .wait(&soon(), "two breaks under load", broken)
        .await
        .unwrap();
    let stopped = prober.stop(&soon()).await.unwrap();
    let facts = prober.scan(&[], "s", &soon()).await.unwrap();
    assert_eq!(facts.len(), 2);
    let echo = prober.echo(1, &soon()).await.unwrap();
    let echoes = echo.stop().await.unwrap();
    assert!(echoes.answered > 0, "{echoes:?}");
    assert!(facts.iter().all(|fact| fact.size == 640 * 1024));
    let segment = world.run_dir().join(prober.segment());
    prober.quit(&soon()).await.unwrap();
    let heard = Heard::of(&frames(&records(&segment).0));
    assert_eq!(heard.rank, stopped.last_rank);
    assert!(heard.rank > 0);
    let sockets = std::fs::read_dir(&dir).unwrap().filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        name.to_string_lossy().ends_with(".sock")
    });
    assert_eq!(sockets.count(), 0, "nothing of the probe is left running");
}
