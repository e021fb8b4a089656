//! Live migration of a machine: a second QEMU on the target's devices takes over from the first.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::life::{Devices, Life};
use super::{Machine, Stage, lock, watch};
use crate::lab::qemu::admission::TooLarge;
use crate::lab::qemu::hypervisor::LaunchError;
use crate::lab::qemu::migrate::{After, MigrateError, Options, migrate};

/// Why a machine did not move. It runs on where it was, unless it ended.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// It is on its way already.
    #[error("the guest is being migrated already")]
    Busy,
    /// There is no room for a second QEMU.
    #[error(transparent)]
    Room(#[from] TooLarge),
    /// The target did not start.
    #[error("the target did not start: {0}")]
    Target(#[from] LaunchError),
    /// The migration failed.
    #[error(transparent)]
    Migrate(#[from] MigrateError),
}

/// What a migration may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes per second at most; 0 is no limit.
    pub bandwidth: u64,
    /// How long the copying may take.
    pub limit: Duration,
}

/// A migration under way.
pub(super) struct Journey {
    abort: CancellationToken,
    target: Option<Arc<Life>>,
}

impl Journey {
    /// The power of both nodes is gone.
    pub(super) fn cut(&self) {
        self.abort.cancel();
        if let Some(target) = &self.target {
            target.cut();
        }
    }
}

impl Machine {
    /// Moves the guest to another QEMU on these devices. When this returns well, it runs there, and the
    /// first QEMU is gone.
    pub async fn migrate(
        self: &Arc<Self>,
        devices: Devices,
        limits: Limits,
    ) -> Result<(), MoveError> {
        let abort = CancellationToken::new();
        {
            let mut journey = lock(&self.journey);
            if journey.is_some() {
                return Err(MoveError::Busy);
            }
            *journey = Some(Journey {
                abort: abort.clone(),
                target: None,
            });
        }
        let root = self.blueprint.root.as_deref();
        let devices = self.striker.watch(&devices, root);
        let moved = self.travel(&devices, abort, limits).await;
        lock(&self.journey).take();
        moved
    }

    async fn travel(
        self: &Arc<Self>,
        devices: &Devices,
        abort: CancellationToken,
        limits: Limits,
    ) -> Result<(), MoveError> {
        let memory = self.blueprint.memory();
        let name = &self.blueprint.launch.name;
        let memory = self.hypervisor.admission.memory(name, memory).await?;
        let source = self.life();
        let target = Life::start(
            self.hypervisor.host(),
            (&self.blueprint, &self.slots()),
            devices,
            Some(&source),
            self.network.socket(),
            &self.hypervisor.folder(name),
        )
        .await?;
        let target = Arc::new(target);
        if let Some(journey) = lock(&self.journey).as_mut() {
            journey.target = Some(Arc::clone(&target));
        }
        watch::follow(self, &target);
        let options = Options {
            abort,
            max_bandwidth: limits.bandwidth,
            limit: limits.limit,
            ..Options::default()
        };
        match migrate(&source.process, &target.process, options).await {
            Ok(moved) => {
                tracing::info!(guest = %name, ?moved, "a guest was migrated");
                *lock(&self.life) = Arc::clone(&target);
                *lock(&self.memory) = Some(memory);
                source.cut();
                if self.stage() == Stage::Off {
                    target.cut();
                } else if let Err(error) = target.process.refresh_agent().await {
                    tracing::debug!(%error, "whether the agent lives on is not known");
                }
                Ok(())
            }
            Err(error) => {
                target.cut();
                if error.after == After::Outdated {
                    // Resumed, it would write what it had in mind over what the target wrote.
                    source.cut();
                }
                Err(error.into())
            }
        }
    }

    /// Gives up a migration that is under way.
    pub fn abort_migration(&self) {
        if let Some(journey) = lock(&self.journey).as_ref() {
            journey.abort.cancel();
        }
    }

    /// Kills the target of a migration that is under way.
    pub fn lose_target(&self) {
        let journey = lock(&self.journey);
        if let Some(target) = journey.as_ref().and_then(|journey| journey.target.as_ref()) {
            target.cut();
        }
    }
}
