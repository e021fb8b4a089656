//! What a row of the fault table says, and the text by which a fault is asked for.

use super::{Fault, Moment, by_name, table};

/// Where a fault is injected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// The storage array under the guests.
    Array,
    /// The controllers: CDI, KubeVirt, csi-addons, snapshots.
    Controller,
    /// The API server.
    ApiServer,
    /// The guest.
    Guest,
    /// The tool itself.
    Tool,
    /// The evidence that a run left.
    Evidence,
}

impl Place {
    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Array => "array",
            Self::Controller => "controller",
            Self::ApiServer => "API server",
            Self::Guest => "guest",
            Self::Tool => "tool",
            Self::Evidence => "evidence",
        }
    }
}

/// When a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// From provisioning on.
    Provision,
    /// While data crosses to the replica.
    Replication,
    /// Once the load runs.
    Load,
    /// While the old side is fenced or stopped.
    Fence,
    /// At the demotion of the old side.
    Demote,
    /// At the promotion of the new side.
    Promote,
    /// While the VM comes up on its target.
    Boot,
    /// While the data is read back.
    ReadBack,
    /// On the way back to a protected state.
    Reprotect,
    /// At cleanup.
    Cleanup,
    /// While a VM migrates.
    Migration,
    /// While a Recipe freezes and thaws.
    Recipe,
    /// While a snapshot is taken or something is made from one.
    Restore,
    /// Throughout.
    Always,
    /// After the run.
    After,
}

impl Phase {
    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Provision => "provision",
            Self::Replication => "replication",
            Self::Load => "load",
            Self::Fence => "fence",
            Self::Demote => "demote",
            Self::Promote => "promote",
            Self::Boot => "boot",
            Self::ReadBack => "read-back",
            Self::Reprotect => "reprotect",
            Self::Cleanup => "cleanup",
            Self::Migration => "migration",
            Self::Recipe => "recipe",
            Self::Restore => "snapshot and restore",
            Self::Always => "always",
            Self::After => "after",
        }
    }
}

/// How a row is put into effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Planted on the lab's board.
    Lab(Fault),
    /// Nothing is planted.
    Clean,
    /// The tool is killed with signal 9 under load, and its directory judged afterwards.
    Kill,
    /// The evidence of a run that passed is changed.
    Tamper(Tamper),
    /// It cannot be put into effect yet; [`Ordained::Unreachable`] says why.
    Nowhere,
}

/// A change to evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tamper {
    /// The ack segment of the load loses its second half.
    TruncateSegment,
    /// One byte of a signed file changes.
    EditSigned,
}

/// What must come of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ordained {
    /// Each of these checks must fail.
    Fires(&'static [&'static str]),
    /// No check may fail, and the whole must not pass.
    Inconclusive,
    /// The tool must refuse to go on or to believe: exit code 2 or 3, or `verify` fails.
    Refused,
    /// A negative control: everything must pass.
    Green,
    /// Nothing can show it yet, for the reason given.
    Unreachable(&'static str),
}

/// A number that shapes a fault, with its default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Param {
    /// Its name in `--fault NAME:key=value`.
    pub name: &'static str,
    /// The value unless another is given.
    pub default: i64,
    /// What it counts.
    pub unit: &'static str,
}

/// A row of the fault table.
#[derive(Debug, Clone, Copy)]
pub struct FaultSpec {
    /// The name to plant it by.
    pub name: &'static str,
    /// The catalogue entries that it stands for: `2`, `F16`. Empty for faults of our own.
    pub entries: &'static [&'static str],
    /// Where it is injected.
    pub place: Place,
    /// When it strikes.
    pub phase: Phase,
    /// How it is put into effect.
    pub how: How,
    /// The moment that it waits for unless another is given.
    pub aim: Option<Moment>,
    /// What shapes it.
    pub params: &'static [Param],
    /// What must come of it.
    pub ordained: Ordained,
    /// Checks that must say inconclusive.
    pub doubts: &'static [&'static str],
    /// The recovery stage that must be the longest of all, as T2 measures them.
    pub blames: Option<&'static str>,
    /// The checks that must fire once it can be shown.
    pub awaits: &'static [&'static str],
    /// The scenario in which that is seen.
    pub scenario: &'static str,
    /// Values of the lab's plan that it needs changed, as for `run --set`.
    pub plan: &'static [&'static str],
    /// Whether only simulated guests can play it.
    pub simulated_only: bool,
    /// Whether only real guests can play it.
    pub real_only: bool,
    /// What it does, in a sentence.
    pub summary: &'static str,
    /// Where it comes from: the bug reports and pages behind it.
    pub sources: &'static [&'static str],
}

impl FaultSpec {
    /// A row that is planted on the lab's board; everything else by the methods below.
    pub(super) const fn lab(fault: Fault, name: &'static str, summary: &'static str) -> Self {
        Self::new(How::Lab(fault), name, summary)
    }

    /// A row that cannot be shown yet, and why.
    pub(super) const fn unreachable(
        name: &'static str,
        summary: &'static str,
        why: &'static str,
    ) -> Self {
        Self::new(How::Nowhere, name, summary).ordained(Ordained::Unreachable(why))
    }

