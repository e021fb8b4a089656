//! The condition of a check hook.
//!
//! `{$.path} OP {literal or $.path}`, joined by `&&` and `||`, with parentheses. There is no
//! precedence: the first operator outside brackets splits, so `a && b || c` is `a && (b || c)`, and
//! what is not needed is not evaluated. Operands stand in braces. A path that is not there, and
//! operands of two kinds, are errors and not false.

use std::cmp::Ordering;
use std::fmt;

use serde_json::Value;

use super::jsonpath::{Path, unquoted};

/// The longest condition that is read, in bytes.
const MAX_TEXT: usize = 4096;
/// The deepest nesting that is read.
const MAX_DEPTH: usize = 64;

/// A condition. Reading never fails: a part that cannot be read is an error when it is evaluated.
#[derive(Debug, Clone, PartialEq)]
pub enum Expression {
    /// Both sides; the right one only if the left holds.
    And(Box<Self>, Box<Self>),
    /// Either side; the right one only if the left does not hold.
    Or(Box<Self>, Box<Self>),
    /// A comparison.
    Compare(Operand, Operator, Operand),
    /// What cannot be read, and why.
    Unreadable(String),
}

/// A side of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub enum Operand {
    /// A path as it is written in the braces; `None` when it cannot be read, and why.
    Path(String, Result<Route, String>),
    /// A literal as it is written in the braces.
    Literal(String),
}

/// A path that can be followed.
#[derive(Debug, Clone, PartialEq)]
pub struct Route(Path);

/// A comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `>=`
    AtLeast,
    /// `>`
    More,
    /// `<=`
    AtMost,
    /// `<`
    Less,
}

impl Operator {
    /// In the order in which the controller looks for them.
    const ALL: [Self; 6] = [
        Self::Equal,
        Self::NotEqual,
        Self::AtLeast,
        Self::More,
        Self::AtMost,
        Self::Less,
    ];

    /// As it is written.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::AtLeast => ">=",
            Self::More => ">",
            Self::AtMost => "<=",
            Self::Less => "<",
        }
    }

    /// Whether it holds of an order.
    pub(super) const fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::AtLeast => order.is_ge(),
            Self::More => order.is_gt(),
            Self::AtMost => order.is_le(),
            Self::Less => order.is_lt(),
        }
    }

    /// The first operator outside braces, and where it stands.
    pub(super) fn find(text: &str) -> Option<(usize, Self)> {
        let mut depth = 0_i32;
        for (at, c) in text.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            let here = |operator: &Self| text[at..].starts_with(operator.text());
            if depth == 0
                && let Some(operator) = Self::ALL.into_iter().find(here)
            {
                return Some((at, operator));
            }
        }
        None
    }
}

impl Expression {
    /// Reads a condition.
    pub fn parse(text: &str) -> Self {
        if text.len() > MAX_TEXT {
            return Self::Unreadable(format!("it is longer than {MAX_TEXT} bytes"));
        }
        Self::read(text, 0)
    }

    fn read(text: &str, depth: usize) -> Self {
        let text = text.trim();
        if depth > MAX_DEPTH {
            return Self::Unreadable(format!("it is nested deeper than {MAX_DEPTH}"));
        }
        if let Some(inner) = enclosed(text) {
            return Self::read(inner, depth + 1);
        }
        let Some((at, joined)) = split(text) else {
            return comparison(text).unwrap_or_else(Self::Unreadable);
        };
        let left = Box::new(Self::read(&text[..at], depth + 1));
        let right = Box::new(Self::read(&text[at + 2..], depth + 1));
        match joined {
            Joint::And => Self::And(left, right),
            Joint::Or => Self::Or(left, right),
        }
    }

    /// What cannot be read in it.
    pub fn errors(&self) -> Vec<String> {
        match self {
            Self::And(left, right) | Self::Or(left, right) => {
                [left.errors(), right.errors()].concat()
            }
            Self::Compare(left, _, right) => {
                let bad = |operand: &Operand| match operand {
                    Operand::Path(text, Err(why)) => Some(format!("`{{{text}}}`: {why}")),
                    _ => None,
                };
                [left, right].into_iter().filter_map(bad).collect()
            }
            Self::Unreadable(why) => vec![why.clone()],
        }
    }

