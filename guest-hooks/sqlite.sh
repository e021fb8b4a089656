#!/bin/sh
# Quiesces SQLite databases around a freeze of the guest's file systems. The QEMU guest agent runs what
# lies in /etc/qemu/fsfreeze-hook.d (/etc/qemu-ga/fsfreeze-hook.d on RHEL) with `freeze` before it freezes
# and with `thaw` after it thawed, provided that it was started with -F: Debian's unit does not do that.
#
# Freeze: the write-ahead log goes into the database, and from then on nobody writes, so that what is on
# the disk is the database alone and needs no recovery. A lock lives as long as the connection that
# took it, so a process holds it until the thaw. Thaw: it lets go.
#
# One database a line stands in `sqlite-databases` beside that folder. The main hook of the agent's package
# passes over how this one ended; what it says is in /var/log/qga-fsfreeze-hook.log.

list=${SQLITE_DATABASES:-$(dirname -- "$0")/../sqlite-databases}
# Not on a file system that can be frozen.
state=/run/fsfreeze-sqlite
# A lock whose thaw never comes is given up after so many seconds. Longer than the longest freeze.
longest=900
# How often a writer that comes between checkpoint and lock is put up with, and for how many milliseconds
# a lock is waited for.
tries=5
wait=5000

# Tells the connection that process $2 holds something and waits for its answer; $1 is its folder.
ask() {
    rm -f "$1/said"
    printf '.output %s/said.new\n%s\n.output\n.shell mv %s/said.new %s/said\n' \
        "$1" "$3" "$1" "$1" > "$1/ask"
    waited=0
    until [ -e "$1/said" ]; do
        # A statement that fails ends the connection.
        kill -0 "$2" 2> /dev/null && [ $waited -lt 600 ] || return 1
        waited=$((waited + 1))
        sleep 0.1
    done
}

# Holds the write lock of database $2, with its log in the database; $1 is a folder to work in.
hold() {
    mkdir -p "$1" && rm -f "$1"/* && mkfifo "$1/ask" || return 1
    # Opened for reading and writing, the pipe has no end for as long as the connection lives.
    timeout $longest sqlite3 -bail -batch -cmd ".timeout $wait" "$2" \
        <> "$1/ask" > "$1/log" 2>&1 &
    pid=$!
    echo $pid > "$1/pid"
    try=0
    while [ $((try += 1)) -le $tries ]; do
        ask "$1" $pid 'PRAGMA wal_checkpoint(TRUNCATE); BEGIN IMMEDIATE;' || break
        # Without a log, as in the other journal modes, there is nothing that could be left in it.
        [ -s "$2-wal" ] || return 0
        ask "$1" $pid 'ROLLBACK;' || break
    done
    cat "$1/log"
    kill $pid 2> /dev/null
    rm -rf "$1"
    return 1
}

freeze() {
    number=0
    failed=0
    while read -r database; do
        [ -f "$database" ] || continue
        number=$((number + 1))
        if hold "$state/$number" "$database"; then
            echo "$database: its log is empty and its lock held, try $try"
        else
            echo "$database: not quiesced"
            failed=1
        fi
    done < "$list"
    return $failed
}

thaw() {
    for held in "$state"/*/ask; do
        [ -p "$held" ] || continue
        read -r pid < "${held%ask}pid"
        # Without a reader the pipe would take this and nobody would read it.
        kill -0 "$pid" 2> /dev/null && printf 'ROLLBACK;\n.quit\n' > "$held"
        rm -rf "${held%/ask}"
    done
}

[ -r "$list" ] || exit 0
case $1 in
    # A freeze that is repeated finds its locks held and takes no others.
    freeze) [ -e "$state/1/pid" ] || freeze ;;
    thaw) thaw ;;
esac
