//! Recipes.

pub(super) mod freeze;
pub(super) mod groups;
pub(super) mod hooks;
pub(super) mod workflow;

use std::collections::BTreeMap;

use super::rules;
use crate::lint::object::{Findings, Kind, Object, Set};
use crate::workload::recipe::{Exec, Recipe, Step, Work};

rules! {
    PARAMETER_UNDEFINED = "recipe-parameter-undefined" Error
        "A parameter without a value becomes empty text: an empty label value, name or namespace, which selects something else or everything."
        fix "Give it in `recipeParameters` of every VRG and DRPC that refers to the Recipe."
        source "Ramen: parameter expansion";
    PARAMETER_UNUSED = "recipe-parameter-unused" Warning
        "Values for a parameter that the Recipe does not take are passed over in silence."
        fix "Correct the name, or remove it."
        source "Ramen: parameter expansion";
    EXPANSION = "recipe-expansion" Error
        "Parameters are replaced in the JSON text of the spec, several values joined by `\",\"`. Outside a list that is no JSON any more, and every reconcile fails."
        fix "Give one value, or put the placeholder into a list; keep quotes out of values."
        source "Ramen: parameter expansion";
    DOLLAR = "recipe-dollar" Warning
        "`$name`, `$1`, `$?`, `$$` and the like are replaced as parameters before anything else reads them, so a script loses its variables. Only `$(` and `{$.` stay."
        fix "Keep variables out of the Recipe: put the script into the container, or spell it without them."
        source "Ramen: parameter expansion";
}

/// A Recipe that is looked at.
pub(in crate::lint) struct Case<'a> {
    pub(in crate::lint) object: &'a Object,
    pub(in crate::lint) set: &'a Set,
    /// With parameters expanded; those without a value have their own names, in lower case.
    pub(in crate::lint) recipe: Recipe,
    /// Whether every parameter that it takes has a value in the set.
    pub(in crate::lint) complete: bool,
    /// Every step of every workflow that is ever looked up and resolves, in order.
    pub(in crate::lint) steps: Vec<(String, Step)>,
}

impl<'a> Case<'a> {
    /// The exec operations that workflows use.
    pub(in crate::lint) fn execs(&self) -> impl Iterator<Item = (&Step, &Exec)> {
        self.steps.iter().filter_map(|(_, step)| match &step.work {
            Work::Exec(exec) => Some((step, exec)),
            _ => None,
        })
    }

    /// Where an exec operation stands.
    pub(in crate::lint) fn op_path(&self, exec: &Exec) -> String {
        let hook = self.recipe.hook(&exec.hook);
        let op = hook.and_then(|hook| hook.ops.iter().find(|op| op.name == exec.op));
        op.map_or_else(String::new, |op| op.path.clone())
    }

    /// Every Recipe of the set that can be read at all.
    pub(in crate::lint) fn all(set: &'a Set, out: &mut Findings) -> Vec<Self> {
        set.of(Kind::Recipe)
            .filter_map(|object| Self::new(set, object, out))
            .collect()
    }

    fn new(set: &'a Set, object: &'a Object, out: &mut Findings) -> Option<Self> {
        let (written, refusals) = Recipe::read(&object.value);
        for refusal in &refusals {
            // Another apiVersion has a rule of its own.
            if refusal.path != "apiVersion" {
                let what = format!("{}; {}", refusal.what, refusal.wanted);
                out.add(super::REFUSED, object, &refusal.path, what);
            }
        }
        let written = written?;
        let referrers: Vec<&Object> = referrers(set, object);
        let (recipe, complete) = if refusals.is_empty() {
            expand(&written, object, &referrers, out)
        } else {
            (written, false)
        };
        let resolved = recipe
            .workflows
            .iter()
            .filter(|w| workflow::is_known(&w.name));
        let steps = resolved.flat_map(|workflow| {
            let name = &workflow.name;
            let steps = recipe.steps(workflow).into_iter().filter_map(Result::ok);
            steps.map(|step| (name.clone(), step)).collect::<Vec<_>>()
        });
        let steps = steps.collect();
        Some(Self {
            object,
            set,
            recipe,
            complete,
            steps,
        })
    }
}

pub(super) fn check(set: &Set, out: &mut Findings) {
    for case in Case::all(set, out) {
        workflow::check(&case, out);
        hooks::check(&case, out);
        freeze::check(&case, out);
        groups::check(&case, out);
    }
}

/// The VRGs and DRPCs whose recipeRef is this Recipe.
fn referrers<'a>(set: &'a Set, recipe: &Object) -> Vec<&'a Object> {
    let refers = |object: &&Object| {
        let of_kind = matches!(object.kind, Kind::Vrg | Kind::Drpc);
        let reference = object.get("spec/kubeObjectProtection/recipeRef");
        let namespace = reference["namespace"].as_str().unwrap_or_default();
        of_kind && reference["name"] == recipe.name.as_str() && recipe.beside(namespace)
    };
    set.objects.iter().filter(refers).collect()
}

/// The Recipe with the values that the set gives, and whether it gives all.
fn expand(
    written: &Recipe,
    object: &Object,
    referrers: &[&Object],
    out: &mut Findings,
) -> (Recipe, bool) {
    let names = written.parameters();
    for name in &names {
        if !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
            out.add(DOLLAR, object, "spec", format!("`${name}` is replaced"));
        }
    }
    let mut complete = names.is_empty() || !referrers.is_empty();
    let mut values = BTreeMap::new();
    for referrer in referrers {
        let given = parameters(referrer);
        let path = "spec/kubeObjectProtection/recipeParameters";
        for name in names.iter().filter(|name| !given.contains_key(*name)) {
            complete = false;
            let what = format!(
                "Recipe {} takes `{name}`, which it does not give",
                object.name
            );
            out.add(PARAMETER_UNDEFINED, referrer, path, what);
        }
        // This one is no placeholder but a switch of the controller.
        let known = |name: &&String| names.contains(*name) || *name == "STOP_RECIPE_RECONCILE";
        for name in given.keys().filter(|name| !known(name)) {
            let what = format!("Recipe {} takes no `{name}`", object.name);
            out.add(PARAMETER_UNUSED, referrer, &format!("{path}/{name}"), what);
        }
        if let Err(error) = written.expand(&given) {
            out.add(EXPANSION, referrer, path, error.to_string());
            complete = false;
        }
        values.extend(given);
    }
    for name in names {
        let stand_in = name.to_lowercase().replace('_', "-");
        values.entry(name).or_insert_with(|| vec![stand_in]);
    }
    match written.expand(&values) {
        Ok(recipe) => (recipe, complete),
        Err(_told) => (written.clone(), false),
    }
}

/// The `recipeParameters` of a VRG or DRPC.
pub(in crate::lint) fn parameters(referrer: &Object) -> BTreeMap<String, Vec<String>> {
    let given = referrer.get("spec/kubeObjectProtection/recipeParameters");
    serde_json::from_value(given.clone()).unwrap_or_default()
}
