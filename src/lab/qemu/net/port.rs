//! A port of the switch with a QEMU at its other end.
//!
//! Contract: lives as long as the socket. Reading never waits for anybody, writing takes from the
//! port's bounded queue, so a QEMU that does not read loses frames and holds up nobody. A length or
//! a frame that cannot be ends this port with an error in the log.

use std::io;

use bytes::Bytes;
use futures::{SinkExt, TryStreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_util::codec::{FramedRead, FramedWrite};
use tokio_util::sync::CancellationToken;

use super::frame::{Frame, NotAFrame, codec};
use super::switch::Plug;

/// Frames written at once before the socket is flushed.
const BURST: usize = 64;
/// Bytes asked of the socket at once.
const READ: usize = 64 * 1024;

/// Why a port ended before its QEMU hung up.
#[derive(Debug, thiserror::Error)]
enum PortError {
    #[error("QEMU's stream of frames cannot be read: {0}")]
    Read(#[source] io::Error),
    #[error("QEMU sent what is no frame: {0}")]
    Frame(#[from] NotAFrame),
    #[error("frames cannot be written to QEMU: {0}")]
    Write(#[source] io::Error),
}

impl PortError {
    /// Whether the QEMU at the other end is gone: one that is killed resets its connections.
    fn is_hangup(&self) -> bool {
        use io::ErrorKind::{BrokenPipe, ConnectionReset};
        let (Self::Read(error) | Self::Write(error)) = self else {
            return false;
        };
        matches!(error.kind(), ConnectionReset | BrokenPipe)
    }
}

/// Joins a QEMU to the switch until it hangs up or the segment stops.
pub(super) async fn serve(
    socket: impl AsyncRead + AsyncWrite,
    plug: Plug,
    frames: mpsc::Receiver<Frame>,
    stop: CancellationToken,
) {
    let (read, write) = tokio::io::split(Box::pin(socket));
    let ended = tokio::select! {
        () = stop.cancelled() => return,
        ended = inward(read, &plug) => ended,
        ended = outward(frames, write) => ended,
    };
    match ended {
        Ok(()) => tracing::debug!("a QEMU hung up its network"),
        Err(error) if error.is_hangup() => tracing::debug!(%error, "a QEMU is gone"),
        Err(error) => tracing::error!(%error, "a port of a guest's network ended"),
    }
}

async fn inward(socket: impl AsyncRead + Unpin, plug: &Plug) -> Result<(), PortError> {
    let mut stream = FramedRead::with_capacity(socket, codec(), READ);
    while let Some(frame) = stream.try_next().await.map_err(PortError::Read)? {
        // Copied, because a slice would keep the whole read buffer for as long as it queues.
        plug.send(Frame::new(Bytes::copy_from_slice(&frame))?);
    }
    Ok(())
}

async fn outward(
    mut frames: mpsc::Receiver<Frame>,
    socket: impl AsyncWrite + Unpin,
) -> Result<(), PortError> {
    let mut sink = FramedWrite::new(socket, codec());
    let mut burst = Vec::with_capacity(BURST);
    while frames.recv_many(&mut burst, BURST).await > 0 {
        for frame in burst.drain(..) {
            let fed = sink.feed(frame.into_bytes()).await;
            fed.map_err(PortError::Write)?;
        }
        let flushed = SinkExt::<Bytes>::flush(&mut sink).await;
        flushed.map_err(PortError::Write)?;
    }
    Ok(())
}
