//! From the plan as written to the plan as meant: ranges, names, references, and which fields belong
//! together. Reports all it finds; makes a [`Plan`] only when it found nothing.

mod names;
pub(crate) use names::is_path;
mod workload;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::file::{self, PlanFile};
use super::model::{
    Deadlines, Driver, DriverKind, Faults, Fencing, FencingMethod, Load, Migration, Objectives,
    Plan, Protection,
};
use super::problem::Problems;
use super::text::{self, DurationText, QuantityText};
use super::yaml::Node;
use super::{API_VERSION, Known};

/// Longest workload and rehearsal names: derived names must fit a DNS label of 63 characters.
const NAME: usize = 30;
/// Bytes in a ledger cell: sizes are whole cells.
const CELL: u64 = 4096;

/// The most addresses that a guest is made to try.
const ADDRESSES: usize = 64;

/// The text being judged, and where findings go.
struct Judge<'a, 'p> {
    root: &'a Node,
    dir: &'a Path,
    known: &'a Known<'a>,
    problems: &'a mut Problems<'p>,
}

impl Judge<'_, '_> {
    /// Reports a problem at a path such as `load.hot` or `workloads.0.name`.
    fn bad(
        &mut self,
        path: &str,
        what: impl Into<String>,
        expected: impl Into<String>,
        fix: impl Into<String>,
    ) {
        let steps: Vec<&str> = path.split('.').collect();
        self.problems
            .add(self.root.place(&steps), what, expected, fix);
    }

    /// A duration; zero is refused unless `zero` allows it. Stands in for a bad one with a second.
    fn duration(&mut self, path: &str, value: &DurationText, zero: bool) -> Duration {
        let expected = "a duration such as `90s`, `2m` or `1h 30m`";
        match text::duration(&value.0) {
            Ok(found) if found.is_zero() && !zero => {
                self.bad(
                    path,
                    format!("`{path}` is zero"),
                    "more than zero",
                    "give it time",
                );
                Duration::from_secs(1)
            }
            Ok(found) => found,
            Err(what) => {
                self.bad(path, what, expected, "write a number with a unit");
                Duration::from_secs(1)
            }
        }
    }

    /// Bytes in whole cells, at least `least`.
    fn bytes(&mut self, path: &str, value: &QuantityText, least: u64) -> u64 {
        let expected = "a quantity such as `64Mi`, `2Gi` or `1G`";
        match text::quantity(&value.0) {
            Ok(found) if found < least => {
                let expected = format!("at least {}", text::format_quantity(least));
                self.bad(
                    path,
                    format!("`{}` is too small", value.0),
                    expected,
                    "make it larger",
                );
                least
            }
            Ok(found) if found % CELL != 0 => {
                let what = format!("`{}` is not a multiple of 4Ki", value.0);
                let near = found.div_ceil(CELL).saturating_mul(CELL);
                let fix = format!("the next that fits is `{}`", text::format_quantity(near));
                self.bad(path, what, "whole ledger cells of 4Ki", fix);
                least
            }
            Ok(found) => found,
            Err(what) => {
                self.bad(path, what, expected, "write a number with a suffix");
                least
            }
        }
    }

    fn label(&mut self, path: &str, value: &str, longest: usize) {
        if !text::is_dns_label(value, longest) {
            self.bad(
                path,
                format!("`{value}` cannot be a name"),
                format!("at most {longest} lower-case letters, digits and inner hyphens"),
                "choose another name",
            );
        }
    }
}

/// Validates `file`, whose tree is `root`.
pub(super) fn validate(
    file: &PlanFile,
    root: &Node,
    dir: &Path,
    known: &Known<'_>,
    problems: &mut Problems<'_>,
) -> Option<Plan> {
    let mut judge = Judge {
        root,
        dir,
        known,
        problems,
    };
    judge.header(file);
    judge.sites(file);
    let plan = Plan {
        name: file.metadata.name.clone(),
        sites: file.sites.clone(),
        protection: judge.protection(&file.protection),
        workloads: judge.workloads(&file.workloads),
        objectives: judge.objectives(&file.objectives),
        patterns: file.scenarios.clone(),
        scenarios: judge.scenarios(&file.scenarios),
        unreachable: judge.unreachable(&file.isolation),
        load: judge.load(&file.load),
        migration: Migration {
            count: file.migration.count,
            qps: file.migration.qps,
            storage_class: file.migration.storage_class.clone(),
        },
        faults: judge.faults(&file.faults),
        deadlines: judge.deadlines(&file.deadlines),
        namespace_prefix: file.namespace_prefix.clone(),
        evidence: file.evidence.clone(),
    };
    problems.is_empty().then_some(plan)
}

