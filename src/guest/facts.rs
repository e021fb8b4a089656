//! What a guest says about itself: `uname -sm` before the probe is there, `probe info` after. The
//! text is the guest's, so every line and number of it is checked and limited.

/// The most that `probe info` may print, bytes.
pub const MAX_INFO: usize = 256 * 1024;
/// The only version of the text that is understood.
const FORMAT: u32 = 2;
const MAX_DISKS: usize = 1024;
const MAX_CARDS: usize = 256;
const MAX_TEXT: usize = 256;

/// Why the guest's description of itself cannot be used, or does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FactsError {
    /// A line that is not as agreed.
    #[error("the guest described itself with line {line} `{text}`: {why}")]
    Line {
        /// Line number from 1.
        line: usize,
        /// The line, printable and cut.
        text: String,
        /// What was wrong.
        why: &'static str,
    },
    /// A line is missing.
    #[error("the guest's description of itself has no `{key}`")]
    Missing {
        /// The key.
        key: &'static str,
    },
    /// More than is believable.
    #[error("the guest's description of itself is larger than {limit} {unit}")]
    TooLarge {
        /// The limit.
        limit: usize,
        /// Of what.
        unit: &'static str,
    },
    /// The probe cannot run there.
    #[error(
        "the guest is {guest} and this binary embeds an {embedded} probe; pass --probe PATH with \
         one built for {guest}"
    )]
    Arch {
        /// The guest's machine name.
        guest: String,
        /// The embedded probe's.
        embedded: String,
    },
    /// Not Linux.
    #[error("the guest runs {0}, but the probe needs Linux")]
    NotLinux(String),
    /// A volume of the plan is not attached, or not by the serial that it was given.
    #[error("no disk with serial {serial} in the guest; it has: {present}")]
    NoDisk {
        /// The serial looked for.
        serial: String,
        /// The disks that are there, by name and serial.
        present: String,
    },
    /// Two disks carry one serial.
    #[error("{count} disks in the guest carry the serial {serial}")]
    TwoDisks {
        /// The serial.
        serial: String,
        /// How many.
        count: usize,
    },
    /// The disk cannot be written.
    #[error("disk {name} (serial {serial}) is read-only in the guest")]
    ReadOnly {
        /// Device name.
        name: String,
        /// The serial.
        serial: String,
    },
}

/// The answer to `uname -sm`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct System {
    /// Kernel name, `Linux`.
    pub kernel: String,
    /// Machine name, `x86_64`.
    pub arch: String,
}

impl System {
    /// Reads the one line of `uname -sm`.
    pub fn parse(text: &str) -> Result<Self, FactsError> {
        let mut words = text.split_whitespace();
        match (words.next(), words.next(), words.next()) {
            (Some(kernel), Some(arch), None)
                if kernel.len() <= MAX_TEXT && arch.len() <= MAX_TEXT =>
            {
                Ok(Self {
                    kernel: kernel.into(),
                    arch: arch.into(),
                })
            }
            _ => Err(bad_line(1, text, "expected a kernel and a machine name")),
        }
    }

    /// Whether a probe built for `embedded` runs here.
    pub fn runs(&self, embedded: &str) -> Result<(), FactsError> {
        if self.kernel != "Linux" {
            return Err(FactsError::NotLinux(self.kernel.clone()));
        }
        let family = |arch: &str| match arch {
            "arm64" => "aarch64".to_owned(),
            "amd64" => "x86_64".to_owned(),
            other => other.to_owned(),
        };
        if family(&self.arch) == family(embedded) {
            Ok(())
        } else {
            Err(FactsError::Arch {
                guest: self.arch.clone(),
                embedded: embedded.to_owned(),
            })
        }
    }
}

/// A block device as the guest sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskFact {
    /// Kernel name, `vdb`.
    pub name: String,
    /// Its serial; at most 20 characters reach a virtio disk. Empty if it has none.
    pub serial: String,
    /// Bytes.
    pub size: u64,
    /// Whether it says that it has a volatile cache (`/sys/block/*/queue/write_cache`).
    pub write_back: bool,
    /// Removable medium.
    pub removable: bool,
    /// Cannot be written.
    pub read_only: bool,
}

/// The guest as `probe info` describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestFacts {
    /// Machine name.
    pub arch: String,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// `/etc/machine-id`; empty if there is none.
    pub machine_id: String,
    /// Kernel release.
    pub kernel: String,
    /// Host name.
    pub hostname: String,
    /// Its disks.
    pub disks: Vec<DiskFact>,
    /// Its network cards by name, each with its hardware address.
    pub cards: Vec<(String, String)>,
}

