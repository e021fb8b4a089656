//! A workflow as a list of steps with everything that an executor needs to know of each.

use std::time::Duration;

use super::command::{CommandError, argv};
use super::expression::Expression;
use super::model::{Check, FailOn, Group, Hook, HookKind, OnError, Op, Recipe, Workflow, timeout};
use super::target::Target;

/// A resolved workflow.
#[derive(Debug, Clone, PartialEq)]
pub struct Flow {
    /// `backup` or `restore`.
    pub name: String,
    /// Which failed steps stop it.
    pub fail_on: FailOn,
    /// Its steps, in order. Every pass starts with the first again.
    pub steps: Vec<Step>,
}

/// A step of a workflow.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Where it stands in the Recipe, such as `spec/workflows/0/sequence/1`.
    pub path: String,
    /// What the sequence calls it: `hook/op` or a group's name.
    pub name: String,
    /// Whether its failure stops a workflow that fails on essential errors.
    pub essential: bool,
    /// What it does.
    pub work: Work,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq)]
pub enum Work {
    /// A command in pods.
    Exec(Exec),
    /// A condition on objects.
    Check(Condition),
    /// The replicas of Deployments or StatefulSets.
    Scale(Scale),
    /// A Job from `spec.jobs`.
    Job(Job),
    /// Kubernetes objects, captured or restored. `from` is the backup group to restore from.
    Group {
        /// The group.
        group: Group,
        /// Whose backup a restore takes.
        from: String,
    },
    /// The volumes group: an unfiltered capture or restore without a name is left in its place.
    Volumes(Group),
    /// The hook has no such operation or check: the step is passed over in silence.
    Nothing,
}

/// An operation of an exec hook.
#[derive(Debug, Clone, PartialEq)]
pub struct Exec {
    /// The hook's name.
    pub hook: String,
    /// The operation's name.
    pub op: String,
    /// Which pods, or whose.
    pub target: Target,
    /// Only the first of them.
    pub single_pod: bool,
    /// The container; `None` is the pod's first.
    pub container: Option<String>,
    /// The command as it is written.
    pub text: String,
    /// Its words. When there are none the controller logs that, and goes on as with no pods.
    pub command: Result<Vec<String>, CommandError>,
    /// How long one pod may take.
    pub timeout: Duration,
    /// Whether a failure fails the step.
    pub on_error: OnError,
    /// What takes it back.
    pub inverse: Inverse,
}

/// What takes an operation back when it fails.
#[derive(Debug, Clone, PartialEq)]
pub enum Inverse {
    /// Nothing: and then a failure is not even reported.
    None,
    /// This operation, whose own failure is only logged.
    Op(Box<Exec>),
    /// There is no operation of this name: the failure is reported, nothing is taken back.
    Missing(String),
}

impl Exec {
    /// Whether a failed command makes the step fail. The controller returns the error only where it
    /// also runs an inverse operation, so without `inverseOp` every failure counts as success.
    pub fn failure_counts(&self) -> bool {
        self.on_error == OnError::Fail && self.inverse != Inverse::None
    }
}

/// A check of a check hook.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// The hook's name.
    pub hook: String,
    /// The check's name.
    pub check: String,
    /// Which objects; all of them must satisfy the condition.
    pub target: Target,
    /// The condition as it is written.
    pub text: String,
    /// The condition.
    pub expression: Expression,
    /// How long to wait until there is an object. Then the condition is evaluated once.
    pub timeout: Duration,
    /// Whether a condition that does not hold fails the step. One that cannot be evaluated always does.
    pub on_error: OnError,
    /// Whether no object at all is a success.
    pub skip_if_absent: bool,
}

/// An operation of a scale hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScaleOp {
    /// To none; the number is kept in an annotation.
    Down,
    /// Back to the number in the annotation.
    Up,
    /// Waits until as many are ready as are wanted.
    Sync,
    /// The controller refuses anything else when it comes to it.
    Unknown(String),
}

/// A scale step.
#[derive(Debug, Clone, PartialEq)]
pub struct Scale {
    /// The hook's name.
    pub hook: String,
    /// What to do.
    pub op: ScaleOp,
    /// Which Deployments or StatefulSets; none is an error.
    pub target: Target,
    /// How long `sync` may take.
    pub timeout: Duration,
}

/// A step that is a Job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The hook's name.
    pub hook: String,
    /// The job's name, of the object and in `spec.jobs`.
    pub job: String,
    /// The hook's namespace.
    pub namespace: String,
    /// What `spec.jobs` says of it, as text; CRDs that do not know the field prune it.
    pub template: Option<String>,
    /// How long it may take.
    pub timeout: Duration,
    /// Whether its failure fails the step. That there is no such job always does.
    pub on_error: OnError,
}

