//! The index on the vector column, made once the rows are there.

use std::time::{Duration, Instant};

use crate::postgres::{Param, PostgresError, Session, Trouble, Type, quote_identifier, value};

use super::ReplicateError;
use super::layout::{Layout, Mode};
use super::settings::{IndexKind, VectorType};

/// Longest time that making an index may take.
const LIMIT: Duration = Duration::from_secs(6 * 3_600);
/// Most dimensions that an index takes (pgvector 0.8).
const MAX_VECTOR_DIM: u32 = 2_000;
const MAX_HALFVEC_DIM: u32 = 4_000;
/// Wait after a failed attempt: this, or `PAUSE_TIMES` the attempt's duration, whichever is longer.
const PAUSE: Duration = Duration::from_secs(600);
const PAUSE_TIMES: u32 = 10;
/// Wait before another look at an index that somebody else is making.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// Longest wait for the table where what is left of an index is dropped.
const DROP_PATIENCE: Duration = Duration::from_secs(2);
/// Attempts in a row that may end their session until the sink goes on without the index.
const MAX_BROKEN: u32 = 3;

/// What became of the attempts to make the index, over all sessions.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    /// Why there is none, and when to try again.
    failed: Option<(String, Instant)>,
    /// Sessions in a row that ended in an attempt.
    broken: u32,
}

impl Attempts {
    /// Whether it is time to try again.
    pub(super) fn is_due(&self) -> bool {
        self.failed.as_ref().is_some_and(|(_, due)| Instant::now() >= *due)
    }

    /// The next attempt comes at once.
    pub(super) fn hurry(&mut self) {
        self.failed.iter_mut().for_each(|(_, due)| *due = Instant::now());
    }
}

/// Makes the index where the vector column has no valid one, by HNSW or IVFFlat, that searches by the collection's
/// metric can use. What an interrupted attempt left is dropped.
///
/// Returns why there is none, where there can be none or it could not be made: rows are written without it all the
/// same, and it is tried again from time to time.
///
/// # Errors
/// [`ReplicateError::Postgres`] where the session is of no more use.
pub(super) async fn ensure(
    session: &Session,
    layout: &Layout,
    attempts: &mut Attempts,
) -> Result<Option<String>, ReplicateError> {
    if let Some((note, due)) = &attempts.failed
        && Instant::now() < *due
    {
        return Ok(Some(note.clone()));
    }
    let began = Instant::now();
    let error = match try_ensure(session, layout).await {
        Ok(outcome) => {
            *attempts = Attempts::default();
            let Outcome::UnderWay = outcome else { return Ok(outcome.note()) };
            attempts.failed = outcome.note().map(|note| (note, Instant::now() + LOOK_AGAIN));
            return Ok(outcome.note());
        }
        Err(ReplicateError::Postgres(error)) => error,
        Err(other) => return Err(other),
    };
    let goes_on = is_usable_after(&error);
    attempts.broken = if goes_on { 0 } else { attempts.broken + 1 };
    if !goes_on && attempts.broken < MAX_BROKEN {
        return Err(error.into());
    }
    let note = note(layout, &error);
    tracing::warn!(table = %layout.table, note, "the index could not be made");
    attempts.failed = Some((note.clone(), Instant::now() + PAUSE.max(began.elapsed() * PAUSE_TIMES)));
    if goes_on { Ok(Some(note)) } else { Err(error.into()) }
}

/// What became of one attempt.
enum Outcome {
    /// The index is there, or none is wanted.
    Done,
    /// There can be none, for this reason.
    Impossible(String),
    /// Another connection is making it: perhaps one that we left.
    UnderWay,
}

impl Outcome {
    fn note(&self) -> Option<String> {
        match self {
            Self::Done => None,
            Self::Impossible(reason) => Some(reason.clone()),
            Self::UnderWay => Some(
                "there is no index yet: the server is making one for another connection (pg_stat_progress_create_index); \
                 it is looked at again from time to time"
                    .to_owned(),
            ),
        }
    }
}

/// Why there is no index, and what to do.
fn note(layout: &Layout, error: &PostgresError) -> String {
    let (why, by_hand) = (error.without_values(), by_hand(layout));
    match error.trouble() {
        Trouble::Rights => format!(
            "there is no index: {why}; let the table's owner make it ({by_hand}), or add the sink with the index none"
        ),
        _ => format!(
            "there is no index: {why}; mend that (a full disk, maintenance_work_mem) and resume the sink, or make it \
             by hand ({by_hand}), or add the sink with the index none; it is tried again from time to time"
        ),
    }
}

