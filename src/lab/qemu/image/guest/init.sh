#!/bin/sh
# The guest's first program: makes /proc, /sys, /dev and /run, inserts the modules, decides where the
# root file system is and gives over to the init there: BusyBox's, or on a disk systemd.

PATH=/usr/sbin:/usr/bin
export PATH
busybox mount -t proc -o nosuid,nodev,noexec proc /proc
busybox mount -t sysfs -o nosuid,nodev,noexec sysfs /sys
busybox mount -t devtmpfs -o mode=0755,nosuid dev /dev
busybox mount -t tmpfs -o mode=0755,nosuid,nodev run /run
mkdir -p /dev/pts /dev/shm /run/guest /run/sshd /run/log
busybox mount -t devpts -o gid=5,mode=620,ptmxmode=666,nosuid,noexec devpts /dev/pts
busybox mount -t tmpfs -o mode=1777,nosuid,nodev shm /dev/shm

. /usr/lib/virtproof/lib.sh
say booting
read_parameters

# Modules stay in /run, where they outlive the change of the root: some are inserted on demand.
modules=/run/guest/modules
mv /modules $modules
read -r boot < $modules/boot
for module in $boot; do
    insmod "$modules/$module.ko"
done

# Without udev nobody else gives the ports of the host their names.
mkdir -p /dev/virtio-ports
for port in /sys/class/virtio-ports/*; do
    read -r name 2> /dev/null < "$port/name" || continue
    ln -s "../${port##*/}" "/dev/virtio-ports/$name"
done

# With -F the agent runs the hooks of the system around a freeze.
hooks=''
[ "$p_hooks" = off ] || hooks=-F

# What BusyBox init runs, by what is wanted and there.
agent_port=/dev/virtio-ports/org.qemu.guest_agent.0
{
    echo '::sysinit:/usr/lib/virtproof/rc'
    if [ "$p_sshd" != off ]; then
        echo '::respawn:/usr/sbin/sshd -D -E /run/log/sshd.log'
    fi
    if [ "$p_agent" != off ] && [ -e $agent_port ]; then
        echo "::respawn:/usr/lib/virtproof/agent $hooks -m virtio-serial -p $agent_port -t /run/guest 2>> /run/log/qemu-ga.log"
    fi
    echo '::once:/usr/lib/virtproof/ready'
    echo '::once:/usr/lib/virtproof/button'
    echo '::ctrlaltdel:/usr/bin/reboot'
    echo '::shutdown:/usr/lib/virtproof/down'
} > /run/guest/inittab

# Says why there is nothing to run, and waits to be switched off: a real machine would stand at its
# firmware's message just the same.
stay() {
    open_power_button && has_button=yes
    say "$1"
    if [ -z "$has_button" ]; then
        while :; do sleep 86400; done
    fi
    await_power_button
    say going down
    sync
    poweroff -f
}

# Makes the system on /mnt start with the init that is asked for, and ask that one to stop. A system
# with systemd has to have its machine-id before that starts: it would take itself for one at its first
# boot and enable what it finds.
settle_init() {
    [ "$p_init" = systemd ] || return 0
    ln -sf ../lib/systemd/systemd /mnt/usr/sbin/init
    for verb in poweroff reboot halt; do
        ln -sf ../bin/systemctl /mnt/usr/sbin/$verb
    done
    make_machine_id /mnt
}

# Puts the system on a disk. The label that makes it bootable comes last, so that an installation that
# was cut short is none.
install_root() {
    # 4 KiB blocks whatever the size: the storage knows no smaller ones. A small journal and no
    # zeroing in the background: every block written is one to replicate.
    mke2fs -t ext4 -q -F -b 4096 -J size=16 -E nodiscard -L virtproof-new "$disk" > /dev/console 2>&1 &&
        busybox mount -t ext4 -o noinit_itable "$disk" /mnt &&
        cp -a /bin /sbin /lib /lib64 /etc /home /media /opt /root /srv /usr /var /mnt/ &&
        mkdir -p /mnt/dev /mnt/mnt /mnt/proc /mnt/run /mnt/sys /mnt/tmp &&
        chmod 1777 /mnt/tmp &&
        settle_init &&
        umount /mnt &&
        tune2fs -L virtproof-root "$disk" > /dev/null &&
        sync
}

if [ -z "$p_root" ]; then
    say root memory
    exec /sbin/init
fi

find_disk "$p_root" || stay "no bootable device"
# An imported disk has a partition table with the root file system's partition first.
[ -b "${disk}1" ] && disk=${disk}1
if [ "$(blkid -p -n ext4 -s LABEL -o value "$disk")" = virtproof-root ]; then
    # As every distribution checks its root at boot. Replaying the journal is no repair.
    e2fsck -p "$disk" > /run/log/e2fsck.log 2>&1
    case $? in
        0) ;;
        1 | 2 | 3)
            cat /run/log/e2fsck.log > /dev/console
            say root file system repaired
            ;;
        *)
            cat /run/log/e2fsck.log > /dev/console
            stay "root file system damaged"
            ;;
    esac
elif [ -n "$p_install" ]; then
    install_root || stay "no bootable device"
    say installed
else
    # Never format what we were not told to.
    stay "no bootable device"
fi
busybox mount -t ext4 -o noinit_itable "$disk" /mnt || stay "root file system damaged"
say root "$p_root"
for folder in proc sys dev run; do
    busybox mount -o move "/$folder" "/mnt/$folder"
done
exec switch_root /mnt /sbin/init
