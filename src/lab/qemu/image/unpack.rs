//! Decompression by what the bytes say themselves: Debian changes the method between releases, for
//! packages, kernels and modules alike.

use std::io::{self, Read};

/// A stream is one of these; its first bytes tell which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    /// RFC 1952.
    Gzip,
    /// The .xz format.
    Xz,
    /// RFC 8878.
    Zstd,
    /// The legacy LZ4 frame, which only kernels still use.
    Lz4Legacy,
}

/// No unpacked file of a guest is larger, in bytes: a bound on what a damaged stream can take.
const LIMIT: u64 = 1 << 30;

impl Method {
    /// The method of a stream, if it is compressed in a way that is understood.
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        let magics: [(&[u8], Self); 4] = [
            (&[0x1f, 0x8b, 0x08], Self::Gzip),
            (&[0xfd, b'7', b'z', b'X', b'Z', 0], Self::Xz),
            (&[0x28, 0xb5, 0x2f, 0xfd], Self::Zstd),
            (&[0x02, 0x21, 0x4c, 0x18], Self::Lz4Legacy),
        ];
        let found = magics.iter().find(|(magic, _)| bytes.starts_with(magic));
        found.map(|(_, method)| *method)
    }

    /// Unpacks the stream at the start of `bytes`.
    pub(super) fn unpack(self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip => all(flate2::read::GzDecoder::new(bytes)),
            Self::Xz => all(liblzma::read::XzDecoder::new(bytes)),
            Self::Zstd => all(ruzstd::decoding::StreamingDecoder::new(bytes)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?),
            Self::Lz4Legacy => all(lz4_flex::frame::FrameDecoder::new(bytes)),
        }
    }
}

/// The bytes, unpacked if they are packed.
pub(super) fn plain(bytes: Vec<u8>) -> io::Result<Vec<u8>> {
    match Method::of(&bytes) {
        Some(method) => method.unpack(&bytes),
        None => Ok(bytes),
    }
}

fn all(reader: impl Read) -> io::Result<Vec<u8>> {
    let mut unpacked = Vec::new();
    let read = reader.take(LIMIT).read_to_end(&mut unpacked)?;
    if read as u64 == LIMIT {
        let text = format!("more than {LIMIT} bytes come out of it");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(unpacked)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        writer.write_all(text).unwrap();
        writer.finish().unwrap()
    }

    fn xz(text: &[u8]) -> Vec<u8> {
        let mut writer = liblzma::write::XzEncoder::new(Vec::new(), 0);
        writer.write_all(text).unwrap();
        writer.finish().unwrap()
    }

    /// A legacy frame of one block that is a single literal run (lz4 block format).
    fn lz4_legacy(text: &[u8]) -> Vec<u8> {
        assert!(text.len() < 15);
        let mut frame = vec![0x02, 0x21, 0x4c, 0x18];
        let block = u32::try_from(text.len() + 1).unwrap();
        frame.extend(block.to_le_bytes());
        frame.push(u8::try_from(text.len() << 4).unwrap());
        frame.extend(text);
        frame
    }

    fn zstd(text: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(text, ruzstd::encoding::CompressionLevel::Fastest)
    }

    #[test]
    fn each_method_is_told_by_its_first_bytes() {
        let text = b"some text";
        for packed in [gzip(text), xz(text), zstd(text), lz4_legacy(text)] {
            assert_eq!(plain(packed).unwrap(), text);
        }
        assert_eq!(plain(text.to_vec()).unwrap(), text);
    }

    #[test]
    fn what_is_cut_is_an_error() {
        for packed in [gzip(b"some text"), xz(b"some text"), zstd(b"some text")] {
            assert!(plain(packed[..packed.len() - 6].to_vec()).is_err());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            method in 0usize..4,
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let method = [Method::Gzip, Method::Xz, Method::Zstd, Method::Lz4Legacy][method];
            let _refused_or_unpacked = method.unpack(&bytes);
        }
    }
}
