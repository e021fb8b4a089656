//! `--set PATH=VALUE`: a plan's text with some of its values replaced. The result is a plan like any
//! other: it is what is validated, kept with the evidence and judged by.

use serde_json::Value;

/// Replaces values in plan text. `PATH` is dotted, list items by number:
/// `workloads.0.count=2`; `VALUE` is read as YAML. Objects on the way are made, list items are not.
///
/// # Errors
/// What is wrong with the text or with one of `sets`, in a sentence.
pub(super) fn apply(text: &str, sets: &[String]) -> Result<String, String> {
    if sets.is_empty() {
        return Ok(text.to_owned());
    }
    let mut root: Value =
        serde_saphyr::from_str(text).map_err(|error| format!("the plan is no YAML: {error}"))?;
    for set in sets {
        one(&mut root, set).map_err(|why| format!("--set {set}: {why}"))?;
    }
    serde_saphyr::to_string(&root).map_err(|error| format!("the plan cannot be written: {error}"))
}

fn one(root: &mut Value, set: &str) -> Result<(), String> {
    let (path, value) = set
        .split_once('=')
        .ok_or("expected PATH=VALUE, such as load.batch=16")?;
    let value: Value =
        serde_saphyr::from_str(value).map_err(|error| format!("the value is no YAML: {error}"))?;
    let mut at = root;
    for step in path.split('.') {
        at = match at {
            Value::Array(items) => {
                let count = items.len();
                let index = step.parse::<usize>().ok();
                let item = index.and_then(|index| items.get_mut(index));
                item.ok_or_else(|| format!("`{step}` is none of the {count} items of a list"))?
            }
            Value::Null | Value::Object(_) => {
                if at.is_null() {
                    *at = Value::Object(serde_json::Map::new());
                }
                at.as_object_mut()
                    .ok_or("not an object")?
                    .entry(step)
                    .or_insert(Value::Null)
            }
            other => {
                return Err(format!(
                    "`{step}` is looked for in {other}, which has no parts"
                ));
            }
        };
    }
    *at = value;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Known, LAB, parse};

    fn set(sets: &[&str]) -> Result<String, String> {
        let sets: Vec<String> = sets.iter().map(|s| (*s).to_owned()).collect();
        apply(LAB, &sets)
    }

    #[test]
    fn values_are_replaced_and_the_rest_stays() {
        let text =
            set(&["workloads.0.count=1", "load.batch=16", "metadata.name='7'"]).expect("sets");
        let read = |text: &str| {
            parse(text, "test", std::path::Path::new("."), &Known::nothing())
                .expect("a plan")
                .plan
        };
        let (plan, before) = (read(&text), read(LAB));
        assert_eq!((plan.workloads()[0].count, plan.load().batch), (1, 16));
        assert_eq!(plan.load().rate, before.load().rate);
        assert_eq!(plan.protection(), before.protection());
    }

    #[test]
    fn nothing_to_set_leaves_the_text_as_it_is() {
        assert_eq!(set(&[]).as_deref(), Ok(LAB));
    }

    #[test]
    fn what_cannot_be_set_says_why() {
        for (text, part) in [
            ("load", "PATH=VALUE"),
            ("workloads.7.count=1", "none of the 1 items"),
            ("metadata.name.x=1", "has no parts"),
            ("load.batch=[", "no YAML"),
        ] {
            let said = set(&[text]).expect_err(text);
            assert!(said.contains(part), "{said}");
        }
    }
}
