//! Sizes as Kubernetes writes them.

/// Bytes of a quantity, rounded up; `None` unless it is a non-negative number with a known suffix.
pub(in crate::lab) fn bytes(text: &str) -> Option<u64> {
    const SUFFIXES: [(&str, u64); 12] = [
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("Ti", 1 << 40),
        ("Pi", 1 << 50),
        ("Ei", 1 << 60),
        ("k", 1_000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
        ("T", 1_000_000_000_000),
        ("P", 1_000_000_000_000_000),
        ("E", 1_000_000_000_000_000_000),
    ];
    let (number, unit) = SUFFIXES
        .iter()
        .find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, *unit)))
        .unwrap_or((text, 1));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let total = digits.checked_mul(u128::from(unit))?.div_ceil(scale);
    u64::try_from(total).ok()
}

/// The size that storage makes of a request: whole MiB, at least one.
pub(in crate::lab) fn provisioned(request: u64) -> u64 {
    request.max(1).div_ceil(1 << 20) << 20
}

/// A whole number of MiB as a quantity.
pub(in crate::lab) fn text(bytes: u64) -> String {
    if bytes.is_multiple_of(1 << 30) {
        format!("{}Gi", bytes >> 30)
    } else {
        format!("{}Mi", bytes >> 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_does() {
        for (text, expected) in [
            ("2Gi", Some(2 << 30)),
            ("1.5Gi", Some(3 << 29)),
            ("100M", Some(100_000_000)),
            ("4096", Some(4096)),
            ("0.5", Some(1)),
            ("", None),
            ("Gi", None),
            ("-1Gi", None),
            ("1 Gi", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }

    #[test]
    fn storage_rounds_up_and_says_so() {
        assert_eq!(provisioned(1), 1 << 20);
        assert_eq!(provisioned((1 << 30) + 1), (1 << 30) + (1 << 20));
        assert_eq!(text(provisioned(2 << 30)), "2Gi");
        assert_eq!(text(provisioned((1 << 30) + 1)), "1025Mi");
    }
}
