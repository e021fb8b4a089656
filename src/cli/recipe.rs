//! `recipe explain`: what a Recipe will do.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, bail};
use serde_json::json;

use super::args::{Format, Mode, RecipeVerb, WorkflowName};
use super::exit::Exit;
use super::lint::read_stdin;
use super::output::{line, note, raw};
use crate::plan;
use crate::plan::yaml;
use crate::workload::recipe::{Behaviour, Explanation, Recipe, explain};

pub(super) fn recipe(verb: &RecipeVerb, format: Format) -> anyhow::Result<Exit> {
    let RecipeVerb::Explain(args) = verb;
    let written = read(&args.file)?;
    let given = parameters(&args.parameters)?;
    let names = written.parameters();
    if let Some(name) = given.keys().find(|name| !names.contains(*name)) {
        let known: Vec<String> = names.into_iter().collect();
        bail!(
            "the Recipe takes no parameter `{name}`; it takes {}",
            known.join(", ")
        );
    }
    let missing: Vec<&String> = names
        .iter()
        .filter(|name| !given.contains_key(*name))
        .collect();
    let recipe = expand(&written, &given, &missing, args.mode)?;
    let workflows: &[&str] = match args.workflow {
        None => &["backup", "restore"],
        Some(WorkflowName::Backup) => &["backup"],
        Some(WorkflowName::Restore) => &["restore"],
    };
    let mode = match args.mode {
        Mode::Faithful => Behaviour::Faithful,
        Mode::Strict => Behaviour::Strict,
    };
    let explained: Vec<Explanation> = workflows
        .iter()
        .map(|name| explain(&recipe, name, mode))
        .collect();
    match format {
        Format::Json => {
            line(json!({"recipe": recipe.name, "undefined": missing, "workflows": explained}))?;
        }
        Format::Text => raw(text(&recipe, &explained))?,
    }
    if !missing.is_empty() {
        let how = match args.mode {
            Mode::Faithful => "Ramen would put empty text there",
            Mode::Strict => "give them",
        };
        let missing: Vec<&str> = missing.into_iter().map(String::as_str).collect();
        note(format_args!(
            "parameters without a value: {}; {how} (--param NAME=VALUE)",
            missing.join(", ")
        ))?;
    }
    Ok(Exit::Pass)
}

fn read(path: &Path) -> anyhow::Result<Recipe> {
    let text = if path == Path::new("-") {
        read_stdin().context("reading standard input")?
    } else {
        plan::read_text(path).with_context(|| format!("reading {}", path.display()))?
    };
    let documents = yaml::parse(&text, true).map_err(|bad| {
        anyhow::anyhow!(
            "{}:{}: this is no YAML: {}",
            path.display(),
            bad.at.line,
            bad.what
        )
    })?;
    let values = documents.iter().map(yaml::Node::to_value);
    let recipes: Vec<_> = values.filter(|value| value["kind"] == "Recipe").collect();
    let [value] = recipes.as_slice() else {
        bail!(
            "{} holds {} Recipes; give a file with one",
            path.display(),
            recipes.len()
        );
    };
    Recipe::from_value(value).map_err(|refused| {
        anyhow::anyhow!(
            "{}: an API server refuses this Recipe; `virtproof lint` says where:\n{refused}",
            path.display()
        )
    })
}

fn parameters(given: &[String]) -> anyhow::Result<BTreeMap<String, Vec<String>>> {
    let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pair in given {
        let (name, value) = pair
            .split_once('=')
            .with_context(|| format!("--param {pair}: expected NAME=VALUE"))?;
        values
            .entry(name.to_owned())
            .or_default()
            .push(value.to_owned());
    }
    Ok(values)
}

/// With empty text for what is missing, as Ramen does; an author means the name itself.
fn expand(
    written: &Recipe,
    given: &BTreeMap<String, Vec<String>>,
    missing: &[&String],
    mode: Mode,
) -> anyhow::Result<Recipe> {
    let mut values = given.clone();
    if mode == Mode::Strict {
        let own = missing
            .iter()
            .map(|name| ((*name).clone(), vec![format!("${{{name}}}")]));
        values.extend(own);
    }
    Ok(written.expand(&values)?)
}

fn text(recipe: &Recipe, explained: &[Explanation]) -> String {
    let mut out = vec![format!("Recipe {}", recipe.name)];
    for Explanation {
        workflow,
        when,
        steps,
        caveats,
        ..
    } in explained
    {
        out.push(format!("\nWorkflow {workflow}"));
        out.extend(when.iter().map(|line| format!("  {line}")));
        for (index, step) in steps.iter().enumerate() {
            out.push(format!("  {}. {}: {}", index + 1, step.name, step.what));
            out.push(format!("       on {}", step.on));
            out.extend(step.failure.iter().map(|line| format!("       ! {line}")));
        }
        out.extend(caveats.iter().map(|line| format!("  {line}")));
    }
    out.join("\n") + "\n"
}
