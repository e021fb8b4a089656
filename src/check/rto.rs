//! T1 and T2: how long was there no service, and do the named stages account for it?

use super::case::Case;
use super::finding::{Finding, moment, seconds, time};
use super::rpo::between;
use crate::history::acks::Bracket;
use crate::history::event::Stage;
use crate::probe::layout::WRITER_CANARY;

/// Every stage, in the order of the sum.
const STAGES: [Stage; 12] = [
    Stage::Fault,
    Stage::Ordered,
    Stage::Fenced,
    Stage::Demoted,
    Stage::HandedOver,
    Stage::Promoted,
    Stage::VmCreated,
    Stage::VmiRunning,
    Stage::SshBanner,
    Stage::SshAuth,
    Stage::DevicesOpen,
    Stage::FirstAck,
];

/// What the stages may miss of the total: a hundredth, this, or as long as nothing was heard for before
/// the fault too. What is heard comes in pieces, and the last one before the fault lies somewhat before it.
const SLACK_NS: u64 = 100_000_000;

/// The outage on the host's clock.
#[derive(Debug, Clone, Copy)]
struct Outage {
    /// The last ack heard before the fault.
    last_heard: u64,
    /// When the service ended.
    start: Bracket,
    /// When the first canary was durable.
    end: Bracket,
    /// The longest time between two acks in a row before that.
    pauses: u64,
}

impl Outage {
    const fn low(&self) -> u64 {
        self.end.low.saturating_sub(self.start.high)
    }
    const fn high(&self) -> u64 {
        self.end.high.saturating_sub(self.start.low)
    }
    /// As heard: from the last ack to the first canary ack.
    const fn heard(&self) -> u64 {
        self.end.high.saturating_sub(self.last_heard)
    }
}

fn outage(case: &Case<'_>) -> Result<Outage, String> {
    let fault = case
        .fault()
        .ok_or("the history holds no fault and no order to move")?;
    let load = case
        .load_at(fault)
        .ok_or("no load ran when the fault came")?;
    let batches = load.acks.batches();
    let heard = load.acks.last_batch_at(fault);
    let heard = heard.and_then(|at| batches.get(..=at));
    let (before, last) = heard
        .and_then(|heard| Some((heard, heard.last()?)))
        .ok_or("no ack was heard before the fault")?;
    let pauses = before.windows(2).filter_map(|pair| match pair {
        [one, next] => Some(next.at_ns.saturating_sub(one.at_ns)),
        _ => None,
    });
    let later = case
        .incarnations()
        .filter(|known| known.at_ns >= fault && known.name != load.name);
    let mut firsts = later.filter_map(|known| {
        let canary = known
            .acks
            .acked()
            .find(|acked| acked.writer == WRITER_CANARY)?;
        known.acks.bracket(canary.batch)
    });
    let end = firsts
        .next()
        .ok_or("no canary was acked after the fault: the service did not come back")?;
    Ok(Outage {
        last_heard: last.at_ns,
        start: Bracket {
            low: load.acks.sent(last.token),
            high: fault.max(last.at_ns),
        },
        end,
        pauses: pauses.max().unwrap_or(0),
    })
}

/// T1.
pub(super) fn total(case: &Case<'_>) -> Finding {
    let outage = match outage(case) {
        Ok(outage) => outage,
        Err(why) => return Finding::unsure(why),
    };
    let (low, high) = (outage.low(), outage.high());
    let objective = case.plan.objectives().rto;
    let target = objective.map(|target| target.as_secs_f64());
    let said = format!(
        "out for {:.3} s as heard, {:.3} s to {:.3} s in truth",
        seconds(outage.heard()),
        seconds(low),
        seconds(high)
    );
    let allowed = objective.map_or(u64::MAX, |target| {
        u64::try_from(target.as_nanos()).unwrap_or(u64::MAX)
    });
    let finding = if low > allowed {
        Finding::fail(format!("{said}: longer than allowed"))
            .witness(format!("last ack heard at {}", moment(outage.last_heard)))
            .witness(format!(
                "first canary durable {}",
                between(outage.end.low, outage.end.high)
            ))
    } else if high > allowed {
        Finding::unsure(format!("{said}: the objective lies inside the bracket"))
    } else if objective.is_none() {
        Finding::pass(format!(
            "{said}; the plan sets no RTO, so coming back is enough"
        ))
    } else {
        Finding::pass(said)
    };
    finding
        .measure(time("rto", low, high, target))
        .measure(time("rto.heard", outage.heard(), outage.heard(), target))
        .limit(format!(
            "bracket {:.3} s wide: one token interval at each end, and the silence before the fault",
            seconds(high.saturating_sub(low))
        ))
}

/// A stage's name as in the events.
fn name(stage: Stage) -> String {
    match serde_json::to_value(stage) {
        Ok(serde_json::Value::String(name)) => name,
        _ => format!("{stage:?}"),
    }
}

/// T2.
pub(super) fn stages(case: &Case<'_>) -> Finding {
    let outage = match outage(case) {
        Ok(outage) => outage,
        Err(why) => return Finding::unsure(why),
    };
    let marks: Vec<(Stage, u64)> = STAGES
        .into_iter()
        .filter_map(|stage| Some((stage, case.stage(stage)?)))
        // The ack itself is on record, and says better when it came than whoever noticed it later.
        .map(|(stage, at_ns)| match stage {
            Stage::FirstAck => (stage, at_ns.min(outage.end.high)),
            _ => (stage, at_ns),
        })
        .collect();
    let has = |stage: Stage| marks.iter().any(|(known, _)| *known == stage);
    let either = [Stage::Fenced, Stage::Demoted];
    let mut missing: Vec<String> = STAGES
        .into_iter()
        .filter(|stage| !either.contains(stage) && !has(*stage))
        .map(name)
        .collect();
    if !either.into_iter().any(has) {
        missing.push("fenced or demoted".into());
    }
    if !missing.is_empty() {
        return Finding::unsure(format!("no mark of {}", missing.join(", ")));
    }
    let mut finding = Finding::pass("");
    let mut sum = 0;
    for pair in marks.windows(2) {
        let [(before, from), (stage, to)] = pair else {
            continue;
        };
        let Some(took) = to.checked_sub(*from) else {
            return Finding::unsure(format!(
                "{} came before {}: the stages are not one after the other",
                name(*stage),
                name(*before)
            ));
        };
        sum += took;
        finding = finding.measure(time(&format!("rto.{}", name(*stage)), took, took, None));
    }
    let total = outage.heard();
    let gap = total.abs_diff(sum);
    let said = format!(
        "{} stages sum to {:.3} s of {:.3} s",
        marks.len() - 1,
        seconds(sum),
        seconds(total)
    );
    if gap > SLACK_NS.max(total / 100).max(outage.pauses) {
        return Finding::unsure(format!(
            "{said}; {:.3} s are not accounted for",
            seconds(gap)
        ));
    }
    finding.summary = said;
    finding.limit("a stage's end is when the host noticed it, not when it happened")
}
