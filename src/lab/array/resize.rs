//! Images that grow, as CSI's ControllerExpandVolume has them grow, and replicas that follow.
//!
//! Contract: an image grows at once for everybody who has it open; its replica has the new size with the
//! first mirror snapshot that was cut after it, and not before. What an image grew by reads as zeros.

use super::core::{Core, Key};
use super::status::Outcome;
use super::{Array, Code, Status};
use crate::history::event::Site;
use crate::lab::world::PAGE;

impl Core {
    /// Makes an image at least so large. One that is larger stays as it is: asking again is no error.
    fn grow(&mut self, key: &Key, bytes: u64) -> Outcome {
        if !bytes.is_multiple_of(PAGE as u64) {
            let text = format!("size {bytes} is not a multiple of {PAGE}");
            return Err(Status::new(Code::InvalidArgument, text));
        }
        let image = self.image_mut(key)?;
        if image.size >= bytes {
            return Ok(());
        }
        if !image.writable() {
            let text = format!("failed to resize {}: (30) Read-only file system", key.1);
            return Err(Status::new(Code::Internal, text));
        }
        let was = std::mem::replace(&mut image.size, bytes);
        self.strike_at_growth(key, was);
        Ok(())
    }

    /// A replica becomes as large as the snapshot that it holds now.
    pub(super) fn take_size(&mut self, key: &Key, bytes: u64) {
        if self.keeps_size(key, bytes) {
            return;
        }
        if let Some(image) = self.images.get_mut(key) {
            image.size = bytes;
        }
    }
}

impl Array {
    /// Makes an image at least so large. `Internal` for a replica, which only its primary changes.
    pub fn resize(&self, site: Site, handle: &str, bytes: u64) -> Outcome {
        self.with(site, handle, |core, key, _| core.grow(key, bytes))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::history::event::Site::{Primary, Secondary};
    use crate::lab::array::{Config, MirrorSpec};
    use crate::lab::clock::LabClock;
    use crate::lab::faults::{Board, Fault};
    use crate::lab::world::handle;

    const BYTES: u64 = 64 * PAGE as u64;

    /// A mirrored image and its mirror daemons, which end with the test.
    async fn mirrored(board: &Arc<Board>) -> (Array, String, String) {
        let array = Array::new(Config::default(), LabClock::new(1.0), Arc::clone(board));
        let (here, there) = (handle(Primary, "a"), handle(Secondary, "a"));
        array.create(Primary, &here, BYTES).unwrap();
        let spec = MirrorSpec {
            interval: Some(Duration::from_secs(60)),
            group: None,
        };
        array.enable(Primary, &here, &spec).unwrap();
        // The schedule comes with the promotion.
        let promoted = array.promote(Primary, &here, false, &spec).await;
        promoted.unwrap();
        let daemon = array.clone();
        tokio::spawn(async move { daemon.run(CancellationToken::new()).await });
        (array, here, there)
    }

    /// Lets paused time pass, and the daemon do what comes due in it.
    #[expect(
        clippy::disallowed_methods,
        reason = "time is paused, so this waits for nothing"
    )]
    async fn pass(seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_image_grows_under_its_user_and_its_replica_with_the_next_snapshot() {
        let (array, here, there) = mirrored(&Arc::default()).await;
        pass(5).await;
        assert_eq!(array.size(Secondary, &there), Ok(BYTES));
        let disk = array.attach(Primary, &here, "east-node-0", true).unwrap();
        assert!(disk.write_at(BYTES, &[1; PAGE]).is_err());
        array.resize(Primary, &here, 2 * BYTES).unwrap();
        assert_eq!(disk.size(), 2 * BYTES);
        let mut page = [9; PAGE];
        disk.read_at(BYTES, &mut page).unwrap();
        assert_eq!(page, [0; PAGE]);
        disk.write_at(BYTES, &[1; PAGE]).unwrap();
        assert_eq!(array.size(Secondary, &there), Ok(BYTES), "not crossed yet");
        pass(65).await;
        assert_eq!(array.size(Secondary, &there), Ok(2 * BYTES));
        let refused = array.resize(Secondary, &there, 4 * BYTES);
        assert_eq!(refused.map_err(|e| e.code), Err(Code::Internal));
        assert_eq!(array.resize(Primary, &here, BYTES), Ok(()), "never smaller");
        assert_eq!(array.size(Primary, &here), Ok(2 * BYTES));
        let odd = array.resize(Primary, &here, 2 * BYTES + 1);
        assert_eq!(odd.map_err(|e| e.code), Err(Code::InvalidArgument));
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_that_keeps_its_size_is_cut_off() {
        let board = Arc::<Board>::default();
        board.plant(Fault::ReplicaKeepsSize);
        let (array, here, there) = mirrored(&board).await;
        pass(5).await;
        array.resize(Primary, &here, 2 * BYTES).unwrap();
        pass(65).await;
        assert_eq!(array.size(Secondary, &there), Ok(BYTES));
        assert_eq!(array.strikes().len(), 1);
    }
}
