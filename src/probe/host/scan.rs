//! Reading all volumes of a guest back, whole or not at all.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::cluster::Deadline;
use crate::guest::{GuestError, GuestFacts, HostSeen, Patience, Shell, Streams, within};
use crate::history::event::ScanFact;
use crate::history::recorder::Recorder;
use crate::history::scanfile::{ScanError, ScanWriter};
use crate::probe::config::Config;
use crate::probe::wire::Decoder;

use super::binary::ProbeBinary;
use super::deploy::{Reach, prepare_to_read};
use super::error::ProbeError;

/// Bytes read at once.
const CHUNK: usize = 256 * 1024;

impl From<ScanError> for ProbeError {
    fn from(error: ScanError) -> Self {
        match error {
            ScanError::Record(error) => Self::Journal(error),
            other => Self::Scan {
                what: other.to_string(),
            },
        }
    }
}

/// What another guest than the one under test said of the volumes.
#[derive(Debug, Clone)]
pub struct Inspected {
    /// The guest that read.
    pub guest: GuestFacts,
    /// Its SSH host key.
    pub host: HostSeen,
    /// By volume ordinal.
    pub volumes: Vec<ScanFact>,
}

/// Puts the probe into a guest and reads all volumes back, without starting it: nothing is opened
/// for writing and nothing is made. For a guest whose disks are copies.
pub async fn inspect(
    reach: &Reach,
    binary: &ProbeBinary,
    config: &Config,
    recorder: &Recorder,
    name: &str,
    deadline: &Deadline,
) -> Result<Inspected, ProbeError> {
    let remote = reach.remote(config.run_id);
    let (guest, host) = loop {
        let shell = reach.booting(deadline, None).await?;
        let host = shell.host().clone();
        let ready = prepare_to_read(&shell, &remote, binary, config, deadline).await;
        shell.close().await;
        match ready {
            Ok(guest) => break (guest, host),
            Err(ProbeError::Guest(error @ GuestError::Broken { .. })) => {
                tracing::info!(%error, "putting the probe into a reader is tried again");
            }
            Err(error) => return Err(error),
        }
    };
    let volumes = scan(reach, config, recorder, name, deadline).await?;
    Ok(Inspected {
        guest,
        host,
        volumes,
    })
}

/// Runs `probe scan` and keeps its frames as `scans/NAME.bin`. A scan whose stream breaks is thrown
/// away and made again: it only reads. The probe must be in the guest already.
pub(super) async fn scan(
    reach: &Reach,
    config: &Config,
    recorder: &Recorder,
    name: &str,
    deadline: &Deadline,
) -> Result<Vec<ScanFact>, ProbeError> {
    let patience = Patience::running();
    loop {
        let connect = crate::guest::connect(&reach.route, &reach.login, &patience, deadline, None);
        let shell = connect.await?;
        let mut writer = ScanWriter::create(recorder, name)?;
        let read = once(&shell, reach, config, &mut writer, deadline).await;
        shell.close().await;
        match read {
            Ok(()) => return complete(writer.finish()?, config),
            Err(ProbeError::Guest(error @ GuestError::Broken { .. })) => {
                tracing::info!(%error, name, "a scan broke off and is made again");
                writer.abandon()?;
            }
            Err(error) => {
                writer.abandon()?;
                return Err(error);
            }
        }
    }
}

/// One run of `probe scan`, up to its successful end.
async fn once(
    shell: &Shell,
    reach: &Reach,
    config: &Config,
    writer: &mut ScanWriter,
    deadline: &Deadline,
) -> Result<(), ProbeError> {
    let command = reach.remote(config.run_id).scan();
    let Streams {
        mut stdin,
        mut stdout,
        ended,
        guard,
    } = shell.stream(&command, deadline).await?;
    let text = config.to_string();
    let mut bytes = 0_u64;
    let seen = std::cell::Cell::new(0_u64);
    let work = async {
        // A scan that ends early says why with its exit, which is asked for below in any case.
        let told = async {
            stdin.write_all(text.as_bytes()).await?;
            stdin.shutdown().await
        };
        if let Err(error) = told.await {
            tracing::debug!(%error, "the scan took not all of its config");
        }
        let mut decoder = Decoder::default();
        let mut chunk = vec![0; CHUNK];
        let mut frames = 0;
        loop {
            let read = stdout.read(&mut chunk).await.unwrap_or(0);
            if read == 0 {
                break;
            }
            bytes += read as u64;
            seen.set(bytes);
            decoder.push(&chunk[..read]);
            loop {
                match decoder.next_frame() {
                    Ok(Some(raw)) => {
                        frames += 1;
                        if raw.seq != frames {
                            return Ok(Err(ProbeError::Gap {
                                expected: frames,
                                seen: raw.seq,
                            }));
                        }
                        if let Err(error) = writer.push(&raw) {
                            return Ok(Err(error.into()));
                        }
                    }
                    Ok(None) => break,
                    Err(error) => return Ok(Err(error.into())),
                }
            }
        }
        ended.wait().await.check()?;
        Ok(decoder.finish().map_err(ProbeError::from))
    };
    let last_seen = || format!("{} bytes of the scan", seen.get());
    let done = within(deadline, "the scan of all volumes", last_seen, work).await;
    drop(guard);
    done?
}

/// All volumes, in order, each read at all.
fn complete(facts: Vec<ScanFact>, config: &Config) -> Result<Vec<ScanFact>, ProbeError> {
    let incomplete = |what: String| Err(ProbeError::Scan { what });
    if facts.len() != config.volumes.len() {
        let (has, want) = (facts.len(), config.volumes.len());
        return incomplete(format!("it covers {has} of {want} volumes"));
    }
    for (ordinal, fact) in facts.iter().enumerate() {
        if usize::from(fact.volume) != ordinal {
            return incomplete(format!("volume {} stands at place {ordinal}", fact.volume));
        }
        if fact.read == 0 {
            return incomplete(format!("no cell of volume {ordinal} was read"));
        }
    }
    Ok(facts)
}
