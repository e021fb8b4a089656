//! The kernel as QEMU starts it fastest: the uncompressed one inside a bzImage, if it can be entered
//! the PVH way, else the bzImage itself.
//!
//! Under TCG the guest's own unpacking costs seconds. Format: Linux `Documentation/arch/x86/boot.rst`.

use super::elf;
use super::unpack::Method;

/// `setup_sects`, one byte: sectors of the real-mode part after the first one.
const SETUP_SECTS: usize = 0x1f1;
/// `HdrS`.
const MAGIC: usize = 0x202;
/// `payload_offset`, counted from the start of the protected-mode part; `payload_length` follows.
const PAYLOAD: usize = 0x248;
const SECTOR: usize = 512;
/// Packing other than gzip leaves the unpacked size behind the stream (Linux `Makefile.lib`,
/// `size_append`), which a legacy LZ4 frame, having no end mark, would take for a block.
const SIZE_SUFFIX: usize = 4;

/// A kernel file and what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KernelKind {
    /// An uncompressed ELF kernel with a PVH entry point.
    Pvh,
    /// A bzImage as the distribution ships it.
    Bzimage,
}

/// The best form of the kernel in this bzImage.
pub(super) fn best(bzimage: Vec<u8>) -> Result<(KernelKind, Vec<u8>), String> {
    let Some(stream) = payload(&bzimage) else {
        return Err("it is no bzImage with a payload (boot protocol 2.08)".into());
    };
    let unpacked = match Method::of(stream) {
        Some(Method::Gzip) => Method::Gzip.unpack(stream),
        Some(method) => method.unpack(&stream[..stream.len().saturating_sub(SIZE_SUFFIX)]),
        // A packing not known here: the guest unpacks it itself.
        None => return Ok((KernelKind::Bzimage, bzimage)),
    };
    let vmlinux = unpacked.map_err(|error| format!("its payload does not unpack ({error})"))?;
    // One without the note is fine, only slower: QEMU then goes the real-mode way.
    match elf::has_pvh_entry(&vmlinux) {
        Ok(true) => Ok((KernelKind::Pvh, vmlinux)),
        Ok(false) => Ok((KernelKind::Bzimage, bzimage)),
        Err(error) => Err(format!("its payload is no ELF kernel ({error})")),
    }
}

fn payload(image: &[u8]) -> Option<&[u8]> {
    if image.get(MAGIC..MAGIC + 4)? != b"HdrS" {
        return None;
    }
    let word = |at: usize| {
        let bytes = image.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    // Zero means four (boot.rst).
    let setup = match *image.get(SETUP_SECTS)? {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let start = ((setup + 1) * SECTOR).checked_add(word(PAYLOAD)?)?;
    let end = start.checked_add(word(PAYLOAD + 4)?)?;
    image.get(start..end).filter(|payload| !payload.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A bzImage with one setup sector and this payload.
    fn bzimage(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 2 * SECTOR];
        image[SETUP_SECTS] = 1;
        image[MAGIC..MAGIC + 4].copy_from_slice(b"HdrS");
        let length = u32::try_from(payload.len()).unwrap();
        image[PAYLOAD + 4..PAYLOAD + 8].copy_from_slice(&length.to_le_bytes());
        image.extend(payload);
        image
    }

    #[test]
    fn a_packing_not_known_is_left_to_the_guest() {
        let image = bzimage(b"BZh something");
        assert_eq!(best(image.clone()), Ok((KernelKind::Bzimage, image)));
    }

    #[test]
    fn what_is_no_kernel_is_refused() {
        let error = best(vec![0; 4096]).unwrap_err();
        assert!(error.contains("no bzImage"), "{error}");
        let mut cut = bzimage(b"BZh something");
        cut.truncate(2 * SECTOR + 4);
        assert!(best(cut).is_err());
        let packed = ruzstd::encoding::compress_to_vec(
            &b"no kernel"[..],
            ruzstd::encoding::CompressionLevel::Fastest,
        );
        let error = best(bzimage(&[&packed[..], &[0; 4]].concat())).unwrap_err();
        assert!(error.contains("no ELF kernel"), "{error}");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            setup: u8, offset: u32, length: u32,
            tail in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let mut image = bzimage(&tail);
            image[SETUP_SECTS] = setup;
            image[PAYLOAD..PAYLOAD + 4].copy_from_slice(&offset.to_le_bytes());
            image[PAYLOAD + 4..PAYLOAD + 8].copy_from_slice(&length.to_le_bytes());
            let _refused_or_read = best(image);
        }
    }
}
