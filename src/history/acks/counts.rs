//! A number for each writer.

use std::collections::BTreeMap;

/// Writers below this are found by their place. Those of a VM are numbered from 0, but for the two
/// that are numbered from the end; others come only from streams that make no sense.
const NEAR: usize = 1024;

/// 0 for every writer that was not counted.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Counts {
    near: Vec<u64>,
    far: BTreeMap<u32, u64>,
}

impl Counts {
    pub(super) const fn new() -> Self {
        Self {
            near: Vec::new(),
            far: BTreeMap::new(),
        }
    }

    pub(super) fn of(&mut self, writer: u32) -> &mut u64 {
        match usize::try_from(writer) {
            Ok(near) if near < NEAR => {
                if near >= self.near.len() {
                    self.near.resize(near + 1, 0);
                }
                &mut self.near[near]
            }
            _ => self.far.entry(writer).or_insert(0),
        }
    }

    pub(super) fn get(&self, writer: u32) -> u64 {
        let near = usize::try_from(writer)
            .ok()
            .and_then(|at| self.near.get(at));
        near.or_else(|| self.far.get(&writer)).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn counts_as_a_map_does(steps in proptest::collection::vec(
            (prop_oneof![0..4_u32, 1020..1030_u32, any::<u32>()], any::<u32>()), 0..50,
        )) {
            let mut counts = Counts::new();
            let mut map = BTreeMap::new();
            for (writer, step) in steps {
                *counts.of(writer) += u64::from(step);
                *map.entry(writer).or_insert(0) += u64::from(step);
            }
            for writer in (0..1100).chain(map.keys().copied()) {
                prop_assert_eq!(counts.get(writer), map.get(&writer).copied().unwrap_or(0));
            }
        }
    }
}