/// Why a workflow cannot be resolved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// The reference is not `hook/op`.
    #[error("`{reference}` is not of the form hook/op")]
    Reference {
        /// Where.
        path: String,
        /// What stands there.
        reference: String,
    },
    /// No hook has the name.
    #[error("there is no hook `{hook}`")]
    Hook {
        /// Where.
        path: String,
        /// Its name.
        hook: String,
    },
    /// No group has the name, and `spec.volumes` is there.
    #[error("there is no group `{group}`")]
    Group {
        /// Where.
        path: String,
        /// Its name.
        group: String,
    },
    /// No group has the name and there is no `spec.volumes`: the controller looks there and panics.
    #[error("there is no group `{group}` and no spec.volumes: the controller panics")]
    Panic {
        /// Where.
        path: String,
        /// The group's name.
        group: String,
    },
    /// Neither `group` nor `hook`.
    #[error("`{key}` is neither `group` nor `hook`")]
    Key {
        /// Where.
        path: String,
        /// The key.
        key: String,
    },
    /// No step is a group.
    #[error("a workflow must contain at least one group")]
    NoGroup {
        /// Where.
        path: String,
    },
}

impl Unresolved {
    /// Where it stands in the object.
    pub fn path(&self) -> &str {
        match self {
            Self::Reference { path, .. }
            | Self::Hook { path, .. }
            | Self::Group { path, .. }
            | Self::Panic { path, .. }
            | Self::Key { path, .. }
            | Self::NoGroup { path } => path,
        }
    }
}

impl Recipe {
    /// The workflow of a name, if there is one. Only `backup` and `restore` are ever looked up.
    pub fn workflow(&self, name: &str) -> Option<&Workflow> {
        self.workflows.iter().find(|workflow| workflow.name == name)
    }

    /// Resolves the workflow of a name; `None` if there is none, which makes the controller capture or
    /// restore whole namespaces without a hook.
    pub fn flow(&self, name: &str) -> Option<Result<Flow, Unresolved>> {
        self.workflow(name).map(|workflow| self.resolve(workflow))
    }

    /// Resolves a workflow, whatever its name.
    pub fn resolve(&self, workflow: &Workflow) -> Result<Flow, Unresolved> {
        let sequence = &workflow.sequence;
        let has_group = sequence.iter().flatten().any(|(key, _)| key == "group");
        if !sequence.is_empty() && !has_group {
            let path = format!("{}/sequence", workflow.path);
            return Err(Unresolved::NoGroup { path });
        }
        Ok(Flow {
            name: workflow.name.clone(),
            fail_on: workflow.fail_on,
            steps: self.steps(workflow).into_iter().collect::<Result<_, _>>()?,
        })
    }

    /// The steps of a workflow, each resolved or not.
    pub fn steps(&self, workflow: &Workflow) -> Vec<Result<Step, Unresolved>> {
        let restores = workflow.name == "restore";
        let mut steps = Vec::new();
        for (index, entry) in workflow.sequence.iter().enumerate() {
            for (key, name) in entry {
                let path = format!("{}/sequence/{index}", workflow.path);
                steps.push(self.step(path, key, name, restores));
            }
        }
        steps
    }

    fn step(
        &self,
        path: String,
        key: &str,
        name: &str,
        restores: bool,
    ) -> Result<Step, Unresolved> {
        let (essential, work) = match key {
            "group" => self.group_step(&path, name, restores)?,
            "hook" => self.hook_step(&path, name)?,
            key => {
                let key = key.to_owned();
                return Err(Unresolved::Key { path, key });
            }
        };
        Ok(Step {
            path,
            name: name.to_owned(),
            essential,
            work,
        })
    }

    fn group_step(
        &self,
        path: &str,
        name: &str,
        restores: bool,
    ) -> Result<(bool, Work), Unresolved> {
        if let Some(group) = self.groups.iter().find(|group| group.name == name) {
            // Restores never look at a group's `essential`.
            let essential = !restores && group.essential.unwrap_or_default();
            let from = group.backup_ref.clone().unwrap_or_else(|| name.to_owned());
            let group = group.clone();
            return Ok((essential, Work::Group { group, from }));
        }
        let (path, group) = (path.to_owned(), name.to_owned());
        match &self.volumes {
            Some(volumes) if volumes.name == name => Ok((false, Work::Volumes(volumes.clone()))),
            Some(_) => Err(Unresolved::Group { path, group }),
            None => Err(Unresolved::Panic { path, group }),
        }
    }