    /// Operators that compare by order with a literal that is no number: an error when it comes to it.
    pub fn misused(&self) -> Vec<Operator> {
        let text = |operand: &Operand| match operand {
            Operand::Literal(text) => text.parse::<f64>().is_err(),
            Operand::Path(..) => false,
        };
        match self {
            Self::And(left, right) | Self::Or(left, right) => {
                [left.misused(), right.misused()].concat()
            }
            Self::Compare(left, operator, right)
                if !matches!(operator, Operator::Equal | Operator::NotEqual)
                    && (text(left) || text(right)) =>
            {
                vec![*operator]
            }
            _ => Vec::new(),
        }
    }

    /// Whether `&&` and `||` stand beside each other without parentheses that say which binds first.
    pub fn mixes_operators(text: &str) -> bool {
        if text.len() > MAX_TEXT {
            return false;
        }
        let mut joints = Vec::new();
        let mut rest = text.trim();
        while let Some(inner) = enclosed(rest) {
            rest = inner.trim();
        }
        let mut parts = Vec::new();
        while let Some((at, joint)) = split(rest) {
            parts.push(&rest[..at]);
            joints.push(joint);
            rest = &rest[at + 2..];
        }
        parts.push(rest);
        let mixed = joints.iter().any(|joint| *joint != joints[0]);
        let inner = |part: &&str| !joints.is_empty() && Self::mixes_operators(part);
        mixed || parts.iter().any(inner)
    }

    /// Whether it holds of an object.
    pub fn evaluate(&self, object: &Value) -> Result<bool, EvaluateError> {
        match self {
            Self::And(left, right) => Ok(left.evaluate(object)? && right.evaluate(object)?),
            Self::Or(left, right) => Ok(left.evaluate(object)? || right.evaluate(object)?),
            Self::Compare(left, operator, right) => {
                let (a, b) = (left.value(object)?, right.value(object)?);
                compare(a.as_ref(), b.as_ref(), *operator)
            }
            Self::Unreadable(why) => Err(EvaluateError::Unreadable(why.clone())),
        }
    }
}

/// Why a condition is neither true nor false.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvaluateError {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// The operands are of two kinds, of which one may be “not there”.
    #[error("operands of different kinds can't be compared: {0}, {1}")]
    Kinds(&'static str, &'static str),
    /// The operator does not go with the operands.
    #[error("`{1}` cannot compare {0}")]
    Operator(&'static str, &'static str),
}

impl Operand {
    fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if !(text.starts_with('{') && text.ends_with('}') && text.len() > 1) {
            return Err(format!("`{text}` does not stand in braces"));
        }
        let inner = text.trim_matches(['{', '}']);
        if is_literal(inner) {
            return Ok(Self::Literal(inner.to_owned()));
        }
        let Some(path) = inner.strip_prefix('$') else {
            return Err(format!(
                "`{{{inner}}}` is neither a literal nor a path that starts with `$`"
            ));
        };
        let plain = |c: char| c.is_alphanumeric() || "_.[]\"'()@?=-".contains(c);
        if path.is_empty() || !(path.chars().all(plain) || path.contains("[?(@")) {
            return Err(format!(
                "`{{{inner}}}` is no path that the controller takes"
            ));
        }
        Ok(Self::Path(inner.to_owned(), Path::parse(path).map(Route)))
    }

    /// Its value, if there is one.
    fn value(&self, object: &Value) -> Result<Option<Value>, EvaluateError> {
        match self {
            Self::Literal(text) => Ok(Some(Value::from(text.as_str()))),
            Self::Path(_, Ok(Route(path))) => Ok(path.first(object).cloned()),
            Self::Path(_, Err(why)) => Err(EvaluateError::Unreadable(why.clone())),
        }
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(text, _) | Self::Literal(text) => write!(f, "{{{text}}}"),
        }
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::And(left, right) => write!(f, "({left}) && ({right})"),
            Self::Or(left, right) => write!(f, "({left}) || ({right})"),
            Self::Compare(left, operator, right) => write!(f, "{left} {} {right}", operator.text()),
            Self::Unreadable(_) => f.write_str("?"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Joint {
    And,
    Or,
}

/// The first `&&` or `||` outside braces and parentheses.
fn split(text: &str) -> Option<(usize, Joint)> {
    let (mut braces, mut parens) = (0_i32, 0_i32);
    for (at, c) in text.char_indices() {
        match c {
            '{' => braces += 1,
            '}' => braces -= 1,
            '(' => parens += 1,
            ')' => parens -= 1,
            _ => {}
        }
        if braces == 0 && parens == 0 {
            match &text[at..] {
                rest if rest.starts_with("&&") => return Some((at, Joint::And)),
                rest if rest.starts_with("||") => return Some((at, Joint::Or)),
                _ => {}
            }
        }
    }
    None
}

/// What stands in a pair of parentheses that encloses the whole text.
fn enclosed(text: &str) -> Option<&str> {
    let inner = text.strip_prefix('(')?.strip_suffix(')')?;
    let mut depth = 1_i32;
    for c in inner.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return None;
        }
    }
    (depth == 1).then_some(inner)
}

