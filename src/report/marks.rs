//! What a timeline marks: what was done to the VM, and what it did.

use super::build::{secs, stage_name};
use super::view::Mark;
use crate::history::event::{
    CutState, Deed, Event, Fact, FreezeFact, HotplugFact, LifecycleFact, MigrationFact, Outcome,
};

/// The marks of a VM's events; its stages where it recovered from an outage.
pub(super) fn marks(events: &[&Event], recovers: bool) -> Vec<Mark> {
    let mut marks: Vec<Mark> = Vec::new();
    for event in events {
        let Some((kind, label)) = mark(&event.fact, recovers) else {
            continue;
        };
        // What is told again has happened once.
        let told = marks.iter().rfind(|mark| mark.kind == kind);
        if !matches!(kind, "migration" | "cut") || told.is_none_or(|told| told.label != label) {
            let at = secs(event.at_ns);
            marks.push(Mark {
                at,
                kind: kind.into(),
                label,
            });
        }
    }
    marks
}

fn mark(fact: &Fact, recovers: bool) -> Option<(&'static str, String)> {
    Some(match fact {
        Fact::StageReached { stage } if recovers => ("stage", stage_name(*stage)),
        Fact::Fault { name, active, .. } if *active => ("fault", name.clone()),
        Fact::Fencing {
            method,
            outcome: None,
            ..
        } => ("fence", format!("{method} asked")),
        Fact::LoadStarted { .. } => ("load", "load".into()),
        Fact::Migration { migration, .. } => ("migration", migrates(migration)?),
        Fact::Freeze { freeze, .. } => ("freeze", freezes(freeze)?.into()),
        Fact::Cut { cut, .. } => {
            let state = match cut.state {
                CutState::Asked => "asked",
                CutState::Taken { .. } => "taken",
                CutState::Agent { .. } | CutState::Cloned { .. } | CutState::Failed { .. } => {
                    return None;
                }
            };
            ("cut", format!("snapshot {} {state}", short(&cut.name)))
        }
        Fact::Restore { restore, .. } => {
            let over = restore.claims.is_some();
            let state = if over { "restored" } else { "restore asked" };
            ("cut", format!("{} {state}", short(&restore.cut)))
        }
        Fact::Hotplug { hotplug, .. } => ("hotplug", plugs(hotplug)?.into()),
        Fact::Lifecycle { lifecycle, .. } => ("order", orders(lifecycle)?.into()),
        _ => return None,
    })
}

/// The name of a cut without its VM's.
fn short(cut: &str) -> &str {
    cut.rsplit('-').next().unwrap_or(cut)
}

/// A migration is asked for, and over.
fn migrates(migration: &MigrationFact) -> Option<String> {
    if migration.phase.is_empty() {
        return Some("migration asked".into());
    }
    let over = migration.completed || matches!(migration.phase.as_str(), "Succeeded" | "Failed");
    over.then(|| {
        if migration.failed || migration.phase == "Failed" {
            "migration failed".into()
        } else if migration.target_node.is_empty() {
            "migrated".into()
        } else {
            format!("migrated to {}", migration.target_node)
        }
    })
}

const fn freezes(freeze: &FreezeFact) -> Option<&'static str> {
    Some(match freeze {
        FreezeFact::Frozen => "frozen",
        FreezeFact::Refused { .. } => "freeze refused",
        FreezeFact::Thawed {
            outcome: Outcome::Ok,
        } => "thawed",
        FreezeFact::Thawed { .. } => "thaw failed",
        FreezeFact::Abandoned => "left to its timer",
        FreezeFact::Asked { .. } | FreezeFact::ThawAsked | FreezeFact::Reported { .. } => {
            return None;
        }
    })
}

const fn plugs(hotplug: &HotplugFact) -> Option<&'static str> {
    Some(match hotplug {
        HotplugFact::Asked { adding: true, .. } => "plug asked",
        HotplugFact::Asked { adding: false, .. } => "unplug asked",
        HotplugFact::Seen { present: true } => "disk there",
        HotplugFact::Seen { present: false } => "disk gone",
        HotplugFact::Answered { .. } | HotplugFact::Reported { .. } => return None,
    })
}

const fn orders(lifecycle: &LifecycleFact) -> Option<&'static str> {
    let LifecycleFact::Asked { deed } = lifecycle else {
        return None;
    };
    Some(match deed {
        Deed::Pause => "pause",
        Deed::Unpause => "unpause",
        Deed::SoftReboot => "soft reboot",
        Deed::Stop => "stop",
        Deed::Start => "start",
        Deed::Kill => "kill",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::event::{CutClaims, CutFact, Site, Stage, VERSION};

    fn told(facts: Vec<Fact>, recovers: bool) -> Vec<(String, String)> {
        let event = |(at, fact): (u64, Fact)| Event {
            v: VERSION,
            seq: at,
            at_ns: at * 1_000_000_000,
            wall: jiff::Timestamp::UNIX_EPOCH,
            trial: Some("t1".into()),
            subject: Some("vm".into()),
            fact,
        };
        let events: Vec<Event> = (0..).zip(facts).map(event).collect();
        let marks = marks(&events.iter().collect::<Vec<_>>(), recovers);
        marks
            .into_iter()
            .map(|mark| (mark.kind, mark.label))
            .collect()
    }

    fn one(fact: Fact) -> Option<String> {
        told(vec![fact], false).pop().map(|(_, label)| label)
    }

    #[test]
    fn migrations_cuts_and_hotplugs_are_marked_once_each() {
        let site = Site::Primary;
        let migration = |phase: &str| Fact::Migration {
            site,
            migration: MigrationFact {
                phase: phase.into(),
                target_node: "node-2".into(),
                completed: phase == "Succeeded",
                ..MigrationFact::default()
            },
        };
        let phases = ["", "Running", "Succeeded", "Succeeded", ""];
        let labels = told(phases.map(migration).into(), false);
        let labels: Vec<&str> = labels.iter().map(|(_, label)| label.as_str()).collect();
        assert_eq!(
            labels,
            ["migration asked", "migrated to node-2", "migration asked"]
        );
        let cut = |state| Fact::Cut {
            site,
            cut: CutFact {
                name: "ledger-0-cut1".into(),
                means: "VirtualMachineSnapshot".into(),
                state,
            },
        };
        assert_eq!(
            one(cut(CutState::Asked)),
            Some("snapshot cut1 asked".into())
        );
        let taken = CutState::Taken {
            claims: CutClaims::default(),
        };
        assert_eq!(one(cut(taken)), Some("snapshot cut1 taken".into()));
        let freeze = |freeze| Fact::Freeze { site, freeze };
        assert_eq!(one(freeze(FreezeFact::Frozen)), Some("frozen".into()));
        assert_eq!(one(freeze(FreezeFact::ThawAsked)), None);
        let plugged = Fact::Hotplug {
            site,
            volume: "v".into(),
            hotplug: HotplugFact::Seen { present: true },
        };
        assert_eq!(one(plugged), Some("disk there".into()));
    }

    #[test]
    fn stages_are_marked_where_something_was_recovered_from() {
        let banner = || Fact::StageReached {
            stage: Stage::SshBanner,
        };
        assert_eq!(told(vec![banner()], true).len(), 1);
        assert!(told(vec![banner()], false).is_empty());
    }
}
