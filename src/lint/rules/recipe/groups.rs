//! The groups of a Recipe.

use super::{Case, rules};
use crate::lint::object::Findings;
use crate::workload::recipe::{Group, GroupKind, Work};

rules! {
    IGNORED = "recipe-ignored-field" Warning
        "The controller never reads the field: nothing is selected, excluded or overwritten by it."
        fix "Remove it; select with `includedNamespaces`, `includedResourceTypes`, `excludedResourceTypes` and `labelSelector`."
        source "Ramen: recipe groups";
    RESTORE_NAMESPACES = "recipe-restore-namespaces" Warning
        "A restore does not look at `includedNamespaces`: it restores what the backup holds."
        fix "Restrict the backup group instead, and give it a group of its own."
        source "Ramen: recipe groups";
    BACKUP_REF = "recipe-backup-ref" Error
        "A restore group takes the backup of the group that `backupRef` names, or of its own name. Without such a group in `backup` there is nothing to restore from."
        fix "Name a group that the `backup` workflow captures."
        source "Ramen: recipe groups";
    ALL_NAMESPACES = "recipe-group-unfiltered" Warning
        "A group without namespaces leaves Velero without a filter: it captures from every namespace that it may read."
        fix "Give `includedNamespaces`."
        source "Ramen: recipe groups; Velero";
    CLUSTER = "recipe-cluster-resources" Note
        "`includeClusterResources` is false when it is not set, whatever the API's comment says."
        fix "Set it, true or false, as it is meant."
        source "Ramen: recipe groups";
    KIND = "recipe-group-type" Error
        "A group of type volume in `spec.groups` is captured as Kubernetes objects like any other; only `spec.volumes` selects volumes."
        fix "Move it to `spec.volumes` and out of the sequence, or make it `type: resource`."
        source "Ramen: recipe groups";
    KEPT = "recipe-existing-kept" Note
        "Objects that exist on the other site are not overwritten by a restore: an old VM or Secret there stays as it is."
        fix "Remove them on the other site first; NoClusterDataConflict shows those that Ramen knows of."
        source "Ramen: recipe groups";
    SELECTOR = "recipe-group-selector" Error
        "A selector that Kubernetes cannot read fails the capture."
        fix "Use the operators In, NotIn, Exists and DoesNotExist, with values for the first two."
        source "Kubernetes: label selectors";
}

const NEVER_READ: [&str; 7] = [
    "parent",
    "nameSelector",
    "selectResource",
    "includedNamespacesByLabel",
    "excludedNamespaces",
    "restoreStatus",
    "restoreOverwriteResources",
];

pub(super) fn check(case: &Case<'_>, out: &mut Findings) {
    let recipe = &case.recipe;
    for group in recipe.groups.iter().chain(&recipe.volumes) {
        for field in NEVER_READ {
            let path = format!("{}/{field}", group.path);
            if !case.object.get(&path).is_null() {
                let what = format!("nobody reads `{field}` of the group `{}`", group.name);
                out.add(IGNORED, case.object, &path, what);
            }
        }
        let written = case.object.get(&format!("{}/labelSelector", group.path));
        if written.is_object() && crate::lint::claims::selector(written).is_none() {
            let path = format!("{}/labelSelector", group.path);
            out.add(
                SELECTOR,
                case.object,
                &path,
                "Kubernetes cannot read this selector",
            );
        }
    }
    for group in recipe
        .groups
        .iter()
        .filter(|group| group.kind == GroupKind::Volume)
    {
        let what = format!("the group `{}` is of type volume", group.name);
        out.add(KIND, case.object, &format!("{}/type", group.path), what);
    }
    captured(case, out);
    restored(case, out);
}

/// The groups of a workflow.
fn of<'a>(
    case: &'a Case<'_>,
    workflow: &'a str,
) -> impl Iterator<Item = (&'a str, &'a Group, &'a str)> {
    case.steps
        .iter()
        .filter(move |(name, _)| name == workflow)
        .filter_map(|(_, step)| match &step.work {
            Work::Group { group, from } => Some((step.path.as_str(), group, from.as_str())),
            _ => None,
        })
}

fn captured(case: &Case<'_>, out: &mut Findings) {
    for (_, group, _) in of(case, "backup") {
        if group.included_namespaces.is_empty() {
            let what = format!("the group `{}` names no namespace", group.name);
            out.add(ALL_NAMESPACES, case.object, &group.path, what);
        }
        if group.cluster_resources.is_none() {
            let what = format!("the group `{}` leaves cluster resources out", group.name);
            out.add(CLUSTER, case.object, &group.path, what);
        }
    }
}

fn restored(case: &Case<'_>, out: &mut Findings) {
    let backups: Vec<&str> = of(case, "backup")
        .map(|(_, group, _)| group.name.as_str())
        .collect();
    for (path, group, from) in of(case, "restore") {
        if case.recipe.workflow("backup").is_some() && !backups.contains(&from) {
            let what = format!("`backup` captures no group `{from}`");
            out.add(BACKUP_REF, case.object, path, what);
        }
        let only_restored = !backups.is_empty() && !backups.contains(&group.name.as_str());
        if only_restored && !group.included_namespaces.is_empty() {
            let what = format!("the restore group `{}` names namespaces", group.name);
            out.add(
                RESTORE_NAMESPACES,
                case.object,
                &format!("{}/includedNamespaces", group.path),
                what,
            );
        }
        let what = format!("the group `{}` restores only what is not there", group.name);
        out.add(KEPT, case.object, path, what);
    }
}
