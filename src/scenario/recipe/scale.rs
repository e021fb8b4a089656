//! Scale hooks: the replicas of Deployments and StatefulSets, taken away and given back.

use serde_json::{Value, json};

use super::Stopped;
use super::objects::{kind, list, name, told};
use super::walk::Walk;
use crate::cluster::{Cluster, Deadline, ObjRef, Owner, Patch, Seen, Wake, repeat};
use crate::workload::recipe::{Scale, ScaleOp, Step};

/// Where the number of replicas is kept while there are none.
const KEPT: &str = "ramendr.io/scale-hook-replicas-count";

/// Where, on whose behalf, and for how long.
struct On<'a> {
    cluster: &'a Cluster,
    owner: &'a Owner,
    deadline: Deadline,
}

/// Does a scale operation. Its errors always count.
pub(super) async fn step(
    walk: &Walk<'_>,
    step: &Step,
    scale: &Scale,
    stops: bool,
) -> anyhow::Result<()> {
    let what = match &scale.op {
        ScaleOp::Down => "down",
        ScaleOp::Up => "up",
        ScaleOp::Sync => "sync",
        ScaleOp::Unknown(other) => other,
    };
    let asked = ("scale", &scale.target, what);
    let on = On {
        cluster: walk.member.cluster(walk.world),
        owner: &walk.member.owner,
        deadline: walk.world.deadline(scale.timeout),
    };
    match told(walk, step, asked, stops, replicas(&on, scale)).await? {
        Ok(()) => Ok(()),
        Err(why) => Err(Stopped(format!("{}: {why}", step.name)).into()),
    }
}

async fn replicas(on: &On<'_>, scale: &Scale) -> Result<(), String> {
    if !matches!(scale.target.resource.as_str(), "deployment" | "statefulset") {
        return Err("only Deployments and StatefulSets are scaled".into());
    }
    let objects = list(on.cluster, &scale.target).await?;
    if objects.is_empty() {
        return Err("there is nothing to scale".into());
    }
    let kind = kind(&scale.target.resource)?;
    for object in &objects {
        let reference = ObjRef::new(kind.clone(), &scale.target.namespace, name(object));
        match &scale.op {
            ScaleOp::Down => down(on, object, &reference).await?,
            ScaleOp::Up => up(on, object, &reference).await?,
            ScaleOp::Sync => sync(on, &reference).await?,
            ScaleOp::Unknown(other) => return Err(format!("there is no operation `{other}`")),
        }
    }
    Ok(())
}

async fn down(on: &On<'_>, object: &Value, reference: &ObjRef) -> Result<(), String> {
    let wanted = object.pointer("/spec/replicas").and_then(Value::as_u64);
    let wanted = wanted.unwrap_or(1);
    if wanted == 0 {
        return Ok(());
    }
    let restore = json!({"metadata": {"annotations": {KEPT: null}}, "spec": {"replicas": wanted}});
    let patch =
        json!({"metadata": {"annotations": {KEPT: wanted.to_string()}}, "spec": {"replicas": 0}});
    let patched = on
        .cluster
        .patch_recorded(on.owner, reference, &Patch::Merge(patch), restore)
        .await;
    patched.map(drop).map_err(|error| error.to_string())
}

async fn up(on: &On<'_>, object: &Value, reference: &ObjRef) -> Result<(), String> {
    let annotations = object.pointer("/metadata/annotations");
    let kept = annotations
        .and_then(|all| all.get(KEPT))
        .and_then(Value::as_str);
    let Some(wanted) = kept.and_then(|text| text.parse::<u64>().ok()) else {
        return Ok(());
    };
    let patch = json!({"metadata": {"annotations": {KEPT: null}}, "spec": {"replicas": wanted}});
    let patched = on.cluster.patch(reference, &Patch::Merge(patch)).await;
    patched.map(drop).map_err(|error| error.to_string())
}

async fn sync(on: &On<'_>, reference: &ObjRef) -> Result<(), String> {
    let waiting = format!("the replicas of {reference}");
    let synced = repeat(&on.deadline, &waiting, Wake::paced(), || async {
        let object = on.cluster.read(reference).await?;
        let count = |at: &str| object.pointer(at).and_then(Value::as_u64).unwrap_or(0);
        let (wanted, ready) = (count("/spec/replicas"), count("/status/readyReplicas"));
        Ok(if wanted == ready {
            Seen::Met(())
        } else {
            Seen::Not(format!("{ready} of {wanted} are ready"))
        })
    });
    synced.await.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::cluster::testing::Fake;
    use crate::cluster::undo::UndoLog;
    use crate::history::event::Site;
    use crate::workload::recipe::Target;

    const PATH: &str = "/apis/apps/v1/namespaces/n/deployments/web";

    async fn scaled(fake: &Fake, owner: &Owner, op: ScaleOp, resource: &str) -> Result<(), String> {
        let cluster = fake.cluster(Site::Primary);
        let on = On {
            cluster: &cluster,
            owner,
            deadline: Deadline::after(Duration::from_secs(1), &CancellationToken::new()),
        };
        let labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
        let scale = Scale {
            hook: "h".into(),
            op,
            target: Target {
                namespace: "n".into(),
                resource: resource.into(),
                labels: Some(
                    k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector {
                        match_labels: Some(labels),
                        match_expressions: None,
                    },
                ),
                names: None,
            },
            timeout: Duration::from_secs(1),
        };
        replicas(&on, &scale).await
    }

    #[tokio::test]
    async fn replicas_go_and_come_back_and_that_is_on_record() {
        let fake = Fake::start().await;
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("undo.jsonl");
        let owner = Owner::new("run-1", UndoLog::create(&path, "run-1").expect("a log"));
        fake.put(
            PATH,
            json!({"metadata": {"name": "web", "namespace": "n", "labels": {"app": "web"}}, "spec": {"replicas": 3}}),
        );
        let get = |at: &str| {
            fake.get(PATH)
                .and_then(|object| object.pointer(at).cloned())
        };
        assert_eq!(
            scaled(&fake, &owner, ScaleOp::Down, "deployment").await,
            Ok(())
        );
        assert_eq!(get("/spec/replicas"), Some(json!(0)));
        assert_eq!(owner.undo().pending().len(), 1);
        // A second time there is nothing to take away, and the number that is kept stays.
        assert_eq!(
            scaled(&fake, &owner, ScaleOp::Down, "deployment").await,
            Ok(())
        );
        let synced = scaled(&fake, &owner, ScaleOp::Sync, "deployment").await;
        assert_eq!(synced, Ok(()), "none is wanted and none is ready");
        assert_eq!(
            scaled(&fake, &owner, ScaleOp::Up, "deployment").await,
            Ok(())
        );
        assert_eq!(get("/spec/replicas"), Some(json!(3)));
        let late = scaled(&fake, &owner, ScaleOp::Sync, "deployment").await;
        assert!(late.is_err_and(|why| why.contains("0 of 3 are ready")));
    }

    #[tokio::test]
    async fn what_cannot_be_scaled_is_an_error() {
        let fake = Fake::start().await;
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("undo.jsonl");
        let owner = Owner::new("run-1", UndoLog::create(&path, "run-1").expect("a log"));
        let none = scaled(&fake, &owner, ScaleOp::Down, "deployment").await;
        assert!(none.is_err_and(|why| why.contains("nothing to scale")));
        let vms = scaled(
            &fake,
            &owner,
            ScaleOp::Down,
            "kubevirt.io/v1/virtualmachines",
        )
        .await;
        assert!(vms.is_err_and(|why| why.contains("only Deployments")));
    }
}
