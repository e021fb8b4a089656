//! An SSH server within the test process, scripted to behave and to misbehave, and streams that
//! break after a given number of bytes.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::future::BoxFuture;
use russh::keys::{PrivateKey, PublicKey};
use russh::server::{self, Auth, ChannelOpenHandle, Config, Handler, Msg, Session};
use russh::{
    Channel, ChannelId, ChannelMsg, ChannelOpenFailure, ChannelReadHalf, MethodKind, MethodSet, Sig,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio_util::sync::CancellationToken;

use super::{BoxStream, DialError, HostKeyRule, Login, LoginKey, Pins, PortForward, Route};
use crate::cluster::Deadline;

/// Far longer than any test takes.
pub(crate) fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(300), &CancellationToken::new())
}

/// The streams of a command at the server.
pub(crate) struct Io {
    pub(crate) stdin: DuplexStream,
    pub(crate) stdout: Box<dyn AsyncWrite + Send + Unpin>,
    pub(crate) stderr: Box<dyn AsyncWrite + Send + Unpin>,
}

/// How a scripted command ends.
pub(crate) enum End {
    Status(u32),
    Signal(Sig),
    /// The channel closes without a word.
    Silence,
}

type Program = dyn Fn(String, Io) -> BoxFuture<'static, End> + Send + Sync;
type Forward = dyn Fn(&str, u32) -> Result<DuplexStream, ChannelOpenFailure> + Send + Sync;

/// A server: its keys, its users, its commands.
pub(crate) struct Sshd {
    pub(crate) host_key: PrivateKey,
    pub(crate) authorised: Mutex<Vec<PublicKey>>,
    program: Box<Program>,
    forward: Box<Forward>,
    /// Commands begun.
    pub(crate) begun: AtomicU32,
    /// Connections accepted.
    pub(crate) accepted: AtomicU32,
}

impl Sshd {
    pub(crate) fn new(
        login: &LoginKey,
        program: impl Fn(String, Io) -> BoxFuture<'static, End> + Send + Sync + 'static,
    ) -> Self {
        let host = LoginKey::generate("host").unwrap();
        Self {
            host_key: (*host.secret()).clone(),
            authorised: Mutex::new(vec![login.secret().public_key().clone()]),
            program: Box::new(program),
            forward: Box::new(|_, _| Err(ChannelOpenFailure::AdministrativelyProhibited)),
            begun: AtomicU32::new(0),
            accepted: AtomicU32::new(0),
        }
    }

    pub(crate) fn forwarding(
        mut self,
        forward: impl Fn(&str, u32) -> Result<DuplexStream, ChannelOpenFailure> + Send + Sync + 'static,
    ) -> Self {
        self.forward = Box::new(forward);
        self
    }

    /// Serves one connection in the background; the client's end of it.
    pub(crate) fn accept(self: &Arc<Self>) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        self.serve(theirs);
        ours
    }

    pub(crate) fn serve(
        self: &Arc<Self>,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) {
        self.accepted.fetch_add(1, Ordering::SeqCst);
        let config = Arc::new(Config {
            methods: MethodSet::from([MethodKind::PublicKey].as_slice()),
            keys: vec![self.host_key.clone()],
            auth_rejection_time: Duration::ZERO,
            inactivity_timeout: None,
            ..Config::default()
        });
        let connection = Connection {
            sshd: Arc::clone(self),
            open: HashMap::new(),
        };
        tokio::spawn(async move {
            if let Ok(session) = server::run_stream(config, stream, connection).await {
                // Cut connections end in errors; what the client makes of it is what is tested.
                session.await.ok();
            }
        });
    }
}

struct Connection {
    sshd: Arc<Sshd>,
    open: HashMap<ChannelId, Channel<Msg>>,
}

impl Handler for Connection {
    type Error = russh::Error;

    async fn auth_publickey(
        &mut self,
        _user: &str,
        key: server::VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        let known = self.sshd.authorised.lock().unwrap();
        let known = known
            .iter()
            .any(|k| k.key_data() == key.public_key.key_data());
        Ok(if known { Auth::Accept } else { Auth::reject() })
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.open.insert(channel.id(), channel);
        reply.accept().await;
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _originator: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        match (self.sshd.forward)(host, port) {
            Ok(mut target) => {
                reply.accept().await;
                tokio::spawn(async move {
                    let mut channel = channel.into_stream();
                    tokio::io::copy_bidirectional(&mut channel, &mut target)
                        .await
                        .ok();
                });
            }
            Err(reason) => reply.reject(reason).await,
        }
        Ok(())
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let channel = self.open.remove(&id).unwrap();
        let command = String::from_utf8(command.to_vec()).unwrap();
        if command == "refused" {
            return session.channel_failure(id);
        }
        session.channel_success(id)?;
        self.sshd.begun.fetch_add(1, Ordering::SeqCst);
        let sshd = Arc::clone(&self.sshd);
        let handle = session.handle();
        tokio::spawn(async move { execute(&sshd, command, channel, handle).await });
        Ok(())
    }
}

