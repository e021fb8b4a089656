//! Trying TCP connections from inside a guest: addresses in, one line about each out.
//!
//! Contract: a connection is closed as soon as it stands and nothing is sent over it. Addresses come
//! on standard input, so no text from outside becomes part of a command.

use std::fmt::Write as _;
use std::io::{self, ErrorKind};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// The longest list of addresses that is accepted, bytes.
pub const MAX_LIST: usize = 32 * 1024;
/// How long one connection is tried.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// What came of trying an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// As it was asked for.
    pub address: String,
    /// Whether a connection came about; `None` if it could not be tried.
    pub reached: Option<bool>,
    /// What was seen.
    pub said: String,
}

impl Tried {
    /// What an attempt says. A peer that refuses, resets or stays silent was not reached; an attempt
    /// that never left the guest was none.
    pub fn new(address: &str, outcome: io::Result<()>) -> Self {
        let (reached, said) = match outcome {
            Ok(()) => (Some(true), "connected".to_owned()),
            Err(error) => {
                let tried = matches!(
                    error.kind(),
                    ErrorKind::TimedOut
                        | ErrorKind::ConnectionRefused
                        | ErrorKind::ConnectionReset
                        | ErrorKind::ConnectionAborted
                        | ErrorKind::HostUnreachable
                        | ErrorKind::NetworkUnreachable
                        | ErrorKind::NetworkDown
                        | ErrorKind::PermissionDenied
                );
                (tried.then_some(false), error.to_string())
            }
        };
        Self {
            address: address.to_owned(),
            reached,
            said: said.replace(['\n', '\r'], " "),
        }
    }
}

/// The addresses of a list, one a line.
pub fn addresses(list: &str) -> Result<Vec<(&str, u16)>, String> {
    let lines = list.lines().filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let (host, port) = line
                .rsplit_once(':')
                .ok_or_else(|| format!("`{line}` is not host:port"))?;
            let port = port
                .parse()
                .map_err(|error| format!("`{line}` has no port: {error}"))?;
            let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
            Ok((bare.unwrap_or(host), port))
        })
        .collect()
}

/// Tries to connect, to each address behind the name in turn.
pub fn connect(host: &str, port: u16) -> io::Result<()> {
    let mut last = io::Error::other("the name stands for no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(_) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Tries every address of a list side by side and tells what came of each, in the order of the list.
pub fn report(
    list: &str,
    connect: impl Fn(&str, u16) -> io::Result<()> + Sync,
) -> Result<String, String> {
    let targets = addresses(list)?;
    let outcomes: Vec<io::Result<()>> = std::thread::scope(|scope| {
        let attempt = &connect;
        let attempts: Vec<_> = targets
            .iter()
            .map(|(host, port)| scope.spawn(move || attempt(host, *port)))
            .collect();
        let gone = || Err(io::Error::other("the attempt was lost"));
        attempts
            .into_iter()
            .map(|attempt| attempt.join().unwrap_or_else(|_| gone()))
            .collect()
    });
    let mut text = String::new();
    let lines = list.lines().filter(|line| !line.is_empty());
    for (address, outcome) in lines.zip(outcomes) {
        let Tried { reached, said, .. } = Tried::new(address, outcome);
        let word = match reached {
            Some(true) => "reached",
            Some(false) => "unreached",
            None => "untried",
        };
        writeln!(text, "{word} {address} {said}").map_err(|error| error.to_string())?;
    }
    Ok(text)
}

/// Reads a report; every address that was asked for must be in it, in order.
pub fn parse(report: &str, asked: &[String]) -> Result<Vec<Tried>, String> {
    let mut lines = report.lines();
    let tried = asked.iter().map(|address| {
        let line = lines.next().unwrap_or_default();
        let mut words = line.splitn(3, ' ');
        let reached = match words.next() {
            Some("reached") => Some(true),
            Some("unreached") => Some(false),
            Some("untried") => None,
            _ => return Err(format!("no word about {address}: {line:?}")),
        };
        if words.next() != Some(address) {
            return Err(format!("no word about {address}: {line:?}"));
        }
        Ok(Tried {
            address: address.clone(),
            reached,
            said: words.next().unwrap_or_default().to_owned(),
        })
    });
    tried.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn what_listens_is_reached_and_what_does_not_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let open = listener.local_addr().expect("its address").port();
        assert!(connect("127.0.0.1", open).is_ok());
        drop(listener);
        let refused = connect("127.0.0.1", open).expect_err("nobody listens");
        let tried = Tried::new("x:1", Err(refused));
        assert_eq!(tried.reached, Some(false), "{}", tried.said);
        let nowhere = connect("no.such.host.invalid", 1);
        assert_eq!(Tried::new("x:1", nowhere).reached, None);
    }

    #[test]
    fn a_report_is_read_as_it_was_written() {
        let asked = ["db.example:5432", "[2001:db8::1]:443", "gone:1"].map(str::to_owned);
        let text = report(&asked.join("\n"), |host, port| match (host, port) {
            ("db.example", 5432) => Ok(()),
            ("2001:db8::1", 443) => Err(ErrorKind::TimedOut.into()),
            _ => Err(io::Error::other("no\nsuch name")),
        });
        let tried = parse(&text.expect("a report"), &asked).expect("readable");
        let words: Vec<_> = tried.iter().map(|t| t.reached).collect();
        assert_eq!(words, [Some(true), Some(false), None]);
        assert_eq!(tried[2].said, "no such name");
        assert_eq!(tried[1].address, asked[1]);
    }

    #[test]
    fn a_report_that_lacks_an_address_is_refused() {
        let asked = ["a:1".to_owned(), "b:2".to_owned()];
        for text in [
            "",
            "reached a:1 x\n",
            "reached b:2 x\nreached a:1 x\n",
            "yes a:1\n",
        ] {
            assert!(parse(text, &asked).is_err(), "{text:?}");
        }
        assert!(addresses("a").is_err() && addresses("a:x").is_err());
    }
}
