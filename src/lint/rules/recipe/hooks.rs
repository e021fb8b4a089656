//! The hooks of a Recipe: exec, check, scale and job.

use super::{Case, rules};
use crate::lint::object::{Findings, Object};
use crate::workload::recipe::{
    Check, Exec, Expression, Hook, HookKind, Inverse, Names, OnError, Op, ScaleOp, Step, Work, argv,
};

rules! {
    NO_SELECTOR = "recipe-hook-no-selector" Error
        "An exec or check hook without labelSelector and nameSelector is an error when it comes to it, and the workflow stops there."
        fix "Add a labelSelector, such as `kubevirt.io: virt-launcher` with `vm.kubevirt.io/name: VM`."
        source "Ramen: exec and check hooks";
    NAME_SELECTOR = "recipe-name-selector" Error
        "A nameSelector that is neither a name nor a regular expression selects nothing, and an exec hook with no pods succeeds."
        fix "Write a name, or an expression; it is not anchored."
        source "Ramen: exec hook";
    UNANCHORED = "recipe-name-unanchored" Warning
        "A nameSelector that is no plain name is a regular expression, found anywhere in a name: `vm.*` takes `other-vm-1` too."
        fix "Anchor it: `^virt-launcher-VM-`."
        source "Ramen: exec hook";
    SWALLOWED = "recipe-failure-swallowed" Warning
        "An exec operation without `inverseOp` never fails: its error is dropped and the hook counts as executed."
        fix "Add an `inverseOp`, even one that does nothing, or `onError: continue` if failure is fine."
        source "Ramen: exec hook";
    INVERSE = "recipe-inverse-unknown" Error
        "An `inverseOp` that leads nowhere is only logged, so nothing is taken back."
        fix "Name an operation: `op` or `/op` of the same hook, `hook/op` of another."
        source "Ramen: exec hook";
    ZERO_PODS = "recipe-zero-pods" Note
        "An exec hook that selects no pod succeeds, as does one whose pods cannot be listed, with `singlePodOnly` or without."
        fix "Judge by the guest's state and evidence, never by HooksReady."
        source "Ramen: exec hook (issue 897)";
    COMPLETED = "recipe-completed-launcher" Note
        "Pods are not filtered by phase. After a live migration the Completed source launcher still matches; the command fails there, and the live pod may never be reached."
        fix "Delete Completed launchers before a capture counts, and test with a migrated VM."
        source "Ramen: exec hook; KubeVirt: labels of launcher pods";
    TIMEOUT = "recipe-timeout-default" Warning
        "Without a timeout each pod may take 300 s; the 30 s in the API's comment are wrong."
        fix "Set `timeout` on the operation or the hook."
        source "Ramen: hook defaults";
    COMMAND = "recipe-command-unreadable" Error
        "A command that cannot be split into words is logged and counts as “no pods”: the hook succeeds without doing anything."
        fix "Write a JSON array of texts, or close the quotes."
        source "Ramen: exec hook";
    SHELL = "recipe-no-shell" Error
        "There is no shell: operators are passed to the program as arguments."
        fix "Write `[\"/bin/sh\", \"-c\", \"…\"]` if the container has a shell, or one operation for each command."
        source "Ramen: exec hook";
    EXEC_RESOURCE = "recipe-exec-resource" Error
        "An exec hook knows pod, deployment, statefulset and daemonset; anything else is taken for pod, and the selector is applied to pods."
        fix "Take `selectResource: pod`."
        source "Ramen: exec hook";
    ON_ERROR = "recipe-on-error-word" Warning
        "The CRD takes any text as an operation's `onError`, and everything but `continue` means `fail`."
        fix "Write `fail` or `continue`."
        source "Recipe CRD; Ramen: hook defaults";
    CONDITION = "recipe-check-condition" Error
        "A condition that cannot be read fails the check whatever `onError` says. Both operands stand in braces: `{$.path} == {literal}`."
        fix "Write `{$.json.path} OP {literal or $.path}`, joined by && and ||."
        source "Ramen: check hook";
    PRECEDENCE = "recipe-check-precedence" Warning
        "&& and || have no precedence: the first one splits, so `a && b || c` is `a && (b || c)`."
        fix "Put parentheses where they mix."
        source "Ramen: check hook";
    ORDER = "recipe-check-text-order" Error
        "Texts and booleans can only be compared with == and !=; anything else is an error, not false."
        fix "Compare with == or !=."
        source "Ramen: check hook";
    ONCE = "recipe-check-once" Note
        "A check waits until there is an object, for as long as its timeout, and then evaluates once. It does not wait until the condition holds."
        fix "Check what is already true when the object appears, or let the workflow be tried again."
        source "Ramen: check hook";
    ABSENT = "recipe-check-absent-field" Warning
        "A path that is not there is an error and not false. `status.fsFreezeStatus` is absent whenever the guest is thawed, so it can only be compared with `frozen`, and fails otherwise."
        fix "Check something that is always there, such as `status.phase`; ask the guest for the freeze."
        source "Ramen: check hook; KubeVirt: fsFreezeStatus";
    CHECK_RESOURCE = "recipe-check-resource" Error
        "A check knows pod, deployment, statefulset, plural core resources, and GROUP/VERSION/PLURAL for everything else; others fail."
        fix "Write, for example, `kubevirt.io/v1/virtualmachines`."
        source "Ramen: check hook";
    SCALE_RESOURCE = "recipe-scale-resource" Error
        "Only Deployments and StatefulSets can be scaled, no VMs; anything else fails the workflow."
        fix "Take `selectResource: deployment` or `statefulset`, or another way to stop the VM."
        source "Ramen: scale hook";
    SCALE_OP = "recipe-scale-op" Error
        "A scale hook knows `up`, `down` and `sync`; anything else is an error when it comes to it."
        fix "Write `hook: HOOK/down`, `up` or `sync`."
        source "Ramen: scale hook";
    SCALE_CONTINUE = "recipe-scale-continue" Warning
        "A scale hook does not honour `onError: continue`: its error stops the workflow all the same."
        fix "Do not count on it; make sure that what is scaled exists."
        source "Ramen: scale hook (issue 2571)";
    JOB = "recipe-newer-crd" Warning
        "Hooks of type job, `spec.jobs` and `skipHookIfNotPresent` are in newer Recipe CRDs only. Older ones refuse the type and prune the fields, and then the hook runs without them."
        fix "Look at the installed CRD: `kubectl explain recipe.spec.hooks`."
        source "Recipe CRD";
}

