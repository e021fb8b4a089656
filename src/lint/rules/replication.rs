//! VolumeReplications, VolumeGroupReplications and their classes.

use serde_json::Value;

use super::rules;
use crate::lint::claims;
use crate::lint::claims::keys;
use crate::lint::object::{Findings, Kind, Object, Set};

rules! {
    SOURCE = "vr-data-source" Error
        "A VolumeReplication is of a PersistentVolumeClaim or a VolumeGroupReplication; any other kind fails with the wrong condition."
        fix "Write `kind: PersistentVolumeClaim` and `apiGroup: \"\"`."
        source "csi-addons: VolumeReplication";
    AUTO_RESYNC = "vr-auto-resync" Warning
        "autoResync lets a demoted volume be recreated from its peer, with whatever only this side holds thrown away."
        fix "Set it only after a failover, on the old primary, once its data is given up."
        source "csi-addons: VolumeReplication; Ceph RBD mirroring";
    RESYNC = "vr-resync" Warning
        "`resync` forces a resync at once: the image is deleted and recreated from the peer."
        fix "Take `secondary`, unless this side's data is given up."
        source "csi-addons: VolumeReplication; Ceph RBD mirroring";
    FORCED = "vr-forced-promotion" Note
        "When a promotion is refused because the peer is still primary, csi-addons forces it in the same reconcile, and no field shows that it did."
        fix "Promote only when the peer is demoted on all volumes: Secondary, Degraded False, Resyncing False."
        source "csi-addons: VolumeReplication";
    TWICE = "vr-claim-twice" Error
        "A PVC has one owner of its replication: a second VolumeReplication, or a group beside one, is an error that leaves the status blank."
        fix "Keep one VolumeReplication or one group for each PVC."
        source "csi-addons: VolumeReplication";
    NO_CLASS = "replication-class-absent" Warning
        "A class that is not there shows as a failed condition, and nothing is replicated."
        fix "Correct the name, or give the class's file too."
        source "csi-addons: VolumeReplication";
    CLASS_PREFIX = "class-parameter-prefix" Error
        "Of the parameters that start with `replication.storage.openshift.io/` only the secret's name and namespace are known; any other is an error for every volume of the class."
        fix "Correct the name; keep driver parameters without the prefix."
        source "csi-addons: classes";
    CLASS_INTERVAL = "class-interval" Warning
        "csi-addons reads schedulingInterval as a Go duration, which has no days: it then looks only once an hour, and lastSyncTime is an hour old."
        fix "Write hours: `24h` for `1d`."
        source "csi-addons: VolumeReplication";
    CLASS_INTERVAL_WRONG = "class-interval-wrong" Error
        "Ceph CSI takes a number with m, h or d; anything else is INVALID_ARGUMENT for every volume of the class."
        fix "Write a number with m, h or d behind it."
        source "Ceph CSI: replication parameters";
    CLASS_NO_INTERVAL = "class-no-interval" Warning
        "Without schedulingInterval nothing is scheduled by the class, and csi-addons looks only once an hour."
        fix "Give `schedulingInterval`, unless the storage has its own schedule."
        source "csi-addons: VolumeReplication; Ceph CSI: replication parameters";
    MISMATCH = "class-interval-mismatch" Error
        "Ramen takes a VolumeReplicationClass only if its schedulingInterval is the policy's or VRG's to the letter; else the PVC has no class, or VolSync is used instead."
        fix "Make both the same."
        source "Ramen: class selection";
    LABELS = "class-labels" Note
        "Ramen finds a class by the labels `ramendr.openshift.io/storageid` and `replicationid`, which must be those of the StorageClass. Without them it shows PeerClassNotFound, or uses VolSync."
        fix "Label the class if Ramen is to use it."
        source "Ramen: class selection";
    EXTERNAL = "vgr-external" Warning
        "With `external: true` csi-addons ignores the group: somebody else must do its work."
        fix "Remove it, unless another controller takes the group."
        source "csi-addons: VolumeGroupReplication";
    GROUP_VR_CLASS = "vgr-no-replication-class" Warning
        "A group makes a VolumeReplication of itself, and that needs a class."
        fix "Give `volumeReplicationClassName`."
        source "csi-addons: VolumeGroupReplication";
    EVERYTHING = "vgr-selector-everything" Warning
        "An empty selector takes every PVC of the namespace, up to 100, and each must be bound and of the class's driver."
        fix "Select by a label that only the group's claims carry."
        source "csi-addons: VolumeGroupReplication";
}