    fn hook_step(&self, path: &str, name: &str) -> Result<(bool, Work), Unresolved> {
        let Some((hook, part)) = name.split_once('/').filter(|(_, part)| !part.contains('/'))
        else {
            return Err(Unresolved::Reference {
                path: path.to_owned(),
                reference: name.to_owned(),
            });
        };
        let Some(hook) = self.hook(hook) else {
            return Err(Unresolved::Hook {
                path: path.to_owned(),
                hook: hook.to_owned(),
            });
        };
        let work = match hook.kind {
            HookKind::Exec => {
                let op = hook.ops.iter().find(|op| op.name == part);
                op.map_or(Work::Nothing, |op| Work::Exec(self.exec(hook, op, true)))
            }
            HookKind::Check => {
                let check = hook.checks.iter().find(|check| check.name == part);
                check.map_or(Work::Nothing, |check| Work::Check(condition(hook, check)))
            }
            HookKind::Scale => Work::Scale(scale(hook, part)),
            HookKind::Job => Work::Job(self.job(hook, part)),
        };
        Ok((hook.essential.unwrap_or_default(), work))
    }

    /// An operation of an exec hook by its reference, `hook/op`.
    pub fn operation(&self, reference: &str) -> Option<Exec> {
        let (hook, op) = reference.split_once('/')?;
        let hook = self.hook(hook).filter(|hook| hook.kind == HookKind::Exec)?;
        let op = hook.ops.iter().find(|candidate| candidate.name == op)?;
        Some(self.exec(hook, op, true))
    }

    /// The hook of a name.
    pub fn hook(&self, name: &str) -> Option<&Hook> {
        self.hooks.iter().find(|hook| hook.name == name)
    }

    /// An inverse operation's own inverse is never run, so none is looked up for it.
    fn exec(&self, hook: &Hook, op: &Op, with_inverse: bool) -> Exec {
        let inverse = match &op.inverse {
            Some(reference) if with_inverse => self.inverse(hook, reference),
            _ => Inverse::None,
        };
        Exec {
            hook: hook.name.clone(),
            op: op.name.clone(),
            target: Target::of(hook),
            single_pod: hook.single_pod,
            container: op.container.clone(),
            text: op.command.clone(),
            command: argv(&op.command),
            timeout: timeout(op.timeout, hook.timeout),
            on_error: OnError::of(op.on_error.as_deref(), hook.on_error),
            inverse,
        }
    }

    fn job(&self, hook: &Hook, name: &str) -> Job {
        let jobs = self.object["spec"]["jobs"].as_array();
        let mut named = jobs.into_iter().flatten().filter_map(|job| job.get(name));
        Job {
            hook: hook.name.clone(),
            job: name.to_owned(),
            namespace: hook.namespace.clone(),
            template: named.find_map(|text| text.as_str().map(str::to_owned)),
            timeout: timeout(None, hook.timeout),
            on_error: hook.on_error,
        }
    }

    /// `op` and `/op` are the hook's own, `hook/op` another's.
    fn inverse(&self, own: &Hook, reference: &str) -> Inverse {
        let (hook, op) = match reference.split_once('/') {
            Some(("", op)) => (Some(own), op),
            Some((hook, op)) => (self.hook(hook), op),
            None => (Some(own), reference),
        };
        let found = hook.and_then(|hook| {
            let op = hook.ops.iter().find(|candidate| candidate.name == op)?;
            Some(Box::new(self.exec(hook, op, false)))
        });
        found.map_or_else(|| Inverse::Missing(reference.to_owned()), Inverse::Op)
    }
}

fn condition(hook: &Hook, check: &Check) -> Condition {
    Condition {
        hook: hook.name.clone(),
        check: check.name.clone(),
        target: Target::of(hook),
        text: check.condition.clone(),
        expression: Expression::parse(&check.condition),
        timeout: timeout(check.timeout, hook.timeout),
        on_error: OnError::of(check.on_error.as_deref(), hook.on_error),
        skip_if_absent: hook.skip_if_absent,
    }
}

fn scale(hook: &Hook, op: &str) -> Scale {
    Scale {
        hook: hook.name.clone(),
        op: match op {
            "up" => ScaleOp::Up,
            "down" => ScaleOp::Down,
            "sync" => ScaleOp::Sync,
            other => ScaleOp::Unknown(other.to_owned()),
        },
        target: Target::of(hook),
        timeout: timeout(None, hook.timeout),
    }
}
