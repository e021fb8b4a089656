//! A lab in a folder of its own, driven through the built binary as a user would.

mod program;

use std::path::Path;

pub(crate) use program::virtproof;

/// A lab that is up for as long as this lives.
pub(crate) struct Lab<'a>(&'a Path);

impl<'a> Lab<'a> {
    /// Starts a lab in `dir`, with the built-in plan beside it, `edit` applied.
    pub(crate) fn up(dir: &'a Path, edit: impl FnOnce(&str) -> String) -> Self {
        let lab = Self(dir);
        let (code, said) = virtproof(dir, &["lab", "up", "--detach", "--dir", "."]);
        assert_eq!(code, Some(0), "{said}");
        std::fs::write(dir.join("plan.yaml"), edit(virtproof::plan::LAB)).expect("the plan");
        lab
    }
}

impl Drop for Lab<'_> {
    fn drop(&mut self) {
        let (code, said) = virtproof(self.0, &["lab", "down", "--dir", "."]);
        if !std::thread::panicking() {
            assert_eq!(code, Some(0), "{said}");
        }
    }
}
