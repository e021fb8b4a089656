//! Reading the data of an option: numbers and strings whose lengths must fit what was announced.

use super::wire::STRING_MAX;

/// What is left of an option's data. Every method takes from the front and is `None` if the data do
/// not hold what is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Payload<'a>(pub(super) &'a [u8]);

impl<'a> Payload<'a> {
    fn chunk<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (chunk, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(chunk)
    }

    /// A 16-bit number.
    pub(super) fn u16(&mut self) -> Option<u16> {
        self.chunk().map(|bytes| u16::from_be_bytes(*bytes))
    }

    /// A 32-bit number.
    pub(super) fn u32(&mut self) -> Option<u32> {
        self.chunk().map(|bytes| u32::from_be_bytes(*bytes))
    }

    /// A string after its 32-bit length ("Conventions": UTF-8, no NUL, at most 4096 bytes).
    pub(super) fn string(&mut self) -> Option<&'a str> {
        let length = usize::try_from(self.u32()?).ok()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        text_of(text)
    }

    /// The end of the data.
    pub(super) fn end(self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

/// Bytes that are a string of the protocol.
pub(super) fn text_of(bytes: &[u8]) -> Option<&str> {
    let text = str::from_utf8(bytes).ok()?;
    (text.len() <= STRING_MAX && !text.contains('\0')).then_some(text)
}

/// The data of `NBD_OPT_INFO` and `NBD_OPT_GO`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct InfoRequest<'a> {
    pub(super) name: &'a str,
    /// Information types that the client asks for.
    pub(super) wanted: Vec<u16>,
}

impl<'a> InfoRequest<'a> {
    /// Reads the whole data.
    pub(super) fn parse(data: &'a [u8]) -> Option<Self> {
        let mut data = Payload(data);
        let name = data.string()?;
        let count = data.u16()?;
        let wanted = (0..count).map(|_| data.u16()).collect::<Option<_>>()?;
        data.end()?;
        Some(Self { name, wanted })
    }
}

/// The data of `NBD_OPT_LIST_META_CONTEXT` and `NBD_OPT_SET_META_CONTEXT`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ContextRequest<'a> {
    pub(super) name: &'a str,
    pub(super) queries: Vec<&'a str>,
}

impl<'a> ContextRequest<'a> {
    /// Reads the whole data.
    pub(super) fn parse(data: &'a [u8]) -> Option<Self> {
        let mut data = Payload(data);
        let name = data.string()?;
        let count = data.u32()?;
        // The iterator ends with the data, so a false count costs nothing.
        let queries = (0..count).map(|_| data.string()).collect::<Option<_>>()?;
        data.end()?;
        Some(Self { name, queries })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn string(out: &mut Vec<u8>, text: &str) {
        out.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
        out.extend(text.as_bytes());
    }

    #[test]
    fn strings_are_utf8_without_nul_and_not_too_long() {
        assert_eq!(text_of("Platte ö".as_bytes()), Some("Platte ö"));
        assert_eq!(text_of(b"a\0b"), None);
        assert_eq!(text_of(&[0xff]), None);
        assert!(text_of(&[b'a'; STRING_MAX]).is_some());
        assert_eq!(text_of(&[b'a'; STRING_MAX + 1]), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_nothing_shorter_or_longer(
            name in "[a-z]{0,9}",
            wanted in prop::collection::vec(any::<u16>(), 0..5),
            queries in prop::collection::vec("[a-z:]{0,9}", 0..5),
        ) {
            let mut info = Vec::new();
            string(&mut info, &name);
            info.extend(u16::try_from(wanted.len()).unwrap().to_be_bytes());
            info.extend(wanted.iter().flat_map(|kind| kind.to_be_bytes()));
            let mut context = Vec::new();
            string(&mut context, &name);
            context.extend(u32::try_from(queries.len()).unwrap().to_be_bytes());
            for query in &queries {
                string(&mut context, query);
            }

            prop_assert_eq!(
                InfoRequest::parse(&info),
                Some(InfoRequest { name: &name, wanted })
            );
            let parsed = ContextRequest::parse(&context).unwrap();
            prop_assert_eq!(parsed.name, &name);
            prop_assert_eq!(parsed.queries, queries);
            for cut in 0..info.len() {
                prop_assert_eq!(InfoRequest::parse(&info[..cut]), None);
            }
            for cut in 0..context.len() {
                prop_assert_eq!(ContextRequest::parse(&context[..cut]), None);
            }
            info.push(0);
            context.push(0);
            prop_assert_eq!(InfoRequest::parse(&info), None);
            prop_assert_eq!(ContextRequest::parse(&context), None);
        }
    }
}
