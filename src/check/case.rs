//! One subject of one trial, as the checks see it.

use std::cell::OnceCell;

use super::image::Image;
use crate::history::event::{
    Event, Fact, LifecycleFact, Outcome, Purpose, ReadVia, Site, Stage, VolumeFact,
};
use crate::history::read::{History, Incarnation, Scan};
use crate::plan::model::Plan;

/// The longest silence of a probe that was still connected, nanoseconds: it says something every
/// second (`FromGuest::Alive`).
pub(super) const SILENCE_NS: u64 = 2_000_000_000;

/// One scenario run on one set of subjects.
#[derive(Debug, Clone)]
pub(super) struct Trial<'a> {
    pub(super) name: &'a str,
    pub(super) scenario: &'a str,
    pub(super) subjects: &'a [String],
    pub(super) checks: &'a [String],
    pub(super) zero_loss: bool,
    /// The moment that its fault was aimed at.
    pub(super) aimed: Option<&'a str>,
    /// The checks of subjects that are a part of a VM.
    pub(super) parts: &'a std::collections::BTreeMap<String, Vec<String>>,
    pub(super) outcome: Option<&'a Outcome>,
}

impl<'a> Trial<'a> {
    /// The trials of a history in the order in which they began.
    pub(super) fn all(history: &'a History) -> Vec<Self> {
        let started = history.events.iter().filter_map(|event| {
            let Fact::TrialStarted {
                scenario,
                subjects,
                checks,
                zero_loss,
                aimed,
                parts,
            } = &event.fact
            else {
                return None;
            };
            Some(Self {
                name: event.trial.as_deref().unwrap_or(scenario),
                scenario,
                subjects,
                checks,
                zero_loss: *zero_loss,
                aimed: aimed.as_deref(),
                parts,
                outcome: None,
            })
        });
        let mut trials: Vec<Self> = started.collect();
        for event in &history.events {
            if let Fact::TrialEnded { outcome } = &event.fact
                && let Some(trial) = trials
                    .iter_mut()
                    .find(|trial| event.trial.as_deref() == Some(trial.name))
            {
                trial.outcome = Some(outcome);
            }
        }
        trials
    }

    /// Whether a subject is judged by a check.
    pub(super) fn asks(&self, subject: &str, check: &str) -> bool {
        let own = self.parts.get(subject).map_or(self.checks, Vec::as_slice);
        own.iter().any(|id| id == check)
    }

    /// Why the trial produced too little to judge by absence, if it did.
    pub(super) fn unfinished(&self) -> Option<String> {
        match self.outcome {
            None => Some("the trial has no end in the history".into()),
            Some(Outcome::Unknown(why)) => {
                Some(format!("the trial did not come to its end: {why}"))
            }
            Some(Outcome::Skipped(why)) => Some(format!("the trial was skipped: {why}")),
            Some(Outcome::Ok | Outcome::Failed(_)) => None,
        }
    }
}

/// What a subject was made as.
#[derive(Debug, Clone, Copy)]
pub(super) struct Created<'a> {
    pub(super) volumes: &'a [VolumeFact],
    pub(super) pvcs: &'a [String],
    pub(super) seed: u64,
}

/// One subject of one trial.
#[derive(Debug)]
pub(super) struct Case<'a> {
    pub(super) plan: &'a Plan,
    pub(super) history: &'a History,
    pub(super) trial: &'a Trial<'a>,
    pub(super) subject: &'a str,
    images: OnceCell<Vec<Result<Image<'a>, String>>>,
}

impl<'a> Case<'a> {
    pub(super) const fn new(
        plan: &'a Plan,
        history: &'a History,
        trial: &'a Trial<'a>,
        subject: &'a str,
    ) -> Self {
        Self {
            plan,
            history,
            trial,
            subject,
            images: OnceCell::new(),
        }
    }

    fn is_mine(&self, trial: Option<&str>, subject: Option<&str>) -> bool {
        trial == Some(self.trial.name) && subject.is_none_or(|subject| subject == self.subject)
    }

