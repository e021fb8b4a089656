//! Progress on standard error while a run goes on: bars on a terminal, plain lines elsewhere, one
//! JSON event per line on standard output with `--format json`.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use owo_colors::OwoColorize;
use tokio::sync::broadcast::{Receiver, error::RecvError};

use super::args::Format;
use super::output;
use crate::history::event::{Event, Fact};
use crate::report::live::{Tone, line};

/// Shows events until the recorder closes. Returns how many events were too fast to be shown.
pub(super) async fn show(mut events: Receiver<Arc<Event>>, format: Format) -> std::io::Result<u64> {
    let mut screen = Screen::new(format);
    let mut missed = 0;
    loop {
        match events.recv().await {
            Ok(event) => screen.show(&event)?,
            Err(RecvError::Lagged(n)) => missed += n,
            Err(RecvError::Closed) => break,
        }
    }
    screen.close();
    Ok(missed)
}

enum Screen {
    Bars {
        bars: MultiProgress,
        trials: BTreeMap<String, ProgressBar>,
    },
    Lines,
    Json,
}

impl Screen {
    fn new(format: Format) -> Self {
        match format {
            Format::Json => Self::Json,
            Format::Text if std::io::stderr().is_terminal() => Self::Bars {
                bars: MultiProgress::new(),
                trials: BTreeMap::new(),
            },
            Format::Text => Self::Lines,
        }
    }

    fn show(&mut self, event: &Event) -> std::io::Result<()> {
        match self {
            Self::Json => output::line(serde_json::to_string(event)?),
            Self::Lines => match line(event) {
                Some((tone, text)) => output::note(stamped(event, tone, &text)),
                None => Ok(()),
            },
            Self::Bars { bars, trials } => on_terminal(bars, trials, event),
        }
    }

    fn close(&self) {
        if let Self::Bars { trials, .. } = self {
            trials.values().for_each(ProgressBar::finish_and_clear);
        }
    }
}

fn on_terminal(
    bars: &MultiProgress,
    trials: &mut BTreeMap<String, ProgressBar>,
    event: &Event,
) -> std::io::Result<()> {
    if let (Some(trial), Fact::TrialStarted { scenario, .. }) = (&event.trial, &event.fact) {
        let style = ProgressStyle::with_template("{spinner} {elapsed:>4} {prefix:.bold}  {msg}")
            .map_err(std::io::Error::other)?;
        let bar = bars.add(ProgressBar::new_spinner().with_style(style));
        bar.set_prefix(scenario.clone());
        bar.enable_steady_tick(Duration::from_millis(120));
        trials.insert(trial.clone(), bar);
    }
    let Some((tone, text)) = line(event) else {
        return Ok(());
    };
    let bar = event.trial.as_ref().and_then(|trial| trials.get(trial));
    if let Some(bar) = bar {
        bar.set_message(text.clone());
        if matches!(event.fact, Fact::TrialEnded { .. }) {
            bar.finish_and_clear();
        }
    }
    if tone != Tone::Plain || matches!(event.fact, Fact::TrialEnded { .. }) || bar.is_none() {
        return bars.println(stamped(event, tone, &text));
    }
    Ok(())
}

/// The line with seconds since the run's start, coloured by tone on a terminal.
fn stamped(event: &Event, tone: Tone, text: &str) -> String {
    let seconds = Duration::from_nanos(event.at_ns).as_secs_f64();
    let colour = anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never;
    let text = match tone {
        Tone::Warn if colour => text.yellow().to_string(),
        Tone::Bad if colour => text.red().to_string(),
        _ => text.to_owned(),
    };
    format!("{seconds:8.2}s  {text}")
}
