//! An NBD server for tests: one disk in memory that can fail, vanish, come back and grow.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

#[derive(Default)]
struct Store {
    bytes: Vec<u8>,
    broken: bool,
    writes: u64,
}

/// A disk behind a socket.
pub(in crate::lab::qemu) struct NbdDisk {
    path: PathBuf,
    store: Arc<Mutex<Store>>,
    server: Mutex<Option<AbortOnDropHandle<()>>>,
}

const SIMPLE_REPLY: u32 = 0x6744_6698;
const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
const EIO: u32 = 5;
const EINVAL: u32 = 22;

impl NbdDisk {
    pub(in crate::lab::qemu) fn serve(path: &Path, bytes: Vec<u8>) -> Self {
        let store = Store {
            bytes,
            ..Store::default()
        };
        let disk = Self {
            path: path.to_owned(),
            store: Arc::new(Mutex::new(store)),
            server: Mutex::new(None),
        };
        disk.come_back();
        disk
    }

    pub(in crate::lab::qemu) fn path(&self) -> &Path {
        &self.path
    }

    /// The server and all its connections are gone.
    pub(in crate::lab::qemu) fn vanish(&self) {
        self.server.lock().unwrap().take();
        std::fs::remove_file(&self.path).unwrap();
    }

    pub(in crate::lab::qemu) fn come_back(&self) {
        let listener = UnixListener::bind(&self.path).unwrap();
        let store = Arc::clone(&self.store);
        let server = tokio::spawn(async move {
            let mut clients = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let store = Arc::clone(&store);
                clients.spawn(async move {
                    // Clients go as they please.
                    serve(client, store).await.ok();
                });
            }
        });
        *self.server.lock().unwrap() = Some(AbortOnDropHandle::new(server));
    }

    /// Whether requests fail from now on.
    pub(in crate::lab::qemu) fn set_broken(&self, broken: bool) {
        self.store.lock().unwrap().broken = broken;
    }

    pub(in crate::lab::qemu) fn grow(&self, bytes: usize) {
        self.store.lock().unwrap().bytes.resize(bytes, 0);
    }

    /// Writes that were carried out.
    pub(in crate::lab::qemu) fn writes(&self) -> u64 {
        self.store.lock().unwrap().writes
    }

    /// The number that the test guest wrote last.
    pub(in crate::lab::qemu) fn count(&self) -> u32 {
        let store = self.store.lock().unwrap();
        u32::from_le_bytes(store.bytes[512..516].try_into().unwrap())
    }
}

async fn serve(mut client: UnixStream, store: Arc<Mutex<Store>>) -> io::Result<()> {
    client.write_all(b"NBDMAGICIHAVEOPT\x00\x03").await?;
    client.read_u32().await?;
    negotiate(&mut client, &store).await?;
    loop {
        client.read_u32().await?;
        client.read_u16().await?;
        let kind = client.read_u16().await?;
        let cookie = client.read_u64().await?;
        let offset = usize::try_from(client.read_u64().await?).unwrap();
        let length = client.read_u32().await? as usize;
        let mut data = vec![0; if kind == 1 { length } else { 0 }];
        client.read_exact(&mut data).await?;
        if kind == 2 {
            return Ok(());
        }
        let (error, answer) = carry_out(&store, kind, offset, length, &data);
        let mut reply = SIMPLE_REPLY.to_be_bytes().to_vec();
        reply.extend(error.to_be_bytes());
        reply.extend(cookie.to_be_bytes());
        reply.extend(answer);
        client.write_all(&reply).await?;
    }
}

fn carry_out(
    store: &Mutex<Store>,
    kind: u16,
    offset: usize,
    length: usize,
    data: &[u8],
) -> (u32, Vec<u8>) {
    let mut store = store.lock().unwrap();
    if store.broken {
        return (EIO, Vec::new());
    }
    let range = offset..offset + length;
    match (kind, store.bytes.get_mut(range)) {
        (0, Some(bytes)) => (0, bytes.to_vec()),
        (1, Some(bytes)) => {
            bytes.copy_from_slice(data);
            store.writes += 1;
            (0, Vec::new())
        }
        // Flush.
        (3, _) => (0, Vec::new()),
        _ => (EINVAL, Vec::new()),
    }
}

async fn negotiate(client: &mut UnixStream, store: &Mutex<Store>) -> io::Result<()> {
    loop {
        client.read_u64().await?;
        let option = client.read_u32().await?;
        let mut data = vec![0; client.read_u32().await? as usize];
        client.read_exact(&mut data).await?;
        let reply = |kind: u32, data: &[u8]| {
            let mut reply = OPTION_REPLY.to_be_bytes().to_vec();
            reply.extend(option.to_be_bytes());
            reply.extend(kind.to_be_bytes());
            reply.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
            reply.extend(data);
            reply
        };
        // NBD_OPT_GO; to all else, NBD_REP_ERR_UNSUP.
        if option != 7 {
            client.write_all(&reply(0x8000_0001, &[])).await?;
            continue;
        }
        let size = store.lock().unwrap().bytes.len() as u64;
        let mut export = vec![0, 0];
        export.extend(size.to_be_bytes());
        // Has flags, takes flushes, many connections see one cache.
        export.extend((1u16 | 4 | 256).to_be_bytes());
        client.write_all(&reply(3, &export)).await?;
        client.write_all(&reply(1, &[])).await?;
        return Ok(());
    }
}
