# What virtproof does with a PostgreSQL cluster in a guest: `sh SCRIPT VERB DIRECTORY`.

verb=$1
directory=$2
cluster=$2/postgresql
# The server's socket and what it says: neither frozen nor replicated.
run=${VIRTPROOF_RUN:-/run}/virtproof-postgresql
owner=postgres
# Programs say the same everywhere, and wait where the disk is frozen.
export LC_ALL=C PGCONNECT_TIMEOUT=0
# Debian has them in a folder for each version.
for programs in /usr/lib/postgresql/*/bin; do
    [ -d "$programs" ] && PATH=$programs:$PATH
done

# Runs a command as who owns the cluster: the server refuses to run as root.
as_owner() {
    if [ "$(id -u)" = 0 ]; then
        su -s /bin/sh "$owner" -c "PATH=$PATH; $1" < /dev/null
    else
        sh -c "$1" < /dev/null
    fi
}

# A session with the server; what it says is bare values, and the first error ends it.
session() {
    psql -X -q -A -t -F ' ' -v ON_ERROR_STOP=1 -h "$run" -U "$owner" -d postgres "$@"
}

# Starts the server and waits until it serves; a crash before is recovered from.
start() {
    mkdir -p "$run" && chmod 0700 "$run" || return
    [ "$(id -u)" != 0 ] || chown "$owner" "$run" || return
    as_owner "pg_ctl -D '$cluster' -l '$run/log' -w -t 600 start" > "$run/start" 2>&1 < /dev/null
}

stop() {
    [ -f "$cluster/postmaster.pid" ] || return 0
    as_owner "pg_ctl -D '$cluster' -m immediate -w stop" > /dev/null 2>&1
}

# What transaction N carries, as an expression of SQL: N stands between these.
body="left(repeat('virtproof-commit-' || lpad('"
rest="'::text, 10, '0') || ';', 40), 900)"

# Small and quiet, and its files no more than the scenario needs. What keeps transactions (fsync,
# full_page_writes, synchronous_commit) is as it is by default. Vacuum would commit too, and what stands in
# the log is counted; a checkpoint that nobody asked for would look like the hook's.
settings() {
    cat <<END
listen_addresses = ''
unix_socket_directories = '$run'
max_connections = 10
shared_buffers = 16MB
min_wal_size = 4MB
max_wal_size = 64MB
checkpoint_timeout = 1h
autovacuum = off
END
}

make() {
    for program in initdb postgres pg_ctl psql pg_controldata pg_waldump pg_amcheck; do
        if ! command -v $program > /dev/null; then
            echo "the guest has no $program" >&2
            exit 127
        fi
    done
    stop
    mkdir -p "$directory" && rm -rf "$cluster" && mkdir -m 0700 "$cluster" || exit
    [ "$(id -u)" != 0 ] || chown "$owner" "$cluster" || exit
    as_owner "initdb -D '$cluster' -U $owner -A trust -E UTF8 --no-locale --data-checksums \
        --wal-segsize=1 --no-sync" > /dev/null || exit
    settings >> "$cluster/postgresql.conf"
    # Nothing waited for the disk so far.
    sync
    if ! start; then
        cat "$run/start" "$run/log" >&2
        exit 1
    fi
    session -c 'CREATE EXTENSION amcheck' -c 'CREATE TABLE commits (n bigint PRIMARY KEY, body text NOT NULL)' \
        -c 'CREATE TABLE last (n bigint NOT NULL)' -c 'INSERT INTO last VALUES (0)' -c CHECKPOINT || exit
    echo "version $(postgres --version | sed 's/^postgres (PostgreSQL)/PostgreSQL/')"
}

# A transaction over two tables for each line that comes, on one connection; says the number of each that
# was committed. What a SELECT gives is said at once, unlike what \echo says.
commit() {
    {
        n=0
        while read -r _; do
            n=$((n + 1))
            printf '%s\\; ' BEGIN "INSERT INTO commits VALUES ($n, $body$n$rest)" "UPDATE last SET n = $n"
            echo "COMMIT;"
            echo "SELECT $n;"
        done
    } | {
        session 2>&1 || echo "psql ended with $?"
    } | cat
}

# How many transactions lie in the log behind the last checkpoint, which the server would have to do again.
# The log ends where a record is none any more, which the program calls an error; a checkpoint is the least
# that it must have read.
behind() {
    control=$(pg_controldata -D "$cluster") || return
    point=$(echo "$control" | sed -n "s/^Latest checkpoint's REDO location: *//p")
    line=$(echo "$control" | sed -n "s/^Latest checkpoint's TimeLineID: *//p")
    pg_waldump -p "$cluster/pg_wal" -t "$line" -s "$point" 2> /dev/null | awk '
        / desc: CHECKPOINT_/ { seen = 1 }
        / desc: COMMIT / { commits++ }
        END { if (seen) print "redo " commits + 0 }'
}

# What is there: the log as it lies before anybody opened the cluster, its own check, and the transactions:
# how many, first, last, those whose content is another, the one that the second table names last, and
# the first of them behind which one is missing.
look() {
    if [ ! -f "$cluster/PG_VERSION" ]; then
        echo "unread there is no $cluster"
        exit 0
    fi
    behind
    if ! start; then
        echo "check the server does not start"
        cat "$run/start" "$run/log" | tail -n 8 | sed 's/^/check /'
        echo "unread the server does not start"
        exit 0
    fi
    # Tables and indexes of the database, each index against its table.
    found=$(pg_amcheck -h "$run" -U "$owner" -d postgres --heapallindexed --parent-check 2>&1)
    ended=$?
    [ $ended -ne 0 ] || [ -n "$found" ] || found=ok
    echo "${found:-pg_amcheck ended with $ended}" | head -n 10 | sed 's/^/check /'
    found=$(session -c "SELECT 'rows', count(*), coalesce(min(n), 0), coalesce(max(n), 0),
        coalesce(sum((body <> left(repeat('virtproof-commit-' || lpad(n::text, 10, '0') || ';', 40), 900))::int), 0),
        (SELECT n FROM last),
        coalesce((SELECT min(n) FROM commits AS c WHERE NOT EXISTS
            (SELECT 1 FROM commits AS d WHERE d.n = c.n + 1)), 0) FROM commits" 2>&1)
    echo "$found" | sed '/^rows /!s/^/unread /'
}

# Where the hook for the agent's freeze finds this database.
hooked=postgresql
list=postgresql-sockets
entry=$run
