//! What is in the guest: which files of which packages, which modules, and the files of our own.

use super::Layer;

mod systemd;

/// Where a package's name comes from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Name {
    /// It is always this.
    Fixed(&'static str),
    /// It holds a version, and a package without one depends on it.
    Through {
        /// The package without a version.
        meta: &'static str,
        /// How the one that it depends on begins.
        prefix: &'static str,
    },
}

/// Files of a package.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pick {
    /// The package.
    pub(super) package: Name,
    /// Paths; a folder (ending in `/`) is taken whole, and a path after `?` may be absent.
    pub(super) paths: &'static [&'static str],
    /// What of these folders is left out: parts of paths.
    pub(super) except: &'static [&'static str],
}

const fn pick(package: &'static str, paths: &'static [&'static str]) -> Pick {
    Pick {
        package: Name::Fixed(package),
        paths,
        except: &[],
    }
}

/// The kernel, which comes through its metapackage since its name holds its version.
pub(super) const KERNEL: Name = Name::Through {
    meta: "linux-image-cloud-amd64",
    prefix: "linux-image-",
};

/// What every guest has.
const BASE: &[Pick] = &[
    pick("base-files", &["usr/lib/os-release", "etc/debian_version"]),
    pick("busybox-static", &["usr/bin/busybox"]),
    // BusyBox has a shell, but as Debian builds it that shell runs applets before programs on the path,
    // and its fsfreeze and mke2fs are not the real ones.
    pick("dash", &["usr/bin/dash"]),
    pick(
        "openssh-server",
        &[
            "usr/sbin/sshd",
            // Split off in OpenSSH 9.8 and 10.
            "?usr/lib/openssh/sshd-session",
            "?usr/lib/openssh/sshd-auth",
        ],
    ),
    pick("openssh-sftp-server", &["usr/lib/openssh/sftp-server"]),
    pick("openssh-client", &["usr/bin/ssh-keygen"]),
    pick("sudo", &["usr/bin/sudo", "usr/libexec/sudo/sudoers.so"]),
    // Every program needs it, so it is here before any is asked.
    pick("libc6", &["usr/lib64/ld-linux-x86-64.so.2"]),
    // Loaded by name while they run, so no program says that it needs them.
    pick(
        "libpam-modules",
        &[
            "usr/lib/x86_64-linux-gnu/security/pam_permit.so",
            "usr/lib/x86_64-linux-gnu/security/pam_deny.so",
        ],
    ),
    pick("libgcc-s1", &["usr/lib/x86_64-linux-gnu/libgcc_s.so.1"]),
    pick(
        "e2fsprogs",
        &[
            "usr/sbin/mke2fs",
            "usr/sbin/mkfs.ext4",
            "usr/sbin/e2fsck",
            "usr/sbin/fsck.ext4",
            "usr/sbin/dumpe2fs",
            "usr/sbin/tune2fs",
            "etc/mke2fs.conf",
        ],
    ),
    pick(
        "xfsprogs",
        &[
            "usr/sbin/mkfs.xfs",
            "usr/sbin/xfs_repair",
            "usr/sbin/xfs_db",
        ],
    ),
    pick(
        "util-linux",
        &[
            "usr/sbin/fsfreeze",
            "usr/sbin/blkid",
            "usr/sbin/blkdiscard",
            "usr/bin/lsblk",
            "usr/bin/findmnt",
        ],
    ),
    pick("mount", &["usr/bin/mount", "usr/bin/umount"]),
    pick(
        "qemu-guest-agent",
        &["usr/sbin/qemu-ga", "etc/qemu/fsfreeze-hook"],
    ),
];

const SQLITE: &[Pick] = &[pick("sqlite3", &["usr/bin/sqlite3"])];

const BENCH: &[Pick] = &[pick("fio", &["usr/bin/fio"])];

const POSTGRES: &[Pick] = &[
    Pick {
        package: Name::Through {
            meta: "postgresql",
            prefix: "postgresql-",
        },
        paths: &["usr/lib/postgresql/", "usr/share/postgresql/"],
        // The just-in-time compiler, and it alone, needs LLVM.
        except: &["/bitcode/", "/llvmjit", "/locale/"],
    },
    Pick {
        package: Name::Through {
            meta: "postgresql-client",
            prefix: "postgresql-client-",
        },
        paths: &["usr/lib/postgresql/"],
        except: &[],
    },
];

const MARIADB: &[Pick] = &[
    pick(
        "mariadb-server-core",
        &[
            "usr/sbin/mariadbd",
            // What a data folder begins with; named otherwise from MariaDB 11 on.
            "?usr/share/mysql/mysql_system_tables.sql",
            "?usr/share/mysql/mysql_system_tables_data.sql",
            "?usr/share/mysql/mariadb_system_tables.sql",
            "?usr/share/mysql/mariadb_system_tables_data.sql",
            "?usr/share/mariadb/mariadb_system_tables.sql",
            "?usr/share/mariadb/mariadb_system_tables_data.sql",
            "usr/share/mysql/charsets/",
            "usr/share/mysql/english/",
            "usr/share/mariadb/charsets/",
            "usr/share/mariadb/english/",
        ],
    ),
    pick("mariadb-client-core", &["usr/bin/mariadb"]),
];

/// What a layer adds.
const fn layer(layer: Layer) -> &'static [Pick] {
    match layer {
        Layer::Sqlite => SQLITE,
        Layer::Bench => BENCH,
        Layer::Postgres => POSTGRES,
        Layer::Mariadb => MARIADB,
        Layer::Systemd => systemd::PICKS,
    }
}

