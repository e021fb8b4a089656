//! Freezing and thawing a guest from a Recipe.

use super::{Case, rules};
use crate::lint::object::{Findings, Kind, Object};
use crate::workload::recipe::{Exec, Inverse, OnError, Step, Work};

rules! {
    NOT_GUEST = "recipe-freeze-not-guest" Error
        "A freeze command in the launcher pod acts on the pod's own mounts, without privileges; the guest is not touched."
        fix "Run `/usr/bin/virt-freezer --freeze --name VM --namespace NS` in container `compute`."
        source "KubeVirt: launcher pod and virt-freezer";
    CONTAINER = "recipe-container" Error
        "The launcher pod's container is `compute`; `virt-launcher` is only the prefix of its name. The command fails where there is no such container."
        fix "Write `container: compute`."
        source "KubeVirt: launcher pod";
    CONTAINER_UNSET = "recipe-container-unset" Warning
        "Without `container` the command runs in the pod's first one, which need not be the one with virt-freezer."
        fix "Write `container: compute`."
        source "Ramen: exec hook";
    NO_INVERSE = "recipe-freeze-no-inverse" Error
        "An exec operation without `inverseOp` never fails: a freeze that did not happen counts as executed, and one that failed halfway is not taken back."
        fix "Write `inverseOp: thaw` on the freeze."
        source "Ramen: exec hook";
    CONTINUE = "recipe-freeze-continue" Error
        "With `onError: continue` a failed freeze counts as done, its inverse is not run, and the capture goes on unfrozen."
        fix "Take `onError: fail` for the freeze."
        source "Ramen: exec hook";
    NO_THAW = "recipe-freeze-without-thaw" Error
        "Nothing thaws by itself but the timer of virt-freezer: until then the guest's writes hang."
        fix "Put the thaw after the groups, in the same workflow."
        source "Ramen: recipe execution; KubeVirt: virt-freezer";
    FOREVER = "recipe-freeze-forever" Error
        "With `--unfreezeTimeoutSeconds 0` no timer thaws. When a group fails the thaw never runs, and the guest hangs until somebody finds out."
        fix "Give a timer a little longer than the slowest capture, such as 300."
        source "KubeVirt: virt-freezer";
    TIMER_DEFAULT = "recipe-freeze-timer" Warning
        "Without `--unfreezeTimeoutSeconds` the guest thaws silently 300 s after the first freeze; a freeze that is repeated does not arm it again."
        fix "Give `--unfreezeTimeoutSeconds`, longer than the slowest capture."
        source "KubeVirt: virt-freezer";
    TIMEOUT_OVER = "recipe-freeze-timeout" Warning
        "An operation that may take longer than the freezer's timer can return when the guest has thawed again."
        fix "Make the operation's timeout shorter than `--unfreezeTimeoutSeconds`."
        source "Ramen: hook defaults; KubeVirt: virt-freezer";
    FLAGS = "recipe-freezer-flags" Error
        "virt-freezer wants one of --freeze and --unfreeze, --name and --namespace, and ends with 1 on any flag that it does not know."
        fix "Write `virt-freezer --freeze --name VM --namespace NS --unfreezeTimeoutSeconds 300`."
        source "KubeVirt: virt-freezer";
    NAMESPACE = "recipe-freezer-namespace" Error
        "virt-freezer talks to the launcher that it runs in, for the VM that it is told; in another namespace there is none."
        fix "Give the hook's namespace."
        source "KubeVirt: virt-freezer";
    NOT_REPLICA = "recipe-freeze-not-replica" Note
        "Hooks bracket the capture of Kubernetes objects only. Mirror snapshots and VolSync follow their own schedule, so what fails over is crash-consistent at best."
        fix "Prove what the replica holds: `virtproof run --only recipe.freeze-covers-replica`."
        source "Ramen: recipe execution";
    NO_FINALLY = "recipe-no-finally" Note
        "A thaw runs only if the sequence reaches it: not after a failed group, nor when the controller gives up after 10 passes. The freeze lasts as long as Velero takes, over all passes."
        fix "Keep the freezer's timer as the safety, and watch fsFreezeStatus from outside."
        source "Ramen: recipe execution";
    EXIT_ZERO = "recipe-freezer-exit-zero" Note
        "virt-freezer ends with 0 when the guest has no agent, and when the domain does not run: the hook succeeds and nothing was frozen."
        fix "Look for `fsFreezeStatus: frozen` on the VMI, and for the stalled writer in the guest."
        source "KubeVirt: virt-freezer";
    THAW_UNSEEN = "recipe-thaw-unverified" Note
        "A thaw without `inverseOp` never fails, so a guest that stays frozen is not reported."
        fix "Watch the VMI until fsFreezeStatus is gone."
        source "Ramen: exec hook";
    VELERO = "recipe-velero-thaws" Warning
        "Velero runs the launcher pod's own backup hooks when the group captures pods: its post hook thaws the guest before the Recipe does, and fails on a paused VM."
        fix "Exclude `pods` from the group, or annotate the VM with `kubevirt.io/skip-backup-hooks: \"true\"`."
        source "KubeVirt: backup hook annotations; Ramen issue 1727";
}