impl Judge<'_, '_> {
    fn header(&mut self, file: &PlanFile) {
        for (path, found, wanted) in [
            ("apiVersion", file.api_version.as_str(), API_VERSION),
            ("kind", file.kind.as_str(), "Plan"),
        ] {
            if found != wanted {
                let what = format!("`{path}` is `{found}`");
                self.bad(
                    path,
                    what,
                    format!("`{wanted}`"),
                    format!("write `{path}: {wanted}`"),
                );
            }
        }
        self.label("metadata.name", &file.metadata.name, NAME);
        self.label("namespacePrefix", &file.namespace_prefix, NAME);
    }

    fn sites(&mut self, file: &PlanFile) {
        let (one, other) = (&file.sites.primary, &file.sites.secondary);
        if one == other {
            let shown = |site: &super::model::SiteRef| {
                format!(
                    "context `{}` of {}",
                    site.context.as_deref().unwrap_or("(current)"),
                    site.kubeconfig.as_ref().map_or_else(
                        || "the default kubeconfig".to_owned(),
                        |path| format!("`{}`", path.display())
                    )
                )
            };
            self.bad(
                "sites.secondary",
                format!("both sites are {}", shown(one)),
                "two different clusters",
                "name another `context` or `kubeconfig` for the secondary",
            );
        }
        for (name, site) in [("primary", one), ("secondary", other)] {
            if let Some(path) = &site.kubeconfig {
                self.file(&format!("sites.{name}.kubeconfig"), path);
            }
        }
    }

    fn protection(&mut self, file: &file::Protection) -> Protection {
        let driver = match file.driver {
            DriverKind::VolumeReplication => Driver::VolumeReplication {
                class: self.required(
                    "protection",
                    "volumeReplicationClass",
                    file.volume_replication_class.as_ref(),
                    "the driver `volumeReplication` needs it",
                ),
            },
        };
        self.handle_map(&file.handle_map);
        if file.volume_snapshot_class.as_deref() == Some("") {
            self.bad(
                "protection.volumeSnapshotClass",
                "the name is empty",
                "a VolumeSnapshotClass on both sites",
                "name one or leave the key out",
            );
        }
        Protection {
            driver,
            scheduling_interval: self.duration(
                "protection.schedulingInterval",
                &file.scheduling_interval,
                false,
            ),
            synchronous: file.synchronous,
            fencing: self.fencing(&file.fencing),
            handle_map: file.handle_map.clone(),
            volume_snapshot_class: file.volume_snapshot_class.clone(),
            volume_group_snapshot_class: file.volume_group_snapshot_class.clone(),
        }
    }

    fn required(&mut self, path: &str, field: &str, value: Option<&String>, why: &str) -> String {
        match value {
            Some(value) if !value.is_empty() => value.clone(),
            _ => {
                let what = format!("`{path}` lacks `{field}`");
                self.bad(path, what, why, format!("add `{field}:`"));
                String::new()
            }
        }
    }

    /// Handles are rewritten in both directions, so the map must be one-to-one.
    fn handle_map(&mut self, map: &BTreeMap<String, String>) {
        let mut back = BTreeMap::new();
        for (from, to) in map {
            let path = "protection.handleMap";
            if from.is_empty() || to.is_empty() {
                self.bad(
                    path,
                    "an entry is empty",
                    "text to text",
                    "fill in both sides",
                );
            }
            if let Some(first) = back.insert(to, from) {
                self.bad(
                    path,
                    format!("`{first}` and `{from}` both become `{to}`"),
                    "distinct texts, so that the way back is known",
                    "map each to its own text",
                );
            }
        }
    }

