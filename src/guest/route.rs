//! The ways to a byte stream that ends at a TCP port of the guest. A route is a description: it
//! can be opened any number of times, and each opening is one connection.

use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use super::error::GuestError;
use super::hostkey::{HostKeyRule, Pins};
use super::keys::LoginKey;
use super::limit::within;
use super::shell::{Login, Shell};
use crate::cluster::{Cluster, Deadline, Error};

/// Any stream of bytes in both directions.
pub trait ByteStream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> ByteStream for T {}

/// An opened route.
pub type BoxStream = Box<dyn ByteStream>;

/// Why a stream could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct DialError {
    /// What was seen.
    pub why: String,
    /// Trying again cannot help.
    pub permanent: bool,
}

/// What opens a TCP stream to a port of a VMI through its cluster's API server.
pub trait PortForward: Send + Sync {
    /// One new stream to `port` of the VMI. A refused port, an absent or paused VMI and an API
    /// server that is down are passing conditions; a missing permission is not.
    fn open<'a>(
        &'a self,
        namespace: &'a str,
        vmi: &'a str,
        port: u16,
    ) -> BoxFuture<'a, Result<BoxStream, DialError>>;
}

impl PortForward for Cluster {
    fn open<'a>(
        &'a self,
        namespace: &'a str,
        vmi: &'a str,
        port: u16,
    ) -> BoxFuture<'a, Result<BoxStream, DialError>> {
        Box::pin(async move {
            match self.port_forward(namespace, vmi, port).await {
                Ok(tunnel) => Ok(Box::new(tunnel) as BoxStream),
                Err(error) => Err(DialError {
                    permanent: matches!(
                        error,
                        Error::Forbidden { .. }
                            | Error::MissingKind { .. }
                            | Error::Invalid { .. }
                            | Error::Kubeconfig { .. }
                    ),
                    why: error.to_string(),
                }),
            }
        })
    }
}

/// A TCP endpoint by name or address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// Host name or IP address, IPv6 without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl HostPort {
    /// An endpoint.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
        }
    }

    /// Reads `host`, `host:port`, `[v6]`, `[v6]:port` or a bare IPv6 address.
    pub fn parse(text: &str, default_port: u16) -> Result<Self, String> {
        let bad = |why: &str| format!("`{text}` is not HOST[:PORT]: {why}");
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, rest) = rest
                .split_once(']')
                .ok_or_else(|| bad("no closing bracket"))?;
            match rest.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if rest.is_empty() => (host, None),
                None => return Err(bad("text after the bracket")),
            }
        } else {
            match text.split_once(':') {
                Some((_, rest)) if rest.contains(':') => (text, None),
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            }
        };
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(bad("no usable host name"));
        }
        let port = match port {
            None => default_port,
            Some(port) => match port.parse() {
                Ok(0) | Err(_) => return Err(bad("the port is not 1 to 65535")),
                Ok(port) => port,
            },
        };
        Ok(Self::new(host, port))
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// An SSH server that opens TCP streams for us. Its session is shared by all routes through it and
/// made anew when it breaks.
pub struct JumpHost {
    route: Route,
    login: Login,
    session: Mutex<Option<Arc<Shell>>>,
}

impl JumpHost {
    /// A jump host reached over any route, itself possibly through another one.
    pub fn new(route: Route, login: Login) -> Arc<Self> {
        Arc::new(Self {
            route,
            login,
            session: Mutex::new(None),
        })
    }

    /// The jump host of a plan, `user@host[:port]`, its host key pinned like a guest's.
    pub fn parse(text: &str, key: LoginKey, pins: Arc<Pins>) -> Result<Arc<Self>, String> {
        let (user, host) = text
            .split_once('@')
            .filter(|(user, _)| !user.is_empty())
            .ok_or_else(|| format!("`{text}` is not USER@HOST[:PORT]"))?;
        let addr = HostPort::parse(host, 22)?;
        let lineage = format!("jump host {addr}");
        Ok(Self::new(
            Route::Direct { addr },
            Login {
                user: user.to_owned(),
                key,
                pins,
                host_key: HostKeyRule::Pinned { lineage },
            },
        ))
    }

