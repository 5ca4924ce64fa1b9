//! A server in this process, over a directory of its own.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread::JoinHandle;

use pannier::http::{AppState, HttpConfig, ServeError, serve};
use pannier::{Database, Options};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::client::{Answer, Request, metric};
use crate::support::model::{SMALL_MODEL, install_small_cross_encoder, install_small_model, install_unscaled_model};
use crate::support::postgres::{Version, server};

thread_local! {
    /// The backend of the collections that this thread's servers create; the store itself where it is `None`.
    static BACKEND: RefCell<Option<Value>> = const { RefCell::new(None) };
}

/// Runs a test whose servers create their collections in a fresh database.
pub fn on_postgres(version: Version, test: fn()) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("url");
    std::fs::write(&file, &server(version).database().url).unwrap();
    BACKEND.set(Some(json!({"type": "postgres", "url_file": file})));
    test();
    BACKEND.set(None);
}

pub struct Server {
    pub address: SocketAddr,
    shutdown: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), ServeError>>>,
    directory: tempfile::TempDir,
}

impl Server {
    pub fn start() -> Self {
        Self::start_with(HttpConfig::default())
    }

    /// A server with the small model and the small cross-encoder; the first is also the one of the routes that name
    /// none.
    pub fn with_model() -> Self {
        Self::with_default_model(SMALL_MODEL)
    }

    pub fn with_default_model(name: &str) -> Self {
        Self::with_models(HttpConfig { default_model: name.to_owned(), ..HttpConfig::default() })
    }

    /// A server with all the small models.
    pub fn with_models(config: HttpConfig) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let models = directory.path().join("models");
        install_small_model(&models);
        install_unscaled_model(&models);
        install_small_cross_encoder(&models);
        Self::start_in(directory, config)
    }

    pub fn start_with(config: HttpConfig) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), config)
    }

    fn start_in(directory: tempfile::TempDir, config: HttpConfig) -> Self {
        let options = Options { models_dir: Some(directory.path().join("models")), ..Default::default() };
        let database = Database::open_with(directory.path().join("data"), options).unwrap();
        let metrics = pannier::telemetry::install_recorder().unwrap();
        let state = AppState::new(database.clone(), config, Some(metrics));
        let (address_tx, address_rx) = std::sync::mpsc::channel();
        let (shutdown, shutdown_rx) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            let served = runtime.block_on(async {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                address_tx.send(listener.local_addr().unwrap()).unwrap();
                let ended = async {
                    let _ = shutdown_rx.await;
                };
                serve(listener, state, ended).await
            });
            drop(runtime);
            database.close();
            served
        });
        let address = address_rx.recv().unwrap();
        Self { address, shutdown: Some(shutdown), thread: Some(thread), directory }
    }

    /// A server with a collection `c` of dim 3 and these documents: `{id: vector}` with metadata `{"n": position}`.
    pub fn with_documents(documents: &[(&str, [f32; 3])]) -> Self {
        let server = Self::start();
        server.put("/v1/collections/c", &json!({"dim": 3})).ok();
        if !documents.is_empty() {
            let documents: Vec<Value> = documents
                .iter()
                .enumerate()
                .map(|(n, (id, vector))| json!({"id": id, "text": format!("text of {id}"), "vector": vector, "metadata": {"n": n}}))
                .collect();
            server.post("/v1/collections/c/documents", &json!({"documents": documents})).ok();
        }
        server
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    pub fn get(&self, path: &str) -> Answer {
        Request::new("GET", path).send(self.address)
    }

    pub fn delete(&self, path: &str) -> Answer {
        Request::new("DELETE", path).send(self.address)
    }

    pub fn put(&self, path: &str, body: &Value) -> Answer {
        let mut body = body.clone();
        let is_definition = path.strip_prefix("/v1/collections/").is_some_and(|rest| !rest.contains('/'));
        if is_definition && let (Some(backend), Some(body)) = (BACKEND.with_borrow(Clone::clone), body.as_object_mut())
        {
            body.entry("backend").or_insert(backend);
        }
        let body = &body;
        Request::new("PUT", path).json(body).send(self.address)
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        Request::new("POST", path).json(body).send(self.address)
    }

    /// The value of a metric without labels; 0 where it was never touched.
    pub fn metric(&self, name: &str) -> f64 {
        metric(self.address, name)
    }

    /// The ids of all documents of collection `c`.
    pub fn ids(&self) -> Vec<String> {
        let page = self.get("/v1/collections/c/documents?limit=1000").ok();
        let id = |document: &Value| document["id"].as_str().unwrap().to_owned();
        page["documents"].as_array().unwrap().iter().map(id).collect()
    }

    /// Shuts down, and starts again over the same directory.
    pub fn restarted(mut self) -> Self {
        let directory = std::mem::replace(&mut self.directory, tempfile::tempdir().unwrap());
        self.stop().unwrap();
        Self::start_in(directory, HttpConfig::default())
    }

    /// Begins the shutdown without waiting for its end.
    pub fn begin_shutdown(&mut self) {
        if let Some(shutdown) = self.shutdown.take() {
            let _ = shutdown.send(());
        }
    }

    /// Shuts down and returns what serving ended with.
    pub fn stop(mut self) -> Result<(), ServeError> {
        self.begin_shutdown();
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.begin_shutdown();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the server's thread panicked");
        }
    }
}
