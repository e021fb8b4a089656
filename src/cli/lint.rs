//! `lint`: manifests in, findings out.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use owo_colors::OwoColorize as _;
use serde_json::json;

use super::args::{Format, Lint};
use super::exit::Exit;
use super::output::{columns, line, note, raw};
use crate::lint::{self, Part, Report, Severity, Source};
use crate::plan;
use crate::plan::yaml::MAX_TEXT;

/// The most files that are taken from folders.
const MAX_FILES: usize = 2_000;
/// The deepest folder that is looked into.
const MAX_DEPTH: usize = 16;

pub(super) fn lint(args: &Lint, format: Format) -> anyhow::Result<Exit> {
    if args.rules {
        return rules(format);
    }
    let sources = sources(&args.files)?;
    let report = lint::lint(&sources);
    let to_stdout = args.sarif.as_deref() == Some(Path::new("-"));
    if let Some(path) = &args.sarif {
        let log = serde_json::to_string_pretty(&lint::sarif(&report))?;
        if to_stdout {
            line(log)?;
        } else {
            fs::write(path, log).with_context(|| format!("writing {}", path.display()))?;
        }
    }
    match format {
        _ if to_stdout => {}
        Format::Text => raw(lint::render(&report, &sources, paint))?,
        Format::Json => line(json!({
            "findings": report.findings,
            "counts": report.counts(),
            "lookedAt": report.looked_at,
            "notLookedAt": report.skipped,
            "noYaml": report.malformed.iter().map(|(file, bad)| {
                json!({"file": file, "line": bad.at.line, "column": bad.at.column, "what": bad.what})
            }).collect::<Vec<_>>(),
        }))?,
    }
    end(args, &report)
}

fn end(args: &Lint, report: &Report) -> anyhow::Result<Exit> {
    for (file, bad) in &report.malformed {
        let at = bad.at;
        note(format_args!(
            "{file}:{}:{}: this is no YAML: {}",
            at.line, at.column, bad.what
        ))?;
    }
    if !report.malformed.is_empty() {
        return Ok(Exit::Usage);
    }
    let counts = report.counts();
    if counts.errors > 0 || (args.strict && counts.warnings > 0) {
        return Ok(Exit::Failed);
    }
    if report.looked_at == 0 {
        note("nothing was looked at: no object is of a kind that there are rules for")?;
        return Ok(Exit::Inconclusive);
    }
    Ok(Exit::Pass)
}

fn rules(format: Format) -> anyhow::Result<Exit> {
    let rules = lint::rules();
    match format {
        Format::Json => line(serde_json::to_string(&rules)?)?,
        Format::Text => {
            let row = |rule: &&lint::Rule| {
                vec![
                    rule.id.to_owned(),
                    rule.severity.word().to_owned(),
                    rule.why.to_owned(),
                ]
            };
            raw(columns(&rules.iter().map(row).collect::<Vec<_>>()))?;
        }
    }
    Ok(Exit::Pass)
}

/// Every file that is named, or stands in a folder that is.
fn sources(named: &[PathBuf]) -> anyhow::Result<Vec<Source>> {
    let mut found = Vec::new();
    for path in named {
        if path == Path::new("-") {
            found.push(Source {
                name: "-".to_owned(),
                text: read_stdin().context("reading standard input")?,
            });
            continue;
        }
        let mut files = Vec::new();
        if path.is_dir() {
            walk(path, 0, &mut files)
                .with_context(|| format!("looking into {}", path.display()))?;
        } else {
            files.push(path.clone());
        }
        for file in files {
            found.push(read(&file)?);
        }
    }
    Ok(found)
}

fn read(path: &Path) -> anyhow::Result<Source> {
    let text = plan::read_text(path).with_context(|| format!("reading {}", path.display()))?;
    Ok(Source {
        name: path.display().to_string(),
        text,
    })
}

/// Standard input, up to what is read of a file.
pub(super) fn read_stdin() -> io::Result<String> {
    let limit = u64::try_from(MAX_TEXT).unwrap_or(u64::MAX);
    let mut text = String::new();
    io::stdin()
        .lock()
        .take(limit + 1)
        .read_to_string(&mut text)?;
    Ok(text)
}

/// The manifests below a folder, by name. Links are not followed out of it.
fn walk(dir: &Path, depth: usize, files: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut entries = fs::read_dir(dir)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (path, kind) = (entry.path(), entry.file_type()?);
        let manifest = path
            .extension()
            .is_some_and(|ext| ext == "yaml" || ext == "yml" || ext == "json");
        if kind.is_dir() && depth < MAX_DEPTH {
            walk(&path, depth + 1, files)?;
        } else if kind.is_dir() {
            return Err(io::Error::other(format!(
                "it has more than {MAX_DEPTH} folders in each other"
            )));
        } else if kind.is_file() && manifest {
            files.push(path);
        }
        if files.len() > MAX_FILES {
            return Err(io::Error::other(format!(
                "it holds more than {MAX_FILES} manifests"
            )));
        }
    }
    Ok(())
}

/// Colour by severity; `anstream` takes it out again where it does not belong.
fn paint(part: Part, text: &str) -> String {
    match part {
        Part::Severity(Severity::Error) => text.red().to_string(),
        Part::Severity(Severity::Warning) => text.yellow().to_string(),
        Part::Severity(Severity::Note) => text.cyan().to_string(),
        Part::Aside => text.dimmed().to_string(),
    }
}
