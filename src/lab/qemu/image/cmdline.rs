//! What the host tells the guest's kernel and init, and what the guest says on its console.

use super::error::Unfit;

/// What the guest prints on `ttyS0`, one a line (lines end in CR LF there).
pub mod marker {
    /// The kernel runs and init has begun.
    pub const BOOTING: &str = "virtproof-guest: booting";
    /// Followed by where the root file system is: [`MEMORY`] or a disk's serial.
    pub const ROOT: &str = "virtproof-guest: root ";
    /// The root of a guest that forgets everything at its next boot.
    pub const MEMORY: &str = "memory";
    /// The root disk had no file system yet, was told to get one and has it now.
    pub const INSTALLED: &str = "virtproof-guest: installed";
    /// Followed by the name of the first process, at the end of a boot.
    pub const INIT: &str = "virtproof-guest: init ";
    /// sshd listens, unless it is off; all that was asked for has been started.
    pub const READY: &str = "virtproof-guest: ready";
    /// A clean shutdown has begun.
    pub const GOING_DOWN: &str = "virtproof-guest: going down";
    /// There is no such disk, or nothing installed on it. The guest stays like this.
    pub const NO_BOOT: &str = "virtproof-guest: no bootable device";
    /// `e2fsck -p` changed more of the root file system than its journal, and all is well now.
    pub const ROOT_REPAIRED: &str = "virtproof-guest: root file system repaired";
    /// `e2fsck -p` left errors in the root file system, or it cannot be mounted. The guest stays like
    /// this.
    pub const ROOT_DAMAGED: &str = "virtproof-guest: root file system damaged";
}

/// Where the guest's root file system is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Root<'a> {
    /// In memory, made anew at every boot, as a containerDisk's changes are.
    #[default]
    Memory,
    /// On a disk.
    Disk {
        /// Its serial, as given to QEMU.
        serial: &'a str,
        /// Whether a disk on which nothing is installed gets the system (and loses what it held).
        install: bool,
        /// What the system that is installed starts with.
        init: Init,
    },
}

/// What runs first in a system that is installed on a disk. In memory it is always BusyBox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Init {
    /// BusyBox init: up in seconds where instructions are emulated.
    #[default]
    Busybox,
    /// systemd, which needs its layer in the image.
    Systemd,
}

/// How a guest boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Boot<'a> {
    /// The root file system.
    pub root: Root<'a>,
    /// Whether the QEMU guest agent runs.
    pub agent: bool,
    /// Whether it runs hooks around a freeze.
    pub hooks: bool,
    /// Whether sshd runs.
    pub sshd: bool,
}

impl Default for Boot<'_> {
    /// Everything runs, from memory.
    fn default() -> Self {
        Self {
            root: Root::Memory,
            agent: true,
            hooks: true,
            sshd: true,
        }
    }
}

/// A virtio disk shows this much of its serial (`VIRTIO_BLK_ID_BYTES`).
const SERIAL: usize = 20;

/// One line for each reason.
const KERNEL: [&str; 7] = [
    // The console, which shows errors only; everything is in `dmesg`.
    "console=ttyS0 quiet loglevel=3",
    // A kernel that panics ends QEMU (run with -no-reboot) instead of standing still.
    "panic=-1",
    // A tmpfs root may take half of memory only, and the unpacked image is more than that.
    "rootfstype=ramfs",
    // What costs time under TCG and protects nothing there.
    "mitigations=off nokaslr cryptomgr.notests=1 audit=0 apparmor=0",
    // Calibration against emulated timers fails on a loaded host.
    "tsc=reliable no_timer_check",
    // For the same reason time is read from the emulated HPET, whose rate is known: of guests that booted
    // side by side on busy cores some took the TSC for four times as slow as it is, and their clocks ran
    // four times too fast (seen under TCG).
    "clocksource=hpet",
    // sshd must not wait for entropy.
    "random.trust_cpu=on",
];

/// The kernel's command line.
pub fn cmdline(boot: &Boot<'_>) -> Result<String, Unfit> {
    let mut words: Vec<String> = KERNEL.map(str::to_owned).into();
    if let Root::Disk {
        serial,
        install,
        init,
    } = boot.root
    {
        if serial.is_empty() || !serial.bytes().all(|b| b.is_ascii_graphic() && b != b'"') {
            let rule = "letters, digits and signs without blanks and quotes";
            return Err(Unfit::new("root disk's serial", serial, rule));
        }
        // All ASCII, so any place may be cut.
        let shown = &serial[..serial.len().min(SERIAL)];
        words.push(format!("virtproof.root={shown}"));
        if install {
            words.push("virtproof.install".into());
        }
        if init == Init::Systemd {
            // Its progress would come between the words to the host.
            words.push("virtproof.init=systemd systemd.show_status=no".into());
        }
    }
    for (runs, name) in [
        (boot.agent, "agent"),
        (boot.hooks, "hooks"),
        (boot.sshd, "sshd"),
    ] {
        if !runs {
            words.push(format!("virtproof.{name}=off"));
        }
    }
    Ok(words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the host says beyond what every guest is told.
    fn told(boot: &Boot<'_>) -> String {
        let line = cmdline(boot).unwrap();
        assert!(line.starts_with("console=ttyS0 "), "{line}");
        let words = line
            .split(' ')
            .filter(|word| word.starts_with("virtproof."));
        words.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_line_says_what_was_asked_for() {
        assert_eq!(told(&Boot::default()), "");
        let root = Root::Disk {
            serial: "root-disk-of-a-long-name",
            install: true,
            init: Init::Systemd,
        };
        let boot = Boot {
            root,
            agent: false,
            hooks: false,
            sshd: false,
        };
        assert_eq!(
            told(&boot),
            "virtproof.root=root-disk-of-a-long- virtproof.install virtproof.init=systemd \
             virtproof.agent=off virtproof.hooks=off virtproof.sshd=off"
        );
    }

    #[test]
    fn a_serial_that_would_be_two_words_is_refused() {
        for serial in ["", "a b", "a\"b", "é"] {
            let root = Root::Disk {
                serial,
                install: false,
                init: Init::Busybox,
            };
            let boot = Boot {
                root,
                ..Boot::default()
            };
            assert!(cmdline(&boot).is_err(), "{serial}");
        }
    }
}
