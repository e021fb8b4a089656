#!/bin/sh
# Quiesces MySQL or MariaDB around a freeze of the guest's file systems. The QEMU guest agent runs what
# lies in /etc/qemu/fsfreeze-hook.d (/etc/qemu-ga/fsfreeze-hook.d on RHEL) with `freeze` before it freezes
# and with `thaw` after it thawed, provided that it was started with -F: Debian's unit does not do that.
#
# Freeze: all tables are flushed and closed, and nobody may write. That lasts as long as the session which
# asked for it, so a session is left behind that waits for the thaw. Thaw: it ends, and the lock with it.
#
# It logs in over a local socket as root, which MySQL and MariaDB allow to the system's root by default;
# other ways stand in root's ~/.my.cnf. The user needs RELOAD. One socket a line stands in `mysql-sockets`
# beside that folder; without that file it is the socket that the client takes by itself.

list=${MYSQL_SOCKETS:-$(dirname -- "$0")/../mysql-sockets}
# Not on a file system that can be frozen.
state=/run/fsfreeze-mysql
# A query that runs is waited for, but not for longer, since it keeps out everybody behind us as well.
wait=20
# A session whose thaw never comes ends after so many seconds. Longer than the longest freeze.
longest=900

client=$(command -v mariadb || command -v mysql) || exit 0

# Locks the server at socket $2, or where the client looks by itself; $1 is a folder to work in.
hold() {
    mkdir -p "$1" && rm -f "$1"/* && mkfifo "$1/ask" || return 1
    # Opened for reading and writing, the pipe has no end for as long as the session lives.
    timeout $longest "$client" --unbuffered --batch --skip-column-names ${2:+"--socket=$2"} \
        <> "$1/ask" > "$1/said" 2>&1 &
    pid=$!
    echo $pid > "$1/pid"
    printf 'SET SESSION lock_wait_timeout = %s;\nFLUSH TABLES WITH READ LOCK;\nSELECT "held";\n' \
        $wait > "$1/ask"
    until grep -qx held "$1/said"; do
        # A statement that fails ends the client.
        if ! kill -0 $pid 2> /dev/null; then
            cat "$1/said"
            rm -rf "$1"
            return 1
        fi
        sleep 0.1
    done
}

sockets() {
    if [ -r "$list" ]; then cat "$list"; else echo; fi
}

freeze() {
    sockets | {
        number=0
        failed=0
        while read -r socket; do
            number=$((number + 1))
            if hold "$state/$number" "$socket"; then
                echo "MySQL ${socket:-by default}: tables are flushed and locked"
            else
                echo "MySQL ${socket:-by default}: not quiesced"
                failed=1
            fi
        done
        exit $failed
    }
}

thaw() {
    for held in "$state"/*/pid; do
        [ -e "$held" ] || continue
        kill "$(cat "$held")" 2> /dev/null
        rm -rf "${held%/pid}"
        echo "MySQL: unlocked"
    done
}

case $1 in
    # A freeze that is repeated finds its locks held and takes no others.
    freeze) [ -e "$state/1/pid" ] || freeze ;;
    thaw) thaw ;;
esac
