//! Why a step stopped short, and whether that says anything about what is tested.

use crate::cluster;
use crate::history::event::Outcome;
use crate::replicate;

/// Why a step stopped short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    /// What was tried and seen.
    pub(super) why: String,
    /// Whether it only says that the tool could not look or was not heard: an API server that gave
    /// no answer, throttled us or failed itself, up to the end of our patience. The storage may be
    /// as sound as ever, so nothing may be condemned for it, and nothing passes either.
    pub(super) blind: bool,
}

impl Trouble {
    /// What an error in `step` means.
    pub(super) fn of(step: &str, error: &anyhow::Error) -> Self {
        Self {
            why: format!("{step}: {error:#}"),
            blind: error.chain().any(is_blind),
        }
    }

    /// How something ended that met these troubles: uncertain if none of them says more than that
    /// nobody could look.
    pub(super) fn outcome<'a>(troubles: impl IntoIterator<Item = (String, &'a Self)>) -> Outcome {
        let (whys, blind): (Vec<String>, Vec<bool>) = troubles
            .into_iter()
            .map(|(whose, trouble)| (format!("{whose}{}", trouble.why), trouble.blind))
            .unzip();
        let why = whys.join("; ");
        if whys.is_empty() {
            Outcome::Ok
        } else if blind.iter().all(|blind| *blind) {
            Outcome::Unknown(format!("the API did not serve us: {why}"))
        } else {
            Outcome::Failed(why)
        }
    }
}

fn is_blind(cause: &(dyn std::error::Error + 'static)) -> bool {
    let direct = cause.downcast_ref::<cluster::Error>();
    let through = match cause.downcast_ref::<replicate::Error>() {
        Some(replicate::Error::Cluster(error)) => Some(error),
        _ => None,
    };
    direct.or(through).is_some_and(cluster::Error::is_blind)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use anyhow::Context as _;

    use super::*;
    use crate::cluster::{Timeout, Tried};
    use crate::history::event::Site;

    fn timeout(last_error: Option<&str>) -> cluster::Error {
        cluster::Error::from(Timeout {
            waiting_for: "the VM".into(),
            last_seen: "Starting".into(),
            last_error: last_error.map(Into::into),
            waited: Duration::from_secs(1),
        })
    }

    fn throttled() -> cluster::Error {
        cluster::Error::Http {
            tried: Tried {
                site: Site::Primary,
                what: "PUT x".into(),
            },
            code: 429,
            message: "Too many requests".into(),
        }
    }

    fn outcome(errors: &[anyhow::Error]) -> Outcome {
        let troubles: Vec<_> = errors.iter().map(|e| Trouble::of("boot", e)).collect();
        Trouble::outcome(troubles.iter().map(|trouble| ("vm-0: ".into(), trouble)))
    }

    #[test]
    fn an_api_that_does_not_serve_condemns_nothing() {
        let wrapped = replicate::Error::Cluster(throttled());
        for error in [
            throttled().into(),
            anyhow::Error::new(wrapped).context("waiting"),
            timeout(Some("HTTP 503")).into(),
        ] {
            let ended = outcome(&[error]);
            assert!(
                matches!(&ended, Outcome::Unknown(why) if why.contains("vm-0: boot")),
                "{ended:?}"
            );
        }
    }

    #[test]
    fn a_state_that_was_seen_does() {
        let ended = outcome(&[timeout(None).into()]);
        assert!(matches!(ended, Outcome::Failed(_)), "{ended:?}");
        let seen = Err::<(), _>(timeout(None))
            .context("waiting")
            .expect_err("seen");
        let ended = outcome(&[throttled().into(), seen]);
        assert!(
            matches!(ended, Outcome::Failed(_)),
            "one finding is enough: {ended:?}"
        );
        assert_eq!(outcome(&[]), Outcome::Ok);
    }
}
