//! Check hooks: conditions on objects; and which objects a hook means.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use super::Stopped;
use super::walk::Walk;
use crate::cluster::{Cluster, Deadline, Kind, Scope, Seen, Wake, repeat};
use crate::history::event::{Outcome, RecipeFact};
use crate::plan::model::RecipeMode;
use crate::workload::recipe::{Condition, OnError, Step, Target};

/// The kind behind a `selectResource`: a few words, a plural of the core group, or
/// `group/version/plural`.
pub(super) fn kind(resource: &str) -> Result<Kind, String> {
    let of = |group: &str, version: &str, plural: &str| Kind {
        group: group.to_owned().into(),
        version: version.to_owned().into(),
        kind: plural.to_owned().into(),
        plural: plural.to_owned().into(),
        namespaced: true,
    };
    let parts: Vec<&str> = resource.split('/').collect();
    Ok(match parts.as_slice() {
        ["pod"] => of("", "v1", "pods"),
        ["deployment"] => of("apps", "v1", "deployments"),
        ["statefulset"] => of("apps", "v1", "statefulsets"),
        ["daemonset"] => of("apps", "v1", "daemonsets"),
        [plural] => of("", "v1", plural),
        [group, version, plural] => of(group, version, plural),
        _ => return Err(format!("`{resource}` names no kind")),
    })
}

/// The name of an object.
pub(super) fn name(object: &Value) -> String {
    let name = object.pointer("/metadata/name").and_then(Value::as_str);
    name.unwrap_or_default().to_owned()
}

