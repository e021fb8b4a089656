//! A small NBD client: it writes what it is told and believes nothing.

use std::io::{Cursor, Read, Write};
use std::os::unix::net::UnixStream;

use super::super::export::Export;
use super::super::gate::Gate;
use super::super::server::Server;
use super::super::transmission::serve;

/// Flags of the client: fixed newstyle, no zeroes.
pub(super) const MODERN: u32 = 3;

/// The bytes of an option.
pub(super) fn option(number: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"IHAVEOPT".to_vec();
    bytes.extend(number.to_be_bytes());
    bytes.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
    bytes.extend(data);
    bytes
}

/// Data of INFO and GO.
pub(super) fn info(name: &str, wanted: &[u16]) -> Vec<u8> {
    let mut bytes = u32::try_from(name.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend(name.as_bytes());
    bytes.extend(u16::try_from(wanted.len()).unwrap().to_be_bytes());
    bytes.extend(wanted.iter().flat_map(|kind| kind.to_be_bytes()));
    bytes
}

/// Data of LIST_META_CONTEXT and SET_META_CONTEXT.
pub(super) fn contexts(name: &str, queries: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let string = |text: &str, bytes: &mut Vec<u8>| {
        bytes.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
        bytes.extend(text.as_bytes());
    };
    string(name, &mut bytes);
    bytes.extend(u32::try_from(queries.len()).unwrap().to_be_bytes());
    for query in queries {
        string(query, &mut bytes);
    }
    bytes
}

/// The header of a request.
pub(super) fn request(flags: u16, kind: u16, cookie: u64, offset: u64, length: u32) -> Vec<u8> {
    let mut bytes = 0x2560_9513_u32.to_be_bytes().to_vec();
    bytes.extend(flags.to_be_bytes());
    bytes.extend(kind.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes
}

/// Serves a whole conversation from memory; gives what the server said.
pub(super) fn converse(export: &Export, said: &[u8]) -> Vec<u8> {
    let mut answers = Vec::new();
    // However it ends, what was answered counts.
    serve(export, &Gate::new(), said, &mut answers).ok();
    answers
}

fn number<const N: usize>(input: &mut impl Read) -> u64 {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes).unwrap();
    bytes
        .iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn bytes(input: &mut impl Read, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    input.read_exact(&mut bytes).unwrap();
    bytes
}

/// A reply to a request, put together.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) cookie: u64,
    /// 0 is success.
    pub(super) errno: u32,
    pub(super) message: String,
    /// Of a read.
    pub(super) data: Vec<u8>,
    /// Chunk types in order; empty for a simple reply.
    pub(super) chunks: Vec<u16>,
    /// Lengths and flags of a block status.
    pub(super) extents: Vec<(u32, u32)>,
}

/// Reads one reply. `read` is the offset and length, if a read was asked for.
pub(super) fn reply(input: &mut impl Read, read: Option<(u64, usize)>) -> Reply {
    let mut reply = Reply::default();
    let mut covered = 0;
    loop {
        let magic = number::<4>(input);
        if magic == 0x6744_6698 {
            assert!(reply.chunks.is_empty(), "a simple reply among chunks");
            reply.errno = u32::try_from(number::<4>(input)).unwrap();
            reply.cookie = number::<8>(input);
            if let Some((_, length)) = read.filter(|_| reply.errno == 0) {
                reply.data = bytes(input, length);
            }
            return reply;
        }
        assert_eq!(magic, 0x668e_33ef);
        let flags = number::<2>(input);
        let kind = u16::try_from(number::<2>(input)).unwrap();
        let cookie = number::<8>(input);
        assert!(reply.chunks.is_empty() || reply.cookie == cookie);
        reply.cookie = cookie;
        reply.chunks.push(kind);
        let length = usize::try_from(number::<4>(input)).unwrap();
        let mut payload = Cursor::new(bytes(input, length));
        match kind {
            0 => assert_eq!((length, flags), (0, 1)),
            1 | 2 => {
                let (from, wanted) = read.unwrap();
                reply.data.resize(wanted, 0xee);
                let at = usize::try_from(number::<8>(&mut payload) - from).unwrap();
                let data = if kind == 1 {
                    bytes(&mut payload, length - 8)
                } else {
                    vec![0; usize::try_from(number::<4>(&mut payload)).unwrap()]
                };
                assert!(!data.is_empty());
                reply.data[at..at + data.len()].copy_from_slice(&data);
                covered += data.len();
            }
            5 => {
                assert_eq!(number::<4>(&mut payload), 1, "the id of the context");
                for _ in 0..(length - 4) / 8 {
                    let (bytes, state) = (number::<4>(&mut payload), number::<4>(&mut payload));
                    let extent = (u32::try_from(bytes), u32::try_from(state));
                    reply.extents.push((extent.0.unwrap(), extent.1.unwrap()));
                }
            }
            0x8001 => {
                reply.errno = u32::try_from(number::<4>(&mut payload)).unwrap();
                let length = usize::try_from(number::<2>(&mut payload)).unwrap();
                reply.message = String::from_utf8(bytes(&mut payload, length)).unwrap();
            }
            other => panic!("chunk type {other:#x}"),
        }
        assert_eq!(payload.position(), length as u64, "bytes after the payload");
        if flags & 1 != 0 {
            if reply.errno == 0 && read.is_some() {
                assert_eq!(covered, reply.data.len(), "not all was sent");
            }
            return reply;
        }
    }
}

/// A connected client.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) stream: UnixStream,
    cookie: u64,
}

