//! What the host tells a probe to open and how, as lines of text on its standard input.
//!
//! Contract: text in, one validated value out; every error names its line. Limits stand here, so
//! that nobody downstream meets an unbounded list or a path with surprises.

use std::fmt::{self, Write as _};

use super::filesystem::Kind;
use super::layout::LayoutSpec;

/// The longest config that is accepted, bytes.
pub const MAX_CONFIG: usize = 64 * 1024;
/// The most volumes that one VM may have.
pub const MAX_VOLUMES: usize = 16;
/// The most incarnations that a scan may be told of.
pub const MAX_EXPECT: usize = 1024;
/// Bytes of unheard frames that a probe keeps unless told otherwise.
pub const DEFAULT_SCRATCH: u64 = 8 << 20;
/// The smallest ring of unheard frames, bytes: room for the frames of one flush of every writer.
pub const MIN_SCRATCH: u64 = 16 << 10;

/// What the probe is started for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A new ledger: blank volumes may be formatted and filled.
    Load,
    /// An existing ledger: nothing is formatted, and nothing is written until the host says so.
    Verify,
}

/// How a volume is found in the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Locator {
    /// By disk serial, as set in the VM's `disks[].serial` (virtio shows its first 20 bytes).
    Serial(String),
    /// By path; for tests and for guests whose disks carry no serial.
    Path(String),
}

/// What is opened on a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The whole device.
    Raw(Locator),
    /// One preallocated file on a file system on the device.
    File(FileTarget),
}

/// A file system for a ledger file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileTarget {
    /// The device.
    pub on: Locator,
    /// Where it is mounted.
    pub mount: String,
    /// Which file system is made on a blank device, and is to be found on any other.
    pub kind: Kind,
}

/// One volume of the VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// The volume's id in its cells.
    pub vol_id: [u8; 16],
    /// Where it is.
    pub target: Target,
    /// Cells that the volume had when it was filled, if it was: regions are fitted to this and not
    /// to a size that a restore may have changed.
    pub cells: Option<u64>,
    /// Cells of its device that are not its own: it begins behind them. Only of a whole device.
    pub from: u64,
}

/// A validated config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The run that the ledger belongs to.
    pub run_id: [u8; 16],
    /// Seed of payloads and address streams.
    pub seed: u64,
    /// The incarnation that the host minted for this probe run.
    pub incarnation: u64,
    /// What the probe is started for.
    pub purpose: Purpose,
    /// Regions, before fitting to each volume.
    pub layout: LayoutSpec,
    /// The volumes, by ordinal.
    pub volumes: Vec<Volume>,
    /// Bytes of unheard frames kept before the writers stall.
    pub scratch: u64,
    /// Incarnations whose cold cells need no listing in a scan.
    pub expect: Vec<u64>,
}

/// Why a config was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Line, from 1; 0 for the text as a whole.
    pub line: usize,
    /// What is wrong with it.
    pub what: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "config: {}", self.what),
            line => write!(f, "config line {line}: {}", self.what),
        }
    }
}
impl std::error::Error for ConfigError {}

impl Config {
    /// Reads a config. Unknown, repeated and missing lines are errors; order is free.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        if text.len() > MAX_CONFIG {
            return Err(ConfigError {
                line: 0,
                what: format!("{} bytes exceed the limit of {MAX_CONFIG}", text.len()),
            });
        }
        let mut draft = Draft::default();
        for (number, line) in (1..).zip(text.lines()) {
            draft
                .line(line)
                .map_err(|what| ConfigError { line: number, what })?;
        }
        draft.finish().map_err(|what| ConfigError { line: 0, what })
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "run {}", hex(&self.run_id))?;
        writeln!(f, "seed {}", self.seed)?;
        writeln!(f, "incarnation {:016x}", self.incarnation)?;
        let purpose = match self.purpose {
            Purpose::Load => "load",
            Purpose::Verify => "verify",
        };
        writeln!(f, "purpose {purpose}")?;
        let l = &self.layout;
        writeln!(
            f,
            "layout canary={} log={} hot={} cold_stride={} hot_writers={}",
            l.canary, l.log, l.hot, l.cold_stride, l.hot_writers
        )?;
        for (ordinal, volume) in self.volumes.iter().enumerate() {
            let id = hex(&volume.vol_id);
            match &volume.target {
                Target::Raw(on) => write!(f, "volume {ordinal} {id} raw {on}")?,
                Target::File(FileTarget { on, mount, kind }) => {
                    write!(f, "volume {ordinal} {id} file {on} mount={mount} fs={kind}")?;
                }
            }
            if volume.from > 0 {
                write!(f, " from={}", volume.from)?;
            }
            match volume.cells {
                Some(cells) => writeln!(f, " cells={cells}")?,
                None => writeln!(f)?,
            }
        }
        writeln!(f, "scratch {}", self.scratch)?;
        for incarnation in &self.expect {
            writeln!(f, "expect {incarnation:016x}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Locator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Serial(serial) => write!(f, "serial={serial}"),
            Self::Path(path) => write!(f, "path={path}"),
        }
    }
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        // Writing to a String cannot fail.
        out.write_fmt(format_args!("{byte:02x}")).ok();
        out
    })
}

