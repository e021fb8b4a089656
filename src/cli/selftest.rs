//! `selftest`: every fault of the table put into effect, and what came of it.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::Semaphore;

use super::args::{Format, GuestKind, Selftest};
use super::exit::Exit;
use super::output::{columns, line, note, raw};
use super::signals;
use crate::check::CATALOGUE;
use crate::lab::faults::{FaultSpec, How};
use crate::run::RunError;
use crate::selftest::{self, Actor, Matrix, Row, Seen, Simulated, Word, chosen, gaps};
use crate::sim;

pub(super) async fn selftest(args: &Selftest, format: Format) -> anyhow::Result<Exit> {
    if let Some(replay) = &args.replay {
        let story = sim::shrink(replay.seed, replay.kind)?;
        line(&story)?;
        return Ok(if story.fails {
            Exit::Failed
        } else {
            Exit::Pass
        });
    }
    let specs = chosen(&args.only).map_err(|why| RunError::Usage(anyhow::anyhow!(why)))?;
    if args.list {
        return list(&specs, format);
    }
    let specs = playable(specs, args)?;
    let out = args.out.clone().unwrap_or_else(default_out);
    std::fs::create_dir_all(&out).with_context(|| format!("making {}", out.display()))?;
    let actor = Actor {
        exe: std::env::current_exe().context("finding this program")?,
        out: std::path::absolute(&out)?,
        keep: args.keep,
        real: args.guests == GuestKind::Qemu,
    };
    let cancel = signals::cancel_on_signal("the runs under way end with it".into())?;
    let shown = tokio::select! {
        () = cancel.cancelled() => return Ok(Exit::Interrupted),
        shown = rows(&actor, &specs, args) => shown?,
    };
    let simulated = simulated(args).await?;
    let checks: Vec<&str> = CATALOGUE.iter().map(|spec| spec.id).collect();
    let gaps = if args.only.is_empty() {
        gaps(&specs, &shown, &checks)
    } else {
        Vec::new()
    };
    let matrix = Matrix {
        checks: checks.into_iter().map(str::to_owned).collect(),
        rows: shown,
        gaps,
        simulated,
    };
    write(&matrix, &out)?;
    match format {
        Format::Text => raw(selftest::table(&matrix, super::paint))?,
        Format::Json => line(serde_json::to_string(&matrix)?)?,
    }
    note(format_args!(
        "matrix: {}",
        out.join("selftest.html").display()
    ))?;
    Ok(if matrix.holds() {
        Exit::Pass
    } else {
        Exit::Failed
    })
}

/// The rows that the chosen kind of guest can play; says which it cannot.
fn playable(
    specs: Vec<&'static FaultSpec>,
    args: &Selftest,
) -> anyhow::Result<Vec<&'static FaultSpec>> {
    if args.guests == GuestKind::Sim {
        return Ok(specs);
    }
    let (left, played): (Vec<&'static FaultSpec>, Vec<_>) =
        specs.into_iter().partition(|spec| spec.simulated_only);
    for spec in left {
        note(format_args!("{}: only simulated guests play it", spec.name))?;
    }
    Ok(played)
}