/// All files of packages for these layers.
pub(super) fn picks<'a>(layers: impl IntoIterator<Item = &'a Layer>) -> Vec<Pick> {
    let more = layers.into_iter().flat_map(|name| layer(*name));
    BASE.iter().chain(more).copied().collect()
}

/// PostgreSQL's programs that get a name on the path; Debian has them in a folder for each version.
pub(super) const POSTGRES_COMMANDS: [&str; 10] = [
    "createdb",
    "initdb",
    "pg_controldata",
    "pg_ctl",
    "pg_isready",
    "pg_waldump",
    "pgbench",
    "pg_amcheck",
    "postgres",
    "psql",
];

/// Modules inserted at every boot, in this order with what they need before them.
pub(super) const BOOT_MODULES: [&str; 8] = [
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio_console",
    "ext4",
    "button",
    "evdev",
    "af_packet",
];

/// Modules taken at boot where the kernel has them as such.
pub(super) const OPTIONAL_MODULES: [&str; 2] = ["virtio_balloon", "crc32c_generic"];

/// Modules inserted when the kernel first asks for them (`fs-xfs` for a mount): they are large.
pub(super) const LAZY_MODULES: [&str; 1] = ["xfs"];

/// BusyBox stands in for the rest of a system's commands. Where a package brings the real one, that is
/// taken.
pub(super) const APPLETS: &str = "\
    [ awk base64 basename blockdev cat chgrp chmod chown chroot clear cmp cp cut date dd df diff \
    dirname dmesg du echo egrep env expr fallocate false fgrep find free fstrim getopt grep \
    groups gzip gunzip halt head hexdump hostname id ifconfig init insmod install ip kill \
    killall less ln logger logname losetup ls lsmod md5sum mkdir mkfifo mknod mktemp more mv nc \
    netstat nl nproc od paste pidof ping poweroff printf ps pwd readlink realpath reboot renice \
    reset rm rmdir rmmod route sed seq setsid sha1sum sha256sum sha512sum shuf sleep sort split \
    stat strings stty su switch_root sync sysctl tac tail tar tee test time timeout top touch tr \
    true truncate tty uname uniq unlink uptime usleep vi wc which who whoami xargs xxd yes";

/// A file of our own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Own {
    /// Where it goes.
    pub(super) path: &'static str,
    /// Permission bits.
    pub(super) mode: u32,
    /// Content.
    pub(super) text: &'static str,
}

/// Files and links of our own that only images of these layers have.
pub(super) fn own_of<'a>(
    layers: impl IntoIterator<Item = &'a Layer>,
) -> (Vec<Own>, Vec<(&'static str, &'static str)>) {
    if layers.into_iter().any(|layer| *layer == Layer::Systemd) {
        (systemd::OWN.to_vec(), systemd::LINKS.to_vec())
    } else {
        (Vec::new(), Vec::new())
    }
}

const fn own(path: &'static str, mode: u32, text: &'static str) -> Own {
    Own { path, mode, text }
}

