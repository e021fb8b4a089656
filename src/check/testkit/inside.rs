//! What a guest shows of its own hardware at a login.

use crate::history::event::{Fact, InsideDisk, InsideFact, Site};

/// A guest on the primary that shows these disks, by name and serial, and one card; its address is of
/// this family.
pub(in crate::check) fn shows<'a>(
    disks: impl IntoIterator<Item = (&'a str, &'a str)>,
    family: &str,
) -> Fact {
    let disks = disks.into_iter().map(|(name, serial)| InsideDisk {
        name: name.into(),
        serial: serial.into(),
        size: 1 << 20,
        read_only: false,
    });
    Fact::Inside {
        site: Site::Primary,
        inside: InsideFact {
            hostname: "vm".into(),
            disks: disks.collect(),
            cards: [("eth0".to_owned(), "02:00:00:00:00:01".to_owned())].into(),
            families: vec![family.into()],
        },
    }
}
