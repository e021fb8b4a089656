//! Findings as SARIF 2.1.0, which code hosts and editors read.

use serde_json::{Value, json};

use super::{Finding, Report, Severity, rules};

/// The report as a SARIF log. A text that is no YAML is a notification of a run that did not succeed.
pub fn sarif(report: &Report) -> Value {
    let rules = rules::all();
    let described: Vec<Value> = rules
        .iter()
        .map(|rule| {
            json!({
                "id": rule.id,
                "shortDescription": {"text": rule.why},
                "help": {"text": format!("{} Source: {}.", rule.fix, rule.source)},
                "defaultConfiguration": {"level": rule.severity.word()},
            })
        })
        .collect();
    let result = |finding: &Finding| {
        let index = rules.iter().position(|rule| rule.id == finding.rule);
        json!({
            "ruleId": finding.rule,
            "ruleIndex": index,
            "level": finding.severity.word(),
            "message": {"text": format!("{}: {}. {} Fix: {}", finding.object, finding.what, finding.why, finding.fix)},
            "locations": [place(&finding.file, finding.line, finding.column)],
        })
    };
    let results: Vec<Value> = report.findings.iter().map(result).collect();
    let note = |level: Severity, file: &str, line: u64, text: String| {
        json!({
            "level": level.word(), "message": {"text": text}, "locations": [place(file, line, 1)],
        })
    };
    let malformed = report.malformed.iter();
    let mut notes: Vec<Value> = malformed
        .map(|(file, bad)| {
            note(
                Severity::Error,
                file,
                bad.at.line,
                format!("this is no YAML: {}", bad.what),
            )
        })
        .collect();
    notes.extend(report.skipped.iter().map(|skipped| {
        let text = format!("not looked at: {}", skipped.kind);
        note(Severity::Note, &skipped.file, skipped.line, text)
    }));
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "virtproof",
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": described,
            }},
            "columnKind": "unicodeCodePoints",
            "results": results,
            "invocations": [{
                "executionSuccessful": report.malformed.is_empty(),
                "toolExecutionNotifications": notes,
            }],
        }],
    })
}

fn place(file: &str, line: u64, column: u64) -> Value {
    json!({"physicalLocation": {
        "artifactLocation": {"uri": uri(file)},
        "region": {"startLine": line.max(1), "startColumn": column.max(1)},
    }})
}

/// A path as a relative reference.
fn uri(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    let path = if path == "-" { "stdin" } else { path };
    let encode = |byte: u8| {
        if plain(byte) {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    };
    path.bytes().map(encode).collect()
}
