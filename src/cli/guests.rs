//! Real guests for a lab: what they need of this machine is looked for before anything starts.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context as _;

use super::args::{Accel, Format, GuestArgs, GuestInit, GuestKind, ImageBuild, ImageVerb, Layer};
use super::exit::Exit;
use super::output::{columns, line, note, raw};
use crate::lab::Guests;
use crate::lab::control;
use crate::lab::qemu::host::{self, Host, Wish};
use crate::lab::qemu::image::{self, BuildOptions, Clean, Image, ImageError, Init};
use crate::lab::qemu::{CONSOLE_FILE, Config, Hypervisor, Sessions, orphans};
use crate::plan::Plan;
use crate::plan::model::Engine;
use crate::run::RunError;
use crate::scenario::catalogue::{Step, select};

/// The guests of a lab whose files go to `dir`; `more` is what they have beyond a plain system.
pub(super) async fn of(
    args: &GuestArgs,
    dir: &Path,
    more: &BTreeSet<image::Layer>,
) -> anyhow::Result<Guests> {
    if args.guests == GuestKind::Sim {
        return Ok(Guests::Simulated);
    }
    let host = Host::find(None).await.map_err(missing)?;
    let mut layers = more.clone();
    let init = match args.guest_init {
        GuestInit::Busybox => Init::Busybox,
        GuestInit::Systemd => Init::Systemd,
    };
    if init == Init::Systemd {
        layers.insert(image::Layer::Systemd);
    }
    let image = match (&args.kernel, &args.initrd) {
        (Some(kernel), Some(initrd)) => Image::own(kernel, initrd).map_err(missing)?,
        _ => built(layers, false).await?,
    };
    let wish = match args.accel {
        Accel::Auto => Wish::Auto,
        Accel::Kvm => Wish::Kvm,
        Accel::Tcg => Wish::Tcg,
    };
    let accel = host::accel(&host, wish).await.map_err(missing)?;
    if args.accel == Accel::Auto && accel == host::Accel::Tcg {
        note("guests are emulated: KVM runs none here")?;
    }
    let config = Config {
        host,
        accel,
        image,
        init,
        dir: dir.to_owned(),
        sessions: if args.sessions_survive {
            Sessions::Survive
        } else {
            Sessions::Break
        },
    };
    Ok(Guests::Real(Hypervisor::new(config).map_err(missing)?))
}

/// What guests have beyond a plain system for the scenarios of a plan that `only` leaves: the databases
/// that some of them ask for.
pub(super) fn layers(plan: &Plan, only: &[String]) -> Result<BTreeSet<image::Layer>, RunError> {
    let chosen =
        |patterns: &[String]| select(patterns).map_err(|why| RunError::usage(anyhow::anyhow!(why)));
    let mut specs = chosen(plan.patterns())?;
    if !only.is_empty() {
        let only = chosen(only)?;
        specs.retain(|spec| only.iter().any(|one| one.kind == spec.kind));
    }
    let mut steps = specs.iter().flat_map(|spec| spec.steps);
    if !steps.any(|step| *step == Step::Commit) {
        return Ok(BTreeSet::new());
    }
    let engines = plan.workloads().iter().map(|workload| {
        let database = workload.database.clone().unwrap_or_default();
        match database.engine {
            Engine::Sqlite => image::Layer::Sqlite,
            Engine::Postgresql => image::Layer::Postgres,
            Engine::Mysql => image::Layer::Mariadb,
        }
    });
    Ok(engines.collect())
}

/// What this machine lacks is not met before anything was done.
fn missing(error: impl std::fmt::Display) -> RunError {
    RunError::Preflight(format!("  real guests: {error}"))
}

