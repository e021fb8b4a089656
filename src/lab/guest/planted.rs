//! The faults of one guest: what it asks the board at the point where each would strike.

use std::io;
use std::sync::Arc;

use crate::history::event::Site;
use crate::lab::faults::{Board, Fault, Moment};

/// Where a guest's faults are planted, and what of the guest they depend on.
#[derive(Debug, Clone)]
pub struct Planted {
    board: Arc<Board>,
    site: Site,
    boot: u64,
}

impl Default for Planted {
    fn default() -> Self {
        Self::new(Arc::default(), Site::Primary, 0)
    }
}

impl Planted {
    /// The faults of a guest on a site, in the `boot`-th boot of its domain from 0.
    pub const fn new(board: Arc<Board>, site: Site, boot: u64) -> Self {
        Self { board, site, boot }
    }

    fn on(&self, site: Site, fault: Fault) -> bool {
        self.site == site && self.board.armed(fault)
    }

    /// Whether the agent that the image carries does not run (fault `agent-missing`).
    pub(in crate::lab) fn agent_missing(&self) -> bool {
        self.board.armed(Fault::AgentMissing)
    }

    /// Whether the agent runs no hooks around a freeze (fault `agent-without-hooks`).
    pub(in crate::lab) fn agent_hookless(&self) -> bool {
        self.board.armed(Fault::AgentHookless)
    }

    /// By how many nanoseconds the real-time clock is off: ahead on the primary, as much behind on
    /// the secondary (fault `guest-clock`).
    pub(in crate::lab) fn clock_off(&self) -> i64 {
        let seconds = self.board.param(Fault::GuestClock, "seconds").unwrap_or(0);
        let off = seconds.saturating_mul(1_000_000_000);
        match self.site {
            Site::Primary => off,
            Site::Secondary => -off,
        }
    }

    /// Whether the file systems are to be frozen now, by nobody who would thaw them (fault
    /// `guest-frozen`).
    pub(in crate::lab) fn freezes(&self) -> bool {
        self.on(Site::Primary, Fault::GuestFrozen)
    }

    /// Whether a freeze keeps writers out and leaves the journal as it is (fault
    /// `unclean-claimed-consistent`).
    pub(super) fn freezes_unclean(&self) -> bool {
        self.on(Site::Primary, Fault::FreezeUnclean)
    }

    /// Whether `fsfreeze` in the guest ends with 0 and does nothing (fault `fsfreeze-does-nothing`).
    pub(super) fn fsfreeze_idles(&self) -> bool {
        self.on(Site::Primary, Fault::FsfreezeIdles)
    }

    /// Whether a thaw inside the guest is answered and lost on its way (fault `thaw-in-guest-lost`).
    pub(super) fn loses_thaw(&self) -> bool {
        self.on(Site::Primary, Fault::GuestThawLost)
    }

    /// Whether what holds a freeze inside the guest is killed together with its timer (fault
    /// `freeze-holder-killed`).
    pub(super) fn kills_holder(&self) -> bool {
        self.on(Site::Primary, Fault::HolderKilled)
    }

    /// A file system was just frozen from inside.
    pub(super) fn froze(&self) {
        self.board.moment(Moment::Freeze);
    }

    /// A file system was just thawed from inside.
    pub(super) fn thawed(&self) {
        self.board.moment(Moment::Thaw);
    }

    /// Whether the guest reboots by itself (fault `guest-reboots`): in its first boot only.
    pub(in crate::lab) fn reboots(&self) -> bool {
        self.boot == 0 && self.on(Site::Primary, Fault::GuestReboots)
    }

    /// Whether file systems that are made keep a journal of data (fault `journal-replay`).
    pub(super) fn journals(&self) -> bool {
        self.board.armed(Fault::JournalReplay)
    }

    /// Whether cloud-init takes the guest for a new instance although its seed is the old one
    /// (fault `new-identity-on-target`).
    pub(in crate::lab) fn new_instance(&self) -> bool {
        self.on(Site::Secondary, Fault::NewIdentity)
    }

    /// What comes of connecting to `host:port` from inside. A lab guest stands in a bubble: nothing
    /// outside answers, and nothing but SSH listens on itself. With the fault
    /// `guest-reaches-production` a guest on the secondary reaches everything.
    ///
    /// # Errors
    /// `TimedOut` for what is outside, `ConnectionRefused` for a closed port of its own.
    pub(super) fn connect(&self, host: &str, port: u16) -> io::Result<()> {
        let own = host == "localhost"
            || host
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback());
        if self.on(Site::Secondary, Fault::ReachesProduction) || (own && port == 22) {
            return Ok(());
        }
        Err(if own {
            io::ErrorKind::ConnectionRefused.into()
        } else {
            io::ErrorKind::TimedOut.into()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::faults::parse;

    fn planted(site: Site, faults: &[&str]) -> Planted {
        let board = Board::default();
        for text in faults {
            board.put(parse(text).unwrap());
        }
        Planted::new(Arc::new(board), site, 0)
    }

    #[test]
    fn a_bubble_lets_nothing_out_unless_it_leaks() {
        let kind = |planted: &Planted, host: &str, port| {
            let done = planted.connect(host, port);
            done.err().map(|error| error.kind())
        };
        let tight = planted(Site::Secondary, &[]);
        let outside = ("db.production.example", 5432);
        assert_eq!(
            kind(&tight, outside.0, outside.1),
            Some(io::ErrorKind::TimedOut)
        );
        assert_eq!(
            kind(&tight, "127.0.0.1", 80),
            Some(io::ErrorKind::ConnectionRefused)
        );
        assert_eq!(kind(&tight, "::1", 22), None);
        let leaks = &["guest-reaches-production"];
        assert_eq!(
            kind(&planted(Site::Secondary, leaks), outside.0, outside.1),
            None
        );
        let home = planted(Site::Primary, leaks);
        assert!(kind(&home, outside.0, outside.1).is_some());
    }

    #[test]
    fn the_clock_is_ahead_on_one_side_and_behind_on_the_other() {
        let second = 1_000_000_000;
        let at = |site, text| planted(site, &[text]).clock_off();
        assert_eq!(at(Site::Primary, "guest-clock"), 300 * second);
        assert_eq!(at(Site::Secondary, "guest-clock"), -300 * second);
        assert_eq!(at(Site::Primary, "guest-clock:seconds=-7"), -7 * second);
        assert_eq!(planted(Site::Primary, &[]).clock_off(), 0);
    }

    #[test]
    fn what_is_aimed_at_the_load_waits_and_strikes_the_primary_alone() {
        let faults = &["guest-reboots", "guest-frozen"];
        let (east, west) = (
            planted(Site::Primary, faults),
            planted(Site::Secondary, faults),
        );
        assert!(!east.reboots() && !east.freezes());
        for side in [&east, &west] {
            side.board.moment(Moment::Load);
        }
        assert!(east.reboots() && east.freezes());
        assert!(!west.reboots() && !west.freezes());
        let again = Planted::new(Arc::clone(&east.board), Site::Primary, 1);
        assert!(!again.reboots());
    }
}
