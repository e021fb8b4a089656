//! Databases in guests: what is done there, as scripts for a shell, and what they say.
//!
//! A script lies in `/run`, which no freeze reaches. The only text from outside in a command is the
//! database's folder, which the plan has held against plain characters.

use super::Embedded;
use crate::plan::model::{Database, Engine};

/// What every transaction carries, with its number behind it.
pub const MARK: &str = "virtproof-commit-";

/// Most lines that a database's own check may say.
const MOST_SAID: usize = 10;
/// Longest of them, in characters.
const LONGEST_SAID: usize = 300;

macro_rules! hooks {
    ($($name:literal),* $(,)?) => {
        &[$(Embedded {
            name: $name,
            text: include_str!(concat!("../../../guest-hooks/", $name, ".sh")),
        }),*]
    };
}

/// The hooks for guests by which their agent's freeze quiesces a database.
pub(super) const fn hooks() -> &'static [Embedded] {
    hooks!["mysql", "postgresql", "sqlite"]
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Make the database anew, without a transaction.
    Make,
    /// Put the hook in place by which the guest agent's freeze quiesces the database.
    Hook,
    /// Commit a transaction for each line on standard input and say the number of each.
    Commit,
    /// Say what is there.
    Look,
}

impl Verb {
    const fn name(self) -> &'static str {
        match self {
            Self::Make => "make",
            Self::Hook => "hook",
            Self::Commit => "commit",
            Self::Look => "look",
        }
    }
}

/// Where the script lies in the guest.
const PLACE: &str = "/run/virtproof-database.sh";
/// For whoever is not `root`.
const SUDO: &str = "sudo -n ";

/// The command by which a guest's login shell puts the script in its place, from standard input.
pub fn put(root: bool) -> String {
    let sudo = if root { "" } else { SUDO };
    format!("{sudo}sh -c 'cat > {PLACE}'")
}

/// The command that does something with the database.
pub fn command(database: &Database, verb: Verb, root: bool) -> String {
    let sudo = if root { "" } else { SUDO };
    let (verb, directory) = (verb.name(), &database.directory);
    format!("{sudo}sh {PLACE} {verb} {directory}")
}

/// The script. The hook is a function in it that writes it: a text within quotes of a shell, which ends
/// at a line that stands in no hook.
pub fn script(engine: Engine) -> String {
    let (script, hook) = parts(engine);
    format!("hook() {{\n    cat <<'{END}'\n{hook}{END}\n}}\n{script}{VERBS}")
}

/// What every script ends with.
const VERBS: &str = include_str!("verbs.sh");

/// The end of a hook in a script.
const END: &str = "VIRTPROOF-END-OF-HOOK";

/// What is done with a database, and the hook for the guest agent's freeze.
const fn parts(engine: Engine) -> (&'static str, &'static str) {
    match engine {
        Engine::Sqlite => (
            include_str!("sqlite.sh"),
            include_str!("../../../guest-hooks/sqlite.sh"),
        ),
        Engine::Postgresql => (
            include_str!("postgresql.sh"),
            include_str!("../../../guest-hooks/postgresql.sh"),
        ),
        Engine::Mysql => (
            include_str!("mariadb.sh"),
            include_str!("../../../guest-hooks/mysql.sh"),
        ),
    }
}

/// The version that [`Verb::Make`] said.
pub fn version(said: &str) -> Option<&str> {
    said.lines().find_map(|line| line.strip_prefix("version "))
}

/// What [`Verb::Look`] said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Looked {
    /// Bytes of its log as they lay before anybody opened the database.
    pub log: Option<u64>,
    /// Transactions that lay in its log alone then, behind its last checkpoint.
    pub redo: Option<u64>,
    /// How often a table without transactions stood open then, by what it says itself.
    pub open: Option<u64>,
    /// What its own check says.
    pub check: Vec<String>,
    /// Its transactions, if they could be read.
    pub rows: Option<Rows>,
    /// Why they could not.
    pub unread: String,
}

/// The transactions of a database.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rows {
    /// How many.
    pub count: u64,
    /// The smallest number; 0 without any.
    pub first: u64,
    /// The greatest.
    pub last: u64,
    /// How many carry something else than they should.
    pub strange: u64,
    /// The newest by the second table, which each transaction changes too.
    pub second: u64,
    /// The first behind which one is missing; the last one where none is.
    pub upto: u64,
}

