//! `lab`: simulated sites, in this process or talked to over their control socket.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::ValueEnum as _;
use tempfile::TempDir;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::args::{
    Format, GuestArgs, GuestInit, GuestKind, LabFault, LabUp, LabVerb, PowerState, SiteName,
};
use super::exit::Exit;
use super::output::{columns, line, note, raw};
use super::{guests, signals, trace};
use crate::history::event::{Event, Fact, Site};
use crate::lab::control::{self, Answer, Request, Status, ask};
use crate::lab::faults::{Board, Moment, Planting};
use crate::lab::qemu::image::Layer;
use crate::lab::{Lab, LabConfig, faults};
use crate::plan::{self, Known, Loaded};
use crate::run::RunError;

pub(super) async fn lab(verb: LabVerb, format: Format, verbose: u8) -> anyhow::Result<Exit> {
    match verb {
        LabVerb::Up(up) if up.detach => detach(&up).await,
        LabVerb::Up(up) => foreground(&up, verbose).await,
        LabVerb::Down(dir) => down(&dir.dir).await,
        LabVerb::Status(dir) => status(&dir.dir, format).await,
        LabVerb::Fault(fault) => plant(fault).await,
        LabVerb::Image(image) => guests::image(image.verb, format).await,
        LabVerb::Power(power) => {
            let site = match power.site {
                SiteName::Primary => Site::Primary,
                SiteName::Secondary => Site::Secondary,
            };
            told(
                &power.dir,
                Request::Power {
                    site,
                    on: power.state == PowerState::On,
                },
            )
            .await
        }
    }
}

/// A lab for the length of one run.
pub(super) struct InProcess {
    dir: TempDir,
    serving: JoinHandle<anyhow::Result<()>>,
    board: Arc<Board>,
    kind: GuestKind,
}

impl InProcess {
    /// Starts a lab in a folder of its own with faults planted.
    pub(super) async fn start(
        names: &[String],
        seed: u64,
        guests: &GuestArgs,
        layers: &BTreeSet<Layer>,
    ) -> anyhow::Result<Self> {
        let asked: Vec<_> = names
            .iter()
            .map(|name| asked(name))
            .collect::<Result<_, _>>()?;
        let dir = tempfile::Builder::new()
            .prefix("virtproof-lab-")
            .tempdir()?;
        let exe = std::env::current_exe().context("finding this program")?;
        std::os::unix::fs::symlink(exe, dir.path().join("virtproof"))?;
        let config = LabConfig {
            dir: dir.path().to_owned(),
            seed,
            time_scale: LabConfig::FAST,
            guests: guests::of(guests, dir.path(), layers).await?,
        };
        let lab = Lab::start(&config)
            .await
            .context("starting the simulated sites")?;
        for planting in asked {
            lab.board().put(planting);
        }
        let board = Arc::clone(lab.board());
        let listener = lab.listen()?;
        let serving = tokio::spawn(async move {
            lab.serve(listener).await?;
            lab.stop().await;
            Ok(())
        });
        Ok(Self {
            dir,
            serving,
            board,
            kind: guests.guests,
        })
    }

    /// Wakes the faults that are aimed at the load, a moment after the loads of the first trial have
    /// begun, so that there is something to lose.
    pub(super) fn aim(&self, mut events: Receiver<Arc<Event>>) {
        const INTO_THE_LOAD: Duration = Duration::from_millis(700);
        let board = Arc::clone(&self.board);
        tokio::spawn(async move {
            // Every VM of the first trial must have something to lose.
            let mut waiting_for = usize::MAX;
            while waiting_for > 0 {
                match events.recv().await {
                    Ok(event) => match &event.fact {
                        Fact::TrialStarted {
                            subjects, parts, ..
                        } => waiting_for = subjects.len().saturating_sub(parts.len()),
                        Fact::LoadStarted { .. } => waiting_for -= 1,
                        _ => {}
                    },
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                }
            }
            tokio::time::sleep_until(Instant::now() + INTO_THE_LOAD).await;
            board.moment(Moment::Load);
        });
    }

    /// The built-in plan.
    pub(super) fn plan(&self, sets: &[String], only: &[String]) -> Result<Loaded, RunError> {
        built_in(self.kind, self.dir.path(), sets, only)
    }

    /// Copies what its guests said on their consoles into a run directory. Nobody judges it, so it
    /// stands beside the evidence and is not sealed.
    pub(super) fn keep_consoles(&self, run: &Path) -> anyhow::Result<()> {
        guests::consoles(self.dir.path(), &run.join(crate::evidence::UNSEALED))
    }