fn comparison(text: &str) -> Result<Expression, String> {
    let (at, operator) =
        Operator::find(text).ok_or_else(|| format!("`{text}` has no comparison outside braces"))?;
    let left = Operand::parse(&text[..at])?;
    let right = Operand::parse(&text[at + operator.text().len()..])?;
    Ok(Expression::Compare(left, operator, right))
}

/// A quoted text, a number or a word.
fn is_literal(text: &str) -> bool {
    let word = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    word || unquoted(text).is_some() || text.parse::<f64>().is_ok()
}

/// A value as it is compared: texts that look like numbers are numbers, then quotes are taken off,
/// then texts that look like booleans are booleans.
enum Plain {
    Number(f64),
    Flag(bool),
    Text(String),
    Other(&'static str),
}

impl Plain {
    fn of(value: Option<&Value>) -> Self {
        match value {
            None | Some(Value::Null) => Self::Other("nothing"),
            Some(Value::Array(_)) => Self::Other("a list"),
            Some(Value::Object(_)) => Self::Other("a mapping"),
            Some(Value::Bool(flag)) => Self::Flag(*flag),
            Some(Value::Number(number)) => number
                .as_f64()
                .map_or(Self::Other("a number out of range"), Self::Number),
            Some(Value::String(text)) => Self::text(text),
        }
    }

    fn text(text: &str) -> Self {
        if let Ok(number) = text.parse() {
            return Self::Number(number);
        }
        let text = text.trim();
        let text = unquoted(text).unwrap_or(text);
        match text.to_ascii_lowercase().as_str() {
            "true" => Self::Flag(true),
            "false" => Self::Flag(false),
            _ => Self::Text(text.to_owned()),
        }
    }

    const fn kind(&self) -> &'static str {
        match self {
            Self::Number(_) => "a number",
            Self::Flag(_) => "a boolean",
            Self::Text(_) => "a text",
            Self::Other(kind) => kind,
        }
    }
}

fn compare(a: Option<&Value>, b: Option<&Value>, op: Operator) -> Result<bool, EvaluateError> {
    let (a, b) = (Plain::of(a), Plain::of(b));
    let equality = matches!(op, Operator::Equal | Operator::NotEqual);
    match (&a, &b) {
        // NaN is unequal to everything, itself included.
        (Plain::Number(x), Plain::Number(y)) => Ok(x
            .partial_cmp(y)
            .map_or(op == Operator::NotEqual, |order| op.holds(order))),
        (Plain::Flag(x), Plain::Flag(y)) if equality => Ok(op.holds(x.cmp(y))),
        (Plain::Text(x), Plain::Text(y)) if equality => Ok(op.holds(x.cmp(y))),
        (Plain::Flag(_), Plain::Flag(_)) | (Plain::Text(_), Plain::Text(_)) => {
            Err(EvaluateError::Operator(a.kind(), op.text()))
        }
        _ => Err(EvaluateError::Kinds(a.kind(), b.kind())),
    }
}