async fn execute(sshd: &Sshd, command: String, channel: Channel<Msg>, handle: server::Handle) {
    let id = channel.id();
    let (reader, writer) = channel.split();
    let (stdin, feed) = tokio::io::duplex(64 * 1024);
    let io = Io {
        stdin,
        stdout: Box::new(writer.make_writer()),
        stderr: Box::new(writer.make_writer_ext(Some(1))),
    };
    let end = tokio::select! {
        end = (sshd.program)(command, io) => end,
        () = feeding(reader, feed) => return,
    };
    let said = match end {
        End::Status(status) => writer.exit_status(status).await,
        End::Signal(signal) => {
            let text = String::new;
            handle
                .exit_signal_request(id, signal, false, text(), text())
                .await
                .ok();
            Ok(())
        }
        End::Silence => Ok(()),
    };
    // The client may be gone already.
    said.and(writer.eof().await).and(writer.close().await).ok();
}

/// Feeds a command until its channel is gone.
async fn feeding(mut reader: ChannelReadHalf, feed: DuplexStream) {
    let mut feed = Some(feed);
    while let Some(message) = reader.wait().await {
        match message {
            ChannelMsg::Data { data } => {
                if let Some(open) = &mut feed
                    && open.write_all(&data).await.is_err()
                {
                    feed = None;
                }
            }
            ChannelMsg::Eof => feed = None,
            ChannelMsg::Close => return,
            _ => {}
        }
    }
}

/// A stream that breaks for both sides once so many bytes were read from or written to it.
pub(crate) struct Cut<S> {
    inner: Option<S>,
    left: u64,
    /// Who waits to read; a cut by a write must reach it.
    reader: Option<Waker>,
}

impl<S> Cut<S> {
    pub(crate) const fn after(inner: S, bytes: u64) -> Self {
        Self {
            inner: Some(inner),
            left: bytes,
            reader: None,
        }
    }

    fn spend(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes as u64);
        if self.left == 0 {
            self.inner = None;
            if let Some(reader) = self.reader.take() {
                reader.wake();
            }
        }
    }

    fn allowed(&self, bytes: usize) -> usize {
        bytes.min(usize::try_from(self.left).unwrap_or(usize::MAX))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Cut<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let allowed = self.allowed(buf.remaining());
        let Some(inner) = &mut self.inner else {
            return Poll::Ready(Ok(()));
        };
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(allowed));
        let polled = Pin::new(inner).poll_read(cx, &mut part);
        let read = part.filled().len();
        if matches!(polled, Poll::Ready(Ok(()))) {
            buf.advance(read);
            self.spend(read);
        }
        if polled.is_pending() {
            self.reader = Some(cx.waker().clone());
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Cut<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let allowed = self.allowed(buf.len());
        let Some(inner) = &mut self.inner else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let polled = Pin::new(inner).poll_write(cx, &buf[..allowed]);
        if let Poll::Ready(Ok(written)) = polled {
            self.spend(written);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.inner {
            Some(inner) => Pin::new(inner).poll_flush(cx),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.inner {
            Some(inner) => Pin::new(inner).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}

/// A cluster whose port-forward is a function of how often it was asked.
pub(crate) struct Dialer<F> {
    dial: F,
    pub(crate) dials: AtomicU32,
}

impl<F> PortForward for Dialer<F>
where
    F: Fn(u32) -> Result<BoxStream, DialError> + Send + Sync,
{
    fn open<'a>(
        &'a self,
        _namespace: &'a str,
        _vmi: &'a str,
        _port: u16,
    ) -> BoxFuture<'a, Result<BoxStream, DialError>> {
        let n = self.dials.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move { (self.dial)(n) })
    }
}

/// A route whose `n`-th opening, from 0, is `dial(n)`.
pub(crate) fn route_by(
    dial: impl Fn(u32) -> Result<BoxStream, DialError> + Send + Sync + 'static,
) -> Route {
    Route::PortForward {
        via: Arc::new(Dialer {
            dial,
            dials: AtomicU32::new(0),
        }),
        namespace: "demo".into(),
        vmi: "vm-0".into(),
        port: 22,
    }
}

/// A route to a server that works.
pub(crate) fn route_to(sshd: &Arc<Sshd>) -> Route {
    let sshd = Arc::clone(sshd);
    route_by(move |_| Ok(Box::new(sshd.accept())))
}

/// A login as root with pins in memory.
pub(crate) fn login(key: &LoginKey) -> Login {
    Login {
        user: "root".into(),
        key: key.clone(),
        pins: Arc::new(Pins::in_memory()),
        host_key: HostKeyRule::Pinned {
            lineage: "demo/vm-0".into(),
        },
    }
}
