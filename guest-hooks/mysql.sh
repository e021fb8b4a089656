#!/bin/sh
# Quiesces MySQL or MariaDB around a freeze of the guest's file systems. The QEMU guest agent runs what
# lies in /etc/qemu/fsfreeze-hook.d (/etc/qemu-ga/fsfreeze-hook.d on RHEL) with `freeze` before it freezes
# and with `thaw` after it thawed, provided that it was started with -F: Debian's unit does not do that.
#
# Freeze: all tables are flushed and nobody may write. That lasts as long as the session which asked for
# it, so a session is left behind that waits for the thaw. Thaw: it ends, and the lock with it.
#
# It logs in over the local socket as root, which MySQL and MariaDB allow to the system's root by default;
# other ways stand in root's ~/.my.cnf. The user needs RELOAD.

# Not on a file system that can be frozen.
state=/run/fsfreeze-mysql
# A query that runs is waited for, but not for longer, since it keeps out everybody behind us as well.
wait=20
# A session whose thaw never comes ends after so many seconds. Longer than the longest freeze.
longest=900

client=$(command -v mariadb || command -v mysql) || exit 0

freeze() {
    mkdir -p "$state" && rm -f "$state"/* && mkfifo "$state/ask" || return 1
    # Opened for reading and writing, the pipe has no end for as long as the session lives.
    timeout $longest "$client" --unbuffered --batch --skip-column-names \
        <> "$state/ask" > "$state/said" 2>&1 &
    echo $! > "$state/pid"
    printf 'SET SESSION lock_wait_timeout = %s;\nFLUSH TABLES WITH READ LOCK;\nSELECT "held";\n' \
        $wait > "$state/ask"
    until grep -qx held "$state/said"; do
        # A statement that fails ends the client.
        if ! kill -0 "$(cat "$state/pid")" 2> /dev/null; then
            echo "MySQL: not quiesced: $(cat "$state/said")"
            rm -rf "$state"
            return 1
        fi
        sleep 0.1
    done
    echo "MySQL: tables are flushed and locked"
}

thaw() {
    [ -e "$state/pid" ] || return 0
    kill "$(cat "$state/pid")" 2> /dev/null
    rm -rf "$state"
    echo "MySQL: unlocked"
}

case $1 in
    # A freeze that is repeated finds the lock held and takes no other.
    freeze) [ -e "$state/pid" ] || freeze ;;
    thaw) thaw ;;
esac
