//! Reading a source: connects, looks at its columns, reads pages.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::statements::{self, Statement};
use super::{Begin, LeftOut, Page, Row, Shape, TableSource};
use crate::postgres::{ConnectSettings, Param, PostgresError, Session, Type, quote_literal};
use crate::source::{SourceError, json};
use crate::types::Metadata;

/// A connection to a source whose columns are known.
pub struct TableReader {
    pub(super) session: Session,
    pub(super) source: TableSource,
    pub(super) shape: Shape,
}

impl TableReader {
    /// Connects and looks at the columns.
    ///
    /// # Errors
    /// [`SourceError`].
    pub async fn connect(settings: &ConnectSettings, source: TableSource) -> Result<Self, SourceError> {
        let session = Session::connect(settings).await?;
        session.batch("begin to read", &statements::begin(session.limit())).await?;
        let names = session.texts("look at the columns", &statements::columns(&source.relation)).await?;
        let names: Vec<String> = names.into_iter().flatten().collect();
        let kinds = session.texts("look at the columns", &statements::kinds(&source.relation, &names)).await?;
        session.batch("end reading", "commit").await?;
        let kinds: Vec<String> =
            kinds
                .into_iter()
                .flatten()
                .next()
                .and_then(|text| serde_json::from_str(&text).ok())
                .ok_or_else(|| SourceError::Event { reason: "the types of the columns cannot be read".to_owned() })?;
        let shape = Shape::new(&source, names.into_iter().zip(kinds).collect())?;
        check_overlap(&session, &source, &shape).await?;
        Ok(Self { session, source, shape })
    }

    /// How many rows there are from `begin` on.
    ///
    /// # Errors
    /// [`SourceError::Postgres`].
    pub async fn count(&self, begin: &Begin) -> Result<u64, SourceError> {
        let statement = statements::count(&self.source, &self.shape, begin);
        let rows = self.read_texts("count the rows", &statement).await?;
        let count: Option<i64> = rows.first().and_then(|row| row.try_get(0).ok());
        Ok(count.and_then(|count| u64::try_from(count).ok()).unwrap_or(0))
    }

    /// The rows from `begin` on, as many as a page has.
    ///
    /// # Errors
    /// [`SourceError::Postgres`], [`SourceError::Row`], [`SourceError::Stuck`].
    pub async fn page(&self, begin: &Begin) -> Result<Page, SourceError> {
        let statement = statements::page(&self.source, &self.shape, begin);
        let rows = self.read_texts("read a page of rows", &statement).await?;
        let rows = rows.iter().map(row_of).collect::<Result<Vec<Row>, _>>()?;
        let next = next_of(&self.source, &self.shape, begin, &rows)?;
        Ok(Page { rows, next })
    }

    /// The rows from `begin` on that are no documents of their own. None where an index says so.
    ///
    /// # Errors
    /// [`SourceError::Postgres`].
    pub async fn left_out(&self, begin: &Begin) -> Result<LeftOut, SourceError> {
        if let Some(sql) = statements::tells_rows_apart(&self.source) {
            let answer = self.session.texts("look whether keys are unique", &sql).await?;
            if answer.first().and_then(Option::as_deref) == Some("true") {
                return Ok(LeftOut::default());
            }
        }
        let statement = statements::left_out(&self.source, &self.shape, begin);
        let rows = self.read_texts("count the rows without a key of their own", &statement).await?;
        let count = |index: usize| -> u64 {
            let count: Option<i64> = rows.first().and_then(|row| row.try_get(index).ok());
            count.and_then(|count| u64::try_from(count).ok()).unwrap_or(0)
        };
        Ok(LeftOut { without_key: count(0), repeated: count(1) })
    }

    async fn read_texts(
        &self,
        doing: &'static str,
        statement: &Statement,
    ) -> Result<Vec<crate::postgres::Row>, PostgresError> {
        let params: Vec<Param<'_>> = statement.params.iter().map(|text| (text as _, Type::TEXT)).collect();
        self.read(doing, &statement.sql, &params).await
    }

    /// Runs one statement in a transaction of its own that changes nothing.
    pub(super) async fn read(
        &self,
        doing: &'static str,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Vec<crate::postgres::Row>, PostgresError> {
        let session = &self.session;
        session.batch("begin to read", &statements::begin(session.limit())).await?;
        let rows = session.rolled_back(session.query(doing, sql, params).await, PostgresError::ends_session).await?;
        session.batch("end reading", "rollback").await?;
        Ok(rows)
    }
}

/// Refuses an overlap that only the next run would meet: one that cannot be taken from the cursor, or that is negative
/// and would pass rows over.
async fn check_overlap(session: &Session, source: &TableSource, shape: &Shape) -> Result<(), SourceError> {
    let Some(overlap) = &source.overlap else { return Ok(()) };
    let (what, example) = match statements::is_time(source, shape) {
        true => ("interval", "'10 minutes'"),
        false => ("numeric", "100"),
    };
    let sql = format!("select ({0}::{what} >= '0'::{what})::text", quote_literal(overlap));
    let reason = match session.texts("look at the overlap", &sql).await {
        Ok(answer) if answer.first().and_then(Option::as_deref) == Some("true") => return Ok(()),
        Ok(_) => "is negative, which would pass rows over".to_owned(),
        // A data exception: it is no such value.
        Err(error) if error.code().is_some_and(|code| code.starts_with("22")) => format!("is no {what}"),
        Err(error) => return Err(error.into()),
    };
    let (overlap, cursor) = (overlap.clone(), source.cursor.clone().unwrap_or_default());
    Err(SourceError::Overlap { overlap, reason, cursor, example })
}

