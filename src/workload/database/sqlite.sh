# What virtproof does with an SQLite database in a guest: `sh SCRIPT VERB DIRECTORY`.

verb=$1
db=$2/virtproof.db

# A writer that meets a lock waits for it.
sql() {
    sqlite3 -bail -batch -cmd '.timeout 600000' "$db" "$1" < /dev/null
}

# The same for a look: what it finds in the write-ahead log it leaves there.
see() {
    sqlite3 -bail -batch -cmd '.timeout 20000' -cmd '.output /dev/null' \
        -cmd '.dbconfig no_ckpt_on_close on' -cmd '.output stdout' "$db" "$1" < /dev/null 2>&1
}

# What transaction N carries, as an expression of SQL: N stands between these.
body="substr(replace(hex(zeroblob(40)), '00', printf('virtproof-commit-%010d;', "
rest=')), 1, 900)'

make() {
    if ! command -v sqlite3 > /dev/null; then
        echo "the guest has no sqlite3" >&2
        exit 127
    fi
    mkdir -p "$2" || exit
    rm -f "$db" "$db-wal" "$db-shm"
    sql "PRAGMA journal_mode=WAL;
         CREATE TABLE commits (n INTEGER PRIMARY KEY, body TEXT NOT NULL);
         CREATE TABLE last (n INTEGER NOT NULL);
         INSERT INTO last VALUES (0);" > /dev/null || exit
    sync
    set -- $(sqlite3 -version)
    echo "version SQLite $1"
}

# A transaction over two tables for each line that comes, on one connection; says the number of each that
# was committed. FULL is what makes a commit durable with a write-ahead log, which goes into the database
# after every few transactions. What is said goes through a pipe that is opened and closed for each, or
# it would wait for more.
commit() {
    {
        echo 'PRAGMA synchronous=FULL;'
        echo '.output /dev/null'
        echo 'PRAGMA wal_autocheckpoint=40;'
        n=0
        while read -r _; do
            n=$((n + 1))
            echo "BEGIN IMMEDIATE;
INSERT INTO commits VALUES ($n, $body$n$rest);
UPDATE last SET n = $n;
COMMIT;
.output /proc/self/fd/1
.print $n
.output /dev/null"
        done
    } | {
        sqlite3 -bail -batch -cmd '.timeout 600000' "$db" 2>&1 || echo "sqlite3 ended with $?"
    } | cat
}

# What is there: the log as it lies before anybody opened the database, the database's own check, and
# the transactions: how many, first, last, those whose content is another, the one that the second
# table names last, and the first of them behind which one is missing.
look() {
    if [ ! -f "$db" ]; then
        echo "unread there is no $db"
        exit 0
    fi
    log=0
    [ -f "$db-wal" ] && log=$(wc -c < "$db-wal")
    echo "log $log"
    see 'PRAGMA integrity_check(10);' | head -n 10 | sed 's/^/check /'
    found=$(see "SELECT 'rows', count(*), ifnull(min(n), 0), ifnull(max(n), 0),
        ifnull(sum(body <> $body n$rest), 0), (SELECT n FROM last),
        ifnull((SELECT min(n) FROM commits AS c WHERE NOT EXISTS
            (SELECT 1 FROM commits AS d WHERE d.n = c.n + 1)), 0) FROM commits;")
    echo "$found" | tr '|' ' ' | sed '/^rows /!s/^/unread /'
}

# Where the hook for the agent's freeze finds this database.
hooked=sqlite
list=sqlite-databases
entry=$db