impl Looked {
    /// Reads what was said. Lines that are not understood are passed over: without the lines that are,
    /// nothing counts as read.
    pub fn parse(said: &str) -> Self {
        let mut looked = Self::default();
        for line in said.lines() {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            let text = || rest.chars().take(LONGEST_SAID).collect::<String>();
            let number = || rest.trim().parse().ok();
            match word {
                "log" => looked.log = number(),
                "redo" => looked.redo = number(),
                "open" => looked.open = number(),
                "check" if looked.check.len() < MOST_SAID => looked.check.push(text()),
                "rows" => looked.rows = rows(rest),
                "unread" if looked.unread.is_empty() => looked.unread = text(),
                _ => {}
            }
        }
        looked
    }
}

fn rows(text: &str) -> Option<Rows> {
    let numbers: Result<Vec<u64>, _> = text.split_whitespace().map(str::parse).collect();
    let [count, first, last, strange, second, upto] = numbers.ok()?.try_into().ok()?;
    Some(Rows {
        count,
        first,
        last,
        strange,
        second,
        upto,
    })
}

#[cfg(test)]
mod host;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn commands_read_as_they_are_typed() {
        let database = Database::default();
        let typed = |verb, root| command(&database, verb, root);
        assert_eq!(
            typed(Verb::Commit, false),
            "sudo -n sh /run/virtproof-database.sh commit /var/lib/virtproof-db"
        );
        assert_eq!(
            typed(Verb::Look, true),
            "sh /run/virtproof-database.sh look /var/lib/virtproof-db"
        );
        assert_eq!(put(true), "sh -c 'cat > /run/virtproof-database.sh'");
    }

    #[test]
    fn every_script_knows_its_verbs_and_carries_its_hook() {
        for engine in [Engine::Sqlite, Engine::Postgresql, Engine::Mysql] {
            let (script, (_, hook)) = (script(engine), parts(engine));
            for verb in [Verb::Make, Verb::Hook, Verb::Commit, Verb::Look] {
                let entry = format!("\n    {})", verb.name());
                assert!(script.contains(&entry), "{engine:?} {verb:?}");
            }
            assert!(script.contains(MARK));
            assert!(!hook.contains(END) && hook.ends_with('\n'));
        }
    }

    #[test]
    fn what_a_whole_database_says_is_read() {
        let looked = Looked::parse("log 16512\ncheck ok\nrows 593 1 593 0 593 593\n");
        assert_eq!((looked.log, looked.check), (Some(16512), vec!["ok".into()]));
        let rows = looked.rows.expect("rows");
        assert_eq!((rows.count, rows.first, rows.last), (593, 1, 593));
        assert_eq!((rows.strange, rows.second, rows.upto), (0, 593, 593));
        let looked = Looked::parse("redo 12\nopen 1\n");
        assert_eq!(
            (looked.log, looked.redo, looked.open),
            (None, Some(12), Some(1))
        );
        assert_eq!(version("version SQLite 3.40.1\n"), Some("SQLite 3.40.1"));
        assert_eq!(version(""), None);
    }

    #[test]
    fn what_a_damaged_one_says_is_kept() {
        let said = "log 0\ncheck Page 4: btreeInitPage() returns error code 11\nunread malformed\n";
        let looked = Looked::parse(said);
        assert_eq!((looked.check.len(), looked.rows), (1, None));
        assert_eq!(looked.unread, "malformed");
        assert_eq!(Looked::parse("rows 1 1 1 0 1").rows, None, "cut off");
        assert_eq!(Looked::parse("rows 1 1 1 0 1 -1").rows, None);
    }

    proptest! {
        #[test]
        fn no_words_panic_and_none_grow(said in "((log|redo|open|check|rows|unread|x)[ 0-9a-zé]{0,400}\n){0,30}") {
            let looked = Looked::parse(&said);
            prop_assert!(looked.check.len() <= MOST_SAID);
            prop_assert!(looked.check.iter().all(|line| line.chars().count() <= LONGEST_SAID));
        }
    }
}
