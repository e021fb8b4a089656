//! The packages that an image is made of, and the libraries that its programs need.
//!
//! A package says which packages it depends on, not which of its programs needs which of their
//! libraries. So programs are asked (`DT_NEEDED`), and a package is fetched only when one of its
//! dependents asks for a library that is not there yet: `xfsprogs` depends on ICU, which only
//! `xfs_scrub` needs. Policy §8.6 makes this complete: a package depends directly on those whose
//! libraries it links.

use std::collections::{BTreeMap, BTreeSet};

use super::apt::{self, Apt};
use super::deb::{self, Entry, Files, merged};
use super::stanza::Stanza;
use super::tree::{Node, Tree};
use super::{ImageError, elf};

/// Where the loader looks without being told (Debian's `ld.so`), multiarch first.
const LIBRARY_FOLDERS: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "usr/lib"];
/// A chain of links longer than this is a circle.
const LINKS: usize = 16;

/// A package at hand.
#[derive(Debug)]
pub(super) struct AtHand {
    /// What the lists say of it.
    pub(super) stanza: Stanza,
    /// Its files, without documentation.
    pub(super) files: Files,
}

/// A library that is asked for and not there yet.
#[derive(Debug)]
struct Wanted {
    package: String,
    file: String,
    /// Its soname, or a path.
    library: String,
}

/// The packages fetched so far, and the tree that is filled from them.
#[derive(Debug)]
pub(super) struct Pool<'a> {
    apt: &'a Apt,
    packages: BTreeMap<String, AtHand>,
    /// The tree.
    pub(super) tree: Tree,
    wanted: Vec<Wanted>,
}

impl<'a> Pool<'a> {
    /// An empty pool.
    pub(super) fn new(apt: &'a Apt) -> Self {
        Self {
            apt,
            packages: BTreeMap::new(),
            tree: Tree::new(),
            wanted: Vec::new(),
        }
    }

    /// Fetches and reads packages.
    pub(super) fn add(
        &mut self,
        stanzas: &[&Stanza],
        progress: &mut dyn FnMut(&str),
    ) -> Result<(), ImageError> {
        let fetched = self.apt.fetch(stanzas, progress)?;
        for (stanza, bytes) in stanzas.iter().zip(fetched) {
            let files = deb::read(&stanza.package, &bytes, is_useful)?;
            let stanza = (*stanza).clone();
            let package = AtHand { stanza, files };
            self.packages
                .insert(package.stanza.package.clone(), package);
        }
        Ok(())
    }

    /// A package added before.
    pub(super) fn package(&self, name: &str) -> Result<&AtHand, ImageError> {
        let found = self.packages.get(name);
        found.ok_or_else(|| ImageError::package(name, "it was not fetched"))
    }

    /// All packages at hand, by name.
    pub(super) fn packages(&self) -> Vec<super::Package> {
        let stanzas = self.packages.values().map(|package| &package.stanza);
        stanzas
            .map(|stanza| super::Package {
                name: stanza.package.clone(),
                version: stanza.version.clone(),
                sha256: stanza.sha256.clone(),
            })
            .collect()
    }

    /// Puts a file of a package into the tree, with what its links lead to, and notes what it needs.
    pub(super) fn take(&mut self, package: &str, path: &str) -> Result<(), ImageError> {
        let mut path = path.to_owned();
        for _ in 0..LINKS {
            if self.tree.has(&path) {
                return Ok(());
            }
            let entry = self.package(package)?.files.get(&path).cloned();
            match entry {
                Some(Entry::Link { target }) => {
                    self.tree.link(&path, &target);
                    path = followed(&path, &target);
                }
                Some(Entry::File { mode, data }) => {
                    self.note_needs(package, &path, &data)?;
                    self.tree.put(&path, Node::File { mode, data });
                    return Ok(());
                }
                // A link into another package; whoever needs what is there asks for it by name.
                None => return Ok(()),
            }
        }
        Err(ImageError::package(
            package,
            format!("{path} is a circle of links"),
        ))
    }

