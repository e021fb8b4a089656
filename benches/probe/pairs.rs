//! Two things measured in turn, and how one compares with the other.

use std::fmt;

/// One measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// Work per second.
    pub(crate) rate: f64,
    /// CPU time per piece of work, user and system together.
    pub(crate) cpu: f64,
}

/// Ours and theirs, pair by pair.
pub(crate) struct Pairs {
    name: String,
    unit: &'static str,
    cpu_unit: &'static str,
    ours: Vec<Sample>,
    theirs: Vec<Sample>,
}

impl Pairs {
    pub(crate) fn new(name: &str, unit: &'static str, cpu_unit: &'static str) -> Self {
        Self {
            name: name.to_owned(),
            unit,
            cpu_unit,
            ours: Vec::new(),
            theirs: Vec::new(),
        }
    }

    pub(crate) fn push(&mut self, ours: Sample, theirs: Sample) {
        self.ours.push(ours);
        self.theirs.push(theirs);
    }
}

/// The middle of some numbers.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let sorted = sorted(values);
    let (low, high) = (sorted.len().saturating_sub(1) / 2, sorted.len() / 2);
    f64::midpoint(
        sorted.get(low).copied().unwrap_or(f64::NAN),
        sorted.get(high).copied().unwrap_or(f64::NAN),
    )
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

impl fmt::Display for Pairs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ours, theirs) = (&self.ours, &self.theirs);
        let rate = |samples: &[Sample]| median(samples.iter().map(|sample| sample.rate));
        let cpu = |samples: &[Sample]| median(samples.iter().map(|sample| sample.cpu));
        let pairs = ours.iter().zip(theirs);
        let each = sorted(pairs.clone().map(|(ours, theirs)| ours.rate / theirs.rate));
        writeln!(f, "{}", self.name)?;
        write!(f, "  pairs ({}):", self.unit)?;
        for (ours, theirs) in pairs {
            write!(f, " {:.0}:{:.0}", ours.rate, theirs.rate)?;
        }
        writeln!(
            f,
            "\n  medians {:.0} : {:.0} {}, ratio {:.3}; pairwise {:.3} to {:.3}, median {:.3}",
            rate(ours),
            rate(theirs),
            self.unit,
            rate(ours) / rate(theirs),
            each.first().copied().unwrap_or(f64::NAN),
            each.last().copied().unwrap_or(f64::NAN),
            median(each.iter().copied()),
        )?;
        write!(
            f,
            "  CPU {:.1} : {:.1} {}",
            cpu(ours),
            cpu(theirs),
            self.cpu_unit
        )
    }
}