#[derive(Default)]
struct Draft {
    run_id: Option<[u8; 16]>,
    seed: Option<u64>,
    incarnation: Option<u64>,
    purpose: Option<Purpose>,
    layout: Option<LayoutSpec>,
    volumes: Vec<Volume>,
    scratch: Option<u64>,
    expect: Vec<u64>,
}

impl Draft {
    fn line(&mut self, line: &str) -> Result<(), String> {
        let mut words = line.split_ascii_whitespace();
        let Some(key) = words.next() else {
            return Ok(());
        };
        let rest: Vec<&str> = words.collect();
        match (key, rest.as_slice()) {
            ("run", [id]) => once(&mut self.run_id, key, parse_id(id)?),
            ("seed", [seed]) => once(&mut self.seed, key, parse_u64(seed)?),
            ("incarnation", [id]) => once(&mut self.incarnation, key, parse_hex64(id)?),
            ("purpose", ["load"]) => once(&mut self.purpose, key, Purpose::Load),
            ("purpose", ["verify"]) => once(&mut self.purpose, key, Purpose::Verify),
            ("layout", pairs) => once(&mut self.layout, key, parse_layout(pairs)?),
            ("volume", [ordinal, id, rest @ ..]) => self.volume(ordinal, id, rest),
            ("scratch", [bytes]) => match parse_u64(bytes)? {
                bytes if bytes < MIN_SCRATCH => {
                    Err(format!("scratch {bytes} is below {MIN_SCRATCH} bytes"))
                }
                bytes => once(&mut self.scratch, key, bytes),
            },
            ("expect", [_]) if self.expect.len() >= MAX_EXPECT => {
                Err(format!("more than {MAX_EXPECT} incarnations to expect"))
            }
            ("expect", [id]) => {
                self.expect.push(parse_hex64(id)?);
                Ok(())
            }
            _ => Err(format!("cannot understand {line:?}")),
        }
    }

    fn volume(&mut self, ordinal: &str, id: &str, rest: &[&str]) -> Result<(), String> {
        let next = self.volumes.len();
        if next >= MAX_VOLUMES {
            return Err(format!("more than {MAX_VOLUMES} volumes"));
        }
        if ordinal != next.to_string() {
            return Err(format!("expected volume {next}, saw {ordinal:?}"));
        }
        let pinned = rest.last().and_then(|last| last.strip_prefix("cells="));
        let cells = pinned.map(parse_u64).transpose()?;
        let rest = &rest[..rest.len() - usize::from(pinned.is_some())];
        let mut from = 0;
        let target = match rest {
            ["raw", on] => Target::Raw(parse_locator(on)?),
            ["raw", on, behind] => {
                let behind = behind.strip_prefix("from=");
                from = parse_u64(behind.ok_or("expected from=CELLS behind the disk")?)?;
                Target::Raw(parse_locator(on)?)
            }
            ["file", on, mount, kind] => Target::File(FileTarget {
                on: parse_locator(on)?,
                mount: match mount.strip_prefix("mount=") {
                    Some(mount) => parse_path(mount)?,
                    None => return Err(format!("expected mount=/PATH, saw {mount:?}")),
                },
                kind: kind
                    .strip_prefix("fs=")
                    .and_then(Kind::named)
                    .ok_or_else(|| format!("expected fs=ext4 or fs=xfs, saw {kind:?}"))?,
            }),
            _ => return Err("expected raw or file with its disk".to_owned()),
        };
        let vol_id = parse_id(id)?;
        if self.volumes.iter().any(|volume| volume.vol_id == vol_id) {
            return Err(format!("volume id {id} stands twice"));
        }
        self.volumes.push(Volume {
            vol_id,
            target,
            cells,
            from,
        });
        Ok(())
    }

