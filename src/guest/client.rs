//! Our side of an SSH connection as russh asks for it: compares the host key, remembers why the
//! connection ended, and lets the server open nothing.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use russh::client::{ChannelOpenHandle, DisconnectReason, Handler, Msg, Session};
use russh::keys::PublicKeyOrCertificate;
use russh::{Channel, Error as SshError};

use super::error::GuestError;
use super::hostkey::{Compared, HostKeyRule, HostSeen, Pins};

/// What a connection leaves behind for those who hold its handle.
#[derive(Default)]
pub(super) struct Trace {
    /// The host key as compared, once the key exchange is over.
    pub(super) host: OnceLock<HostSeen>,
    ended: Mutex<Option<String>>,
}

impl Trace {
    /// Why the connection ended, as far as it is known.
    pub(super) fn ended(&self) -> String {
        self.ended
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
            .unwrap_or_else(|| "the stream ended".into())
    }

    fn set_ended(&self, why: String) {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
    }
}

/// An error inside the connection: ours, typed, or russh's.
#[derive(Debug)]
pub(super) enum Inner {
    /// Decided here.
    Ours(GuestError),
    /// Seen by russh.
    Ssh(SshError),
}

impl From<SshError> for Inner {
    fn from(error: SshError) -> Self {
        Self::Ssh(error)
    }
}

/// Whether the error means that the stream is gone rather than that the peers disagree.
pub(super) const fn is_cut(error: &SshError) -> bool {
    matches!(
        error,
        SshError::IO(_)
            | SshError::Disconnect
            | SshError::HUP
            | SshError::ConnectionTimeout
            | SshError::KeepaliveTimeout
            | SshError::InactivityTimeout
            | SshError::SendError
            | SshError::RecvError
    )
}

/// The callbacks.
pub(super) struct Client {
    pub(super) pins: Arc<Pins>,
    pub(super) rule: HostKeyRule,
    pub(super) trace: Arc<Trace>,
}

impl Handler for Client {
    type Error = Inner;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, Inner> {
        match self.pins.compare(&self.rule, &key.public_key()) {
            Ok(Compared::Accepted(seen)) => {
                // A second key exchange on the same connection compares again and finds the pin.
                self.trace.host.get_or_init(|| seen);
                Ok(true)
            }
            Ok(Compared::Changed {
                lineage,
                pinned,
                seen,
            }) => Err(Inner::Ours(GuestError::HostKeyChanged {
                lineage,
                pinned,
                seen,
            })),
            Err(error) => Err(Inner::Ours(GuestError::Pins(error))),
        }
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Inner>) -> Result<(), Inner> {
        match reason {
            DisconnectReason::ReceivedDisconnect(info) => {
                let said = super::error::printable_tail(info.message.as_bytes(), 200);
                self.trace.set_ended(format!(
                    "the server disconnected ({:?}) {said}",
                    info.reason_code
                ));
                Ok(())
            }
            DisconnectReason::Error(error) => {
                self.trace.set_ended(match &error {
                    Inner::Ours(error) => error.to_string(),
                    Inner::Ssh(error) => error.to_string(),
                });
                Err(error)
            }
        }
    }

    // A guest has no business opening channels towards the host. Each refusal is the drop of the
    // reply handle.

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        _channel: Channel<Msg>,
        _connected_address: &str,
        _connected_port: u32,
        _originator_address: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Inner> {
        drop(reply);
        Ok(())
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        _channel: Channel<Msg>,
        _socket_path: &str,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Inner> {
        drop(reply);
        Ok(())
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        _channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Inner> {
        drop(reply);
        Ok(())
    }

    async fn server_channel_open_session(
        &mut self,
        _channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Inner> {
        drop(reply);
        Ok(())
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _channel: Channel<Msg>,
        _host_to_connect: &str,
        _port_to_connect: u32,
        _originator_address: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Inner> {
        drop(reply);
        Ok(())
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _channel: Channel<Msg>,
        _socket_path: &str,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Inner> {
        drop(reply);
        Ok(())
    }

    async fn server_channel_open_x11(
        &mut self,
        _channel: Channel<Msg>,
        _originator_address: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Inner> {
        drop(reply);
        Ok(())
    }
}
