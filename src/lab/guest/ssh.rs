//! A guest's sshd: public-key logins of its users, any number of exec channels per connection, with
//! separate standard output and error and an exit status. Nothing else is offered.

use std::collections::HashMap;
use std::sync::Arc;

use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::keys::{PrivateKey, PublicKey};
use russh::server::{
    self, Auth, ChannelOpenHandle, Config, Handler, Msg, Session, VerifiedPublicKey,
};
use russh::{Channel, ChannelId, ChannelReadHalf, ChannelWriteHalf, MethodKind, MethodSet, SshId};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::machine::Machine;
use super::shell::{Out, Shell, Stdio};

/// sshd's configuration with the guest's host key.
pub(super) fn config(host_key: &[u8; 32]) -> Arc<Config> {
    let key = PrivateKey::from(Ed25519Keypair::from_seed(host_key));
    Arc::new(Config {
        server_id: SshId::Standard("SSH-2.0-OpenSSH_9.9".into()),
        methods: MethodSet::from([MethodKind::PublicKey].as_slice()),
        keys: vec![key],
        // A lab guest gains nothing from slowing an attacker down, and a first `none` attempt is
        // how every OpenSSH client asks for the methods.
        auth_rejection_time: std::time::Duration::ZERO,
        inactivity_timeout: None,
        ..Config::default()
    })
}

/// The public half of a guest's host key.
pub(super) fn public_key(host_key: &[u8; 32]) -> PublicKey {
    PublicKey::from(Ed25519Keypair::from_seed(host_key).public)
}

/// Serves one connection until it ends.
pub(super) async fn serve(
    config: Arc<Config>,
    machine: Arc<Machine>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<(), russh::Error> {
    let login = Login {
        machine,
        user: None,
        open: HashMap::new(),
    };
    server::run_stream(config, stream, login).await?.await
}

struct Login {
    machine: Arc<Machine>,
    user: Option<String>,
    open: HashMap<ChannelId, Channel<Msg>>,
}

impl Login {
    fn authorised(&self, name: &str, offered: &PublicKey) -> bool {
        self.machine.user(name).is_some_and(|user| {
            user.keys
                .iter()
                .filter_map(|line| PublicKey::from_openssh(line.trim()).ok())
                .any(|key| key.key_data() == offered.key_data())
        })
    }
}

impl Handler for Login {
    type Error = russh::Error;

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: server::PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        Ok(if self.authorised(user, offer.public_key) {
            Auth::Accept
        } else {
            Auth::reject()
        })
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        if self.authorised(user, key.public_key) {
            self.user = Some(user.to_owned());
            Ok(Auth::Accept)
        } else {
            Ok(Auth::reject())
        }
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

    async fn exec_request(
        &mut self,
        id: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let (Some(channel), Some(user), Ok(line)) = (
            self.open.remove(&id),
            self.user.clone(),
            str::from_utf8(command),
        ) else {
            return session.channel_failure(id);
        };
        session.channel_success(id)?;
        let shell = Shell::new(Arc::clone(&self.machine), user);
        let line = line.to_owned();
        tokio::spawn(async move {
            if let Err(error) = exec(shell, &line, channel).await {
                tracing::debug!(%error, "a guest's client left before its command ended");
            }
        });
        Ok(())
    }

    async fn shell_request(
        &mut self,
        id: ChannelId,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(id)
    }

    async fn channel_close(
        &mut self,
        id: ChannelId,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.open.remove(&id);
        Ok(())
    }
}

async fn exec(shell: Shell, line: &str, channel: Channel<Msg>) -> Result<(), russh::Error> {
    let (from_client, to_client) = channel.split();
    let (input, feed) = tokio::io::duplex(64 * 1024);
    let mut stdio = Stdio {
        input: Box::new(input),
        out: Out::Stream(Box::new(to_client.make_writer())),
        err: Out::Stream(Box::new(to_client.make_writer_ext(Some(1)))),
    };
    let status = tokio::select! {
        status = shell.run(line, &mut stdio) => Some(status),
        () = feeding(from_client, feed) => None,
    };
    drop(stdio);
    finish(&to_client, status).await
}

/// Feeds the client's bytes to the command. Ends only when the channel is gone for good: after the
/// client's EOF the command still runs, after its close nobody wants to know the outcome.
async fn feeding(mut from_client: ChannelReadHalf, feed: impl AsyncWrite + Unpin) {
    let mut feed = Some(feed);
    while let Some(message) = from_client.wait().await {
        match message {
            russh::ChannelMsg::Data { data } => {
                if let Some(open) = &mut feed
                    && open.write_all(&data).await.is_err()
                {
                    feed = None;
                }
            }
            russh::ChannelMsg::Eof => feed = None,
            russh::ChannelMsg::Close => return,
            _ => {}
        }
    }
}

async fn finish(
    to_client: &ChannelWriteHalf<Msg>,
    status: Option<u32>,
) -> Result<(), russh::Error> {
    if let Some(status) = status {
        to_client.exit_status(status).await?;
        to_client.eof().await?;
    }
    to_client.close().await
}
