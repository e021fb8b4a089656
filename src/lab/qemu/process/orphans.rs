//! QEMUs that an earlier virtproof left behind, found by their pid files and killed for certain.
//!
//! QEMU writes the pid file itself (`-pidfile`), before it makes the machine, so there is no moment in
//! which a QEMU runs and its file waits for us to write it. What the file names is taken for that QEMU
//! only if its command line names this very file: a pid used again by something else never matches,
//! not even after a reboot of the host. The check and the kill go through one pidfd, which cannot come
//! to mean another process in between.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Name of the pid file in a QEMU's folder.
pub(super) const PID_FILE: &str = "qemu.pid";

/// How long a killed QEMU may take to be gone. Only a process stuck in the kernel takes longer.
const GONE: Duration = Duration::from_secs(10);

/// A QEMU that runs though nobody holds it.
#[derive(Debug)]
pub struct Orphan {
    pid: Pid,
    handle: OwnedFd,
    file: PathBuf,
}

/// Every QEMU that was started in a folder at or under `dir` and still runs. Files whose QEMU is gone
/// are removed. Call it only when no `Process` in these folders is held by anybody.
pub fn orphans(dir: &Path) -> io::Result<Vec<Orphan>> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            // Of the entry itself: a symbolic link is not followed.
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else if entry.file_name() == PID_FILE {
                found.extend(claim(&entry.path())?);
            }
        }
    }
    Ok(found)
}

/// The QEMU that a pid file names, if it runs; else the file goes.
fn claim(file: &Path) -> io::Result<Option<Orphan>> {
    if let Some(orphan) = running(file)? {
        return Ok(Some(orphan));
    }
    remove(file)?;
    Ok(None)
}

fn running(file: &Path) -> io::Result<Option<Orphan>> {
    let text = fs::read_to_string(file)?;
    let pid = text.trim().parse::<i32>().ok().filter(|pid| *pid > 0);
    let Some(pid) = pid.and_then(Pid::from_raw) else {
        return Ok(None);
    };
    let handle = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(handle) => handle,
        Err(rustix::io::Errno::SRCH) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    // Read after the handle was opened: it is about the handle's process, or that one is gone and the
    // kill will say so.
    let arguments = match fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())) {
        Ok(arguments) => arguments,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let path = fs::canonicalize(file)?;
    let ours = arguments
        .split(|byte| *byte == 0)
        .any(|argument| argument == path.as_os_str().as_bytes());
    Ok(ours.then(|| Orphan {
        pid,
        handle,
        file: file.to_owned(),
    }))
}

fn remove(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        // QEMU removes its file when it ends by itself.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

impl Orphan {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// The folder it was started in.
    pub fn dir(&self) -> &Path {
        self.file.parent().unwrap_or(&self.file)
    }

    /// Kills it, waits until it is gone, and removes its pid file. Blocks for at most ten seconds.
    pub fn kill(self) -> io::Result<()> {
        match pidfd_send_signal(&self.handle, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
        let limit = Timespec::try_from(GONE).map_err(io::Error::other)?;
        let mut ends = [PollFd::new(&self.handle, PollFlags::IN)];
        if poll(&mut ends, Some(&limit))? == 0 {
            return Err(io::Error::other(format!(
                "QEMU {} is still there {} s after SIGKILL",
                self.pid(),
                GONE.as_secs()
            )));
        }
        remove(&self.file)
    }
}