    fn fencing(&mut self, file: &file::Fencing) -> Fencing {
        if file.method == FencingMethod::NetworkFence {
            for (index, cidr) in file.cidrs.iter().enumerate() {
                if !names::is_cidr(cidr) {
                    self.bad(
                        &format!("protection.fencing.cidrs.{index}"),
                        format!("`{cidr}` is not a CIDR"),
                        "an address and a prefix length such as `192.0.2.10/32`",
                        "add the prefix length or correct the address",
                    );
                }
            }
            return Fencing::NetworkFence {
                class: self.required(
                    "protection.fencing",
                    "networkFenceClass",
                    file.network_fence_class.as_ref(),
                    "the method `networkFence` needs it",
                ),
                cidrs: file.cidrs.clone(),
            };
        }
        for (field, given) in [
            ("networkFenceClass", file.network_fence_class.is_some()),
            ("cidrs", !file.cidrs.is_empty()),
        ] {
            if given {
                self.bad(
                    &format!("protection.fencing.{field}"),
                    format!("`{field}` does not belong to this fencing method"),
                    "it only goes with `method: networkFence`",
                    format!("change the method or remove `{field}`"),
                );
            }
        }
        match file.method {
            FencingMethod::None => Fencing::None,
            _ => Fencing::StopVm,
        }
    }

    fn objectives(&mut self, file: &file::Objectives) -> Objectives {
        let mut read = |name: &str, value: &Option<DurationText>, zero| {
            value
                .as_ref()
                .map(|value| self.duration(&format!("objectives.{name}"), value, zero))
        };
        Objectives {
            rpo: read("rpo", &file.rpo, true),
            rto: read("rto", &file.rto, false),
            migration_blackout: read("migrationBlackout", &file.migration_blackout, false),
            freeze_stall: read("freezeStall", &file.freeze_stall, false),
        }
    }

    fn unreachable(&mut self, file: &file::Isolation) -> Vec<String> {
        if file.unreachable.len() > ADDRESSES {
            self.bad(
                "isolation.unreachable",
                format!("{} addresses are given", file.unreachable.len()),
                format!("at most {ADDRESSES}, for the guest tries each"),
                "keep those that matter most",
            );
        }
        for (index, address) in file.unreachable.iter().enumerate() {
            let path = format!("isolation.unreachable.{index}");
            if !names::is_host_port(address) {
                self.bad(
                    &path,
                    format!("`{address}` is not an address"),
                    "a host and a TCP port such as `db.example.com:5432` or `[2001:db8::1]:443`",
                    "add the port or correct the host",
                );
            }
            let before = file.unreachable.get(..index).unwrap_or_default();
            if before.contains(address) {
                let what = format!("`{address}` is given twice");
                self.bad(&path, what, "each address once", "remove one of the two");
            }
        }
        file.unreachable.clone()
    }

    fn load(&mut self, file: &file::Load) -> Load {
        Load {
            rate: file.rate,
            batch: file.batch,
            duration: self.duration("load.duration", &file.duration, false),
            hot: self.bytes("load.hot", &file.hot, CELL),
            log: self.bytes("load.log", &file.log, CELL),
            cold_stride: self.bytes("load.coldStride", &file.cold_stride, 0),
        }
    }

    /// A fault without its healing is never injected, so one without the other is a mistake.
    fn faults(&mut self, file: &file::Faults) -> Faults {
        for (name, argv, other, needed) in [
            ("powerOff", &file.power_off, "powerOn", &file.power_on),
            ("powerOn", &file.power_on, "powerOff", &file.power_off),
        ] {
            let path = format!("faults.{name}");
            if !argv.is_empty() && needed.is_empty() {
                let what = format!("`{name}` is given without `{other}`");
                self.bad(&path, what, "both commands", format!("add `{other}:`"));
            }
            if argv.first().is_some_and(String::is_empty) {
                let expected = "the program to run as first item";
                self.bad(
                    &path,
                    "the program's name is empty",
                    expected,
                    "name the program",
                );
            }
        }
        Faults {
            power_off: file.power_off.clone(),
            power_on: file.power_on.clone(),
        }
    }

    fn deadlines(&mut self, file: &file::Deadlines) -> Deadlines {
        Deadlines {
            boot: self.duration("deadlines.boot", &file.boot, false),
            ssh: self.duration("deadlines.ssh", &file.ssh, false),
            sync: self.duration("deadlines.sync", &file.sync, false),
            transition: self.duration("deadlines.transition", &file.transition, false),
            cleanup: self.duration("deadlines.cleanup", &file.cleanup, false),
            unfreeze: self.duration("deadlines.unfreeze", &file.unfreeze, false),
        }
    }
}
