//! A probe that is told to write, and what its acks amount to.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Interval, interval};
use virtproof::probe::config::{Config, DEFAULT_SCRATCH, Locator, Purpose, Target, Volume};
use virtproof::probe::frame::{FromGuest, ToGuest};
use virtproof::probe::layout::{CELL, LayoutSpec};
use virtproof::probe::wire::Decoder;

use crate::pairs::Sample;
use crate::place::{Place, Talk};

/// Cells of the log.
const LOG: u64 = 1024;
/// Cells of the hot region.
const HOT: u64 = 4096;
/// Bytes that the writers go over.
pub(crate) const REGION: u64 = (LOG + HOT) * CELL as u64;
/// How often the host sends a token.
const TOKEN: Duration = Duration::from_millis(50);
/// What is left out at the start of each load.
const RAMP: u64 = 500_000_000;
const INCARNATION: u64 = 0x0100_0001_0000_0001;

/// A probe that holds its volume.
pub(crate) struct Ledger {
    config: Config,
    talk: Talk,
    decoder: Decoder,
    tokens: Interval,
    token: u32,
    pid: u32,
    /// By writer: the last write heard to be durable.
    marks: BTreeMap<u32, u64>,
}

/// Bytes of the ledger's volume.
pub(crate) async fn size(place: &impl Place) -> anyhow::Result<u64> {
    let ours = place.ours();
    let command = format!("blockdev --getsize64 {ours} 2>/dev/null || stat -c %s {ours}");
    Ok(place.run(&command, b"").await?.trim().parse()?)
}

impl Ledger {
    /// Starts the probe and fills every cold cell.
    pub(crate) async fn start(place: &impl Place, writers: u32) -> anyhow::Result<Self> {
        let config = Config {
            run_id: [0x42; 16],
            seed: 7,
            incarnation: INCARNATION,
            purpose: Purpose::Load,
            layout: LayoutSpec {
                canary: 64,
                log: LOG,
                hot: HOT,
                cold_stride: 1,
                hot_writers: writers - 1,
            },
            volumes: vec![Volume {
                vol_id: [1; 16],
                target: Target::Raw(Locator::Path(place.ours().to_owned())),
                cells: None,
                from: 0,
            }],
            scratch: DEFAULT_SCRATCH,
            expect: vec![INCARNATION],
        };
        let (probe, socket) = (place.probe(), place.socket());
        let start = format!("{probe} start {socket}");
        place.run(&start, config.to_string().as_bytes()).await?;
        let talk = place.talk(&format!("{probe} attach {socket}")).await?;
        let mut ledger = Self {
            config,
            talk,
            decoder: Decoder::default(),
            tokens: interval(TOKEN),
            token: 0,
            pid: 0,
            marks: BTreeMap::new(),
        };
        ledger.tell(&ToGuest::Hello { heard: 0 }).await?;
        while ledger.pid == 0 {
            if let FromGuest::Opened(identity) = ledger.hear().await? {
                ledger.pid = identity.pid;
                let granted = identity.volumes.iter().all(|v| v.grants.direct);
                if !granted {
                    bail!("{} does not take O_DIRECT", place.ours());
                }
            }
        }
        ledger.tell(&ToGuest::Fill).await?;
        while !matches!(ledger.hear().await?, FromGuest::Filled { .. }) {}
        Ok(ledger)
    }

    /// The config of a read-back.
    pub(crate) fn to_scan(&self) -> String {
        let config = Config {
            purpose: Purpose::Verify,
            ..self.config.clone()
        };
        config.to_string()
    }

    /// Writes for so long and stops. The rate is taken between two acks by the probe's own clock, so
    /// that neither the way to the host nor starting and stopping is in it.
    pub(crate) async fn load(
        &mut self,
        place: &impl Place,
        batch: u32,
        window: Duration,
    ) -> anyhow::Result<Sample> {
        let before = (self.cpu(place).await?, self.writes());
        self.tell(&ToGuest::Start { rate: 0, batch }).await?;
        let window = u64::try_from(window.as_nanos())?;
        let (mut began, mut from) = (None, None);
        let rate = loop {
            let FromGuest::Ack(ack) = self.hear().await? else {
                continue;
            };
            let now = (ack.mono_ns, self.writes());
            if ack.mono_ns < *began.get_or_insert(ack.mono_ns) + RAMP {
                continue;
            }
            let (at_ns, writes) = *from.get_or_insert(now);
            if ack.mono_ns >= at_ns + window {
                break per_second(now.1 - writes, ack.mono_ns - at_ns);
            }
        };
        self.tell(&ToGuest::Stop).await?;
        while !matches!(self.hear().await?, FromGuest::Stopped { .. }) {}
        let cpu = self.cpu(place).await? - before.0;
        Ok(Sample {
            rate,
            cpu: each(cpu * 1e6, self.writes() - before.1),
        })
    }

    /// Ends the probe.
    pub(crate) async fn quit(mut self) -> anyhow::Result<()> {
        self.tell(&ToGuest::Quit).await?;
        // It ends the stream when it has ended.
        let mut rest = Vec::new();
        self.talk.stdout.read_to_end(&mut rest).await?;
        Ok(())
    }

    fn writes(&self) -> u64 {
        self.marks.values().sum()
    }

    /// CPU seconds of the probe so far.
    async fn cpu(&self, place: &impl Place) -> anyhow::Result<f64> {
        let stat = place
            .run(&format!("cat /proc/{}/stat", self.pid), b"")
            .await?;
        // After the name in brackets: state is the first field, utime and stime are the 12th and 13th
        // (proc(5)), in ticks of which every Linux has 100 a second.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let ticks = fields.split_ascii_whitespace().skip(11).take(2);
        let sum: Option<f64> = ticks.map(|ticks| ticks.parse::<f64>().ok()).sum();
        Ok(sum.with_context(|| format!("/proc/PID/stat says {stat:?}"))? / 100.0)
    }

    async fn tell(&mut self, frame: &ToGuest) -> anyhow::Result<()> {
        self.talk.stdin.write_all(&frame.encode()).await?;
        Ok(self.talk.stdin.flush().await?)
    }

    /// The next frame, confirmed; tokens go out meanwhile, as from the real host.
    async fn hear(&mut self) -> anyhow::Result<FromGuest> {
        loop {
            if let Some(raw) = self.decoder.next_frame()? {
                let frame = FromGuest::decode(&raw)?;
                if let FromGuest::Ack(ack) = &frame {
                    let marks = ack.ranks.iter().flat_map(|rank| &rank.marks);
                    self.marks.extend(marks.copied());
                }
                match frame {
                    FromGuest::Failed(why) => bail!("the probe gave up: {why}"),
                    FromGuest::Unknown { errno, .. } => bail!("a write failed: errno {errno}"),
                    _ => {}
                }
                if raw.seq > 0 {
                    self.tell(&ToGuest::Heard(raw.seq)).await?;
                }
                return Ok(frame);
            }
            let mut chunk = vec![0; 64 * 1024];
            tokio::select! {
                read = self.talk.stdout.read(&mut chunk) => match read? {
                    0 => bail!("the probe ended the stream"),
                    read => self.decoder.push(&chunk[..read]),
                },
                _ = self.tokens.tick() => {
                    self.token += 1;
                    let token = ToGuest::Token(self.token);
                    self.tell(&token).await?;
                }
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn per_second(writes: u64, ns: u64) -> f64 {
    writes as f64 * 1e9 / ns as f64
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn each(total: f64, writes: u64) -> f64 {
    total / writes as f64
}
