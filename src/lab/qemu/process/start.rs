//! From a [`Launch`] to a machine that can be controlled.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::json;
use tokio::net::{UnixListener, UnixStream};
use tokio::process::{Child, Command};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::arguments::{self, BadLaunch, Places};
use super::console::Console;
use super::launch::{Begin, Launch};
use super::life::{LAST_EVENTS, follow, supervise};
use super::{LOG_LINES, Process, drives, spawn, tail};
use crate::lab::qemu::agent::{Agent, Port};
use crate::lab::qemu::host::Host;
use crate::lab::qemu::qmp::{Qmp, QmpError};

/// How long a QEMU may take from its start to its readiness, on an overloaded host.
const START: Duration = Duration::from_secs(120);

/// Why there is no QEMU.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It was asked for what cannot be.
    #[error("guest {name} cannot be started: {source}")]
    Bad {
        /// The guest.
        name: String,
        /// What cannot be.
        #[source]
        source: BadLaunch,
    },
    /// Its folder, files or sockets could not be made.
    #[error("the folder {} of guest {name} could not be prepared: {source}", dir.display())]
    Folder {
        /// The guest.
        name: String,
        /// Its folder.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The program could not be run.
    #[error("QEMU for guest {name} could not be run: {source}")]
    Spawn {
        /// The guest.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// It ended instead of getting ready.
    #[error("QEMU for guest {name} ended at once with {status}; its last words: {said}")]
    Exited {
        /// The guest.
        name: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of its log.
        said: String,
    },
    /// It runs, but does not get ready.
    #[error("QEMU for guest {name} was not ready within {} s, waiting for {awaited}; its last words: {said}", START.as_secs())]
    Timeout {
        /// The guest.
        name: String,
        /// What was awaited.
        awaited: &'static str,
        /// The end of its log.
        said: String,
    },
    /// It refused the first commands.
    #[error("QEMU for guest {name} cannot be controlled: {source}")]
    Control {
        /// The guest.
        name: String,
        /// Why.
        #[source]
        source: QmpError,
    },
}

impl Process {
    /// Starts a QEMU whose files and sockets are in `dir`, which must be its own and is made if it is
    /// missing. When this returns, the machine is as [`Launch::begin`] wants it.
    pub async fn start(host: &Host, launch: &Launch, dir: &Path) -> Result<Self, StartError> {
        let name = || launch.name.clone();
        let folder = |source| StartError::Folder {
            name: launch.name.clone(),
            dir: dir.to_owned(),
            source,
        };
        let bad = |source| StartError::Bad {
            name: launch.name.clone(),
            source,
        };
        let mut launch = launch.clone();
        arguments::place(&mut launch.drives, launch.ports).map_err(bad)?;
        fs::create_dir_all(dir).map_err(folder)?;
        // As QEMU's command line names it and as the clean-up will look for it.
        let dir = dir.canonicalize().map_err(folder)?;
        let places = Places::new(&dir).map_err(bad)?;
        let listeners = Listeners::bind(&places, launch.agent).map_err(folder)?;
        let mut command = Command::from(spawn::tied(host));
        let log = fs::File::create(&places.log).map_err(folder)?;
        command
            .args(arguments::arguments(&launch, &places).map_err(bad)?)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(folder)?)
            .stderr(log)
            .kill_on_drop(true);
        let mut child = spawn::spawn(command)
            .await
            .map_err(|source| StartError::Spawn {
                name: name(),
                source,
            })?;
        let ready = ready(&mut child, &listeners, &launch.name, &places).await;
        let process = match ready {
            Ok(ready) => Self::hold(host, &launch, dir, places, child, ready).await?,
            Err(error) => {
                // The reason why it is not wanted any more is what the caller must see.
                child.kill().await.ok();
                return Err(error);
            }
        };
        if launch.begin == Begin::Running {
            process
                .resume()
                .await
                .map_err(|source| StartError::Control {
                    name: name(),
                    source,
                })?;
        }
        Ok(process)
    }

    async fn hold(
        host: &Host,
        launch: &Launch,
        dir: PathBuf,
        places: Places,
        child: Child,
        ready: Ready,
    ) -> Result<Self, StartError> {
        let console = Console::new(ready.console, &places.transcript).await;
        let console = console.map_err(|source| StartError::Folder {
            name: launch.name.clone(),
            dir: dir.clone(),
            source,
        })?;
        // Until the guest's agent opens it. An incoming guest's may be open already.
        let (port, port_seen) = watch::channel(Port::Closed);
        let released = watch::Sender::default();
        let shutdown = follow(ready.qmp.events(), port.clone(), released.clone());
        let shutdown = tokio::spawn(shutdown);
        let kill = Arc::new(Notify::new());
        let (ended, exit) = watch::channel(None);
        // A child that is not reaped yet has a pid.
        let pid = child.id().unwrap_or_default();
        tokio::spawn(supervise(
            child,
            Arc::clone(&kill),
            places.pid,
            shutdown,
            ended,
        ));
        Ok(Self {
            drives: Mutex::new(
                launch
                    .drives
                    .iter()
                    .cloned()
                    .map(drives::Plugged::new)
                    .collect(),
            ),
            launch: launch.clone(),
            dir,
            pid,
            tied: host.setpriv.is_some(),
            agent: ready.agent.map(|stream| Agent::new(stream, port_seen)),
            qmp: ready.qmp,
            port,
            released,
            console,
            exit,
            kill,
            plugged: tokio::sync::Mutex::new(()),
        })
    }
}

