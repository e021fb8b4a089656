//! Text in a plan that means something: durations, quantities, parameter values. The types keep the
//! text as written and carry what to expect into the JSON Schema; the functions give it a meaning.

use std::time::Duration;

use jiff::SpanRelativeTo;
use jiff::fmt::friendly::SpanParser;
use schemars::JsonSchema;
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};

/// The schema keyword that tells a reader in words what a value should look like.
pub(super) const EXPECTS: &str = "x-expects";

/// The longest duration that a plan may ask for.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

static UNITS: SpanParser = SpanParser::new();

/// A duration as text: `90s`, `2m`, `1h 30m`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(title = "duration", extend("x-expects" = "a duration such as `90s`, `2m` or `1h 30m`"))]
pub struct DurationText(pub String);

impl From<&str> for DurationText {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// A Kubernetes quantity as text or integer: `64Mi`, `2Gi`, `1G`, `0`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(transparent)]
#[schemars(
    title = "quantity",
    extend("type" = ["string", "integer"], "x-expects" = "a quantity such as `64Mi`, `2Gi` or `1G`")
)]
pub struct QuantityText(pub String);

impl From<&str> for QuantityText {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// A parameter value: text, or an integer or boolean taken as its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(transparent)]
#[schemars(
    title = "text",
    extend("type" = ["string", "integer", "boolean"], "x-expects" = "text, an integer or a boolean; put other values into quotes")
)]
pub struct ParameterText(pub String);

impl<'de> Deserialize<'de> for QuantityText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarText).map(Self)
    }
}

impl<'de> Deserialize<'de> for ParameterText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarText).map(Self)
    }
}

struct ScalarText;

impl Visitor<'_> for ScalarText {
    type Value = String;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("text, an integer or a boolean")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<String, E> {
        Ok(value.to_string())
    }
}

/// Reads a duration in the friendly format; a day is 24 hours. The error is what is wrong with it.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = |why: &str| format!("`{text}` is not a duration: {why}");
    let span = UNITS
        .parse_span(text.trim())
        .map_err(|_syntax| format!("`{text}` is not a duration"))?;
    if span.get_years() != 0 || span.get_months() != 0 {
        return Err(wrong("months and years have no fixed length"));
    }
    let signed = span
        .to_duration(SpanRelativeTo::days_are_24_hours())
        .map_err(|_range| wrong("it is out of range"))?;
    let found = Duration::try_from(signed).map_err(|_negative| wrong("it is negative"))?;
    if found > LONGEST {
        return Err(wrong("it is longer than a year"));
    }
    Ok(found)
}

/// Writes a duration so that [`duration`] reads it back.
pub fn format_duration(value: Duration) -> String {
    jiff::SignedDuration::try_from(value).map_or_else(
        |_beyond| format!("{}s", value.as_secs()),
        |signed| format!("{signed:#}"),
    )
}

/// Reads a Kubernetes quantity as a whole number of bytes. The error is what is wrong with it.
pub fn quantity(text: &str) -> Result<u64, String> {
    let wrong = |why: &str| format!("`{text}` is not a quantity: {why}");
    let number_end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(number_end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return Err(wrong("it must begin with a number"));
    }
    if text.len() > 40 {
        return Err(wrong("it is too long"));
    }
    let (multiplier, divisor) =
        scale(suffix).ok_or_else(|| wrong(&format!("there is no suffix `{suffix}`")))?;
    let too_large = || wrong("it is too large");
    let digits: u128 = format!("{whole}{fraction}")
        .parse()
        .map_err(|_overflow| too_large())?;
    let ten = u32::try_from(fraction.len())
        .ok()
        .and_then(|places| 10_u128.checked_pow(places))
        .and_then(|ten| ten.checked_mul(divisor))
        .ok_or_else(too_large)?;
    let scaled = digits.checked_mul(multiplier).ok_or_else(too_large)?;
    if scaled % ten != 0 {
        return Err(wrong("it is not a whole number of bytes"));
    }
    u64::try_from(scaled / ten).map_err(|_overflow| too_large())
}

/// Multiplier and divisor of a quantity suffix, as `k8s.io/apimachinery/pkg/api/resource` has them.
fn scale(suffix: &str) -> Option<(u128, u128)> {
    let binary = |power: u32| Some((1_u128 << (10 * power), 1));
    let decimal = |power: u32| Some((10_u128.pow(power), 1));
    match suffix {
        "" => Some((1, 1)),
        "m" => Some((1, 1000)),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => {
            let power: u32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            (power <= 18).then(|| (10_u128.pow(power), 1))
        }
    }
}

/// Writes bytes with the largest binary suffix that keeps them exact.
pub fn format_quantity(bytes: u64) -> String {
    let mut value = bytes;
    let mut suffix = "";
    for next in ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"] {
        if value == 0 || !value.is_multiple_of(1024) {
            break;
        }
        value /= 1024;
        suffix = next;
    }
    format!("{value}{suffix}")
}

/// Whether `text` is a DNS label (RFC 1123) of at most `longest` characters.
pub fn is_dns_label(text: &str, longest: usize) -> bool {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let bytes = text.as_bytes();
    (1..=longest.min(63)).contains(&bytes.len())
        && bytes.iter().copied().all(inner)
        && bytes.first() != Some(&b'-')
        && bytes.last() != Some(&b'-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn quantities_survive_a_round_trip(bytes: u64) {
            prop_assert_eq!(quantity(&format_quantity(bytes)), Ok(bytes));
        }

        #[test]
        fn durations_survive_a_round_trip(ms in 0..LONGEST.as_millis()) {
            let value = Duration::from_millis(u64::try_from(ms).unwrap());
            prop_assert_eq!(duration(&format_duration(value)), Ok(value));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,60}") {
            prop_assert_eq!(quantity(&text).is_ok() && text.contains(' '), false);
            prop_assert_eq!(duration(&text).is_ok() && text.is_empty(), false);
        }
    }

    #[test]
    fn quantities_follow_kubernetes() {
        for (text, bytes) in [
            ("0", 0),
            ("2Gi", 2 << 30),
            ("1.5Gi", 3 << 29),
            ("1G", 1_000_000_000),
            ("12e6", 12_000_000),
            ("4000m", 4),
            (".5k", 500),
        ] {
            assert_eq!(quantity(text), Ok(bytes), "{text}");
        }
        for text in [
            "", "Gi", "-1", "1.5", "2GiB", "1 Gi", "1.2.3", "16Ei", "1e", "0x10", "1m",
        ] {
            assert!(quantity(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_friendly() {
        for (text, seconds) in [
            ("90s", 90),
            ("2m", 120),
            ("1h 30m", 5400),
            ("1h30m", 5400),
            ("1d", 86400),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        for text in ["", "90", "fast", "-5s", "1 month", "2000d", "PT5M"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn dns_labels() {
        assert!(is_dns_label("a-1", 63));
        for text in ["", "-a", "a-", "A", "a.b", "a_b", "é"] {
            assert!(!is_dns_label(text, 63), "{text}");
        }
        assert!(!is_dns_label("abcd", 3));
    }
}
