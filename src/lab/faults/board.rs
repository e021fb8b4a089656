//! Where faults are planted and looked up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Fault, FaultSpec, Moment};

/// A fault as it is planted: what shapes it, and what it waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planting {
    /// Which.
    pub fault: Fault,
    /// Its name.
    pub name: &'static str,
    /// The moment that wakes it; it strikes from the start without one.
    pub aim: Option<Moment>,
    /// What shapes it, by name.
    pub params: BTreeMap<&'static str, i64>,
}

impl Planting {
    /// A row's fault with its defaults.
    pub fn of(row: &FaultSpec, fault: Fault) -> Self {
        Self {
            fault,
            name: row.name,
            aim: row.aim,
            params: row.params.iter().map(|p| (p.name, p.default)).collect(),
        }
    }
}

#[derive(Debug, Default)]
struct State {
    planted: BTreeMap<Fault, Planting>,
    awake: BTreeSet<Fault>,
    /// How often each moment came.
    came: BTreeMap<Moment, u64>,
}

/// Where faults are planted and looked up.
#[derive(Debug, Default)]
pub struct Board {
    state: Mutex<State>,
}

impl Board {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Plants a fault as its row says, awake from now on; it stays until healed.
    #[cfg(test)]
    pub(crate) fn plant(&self, fault: Fault) {
        let row = super::plantable().find(|(_, f)| *f == fault);
        let (row, fault) = row.expect("every fault has a row");
        let planting = Planting {
            aim: None,
            ..Planting::of(row, fault)
        };
        self.put(planting);
    }

    /// Plants a fault as asked; one that is aimed sleeps until its moment comes.
    pub fn put(&self, planting: Planting) {
        let mut state = self.state();
        if planting.aim.is_none() {
            state.awake.insert(planting.fault);
        }
        state.planted.insert(planting.fault, planting);
    }

    /// Heals a fault.
    pub fn heal(&self, fault: Fault) {
        let mut state = self.state();
        state.planted.remove(&fault);
        state.awake.remove(&fault);
    }

    /// Says that a moment has come: whatever was aimed at it wakes.
    pub fn moment(&self, moment: Moment) {
        let mut state = self.state();
        *state.came.entry(moment).or_default() += 1;
        let woken: Vec<Fault> = state
            .planted
            .values()
            .filter(|planting| planting.aim == Some(moment))
            .map(|planting| planting.fault)
            .collect();
        state.awake.extend(woken);
    }

    /// How often a moment has come.
    pub fn came(&self, moment: Moment) -> u64 {
        self.state().came.get(&moment).copied().unwrap_or(0)
    }

    /// Whether a fault is planted and its moment has come.
    pub fn armed(&self, fault: Fault) -> bool {
        self.state().awake.contains(&fault)
    }

    /// A parameter of a fault that is planted and awake.
    pub fn param(&self, fault: Fault, name: &str) -> Option<i64> {
        let state = self.state();
        let planting = state.planted.get(&fault)?;
        let awake = state.awake.contains(&fault);
        planting.params.get(name).copied().filter(|_| awake)
    }

    /// The faults that are planted, asleep or not.
    pub fn planted(&self) -> Vec<Fault> {
        self.state().planted.keys().copied().collect()
    }
}
