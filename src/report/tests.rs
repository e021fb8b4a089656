use super::{html, junit, markdown, sample, table};

#[test]
fn markdown_is_as_recorded() {
    insta::assert_snapshot!(markdown::render(&sample::view()));
}

#[test]
fn junit_is_as_recorded() {
    insta::assert_snapshot!(junit::render(&sample::view()).expect("XML"));
}

#[test]
fn table_is_as_recorded() {
    insta::assert_snapshot!(table::render(&sample::view(), |_, text| text.to_owned()));
}

#[test]
fn html_is_as_recorded() {
    insta::assert_snapshot!(html::render(&sample::view()).expect("HTML"));
}

#[test]
fn names_from_evidence_cannot_become_markup() {
    let page = html::render(&sample::view()).expect("HTML");
    assert!(
        !page.contains("<script"),
        "a subject's name became an element"
    );
    assert!(page.contains("ledger-0&lt;script"));
    assert!(!markdown::render(&sample::view()).contains("<script"));
}

#[test]
fn an_empty_run_renders_and_never_says_pass() {
    let mut view = sample::view();
    view.trials.clear();
    view.status = None;
    view.counts.clear();
    let page = html::render(&view).expect("HTML");
    assert!(page.contains("nothing judged"));
    assert!(!table::render(&view, |_, t| t.to_owned()).contains("pass:"));
}

#[test]
fn rendering_is_deterministic() {
    let view = sample::view();
    assert_eq!(
        html::render(&view).expect("HTML"),
        html::render(&view).expect("HTML")
    );
}