/// Whether the session can still be used: a server that lacks room or memory for a statement lives on.
fn is_usable_after(error: &PostgresError) -> bool {
    !error.ends_session() || lacks_room(error)
}

/// Whether the server lacks disk, memory or another resource, or the index is beyond a limit of it.
fn lacks_room(error: &PostgresError) -> bool {
    error.code().is_some_and(|code| code.starts_with("53") || code.starts_with("54"))
}

/// The statement that makes the index.
fn by_hand(layout: &Layout) -> String {
    let column = layout.vector().map(|vector| layout.quoted(vector)).unwrap_or_default();
    let method = if layout.index == IndexKind::Ivfflat { "ivfflat" } else { "hnsw" };
    let class = layout.extension.name(&layout.operator_class());
    format!("create index concurrently on {} using {method} ({column} {class})", layout.table)
}

async fn try_ensure(session: &Session, layout: &Layout) -> Result<Outcome, ReplicateError> {
    let Some(column) = layout.vector().filter(|_| layout.mode == Mode::Rows) else { return Ok(Outcome::Done) };
    let method = match layout.index {
        IndexKind::None => return Ok(Outcome::Done),
        IndexKind::Hnsw => "hnsw",
        IndexKind::Ivfflat => "ivfflat",
    };
    let max_dim = match layout.vector_type {
        VectorType::Vector => MAX_VECTOR_DIM,
        VectorType::Halfvec => MAX_HALFVEC_DIM,
    };
    if layout.dim > max_dim {
        let reason = format!("{} dimensions are more than the {max_dim} that an index of pgvector takes", layout.dim);
        return Ok(Outcome::Impossible(reason));
    }
    let found = look(session, layout, column).await?;
    // Dropping one would wait for the one that is being made, and every statement on the table for the drop.
    if found.is_under_way {
        return Ok(if found.is_there { Outcome::Done } else { Outcome::UnderWay });
    }
    for leftover in &found.leftovers {
        drop_leftover(session, layout, leftover).await?;
    }
    if found.is_there {
        return Ok(Outcome::Done);
    }
    let lists = match layout.index {
        IndexKind::Ivfflat => {
            let sql = format!("select count(*)::int8 from {}", layout.table);
            let rows = session.query("count the rows", &sql, &[]).await?;
            rows.first().map_or(Ok(0), |row| value(row, 0))?
        }
        _ => 0,
    };
    let (suffix, options) = options(layout.index, lists);
    // Names as the vecs client makes them, so that it finds the index too. A table that is renamed keeps its indexes,
    // and they their names: the table's number keeps ours apart.
    let name = format!("ix_{}_{suffix}_{:07x}", layout.operator_class(), found.table);
    make(session, layout, column, method, &name, &options).await?;
    // An index that has the name is not looked at by the statement that makes ours.
    let made = look(session, layout, column).await?;
    Ok(match (made.is_there, made.is_under_way) {
        (true, _) => Outcome::Done,
        (false, true) => Outcome::UnderWay,
        (false, false) => Outcome::Impossible(format!(
            "there is no index: another one has the name {name}; drop or rename that one and pause and resume the sink, or \
             make ours by hand ({})",
            by_hand(layout)
        )),
    })
}

/// The indexes of the vector column.
struct Found {
    /// The number of the table.
    table: u32,
    /// One can be used: it is valid, of all rows, and of the operator class.
    is_there: bool,
    /// The server is making one, of whatever class.
    is_under_way: bool,
    /// Those like ours that were never finished.
    leftovers: Vec<String>,
}

