//! A byte stream to a port of a guest, through KubeVirt's port-forward subresource.
//!
//! The protocol is `plain.kubevirt.io`: raw bytes in binary WebSocket frames, no channel prefix, one
//! connection per stream, over HTTP/1.1. virt-api dials the guest *before* it answers, so a closed
//! port is an HTTP 500 and [`Error::DialRefused`] here. It pings every second and drops a peer that
//! does not answer for a minute; reading answers. A live migration cuts the stream.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use futures::{Sink as _, Stream as _};
use http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::cluster::answer::{Refusal, sound};
use crate::cluster::client::Cluster;
use crate::cluster::crd::kubevirt::VirtualMachineInstance;
use crate::cluster::error::{Error, Tried};
use crate::cluster::kind::ObjRef;
use crate::cluster::socket::{Socket, Upgrade};
use crate::cluster::subresource;

/// The subprotocol that virt-api speaks.
const PROTOCOL: &str = "plain.kubevirt.io";
/// How long dialling may take. virt-api waits for the guest's TCP handshake.
const DIAL: Duration = Duration::from_secs(30);
/// Largest frame that we send.
const FRAME: usize = 32 << 10;

impl Cluster {
    /// Connects to a TCP port of a VMI's guest.
    ///
    /// [`Error::DialRefused`] when nobody listens there, [`Error::Conflict`] when the VMI is paused
    /// or not running, [`Error::NotFound`] when there is none.
    pub async fn port_forward(
        &self,
        namespace: &str,
        vmi: &str,
        port: u16,
    ) -> Result<Tunnel, Error> {
        let object = ObjRef::of::<VirtualMachineInstance>(namespace, vmi);
        let tried = self.tried(format!("port-forward to port {port} of {object}"));
        sound(&tried, &object)?;
        let path = subresource::path(&object, &format!("portforward/{port}/tcp"));
        match tokio::time::timeout(DIAL, self.dial(&tried, &path)).await {
            Ok(dialled) => dialled,
            Err(_elapsed) => Err(Error::Unreachable {
                tried,
                url: self.url().to_owned(),
                seen: format!("no answer within {DIAL:?}"),
            }),
        }
    }

    async fn dial(&self, tried: &Tried, path: &str) -> Result<Tunnel, Error> {
        let socket = match self.upgrade(tried, path, &[PROTOCOL]).await? {
            Upgrade::Switched(socket, _) => *socket,
            Upgrade::Refused(status, body) => return Err(refused(tried, status, &body)),
        };
        Ok(Tunnel {
            socket,
            pending: Bytes::new(),
            ended: false,
        })
    }
}

fn refused(tried: &Tried, status: StatusCode, body: &[u8]) -> Error {
    let refusal = Refusal::read(body);
    if status == StatusCode::INTERNAL_SERVER_ERROR {
        return Error::DialRefused {
            tried: tried.clone(),
            message: refusal.message,
        };
    }
    if status.is_success() {
        return Error::Answer {
            tried: tried.clone(),
            why: format!("HTTP {status} instead of an upgrade"),
        };
    }
    refusal.into_error(tried.clone(), status)
}

/// The byte stream. A normal close by the server is the end of file; a stream that breaks off is an
/// error. Closing the write side closes both.
pub struct Tunnel {
    socket: Socket,
    pending: Bytes,
    ended: bool,
}

impl std::fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tunnel")
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if !self.pending.is_empty() {
                let n = buf.remaining().min(self.pending.len());
                buf.put_slice(&self.pending[..n]);
                self.pending.advance(n);
                return Poll::Ready(Ok(()));
            }
            if self.ended {
                return Poll::Ready(Ok(()));
            }
            match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => self.pending = bytes,
                Some(Ok(Message::Close(frame))) => match broken(frame.as_ref()) {
                    None => self.ended = true,
                    Some(why) => return Poll::Ready(Err(why)),
                },
                // virt-api's own clients ignore text; pings are answered by the library.
                Some(Ok(_)) => {}
                Some(Err(tungstenite::Error::ConnectionClosed)) => self.ended = true,
                Some(Err(e)) => return Poll::Ready(Err(into_io(e))),
                None => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            }
        }
    }
}

/// Why a close frame does not mean a normal end, if so.
fn broken(frame: Option<&CloseFrame>) -> Option<io::Error> {
    let frame = frame?;
    if matches!(frame.code, CloseCode::Normal | CloseCode::Away) {
        return None;
    }
    let why = format!(
        "the tunnel was closed with code {}: {}",
        u16::from(frame.code),
        frame.reason
    );
    Some(io::Error::new(io::ErrorKind::ConnectionAborted, why))
}

fn into_io(error: tungstenite::Error) -> io::Error {
    match error {
        tungstenite::Error::Io(e) => e,
        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => {
            io::ErrorKind::BrokenPipe.into()
        }
        tungstenite::Error::Protocol(
            tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
        ) => io::Error::new(io::ErrorKind::ConnectionReset, "the tunnel broke off"),
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.socket).poll_ready(cx)).map_err(into_io)?;
        let n = buf.len().min(FRAME);
        let message = Message::Binary(Bytes::copy_from_slice(&buf[..n]));
        Pin::new(&mut self.socket)
            .start_send(message)
            .map_err(into_io)?;
        Poll::Ready(Ok(n))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx).map_err(into_io)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.socket).poll_close(cx)) {
            Ok(())
            | Err(tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed) => {
                Poll::Ready(Ok(()))
            }
            Err(e) => Poll::Ready(Err(into_io(e))),
        }
    }
}

#[cfg(test)]
mod tests;
