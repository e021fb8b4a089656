//! What ELF files say about themselves: the libraries that a program needs, what a kernel module is
//! made for, and whether a kernel can be entered the PVH way.

use object::endian::Endianness;
use object::read::elf::{FileHeader, ProgramHeader};
use object::{elf, read};

type Header = elf::FileHeader64<Endianness>;

/// The note by which a kernel names its 32-bit entry point (Xen `elfnote.h`,
/// `XEN_ELFNOTE_PHYS32_ENTRY`); QEMU starts kernels that have it without the real-mode setup.
const PHYS32_ENTRY: u32 = 18;

/// Whether these bytes are an ELF file.
pub(super) fn is_elf(bytes: &[u8]) -> bool {
    bytes.starts_with(&elf::ELFMAG)
}

/// What the dynamic loader looks for before a program or library runs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// `DT_NEEDED`.
    pub(super) libraries: Vec<String>,
    /// The loader itself, an absolute path; programs have one.
    pub(super) interpreter: Option<String>,
}

/// Reads what a program or library needs.
pub(super) fn needs(bytes: &[u8]) -> read::Result<Needs> {
    let header = Header::parse(bytes)?;
    let endian = header.endian()?;
    let mut needs = Needs::default();
    for segment in header.program_headers(endian, bytes)? {
        if let Some(path) = segment.interpreter(endian, bytes)? {
            needs.interpreter = Some(text(path));
        }
    }
    let sections = header.sections(endian, bytes)?;
    let table = sections.dynamic_table(endian, bytes)?;
    for entry in &table {
        if entry.tag == elf::DT_NEEDED {
            needs.libraries.push(text(table.string(entry)?));
        }
    }
    Ok(needs)
}

/// The `key=value` lines of a kernel module's `.modinfo`.
pub(super) fn modinfo(bytes: &[u8]) -> read::Result<Vec<(String, String)>> {
    let header = Header::parse(bytes)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, bytes)?;
    let Some((_, section)) = sections.section_by_name(endian, b".modinfo") else {
        return Ok(Vec::new());
    };
    let data = read::elf::SectionHeader::data(section, endian, bytes)?;
    let lines = data.split(|&byte| byte == 0).filter_map(|line| {
        let line = text(line);
        let (key, value) = line.split_once('=')?;
        Some((key.to_owned(), value.to_owned()))
    });
    Ok(lines.collect())
}

/// Whether this kernel has a PVH entry point.
pub(super) fn has_pvh_entry(bytes: &[u8]) -> read::Result<bool> {
    let header = Header::parse(bytes)?;
    let endian = header.endian()?;
    for segment in header.program_headers(endian, bytes)? {
        let Some(mut notes) = segment.notes(endian, bytes)? else {
            continue;
        };
        while let Some(note) = notes.next()? {
            if note.name() == b"Xen" && note.n_type(endian) == PHYS32_ENTRY {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_running_test_says_what_it_needs() {
        let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let needs = needs(&program).unwrap();
        assert!(
            needs
                .libraries
                .iter()
                .any(|name| name.starts_with("libc.so"))
        );
        assert!(needs.interpreter.unwrap().starts_with("/lib"));
        assert!(!has_pvh_entry(&program).unwrap());
        assert_eq!(modinfo(&program).unwrap(), []);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(tail in prop::collection::vec(any::<u8>(), 0..400)) {
            let bytes = [&elf::ELFMAG[..], &[2, 1, 1, 0], &tail].concat();
            let _refused_or_read = (needs(&bytes), modinfo(&bytes), has_pvh_entry(&bytes));
        }
    }
}
