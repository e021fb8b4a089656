use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;

use super::key::{KeyError, PublicKey, SignKey};
use super::manifest::{FileEntry, Manifest};
use super::members::{digests, line_marks};
use crate::history::read::History;
use crate::report::sample;

/// The example keys of RFC 8410, section 10, as `openssl genpkey` and `openssl pkey -pubout` write
/// such keys.
const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC
-----END PRIVATE KEY-----
";
const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PUBLIC KEY-----
";

fn manifest() -> Manifest {
    let entry = FileEntry {
        blake3: "ab".repeat(32),
        bytes: 7,
        grows: true,
        lines: Some(line_marks(b"one\ntwo")),
        sha256: "cd".repeat(32),
    };
    let files = BTreeMap::from([("undo.jsonl".to_owned(), entry)]);
    Manifest::of(&History::default(), &sample::view(), files, None).expect("a manifest")
}

#[test]
fn keys_are_those_of_openssl() {
    let dir = tempfile::tempdir().expect("folder");
    let path = dir.path().join("key");
    std::fs::write(&path, PRIVATE).expect("written");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("permissions");
    let key = SignKey::load(&path).expect("a key");
    assert_eq!(key.public().pem(), PUBLIC);
    assert_eq!(PublicKey::parse(PUBLIC), Some(key.public()));
    assert!(!format!("{key:?}").contains(PRIVATE.lines().nth(1).expect("base64")));
    let signature = key.sign(b"message");
    assert!(key.public().verify(b"message", &signature));
    assert!(!key.public().verify(b"massage", &signature));
    assert!(!key.public().verify(b"message", &signature[..63]));
}

#[test]
fn a_key_that_others_can_touch_is_refused() {
    let dir = tempfile::tempdir().expect("folder");
    let path = dir.path().join("key");
    let (public, file) = SignKey::generate(&path).expect("a key");
    assert_eq!(PublicKey::load(&file).expect("its public half"), public);
    assert_eq!(SignKey::load(&path).expect("the key").public(), public);
    for mode in [0o640, 0o604, 0o620, 0o601] {
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("permissions");
        let refused = SignKey::load(&path).expect_err("exposed");
        assert!(matches!(refused, KeyError::Exposed { mode: seen, .. } if seen == mode));
    }
    let again = SignKey::generate(&path).expect_err("it is there already");
    assert!(again.to_string().contains("exists"), "{again}");
    let odd = SignKey::load(&file).expect_err("the public half is readable by all");
    assert!(matches!(odd, KeyError::Exposed { .. }));
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).expect("permissions");
    assert!(matches!(SignKey::load(&file), Err(KeyError::Odd { .. })));
}

#[test]
fn digests_are_the_published_ones() {
    let of = digests(&b"abc"[..]).expect("reads");
    assert_eq!(of.bytes, 3);
    assert_eq!(
        of.sha256,
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
    assert_eq!(of.blake3, blake3::hash(b"abc").to_hex().to_string());
}

#[test]
fn keys_stand_sorted_and_the_text_is_one() {
    let text = manifest().text().expect("text");
    let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let sorted = |value: &serde_json::Value| {
        let keys: Vec<_> = value
            .as_object()
            .into_iter()
            .flat_map(|o| o.keys())
            .collect();
        assert!(keys.is_sorted(), "{keys:?}");
    };
    sorted(&value);
    value
        .as_object()
        .expect("an object")
        .values()
        .for_each(sorted);
    sorted(&value["files"]["undo.jsonl"]);
    let again = Manifest::parse(&text).expect("a manifest");
    assert!(again.is_sound(&text));
    assert!(!again.is_sound(&text.replace("  ", " ")));
    let signed = again.signed_by("sha256:00".into()).expect("signed");
    assert_ne!(signed.digest, again.digest);
}

proptest! {
    #[test]
    fn no_changed_byte_leaves_a_manifest_sound(at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let mut bytes = manifest().text().expect("text").into_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let text = String::from_utf8_lossy(&bytes);
        let sound = Manifest::parse(&text).is_ok_and(|manifest| manifest.is_sound(&text));
        prop_assert!(!sound, "byte {}", at);
    }
}
