//! What a guest with systemd has beyond a plain one: the manager, the journal, the units of an orderly
//! start and stop, and units of our own for what BusyBox init starts elsewhere. Devices are named by
//! the kernel as in a plain guest, so there is no udev, and nobody sits at a console.

use super::{Own, Pick, own, pick};

pub(super) const PICKS: &[Pick] = &[pick(
    "systemd",
    &[
        "usr/lib/systemd/systemd",
        // Split off in systemd 255.
        "?usr/lib/systemd/systemd-executor",
        "usr/lib/systemd/systemd-journald",
        "usr/lib/systemd/systemd-shutdown",
        "usr/bin/systemctl",
        "usr/bin/journalctl",
        "usr/lib/systemd/system/basic.target",
        "usr/lib/systemd/system/ctrl-alt-del.target",
        "usr/lib/systemd/system/emergency.target",
        "usr/lib/systemd/system/final.target",
        "usr/lib/systemd/system/halt.target",
        "usr/lib/systemd/system/local-fs-pre.target",
        "usr/lib/systemd/system/local-fs.target",
        "usr/lib/systemd/system/multi-user.target",
        "usr/lib/systemd/system/network.target",
        "usr/lib/systemd/system/paths.target",
        "usr/lib/systemd/system/poweroff.target",
        "usr/lib/systemd/system/reboot.target",
        "usr/lib/systemd/system/shutdown.target",
        "usr/lib/systemd/system/slices.target",
        "usr/lib/systemd/system/sockets.target",
        "usr/lib/systemd/system/swap.target",
        "usr/lib/systemd/system/sysinit.target",
        "usr/lib/systemd/system/timers.target",
        "usr/lib/systemd/system/umount.target",
        "usr/lib/systemd/system/systemd-halt.service",
        "usr/lib/systemd/system/systemd-journald-dev-log.socket",
        "usr/lib/systemd/system/systemd-journald.service",
        "usr/lib/systemd/system/systemd-journald.socket",
        "usr/lib/systemd/system/systemd-poweroff.service",
        "usr/lib/systemd/system/systemd-reboot.service",
        "usr/lib/systemd/system/sockets.target.wants/systemd-journald-dev-log.socket",
        "usr/lib/systemd/system/sockets.target.wants/systemd-journald.socket",
        "usr/lib/systemd/system/sysinit.target.wants/systemd-journald.service",
    ],
)];

pub(super) const OWN: &[Own] = &[
    own(
        "usr/lib/systemd/system/virtproof.service",
        0o644,
        include_str!("../guest/units/virtproof.service"),
    ),
    own(
        "usr/lib/systemd/system/ssh.service",
        0o644,
        include_str!("../guest/units/ssh.service"),
    ),
    own(
        "usr/lib/systemd/system/qemu-guest-agent.service",
        0o644,
        include_str!("../guest/units/qemu-guest-agent.service"),
    ),
    own(
        "usr/lib/systemd/system/virtproof-button.service",
        0o644,
        include_str!("../guest/units/virtproof-button.service"),
    ),
    own(
        "usr/lib/systemd/system/virtproof-ready.service",
        0o644,
        include_str!("../guest/units/virtproof-ready.service"),
    ),
    own(
        "usr/lib/virtproof/leave",
        0o755,
        include_str!("../guest/leave.sh"),
    ),
];

/// Which units are started, as `systemctl enable` says it.
pub(super) const LINKS: &[(&str, &str)] = &[
    (
        "etc/systemd/system/default.target",
        "/usr/lib/systemd/system/multi-user.target",
    ),
    (
        "etc/systemd/system/multi-user.target.wants/virtproof.service",
        "/usr/lib/systemd/system/virtproof.service",
    ),
    (
        "etc/systemd/system/multi-user.target.wants/ssh.service",
        "/usr/lib/systemd/system/ssh.service",
    ),
    (
        "etc/systemd/system/multi-user.target.wants/qemu-guest-agent.service",
        "/usr/lib/systemd/system/qemu-guest-agent.service",
    ),
    (
        "etc/systemd/system/multi-user.target.wants/virtproof-button.service",
        "/usr/lib/systemd/system/virtproof-button.service",
    ),
    (
        "etc/systemd/system/multi-user.target.wants/virtproof-ready.service",
        "/usr/lib/systemd/system/virtproof-ready.service",
    ),
];
