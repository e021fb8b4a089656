//! Geometry of the pictures: seconds and counts in, SVG coordinates out.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::report::view::{Bracket, StageView, Timeline};

const WIDTH: f64 = 960.0;
/// How wide the label of a gap is at most.
const GAP_LABEL: f64 = 150.0;
const LEFT: f64 = 52.0;
const TOP: f64 = 26.0;
const HEIGHT: f64 = 110.0;
const ROW: f64 = 13.0;
/// Approximate width of a label character at the page's label size.
const CHAR: f64 = 6.2;

/// A timeline, ready to draw.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Plot {
    width: f64,
    height: f64,
    left: f64,
    top: f64,
    base: f64,
    series: Vec<Area>,
    /// The sites that acks were heard from.
    sites: BTreeSet<String>,
    marks: Vec<Line>,
    gap: Option<Gap>,
    ticks: Vec<Tick>,
    peak: String,
}

#[derive(Debug, Clone, Serialize)]
struct Area {
    site: String,
    incarnation: String,
    path: String,
}

#[derive(Debug, Clone, Serialize)]
struct Line {
    x: f64,
    kind: String,
    label: String,
    text_x: f64,
    text_y: f64,
    anchor: &'static str,
}

#[derive(Debug, Clone, Serialize)]
struct Gap {
    x: f64,
    width: f64,
    /// The middle of the label, which keeps within the picture.
    label_x: f64,
    label: String,
}

#[derive(Debug, Clone, Serialize)]
struct Tick {
    x: f64,
    label: String,
}

/// Draws a timeline; `None` when there is nothing to see.
pub(super) fn plot(timeline: &Timeline) -> Option<Plot> {
    let span = timeline.end - timeline.start;
    if span <= 0.0 || timeline.series.is_empty() {
        return None;
    }
    let x = |at: f64| LEFT + (at - timeline.start) / span * (WIDTH - LEFT - 16.0);
    let peak = timeline
        .series
        .iter()
        .flat_map(|s| &s.acks)
        .copied()
        .max()
        .unwrap_or(0)
        .max(1);
    let base = TOP + HEIGHT;
    let series = timeline.series.iter().map(|s| Area {
        site: s.site.clone(),
        incarnation: s.incarnation.clone(),
        path: area(&s.acks, timeline, peak, base, &x),
    });
    let marks = labels(timeline, base, &x);
    let rows = marks.iter().map(|m| m.text_y).fold(base + 14.0, f64::max);
    Some(Plot {
        width: WIDTH,
        height: rows + 8.0,
        left: LEFT,
        top: TOP,
        base,
        series: series.collect(),
        sites: timeline.series.iter().map(|s| s.site.clone()).collect(),
        gap: timeline.gap.map(|(from, to)| Gap {
            x: x(from),
            width: (x(to) - x(from)).max(1.0),
            label_x: (x(from) + (x(to) - x(from)).max(1.0) / 2.0).min(WIDTH - GAP_LABEL / 2.0),
            label: format!("{:.2} s without an ack", to - from),
        }),
        marks,
        ticks: ticks(timeline, &x),
        peak: format!("{:.0}/s", count(peak) / timeline.bin),
    })
}

/// Bins are small, so the loss of precision is never visible.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts of acks in a bin are far below 2^52"
)]
const fn count(n: u64) -> f64 {
    n as f64
}

fn area(
    acks: &[u64],
    timeline: &Timeline,
    peak: u64,
    base: f64,
    x: &impl Fn(f64) -> f64,
) -> String {
    let mut path = String::new();
    let mut open = false;
    let mut at = timeline.start;
    let mut put = |text: String| path.push_str(&text);
    for &n in acks {
        let next = at + timeline.bin;
        if n > 0 {
            let y = base - count(n) / count(peak) * HEIGHT;
            if !open {
                put(format!("M{:.1} {base:.1}", x(at)));
                open = true;
            }
            put(format!("L{:.1} {y:.1}L{:.1} {y:.1}", x(at), x(next)));
        } else if open {
            put(format!("L{:.1} {base:.1}Z", x(at)));
            open = false;
        }
        at = next;
    }
    if open {
        put(format!("L{:.1} {base:.1}Z", x(at)));
    }
    path
}

/// Places labels under the plot, each in the first row where it does not cover an earlier one.
fn labels(timeline: &Timeline, base: f64, x: &impl Fn(f64) -> f64) -> Vec<Line> {
    let mut rows: Vec<f64> = Vec::new();
    let mut out = Vec::new();
    for mark in &timeline.marks {
        let at = x(mark.at);
        let wide = count(mark.label.chars().count() as u64) * CHAR;
        let (start, end, anchor, text_x) = if at + wide > WIDTH {
            (at - wide, at, "end", at - 3.0)
        } else {
            (at, at + wide, "start", at + 3.0)
        };
        let row = rows
            .iter()
            .position(|&taken| taken < start)
            .unwrap_or(rows.len());
        if row == rows.len() {
            rows.push(end + CHAR);
        } else {
            rows[row] = end + CHAR;
        }
        out.push(Line {
            x: at,
            kind: mark.kind.clone(),
            label: mark.label.clone(),
            text_x,
            text_y: base + 28.0 + ROW * count(row as u64),
            anchor,
        });
    }
    out
}

fn ticks(timeline: &Timeline, x: &impl Fn(f64) -> f64) -> Vec<Tick> {
    let span = timeline.end - timeline.start;
    let step = [
        0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 3600.0,
    ]
    .into_iter()
    .find(|step| span / step <= 12.0)
    .unwrap_or(span / 12.0);
    let mut at = (timeline.start / step).ceil() * step;
    let mut out = Vec::new();
    while at <= timeline.end {
        let label = if step < 1.0 {
            format!("{at:.1} s")
        } else {
            format!("{at:.0} s")
        };
        out.push(Tick { x: x(at), label });
        at += step;
    }
    out
}

/// One stage of the RTO bar.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Bar {
    x: f64,
    width: f64,
    tone: usize,
    name: String,
    seconds: f64,
}

/// The stages side by side over the full width.
pub(super) fn bars(stages: &[StageView]) -> Vec<Bar> {
    let total: f64 = stages.iter().map(|s| s.seconds).sum();
    if total <= 0.0 {
        return Vec::new();
    }
    let mut x = 0.0;
    let bar = |(tone, stage): (usize, &StageView)| {
        let width = stage.seconds / total * WIDTH;
        let bar = Bar {
            x,
            width,
            tone: tone % 6,
            name: stage.name.clone(),
            seconds: stage.seconds,
        };
        x += width;
        bar
    };
    stages.iter().enumerate().map(bar).collect()
}

/// A bracket on a line from zero, its target as a limit.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Gauge {
    low: f64,
    width: f64,
    target: f64,
    over: bool,
}

/// Draws a bracket against its target on a 300-wide line; `None` without a target.
pub(super) fn gauge(bracket: Bracket) -> Option<Gauge> {
    let target = bracket.target?;
    let full = (target * 1.25)
        .max(bracket.high * 1.05)
        .max(f64::MIN_POSITIVE);
    let scale = 300.0 / full;
    Some(Gauge {
        low: bracket.low * scale,
        width: ((bracket.high - bracket.low) * scale).max(2.0),
        target: target * scale,
        over: bracket.high > target,
    })
}