    /// Stops it and removes its folder.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        ask(self.dir.path(), &Request::Down).await?;
        self.serving.await.context("the lab's task")??;
        self.dir.close().context("removing the lab's folder")
    }
}

/// The built-in plan for a kind of guests, as if it lay in a folder.
pub(super) fn built_in(
    kind: GuestKind,
    dir: &Path,
    sets: &[String],
    only: &[String],
) -> Result<Loaded, RunError> {
    let (sets, known) = (&scenarios(sets, only), Known::nothing());
    let loaded = match kind {
        GuestKind::Sim => plan::lab_with(dir, sets, &known),
        GuestKind::Qemu => plan::lab_qemu_with(dir, sets, &known),
    };
    loaded.map_err(RunError::usage)
}

/// What the built-in plan is changed by: its scenarios are a selection, and whoever asks for others
/// by `--only` means the whole catalogue.
fn scenarios(sets: &[String], only: &[String]) -> Vec<String> {
    let mut sets = sets.to_vec();
    if !only.is_empty() && !sets.iter().any(|set| set.starts_with("scenarios")) {
        sets.insert(0, format!("scenarios={}", serde_json::json!(only)));
    }
    sets
}

/// A fault as asked for on the command line.
fn asked(text: &str) -> Result<Planting, RunError> {
    faults::parse(text).map_err(|why| {
        let name = text.split([':', '@']).next().unwrap_or(text);
        let closest = plan::problem::closest(name, faults::names())
            .filter(|close| *close != name)
            .map(|close| format!("; did you mean `{close}`?"))
            .unwrap_or_default();
        RunError::Usage(anyhow::anyhow!("{why}{closest}"))
    })
}

async fn foreground(up: &LabUp, verbose: u8) -> anyhow::Result<Exit> {
    trace::start(verbose)?;
    std::fs::create_dir_all(&up.dir)
        .with_context(|| format!("making the folder {}", up.dir.display()))?;
    if ask(&up.dir, &Request::Status).await.is_ok() {
        bail!("a lab is already up in {}", up.dir.display());
    }
    let config = LabConfig {
        dir: up.dir.clone(),
        seed: up.seed,
        time_scale: up.time_scale,
        guests: guests::of(&up.guests, &up.dir, &BTreeSet::new()).await?,
    };
    let lab = Lab::start(&config)
        .await
        .context("starting the simulated sites")?;
    let listener = lab.listen()?;
    for path in lab.kubeconfigs() {
        line(path.display())?;
    }
    note("the lab is up; Ctrl-C stops it")?;
    let cancel = signals::cancel_on_signal("the lab is gone with it".into())?;
    tokio::select! {
        ended = lab.serve(listener) => ended.context("serving the control socket")?,
        () = cancel.cancelled() => {}
    }
    lab.stop().await;
    Ok(Exit::Pass)
}

/// The command line of the same lab in the foreground.
fn again(up: &LabUp) -> Vec<OsString> {
    let GuestArgs {
        guests,
        kernel,
        initrd,
        accel,
        guest_init,
        sessions_survive,
    } = &up.guests;
    let name = |value: Option<clap::builder::PossibleValue>| {
        value.map_or_else(OsString::new, |value| value.get_name().into())
    };
    let mut line: Vec<OsString> = ["lab", "up"].map(OsString::from).to_vec();
    let mut put = |option: &str, value: OsString| line.extend([option.into(), value]);
    put("--dir", up.dir.clone().into());
    put("--time-scale", up.time_scale.to_string().into());
    put("--seed", up.seed.to_string().into());
    put("--guests", name(guests.to_possible_value()));
    put("--accel", name(accel.to_possible_value()));
    if *guest_init != GuestInit::Busybox {
        // Said in words it does not go with a kernel of one's own.
        put("--guest-init", name(guest_init.to_possible_value()));
    }
    for (option, file) in [("--kernel", kernel), ("--initrd", initrd)] {
        if let Some(file) = file {
            put(option, file.into());
        }
    }
    if *sessions_survive {
        line.push("--sessions-survive".into());
    }
    line
}

