//! Placeholders: what they take, and what no value can do.

use proptest::prelude::*;
use serde_json::json;

use super::*;

const HEAD: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n---\n";

/// The spec of a VM document around `body`, as filled in.
fn fill(body: &str, given: &[(&str, &str)]) -> Result<Value, String> {
    let text = format!("{HEAD}{body}");
    let masked = placeholder::mask(&text)?;
    let mut documents = crate::plan::yaml::parse(&masked.text, true).map_err(|bad| bad.what)?;
    let mut problems = crate::plan::problem::Problems::new("vm.yaml", &text);
    let given = parameters(given);
    let mut fill = placeholder::Fill::new(&masked, &given, &mut problems);
    for document in &mut documents {
        fill.fill(document, false);
    }
    fill.finish();
    let problems = problems.into_sorted();
    if problems.is_empty() {
        Ok(documents[1].to_value())
    } else {
        Err(crate::plan::problem::render(&problems))
    }
}

#[test]
fn plain_scalars_get_their_type_and_quoted_ones_stay_text() {
    let body = "a: ${N:=2}\nb: \"${N}\"\nc: '${N}'\nd: ${N}Gi\ne: ${B:=true}\nf: [x${N}, ${N}]\ng: {h: ${N}}\ni: |\n  ${N}\nj: pre-${N}\nk: ${T:=no}\n";
    assert_eq!(
        fill(body, &[]),
        Ok(
            json!({"a": 2, "b": "2", "c": "2", "d": "2Gi", "e": true, "f": ["x2", 2],
                  "g": {"h": 2}, "i": "2\n", "j": "pre-2", "k": "no"})
        )
    );
}

#[test]
fn an_empty_value_leaves_the_field_out() {
    let body = "a: ${X:=}\nb: {c: ${X}, d: 1}\ne: \"${X}\"\nf: ~\n";
    assert_eq!(
        fill(body, &[]),
        Ok(json!({"b": {"d": 1}, "e": "", "f": null}))
    );
}

#[test]
fn escapes_and_other_dollars_stay() {
    let body = "a: $${X} $5 $$ $(y)\nb: '$${X:=1}'\n";
    assert_eq!(
        fill(body, &[]),
        Ok(json!({"a": "${X} $5 $$ $(y)", "b": "${X:=1}"}))
    );
}

#[test]
fn a_guests_script_keeps_its_own_variables() {
    let body = "userData: |\n  ${HOME} ${1} ${x%%:*} ${PORT:=22}\ndata: {run: '${USER}'}\n";
    assert_eq!(
        fill(body, &[("USER", "me")]),
        Ok(json!({"userData": "${HOME} ${1} ${x%%:*} 22\n", "data": {"run": "me"}}))
    );
}

#[test]
fn comments_are_no_parameters() {
    let error = fill("a: 1 # ${X}\n", &[("X", "1")]).unwrap_err();
    assert!(error.contains("no parameter `X`"), "{error}");
}

#[test]
fn problems_with_values() {
    let cases = [
        ("missing", "a: ${X}\n", &[][..]),
        ("unknown", "a: ${dataSize:=1}\n", &[("datasize", "2")]),
        ("none at all", "a: 1\n", &[("x", "2")]),
        ("not a placeholder", "a: ${X%y}\n", &[]),
        ("unclosed", "a: ${X\n", &[]),
        ("key", "${X:=1}: a\n", &[]),
        ("control characters", "a: ${X}\n", &[("X", "a\nb: c")]),
        ("script", "userData: 'x: ${X}'\n", &[("X", "a: b")]),
        ("script flow", "userData: '[${X}]'\n", &[("X", "a], [b")]),
    ];
    let mut shown = String::new();
    for (name, body, given) in cases {
        let error = fill(body, given).expect_err(name);
        shown += &["=== ", name, "\n", &error, "\n\n"].concat();
    }
    insta::assert_snapshot!("bad-values", shown);
}

/// A document with a value in every position where a placeholder may stand.
const EVERYWHERE: &str = "a: ${X:=1}\nb: \"${X}\"\nc: '${X}'\nd: [p${X}q, ${X}]\ne: {f: ${X}, g: \"${X}\"}\nh: |\n  ${X}\ni: >-\n  t ${X}\nj:\n  - ${X}\n  - k: ${X}\n";

/// A tree with its scalars blanked.
fn shape(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(shape).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| (key.clone(), shape(value)))
            .collect(),
        _ => Value::Null,
    }
}

proptest! {
    #[test]
    fn no_value_changes_the_structure(value in "\\PC{1,40}|[-:{}\\[\\]#&*!|>'\"%@`,? ~a-z0-9]{1,20}") {
        let plain = fill(EVERYWHERE, &[("X", "x")]).unwrap();
        let filled = fill(EVERYWHERE, &[("X", &value)]).unwrap();
        prop_assert_eq!(shape(&plain), shape(&filled));
        prop_assert_eq!(&filled["b"], &json!(value));
        prop_assert_eq!(&filled["c"], &json!(value));
        prop_assert_eq!(&filled["d"][0], &json!(format!("p{value}q")));
        if let Some(text) = filled["a"].as_str() {
            prop_assert_eq!(text, value);
        } else {
            prop_assert!(filled["a"].is_number() || filled["a"].is_boolean(), "{}", filled["a"]);
        }
    }

    #[test]
    fn hostile_templates_never_panic(text in "(apiVersion: kubevirt.io/v1\n|kind: VirtualMachine\n|metadata: \\{name: x\\}\n|spec:\n|  template:\n|    spec: \\{domain: \\{devices: \\{disks: \\[\\{name: a\\}\\]\\}\\}\\}\n|  running: 1\n|---\n|\\$\\{X\\}|\\$\\{|:= ?\\}|\\$\\$\\{|[\\[\\]{}:#|>&*!-]|\\PC){0,40}") {
        if let Ok(template) = Template::parse(&text, "vm.yaml") {
            let given = parameters(&[("X", "1")]);
            if let Err(error) = template.render(&given, &Extra::default()) {
                prop_assert!(!error.to_string().is_empty());
            }
        }
    }
}
