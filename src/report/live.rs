//! One line per event that a person wants to read while a run goes on. Pure: the caller draws.

use crate::history::event::{Event, Fact, Outcome};

/// How loud a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// Something begins or ends as it should.
    Plain,
    /// Worth a look.
    Warn,
    /// Went wrong.
    Bad,
}

/// A line for people, or `None` for events that only matter to checks.
pub fn line(event: &Event) -> Option<(Tone, String)> {
    let (tone, text) = describe(&event.fact)?;
    let mut place = String::new();
    for part in [event.trial.as_deref(), event.subject.as_deref()]
        .into_iter()
        .flatten()
    {
        place.push_str(part);
        place.push_str("  ");
    }
    Some((tone, format!("{place}{text}")))
}

fn describe(fact: &Fact) -> Option<(Tone, String)> {
    Some(match fact {
        Fact::SiteSeen {
            site,
            kubernetes,
            kubevirt,
            ..
        } => {
            let kubevirt = kubevirt.as_deref().unwrap_or("unknown");
            (
                Tone::Plain,
                format!("{site}: Kubernetes {kubernetes}, KubeVirt {kubevirt}"),
            )
        }
        Fact::TrialStarted {
            scenario, subjects, ..
        } => (
            Tone::Plain,
            format!("{scenario} with {} VMs", subjects.len()),
        ),
        Fact::TrialEnded { outcome } => ended("trial", outcome),
        Fact::StepStarted { step } => (Tone::Plain, format!("{step} …")),
        Fact::StepEnded { step, outcome } => ended(step, outcome),
        Fact::Fault {
            name, active, site, ..
        } => {
            let place = site.map(|s| format!(" on {s}")).unwrap_or_default();
            let verb = if *active { "fault" } else { "healed" };
            (Tone::Warn, format!("{verb}: {name}{place}"))
        }
        Fact::Gate {
            open: false, why, ..
        } => (Tone::Warn, format!("gate closed: {why}")),
        Fact::Swept { residue, .. } if !residue.is_empty() => (
            Tone::Bad,
            format!("{} objects left after cleanup", residue.len()),
        ),
        Fact::Note { text } => (Tone::Warn, text.clone()),
        Fact::RunEnded { reason } => (Tone::Plain, format!("run {reason}")),
        _ => return None,
    })
}

fn ended(what: &str, outcome: &Outcome) -> (Tone, String) {
    match outcome {
        Outcome::Ok => (Tone::Plain, format!("{what} done")),
        Outcome::Failed(why) => (Tone::Bad, format!("{what} failed: {why}")),
        Outcome::Unknown(why) => (Tone::Bad, format!("{what} ended unknown: {why}")),
        Outcome::Skipped(why) => (Tone::Warn, format!("{what} skipped: {why}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(fact: Fact) -> Event {
        Event {
            v: 1,
            seq: 0,
            at_ns: 0,
            wall: jiff::Timestamp::UNIX_EPOCH,
            trial: Some("t1".into()),
            subject: None,
            fact,
        }
    }

    #[test]
    fn a_failed_step_says_why_and_is_bad() {
        let fact = Fact::StepEnded {
            step: "promote".into(),
            outcome: Outcome::Failed("gate closed".into()),
        };
        assert_eq!(
            line(&event(fact)),
            Some((Tone::Bad, "t1  promote failed: gate closed".to_owned()))
        );
    }

    #[test]
    fn facts_for_checks_only_are_silent() {
        let fact = Fact::Filled {
            incarnation: "0".into(),
            cells: vec![1],
        };
        assert_eq!(line(&event(fact)), None);
    }
}