async fn look(session: &Session, layout: &Layout, column: usize) -> Result<Found, PostgresError> {
    let sql = "select r.oid::int8, c.relname::text, i.indisvalid, o.opcname = $3 and i.indpred is null, \
               exists (select from pg_stat_progress_create_index p where p.index_relid = i.indexrelid) \
               from pg_class r left join (pg_index i join pg_class c on c.oid = i.indexrelid \
               join pg_am a on a.oid = c.relam and a.amname in ('hnsw', 'ivfflat') \
               join pg_opclass o on o.oid = i.indclass[0] \
               join pg_attribute t on t.attrelid = i.indrelid and t.attnum = i.indkey[0] and t.attname = $2) \
               on i.indrelid = r.oid where r.oid = to_regclass($1)";
    let (table, name, class) = (layout.table.to_string(), &layout.columns[column].name, layout.operator_class());
    let params: [Param<'_>; 3] = [(&table, Type::TEXT), (name, Type::TEXT), (&class, Type::TEXT)];
    let rows = session.query("look at the table's indexes", sql, &params).await?;
    let mut found = Found { table: 0, is_there: false, is_under_way: false, leftovers: Vec::new() };
    for row in &rows {
        found.table = value::<i64>(row, 0)? as u32;
        let Some(index) = value::<Option<String>>(row, 1)? else { continue };
        let (is_valid, fits, is_under_way): (bool, bool, bool) = (value(row, 2)?, value(row, 3)?, value(row, 4)?);
        found.is_there |= is_valid && fits;
        found.is_under_way |= !is_valid && is_under_way;
        if fits && !is_valid && !is_under_way {
            found.leftovers.push(index);
        }
    }
    Ok(found)
}

/// Drops an index that was never finished. Statements that come after it wait as long as it does, so it gives up soon
/// where somebody holds the table.
async fn drop_leftover(session: &Session, layout: &Layout, name: &str) -> Result<(), PostgresError> {
    let index = format!("{}.{}", quote_identifier(&layout.table.schema), quote_identifier(name));
    let (patience, limit) = (DROP_PATIENCE.as_millis(), session.limit().as_millis() * 11 / 12);
    let sql = format!(
        "begin; set local lock_timeout = {patience}; set local statement_timeout = {limit}; drop index if exists {index}; \
         commit"
    );
    let dropped = session.batch("drop an index that was never finished", &sql).await;
    session.rolled_back(dropped, |error| !is_usable_after(error)).await
}

/// The options of an index, in its name and as they are set. Lists as pgvector advises: rows / 1000 up to a million
/// rows, their root beyond.
fn options(kind: IndexKind, rows: i64) -> (String, String) {
    match kind {
        IndexKind::Ivfflat => {
            let lists = if rows > 1_000_000 { (rows as f64).sqrt() as i64 } else { rows / 1_000 }.max(10);
            (format!("ivfflat_nl{lists}"), format!("with (lists = {lists})"))
        }
        _ => ("hnsw_m16_efc64".to_owned(), "with (m = 16, ef_construction = 64)".to_owned()),
    }
}

async fn make(
    session: &Session,
    layout: &Layout,
    column: usize,
    method: &str,
    name: &str,
    options: &str,
) -> Result<(), ReplicateError> {
    let class = layout.extension.name(&layout.operator_class());
    let statement = |concurrently: &str| {
        format!(
            "create index {concurrently} if not exists {} on {} using {method} ({} {class}) {options}",
            quote_identifier(name),
            layout.table,
            layout.quoted(column)
        )
    };
    let doing = "make the index";
    match session.long_batch(doing, &statement("concurrently"), LIMIT).await {
        Ok(()) => return Ok(()),
        Err(error) if lacks_room(&error) => {
            // What is left of it would take room, and time of every write.
            return match drop_leftover(session, layout, name).await {
                Err(broken) if !is_usable_after(&broken) => Err(broken.into()),
                _ => Err(error.into()),
            };
        }
        // In a transaction, in a pooler's or on a partitioned table it cannot be made beside writes; or the pooler's
        // own limit on statements was too short for it, which a SET LOCAL can mend.
        Err(error) if !error.ends_session() && error.trouble() != Trouble::Rights => {
            tracing::info!(%error, "the index is made while writes to the table wait");
        }
        Err(error) => return Err(error.into()),
    }
    drop_leftover(session, layout, name).await?;
    let sql = format!("begin; set local statement_timeout = 0; {}; commit", statement(""));
    let made = session.long_batch(doing, &sql, LIMIT).await;
    Ok(session.rolled_back(made, |error| !is_usable_after(error)).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_grow_with_the_rows() {
        for (rows, lists) in [(0, 10), (100_000, 100), (4_000_000, 2_000)] {
            let wanted = (format!("ivfflat_nl{lists}"), format!("with (lists = {lists})"));
            assert_eq!(options(IndexKind::Ivfflat, rows), wanted, "{rows}");
        }
    }
}