/// Where the page after these rows begins.
fn next_of(source: &TableSource, shape: &Shape, begin: &Begin, rows: &[Row]) -> Result<Option<Begin>, SourceError> {
    let next = match (rows.last(), begin) {
        (Some(last), _) if rows.len() == source.page_rows => Some(match (begin, &last.cursor) {
            (Begin::Keys(_), _) => Begin::Keys(Some(last.key.clone())),
            (Begin::NullCursors(_), _) | (_, None) => Begin::NullCursors(Some(last.key.clone())),
            (_, Some(cursor)) => Begin::After { cursor: cursor.clone(), key: last.key.clone() },
        }),
        // Those without a cursor come first.
        (_, Begin::NullCursors(_)) => Some(Begin::From(None)),
        _ => None,
    };
    if next.as_ref() != Some(begin) {
        return Ok(next);
    }
    let kind = |name: &String| format!("{name} {}", shape.kind(name).unwrap_or("of no type"));
    let kinds = source.key.iter().chain(&source.cursor).map(kind).collect::<Vec<_>>().join(", ");
    Err(SourceError::Stuck { place: source.relation.to_string(), key: source.key.join(","), kinds })
}

/// A row as [`statements::page`] selects it.
fn row_of(row: &crate::postgres::Row) -> Result<Row, SourceError> {
    let wrong = |key: &str, reason: String| SourceError::Row { key: key.to_owned(), reason };
    let text = |index: usize| row.try_get::<_, Option<String>>(index).ok().flatten();
    let key_text = text(0).unwrap_or_default();
    let key: Vec<String> = serde_json::from_str(&key_text)
        .map_err(|error| wrong(&key_text, format!("its key cannot be read: {error}")))?;
    let columns = text(3).unwrap_or_default();
    let fields = fields_of(&columns);
    let is_deleted = row.try_get(2).unwrap_or(false);
    let digest = Sha256::new().chain_update([u8::from(is_deleted)]).chain_update(&columns).finalize();
    let mut hash = [0; 8];
    hash.copy_from_slice(&digest[..8]);
    Ok(Row { key, cursor: text(1), is_deleted, fields, hash: u64::from_le_bytes(hash) })
}

/// The columns as fields, or why they cannot be.
fn fields_of(columns: &str) -> Result<Metadata, String> {
    serde_json::from_str(columns).map(json::object).map_err(|error| {
        // Numbers that are too large and values that are too deep are JSON all the same.
        let each: BTreeMap<String, &RawValue> = serde_json::from_str(columns).unwrap_or_default();
        let is_wrong = |value: &RawValue| serde_json::from_str::<serde_json::Value>(value.get()).is_err();
        match each.iter().find(|(_, value)| is_wrong(value)) {
            Some((column, _)) => format!(
                "its column {column:?} cannot be read: it holds a number that is too large or half a character, or is \
                 too deep; cast it to text in a --query, or leave it out with --exclude-columns"
            ),
            None => format!("its columns cannot be read: {error}; leave some out with --exclude-columns"),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::QualifiedName;
    use crate::source::postgres::{Deletions, Relation};

    #[test]
    fn a_row_that_cannot_be_read_is_named_by_what_to_do() {
        assert!(fields_of(r#"{"a": 1}"#).is_ok());
        let deep = format!(r#"{{"a": {}1{}}}"#, "[".repeat(200), "]".repeat(200));
        for columns in [format!(r#"{{"a": 1{}}}"#, "0".repeat(400)), deep] {
            let reason = fields_of(&columns).unwrap_err();
            assert!(reason.contains("--exclude-columns") && reason.contains("column \"a\""), "{reason}");
        }
    }

    #[test]
    fn pages_that_do_not_move_on_are_an_error() {
        let source = TableSource {
            relation: Relation::Table(QualifiedName::new("public", "t")),
            key: vec!["id".into()],
            cursor: None,
            overlap: None,
            deletions: Deletions::Ignored,
            columns: None,
            exclude: vec![],
            page_rows: 1,
        };
        let shape = Shape::new(&source, vec![("id".to_owned(), "code".to_owned())]).unwrap();
        let row = |key: &str| Row {
            key: vec![key.into()],
            cursor: None,
            is_deleted: false,
            fields: Ok(Metadata::new()),
            hash: 0,
        };
        let after = |key: &str| Begin::Keys(Some(vec![key.into()]));
        assert_eq!(next_of(&source, &shape, &after("a"), &[row("b")]).unwrap(), Some(after("b")));
        assert_eq!(next_of(&source, &shape, &after("a"), &[]).unwrap(), None);
        let error = next_of(&source, &shape, &after("a"), &[row("a")]).unwrap_err().to_string();
        assert!(error.contains("id code") && error.contains("cast the key to text"), "{error}");
    }
}
