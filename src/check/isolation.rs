//! O6: could the rehearsed VM reach what it must not reach?

use super::case::Case;
use super::finding::Finding;
use crate::history::event::Fact;

/// O6.
pub(super) fn check(case: &Case<'_>) -> Finding {
    let mut reached = Vec::new();
    let mut untried = Vec::new();
    let mut refused = 0_u64;
    for event in case.events() {
        let Fact::Reach {
            site,
            address,
            reached: word,
            said,
        } = &event.fact
        else {
            continue;
        };
        let line = format!(
            "{address} from the guest on the {site}: {said}, event {}",
            event.seq
        );
        match word {
            Some(true) => reached.push(line),
            Some(false) => refused += 1,
            None => untried.push(line),
        }
    }
    if !reached.is_empty() {
        return Finding::fail(format!(
            "the guest reached {} addresses that it must not reach",
            reached.len()
        ))
        .witnesses(&reached);
    }
    if !untried.is_empty() {
        return Finding::unsure("not every forbidden address could be tried").witnesses(&untried);
    }
    if refused == 0 {
        return Finding::unsure("no forbidden address was tried from the guest");
    }
    Finding::pass(format!("none of {refused} attempts reached anything"))
        .limit("only the addresses of the plan were tried, over TCP and at these moments")
        .count("attempts", "1", refused)
}
