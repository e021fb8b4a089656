//! A signed run directory of the built binary: one byte changed anywhere, a file cut, added, taken
//! away or swapped, another key, a forged seal; verifying fails and says where.

#[path = "common/program.rs"]
mod program;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use program::virtproof;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use virtproof::evidence::{self, Demand, Finding, PublicKey, Signed, Verification, Weight};
use virtproof::history::read::History;
use virtproof::plan::{self, Known};

/// The seal's own files, which have no finer place than themselves.
const WHOLE: [&str; 2] = ["manifest.sig", "manifest.pub"];

/// A folder with a key and a signed run of one VM, made once.
fn made() -> &'static Path {
    static MADE: OnceLock<tempfile::TempDir> = OnceLock::new();
    MADE.get_or_init(|| {
        let dir = tempfile::tempdir().expect("folder");
        let (code, said) = virtproof(dir.path(), &["keygen", "--out", "key"]);
        assert_eq!(code, Some(0), "{said}");
        let run = [
            "run",
            "--lab",
            "--seed",
            "11",
            "--only",
            "boot.replicated",
            "--set",
            "workloads.0.count=1",
            "--set",
            "load.duration=1s",
            "--sign-key",
            "key",
            "--out",
            "run",
        ];
        let (code, said) = virtproof(dir.path(), &run);
        assert_eq!(code, Some(0), "{said}");
        dir
    })
    .path()
}

fn files(dir: &Path, prefix: &str, out: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).expect("folder") {
        let entry = entry.expect("entry");
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            files(&entry.path(), &format!("{name}/"), out);
        } else {
            out.push(name);
        }
    }
    out.sort();
}

struct Bundle {
    dir: tempfile::TempDir,
    names: Vec<String>,
}

impl Bundle {
    /// A fresh copy of the run.
    fn copy() -> Self {
        let from = made().join("run");
        let mut names = Vec::new();
        files(&from, "", &mut names);
        assert!(names.len() > 12, "{names:?}");
        let dir = tempfile::tempdir().expect("folder");
        for name in &names {
            let to = dir.path().join(name);
            std::fs::create_dir_all(to.parent().expect("a folder")).expect("folders");
            std::fs::copy(from.join(name), to).expect("a copy");
        }
        Self { dir, names }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).expect("a file of the bundle")
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path(name), bytes).expect("written");
    }

    fn verify(&self, demand: &Demand) -> Verification {
        evidence::verify(self.dir.path(), demand)
            .expect("a directory")
            .1
    }

    /// What is broken without any demand.
    fn broken(&self) -> Vec<Finding> {
        let found = self.verify(&Demand::default()).findings;
        found
            .into_iter()
            .filter(|finding| finding.weight == Weight::Broken)
            .collect()
    }

    /// Writes `bytes` in place of a file, verifies, and puts the file back. The findings must name
    /// that file and no other.
    fn with(&self, name: &str, bytes: &[u8]) -> Vec<Finding> {
        let before = self.read(name);
        self.write(name, bytes);
        let found = self.broken();
        self.write(name, &before);
        assert!(!found.is_empty(), "{name}: nothing was found");
        for finding in &found {
            assert_eq!(finding.file, name, "the wrong file was named: {finding}");
        }
        found
    }

    /// Seals the directory anew, as somebody without the key could.
    fn forge(&self) {
        let known = Known::nothing();
        let loaded = plan::load(&self.path("plan.yaml"), &known).expect("a plan");
        let history = History::open(self.dir.path()).expect("a history");
        let derived = evidence::derive(&loaded.plan, &history).expect("derived");
        for name in WHOLE {
            std::fs::remove_file(self.path(name)).expect("removed");
        }
        evidence::seal(self.dir.path(), &history, &derived.view, None).expect("sealed");
    }
}

fn key(name: &str) -> Demand {
    let key = PublicKey::load(&made().join(name)).expect("a public key");
    Demand {
        key: Some(key),
        signature: false,
    }
}

#[test]
fn a_run_is_whole_and_signed() {
    let bundle = Bundle::copy();
    let trusted = bundle.verify(&key("key.pub"));
    assert_eq!(trusted.findings, []);
    assert!(matches!(trusted.signature, Signed::Expected(_)));
    let unnamed = bundle.verify(&Demand::default());
    assert!(unnamed.is_whole());
    assert!(matches!(unnamed.signature, Signed::Unnamed(_)));
    assert_eq!(unnamed.files, bundle.names.len() - 3);

    let secret = std::fs::read_to_string(made().join("key")).expect("the key");
    let secret = secret.lines().nth(1).expect("its base64");
    for name in &bundle.names {
        let text = String::from_utf8_lossy(&bundle.read(name)).into_owned();
        assert!(!text.contains(secret), "{name} holds the private key");
    }
}

