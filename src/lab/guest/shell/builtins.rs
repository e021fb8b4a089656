//! The commands of a guest that neither read standard input nor start anything.

use super::Status;
use super::fs::{FsError, absolute};
use crate::lab::guest::Request;
use crate::lab::guest::machine::{KERNEL, Machine, home};

/// What a command printed and how it ended.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Ran {
    /// Standard output.
    pub(super) out: String,
    /// Standard error.
    pub(super) err: String,
    /// Exit status.
    pub(super) status: Status,
}

impl Ran {
    fn print(out: impl Into<String>) -> Self {
        Self {
            out: format!("{}\n", out.into()),
            ..Self::default()
        }
    }

    fn fail(status: Status, err: impl Into<String>) -> Self {
        Self {
            err: format!("{}\n", err.into()),
            status,
            ..Self::default()
        }
    }

    fn test(holds: bool) -> Self {
        Self {
            status: u32::from(!holds),
            ..Self::default()
        }
    }
}

/// Runs a built-in command as `user`; an unknown name ends with 127.
pub(super) fn run(machine: &Machine, user: &str, name: &str, arguments: &[String]) -> Ran {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match name {
        "true" | ":" | "sync" => Ran::default(),
        "false" => Ran::test(false),
        "echo" => echo(&words),
        "test" => test(machine, user, &words),
        "[" => match words.split_last() {
            Some((&"]", condition)) => test(machine, user, condition),
            _ => Ran::fail(2, "sh: [: missing `]'"),
        },
        "uname" => uname(machine, &words),
        "hostname" => Ran::print(&machine.hostname),
        "whoami" => Ran::print(user),
        "id" => id(user, &words),
        "pwd" => Ran::print(home(user)),
        "mkdir" | "chmod" | "mv" | "rm" | "ls" => {
            let (flags, operands): (Vec<&str>, Vec<&str>) =
                words.iter().partition(|word| word.starts_with('-'));
            files(machine, user, name, &words, &flags, &operands)
        }
        "reboot" => request(machine, user, name, Request::Reboot),
        "shutdown" if words.contains(&"-r") => request(machine, user, name, Request::Reboot),
        "poweroff" | "halt" | "shutdown" => request(machine, user, name, Request::Poweroff),
        "systemctl" => systemctl(machine, user, &words),
        // Only a tmpfs can be mounted, and every directory of the tree is one already.
        "mount" if user != "root" => Ran::fail(1, "mount: must be superuser to use mount"),
        "mount" => Ran::test(words.windows(2).any(|pair| pair == ["-t", "tmpfs"])),
        name => Ran::fail(127, format!("sh: {name}: command not found")),
    }
}

fn echo(words: &[&str]) -> Ran {
    match words {
        ["-n", rest @ ..] => Ran {
            out: rest.join(" "),
            ..Ran::default()
        },
        words => Ran::print(words.join(" ")),
    }
}

fn test(machine: &Machine, user: &str, words: &[&str]) -> Ran {
    let stat = |path: &str| machine.tree.stat(&absolute(&home(user), path));
    let unary = |flag: &str, operand: &str| {
        Some(match flag {
            "-e" => stat(operand).is_some(),
            "-f" => stat(operand).is_some_and(|node| node.content.is_some()),
            "-d" => stat(operand).is_some_and(|node| node.content.is_none()),
            "-s" => stat(operand).is_some_and(|node| node.content.is_some_and(|c| !c.is_empty())),
            "-x" => stat(operand).is_some_and(|node| node.mode & 0o111 != 0),
            "-S" => machine.probes.listens(operand),
            "-n" => !operand.is_empty(),
            "-z" => operand.is_empty(),
            _ => return None,
        })
    };
    let holds = match words {
        [] => Some(false),
        [word] => Some(!word.is_empty()),
        ["!", flag, operand] => unary(flag, operand).map(|holds| !holds),
        [flag, operand] => unary(flag, operand),
        [left, "=", right] => Some(left == right),
        [left, "!=", right] => Some(left != right),
        _ => None,
    };
    holds.map_or_else(
        || {
            Ran::fail(
                2,
                format!("sh: test: {}: unknown condition", words.join(" ")),
            )
        },
        Ran::test,
    )
}

