//! The scripts and hooks with the programs of this machine: what they say of a database that lived on, and of
//! one whose server was killed. Where a program is missing the test says so.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use super::*;

/// Transactions that each database gets.
const COMMITS: u64 = 20;

/// A folder in which a script and its hook lie, for a database that this machine runs.
struct Bench {
    engine: Engine,
    home: tempfile::TempDir,
}

impl Bench {
    /// None, said loudly, where one of the programs is not here.
    fn new(engine: Engine, programs: &[&str]) -> Option<Self> {
        use std::os::unix::fs::PermissionsExt as _;
        let found = |program: &&str| {
            let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter();
            let versions = versions.flatten().flatten().map(|v| v.path().join("bin"));
            let path = std::env::var_os("PATH").unwrap_or_default();
            let mut folders = std::env::split_paths(&path).chain(versions);
            folders.any(|folder| folder.join(program).exists())
        };
        if let Some(missing) = programs.iter().find(|program| !found(program)) {
            eprintln!("SKIPPED: no {missing} here, {engine:?} was not run");
            return None;
        }
        let home = tempfile::tempdir().expect("folder");
        // The owner of a server is no root, and has to come here too.
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(home.path(), open).expect("permissions");
        std::fs::write(home.path().join("script"), script(engine)).expect("script");
        std::fs::write(home.path().join("hook"), parts(engine).1).expect("hook");
        let bench = Self { engine, home };
        std::fs::write(bench.path("list"), bench.listed()).expect("list");
        Some(bench)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// What `hook` would have put beside the agent's folder.
    fn listed(&self) -> String {
        let listed = match self.engine {
            Engine::Sqlite => self.path("db/virtproof.db"),
            Engine::Postgresql => self.path("virtproof-postgresql"),
            Engine::Mysql => self.path("virtproof-mariadb/server.sock"),
        };
        format!("{}\n", listed.display())
    }

    fn run(&self, file: &str, words: &[&str], stdin: &str) -> Output {
        use std::io::Write as _;
        let mut child = Command::new("sh")
            .arg(self.path(file))
            .args(words)
            .env("VIRTPROOF_RUN", self.home.path())
            .env("SQLITE_DATABASES", self.path("list"))
            .env("POSTGRESQL_SOCKETS", self.path("list"))
            .env("MYSQL_SOCKETS", self.path("list"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a shell");
        let mut pipe = child.stdin.take().expect("a pipe");
        pipe.write_all(stdin.as_bytes()).expect("written");
        drop(pipe);
        child.wait_with_output().expect("ended")
    }

    /// Has the script do something to its end; what it said.
    fn ask(&self, verb: Verb, stdin: &str) -> String {
        let folder = self.path("db");
        let words = [verb.name(), folder.to_str().expect("a plain path")];
        let output = self.run("script", &words, stdin);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{:?}: {said}{error}", self.engine);
        said
    }

    /// Makes the database and commits to it.
    fn fill(&self) {
        let said = self.ask(Verb::Make, "");
        assert!(version(&said).is_some(), "{:?}: {said}", self.engine);
        let orders = "\n".repeat(usize::try_from(COMMITS).expect("few"));
        let said = self.ask(Verb::Commit, &orders);
        let numbers: Vec<String> = (1..=COMMITS).map(|n| n.to_string()).collect();
        assert_eq!(said.lines().collect::<Vec<_>>(), numbers);
    }

    fn hook(&self, word: &str) {
        let output = self.run("hook", &[word], "");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{:?}: {said}{error}", self.engine);
    }

    /// What a look says of a whole database with all transactions, after its server was killed.
    fn look(&self) -> Looked {
        assert!(self.kill(), "{:?} lives on", self.engine);
        let looked = Looked::parse(&self.ask(Verb::Look, ""));
        assert_eq!(looked.check, ["ok"], "{looked:?}");
        let whole = Rows {
            count: COMMITS,
            first: 1,
            last: COMMITS,
            strange: 0,
            second: COMMITS,
            upto: COMMITS,
        };
        assert_eq!(looked.rows, Some(whole), "{looked:?}");
        looked
    }

    /// Ends the server, if there is one, without letting it finish anything; whether it is gone.
    /// PostgreSQL's does that at SIGQUIT, and takes its helpers along.
    fn kill(&self) -> bool {
        let servers = [
            ("db/postgresql/postmaster.pid", "QUIT"),
            ("virtproof-mariadb/server.pid", "KILL"),
        ];
        servers.iter().all(|(file, signal)| {
            let text = std::fs::read_to_string(self.path(file)).unwrap_or_default();
            let Some(pid) = text.lines().next() else {
                return true;
            };
            // Until it is gone, or dead and not buried yet.
            let kill =
                format!("kill -{signal} {pid} && while [ -e /proc/{pid}/exe ]; do sleep 0.1; done");
            let ended = Command::new("sh").args(["-c", &kill]).status();
            ended.is_ok_and(|ended| ended.success())
        })
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let gone = self.kill();
        assert!(gone || std::thread::panicking(), "a server lives on");
    }
}

/// Looks at a database twice: whose hook did not run, and whose did. Returns what each look said. Hooks keep
/// what they hold in `/run`, which takes root.
fn without_and_with_hook(bench: &Bench) -> Option<(Looked, Looked)> {
    bench.fill();
    let without = bench.look();
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can run the hook of {:?}", bench.engine);
        return None;
    }
    bench.fill();
    bench.hook("freeze");
    let with = bench.look();
    bench.hook("thaw");
    Some((without, with))
}

#[test]
fn sqlite_leaves_an_empty_log() {
    let Some(bench) = Bench::new(Engine::Sqlite, &["sqlite3"]) else {
        return;
    };
    // Whoever closes the last connection empties the log too, so there is nothing to compare with.
    if let Some((_, with)) = without_and_with_hook(&bench) {
        assert_eq!(with.log, Some(0));
    }
}

#[test]
fn postgresql_has_nothing_to_do_again_behind_a_checkpoint() {
    let Some(bench) = Bench::new(Engine::Postgresql, &["initdb", "psql", "pg_amcheck"]) else {
        return;
    };
    if let Some((without, with)) = without_and_with_hook(&bench) {
        assert_eq!((without.redo, with.redo), (Some(COMMITS), Some(0)));
    }
}

#[test]
fn mariadb_closes_its_tables() {
    let Some(bench) = Bench::new(Engine::Mysql, &["mariadbd", "mariadb"]) else {
        return;
    };
    if let Some((without, with)) = without_and_with_hook(&bench) {
        assert_eq!((without.open, with.open), (Some(1), Some(0)));
    }
}