#[test]
fn one_byte_changed_anywhere_is_found_and_placed() {
    let bundle = Bundle::copy();
    let changed = |name: &str, at: usize, bit: u8| {
        let mut bytes = bundle.read(name);
        bytes[at] ^= 1 << bit;
        let found = bundle.with(name, &bytes);
        if !WHOLE.contains(&name) {
            let placed = found.iter().all(|finding| finding.at.is_some());
            assert!(placed, "{name}, byte {at}: {found:?}");
        }
    };
    for name in &bundle.names {
        let last = bundle.read(name).len() - 1;
        for at in [0, last / 2, last] {
            changed(name, at, 0);
        }
    }
    let config = Config {
        cases: 150,
        failure_persistence: None,
        ..Config::default()
    };
    let any = (
        any::<prop::sample::Index>(),
        any::<prop::sample::Index>(),
        0..8_u8,
    );
    let property = |(file, at, bit): (prop::sample::Index, prop::sample::Index, u8)| {
        let name = file.get(&bundle.names);
        changed(name, at.index(bundle.read(name).len()), bit);
        Ok(())
    };
    TestRunner::new(config)
        .run(&any, property)
        .expect("every change is found");
}

#[test]
fn the_place_is_the_line_that_was_edited() {
    let bundle = Bundle::copy();
    for name in [
        "events.jsonl",
        "plan.yaml",
        "verdicts.json",
        "report.json",
        "report.md",
        "report.html",
        "junit.xml",
        "undo.jsonl",
        "hostkeys.json",
        "manifest.json",
    ] {
        let bytes = bundle.read(name);
        let lines = bytes.split_inclusive(|byte| *byte == b'\n').count();
        let middle = bytes
            .split_inclusive(|byte| *byte == b'\n')
            .take(lines / 2)
            .map(<[u8]>::len)
            .sum::<usize>();
        let mut edited = bytes.clone();
        // Still text, and still JSON where it was.
        let at = middle
            + edited[middle..]
                .iter()
                .position(u8::is_ascii_alphanumeric)
                .expect("text");
        edited[at] = if edited[at] == b'e' { b'f' } else { b'e' };
        let line = edited[..at].split(|byte| *byte == b'\n').count();
        let found = bundle.with(name, &edited);
        let at = found[0].at.as_deref().unwrap_or_default();
        let words: Vec<&str> = at.split([' ', ',']).collect();
        assert_eq!(words[..2], ["line", &line.to_string()], "{name}: {found:?}");
    }
}

#[test]
fn a_cut_or_lengthened_file_is_found() {
    let bundle = Bundle::copy();
    for name in &bundle.names {
        let bytes = bundle.read(name);
        for keep in [0, bytes.len() / 3, bytes.len() - 1] {
            bundle.with(name, &bytes[..keep]);
        }
        bundle.with(name, &[&bytes[..], b"x"].concat());
    }
}

#[test]
fn what_a_cleanup_appends_is_told_and_not_held_against_the_run() {
    let bundle = Bundle::copy();
    let undo = bundle.read("undo.jsonl");
    bundle.write(
        "undo.jsonl",
        &[&undo[..], b"{\"done\":{\"id\":3}}\n"].concat(),
    );
    let verified = bundle.verify(&key("key.pub"));
    assert!(verified.is_whole(), "{:?}", verified.findings);
    assert_eq!(verified.findings[0].file, "undo.jsonl");
    let forged = b"{\"record\":{\"id\":99}}\n";
    bundle.write("undo.jsonl", &[&undo[..], forged].concat());
    assert_eq!(bundle.broken()[0].file, "undo.jsonl");
}

#[test]
fn missing_added_and_swapped_files_are_named() {
    for name in &Bundle::copy().names {
        let bundle = Bundle::copy();
        std::fs::remove_file(bundle.path(name)).expect("removed");
        let found = bundle.broken();
        assert_eq!(found.len(), 1, "{name}: {found:?}");
        assert_eq!(
            (&found[0].file, found[0].what.contains("missing")),
            (name, true)
        );
    }
    for name in ["extra.txt", "acks/extra.seg"] {
        let bundle = Bundle::copy();
        bundle.write(name, b"");
        assert_eq!(bundle.broken()[0].file, name);
    }
    let bundle = Bundle::copy();
    let outside = made().join("run/base");
    std::fs::remove_file(bundle.path("base")).expect("removed");
    std::os::unix::fs::symlink(outside, bundle.path("base")).expect("a link");
    let found = bundle.broken();
    assert_eq!(found[0].file, "base");
    assert!(found[0].what.contains("symbolic link"), "{found:?}");

    let bundle = Bundle::copy();
    let segments: Vec<_> = bundle
        .names
        .iter()
        .filter(|name| name.starts_with("acks/"))
        .collect();
    let [one, other] = [segments[0], segments[1]].map(|name| (name, bundle.read(name)));
    bundle.write(one.0, &other.1);
    bundle.write(other.0, &one.1);
    let found = bundle.broken();
    for (name, was) in [(one.0, other.0), (other.0, one.0)] {
        let named =
            |finding: &&Finding| finding.file == *name && finding.what.contains(was.as_str());
        assert!(found.iter().any(|finding| named(&finding)), "{found:?}");
    }
}

