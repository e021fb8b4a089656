//! Live migration of a machine: a second QEMU on the target's devices takes over from the first.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};
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
    /// It was given up before the copying of the memory began.
    #[error("the migration of the guest was cancelled on demand")]
    GivenUp,
    /// The limit passed before the copying of the memory began.
    #[error("the disks of the guest were not copied within {} s", .0.as_secs())]
    Overdue(Duration),
    /// The disks that are to move along were not copied to the end.
    #[error("the disks of the guest are not copied any more")]
    Disks,
    /// The target was killed before the copying of the memory began.
    #[error("the target of the guest's migration was killed before it took anything up")]
    TargetLost,
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
#[derive(Default)]
pub(super) struct Journey {
    abort: CancellationToken,
    /// The target is killed, whether or not it is there already.
    lost: CancellationToken,
    target: Option<Arc<Life>>,
}

impl Journey {
    /// The target is gone, or will be as soon as it comes.
    fn lose(&self) {
        self.lost.cancel();
        if let Some(target) = &self.target {
            target.cut();
        }
    }

    /// The power of both nodes is gone.
    pub(super) fn cut(&self) {
        self.abort.cancel();
        if let Some(target) = &self.target {
            target.cut();
        }
    }
}

impl Machine {
    /// Moves the guest to another QEMU on these devices, once `disks` says that those which move along are
    /// copied; false is that they are not copied any more. When this returns well, it runs there, and
    /// the first QEMU is gone.
    pub async fn migrate(
        self: &Arc<Self>,
        devices: Devices,
        disks: impl Future<Output = bool> + Send,
        limits: Limits,
    ) -> Result<(), MoveError> {
        let new = Journey::default();
        let (abort, lost) = (new.abort.clone(), new.lost.clone());
        {
            let mut journey = lock(&self.journey);
            if journey.is_some() {
                return Err(MoveError::Busy);
            }
            *journey = Some(new);
        }
        let moved = match copied(disks, (&abort, &lost), limits).await {
            Ok(limits) => {
                let root = self.blueprint.root.as_deref();
                let devices = self.striker.watch(&devices, root);
                self.travel(&devices, (abort, &lost), limits).await
            }
            Err(error) => Err(error),
        };
        lock(&self.journey).take();
        moved
    }

    async fn travel(
        self: &Arc<Self>,
        devices: &Devices,
        (abort, lost): (CancellationToken, &CancellationToken),
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
        if lost.is_cancelled() {
            target.cut();
            return Err(MoveError::TargetLost);
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

    /// Kills the target of a migration that is under way, or that is only being prepared.
    pub fn lose_target(&self) {
        if let Some(journey) = lock(&self.journey).as_ref() {
            journey.lose();
        }
    }
}

/// Waits until the disks that move along are copied; what is left of the limits.
async fn copied(
    disks: impl Future<Output = bool> + Send,
    (abort, lost): (&CancellationToken, &CancellationToken),
    limits: Limits,
) -> Result<Limits, MoveError> {
    let begun = Instant::now();
    let copied = tokio::select! {
        () = abort.cancelled() => return Err(MoveError::GivenUp),
        () = lost.cancelled() => return Err(MoveError::TargetLost),
        copied = timeout(limits.limit, disks) => copied,
    };
    match copied {
        Ok(true) => Ok(Limits {
            limit: limits.limit.saturating_sub(begun.elapsed()),
            ..limits
        }),
        Ok(false) => Err(MoveError::Disks),
        Err(_elapsed) => Err(MoveError::Overdue(limits.limit)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        bandwidth: 0,
        limit: Duration::from_secs(150),
    };

    #[tokio::test(start_paused = true)]
    async fn copying_disks_takes_its_time_off_the_limit_and_can_be_given_up() {
        let journey = Journey::default();
        let tokens = (&journey.abort, &journey.lost);
        let slow = async {
            tokio::time::advance(Duration::from_secs(50)).await;
            true
        };
        let left = copied(slow, tokens, LIMITS).await.unwrap();
        assert_eq!(left.limit, Duration::from_secs(100));
        let gone = copied(async { false }, tokens, LIMITS).await;
        assert!(matches!(gone, Err(MoveError::Disks)));
        let late = copied(std::future::pending(), tokens, LIMITS).await;
        assert!(matches!(late, Err(MoveError::Overdue(limit)) if limit == LIMITS.limit));
        journey.cut();
        let given_up = copied(std::future::pending(), tokens, LIMITS).await;
        assert!(matches!(given_up, Err(MoveError::GivenUp)));
    }

    #[tokio::test]
    async fn a_target_can_be_lost_before_there_is_one() {
        let journey = Journey::default();
        journey.lose();
        let tokens = (&journey.abort, &journey.lost);
        let lost = copied(std::future::pending(), tokens, LIMITS).await;
        assert!(matches!(lost, Err(MoveError::TargetLost)));
    }
}
