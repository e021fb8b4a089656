//! Standard output and standard error: the one place that writes to them.

use std::io::{self, Write};

/// Writes a line to standard output. A reader that went away (`| head`) is no error.
pub(super) fn line(text: impl std::fmt::Display) -> io::Result<()> {
    gone_is_fine(writeln!(anstream::stdout(), "{text}"))
}

/// Writes text as it is to standard output.
pub(super) fn raw(text: impl std::fmt::Display) -> io::Result<()> {
    gone_is_fine(write!(anstream::stdout(), "{text}"))
}

/// Writes a line to standard error.
pub(super) fn note(text: impl std::fmt::Display) -> io::Result<()> {
    gone_is_fine(writeln!(anstream::stderr(), "{text}"))
}

fn gone_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Rows as aligned columns, two spaces apart, the last column free.
pub(super) fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|r| r.get(column))
            .map(|c| c.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let mut text = String::new();
        for (column, cell) in row.iter().enumerate() {
            text.push_str(cell);
            if column + 1 < row.len() {
                let pad = widths[column] - cell.chars().count() + 2;
                text.extend(std::iter::repeat_n(' ', pad));
            }
        }
        out.push_str(text.trim_end());
        out.push('\n');
    }
    out
}
