//! JUnit XML: one suite per trial, one case per check and VM. A failed check is a failure, an
//! inconclusive one an error: no CI system may count it as a pass, and none may skip it.

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::view::View;
use crate::check::verdict::{Status, Verdict};

/// Renders the whole run.
///
/// # Errors
/// When the XML cannot be serialised.
pub fn render(view: &View) -> Result<String, quick_junit::SerializeError> {
    let mut report = Report::new(view.name.clone());
    for trial in &view.trials {
        let mut suite = TestSuite::new(format!("{} {}", trial.scenario, trial.id));
        let verdicts = trial
            .subjects
            .iter()
            .flat_map(|s| &s.verdicts)
            .chain(&trial.verdicts);
        let mut any = false;
        for verdict in verdicts {
            suite.add_test_case(case(verdict));
            any = true;
        }
        if !any || trial.outcome != "ok" {
            suite.add_test_case(outcome(&trial.outcome, any));
        }
        report.add_test_suite(suite);
    }
    report.to_string()
}

fn case(verdict: &Verdict) -> TestCase {
    let status = match verdict.status {
        Status::Pass => TestCaseStatus::success(),
        Status::Fail => non_success(NonSuccessKind::Failure, verdict),
        Status::Inconclusive => non_success(NonSuccessKind::Error, verdict),
    };
    let name = if verdict.subject.is_empty() {
        verdict.check.clone()
    } else {
        format!("{} {}", verdict.check, verdict.subject)
    };
    let mut case = TestCase::new(name, status);
    case.set_classname(verdict.scenario.clone());
    if verdict.status == Status::Pass {
        case.set_system_out(verdict.summary.clone());
    }
    case
}

fn non_success(kind: NonSuccessKind, verdict: &Verdict) -> TestCaseStatus {
    let mut status = TestCaseStatus::non_success(kind);
    status.set_message(verdict.summary.clone());
    status.set_type(if kind == NonSuccessKind::Failure {
        "fail"
    } else {
        "inconclusive"
    });
    status.set_description(
        [&verdict.witness[..], &verdict.limits[..]]
            .concat()
            .join("\n"),
    );
    status
}

fn outcome(text: &str, judged: bool) -> TestCase {
    let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
    status.set_message(if judged {
        text.to_owned()
    } else {
        format!("nothing was judged: {text}")
    });
    TestCase::new("trial", status)
}
