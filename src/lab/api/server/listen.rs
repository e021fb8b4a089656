//! Connections: accepting, TLS, HTTP/1.1 and HTTP/2 with upgrades, and the power switch.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::handler::{Shared, handle};

/// Whether the site is powered.
#[derive(Debug)]
pub(super) struct Power {
    down: watch::Sender<bool>,
    pub(super) requests: AtomicU64,
    /// How many watches were opened.
    pub(super) watches: watch::Sender<u64>,
}

impl Default for Power {
    fn default() -> Self {
        Self {
            down: watch::Sender::new(false),
            requests: AtomicU64::new(0),
            watches: watch::Sender::new(0),
        }
    }
}

impl Power {
    /// Switches it.
    pub(super) fn set(&self, down: bool) {
        self.down.send_replace(down);
    }

    /// Returns once the site is off. A sender that is gone is off too.
    pub(super) async fn off(&self) {
        let mut down = self.down.subscribe();
        if down.wait_for(|down| *down).await.is_err() {
            tracing::trace!("the power switch is gone");
        }
    }

    fn is_down(&self) -> bool {
        *self.down.borrow()
    }
}

/// Accepts until the server stops. While the site is down, connections are dropped unread.
pub(super) async fn accept(shared: Arc<Shared>, listener: TcpListener, tls: Arc<ServerConfig>) {
    let acceptor = TlsAcceptor::from(tls);
    loop {
        let accepted = tokio::select! {
            () = shared.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) if !shared.power.is_down() => {
                let connection = connection(Arc::clone(&shared), acceptor.clone(), stream);
                shared.tasks.spawn(connection);
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "a connection could not be accepted"),
        }
    }
}

/// Serves one connection until it ends or the site goes down.
async fn connection(shared: Arc<Shared>, acceptor: TlsAcceptor, stream: TcpStream) {
    let power = Arc::clone(&shared);
    tokio::select! {
        () = power.power.off() => {}
        () = serve(shared, acceptor, stream) => {}
    }
}

async fn serve(shared: Arc<Shared>, acceptor: TlsAcceptor, stream: TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    let stream = match acceptor.accept(stream).await {
        Ok(stream) => stream,
        Err(error) => {
            tracing::debug!(%error, "no TLS");
            return;
        }
    };
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        shared.power.requests.fetch_add(1, Ordering::Relaxed);
        async move { Ok::<_, Infallible>(handle(shared, request).await) }
    });
    let builder = Builder::new(TokioExecutor::new());
    let served = builder
        .serve_connection_with_upgrades(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended");
    }
}
