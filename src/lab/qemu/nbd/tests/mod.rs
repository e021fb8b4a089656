//! The server seen by clients: raw bytes, a model, and QEMU's own tools. Numbers of the protocol are
//! written out here as `proto.md` has them, so that a wrong one in `wire` is noticed.

mod client;
mod commands;
mod disk;
mod garbage;
mod lifecycle;
mod model;
mod negotiation;
mod qemu;

use std::sync::Arc;
use std::time::{Duration, Instant};

use self::disk::TestDisk;
use super::{Export, Server};

/// An export of a disk under the name `data`.
fn export(disk: &Arc<TestDisk>) -> Export {
    Export {
        disk: Arc::clone(disk) as Arc<_>,
        read_only: false,
        name: "data".into(),
        description: "a test".into(),
    }
}

/// A served disk.
struct Fixture {
    disk: Arc<TestDisk>,
    server: Server,
    dir: tempfile::TempDir,
}

impl Fixture {
    fn new(pages: usize, dsync: bool, read_only: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(TestDisk::new(pages, dsync));
        let mut export = export(&disk);
        export.read_only = read_only;
        let server = Server::listen(&dir.path().join("s"), export).unwrap();
        Self { disk, server, dir }
    }
}

/// Waits for a condition that another thread makes true.
fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(50);
    while !condition() {
        assert!(Instant::now() < deadline, "never came: {what}");
        std::thread::yield_now();
    }
}
