//! The `workloads` of a plan.

use std::collections::BTreeMap;

use super::names::jump_host;
use super::{Judge, NAME};
use crate::plan::file;
use crate::plan::model::{
    AccessMode, DataVolume, Database, LedgerKind, Quiesce, Route, RouteKind, Ssh, VolumeMode,
    Workload,
};

/// Most data volumes of one VM: ledger ordinals are small and guests have few device letters.
const MOST_VOLUMES: usize = 16;
/// The smallest data volume: a ledger on a file system needs room for both.
const SMALLEST: u64 = 8 << 20;
/// Longest parameter value, in bytes.
const LONGEST_VALUE: usize = 4096;

impl Judge<'_, '_> {
    pub(super) fn workloads(&mut self, files: &[file::Workload]) -> Vec<Workload> {
        if files.is_empty() {
            let expected = "at least one workload";
            self.bad("workloads", "there are no workloads", expected, "add one");
        }
        let mut names: BTreeMap<&str, usize> = BTreeMap::new();
        let mut workloads = Vec::new();
        for (index, file) in files.iter().enumerate() {
            let path = format!("workloads.{index}");
            if let Some(first) = names.insert(&file.name, index) {
                self.bad(
                    &format!("{path}.name"),
                    format!("two workloads are named `{}`", file.name),
                    format!("distinct names; `workloads[{first}]` has it too"),
                    "rename one of them",
                );
            }
            workloads.push(self.workload(&path, file));
        }
        workloads
    }

    fn workload(&mut self, path: &str, file: &file::Workload) -> Workload {
        self.label(&format!("{path}.name"), &file.name, NAME);
        let (templates, recipes) = (self.known.templates, self.known.recipes);
        self.reference(
            &format!("{path}.template"),
            "template",
            &file.template,
            templates,
        );
        if let Some(recipe) = &file.recipe {
            self.reference(&format!("{path}.recipe"), "Recipe", recipe, recipes);
        }
        let parameters = file.parameters.iter().map(|(name, value)| {
            self.parameter(&format!("{path}.parameters.{name}"), name, &value.0);
            (name.clone(), value.0.clone())
        });
        let parameters = parameters.collect();
        Workload {
            name: file.name.clone(),
            template: file.template.clone(),
            count: file.count,
            parameters,
            recipe: file.recipe.clone(),
            recipe_mode: file.recipe_mode,
            recipe_parameters: file.recipe_parameters.clone(),
            quiesce: self.quiesce(path, file),
            database: self.database(path, file),
            ssh: self.ssh(path, &file.ssh),
            data_volumes: self.data_volumes(path, &file.data_volumes),
        }
    }

    /// By what the VM is frozen: what the plan says, else its Recipe if it has one.
    fn quiesce(&mut self, path: &str, file: &file::Workload) -> Quiesce {
        if file.recipe.is_none() {
            for (key, set) in [
                ("recipeParameters", !file.recipe_parameters.is_empty()),
                ("quiesce", file.quiesce == Some(Quiesce::Recipe)),
            ] {
                if set {
                    let what = format!("`{key}` needs a Recipe");
                    let at = format!("{path}.{key}");
                    self.bad(&at, what, "a workload with a `recipe`", "add `recipe:`");
                }
            }
        }
        let own = if file.recipe.is_some() {
            Quiesce::Recipe
        } else {
            Quiesce::Subresource
        };
        file.quiesce.unwrap_or(own)
    }

    fn database(&mut self, path: &str, file: &file::Workload) -> Option<Database> {
        if let Some(database) = file
            .database
            .as_ref()
            .filter(|database| !database.is_plain())
        {
            let what = format!("`{}` cannot be a database's folder", database.directory);
            let expected = "an absolute path below a folder, of letters, digits, `.`, `_` and `-`";
            let at = format!("{path}.database.directory");
            self.bad(&at, what, expected, "name another folder");
        }
        file.database.clone()
    }

    fn parameter(&mut self, path: &str, name: &str, value: &str) {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty()
            || !name.chars().all(word)
            || name.starts_with(|c: char| c.is_ascii_digit())
        {
            let what = format!("`{name}` cannot be a parameter");
            self.bad(path, what, "letters, digits and `_`", "rename it");
        }
        if value.len() > LONGEST_VALUE || value.contains(char::is_control) {
            let what = format!("the value of `{name}` is too long or holds control characters");
            let expected = format!("one line of at most {LONGEST_VALUE} bytes");
            self.bad(path, what, expected, "put longer texts into the template");
        }
    }

    fn ssh(&mut self, path: &str, file: &file::Ssh) -> Ssh {
        if let Some(user) = &file.user {
            let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            if user.is_empty() || user.starts_with('-') || !user.chars().all(plain) {
                let what = format!("`{user}` cannot be a login name");
                let expected = "letters, digits, `.`, `_` and `-`";
                self.bad(
                    &format!("{path}.ssh.user"),
                    what,
                    expected,
                    "correct the name",
                );
            }
        }
        if let Some(key) = &file.key_file {
            self.file(&format!("{path}.ssh.keyFile"), key);
        }
        Ssh {
            user: file.user.clone(),
            port: file.port,
            key_file: file.key_file.clone(),
            route: self.route(path, file),
        }
    }

    fn route(&mut self, path: &str, file: &file::Ssh) -> Route {
        let path = format!("{path}.ssh");
        let expected = "`user@host` or `user@host:port`";
        match (file.route, &file.jump_host) {
            (RouteKind::Jump, Some(text)) => {
                if let Some(jump) = jump_host(text) {
                    return Route::Jump(jump);
                }
                let what = format!("`{text}` is not a jump host");
                self.bad(&format!("{path}.jumpHost"), what, expected, "correct it");
                Route::Direct
            }
            (RouteKind::Jump, None) => {
                let what = "`route: jump` needs a `jumpHost`";
                self.bad(&path, what, expected, "add `jumpHost:`");
                Route::Direct
            }
            (_, Some(_)) => {
                self.bad(
                    &format!("{path}.jumpHost"),
                    "`jumpHost` does not belong to this route",
                    "it only goes with `route: jump`",
                    "write `route: jump` or remove it",
                );
                Route::Direct
            }
            (RouteKind::PortForward, None) => Route::PortForward,
            (RouteKind::Direct, None) => Route::Direct,
        }
    }

    fn data_volumes(&mut self, path: &str, files: &[file::DataVolume]) -> Vec<DataVolume> {
        if files.len() > MOST_VOLUMES {
            let what = format!("there are {} data volumes", files.len());
            let expected = format!("at most {MOST_VOLUMES}");
            self.bad(
                &format!("{path}.dataVolumes"),
                what,
                expected,
                "remove some",
            );
        }
        let volumes = files.iter().enumerate().map(|(index, file)| DataVolume {
            size: self.bytes(
                &format!("{path}.dataVolumes.{index}.size"),
                &file.size,
                match file.ledger {
                    LedgerKind::Raw => SMALLEST,
                    LedgerKind::File => file.filesystem.smallest(),
                },
            ),
            storage_class: file.storage_class.clone(),
            volume_mode: file.volume_mode,
            access_mode: file.access_mode.unwrap_or(match file.volume_mode {
                VolumeMode::Block => AccessMode::ReadWriteMany,
                VolumeMode::Filesystem => AccessMode::ReadWriteOnce,
            }),
            ledger: file.ledger,
            filesystem: file.filesystem,
        });
        volumes.collect()
    }
}
