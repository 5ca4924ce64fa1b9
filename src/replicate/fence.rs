//! The sink's own state in the database: how far it is, and who may write.
//!
//! One row a sink and collection, locked first in every transaction that writes: what was applied and how far that is
//! change together. The transaction fails in the database itself unless the row is as the writer left it: so neither a
//! process whose epoch has passed nor a connection whose bytes arrive twice or late changes anything.

use crate::postgres::{Param, PostgresError, QualifiedName, Row, Session, Trouble, Type, quote_identifier};
use crate::types::{DocumentId, Seq};

use super::row::Poison;
use super::shape::Shape;
use super::{ReplicateError, state};

/// Whose changes these are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) store_id: String,
    pub(super) timeline: u32,
}

/// How far the copy is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    /// Changes up to here are applied, once nothing is left to scan.
    pub(super) seq: Seq,
    /// Tells the history that has the change `seq`, by `Changes::digest`; `None` where that is not known.
    pub(super) digest: Option<u32>,
    /// A scan of the whole collection that is under way.
    pub(super) scan: Option<Scan>,
}

/// A scan of the whole collection by ascending id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scan {
    /// Documents up to this id are written.
    pub(super) after: Option<DocumentId>,
    /// Why it is made.
    pub(super) why: ScanReason,
}

/// Why a whole collection is scanned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScanReason {
    /// The sink is new.
    First,
    /// The log no longer has what comes after the cursor: rows may be there that should have been deleted.
    Behind,
    /// The store was restored and went on from an older state, or another history of it wrote: rows may be there from a
    /// future that was taken back. Also where the rows are those of another collection, or of other columns.
    Fork,
    /// The table was there before the sink, with rows.
    Adopted,
}

impl ScanReason {
    const ALL: [(Self, &'static str); 4] =
        [(Self::First, "first"), (Self::Behind, "behind"), (Self::Fork, "fork"), (Self::Adopted, "adopted")];

    pub(super) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(reason, _)| *reason == self).map_or("first", |(_, name)| name)
    }

    /// Whether rows are overwritten that a younger change of whatever history wrote.
    pub(super) fn overwrites(self) -> bool {
        matches!(self, Self::Fork | Self::Adopted)
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, own)| *own == name).map(|(reason, _)| *reason)
    }
}

/// What taking the sink over found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claimed {
    pub(super) cursor: Cursor,
    /// Another timeline's state stood there.
    pub(super) forked: bool,
    /// The state was that of rows elsewhere.
    pub(super) was_elsewhere: bool,
    /// The state was that of another collection, or of other columns.
    pub(super) was_otherwise: bool,
}

/// The rows that a sink writes, so that two do not share them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) table: String,
    /// The condition that its rows meet; `true` where all of the table are its own.
    pub(super) scope: String,
    /// What is written there.
    pub(super) shape: Shape,
}

/// The row of one sink and collection, held by one epoch.
#[derive(Clone, Debug)]
pub(super) struct Fence {
    sinks: QualifiedName,
    dead: QualifiedName,
    name: String,
    origin: Origin,
    epoch: i64,
    /// The text of the shape; `None` where the state has no column for it.
    shape: Option<String>,
    /// When the row was last written, in microseconds: no two states of it have the same.
    stamp: i64,
}

/// The tables of the state, in its schema.
pub(super) const TABLES: [&str; 2] = ["sinks", "dead_letters"];
/// When a row was written, in microseconds.
const STAMP: &str = "(extract(epoch from updated_at) * 1000000)::int8";
/// The moment of this write, later than that of any write before.
pub(super) const NEXT: &str = "updated_at = greatest(clock_timestamp(), s.updated_at + interval '1 microsecond')";
/// What the database says where a row is not as its writer left it: division by zero.
const NOT_OURS: &str = "22012";
/// What it says where a role may not, or does not own a table.
const NO_RIGHT: &str = "42501";
/// Attempts to take the row, which may change between looking at it and taking it.
const CLAIMS: usize = 5;

