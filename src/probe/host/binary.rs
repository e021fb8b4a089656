//! The probe as a file: the one that this binary embeds, or another one for another machine.

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::error::ProbeError;
use crate::probe::embedded;

/// Far larger than a static probe.
const MAX_BINARY: u64 = 64 << 20;

/// A probe to run in guests of one machine type.
#[derive(Clone)]
pub struct ProbeBinary {
    bytes: Cow<'static, [u8]>,
    arch: String,
}

impl ProbeBinary {
    /// A probe given as bytes.
    pub fn new(bytes: impl Into<Cow<'static, [u8]>>, arch: impl Into<String>) -> Self {
        Self {
            bytes: bytes.into(),
            arch: arch.into(),
        }
    }

    /// The probe that this binary embeds, for its own machine type.
    pub fn embedded() -> Self {
        Self::new(embedded::BINARY, embedded::ARCH)
    }

    /// Reads a probe for another machine from a file, and from its ELF header which machine that is.
    pub fn load(path: &Path) -> Result<Self, ProbeError> {
        let fail = |why: String| ProbeError::Binary {
            path: path.display().to_string(),
            why,
        };
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(MAX_BINARY + 1).read_to_end(&mut bytes))
            .map_err(|e| fail(e.to_string()))?;
        if bytes.len() as u64 > MAX_BINARY {
            return Err(fail(format!("larger than {MAX_BINARY} bytes")));
        }
        let arch = elf_machine(&bytes).map_err(|why| fail(why.into()))?;
        Ok(Self::new(bytes, arch))
    }

    /// The file.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// BLAKE3 of the file, hex, for the evidence.
    pub fn blake3(&self) -> String {
        blake3::hash(&self.bytes).to_hex().to_string()
    }

    /// Which build it is: CRC-32C of the file, hex. Tells an outdated upload, proves nothing.
    pub fn build(&self) -> String {
        format!("{:08x}", crate::probe::crc::crc32c(&self.bytes))
    }

    /// The machine that it runs on, as `uname -m` names it.
    pub fn arch(&self) -> &str {
        &self.arch
    }
}

impl fmt::Debug for ProbeBinary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProbeBinary({}, {} bytes)", self.arch, self.bytes.len())
    }
}

/// The machine of an ELF file as `uname -m` names it (System V gABI: `e_machine` at byte 18, in the
/// byte order that byte 5 gives).
fn elf_machine(bytes: &[u8]) -> Result<&'static str, &'static str> {
    let header = bytes.get(..20).ok_or("not an ELF file")?;
    if !header.starts_with(b"\x7fELF") {
        return Err("not an ELF file");
    }
    let machine = [header[18], header[19]];
    let machine = match header[5] {
        1 => u16::from_le_bytes(machine),
        2 => u16::from_be_bytes(machine),
        _ => return Err("an ELF file of no known byte order"),
    };
    match machine {
        0x3E => Ok("x86_64"),
        0xB7 => Ok("aarch64"),
        0xF3 => Ok("riscv64"),
        0x16 => Ok("s390x"),
        0x15 => Ok("ppc64le"),
        _ => Err("an ELF file for a machine that KubeVirt does not run on"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_read_from_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("probe");
        let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
        elf.resize(18, 0);
        elf.extend([0xB7, 0]);
        std::fs::write(&path, &elf).unwrap();
        let probe = ProbeBinary::load(&path).unwrap();
        assert_eq!((probe.arch(), probe.bytes()), ("aarch64", elf.as_slice()));
        assert_eq!(format!("{probe:?}"), "ProbeBinary(aarch64, 20 bytes)");

        let own = ProbeBinary::embedded();
        assert_eq!(elf_machine(own.bytes()), Ok(own.arch()));

        elf[5] = 2;
        elf[18..].copy_from_slice(&[0, 0x16]);
        assert_eq!(elf_machine(&elf), Ok("s390x"));
        for bad in [&b"#!/bin/sh\nexec probe\n"[..], b"", b"\x7fELF"] {
            std::fs::write(&path, bad).unwrap();
            let error = ProbeBinary::load(&path).unwrap_err().to_string();
            assert!(error.contains("not an ELF file"), "{error}");
        }
    }
}
