//! `${NAME}` and `$NAME` in a Recipe's spec, as the controller replaces them: in the JSON text of the
//! whole spec, by the parameter's values joined with `","`, before anything else is read.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::model::Recipe;
use super::read::Refused;

/// Why the expanded spec cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    /// It is no JSON any more: several values outside a list, or a quote in a value.
    #[error(
        "after expansion the spec is no JSON any more ({0}): several values outside a list, or a quote in a value"
    )]
    Json(String),
    /// It is no Recipe any more.
    #[error("after expansion the spec is no Recipe any more: {0}")]
    Recipe(#[from] Refused),
}

impl Recipe {
    /// The Recipe with the parameters of a VRG's or DRPC's `recipeParameters`. Names without a value
    /// become empty.
    pub fn expand(&self, given: &BTreeMap<String, Vec<String>>) -> Result<Self, ExpandError> {
        let text = self.object["spec"].to_string();
        let spec: Value = serde_json::from_str(&expand_text(&text, given))
            .map_err(|error| ExpandError::Json(error.to_string()))?;
        let mut object = self.object.clone();
        object["spec"] = spec;
        Ok(Self::from_value(&object)?)
    }

    /// The names that its spec takes.
    pub fn parameters(&self) -> BTreeSet<String> {
        parameters(&self.object["spec"].to_string())
    }
}

/// A text with every name replaced.
pub fn expand_text(text: &str, given: &BTreeMap<String, Vec<String>>) -> String {
    let mut out = String::with_capacity(text.len());
    for piece in Pieces(text) {
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Name(name) => {
                let values = given.get(name).map(Vec::as_slice).unwrap_or_default();
                out.push_str(&values.join("\",\""));
            }
        }
    }
    out
}

/// The names that a text takes.
pub fn parameters(text: &str) -> BTreeSet<String> {
    let names = Pieces(text).filter_map(|piece| match piece {
        Piece::Name(name) => Some(name.to_owned()),
        Piece::Text(_) => None,
    });
    names.collect()
}

enum Piece<'a> {
    Text(&'a str),
    Name(&'a str),
}

/// A text in pieces.
struct Pieces<'a>(&'a str);

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        if self.0.is_empty() {
            return None;
        }
        let dollar = self.0.find('$').unwrap_or(self.0.len());
        if dollar > 0 {
            let (text, rest) = self.0.split_at(dollar);
            self.0 = rest;
            return Some(Piece::Text(text));
        }
        let (name, width) = name(&self.0[1..]);
        let (whole, rest) = self.0.split_at(1 + width);
        self.0 = rest;
        Some(match name {
            Some(name) => Piece::Name(name),
            // `$` before anything else stays, a `${` without a name is eaten.
            None if width == 0 => Piece::Text(whole),
            None => Piece::Text(""),
        })
    }
}

/// The name behind a `$`, and how many bytes it takes with its braces.
fn name(text: &str) -> (Option<&str>, usize) {
    let special = |c: char| "*#$@!?-".contains(c) || c.is_ascii_digit();
    let Some(first) = text.chars().next() else {
        return (None, 0);
    };
    if first == '{' {
        return match text.find('}') {
            Some(1) => (None, 2),
            Some(end) => (Some(&text[1..end]), end + 1),
            None => (None, 1),
        };
    }
    if special(first) {
        return (Some(&text[..1]), 1);
    }
    let end = text
        .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .unwrap_or(text.len());
    ((end > 0).then(|| &text[..end]), end)
}
