//! The file tree of a running guest: a root file system with limited space and a tmpfs on `/run`
//! and `/tmp`. It lives in memory and goes with the guest's power; what outlives a boot is
//! [`crate::lab::guest::image`]'s.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

/// Why an operation failed, in the words of `strerror`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::lab::guest) enum FsError {
    /// ENOENT.
    #[error("No such file or directory")]
    NotFound,
    /// EEXIST.
    #[error("File exists")]
    Exists,
    /// ENOTDIR.
    #[error("Not a directory")]
    NotDirectory,
    /// EISDIR.
    #[error("Is a directory")]
    IsDirectory,
    /// EACCES.
    #[error("Permission denied")]
    Denied,
    /// ENOSPC.
    #[error("No space left on device")]
    NoSpace,
}

/// A file or directory.
#[derive(Debug, Clone)]
pub(in crate::lab::guest) struct Node {
    /// Permission bits.
    pub(in crate::lab::guest) mode: u32,
    /// Owner by name.
    pub(in crate::lab::guest) owner: String,
    /// Content; `None` for a directory.
    pub(in crate::lab::guest) content: Option<Bytes>,
}

/// The tree. Paths are absolute and normal (see [`absolute`]).
#[derive(Debug)]
pub(in crate::lab::guest) struct Tree {
    nodes: Mutex<BTreeMap<String, Node>>,
    root_space: u64,
    run_space: u64,
}

/// An absolute path without `.`, `..` and doubled slashes; relative ones start at `cwd`.
pub(in crate::lab::guest) fn absolute(cwd: &str, path: &str) -> String {
    let joined = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("{cwd}/{path}")
    };
    let mut parts = Vec::new();
    for part in joined.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

fn parent(path: &str) -> &str {
    match path.rfind('/') {
        None | Some(0) => "/",
        Some(at) => &path[..at],
    }
}

fn in_memory(path: &str) -> bool {
    ["/run/", "/tmp/", "/dev/"]
        .iter()
        .any(|root| path.starts_with(root))
}

impl Tree {
    /// A tree with the usual directories, so many free bytes on the root file system and on tmpfs.
    pub(in crate::lab::guest) fn new(root_space: u64, run_space: u64) -> Self {
        let tree = Self {
            nodes: Mutex::default(),
            root_space,
            run_space,
        };
        for path in [
            "/", "/bin", "/dev", "/etc", "/home", "/mnt", "/proc", "/run", "/tmp", "/usr", "/var",
        ] {
            tree.plant(
                path,
                if path == "/tmp" { 0o1777 } else { 0o755 },
                "root",
                None,
            );
        }
        tree.plant("/root", 0o700, "root", None);
        tree
    }

    /// Puts a node in place without asking for permission or space; for what the image carries.
    pub(in crate::lab::guest) fn plant(
        &self,
        path: &str,
        mode: u32,
        owner: &str,
        content: Option<Bytes>,
    ) {
        self.nodes().insert(
            path.to_owned(),
            Node {
                mode,
                owner: owner.to_owned(),
                content,
            },
        );
    }

