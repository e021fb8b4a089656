#!/bin/sh
# Shortens what PostgreSQL has to recover from a freeze of the guest's file systems. The QEMU guest agent
# runs what lies in /etc/qemu/fsfreeze-hook.d (/etc/qemu-ga/fsfreeze-hook.d on RHEL) with `freeze` before
# it freezes and with `thaw` after it thawed, provided that it was started with -F: Debian's unit does not
# do that.
#
# Freeze: a checkpoint. A point of all volumes of a frozen VM is one instant, from which PostgreSQL
# recovers as after a power cut; nothing has to be held for that, and so nothing is let go at the thaw.
# `pg_backup_start` is for copies that take a while: see the Recipe `postgresql`.

user=${PGUSER:-postgres}
# A checkpoint that takes longer than this is left to itself, and the freeze goes on without it.
longest=60

[ "$1" = freeze ] || exit 0
# Peer authentication lets the owner of the cluster in by its own name.
if timeout $longest su -s /bin/sh "$user" -c 'psql -X -q -d postgres -c CHECKPOINT'; then
    echo "PostgreSQL: checkpoint done"
else
    echo "PostgreSQL: no checkpoint; recovery will take longer"
    exit 1
fi
