//! The part of CEL that the rules of the served kinds use: `self`, `oldSelf`, fields, `has()`,
//! `size()`, `all()`, `startsWith()`, `contains()`, literals, `in`, comparison and logic.

use serde_json::Value;

/// Whether a rule holds. `None` when it does not apply (it needs `oldSelf` and there is none) or
/// uses a part of CEL that is not known here.
pub(super) fn holds(rule: &str, this: &Value, old: Option<&Value>) -> Option<bool> {
    if rule.contains("oldSelf") && old.is_none() {
        return None;
    }
    let mut parser = Parser {
        tokens: tokens(rule),
        at: 0,
        names: vec![("self".to_owned(), this.clone())],
    };
    if let Some(old) = old {
        parser.names.push(("oldSelf".to_owned(), old.clone()));
    }
    let value = parser.either()?;
    (parser.at == parser.tokens.len())
        .then_some(value)?
        .as_bool()
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Number(i64),
    Mark(&'static str),
}

const MARKS: &[&str] = &[
    "==", "!=", ">=", "<=", "&&", "||", "(", ")", "[", "]", ".", ",", "!", ">", "<", "?", ":",
];

fn tokens(rule: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = rule.trim_start();
    while let Some(first) = rest.chars().next() {
        let taken = if first == '\'' || first == '"' {
            let inner: String = rest.chars().skip(1).take_while(|c| *c != first).collect();
            let taken = inner.len() + 2;
            tokens.push(Token::Text(inner));
            taken
        } else if first.is_ascii_digit() {
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            let taken = digits.len();
            tokens.push(Token::Number(digits.parse().unwrap_or(i64::MAX)));
            taken
        } else if let Some(mark) = MARKS.iter().find(|mark| rest.starts_with(**mark)) {
            tokens.push(Token::Mark(mark));
            mark.len()
        } else {
            let word: String = rest
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            let taken = word.len().max(first.len_utf8());
            tokens.push(Token::Word(word));
            taken
        };
        rest = rest.get(taken..).unwrap_or("").trim_start();
    }
    tokens
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    names: Vec<(String, Value)>,
}

impl Parser {
    fn eat(&mut self, mark: &str) -> bool {
        let found = self.tokens.get(self.at) == Some(&Token::Mark(mark_of(mark)));
        self.at += usize::from(found);
        found
    }

    fn word(&mut self) -> Option<String> {
        let Some(Token::Word(word)) = self.tokens.get(self.at).cloned() else {
            return None;
        };
        self.at += 1;
        Some(word)
    }

    /// `a ? b : c`, and everything below it.
    fn either(&mut self) -> Option<Value> {
        let mut value = self.all()?;
        while self.eat("||") {
            let right = self.all()?;
            value = Value::Bool(value.as_bool()? || right.as_bool()?);
        }
        if self.eat("?") {
            let yes = self.either()?;
            if !self.eat(":") {
                return None;
            }
            let no = self.either()?;
            value = if value.as_bool()? { yes } else { no };
        }
        Some(value)
    }

    fn all(&mut self) -> Option<Value> {
        let mut value = self.compare()?;
        while self.eat("&&") {
            let right = self.compare()?;
            value = Value::Bool(value.as_bool()? && right.as_bool()?);
        }
        Some(value)
    }

    fn compare(&mut self) -> Option<Value> {
        let left = self.unary()?;
        for (mark, test) in [
            ("==", (|a, b| a == b) as fn(&Value, &Value) -> bool),
            ("!=", |a, b| a != b),
            (">=", |a, b| a.as_f64() >= b.as_f64()),
            ("<=", |a, b| a.as_f64() <= b.as_f64()),
            (">", |a, b| a.as_f64() > b.as_f64()),
            ("<", |a, b| a.as_f64() < b.as_f64()),
        ] {
            if self.eat(mark) {
                let right = self.unary()?;
                return Some(Value::Bool(test(&left, &right)));
            }
        }
        if self.tokens.get(self.at) == Some(&Token::Word("in".to_owned())) {
            self.at += 1;
            let right = self.unary()?;
            return Some(Value::Bool(right.as_array()?.contains(&left)));
        }
        Some(left)
    }

    fn unary(&mut self) -> Option<Value> {
        if self.eat("!") {
            return Some(Value::Bool(!self.unary()?.as_bool()?));
        }
        let mut value = self.primary()?;
        while self.eat(".") {
            let name = self.word()?;
            value = if self.eat("(") {
                self.method(&value, &name)?
            } else {
                member(&value, &name).cloned().unwrap_or(Value::Null)
            };
        }
        Some(value)
    }

    fn primary(&mut self) -> Option<Value> {
        if self.eat("(") {
            let value = self.either()?;
            return self.eat(")").then_some(value);
        }
        if self.eat("[") {
            let mut items = Vec::new();
            while !self.eat("]") {
                items.push(self.either()?);
                self.eat(",");
            }
            return Some(Value::Array(items));
        }
        let token = self.tokens.get(self.at).cloned()?;
        self.at += 1;
        match token {
            Token::Text(text) => Some(Value::from(text)),
            Token::Number(number) => Some(Value::from(number)),
            Token::Mark(_) => None,
            Token::Word(word) => self.named(&word),
        }
    }

    fn named(&mut self, word: &str) -> Option<Value> {
        match word {
            "true" | "false" => return Some(Value::Bool(word == "true")),
            "null" => return Some(Value::Null),
            "has" | "size" if self.eat("(") => {
                let before = self.at;
                let value = self.unary()?;
                let last = self.tokens.get(self.at - 1).cloned();
                if !self.eat(")") {
                    return None;
                }
                // `has` asks for the last field of a path, which is there unless it reads as null.
                return if word == "has" {
                    (self.at > before && matches!(last, Some(Token::Word(_))))
                        .then(|| Value::Bool(!value.is_null()))
                } else {
                    size(&value)
                };
            }
            _ => {}
        }
        let (_, value) = self.names.iter().rev().find(|(name, _)| name == word)?;
        Some(value.clone())
    }

    fn method(&mut self, this: &Value, name: &str) -> Option<Value> {
        if name == "all" {
            return self.every(this);
        }
        if name == "size" {
            return self.eat(")").then(|| size(this))?;
        }
        let argument = self.either()?;
        if !self.eat(")") {
            return None;
        }
        let (text, part) = (this.as_str()?, argument.as_str()?);
        match name {
            "startsWith" => Some(Value::Bool(text.starts_with(part))),
            "contains" => Some(Value::Bool(text.contains(part))),
            _ => None,
        }
    }

    /// `list.all(name, test)`: the test is read again for every item.
    fn every(&mut self, list: &Value) -> Option<Value> {
        let name = self.word()?;
        if !self.eat(",") {
            return None;
        }
        let start = self.at;
        let mut holds = true;
        let items = list.as_array()?;
        for item in items.iter().chain(items.is_empty().then_some(&Value::Null)) {
            self.at = start;
            self.names.push((name.clone(), item.clone()));
            let value = self.either()?;
            self.names.pop();
            holds &= items.is_empty() || value.as_bool()?;
        }
        self.eat(")").then_some(Value::Bool(holds))
    }
}

fn mark_of(mark: &str) -> &'static str {
    MARKS
        .iter()
        .find(|known| **known == mark)
        .copied()
        .unwrap_or("")
}

/// A field; CEL writes reserved words as `__word__`.
fn member<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    let plain = name
        .strip_prefix("__")
        .and_then(|name| name.strip_suffix("__"));
    value.get(plain.unwrap_or(name))
}

fn size(value: &Value) -> Option<Value> {
    let size = match value {
        Value::String(text) => text.chars().count(),
        Value::Array(items) => items.len(),
        Value::Object(map) => map.len(),
        _ => return None,
    };
    Some(Value::from(size))
}