impl Fence {
    /// Makes the tables of the state where they are missing; says whether they were.
    ///
    /// # Errors
    /// [`PostgresError`], where the role may not.
    pub(super) async fn prepare(session: &Session, schema: &str) -> Result<bool, PostgresError> {
        let (sinks, dead) = tables(schema);
        let sql = "select to_regclass($2) is not null and (select count(*) from pg_attribute \
                   where attrelid = to_regclass($1) and not attisdropped \
                   and attname in ('cursor_digest', 'target_table', 'target_scope')) = 3, \
                   exists (select from pg_attribute where attrelid = to_regclass($1) and not attisdropped \
                   and attname = 'target_shape')";
        let params: [(&(dyn crate::postgres::ToSql + Sync), Type); 2] =
            [(&sinks.to_string(), Type::TEXT), (&dead.to_string(), Type::TEXT)];
        let there = session.query("look for the sink's state", sql, &params).await?;
        if let Some(row) = there.first().filter(|row| row.get(0)) {
            if !row.get::<_, bool>(1) {
                Self::add_shape(session, &sinks).await?;
            }
            return Ok(false);
        }
        let schema_there = session
            .query(
                "look for the schema",
                "select to_regnamespace($1) is not null",
                &[(&quote_identifier(schema), Type::TEXT)],
            )
            .await?;
        let create_schema = match schema_there.first().is_some_and(|row| row.get(0)) {
            true => String::new(),
            false => format!("create schema if not exists {};", quote_identifier(schema)),
        };
        let sql = format!(
            "begin; select pg_advisory_xact_lock(7117, 1); {create_schema}
             create table if not exists {sinks} (
               name text primary key,
               store_id text not null,
               timeline int8 not null,
               epoch int8 not null,
               cursor_seq int8 not null,
               cursor_digest int8,
               scan_reason text,
               scan_after text,
               target_table text,
               target_scope text,
               target_shape text,
               updated_at timestamptz not null default now());
             alter table {sinks} add column if not exists cursor_digest int8,
               add column if not exists target_table text, add column if not exists target_scope text,
               add column if not exists target_shape text;
             create table if not exists {dead} (
               sink text not null,
               document_id text not null,
               seq int8 not null,
               code text not null,
               reason text not null,
               at timestamptz not null default now(),
               primary key (sink, document_id));
             commit"
        );
        session.batch("make the tables of the sink's state", &sql).await?;
        Ok(true)
    }

    /// Adds the column of the shape to a state of an earlier version. Without it sinks work as they did there: a role
    /// that does not own the table goes on.
    async fn add_shape(session: &Session, sinks: &QualifiedName) -> Result<(), PostgresError> {
        let sql = format!("alter table {sinks} add column if not exists target_shape text");
        match session.batch("add a column to the sink's state", &sql).await {
            Err(error) if error.code() == Some(NO_RIGHT) => {
                tracing::debug!(%error, table = %sinks, "the sink's state stays as an earlier version made it");
                Ok(())
            }
            done => done,
        }
    }

    /// The schema of the state.
    pub(super) fn schema(&self) -> &str {
        &self.sinks.schema
    }

    /// Takes the sink over: whoever held it before can write no more. With `take_over` from another store too, and the
    /// table from another sink.
    ///
    /// # Errors
    /// [`ReplicateError::Foreign`] where another store's state stands there, [`ReplicateError::TableTaken`] where
    /// another sink writes the same rows; neither with `take_over`.
    pub(super) async fn claim(
        session: &Session,
        schema: &str,
        name: &str,
        origin: &Origin,
        target: &Target,
        take_over: bool,
    ) -> Result<(Self, Claimed), ReplicateError> {
        // One at a time, so that of two sinks that come to a table one sees the other.
        let limit = session.limit().as_millis();
        let begin = format!(
            "begin; set local lock_timeout = {}; set local idle_in_transaction_session_timeout = {limit}; \
             select pg_advisory_xact_lock(7117, 3)",
            limit / 2
        );
        session.batch("wait to take the sink over", &begin).await?;
        let done = Self::claim_within(session, schema, name, origin, target, take_over).await;
        match &done {
            Ok(_) => session.batch("commit", "commit").await?,
            Err(ReplicateError::Postgres(error)) if error.ends_session() => {}
            Err(_) => session.batch("roll back", "rollback").await?,
        }
        done
    }

