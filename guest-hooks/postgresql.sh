#!/bin/sh
# Shortens what PostgreSQL has to recover from a freeze of the guest's file systems. The QEMU guest agent
# runs what lies in /etc/qemu/fsfreeze-hook.d (/etc/qemu-ga/fsfreeze-hook.d on RHEL) with `freeze` before
# it freezes and with `thaw` after it thawed, provided that it was started with -F: Debian's unit does not
# do that.
#
# Freeze: a checkpoint. A point of all volumes of a frozen VM is one instant, from which PostgreSQL
# recovers as after a power cut; nothing has to be held for that, and so nothing is let go at the thaw.
# `pg_backup_start` is for copies that take a while: see the Recipe `postgresql`.
#
# One folder of a server's socket a line stands in `postgresql-sockets` beside that folder; without that
# file it is the server that psql takes by itself.

list=${POSTGRESQL_SOCKETS:-$(dirname -- "$0")/../postgresql-sockets}
user=${PGUSER:-postgres}
# A checkpoint that takes longer than this is left to itself, and the freeze goes on without it.
longest=60

# Peer authentication lets the owner of the cluster in by its own name.
checkpoint() {
    timeout $longest su -s /bin/sh "$user" \
        -c "psql -X -q ${1:+-h '$1'} -d postgres -c CHECKPOINT" < /dev/null
}

sockets() {
    if [ -r "$list" ]; then cat "$list"; else echo; fi
}

[ "$1" = freeze ] || exit 0
sockets | {
    failed=0
    while read -r folder; do
        if checkpoint "$folder"; then
            echo "PostgreSQL ${folder:-by default}: checkpoint done"
        else
            echo "PostgreSQL ${folder:-by default}: no checkpoint; recovery will take longer"
            failed=1
        fi
    done
    exit $failed
}
