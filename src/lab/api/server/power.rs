//! The power switch of a site, and streams that end when it is thrown.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Whether the site is powered, and what was counted since it started.
#[derive(Debug)]
pub(super) struct Power {
    /// Cancelled when the power goes; a new one stands for each time that it is on.
    session: Mutex<CancellationToken>,
    pub(super) requests: AtomicU64,
    verbs: Mutex<BTreeMap<&'static str, u64>>,
    /// How many watches were opened.
    pub(super) watches: watch::Sender<u64>,
}

impl Default for Power {
    fn default() -> Self {
        Self {
            session: Mutex::new(CancellationToken::new()),
            requests: AtomicU64::new(0),
            verbs: Mutex::default(),
            watches: watch::Sender::new(0),
        }
    }
}

impl Power {
    /// Switches it.
    pub(super) fn set(&self, down: bool) {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        if down {
            session.cancel();
        } else if session.is_cancelled() {
            *session = CancellationToken::new();
        }
    }

    /// Counts a request.
    pub(super) fn count(&self, verb: &'static str) {
        let mut verbs = self.verbs.lock().unwrap_or_else(PoisonError::into_inner);
        *verbs.entry(verb).or_default() += 1;
    }

    /// What was counted.
    pub(super) fn verbs(&self) -> BTreeMap<&'static str, u64> {
        let verbs = self.verbs.lock().unwrap_or_else(PoisonError::into_inner);
        verbs.clone()
    }

    /// What ends when the power goes; ended already while it is off.
    pub(super) fn session(&self) -> CancellationToken {
        let session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        session.clone()
    }
}

/// A stream that breaks when the power goes, also after it was upgraded and handed on.
pub(super) struct Powered<S> {
    inner: S,
    off: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<S> Powered<S> {
    pub(super) fn new(inner: S, session: CancellationToken) -> Self {
        Self {
            inner,
            off: Box::pin(session.cancelled_owned()),
        }
    }

    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.off.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionReset.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Powered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Powered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn a_pending_read_breaks_when_the_power_goes() {
        let power = Power::default();
        let (mut far, near) = tokio::io::duplex(16);
        let mut near = Powered::new(near, power.session());
        far.write_all(b"a").await.unwrap();
        assert_eq!(near.read_u8().await.unwrap(), b'a');
        let read = tokio::spawn(async move { (near.read_u8().await, near) });
        power.set(true);
        let (broken, mut near) = read.await.unwrap();
        assert_eq!(broken.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        power.set(false);
        // What broke stays broken; only new streams live.
        assert!(near.write_all(b"b").await.is_err());
        let mut fresh = Powered::new(far, power.session());
        assert!(fresh.flush().await.is_ok());
    }
}
