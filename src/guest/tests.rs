//! Shells and routes against servers within the process.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use proptest::prelude::*;
use russh::{ChannelOpenFailure, Sig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use super::error::Remedy;
use super::testing::{Cut, End, Io, Sshd, login, route_by, route_to, soon};
use super::*;
use crate::cluster::Deadline;

/// The commands that the servers know.
fn program(command: String, mut io: Io) -> BoxFuture<'static, End> {
    Box::pin(async move {
        match command.as_str() {
            "both" => {
                io.stderr.write_all(b"to err").await.unwrap();
                io.stdout.write_all(b"to out").await.unwrap();
                End::Status(0)
            }
            "fail" => {
                io.stderr.write_all(b"no space\x07 left\n").await.unwrap();
                End::Status(3)
            }
            "killed" => End::Signal(Sig::KILL),
            "vanish" => End::Silence,
            "count" => {
                let mut bytes = Vec::new();
                io.stdin.read_to_end(&mut bytes).await.unwrap();
                let said = format!("{} {}", bytes.len(), blake3::hash(&bytes).to_hex());
                io.stdout.write_all(said.as_bytes()).await.unwrap();
                End::Status(0)
            }
            "ignore stdin" => End::Status(7),
            "flood" => {
                // Ends when the client closes the channel.
                while io.stdout.write_all(&[b'x'; 4096]).await.is_ok() {}
                End::Status(0)
            }
            "flood err" => {
                for _ in 0..100 {
                    io.stderr.write_all(&[b'e'; 4096]).await.unwrap();
                }
                io.stderr.write_all(b"the end").await.unwrap();
                End::Status(1)
            }
            "echo" => {
                tokio::io::copy(&mut io.stdin, &mut io.stdout)
                    .await
                    .unwrap();
                End::Status(5)
            }
            "hang" => std::future::pending().await,
            other => panic!("no such command: {other}"),
        }
    })
}

struct World {
    sshd: Arc<Sshd>,
    route: Route,
    login: Login,
}

fn world() -> World {
    let key = LoginKey::generate("test").unwrap();
    let sshd = Arc::new(Sshd::new(&key, program));
    World {
        route: route_to(&sshd),
        login: login(&key),
        sshd,
    }
}

impl World {
    async fn shell(&self) -> Shell {
        Shell::connect(&self.route, &self.login, &soon(), None)
            .await
            .unwrap()
    }
}

fn refused(why: &str, permanent: bool) -> Result<BoxStream, DialError> {
    Err(DialError {
        why: why.into(),
        permanent,
    })
}