fn labels(object: &Value) -> BTreeMap<String, String> {
    let labels = object
        .pointer("/metadata/labels")
        .and_then(Value::as_object);
    let pairs = labels.into_iter().flatten();
    pairs
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

/// The objects that a hook means, as the API server lists them now.
pub(super) async fn list(cluster: &Cluster, target: &Target) -> Result<Vec<Value>, String> {
    if !target.is_given() {
        return Err("neither labelSelector nor nameSelector says what is meant".into());
    }
    let scope = Scope::Namespace(target.namespace.clone());
    let all = cluster.list_values(&kind(&target.resource)?, &scope).await;
    let all = all.map_err(|error| error.to_string())?;
    let taken = target.select(&all, labels, name)?;
    Ok(taken.into_iter().cloned().collect())
}

/// A hook that is no command: asked for, done, and told.
pub(super) async fn told(
    walk: &Walk<'_>,
    step: &Step,
    (kind, target, what): (&str, &Target, &str),
    stops: bool,
    work: impl Future<Output = Result<(), String>>,
) -> anyhow::Result<Result<(), String>> {
    let target = format!("{} in {}", target.resource, target.namespace);
    walk.tell(RecipeFact::HookAsked {
        hook: step.name.clone(),
        kind: kind.to_owned(),
        target: target.clone(),
        what: what.to_owned(),
    })
    .await?;
    let done = work.await;
    let outcome = match &done {
        Ok(()) => Outcome::Ok,
        Err(why) => Outcome::Failed(why.clone()),
    };
    walk.tell(RecipeFact::HookEnded {
        hook: step.name.clone(),
        target,
        outcome,
        code: None,
        said: String::new(),
        stops,
    })
    .await?;
    Ok(done)
}

/// Does a check.
pub(super) async fn check(
    walk: &Walk<'_>,
    step: &Step,
    condition: &Condition,
    stops: bool,
) -> anyhow::Result<()> {
    let fails = condition.on_error == OnError::Fail;
    let asked = ("check", &condition.target, condition.text.as_str());
    let evaluated = AtomicBool::new(true);
    let mode = walk.bound.mode;
    let cluster = walk.member.cluster(walk.world);
    let deadline = walk.world.deadline(condition.timeout);
    let work = holds(cluster, condition, mode, &deadline, &evaluated);
    let done = told(walk, step, asked, stops && fails, work).await?;
    // A condition that cannot be evaluated fails the step whatever is declared.
    let faithful = mode == RecipeMode::Faithful;
    let always = faithful && !evaluated.load(Ordering::Relaxed);
    match done {
        Err(why) if fails || always => Err(Stopped(format!("{}: {why}", step.name)).into()),
        _ => Ok(()),
    }
}

/// Whether all objects satisfy a condition. Ramen waits for an object and then looks once; its author
/// means that the condition is waited for.
async fn holds(
    cluster: &Cluster,
    condition: &Condition,
    mode: RecipeMode,
    deadline: &Deadline,
    evaluated: &AtomicBool,
) -> Result<(), String> {
    let faithful = mode == RecipeMode::Faithful;
    let waiting = format!("{} of {}", condition.text, condition.target.resource);
    let met = repeat(deadline, &waiting, Wake::paced(), || async {
        let objects = match list(cluster, &condition.target).await {
            Ok(objects) => objects,
            Err(why) => return Ok(Seen::Not(why)),
        };
        if objects.is_empty() {
            return Ok(if condition.skip_if_absent {
                Seen::Met(Ok(()))
            } else {
                Seen::Not("there is no such object".into())
            });
        }
        for object in &objects {
            let why = match condition.expression.evaluate(object) {
                Ok(true) => continue,
                Ok(false) => format!("it does not hold of {}", name(object)),
                Err(error) => {
                    evaluated.store(false, Ordering::Relaxed);
                    format!("of {}: {error}", name(object))
                }
            };
            return Ok(if faithful {
                Seen::Met(Err(why))
            } else {
                Seen::Not(why)
            });
        }
        Ok(Seen::Met(Ok(())))
    });
    met.await.map_err(|error| error.to_string())?
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::cluster::testing::Fake;
    use crate::history::event::Site;
    use crate::workload::recipe::Expression;

    fn condition(text: &str) -> Condition {
        Condition {
            hook: "h".into(),
            check: "c".into(),
            target: Target {
                namespace: "n".into(),
                resource: "kubevirt.io/v1/virtualmachineinstances".into(),
                labels: None,
                names: Some("vm".into()),
            },
            text: text.into(),
            expression: Expression::parse(text),
            timeout: Duration::from_secs(1),
            on_error: OnError::Fail,
            skip_if_absent: false,
        }
    }

    /// What comes of a condition on a VMI whose phase changes meanwhile, and whether it could be
    /// evaluated.
    async fn met(text: &str, mode: RecipeMode, change: Option<&str>) -> (Result<(), String>, bool) {
        let fake = Fake::start().await;
        let path = "/apis/kubevirt.io/v1/namespaces/n/virtualmachineinstances/vm";
        fake.put(
            path,
            json!({"metadata": {"name": "vm", "namespace": "n"}, "status": {"phase": "Scheduled"}}),
        );
        let cluster = fake.cluster(Site::Primary);
        let deadline = Deadline::after(Duration::from_secs(2), &CancellationToken::new());
        let evaluated = AtomicBool::new(true);
        let condition = condition(text);
        let waits = holds(&cluster, &condition, mode, &deadline, &evaluated);
        let changes = async {
            if let Some(phase) = change {
                fake.change(path, &json!({"status": {"phase": phase}}));
            }
        };
        let (done, ()) = tokio::join!(waits, changes);
        (done, evaluated.load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn a_condition_is_waited_for_or_looked_at_once() {
        let running = "{$.status.phase} == {Running}";
        let (done, _) = met(running, RecipeMode::Strict, Some("Running")).await;
        assert_eq!(done, Ok(()));
        let (done, _) = met(running, RecipeMode::Strict, None).await;
        assert!(done.is_err_and(|why| why.contains("does not hold of vm")));
        let (done, evaluated) = met(running, RecipeMode::Faithful, None).await;
        assert!(done.is_err() && evaluated);
        let (done, evaluated) = met("{$.status.nothing} == {1}", RecipeMode::Faithful, None).await;
        assert!(done.is_err() && !evaluated);
    }

    #[test]
    fn resources_are_named_in_three_ways() {
        let path = |text: &str| kind(text).map(|kind| kind.path(Some("n")));
        assert_eq!(path("pod").as_deref(), Ok("/api/v1/namespaces/n/pods"));
        assert_eq!(
            path("statefulset").as_deref(),
            Ok("/apis/apps/v1/namespaces/n/statefulsets")
        );
        assert_eq!(
            path("configmaps").as_deref(),
            Ok("/api/v1/namespaces/n/configmaps")
        );
        assert_eq!(
            path("kubevirt.io/v1/virtualmachines").as_deref(),
            Ok("/apis/kubevirt.io/v1/namespaces/n/virtualmachines")
        );
        assert!(path("a/b").is_err() && path("a/b/c/d").is_err());
    }
}
