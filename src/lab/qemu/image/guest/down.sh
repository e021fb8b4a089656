#!/bin/sh
# A clean shutdown: ends all processes, writes everything out and unmounts every disk. BusyBox init
# then powers off or restarts.

. /usr/lib/virtproof/lib.sh

say going down

# Whether a process but this one, init and the kernel's threads (which have no command line) is left.
some_left() {
    for process in /proc/[0-9]*; do
        case ${process#/proc/} in
            1 | $$) continue ;;
        esac
        words=''
        read -r words 2> /dev/null < "$process/cmdline"
        [ -n "$words" ] && return 0
    done
    return 1
}

# -1 is everybody but init and the sender. Five seconds to end in good order, then the hard way.
kill -TERM -1 2> /dev/null
tries=100
while some_left && [ "$tries" -gt 0 ]; do
    tries=$((tries - 1))
    usleep 50000
done
kill -KILL -1 2> /dev/null
sync

# The last mounted first. A root, or what is still in use, becomes read-only: as clean as unmounted.
mounts=''
while read -r device target _; do
    case $device in
        /dev/*) mounts="$target $mounts" ;;
    esac
done < /proc/mounts
for target in $mounts; do
    # The kernel writes blanks in names as \040.
    target=$(printf '%b' "$target")
    if [ "$target" = / ] || ! busybox umount "$target" 2> /dev/null; then
        busybox mount -o remount,ro "$target"
    fi
done
sync