const PREFIX: &str = "replication.storage.openshift.io/";
const KNOWN: [&str; 4] = [
    "replication-secret-name",
    "replication-secret-namespace",
    "group-replication-secret-name",
    "group-replication-secret-namespace",
];

pub(super) fn check(set: &Set, out: &mut Findings) {
    for vr in set.of(Kind::Vr) {
        single(vr, out);
        state(vr, out);
        class(set, vr, "spec/volumeReplicationClass", Kind::VrClass, out);
    }
    for vgr in set.of(Kind::Vgr) {
        group(vgr, out);
        state(vgr, out);
        class(
            set,
            vgr,
            "spec/volumeReplicationClassName",
            Kind::VrClass,
            out,
        );
        class(
            set,
            vgr,
            "spec/volumeGroupReplicationClassName",
            Kind::VgrClass,
            out,
        );
    }
    owners(set, out);
    for class in set.of(Kind::VrClass) {
        parameters(class, out);
        intervals(set, class, out);
    }
    for class in set.of(Kind::VgrClass) {
        parameters(class, out);
    }
}

fn single(vr: &Object, out: &mut Findings) {
    let kind = vr.text("spec/dataSource/kind").unwrap_or_default();
    let group = vr.text("spec/dataSource/apiGroup").unwrap_or_default();
    let fine = match kind {
        "PersistentVolumeClaim" => group.is_empty(),
        "VolumeGroupReplication" => group == PREFIX.trim_end_matches('/'),
        "" => true,
        _ => false,
    };
    if !fine {
        let what = format!("`{kind}` of the group `{group}` is no source");
        out.add(SOURCE, vr, "spec/dataSource", what);
    }
}

fn state(object: &Object, out: &mut Findings) {
    let state = object.text("spec/replicationState").unwrap_or_default();
    if object.get("spec/autoResync") == true {
        out.add(
            AUTO_RESYNC,
            object,
            "spec/autoResync",
            "this side's data may be thrown away",
        );
    }
    let (rule, what) = match state {
        "resync" => (RESYNC, "this side's data is thrown away"),
        "primary" => (FORCED, "a refused promotion is forced"),
        _ => return,
    };
    out.add(rule, object, "spec/replicationState", what);
}

fn group(vgr: &Object, out: &mut Findings) {
    if vgr.get("spec/external") == true {
        out.add(
            EXTERNAL,
            vgr,
            "spec/external",
            "csi-addons ignores the group",
        );
    } else if vgr.get("spec").is_object() && vgr.text("spec/volumeReplicationClassName").is_none() {
        out.add(
            GROUP_VR_CLASS,
            vgr,
            "spec",
            "it has no `volumeReplicationClassName`",
        );
    }
    let selector = vgr.get("spec/source/selector");
    if selector.is_object() && keys(selector).is_empty() {
        out.add(
            EVERYTHING,
            vgr,
            "spec/source/selector",
            "the selector takes every PVC",
        );
    }
}

/// A class by name, if classes of its kind are in the set at all.
fn class(set: &Set, object: &Object, path: &str, kind: Kind, out: &mut Findings) {
    let Some(name) = object.text(path) else {
        return;
    };
    if set.any(&[kind]) && !set.of(kind).any(|class| class.name == name) {
        out.add(
            NO_CLASS,
            object,
            path,
            format!("no {} here is `{name}`", kind.name()),
        );
    }
}