/// A virt-freezer command line.
#[derive(Debug, Default)]
pub(in crate::lint) struct Freezer {
    freeze: bool,
    thaw: bool,
    pub(in crate::lint) name: Option<String>,
    pub(in crate::lint) namespace: Option<String>,
    timer: Option<String>,
    unknown: Vec<String>,
}

impl Freezer {
    /// Reads the words of a command, if it is one.
    pub(in crate::lint) fn of(exec: &Exec) -> Option<Self> {
        let words = exec.command.as_ref().ok()?;
        let (program, flags) = words.split_first()?;
        if program.rsplit('/').next() != Some("virt-freezer") {
            return None;
        }
        let mut found = Self::default();
        let mut flags = flags.iter();
        while let Some(flag) = flags.next() {
            let (name, mut value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag.as_str(), None),
            };
            let mut next = || value.take().or_else(|| flags.next().cloned());
            match name {
                "--freeze" => found.freeze = true,
                "--unfreeze" => found.thaw = true,
                "--name" => found.name = next(),
                "--namespace" => found.namespace = next(),
                "--unfreezeTimeoutSeconds" => found.timer = next(),
                other => found.unknown.push(other.to_owned()),
            }
        }
        Some(found)
    }

    /// What virt-freezer would end with 1 for.
    fn wrong(&self) -> Option<String> {
        if let Some(flag) = self.unknown.first() {
            return Some(format!("it has no `{flag}`"));
        }
        if self.freeze == self.thaw {
            return Some("it must be told exactly one of --freeze and --unfreeze".to_owned());
        }
        let missing = [("--name", &self.name), ("--namespace", &self.namespace)];
        let missing = missing.into_iter().find(|(_, value)| value.is_none());
        missing.map(|(flag, _)| format!("`{flag}` is missing"))
    }
}

/// Whether an operation freezes a guest, or tries to.
pub(in crate::lint) fn freezes(exec: &Exec) -> bool {
    Freezer::of(exec).map_or_else(|| freezes_pod(exec) == Some(true), |freezer| freezer.freeze)
}

fn thaws(exec: &Exec) -> bool {
    Freezer::of(exec).map_or_else(|| freezes_pod(exec) == Some(false), |freezer| freezer.thaw)
}

/// Whether a command freezes (`true`) or thaws (`false`) file systems of the pod itself.
fn freezes_pod(exec: &Exec) -> Option<bool> {
    let words = exec.command.as_ref().ok()?;
    let all: Vec<&str> = words
        .iter()
        .flat_map(|word| word.split_whitespace())
        .collect();
    let at = all
        .iter()
        .position(|word| matches!(word.rsplit('/').next(), Some("fsfreeze" | "xfs_freeze")))?;
    let thaws = all[at..]
        .iter()
        .any(|word| matches!(*word, "-u" | "--unfreeze"));
    Some(!thaws)
}

/// Whether a hook works on launcher pods.
pub(in crate::lint) fn on_launcher(exec: &Exec) -> bool {
    let labelled = exec.target.labels.as_ref().is_some_and(|selector| {
        let text = serde_json::to_string(selector).unwrap_or_default();
        ["virt-launcher", "vm.kubevirt.io/name", "kubevirt.io/domain"]
            .iter()
            .any(|word| text.contains(word))
    });
    let named = exec
        .target
        .names
        .as_ref()
        .is_some_and(|names| names.contains("virt-launcher"));
    let contained = matches!(exec.container.as_deref(), Some("compute" | "virt-launcher"));
    labelled || named || contained || Freezer::of(exec).is_some()
}

pub(super) fn check(case: &Case<'_>, out: &mut Findings) {
    for hook in &case.recipe.hooks {
        for op in &hook.ops {
            let name = format!("{}/{}", hook.name, op.name);
            if let Some(exec) = case.recipe.operation(&name) {
                operation(case, &exec, &op.path, out);
            }
        }
    }
    for workflow in ["backup", "restore"] {
        sequence(case, workflow, out);
    }
}