/// What GO told.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) size: u64,
    pub(super) flags: u16,
    /// Minimum, preferred, maximum.
    pub(super) blocks: [u32; 3],
}

impl Client {
    /// Greets.
    pub(super) fn greet(server: &Server, flags: u32) -> Self {
        let mut stream = UnixStream::connect(server.path()).unwrap();
        assert_eq!(bytes(&mut stream, 16), b"NBDMAGICIHAVEOPT");
        assert_eq!(number::<2>(&mut stream), 3, "fixed newstyle, no zeroes");
        stream.write_all(&flags.to_be_bytes()).unwrap();
        Self { stream, cookie: 0 }
    }

    /// Greets and goes into transmission, with structured replies and block status if wanted.
    pub(super) fn connect(server: &Server, structured: bool) -> Self {
        let mut client = Self::greet(server, MODERN);
        if structured {
            assert_eq!(client.option(8, &[]), [(1, vec![])]);
            let set = client.option(10, &contexts("data", &["base:allocation"]));
            assert_eq!(set.len(), 2);
        }
        client.go("data");
        client
    }

    /// GO with a request for the block sizes.
    pub(super) fn go(&mut self, name: &str) -> Told {
        let replies = self.option(7, &info(name, &[3]));
        told(&replies)
    }

    /// Sends an option and reads its replies up to the final one: type and data each.
    pub(super) fn option(&mut self, number: u32, data: &[u8]) -> Vec<(u32, Vec<u8>)> {
        self.stream.write_all(&option(number, data)).unwrap();
        self.option_replies(number)
    }

    /// Reads the replies to an option.
    pub(super) fn option_replies(&mut self, option: u32) -> Vec<(u32, Vec<u8>)> {
        let mut replies = Vec::new();
        loop {
            let input = &mut self.stream;
            assert_eq!(number::<8>(input), 0x3_e889_0455_65a9);
            assert_eq!(number::<4>(input), u64::from(option));
            let kind = u32::try_from(number::<4>(input)).unwrap();
            let length = usize::try_from(number::<4>(input)).unwrap();
            replies.push((kind, bytes(input, length)));
            if kind == 1 || kind >> 31 == 1 {
                return replies;
            }
        }
    }

    /// Sends a request and reads its reply.
    pub(super) fn ask(
        &mut self,
        flags: u16,
        kind: u16,
        offset: u64,
        length: u32,
        payload: &[u8],
    ) -> Reply {
        self.cookie += 0x0101_0101_0101;
        let mut bytes = request(flags, kind, self.cookie, offset, length);
        bytes.extend(payload);
        self.stream.write_all(&bytes).unwrap();
        let read = (kind == 0).then(|| (offset, usize::try_from(length).unwrap()));
        let reply = reply(&mut self.stream, read);
        assert_eq!(reply.cookie, self.cookie);
        reply
    }

    pub(super) fn read(&mut self, flags: u16, offset: u64, length: u32) -> Reply {
        self.ask(flags, 0, offset, length, &[])
    }

    pub(super) fn write(&mut self, flags: u16, offset: u64, data: &[u8]) -> Reply {
        self.ask(flags, 1, offset, u32::try_from(data.len()).unwrap(), data)
    }

    pub(super) fn flush(&mut self) -> Reply {
        self.ask(0, 3, 0, 0, &[])
    }

    /// Whether the server has ended the connection, which it must.
    pub(super) fn ended(mut self) -> bool {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => rest.is_empty(),
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

/// The facts in the replies to INFO or GO.
pub(super) fn told(replies: &[(u32, Vec<u8>)]) -> Told {
    assert_eq!(replies.last().unwrap(), &(1, vec![]));
    let find = |kind: u8| {
        let mut of = replies
            .iter()
            .filter(|(t, d)| *t == 3 && d[..2] == [0, kind]);
        of.next()
            .map(|(_, data)| Cursor::new(data[2..].to_vec()))
            .unwrap()
    };
    let (mut export, mut blocks) = (find(0), find(3));
    let mut block = || u32::try_from(number::<4>(&mut blocks)).unwrap();
    Told {
        blocks: [block(), block(), block()],
        size: number::<8>(&mut export),
        flags: u16::try_from(number::<2>(&mut export)).unwrap(),
    }
}
