//! The payloads of [`FromGuest`] and [`ToGuest`]: LEB128 integers, deltas to the item before, so
//! that a strict ack takes about three bytes.
//!
//! Contract: what is encoded decodes to itself; no bytes make the decoder panic or ask for more
//! memory than a small multiple of the frame.

use super::cell::Kind;
use super::disk::Grants;
use super::frame::{CellState, FromGuest, Identity, Lease, Opened, Seen, ToGuest};
use super::wire::{FrameError, Get, Put, Raw, seal};

mod ack;

pub use ack::AckView;

/// The most cells that a producer puts into one [`FromGuest::Cells`] frame.
pub const CELLS_PER_FRAME: usize = 4096;

const OPENED: u8 = 1;
const FILLED: u8 = 2;
const ACK: u8 = 3;
const UNKNOWN: u8 = 4;
const ALIVE: u8 = 5;
const STOPPED: u8 = 6;
const SCAN_BEGIN: u8 = 7;
const CELLS: u8 = 8;
const SCAN_END: u8 = 9;
const FAILED: u8 = 10;
const LEASE: u8 = 11;

const HELLO: u8 = 0x81;
const HEARD: u8 = 0x82;
const TOKEN: u8 = 0x83;
const FILL: u8 = 0x84;
const CANARY: u8 = 0x85;
const START: u8 = 0x86;
const STOP: u8 = 0x87;
const QUIT: u8 = 0x88;

impl FromGuest {
    /// The whole frame as it goes on the wire; `seq` 0 for unnumbered frames.
    pub fn encode(&self, seq: u64) -> Vec<u8> {
        let mut put = Put::default();
        let kind = match self {
            Self::Opened(identity) => {
                put_identity(&mut put, identity);
                OPENED
            }
            Self::Filled { volume, cells } => {
                put.u8(*volume);
                put.uint(*cells);
                FILLED
            }
            Self::Ack(ack) => {
                ack::put(&mut put, ack);
                ACK
            }
            Self::Unknown {
                writer,
                wseq,
                errno,
            } => {
                put.uint(*writer);
                put.uint(*wseq);
                put.uint(errno.cast_unsigned());
                UNKNOWN
            }
            Self::Alive { mono_ns, token } => {
                put.uint(*mono_ns);
                put.uint(*token);
                ALIVE
            }
            Self::Stopped { issued, last_rank } => {
                put_pairs(&mut put, issued);
                put.uint(*last_rank);
                STOPPED
            }
            Self::ScanBegin { volume, size } => {
                put.u8(*volume);
                put.uint(*size);
                SCAN_BEGIN
            }
            Self::Cells(cells) => {
                put_cells(&mut put, cells);
                CELLS
            }
            Self::ScanEnd {
                volume,
                read,
                cold_ok,
            } => {
                put.u8(*volume);
                put.uint(*read);
                put.uint(*cold_ok);
                SCAN_END
            }
            Self::Failed(text) => {
                put.text(text);
                FAILED
            }
            Self::Lease(lease) => {
                put_lease(&mut put, lease);
                LEASE
            }
        };
        seal(kind, seq, &put.0)
    }

    /// Decodes the payload of a frame.
    pub fn decode(raw: &Raw) -> Result<Self, FrameError> {
        if let Some(ack) = AckView::of(raw)? {
            return Ok(Self::Ack(ack.read()?));
        }
        let mut get = Get(raw.payload());
        let frame = match raw.kind {
            OPENED => Self::Opened(get_identity(&mut get)?),
            FILLED => Self::Filled {
                volume: get.u8()?,
                cells: get.uint()?,
            },
            UNKNOWN => Self::Unknown {
                writer: get.narrow("writer")?,
                wseq: get.uint()?,
                errno: get.narrow::<u32>("errno")?.cast_signed(),
            },
            ALIVE => Self::Alive {
                mono_ns: get.uint()?,
                token: get.narrow("token")?,
            },
            STOPPED => Self::Stopped {
                issued: get_pairs(&mut get)?,
                last_rank: get.uint()?,
            },
            SCAN_BEGIN => Self::ScanBegin {
                volume: get.u8()?,
                size: get.uint()?,
            },
            CELLS => Self::Cells(get_cells(&mut get)?),
            SCAN_END => Self::ScanEnd {
                volume: get.u8()?,
                read: get.uint()?,
                cold_ok: get.uint()?,
            },
            FAILED => Self::Failed(get.text()?),
            LEASE => Self::Lease(get_lease(&mut get)?),
            other => return Err(FrameError::Kind(other)),
        };
        get.end()?;
        Ok(frame)
    }
}

