//! Reading a source: connects, looks at its columns, reads pages.

use sha2::{Digest, Sha256};

use super::statements::{self, BEGIN, Statement};
use super::{Begin, Page, Row, Shape, TableSource};
use crate::postgres::{ConnectSettings, Param, PostgresError, Session, Type};
use crate::source::{SourceError, json};

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
        session.batch("begin to read", BEGIN).await?;
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
        Ok(Self { session, source, shape })
    }

    /// How many rows there are from `begin` on.
    ///
    /// # Errors
    /// [`SourceError::Postgres`].
    pub async fn count(&self, begin: &Begin) -> Result<u64, SourceError> {
        let statement = statements::count(&self.source, &self.shape, begin);
        let rows = self.read("count the rows", &statement).await?;
        let count: Option<i64> = rows.first().and_then(|row| row.try_get(0).ok());
        Ok(count.and_then(|count| u64::try_from(count).ok()).unwrap_or(0))
    }

    /// The rows from `begin` on, as many as a page has.
    ///
    /// # Errors
    /// [`SourceError::Postgres`], [`SourceError::Row`].
    pub async fn page(&self, begin: &Begin) -> Result<Page, SourceError> {
        let statement = statements::page(&self.source, &self.shape, begin);
        let rows = self.read("read a page of rows", &statement).await?;
        let rows = rows.iter().map(row_of).collect::<Result<Vec<Row>, _>>()?;
        let next = match (rows.last(), begin) {
            (Some(last), _) if rows.len() == self.source.page_rows => Some(match (begin, &last.cursor) {
                (Begin::Keys(_), _) => Begin::Keys(Some(last.key.clone())),
                (Begin::NullCursors(_), _) | (_, None) => Begin::NullCursors(Some(last.key.clone())),
                (_, Some(cursor)) => Begin::After { cursor: cursor.clone(), key: last.key.clone() },
            }),
            // Those without a cursor come first.
            (_, Begin::NullCursors(_)) => Some(Begin::From(None)),
            _ => None,
        };
        Ok(Page { rows, next })
    }

    async fn read(
        &self,
        doing: &'static str,
        statement: &Statement,
    ) -> Result<Vec<crate::postgres::Row>, PostgresError> {
        self.session.batch("begin to read", BEGIN).await?;
        let params: Vec<Param<'_>> = statement.params.iter().map(|text| (text as _, Type::TEXT)).collect();
        let rows = self.session.query(doing, &statement.sql, &params).await;
        self.session.batch("end reading", "rollback").await?;
        rows
    }
}

/// A row as [`statements::page`] selects it.
fn row_of(row: &crate::postgres::Row) -> Result<Row, SourceError> {
    let wrong = |key: &str, reason: String| SourceError::Row { key: key.to_owned(), reason };
    let text = |index: usize| row.try_get::<_, Option<String>>(index).ok().flatten();
    let key_text = text(0).unwrap_or_default();
    let key: Vec<String> = serde_json::from_str(&key_text)
        .map_err(|error| wrong(&key_text, format!("its key cannot be read: {error}")))?;
    let columns = text(3).unwrap_or_default();
    let fields: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(&columns).map_err(|error| wrong(&key_text, format!("it cannot be read: {error}")))?;
    let is_deleted = row.try_get(2).unwrap_or(false);
    let digest = Sha256::new().chain_update([u8::from(is_deleted)]).chain_update(&columns).finalize();
    let mut hash = [0; 8];
    hash.copy_from_slice(&digest[..8]);
    Ok(Row { key, cursor: text(1), is_deleted, fields: json::object(fields), hash: u64::from_le_bytes(hash) })
}