    async fn claim_within(
        session: &Session,
        schema: &str,
        name: &str,
        origin: &Origin,
        target: &Target,
        take_over: bool,
    ) -> Result<(Self, Claimed), ReplicateError> {
        let (sinks, dead) = tables(schema);
        let first = ScanReason::First.name();
        let make = format!(
            "insert into {sinks} (name, store_id, timeline, epoch, cursor_seq, scan_reason)
             values ($1, $2, $3, 0, 0, '{first}') on conflict (name) do nothing"
        );
        // As JSON, since the state may be without the column of the shape. In lower case, since earlier versions kept a
        // tenant's UUID as it was spelled; the shape tells other scopes apart.
        let look = format!(
            "select store_id, epoch, coalesce((target_table, lower(target_scope)) <> ($2, lower($3)), false), \
             to_jsonb(s) ? 'target_shape', to_jsonb(s) ->> 'target_shape' from {sinks} as s where name = $1"
        );
        // By the epoch that was seen, so that the same bytes once more take nothing.
        let take = |shape: &str| {
            format!(
                "update {sinks} as s set epoch = s.epoch + 1, target_table = $3, target_scope = $4, {shape}{NEXT}
                 where name = $1 and epoch = $2
                 returning epoch, timeline, store_id, cursor_seq, scan_reason, scan_after, {STAMP}, cursor_digest"
            )
        };
        let shape = target.shape.to_text();
        let timeline = i64::from(origin.timeline);
        let mut seen = 0;
        for _ in 0..CLAIMS {
            let params: [(&(dyn crate::postgres::ToSql + Sync), Type); 3] =
                [(&name, Type::TEXT), (&origin.store_id, Type::TEXT), (&timeline, Type::INT8)];
            session.execute("make the sink's state", &make, &params).await?;
            let params: [(&(dyn crate::postgres::ToSql + Sync), Type); 3] =
                [(&name, Type::TEXT), (&target.table, Type::TEXT), (&target.scope, Type::TEXT)];
            let rows = session.query("look whose the sink is", &look, &params).await?;
            let Some(row) = rows.first() else { continue };
            let found: String = row.get(0);
            if found != origin.store_id && !take_over {
                return Err(ReplicateError::Foreign { found, ours: origin.store_id.clone() });
            }
            let (has_shape, known): (bool, Option<String>) = (row.get(3), row.get(4));
            let before = known.as_deref().and_then(Shape::from_text);
            let differs = |part: fn(&Shape) -> u64| before.as_ref().is_some_and(|b| part(b) != part(&target.shape));
            let was_elsewhere = row.get(2) || differs(|shape| shape.place);
            let was_otherwise = differs(|shape| shape.columns) || differs(|shape| shape.collection.into());
            seen = row.get(1);
            Self::free(session, &sinks, name, origin, target, take_over).await?;
            let params: [Param<'_>; 5] = [
                (&name, Type::TEXT),
                (&seen, Type::INT8),
                (&target.table, Type::TEXT),
                (&target.scope, Type::TEXT),
                (&shape, Type::TEXT),
            ];
            // A state that is believed without a shape gets ours; any other keeps its own until a scan is written down.
            let is_set = has_shape && before.is_none() && !was_elsewhere;
            let (set, params) = if is_set { ("target_shape = $5, ", &params[..]) } else { ("", &params[..4]) };
            let rows = session.query("take the sink over", &take(set), params).await?;
            let Some(row) = rows.first() else { continue };
            let forked = row.get::<_, i64>(1) != timeline || row.get::<_, String>(2) != origin.store_id;
            let scan = row.get::<_, Option<String>>(4).and_then(|reason| ScanReason::from_name(&reason)).map(|why| {
                Scan { after: row.get::<_, Option<String>>(5).and_then(|id| DocumentId::new(&id).ok()), why }
            });
            let digest = row.get::<_, Option<i64>>(7).map(|digest| digest as u32);
            let cursor = Cursor { seq: Seq(row.get::<_, i64>(3) as u64), digest, scan };
            let (epoch, stamp) = (row.get(0), row.get(6));
            let shape = has_shape.then_some(shape);
            let fence = Self { sinks, dead, name: name.to_owned(), origin: origin.clone(), epoch, shape, stamp };
            return Ok((fence, Claimed { cursor, forked, was_elsewhere, was_otherwise }));
        }
        Err(ReplicateError::Fenced { found: seen, ours: 0 })
    }

