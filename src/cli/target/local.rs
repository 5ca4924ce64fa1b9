//! A data directory that this process opened, behind the API's own routes.

use std::io::Read;
use std::path::{self, PathBuf};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, header};
use http_body_util::BodyExt;
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::runtime::Runtime;
use tokio_util::io::ReaderStream;
use tower::ServiceExt;

use super::{Answer, read_body};
use crate::cli::CliError;
use crate::database::Database;
use crate::http::{AppState, HttpConfig, router};

/// Bytes that may wait between the reader of a file and the writer of its documents.
const PIPE_BYTES: usize = 256 << 10;
const CHUNK_BYTES: usize = 64 << 10;

/// The routes over an open database, and what drives them. Dropping it closes the store.
pub(in crate::cli) struct Local {
    router: Router,
    runtime: Runtime,
    directory: PathBuf,
}

impl Local {
    /// # Errors
    /// [`CliError::Io`] when no thread can be started.
    pub(super) fn new(database: Database) -> Result<Self, CliError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(|e| CliError::io("start a thread", e))?;
        let directory = path::absolute(database.path()).unwrap_or_else(|_| database.path().to_owned());
        Ok(Self { router: router(AppState::new(database, HttpConfig::default(), None)), runtime, directory })
    }

    /// The data directory, from the root.
    pub(super) fn directory(&self) -> path::Display<'_> {
        self.directory.display()
    }

    pub(super) fn call(&self, method: &str, path: &str, body: Option<String>) -> Result<Answer, CliError> {
        let media = body.is_some().then_some("application/json");
        let request = request(method, path, media, body.map_or_else(Body::empty, Body::from))?;
        self.runtime.block_on(answer(self.router.clone(), request))
    }

    pub(super) fn stream(&self, path: &str, lines: &mut dyn Read) -> Result<Answer, CliError> {
        let (mut writer, reader) = tokio::io::duplex(PIPE_BYTES);
        let body = Body::from_stream(ReaderStream::new(reader));
        let request = request("POST", path, Some("application/x-ndjson"), body)?;
        let answer = self.runtime.spawn(answer(self.router.clone(), request));
        self.feed(lines, &mut writer)?;
        drop(writer);
        self.runtime.block_on(answer).map_err(|error| CliError::Other(Box::new(error)))?
    }

    /// Copies until the end, or until nobody reads any more: the answer then says why.
    fn feed(&self, lines: &mut dyn Read, writer: &mut DuplexStream) -> Result<(), CliError> {
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let read = lines.read(&mut chunk).map_err(|e| CliError::io("read the input", e))?;
            if read == 0 || self.runtime.block_on(writer.write_all(&chunk[..read])).is_err() {
                return Ok(());
            }
        }
    }
}

fn request(method: &str, path: &str, media: Option<&str>, body: Body) -> Result<Request<Body>, CliError> {
    let mut request = Request::builder().method(method).uri(path).header(header::HOST, "localhost");
    if let Some(media) = media {
        request = request.header(header::CONTENT_TYPE, media);
    }
    request.body(body).map_err(|error| CliError::Other(Box::new(error)))
}

async fn answer(router: Router, request: Request<Body>) -> Result<Answer, CliError> {
    let response = match router.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.map_err(|error| CliError::Other(Box::new(error)))?;
    Ok(Answer { status, retry_after: None, body: read_body(body.to_bytes().as_ref(), "this process")? })
}