impl ToGuest {
    /// The whole frame as it goes on the wire. Frames to the guest are unnumbered: the host repeats
    /// what it has no answer to, and every command is idempotent.
    pub fn encode(&self) -> Vec<u8> {
        let mut put = Put::default();
        let kind = match self {
            Self::Hello { heard } => {
                put.uint(*heard);
                HELLO
            }
            Self::Heard(seq) => {
                put.uint(*seq);
                HEARD
            }
            Self::Token(token) => {
                put.uint(*token);
                TOKEN
            }
            Self::Fill => FILL,
            Self::Canary => CANARY,
            Self::Start { rate, batch } => {
                put.uint(*rate);
                put.uint(*batch);
                START
            }
            Self::Stop => STOP,
            Self::Quit => QUIT,
        };
        seal(kind, 0, &put.0)
    }

    /// Decodes the payload of a frame.
    pub fn decode(raw: &Raw) -> Result<Self, FrameError> {
        let mut get = Get(raw.payload());
        let frame = match raw.kind {
            HELLO => Self::Hello { heard: get.uint()? },
            HEARD => Self::Heard(get.uint()?),
            TOKEN => Self::Token(get.narrow("token")?),
            FILL => Self::Fill,
            CANARY => Self::Canary,
            START => Self::Start {
                rate: get.narrow("rate")?,
                batch: get.narrow("batch")?,
            },
            STOP => Self::Stop,
            QUIT => Self::Quit,
            other => return Err(FrameError::Kind(other)),
        };
        get.end()?;
        Ok(frame)
    }
}

fn put_identity(put: &mut Put, identity: &Identity) {
    put.uint(identity.incarnation);
    put.text(&identity.boot_id);
    put.text(&identity.machine_id);
    put.uint(identity.pid);
    put.len(identity.volumes.len());
    for opened in &identity.volumes {
        put.u8(opened.volume);
        put.text(&opened.path);
        put.uint(opened.size);
        let grants = opened.grants;
        put.u8(u8::from(grants.direct)
            | u8::from(grants.dsync) << 1
            | u8::from(grants.write_back) << 2);
    }
}

fn get_identity(get: &mut Get<'_>) -> Result<Identity, FrameError> {
    Ok(Identity {
        incarnation: get.uint()?,
        boot_id: get.text()?,
        machine_id: get.text()?,
        pid: get.narrow("pid")?,
        volumes: (0..get.count()?)
            .map(|_| get_opened(get))
            .collect::<Result<_, _>>()?,
    })
}

fn get_opened(get: &mut Get<'_>) -> Result<Opened, FrameError> {
    Ok(Opened {
        volume: get.u8()?,
        path: get.text()?,
        size: get.uint()?,
        grants: match get.u8()? {
            bits @ 0..8 => Grants {
                direct: bits & 1 != 0,
                dsync: bits & 2 != 0,
                write_back: bits & 4 != 0,
            },
            _ => return Err(FrameError::Value("grants")),
        },
    })
}

fn put_lease(put: &mut Put, lease: &Lease) {
    put.u8(lease.volume);
    put.uint(lease.reads);
    put.uint(lease.longest_ns);
    put.len(lease.foreign.len());
    for stamp in &lease.foreign {
        put.text(stamp);
    }
}

fn get_lease(get: &mut Get<'_>) -> Result<Lease, FrameError> {
    Ok(Lease {
        volume: get.u8()?,
        reads: get.uint()?,
        longest_ns: get.uint()?,
        foreign: (0..get.count()?)
            .map(|_| get.text())
            .collect::<Result<_, _>>()?,
    })
}

fn put_pairs(put: &mut Put, pairs: &[(u32, u64)]) {
    put.len(pairs.len());
    for &(writer, wseq) in pairs {
        put.uint(writer);
        put.uint(wseq);
    }
}