impl GuestFacts {
    /// Reads the text of `probe info`. Unknown keys are passed over, so that a newer probe can say
    /// more.
    pub fn parse(text: &str) -> Result<Self, FactsError> {
        if text.len() > MAX_INFO {
            return Err(FactsError::TooLarge {
                limit: MAX_INFO,
                unit: "bytes",
            });
        }
        let (mut disks, mut cards) = (Vec::new(), Vec::new());
        let mut values = std::collections::BTreeMap::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim_end();
            if line.is_empty() {
                continue;
            }
            let (key, value) = line.split_once(' ').unwrap_or((line, ""));
            if key == "disk" {
                if disks.len() == MAX_DISKS {
                    return Err(FactsError::TooLarge {
                        limit: MAX_DISKS,
                        unit: "disks",
                    });
                }
                disks.push(parse_disk(value).map_err(|why| bad_line(index + 1, line, why))?);
            } else if key == "card" {
                if cards.len() == MAX_CARDS {
                    return Err(FactsError::TooLarge {
                        limit: MAX_CARDS,
                        unit: "network cards",
                    });
                }
                cards.push(parse_card(value).map_err(|why| bad_line(index + 1, line, why))?);
            } else if value.len() > MAX_TEXT {
                return Err(bad_line(index + 1, line, "the value is too long"));
            } else if values.insert(key, (index + 1, value)).is_some() {
                return Err(bad_line(index + 1, line, "the key was given before"));
            }
        }
        let get = |key: &'static str| values.get(key).ok_or(FactsError::Missing { key });
        let (line, format) = *get("format")?;
        if format.parse() != Ok(FORMAT) {
            return Err(bad_line(
                line,
                format,
                "not the format that this version reads",
            ));
        }
        let text = |key| get(key).map(|(_, value)| (*value).to_owned());
        Ok(Self {
            arch: text("arch")?,
            boot_id: text("boot_id")?,
            machine_id: text("machine_id")?,
            kernel: text("kernel")?,
            hostname: text("hostname")?,
            disks,
            cards,
        })
    }

    /// The one disk with this serial.
    pub fn disk(&self, serial: &str) -> Result<&DiskFact, FactsError> {
        let mut found = self.disks.iter().filter(|d| d.serial == serial);
        match (found.next(), found.count()) {
            (Some(disk), 0) => Ok(disk),
            (Some(_), more) => Err(FactsError::TwoDisks {
                serial: serial.to_owned(),
                count: more + 1,
            }),
            (None, _) => Err(FactsError::NoDisk {
                serial: serial.to_owned(),
                present: self.present(),
            }),
        }
    }

    /// The one disk with this serial, if it can be written.
    pub fn writable_disk(&self, serial: &str) -> Result<&DiskFact, FactsError> {
        let disk = self.disk(serial)?;
        if disk.read_only {
            return Err(FactsError::ReadOnly {
                name: disk.name.clone(),
                serial: serial.to_owned(),
            });
        }
        Ok(disk)
    }

    fn present(&self) -> String {
        const SHOWN: usize = 16;
        let mut names: Vec<String> = self
            .disks
            .iter()
            .take(SHOWN)
            .map(|d| match d.serial.as_str() {
                "" => format!("{} (no serial)", d.name),
                serial => format!("{} (serial {serial})", d.name),
            })
            .collect();
        match self.disks.len() {
            0 => names.push("no disks".into()),
            n if n > SHOWN => names.push(format!("and {} more", n - SHOWN)),
            _ => {}
        }
        names.join(", ")
    }
}

fn bad_line(line: usize, text: &str, why: &'static str) -> FactsError {
    let cut: String = text.chars().take(80).collect();
    FactsError::Line {
        line,
        text: super::error::printable_tail(cut.as_bytes(), 400),
        why,
    }
}

fn parse_card(value: &str) -> Result<(String, String), &'static str> {
    let (name, address) = value.split_once(' ').ok_or("a card without an address")?;
    let address = address.trim().to_ascii_lowercase();
    let octets = |c: char| c.is_ascii_hexdigit() || c == ':';
    if name.is_empty() || name.len() > MAX_TEXT || address.len() > MAX_TEXT {
        return Err("a card without a plain name");
    }
    if address.is_empty() || !address.chars().all(octets) {
        return Err("a card whose address is no hardware address");
    }
    Ok((name.to_owned(), address))
}

fn parse_disk(value: &str) -> Result<DiskFact, &'static str> {
    let mut words = value.split(' ').filter(|w| !w.is_empty());
    let name = words.next().ok_or("a disk without a name")?;
    if name.contains('=') || name.len() > MAX_TEXT {
        return Err("a disk without a plain name");
    }
    let mut disk = DiskFact {
        name: name.to_owned(),
        serial: String::new(),
        size: 0,
        write_back: false,
        removable: false,
        read_only: false,
    };
    let (mut sized, mut cached) = (false, false);
    for word in words {
        let (key, value) = word.split_once('=').ok_or("expected key=value")?;
        match key {
            // So that every field is one word, a disk without a serial says `-`.
            "serial" if value == "-" => disk.serial.clear(),
            "serial" if value.len() <= MAX_TEXT => value.clone_into(&mut disk.serial),
            "serial" => return Err("the serial is too long"),
            "size" => {
                disk.size = value
                    .parse()
                    .map_err(|_not_a_number| "the size is not a number")?;
                sized = true;
            }
            "write_cache" => {
                disk.write_back = match value {
                    "writeback" => true,
                    "writethrough" => false,
                    _ => return Err("write_cache is neither writeback nor writethrough"),
                };
                cached = true;
            }
            "removable" => disk.removable = flag(value)?,
            "ro" => disk.read_only = flag(value)?,
            _ => {}
        }
    }
    match (sized, cached) {
        (true, true) => Ok(disk),
        (false, _) => Err("the disk has no size"),
        (_, false) => Err("the disk does not say what its write cache is"),
    }
}