/// The files of our own.
pub(super) const OWN: &[Own] = &[
    own("init", 0o755, include_str!("../guest/init.sh")),
    own(
        "usr/lib/virtproof/lib.sh",
        0o644,
        include_str!("../guest/lib.sh"),
    ),
    own(
        "usr/lib/virtproof/rc",
        0o755,
        include_str!("../guest/rc.sh"),
    ),
    own(
        "usr/lib/virtproof/seed",
        0o755,
        include_str!("../guest/seed.sh"),
    ),
    own(
        "usr/lib/virtproof/ready",
        0o755,
        include_str!("../guest/ready.sh"),
    ),
    own(
        "usr/lib/virtproof/button",
        0o755,
        include_str!("../guest/button.sh"),
    ),
    own(
        "usr/lib/virtproof/down",
        0o755,
        include_str!("../guest/down.sh"),
    ),
    own(
        "usr/lib/virtproof/agent",
        0o755,
        include_str!("../guest/agent.sh"),
    ),
    own(
        "usr/sbin/rc-service",
        0o755,
        include_str!("../guest/rc-service.sh"),
    ),
    own(
        "usr/sbin/modprobe",
        0o755,
        include_str!("../guest/modprobe.sh"),
    ),
    own(
        "usr/sbin/shutdown",
        0o755,
        include_str!("../guest/shutdown.sh"),
    ),
    own("etc/passwd", 0o644, include_str!("../guest/etc/passwd")),
    own("etc/group", 0o644, include_str!("../guest/etc/group")),
    own("etc/shadow", 0o600, include_str!("../guest/etc/shadow")),
    own(
        "etc/nsswitch.conf",
        0o644,
        include_str!("../guest/etc/nsswitch.conf"),
    ),
    own(
        "etc/ssh/sshd_config",
        0o644,
        include_str!("../guest/etc/sshd_config"),
    ),
    own("etc/sudoers", 0o440, include_str!("../guest/etc/sudoers")),
    own(
        "etc/pam.d/sudo",
        0o644,
        include_str!("../guest/etc/pam-sudo"),
    ),
    own(
        "etc/pam.d/other",
        0o644,
        include_str!("../guest/etc/pam-other"),
    ),
];

/// Folders with permissions of their own, or that nothing is in yet.
pub(super) const FOLDERS: [(&str, u32); 16] = [
    ("dev", 0o755),
    ("etc/qemu/fsfreeze-hook.d", 0o755),
    ("etc/sudoers.d", 0o750),
    ("home", 0o755),
    ("media", 0o755),
    ("mnt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("srv", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("var/lib/virtproof", 0o755),
    ("var/log", 0o755),
    ("var/tmp", 0o1777),
    ("opt", 0o755),
];

/// Links of our own.
pub(super) const LINKS: [(&str, &str); 6] = [
    ("usr/bin/sh", "dash"),
    ("etc/os-release", "../usr/lib/os-release"),
    // Written at each boot, by what the kernel's command line asks for.
    ("etc/inittab", "/run/guest/inittab"),
    ("etc/mtab", "../proc/self/mounts"),
    ("usr/sbin/init", "../bin/busybox"),
    ("var/run", "../run"),
];

/// All of the tables above as text: another text, another image.
pub(super) fn described() -> String {
    let picks = picks(&Layer::ALL);
    let modules = (BOOT_MODULES, OPTIONAL_MODULES, LAZY_MODULES);
    let more = own_of(&Layer::ALL);
    format!(
        "{picks:?} {modules:?} {APPLETS} {POSTGRES_COMMANDS:?} {OWN:?} {FOLDERS:?} {LINKS:?} {more:?}"
    )
}

#[cfg(test)]
mod tests {
    use super::super::cmdline::marker;
    use super::*;

    #[test]
    fn the_scripts_say_the_markers_as_the_host_knows_them() {
        let scripts: String = OWN.iter().map(|own| own.text).collect();
        for marker in [
            marker::BOOTING,
            marker::ROOT,
            marker::INSTALLED,
            marker::INIT,
            marker::READY,
            marker::GOING_DOWN,
            marker::NO_BOOT,
            marker::ROOT_REPAIRED,
            marker::ROOT_DAMAGED,
        ] {
            let said = marker.strip_prefix("virtproof-guest: ").unwrap().trim_end();
            let ways = [
                format!("say {said}"),
                format!("say \"{said}"),
                format!("stay \"{said}"),
            ];
            assert!(
                ways.iter().any(|way| scripts.contains(way)),
                "no script says `{marker}`"
            );
        }
    }

    #[test]
    fn every_path_is_as_the_guest_has_it() {
        let (more, _) = own_of(&Layer::ALL);
        let own = OWN.iter().chain(&more).map(|own| own.path);
        let picked = picks(&Layer::ALL);
        let picked = picked.iter().flat_map(|pick| pick.paths);
        for path in picked.map(|path| path.trim_start_matches('?')).chain(own) {
            let whole = path.trim_end_matches('/');
            assert_eq!(
                super::super::deb::merged(whole),
                whole,
                "{path} is not merged under usr"
            );
        }
    }
}