pub(super) fn check(case: &Case<'_>, out: &mut Findings) {
    let recipe = &case.recipe;
    if !case.object.get("spec/jobs").is_null() {
        out.add(JOB, case.object, "spec/jobs", "it has `spec.jobs`");
    }
    for hook in &recipe.hooks {
        selectors(case.object, hook, out);
        for (field, newer) in [
            ("type", hook.kind == HookKind::Job),
            ("skipHookIfNotPresent", hook.skip_if_absent),
        ] {
            if newer {
                let what = format!("the hook `{}` needs a newer CRD for `{field}`", hook.name);
                out.add(JOB, case.object, &format!("{}/{field}", hook.path), what);
            }
        }
        match hook.kind {
            HookKind::Exec => exec_hook(case, hook, out),
            HookKind::Check => check_hook(case.object, hook, out),
            HookKind::Scale => scale_hook(case.object, hook, out),
            HookKind::Job => {}
        }
    }
    for (step, exec) in case.execs() {
        exec_step(case, step, exec, out);
    }
    for (_, step) in &case.steps {
        if let Work::Scale(scale) = &step.work
            && let ScaleOp::Unknown(op) = &scale.op
        {
            out.add(
                SCALE_OP,
                case.object,
                &step.path,
                format!("`{op}` is no scale operation"),
            );
        }
    }
}

fn selectors(object: &Object, hook: &Hook, out: &mut Findings) {
    let written = |field: &str| !object.get(&format!("{}/{field}", hook.path)).is_null();
    let selects =
        written("labelSelector") || hook.names.as_deref().is_some_and(|text| !text.is_empty());
    if matches!(hook.kind, HookKind::Exec | HookKind::Check) && !selects {
        let what = format!("the hook `{}` selects nothing", hook.name);
        out.add(NO_SELECTOR, object, &hook.path, what);
    }
    let path = format!("{}/nameSelector", hook.path);
    match hook
        .names
        .as_deref()
        .filter(|text| !text.is_empty())
        .map(Names::parse)
    {
        Some(Err(why)) => out.add(NAME_SELECTOR, object, &path, why),
        Some(Ok(Names::Pattern(pattern))) if !pattern.as_str().starts_with('^') => {
            out.add(
                UNANCHORED,
                object,
                &path,
                format!("`{}` is found anywhere in a name", pattern.as_str()),
            );
        }
        _ => {}
    }
}

fn exec_hook(case: &Case<'_>, hook: &Hook, out: &mut Findings) {
    let object = case.object;
    let known = ["", "pod", "deployment", "statefulset", "daemonset"];
    let resource = hook.resource.as_deref().unwrap_or_default();
    if !known.contains(&resource) {
        let path = format!("{}/selectResource", hook.path);
        out.add(
            EXEC_RESOURCE,
            object,
            &path,
            format!("`{resource}` is taken for pod"),
        );
    }
    if case.execs().any(|(_, exec)| exec.hook == hook.name) {
        let what = format!("the hook `{}` succeeds when no pod matches", hook.name);
        out.add(ZERO_PODS, object, &hook.path, what);
    }
    for op in &hook.ops {
        on_error(object, &op.path, op.on_error.as_deref(), out);
        if op.timeout.or(hook.timeout).unwrap_or_default() == 0 {
            let what = format!("`{}/{}` may take 300 s in each pod", hook.name, op.name);
            out.add(TIMEOUT, object, &op.path, what);
        }
        command(object, op, out);
    }
}

