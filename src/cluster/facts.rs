//! What a site runs, and how far its clock is from ours.

use http::HeaderMap;
use serde_json::Value;

use super::answer::request;
use super::client::Cluster;
use super::crd::kubevirt::KubeVirt;
use super::error::Error;
use super::view::Scope;

/// What a site runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versions {
    /// Kubernetes version, `v1.36.2`.
    pub kubernetes: String,
    /// KubeVirt version, if a KubeVirt object could be read.
    pub kubevirt: Option<String>,
    /// The server's clock against ours, if it sends a date.
    pub clock: Option<Clock>,
}

/// The server's clock minus this host's, in milliseconds: `skew_ms ± bound_ms`. The `Date` header
/// has whole seconds, so the bound is half a second plus half the round trip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// The difference.
    pub skew_ms: i64,
    /// Its bound.
    pub bound_ms: u64,
}

impl Cluster {
    /// Asks what the site runs.
    pub async fn versions(&self) -> Result<Versions, Error> {
        let tried = self.tried("GET /version");
        let request = request(&tried, "GET", "/version", None)?;
        let sent = jiff::Timestamp::now();
        let answer = self.exchange(&tried, &request).await?;
        let clock = clock(&answer.headers, sent, jiff::Timestamp::now());
        let version = answer.json(&tried)?;
        let kubernetes = version
            .get("gitVersion")
            .and_then(Value::as_str)
            .unwrap_or_default();
        if kubernetes.is_empty() {
            return Err(Error::Answer {
                tried,
                why: "no gitVersion: this is not a Kubernetes API server".into(),
            });
        }
        Ok(Versions {
            kubernetes: kubernetes.to_owned(),
            kubevirt: self.kubevirt().await?,
            clock,
        })
    }

    async fn kubevirt(&self) -> Result<Option<String>, Error> {
        match self.list::<KubeVirt>(&Scope::All).await {
            Ok(found) => Ok(found
                .into_iter()
                .find_map(|k| k.status.observed_kube_virt_version)),
            Err(Error::MissingKind { .. } | Error::Forbidden { .. } | Error::NotFound { .. }) => {
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }
}

/// Brackets the server's clock: it was within `[date, date + 1 s)` at some moment between `sent` and
/// `received` on ours.
fn clock(headers: &HeaderMap, sent: jiff::Timestamp, received: jiff::Timestamp) -> Option<Clock> {
    let date = headers.get(http::header::DATE)?.to_str().ok()?;
    let date = jiff::fmt::rfc2822::parse(date)
        .ok()?
        .timestamp()
        .as_millisecond();
    let (sent, received) = (sent.as_millisecond(), received.as_millisecond());
    let (least, most) = (date - received, date + 1000 - sent);
    Some(Clock {
        skew_ms: least.midpoint(most),
        bound_ms: u64::try_from((most - least + 1) / 2).unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(date: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(http::header::DATE, date.parse().expect("a header"));
        headers
    }

    #[test]
    fn the_bracket_holds_the_true_skew() {
        let at = |text: &str| text.parse::<jiff::Timestamp>().expect("a timestamp");
        let headers = headers("Sun, 22 Nov 2026 12:00:10 GMT");
        // The true skew is anything with 12:00:10 ≤ host + skew < 12:00:11 at some point in flight.
        let clock = clock(
            &headers,
            at("2026-11-22T12:00:00Z"),
            at("2026-11-22T12:00:00.200Z"),
        )
        .expect("a clock");
        let bound = i64::try_from(clock.bound_ms).expect("small");
        assert!(clock.skew_ms - bound <= 9_800, "{clock:?}");
        assert!(clock.skew_ms + bound >= 11_000, "{clock:?}");
        assert!(clock.bound_ms <= 601, "{clock:?}");
    }

    #[test]
    fn a_server_without_a_date_has_no_clock() {
        let now = jiff::Timestamp::now();
        assert_eq!(clock(&HeaderMap::new(), now, now), None);
        assert_eq!(clock(&headers("yesterday"), now, now), None);
    }
}
