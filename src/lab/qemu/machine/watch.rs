//! Follows a machine's QEMU and tells the node what the guest did by itself.

use std::sync::{Arc, Weak};

use super::life::Life;
use super::{Machine, Stage, lock};
use crate::lab::guest::Request;
use crate::lab::qemu::image::marker;
use crate::lab::qemu::process::ConsoleError;
use crate::lab::qemu::qmp::{Event, EventKind, EventsError};

/// How long a console is followed for the end of a boot; who waits for the guest gives up earlier.
const BOOT: std::time::Duration = std::time::Duration::from_secs(3600);

/// Follows the QEMU that carries the machine now.
pub(super) fn begin(machine: &Arc<Machine>) {
    follow(machine, &machine.life());
    if machine.blueprint.boots {
        await_boot(machine, 0);
    }
}

/// Follows one QEMU until it ends. What it says counts only while it carries the machine.
pub(super) fn follow(machine: &Arc<Machine>, life: &Arc<Life>) {
    let mut events = life.process.events();
    let (machine, life) = (Arc::downgrade(machine), Arc::clone(life));
    tokio::spawn(async move {
        loop {
            match events.next().await {
                Ok(event) => heard(&machine, &life, &event),
                Err(EventsError::Missed(count)) => {
                    tracing::warn!(count, "events of a guest were missed");
                }
                Err(EventsError::Lost(_)) => break,
            }
        }
        let exit = life.process.exited().await;
        if let Some(machine) = carried(&machine, &life) {
            machine.ended(exit.shutdown.is_some_and(|shutdown| shutdown.guest));
        }
    });
}

fn carried(machine: &Weak<Machine>, life: &Arc<Life>) -> Option<Arc<Machine>> {
    let machine = machine.upgrade()?;
    let now = machine.life();
    Arc::ptr_eq(&now, life).then_some(machine)
}

fn heard(machine: &Weak<Machine>, life: &Arc<Life>, event: &Event) {
    let Some(machine) = carried(machine, life) else {
        return;
    };
    match &event.kind {
        EventKind::BlockIoError(error) if error.action == "stop" => machine.ask(Request::IoError),
        EventKind::Reset { .. } if machine.stage() != Stage::Off => {
            lock(&machine.freeze).forget();
            machine.stage.send_replace(Stage::Booting);
            machine.ask(Request::Rebooted);
            if machine.blueprint.boots {
                await_boot(&machine, life.process.console().length());
            }
        }
        _ => {}
    }
}

/// Waits for the word that the operating system is up, in what the console says from `offset` on. A
/// guest that never says it stays where it is: who waits for it has a deadline.
fn await_boot(machine: &Arc<Machine>, offset: u64) {
    let life = machine.life();
    let machine = Arc::downgrade(machine);
    tokio::spawn(async move {
        let up = life
            .process
            .console()
            .await_marker(offset, marker::READY, BOOT)
            .await;
        match (up, carried(&machine, &life)) {
            (Ok(_), Some(machine)) => {
                machine.stage.send_if_modified(|stage| {
                    let booting = *stage == Stage::Booting;
                    if booting {
                        *stage = Stage::Up;
                    }
                    booting
                });
                lock(&machine.booting).take();
            }
            (Err(error), Some(_)) if !matches!(error, ConsoleError::Ended { .. }) => {
                tracing::warn!(%error, "a guest's console cannot be followed");
            }
            _ => {}
        }
    });
}

impl Machine {
    /// Tells the node. One that does not listen has let the guest go.
    pub(super) fn ask(&self, request: Request) {
        self.asks.send(request).ok();
    }

    /// Its QEMU ended; `clean` if the guest wanted it.
    fn ended(&self, clean: bool) {
        let was = self.stage.send_replace(Stage::Off);
        if was != Stage::Off {
            self.power_cut();
            self.ask(Request::Off { clean });
        }
    }
}