    fn finish(self) -> Result<Config, String> {
        let missing = |key: &str| format!("no line {key:?}");
        if self.volumes.is_empty() {
            return Err(missing("volume"));
        }
        Ok(Config {
            run_id: self.run_id.ok_or_else(|| missing("run"))?,
            seed: self.seed.ok_or_else(|| missing("seed"))?,
            incarnation: self.incarnation.ok_or_else(|| missing("incarnation"))?,
            purpose: self.purpose.ok_or_else(|| missing("purpose"))?,
            layout: self.layout.unwrap_or_default(),
            volumes: self.volumes,
            scratch: self.scratch.unwrap_or(DEFAULT_SCRATCH),
            expect: self.expect,
        })
    }
}

fn once<T>(slot: &mut Option<T>, key: &str, value: T) -> Result<(), String> {
    match slot.replace(value) {
        Some(_) => Err(format!("{key} stands twice")),
        None => Ok(()),
    }
}

fn parse_u64(text: &str) -> Result<u64, String> {
    text.parse()
        .map_err(|error| format!("expected a number, saw {text:?}: {error}"))
}

fn parse_hex64(text: &str) -> Result<u64, String> {
    match u64::from_str_radix(text, 16) {
        Ok(value) if text.len() == 16 && !text.starts_with('+') => Ok(value),
        _ => Err(format!("expected 16 hex digits, saw {text:?}")),
    }
}

fn parse_id(text: &str) -> Result<[u8; 16], String> {
    match u128::from_str_radix(text, 16) {
        Ok(value) if text.len() == 32 && !text.starts_with('+') => Ok(value.to_be_bytes()),
        _ => Err(format!("expected 32 hex digits, saw {text:?}")),
    }
}

fn parse_layout(pairs: &[&str]) -> Result<LayoutSpec, String> {
    let mut spec = LayoutSpec::default();
    let mut seen = Vec::new();
    for pair in pairs {
        let (key, value) = pair
            .split_once('=')
            .ok_or_else(|| format!("expected KEY=NUMBER, saw {pair:?}"))?;
        if seen.contains(&key) {
            return Err(format!("{key} stands twice"));
        }
        seen.push(key);
        let value = parse_u64(value)?;
        match key {
            "canary" => spec.canary = value,
            "log" => spec.log = value,
            "hot" => spec.hot = value,
            "cold_stride" => spec.cold_stride = value,
            "hot_writers" => match u32::try_from(value) {
                Ok(count @ 1..=64) => spec.hot_writers = count,
                _ => return Err(format!("hot_writers {value} is not within 1..=64")),
            },
            _ => return Err(format!("unknown layout key {key:?}")),
        }
    }
    Ok(spec)
}

