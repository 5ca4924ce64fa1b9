//! The table of routes and the layers around them.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, delete, get, post, put};

use super::guard::Guard;
use super::state::{AppState, HttpConfig};
use super::{collections, documents, health, import, limits, metrics, models, observe, openapi, replication, search};
use super::{ollama, openai, patch, snapshots, sources, starting, tei, template};

/// All routes behind all layers, for a server that listens on loopback.
pub fn router(state: AppState) -> Router {
    bound_router(state, None)
}

/// `bound`: where the listener listens; the guard lets clients name that address.
pub(crate) fn bound_router(state: AppState, bound: Option<SocketAddr>) -> Router {
    let mut router = health_routes();
    for (path, methods) in routes(&state) {
        router = router.route(path, methods);
    }
    layered(router, state, bound)
}

/// The health routes, for connections beyond the limit: whatever else is asked there is to come again.
pub(crate) fn crowded_router(state: AppState, bound: Option<SocketAddr>) -> Router {
    let guard = Guard::new(state.config(), bound);
    let routes = health_routes().fallback(limits::no_connection);
    observed(routes, guard).with_state(state)
}

/// The health routes of a server whose store is being opened: whatever else is asked is to come again.
pub(crate) fn starting_router(config: &HttpConfig, bound: Option<SocketAddr>) -> Router {
    let routes = Router::new()
        .route("/livez", get(health::livez))
        .route("/readyz", get(starting::not_ready))
        .route("/healthz", get(starting::not_ready))
        .route("/health", get(starting::not_ready))
        .fallback(starting::refuse);
    observed(routes, Guard::new(config, bound))
}

/// Puts what every request passes around routes.
pub(super) fn layered(routes: Router<AppState>, state: AppState, bound: Option<SocketAddr>) -> Router {
    let guard = Guard::new(state.config(), bound);
    observed(routes.fallback(observe::unknown_route), guard).with_state(state)
}

/// One layer, since each costs as much as a small handler.
fn observed<S: Clone + Send + Sync + 'static>(routes: Router<S>, guard: Guard) -> Router<S> {
    routes
        .method_not_allowed_fallback(observe::wrong_method)
        .layer(from_fn_with_state(Arc::new(guard), observe::observe))
}

fn health_routes() -> Router<AppState> {
    Router::new()
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/healthz", get(health::healthz))
        .route("/health", get(health::health))
}

/// Every route but those of [`health_routes`]. Reads are cut off after their time, writes never: a write that was begun
/// is finished and answered.
pub(super) fn routes(state: &AppState) -> Vec<(&'static str, MethodRouter<AppState>)> {
    let timed = || from_fn_with_state(state.clone(), limits::read_timeout);
    let collection = get(collections::read.layer(timed())).merge(put(collections::create).delete(collections::drop));
    let document = || get(documents::read.layer(timed())).merge(delete(documents::delete).patch(patch::patch));
    let documents = get(documents::list.layer(timed())).merge(post(documents::upsert).patch(patch::patch_many));
    vec![
        ("/", get(health::hello).merge(post(tei::embed_at_root.layer(timed())))),
        ("/metrics", get(metrics::render.layer(timed()))),
        ("/version", get(health::version)),
        ("/openapi.json", get(openapi::serve)),
        ("/v1/collections", get(collections::list.layer(timed()))),
        ("/v1/collections/{collection}", collection),
        ("/v1/collections/{collection}/stats", get(collections::stats.layer(timed()))),
        ("/v1/collections/{collection}/documents", documents),
        ("/v1/collections/{collection}/documents/delete", document().merge(post(documents::delete_many))),
        ("/v1/collections/{collection}/documents/count", document().merge(post(documents::count.layer(timed())))),
        ("/v1/collections/{collection}/documents/{id}", document()),
        ("/v1/collections/{collection}/import", post(import::import)),
        ("/v1/collections/{collection}/search", get(search::search_by_url).merge(post(search::search)).layer(timed())),
        ("/v1/collections/{collection}/search/batch", post(search::search_batch).layer(timed())),
        ("/admin/snapshots", get(snapshots::list.layer(timed())).merge(post(snapshots::create))),
        ("/admin/snapshots/{snapshot}", get(snapshots::read.layer(timed())).merge(delete(snapshots::delete))),
        ("/admin/snapshots/{snapshot}/verify", post(snapshots::verify)),
        ("/admin/snapshots/{snapshot}/restore", post(snapshots::restore)),
        ("/v1/collections/{collection}/template/preview", post(template::preview).layer(timed())),
        (
            "/admin/sources/{source}",
            get(sources::read.layer(timed())).merge(put(sources::write).delete(sources::forget)),
        ),
        ("/admin/replication", get(replication::list.layer(timed())).merge(post(replication::add))),
        ("/admin/replication/{sink}", get(replication::read.layer(timed())).merge(delete(replication::remove))),
        ("/admin/replication/{sink}/pause", post(replication::pause)),
        ("/admin/replication/{sink}/resume", post(replication::resume)),
        ("/admin/replication/{sink}/verify", post(replication::verify)),
        ("/admin/replication/{sink}/repair", post(replication::repair)),
        ("/v1/embeddings", post(openai::embeddings).layer(timed())),
        ("/embed", post(tei::embed).layer(timed())),
        ("/tokenize", post(tei::tokenize).layer(timed())),
        ("/info", get(tei::info).layer(timed())),
        ("/api/embed", post(ollama::embed).layer(timed())),
        ("/api/embeddings", post(ollama::embed_prompt).layer(timed())),
        ("/api/tags", get(ollama::tags).layer(timed())),
        ("/api/version", get(ollama::version)),
        ("/v1/models", get(models::list).layer(timed())),
        ("/v1/models/{*model}", get(models::read).layer(timed())),
    ]
}
