//! What commands write: results on stdout, everything else on stderr.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{CliError, Context, LogFormat};

/// Writes one line of a result for a person. Where nobody reads any more, the command goes on: its exit code is read
/// too.
///
/// # Errors
/// [`CliError::Io`].
pub(super) fn line(text: impl Display) -> Result<(), CliError> {
    json(printable(&text.to_string()))
}

/// Writes a result for a program, as it is.
///
/// # Errors
/// As [`line`].
pub(super) fn json(text: impl Display) -> Result<(), CliError> {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(stdout),
    }
}

/// An error of stdout.
pub(super) fn stdout(error: io::Error) -> CliError {
    CliError::io("write to stdout", error)
}

/// Writes a line to stderr as it is. One that cannot be written, as on a full disk or where nobody reads any more, is
/// lost: there is nowhere left to say so.
pub fn say(text: impl Display) {
    _ = writeln!(io::stderr(), "{text}");
}

/// Says on stderr what is wrong with a part of the input or of the store.
pub(super) fn complain(text: impl Display) {
    say(printable(&text.to_string()));
}

/// A path as a report in JSON has it: that of a name which is not UTF-8 has U+FFFD in the places that are not.
pub(super) fn path(path: &Path) -> String {
    path.display().to_string()
}

/// A text for a terminal: texts are other people's, and what a terminal would take as a command is U+FFFD. Ends of
/// lines and tabs stay.
pub fn printable(text: &str) -> String {
    let is_command = |c: char| c.is_control() && c != '\n' && c != '\t';
    text.chars().map(|c| if is_command(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Writes a hint for a person; among log lines for programs, as one of them.
pub(super) fn hint(context: &Context, text: impl Display) {
    match context.log_format {
        _ if context.quiet => {}
        LogFormat::Json => tracing::info!("{text}"),
        LogFormat::Text => complain(text),
    }
}

/// Writes rows as columns that stand below each other. `numeric`: columns to align at their end.
///
/// # Errors
/// As [`line`].
pub(super) fn table(rows: &[Vec<String>], numeric: &[usize]) -> Result<(), CliError> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    for row in rows {
        let mut text = String::new();
        for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            let gap = if column == 0 { "" } else { "  " };
            let padded = match numeric.contains(&column) {
                true => format!("{gap}{cell:>width$}"),
                false => format!("{gap}{cell:<width$}"),
            };
            text.push_str(&padded);
        }
        line(text.trim_end())?;
    }
    Ok(())
}

/// A bar over bytes, on stderr; a spinner where the total is not known. Nothing where stderr is no terminal.
pub(super) fn byte_progress(context: &Context, total_bytes: Option<u64>) -> ProgressBar {
    let template = match total_bytes {
        Some(_) => "{bar:30} {bytes}/{total_bytes} {msg}",
        None => "{spinner} {bytes} {msg}",
    };
    let target = if context.quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let style = ProgressStyle::with_template(template).expect("the template is a constant");
    ProgressBar::with_draw_target(total_bytes, target).with_style(style)
}

/// A bar over things, on stderr. Nothing where stderr is no terminal.
pub(super) fn count_progress(context: &Context) -> ProgressBar {
    let target = if context.quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let style = ProgressStyle::with_template("{bar:30} {human_pos}/{human_len} {msg}");
    ProgressBar::with_draw_target(Some(0), target).with_style(style.expect("the template is a constant"))
}

/// Digits in groups of three: `1,234,567`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number and its noun: `1 line`, `2 lines`.
pub(super) fn counted(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", count(number))
}

/// Bytes in binary units, one decimal.
pub(super) fn bytes(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// The first line of a text, cut to `max` characters.
pub(super) fn cut(text: &str, max: usize) -> String {
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if flat.chars().count() <= max {
        return flat;
    }
    let mut short: String = flat.chars().take(max.saturating_sub(1)).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        let cases = [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")];
        for (number, wanted) in cases {
            assert_eq!(count(number), wanted);
        }
        assert_eq!((counted(1, "line"), counted(2_000, "line")), ("1 line".into(), "2,000 lines".into()));
    }

    #[test]
    fn no_text_commands_the_terminal() {
        let clipboard = "\u{1b}]52;c;aGk=\u{7}";
        assert_eq!(printable(clipboard), "\u{fffd}]52;c;aGk=\u{fffd}");
        assert_eq!(printable("\u{9b}2J\u{7f}\r\0"), "\u{fffd}2J\u{fffd}\u{fffd}\u{fffd}");
        assert_eq!(printable("a\tb\nдом — ½ 🏠"), "a\tb\nдом — ½ 🏠");
    }

    #[test]
    fn texts_are_cut_by_characters() {
        assert_eq!(cut("a\n b", 9), "a b");
        assert_eq!(cut("дом у моря", 5), "дом …");
    }
}