fn parse_locator(text: &str) -> Result<Locator, String> {
    if let Some(path) = text.strip_prefix("path=") {
        return Ok(Locator::Path(parse_path(path)?));
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    match text.strip_prefix("serial=") {
        Some(serial) if (1..=64).contains(&serial.len()) && serial.bytes().all(plain) => {
            Ok(Locator::Serial(serial.to_owned()))
        }
        _ => Err(format!("expected serial=S or path=/PATH, saw {text:?}")),
    }
}

fn parse_path(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
    let sound = text.starts_with('/')
        && text.len() <= 1024
        && text.bytes().all(plain)
        && text.split('/').all(|part| part != "..");
    if sound {
        Ok(text.to_owned())
    } else {
        Err(format!("expected a plain absolute path, saw {text:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const GOOD: &str = "\
run 000102030405060708090a0b0c0d0e0f
seed 7
incarnation 0100000100000002
purpose load
layout canary=1 log=2 hot=3 cold_stride=4 hot_writers=5
volume 0 10000000000000000000000000000000 raw serial=vp-0
volume 1 20000000000000000000000000000000 file serial=vp-1 mount=/mnt/vp fs=xfs cells=262144
volume 2 30000000000000000000000000000000 raw serial=vp-0 from=16384 cells=16384
scratch 65536
expect 0100000100000001
";

    #[test]
    fn reads_and_writes_the_documented_form() {
        let config = Config::parse(GOOD).unwrap();
        assert_eq!(config.to_string(), GOOD);
        assert_eq!(config.run_id[15], 0x0f);
        assert_eq!(config.layout.cold_stride, 4);
        assert_eq!(config.expect, [0x0100_0001_0000_0001]);
    }

    /// Replaces line `line` (from 1) and expects the error to name it.
    fn refused(line: usize, with: &str, needle: &str) {
        let text: Vec<&str> = GOOD
            .lines()
            .enumerate()
            .map(|(at, old)| if at + 1 == line { with } else { old })
            .collect();
        let error = Config::parse(&text.join("\n")).unwrap_err();
        assert_eq!(error.line, line, "{error}");
        assert!(error.to_string().contains(needle), "{error}");
    }

    #[test]
    fn errors_name_their_line() {
        refused(1, "run 12", "32 hex digits");
        refused(2, "seed -1", "expected a number");
        refused(3, "incarnation 1", "16 hex digits");
        refused(4, "purpose destroy", "cannot understand");
        refused(5, "layout hot=1 hot=2", "hot stands twice");
        refused(5, "layout warm=1", "unknown layout key");
        refused(
            6,
            "volume 1 10000000000000000000000000000000 raw serial=a",
            "expected volume 0",
        );
        refused(
            6,
            "volume 0 10000000000000000000000000000000 raw serial=a;rm",
            "serial=S",
        );
        refused(
            7,
            "volume 1 10000000000000000000000000000000 raw serial=b",
            "stands twice",
        );
        refused(
            7,
            "volume 1 20000000000000000000000000000000 file serial=b mount=/a/../b fs=ext4",
            "path",
        );
        refused(
            7,
            "volume 1 20000000000000000000000000000000 file serial=b mount=/a fs=ntfs",
            "fs=ext4 or fs=xfs",
        );
        refused(8, "scratch 1", "below");
        refused(9, "seed 8", "seed stands twice");
    }

    #[test]
    fn missing_lines_are_named() {
        for (at, key) in ["run", "seed", "incarnation", "purpose"].iter().enumerate() {
            let text: Vec<&str> = GOOD
                .lines()
                .enumerate()
                .filter_map(|(line, text)| (line != at).then_some(text))
                .collect();
            let error = Config::parse(&text.join("\n")).unwrap_err();
            assert_eq!(error.what, format!("no line {key:?}"));
        }
        let none = Config::parse(&GOOD[..GOOD.find("volume").unwrap()]).unwrap_err();
        assert_eq!(none.what, "no line \"volume\"");
    }

    fn locator() -> impl Strategy<Value = Locator> {
        prop_oneof![
            "[A-Za-z0-9._-]{1,20}".prop_map(Locator::Serial),
            "/[a-z]{1,9}/[a-z0-9._-]{3,9}".prop_map(Locator::Path),
        ]
    }

    fn target() -> impl Strategy<Value = Target> {
        prop_oneof![
            locator().prop_map(Target::Raw),
            (locator(), "/[a-z]{1,9}", any::<bool>()).prop_map(|(on, mount, xfs)| {
                let kind = if xfs { Kind::Xfs } else { Kind::Ext4 };
                Target::File(FileTarget { on, mount, kind })
            }),
        ]
    }

    prop_compose! {
        fn config()(
            run_id: [u8; 16], seed: u64, incarnation: u64, load: bool, [canary, log, hot, cold_stride]: [u64; 4],
            hot_writers in 1u32..=64, targets in vec((target(), any::<Option<u64>>(), 0..3u64), 1..=MAX_VOLUMES),
            scratch in MIN_SCRATCH.., expect in vec(any::<u64>(), 0..5),
        ) -> Config {
            let volumes = (1u128..).zip(targets).map(|(id, (target, cells, from))| {
                let from = if matches!(target, Target::Raw(_)) { from } else { 0 };
                Volume { vol_id: id.to_be_bytes(), target, cells, from }
            });
            Config {
                run_id, seed, incarnation,
                purpose: if load { Purpose::Load } else { Purpose::Verify },
                layout: LayoutSpec { canary, log, hot, cold_stride, hot_writers },
                volumes: volumes.collect(),
                scratch, expect,
            }
        }
    }

    proptest! {
        #[test]
        fn round_trips(config in config()) {
            prop_assert_eq!(Config::parse(&config.to_string()), Ok(config));
        }

        #[test]
        fn arbitrary_text_never_panics(text in "(run|seed|volume|layout|expect|[ -~]{0,9}|[ \n=]){0,40}") {
            if let Ok(config) = Config::parse(&text) {
                prop_assert_eq!(Config::parse(&config.to_string()), Ok(config));
            }
        }
    }
}
