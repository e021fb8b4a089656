//! Two sites put together: stores, array, controllers, guests and API servers, and the control
//! socket that plants faults and cuts power.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::api::{ApiError, ApiServer, RunningServer, SiteConfig, StartError, Store};
use super::array::{self, Array};
use super::clock::LabClock;
use super::control::{self, Answer, Request, Status};
use super::faults::{self, Board};
use super::storage::{self, Storage};
use super::vm::{self, Guests, KubeVirt, Timing};
use super::world;
use crate::history::event::Site;

/// How a lab is made.
#[derive(Debug, Clone)]
pub struct LabConfig {
    /// Where kubeconfigs and the control socket go. Must exist.
    pub dir: PathBuf,
    /// The seed behind every random choice.
    pub seed: u64,
    /// How many times faster than real schedules run.
    pub time_scale: f64,
    /// What runs in its VMs.
    pub guests: Guests,
}

impl LabConfig {
    /// The time scale of short runs: a minute in a second.
    pub const FAST: f64 = 60.0;
}

/// Why a lab did not start.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A file of it cannot be written.
    #[error("cannot write {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A site's API server did not start.
    #[error(transparent)]
    Server(#[from] StartError),
    /// A site's first objects were refused.
    #[error("cannot furnish a site: {0}")]
    Furnish(#[from] ApiError),
}

struct LabSite {
    site: Site,
    server: RunningServer,
    kubevirt: KubeVirt,
    kubeconfig: PathBuf,
}

/// Two simulated sites that run.
pub struct Lab {
    dir: PathBuf,
    sites: Vec<LabSite>,
    array: Array,
    board: Arc<Board>,
    tasks: TaskTracker,
    stop: CancellationToken,
    dark: Mutex<BTreeSet<Site>>,
    down: CancellationToken,
}

impl Lab {
    /// Starts both sites; when this returns, both answer and their kubeconfigs are written.
    pub async fn start(config: &LabConfig) -> Result<Self, LabError> {
        let clock = LabClock::new(config.time_scale);
        let board = Arc::new(Board::default());
        let array_config = array::Config {
            promote_stall: promote_stall(
                matches!(config.guests, Guests::Real(_)),
                config.time_scale,
            ),
            seed: config.seed,
            ..array::Config::default()
        };
        let array = Array::new(array_config, clock, Arc::clone(&board));
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let daemons = array.clone();
        let token = stop.clone();
        tasks.spawn(async move { daemons.run(token).await });
        let mut sites = Vec::new();
        for site in [Site::Primary, Site::Secondary] {
            let made = one_site(site, config, clock, &array, &board, (&tasks, &stop)).await?;
            sites.push(made);
        }
        Ok(Self {
            dir: config.dir.clone(),
            sites,
            array,
            board,
            tasks,
            stop,
            dark: Mutex::default(),
            down: CancellationToken::new(),
        })
    }

    /// Where faults are planted.
    pub const fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// The kubeconfig of each site, primary first.
    pub fn kubeconfigs(&self) -> Vec<PathBuf> {
        self.sites.iter().map(|s| s.kubeconfig.clone()).collect()
    }

    /// The API server of a site.
    pub fn server(&self, site: Site) -> Option<&RunningServer> {
        self.sites
            .iter()
            .find(|s| s.site == site)
            .map(|s| &s.server)
    }

    /// Opens the control socket. One that a dead lab left behind is replaced.
    pub fn listen(&self) -> Result<UnixListener, LabError> {
        let path = control::socket(&self.dir);
        let fail = |source| LabError::File {
            path: path.clone(),
            source,
        };
        match std::fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(fail(error)),
        }
        let listener = UnixListener::bind(&path).map_err(fail)?;
        private(&path)?;
        Ok(listener)
    }

    /// Serves the control socket until it is told `Down`.
    pub async fn serve(&self, listener: UnixListener) -> std::io::Result<()> {
        tokio::select! {
            ended = control::serve(listener, |request| self.act(request)) => ended,
            () = self.down.cancelled() => Ok(()),
        }
    }

    /// Does what the control socket asks.
    pub fn act(&self, request: Request) -> Answer {
        match request {
            Request::Status => Answer::Status(self.status()),
            Request::Fault { name, active } => match faults::parse(&name) {
                Ok(mut planting) if active => {
                    // Nobody tells a lasting lab of a run's moments; only what is aimed by hand waits.
                    planting.aim = planting.aim.filter(|_| name.contains('@'));
                    self.board.put(planting);
                    Answer::Done
                }
                Ok(planting) => {
                    self.board.heal(planting.fault);
                    Answer::Done
                }
                Err(why) => Answer::Refused { why },
            },
            Request::Power { site, on } => {
                self.power(site, on);
                Answer::Done
            }
            Request::Down => {
                // The answer goes out before the listener is dropped.
                self.down.cancel();
                Answer::Done
            }
        }
    }

    fn status(&self) -> Status {
        let planted = self.board.planted();
        let name = |fault| {
            let mut rows = faults::plantable();
            rows.find(|(_, f)| *f == fault).map(|(row, _)| row.name)
        };
        Status {
            pid: std::process::id(),
            kubeconfigs: self.kubeconfigs(),
            faults: planted
                .into_iter()
                .filter_map(name)
                .map(str::to_owned)
                .collect(),
            dark: self.dark().iter().copied().collect(),
        }
    }

    fn dark(&self) -> std::sync::MutexGuard<'_, BTreeSet<Site>> {
        self.dark.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cuts or restores the power of a whole site: API server, guests and storage at once.
    fn power(&self, site: Site, on: bool) {
        let Some(made) = self.sites.iter().find(|s| s.site == site) else {
            return;
        };
        if on {
            self.array.power_on(site);
            made.kubevirt.power_on();
            made.server.set_down(false);
            self.dark().remove(&site);
        } else {
            self.array.power_cut(site);
            made.server.set_down(true);
            made.kubevirt.power_off();
            self.dark().insert(site);
        }
    }

    /// Stops everything and waits until nothing runs any more.
    pub async fn stop(self) {
        self.stop.cancel();
        for made in self.sites {
            made.kubevirt.power_off();
            made.server.shutdown().await;
        }
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn one_site(
    site: Site,
    config: &LabConfig,
    clock: LabClock,
    array: &Array,
    board: &Arc<Board>,
    (tasks, stop): (&TaskTracker, &CancellationToken),
) -> Result<LabSite, LabError> {
    let name = world::short(site);
    let store = Store::new(config.seed ^ u64::from(site == Site::Secondary));
    storage::seed(&store, site)?;
    let storage = Storage {
        site,
        store: store.clone(),
        array: array.clone(),
        clock,
    };
    vm::seed(&store, site)?;
    // Real guests take their own time, so what a node grants them must not run faster.
    let (pace, timing) = match &config.guests {
        Guests::Simulated => (clock, Timing::default()),
        Guests::Real(_) => (LabClock::new(1.0), Timing::real()),
    };
    let setup = vm::Setup {
        site,
        store: store.clone(),
        array: array.clone(),
        clock: pace,
        board: Arc::clone(board),
        timing,
        guests: config.guests.clone(),
        seed: config.seed,
    };
    let kubevirt = KubeVirt::start(setup, tasks, stop);
    let mut server = SiteConfig::new(name, store, clock);
    server.admission = vec![kubevirt.webhooks(), Arc::new(storage::Claims)];
    server.aggregated = vec![kubevirt.subresources()];
    server.connect = vec![("pods".into(), "exec".into(), kubevirt.exec())];
    server.board = Arc::clone(board);
    server.seed = config.seed ^ u64::from(site == Site::Secondary);
    let faults = Arc::clone(board);
    server.skew = Some(Arc::new(move || super::clock::skew(&faults, site)));
    let server = ApiServer::start(server).await?;
    storage::run(&storage, tasks, stop);
    let kubeconfig = config.dir.join(format!("{name}.kubeconfig"));
    let text = server.kubeconfig("admin").unwrap_or_default();
    std::fs::write(&kubeconfig, text).map_err(|source| LabError::File {
        path: kubeconfig.clone(),
        source,
    })?;
    private(&kubeconfig)?;
    Ok(LabSite {
        site,
        server,
        kubevirt,
        kubeconfig,
    })
}

/// Lab time that the fault `promote-stalls` holds a promotion. Beside real guests, whose recovery is granted
/// minutes, it has to last minutes too.
pub(crate) fn promote_stall(real: bool, time_scale: f64) -> Duration {
    const BESIDE_REAL_GUESTS: f64 = 360.0;
    if real {
        let long = Duration::try_from_secs_f64(BESIDE_REAL_GUESTS * time_scale);
        long.unwrap_or(Duration::MAX)
    } else {
        array::Config::default().promote_stall
    }
}

/// Tokens and the control socket are for their owner only.
fn private(path: &Path) -> Result<(), LabError> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(|source| {
        LabError::File {
            path: path.to_owned(),
            source,
        }
    })
}
