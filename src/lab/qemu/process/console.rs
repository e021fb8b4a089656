//! A guest's serial console: drained for all its life, kept in a file, and watched for words.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt, SeekFrom};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;

/// How much of a console is kept. What a guest gone mad says beyond that is drained and dropped.
const KEPT: u64 = 64 << 20;

/// How much of the end is shown in an error.
const SHOWN: u64 = 200;

/// Why a marker was not found.
#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    /// It did not come in time.
    #[error("the console did not show {marker:?} within {} s; it ends with {end:?}", waited.as_secs())]
    Timeout {
        /// What was awaited.
        marker: String,
        /// How long.
        waited: Duration,
        /// The end of the console.
        end: String,
    },
    /// The machine ended first.
    #[error("the machine ended before its console showed {marker:?}; it ends with {end:?}")]
    Ended {
        /// What was awaited.
        marker: String,
        /// The end of the console.
        end: String,
    },
    /// The transcript cannot be read.
    #[error("the console's transcript {} cannot be read: {source}", path.display())]
    Io {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The console of one machine. Clones watch the same one.
#[derive(Debug, Clone)]
pub struct Console {
    path: Arc<Path>,
    /// Bytes in the transcript. The sender goes with the drain.
    length: watch::Receiver<u64>,
    _drain: Arc<AbortOnDropHandle<()>>,
}

impl Console {
    /// Takes over the console's socket and writes a new transcript at `path`.
    pub(super) async fn new(from: UnixStream, path: &Path) -> io::Result<Self> {
        let to = File::create(path).await?;
        let (grown, length) = watch::channel(0);
        let drain = tokio::spawn(drain(from, to, grown));
        Ok(Self {
            path: path.into(),
            length,
            _drain: Arc::new(AbortOnDropHandle::new(drain)),
        })
    }

    /// How many bytes there are so far.
    pub fn length(&self) -> u64 {
        *self.length.borrow()
    }

    /// What the guest said from byte `offset` on.
    pub async fn tail(&self, offset: u64) -> Result<Vec<u8>, ConsoleError> {
        self.read(offset).await.map_err(|source| ConsoleError::Io {
            path: self.path.to_path_buf(),
            source,
        })
    }

    async fn read(&self, offset: u64) -> io::Result<Vec<u8>> {
        let mut file = File::open(&self.path).await?;
        file.seek(SeekFrom::Start(offset)).await?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).await?;
        Ok(bytes)
    }

    /// Waits until `marker` stands anywhere in the console after byte `offset`; it may have come
    /// before the call. Returns the offset just behind it.
    pub async fn await_marker(
        &self,
        offset: u64,
        marker: &str,
        limit: Duration,
    ) -> Result<u64, ConsoleError> {
        let deadline = Instant::now() + limit;
        let mut length = self.length.clone();
        let mut from = offset;
        loop {
            length.borrow_and_update();
            let text = self.tail(from).await?;
            if let Some(at) = position(&text, marker.as_bytes()) {
                return Ok(from + (at + marker.len()) as u64);
            }
            // The marker may have begun at the end of what was read.
            from += text.len().saturating_sub(marker.len().saturating_sub(1)) as u64;
            let marker = marker.to_owned();
            match timeout_at(deadline, length.changed()).await {
                Ok(Ok(())) => {}
                // All that was ever written had been written before it was read above.
                Ok(Err(_drained)) => {
                    let end = self.end().await?;
                    return Err(ConsoleError::Ended { marker, end });
                }
                Err(_elapsed) => {
                    return Err(ConsoleError::Timeout {
                        marker,
                        waited: limit,
                        end: self.end().await?,
                    });
                }
            }
        }
    }

    /// The last words.
    async fn end(&self) -> Result<String, ConsoleError> {
        let text = self.tail(self.length().saturating_sub(SHOWN)).await?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

fn position(text: &[u8], marker: &[u8]) -> Option<usize> {
    if marker.is_empty() {
        return Some(0);
    }
    text.windows(marker.len())
        .position(|window| window == marker)
}

/// Copies until the machine ends. A transcript that cannot be written stops the transcript, never the
/// drain: a full socket would stall the guest's console driver, and with it the guest.
async fn drain(mut from: UnixStream, mut to: File, grown: watch::Sender<u64>) {
    let mut buffer = vec![0; 16 * 1024];
    let mut keeps = true;
    loop {
        let read = match from.read(&mut buffer).await {
            Ok(0) => return,
            Ok(read) => read,
            Err(error) => {
                tracing::debug!(%error, "the console's socket failed");
                return;
            }
        };
        let length = *grown.borrow() + read as u64;
        if keeps && length > KEPT {
            tracing::warn!("a console has more than {KEPT} bytes: the rest is not kept");
            keeps = false;
        }
        if keeps {
            match append(&mut to, &buffer[..read]).await {
                Ok(()) => {
                    grown.send_replace(length);
                }
                Err(error) => {
                    tracing::warn!(%error, "a console is not kept any more");
                    keeps = false;
                }
            }
        }
    }
}

async fn append(to: &mut File, bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes).await?;
    to.flush().await
}
