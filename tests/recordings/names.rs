//! What is called otherwise in the lab than in the recording: uids, versions, generated names.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// Recorded names and the lab's.
#[derive(Debug, Default)]
pub(crate) struct Names {
    texts: BTreeMap<String, String>,
    versions: BTreeMap<u64, u64>,
}

impl Names {
    /// Learns from a pair of answers to the same request.
    pub(crate) fn learn(&mut self, recorded: &Value, ours: &Value) {
        if let (Some(theirs), Some(mine)) = (recorded.get("metadata"), ours.get("metadata")) {
            for field in ["uid", "name"] {
                if field == "name" && theirs.get("generateName").is_none() {
                    continue;
                }
                if let (Some(Value::String(theirs)), Some(Value::String(mine))) =
                    (theirs.get(field), mine.get(field))
                    && theirs != mine
                {
                    self.texts.insert(theirs.clone(), mine.clone());
                }
            }
            let version = |meta: &Value| meta["resourceVersion"].as_str()?.parse::<u64>().ok();
            if let (Some(theirs), Some(mine)) = (version(theirs), version(mine)) {
                self.versions.insert(theirs, mine);
            }
        }
        let lists = (recorded["items"].as_array(), ours["items"].as_array());
        if let (Some(theirs), Some(mine)) = lists
            && theirs.len() == mine.len()
        {
            for (theirs, mine) in theirs.iter().zip(mine) {
                self.learn(theirs, mine);
            }
        }
    }

    /// Says what a recorded version is here.
    pub(crate) fn version_is(&mut self, recorded: u64, ours: u64) {
        self.versions.insert(recorded, ours);
    }

    fn version(&self, recorded: u64, nearest: bool) -> u64 {
        if let Some(ours) = self.versions.get(&recorded) {
            return *ours;
        }
        // Versions that the recorder made up are sent as they are.
        if !nearest || !(100..=1_000_000).contains(&recorded) {
            return recorded;
        }
        self.versions
            .range(..recorded)
            .next_back()
            .map_or(recorded, |(_, ours)| *ours)
    }

    /// A request as it is to be sent to the lab.
    pub(crate) fn translate(&self, request: &Value) -> Value {
        let mut request = self.value(request, "");
        let path = request["path"].as_str().unwrap_or("").to_owned();
        if let Some((path, query)) = path.split_once('?') {
            let pairs: Vec<String> = query
                .split('&')
                .map(|pair| match pair.split_once('=') {
                    Some((name @ "resourceVersion", value)) => match value.parse() {
                        Ok(version) => format!("{name}={}", self.version(version, true)),
                        Err(_) => pair.to_owned(),
                    },
                    Some((name @ "continue", token)) => format!("{name}={}", self.token(token)),
                    _ => pair.to_owned(),
                })
                .collect();
            request["path"] = json!(format!("{path}?{}", pairs.join("&")));
        }
        request
    }

    fn value(&self, value: &Value, field: &str) -> Value {
        match value {
            Value::Object(map) => Value::Object(
                map.iter()
                    .map(|(name, child)| (name.clone(), self.value(child, name)))
                    .collect(),
            ),
            Value::Array(items) => items.iter().map(|item| self.value(item, field)).collect(),
            Value::String(text) if field == "resourceVersion" => match text.parse() {
                Ok(version) => json!(self.version(version, false).to_string()),
                Err(_) => value.clone(),
            },
            Value::String(text) if field != "body" => json!(self.translate_text(text)),
            other => other.clone(),
        }
    }

    /// A text with the recorded names in it replaced by the lab's.
    pub(crate) fn translate_text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (theirs, mine) in &self.texts {
            if text.contains(theirs.as_str()) {
                text = text.replace(theirs, mine);
            }
        }
        text
    }

    fn token(&self, token: &str) -> String {
        let decoded = URL_SAFE_NO_PAD.decode(token).ok();
        let Some(mut inner) =
            decoded.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok())
        else {
            return token.to_owned();
        };
        if let Some(version) = inner["rv"].as_u64() {
            inner["rv"] = json!(self.version(version, true));
        }
        URL_SAFE_NO_PAD.encode(inner.to_string())
    }
}
