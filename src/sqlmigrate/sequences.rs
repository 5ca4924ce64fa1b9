//! Sequences of columns, made again as they were and moved on behind the rows that are put back.

use serde_json::Value;

use super::MigrateError;
use super::snapshot::{qualified, unreadable};
use crate::postgres::{Session, quote_identifier, quote_literal};

/// The types of columns whose greatest value may be a sequence's number.
const INTEGERS: [&str; 3] = ["smallint", "integer", "bigint"];

/// Where a sequence stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    increment: i64,
    min: i64,
    max: i64,
    cycles: bool,
    /// The last number, or the first where none was given out.
    last: i64,
    is_called: bool,
}

impl Position {
    /// The value to set so that no number up to `reached` is given out again. `None` where the sequence is past it
    /// already, where it begins anew after its last number, and where `reached` is none of its numbers.
    fn behind(&self, reached: i64) -> Option<i64> {
        let step = i128::from(self.increment);
        let distance = (i128::from(reached) - i128::from(self.last)) * step.signum();
        if distance < 0 || step == 0 || self.cycles || !(self.min..=self.max).contains(&reached) {
            return None;
        }
        // In whole steps: two servers may share the numbers, one the odd ones and one the even.
        let steps = distance / step.abs();
        let number = i64::try_from(i128::from(self.last) + steps * step).ok();
        number.filter(|_| steps > 0 || !self.is_called)
    }
}

/// How a sequence numbers, as SQL; nothing where the snapshot is too old to say so.
pub(super) fn options(column: &Value) -> String {
    let numbers = &column["numbers"];
    let number = |key: &str| numbers[key].as_i64();
    let all = (number("start"), number("increment"), number("min"), number("max"), number("cache"));
    let (Some(start), Some(increment), Some(min), Some(max), Some(cache)) = all else { return String::new() };
    let cycle = if numbers["cycle"] == true { "cycle" } else { "no cycle" };
    format!("start with {start} increment by {increment} minvalue {min} maxvalue {max} cache {cache} {cycle}")
}

/// Makes the sequence of a column that is no identity, where it is gone.
///
/// # Errors
/// [`MigrateError::Postgres`].
pub(super) async fn make(session: &Session, column: &Value) -> Result<(), MigrateError> {
    let Some(name) = column["sequence"].as_str() else { return Ok(()) };
    let kind = column["numbers"]["type"].as_str().map(|kind| format!("as {kind}")).unwrap_or_default();
    let sql = format!("create sequence if not exists {name} {kind} {}", options(column));
    Ok(session.batch("make a sequence again", &sql).await?)
}

/// Moves a table's sequences behind its rows and behind what they had given out when it was copied. None is moved back.
///
/// # Errors
/// [`MigrateError::Postgres`].
pub(super) async fn advance(session: &Session, table: &Value, was_made: bool) -> Result<(), MigrateError> {
    for column in table["columns"].as_array().into_iter().flatten() {
        let text = |key: &str| column[key].as_str().unwrap_or_default();
        if text("sequence").is_empty() {
            continue;
        }
        let (name, column_name) = (qualified(table), quote_identifier(text("name")));
        if was_made && text("identity").is_empty() {
            let own = format!("alter sequence {} owned by {name}.{column_name}", text("sequence"));
            session.batch("give a sequence its column", &own).await?;
        }
        let sql = format!("select pg_get_serial_sequence({}, {})", quote_literal(&name), quote_literal(text("name")));
        let found = session.texts("look for a sequence", &sql).await?.into_iter().flatten().next();
        let Some(sequence) = found else { continue };
        let Some(mut at) = position(session, &sequence).await? else { continue };
        let last = column["numbers"]["last"].as_i64();
        // A new one goes on exactly where it was, which may be between the steps from its first number.
        let mut number = last.filter(|_| was_made && !at.is_called);
        let edge = if at.increment < 0 { "min" } else { "max" };
        let greatest = match INTEGERS.contains(&text("type")) {
            true => {
                let sql = format!("select {edge}({column_name}) from {name}");
                session.texts("look for the last number", &sql).await?.into_iter().flatten().next()
            }
            false => None,
        };
        for reached in [last, greatest.and_then(|greatest| greatest.parse().ok())].into_iter().flatten() {
            if let Some(number) = number {
                (at.last, at.is_called) = (number, true);
            }
            number = at.behind(reached).or(number);
        }
        if let Some(number) = number {
            let sql = format!("select setval({}::regclass, {number}, true)", quote_literal(&sequence));
            session.batch("move a sequence on", &sql).await?;
        }
    }
    Ok(())
}

async fn position(session: &Session, sequence: &str) -> Result<Option<Position>, MigrateError> {
    let sql = format!(
        "select json_build_array(q.seqincrement, q.seqmin, q.seqmax, q.seqcycle, s.last_value, s.is_called)::text \
         from pg_catalog.pg_sequence q, {sequence} s where q.seqrelid = {}::regclass",
        quote_literal(sequence)
    );
    let Some(text) = session.texts("look at a sequence", &sql).await?.into_iter().flatten().next() else {
        return Ok(None);
    };
    let (increment, min, max, cycles, last, is_called) = serde_json::from_str(&text).map_err(unreadable)?;
    Ok(Some(Position { increment, min, max, cycles, last, is_called }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_is_moved_on_in_its_steps_and_never_back() {
        let plain = Position { increment: 1, min: 1, max: 100, cycles: false, last: 10, is_called: true };
        let fresh = Position { is_called: false, ..plain };
        let odd = Position { increment: 2, last: 9, ..plain };
        let down = Position { increment: -1, min: -100, max: -1, last: -10, ..plain };
        let whole =
            Position { increment: 7, min: i64::MIN, max: i64::MAX, cycles: false, last: i64::MIN, is_called: true };
        let cases = [
            (plain, 9, None),
            (plain, 10, None),
            (plain, 11, Some(11)),
            (plain, 100, Some(100)),
            (plain, 101, None),
            (fresh, 9, None),
            (fresh, 10, Some(10)),
            (odd, 10, None),
            (odd, 12, Some(11)),
            (Position { is_called: false, ..odd }, 10, Some(9)),
            (down, -9, None),
            (down, -12, Some(-12)),
            (Position { cycles: true, ..plain }, 50, None),
            (Position { last: 100, ..plain }, 100, None),
            (whole, i64::MAX, Some(i64::MAX - 1)),
        ];
        for (at, reached, wanted) in cases {
            assert_eq!(at.behind(reached), wanted, "{at:?} {reached}");
        }
    }
}