    fn note_needs(&mut self, package: &str, path: &str, data: &[u8]) -> Result<(), ImageError> {
        if !elf::is_elf(data) {
            return Ok(());
        }
        let needs = elf::needs(data).map_err(|error| {
            ImageError::package(package, format!("{path} is damaged ({error})"))
        })?;
        let names = needs.libraries.into_iter().chain(needs.interpreter);
        self.wanted.extend(names.map(|library| Wanted {
            package: package.to_owned(),
            file: path.to_owned(),
            library,
        }));
        Ok(())
    }

    /// Brings in the libraries that the tree's programs need, and theirs.
    pub(super) fn resolve(&mut self, progress: &mut dyn FnMut(&str)) -> Result<(), ImageError> {
        loop {
            self.take_libraries()?;
            let Some(first) = self.wanted.first() else {
                return Ok(());
            };
            let missing = ImageError::Library {
                package: first.package.clone(),
                file: first.file.clone(),
                library: first.library.clone(),
            };
            let stanzas = self.suppliers()?;
            if stanzas.is_empty() {
                return Err(missing);
            }
            self.add(&stanzas.values().collect::<Vec<_>>(), progress)?;
        }
    }

    /// Takes every wanted library that a package at hand has, and what these want in turn.
    fn take_libraries(&mut self) -> Result<(), ImageError> {
        let mut absent = Vec::new();
        while let Some(wanted) = self.wanted.pop() {
            match self.find(&wanted) {
                Some((package, path)) => self.take(&package, &path)?,
                None => absent.push(wanted),
            }
        }
        self.wanted = absent;
        Ok(())
    }

    fn find(&self, wanted: &Wanted) -> Option<(String, String)> {
        let library = &wanted.library;
        // The loader is named by its path.
        let usual = if library.starts_with('/') {
            vec![merged(library)]
        } else {
            LIBRARY_FOLDERS
                .map(|folder| format!("{folder}/{library}"))
                .into()
        };
        let at_usual = self.packages.iter().find_map(|(name, package)| {
            let path = usual
                .iter()
                .find(|path| package.files.contains_key(*path))?;
            Some((name.clone(), path.clone()))
        });
        // A private library lies in a folder that its users' RUNPATH names.
        at_usual.or_else(|| {
            let end = format!("/{library}");
            self.packages.iter().find_map(|(name, package)| {
                let path = package.files.keys().find(|path| path.ends_with(&end))?;
                Some((name.clone(), path.clone()))
            })
        })
    }

    /// The packages to fetch for what is still wanted, out of those that the asking packages depend on.
    fn suppliers(&self) -> Result<BTreeMap<String, Stanza>, ImageError> {
        let mut absent = BTreeSet::new();
        for wanted in &self.wanted {
            absent.extend(self.absent_dependencies(wanted)?);
        }
        if absent.is_empty() {
            return Ok(BTreeMap::new());
        }
        // Names that apt does not know are virtual packages or alternatives of another release.
        let mut stanzas = apt::show(&absent.into_iter().cloned().collect::<Vec<_>>())?;
        stanzas.retain(|_, stanza| stanza.is_library);
        let mut named = BTreeSet::new();
        let mut likely = BTreeSet::new();
        for wanted in &self.wanted {
            let absent = self.absent_dependencies(wanted)?.into_iter();
            let absent = absent.filter(|name| stanzas.contains_key(*name));
            let like = |name: &&String| is_named_like(name, &wanted.library);
            named.extend(absent.clone().filter(like).cloned());
            likely.extend(likeliest(
                &wanted.library,
                &absent.cloned().collect::<Vec<_>>(),
            ));
        }
        // What is found by its name may bring the others too: `libcrypto.so.3` is in `libssl3`.
        let chosen = if named.is_empty() { likely } else { named };
        stanzas.retain(|name, _| chosen.contains(name));
        Ok(stanzas)
    }

    fn absent_dependencies(&self, wanted: &Wanted) -> Result<Vec<&String>, ImageError> {
        let depends = self.package(&wanted.package)?.stanza.depends.iter();
        Ok(depends
            .filter(|name| !self.packages.contains_key(*name))
            .collect())
    }
}

