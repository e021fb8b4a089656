//! The file tree of the guest, and the cpio archive that the kernel unpacks it from.
//!
//! Contract: the same tree gives the same bytes (no times, no owners but root, sorted paths), so the
//! hash of an archive says what is in it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use cpio::newc::{Builder, ModeFileType, trailer};

/// The folders of `/` that are links into `/usr`, as on every Debian 12 or newer system.
pub(super) const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    /// A folder. Those with ordinary permissions need not be put.
    Folder {
        /// Permission bits.
        mode: u32,
    },
    /// A file.
    File {
        /// Permission bits.
        mode: u32,
        /// Content.
        data: Vec<u8>,
    },
    /// A symbolic link.
    Link {
        /// What it says.
        target: String,
    },
    /// A character device.
    Device {
        /// Permission bits.
        mode: u32,
        /// Major and minor number.
        number: (u32, u32),
    },
}

/// The tree by path, without a leading slash.
#[derive(Debug, Default)]
pub(super) struct Tree(BTreeMap<String, Node>);

impl Tree {
    /// A root with its `/usr` links.
    pub(super) fn new() -> Self {
        let mut tree = Self::default();
        for name in MERGED {
            tree.link(name, &format!("usr/{name}"));
            tree.put(&format!("usr/{name}"), Node::Folder { mode: 0o755 });
        }
        tree
    }

    /// Puts a node, in the place of one that may be there.
    pub(super) fn put(&mut self, path: &str, node: Node) {
        self.0.insert(path.to_owned(), node);
    }

    /// Puts a symbolic link.
    pub(super) fn link(&mut self, path: &str, target: &str) {
        let target = target.to_owned();
        self.put(path, Node::Link { target });
    }

    /// Whether something stands there.
    pub(super) fn has(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    /// The archive: newc, uncompressed, since unpacking costs a guest under TCG more than the memory
    /// is worth.
    pub(super) fn archive(&self) -> io::Result<Vec<u8>> {
        let mut all = self.folders();
        all.extend(self.0.iter().map(|(path, node)| (path.as_str(), node)));
        let mut bytes = Vec::new();
        for (index, (path, node)) in all.iter().enumerate() {
            // A file of two links is told by its inode, so each has its own; 0 would be "none".
            let inode = u32::try_from(index + 1).map_err(io::Error::other)?;
            append(&mut bytes, path, node, inode)?;
        }
        trailer(&mut bytes)?;
        Ok(bytes)
    }

    /// The folders that no one put.
    fn folders(&self) -> BTreeMap<&str, &Node> {
        let parents: BTreeSet<&str> = self
            .0
            .keys()
            .flat_map(|path| path.match_indices('/').map(|(at, _)| &path[..at]))
            .collect();
        let absent = parents.into_iter().filter(|path| !self.has(path));
        absent
            .map(|path| (path, &Node::Folder { mode: 0o755 }))
            .collect()
    }
}

fn append(archive: &mut Vec<u8>, path: &str, node: &Node, inode: u32) -> io::Result<()> {
    let (mode, kind, data): (u32, ModeFileType, &[u8]) = match node {
        Node::Folder { mode } => (*mode, ModeFileType::Directory, &[]),
        Node::File { mode, data } => (*mode, ModeFileType::Regular, data),
        Node::Link { target } => (0o777, ModeFileType::Symlink, target.as_bytes()),
        Node::Device { mode, .. } => (*mode, ModeFileType::Char, &[]),
    };
    let number = match node {
        Node::Device { number, .. } => *number,
        _ => (0, 0),
    };
    let size = u32::try_from(data.len()).map_err(io::Error::other)?;
    let entry = Builder::new(path)
        .ino(inode)
        .mode(mode)
        .set_mode_file_type(kind)
        .nlink(1)
        .rdev_major(number.0)
        .rdev_minor(number.1);
    let mut writer = entry.write(archive, size);
    writer.write_all(data)?;
    writer.finish().map(drop)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn sample() -> Tree {
        let mut tree = Tree::new();
        let file = |mode, data: &[u8]| Node::File {
            mode,
            data: data.to_vec(),
        };
        tree.put("usr/bin/tool", file(0o4755, b"content"));
        tree.put("a/b/c", file(0o644, b""));
        tree.put("a", Node::Folder { mode: 0o700 });
        tree.put(
            "dev/console",
            Node::Device {
                mode: 0o600,
                number: (5, 1),
            },
        );
        tree
    }

    #[test]
    fn the_archive_holds_the_tree_and_every_parent_comes_first() {
        let bytes = sample().archive().unwrap();
        let mut rest = io::Cursor::new(bytes);
        let mut seen: BTreeMap<String, (u32, Vec<u8>)> = BTreeMap::new();
        loop {
            let mut reader = cpio::newc::Reader::new(rest).unwrap();
            let (name, mode) = (reader.entry().name().to_owned(), reader.entry().mode());
            if reader.entry().is_trailer() {
                break;
            }
            if let Some((parent, _)) = name.rsplit_once('/') {
                assert!(seen.contains_key(parent), "{parent} comes after {name}");
            }
            let mut data = Vec::new();
            reader.read_to_end(&mut data).unwrap();
            seen.insert(name, (mode, data));
            rest = reader.finish().unwrap();
        }
        assert_eq!(seen["usr/bin/tool"], (0o104_755, b"content".to_vec()));
        assert_eq!(seen["bin"], (0o120_777, b"usr/bin".to_vec()));
        assert_eq!(seen["a"].0, 0o040_700);
        assert_eq!(seen["a/b"].0, 0o040_755);
        assert_eq!(seen["dev/console"].0, 0o020_600);
    }

    #[test]
    fn the_same_tree_gives_the_same_bytes() {
        assert_eq!(sample().archive().unwrap(), sample().archive().unwrap());
    }
}
