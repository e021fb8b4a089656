//! Sees the SSH banner go by on a stream, so that its moment can be told: the first sign that a
//! kernel and a network are up.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is kept of the first bytes, to say what came in place of a banner. A server may send lines
/// of text before it (RFC 4253 §4.2).
const HEAD: usize = 8 * 1024;

/// What was seen of the first bytes; shared between the stream and whoever asks.
#[derive(Default)]
pub(super) struct Head(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    bytes: Vec<u8>,
    banner: bool,
}

impl Head {
    /// Whether a banner went by.
    pub(super) fn banner(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).banner
    }

    /// The first line as text, empty if nothing came.
    pub(super) fn first_line(&self) -> String {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let line = seen.bytes.split(|b| *b == b'\n').next().unwrap_or_default();
        super::error::printable_tail(&line[..line.len().min(120)], 120)
    }

    /// Takes in what was read; true the one time that this completes the banner's start.
    fn feed(&self, bytes: &[u8]) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.banner || seen.bytes.len() >= HEAD {
            return false;
        }
        let room = HEAD - seen.bytes.len();
        seen.bytes
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
        seen.banner = seen
            .bytes
            .split(|b| *b == b'\n')
            .any(|line| line.starts_with(b"SSH-"));
        seen.banner
    }
}

/// A stream that tells when the SSH banner arrives.
pub(super) struct Tap<S> {
    inner: S,
    head: Arc<Head>,
    on_banner: Box<dyn Fn() + Send + Sync>,
}

impl<S> Tap<S> {
    pub(super) fn new(
        inner: S,
        head: Arc<Head>,
        on_banner: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        Self {
            inner,
            head,
            on_banner: Box::new(on_banner),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Tap<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        if matches!(polled, Poll::Ready(Ok(()))) && self.head.feed(&buf.filled()[before..]) {
            (self.on_banner)();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tap<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_banner_is_told_once_however_it_is_cut() {
        let text = b"welcome\r\nSSH-2.0-x\r\nSSH-";
        for cut in 0..text.len() {
            let head = Head::default();
            let told = usize::from(head.feed(&text[..cut])) + usize::from(head.feed(&text[cut..]));
            assert_eq!(told, 1, "cut at {cut}");
            assert!(head.banner());
        }
    }

    #[test]
    fn what_is_no_banner_is_kept_for_the_message() {
        let head = Head::default();
        assert!(!head.feed(b"HTTP/1.1 400 Bad"));
        assert!(!head.feed(b" Request\r\nnot SSH-2.0\r\n"));
        assert!(!head.banner());
        assert_eq!(head.first_line(), "HTTP/1.1 400 Bad Request");
        assert_eq!(Head::default().first_line(), "");
    }
}