/// The sockets that QEMU connects to.
struct Listeners {
    qmp: UnixListener,
    console: UnixListener,
    agent: Option<UnixListener>,
}

impl Listeners {
    fn bind(places: &Places, agent: bool) -> io::Result<Self> {
        let bind = |path: &Path| {
            // Of a QEMU that was in this folder before.
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            UnixListener::bind(path)
        };
        Ok(Self {
            qmp: bind(&places.qmp)?,
            console: bind(&places.console)?,
            agent: agent.then(|| bind(&places.agent)).transpose()?,
        })
    }
}

/// A QEMU that has connected to everything and made its machine.
struct Ready {
    qmp: Qmp,
    console: UnixStream,
    agent: Option<UnixStream>,
}

/// Waits for readiness or the end, whichever comes first.
async fn ready(
    child: &mut Child,
    listeners: &Listeners,
    name: &str,
    places: &Places,
) -> Result<Ready, StartError> {
    let step = Mutex::new("its control connection");
    let spawn = |source| StartError::Spawn {
        name: name.into(),
        source,
    };
    let said = || tail(&places.log, LOG_LINES);
    let control = tokio::select! {
        greeted = timeout(START, greet(listeners, &step)) => greeted,
        status = child.wait() => {
            let status = status.map_err(spawn)?;
            return Err(StartError::Exited { name: name.into(), status, said: said() });
        }
    };
    let Ok(connected) = control else {
        let awaited = *step.lock().unwrap_or_else(PoisonError::into_inner);
        return Err(StartError::Timeout {
            name: name.into(),
            awaited,
            said: said(),
        });
    };
    match connected {
        Ok(ready) => Ok(ready),
        Err(Greet::Accept(source)) => Err(spawn(source)),
        // A QEMU that dislikes its arguments may have greeted already: then its end says more.
        Err(Greet::Control(source @ QmpError::Lost { .. })) => {
            match timeout(LAST_EVENTS, child.wait()).await {
                Ok(Ok(status)) => Err(StartError::Exited {
                    name: name.into(),
                    status,
                    said: said(),
                }),
                _ => Err(StartError::Control {
                    name: name.into(),
                    source,
                }),
            }
        }
        Err(Greet::Control(source)) => Err(StartError::Control {
            name: name.into(),
            source,
        }),
    }
}

enum Greet {
    Accept(io::Error),
    Control(QmpError),
}

async fn greet(listeners: &Listeners, step: &Mutex<&'static str>) -> Result<Ready, Greet> {
    let at = |what| *step.lock().unwrap_or_else(PoisonError::into_inner) = what;
    let (control, _) = listeners.qmp.accept().await.map_err(Greet::Accept)?;
    at("its console");
    let (console, _) = listeners.console.accept().await.map_err(Greet::Accept)?;
    let agent = match &listeners.agent {
        Some(listener) => Some(listener.accept().await.map_err(Greet::Accept)?.0),
        None => None,
    };
    at("its greeting");
    let qmp = Qmp::connect(control).await.map_err(Greet::Control)?;
    at("its machine");
    // Answered by the main loop, hence only after every device was made.
    qmp.execute("query-status", json!({}))
        .await
        .map_err(Greet::Control)?;
    Ok(Ready {
        qmp,
        console,
        agent,
    })
}
