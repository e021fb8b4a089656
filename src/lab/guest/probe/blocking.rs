//! Half of an asynchronous stream for a thread that reads or writes and waits.

use std::io::{Read, Result, Write};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::runtime::Handle;

/// A stream that blocks. Must not be used on a thread of the runtime itself.
pub(super) struct Blocking<T> {
    inner: T,
    handle: Handle,
}

impl<T> Blocking<T> {
    /// Wraps a stream that lives on the runtime behind `handle`.
    pub(super) const fn new(inner: T, handle: Handle) -> Self {
        Self { inner, handle }
    }
}

impl<T: AsyncRead + Unpin> Read for Blocking<T> {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        self.handle.block_on(self.inner.read(buf))
    }
}

impl<T: AsyncWrite + Unpin> Write for Blocking<T> {
    fn write(&mut self, buf: &[u8]) -> Result<usize> {
        self.handle.block_on(self.inner.write(buf))
    }

    fn flush(&mut self) -> Result<()> {
        self.handle.block_on(self.inner.flush())
    }
}
