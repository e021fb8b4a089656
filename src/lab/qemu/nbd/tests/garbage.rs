//! Bytes that no client should send. The test disk panics when it is asked for anything unaligned or
//! out of range, and a panic of the server is a failure here.

use std::sync::Arc;

use proptest::prelude::*;

use super::client::{MODERN, contexts, converse, info, option, request};
use super::disk::TestDisk;
use super::export;

fn begun(structured: bool) -> Vec<u8> {
    let mut said = MODERN.to_be_bytes().to_vec();
    if structured {
        said.extend(option(8, &[]));
        said.extend(option(10, &contexts("data", &["base:allocation"])));
    }
    said.extend(option(7, &info("data", &[3])));
    said
}

/// Numbers that are near something.
fn near() -> impl Strategy<Value = u64> {
    let size = 16 * 4096;
    prop_oneof![
        (0_u64..18).prop_map(|page| page * 4096),
        (0_u64..20).prop_map(move |back| size - 10 + back),
        (0_u64..3).prop_map(|back| u64::MAX - back * 4096),
        (0_u64..3).prop_map(|more| (32 << 20) - 4096 + more * 4096),
        any::<u64>(),
    ]
}

fn any_request() -> impl Strategy<Value = Vec<u8>> {
    let flags = prop_oneof![0_u16..32, any::<u16>()];
    let kind = prop_oneof![0_u16..10, any::<u16>()];
    #[expect(clippy::cast_possible_truncation, reason = "any number will do")]
    let length = near().prop_map(|length| length as u32);
    (flags, kind, any::<u64>(), near(), length, 0_usize..9000).prop_map(
        |(flags, kind, cookie, offset, length, payload)| {
            let mut bytes = request(flags, kind, cookie, offset, length);
            if kind == 1 {
                bytes.resize(28 + payload.min(length as usize), 3);
            }
            bytes
        },
    )
}

proptest! {
    #[test]
    fn noise_from_the_first_byte(said in prop::collection::vec(any::<u8>(), 0..400)) {
        let disk = Arc::new(TestDisk::new(16, true));
        converse(&export(&disk), &said);
        prop_assert_eq!(disk.calls(), []);
    }

    #[test]
    fn options_of_noise(
        flags in 0_u32..4,
        options in prop::collection::vec(
            (0_u32..13, prop::collection::vec(prop_oneof![0_u8..9, any::<u8>()], 0..40)),
            0..6,
        ),
        cut in 0_usize..60,
    ) {
        let mut said = flags.to_be_bytes().to_vec();
        for (number, data) in &options {
            said.extend(option(*number, data));
        }
        said.truncate(said.len() - cut.min(said.len()));
        let disk = Arc::new(TestDisk::new(16, true));
        converse(&export(&disk), &said);
        prop_assert_eq!(disk.calls(), []);
    }

    #[test]
    fn requests_of_noise(
        structured: bool,
        dsync: bool,
        requests in prop::collection::vec(any_request(), 1..9),
        cut in 0_usize..60,
    ) {
        let mut said = begun(structured);
        said.extend(requests.concat());
        said.truncate(said.len() - cut.min(said.len()));
        let disk = Arc::new(TestDisk::new(16, dsync));
        converse(&export(&disk), &said);
    }

    #[test]
    fn a_write_cut_short_writes_nothing(keep in 0_usize..28 + 4096) {
        let mut said = begun(false);
        let mut write = request(1, 1, 1, 0, 4096);
        write.resize(28 + 4096, 9);
        said.extend(&write[..keep]);
        let disk = Arc::new(TestDisk::new(16, true));
        converse(&export(&disk), &said);
        prop_assert_eq!(disk.calls(), []);
    }
}
