//! The files in a Debian package: deb(5), an `ar` archive whose member `data.tar.*` is the tree.
//!
//! Contract: paths come out without a leading `./` and merged under `usr` as every Debian 12 or newer
//! system has them (`sbin/mke2fs` of a package is `usr/sbin/mke2fs` of the guest).

use std::collections::BTreeMap;
use std::io::{self, Read};

use object::read::archive::ArchiveFile;

use super::{ImageError, unpack};

/// What stands at a path of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    /// A file with its permission bits.
    File {
        /// Permission bits, set-user-id included.
        mode: u32,
        /// Content.
        data: Vec<u8>,
    },
    /// A symbolic link.
    Link {
        /// What it says.
        target: String,
    },
}

/// The files and links of a package, by path. Folders are implied.
pub(super) type Files = BTreeMap<String, Entry>;

/// Reads the paths that `keep` wants; `package` names the package in errors.
pub(super) fn read(
    package: &str,
    bytes: &[u8],
    keep: impl Fn(&str) -> bool,
) -> Result<Files, ImageError> {
    let failed = |why: String| ImageError::package(package, why);
    let data = data_member(bytes).map_err(failed)?;
    let plain = unpack::plain(data.to_vec())
        .map_err(|error| failed(format!("its data.tar does not unpack ({error})")))?;
    files(&plain, keep).map_err(|error| failed(format!("its data.tar is damaged ({error})")))
}

fn data_member(bytes: &[u8]) -> Result<&[u8], String> {
    let damaged = |error: object::read::Error| format!("it is no ar archive ({error})");
    let archive = ArchiveFile::parse(bytes).map_err(damaged)?;
    for member in archive.members() {
        let member = member.map_err(damaged)?;
        if member.name().starts_with(b"data.tar") {
            return member.data(bytes).map_err(damaged);
        }
    }
    Err("it has no data.tar".into())
}

fn files(tar: &[u8], keep: impl Fn(&str) -> bool) -> io::Result<Files> {
    let mut files = Files::new();
    for entry in tar::Archive::new(tar).entries()? {
        let mut entry = entry?;
        let path = merged(&String::from_utf8_lossy(&entry.path_bytes()));
        if !keep(&path) {
            continue;
        }
        let kind = entry.header().entry_type();
        if kind.is_symlink() {
            let target = link(&entry)?;
            files.insert(path, Entry::Link { target });
        } else if kind.is_hard_link() {
            // A hard link to a file that was not kept has no content to give.
            if let Some(same) = files.get(&merged(&link(&entry)?)).cloned() {
                files.insert(path, same);
            }
        } else if kind.is_file() {
            let mode = entry.header().mode()? & 0o7777;
            let mut data = Vec::new();
            entry.read_to_end(&mut data)?;
            files.insert(path, Entry::File { mode, data });
        }
    }
    Ok(files)
}

fn link(entry: &tar::Entry<'_, &[u8]>) -> io::Result<String> {
    let name = entry.link_name_bytes();
    let name =
        name.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a link to nothing"))?;
    Ok(String::from_utf8_lossy(&name).into_owned())
}

/// A path as it is in the guest, whose `/bin`, `/sbin` and `/lib*` are links into `/usr`.
pub(super) fn merged(path: &str) -> String {
    let path = path.trim_start_matches("./").trim_matches('/');
    let first = path.split('/').next().unwrap_or_default();
    if super::tree::MERGED.contains(&first) {
        format!("usr/{path}")
    } else {
        path.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A package with a file, a hard and a symbolic link to it and a program of the old place.
    fn package() -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o4755);
        header.set_size(3);
        tar.append_data(&mut header, "./usr/bin/one", &b"one"[..])
            .unwrap();
        header.set_mode(0o755);
        tar.append_data(&mut header, "./sbin/two", &b"two"[..])
            .unwrap();
        header.set_size(0);
        header.set_entry_type(tar::EntryType::Link);
        tar.append_link(&mut header, "./usr/bin/hard", "./usr/bin/one")
            .unwrap();
        header.set_entry_type(tar::EntryType::Symlink);
        tar.append_link(&mut header, "./usr/bin/soft", "one")
            .unwrap();
        let tar = tar.into_inner().unwrap();
        let mut deb = b"!<arch>\n".to_vec();
        for (name, data) in [("debian-binary", &b"2.0\n"[..]), ("data.tar", &tar)] {
            deb.extend(
                format!(
                    "{name:<16}0           0     0     100644  {:<10}`\n",
                    data.len()
                )
                .bytes(),
            );
            deb.extend(data);
        }
        deb
    }

    #[test]
    fn a_package_is_read_with_its_links_and_merged_under_usr() {
        let files = read("made-up", &package(), |path| path != "usr/bin/unwanted").unwrap();
        let one = Entry::File {
            mode: 0o4755,
            data: b"one".to_vec(),
        };
        assert_eq!(files["usr/bin/one"], one);
        assert_eq!(files["usr/bin/hard"], one);
        assert_eq!(
            files["usr/bin/soft"],
            Entry::Link {
                target: "one".into()
            }
        );
        assert!(files.contains_key("usr/sbin/two"));
        assert_eq!(files.len(), 4);
    }

    #[test]
    fn what_is_no_package_is_refused_by_name() {
        let error = read("made-up", b"<html>", |_| true)
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("the package made-up is not as expected"),
            "{error}"
        );
        let cut = &package()[..300];
        assert!(read("made-up", cut, |_| true).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(at in 8usize..2000, byte: u8) {
            let mut bytes = package();
            let at = at % bytes.len();
            bytes[at] = byte;
            let _refused_or_read = read("made-up", &bytes, |_| true);
        }
    }
}
