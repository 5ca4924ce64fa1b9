//! A session with a database: unnamed statements, each with a limit on its time.

use std::time::Duration;

use futures_util::{SinkExt, TryStreamExt};
use tokio::task::JoinHandle;
use tokio_postgres::types::{FromSql, ToSql, Type};
use tokio_postgres::{Client, Row, SimpleQueryMessage};

use super::{ConnectSettings, PostgresError, tls};

/// A parameter and its type.
pub type Param<'a> = (&'a (dyn ToSql + Sync), Type);

/// A connection. A session whose statement broke off is of no more use; dropping it closes the connection.
pub struct Session {
    client: Client,
    connection: JoinHandle<()>,
    limit: Duration,
}

impl Session {
    /// Connects.
    ///
    /// # Errors
    /// [`PostgresError::Connect`], [`PostgresError::Settings`].
    pub async fn connect(settings: &ConnectSettings) -> Result<Self, PostgresError> {
        let connector = tls::connector(settings)?;
        let limit = settings.connect_timeout;
        let connecting = tokio::time::timeout(limit, settings.config.connect(connector)).await;
        let (client, connection) = connecting
            .map_err(|_| PostgresError::no_connection(settings.place(), limit))?
            .map_err(|error| PostgresError::connecting(settings.place(), error))?;
        let connection = tokio::spawn(async move {
            // Statements that wait learn of a broken connection themselves.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to Postgres ended");
            }
        });
        Ok(Self { client, connection, limit: settings.statement_timeout() })
    }

    /// How long a statement may take.
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// Whether the connection is known to have ended.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Runs statements by the simple protocol, separated by semicolons.
    ///
    /// # Errors
    /// [`PostgresError`].
    pub async fn batch(&self, doing: &'static str, sql: &str) -> Result<(), PostgresError> {
        self.timed(doing, self.limit, self.client.batch_execute(sql)).await
    }

    /// What work in a transaction came to that a failure left open: it is rolled back, unless the failure ended the
    /// session.
    ///
    /// # Errors
    /// As the work, and [`PostgresError`] where the transaction cannot be rolled back.
    pub async fn rolled_back<T, E: From<PostgresError>>(
        &self,
        done: Result<T, E>,
        ends_session: impl Fn(&E) -> bool,
    ) -> Result<T, E> {
        if done.as_ref().is_err_and(|error| !ends_session(error)) {
            self.batch("roll back", "rollback").await?;
        }
        done
    }

    /// As [`Session::batch`], for statements that may take `limit`.
    ///
    /// # Errors
    /// [`PostgresError`].
    pub async fn long_batch(&self, doing: &'static str, sql: &str, limit: Duration) -> Result<(), PostgresError> {
        self.timed(doing, limit, self.client.batch_execute(sql)).await
    }

    /// The first column of the rows of a simple statement.
    ///
    /// # Errors
    /// [`PostgresError`].
    pub async fn texts(&self, doing: &'static str, sql: &str) -> Result<Vec<Option<String>>, PostgresError> {
        let messages = self.timed(doing, self.limit, self.client.simple_query(sql)).await?;
        let rows = messages.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row.get(0).map(str::to_owned)),
            _ => None,
        });
        Ok(rows.collect())
    }

    /// Rows of one unnamed statement. Select no type that is not built in: looking one up takes a named statement.
    ///
    /// # Errors
    /// [`PostgresError`].
    pub async fn query(&self, doing: &'static str, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, PostgresError> {
        self.timed(doing, self.limit, self.client.query_typed(sql, params)).await
    }

    /// Gives each row to `visit` as it comes; none is kept. The first may take `limit` to come, and each after it.
    ///
    /// # Errors
    /// [`PostgresError`].
    pub async fn each_row(
        &self,
        doing: &'static str,
        sql: &str,
        params: &[Param<'_>],
        limit: Duration,
        visit: &mut (dyn FnMut(&Row) + Send),
    ) -> Result<(), PostgresError> {
        let params: Vec<(&(dyn ToSql + Sync), Type)> = params.to_vec();
        let rows = self.timed(doing, limit, self.client.query_typed_raw(sql, params)).await?;
        let mut rows = std::pin::pin!(rows);
        while let Some(row) = self.timed(doing, limit, rows.try_next()).await? {
            visit(&row);
        }
        Ok(())
    }

    /// Runs one unnamed statement; returns the rows it touched.
    ///
    /// # Errors
    /// [`PostgresError`].
    pub async fn execute(&self, doing: &'static str, sql: &str, params: &[Param<'_>]) -> Result<u64, PostgresError> {
        self.timed(doing, self.limit, self.client.execute_typed(sql, params)).await
    }

    /// Sends bytes to a `COPY .. FROM STDIN`, within a transaction only: the statement that does it has a name, which
    /// another user of a pooler's server may have left behind, so names are cleared first. Each chunk is a message, of
    /// which a server takes less than 1 GiB; the next is asked for when the last is on its way.
    ///
    /// # Errors
    /// [`PostgresError`].
    pub async fn copy_in(
        &self,
        doing: &'static str,
        sql: &str,
        chunks: impl IntoIterator<Item = Vec<u8>>,
    ) -> Result<u64, PostgresError> {
        self.batch(doing, "DEALLOCATE ALL").await?;
        let copying = async {
            let sink = self.client.copy_in::<_, std::io::Cursor<Vec<u8>>>(sql).await?;
            let mut sink = std::pin::pin!(sink);
            for chunk in chunks {
                sink.feed(std::io::Cursor::new(chunk)).await?;
            }
            sink.finish().await
        };
        self.timed(doing, self.limit, copying).await
    }

    /// Gives the bytes of a `COPY .. TO STDOUT` to `visit` as they come, within a transaction only, as
    /// [`Session::copy_in`]. The limit on time is for each piece.
    ///
    /// # Errors
    /// [`PostgresError`].
    pub async fn copy_out(
        &self,
        doing: &'static str,
        sql: &str,
        visit: &mut (dyn FnMut(&[u8]) + Send),
    ) -> Result<(), PostgresError> {
        self.batch(doing, "DEALLOCATE ALL").await?;
        let pieces = self.timed(doing, self.limit, self.client.copy_out(sql)).await?;
        let mut pieces = std::pin::pin!(pieces);
        while let Some(piece) = self.timed(doing, self.limit, pieces.try_next()).await? {
            visit(&piece);
        }
        Ok(())
    }

    async fn timed<T>(
        &self,
        doing: &'static str,
        limit: Duration,
        statement: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, PostgresError> {
        match tokio::time::timeout(limit, statement).await {
            Ok(done) => done.map_err(|error| PostgresError::statement(doing, error)),
            Err(_) => Err(PostgresError::Timeout { doing, limit }),
        }
    }
}

/// A value of a row; `column` counts from 0.
///
/// # Errors
/// [`PostgresError::Answer`] where it is NULL, which `T` cannot hold, or of another type.
pub fn value<'a, T: FromSql<'a>>(row: &'a Row, column: usize) -> Result<T, PostgresError> {
    row.try_get(column).map_err(|source| PostgresError::Answer { column, source })
}

impl Drop for Session {
    fn drop(&mut self) {
        self.connection.abort();
    }
}
