//! The index on the vector column, made once the rows are there.

use std::time::Duration;

use crate::postgres::{Session, Trouble, Type, quote_identifier, value};

use super::ReplicateError;
use super::layout::{Layout, Mode};
use super::settings::{IndexKind, VectorType};

/// So long an index may take to be made.
const LIMIT: Duration = Duration::from_secs(6 * 3_600);
/// Most dimensions that an index takes (pgvector 0.8).
const MAX_VECTOR_DIM: u32 = 2_000;
const MAX_HALFVEC_DIM: u32 = 4_000;

/// Makes the index where the vector column has no valid one of the kind. What an interrupted attempt left is dropped.
///
/// Returns why there is none, where there can be none or the role may make none.
///
/// # Errors
/// [`ReplicateError::Postgres`].
pub(super) async fn ensure(session: &Session, layout: &Layout) -> Result<Option<String>, ReplicateError> {
    match try_ensure(session, layout).await {
        // Rows are written without it all the same.
        Err(ReplicateError::Postgres(error)) if error.trouble() == Trouble::Rights && !error.ends_session() => {
            Ok(Some(format!(
                "there is no index: {}; let the table's owner make it ({}), or add the sink with the index none",
                error.without_values(),
                by_hand(layout)
            )))
        }
        other => other,
    }
}

/// The statement that makes the index.
fn by_hand(layout: &Layout) -> String {
    let column = layout.vector().map(|vector| layout.quoted(vector)).unwrap_or_default();
    let method = if layout.index == IndexKind::Ivfflat { "ivfflat" } else { "hnsw" };
    let class = layout.extension.name(&layout.operator_class());
    format!("create index concurrently on {} using {method} ({column} {class})", layout.table)
}

async fn try_ensure(session: &Session, layout: &Layout) -> Result<Option<String>, ReplicateError> {
    let Some(column) = layout.vector().filter(|_| layout.mode == Mode::Rows) else { return Ok(None) };
    let method = match layout.index {
        IndexKind::None => return Ok(None),
        IndexKind::Hnsw => "hnsw",
        IndexKind::Ivfflat => "ivfflat",
    };
    let max_dim = match layout.vector_type {
        VectorType::Vector => MAX_VECTOR_DIM,
        VectorType::Halfvec => MAX_HALFVEC_DIM,
    };
    if layout.dim > max_dim {
        let reason = format!("{} dimensions are more than the {max_dim} that an index of pgvector takes", layout.dim);
        return Ok(Some(reason));
    }
    let sql = "select c.relname::text, i.indisvalid, a.amname::text from pg_index i join pg_class c on c.oid = i.indexrelid \
               join pg_am a on a.oid = c.relam \
               join pg_attribute t on t.attrelid = i.indrelid and t.attnum = i.indkey[0] \
               where i.indrelid = to_regclass($1) and t.attname = $2 and a.amname in ('hnsw', 'ivfflat')";
    let name = &layout.columns[column].name;
    let rows = session
        .query("look at the table's indexes", sql, &[(&layout.table.to_string(), Type::TEXT), (name, Type::TEXT)])
        .await?;
    let mut is_there = false;
    for row in &rows {
        if value(row, 1)? {
            is_there = true;
            continue;
        }
        let leftover = format!("{}.{}", quote_identifier(&layout.table.schema), quote_identifier(value(row, 0)?));
        session.batch("drop an index that was never finished", &format!("drop index if exists {leftover}")).await?;
    }
    if is_there {
        return Ok(None);
    }
    let lists = match layout.index {
        IndexKind::Ivfflat => {
            let sql = format!("select count(*)::int8 from {}", layout.table);
            let rows = session.query("count the rows", &sql, &[]).await?;
            rows.first().map_or(Ok(0), |row| value(row, 0))?
        }
        _ => 0,
    };
    make(session, layout, column, method, &options(layout.index, lists)).await?;
    Ok(None)
}

/// The options of an index. Lists as pgvector advises: rows / 1000 up to a million rows, their root beyond.
fn options(kind: IndexKind, rows: i64) -> String {
    match kind {
        IndexKind::Ivfflat => {
            let lists = if rows > 1_000_000 { (rows as f64).sqrt() as i64 } else { rows / 1_000 };
            format!("with (lists = {})", lists.max(10))
        }
        _ => "with (m = 16, ef_construction = 64)".to_owned(),
    }
}

async fn make(
    session: &Session,
    layout: &Layout,
    column: usize,
    method: &str,
    options: &str,
) -> Result<(), ReplicateError> {
    let class = layout.operator_class();
    let suffix = if method == "hnsw" { "hnsw_m16_efc64" } else { "ivfflat" };
    let tag = layout.table.plain().bytes().fold(0u32, |tag, byte| tag.wrapping_mul(31).wrapping_add(u32::from(byte)));
    // Names as the vecs client makes them, so that it finds the index too.
    let name = format!("ix_{class}_{suffix}_{:07x}", tag & 0x0fff_ffff);
    let statement = |concurrently: &str| {
        format!(
            "create index {concurrently} if not exists {} on {} using {method} ({} {}) {options}",
            quote_identifier(&name),
            layout.table,
            layout.quoted(column),
            layout.extension.name(&class)
        )
    };
    let doing = "make the index";
    match session.long_batch(doing, &statement("concurrently"), LIMIT).await {
        Ok(()) => return Ok(()),
        // In a transaction, in a pooler's or on a partitioned table it cannot be made beside writes; or the pooler's own
        // limit on statements was too short for it, which a SET LOCAL can mend.
        Err(error) if !error.ends_session() && error.trouble() != Trouble::Rights => {
            tracing::info!(%error, "the index is made while writes to the table wait");
        }
        Err(error) => return Err(error.into()),
    }
    let dropped = format!("{}.{}", quote_identifier(&layout.table.schema), quote_identifier(&name));
    let sql =
        format!("begin; set local statement_timeout = 0; drop index if exists {dropped}; {}; commit", statement(""));
    if let Err(error) = session.long_batch(doing, &sql, LIMIT).await {
        if !error.ends_session() {
            session.batch("roll back", "rollback").await?;
        }
        return Err(error.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_grow_with_the_rows() {
        assert_eq!(options(IndexKind::Ivfflat, 0), "with (lists = 10)");
        assert_eq!(options(IndexKind::Ivfflat, 100_000), "with (lists = 100)");
        assert_eq!(options(IndexKind::Ivfflat, 4_000_000), "with (lists = 2000)");
    }
}