fn uname(machine: &Machine, words: &[&str]) -> Ran {
    let mut flags: Vec<char> = words
        .iter()
        .filter_map(|word| word.strip_prefix('-'))
        .flat_map(str::chars)
        .collect();
    if flags.is_empty() {
        flags.push('s');
    }
    if flags.contains(&'a') {
        flags = vec!['s', 'n', 'r', 'm'];
    }
    let mut parts = Vec::new();
    for (flag, value) in [
        ('s', "Linux"),
        ('n', machine.hostname.as_str()),
        ('r', KERNEL),
        ('m', machine.os.arch.as_str()),
    ] {
        if flags.contains(&flag) {
            parts.push(value);
        }
    }
    Ran::print(parts.join(" "))
}

fn id(user: &str, words: &[&str]) -> Ran {
    let uid = if user == "root" { 0 } else { 1000 };
    match words {
        ["-u"] => Ran::print(uid.to_string()),
        ["-un"] => Ran::print(user),
        _ => Ran::print(format!("uid={uid}({user}) gid={uid}({user})")),
    }
}

fn request(machine: &Machine, user: &str, name: &str, request: Request) -> Ran {
    if user != "root" {
        return Ran::fail(1, format!("{name}: must be superuser"));
    }
    // A hypervisor that no longer listens has taken the power away already.
    Ran::test(machine.requests.send(request).is_ok())
}

/// systemd's, for the one service that a guest has which may be stopped.
fn systemctl(machine: &Machine, user: &str, words: &[&str]) -> Ran {
    let (verb, unit) = match words {
        [verb @ ("start" | "stop"), unit] => (*verb, unit.trim_end_matches(".service")),
        _ => return Ran::fail(1, "systemctl: not in this guest"),
    };
    if unit != "qemu-guest-agent" || !machine.os.agent {
        let why = format!("Failed to {verb} {unit}.service: Unit {unit}.service not found.");
        return Ran::fail(5, why);
    }
    if user != "root" {
        let why = format!("Failed to {verb} {unit}.service: Interactive authentication required.");
        return Ran::fail(1, why);
    }
    machine.stop_agent(verb == "stop");
    Ran::default()
}

fn files(
    machine: &Machine,
    user: &str,
    name: &str,
    words: &[&str],
    flags: &[&str],
    operands: &[&str],
) -> Ran {
    let flagged = |letter: char| flags.iter().any(|flag| flag.contains(letter));
    let path = |operand: &str| absolute(&home(user), operand);
    let tree = &machine.tree;
    let mut ran = Ran::default();
    let mut note = |operand: &str, result: Result<(), FsError>| {
        if let Err(error) = result {
            ran.status = 1;
            ran.err = format!("{}{name}: {operand}: {error}\n", ran.err);
        }
    };
    match (name, operands) {
        ("mkdir", operands) => {
            let mode = words.iter().position(|word| *word == "-m").map(|at| at + 1);
            let bits = mode.and_then(|at| words.get(at)).copied();
            let Ok(bits) = u32::from_str_radix(bits.unwrap_or("755"), 8) else {
                return Ran::fail(1, "mkdir: invalid mode");
            };
            let skip = mode.and_then(|at| words.get(at)).copied();
            for operand in operands.iter().filter(|operand| Some(**operand) != skip) {
                note(
                    operand,
                    tree.mkdir(user, &path(operand), bits, flagged('p')),
                );
            }
        }
        ("chmod", [mode, operands @ ..]) => {
            let Ok(bits) = u32::from_str_radix(mode, 8) else {
                return Ran::fail(1, format!("chmod: invalid mode: '{mode}'"));
            };
            for operand in operands {
                note(operand, tree.chmod(user, &path(operand), bits));
            }
        }
        ("mv", [from, to]) => note(from, tree.rename(user, &path(from), &path(to))),
        ("rm", operands) => {
            for operand in operands {
                let result = tree.remove(user, &path(operand), flagged('r'));
                if !(flagged('f') && result == Err(FsError::NotFound)) {
                    note(operand, result);
                }
            }
        }
        ("ls", operands) => {
            let directory = operands.first().copied().unwrap_or(".");
            match tree.list(&path(directory)) {
                Ok(names) => return Ran::print(names.join("\n")),
                Err(error) => note(directory, Err(error)),
            }
        }
        _ => return Ran::fail(1, format!("{name}: missing operand")),
    }
    ran
}
