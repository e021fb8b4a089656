//! fio with as many jobs as the probe has writers, over as many bytes.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;

use crate::ledger::REGION;
use crate::pairs::Sample;
use crate::place::Place;

/// One run; `batch` is 0 for `O_DSYNC`, else the writes of a job between its flushes.
pub(crate) async fn run(
    place: &impl Place,
    jobs: u32,
    batch: u32,
    window: Duration,
) -> anyhow::Result<Sample> {
    let sync = match batch {
        0 => "--sync=dsync".to_owned(),
        each => format!("--fdatasync={each}"),
    };
    let share = REGION / u64::from(jobs) / 4096 * 4096;
    let command = format!(
        "fio --name=w --filename={} --rw=randwrite --bs=4k --direct=1 {sync} --iodepth=1 \
         --ioengine=psync --numjobs={jobs} --thread --group_reporting --size={share} \
         --offset_increment={share} --time_based --ramp_time=500ms --runtime={}ms \
         --output-format=json",
        place.theirs(),
        window.as_millis(),
    );
    let said = place.run(&command, b"").await?;
    let json = said.find('{').map_or("", |at| &said[at..]);
    let told: Value = serde_json::from_str(json).with_context(|| format!("fio said {said:?}"))?;
    let number = |pointer: &str| {
        let found = told.pointer(pointer).and_then(Value::as_f64);
        found.with_context(|| format!("fio did not say {pointer}"))
    };
    let writes = number("/jobs/0/write/total_ios")?;
    // fio gives CPU in percent of the job's time, averaged over the group.
    let percent = number("/jobs/0/usr_cpu")? + number("/jobs/0/sys_cpu")?;
    let cpu = percent / 100.0 * window.as_secs_f64() * f64::from(jobs);
    Ok(Sample {
        rate: number("/jobs/0/write/iops")?,
        cpu: cpu * 1e6 / writes,
    })
}
