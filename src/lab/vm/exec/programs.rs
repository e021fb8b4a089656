//! The programs in a launcher's containers. They act on the pod, not on the guest; only
//! `virt-freezer` reaches the guest, through the launcher.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::freezer;
use crate::lab::vm::site::Ctx;

/// A program that ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) code: i32,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
}

impl Ended {
    pub(super) fn code(code: i32) -> Self {
        Self {
            code,
            ..Self::default()
        }
    }

    /// It complained.
    pub(super) fn error(code: i32, said: impl Into<String>) -> Self {
        Self {
            code,
            stdout: Vec::new(),
            stderr: said.into().into_bytes(),
        }
    }
}

/// Where the runtime looks for a program that is given without a path.
const PATH: [&str; 4] = [
    "/usr/local/bin/",
    "/usr/local/sbin/",
    "/usr/bin/",
    "/usr/sbin/",
];
/// What `compute` has of those that matter.
const COMPUTE: [&str; 6] = [
    "/usr/bin/virt-freezer",
    "/usr/bin/fsfreeze",
    "/usr/bin/true",
    "/usr/bin/false",
    "/usr/bin/echo",
    "/usr/bin/sleep",
];
/// Folders of the pod's own file system.
const FOLDERS: [&str; 10] = [
    "/", "/dev", "/etc", "/home", "/mnt", "/proc", "/run", "/tmp", "/usr", "/var",
];

/// Runs a program to its end. The error is the container runtime's, which could not start it.
pub(super) async fn run(
    ctx: &Ctx,
    pod: &Arc<Value>,
    container: &str,
    argv: &[String],
) -> Result<Ended, String> {
    let Some((program, arguments)) = argv.split_first() else {
        return Err(runtime(ctx, "exec: no command was given"));
    };
    let found = if container == "compute" {
        find(program)
    } else {
        None
    };
    let Some(found) = found else {
        let why = if program.contains('/') {
            format!("exec: \"{program}\": stat {program}: no such file or directory")
        } else {
            format!("exec: \"{program}\": executable file not found in $PATH")
        };
        return Err(runtime(ctx, &why));
    };
    Ok(match found {
        "virt-freezer" => freezer::run(ctx, pod, arguments).await,
        "fsfreeze" => fsfreeze(arguments),
        "false" => Ended::code(1),
        "echo" => Ended {
            stdout: format!("{}\n", arguments.join(" ")).into_bytes(),
            ..Ended::default()
        },
        "sleep" => sleep(ctx, arguments).await,
        _ => Ended::default(),
    })
}

/// The name of a program that is there.
fn find(program: &str) -> Option<&'static str> {
    let here = |path: &str| COMPUTE.into_iter().find(|there| *there == path);
    let found = if program.contains('/') {
        // `/bin` is a link to `/usr/bin`.
        let path = program
            .strip_prefix("/bin/")
            .map(|rest| format!("/usr/bin/{rest}"));
        here(path.as_deref().unwrap_or(program))
    } else {
        let mut folders = PATH.into_iter();
        folders.find_map(|folder| here(&format!("{folder}{program}")))
    };
    found?.rsplit('/').next()
}

/// What containerd and runc say together; the number is the exec's own.
fn runtime(ctx: &Ctx, why: &str) -> String {
    let id = blake3::hash(&ctx.next().to_le_bytes()).to_hex();
    format!(
        "failed to exec in container: failed to start exec \"{id}\": OCI runtime exec failed: exec \
         failed: unable to start container process: {why}: unknown"
    )
}

/// `fsfreeze` in the pod: the user of a launcher may freeze nothing, and if it could, it would freeze
/// the pod's file systems, not the guest's.
fn fsfreeze(arguments: &[String]) -> Ended {
    let is = |short: &str, long: &str| arguments.iter().any(|a| a == short || a == long);
    let (freeze, thaw) = (is("-f", "--freeze"), is("-u", "--unfreeze"));
    if !freeze && !thaw {
        let said = "fsfreeze: neither --freeze or --unfreeze specified\n";
        return Ended::error(1, said);
    }
    let Some(at) = arguments.iter().find(|argument| !argument.starts_with('-')) else {
        return Ended::error(1, "fsfreeze: no filename specified\n");
    };
    let folder = at.trim_end_matches('/');
    let folder = if folder.is_empty() { "/" } else { folder };
    if !FOLDERS.contains(&folder) {
        let said = format!("fsfreeze: cannot open {at}: No such file or directory\n");
        return Ended::error(1, said);
    }
    let what = if freeze { "freeze" } else { "unfreeze" };
    Ended::error(
        1,
        format!("fsfreeze: {at}: {what} failed: Operation not permitted\n"),
    )
}

/// `sleep`, in true time: whoever waits for it counts by a clock of their own.
async fn sleep(ctx: &Ctx, arguments: &[String]) -> Ended {
    let Some(seconds) = arguments.first() else {
        return Ended::error(
            1,
            "sleep: missing operand\nTry 'sleep --help' for more information.\n",
        );
    };
    let number = seconds.strip_suffix('s').unwrap_or(seconds).parse().ok();
    match number.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()) {
        Some(time) => {
            ctx.clock.keep(time).await;
            Ended::default()
        }
        None => Ended::error(1, format!("sleep: invalid time interval '{seconds}'\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_by_path_and_by_name() {
        assert_eq!(find("true"), Some("true"));
        assert_eq!(find("/bin/false"), Some("false"));
        assert_eq!(find("/usr/bin/virt-freezer"), Some("virt-freezer"));
        assert_eq!(find("/usr/local/bin/true"), None);
        assert_eq!(find("sh"), None);
    }

    #[test]
    fn fsfreeze_freezes_nothing_in_a_pod() {
        let said = |arguments: &[&str]| {
            let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
            let ended = fsfreeze(&arguments);
            assert_eq!((ended.code, ended.stdout.len()), (1, 0));
            String::from_utf8(ended.stderr).unwrap()
        };
        assert!(said(&["-f", "/mnt/"]).contains("Operation not permitted"));
        assert!(said(&["--unfreeze", "/"]).contains("unfreeze failed"));
        assert!(said(&["-f", "/var/lib/db"]).contains("No such file"));
        assert!(said(&["/mnt"]).contains("neither"));
        assert!(said(&["-f"]).contains("no filename"));
    }
}
