//! Parameters.

use super::*;

fn given(pairs: &[(&str, &[&str])]) -> BTreeMap<String, Vec<String>> {
    let entry = |(name, values): &(&str, &[&str])| {
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        ((*name).to_owned(), values)
    };
    pairs.iter().map(entry).collect()
}

#[test]
fn names_are_replaced_as_the_controller_does() {
    let given = given(&[("VM", &["a"]), ("TWO", &["a", "b"]), ("1", &["one"])]);
    let cases = [
        ("${VM} $VM.x $VMX", "a a.x "),
        ("[\"${TWO}\"]", "[\"a\",\"b\"]"),
        ("$(date) {$.status} a$ $", "$(date) {$.status} a$ $"),
        ("$1 $$ $? ${*}", "one   "),
        ("a${}b", "ab"),
        ("a${b", "ab"),
        ("ü${VM}ü$ü", "üaü$ü"),
    ];
    for (text, expected) in cases {
        assert_eq!(expand_text(text, &given), expected, "{text}");
    }
    let names = parameters("${VM} $TWO $(no) {$.no} ${}");
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["TWO", "VM"]);
}

#[test]
fn a_recipe_is_expanded_everywhere() {
    let mut value = quiesce();
    *at(&mut value, "/spec/groups/0/includedNamespaces") = json!(["${NS}"]);
    *at(&mut value, "/spec/hooks/0/labelSelector") = json!({"matchLabels": {"vm": "$VM"}});
    let recipe = read(&value);
    assert_eq!(
        recipe.parameters().into_iter().collect::<Vec<_>>(),
        ["NS", "VM"]
    );
    let full = recipe
        .expand(&given(&[("NS", &["a", "b"]), ("VM", &["v"])]))
        .unwrap();
    assert_eq!(full.groups[0].included_namespaces, ["a", "b"]);
    assert_eq!(
        full.hooks[0]
            .selector
            .as_ref()
            .unwrap()
            .match_labels
            .as_ref()
            .unwrap()["vm"],
        "v"
    );
    let empty = recipe.expand(&BTreeMap::new()).unwrap();
    assert_eq!(empty.groups[0].included_namespaces, [""]);
    let two = recipe.expand(&given(&[("NS", &["a"]), ("VM", &["v", "w"])]));
    assert!(matches!(two, Err(ExpandError::Json(_))), "{two:?}");
    let quote = recipe.expand(&given(&[("NS", &["a\"b"])]));
    assert!(matches!(quote, Err(ExpandError::Json(_))), "{quote:?}");
}

proptest! {
    #[test]
    fn text_without_a_dollar_stays(text in "[^$]{0,40}", values in prop::collection::vec("[a-z]{0,3}", 0..3)) {
        let given = BTreeMap::from([("X".to_owned(), values)]);
        prop_assert_eq!(expand_text(&text, &given), text);
    }

    #[test]
    fn no_name_survives(text in "[a-zX ${}.(\"é]{0,40}") {
        let none = BTreeMap::new();
        let once = expand_text(&text, &none);
        prop_assert!(once.len() <= text.len());
        let kept = parameters(&text);
        let same = kept.into_iter().map(|name| (name, vec![String::new()]));
        let same: BTreeMap<_, _> = same.collect();
        prop_assert_eq!(expand_text(&text, &same), once);
    }

    #[test]
    fn values_stand_where_the_names_stood(parts in prop::collection::vec("[a-z. ]{0,5}", 1..6), value in "[a-z]{0,4}") {
        let given = BTreeMap::from([("X".to_owned(), vec![value.clone()])]);
        prop_assert_eq!(expand_text(&parts.join("${X}"), &given), parts.join(&value));
    }
}
