//! How a check puts its word together.

use super::verdict::{Measure, Status};

/// The most lines of evidence that a verdict carries.
pub(super) const WITNESSES: usize = 16;

/// One check's word before it is tied to its trial and subject.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Finding {
    pub(super) status: Status,
    pub(super) summary: String,
    pub(super) witness: Vec<String>,
    pub(super) warnings: Vec<String>,
    pub(super) limits: Vec<String>,
    pub(super) measures: Vec<Measure>,
}

impl Finding {
    fn new(status: Status, summary: impl Into<String>) -> Self {
        Self {
            status,
            summary: summary.into(),
            witness: Vec::new(),
            warnings: Vec::new(),
            limits: Vec::new(),
            measures: Vec::new(),
        }
    }

    /// Looked, and found as promised.
    pub(super) fn pass(summary: impl Into<String>) -> Self {
        Self::new(Status::Pass, summary)
    }

    /// Looked, and found otherwise.
    pub(super) fn fail(summary: impl Into<String>) -> Self {
        Self::new(Status::Fail, summary)
    }

    /// Could not look well enough.
    pub(super) fn unsure(summary: impl Into<String>) -> Self {
        Self::new(Status::Inconclusive, summary)
    }

    pub(super) fn witness(mut self, line: impl Into<String>) -> Self {
        self.witness.push(line.into());
        self
    }

    /// Adds evidence up to [`WITNESSES`] lines and says how much was left out.
    pub(super) fn witnesses(mut self, lines: &[String]) -> Self {
        self.witness.extend(lines.iter().take(WITNESSES).cloned());
        if let Some(more) = lines.len().checked_sub(WITNESSES).filter(|more| *more > 0) {
            self.witness.push(format!("and {more} more"));
        }
        self
    }

    /// Adds something that is not wrong by what was promised, and yet worth a look.
    pub(super) fn warning(mut self, line: impl Into<String>) -> Self {
        self.warnings.push(line.into());
        self
    }

    pub(super) fn limit(mut self, line: impl Into<String>) -> Self {
        self.limits.push(line.into());
        self
    }

    pub(super) fn limits(mut self, lines: impl IntoIterator<Item = String>) -> Self {
        self.limits.extend(lines);
        self
    }

    pub(super) fn measure(mut self, measure: Measure) -> Self {
        self.measures.push(measure);
        self
    }

    /// A count: a measure without bracket or target.
    pub(super) fn count(self, name: &str, unit: &str, n: u64) -> Self {
        let n = float(n);
        self.measure(Measure {
            name: name.into(),
            unit: unit.into(),
            low: n,
            high: n,
            target: None,
        })
    }

    /// The worse of two words; the evidence of the worse one, or of both if they are equal.
    pub(super) fn worst(self, other: Self) -> Self {
        let (mut worse, better) = if other.status > self.status {
            (other, self)
        } else {
            (self, other)
        };
        if worse.status == better.status {
            if worse.summary != better.summary {
                worse.summary = format!("{}; {}", worse.summary, better.summary);
            }
            worse.witness.extend(better.witness);
            worse.warnings.extend(better.warnings);
            worse.measures.extend(better.measures);
            for limit in better.limits {
                if !worse.limits.contains(&limit) {
                    worse.limits.push(limit);
                }
            }
        }
        worse
    }
}

/// A count as a number for people.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts beyond 2^53 are not reached, and are shown, not compared"
)]
pub(super) const fn float(n: u64) -> f64 {
    n as f64
}

/// Nanoseconds as seconds.
pub(super) const fn seconds(ns: u64) -> f64 {
    float(ns) / 1e9
}

/// A moment of the run's clock for people.
pub(super) fn moment(ns: u64) -> String {
    format!("{:.3} s", seconds(ns))
}

/// A bracketed time in seconds against its target.
pub(super) fn time(name: &str, low_ns: u64, high_ns: u64, target: Option<f64>) -> Measure {
    Measure {
        name: name.into(),
        unit: "s".into(),
        low: seconds(low_ns),
        high: seconds(high_ns.max(low_ns)),
        target,
    }
}
