//! Reading a volume from end to end: the probe's scan, and dd with the same size of reads.

use std::time::Duration;

use crate::ledger::Ledger;
use crate::pairs::Sample;
use crate::place::{Place, timed};

/// How often the volume has to be read for a measurement of about that length: clocks tell 10 ms.
pub(crate) async fn times(place: &impl Place, window: Duration) -> anyhow::Result<u32> {
    let (took, _) = timed(place, &dd_once(place), b"").await?;
    let mut times = 1;
    while f64::from(times) * took < window.as_secs_f64() && times < 64 {
        times += 1;
    }
    Ok(times)
}

fn dd_once(place: &impl Place) -> String {
    format!(
        "dd if={} of=/dev/null bs=1M iflag=direct 2>/dev/null",
        place.ours()
    )
}

fn repeat(times: u32, command: &str) -> String {
    let word = |_| format!("{command} || exit 1");
    (0..times).map(word).collect::<Vec<_>>().join("; ")
}

pub(crate) async fn dd(place: &impl Place, times: u32) -> anyhow::Result<Sample> {
    let (took, cpu) = timed(place, &repeat(times, &dd_once(place)), b"").await?;
    Ok(sample(
        place_bytes(times, crate::ledger::size(place).await?),
        took,
        cpu,
    ))
}

/// The scan's frames go nowhere, as dd's bytes do.
pub(crate) async fn scan(
    place: &impl Place,
    ledger: &Ledger,
    times: u32,
) -> anyhow::Result<Sample> {
    let file = format!("{}.config", place.socket());
    let keep = format!("cat > {file}");
    place.run(&keep, ledger.to_scan().as_bytes()).await?;
    let once = format!("{} scan < {file} > /dev/null", place.probe());
    let (took, cpu) = timed(place, &repeat(times, &once), b"").await?;
    place.run(&format!("rm {file}"), b"").await?;
    Ok(sample(
        place_bytes(times, crate::ledger::size(place).await?),
        took,
        cpu,
    ))
}

#[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^53")]
fn place_bytes(times: u32, size: u64) -> f64 {
    f64::from(times) * size as f64
}

fn sample(bytes: f64, took: f64, cpu: f64) -> Sample {
    Sample {
        rate: bytes / 1e6 / took,
        cpu: cpu * 1e3 / (bytes / 1e9),
    }
}
