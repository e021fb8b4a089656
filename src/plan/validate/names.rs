//! Names that a plan refers to: scenarios, embedded templates and Recipes, files, addresses.

use std::net::IpAddr;
use std::path::Path;

use globset::Glob;

use super::Judge;
use crate::plan::model::JumpHost;
use crate::plan::problem::suggest;

/// Whether a template or Recipe reference is a path rather than an embedded name.
pub(crate) fn is_path(reference: &str) -> bool {
    reference.contains(['/', '\\'])
        || [".yaml", ".yml", ".json"]
            .iter()
            .any(|end| reference.ends_with(end))
}

/// Whether `text` is an address with a prefix length.
pub(super) fn is_cidr(text: &str) -> bool {
    text.split_once('/').is_some_and(|(address, length)| {
        let most = match address.parse() {
            Ok(IpAddr::V4(_)) => 32,
            Ok(IpAddr::V6(_)) => 128,
            Err(_) => return false,
        };
        length.parse::<u8>().is_ok_and(|length| length <= most)
    })
}

/// Whether a text is `host:port`; an IPv6 address stands in brackets.
pub(super) fn is_host_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let name = |host: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        !host.is_empty() && host.len() <= 253 && host.chars().all(plain)
    };
    let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let host = bracketed.map_or_else(|| name(host), |v6| v6.parse::<std::net::Ipv6Addr>().is_ok());
    let digits = port.bytes().all(|b| b.is_ascii_digit());
    host && digits && port.parse::<u16>().is_ok_and(|port| port != 0)
}

/// Reads `user@host[:port]`; an IPv6 address with a port stands in brackets.
pub(super) fn jump_host(text: &str) -> Option<JumpHost> {
    let (user, rest) = text.split_once('@')?;
    let (host, port) = match rest
        .strip_prefix('[')
        .and_then(|inner| inner.split_once(']'))
    {
        Some((host, "")) => (host, 22),
        Some((host, tail)) => (host, tail.strip_prefix(':')?.parse().ok()?),
        None if rest.matches(':').count() > 1 => (rest, 22),
        None => match rest.split_once(':') {
            Some((host, port)) => (host, port.parse().ok()?),
            None => (rest, 22),
        },
    };
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('-')
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "._-:%".contains(c))
    };
    (plain(user) && plain(host) && port != 0).then(|| JumpHost {
        user: user.to_owned(),
        host: host.to_owned(),
        port,
    })
}

impl Judge<'_, '_> {
    /// Selects scenario ids, each once, in the order of the patterns.
    pub(super) fn scenarios(&mut self, patterns: &[String]) -> Vec<String> {
        if patterns.is_empty() {
            let expected = "at least one id or glob such as `failover.*`";
            self.bad(
                "scenarios",
                "there are no scenarios",
                expected,
                "see `virtproof list`",
            );
        }
        let mut selected: Vec<String> = Vec::new();
        for (index, pattern) in patterns.iter().enumerate() {
            let path = format!("scenarios.{index}");
            if patterns[..index].contains(pattern) {
                let what = format!("`{pattern}` stands twice");
                self.bad(&path, what, "each pattern once", "remove one of the two");
                continue;
            }
            let glob = match Glob::new(pattern) {
                Ok(glob) => glob.compile_matcher(),
                Err(error) => {
                    let what = format!("`{pattern}` is not a glob: {}", error.kind());
                    self.bad(
                        &path,
                        what,
                        "an id or a glob such as `boot.*`",
                        "correct the pattern",
                    );
                    continue;
                }
            };
            let Some(known) = self.known.scenarios else {
                continue;
            };
            let matches: Vec<&str> = known
                .iter()
                .copied()
                .filter(|id| glob.is_match(id))
                .collect();
            if matches.is_empty() {
                self.bad(
                    &path,
                    format!("`{pattern}` matches no scenario"),
                    "an id or glob from the catalogue",
                    suggest(pattern, known.iter().copied(), "see `virtproof list`"),
                );
            }
            for id in matches {
                if !selected.iter().any(|have| have == id) {
                    selected.push(id.to_owned());
                }
            }
        }
        selected
    }

    /// A reference to something embedded under a name, or to a file.
    pub(super) fn reference(
        &mut self,
        path: &str,
        what: &str,
        reference: &str,
        known: Option<&[&str]>,
    ) {
        if is_path(reference) {
            self.file(path, Path::new(reference));
        } else if let Some(known) = known
            && !known.contains(&reference)
        {
            self.bad(
                path,
                format!("there is no embedded {what} `{reference}`"),
                format!(
                    "one of {}, or a path such as `./{reference}.yaml`",
                    known.join(", ")
                ),
                suggest(
                    reference,
                    known.iter().copied(),
                    "take one of these, or give a path",
                ),
            );
        }
    }

    /// A file that must exist, if files are checked at all.
    pub(super) fn file(&mut self, path: &str, file: &Path) {
        let found = self.dir.join(file);
        if self.known.files && !found.is_file() {
            self.bad(
                path,
                format!("there is no file `{}`", file.display()),
                format!(
                    "a path relative to the plan; this one is {}",
                    found.display()
                ),
                "correct the path",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_port_are_both_needed() {
        for good in [
            "db.example.com:5432",
            "192.0.2.1:1",
            "[2001:db8::1]:65535",
            "db:443",
        ] {
            assert!(is_host_port(good), "{good}");
        }
        for bad in [
            "",
            "db",
            "db:",
            ":1",
            "db:0",
            "db:65536",
            "db:+1",
            "2001:db8::1:443",
            "[db]:443",
            "[2001:db8::1]",
            "a b:1",
            "a\nb:1",
            "https://db:1",
        ] {
            assert!(!is_host_port(bad), "{bad:?}");
        }
    }

    #[test]
    fn jump_hosts() {
        let read = |text| jump_host(text).map(|jump| (jump.user, jump.host, jump.port));
        let host = |host: &str, port| Some(("me".to_owned(), host.to_owned(), port));
        assert_eq!(read("me@bastion"), host("bastion", 22));
        assert_eq!(read("me@bastion:2222"), host("bastion", 2222));
        assert_eq!(read("me@[2001:db8::1]:2222"), host("2001:db8::1", 2222));
        assert_eq!(read("me@2001:db8::1"), host("2001:db8::1", 22));
        for text in [
            "bastion",
            "@h",
            "me@",
            "me@h:0",
            "me@h:x",
            "me@-oProxyCommand=x",
            "m e@h",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn cidrs() {
        assert!(is_cidr("192.0.2.0/24") && is_cidr("2001:db8::/64"));
        for text in ["192.0.2.1", "192.0.2.1/33", "x/8", "/8", "192.0.2.1/"] {
            assert!(!is_cidr(text), "{text}");
        }
    }
}