    /// The events of this trial that concern this subject or the trial as a whole.
    pub(super) fn events(&self) -> impl Iterator<Item = &'a Event> + use<'a, '_> {
        self.history
            .events
            .iter()
            .filter(|event| self.is_mine(event.trial.as_deref(), event.subject.as_deref()))
    }

    /// What the subject was made as, in this trial or one before.
    pub(super) fn created(&self) -> Option<Created<'a>> {
        let mut found = None;
        for event in &self.history.events {
            if event.subject.as_deref() == Some(self.subject)
                && let Fact::SubjectCreated {
                    volumes,
                    pvcs,
                    seed,
                    ..
                } = &event.fact
                && (found.is_none() || event.trial.as_deref() == Some(self.trial.name))
            {
                found = Some(Created {
                    volumes,
                    pvcs,
                    seed: *seed,
                });
            }
        }
        found
    }

    /// The probe runs in this subject's guest in this trial, in order. Readers of clones run in
    /// another guest.
    pub(super) fn incarnations(&self) -> impl Iterator<Item = &'a Incarnation> + use<'a, '_> {
        let reads_a_clone =
            |name: &str| self.read(ReadVia::Clone).any(|clone| clone.reader == name);
        self.history.incarnations.iter().filter(move |incarnation| {
            self.is_mine(incarnation.trial.as_deref(), incarnation.subject.as_deref())
                && !reads_a_clone(&incarnation.name)
        })
    }

    /// The read-backs of this subject by its own guest in this trial, in order.
    pub(super) fn scans(&self) -> impl Iterator<Item = &'a Scan> + use<'a, '_> {
        self.read(ReadVia::Guest)
    }

    /// Those by another guest through clones of its volumes that nobody wrote to meanwhile.
    pub(super) fn clones(&self) -> impl Iterator<Item = &'a Scan> + use<'a, '_> {
        self.read(ReadVia::Clone).filter(|scan| scan.cut.is_none())
    }

    /// The read-backs of what was made from a cut of this subject, by whomever, in order.
    pub(super) fn cut_scans(&self) -> impl Iterator<Item = &'a Scan> + use<'a, '_> {
        self.history.scans.iter().filter(|scan| {
            scan.cut.is_some() && self.is_mine(scan.trial.as_deref(), scan.subject.as_deref())
        })
    }

    fn read(&self, via: ReadVia) -> impl Iterator<Item = &'a Scan> + use<'a, '_> {
        self.history.scans.iter().filter(move |scan| {
            scan.via == via && self.is_mine(scan.trial.as_deref(), scan.subject.as_deref())
        })
    }

    /// Whether every acked write of the newest load that a read-back judges must be there.
    pub(super) fn owes_all(&self, scan: &Scan) -> bool {
        scan.zero_loss.unwrap_or(self.trial.zero_loss) || self.plan.protection().synchronous
    }

    /// Each read-back laid against the writes that it is evidence of, or why it cannot be.
    pub(super) fn images(&self) -> &[Result<Image<'a>, String>] {
        self.images.get_or_init(|| {
            self.scans()
                .map(|scan| Image::new(self.history, self.created(), scan))
                .collect()
        })
    }

    /// The moment at which a stage closed first.
    pub(super) fn stage(&self, wanted: Stage) -> Option<u64> {
        self.events().find_map(|event| match event.fact {
            Fact::StageReached { stage } if stage == wanted => Some(event.at_ns),
            _ => None,
        })
    }

    /// The moment of the fault or of the order to move. Faults that are planted to misbehave later
    /// come before it, so the stage mark decides; a fault alone counts only without one.
    pub(super) fn fault(&self) -> Option<u64> {
        self.stage(Stage::Fault).or_else(|| {
            self.events().find_map(|event| match event.fact {
                Fact::Fault { active: true, .. } => Some(event.at_ns),
                _ => None,
            })
        })
    }

    /// When an order to the VM ended a load: nothing needs to be heard of it from then on.
    pub(super) fn ordered_down(&self, load: &Incarnation) -> Option<u64> {
        let orders = self.events().filter(|event| event.at_ns >= load.at_ns);
        let mut ends = orders.filter(|event| match &event.fact {
            Fact::Lifecycle {
                lifecycle: LifecycleFact::Asked { deed },
                ..
            } => deed.ends(),
            _ => false,
        });
        ends.next().map(|event| event.at_ns)
    }

    /// The load that ran when the fault came: the last one that began before it.
    pub(super) fn load_at(&self, at_ns: u64) -> Option<&'a Incarnation> {
        self.incarnations()
            .filter(|known| known.purpose == Purpose::Load && known.at_ns <= at_ns)
            .last()
    }

    /// Where the subject is to be in the end: the site promoted last, else the site of its last
    /// probe run.
    pub(super) fn target(&self) -> Option<Site> {
        let gated = self.events().filter_map(|event| match event.fact {
            Fact::Gate { site, .. } => Some(site),
            _ => None,
        });
        gated
            .last()
            .or_else(|| self.incarnations().last().map(|last| last.site))
    }

    /// Why nothing about this case may pass, if anything that it rests on lacks its end.
    pub(super) fn doubt(&self) -> Option<String> {
        let torn = || self.incarnations().find_map(|known| known.torn.clone());
        let events = self.history.truncated.clone();
        events.or_else(|| self.trial.unfinished()).or_else(torn)
    }

    /// Whether the subject is moved from one site to the other in this trial.
    pub(super) fn moves(&self) -> bool {
        let mut sites = self.incarnations().map(|known| known.site);
        let first = sites.next();
        sites.any(|site| Some(site) != first)
            || self.stage(Stage::Promoted).is_some()
            || self
                .events()
                .any(|event| matches!(event.fact, Fact::Gate { .. }))
    }
}

/// Why the host did not hear the load well enough up to `at_ns`, if it did not. What a probe
/// accounted for in full needs no hearing afterwards.
pub(super) fn deaf(load: &Incarnation, at_ns: u64) -> Option<String> {
    if load
        .acks
        .stopped()
        .is_some_and(|stopped| stopped.at_ns <= at_ns)
    {
        return None;
    }
    let heard = load.acks.last_frame_at(at_ns).unwrap_or(load.at_ns);
    let silent = at_ns.saturating_sub(heard);
    (silent > SILENCE_NS).then(|| {
        format!(
            "the probe was not heard for the last {} before the transition",
            super::finding::moment(silent)
        )
    })
}
