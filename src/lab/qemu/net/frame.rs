//! Ethernet frames as QEMU's stream sockets carry them: four bytes of length in network order, then
//! the frame without its checksum (QEMU, net/stream.c).

use bytes::Bytes;
use smoltcp::wire::EthernetAddress;
use tokio_util::codec::LengthDelimitedCodec;

/// Length of an Ethernet header, the least a frame can have. QEMU pads nothing to 60 bytes.
pub(super) const MIN_FRAME: usize = 14;
/// The longest frame QEMU sends or takes (`NET_BUFSIZE`, include/net/net.h).
pub(super) const MAX_FRAME: usize = 4096 + 65536;
/// The longest frame of the gateway: an Ethernet header and 1500 bytes, the default of virtio-net.
pub(super) const GATEWAY_FRAME: usize = MIN_FRAME + 1500;

/// One Ethernet frame with a whole header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame(Bytes);

/// Bytes that are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{len} bytes are no Ethernet frame, which has {MIN_FRAME} to {MAX_FRAME}")]
pub(super) struct NotAFrame {
    len: usize,
}

impl Frame {
    /// Takes bytes as a frame if they are as long as one can be.
    pub(super) fn new(bytes: Bytes) -> Result<Self, NotAFrame> {
        if (MIN_FRAME..=MAX_FRAME).contains(&bytes.len()) {
            Ok(Self(bytes))
        } else {
            Err(NotAFrame { len: bytes.len() })
        }
    }

    /// Where to.
    pub(super) fn dst(&self) -> EthernetAddress {
        EthernetAddress::from_bytes(&self.0[..6])
    }

    /// Where from.
    pub(super) fn src(&self) -> EthernetAddress {
        EthernetAddress::from_bytes(&self.0[6..12])
    }

    /// The whole frame, header included.
    pub(super) fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// The whole frame, header included.
    pub(super) fn into_bytes(self) -> Bytes {
        self.0
    }
}

/// The framing of QEMU's stream sockets. A length beyond [`MAX_FRAME`] is an error.
pub(super) fn codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder()
        .big_endian()
        .length_field_length(4)
        .max_frame_length(MAX_FRAME)
        .new_codec()
}

#[cfg(test)]
mod tests {
    use bytes::{BufMut, BytesMut};
    use proptest::prelude::*;
    use tokio_util::codec::{Decoder, Encoder};

    use super::*;

    proptest! {
        #[test]
        fn framing_is_a_length_in_network_order_and_cuts_anywhere(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 14..200), 0..8),
            cut in 1_usize..64,
        ) {
            let mut wire = Vec::new();
            let mut encoded = BytesMut::new();
            for frame in &frames {
                wire.put_u32(u32::try_from(frame.len()).unwrap());
                wire.put_slice(frame);
                codec().encode(Bytes::copy_from_slice(frame), &mut encoded).unwrap();
            }
            prop_assert_eq!(&encoded[..], &wire[..]);
            let (mut decoder, mut buffer, mut got) = (codec(), BytesMut::new(), Vec::new());
            for piece in wire.chunks(cut) {
                buffer.extend_from_slice(piece);
                while let Some(frame) = decoder.decode(&mut buffer).unwrap() {
                    got.push(frame.to_vec());
                }
            }
            prop_assert_eq!(got, frames);
        }

        #[test]
        fn any_bytes_are_frames_or_errors(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            let mut decoder = codec();
            while let Ok(Some(body)) = decoder.decode(&mut buffer) {
                let long_enough = body.len() >= MIN_FRAME;
                prop_assert_eq!(Frame::new(body.freeze()).is_ok(), long_enough);
            }
        }
    }

    #[test]
    fn a_length_that_no_frame_has_is_refused() {
        let mut buffer = BytesMut::new();
        buffer.put_u32(u32::try_from(MAX_FRAME).unwrap() + 1);
        assert!(codec().decode(&mut buffer).is_err());
        assert!(Frame::new(Bytes::from_static(&[0; MIN_FRAME - 1])).is_err());
        let frame = Frame::new(Bytes::from_static(&[
            1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 8, 0,
        ]));
        assert_eq!(frame.as_ref().unwrap().dst(), EthernetAddress([1; 6]));
        assert_eq!(frame.unwrap().src(), EthernetAddress([2; 6]));
    }
}
