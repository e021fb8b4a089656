//! Random choices from one seed: the same seed and label give the same choices on every machine.

use crate::probe::layout::mix;

/// A stream of random choices.
#[derive(Debug, Clone)]
pub(super) struct Draw {
    key: u64,
    count: u64,
}

impl Draw {
    /// The stream of `seed` for the purpose `label`; streams of different labels are independent, so
    /// that one part of a history can shrink without changing the others.
    pub(super) const fn new(seed: u64, label: u64) -> Self {
        Self {
            key: mix(seed ^ mix(label)),
            count: 0,
        }
    }

    pub(super) const fn next(&mut self) -> u64 {
        self.count += 1;
        mix(self.key ^ mix(self.count))
    }

    /// Uniform in `0..n`, 0 for an empty range.
    pub(super) const fn below(&mut self, n: u64) -> u64 {
        let drawn = self.next();
        if n == 0 { 0 } else { drawn % n }
    }

    /// Uniform in `low..=high`.
    pub(super) const fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// True once in `n`.
    pub(super) const fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// An index of a list of `len` items.
    pub(super) fn index(&mut self, len: usize) -> usize {
        small(self.below(len as u64))
    }

    /// One of a list, `None` if it is empty.
    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        let at = self.index(from.len());
        from.get(at).copied()
    }
}

/// A count as an index.
pub(super) fn small(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}
