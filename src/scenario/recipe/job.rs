//! Job hooks, as the controller runs them where the CRD knows them: made from the Recipe's template,
//! awaited, and left. `strict` refuses them before anything is made.

use serde_json::{Value, json};

use super::Stopped;
use super::objects::told;
use super::walk::Walk;
use crate::cluster::{Cluster, Deadline, Error, Kind, ObjRef, Owner, Seen, Wake, repeat};
use crate::workload::recipe::{Job, OnError, Step, Target};

const JOB: Kind = Kind::namespaced("batch", "v1", "Job", "jobs");

/// Why a job did not succeed.
#[derive(Debug, PartialEq, Eq)]
enum Trouble {
    /// It could not be made: always an error.
    Unmade(String),
    /// It failed or took too long: an error as the hook declares.
    Failed(String),
}

/// Does a step that is a Job.
pub(super) async fn step(
    walk: &Walk<'_>,
    step: &Step,
    job: &Job,
    stops: bool,
) -> anyhow::Result<()> {
    let target = Target {
        namespace: job.namespace.clone(),
        resource: "job".into(),
        labels: None,
        names: Some(job.job.clone()),
    };
    let deadline = walk.world.deadline(job.timeout);
    let cluster = walk.member.cluster(walk.world);
    let mut always = false;
    let work = async {
        match run(cluster, &walk.member.owner, job, &deadline).await {
            Ok(()) => Ok(()),
            Err(Trouble::Unmade(why)) => {
                always = true;
                Err(why)
            }
            Err(Trouble::Failed(why)) => Err(why),
        }
    };
    let fails = job.on_error == OnError::Fail;
    let asked = ("job", &target, job.job.as_str());
    match told(walk, step, asked, stops && fails, work).await? {
        Err(why) if fails || always => Err(Stopped(format!("{}: {why}", step.name)).into()),
        _ => Ok(()),
    }
}

/// Makes a job, or takes the one of its name as it is, and waits until it is over.
async fn run(
    cluster: &Cluster,
    owner: &Owner,
    job: &Job,
    deadline: &Deadline,
) -> Result<(), Trouble> {
    let reference = ObjRef::new(JOB, &job.namespace, &job.job);
    match cluster.read(&reference).await {
        Ok(_) => {}
        Err(Error::NotFound { .. }) => {
            let object = object(job).map_err(Trouble::Unmade)?;
            let made = cluster.create(owner, object).await;
            made.map_err(|error| Trouble::Unmade(error.to_string()))?;
        }
        Err(error) => return Err(Trouble::Unmade(error.to_string())),
    }
    let waiting = format!("{reference} to complete");
    let over = repeat(deadline, &waiting, Wake::paced(), || async {
        let seen = cluster.read(&reference).await?;
        let holds = |of: &str| {
            let conditions = seen.pointer("/status/conditions").and_then(Value::as_array);
            let mut all = conditions.into_iter().flatten();
            all.any(|one| one["type"] == of && one["status"] == "True")
        };
        let count = |of: &str| seen["status"][of].as_u64().unwrap_or(0);
        Ok(if holds("Complete") {
            Seen::Met(Ok(()))
        } else if holds("Failed") {
            let (good, bad) = (count("succeeded"), count("failed"));
            Seen::Met(Err(format!("job failed: succeeded={good}, failed={bad}")))
        } else {
            Seen::Not(format!("{} of its pods are active", count("active")))
        })
    });
    let over = over
        .await
        .map_err(|error| Trouble::Failed(error.to_string()))?;
    over.map_err(Trouble::Failed)
}

/// The object: the template under the hook's own name and namespace.
fn object(job: &Job) -> Result<Value, String> {
    let name = &job.job;
    let template = job.template.as_ref();
    let text =
        template.ok_or_else(|| format!("job template '{name}' not found in recipe jobs field"))?;
    let mut object: Value = serde_saphyr::from_str(text)
        .map_err(|error| format!("failed to parse job template for '{name}': {error}"))?;
    if !object.is_object() {
        return Err(format!(
            "failed to parse job template for '{name}': no mapping"
        ));
    }
    object["apiVersion"] = json!("batch/v1");
    object["kind"] = json!("Job");
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    let metadata = &mut object["metadata"];
    metadata["name"] = json!(name);
    metadata["namespace"] = json!(job.namespace);
    if !metadata["labels"].is_object() {
        metadata["labels"] = json!({});
    }
    metadata["labels"]["ramendr.openshift.io/hook-name"] = json!(job.hook);
    metadata["labels"]["ramendr.openshift.io/job-name"] = json!(name);
    Ok(object)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::cluster::testing::Fake;
    use crate::cluster::undo::UndoLog;
    use crate::history::event::Site;

    const PATH: &str = "/apis/batch/v1/namespaces/n/jobs/quiesce";
    const TEMPLATE: &str = "metadata: {name: other, labels: {app: db}}\nspec: {template: {}}\n";

    fn job(template: Option<&str>) -> Job {
        Job {
            hook: "db".into(),
            job: "quiesce".into(),
            namespace: "n".into(),
            template: template.map(str::to_owned),
            timeout: Duration::from_millis(300),
            on_error: OnError::Fail,
        }
    }

    async fn done(fake: &Fake, job: &Job) -> Result<(), Trouble> {
        let dir = tempfile::tempdir().expect("a directory");
        let log = UndoLog::create(&dir.path().join("undo.jsonl"), "run-1").expect("a log");
        let owner = Owner::new("run-1", log);
        let deadline = Deadline::after(job.timeout, &CancellationToken::new());
        run(&fake.cluster(Site::Primary), &owner, job, &deadline).await
    }

    #[test]
    fn a_job_bears_the_names_of_its_hook() {
        let made = object(&job(Some(TEMPLATE))).expect("an object");
        assert_eq!(
            (&made["metadata"]["name"], &made["kind"]),
            (&json!("quiesce"), &json!("Job"))
        );
        let labels = &made["metadata"]["labels"];
        assert_eq!(
            (&labels["app"], &labels["ramendr.openshift.io/hook-name"]),
            (&json!("db"), &json!("db"))
        );
        assert!(object(&job(Some("- a\n"))).is_err_and(|why| why.contains("no mapping")));
        assert!(object(&job(Some("a: [\n"))).is_err_and(|why| why.contains("parse")));
    }

    #[tokio::test]
    async fn a_job_that_is_not_in_the_recipe_is_an_error_whatever_is_declared() {
        let fake = Fake::start().await;
        let missing = done(&fake, &job(None)).await;
        assert!(
            matches!(missing, Err(Trouble::Unmade(why)) if why.contains("not found in recipe"))
        );
    }

    #[tokio::test]
    async fn a_job_that_stands_there_is_taken_as_it_is() {
        let fake = Fake::start().await;
        let stands = |condition: &str| {
            let status =
                json!({"conditions": [{"type": condition, "status": "True"}], "failed": 1});
            fake.put(
                PATH,
                json!({"metadata": {"name": "quiesce", "namespace": "n"}, "status": status}),
            );
        };
        stands("Complete");
        assert_eq!(done(&fake, &job(None)).await, Ok(()));
        stands("Failed");
        let failed = done(&fake, &job(None)).await;
        assert_eq!(
            failed,
            Err(Trouble::Failed("job failed: succeeded=0, failed=1".into()))
        );
        stands("Suspended");
        assert!(
            matches!(done(&fake, &job(None)).await, Err(Trouble::Failed(_))),
            "too late"
        );
    }
}