/// Each claim has one VolumeReplication or one group.
fn owners(set: &Set, out: &mut Findings) {
    let claim_of = |vr: &Object| {
        let kind = vr.text("spec/dataSource/kind");
        let name = vr.text("spec/dataSource/name").map(str::to_owned);
        name.filter(|_| kind == Some("PersistentVolumeClaim"))
    };
    let mut seen: Vec<(&Object, String)> = Vec::new();
    for vr in set.of(Kind::Vr) {
        let Some(claim) = claim_of(vr) else {
            continue;
        };
        if let Some((first, _)) = seen
            .iter()
            .find(|(first, name)| *name == claim && first.namespace == vr.namespace)
        {
            let what = format!("`{claim}` is replicated by {} too", first.title());
            out.add(TWICE, vr, "spec/dataSource/name", what);
        }
        seen.push((vr, claim));
    }
    for vgr in set.of(Kind::Vgr) {
        let Some(selector) = claims::selector(vgr.get("spec/source/selector")) else {
            continue;
        };
        for claim in claims::all(set) {
            let replicated = seen
                .iter()
                .find(|(vr, name)| *name == claim.name && vr.namespace == vgr.namespace);
            if let Some((vr, name)) = replicated
                && claim.object.beside(&vgr.namespace)
                && claims::takes(&selector, &claim.labels)
            {
                let what = format!("it selects `{name}`, which {} replicates", vr.title());
                out.add(TWICE, vgr, "spec/source/selector", what);
            }
        }
    }
}

fn parameters(class: &Object, out: &mut Findings) {
    let parameters = class.get("spec/parameters").as_object();
    for key in parameters.into_iter().flatten().map(|(key, _)| key) {
        let reserved = key.strip_prefix(PREFIX);
        if reserved.is_some_and(|name| !KNOWN.contains(&name)) {
            let path = format!("spec/parameters/{}", key.replace('/', "~1"));
            out.add(
                CLASS_PREFIX,
                class,
                &path,
                format!("there is no parameter `{key}`"),
            );
        }
    }
    let labels = class.labels();
    let has = |name: &str| labels.contains_key(&format!("ramendr.openshift.io/{name}"));
    if class.kind == Kind::VrClass && !(has("storageid") && has("replicationid")) {
        out.add(LABELS, class, "metadata", "Ramen does not find the class");
    }
}

fn intervals(set: &Set, class: &Object, out: &mut Findings) {
    let path = "spec/parameters/schedulingInterval";
    let Some(interval) = class.get(path).as_str() else {
        let journal = class.get("spec/parameters/mirroringMode") == "journal";
        if !journal {
            out.add(
                CLASS_NO_INTERVAL,
                class,
                "spec",
                "it has no `schedulingInterval`",
            );
        }
        return;
    };
    let (number, unit) =
        interval.split_at(interval.char_indices().next_back().map_or(0, |(at, _)| at));
    let digits = !number.is_empty() && number.chars().all(|c| c.is_ascii_digit());
    if !digits || !matches!(unit, "m" | "h" | "d") {
        out.add(
            CLASS_INTERVAL_WRONG,
            class,
            path,
            format!("`{interval}` is no interval"),
        );
    } else if unit == "d" {
        out.add(
            CLASS_INTERVAL,
            class,
            path,
            format!("`{interval}` is no Go duration"),
        );
    }
    let wanted: Vec<&str> = set
        .of(Kind::DrPolicy)
        .filter_map(|policy| policy.text("spec/schedulingInterval"))
        .chain(
            set.of(Kind::Vrg)
                .filter_map(|vrg| vrg.get("spec/async/schedulingInterval").as_str()),
        )
        .filter(|text| {
            !text
                .trim_end_matches(['m', 'h', 'd'])
                .trim_start_matches('0')
                .is_empty()
        })
        .collect();
    let others = set.of(Kind::VrClass).filter(|other| {
        let own: &Value = other.get(path);
        wanted.iter().any(|wanted| own == wanted)
    });
    if !wanted.is_empty() && !wanted.contains(&interval) && others.count() == 0 {
        let what = format!(
            "the interval is `{interval}`, and `{}` is asked for",
            wanted.join("`, `")
        );
        out.add(MISMATCH, class, path, what);
    }
}
