//! What a number of trials says of a rate. One clean failover proves one cut; `n` clean trials bound
//! the rate of violations at about 3/n with 95 % confidence (the rule of three). Trials aimed at
//! different moments sample different rates and are not counted together.

use super::CheckSpec;
use super::case::Trial;
use super::finding::float;
use super::verdict::{Status, Verdict};

/// Tells each pass of a sampled check how many samples there were and what they bound.
pub(super) fn bound(specs: &[CheckSpec], trials: &[Trial<'_>], verdicts: &mut [Verdict]) {
    let sampled = |id: &str| specs.iter().any(|spec| spec.sampled && spec.id == id);
    let aimed = |name: &str| trials.iter().find(|t| t.name == name).and_then(|t| t.aimed);
    let limits: Vec<Option<String>> = verdicts
        .iter()
        .map(|verdict| {
            if verdict.status != Status::Pass || !sampled(&verdict.check) {
                return None;
            }
            let aim = aimed(&verdict.trial);
            let alike: Vec<Status> = verdicts
                .iter()
                .filter(|other| {
                    other.check == verdict.check
                        && other.scenario == verdict.scenario
                        && aimed(&other.trial) == aim
                })
                .map(|other| other.status)
                .collect();
            Some(limit(&alike, aim))
        })
        .collect();
    for (verdict, limit) in verdicts.iter_mut().zip(limits) {
        verdict.limits.extend(limit);
    }
}

fn limit(alike: &[Status], aim: Option<&str>) -> String {
    let samples = alike.len() as u64;
    let clean = alike
        .iter()
        .filter(|status| **status == Status::Pass)
        .count() as u64;
    let at = aim.map_or_else(
        || "at moments that were not aimed".to_owned(),
        |moment| format!("aimed at {moment}"),
    );
    if clean < samples {
        return format!(
            "{clean} of {samples} samples in this run passed, {at}: no bound on the rate of violations"
        );
    }
    let rate = (300.0 / float(samples)).min(100.0);
    let plural = if samples == 1 { "" } else { "s" };
    format!(
        "{samples} clean sample{plural} in this run, {at}: a rate of violations below about {rate:.0} % (3/n) is not excluded"
    )
}
