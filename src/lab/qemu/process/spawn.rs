//! Starting QEMU so that it cannot outlive us.
//!
//! `setpriv --pdeathsig KILL` asks the kernel to kill QEMU when its parent ends, even by `kill -9`. By
//! prctl(2), PR_SET_PDEATHSIG, the "parent" is the *thread* that forked, and threads of an async runtime
//! end as they please. So one thread of our own, which ends only with the process, forks them all.

use std::io;
use std::process::Command as StdCommand;
use std::sync::{LazyLock, mpsc};

use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::lab::qemu::host::Host;

/// The command that starts QEMU, without its arguments: tied to the thread that spawns it, if the
/// host has `setpriv`.
pub(in crate::lab::qemu) fn tied(host: &Host) -> StdCommand {
    match &host.setpriv {
        Some(setpriv) => {
            let mut command = StdCommand::new(setpriv);
            command.args(["--pdeathsig", "KILL", "--"]).arg(&host.qemu);
            command
        }
        None => StdCommand::new(&host.qemu),
    }
}

struct Job {
    command: Command,
    /// Where the child's end is to be waited for.
    runtime: Handle,
    reply: oneshot::Sender<io::Result<Child>>,
}

static SPAWNER: LazyLock<io::Result<mpsc::Sender<Job>>> = LazyLock::new(|| {
    let (jobs, queue) = mpsc::channel::<Job>();
    std::thread::Builder::new()
        .name("qemu-spawner".into())
        .spawn(move || {
            for mut job in queue {
                let _context = job.runtime.enter();
                // A caller that left drops the child, which kills it if it was so configured.
                job.reply.send(job.command.spawn()).ok();
            }
        })?;
    Ok(jobs)
});

/// Spawns from the thread that lives as long as the process does.
pub(in crate::lab::qemu) async fn spawn(command: Command) -> io::Result<Child> {
    let jobs = SPAWNER.as_ref().map_err(|error| {
        io::Error::new(error.kind(), format!("no thread to spawn from: {error}"))
    })?;
    let (reply, spawned) = oneshot::channel();
    let job = Job {
        command,
        runtime: Handle::current(),
        reply,
    };
    let ended = || io::Error::other("the thread that spawns QEMU ended");
    jobs.send(job).map_err(|_unsent| ended())?;
    spawned.await.map_err(|_dropped| ended())?
}
