//! The report as one self-contained HTML page: no script, no network, prints well.

mod draw;

use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, Value, context};
use serde::Serialize;

use super::markdown::bracket;
use super::view::{SubjectView, View, word};

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("style.css");

#[derive(Serialize)]
struct Drawn<'a> {
    subject: &'a SubjectView,
    status: &'static str,
    timeline: Option<draw::Plot>,
    stages: Vec<draw::Bar>,
    total: f64,
    rpo: String,
    rto: String,
    blackout: String,
    stall: String,
    rpo_bar: Option<draw::Gauge>,
    rto_bar: Option<draw::Gauge>,
    blackout_bar: Option<draw::Gauge>,
    stall_bar: Option<draw::Gauge>,
}

#[derive(Serialize)]
struct Section<'a> {
    trial: &'a super::view::TrialView,
    status: &'static str,
    subjects: Vec<Drawn<'a>>,
}

/// Renders the whole run.
///
/// # Errors
/// When the template does not fit the view; a test renders every part of it.
pub fn render(view: &View) -> Result<String, minijinja::Error> {
    let mut env = Environment::new();
    env.set_auto_escape_callback(|_| AutoEscape::Html);
    env.add_filter("secs", |value: f64| format!("{value:.2}"));
    env.add_template("page", PAGE)?;
    let sections: Vec<Section<'_>> = view
        .trials
        .iter()
        .map(|trial| Section {
            trial,
            status: word(trial.status),
            subjects: trial.subjects.iter().map(drawn).collect(),
        })
        .collect();
    env.get_template("page")?.render(context! {
        view => Value::from(Serde(view)),
        status => word(view.status),
        // Seconds are enough for a reader; the evidence has the rest.
        started => view.started.round(jiff::Unit::Second).unwrap_or(view.started).to_string(),
        sections => Value::from(Serde(&sections)),
        style => Value::from_safe_string(STYLE.to_owned()),
    })
}

fn drawn(subject: &SubjectView) -> Drawn<'_> {
    Drawn {
        subject,
        status: word(subject.status),
        timeline: draw::plot(&subject.timeline),
        stages: draw::bars(&subject.stages),
        total: subject.stages.iter().map(|s| s.seconds).sum(),
        rpo: bracket(subject.rpo),
        rto: bracket(subject.rto),
        blackout: bracket(subject.blackout),
        stall: bracket(subject.stall),
        rpo_bar: subject.rpo.and_then(draw::gauge),
        rto_bar: subject.rto.and_then(draw::gauge),
        blackout_bar: subject.blackout.and_then(draw::gauge),
        stall_bar: subject.stall.and_then(draw::gauge),
    }
}
