//! The commands by which the host reaches the probe in a guest, as built there and as understood by
//! the simulated guests.
//!
//! Contract: fixed words and hex only. No text from outside ever becomes part of a command.

use super::config::hex;

/// Says what the guest runs; the answer is for example `Linux x86_64`.
pub const UNAME: &str = "uname -sm";

/// What `probe info` answers as its format, and what this host speaks.
pub const FORMAT: u32 = 2;

const ROOT: &str = "/run/virtproof";
const SUDO: &str = "sudo -n ";

/// Where a run's probe lies in a guest, and whether it takes `sudo` to use it.
///
/// `/run` is a tmpfs on every systemd distribution, so the probe keeps working while the root file
/// system is frozen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    run: [u8; 16],
    root: bool,
}

/// A command understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// [`UNAME`].
    Uname,
    /// [`Remote::own_tmpfs`].
    OwnTmpfs,
    /// [`Remote::upload`]; the binary follows on standard input.
    Upload,
    /// [`Remote::info`].
    Info,
    /// [`Remote::start`]; the config follows on standard input.
    Start {
        /// The incarnation that names the socket.
        incarnation: u64,
    },
    /// [`Remote::attach`].
    Attach {
        /// The incarnation that names the socket.
        incarnation: u64,
    },
    /// [`Remote::scan`]; the config follows on standard input.
    Scan,
    /// [`Remote::look`]; the config follows on standard input.
    Look,
    /// [`Remote::check`]; the config follows on standard input.
    Check,
    /// [`Remote::freeze`]; the config follows on standard input.
    Freeze {
        /// The timer, in milliseconds.
        timer_ms: u64,
    },
    /// [`Remote::frozen`]; the config follows on standard input.
    Frozen,
    /// [`Remote::thaw`]; the config follows on standard input.
    Thaw,
    /// [`Remote::reach`]; the addresses follow on standard input.
    Reach,
    /// [`Remote::echo`]; numbers follow on standard input.
    Echo,
}

impl Remote {
    /// The probe of run `run`; `root` if the SSH user is root and needs no sudo.
    pub const fn new(run: [u8; 16], root: bool) -> Self {
        Self { run, root }
    }

    /// The directory of the run, mode 0700.
    pub fn dir(&self) -> String {
        format!("{ROOT}/{}", hex(&self.run))
    }

    /// The binary.
    pub fn probe(&self) -> String {
        format!("{}/probe", self.dir())
    }

    /// The socket of one incarnation's daemon. It fits `sun_path` (108 bytes).
    pub fn socket(&self, incarnation: u64) -> String {
        format!("{}/{incarnation:016x}.sock", self.dir())
    }

    /// Takes the binary on standard input. It appears under its name only when it is complete.
    pub fn upload(&self) -> String {
        let (dir, probe) = (self.dir(), self.probe());
        let script = format!(
            "mkdir -p -m 0700 {dir} && cat > {probe}.new && chmod 0700 {probe}.new && mv {probe}.new {probe}"
        );
        if self.root {
            script
        } else {
            format!("{SUDO}sh -c '{script}'")
        }
    }

    /// Mounts a tmpfs of its own for all runs. Debian and Ubuntu mount `/run` noexec; there the
    /// shell answers 126 to [`Self::info`] after a plain upload, and this, then a new upload, is
    /// the way out.
    pub fn own_tmpfs(&self) -> String {
        let script = format!(
            "mkdir -p -m 0755 {ROOT} && mount -t tmpfs -o mode=0755,nosuid,nodev,size=64m virtproof {ROOT}"
        );
        if self.root {
            script
        } else {
            format!("{SUDO}sh -c '{script}'")
        }
    }

    /// Describes guest and disks, one `key value` a line.
    pub fn info(&self) -> String {
        self.command("info")
    }

    /// Starts the daemon: config on standard input, `ready` on standard output.
    pub fn start(&self, incarnation: u64) -> String {
        self.command(&format!("start {}", self.socket(incarnation)))
    }

    /// Bridges the channel to the daemon.
    pub fn attach(&self, incarnation: u64) -> String {
        self.command(&format!("attach {}", self.socket(incarnation)))
    }

    /// Reads all volumes back: config on standard input, frames on standard output.
    pub fn scan(&self) -> String {
        self.command("scan")
    }

    /// Says what the file volumes show past any mount: config on standard input, a line each on
    /// standard output.
    pub fn look(&self) -> String {
        self.command("look")
    }

    /// Mounts and unmounts the file systems and says what their checkers find: config on standard
    /// input, a line each on standard output.
    pub fn check(&self) -> String {
        self.command("check")
    }

    /// Tries to connect to addresses: one a line on standard input, what came of each on standard
    /// output.
    pub fn reach(&self) -> String {
        self.command("reach")
    }

    /// Writes what comes on standard input back to standard output, at once.
    pub fn echo(&self) -> String {
        self.command("echo")
    }

    /// The socket of what holds the run's freeze.
    pub fn freezer(&self) -> String {
        format!("{}/freeze.sock", self.dir())
    }

