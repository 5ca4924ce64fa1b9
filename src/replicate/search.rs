//! The search for what Postgres refuses: what is refused is halved until the rows and deletes at fault stand alone.

use super::ReplicateError;
use super::apply::{Batch, Delete, Link};
use super::drift;
use super::row::{Poison, Row};
use crate::types::DocumentId;

/// What a row is refused for that another row holds, or lacks: once others are written or gone it may fit (foreign
/// keys, unique indexes, exclusions).
const OF_OTHER_ROWS: [&str; 3] = ["23503", "23505", "23P01"];

/// From this many rows on, a batch that is refused whole and for one reason is the fault of the table, not of the rows.
const MANY: usize = 16;

/// What a batch came to.
#[derive(Debug, Default)]
pub(super) struct Searched {
    pub(super) written: u64,
    pub(super) deleted: u64,
    /// The documents that were refused, or whose delete was.
    pub(super) found: Vec<Poison>,
}

/// Rows to be written, or to be deleted, in one statement.
#[derive(Clone, Copy)]
enum Part<'s, 'b> {
    Rows(&'s [&'b Row]),
    Deletes(&'s [&'b Delete]),
}

impl Part<'_, '_> {
    fn len(self) -> usize {
        match self {
            Self::Rows(rows) => rows.len(),
            Self::Deletes(deletes) => deletes.len(),
        }
    }

    fn halves(self) -> [Self; 2] {
        let middle = self.len() / 2;
        match self {
            Self::Rows(rows) => {
                let (left, right) = rows.split_at(middle);
                [Self::Rows(left), Self::Rows(right)]
            }
            Self::Deletes(deletes) => {
                let (left, right) = deletes.split_at(middle);
                [Self::Deletes(left), Self::Deletes(right)]
            }
        }
    }
}

