//! Faults as data, and the board where they are planted. Array, controllers, API servers and guests
//! ask the board at the point where a fault would strike; nothing else in the lab knows of faults.
//!
//! One table serves everybody: the lab, `virtproof lab fault`, `run --lab --fault`, `selftest` and
//! the generated catalogue. A row ordains what must come of its fault; `selftest` holds it to that.

mod board;
mod kind;
mod rows;
mod spec;
#[cfg(test)]
mod tests;

pub use board::{Board, Planting};
pub use kind::{Fault, Moment};
pub use spec::{FaultSpec, How, Ordained, Param, Phase, Place, Tamper, names, parse};

/// Every row, in the order of reports.
pub fn table() -> impl Iterator<Item = &'static FaultSpec> {
    rows::ALL.iter().copied().flatten()
}

/// The row of a fault by name.
pub fn by_name(name: &str) -> Option<&'static FaultSpec> {
    table().find(|row| row.name == name)
}

/// The rows that can be planted in a lab.
pub fn plantable() -> impl Iterator<Item = (&'static FaultSpec, Fault)> {
    table().filter_map(|row| match row.how {
        How::Lab(fault) => Some((row, fault)),
        How::Clean | How::Kill | How::Tamper(_) | How::Nowhere => None,
    })
}