fn get_pairs(get: &mut Get<'_>) -> Result<Vec<(u32, u64)>, FrameError> {
    (0..get.count()?)
        .map(|_| Ok((get.narrow("writer")?, get.uint()?)))
        .collect()
}

/// What the next cell is likely to be near to.
#[derive(Default)]
struct Near {
    cell: u64,
    incarnation: u64,
    wseq: u64,
    dep: u64,
    token: u64,
}

fn put_cells(put: &mut Put, cells: &[Seen]) {
    debug_assert!(cells.len() <= CELLS_PER_FRAME, "scans bound their frames");
    let mut near = Near::default();
    put.len(cells.len());
    for seen in cells {
        put.near(seen.cell, near.cell);
        near.cell = seen.cell;
        put_state(put, &seen.state, &mut near);
    }
}

fn put_state(put: &mut Put, state: &CellState, near: &mut Near) {
    match *state {
        CellState::Ok {
            kind,
            incarnation,
            writer,
            wseq,
            dep,
            token,
        } => {
            put.u8(kind as u8);
            put.near(incarnation, near.incarnation);
            put.uint(writer);
            put.near(wseq, near.wseq);
            put.near(dep, near.dep);
            put.near(u64::from(token), near.token);
            (near.incarnation, near.wseq) = (incarnation, wseq);
            (near.dep, near.token) = (dep, u64::from(token));
        }
        CellState::Torn {
            sectors,
            wseq,
            writer,
        } => {
            put.u8(10);
            put.u8(sectors);
            put.uint(wseq);
            put.uint(writer);
        }
        CellState::Corrupt => put.u8(11),
        CellState::Misdirected {
            same_volume,
            cell,
            vol,
        } => {
            put.u8(12 + u8::from(same_volume));
            put.uint(cell);
            put.0.extend_from_slice(&vol.to_le_bytes());
        }
        CellState::Foreign { run } => {
            put.u8(14);
            put.0.extend_from_slice(&run.to_le_bytes());
        }
        CellState::Zeroed => put.u8(15),
        CellState::Unreadable { errno } => {
            put.u8(16);
            put.uint(errno.cast_unsigned());
        }
    }
}

fn get_cells(get: &mut Get<'_>) -> Result<Vec<Seen>, FrameError> {
    let mut near = Near::default();
    let count = get.count()?;
    if count > CELLS_PER_FRAME {
        return Err(FrameError::Value("cell count"));
    }
    (0..count)
        .map(|_| {
            near.cell = get.near(near.cell)?;
            Ok(Seen {
                cell: near.cell,
                state: get_state(get, &mut near)?,
            })
        })
        .collect()
}

fn get_state(get: &mut Get<'_>, near: &mut Near) -> Result<CellState, FrameError> {
    let tag = get.u8()?;
    if let Some(kind) = Kind::from_byte(tag) {
        near.incarnation = get.near(near.incarnation)?;
        let writer = get.narrow("writer")?;
        near.wseq = get.near(near.wseq)?;
        near.dep = get.near(near.dep)?;
        near.token = get.near(near.token)?;
        return Ok(CellState::Ok {
            kind,
            incarnation: near.incarnation,
            writer,
            wseq: near.wseq,
            dep: near.dep,
            token: u32::try_from(near.token).or(Err(FrameError::Value("token")))?,
        });
    }
    Ok(match tag {
        10 => CellState::Torn {
            sectors: get.u8()?,
            wseq: get.uint()?,
            writer: get.narrow("writer")?,
        },
        11 => CellState::Corrupt,
        12 | 13 => CellState::Misdirected {
            same_volume: tag == 13,
            cell: get.uint()?,
            vol: u64::from_le_bytes(get.fixed()?),
        },
        14 => CellState::Foreign {
            run: u64::from_le_bytes(get.fixed()?),
        },
        15 => CellState::Zeroed,
        16 => CellState::Unreadable {
            errno: get.narrow::<u32>("errno")?.cast_signed(),
        },
        _ => return Err(FrameError::Value("cell state")),
    })
}

#[cfg(test)]
mod tests;