/// Those of `packages` whose names begin most like the library's: `libe2p.so.2` is in `libext2fs2`. The
/// rest get their turn when these do not have it.
fn likeliest(library: &str, packages: &[String]) -> Vec<String> {
    let shared = |package: &String| {
        let pairs = package.bytes().zip(library.bytes());
        pairs.take_while(|(a, b)| a == b).count()
    };
    let best = packages.iter().map(shared).max();
    let best = packages
        .iter()
        .filter(|package| Some(shared(package)) == best);
    best.cloned().collect()
}

/// Whether a package is named after a library as Debian Policy §8.1 has it: `libssl3` or, since the
/// 64-bit time transition, `libssl3t64` for `libssl.so.3`, `libglib2.0-0` for `libglib-2.0.so.0`.
fn is_named_like(package: &str, library: &str) -> bool {
    let plain = |name: &str| name.to_lowercase().replace(['-', '_'], "");
    let Some((stem, version)) = library.split_once(".so") else {
        return false;
    };
    // The one that is older than the rule, and that most programs need.
    if package == "zlib1g" {
        return stem == "libz";
    }
    let package = package.strip_suffix("t64").unwrap_or(package);
    plain(package) == plain(&format!("{stem}{}", version.trim_start_matches('.')))
}

/// Where a link at `path` leads.
fn followed(path: &str, target: &str) -> String {
    let absolute = if target.starts_with('/') {
        target.to_owned()
    } else {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{folder}/{target}")
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in absolute.split('/') {
        match part {
            "" | "." => {}
            ".." => _ = parts.pop(),
            part => parts.push(part),
        }
    }
    merged(&parts.join("/"))
}

/// What may be of use in a guest.
fn is_useful(path: &str) -> bool {
    const USELESS: [&str; 8] = [
        "usr/share/doc/",
        "usr/share/man/",
        "usr/share/locale/",
        "usr/share/lintian/",
        "usr/share/bug/",
        "usr/share/bash-completion/",
        "usr/include/",
        "boot/System.map",
    ];
    !USELESS.iter().any(|folder| path.starts_with(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_known_by_the_library_that_they_are_named_after() {
        for (package, library) in [
            ("libssl3", "libssl.so.3"),
            ("libssl3t64", "libssl.so.3"),
            ("libglib2.0-0", "libglib-2.0.so.0"),
            ("libglib2.0-0t64", "libglib-2.0.so.0"),
            ("libcom-err2", "libcom_err.so.2"),
            ("libgcc-s1", "libgcc_s.so.1"),
            ("libc6", "libc.so.6"),
            ("zlib1g", "libz.so.1"),
        ] {
            assert!(is_named_like(package, library), "{package} for {library}");
        }
        assert!(!is_named_like("libssl3", "libcrypto.so.3"));
        assert!(!is_named_like("libc6", "ld-linux-x86-64"));
    }

    #[test]
    fn the_likeliest_packages_are_tried_first() {
        let packages = ["libblkid1", "libc6", "libext2fs2", "libss2", "zlib1g"].map(str::to_owned);
        for (library, tried) in [
            ("libss.so.2", &packages[3..4]),
            ("libe2p.so.2", &packages[2..3]),
            ("libxml2.so.2", &packages[..4]),
            ("libother.so.1", &packages[..4]),
        ] {
            assert_eq!(likeliest(library, &packages), tried, "{library}");
        }
        assert!(likeliest("libz.so.1", &[]).is_empty());
    }

    #[test]
    fn links_are_followed_inside_the_guest() {
        let cases = [
            ("usr/lib64/ld.so.2", "/lib/x/ld.so", "usr/lib/x/ld.so"),
            ("usr/lib/x/libc.so.6", "libc-2.so", "usr/lib/x/libc-2.so"),
            ("usr/bin/a", "../sbin/b", "usr/sbin/b"),
            ("usr/bin/a", "../../../../bin/b", "usr/bin/b"),
        ];
        for (path, target, leads) in cases {
            assert_eq!(followed(path, target), leads);
        }
    }
}
