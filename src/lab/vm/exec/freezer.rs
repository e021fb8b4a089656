//! `virt-freezer`: asks the launcher of its own pod to freeze or thaw.
//!
//! It exits with 0 without a guest agent and for a domain that does not run, and says so in its log
//! only: whoever reads its exit code believes that the guest is frozen.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::programs::Ended;
use crate::lab::api::meta;
use crate::lab::faults::Fault;
use crate::lab::vm::domain::Domain;
use crate::lab::vm::keys::VMI;
use crate::lab::vm::site::Ctx;
use crate::lab::vm::{condition, quiesce};

/// After how long the launcher thaws by itself unless told otherwise, in seconds.
const TIMER: u32 = 300;

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
struct Flags {
    freeze: bool,
    thaw: bool,
    name: String,
    namespace: String,
    timer: u32,
}

/// Runs it in a launcher's pod.
pub(super) async fn run(ctx: &Ctx, pod: &Value, arguments: &[String]) -> Ended {
    let flags = match parse(arguments) {
        Ok(flags) => flags,
        Err(why) => return Ended::error(2, format!("{why}\n")),
    };
    let failed = |why: &str| Ended::error(1, log("error", why));
    if !flags.freeze && !flags.thaw {
        return failed("Failed to parse flags: either --freeze or --unfreeze must be set");
    }
    if flags.name.is_empty() || flags.namespace.is_empty() {
        return failed("Failed to parse flags: both --name and --namespace must be provided");
    }
    // The launcher of this pod is asked, whatever name is given.
    let domains = ctx.all_domains();
    let uid = meta::uid(pod);
    let domain = domains.iter().find(|domain| domain.place().pod_uid == uid);
    let silent = ctx.board.armed(Fault::FreezeSwallowed);
    let guest = domain.and_then(|domain| domain.guest().filter(|guest| guest.agent() && !silent));
    let Some((domain, guest)) = domain.zip(guest) else {
        return Ended::error(0, log("info", "No guest agent, exiting"));
    };
    let Some(vmi) = running(ctx, domain) else {
        let why = "VM domain not running, no need to freeze/unfreeze";
        return Ended::error(0, log("info", why));
    };
    let done = if flags.freeze {
        let timer = Duration::from_secs(u64::from(flags.timer));
        quiesce::freeze(ctx, &vmi, domain, &guest, timer).await
    } else {
        quiesce::thaw(ctx, domain, &guest).await
    };
    match done {
        Ok(()) => Ended::error(0, log("info", "Operation completed successfully")),
        Err(why) if flags.freeze => failed(&format!("Freezing VMI failed: {why}")),
        Err(why) => failed(&format!("Unfreezing VMI failed: {why}")),
    }
}

/// The VMI of a domain that runs; one that is paused does not.
fn running(ctx: &Ctx, domain: &Domain) -> Option<Arc<Value>> {
    let (namespace, name) = &domain.vmi;
    let vmi = ctx.store.get(VMI, namespace, name)?;
    (!condition::is_true(&vmi, "Paused")).then_some(vmi)
}

/// A line of the log, which goes to standard error.
fn log(level: &str, message: &str) -> String {
    let line =
        json!({"component": "freezer", "level": level, "msg": message, "timestamp": meta::now()});
    format!("{line}\n")
}

/// Reads flags as Go's pflag does: `--flag value` or `--flag=value`; the last one counts.
fn parse(arguments: &[String]) -> Result<Flags, String> {
    let mut flags = Flags {
        freeze: false,
        thaw: false,
        name: String::new(),
        namespace: String::new(),
        timer: TIMER,
    };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let Some(flag) = argument.strip_prefix("--") else {
            if argument.starts_with('-') {
                let short = argument.chars().nth(1).unwrap_or('-');
                return Err(format!("unknown shorthand flag: '{short}' in {argument}"));
            }
            // What is no flag is not looked at.
            continue;
        };
        let (name, given) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (flag, None),
        };
        let known = [
            "freeze",
            "unfreeze",
            "name",
            "namespace",
            "unfreezeTimeoutSeconds",
        ];
        if !known.contains(&name) {
            return Err(format!("unknown flag: --{name}"));
        }
        if let "freeze" | "unfreeze" = name {
            let set = match given.as_deref() {
                None | Some("true" | "1" | "t") => true,
                Some("false" | "0" | "f") => false,
                Some(other) => return Err(invalid(other, name)),
            };
            *(if name == "freeze" {
                &mut flags.freeze
            } else {
                &mut flags.thaw
            }) = set;
            continue;
        }
        let value = given.or_else(|| rest.next().cloned());
        let value = value.ok_or_else(|| format!("flag needs an argument: --{name}"))?;
        match name {
            "name" => flags.name = value,
            "namespace" => flags.namespace = value,
            _ => {
                flags.timer = value
                    .parse()
                    .map_err(|_not_a_number| invalid(&value, name))?;
            }
        }
    }
    Ok(flags)
}

fn invalid(value: &str, flag: &str) -> String {
    format!("invalid argument \"{value}\" for \"--{flag}\" flag")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(text: &str) -> Result<Flags, String> {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        parse(&words)
    }

    #[test]
    fn flags_are_those_of_the_real_one() {
        let freeze = flags("--freeze --name vm --namespace=n").unwrap();
        assert!(freeze.freeze && !freeze.thaw);
        assert_eq!(
            (freeze.name.as_str(), freeze.namespace.as_str()),
            ("vm", "n")
        );
        assert_eq!(freeze.timer, 300);
        assert_eq!(flags("--unfreezeTimeoutSeconds 7").unwrap().timer, 7);
        assert!(flags("--frieze").is_err_and(|why| why == "unknown flag: --frieze"));
        assert!(flags("-f").is_err_and(|why| why.contains("shorthand")));
        assert!(flags("--name").is_err_and(|why| why.contains("needs an argument")));
        assert!(flags("--unfreezeTimeoutSeconds soon").is_err());
        assert!(flags("--freeze=maybe").is_err());
    }
}
