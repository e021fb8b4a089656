//! What is wrong with a text, where, and what to do about it.

use std::fmt;

use serde::Serialize;

use super::yaml::At;

/// The most problems that one report shows.
const SHOWN: usize = 20;
/// The longest line that a snippet shows, in characters.
const WIDTH: usize = 120;

/// One thing wrong with a plan or a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file, as the user named it.
    pub file: String,
    /// Line from 1; 0 when the problem is the file as a whole.
    pub line: u64,
    /// Column from 1; 0 with line 0.
    pub column: u64,
    /// The line itself, shortened when long.
    pub snippet: String,
    /// What is wrong.
    pub what: String,
    /// What was expected; empty when `what` says it all.
    pub expected: String,
    /// What to do.
    pub fix: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            write!(f, "{}: {}", self.file, self.what)?;
        } else {
            write!(
                f,
                "{}:{}:{}: {}",
                self.file, self.line, self.column, self.what
            )?;
            let number = self.line.to_string();
            let gap = " ".repeat(number.len());
            let column = usize::try_from(self.column)
                .unwrap_or(usize::MAX)
                .min(WIDTH + 1);
            write!(f, "\n {number} | {}", self.snippet)?;
            write!(f, "\n {gap} | {}^", " ".repeat(column.saturating_sub(1)))?;
        }
        if !self.expected.is_empty() {
            write!(f, "\n  expected: {}", self.expected)?;
        }
        if !self.fix.is_empty() {
            write!(f, "\n  fix: {}", self.fix)?;
        }
        Ok(())
    }
}

/// Collects the problems of one text.
#[derive(Debug)]
pub struct Problems<'a> {
    file: &'a str,
    text: &'a str,
    found: Vec<Problem>,
}

impl<'a> Problems<'a> {
    /// No problems yet with `text`, which came from `file`.
    pub const fn new(file: &'a str, text: &'a str) -> Self {
        Self {
            file,
            text,
            found: Vec::new(),
        }
    }

    /// Adds a problem at a place.
    pub fn add(
        &mut self,
        at: At,
        what: impl Into<String>,
        expected: impl Into<String>,
        fix: impl Into<String>,
    ) {
        let index = usize::try_from(at.line).unwrap_or(0).checked_sub(1);
        let snippet = index
            .and_then(|index| self.text.lines().nth(index))
            .map_or_else(String::new, shorten);
        self.found.push(Problem {
            file: self.file.to_owned(),
            line: at.line,
            column: at.column,
            snippet,
            what: visible(what.into()),
            expected: visible(expected.into()),
            fix: visible(fix.into()),
        });
    }

    /// Whether none was found.
    pub const fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// The problems by place, none twice.
    pub fn into_sorted(mut self) -> Vec<Problem> {
        self.found
            .sort_by_key(|problem| (problem.line, problem.column));
        self.found.dedup();
        self.found
    }
}

/// Text that cannot play tricks on a terminal: control characters are escaped.
pub(crate) fn visible(text: String) -> String {
    if !text.contains(char::is_control) {
        return text;
    }
    let escape = |c: char| {
        if c.is_control() {
            c.escape_default().to_string()
        } else {
            c.into()
        }
    };
    text.chars().map(escape).collect()
}

/// A line as a snippet: no control characters, not too long.
fn shorten(line: &str) -> String {
    let mut out: String = line
        .chars()
        .take(WIDTH)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if line.chars().nth(WIDTH).is_some() {
        out.push('…');
    }
    out
}

/// Problems one after another, as an error message.
pub fn render(problems: &[Problem]) -> String {
    let mut out: Vec<String> = problems
        .iter()
        .take(SHOWN)
        .map(ToString::to_string)
        .collect();
    if problems.len() > SHOWN {
        out.push(format!("… and {} more", problems.len() - SHOWN));
    }
    out.join("\n\n")
}

/// The candidate nearest to `word`, when it is near enough to be a slip of the pen.
pub fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<char> = word.chars().take(64).flat_map(char::to_lowercase).collect();
    candidates
        .into_iter()
        .map(|candidate| (distance(&word, candidate), candidate))
        .filter(|(away, candidate)| *away <= 1 + candidate.chars().count().max(word.len()) / 4)
        .min()
        .map(|(_, candidate)| candidate)
}

/// “Did you mean” for the nearest candidate, or `otherwise`.
pub fn suggest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
    otherwise: &str,
) -> String {
    closest(word, candidates).map_or_else(
        || otherwise.to_owned(),
        |name| format!("did you mean `{name}`?"),
    )
}

/// Edit distance with transpositions of neighbours (optimal string alignment), ignoring case.
fn distance(a: &[char], b: &str) -> usize {
    let b: Vec<char> = b.chars().flat_map(char::to_lowercase).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let change = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = change.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_suggested_and_far_ones_are_not() {
        let words = ["rpo", "rto", "migrationBlackout", "freezeStall"];
        assert_eq!(closest("rpoo", words), Some("rpo"));
        assert_eq!(
            closest("migrationblackuot", words),
            Some("migrationBlackout")
        );
        assert_eq!(closest("colour", words), None);
    }

    #[test]
    fn distance_counts_edits_and_swaps() {
        let from = |a: &str, b: &str| distance(&a.chars().collect::<Vec<_>>(), b);
        assert_eq!(from("", "abc"), 3);
        assert_eq!(from("abc", "acb"), 1);
        assert_eq!(from("kitten", "sitting"), 3);
    }

    #[test]
    fn snippets_hide_control_characters_and_are_short() {
        let text = format!("\u{1b}[31m{}", "x".repeat(500));
        let mut problems = Problems::new("f", &text);
        problems.add(
            At {
                line: 1,
                column: 400,
                offset: 0,
            },
            "w",
            "",
            "",
        );
        let shown = render(&problems.into_sorted());
        assert!(!shown.contains('\u{1b}') && shown.contains('…'));
        assert!(shown.lines().all(|line| line.chars().count() < 140));
    }
}
