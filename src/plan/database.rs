//! The database that a workload's guests carry, for scenarios that ask what becomes of its transactions.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A database in a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Database {
    /// Which. The guest must have its programs.
    #[serde(default)]
    pub engine: Engine,
    /// Its folder in the guest, made if it is not there, on a disk that is replicated.
    #[serde(default = "folder")]
    pub directory: String,
    /// Whether virtproof puts a hook for it into the guest, which the guest agent runs around a freeze.
    /// The agent must have been started with `-F`.
    #[serde(default)]
    pub freeze_hook: bool,
}

impl Default for Database {
    fn default() -> Self {
        Self {
            engine: Engine::default(),
            directory: folder(),
            freeze_hook: false,
        }
    }
}

/// A database.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// SQLite, by its program `sqlite3`.
    #[default]
    Sqlite,
    /// PostgreSQL, by the programs of its server.
    Postgresql,
    /// MariaDB, by `mariadbd` and `mariadb`.
    Mysql,
}

impl Engine {
    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgresql => "postgresql",
            Self::Mysql => "mysql",
        }
    }
}

/// Longest name of a folder, in bytes.
const LONGEST: usize = 200;

fn folder() -> String {
    "/var/lib/virtproof-db".to_owned()
}

impl Database {
    /// Whether its folder may stand in a command as it is: an absolute path of plain names, below a
    /// folder of the system.
    pub(super) fn is_plain(&self) -> bool {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let name =
            |part: &str| !part.is_empty() && !part.starts_with('.') && part.chars().all(plain);
        let path = self.directory.strip_prefix('/').unwrap_or_default();
        self.directory.len() <= LONGEST && path.contains('/') && path.split('/').all(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_with_another_folder_is_refused() {
        use crate::plan::{Known, LAB, parse};
        let read = |folder: &str| {
            let database = format!("    count: 3\n    database: {{directory: {folder}}}\n");
            let text = LAB.replace("    count: 3\n", &database);
            let dir = std::path::Path::new(".");
            parse(&text, "plan.yaml", dir, &Known::nothing())
        };
        let plan = read("/srv/db").expect("a plan").plan;
        let database = plan.workloads()[0].database.as_ref();
        assert_eq!(database.map(|d| d.directory.as_str()), Some("/srv/db"));
        let refused = read("'/srv/$(x)'").expect_err("no folder").to_string();
        assert!(
            refused.contains("cannot be a database's folder"),
            "{refused}"
        );
    }

    #[test]
    fn only_plain_folders_come_near_a_command() {
        let is_plain = |directory: &str| {
            let directory = directory.to_owned();
            let database = Database {
                directory,
                ..Database::default()
            };
            database.is_plain()
        };
        assert!(Database::default().is_plain() && is_plain("/srv/db_1.d"));
        for bad in [
            "",
            "/",
            "/var",
            "var/db",
            "/var//db",
            "/var/db/",
            "/var/../etc",
            "/var/d b",
            "/v/$(x)",
            "/v/a;b",
            "/v/-x'",
            "/v/.db",
        ] {
            assert!(!is_plain(bad), "{bad}");
        }
        assert!(!is_plain(&format!("/v/{}", "a".repeat(LONGEST))));
    }
}