fn on_error(object: &Object, path: &str, word: Option<&str>, out: &mut Findings) {
    if let Some(word) = word.filter(|word| !matches!(*word, "" | "fail" | "continue")) {
        out.add(
            ON_ERROR,
            object,
            &format!("{path}/onError"),
            format!("`{word}` means `fail`"),
        );
    }
}

fn command(object: &Object, op: &Op, out: &mut Findings) {
    let path = format!("{}/command", op.path);
    match argv(&op.command) {
        Err(error) => out.add(
            COMMAND,
            object,
            &path,
            format!("the command has no words: {error}"),
        ),
        Ok(words) => {
            let operators = ["&&", "||", "|", ">", ">>", "<", "2>&1", "&"];
            let found = words.iter().skip(1).find(|word| {
                operators.contains(&word.as_str())
                    || (word.len() > 1 && word.ends_with(';') && *word != "\\;")
            });
            if let Some(found) = found {
                let what = format!("`{found}` is an argument of `{}`", words[0]);
                out.add(SHELL, object, &path, what);
            }
        }
    }
}

fn exec_step(case: &Case<'_>, step: &Step, exec: &Exec, out: &mut Findings) {
    let path = case.op_path(exec);
    match &exec.inverse {
        Inverse::Missing(reference) => {
            let what = format!("there is no operation `{reference}`");
            out.add(INVERSE, case.object, &format!("{path}/inverseOp"), what);
        }
        Inverse::None
            if exec.on_error == OnError::Fail
                && !is_inverse(case, exec)
                && !super::freeze::freezes(exec) =>
        {
            let what = format!("a failure of `{}` counts as success", step.name);
            out.add(SWALLOWED, case.object, &path, what);
        }
        _ => {}
    }
}

/// Whether an operation takes another one back.
fn is_inverse(case: &Case<'_>, exec: &Exec) -> bool {
    case.execs().any(|(_, other)| match &other.inverse {
        Inverse::Op(inverse) => (&inverse.hook, &inverse.op) == (&exec.hook, &exec.op),
        _ => false,
    })
}

fn check_hook(object: &Object, hook: &Hook, out: &mut Findings) {
    let resource = hook.resource.as_deref().unwrap_or_default();
    let parts = resource.split('/').count();
    let kubevirt = ["virtualmachine", "vm", "vmi", "datavolume"];
    let foreign = parts == 1 && kubevirt.iter().any(|kind| resource.starts_with(kind));
    if resource.is_empty() || !matches!(parts, 1 | 3) || foreign {
        let what = format!("`{resource}` is no resource that a check knows");
        out.add(
            CHECK_RESOURCE,
            object,
            &format!("{}/selectResource", hook.path),
            what,
        );
    }
    for check in &hook.checks {
        on_error(object, &check.path, check.on_error.as_deref(), out);
        condition(object, check, out);
        if check.timeout.or(hook.timeout).unwrap_or_default() == 0 {
            let what = format!(
                "`{}/{}` may wait 300 s for an object",
                hook.name, check.name
            );
            out.add(TIMEOUT, object, &check.path, what);
        }
        let what = format!("`{}/{}` is evaluated once", hook.name, check.name);
        out.add(ONCE, object, &check.path, what);
    }
}

fn condition(object: &Object, check: &Check, out: &mut Findings) {
    let path = format!("{}/condition", check.path);
    let expression = Expression::parse(&check.condition);
    for error in expression.errors() {
        out.add(CONDITION, object, &path, error);
    }
    for operator in expression.misused() {
        let what = format!("`{}` cannot compare texts or booleans", operator.text());
        out.add(ORDER, object, &path, what);
    }
    if Expression::mixes_operators(&check.condition) {
        let what = format!("it is read as {expression}");
        out.add(PRECEDENCE, object, &path, what);
    }
    if check.condition.contains("fsFreezeStatus") {
        out.add(
            ABSENT,
            object,
            &path,
            "`fsFreezeStatus` is absent while the guest is thawed",
        );
    }
}

fn scale_hook(object: &Object, hook: &Hook, out: &mut Findings) {
    let resource = hook.resource.as_deref().unwrap_or_default();
    if !matches!(resource, "deployment" | "statefulset") {
        let what = format!("`{resource}` cannot be scaled");
        out.add(
            SCALE_RESOURCE,
            object,
            &format!("{}/selectResource", hook.path),
            what,
        );
    }
    if hook.on_error == OnError::Continue {
        let what = format!("the hook `{}` fails all the same", hook.name);
        out.add(
            SCALE_CONTINUE,
            object,
            &format!("{}/onError", hook.path),
            what,
        );
    }
}