/// Runs all rows at all seeds, so many at a time, and says each as it ends.
async fn rows(
    actor: &Actor,
    specs: &[&'static FaultSpec],
    args: &Selftest,
) -> anyhow::Result<Vec<Row>> {
    let places = Semaphore::new(args.jobs.max(1));
    let mut under_way = FuturesUnordered::new();
    for (index, spec) in specs.iter().enumerate() {
        let seeds = match spec.how {
            How::Nowhere => 0,
            _ if spec.real_only && !actor.real => 0,
            _ => args.seeds,
        };
        for seed in args.seed..args.seed + seeds {
            let places = &places;
            under_way.push(async move {
                let _place = places.acquire().await?;
                let seen = actor.act(spec, seed).await?;
                anyhow::Ok((index, seen))
            });
        }
    }
    let mut seen: Vec<Vec<Seen>> = vec![Vec::new(); specs.len()];
    let (all, mut done) = (under_way.len(), 0);
    while let Some(ended) = under_way.next().await {
        let (index, one) = ended?;
        done += 1;
        let spec = specs[index];
        let word = selftest::judge(spec, &one);
        if !word.is_bad() {
            actor.tidy(spec, one.seed)?;
        }
        note(said(spec, &one, &word, (done, all)))?;
        seen[index].push(one);
    }
    let rows = specs.iter().zip(seen).map(|(spec, mut seen)| {
        seen.sort_by_key(|one| one.seed);
        Row::new(spec, seen)
    });
    Ok(rows.collect())
}

fn said(spec: &FaultSpec, shown: &Seen, word: &Word, (done, all): (usize, usize)) -> String {
    let came = match word {
        Word::AsOrdained => format!("{} as ordained", spec.word()),
        Word::Unreachable(why) => format!("unreachable: {why}"),
        Word::Broken(why) => format!("BROKEN: {why}"),
        Word::FalseAlarm(why) => format!("FALSE ALARM: {why}"),
        Word::Miss(why) => format!("MISSED: {why}"),
    };
    let (name, seed, took) = (spec.name, shown.seed, shown.seconds);
    format!("[{done:>3}/{all}] {took:6.1}s  {name} (seed {seed})  {came}")
}

/// Judges simulated histories on threads of their own.
async fn simulated(args: &Selftest) -> anyhow::Result<Option<Simulated>> {
    let (count, threads) = (args.histories, args.jobs.max(1));
    if count == 0 {
        return Ok(None);
    }
    let told = move |kind: sim::Kind, done: u64| {
        if done == count {
            // A line that cannot be written is no reason to stop judging.
            note(format_args!("{done} {} histories judged", kind.name())).ok();
        }
    };
    let judged =
        tokio::task::spawn_blocking(move || selftest::simulate(count, threads, told)).await??;
    Ok(Some(judged))
}

/// The rows, with what shapes and wakes them.
fn list(specs: &[&FaultSpec], format: Format) -> anyhow::Result<Exit> {
    if format == Format::Json {
        let rows: Vec<_> = specs.iter().map(|row| listed(row)).collect();
        line(serde_json::to_string(&rows)?)?;
        return Ok(Exit::Pass);
    }
    let rows = specs.iter().map(|row| {
        let mut name = row.name.to_owned();
        for (index, param) in row.params.iter().enumerate() {
            name.push(if index == 0 { ':' } else { ',' });
            name.extend([param.name, "=", &param.default.to_string()]);
        }
        if let Some(moment) = row.aim {
            name.push('@');
            name.push_str(moment.name());
        }
        [
            name,
            row.entries.join(","),
            row.word(),
            row.scenario.into(),
            row.summary.into(),
        ]
        .to_vec()
    });
    raw(columns(&rows.collect::<Vec<_>>()))?;
    Ok(Exit::Pass)
}

fn listed(row: &FaultSpec) -> serde_json::Value {
    let params: Vec<_> = row
        .params
        .iter()
        .map(|p| serde_json::json!({"name": p.name, "default": p.default, "unit": p.unit}))
        .collect();
    serde_json::json!({
        "name": row.name, "entries": row.entries, "place": row.place.name(),
        "phase": row.phase.name(), "ordained": row.word(), "scenario": row.scenario,
        "aim": row.aim.map(crate::lab::faults::Moment::name), "params": params,
        "summary": row.summary, "sources": row.sources,
    })
}

fn write(matrix: &Matrix, out: &Path) -> anyhow::Result<()> {
    let write = |name: &str, text: String| {
        let path = out.join(name);
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    };
    write("selftest.json", serde_json::to_string_pretty(matrix)?)?;
    write("selftest.html", selftest::html(matrix)?)?;
    write(
        "selftest.txt",
        selftest::table(matrix, |_, text| text.to_owned()),
    )
}

/// A folder named for the moment, so that self-tests do not meet.
fn default_out() -> PathBuf {
    let now = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S").to_string();
    PathBuf::from(format!("virtproof-selftest-{now}"))
}
