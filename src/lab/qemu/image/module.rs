//! The kernel modules of the guest: which files a wanted driver takes, in the order in which they can
//! be inserted one by one. Debian ships no `modules.dep`; `depmod` makes it where a kernel is installed,
//! and nothing is installed here.

use std::collections::{BTreeMap, BTreeSet};

use super::deb::{Entry, Files};
use super::{ImageError, elf, unpack};

/// A module on its way into the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Module {
    /// Name as the kernel has it, with `_` for `-`.
    pub(super) name: String,
    /// The uncompressed object.
    pub(super) object: Vec<u8>,
}

/// The modules of one kernel package.
#[derive(Debug)]
pub(super) struct Modules<'a> {
    package: &'a str,
    files: BTreeMap<String, &'a [u8]>,
    builtin: BTreeSet<String>,
}

impl<'a> Modules<'a> {
    /// The modules among the files of a kernel package.
    pub(super) fn new(package: &'a str, files: &'a Files) -> Self {
        let mut modules = Self {
            package,
            files: BTreeMap::new(),
            builtin: BTreeSet::new(),
        };
        for (path, entry) in files {
            let Entry::File { data, .. } = entry else {
                continue;
            };
            if path.ends_with("/modules.builtin") {
                let list = String::from_utf8_lossy(data);
                modules.builtin.extend(list.lines().filter_map(name_of));
            } else if let Some(name) = name_of(path) {
                modules.files.insert(name, data);
            }
        }
        modules
    }

    /// Whether the kernel has it, as a file or built in.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.files.contains_key(name) || self.builtin.contains(name)
    }

    /// What must be inserted for `name` to work, `name` itself last; empty if it is built in.
    pub(super) fn closure(&self, name: &str) -> Result<Vec<Module>, ImageError> {
        let mut order = Vec::new();
        self.visit(name, &mut BTreeSet::new(), &mut order)?;
        Ok(order)
    }

    fn visit(
        &self,
        name: &str,
        seen: &mut BTreeSet<String>,
        order: &mut Vec<Module>,
    ) -> Result<(), ImageError> {
        if self.builtin.contains(name) || !seen.insert(name.to_owned()) {
            return Ok(());
        }
        let failed = |why: String| ImageError::package(self.package, why);
        let Some(packed) = self.files.get(name) else {
            return Err(failed(format!("it has no module {name}")));
        };
        let object = unpack::plain(packed.to_vec())
            .map_err(|error| failed(format!("its module {name} does not unpack ({error})")))?;
        let info = elf::modinfo(&object)
            .map_err(|error| failed(format!("its module {name} is damaged ({error})")))?;
        for (key, value) in info {
            match key.as_str() {
                "depends" => {
                    for needed in value.split(',').filter(|word| !word.is_empty()) {
                        self.visit(&kernel_name(needed), seen, order)?;
                    }
                }
                // Wanted before, but not a must (modprobe.d(5)); it may name an alias.
                "softdep" => {
                    for wanted in pre_softdeps(&value).filter(|wanted| self.knows(wanted)) {
                        self.visit(&wanted, seen, order)?;
                    }
                }
                _ => {}
            }
        }
        let name = name.to_owned();
        order.push(Module { name, object });
        Ok(())
    }
}

/// `kernel/fs/xfs/xfs.ko.xz` is `xfs`.
fn name_of(path: &str) -> Option<String> {
    let file = path.rsplit('/').next()?;
    let (name, packing) = file.split_once(".ko")?;
    matches!(packing, "" | ".xz" | ".zst" | ".gz").then(|| kernel_name(name))
}

/// The kernel knows `crc32c-intel` as `crc32c_intel`.
fn kernel_name(name: &str) -> String {
    name.trim().replace('-', "_")
}

/// The words of `pre: a b post: c` that stand before `post:`.
fn pre_softdeps(value: &str) -> impl Iterator<Item = String> {
    let before = value.split("post:").next().unwrap_or_default();
    let words = before.trim_start_matches("pre:").split_whitespace();
    words.map(kernel_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_kernel() {
        assert_eq!(
            name_of("lib/modules/6/crc32c-intel.ko.xz").as_deref(),
            Some("crc32c_intel")
        );
        assert_eq!(name_of("kernel/fs/ext4/ext4.ko").as_deref(), Some("ext4"));
        assert_eq!(name_of("lib/modules/6/modules.order"), None);
        assert_eq!(name_of("a.ko.sig"), None);
        let words: Vec<_> = pre_softdeps("pre: crc32c libcrc-32 post: later").collect();
        assert_eq!(words, ["crc32c", "libcrc_32"]);
    }

    #[test]
    fn what_is_built_in_needs_no_file_and_what_is_absent_is_named() {
        let list = b"kernel/fs/ext4/ext4.ko\n".to_vec();
        let files = Files::from([(
            "usr/lib/modules/6/modules.builtin".to_owned(),
            Entry::File {
                mode: 0o644,
                data: list,
            },
        )]);
        let modules = Modules::new("linux", &files);
        assert!(modules.knows("ext4"));
        assert_eq!(modules.closure("ext4").unwrap(), []);
        let error = modules.closure("xfs").unwrap_err().to_string();
        assert!(error.contains("no module xfs"), "{error}");
    }
}
