//! How measurements are written: one JSON object for programs, a head and tables for people.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Number, Value, json};

use super::super::{CliError, Context, output};
use super::machine;

/// A column of a table: its title, and the key of the objects that it shows.
pub(super) type Column = (&'static str, &'static str);

/// The start of a report: which measurement, on which machine.
pub(super) fn head(bench: &str) -> Value {
    json!({ "bench": bench, "machine": machine::describe() })
}

/// Writes a report: as it is with `--json`, otherwise its head and then what `people` writes.
///
/// # Errors
/// [`CliError::Io`].
pub(super) fn write(
    context: &Context,
    report: &Value,
    people: impl FnOnce() -> Result<(), CliError>,
) -> Result<(), CliError> {
    if context.json {
        return output::json(report);
    }
    output::line(machine::line(&report["machine"]))?;
    people()
}

/// Writes objects as the rows of a table below a title; every column but the first is aligned at its end.
///
/// # Errors
/// [`CliError::Io`].
pub(super) fn table(title: &str, objects: &[Value], columns: &[Column]) -> Result<(), CliError> {
    output::line("")?;
    output::line(title)?;
    let head = columns.iter().map(|(title, _)| (*title).to_owned()).collect();
    let row = |object: &Value| columns.iter().map(|(_, key)| cell(&object[*key])).collect();
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(objects.iter().map(row)).collect();
    output::table(&rows, &(1..columns.len()).collect::<Vec<_>>())
}

/// Writes the fields of one object as `title: value` lines; fields that are missing are left out.
///
/// # Errors
/// [`CliError::Io`].
pub(super) fn fields(object: &Value, columns: &[Column]) -> Result<(), CliError> {
    for (title, key) in columns {
        if !object[*key].is_null() {
            output::line(format_args!("{title}: {}", cell(&object[*key])))?;
        }
    }
    Ok(())
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) => match number.as_u64().or_else(|| whole_float(number)) {
            Some(whole) => output::count(whole),
            None => number.to_string(),
        },
        other => other.to_string(),
    }
}

fn whole_float(number: &Number) -> Option<u64> {
    let float = number.as_f64()?;
    (float.fract() == 0.0 && (0.0..1e15).contains(&float)).then_some(float as u64)
}

/// A bar over counted things on stderr; nothing where stderr is no terminal.
pub(super) fn progress(context: &Context, total: usize, what: &'static str) -> ProgressBar {
    let target = if context.quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let style = ProgressStyle::with_template("{bar:30} {human_pos}/{human_len} {msg}, {eta} left")
        .expect("a constant template");
    ProgressBar::with_draw_target(Some(total as u64), target).with_style(style).with_message(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_readable() {
        let cells = [json!(null), json!("a b"), json!(12_345), json!(0.25), json!(-3), json!(4096.0), json!(true)]
            .map(|v| cell(&v));
        assert_eq!(cells, ["-", "a b", "12,345", "0.25", "-3", "4,096", "true"]);
    }
}
