//! The words of an operation's `command`. There is no shell: no variables, no globs, no `&&`.

/// Why a command has no words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// It looks like a JSON array and is none of texts.
    #[error("it stands in brackets and is no JSON array of texts: {0}")]
    Json(String),
    /// A quote is not closed, or it ends in a backslash.
    #[error("a quote is not closed, or it ends in a backslash")]
    Quotes,
}

/// The words: a JSON array of texts, or split as a shell splits words.
pub fn argv(command: &str) -> Result<Vec<String>, CommandError> {
    let trimmed = command.trim();
    // The controller's pattern does not match over line ends, and then the text is split as words.
    let array = trimmed.starts_with('[') && trimmed.ends_with(']') && !trimmed.contains('\n');
    if array && trimmed.len() > 1 {
        return serde_json::from_str(trimmed)
            .map_err(|error| CommandError::Json(error.to_string()));
    }
    shlex::split(command).ok_or(CommandError::Quotes)
}
