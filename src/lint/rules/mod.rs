//! The rules, by what they look at.

mod policy;
mod protect;
mod recipe;
mod replication;
mod together;
mod vm;

use super::finding::{Finding, Rule};
use super::object::{Findings, Set};
use super::schema::{Objection, objections};

/// Declares rules and the list of them.
macro_rules! rules {
    ($($name:ident = $id:literal $severity:ident $why:literal fix $fix:literal source $source:literal;)*) => {
        $(
            pub(in crate::lint) const $name: &$crate::lint::finding::Rule = &$crate::lint::finding::Rule {
                id: $id,
                severity: $crate::lint::finding::Severity::$severity,
                why: $why,
                fix: $fix,
                source: $source,
            };
        )*
        pub(in crate::lint) const RULES: &[&$crate::lint::finding::Rule] = &[$($name),*];
    };
}
pub(crate) use rules;

rules! {
    REFUSED = "refused" Error
        "The API server refuses the object (422), so nothing that it says takes effect."
        fix "Write the field as the CRD wants it."
        source "the published CRDs; a real API server's answers";
    UNKNOWN_FIELD = "unknown-field" Warning
        "The API server drops fields that the CRD does not know; with strict validation it refuses them."
        fix "Remove the field, or correct its name."
        source "the published CRDs";
    API_VERSION = "api-version" Error
        "No API server serves the kind under this apiVersion."
        fix "Take the apiVersion that the finding names."
        source "the published CRDs";
}

/// Every rule, by id.
pub fn all() -> Vec<&'static Rule> {
    let families: [&[&'static Rule]; 11] = [
        RULES,
        recipe::RULES,
        recipe::workflow::RULES,
        recipe::hooks::RULES,
        recipe::freeze::RULES,
        recipe::groups::RULES,
        protect::RULES,
        policy::RULES,
        replication::RULES,
        vm::RULES,
        together::RULES,
    ];
    let mut rules = families.concat();
    rules.sort_by_key(|rule| rule.id);
    rules
}

/// Looks at everything.
pub(super) fn run(set: &Set) -> Vec<Finding> {
    let mut out = Findings::default();
    published(set, &mut out);
    recipe::check(set, &mut out);
    protect::check(set, &mut out);
    policy::check(set, &mut out);
    replication::check(set, &mut out);
    vm::check(set, &mut out);
    together::check(set, &mut out);
    out.0
}

/// What the API server says by itself.
fn published(set: &Set, out: &mut Findings) {
    for object in &set.objects {
        if let Some(right) = &object.outdated {
            let found = object.text("apiVersion").unwrap_or("nothing");
            out.add(
                API_VERSION,
                object,
                "apiVersion",
                format!("the apiVersion is `{found}`, and must be `{right}`"),
            );
        }
        for objection in objections(object.kind, &object.value) {
            match objection {
                Objection::Refused { path, what } => out.add(REFUSED, object, &path, what),
                Objection::Unknown { path, what } => out.add(UNKNOWN_FIELD, object, &path, what),
            }
        }
    }
}
