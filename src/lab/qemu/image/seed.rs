//! The seed disk: what KubeVirt's cloud-init disk tells a guest, reduced by the host to a plain tar
//! that a guest without cloud-init reads from the block device itself.
//!
//! ```text
//! hostname           one line
//! instance-id        one line, absent if the host gave none
//! users/NAME/keys    authorized_keys lines
//! users/NAME/sudo    empty: NAME may use `sudo -n`
//! ```

use std::io;

use super::error::Unfit;

/// The serial by which a guest knows its seed disk.
pub const SERIAL: &str = "virtproof-seed";
/// Disks have whole blocks of this many bytes.
const BLOCK: usize = 4096;

/// What a guest is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seed {
    /// Its name: letters, digits, `-` and `.`, at most 64 (`HOST_NAME_MAX`).
    pub hostname: String,
    /// Changes when the guest is to take itself for a new one: it then applies users and keys and makes
    /// new SSH host keys.
    pub instance_id: Option<String>,
    /// Who may log in.
    pub users: Vec<SeedUser>,
}

/// A user of a guest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SeedUser {
    /// Login name, `root` included.
    pub name: String,
    /// Lines for `authorized_keys`.
    pub keys: Vec<String>,
    /// Whether it may run anything by `sudo -n`.
    pub sudo: bool,
}

/// The content of the seed disk, whole blocks.
pub fn seed_tar(seed: &Seed) -> Result<Vec<u8>, Unfit> {
    let mut files = vec![(
        "hostname".to_owned(),
        line(checked_hostname(&seed.hostname)?),
    )];
    if let Some(id) = &seed.instance_id {
        files.push((
            "instance-id".to_owned(),
            line(checked_line("instance id", id)?),
        ));
    }
    for user in &seed.users {
        let name = checked_user(&user.name)?;
        let mut keys = String::new();
        for key in &user.keys {
            keys.push_str(&line(checked_line("SSH key", key)?));
        }
        files.push((format!("users/{name}/keys"), keys));
        if user.sudo {
            files.push((format!("users/{name}/sudo"), String::new()));
        }
    }
    let mut bytes = archive(&files).map_err(|_too_long| {
        Unfit::new(
            "seed",
            &seed.hostname,
            "a name is too long for a tar archive",
        )
    })?;
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    Ok(bytes)
}

/// Writing into memory fails for names only that no header can hold.
fn archive(files: &[(String, String)]) -> io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, text) in files {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o600);
        header.set_size(text.len() as u64);
        tar.append_data(&mut header, path, text.as_bytes())?;
    }
    tar.into_inner()
}

fn line(text: &str) -> String {
    format!("{text}\n")
}

fn checked_hostname(name: &str) -> Result<&str, Unfit> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    check(
        "host name",
        name,
        "1 to 64 letters, digits, `-` and `.`",
        (1..=64).contains(&name.len()) && name.bytes().all(legal),
    )
}

/// useradd's rule (useradd(8)), which also keeps a name from being a path or a word of a script.
fn checked_user(name: &str) -> Result<&str, Unfit> {
    let first = |b: u8| b.is_ascii_lowercase() || b == b'_';
    let legal = |b: u8| first(b) || b.is_ascii_digit() || b == b'-';
    check(
        "user name",
        name,
        "1 to 32 of a-z, 0-9, `_` and `-`, the first no digit and no `-`",
        name.len() <= 32 && name.bytes().next().is_some_and(first) && name.bytes().all(legal),
    )
}

fn checked_line<'a>(what: &'static str, text: &'a str) -> Result<&'a str, Unfit> {
    check(
        what,
        text,
        "one line of text",
        !text.trim().is_empty() && !text.contains(char::is_control),
    )
}

fn check<'a>(
    what: &'static str,
    value: &'a str,
    rule: &'static str,
    is_legal: bool,
) -> Result<&'a str, Unfit> {
    if is_legal {
        return Ok(value);
    }
    Err(Unfit::new(what, value, rule))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read;

    use proptest::prelude::*;

    use super::*;

    fn unpacked(bytes: &[u8]) -> BTreeMap<String, String> {
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(bytes).entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            files.insert(path, text);
        }
        files
    }

    #[test]
    fn the_disk_holds_what_the_guest_reads() {
        let user = |name: &str, sudo| SeedUser {
            name: name.into(),
            keys: vec!["ssh-ed25519 AAAA one".into(), "ssh-ed25519 BBBB two".into()],
            sudo,
        };
        let seed = Seed {
            hostname: "vm-1".into(),
            instance_id: Some("vm-1.shop".into()),
            users: vec![user("debian", true), user("root", false)],
        };
        let bytes = seed_tar(&seed).unwrap();
        assert_eq!(bytes.len() % BLOCK, 0);
        let files = unpacked(&bytes);
        assert_eq!(files["hostname"], "vm-1\n");
        assert_eq!(files["instance-id"], "vm-1.shop\n");
        assert_eq!(
            files["users/debian/keys"],
            "ssh-ed25519 AAAA one\nssh-ed25519 BBBB two\n"
        );
        assert_eq!(files["users/debian/sudo"], "");
        assert!(!files.contains_key("users/root/sudo"));
        assert_eq!(bytes, seed_tar(&seed).unwrap());
    }

    #[test]
    fn what_a_guest_would_misread_is_refused() {
        let named = |name: &str| Seed {
            hostname: "vm".into(),
            users: vec![SeedUser {
                name: name.into(),
                ..SeedUser::default()
            }],
            ..Seed::default()
        };
        for name in ["", "../x", "a b", "-n", "1st", "Über", &"a".repeat(33)] {
            assert!(seed_tar(&named(name)).is_err(), "{name}");
        }
        assert!(seed_tar(&Seed::default()).is_err());
        let mut seed = named("user");
        seed.users[0].keys.push("one\ntwo".into());
        let error = seed_tar(&seed).unwrap_err().to_string();
        assert_eq!(
            error,
            "`one\\ntwo` cannot be the SSH key of a guest: one line of text"
        );
    }

    proptest! {
        #[test]
        fn every_legal_seed_comes_back(
            hostname in "[a-z0-9.-]{1,64}",
            instance_id in prop::option::of("[ -~]*[!-~]"),
            users in prop::collection::btree_map("[a-z_][a-z0-9_-]{0,31}", any::<bool>(), 0..5),
        ) {
            let users: Vec<_> = users
                .into_iter()
                .map(|(name, sudo)| SeedUser { name, keys: vec![], sudo })
                .collect();
            let seed = Seed { hostname, instance_id, users };
            let files = unpacked(&seed_tar(&seed).unwrap());
            prop_assert_eq!(files["hostname"].trim_end(), &seed.hostname);
            prop_assert_eq!(
                files.get("instance-id").map(|id| id.strip_suffix('\n').unwrap()),
                seed.instance_id.as_deref()
            );
            for user in &seed.users {
                prop_assert_eq!(files.contains_key(&format!("users/{}/sudo", user.name)), user.sudo);
            }
        }

        #[test]
        fn nothing_makes_it_panic(hostname in ".{0,80}", name in ".{0,40}", key in ".{0,80}") {
            let users = vec![SeedUser { name, keys: vec![key], sudo: true }];
            let _refused_or_made = seed_tar(&Seed { hostname, instance_id: None, users });
        }
    }
}