impl Link<'_> {
    /// Deletes and writes what Postgres lets be deleted and written, within a transaction. What is refused is found,
    /// and the older row of a document that is refused is deleted.
    pub(super) async fn search_all(&self, batch: &Batch, older: &[&Delete]) -> Result<Searched, ReplicateError> {
        drift::hold_table(self.session, self.layout).await?;
        let deletes: Vec<&Delete> = batch.deletes.iter().collect();
        let (mut deleted, refused) = self.search(Part::Deletes(&deletes), batch.force).await?;
        let mut found: Vec<Poison> =
            refused.iter().filter_map(|(part, error)| self.refused_delete(*part, error)).collect();
        deleted += self.delete_older(older, batch.force).await?;
        let (mut rows, mut written): (Vec<&Row>, u64) = (batch.rows.iter().collect(), 0);
        loop {
            let (count, refused) = self.search(Part::Rows(&rows), batch.force).await?;
            written += count;
            let row_of = |(part, error)| match part {
                Part::Rows([row]) => Some((*row, error)),
                _ => None,
            };
            let alone: Vec<(&Row, ReplicateError)> = refused.into_iter().filter_map(row_of).collect();
            if !batch.tries_again && written == 0 && alone.len() == batch.rows.len() {
                self.look_for_a_closed_table(&alone)?;
            }
            let gone: Vec<Delete> =
                alone.iter().filter_map(|(row, _)| Delete::of_older(self.layout, &row.id, row.seq)).collect();
            let freed = self.delete_older(&gone.iter().collect::<Vec<_>>(), batch.force).await?;
            deleted += freed;
            // Each round has fewer rows, here or there, than the one before.
            let is_worth_it =
                alone.iter().any(|(_, error)| is_of_other_rows(error)) && (freed > 0 || alone.len() < rows.len());
            if !is_worth_it {
                found.extend(alone.iter().map(|(row, error)| poison(row.id.clone(), row.seq.0, "", error)));
                return Ok(Searched { written, deleted, found });
            }
            rows = alone.iter().map(|(row, _)| *row).collect();
        }
    }

    /// Fails if the whole batch was refused by a policy or a trigger: then the table is closed, and no row is at fault.
    fn look_for_a_closed_table(&self, refused: &[(&Row, ReplicateError)]) -> Result<(), ReplicateError> {
        let [(_, ReplicateError::Postgres(first)), ..] = refused else { return Ok(()) };
        let code = first.code().filter(|code| *code == "42501" || code.starts_with("P0")).unwrap_or_default();
        let is_same = |error: &ReplicateError| matches!(error, ReplicateError::Postgres(it) if it.code() == Some(code));
        if refused.len() < MANY || !refused.iter().all(|(_, error)| is_same(error)) {
            return Ok(());
        }
        let difference =
            format!("it refuses each of {} rows: {} (SQLSTATE {code})", refused.len(), first.without_values());
        Err(ReplicateError::Drift { table: self.layout.table.plain(), differences: vec![difference] })
    }

    /// Deletes rows of documents that have none any more. Where Postgres refuses one it stays, and comparing names it.
    async fn delete_older(&self, older: &[&Delete], force: bool) -> Result<u64, ReplicateError> {
        let (deleted, refused) = self.search(Part::Deletes(older), force).await?;
        for (_, error) in &refused {
            tracing::warn!(error = error.without_values(), "the older row of a document that cannot be stored stays");
        }
        Ok(deleted)
    }

    /// Halves `all` until those that Postgres refuses stand alone, each with what it said.
    async fn search<'s, 'b>(
        &self,
        all: Part<'s, 'b>,
        force: bool,
    ) -> Result<(u64, Vec<(Part<'s, 'b>, ReplicateError)>), ReplicateError> {
        let (mut done, mut refused, mut waiting) = (0, Vec::new(), vec![all]);
        while let Some(part) = waiting.pop() {
            if part.len() == 0 {
                continue;
            }
            self.session.batch("set a savepoint", "savepoint search").await?;
            match self.attempt(part, force).await {
                Ok(count) => done += count,
                Err(error) if error.is_of_a_row() => {
                    if let Some(drift) = drift::of_another_column(self.layout, &error) {
                        return Err(drift);
                    }
                    let back = "rollback to savepoint search; release savepoint search";
                    self.session.batch("roll back to a savepoint", back).await?;
                    match part.len() {
                        1 => refused.push((part, error)),
                        _ => {
                            let [left, right] = part.halves();
                            waiting.extend([right, left]);
                        }
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok((done, refused))
    }

    /// One part. Constraints that would wait for COMMIT are looked at now, while it can be told whose fault it is.
    async fn attempt(&self, part: Part<'_, '_>, force: bool) -> Result<u64, ReplicateError> {
        let count = match part {
            Part::Rows(rows) => self.upsert(rows, force).await?,
            Part::Deletes(deletes) => self.delete(deletes, force).await?,
        };
        self.session.batch("keep the rows", "set constraints all immediate; release savepoint search").await?;
        Ok(count)
    }

    /// The dead letter of a document whose row Postgres does not let be deleted.
    fn refused_delete(&self, part: Part<'_, '_>, error: &ReplicateError) -> Option<Poison> {
        let Part::Deletes([delete]) = part else { return None };
        if delete.id.is_none() {
            tracing::warn!(error = error.without_values(), "a row that is no document's cannot be deleted; it stays");
        }
        let id = delete.id.clone()?;
        Some(poison(id, delete.seq.0, "the document is deleted, and its row cannot be: ", error))
    }
}

fn is_of_other_rows(error: &ReplicateError) -> bool {
    matches!(error, ReplicateError::Postgres(error) if error.code().is_some_and(|code| OF_OTHER_ROWS.contains(&code)))
}

fn poison(id: DocumentId, seq: u64, what: &str, error: &ReplicateError) -> Poison {
    let code = match error {
        ReplicateError::Postgres(error) => error.code().unwrap_or("XX000"),
        _ => "XX000",
    };
    let reason = format!("{what}{}", error.without_values());
    Poison { id, seq: crate::types::Seq(seq), code: code.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::{PostgresError, Trouble};

    #[test]
    fn what_is_written_down_of_a_refusal_holds_no_values() {
        let error = ReplicateError::Postgres(PostgresError::Statement {
            doing: "delete rows",
            code: "23503".to_owned(),
            message: "update or delete on table \"c\" violates foreign key constraint \"k\"".to_owned(),
            detail: "; Key (id)=(ann@x.de) is still referenced".to_owned(),
            column: None,
            trouble: Trouble::Row,
        });
        assert!(error.chain().contains("ann@x.de"), "{}", error.chain());
        let kept = error.without_values();
        assert!(kept.contains("foreign key") && !kept.contains("ann@x.de"), "{kept}");
    }
}