/// What is wrong with one operation, wherever it is used.
fn operation(case: &Case<'_>, exec: &Exec, path: &str, out: &mut Findings) {
    if !on_launcher(exec) {
        return;
    }
    let object = case.object;
    let command = format!("{path}/command");
    if freezes_pod(exec).is_some() {
        out.add(
            NOT_GUEST,
            object,
            &command,
            format!("`{}` does not reach the guest", exec.text),
        );
    }
    if exec.container.as_deref() == Some("virt-launcher") {
        out.add(
            CONTAINER,
            object,
            &format!("{path}/container"),
            "there is no container `virt-launcher`",
        );
    }
    let Some(freezer) = Freezer::of(exec) else {
        return;
    };
    if exec.container.is_none() {
        out.add(
            CONTAINER_UNSET,
            object,
            path,
            format!("`{}` names no container", exec.op),
        );
    }
    if let Some(wrong) = freezer.wrong() {
        out.add(FLAGS, object, &command, wrong);
    }
    if let Some(namespace) = freezer
        .namespace
        .as_ref()
        .filter(|ns| **ns != exec.target.namespace)
    {
        let what = format!(
            "the command says `{namespace}`, the hook `{}`",
            exec.target.namespace
        );
        out.add(NAMESPACE, object, &command, what);
    }
    if freezer.freeze {
        timer(case, exec, &freezer, path, out);
    }
}

fn timer(case: &Case<'_>, exec: &Exec, freezer: &Freezer, path: &str, out: &mut Findings) {
    let command = format!("{path}/command");
    let seconds = freezer
        .timer
        .as_ref()
        .and_then(|text| text.parse::<u64>().ok());
    match (&freezer.timer, seconds) {
        (_, Some(0)) => out.add(FOREVER, case.object, &command, "the freeze has no timer"),
        (None, _) => out.add(
            TIMER_DEFAULT,
            case.object,
            &command,
            "the freeze thaws after 300 s",
        ),
        (Some(_), Some(seconds)) if exec.timeout.as_secs() >= seconds => {
            let what = format!(
                "it may take {} s, and the timer is {seconds} s",
                exec.timeout.as_secs()
            );
            out.add(TIMEOUT_OVER, case.object, path, what);
        }
        (Some(text), None) if case.complete => {
            let what = format!("`{text}` is no number of seconds");
            out.add(FLAGS, case.object, &command, what);
        }
        _ => {}
    }
}

/// What is wrong with freezing in a workflow.
fn sequence(case: &Case<'_>, workflow: &str, out: &mut Findings) {
    let steps: Vec<_> = case
        .steps
        .iter()
        .filter(|(name, _)| name == workflow)
        .map(|(_, step)| step)
        .collect();
    for (index, step) in steps.iter().enumerate() {
        let Work::Exec(exec) = &step.work else {
            continue;
        };
        let path = case.op_path(exec);
        if thaws(exec) && exec.inverse == Inverse::None {
            out.add(
                THAW_UNSEEN,
                case.object,
                &path,
                format!("a failure of `{}` is not seen", step.name),
            );
        }
        if !freezes(exec) {
            continue;
        }
        if exec.inverse == Inverse::None {
            out.add(
                NO_INVERSE,
                case.object,
                &path,
                format!("`{}` has no inverseOp", step.name),
            );
        }
        if exec.on_error == OnError::Continue {
            out.add(
                CONTINUE,
                case.object,
                &path,
                format!("a failed `{}` counts as done", step.name),
            );
        }
        let later = &steps[index + 1..];
        let thaw = later
            .iter()
            .position(|step| matches!(&step.work, Work::Exec(exec) if thaws(exec)));
        if thaw.is_none() {
            let what = format!("nothing after `{}` thaws in `{workflow}`", step.name);
            out.add(NO_THAW, case.object, &step.path, what);
        }
        let inside = &later[..thaw.unwrap_or(later.len())];
        pods(case, inside, out);
        for (rule, what) in [
            (NOT_REPLICA, "the freeze says nothing of the replica"),
            (NO_FINALLY, "a failed group leaves the guest frozen"),
            (EXIT_ZERO, "the freeze can succeed without freezing"),
        ] {
            out.add(rule, case.object, &step.path, what);
        }
        if on_launcher(exec) {
            let what = format!("`{}` runs in Completed launchers too", step.name);
            out.add(super::hooks::COMPLETED, case.object, &step.path, what);
        }
    }
}

/// Groups between freeze and thaw that let Velero run the launcher's own hooks.
fn pods(case: &Case<'_>, steps: &[&Step], out: &mut Findings) {
    let quiet = |vm: &Object| {
        let key = "kubevirt.io/skip-backup-hooks";
        let inner = &vm.get("spec/template/metadata")["annotations"][key];
        vm.annotated(key, "true") || inner == "true"
    };
    let vms = case.set.of(Kind::Vm);
    let mut near = vms
        .filter(|vm| vm.beside(&case.object.namespace))
        .peekable();
    if near.peek().is_some() && near.all(quiet) {
        return;
    }
    let is_pods = |name: &String| matches!(name.as_str(), "pod" | "pods" | "*");
    for step in steps {
        let Work::Group { group, .. } = &step.work else {
            continue;
        };
        let included = group.included_types.is_empty() || group.included_types.iter().any(is_pods);
        if included && !group.excluded_types.iter().any(is_pods) {
            let what = format!("the group `{}` captures launcher pods", group.name);
            out.add(VELERO, case.object, &group.path, what);
        }
    }
}
