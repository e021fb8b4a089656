//! Random commands against a model that knows what a reader sees and what a power cut leaves.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::client::{MODERN, contexts, converse, info, option, reply, request};
use super::disk::{PAGE, TestDisk};
use super::export;

const PAGES: u8 = 12;

/// Commands in pages; `fill` is what is written.
#[derive(Debug, Clone)]
enum Do {
    Read {
        at: u64,
        pages: u64,
        df: bool,
    },
    Write {
        at: u64,
        pages: u64,
        fill: u8,
        fua: bool,
    },
    Zero {
        at: u64,
        pages: u64,
        trim: bool,
        fua: bool,
    },
    Status {
        at: u64,
        pages: u64,
        one: bool,
    },
    Flush,
}

fn command() -> impl Strategy<Value = Do> {
    // Some reach beyond the end.
    let (at, pages) = (0..u64::from(PAGES) + 2, 1_u64..6);
    let place = (at, pages, any::<bool>(), any::<bool>(), 0_u8..4);
    prop_oneof![
        3 => place.clone().prop_map(|(at, pages, df, _, _)| Do::Read { at, pages, df }),
        6 => place.clone().prop_map(|(at, pages, fua, _, fill)| Do::Write { at, pages, fill, fua }),
        3 => place.clone().prop_map(|(at, pages, trim, fua, _)| Do::Zero { at, pages, trim, fua }),
        1 => place.prop_map(|(at, pages, one, _, _)| Do::Status { at, pages, one }),
        2 => Just(Do::Flush),
    ]
}

/// One byte per page tells all.
#[derive(Debug, Clone, Default)]
struct Model {
    durable: [u8; PAGES as usize],
    cached: BTreeMap<usize, u8>,
    dsync: bool,
}

impl Model {
    fn seen(&self, page: usize) -> u8 {
        self.cached
            .get(&page)
            .copied()
            .unwrap_or(self.durable[page])
    }

    fn flush(&mut self) {
        for (page, fill) in std::mem::take(&mut self.cached) {
            self.durable[page] = fill;
        }
    }

    fn write(&mut self, at: u64, pages: u64, fill: u8, fua: bool) {
        for page in at..at + pages {
            let page = usize::try_from(page).unwrap();
            if fua && self.dsync {
                self.cached.remove(&page);
                self.durable[page] = fill;
            } else {
                self.cached.insert(page, fill);
            }
        }
        if fua && !self.dsync {
            self.flush();
        }
    }
}

fn bytes(pages: impl Iterator<Item = u8>) -> Vec<u8> {
    pages.flat_map(|fill| [fill; PAGE]).collect()
}

fn encode(command: &Do, cookie: u64) -> Vec<u8> {
    let ask = |flags: u16, kind, at: u64, pages: u64| {
        let length = u32::try_from(pages * 4096).unwrap();
        request(flags, kind, cookie, at * 4096, length)
    };
    match *command {
        Do::Read { at, pages, df } => ask(u16::from(df) * 4, 0, at, pages),
        Do::Write {
            at,
            pages,
            fill,
            fua,
        } => {
            let mut bytes = ask(fua.into(), 1, at, pages);
            bytes.resize(28 + usize::try_from(pages).unwrap() * PAGE, fill);
            bytes
        }
        Do::Zero {
            at,
            pages,
            trim,
            fua,
        } => ask(fua.into(), if trim { 4 } else { 6 }, at, pages),
        Do::Status { at, pages, one } => ask(u16::from(one) * 8, 7, at, pages),
        Do::Flush => ask(0, 3, 0, 0),
    }
}

/// Applies a command to the model and checks the reply against it.
fn check(model: &mut Model, command: &Do, cookie: u64, mut said: &mut &[u8], structured: bool) {
    let place = match *command {
        Do::Read { at, pages, .. }
        | Do::Write { at, pages, .. }
        | Do::Zero { at, pages, .. }
        | Do::Status { at, pages, .. } => (at, pages),
        Do::Flush => (0, 0),
    };
    let (at, pages) = place;
    let read = matches!(command, Do::Read { .. });
    let length = usize::try_from(pages).unwrap() * PAGE;
    let reply = reply(&mut said, read.then_some((at * 4096, length)));
    assert_eq!(reply.cookie, cookie, "requests are answered in order");
    let span = usize::try_from(at).unwrap()..usize::try_from(at + pages).unwrap();
    let status_unknown = matches!(command, Do::Status { .. }) && !structured;
    let df_unknown = matches!(command, Do::Read { df: true, .. }) && !structured;
    if at + pages > PAGES.into() || status_unknown || df_unknown {
        let enospc = matches!(command, Do::Write { .. } | Do::Zero { trim: false, .. });
        assert_eq!(reply.errno, if enospc { 28 } else { 22 });
        return;
    }
    assert_eq!(reply.errno, 0, "{command:?}: {}", reply.message);
    match *command {
        Do::Read { .. } => assert!(reply.data == bytes(span.map(|page| model.seen(page)))),
        Do::Write { fill, fua, .. } => model.write(at, pages, fill, fua),
        Do::Zero { fua, .. } => model.write(at, pages, 0, fua),
        Do::Flush => model.flush(),
        Do::Status { one, .. } => {
            let mut told = Vec::new();
            for (bytes, state) in &reply.extents {
                told.extend(vec![*state == 3; *bytes as usize / PAGE]);
            }
            assert!(!one || reply.extents.len() == 1);
            assert!(!told.is_empty() && (one || told.len() == span.len()));
            for (page, zero) in span.zip(told) {
                assert_eq!(zero, model.seen(page) == 0);
            }
        }
    }
}

proptest! {
    #[test]
    fn a_power_cut_leaves_exactly_what_was_flushed_or_forced(
        commands in prop::collection::vec(command(), 0..30),
        dsync: bool,
        structured: bool,
    ) {
        let disk = Arc::new(TestDisk::new(PAGES.into(), dsync));
        let mut said = MODERN.to_be_bytes().to_vec();
        if structured {
            said.extend(option(8, &[]));
            said.extend(option(10, &contexts("", &["base:allocation"])));
        }
        said.extend(option(7, &info("", &[3])));
        let greeting = converse(&export(&disk), &said).len();
        for (cookie, command) in (1..).zip(&commands) {
            said.extend(encode(command, cookie));
        }
        let answers = converse(&export(&disk), &said);
        let mut answers = &answers[greeting..];
        let mut model = Model { dsync, ..Model::default() };
        for (cookie, command) in (1..).zip(&commands) {
            check(&mut model, command, cookie, &mut answers, structured);
        }
        prop_assert!(answers.is_empty());
        prop_assert!(disk.durable() == bytes(model.durable.into_iter()));
        let seen = (0..PAGES).map(|page| model.seen(page.into()));
        prop_assert!(disk.content() == bytes(seen));
    }
}