#[tokio::test]
async fn output_error_and_status_are_kept_apart() {
    let world = world();
    let shell = world.shell().await;
    let both = shell.exec("both", &soon()).await.unwrap();
    assert_eq!(
        (both.text().as_str(), both.stderr.as_slice()),
        ("to out", &b"to err"[..])
    );

    let failed = shell.run(&Job::new("fail"), &soon()).await.unwrap();
    assert_eq!(failed.exit, Exit::Status(3));
    let error = failed.check().unwrap_err().to_string();
    assert_eq!(
        error,
        "`fail` in the guest ended with status 3: no space\u{FFFD} left"
    );

    let error = shell.exec("killed", &soon()).await.unwrap_err();
    assert!(
        matches!(&error, GuestError::ExecFailed { exit: Exit::Signal(s), .. } if s == "KILL"),
        "{error}"
    );
    let error = shell.exec("refused", &soon()).await.unwrap_err();
    assert!(matches!(error, GuestError::ExecRefused { .. }), "{error}");
    let error = shell.exec("vanish", &soon()).await.unwrap_err();
    assert!(matches!(error, GuestError::Broken { .. }), "{error}");
    assert_eq!(world.sshd.begun.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn large_input_arrives_whole_and_output_is_limited() {
    let world = world();
    let shell = world.shell().await;
    // More than SSH's window, so that it has to be opened again.
    let bytes: Vec<u8> = (0..3_000_000_u32)
        .map(|n| (n % 251).to_le_bytes()[0])
        .collect();
    let job = Job::new("count").stdin(&bytes);
    let counted = shell.run(&job, &soon()).await.unwrap().check().unwrap();
    assert_eq!(
        counted.text(),
        format!("3000000 {}", blake3::hash(&bytes).to_hex())
    );

    let job = Job::new("ignore stdin").stdin(&bytes);
    assert_eq!(
        shell.run(&job, &soon()).await.unwrap().exit,
        Exit::Status(7)
    );

    let job = Job::new("flood").stdout_limit(10_000);
    let error = shell.run(&job, &soon()).await.unwrap_err();
    assert!(
        matches!(
            error,
            GuestError::TooMuchOutput {
                limit: 10_000,
                stream: "stdout",
                ..
            }
        ),
        "{error}"
    );
    let noisy = shell.run(&Job::new("flood err"), &soon()).await.unwrap();
    assert!(noisy.stderr.len() <= 64 * 1024 && noisy.stderr.ends_with(b"the end"));
    // The connection has survived all of it.
    assert_eq!(shell.exec("both", &soon()).await.unwrap().stdout, b"to out");
}

#[tokio::test]
async fn a_streamed_command_echoes_and_tells_its_end() {
    let world = world();
    let shell = world.shell().await;
    let mut streams = shell.stream("echo", &soon()).await.unwrap();
    streams.stdin.write_all(b"hello").await.unwrap();
    let mut five = [0; 5];
    streams.stdout.read_exact(&mut five).await.unwrap();
    assert_eq!(&five, b"hello");
    streams.stdin.shutdown().await.unwrap();
    assert_eq!(streams.stdout.read(&mut five).await.unwrap(), 0);
    let finished = streams.ended.wait().await;
    assert_eq!(finished.exit, Some(Exit::Status(5)));

    let hanging = shell.stream("hang", &soon()).await.unwrap();
    let Streams { ended, guard, .. } = hanging;
    drop(guard);
    assert_eq!(ended.wait().await.exit, None);
}

#[tokio::test]
async fn milestones_come_in_order() {
    let world = world();
    let told = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&told);
    let on: OnMilestone = Arc::new(move |m| sink.lock().unwrap().push(m));
    Shell::connect(&world.route, &world.login, &soon(), Some(on))
        .await
        .unwrap();
    let order = [
        Milestone::Dialed,
        Milestone::Banner,
        Milestone::Authenticated,
    ];
    assert_eq!(*told.lock().unwrap(), order);
}

#[tokio::test]
async fn a_changed_host_key_is_refused_and_never_retried() {
    let world = world();
    let first = world.shell().await;
    assert_eq!(first.host().pinned, None);
    assert_eq!(world.shell().await.host().pinned, Some(true));

    let other = Arc::new(Sshd::new(&world.login.key, program));
    let route = route_to(&other);
    let patience = Patience::booting();
    let error = connect(&route, &world.login, &patience, &soon(), None)
        .await
        .unwrap_err();
    let GuestError::HostKeyChanged {
        lineage,
        pinned,
        seen,
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!(
        (lineage.as_str(), pinned),
        ("demo/vm-0", &first.host().fingerprint)
    );
    assert_ne!(pinned, seen);
    assert_eq!(other.accepted.load(Ordering::SeqCst), 1);

    let observed = Login {
        host_key: HostKeyRule::Observed {
            lineage: "demo/vm-0".into(),
        },
        ..world.login.clone()
    };
    let shell = Shell::connect(&route, &observed, &soon(), None)
        .await
        .unwrap();
    assert_eq!(shell.host().pinned, Some(false));
}

#[tokio::test(start_paused = true)]
async fn a_refused_key_is_final_unless_the_guest_is_booting() {
    let world = world();
    let keys = std::mem::take(&mut *world.sshd.authorised.lock().unwrap());
    let running = Patience::running();
    let error = connect(&world.route, &world.login, &running, &soon(), None)
        .await
        .unwrap_err();
    let GuestError::AuthRefused { user, methods, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!((user.as_str(), methods.as_str()), ("root", "publickey"));
    assert_eq!(error.remedy(), Remedy::WhileBooting);

    let sshd = Arc::clone(&world.sshd);
    let route = route_by(move |n| {
        if n == 3 {
            *sshd.authorised.lock().unwrap() = keys.clone();
        }
        Ok(Box::new(sshd.accept()))
    });
    connect(&route, &world.login, &Patience::booting(), &soon(), None)
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn connecting_goes_on_until_the_guest_is_up() {
    let world = world();
    let sshd = Arc::clone(&world.sshd);
    let route = route_by(move |n| match n {
        0 => refused("no network interfaces are present", false),
        1 => refused("connection refused", false),
        // Opens, says nothing, closes: sshd is starting.
        2 => Ok(Box::new(tokio::io::duplex(64).0)),
        // Breaks within the key exchange.
        3 => Ok(Box::new(Cut::after(sshd.accept(), 700))),
        _ => Ok(Box::new(sshd.accept())),
    });
    let shell = connect(&route, &world.login, &Patience::booting(), &soon(), None)
        .await
        .unwrap();
    assert_eq!(shell.exec("both", &soon()).await.unwrap().stdout, b"to out");
    assert_eq!(world.sshd.accepted.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn giving_up_says_what_was_awaited_and_seen_last() {
    let world = world();
    let limit = |seconds| Deadline::after(Duration::from_secs(seconds), &CancellationToken::new());
    let attempt = |dial: fn(u32) -> Result<BoxStream, DialError>, seconds| {
        let (route, login) = (route_by(dial), world.login.clone());
        async move {
            let deadline = limit(seconds);
            connect(&route, &login, &Patience::booting(), &deadline, None)
                .await
                .unwrap_err()
                .to_string()
        }
    };
    let error = attempt(|_| refused("connection refused", false), 5).await;
    assert!(
        error.contains("gave up waiting for a shell on port 22 of VMI demo/vm-0"),
        "{error}"
    );
    assert!(error.contains("connection refused"), "{error}");

    // A stream that leads nowhere: the far end stays open and silent.
    let silent = |_| -> Result<BoxStream, DialError> {
        let (ours, theirs) = tokio::io::duplex(4096);
        std::mem::forget(theirs);
        Ok(Box::new(ours))
    };
    let error = attempt(silent, 10).await;
    assert!(
        error.contains("an open stream without a byte on it"),
        "{error}"
    );

    let error = attempt(|_| refused("pods is forbidden", true), 60).await;
    assert_eq!(
        error,
        "cannot open port 22 of VMI demo/vm-0 by port-forward: pods is forbidden"
    );

    let http = |_| -> Result<BoxStream, DialError> {
        let (ours, mut theirs) = tokio::io::duplex(4096);
        tokio::spawn(async move {
            theirs
                .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                .await
                .unwrap();
        });
        Ok(Box::new(ours))
    };
    let error = attempt(http, 60).await;
    assert!(
        error.contains("no SSH banner came: `HTTP/1.1 400 Bad Request`"),
        "{error}"
    );

    let shell = world.shell().await;
    let error = shell
        .exec("hang", &limit(30))
        .await
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "gave up waiting for `hang` to end; last seen: 0 bytes of output"
    );

    let cancel = CancellationToken::new();
    cancel.cancel();
    let cancelled = Deadline::after(Duration::from_secs(30), &cancel);
    let error = shell.exec("hang", &cancelled).await.unwrap_err();
    assert!(matches!(error, GuestError::Cancelled { .. }), "{error}");
}

#[tokio::test]
async fn a_guest_is_reached_by_tcp() {
    let world = world();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let sshd = Arc::clone(&world.sshd);
    tokio::spawn(async move {
        let (stream, _peer) = listener.accept().await.unwrap();
        sshd.serve(stream);
    });
    let route = Route::Direct {
        addr: HostPort::new(addr.ip().to_string(), addr.port()),
    };
    let shell = Shell::connect(&route, &world.login, &soon(), None)
        .await
        .unwrap();
    assert_eq!(shell.exec("both", &soon()).await.unwrap().stdout, b"to out");

    // The listener is gone by now.
    let error = Shell::connect(&route, &world.login, &soon(), None)
        .await
        .unwrap_err();
    assert!(
        matches!(
            &error,
            GuestError::Dial {
                permanent: false,
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn a_guest_is_reached_through_a_jump_host() {
    let world = world();
    let jump_key = LoginKey::generate("jump").unwrap();
    let guest = Arc::clone(&world.sshd);
    let jump = Sshd::new(&jump_key, program).forwarding(move |host, port| match (host, port) {
        ("10.0.0.7", 22) => Ok(guest.accept()),
        ("10.0.0.8", 22) => Err(ChannelOpenFailure::ConnectFailed),
        _ => Err(ChannelOpenFailure::AdministrativelyProhibited),
    });
    let jump = Arc::new(jump);
    let via = JumpHost::new(route_to(&jump), login(&jump_key));
    let to = |host: &str| Route::Jump {
        via: Arc::clone(&via),
        target: HostPort::new(host, 22),
    };
    for _ in 0..2 {
        let shell = Shell::connect(&to("10.0.0.7"), &world.login, &soon(), None)
            .await
            .unwrap();
        assert_eq!(shell.exec("both", &soon()).await.unwrap().stdout, b"to out");
    }
    assert_eq!(
        jump.accepted.load(Ordering::SeqCst),
        1,
        "the jump host's session is shared"
    );
    for (host, final_) in [("10.0.0.8", false), ("10.0.0.9", true)] {
        let error = Shell::connect(&to(host), &world.login, &soon(), None)
            .await
            .unwrap_err();
        assert!(
            matches!(&error, GuestError::Dial { permanent, .. } if *permanent == final_),
            "{error}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Wherever the stream breaks, there is a typed error or the whole truth, and the command is
    /// begun at most once.
    #[test]
    fn a_cut_anywhere_is_typed_and_repeats_nothing(bytes in 0..6000_u64) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let world = world();
            let stream = Box::new(Cut::after(world.sshd.accept(), bytes));
            let shell = Shell::over(stream, "a stream", &world.login, &soon(), None).await;
            let error = match shell {
                Err(error) => Some(error),
                Ok(shell) => match shell.exec("both", &soon()).await {
                    Ok(output) => {
                        assert_eq!((output.stdout, output.stderr), (b"to out".to_vec(), b"to err".to_vec()));
                        None
                    }
                    Err(error) => Some(error),
                },
            };
            if let Some(error) = error {
                assert_eq!(error.remedy(), Remedy::Again, "{error}");
            }
            assert!(world.sshd.begun.load(Ordering::SeqCst) <= 1);
        });
    }
}
