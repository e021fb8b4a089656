//! A Recipe as the API server keeps it, with the controller's defaults at hand.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::Value;

/// How long an operation, a check or a scale may take when nothing says otherwise. The API's own
/// comment says 30 s; the controller takes 300.
pub const TIMEOUT: Duration = Duration::from_secs(300);

/// Unfinished or failed passes over a workflow in a row, after which the controller gives up.
pub const MAX_ATTEMPTS: u32 = 10;

/// A Recipe.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`.
    pub namespace: Option<String>,
    /// `spec.appType`: required, and nobody reads it.
    pub app_type: String,
    /// `spec.volumes`: takes the place of the pvcSelector of the VRG that refers to the Recipe.
    pub volumes: Option<Group>,
    /// `spec.groups`.
    pub groups: Vec<Group>,
    /// `spec.hooks`.
    pub hooks: Vec<Hook>,
    /// `spec.workflows`.
    pub workflows: Vec<Workflow>,
    /// The whole object as it was read; parameters are expanded in its `spec`.
    pub object: Value,
}

/// A group of `spec.groups`, or `spec.volumes`.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// Where it stands in the object, such as `spec/groups/0`.
    pub path: String,
    /// Name.
    pub name: String,
    /// Volumes or resources.
    pub kind: GroupKind,
    /// `backupRef`: of a restore group, the backup group to restore from.
    pub backup_ref: Option<String>,
    /// `includedNamespaces`.
    pub included_namespaces: Vec<String>,
    /// `includedResourceTypes`; empty for all.
    pub included_types: Vec<String>,
    /// `excludedResourceTypes`.
    pub excluded_types: Vec<String>,
    /// `labelSelector`.
    pub selector: Option<LabelSelector>,
    /// `includeClusterResources`: unset is false, whatever the API's comment says.
    pub cluster_resources: Option<bool>,
    /// `essential`: unset is false, whatever the API's comment says.
    pub essential: Option<bool>,
}

/// `type` of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GroupKind {
    /// `volume`.
    Volume,
    /// `resource`.
    #[default]
    Resource,
}

/// A hook.
#[derive(Debug, Clone, PartialEq)]
pub struct Hook {
    /// Where it stands in the object, such as `spec/hooks/0`.
    pub path: String,
    /// Name.
    pub name: String,
    /// The namespace of what it works on.
    pub namespace: String,
    /// What it does.
    pub kind: HookKind,
    /// `selectResource` as it is written.
    pub resource: Option<String>,
    /// `labelSelector`.
    pub selector: Option<LabelSelector>,
    /// `nameSelector`.
    pub names: Option<String>,
    /// `singlePodOnly`.
    pub single_pod: bool,
    /// `onError`: the API server fills in `fail`.
    pub on_error: OnError,
    /// `timeout` in seconds.
    pub timeout: Option<i64>,
    /// `essential`: unset is false, whatever the API's comment says.
    pub essential: Option<bool>,
    /// `skipHookIfNotPresent`, which older CRDs prune.
    pub skip_if_absent: bool,
    /// `ops`.
    pub ops: Vec<Op>,
    /// `chks`.
    pub checks: Vec<Check>,
}

/// `type` of a hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HookKind {
    /// A command in pods.
    #[default]
    Exec,
    /// The replicas of Deployments and StatefulSets.
    Scale,
    /// A condition on objects.
    Check,
    /// A Job; only newer CRDs know it.
    Job,
}

impl HookKind {
    /// As it is written.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Scale => "scale",
            Self::Check => "check",
            Self::Job => "job",
        }
    }
}

/// An operation of an exec hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Op {
    /// Where it stands in the object, such as `spec/hooks/0/ops/1`.
    pub path: String,
    /// Name.
    pub name: String,
    /// The container; unset is the pod's first.
    pub container: Option<String>,
    /// The command as it is written; [`super::argv`] makes words of it.
    pub command: String,
    /// `onError` as it is written: the CRD takes any text, and all but `continue` is `fail`.
    pub on_error: Option<String>,
    /// `timeout` in seconds.
    pub timeout: Option<i64>,
    /// `inverseOp`: `op`, `/op` or `hook/op`.
    pub inverse: Option<String>,
}

/// A check of a check hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Where it stands in the object, such as `spec/hooks/0/chks/1`.
    pub path: String,
    /// Name.
    pub name: String,
    /// The condition; [`super::Expression`] reads it.
    pub condition: String,
    /// `onError` as it is written: the CRD takes any text, and all but `continue` is `fail`.
    pub on_error: Option<String>,
    /// `timeout` in seconds.
    pub timeout: Option<i64>,
}

/// A workflow as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workflow {
    /// Where it stands in the object, such as `spec/workflows/0`.
    pub path: String,
    /// Name. Only `backup` and `restore` are ever looked up.
    pub name: String,
    /// `failOn`.
    pub fail_on: FailOn,
    /// `sequence`: each entry is a mapping. Of one with several keys the controller keeps one, and
    /// which is up to chance; here they follow each other.
    pub sequence: Vec<Vec<(String, String)>>,
}

/// What happens to the workflow when an operation fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnError {
    /// The step fails.
    #[default]
    Fail,
    /// As if it had not failed.
    Continue,
}

impl OnError {
    /// Of the operation's own words, else the hook's: `continue` continues, everything else fails.
    pub(super) fn of(own: Option<&str>, hook: Self) -> Self {
        match own {
            None | Some("") => hook,
            Some("continue") => Self::Continue,
            Some(_) => Self::Fail,
        }
    }

    /// As it is written.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::Continue => "continue",
        }
    }
}

/// Which failed steps stop a workflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FailOn {
    /// The first.
    #[default]
    AnyError,
    /// The first with `essential: true`.
    EssentialError,
    /// None: it fails when every step did.
    FullError,
}

impl FailOn {
    /// As it is written.
    pub const fn text(self) -> &'static str {
        match self {
            Self::AnyError => "any-error",
            Self::EssentialError => "essential-error",
            Self::FullError => "full-error",
        }
    }
}

/// The first of the timeouts that is not zero, else [`TIMEOUT`]. A negative one is over at once.
pub(super) fn timeout(own: Option<i64>, hook: Option<i64>) -> Duration {
    [own, hook]
        .into_iter()
        .flatten()
        .find(|seconds| *seconds != 0)
        .map_or(TIMEOUT, |seconds| {
            Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
        })
}