    /// Sees to it that no other sink writes the target's rows.
    async fn free(
        session: &Session,
        sinks: &QualifiedName,
        name: &str,
        origin: &Origin,
        target: &Target,
        take_over: bool,
    ) -> Result<(), ReplicateError> {
        if !take_over {
            return state::refuse_others(session, &sinks.schema, name, origin, &target.table, &target.scope).await;
        }
        // Whoever held them finds itself fenced.
        let params: [Param<'_>; 3] = [(&name, Type::TEXT), (&target.table, Type::TEXT), (&target.scope, Type::TEXT)];
        let sql = format!("delete from {sinks} where {}", state::SHARES);
        session.execute("take the table over", &sql, &params).await?;
        Ok(())
    }

    /// Moves the cursor within a transaction, first of all that happens in it. The state takes our timeline and shape
    /// on. Returns the stamp to keep once the transaction is committed. A transaction that may not write is over when
    /// this returns, and whatever follows in it fails.
    ///
    /// # Errors
    /// [`ReplicateError::Fenced`] where another process took the sink over, [`ReplicateError::Overtaken`] where another
    /// connection wrote as us.
    pub(super) async fn advance(&self, session: &Session, cursor: &Cursor) -> Result<i64, ReplicateError> {
        let sql = format!(
            "with moved as (update {} as s set cursor_seq = $4, scan_reason = $5, scan_after = $6, store_id = $7, \
             timeline = $8, cursor_digest = $9, {shape}{NEXT} where name = $1 and epoch = $2 and {STAMP} = $3 \
             returning {STAMP} as stamp) select max(stamp), 1 / count(*) from moved",
            self.sinks,
            shape = if self.shape.is_some() { "target_shape = $10, " } else { "" },
        );
        let seq = cursor.seq.0 as i64;
        let why = cursor.scan.as_ref().map(|scan| scan.why.name());
        let after = cursor.scan.as_ref().and_then(|scan| scan.after.as_ref()).map(|id| id.as_str());
        let timeline = i64::from(self.origin.timeline);
        let digest = cursor.digest.map(i64::from);
        let params: [Param<'_>; 10] = [
            (&self.name, Type::TEXT),
            (&self.epoch, Type::INT8),
            (&self.stamp, Type::INT8),
            (&seq, Type::INT8),
            (&why, Type::TEXT),
            (&after, Type::TEXT),
            (&self.origin.store_id, Type::TEXT),
            (&timeline, Type::INT8),
            (&digest, Type::INT8),
            (&self.shape, Type::TEXT),
        ];
        let params = if self.shape.is_some() { &params[..] } else { &params[..9] };
        match session.query("move the cursor", &sql, params).await {
            Ok(rows) => Ok(rows.first().map_or(0, |row| row.get(0))),
            Err(error) if error.code() == Some(NOT_OURS) => {
                session.batch("roll back", "rollback").await?;
                Err(self.fenced(session).await?)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// A transaction that moved the cursor is committed.
    pub(super) fn advanced(&mut self, stamp: i64) {
        self.stamp = stamp;
    }

    /// Reads the cursor again after a COMMIT, which may have been answered with success and not have happened, and from
    /// time to time while there is nothing to write.
    ///
    /// # Errors
    /// [`ReplicateError::Fenced`], [`ReplicateError::WentBack`], [`ReplicateError::CommitLost`].
    pub(super) async fn confirm(&self, session: &Session, cursor: &Cursor) -> Result<(), ReplicateError> {
        let sql = format!("select epoch, cursor_seq, scan_after, {STAMP} from {} where name = $1", self.sinks);
        let rows = session.query("read the cursor again", &sql, &[(&self.name, Type::TEXT)]).await?;
        let expected = cursor.seq.0 as i64;
        let after = cursor.scan.as_ref().and_then(|scan| scan.after.as_ref()).map(|id| id.as_str());
        match rows.first() {
            Some(row) if row.get::<_, i64>(0) != self.epoch => Err(self.of_another_epoch(row.get(0), row.get(3))),
            Some(row) if row.get::<_, i64>(1) == expected && row.get::<_, Option<&str>>(2) == after => Ok(()),
            Some(row) => Err(ReplicateError::CommitLost { expected, found: row.get(1) }),
            None => Err(self.of_another_epoch(0, 0)),
        }
    }

    async fn fenced(&self, session: &Session) -> Result<ReplicateError, ReplicateError> {
        let sql = format!("select epoch, {STAMP} from {} where name = $1", self.sinks);
        let rows = session.query("read the epoch", &sql, &[(&self.name, Type::TEXT)]).await?;
        let (found, stamp) = rows.first().map_or((0, 0), |row| (row.get(0), row.get(1)));
        Ok(if found == self.epoch { ReplicateError::Overtaken } else { self.of_another_epoch(found, stamp) })
    }

    /// A row of an older epoch, last written before ours was, is a restored one. Any other is another process's, and so
    /// is none, since whoever takes the table over removes it.
    fn of_another_epoch(&self, found: i64, stamp: i64) -> ReplicateError {
        match found > 0 && found < self.epoch && stamp < self.stamp {
            true => ReplicateError::WentBack { found, ours: self.epoch },
            false => ReplicateError::Fenced { found, ours: self.epoch },
        }
    }

    /// Writes down documents that no row can hold, within a transaction.
    pub(super) async fn bury(&self, session: &Session, poisons: &[Poison]) -> Result<(), PostgresError> {
        if poisons.is_empty() {
            return Ok(());
        }
        let sql = format!(
            "insert into {} as d (sink, document_id, seq, code, reason)
             select $1, * from unnest($2::text[], $3::int8[], $4::text[], $5::text[])
             on conflict (sink, document_id) do update
             set seq = excluded.seq, code = excluded.code, reason = excluded.reason, at = now()",
            self.dead
        );
        let ids: Vec<&str> = poisons.iter().map(|poison| poison.id.as_str()).collect();
        let seqs: Vec<i64> = poisons.iter().map(|poison| poison.seq.0 as i64).collect();
        let codes: Vec<&str> = poisons.iter().map(|poison| poison.code.as_str()).collect();
        let reasons: Vec<String> = poisons.iter().map(|poison| poison.reason.replace('\0', "")).collect();
        let params: [(&(dyn crate::postgres::ToSql + Sync), Type); 5] = [
            (&self.name, Type::TEXT),
            (&ids, Type::TEXT_ARRAY),
            (&seqs, Type::INT8_ARRAY),
            (&codes, Type::TEXT_ARRAY),
            (&reasons, Type::TEXT_ARRAY),
        ];
        session.execute("write down what cannot be stored", &sql, &params).await.map(drop)
    }

    /// Forgets dead letters of documents that were written or deleted since.
    pub(super) async fn exhume(&self, session: &Session, ids: &[&str]) -> Result<(), PostgresError> {
        let sql = format!("delete from {} where sink = $1 and document_id = any($2)", self.dead);
        let params: [(&(dyn crate::postgres::ToSql + Sync), Type); 2] =
            [(&self.name, Type::TEXT), (&ids, Type::TEXT_ARRAY)];
        session.execute("forget dead letters", &sql, &params).await.map(drop)
    }

    /// The ids of the documents that could not be stored. Outside of a transaction: the table is made again where
    /// somebody dropped it.
    pub(super) async fn buried(&self, session: &Session) -> Result<Vec<String>, PostgresError> {
        let rows = self.ask_dead(session, "select document_id from {dead} where sink = $1 order by 1").await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// How many there are, without reading them. Outside of a transaction, as [`Fence::buried`].
    pub(super) async fn count_buried(&self, session: &Session) -> Result<u64, PostgresError> {
        let rows = self.ask_dead(session, "select count(*) from {dead} where sink = $1").await?;
        Ok(rows.first().map_or(0, |row| row.get::<_, i64>(0) as u64))
    }

    async fn ask_dead(&self, session: &Session, sql: &str) -> Result<Vec<Row>, PostgresError> {
        let sql = sql.replace("{dead}", &self.dead.to_string());
        let rows = session.query("read the dead letters", &sql, &[(&self.name, Type::TEXT)]).await;
        let is_schema = |error: &PostgresError| error.trouble() == Trouble::Schema;
        if rows.as_ref().is_err_and(is_schema) && Self::prepare(session, self.schema()).await? {
            tracing::warn!(sink = self.name, table = %self.dead, "the table of dead letters was dropped; it is made again");
            return session.query("read the dead letters", &sql, &[(&self.name, Type::TEXT)]).await;
        }
        rows
    }
}

/// The tables of the state: the sinks, and the dead letters.
pub(super) fn tables(schema: &str) -> (QualifiedName, QualifiedName) {
    let [sinks, dead] = TABLES;
    (QualifiedName::new(schema, sinks), QualifiedName::new(schema, dead))
}