    /// Freezes the file systems of the file volumes and leaves behind what thaws them when the timer
    /// runs out: config on standard input, a line each on standard output.
    pub fn freeze(&self, timer_ms: u64) -> String {
        self.command(&format!("freeze {} {timer_ms}", self.freezer()))
    }

    /// Says whether they are frozen: config on standard input, a line each on standard output.
    pub fn frozen(&self) -> String {
        self.command(&format!("frozen {}", self.freezer()))
    }

    /// Thaws them: config on standard input, a line each on standard output.
    pub fn thaw(&self) -> String {
        self.command(&format!("thaw {}", self.freezer()))
    }

    fn command(&self, words: &str) -> String {
        let sudo = if self.root { "" } else { SUDO };
        format!("{sudo}{} {words}", self.probe())
    }

    /// Understands a command of any run: what the simulated guests use. `None` for anything that
    /// this module does not build.
    pub fn parse(command: &str) -> Option<(Option<Self>, Request)> {
        if command == UNAME {
            return Some((None, Request::Uname));
        }
        let root = !command.starts_with(SUDO);
        if Self::new([0; 16], root).own_tmpfs() == command {
            return Some((None, Request::OwnTmpfs));
        }
        let at = command.find(ROOT)? + ROOT.len() + 1;
        let id = command.get(at..at + 32)?;
        let remote = Self::new(u128::from_str_radix(id, 16).ok()?.to_be_bytes(), root);
        let socket = |command: &str| {
            let hex = command.strip_suffix(".sock")?.rsplit('/').next()?;
            u64::from_str_radix(hex, 16).ok()
        };
        let mut candidates = vec![
            Request::Upload,
            Request::Info,
            Request::Scan,
            Request::Look,
            Request::Check,
            Request::Frozen,
            Request::Thaw,
            Request::Reach,
            Request::Echo,
        ];
        let timer = command.rsplit(' ').next().map(str::parse);
        if let Some(Ok(timer_ms)) = timer {
            candidates.push(Request::Freeze { timer_ms });
        }
        if let Some(incarnation) = socket(command) {
            candidates.push(Request::Start { incarnation });
            candidates.push(Request::Attach { incarnation });
        }
        // Rebuilding and comparing leaves no second grammar that could drift from the first.
        let request = candidates
            .into_iter()
            .find(|request| remote.build(request) == command)?;
        Some((Some(remote), request))
    }

    fn build(&self, request: &Request) -> String {
        match request {
            Request::Uname => UNAME.to_owned(),
            Request::OwnTmpfs => self.own_tmpfs(),
            Request::Upload => self.upload(),
            Request::Info => self.info(),
            Request::Start { incarnation } => self.start(*incarnation),
            Request::Attach { incarnation } => self.attach(*incarnation),
            Request::Scan => self.scan(),
            Request::Look => self.look(),
            Request::Check => self.check(),
            Request::Freeze { timer_ms } => self.freeze(*timer_ms),
            Request::Frozen => self.frozen(),
            Request::Thaw => self.thaw(),
            Request::Reach => self.reach(),
            Request::Echo => self.echo(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn commands_read_as_documented() {
        let remote = Remote::new([0xab; 16], false);
        let dir = format!("/run/virtproof/{}", "ab".repeat(16));
        assert_eq!(remote.info(), format!("sudo -n {dir}/probe info"));
        assert_eq!(
            remote.start(0x10),
            format!("sudo -n {dir}/probe start {dir}/0000000000000010.sock")
        );
        assert_eq!(
            Remote::new([0xab; 16], true).upload(),
            format!(
                "mkdir -p -m 0700 {dir} && cat > {dir}/probe.new && chmod 0700 {dir}/probe.new && mv {dir}/probe.new {dir}/probe"
            )
        );
        assert!(remote.socket(u64::MAX).len() < 108);
    }

    #[test]
    fn other_commands_are_not_understood() {
        let remote = Remote::new([1; 16], true);
        for command in [
            "",
            "sh",
            "/run/virtproof",
            "/run/virtproof/é",
            &format!("{} && reboot", remote.info()),
            &remote.start(1).replace(".sock", ".sock.sock"),
        ] {
            assert_eq!(Remote::parse(command), None, "{command}");
        }
    }

    proptest! {
        #[test]
        fn every_command_is_understood(run: [u8; 16], root: bool, incarnation: u64) {
            let remote = Remote::new(run, root);
            for request in [
                Request::Upload,
                Request::Info,
                Request::Scan,
                Request::Look,
                Request::Check,
                Request::Frozen,
                Request::Thaw,
                Request::Reach,
                Request::Echo,
                Request::Freeze { timer_ms: incarnation },
                Request::Start { incarnation },
                Request::Attach { incarnation },
            ] {
                let understood = Remote::parse(&remote.build(&request));
                prop_assert_eq!(understood, Some((Some(remote.clone()), request)));
            }
            prop_assert_eq!(Remote::parse(UNAME), Some((None, Request::Uname)));
            prop_assert_eq!(Remote::parse(&remote.own_tmpfs()), Some((None, Request::OwnTmpfs)));
        }

        #[test]
        fn no_command_panics(command in ".{0,40}(/run/virtproof.{0,60})?") {
            prop_assert!(Remote::parse(&command).is_none());
        }
    }
}
