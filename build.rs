//! Compiles the in-guest probe: `src/probe/main.rs`, std only, into one static executable that the
//! library embeds, so that probe and host are always of the same build.

use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

fn main() -> Result<(), Box<dyn Error>> {
    let var = |name: &str| env::var(name).map_err(|error| format!("{name}: {error}"));
    let root = PathBuf::from(var("CARGO_MANIFEST_DIR")?).join("src/probe");
    let mut out = io::stdout().lock();
    for file in sources(&root)? {
        writeln!(out, "cargo::rerun-if-changed={}", file.display())?;
    }
    let (os, arch) = (var("CARGO_CFG_TARGET_OS")?, var("CARGO_CFG_TARGET_ARCH")?);
    if os != "linux" {
        return Err(format!("the probe runs in Linux guests and is built for the host's own target, but that is {os}: build virtproof for a Linux target").into());
    }
    writeln!(out, "cargo::rustc-env=VIRTPROOF_PROBE_ARCH={arch}")?;

    let mut rustc = Command::new(var("RUSTC")?);
    rustc
        .args(["--edition", "2024", "--crate-name", "virtproof_probe"])
        // The payload's lanes come side by side into vector registers from this level on.
        .args(["-C", "opt-level=3"])
        .args(["-C", "panic=abort", "-C", "strip=symbols"])
        .args(["-C", "target-feature=+crt-static"])
        .args([
            "--cfg",
            "probe_standalone",
            "--check-cfg",
            "cfg(probe_standalone, test)",
        ])
        .args(["--target", &var("TARGET")?])
        .arg("-o")
        .arg(Path::new(&var("OUT_DIR")?).join("virtproof-probe"))
        .arg(root.join("main.rs"));
    if let Ok(linker) = var("RUSTC_LINKER") {
        rustc.arg(format!("-Clinker={linker}"));
    }
    let output = rustc.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!(
            "compiling the static probe failed ({}). It needs the target's static C library (libc.a: package libc6-dev or glibc-static; none for musl targets).\n{rustc:?}\n{said}",
            output.status
        ).into());
    }
    for line in said.lines() {
        writeln!(out, "cargo::warning=probe: {line}")?;
    }
    Ok(())
}

/// The files that the probe is made of: all but tests, fixtures and the host's side.
fn sources(dir: &Path) -> io::Result<Vec<PathBuf>> {
    const OTHERS: [&str; 5] = ["host", "embedded.rs", "memory.rs", "remote.rs", "tests.rs"];
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path
            .file_name()
            .is_some_and(|name| OTHERS.iter().any(|other| name == *other))
        {
            continue;
        }
        if path.is_dir() {
            files.extend(sources(&path)?);
        } else {
            files.push(path);
        }
    }
    Ok(files)
}
