//! A real guest as the node sees it.

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::io::DuplexStream;

use super::{AgentReport, Guest};
use crate::lab::guest::{Dial, GuestDisk};
use crate::lab::qemu::Machine;

impl Guest for Arc<Machine> {
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
        self.as_ref().frozen()
    }

    fn console(&self) -> BoxFuture<'_, Vec<u8>> {
        self.as_ref().console().boxed()
    }

    fn power_cut(&self) {
        self.as_ref().power_cut();
    }

    fn release(&self) {
        self.as_ref().release();
    }

    fn connect(&self, port: u16) -> BoxFuture<'_, Result<DuplexStream, Dial>> {
        self.as_ref().connect(port).boxed()
    }

    fn report(&self) -> BoxFuture<'_, Option<AgentReport>> {
        self.as_ref().report().boxed()
    }

    fn pause(&self, paused: bool) -> BoxFuture<'_, Result<(), String>> {
        self.as_ref().pause(paused).boxed()
    }

    fn shut_down(&self) -> BoxFuture<'_, bool> {
        self.as_ref().shut_down().boxed()
    }

    fn reboot(&self, hard: bool) -> BoxFuture<'_, bool> {
        self.as_ref().reboot(hard).boxed()
    }

    fn freeze(&self) -> BoxFuture<'_, Result<Option<u64>, String>> {
        self.as_ref().freeze().boxed()
    }

    fn thaw(&self) -> BoxFuture<'_, Result<bool, String>> {
        self.as_ref().thaw().boxed()
    }

    fn expire(&self, freeze: u64) -> BoxFuture<'_, bool> {
        self.as_ref().expire(freeze).boxed()
    }

    fn plug(&self, disk: GuestDisk) -> BoxFuture<'_, Result<(), String>> {
        self.as_ref().plug(disk).boxed()
    }

    fn resize(&self, volume: String, bytes: u64) -> BoxFuture<'_, Result<(), String>> {
        async move { self.as_ref().resize(&volume, bytes).await }.boxed()
    }

    fn unplug(&self, volume: String) -> BoxFuture<'_, Result<(), String>> {
        async move { self.as_ref().unplug(&volume).await }.boxed()
    }

    fn real(&self) -> Option<&Self> {
        Some(self)
    }
}