/// The image of these layers, built if it is not in the cache.
async fn built(layers: BTreeSet<image::Layer>, refresh: bool) -> anyhow::Result<Image> {
    let options = BuildOptions {
        layers,
        cache: image::default_cache().map_err(missing)?,
        refresh,
    };
    let (said, mut heard) = tokio::sync::mpsc::unbounded_channel::<String>();
    let building = tokio::task::spawn_blocking(move || {
        // Whoever listens may be gone; the image is built all the same.
        image::build(&options, &mut |words| drop(said.send(words.to_owned())))
    });
    while let Some(words) = heard.recv().await {
        note(format_args!("guest image: {words}"))?;
    }
    Ok(building
        .await
        .context("building the guest image")?
        .map_err(missing)?)
}

/// `lab image`.
pub(super) async fn image(verb: ImageVerb, format: Format) -> anyhow::Result<Exit> {
    match verb {
        ImageVerb::Build(build) => {
            show(&[make(&build).await?], format)?;
        }
        ImageVerb::List => {
            let cache = image::default_cache().map_err(missing)?;
            show(&image::list(&cache).map_err(unreadable)?, format)?;
        }
        ImageVerb::Clean => {
            let cache = image::default_cache().map_err(missing)?;
            let removed = image::clean(&cache, Clean::All).map_err(unreadable)?;
            line(format_args!(
                "removed {} images and {} packages, {} MiB",
                removed.images.len(),
                removed.packages,
                removed.bytes >> 20
            ))?;
        }
    }
    Ok(Exit::Pass)
}

async fn make(build: &ImageBuild) -> anyhow::Result<Image> {
    let layers = build.layer.iter().map(|layer| match layer {
        Layer::Sqlite => image::Layer::Sqlite,
        Layer::Postgres => image::Layer::Postgres,
        Layer::Mariadb => image::Layer::Mariadb,
        Layer::Bench => image::Layer::Bench,
        Layer::Systemd => image::Layer::Systemd,
    });
    built(layers.collect(), build.refresh).await
}

fn unreadable(error: ImageError) -> RunError {
    RunError::usage(error)
}

fn show(images: &[Image], format: Format) -> anyhow::Result<()> {
    if format == Format::Json {
        return Ok(line(serde_json::to_string(images)?)?);
    }
    let rows = images.iter().map(|image| {
        let layers: Vec<_> = image.layers.iter().map(|layer| layer.name()).collect();
        vec![
            image.id.get(..12).unwrap_or(&image.id).to_owned(),
            if layers.is_empty() {
                "plain".to_owned()
            } else {
                layers.join(", ")
            },
            format!("{} MiB", image.bytes >> 20),
            format!("{} packages", image.packages.len()),
            image.kernel.display().to_string(),
        ]
    });
    Ok(raw(columns(&rows.collect::<Vec<_>>()))?)
}

/// Kills the QEMUs of the lab of `dir` if that lab is gone, and says which; a lab that lives holds its
/// own.
pub(super) async fn bury(dir: &Path) -> anyhow::Result<Vec<u32>> {
    if !dir.exists() || control::ask(dir, &control::Request::Status).await.is_ok() {
        return Ok(Vec::new());
    }
    let dir = dir.to_owned();
    tokio::task::spawn_blocking(move || {
        let mut killed = Vec::new();
        for orphan in orphans(&dir).with_context(|| format!("looking into {}", dir.display()))? {
            killed.push(orphan.pid());
            orphan.kill()?;
        }
        Ok(killed)
    })
    .await
    .context("looking for orphans")?
}

/// Copies the consoles of a lab's guests to `to`, if there are any.
pub(super) fn consoles(lab: &Path, to: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(lab)? {
        let entry = entry?;
        let console = entry.path().join(CONSOLE_FILE);
        if console.exists() {
            std::fs::create_dir_all(to).with_context(|| format!("making {}", to.display()))?;
            let name = format!("{}.console", entry.file_name().to_string_lossy());
            std::fs::copy(&console, to.join(name))
                .with_context(|| format!("copying {}", console.display()))?;
        }
    }
    Ok(())
}