#[test]
fn only_the_expected_key_will_do() {
    let (code, said) = virtproof(made(), &["keygen", "--out", "other"]);
    assert_eq!(code, Some(0), "{said}");
    let bundle = Bundle::copy();
    let verified = bundle.verify(&key("other.pub"));
    assert_eq!(verified.signature, Signed::Wrong);
    assert_eq!(verified.findings[0].file, "manifest.sig");
}

#[test]
fn a_forged_seal_is_caught_by_the_signature_and_a_forged_report_by_the_evidence() {
    // Somebody edits a file that nothing is derived from, and brings every digest up to date.
    let bundle = Bundle::copy();
    let (signature, public) = (bundle.read(WHOLE[0]), bundle.read(WHOLE[1]));
    bundle.write("hostkeys.json", b"{}");
    bundle.forge();
    let unsigned = bundle.verify(&Demand::default());
    assert!(
        unsigned.is_whole(),
        "nothing but a signature can tell: {:?}",
        unsigned.findings
    );
    assert_eq!(unsigned.signature, Signed::Unsigned);
    for demand in [
        key("key.pub"),
        Demand {
            key: None,
            signature: true,
        },
    ] {
        let demanded = bundle.verify(&demand);
        assert_eq!(demanded.findings[0].file, "manifest.sig");
        assert!(!demanded.is_whole());
    }
    bundle.write(WHOLE[0], &signature);
    bundle.write(WHOLE[1], &public);
    let verified = bundle.verify(&Demand::default());
    assert_eq!(verified.signature, Signed::Wrong);
    assert_eq!(verified.findings[0].file, "manifest.sig");

    let bundle = Bundle::copy();
    let report = String::from_utf8(bundle.read("report.md")).expect("text");
    let edited = report.replacen("| 0 |", "| 1 |", 1);
    assert_ne!(report, edited);
    bundle.write("report.md", edited.as_bytes());
    bundle.forge();
    let found = bundle.broken();
    assert_eq!(found[0].file, "report.md");
    assert!(found[0].what.contains("evidence"), "{found:?}");
}

#[test]
fn the_command_says_where_and_ends_with_its_code() {
    let bundle = Bundle::copy();
    let public = made().join("key.pub");
    let public = public.to_str().expect("UTF-8");
    let run = |arguments: &[&str]| virtproof(bundle.dir.path(), arguments);
    let (code, said) = run(&["verify", ".", "--key", public]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("whole") && said.contains("expected key"),
        "{said}"
    );
    let (code, said) = run(&[
        "sign",
        ".",
        "--key",
        made().join("key").to_str().expect("UTF-8"),
    ]);
    assert_eq!(
        (code, said.contains("signed already")),
        (Some(2), true),
        "{said}"
    );

    bundle.forge();
    let (code, said) = run(&["verify", "."]);
    assert_eq!((code, said.contains("unsigned")), (Some(0), true), "{said}");
    assert_eq!(run(&["verify", ".", "--require-signature"]).0, Some(1));
    let exposed = bundle.path("../exposed.key");
    std::fs::copy(made().join("key"), &exposed).expect("a copy");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o640);
    std::fs::set_permissions(&exposed, mode).expect("permissions");
    let (code, said) = run(&["sign", ".", "--key", exposed.to_str().expect("UTF-8")]);
    assert_eq!((code, said.contains("0640")), (Some(2), true), "{said}");
    std::fs::remove_file(exposed).expect("removed");
    let (code, said) = run(&[
        "sign",
        ".",
        "--key",
        made().join("key").to_str().expect("UTF-8"),
    ]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(run(&["verify", ".", "--key", public]).0, Some(0));

    let verdicts = bundle.read("verdicts.json");
    let text = String::from_utf8(verdicts.clone()).expect("text");
    bundle.write("verdicts.json", text.replacen("pass", "fail", 1).as_bytes());
    let (code, said) = run(&["verify", "."]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("verdicts.json, line 2"), "{said}");
    let (code, said) = run(&["verify", ".", "--format", "json"]);
    let json: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(code, Some(1));
    assert_eq!(json["findings"][0]["file"], "verdicts.json");
    assert_eq!(json["findings"][0]["weight"], "broken");
    let (code, said) = run(&["check", "."]);
    assert_eq!(
        code,
        Some(4),
        "a sealed file that says otherwise is no pass: {said}"
    );
    assert_ne!(
        bundle.read("verdicts.json"),
        verdicts,
        "a sealed file was rewritten"
    );
}
