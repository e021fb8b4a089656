//! The socket, its clients and their end.

use std::collections::HashMap;
use std::io::{self, BufReader, BufWriter};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, Scope};
use std::time::Duration;

use super::export::Export;
use super::gate::Gate;
use super::transmission::serve;

/// The longest path that fits `sun_path` of unix(7) with its closing NUL, in bytes.
const PATH_MAX: usize = 107;
/// What a connection gathers before it reads or writes: a request or reply of QEMU's usual sizes
/// passes in one system call.
const BUFFER: usize = 64 << 10;
/// How long no client is accepted when that failed, unless one leaves (and gives back what was
/// lacking, likely a file descriptor).
const RETRY: Duration = Duration::from_millis(100);

/// Why an export cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Longer than a Unix socket's address.
    #[error(
        "the socket path {} has {length} bytes, and the system takes {PATH_MAX} at most: \
         choose a shorter directory", .path.display()
    )]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Its bytes.
        length: usize,
    },
    /// The export breaks a rule of the protocol.
    #[error("the disk `{name}` cannot be exported: {why}")]
    Export {
        /// Its name.
        name: String,
        /// The rule.
        why: String,
    },
    /// The system refused.
    #[error("cannot serve NBD on {}: {source}", .path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A served export. Dropping it does what [`Server::close`] does.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    hub: Arc<Hub>,
    /// A second handle of the listening socket, to wake the acceptor with.
    listener: UnixStream,
    acceptor: Option<JoinHandle<()>>,
}

/// What the threads of a server share.
#[derive(Debug)]
struct Hub {
    export: Export,
    gate: Gate,
    clients: Mutex<Clients>,
    /// A client left, or the server closes.
    fewer: Condvar,
}

#[derive(Debug, Default)]
struct Clients {
    closing: bool,
    accepted: u64,
    streams: HashMap<u64, UnixStream>,
}

impl Server {
    /// Binds a new socket at `path` and serves the export there. The path must not exist.
    ///
    /// # Errors
    ///
    /// See [`ListenError`].
    pub fn listen(path: &Path, export: Export) -> Result<Self, ListenError> {
        let length = path.as_os_str().len();
        let path = path.to_owned();
        if length > PATH_MAX {
            return Err(ListenError::PathTooLong { path, length });
        }
        if let Some(why) = export.defect() {
            let name = export.name;
            return Err(ListenError::Export { name, why });
        }
        let hub = Arc::new(Hub {
            export,
            gate: Gate::new(),
            clients: Mutex::default(),
            fewer: Condvar::new(),
        });
        let failed = |source| ListenError::Socket {
            path: path.clone(),
            source,
        };
        let socket = UnixListener::bind(&path).map_err(failed)?;
        match start(&hub, socket) {
            Ok((listener, acceptor)) => Ok(Self {
                path,
                hub,
                listener,
                acceptor: Some(acceptor),
            }),
            Err(source) => {
                unlink(&path);
                Err(failed(source))
            }
        }
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many clients are connected, those in the handshake included.
    pub fn connections(&self) -> usize {
        self.hub.clients().streams.len()
    }

    /// Lets requests wait before they touch the Disk, as in a stalled fabric, or lets them go on.
    /// An access under way still ends and is replied to. A waiting request outlives its client, as
    /// a frame in a real fabric does: a write of a host that died meanwhile arrives when the fabric
    /// recovers, unless [`Server::cut`] comes first.
    pub fn pause(&self, paused: bool) {
        self.hub.gate.pause(paused);
    }

    /// Takes the storage from this socket's host for good: every later request, and every waiting
    /// one, fails with `NBD_EIO`; none touches the Disk. When this returns, no access is under way.
    pub fn cut(&self) {
        self.hub.gate.cut();
    }

    /// Ends it: no new client, those connected are cut off, their threads are gone, the socket is
    /// unlinked and the server's handle of the Disk is dropped. Waits for no client, but for an
    /// access that is inside the Disk.
    pub fn close(self) {
        drop(self);
    }

    fn end(&mut self) {
        self.hub.clients().closing = true;
        self.hub.fewer.notify_all();
        // Accepting on a listening socket that is shut down fails at once (Linux).
        if let Err(error) = self.listener.shutdown(Shutdown::Both) {
            tracing::warn!(%error, path = %self.path.display(), "a listening socket stays open");
        }
        self.hub.gate.close();
        for stream in self.hub.clients().streams.values() {
            // It fails if the client was first, which is as well.
            stream.shutdown(Shutdown::Both).ok();
        }
        if self
            .acceptor
            .take()
            .is_some_and(|thread| thread.join().is_err())
        {
            tracing::error!(export = ?self.hub.export, "a thread of the NBD server panicked");
        }
        unlink(&self.path);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// Starts the acceptor. Gives also a second handle of its socket: a stream in name only, as the
/// standard library can shut down nothing else.
fn start(hub: &Arc<Hub>, socket: UnixListener) -> io::Result<(UnixStream, JoinHandle<()>)> {
    let alias = UnixStream::from(OwnedFd::from(socket.try_clone()?));
    let hub = Arc::clone(hub);
    let acceptor = thread::Builder::new()
        .name(format!("nbd+{}", hub.export.name))
        .spawn(move || thread::scope(|scope| hub.accept(&socket, scope)))?;
    Ok((alias, acceptor))
}

fn unlink(path: &Path) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, path = %path.display(), "a socket could not be removed");
    }
}

impl Hub {
    fn clients(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Accepts clients until the server closes. The scope ends when their threads have ended.
    fn accept<'scope>(&'scope self, socket: &UnixListener, scope: &'scope Scope<'scope, '_>) {
        loop {
            let welcomed = socket
                .accept()
                .and_then(|(stream, _)| self.welcome(stream, scope));
            if self.clients().closing {
                return;
            }
            if let Err(error) = welcomed {
                tracing::warn!(%error, export = ?self.export, "an NBD client was not accepted");
                let clients = self.fewer.wait_timeout(self.clients(), RETRY);
                drop(clients.unwrap_or_else(PoisonError::into_inner));
            }
        }
    }

    /// Gives a client its thread.
    fn welcome<'scope>(
        &'scope self,
        stream: UnixStream,
        scope: &'scope Scope<'scope, '_>,
    ) -> io::Result<()> {
        let client = self.enter(stream.try_clone()?);
        let Some(client) = client else {
            return Ok(());
        };
        thread::Builder::new()
            .name(format!("nbd{}+{}", client.id, self.export.name))
            .spawn_scoped(scope, move || client.serve(&stream))
            .map(drop)
    }

    /// Enrols a client, unless the server is closing.
    fn enter(&self, stream: UnixStream) -> Option<Client<'_>> {
        let mut clients = self.clients();
        if clients.closing {
            return None;
        }
        clients.accepted += 1;
        let id = clients.accepted;
        clients.streams.insert(id, stream);
        Some(Client { hub: self, id })
    }
}

/// An enrolled client; struck off when dropped.
struct Client<'a> {
    hub: &'a Hub,
    id: u64,
}

impl Client<'_> {
    fn serve(self, stream: &UnixStream) {
        let input = BufReader::with_capacity(BUFFER, stream);
        let output = BufWriter::with_capacity(BUFFER, stream);
        if let Err(broken) = serve(&self.hub.export, &self.hub.gate, input, output) {
            tracing::debug!(%broken, export = ?self.hub.export, "an NBD client was lost");
        }
    }
}

impl Drop for Client<'_> {
    fn drop(&mut self) {
        self.hub.clients().streams.remove(&self.id);
        self.hub.fewer.notify_all();
    }
}