    /// A stream to `target` as the jump host resolves it.
    async fn stream(
        &self,
        target: &HostPort,
        deadline: &Deadline,
    ) -> Result<BoxStream, GuestError> {
        let mut session = self.session.lock().await;
        let known = session.as_ref().filter(|shell| !shell.is_closed());
        let shell = if let Some(shell) = known {
            Arc::clone(shell)
        } else {
            let connecting = Box::pin(Shell::connect(&self.route, &self.login, deadline, None));
            let shell = Arc::new(connecting.await?);
            *session = Some(Arc::clone(&shell));
            shell
        };
        drop(session);
        shell.forward(target, deadline).await
    }
}

impl fmt::Debug for JumpHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JumpHost({}@{})", self.login.user, self.route)
    }
}

/// A way to a byte stream that ends at a TCP port of a guest.
#[derive(Clone)]
pub enum Route {
    /// KubeVirt's port-forward subresource.
    PortForward {
        /// The cluster that runs the VMI.
        via: Arc<dyn PortForward>,
        /// Namespace.
        namespace: String,
        /// VMI name, which a migration does not change.
        vmi: String,
        /// Port in the guest.
        port: u16,
    },
    /// TCP from this host.
    Direct {
        /// Where to.
        addr: HostPort,
    },
    /// TCP from a jump host.
    Jump {
        /// The jump host.
        via: Arc<JumpHost>,
        /// Where to, as the jump host resolves it.
        target: HostPort,
    },
}

impl Route {
    /// Opens one stream.
    pub async fn open(&self, deadline: &Deadline) -> Result<BoxStream, GuestError> {
        match self {
            Self::PortForward {
                via,
                namespace,
                vmi,
                port,
            } => {
                let dial = async {
                    via.open(namespace, vmi, *port)
                        .await
                        .map_err(|e| self.dial_error(&e.why, e.permanent))
                };
                within(deadline, self, || "no answer yet".into(), dial).await
            }
            Self::Direct { addr } => {
                let dial = async {
                    let tcp = TcpStream::connect((addr.host.as_str(), addr.port))
                        .await
                        .map_err(|e| self.dial_error(&e, false))?;
                    tcp.set_nodelay(true)
                        .map_err(|e| self.dial_error(&e, false))?;
                    Ok(Box::new(tcp) as BoxStream)
                };
                within(deadline, self, || "no answer yet".into(), dial).await
            }
            Self::Jump { via, target } => via.stream(target, deadline).await,
        }
    }

    fn dial_error(&self, why: &dyn fmt::Display, permanent: bool) -> GuestError {
        GuestError::Dial {
            route: self.to_string(),
            why: why.to_string(),
            permanent,
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PortForward {
                namespace,
                vmi,
                port,
                ..
            } => write!(f, "port {port} of VMI {namespace}/{vmi} by port-forward"),
            Self::Direct { addr } => write!(f, "{addr} by TCP"),
            Self::Jump { via, target } => {
                write!(
                    f,
                    "{target} from jump host {}@{}",
                    via.login.user, via.route
                )
            }
        }
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Route({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_in_every_common_form() {
        let read = |text| HostPort::parse(text, 22).map(|e| e.to_string());
        assert_eq!(read("db.example"), Ok("db.example:22".into()));
        assert_eq!(read("db.example:2022"), Ok("db.example:2022".into()));
        assert_eq!(read("[fd00::1]:7"), Ok("[fd00::1]:7".into()));
        assert_eq!(read("[fd00::1]"), Ok("[fd00::1]:22".into()));
        assert_eq!(read("fd00::1"), Ok("[fd00::1]:22".into()));
        for bad in ["", ":22", "a:0", "a:x", "a:65536", "[a", "[a]b", "a b"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_jump_host_needs_a_user() {
        let key = LoginKey::generate("").unwrap();
        let pins = Arc::new(Pins::in_memory());
        let parse = |text| JumpHost::parse(text, key.clone(), Arc::clone(&pins));
        assert_eq!(
            format!("{:?}", parse("ops@bastion:2222").unwrap()),
            "JumpHost(ops@bastion:2222 by TCP)"
        );
        assert!(parse("bastion").is_err());
        assert!(parse("@bastion").is_err());
    }
}