    pub(super) const fn new(how: How, name: &'static str, summary: &'static str) -> Self {
        Self {
            name,
            entries: &[],
            place: Place::Array,
            phase: Phase::Always,
            how,
            aim: None,
            params: &[],
            ordained: Ordained::Green,
            doubts: &[],
            blames: None,
            awaits: &[],
            scenario: "",
            plan: &[],
            simulated_only: false,
            real_only: false,
            summary,
            sources: &[],
        }
    }

    /// The catalogue entries that it stands for.
    pub(super) const fn entries(mut self, entries: &'static [&'static str]) -> Self {
        self.entries = entries;
        self
    }

    /// Where and when it strikes.
    pub(super) const fn at(mut self, place: Place, phase: Phase) -> Self {
        self.place = place;
        self.phase = phase;
        self
    }

    /// The moment that it waits for.
    pub(super) const fn aimed(mut self, moment: Moment) -> Self {
        self.aim = Some(moment);
        self
    }

    /// What shapes it.
    pub(super) const fn params(mut self, params: &'static [Param]) -> Self {
        self.params = params;
        self
    }

    /// The scenario in which it is seen.
    pub(super) const fn seen_in(mut self, scenario: &'static str) -> Self {
        self.scenario = scenario;
        self
    }

    /// What of the lab's plan it needs changed.
    pub(super) const fn plan(mut self, plan: &'static [&'static str]) -> Self {
        self.plan = plan;
        self
    }

    /// Only simulated guests can play it: a real one would have to be made to.
    pub(super) const fn simulated_only(mut self) -> Self {
        self.simulated_only = true;
        self
    }

    /// Only real guests can play it: a simulated one runs no programs of its own.
    pub(super) const fn real_only(mut self) -> Self {
        self.real_only = true;
        self
    }

    /// The checks that must fail.
    pub(super) const fn fires(self, checks: &'static [&'static str]) -> Self {
        self.ordained(Ordained::Fires(checks))
    }

    /// The checks that must say inconclusive.
    pub(super) const fn doubts(mut self, checks: &'static [&'static str]) -> Self {
        self.doubts = checks;
        self
    }

    /// The recovery stage that must be the longest.
    pub(super) const fn blames(mut self, stage: &'static str) -> Self {
        self.blames = Some(stage);
        self
    }

    /// The checks that must fire once it can be shown.
    pub(super) const fn awaits(mut self, checks: &'static [&'static str]) -> Self {
        self.awaits = checks;
        self
    }

    /// What must come of it.
    pub(super) const fn ordained(mut self, ordained: Ordained) -> Self {
        self.ordained = ordained;
        self
    }

    /// Where it comes from.
    pub(super) const fn sources(mut self, sources: &'static [&'static str]) -> Self {
        self.sources = sources;
        self
    }

    /// The checks that it turns red.
    pub const fn red(&self) -> &'static [&'static str] {
        match self.ordained {
            Ordained::Fires(checks) => checks,
            _ => &[],
        }
    }

    /// What must come of it, in a few words.
    pub fn word(&self) -> String {
        match self.ordained {
            Ordained::Fires(checks) => checks.join(", "),
            Ordained::Inconclusive => "inconclusive".into(),
            Ordained::Refused => "refused".into(),
            Ordained::Green => "green".into(),
            Ordained::Unreachable(_) => "unreachable".into(),
        }
    }
}

/// A fault as it was asked for: `NAME[:key=value,…][@MOMENT]`.
pub fn parse(text: &str) -> Result<super::Planting, String> {
    let (rest, moment) = match text.split_once('@') {
        Some((rest, moment)) => (rest, Some(named(moment)?)),
        None => (text, None),
    };
    let (name, values) = rest.split_once(':').unwrap_or((rest, ""));
    let row = by_name(name).ok_or_else(|| {
        format!("there is no fault `{name}` (`virtproof lab fault --list` names them all)")
    })?;
    let How::Lab(fault) = row.how else {
        return Err(format!(
            "`{name}` cannot be planted in a lab; `virtproof selftest` shows it"
        ));
    };
    let mut planting = super::Planting::of(row, fault);
    planting.aim = moment.or(row.aim);
    for pair in values.split(',').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair
            .split_once('=')
            .ok_or_else(|| format!("`{pair}` is not of the form key=value"))?;
        let known = row.params.iter().find(|p| p.name == key).ok_or_else(|| {
            let names: Vec<_> = row.params.iter().map(|p| p.name).collect();
            format!(
                "`{name}` has no parameter `{key}`; it has [{}]",
                names.join(", ")
            )
        })?;
        let value = value
            .parse()
            .map_err(|why| format!("`{value}` is not a whole number of {}: {why}", known.unit))?;
        planting.params.insert(known.name, value);
    }
    Ok(planting)
}

fn named(text: &str) -> Result<Moment, String> {
    let known = Moment::ALL.iter().find(|moment| moment.name() == text);
    known.copied().ok_or_else(|| {
        let names: Vec<_> = Moment::ALL.iter().map(|m| m.name()).collect();
        format!(
            "there is no moment `{text}`; there are {}",
            names.join(", ")
        )
    })
}

/// The names of the faults that a lab can plant, for the closest match of a misspelt one.
pub fn names() -> impl Iterator<Item = &'static str> {
    table()
        .filter(|row| matches!(row.how, How::Lab(_)))
        .map(|row| row.name)
}
