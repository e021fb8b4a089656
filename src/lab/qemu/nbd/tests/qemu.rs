//! The server as QEMU's own tools see it.

use std::path::Path;
use std::process::{Command, Output};

use super::Fixture;
use super::disk::PAGE;

/// Whether a tool is here. Where everything is to be tested, its absence is a failure.
fn present(tools: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let here = |tool: &&&str| std::env::split_paths(&path).any(|dir| dir.join(tool).is_file());
    let Some(absent) = tools.iter().find(|tool| !here(tool)) else {
        return true;
    };
    assert!(
        std::env::var_os("VIRTPROOF_CI").is_none(),
        "{absent} is not on the PATH"
    );
    eprintln!("SKIPPED: {absent} is not on the PATH");
    false
}

impl Fixture {
    fn uri(&self) -> String {
        format!("nbd+unix:///data?socket={}", self.server.path().display())
    }

    /// Runs `qemu-io` with commands; whether all succeeded, and its output.
    fn io(&self, options: &[&str], commands: &[&str]) -> (bool, String) {
        let mut io = Command::new("qemu-io");
        io.args(["-f", "raw"]).args(options);
        for command in commands {
            io.args(["-c", command]);
        }
        let Output {
            stdout,
            stderr,
            status,
        } = io.arg(self.uri()).output().unwrap();
        let said = [stdout, stderr].concat();
        (
            status.success(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    }
}

fn img(arguments: &[&str]) -> (bool, String) {
    let output = Command::new("qemu-img").args(arguments).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    (output.status.success(), said)
}

/// Bytes that look like nothing, with holes of whole pages.
fn noise(pages: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(pages * PAGE);
    for page in 0..pages {
        for _ in 0..PAGE / 8 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let word = if page % 5 < 3 { state } else { 0 };
            bytes.extend(word.to_ne_bytes());
        }
    }
    bytes
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn qemu_io_writes_reads_zeroes_discards_and_flushes() {
    if !present(&["qemu-io"]) {
        return;
    }
    for dsync in [true, false] {
        let f = Fixture::new(1024, dsync, false);
        let (ok, said) = f.io(
            &[],
            &[
                "write -P 0x11 0 64k",
                "read -P 0x11 0 64k",
                "read -P 0 64k 64k",
                "write -P 0x22 60k 2M",
                "read -P 0x22 60k 2M",
                "write -z 128k 64k",
                "read -P 0 128k 64k",
                "discard 256k 64k",
                "read -P 0 256k 64k",
                // Sectors of less than a page: QEMU reads and writes back.
                "write -P 0x33 512 512",
                "read -P 0x11 0 512",
                "read -P 0x33 512 512",
                "read -P 0x11 1024 512",
                "write -f -P 0x44 3M 4k",
                "flush",
            ],
        );
        assert!(ok && !said.contains("verification failed"), "{said}");
        let durable = f.disk.durable();
        assert!(durable == f.disk.content());
        assert_eq!(durable[512..1024], [0x33; 512]);
        assert_eq!(durable[3 << 20..][..4096], [0x44; 4096]);
        assert!(durable[128 << 10..][..64 << 10].iter().all(|b| *b == 0));
    }
}

#[test]
fn qemu_io_is_told_of_failures() {
    if !present(&["qemu-io"]) {
        return;
    }
    let f = Fixture::new(16, true, true);
    let (_, said) = f.io(&["-r"], &["read -P 0 0 64k"]);
    assert!(said.contains("read 65536/65536"), "{said}");
    let (ok, said) = f.io(&[], &["write 0 4k"]);
    assert!(!ok, "a read-only export was opened for writing: {said}");
    let f = Fixture::new(16, true, false);
    f.disk.fail(Some(5));
    let (_, said) = f.io(&[], &["write 0 4k"]);
    assert!(said.contains("Input/output error"), "{said}");
    f.disk.fail(None);
    f.server.cut();
    f.disk.calls();
    let (_, said) = f.io(&[], &["read 0 4k"]);
    assert!(said.contains("Input/output error"), "{said}");
    assert_eq!(f.disk.calls(), []);
}

#[test]
fn qemu_img_sees_size_and_allocation() {
    if !present(&["qemu-img", "qemu-io"]) {
        return;
    }
    let f = Fixture::new(1024, true, false);
    f.io(&[], &["write -P 1 1M 64k"]);
    let (ok, said) = img(&["info", "--output=json", "-f", "raw", &f.uri()]);
    assert!(ok, "{said}");
    let info: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(info["virtual-size"], 4 << 20);
    let (ok, said) = img(&["map", "--output=json", "-f", "raw", &f.uri()]);
    assert!(ok, "{said}");
    let map: serde_json::Value = serde_json::from_str(&said).unwrap();
    let extents: Vec<_> = map.as_array().unwrap().iter().collect();
    let seen: Vec<_> = extents
        .iter()
        .map(|e| {
            (
                e["start"].as_u64(),
                e["length"].as_u64(),
                e["zero"].as_bool(),
            )
        })
        .collect();
    let extent = |start: u64, length: u64, zero| (Some(start), Some(length), Some(zero));
    let wanted = [
        extent(0, 1 << 20, true),
        extent(1 << 20, 64 << 10, false),
        extent((1 << 20) + (64 << 10), (3 << 20) - (64 << 10), true),
    ];
    assert_eq!(seen, wanted);
}

#[test]
fn qemu_img_copies_there_and_back() {
    if !present(&["qemu-img"]) {
        return;
    }
    let pages = 3000;
    let content = noise(pages);
    let f = Fixture::new(pages, false, false);
    let (there, back) = (f.dir.path().join("there"), f.dir.path().join("back"));
    std::fs::write(&there, &content).unwrap();
    for target in [&["-n"][..], &["-n", "--target-is-zero"]] {
        let mut arguments = ["convert", "-f", "raw", "-O", "raw"].to_vec();
        arguments.extend(target);
        let uri = f.uri();
        arguments.extend([text(&there), &uri]);
        let (ok, said) = img(&arguments);
        assert!(ok, "{said}");
        assert!(f.disk.durable() == content, "flushed before its end");
    }
    let compare = ["compare", "-f", "raw", "-F", "raw", text(&there), &f.uri()];
    let (ok, said) = img(&compare);
    assert!(ok && said.contains("identical"), "{said}");
    let convert = ["convert", "-f", "raw", "-O", "raw", &f.uri(), text(&back)];
    let (ok, said) = img(&convert);
    assert!(ok, "{said}");
    assert!(std::fs::read(&back).unwrap() == content);
}

#[test]
fn two_clients_of_qemu_write_at_once() {
    if !present(&["qemu-io"]) {
        return;
    }
    let f = Fixture::new(1024, false, false);
    std::thread::scope(|scope| {
        for (client, pattern) in [(0_u64, "0x51"), (1, "0x52")] {
            let f = &f;
            scope.spawn(move || {
                let commands: Vec<String> = (0..64)
                    .map(|n| format!("write -P {pattern} {}k 4k", (2 * n + client) * 4))
                    .chain(["flush".to_owned()])
                    .collect();
                let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
                let (ok, said) = f.io(&[], &commands);
                assert!(ok, "{said}");
            });
        }
    });
    let durable = f.disk.durable();
    for page in 0..128 {
        let fill = if page % 2 == 0 { 0x51 } else { 0x52 };
        assert_eq!(durable[page * PAGE..][..PAGE], [fill; PAGE]);
    }
}
