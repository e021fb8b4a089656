//! Connections: accepting, TLS, HTTP/1.1 and HTTP/2 with upgrades.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::handler::{Shared, handle};
use super::power::Powered;

/// Accepts until the server stops. While the site is down, connections are dropped unread.
pub(super) async fn accept(shared: Arc<Shared>, listener: TcpListener, tls: Arc<ServerConfig>) {
    let acceptor = TlsAcceptor::from(tls);
    loop {
        let accepted = tokio::select! {
            () = shared.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let session = shared.power.session();
        match accepted {
            Ok((stream, _)) if !session.is_cancelled() => {
                let connection = connection(Arc::clone(&shared), acceptor.clone(), stream, session);
                shared.tasks.spawn(connection);
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "a connection could not be accepted"),
        }
    }
}

/// Serves one connection until it ends or the site goes down. What was upgraded breaks with the
/// site as well, because the stream itself does.
async fn connection(
    shared: Arc<Shared>,
    acceptor: TlsAcceptor,
    stream: TcpStream,
    session: CancellationToken,
) {
    tokio::select! {
        () = session.cancelled() => {}
        () = serve(shared, acceptor, stream, session.clone()) => {}
    }
}

async fn serve(
    shared: Arc<Shared>,
    acceptor: TlsAcceptor,
    stream: TcpStream,
    session: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    let stream = match acceptor.accept(Powered::new(stream, session)).await {
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