fn flag(value: &str) -> Result<bool, &'static str> {
    match value {
        "0" => Ok(false),
        "1" => Ok(true),
        _ => Err("a flag is neither 0 nor 1"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const INFO: &str = "format 2\narch x86_64\nboot_id 5f0d\nmachine_id \nkernel 6.12.0\n\
        hostname vm one\ndisk vda serial=- size=10737418240 write_cache=writeback removable=0 ro=0\n\
        disk vdb serial=data-0 size=2147483648 write_cache=writethrough removable=0 ro=0\n\
        disk vdc serial=data-1 size=1048576 write_cache=writeback removable=1 ro=1\n";

    #[test]
    fn the_description_is_read_whole() {
        let facts = GuestFacts::parse(INFO).unwrap();
        assert_eq!(facts.hostname, "vm one");
        assert_eq!(facts.machine_id, "");
        assert_eq!(facts.disks.len(), 3);
        let disk = facts.writable_disk("data-0").unwrap();
        assert_eq!(
            (disk.name.as_str(), disk.size, disk.write_back),
            ("vdb", 2 << 30, false)
        );
        assert!(matches!(
            facts.writable_disk("data-1"),
            Err(FactsError::ReadOnly { name, .. }) if name == "vdc"
        ));
        let missing = facts.disk("data-9").unwrap_err().to_string();
        assert!(missing.contains("vdb (serial data-0)"), "{missing}");
        assert!(missing.contains("vda (no serial)"), "{missing}");
        assert!(facts.cards.is_empty());
        let facts = GuestFacts::parse(&format!("{INFO}card eth0 02:AB:00:00:00:01\n")).unwrap();
        let card = ("eth0".to_owned(), "02:ab:00:00:00:01".to_owned());
        assert_eq!(facts.cards, [card]);
    }

    #[test]
    fn what_is_damaged_is_refused_by_line() {
        let cases = [
            (INFO.replace("format 2", "format 1"), "format"),
            (INFO.replace("arch x86_64\n", ""), "no `arch`"),
            (INFO.replace("size=1048576", "size=-1"), "line 9"),
            (INFO.replace("removable=1", "removable=yes"), "line 9"),
            (INFO.replace("=writethrough", "=none"), "line 8"),
            (INFO.replace("kernel 6.12.0", "arch x"), "given before"),
            (format!("{INFO}note {}\n", "x".repeat(300)), "too long"),
            ("x".repeat(MAX_INFO + 1), "larger than"),
            (format!("{INFO}disk vdz\n"), "no size"),
            (format!("{INFO}card eth0\n"), "without an address"),
            (format!("{INFO}card eth0 here\n"), "no hardware address"),
        ];
        for (text, expected) in cases {
            let error = GuestFacts::parse(&text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error} should say {expected}");
        }
        assert!(GuestFacts::parse(&format!("{INFO}newer thing\n")).is_ok());
    }

    #[test]
    fn two_disks_with_one_serial_are_not_guessed_between() {
        let facts = GuestFacts::parse(&INFO.replace("data-1", "data-0")).unwrap();
        assert_eq!(
            facts.disk("data-0").unwrap_err(),
            FactsError::TwoDisks {
                serial: "data-0".into(),
                count: 2
            }
        );
    }

    #[test]
    fn the_wrong_machine_is_told_from_the_right_one() {
        let arm = System::parse("Linux aarch64\n").unwrap();
        let error = arm.runs("x86_64").unwrap_err().to_string();
        assert_eq!(
            error,
            "the guest is aarch64 and this binary embeds an x86_64 probe; pass --probe PATH with \
             one built for aarch64"
        );
        assert_eq!(
            System::parse("Linux x86_64").unwrap().runs("x86_64"),
            Ok(())
        );
        assert_eq!(arm.runs("arm64"), Ok(()));
        let bsd = System::parse("FreeBSD amd64").unwrap();
        assert_eq!(
            bsd.runs("x86_64"),
            Err(FactsError::NotLinux("FreeBSD".into()))
        );
        assert!(System::parse("").is_err());
        assert!(System::parse("Linux x86_64 extra").is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[ -~\n]{0,400}", more in ".{0,80}") {
            let _refused_or_read = GuestFacts::parse(&format!("{INFO}{text}\ndisk {more}"));
            let _refused_or_read = System::parse(&more);
        }
    }
}
