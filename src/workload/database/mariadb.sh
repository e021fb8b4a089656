# What virtproof does with a MariaDB server in a guest: `sh SCRIPT VERB DIRECTORY`.

verb=$1
directory=$2
data=$2/mariadb
# The server's socket and what it says: neither frozen nor replicated.
run=${VIRTPROOF_RUN:-/run}/virtproof-mariadb
socket=$run/server.sock
options=$2/mariadb.cnf
me=$(id -un)
# On a user's path servers need not be.
PATH=$PATH:/usr/sbin:/usr/libexec
# The tables that a server needs, as its package brings them: releases name folder and files as they like.
for tables in /usr/share/mysql/mysql /usr/share/mysql/mariadb /usr/share/mariadb/mariadb \
    "$VIRTPROOF_SHARE/mysql" "$VIRTPROOF_SHARE/mariadb"; do
    [ -f "${tables}_system_tables.sql" ] && share=$tables
done

# A session with the server; what it says is bare values, each statement's at once, and the first error
# ends it.
session() {
    mariadb --no-defaults --socket="$socket" --batch --raw --unbuffered --skip-column-names "$@"
}

# Small, and without what tells tables that were not closed from others by repairing them. What keeps
# transactions (innodb_flush_log_at_trx_commit, innodb_doublewrite) is as it is by default.
settings() {
    cat <<END
[mariadbd]
datadir = $data
socket = $socket
pid-file = $run/server.pid
log-error = $run/log
skip-networking
skip-name-resolve
innodb_buffer_pool_size = 16M
innodb_log_file_size = 8M
key_buffer_size = 1M
aria_pagecache_buffer_size = 4M
max_connections = 10
myisam_recover_options = OFF
END
    [ "$me" != root ] || echo 'user = mysql'
    # For a server that lies elsewhere than where it was built for.
    [ -z "$VIRTPROOF_SHARE" ] || echo "lc_messages_dir = $VIRTPROOF_SHARE"
}

# Starts the server and waits until it serves; a crash before is recovered from. The server changes to
# its own user by itself.
start() {
    mkdir -p "$run" && rm -f "$socket" && : > "$run/log" || return
    [ "$me" != root ] || chown mysql "$run" "$run/log" || return
    setsid mariadbd --defaults-file="$options" < /dev/null > "$run/start" 2>&1 &
    server=$!
    waited=0
    until session -e 'SELECT 1' > /dev/null 2>&1; do
        kill -0 $server 2> /dev/null && [ $waited -lt 3000 ] || return
        waited=$((waited + 1))
        sleep 0.2
    done
}

stop() {
    [ -s "$run/server.pid" ] || return 0
    read -r server < "$run/server.pid"
    kill -KILL "$server" 2> /dev/null
    # Gone, or dead and not buried yet.
    while [ -e "/proc/$server/exe" ]; do sleep 0.1; done
}

make() {
    for program in mariadbd mariadb; do
        if ! command -v $program > /dev/null; then
            echo "the guest has no $program" >&2
            exit 127
        fi
    done
    if [ -z "$share" ]; then
        echo "the guest has no mariadb_system_tables.sql or mysql_system_tables.sql" >&2
        exit 127
    fi
    stop
    mkdir -p "$directory" && rm -rf "$data" && mkdir -m 0700 "$data" && settings > "$options" || exit
    [ "$me" != root ] || chown mysql "$data" || exit
    mkdir -p "$run" || exit
    # What mariadb-install-db does, without help texts and the sys schema.
    {
        printf '%s;\n' 'CREATE DATABASE mysql' 'USE mysql' "SET @auth_root_socket = '$me'"
        cat "${share}_system_tables.sql" "${share}_system_tables_data.sql"
        echo 'CREATE DATABASE virtproof;'
    } | mariadbd --defaults-file="$options" --log-error= --bootstrap > "$run/bootstrap" 2>&1
    if ! [ -d "$data/virtproof" ] || ! start; then
        tail -n 20 "$run/bootstrap" "$run/log" >&2
        exit 1
    fi
    session virtproof -e '
        CREATE TABLE commits (n BIGINT PRIMARY KEY, body VARCHAR(1000) NOT NULL) ENGINE=InnoDB CHARSET=ascii;
        CREATE TABLE last (n BIGINT NOT NULL) ENGINE=InnoDB;
        CREATE TABLE beside (n BIGINT NOT NULL) ENGINE=MyISAM;
        INSERT INTO last VALUES (0);
        INSERT INTO beside VALUES (0);' || exit
    sync
    echo "version MariaDB $(session -e 'SELECT VERSION()')"
}

# What transaction N carries, as an expression of SQL: N stands between these.
body="LEFT(REPEAT(CONCAT('virtproof-commit-', LPAD("
rest=", 10, '0'), ';'), 40), 900)"

# A transaction over two tables for each line that comes, on one connection; says the number of each that
# was committed. A third table, of an engine without transactions, is written on the way: such a table is
# whole only where it was closed.
commit() {
    {
        n=0
        while read -r _; do
            n=$((n + 1))
            echo "BEGIN; INSERT INTO commits VALUES ($n, $body$n$rest); UPDATE last SET n = $n;"
            echo "UPDATE beside SET n = $n; COMMIT; SELECT $n;"
        done
    } | {
        session virtproof 2>&1 || echo "mariadb ended with $?"
    } | cat
}

# What is there: how often the table without transactions stands open by its own header (MyISAM: two bytes
# behind the first 24), as it lies before anybody opened it; the server's check, and the transactions: how
# many, first, last, those whose content is another, the one that the second table names last, and the
# first of them behind which one is missing.
look() {
    if [ ! -d "$data/virtproof" ]; then
        echo "unread there is no $data/virtproof"
        exit 0
    fi
    open=$(od -An -tu1 -j24 -N2 "$data/virtproof/beside.MYI" | awk 'NF == 2 { print $1 * 256 + $2 }')
    [ -z "$open" ] || echo "open $open"
    if ! start; then
        echo "check the server does not start"
        grep -i error "$run/log" | tail -n 8 | sed 's/^/check /'
        echo "unread the server does not start"
        exit 0
    fi
    tables='commits, last'
    # One that was open is damaged or not, and nobody promised that it is not.
    [ "$open" != 0 ] || tables="$tables, beside"
    found=$(session virtproof -e "CHECK TABLE $tables EXTENDED" 2>&1)
    wrong=$(echo "$found" | grep -v "	status	OK$")
    if [ -n "$found" ] && [ -z "$wrong" ]; then wrong=ok; fi
    echo "$wrong" | head -n 10 | tr '\t' ' ' | sed 's/^/check /'
    found=$(session virtproof -e "SELECT 'rows', count(*), ifnull(min(n), 0), ifnull(max(n), 0),
        ifnull(sum(body <> ${body}n$rest), 0), (SELECT n FROM last),
        ifnull((SELECT min(n) FROM commits AS c WHERE NOT EXISTS
            (SELECT 1 FROM commits AS d WHERE d.n = c.n + 1)), 0) FROM commits" 2>&1)
    echo "$found" | tr '\t' ' ' | sed '/^rows /!s/^/unread /'
}

# Where the hook for the agent's freeze finds this database.
hooked=mysql
list=mysql-sockets
entry=$socket