    fn nodes(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Node>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node at a path.
    pub(in crate::lab::guest) fn stat(&self, path: &str) -> Option<Node> {
        self.nodes().get(path).cloned()
    }

    /// The content of a file that `user` may read.
    pub(in crate::lab::guest) fn read(&self, user: &str, path: &str) -> Result<Bytes, FsError> {
        let node = self.stat(path).ok_or(FsError::NotFound)?;
        let content = node.content.ok_or(FsError::IsDirectory)?;
        if allowed(user, &node.owner, node.mode, 4) {
            Ok(content)
        } else {
            Err(FsError::Denied)
        }
    }

    /// Makes a directory; with `parents`, also the missing ones above, and existing is no error.
    pub(in crate::lab::guest) fn mkdir(
        &self,
        user: &str,
        path: &str,
        mode: u32,
        parents: bool,
    ) -> Result<(), FsError> {
        let mut nodes = self.nodes();
        match nodes.get(path) {
            Some(node) if node.content.is_some() => return Err(FsError::Exists),
            Some(_) if parents => return Ok(()),
            Some(_) => return Err(FsError::Exists),
            None => {}
        }
        let mut missing = vec![path.to_owned()];
        let mut above = parent(path).to_owned();
        while !nodes.contains_key(&above) {
            if !parents {
                return Err(FsError::NotFound);
            }
            missing.push(above.clone());
            above = parent(&above).to_owned();
        }
        writable_directory(&nodes, user, &above)?;
        for (at, path) in missing.iter().enumerate().rev() {
            nodes.insert(
                path.clone(),
                Node {
                    mode: if at == 0 { mode } else { 0o755 },
                    owner: user.to_owned(),
                    content: None,
                },
            );
        }
        Ok(())
    }

    /// Replaces or extends a file, creating it if need be.
    pub(in crate::lab::guest) fn write(
        &self,
        user: &str,
        path: &str,
        content: Bytes,
        append: bool,
    ) -> Result<(), FsError> {
        if path == "/dev/null" {
            return Ok(());
        }
        let mut nodes = self.nodes();
        let before = match nodes.get(path) {
            Some(Node { content: None, .. }) => return Err(FsError::IsDirectory),
            Some(node) if !allowed(user, &node.owner, node.mode, 2) => return Err(FsError::Denied),
            Some(node) => node.content.clone(),
            None => {
                writable_directory(&nodes, user, parent(path))?;
                None
            }
        };
        let content = match before {
            Some(old) if append => Bytes::from([old, content].concat()),
            _ => content,
        };
        let space = if in_memory(path) {
            self.run_space
        } else {
            self.root_space
        };
        let others: u64 = nodes
            .iter()
            .filter(|(other, _)| *other != path && in_memory(other) == in_memory(path))
            .filter_map(|(_, node)| Some(node.content.as_ref()?.len() as u64))
            .sum();
        if others + content.len() as u64 > space {
            return Err(FsError::NoSpace);
        }
        let node = nodes.entry(path.to_owned()).or_insert_with(|| Node {
            mode: 0o644,
            owner: user.to_owned(),
            content: None,
        });
        node.content = Some(content);
        Ok(())
    }

    /// Changes permission bits.
    pub(in crate::lab::guest) fn chmod(
        &self,
        user: &str,
        path: &str,
        mode: u32,
    ) -> Result<(), FsError> {
        let mut nodes = self.nodes();
        let node = nodes.get_mut(path).ok_or(FsError::NotFound)?;
        if user != "root" && user != node.owner {
            return Err(FsError::Denied);
        }
        node.mode = mode;
        Ok(())
    }

    /// Renames a file over another, or into a directory.
    pub(in crate::lab::guest) fn rename(
        &self,
        user: &str,
        from: &str,
        to: &str,
    ) -> Result<(), FsError> {
        let mut nodes = self.nodes();
        if !nodes.contains_key(from) {
            return Err(FsError::NotFound);
        }
        let into_directory = nodes.get(to).is_some_and(|node| node.content.is_none());
        let to = if into_directory {
            let name = from.rsplit('/').next().unwrap_or_default();
            format!("{}/{name}", to.trim_end_matches('/'))
        } else {
            to.to_owned()
        };
        writable_directory(&nodes, user, parent(from))?;
        writable_directory(&nodes, user, parent(&to))?;
        let below = format!("{from}/");
        let moved: Vec<String> = nodes
            .keys()
            .filter(|path| *path == from || path.starts_with(&below))
            .cloned()
            .collect();
        for path in moved {
            if let Some(node) = nodes.remove(&path) {
                nodes.insert(format!("{to}{}", &path[from.len()..]), node);
            }
        }
        Ok(())
    }

    /// Removes a file, or a directory and all below it with `recursive`.
    pub(in crate::lab::guest) fn remove(
        &self,
        user: &str,
        path: &str,
        recursive: bool,
    ) -> Result<(), FsError> {
        let mut nodes = self.nodes();
        let node = nodes.get(path).ok_or(FsError::NotFound)?;
        if node.content.is_none() && !recursive {
            return Err(FsError::IsDirectory);
        }
        writable_directory(&nodes, user, parent(path))?;
        let below = format!("{path}/");
        nodes.retain(|other, _| other != path && !other.starts_with(&below));
        Ok(())
    }

    /// The names in a directory.
    pub(in crate::lab::guest) fn list(&self, path: &str) -> Result<Vec<String>, FsError> {
        let nodes = self.nodes();
        let node = nodes.get(path).ok_or(FsError::NotFound)?;
        if node.content.is_some() {
            return Err(FsError::NotDirectory);
        }
        Ok(nodes
            .keys()
            .filter(|other| other.as_str() != "/" && *other != path && parent(other) == path)
            .filter_map(|other| Some(other.rsplit('/').next()?.to_owned()))
            .collect())
    }
}

fn allowed(user: &str, owner: &str, mode: u32, bit: u32) -> bool {
    let shift = if user == owner { 6 } else { 0 };
    user == "root" || (mode >> shift) & bit != 0
}

fn writable_directory(
    nodes: &BTreeMap<String, Node>,
    user: &str,
    path: &str,
) -> Result<(), FsError> {
    let node = nodes.get(path).ok_or(FsError::NotFound)?;
    if node.content.is_some() {
        return Err(FsError::NotDirectory);
    }
    if allowed(user, &node.owner, node.mode, 2) {
        Ok(())
    } else {
        Err(FsError::Denied)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_normalised() {
        assert_eq!(absolute("/root", "a/../b//./c"), "/root/b/c");
        assert_eq!(absolute("/root", "/../etc/"), "/etc");
    }

    #[test]
    fn run_belongs_to_root_and_tmp_to_all() {
        let tree = Tree::new(1 << 20, 1 << 20);
        assert_eq!(
            tree.mkdir("fedora", "/run/x", 0o700, true),
            Err(FsError::Denied)
        );
        assert_eq!(tree.mkdir("root", "/run/x/y", 0o700, true), Ok(()));
        assert_eq!(
            tree.mkdir("root", "/run/x/y", 0o700, false),
            Err(FsError::Exists)
        );
        let file = Bytes::from_static(b"hi");
        assert_eq!(tree.write("fedora", "/tmp/f", file.clone(), false), Ok(()));
        assert_eq!(tree.write("root", "/run/x/y/f", file, false), Ok(()));
        assert_eq!(tree.read("fedora", "/run/none"), Err(FsError::NotFound));
        assert_eq!(tree.list("/run/x"), Ok(vec!["y".to_owned()]));
    }

    #[test]
    fn a_full_root_file_system_leaves_tmpfs_alone() {
        let tree = Tree::new(0, 1 << 20);
        let file = Bytes::from_static(b"hi");
        assert_eq!(
            tree.write("root", "/root/f", file.clone(), false),
            Err(FsError::NoSpace)
        );
        assert_eq!(tree.write("root", "/run/f", file, false), Ok(()));
    }

    #[test]
    fn rename_replaces_and_moves_trees() {
        let tree = Tree::new(1 << 20, 1 << 20);
        tree.mkdir("root", "/run/a/b", 0o700, true).unwrap();
        for (path, text) in [("/run/a/b/new", "2"), ("/run/a/b/old", "1")] {
            tree.write("root", path, Bytes::from_static(text.as_bytes()), false)
                .unwrap();
        }
        tree.rename("root", "/run/a/b/new", "/run/a/b/old").unwrap();
        tree.rename("root", "/run/a", "/run/c").unwrap();
        assert_eq!(tree.read("root", "/run/c/b/old").unwrap(), "2");
        assert_eq!(tree.stat("/run/a/b").map(|node| node.mode), None);
        tree.remove("root", "/run/c", true).unwrap();
        assert_eq!(tree.stat("/run/c/b/old").map(|node| node.mode), None);
    }
}
