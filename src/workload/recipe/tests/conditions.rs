//! Conditions of check hooks.

use super::*;

fn object() -> Value {
    json!({
        "spec": {"replicas": 3, "paused": false, "text": "10", "name": "web", "list": [1, 2]},
        "status": {
            "ready": "True", "replicas": 3, "missing": null,
            "conditions": [{"type": "Progressing", "status": "True"}, {"type": "Ready", "status": "False", "n": 7}],
        },
    })
}

fn evaluate(text: &str) -> Result<bool, EvaluateError> {
    Expression::parse(text).evaluate(&object())
}

#[test]
fn comparisons_are_true_or_false() {
    for (text, expected) in [
        ("{$.spec.replicas} == {3}", true),
        ("{$.spec.replicas} == {$.status.replicas}", true),
        ("{$.spec.replicas}>={4}", false),
        ("{$.spec.replicas} < {3.5}", true),
        ("{$.spec.text} == {10}", true),
        ("{$.status.ready} == {True}", true),
        ("{$.status.ready} == {\"True\"}", true),
        ("{$.spec.paused} != {true}", true),
        ("{$.spec.name} == {'web'}", true),
        ("{$.spec.name} != {web}", false),
        ("{$.status.conditions[0].type} == {Progressing}", true),
        ("{$.status.conditions[-1].type} == {Ready}", true),
        ("{$['spec']['name']} == {web}", true),
        (
            "{$.status.conditions[?(@.type == \"Ready\")].status} == {False}",
            true,
        ),
        (
            "{$.status.conditions[?(@type.==\"Ready\")].status} == {False}",
            true,
        ),
        ("{$.status.conditions[?(@.n > 5)].type} == {Ready}", true),
        ("{$.status.conditions[?(@.n)].type} == {Ready}", true),
        ("({$.spec.replicas} == {3})", true),
        (
            "(({$.spec.replicas} == {3}) && ({$.spec.name} == {web}))",
            true,
        ),
    ] {
        assert_eq!(evaluate(text), Ok(expected), "{text}");
    }
}

#[test]
fn what_is_not_there_is_an_error() {
    for text in [
        "{$.spec.absent} == {3}",
        "{$.spec.absent} == {$.spec.absent}",
        "{$.status.missing} == {\"\"}",
        "{$.status.conditions[7].type} == {Ready}",
        "{$.status.conditions[?(@.type == \"Nope\")].status} == {True}",
        "{$.spec.list} == {1}",
        "{$.spec.name} == {3}",
        "{$.spec.paused} == {no}",
        // A quoted number is a text, and the path's "10" a number.
        "{$.spec.text} == {\"10\"}",
    ] {
        assert!(
            matches!(evaluate(text), Err(EvaluateError::Kinds(..))),
            "{text}: {:?}",
            evaluate(text)
        );
    }
    for text in ["{$.spec.name} < {zzz}", "{$.spec.paused} >= {true}"] {
        assert!(
            matches!(evaluate(text), Err(EvaluateError::Operator(..))),
            "{text}"
        );
    }
}

#[test]
fn what_cannot_be_read_is_an_error() {
    for text in [
        "",
        "{$.spec.replicas}",
        "{$.spec.replicas} == 3",
        "$.spec.replicas == {3}",
        "{.spec.replicas} == {3}",
        "{$.spec.a b} == {3}",
        "{$.metadata.annotations.a\\.b} == {c}",
        "{$.spec[} == {3}",
        "{$.spec[x]} == {3}",
        "{$.spec..a} == {3}",
        "{$.list[?(@.a[?(@.b)] == 1)]} == {3}",
        "{$.spec.replicas = 3} == {3}",
    ] {
        let parsed = Expression::parse(text);
        assert!(!parsed.errors().is_empty(), "{text}: {parsed:?}");
        assert!(
            matches!(evaluate(text), Err(EvaluateError::Unreadable(_))),
            "{text}"
        );
    }
    let deep = format!("{}{{$.a}} == {{1}}{}", "(".repeat(500), ")".repeat(500));
    assert!(!Expression::parse(&deep).errors().is_empty());
    assert!(!Expression::parse(&"x".repeat(5000)).errors().is_empty());
}

#[test]
fn the_first_operator_splits_and_the_rest_waits() {
    let (yes, no, bad) = (
        "{$.spec.replicas} == {3}",
        "{$.spec.replicas} == {4}",
        "{$.nope} == {1}",
    );
    for (text, expected) in [
        (format!("{yes} || {bad}"), true),
        (format!("{no} && {bad}"), false),
        // As a && (b || c): with precedence it would be (a && b) || c, which is true.
        (format!("{no} && {no} || {yes}"), false),
        (format!("({no} && {no}) || {yes}"), true),
        // As a || (b && c).
        (format!("{yes} || {yes} && {no}"), true),
    ] {
        assert_eq!(evaluate(&text), Ok(expected), "{text}");
    }
    assert!(evaluate(&format!("{yes} && {bad}")).is_err());
    assert!(evaluate(&format!("{bad} || {yes}")).is_err());
    for (text, mixes) in [
        (format!("{yes} && {no} || {yes}"), true),
        (format!("({yes} && {no} || {yes}) && {yes}"), true),
        (format!("({yes} && {no}) || {yes}"), false),
        (format!("{yes} && {no} && {yes}"), false),
        (yes.to_owned(), false),
    ] {
        assert_eq!(Expression::mixes_operators(&text), mixes, "{text}");
    }
}

/// A condition whose leaves are true or false, and what it must come to.
fn tree() -> impl Strategy<Value = (String, bool)> {
    let leaf = any::<bool>().prop_map(|holds| {
        let number = if holds { 3 } else { 4 };
        (format!("{{$.spec.replicas}} == {{{number}}}"), holds)
    });
    leaf.prop_recursive(4, 24, 2, |inner| {
        (inner.clone(), any::<bool>(), inner).prop_map(|((a, x), and, (b, y))| {
            let word = if and { "&&" } else { "||" };
            (
                format!("({a}) {word} ({b})"),
                if and { x && y } else { x || y },
            )
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn parentheses_say_what_binds((text, holds) in tree()) {
        prop_assert_eq!(evaluate(&text), Ok(holds), "{}", text);
        prop_assert!(!Expression::mixes_operators(&text));
    }

    #[test]
    fn numbers_compare_as_numbers(a in -1000_i32..1000, b in -1000_i32..1000) {
        let object = json!({"a": a, "b": b.to_string()});
        let holds = |op: &str| Expression::parse(&format!("{{$.a}} {op} {{$.b}}")).evaluate(&object).unwrap();
        prop_assert_eq!(
            (holds("=="), holds("!="), holds("<"), holds("<="), holds(">"), holds(">=")),
            (a == b, a != b, a < b, a <= b, a > b, a >= b)
        );
    }

    #[test]
    fn hostile_conditions_never_panic(text in "[\\[\\](){}$@?.&|=!<>'\"a-c0-1 *é-]{0,120}") {
        let parsed = Expression::parse(&text);
        let unreadable = !parsed.errors().is_empty();
        let evaluated = parsed.evaluate(&object());
        prop_assert!(unreadable || !matches!(evaluated, Err(EvaluateError::Unreadable(_))));
        Expression::mixes_operators(&text);
    }
}
