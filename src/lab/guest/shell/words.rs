//! The command lines that a guest's login shell understands: words, quoting, redirections, and
//! lists joined by `&&`, `||` and `;`. Pipelines, variables and globs are not part of it.

/// How a command follows the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Join {
    /// First of the list, or after `;`.
    Always,
    /// After `&&`.
    IfOk,
    /// After `||`.
    IfFailed,
}

/// Where a stream of a command goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Redirect {
    /// `< PATH`.
    In(String),
    /// `> PATH` and `2> PATH`, truncating unless `append`.
    Out {
        /// 1 or 2.
        fd: u8,
        /// The file.
        path: String,
        /// `>>` instead of `>`.
        append: bool,
    },
    /// `2>&1`.
    ErrToOut,
}

/// One simple command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Command {
    /// How it follows the one before.
    pub(super) join: Join,
    /// Its words, never empty.
    pub(super) words: Vec<String>,
    /// Its redirections, in order.
    pub(super) redirects: Vec<Redirect>,
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Join(Join),
    /// `<`, `>`, `>>` with a leading descriptor.
    Angle {
        fd: u8,
        append: bool,
        input: bool,
    },
    ErrToOut,
}

/// Splits a command line; the error is what a shell would say after `syntax error`.
pub(super) fn parse(line: &str) -> Result<Vec<Command>, String> {
    let mut commands = Vec::new();
    let mut join = Join::Always;
    let mut words = Vec::new();
    let mut redirects = Vec::new();
    let mut tokens = tokens(line)?.into_iter();
    while let Some(token) = tokens.next() {
        match token {
            Token::Word(word) => words.push(word),
            Token::ErrToOut => redirects.push(Redirect::ErrToOut),
            Token::Angle { fd, append, input } => {
                let Some(Token::Word(path)) = tokens.next() else {
                    return Err("near unexpected token `newline'".to_owned());
                };
                redirects.push(if input {
                    Redirect::In(path)
                } else {
                    Redirect::Out { fd, path, append }
                });
            }
            Token::Join(next) => {
                if words.is_empty() {
                    return Err("near unexpected token".to_owned());
                }
                commands.push(Command {
                    join,
                    words: std::mem::take(&mut words),
                    redirects: std::mem::take(&mut redirects),
                });
                join = next;
            }
        }
    }
    if !words.is_empty() {
        commands.push(Command {
            join,
            words,
            redirects,
        });
    } else if join != Join::Always || !redirects.is_empty() {
        return Err("unexpected end of file".to_owned());
    }
    Ok(commands)
}

fn tokens(line: &str) -> Result<Vec<Token>, String> {
    let mut out = Vec::new();
    let mut word: Option<String> = None;
    let mut rest = line.chars().peekable();
    while let Some(c) = rest.next() {
        let bare_two = word.as_deref() == Some("2");
        match c {
            '\'' | '"' => quoted(c, &mut rest, word.get_or_insert_default())?,
            '\\' => word
                .get_or_insert_default()
                .extend(rest.next().filter(|next| *next != '\n')),
            '>' => {
                let fd = if bare_two {
                    word = None;
                    2
                } else {
                    1
                };
                out.extend(word.take().map(Token::Word));
                if rest.next_if_eq(&'&').is_some() {
                    if fd != 2 || rest.next() != Some('1') {
                        return Err("near unexpected token `&'".to_owned());
                    }
                    out.push(Token::ErrToOut);
                } else {
                    out.push(Token::Angle {
                        fd,
                        append: rest.next_if_eq(&'>').is_some(),
                        input: false,
                    });
                }
            }
            '<' => {
                out.extend(word.take().map(Token::Word));
                out.push(Token::Angle {
                    fd: 0,
                    append: false,
                    input: true,
                });
            }
            '&' | '|' | ';' | '\n' => {
                out.extend(word.take().map(Token::Word));
                out.push(Token::Join(joiner(c, &mut rest)?));
            }
            '$' | '`' | '(' | ')' => return Err(format!("near unexpected token `{c}'")),
            c if c.is_whitespace() => out.extend(word.take().map(Token::Word)),
            c => word.get_or_insert_default().push(c),
        }
    }
    out.extend(word.map(Token::Word));
    Ok(out)
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

fn joiner(c: char, rest: &mut Chars<'_>) -> Result<Join, String> {
    match c {
        '&' if rest.next_if_eq(&'&').is_some() => Ok(Join::IfOk),
        '|' if rest.next_if_eq(&'|').is_some() => Ok(Join::IfFailed),
        ';' | '\n' => Ok(Join::Always),
        c => Err(format!("near unexpected token `{c}'")),
    }
}

fn quoted(quote: char, rest: &mut Chars<'_>, word: &mut String) -> Result<(), String> {
    while let Some(c) = rest.next() {
        match c {
            c if c == quote => return Ok(()),
            '\\' if quote == '"' => match rest.peek() {
                Some('"' | '\\' | '$' | '`') => word.extend(rest.next()),
                _ => word.push('\\'),
            },
            c => word.push(c),
        }
    }
    Err(format!(
        "unexpected EOF while looking for matching `{quote}'"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<Vec<String>> {
        let parsed = parse(line).unwrap();
        parsed.into_iter().map(|command| command.words).collect()
    }

    #[test]
    fn quoting_keeps_words_together() {
        assert_eq!(
            words(r#"echo 'a b' "c \"d" e\ f"#),
            [["echo", "a b", "c \"d", "e f"]]
        );
        assert_eq!(words("test -z ''"), [["test", "-z", ""]]);
    }

    #[test]
    fn lists_and_redirections() {
        let parsed =
            parse("mkdir -p D&&cat >D/new 2>/dev/null; chmod 0700 x || true 2>&1").unwrap();
        assert_eq!(parsed.len(), 4);
        assert_eq!(parsed[1].join, Join::IfOk);
        assert_eq!(
            parsed[1].redirects,
            [
                Redirect::Out {
                    fd: 1,
                    path: "D/new".into(),
                    append: false
                },
                Redirect::Out {
                    fd: 2,
                    path: "/dev/null".into(),
                    append: false
                },
            ]
        );
        assert_eq!(parsed[3].join, Join::IfFailed);
        assert_eq!(parsed[3].redirects, [Redirect::ErrToOut]);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for line in [
            "a | b",
            "a &",
            "echo 'x",
            "&& a",
            "a &&",
            "echo $HOME",
            "a >",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn an_empty_line_is_no_command() {
        assert_eq!(parse("  ").unwrap(), []);
    }
}
