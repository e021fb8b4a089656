//! The hash chain over `events.jsonl`: each line ends in the hash of the line before and its own.
//!
//! `{"v":1,…,"prev":"<64 hex>","hash":"<64 hex>"}`, where `hash` is the BLAKE3 of every byte of the
//! line before `,"hash":`. So a changed byte anywhere, white space included, and a missing or moved
//! line are both seen, and the last hash is a fingerprint of the whole history.

/// A link of the chain.
pub type Link = [u8; 32];

/// What the first line names as its predecessor.
pub const GENESIS: Link = [0; 32];

const PREV: &str = ",\"prev\":\"";
const HASH: &str = ",\"hash\":\"";
const END: &str = "\"}";

/// Seals one JSON object (without white space around it) into a line without its newline.
/// `None` if `object` is not an object with at least one member.
pub fn seal(object: &str, prev: &Link) -> Option<(String, Link)> {
    let open = object.strip_suffix('}')?;
    if !open.starts_with('{') || open.len() < 2 {
        return None;
    }
    let body = format!("{open}{PREV}{}\"", hex(prev));
    let hash = *blake3::hash(body.as_bytes()).as_bytes();
    Some((format!("{body}{HASH}{}{END}", hex(&hash)), hash))
}

/// Verifies a line (without its newline) against the link before it and gives its own link, or says
/// what is wrong with it.
pub fn verify(line: &str, prev: &Link) -> Result<Link, &'static str> {
    let unsealed = "it does not end in a hash; it was not written by virtproof or was edited";
    let body = line
        .len()
        .checked_sub(HASH.len() + 64 + END.len())
        .and_then(|at| line.get(..at).zip(line.get(at..)));
    let (body, seal) = body.ok_or(unsealed)?;
    let said = seal
        .strip_prefix(HASH)
        .and_then(|rest| rest.strip_suffix(END))
        .ok_or(unsealed)?;
    let hash = *blake3::hash(body.as_bytes()).as_bytes();
    if hex(&hash) != said {
        return Err("its hash does not match its text; the line was edited");
    }
    if !body.ends_with(&format!("{PREV}{}\"", hex(prev))) {
        return Err("it does not continue the line before; a line is missing, added or moved");
    }
    Ok(hash)
}

/// Lower-case hex of a link.
pub fn hex(link: &Link) -> String {
    blake3::Hash::from(*link).to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_changed_byte_is_seen() {
        let (line, hash) = seal("{\"a\":1}", &GENESIS).expect("an object");
        assert_eq!(verify(&line, &GENESIS), Ok(hash));
        for at in 0..line.len() {
            let mut bytes = line.clone().into_bytes();
            bytes[at] ^= 1;
            let edited = String::from_utf8(bytes).expect("still ASCII");
            assert!(verify(&edited, &GENESIS).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_line_out_of_its_place_is_seen() {
        let (_, first) = seal("{\"a\":1}", &GENESIS).expect("an object");
        let (second, _) = seal("{\"a\":2}", &first).expect("an object");
        assert!(verify(&second, &first).is_ok());
        assert!(verify(&second, &GENESIS).is_err());
        assert!(verify("", &GENESIS).is_err());
        assert!(seal("[]", &GENESIS).is_none());
        assert!(seal("{}", &GENESIS).is_none());
    }
}
