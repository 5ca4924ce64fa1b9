//! The keyword indexes that are being written to: few at a time, so that their memory is bounded.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::text::{TextError, TextIndex, TextWriter};
use crate::types::CollectionId;

/// Most writers open at once; each takes up to 24 MiB while it has something to write.
const MAX_OPEN: usize = 4;
/// A writer that has written nothing for so long is closed.
const IDLE: Duration = Duration::from_secs(10);

/// The open writers, the one used last at the end.
#[derive(Default)]
pub(super) struct Writers {
    open: Vec<Open>,
}

struct Open {
    collection: CollectionId,
    writer: TextWriter,
    used: Instant,
}

impl Writers {
    /// The writer of a collection's index.
    ///
    /// # Errors
    /// [`TextError`] when it cannot be opened.
    pub(super) fn of(
        &mut self,
        collection: CollectionId,
        index: &Arc<TextIndex>,
    ) -> Result<&mut TextWriter, TextError> {
        let open = match self.open.iter().position(|open| open.collection == collection) {
            Some(at) => self.open.remove(at),
            None => {
                if self.open.len() >= MAX_OPEN {
                    close(self.open.remove(0));
                }
                Open { collection, writer: index.writer()?, used: Instant::now() }
            }
        };
        self.open.push(Open { used: Instant::now(), ..open });
        Ok(&mut self.open.last_mut().expect("one was pushed").writer)
    }

    /// Ends a collection's writer, if it has one, with what it was told since its last commit.
    pub(super) fn close(&mut self, collection: CollectionId) {
        if let Some(at) = self.open.iter().position(|open| open.collection == collection) {
            close(self.open.remove(at));
        }
    }

    /// Ends those that have nothing to do.
    pub(super) fn close_idle(&mut self) {
        while self.open.first().is_some_and(|open| open.used.elapsed() >= IDLE) {
            close(self.open.remove(0));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    pub(super) fn close_all(&mut self) {
        self.open.drain(..).for_each(close);
    }
}

fn close(open: Open) {
    if let Err(error) = open.writer.close() {
        let collection = open.collection;
        tracing::warn!(%collection, %error, "a keyword index was not closed cleanly; what it lacks is read again");
    }
}
