//! A simulated guest as the node sees it: everything but freezing and thawing is answered at once.

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::{BoxFuture, ready};
use serde_json::json;
use tokio::io::DuplexStream;

use super::{AgentReport, FileSystem, Guest};
use crate::lab::guest::{Dial, Guest as Simulated, GuestDisk, KERNEL};

/// Version of the agent that simulated guests carry.
const AGENT: &str = "9.2.0";

impl Guest for Arc<Simulated> {
    fn bring_up(&self) {
        self.as_ref().bring_up();
    }

    fn hold_sshd(&self, held: bool) {
        self.as_ref().hold_sshd(held);
    }

    fn moved(&self) {
        self.as_ref().moved();
    }

    fn reacts(&self) -> bool {
        self.as_ref().reacts()
    }

    fn is_off(&self) -> bool {
        self.as_ref().is_off()
    }

    fn agent(&self) -> bool {
        self.as_ref().agent()
    }

    fn frozen(&self) -> bool {
        self.freezer().frozen()
    }

    fn console(&self) -> BoxFuture<'_, Vec<u8>> {
        ready(self.as_ref().console().into_bytes()).boxed()
    }

    fn power_cut(&self) {
        self.as_ref().power_cut();
    }

    fn release(&self) {
        self.as_ref().release();
    }

    fn connect(&self, port: u16) -> BoxFuture<'_, Result<DuplexStream, Dial>> {
        async move { self.as_ref().connect(port) }.boxed()
    }

    fn report(&self) -> BoxFuture<'_, Option<AgentReport>> {
        ready(self.as_ref().agent().then(|| report(self))).boxed()
    }

    fn pause(&self, paused: bool) -> BoxFuture<'_, Result<(), String>> {
        self.as_ref().pause(paused);
        ready(Ok(())).boxed()
    }

    fn shut_down(&self) -> BoxFuture<'_, bool> {
        let guest = Self::clone(self);
        let down = tokio::task::spawn_blocking(move || guest.as_ref().shut_down());
        async move { down.await.unwrap_or(false) }.boxed()
    }

    fn reboot(&self, hard: bool) -> BoxFuture<'_, bool> {
        let guest = Self::clone(self);
        let down = tokio::task::spawn_blocking(move || {
            if hard {
                guest.as_ref().release();
            } else {
                guest.as_ref().shut_down();
            }
        });
        async move {
            if let Err(error) = down.await {
                tracing::debug!(%error, "a guest was not switched off before its reboot");
            }
            false
        }
        .boxed()
    }

    fn freeze(&self) -> BoxFuture<'_, Result<Option<u64>, String>> {
        let guest = Self::clone(self);
        let frozen = tokio::task::spawn_blocking(move || guest.freezer().freeze());
        async move {
            let frozen = frozen.await.map_err(|error| error.to_string())?;
            frozen.map_err(|error| error.to_string())
        }
        .boxed()
    }

    fn thaw(&self) -> BoxFuture<'_, Result<bool, String>> {
        let guest = Self::clone(self);
        let thawed = tokio::task::spawn_blocking(move || guest.freezer().thaw());
        async move { thawed.await.map_err(|error| error.to_string()) }.boxed()
    }

    fn plug(&self, disk: GuestDisk) -> BoxFuture<'_, Result<(), String>> {
        ready(self.as_ref().plug(&disk)).boxed()
    }

    fn resize(&self, volume: String, _: u64) -> BoxFuture<'_, Result<(), String>> {
        ready(self.as_ref().resized(&volume)).boxed()
    }

    fn unplug(&self, volume: String) -> BoxFuture<'_, Result<(), String>> {
        self.as_ref().unplug(&volume);
        ready(Ok(())).boxed()
    }

    fn expire(&self, freeze: u64) -> BoxFuture<'_, bool> {
        let guest = Self::clone(self);
        let thawed = tokio::task::spawn_blocking(move || guest.freezer().expire(freeze));
        async move { thawed.await.unwrap_or(false) }.boxed()
    }
}

fn report(guest: &Simulated) -> AgentReport {
    let commands = [
        "guest-fsfreeze-status",
        "guest-fsfreeze-freeze",
        "guest-fsfreeze-thaw",
        "guest-shutdown",
    ];
    AgentReport {
        version: AGENT.to_owned(),
        commands: commands.map(|name| (name.to_owned(), true)).to_vec(),
        frozen: guest.freezer().frozen(),
        hostname: guest.hostname().map(str::to_owned),
        timezone: "UTC, 0".to_owned(),
        users: json!([]),
        os: os(guest),
        // The root alone is mounted for good; its ledger volumes come and go with the probe.
        file_systems: vec![FileSystem {
            disk_name: "vda1".to_owned(),
            mount_point: "/".to_owned(),
            kind: "ext4".to_owned(),
            used: 1 << 30,
            total: 4 << 30,
            serials: Vec::new(),
        }],
        interface: Some("eth0".to_owned()),
    }
}

fn os(guest: &Simulated) -> serde_json::Value {
    let Some(os) = guest.os() else {
        return json!({});
    };
    json!({
        "id": os.id,
        "name": os.id,
        "prettyName": format!("{} (lab)", os.id),
        "kernelRelease": KERNEL,
        "machine": os.arch,
        "version": "1",
        "versionId": "1",
    })
}
