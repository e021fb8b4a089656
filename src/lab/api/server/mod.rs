//! The HTTPS side of one site's API server.
//!
//! Listening and TLS, authentication and RBAC, and the Kubernetes protocol over a [`Store`].

mod auth;
mod body;
mod builtin;
mod call;
mod crd;
mod discovery;
mod faults;
mod handler;
mod kubeconfig;
mod list;
mod listen;
mod names;
mod openapi;
mod options;
mod page;
mod patch;
mod power;
mod print;
mod protobuf;
mod query;
mod remove;
mod respond;
mod reviews;
mod route;
mod selector;
mod table;
mod tls;
mod watch;
mod write;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::errors::ApiError;
use super::hooks::{Admission, Aggregated, User};
use super::store::Store;
use crate::lab::clock::LabClock;
use crate::lab::faults::Board;
use faults::Faults;
use handler::Shared;
pub use query::Query;

/// By how much a clock is off at the moment.
pub type Skew = Arc<dyn Fn() -> jiff::SignedDuration + Send + Sync>;

/// What a site's API server is made of.
pub struct SiteConfig {
    /// The site's name: cluster and context in its kubeconfig.
    pub name: String,
    /// Its objects.
    pub store: Store,
    /// How fast its own waits pass (the establishing of CustomResourceDefinitions).
    pub clock: LabClock,
    /// Webhooks, in order.
    pub admission: Vec<Arc<dyn Admission>>,
    /// Aggregated APIs.
    pub aggregated: Vec<Arc<dyn Aggregated>>,
    /// Handlers of connecting subresources: resource key and subresource, such as `pods` `exec`.
    pub connect: Vec<(String, String, Arc<dyn Aggregated>)>,
    /// By how much the server's clock is off, asked at each answer: its `Date` header says so.
    pub skew: Option<Skew>,
    /// Users besides `admin` (all rights) and `limited` (none but what everybody has). Their
    /// rights are the stored roles and bindings.
    pub users: Vec<User>,
    /// Where its faults are planted.
    pub board: Arc<Board>,
    /// The seed behind which requests a fault strikes.
    pub seed: u64,
}

impl SiteConfig {
    /// A site without webhooks and aggregated APIs.
    pub fn new(name: &str, store: Store, clock: LabClock) -> Self {
        Self {
            name: name.to_owned(),
            store,
            clock,
            admission: Vec::new(),
            aggregated: Vec::new(),
            connect: Vec::new(),
            skew: None,
            users: Vec::new(),
            board: Arc::default(),
            seed: 0,
        }
    }
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No port on loopback.
    #[error("cannot listen on loopback: {0}")]
    Listen(#[from] std::io::Error),
    /// No certificate.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// No TLS.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// No randomness for tokens.
    #[error("no randomness for tokens: {0}")]
    Random(getrandom::Error),
    /// The store refused what every cluster starts with.
    #[error("cannot furnish the cluster: {0}")]
    Furnish(#[from] ApiError),
}

/// Starts servers.
#[derive(Debug, Clone, Copy)]
pub struct ApiServer;

impl ApiServer {
    /// Starts a site's server on a free loopback port. It stops when the handle is shut down.
    ///
    /// # Errors
    /// When it cannot listen, make certificates, or furnish the store.
    pub async fn start(config: SiteConfig) -> Result<RunningServer, StartError> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        Self::serve(config, listener)
    }

    fn serve(config: SiteConfig, listener: TcpListener) -> Result<RunningServer, StartError> {
        let addr = listener.local_addr()?;
        let tls = tls::new(&config.name)?;
        let mut users = vec![
            User {
                name: "admin".to_owned(),
                uid: "uid-1".to_owned(),
                groups: vec![
                    "system:masters".to_owned(),
                    "system:authenticated".to_owned(),
                ],
            },
            User {
                name: "limited".to_owned(),
                uid: "uid-2".to_owned(),
                groups: vec!["system:authenticated".to_owned()],
            },
        ];
        users.extend(config.users);
        let mut tokens = auth::Tokens::new();
        let mut by_user = BTreeMap::new();
        for user in users {
            let token = token()?;
            by_user.insert(user.name.clone(), token.clone());
            tokens.insert(token, user);
        }
        auth::bootstrap(&config.store)?;
        crd::publish(&config.store)?;
        let tasks = TaskTracker::new();
        let shared = Arc::new(Shared {
            store: config.store,
            tokens,
            admission: config.admission,
            aggregated: config.aggregated,
            connect: config.connect,
            clock: config.clock,
            skew: config.skew,
            address: addr,
            power: power::Power::default(),
            faults: Arc::new(Faults::new(config.board, config.seed)),
            stop: CancellationToken::new(),
            tasks,
        });
        let accept = listen::accept(Arc::clone(&shared), listener, Arc::clone(&tls.config));
        shared.tasks.spawn(accept);
        Ok(RunningServer {
            name: config.name,
            ca_pem: tls.ca_pem,
            tokens: by_user,
            shared,
        })
    }
}

/// 32 random bytes in hex: a bearer token nobody else on the machine can guess.
fn token() -> Result<String, StartError> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).map_err(StartError::Random)?;
    Ok(blake3::hash(&bytes).to_hex().to_string())
}

/// A server that runs.
pub struct RunningServer {
    name: String,
    ca_pem: String,
    tokens: BTreeMap<String, String>,
    shared: Arc<Shared>,
}

impl RunningServer {
    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.shared.address
    }

    /// The authority that clients must trust, PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The bearer token of a user.
    pub fn token(&self, user: &str) -> Option<&str> {
        self.tokens.get(user).map(String::as_str)
    }

    /// A kubeconfig for a user, with one context named after the site; `None` for unknown users.
    pub fn kubeconfig(&self, user: &str) -> Option<String> {
        let token = self.token(user)?;
        Some(kubeconfig::text(
            &self.name,
            self.addr(),
            &self.ca_pem,
            user,
            token,
        ))
    }

    /// The site's objects.
    pub fn store(&self) -> &Store {
        &self.shared.store
    }

    /// Powers the site off or on. Off: every connection is cut at once and new ones are refused at
    /// the first byte, as by a host that is gone.
    pub fn set_down(&self, down: bool) {
        self.shared.power.set(down);
    }

    /// How many requests it has answered or is answering.
    pub fn requests(&self) -> u64 {
        self.shared.power.requests.load(Ordering::Relaxed)
    }

    /// The same by verb: those of RBAC, `connect` for streams to a guest, `discovery` for paths that are
    /// no resources.
    pub fn requests_by_verb(&self) -> BTreeMap<&'static str, u64> {
        self.shared.power.verbs()
    }

    /// How many watches were opened so far; changes with each.
    pub fn watches(&self) -> tokio::sync::watch::Receiver<u64> {
        self.shared.power.watches.subscribe()
    }

    /// Installs a custom kind as if its definition had been there long.
    ///
    /// # Errors
    /// When the store refuses the definition.
    pub fn install(&self, kind: super::registry::Kind) -> Result<(), ApiError> {
        self.shared.store.lock().registry.add(kind);
        crd::publish(&self.shared.store)
    }

    /// Stops: cuts every connection and waits until nothing runs.
    pub async fn shutdown(self) {
        self.shared.stop.cancel();
        self.shared.power.set(true);
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}