/// Starts this program again in the background and waits until its sites answer.
async fn detach(up: &LabUp) -> anyhow::Result<Exit> {
    use tokio::io::{AsyncBufReadExt as _, BufReader};
    std::fs::create_dir_all(&up.dir)?;
    let log = up.dir.join("lab.log");
    let mut child = tokio::process::Command::new(std::env::current_exe()?)
        .args(again(up))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(&log)?)
        .process_group(0)
        .spawn()
        .context("starting the lab in the background")?;
    let stdout = child.stdout.take().context("the lab's output")?;
    let mut lines = BufReader::new(stdout).lines();
    // It prints its kubeconfigs once both sites answer.
    let mut paths = Vec::new();
    while paths.len() < 2 {
        let Some(path) = lines.next_line().await? else {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            bail!("the lab did not start: {}", said.trim());
        };
        paths.push(path);
    }
    for path in paths {
        line(path)?;
    }
    Ok(Exit::Pass)
}

/// Stops a lab; of one that died, what it left running.
async fn down(dir: &Path) -> anyhow::Result<Exit> {
    let orphans = guests::bury(dir).await?;
    if orphans.is_empty() {
        return told(dir, Request::Down).await;
    }
    for orphan in orphans {
        line(format_args!("killed QEMU {orphan} of a lab that is gone"))?;
    }
    Ok(Exit::Pass)
}

async fn told(dir: &Path, request: Request) -> anyhow::Result<Exit> {
    match ask(dir, &request).await? {
        Answer::Done | Answer::Status(_) => Ok(Exit::Pass),
        Answer::Refused { why } => bail!("the lab refused: {why}"),
    }
}

async fn status(dir: &Path, format: Format) -> anyhow::Result<Exit> {
    let Answer::Status(status) = ask(dir, &Request::Status).await? else {
        bail!(
            "the lab at {} did not say how it is",
            control::socket(dir).display()
        );
    };
    if format == Format::Json {
        line(serde_json::to_string(&status)?)?;
    } else {
        raw(describe(&status))?;
    }
    Ok(Exit::Pass)
}

fn describe(status: &Status) -> String {
    let mut rows = vec![vec!["up".to_owned(), format!("process {}", status.pid)]];
    let path = |p: &PathBuf| p.display().to_string();
    rows.extend(
        status
            .kubeconfigs
            .iter()
            .map(|p| vec!["kubeconfig".to_owned(), path(p)]),
    );
    rows.extend(
        status
            .dark
            .iter()
            .map(|s| vec!["without power".to_owned(), s.to_string()]),
    );
    rows.extend(
        status
            .faults
            .iter()
            .map(|f| vec!["fault".to_owned(), f.clone()]),
    );
    columns(&rows)
}

async fn plant(fault: LabFault) -> anyhow::Result<Exit> {
    let Some(name) = fault.name else {
        let rows = faults::plantable().map(|(row, _)| {
            let word = row.word();
            [row.name, row.phase.name(), &word, row.summary]
                .map(str::to_owned)
                .to_vec()
        });
        raw(columns(&rows.collect::<Vec<_>>()))?;
        return Ok(Exit::Pass);
    };
    asked(&name)?;
    told(
        &fault.dir,
        Request::Fault {
            name,
            active: !fault.heal,
        },
    )
    .await
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::args::{Accel, Cli, Lab as LabArgs, Verb};

    fn parsed(line: impl IntoIterator<Item = OsString>) -> LabUp {
        let line = std::iter::once("virtproof".into()).chain(line);
        match Cli::try_parse_from(line).expect("a command line").verb {
            Verb::Lab(LabArgs {
                verb: LabVerb::Up(up),
            }) => up,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_reaches_scenarios_that_the_built_in_plan_leaves_out() {
        let only = ["migrate.*".to_owned()];
        let text = |sets: &[&str]| {
            let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
            scenarios(&sets, &only)
        };
        assert_eq!(text(&["load.rate=1"])[0], r#"scenarios=["migrate.*"]"#);
        assert_eq!(text(&["scenarios=[boot.*]"]), ["scenarios=[boot.*]"]);
        assert!(scenarios(&[], &[]).is_empty());
    }

    #[test]
    fn a_detached_lab_is_the_one_that_was_asked_for() {
        let asked = "lab up --detach --dir d --seed 7 --time-scale 3 --guests qemu --accel tcg \
                     --kernel k --initrd i --sessions-survive";
        let up = parsed(again(&parsed(asked.split(' ').map(OsString::from))));
        assert!(!up.detach && up.guests.sessions_survive);
        assert_eq!((up.dir, up.seed), (PathBuf::from("d"), 7));
        assert!((up.time_scale - 3.0).abs() < f64::EPSILON);
        assert_eq!(
            (up.guests.guests, up.guests.accel),
            (GuestKind::Qemu, Accel::Tcg)
        );
        let files = (up.guests.kernel, up.guests.initrd);
        assert_eq!(files, (Some("k".into()), Some("i".into())));
    }
}
