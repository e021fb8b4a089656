//! One line of QMP: greeting, answer or event.

use std::fmt;

use serde::Deserialize;
use serde_json::Value;

use super::event::{self, Event};

/// A QEMU release. Orders as releases do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Version {
    /// 7 of 7.2.22.
    pub major: u32,
    /// 2 of 7.2.22.
    pub minor: u32,
    /// 22 of 7.2.22.
    pub micro: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.micro)
    }
}

/// QEMU's no.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(in crate::lab::qemu) struct Refusal {
    pub(in crate::lab::qemu) class: String,
    pub(in crate::lab::qemu) desc: String,
}

/// What one line says.
#[derive(Debug)]
pub(super) enum Message {
    Greeting(Version),
    Answer {
        /// Missing when QEMU could not read the command at all.
        id: Option<u64>,
        answer: Result<Value, Refusal>,
    },
    Event(Event),
}

/// How much of an unintelligible line goes into an error.
const EXCERPT: usize = 200;

/// Takes a line apart; the error says what is wrong with it.
pub(super) fn parse(line: &str) -> Result<Message, String> {
    let garbage = |why: String| {
        let shown: String = line.chars().take(EXCERPT).collect();
        format!("{why}: {shown}")
    };
    let mut value: Value =
        serde_json::from_str(line).map_err(|error| garbage(error.to_string()))?;
    let id = value.get("id").and_then(Value::as_u64);
    if let Some(answer) = value.get_mut("return") {
        let answer = Ok(answer.take());
        return Ok(Message::Answer { id, answer });
    }
    if let Some(refusal) = value.get_mut("error") {
        let refusal = serde_json::from_value(refusal.take());
        let refusal = refusal.map_err(|error| garbage(error.to_string()))?;
        let answer = Err(refusal);
        return Ok(Message::Answer { id, answer });
    }
    if value.get("event").is_some() {
        return event::parse(value)
            .map(Message::Event)
            .map_err(|error| garbage(error.to_string()));
    }
    let version = value
        .pointer_mut("/QMP/version/qemu")
        .map(Value::take)
        .ok_or_else(|| garbage("neither greeting, answer nor event".into()))?;
    serde_json::from_value(version)
        .map(Message::Greeting)
        .map_err(|error| garbage(error.to_string()))
}
