//! The router as a whole, without a socket: layers, routes against their description, dialects.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::limits::{Limits, read_timeout};
use super::router::{layered, routes};
use super::{ApiKey, AppState, AuthPolicy, HttpConfig, openapi_json, router};
use crate::database::Database;

const KEY: &str = "0123456789abcdef";

struct Answer {
    status: StatusCode,
    headers: axum::http::HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// The state over a new directory, which lives as long as the guard beside it.
fn state(config: HttpConfig) -> (tempfile::TempDir, AppState) {
    let directory = tempfile::tempdir().unwrap();
    let database = Database::open(directory.path()).unwrap();
    (directory, AppState::new(database, config, None))
}

async fn send(router: &Router, request: Request<Body>) -> Answer {
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes().to_vec();
    Answer { status: parts.status, headers: parts.headers, body }
}

fn request(method: Method, path: &str) -> axum::http::request::Builder {
    Request::builder().method(method).uri(path).header("host", "localhost:7117")
}

fn empty(method: Method, path: &str) -> Request<Body> {
    request(method, path).body(Body::empty()).unwrap()
}

#[tokio::test]
async fn the_routes_are_those_of_the_description() {
    let (_directory, state) = state(HttpConfig::default());
    let document: Value = serde_json::from_str(openapi_json()).unwrap();
    for (path, _) in routes(&state) {
        let path = path.replace("{*model}", "{model}");
        assert!(document["paths"][&path].is_object(), "{path} is not described");
    }
    let router = router(state);
    for (path, item) in document["paths"].as_object().unwrap() {
        let url = path.replace("{collection}", "c").replace("{id}", "a").replace("{model}", "m%2Fn");
        for method in [Method::GET, Method::PUT, Method::POST, Method::DELETE, Method::PATCH] {
            let answer = send(&router, empty(method.clone(), &url)).await;
            let mut described = item.get(method.as_str().to_lowercase()).is_some();
            // A fixed route also reads, changes and deletes the document whose id is "delete" or "count".
            let is_fixed = path.ends_with("/documents/delete") || path.ends_with("/documents/count");
            described |= is_fixed && matches!(method, Method::GET | Method::DELETE | Method::PATCH);
            assert_eq!(answer.status != StatusCode::METHOD_NOT_ALLOWED, described, "{method} {path}");
            assert_ne!(answer.code(), "route_not_found", "{method} {path}");
            if answer.status == StatusCode::METHOD_NOT_ALLOWED {
                assert!(answer.headers.contains_key("allow"), "{method} {path}");
            }
        }
    }
}

#[tokio::test]
async fn no_route_of_ours_passes_over_a_parameter() {
    let (_directory, state) = state(HttpConfig::default());
    let router = router(state);
    let document: Value = serde_json::from_str(openapi_json()).unwrap();
    let mut asked = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        if !path.starts_with("/v1/collections") && !path.starts_with("/admin/") {
            continue;
        }
        let names = path.split('/').map(|part| if part.starts_with('{') { "a" } else { part });
        let url = format!("{}?no_such=true&q=a", names.collect::<Vec<_>>().join("/"));
        for method in item.as_object().unwrap().keys() {
            let method: Method = method.to_uppercase().parse().unwrap();
            let answer = send(&router, empty(method.clone(), &url)).await;
            assert_eq!((answer.status.as_u16(), answer.code().as_str()), (400, "invalid_parameter"), "{method} {path}");
            assert!(answer.json()["detail"].as_str().unwrap().contains("no_such"), "{method} {path}");
            asked += 1;
        }
    }
    assert!(asked > 25, "{asked}");
    assert_eq!(send(&router, empty(Method::GET, "/v1/collections?")).await.status, 200);
}

#[tokio::test]
async fn unknown_routes_and_methods_are_problems() {
    let (_directory, state) = state(HttpConfig::default());
    let router = router(state);
    let answer = send(&router, empty(Method::GET, "/v2/x?y=1")).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (404, "route_not_found"));
    assert_eq!(answer.headers["content-type"], "application/problem+json");
    assert_eq!(answer.json()["instance"], "/v2/x");
    let answer = send(&router, empty(Method::POST, "/livez")).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (405, "method_not_allowed"));
    assert_eq!(answer.headers["allow"], "GET,HEAD");
}

#[test]
fn the_page_on_serving_has_these_limits() {
    use crate::types::limits;
    let page = include_str!("../../docs/operations/serving.md");
    let grouped = |number: usize| match number {
        0..1_000 => number.to_string(),
        1_000..1_000_000 => format!("{},{:03}", number / 1_000, number % 1_000),
        _ => format!("{},{:03},{:03}", number / 1_000_000, number / 1_000 % 1_000, number % 1_000),
    };
    let mib = |bytes: usize| format!("{} MiB", bytes >> 20);
    let limits = Limits::default();
    let Limits { engine_calls, writing_calls, embedding_calls, waiting_calls, .. } = limits;
    let Limits { remote_calls, remote_writing_calls, .. } = limits;
    let (documents, numbers) = (limits::MAX_DOCUMENTS_PER_REQUEST, limits::MAX_REQUEST_NUMBERS);
    for row in [
        format!("| connections | {}, and {} for health checks |", limits::MAX_CONNECTIONS, limits::KEPT_CONNECTIONS),
        format!(
            "| memory of bodies, and of lines of imports, of more than 1 MiB | {} together |",
            mib(limits::MAX_BODIES_BYTES)
        ),
        format!(
            "| {engine_calls}, of them {writing_calls} that write documents; beside them {remote_calls} on collections \
             in Postgres, of them {remote_writing_calls} that write documents, and {embedding_calls} that only embed |"
        ),
        format!(
            "| calls that wait | {waiting_calls}, on collections in Postgres while fewer than {} do |",
            waiting_calls / 2
        ),
        format!("| body | {};", mib(limits::MAX_BODY_BYTES)),
        format!("| {}, with {} numbers in their vectors together |", grouped(documents), grouped(numbers)),
        format!("| id | {} bytes |", limits::MAX_DOCUMENT_ID_BYTES),
        format!("| text of a document or a query | {} |", mib(limits::MAX_TEXT_BYTES)),
        format!("| metadata of a document | {} |", mib(limits::MAX_METADATA_BYTES)),
        format!("| nesting of JSON | {} |", limits::MAX_JSON_DEPTH),
        format!("| name of a collection | {} bytes", limits::MAX_NAME_BYTES),
        format!("| `dim` | {} |", grouped(limits::MAX_DIM)),
        format!(
            "| {}; `offset` and `top_k` together {} |",
            grouped(limits::MAX_TOP_K),
            grouped(limits::MAX_SEARCH_WINDOW)
        ),
        format!("| `ef_search` | {} |", grouped(limits::MAX_EF)),
        format!("| searches of a batch | {} |", limits::MAX_SEARCHES_PER_REQUEST),
        format!("| nodes of a filter | {} |", limits::MAX_FILTER_NODES),
        format!("| facets of a search | {} fields |", limits::MAX_FACETS),
        format!("| candidates of a reranking | {} |", limits::MAX_RERANKED),
        format!("| chunks of a document | {} |", grouped(limits::MAX_CHUNKS)),
        format!("| declared fields of a collection | {} |", limits::MAX_DECLARED_FIELDS),
        format!("| documents on a page of a listing | {} |", grouped(limits::MAX_PAGE)),
        format!("| documents of an answer | {} |", mib(limits::MAX_ANSWER_BYTES)),
        format!("| texts of an embedding request | {} |", grouped(limits::MAX_EMBEDDING_INPUTS)),
    ] {
        assert!(page.contains(&row), "{row}");
    }
}

#[tokio::test]
async fn a_name_that_is_not_allowed_is_called_what_it_is() {
    let (_directory, state) = state(HttpConfig::default());
    let router = router(state);
    for (path, kind) in [("/admin/sources/X%20Y", "source"), ("/v1/collections/X%20Y", "collection")] {
        let answer = send(&router, empty(Method::GET, path)).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (422, "invalid_name"), "{path}");
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.starts_with(&format!("{kind} name \"X Y\" is not allowed")), "{detail}");
    }
}

#[tokio::test]
async fn damaged_settings_of_sinks_are_the_stores_fault() {
    let directory = tempfile::tempdir().unwrap();
    let database = Database::open(directory.path()).unwrap();
    std::fs::write(directory.path().join("replication.json"), "{").unwrap();
    let router = router(AppState::new(database, HttpConfig::default(), None));
    let answer = send(&router, empty(Method::GET, "/admin/replication")).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (500, "storage"));
    assert!(answer.json()["detail"].as_str().unwrap().contains("replication.json"), "{}", answer.json());
    assert_eq!(send(&router, empty(Method::GET, "/v1/collections")).await.status, 200);
}

#[tokio::test]
async fn request_ids_are_echoed_or_made() {
    let (_directory, state) = state(HttpConfig::default());
    let router = router(state);
    let with_id = request(Method::GET, "/nowhere").header("x-request-id", "mine-1").body(Body::empty()).unwrap();
    let answer = send(&router, with_id).await;
    assert_eq!(answer.headers["x-request-id"], "mine-1");
    assert_eq!(answer.json()["request_id"], "mine-1");
    let answer = send(&router, empty(Method::GET, "/livez")).await;
    assert_eq!(answer.headers["x-request-id"].len(), 32);
}

#[tokio::test]
async fn a_panic_is_a_problem_and_its_text_stays_inside() {
    async fn panics() -> &'static str {
        panic!("secret")
    }
    let (_directory, state) = state(HttpConfig::default());
    let router = layered(Router::new().route("/panic", get(panics)), state, None);
    let answer = send(&router, empty(Method::GET, "/panic")).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (500, "internal"));
    assert!(!String::from_utf8_lossy(&answer.body).contains("secret"));
    assert!(answer.headers.contains_key("x-request-id"));
}

#[tokio::test]
async fn a_read_that_takes_too_long_is_cut_off() {
    let limits = Limits { read_timeout: Duration::from_millis(1), ..Limits::default() };
    let (_directory, state) = state(HttpConfig { limits, ..HttpConfig::default() });
    let never = get(std::future::pending::<&'static str>).layer(from_fn_with_state(state.clone(), read_timeout));
    let router = layered(Router::new().route("/never", never), state, None);
    let answer = send(&router, empty(Method::GET, "/never")).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (504, "timeout"));
}

#[tokio::test]
async fn a_search_whose_body_comes_too_slowly_is_told_so() {
    let limits = Limits { read_timeout: Duration::from_millis(1), ..Limits::default() };
    let (_directory, state) = state(HttpConfig { limits, ..HttpConfig::default() });
    let never = futures_util::stream::pending::<Result<axum::body::Bytes, std::io::Error>>();
    let slow = request(Method::POST, "/v1/collections/c/search").header("content-type", "application/json");
    let answer = send(&router(state), slow.body(Body::from_stream(never)).unwrap()).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (408, "body_timeout"));
}

#[tokio::test]
async fn a_request_whose_client_goes_is_counted() {
    let recorder = crate::telemetry::install_recorder().unwrap();
    let (_directory, state) = state(HttpConfig::default());
    let never = Router::new().route("/never", get(std::future::pending::<&'static str>));
    let router = layered(never, state, None);
    let mut gone = Box::pin(send(&router, empty(Method::GET, "/never")));
    assert!(tokio::time::timeout(Duration::ZERO, &mut gone).await.is_err());
    drop(gone);
    let text = recorder.render();
    // Other tests count their requests in the same process.
    let counted = "pannier_http_requests_total{method=\"GET\",route=\"/never\",status=\"499\"} 1";
    assert!(text.lines().any(|line| line == counted), "{text}");
}

#[tokio::test]
async fn the_key_is_asked_for_everywhere_but_on_the_health_routes() {
    let auth = AuthPolicy::Key(ApiKey::new(KEY).unwrap());
    let (_directory, state) = state(HttpConfig { auth, ..HttpConfig::default() });
    let router = router(state);
    for path in ["/", "/metrics", "/v1/collections", "/openapi.json", "/version", "/nowhere"] {
        let answer = send(&router, empty(Method::GET, path)).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (401, "unauthorized"), "{path}");
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
    }
    for path in ["/livez", "/readyz", "/healthz", "/health"] {
        let without_host = Request::builder().uri(path).body(Body::empty()).unwrap();
        assert_eq!(send(&router, without_host).await.status, 200, "{path}");
    }
    let bearer = request(Method::GET, "/v1/collections").header("authorization", format!("Bearer {KEY}"));
    assert_eq!(send(&router, bearer.body(Body::empty()).unwrap()).await.status, 200);
    let answer = send(&router, empty(Method::POST, "/v1/embeddings")).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["error"]["code"]), (401, &json!("unauthorized")));
}

#[tokio::test]
async fn foreign_hosts_and_origins_are_refused_and_configured_ones_get_cors() {
    let config = HttpConfig { allowed_origins: vec!["https://app.example".into()], ..HttpConfig::default() };
    let (_directory, state) = state(config);
    let router = router(state);
    let rebound = Request::builder().uri("/").header("host", "evil.example:7117").body(Body::empty()).unwrap();
    let answer = send(&router, rebound).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (421, "host_not_allowed"));
    let with_origin = |method, origin| request(method, "/v1/collections").header("origin", origin);
    let answer = send(&router, with_origin(Method::GET, "http://evil.example").body(Body::empty()).unwrap()).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (403, "origin_not_allowed"));
    let answer = send(&router, with_origin(Method::GET, "https://app.example").body(Body::empty()).unwrap()).await;
    assert_eq!(
        (answer.status.as_u16(), answer.headers["access-control-allow-origin"].as_bytes()),
        (200, &b"https://app.example"[..])
    );
    let preflight = with_origin(Method::OPTIONS, "https://app.example").header("access-control-request-method", "POST");
    let answer = send(&router, preflight.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.status, 204);
    assert!(answer.headers["access-control-allow-methods"].to_str().unwrap().contains("POST"));
    assert!(answer.headers["access-control-allow-headers"].to_str().unwrap().contains("x-api-key"));
    let preflight = request(Method::OPTIONS, "/livez").header("origin", "https://app.example");
    let preflight = preflight.header("access-control-request-method", "GET");
    let preflight = preflight.header("access-control-request-headers", "x-stainless-os");
    let answer = send(&router, preflight.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.headers["access-control-allow-headers"], "x-stainless-os");
    let health = |origin| request(Method::GET, "/livez").header("origin", origin).body(Body::empty()).unwrap();
    let answer = send(&router, health("https://app.example")).await;
    assert_eq!(answer.headers["access-control-allow-origin"], "https://app.example");
    let answer = send(&router, health("http://evil.example")).await;
    assert_eq!((answer.status.as_u16(), answer.headers.get("access-control-allow-origin")), (200, None));
}

#[tokio::test]
async fn with_no_place_and_no_queue_the_answer_is_to_retry() {
    let limits = Limits { engine_calls: 0, waiting_calls: 0, ..Limits::default() };
    let (_directory, state) = state(HttpConfig { limits, ..HttpConfig::default() });
    let router = router(state);
    let answer = send(&router, empty(Method::GET, "/v1/collections")).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (429, "overloaded"));
    assert_eq!(answer.headers["retry-after"], "1");
    for path in ["/readyz", "/metrics"] {
        assert_eq!(send(&router, empty(Method::GET, path)).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn long_bodies_wait_for_room_and_give_it_back() {
    let limits = Limits { bodies_bytes: 16 << 20, body_timeout: Duration::from_millis(50), ..Limits::default() };
    let (_directory, state) = state(HttpConfig { limits, ..HttpConfig::default() });
    let router = router(state.clone());
    let ask = |mib: usize, end: &str| {
        let body = format!("{{\"documents\": [{{\"id\": \"a\", \"vector\": [1]}}{}{end}", " ".repeat(mib << 20));
        let request = request(Method::POST, "/v1/collections/c/documents").header("content-type", "application/json");
        let request = request.header("content-length", body.len()).body(Body::from(body)).unwrap();
        let router = router.clone();
        async move { send(&router, request).await }
    };
    let others = state.body_room().take(3 << 20, Duration::ZERO).await.unwrap();
    let answer = ask(2, "]}").await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (429, "overloaded"));
    assert!(answer.headers.contains_key("retry-after") && answer.json()["detail"].as_str().unwrap().contains("bodies"));
    assert_eq!(ask(0, "]}").await.code(), "collection_not_found");
    drop(others);
    for (end, code) in [("]}", "collection_not_found"), ("]", "invalid_json"), ("]}", "collection_not_found")] {
        assert_eq!(ask(3, end).await.code(), code);
    }
    state.body_room().take(32 << 20, Duration::ZERO).await.unwrap();
}

#[tokio::test]
async fn who_waits_for_a_place_too_long_is_to_retry() {
    let limits =
        Limits { engine_calls: 0, waiting_calls: 1, read_timeout: Duration::from_millis(1), ..Limits::default() };
    let (_directory, state) = state(HttpConfig { limits, ..HttpConfig::default() });
    let answer = send(&router(state), empty(Method::GET, "/v1/collections")).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (429, "overloaded"));
    assert!(answer.headers.contains_key("retry-after"));
}

#[tokio::test]
async fn embedding_waits_in_a_place_of_its_own() {
    let limits = Limits { embedding_calls: 0, waiting_calls: 0, ..Limits::default() };
    let (_directory, state) = state(HttpConfig { limits, ..HttpConfig::default() });
    let router = router(state);
    for (path, body) in [
        ("/v1/embeddings", json!({"input": "a", "model": "m"})),
        ("/embed", json!({"inputs": "a"})),
        ("/", json!({"inputs": "a"})),
        ("/tokenize", json!({"inputs": "a"})),
        ("/api/embed", json!({"input": "a", "model": "m"})),
        ("/api/embeddings", json!({"prompt": "a", "model": "m"})),
    ] {
        let request = request(Method::POST, path).header("content-type", "application/json");
        let answer = send(&router, request.body(Body::from(body.to_string())).unwrap()).await;
        assert_eq!((answer.status.as_u16(), answer.headers.contains_key("retry-after")), (429, true), "{path}");
    }
    assert_eq!(send(&router, empty(Method::GET, "/v1/collections")).await.status, 200);
}

#[tokio::test]
async fn openai_routes_fail_in_openais_shape() {
    let (_directory, state) = state(HttpConfig::default());
    let router = router(state);
    let cases = [
        (json!({"input": "a", "model": "no/such-model"}), 404, "model_not_found", json!("model")),
        (json!({"input": [], "model": "m"}), 400, "invalid_input", json!("input")),
        (json!({"input": "a"}), 400, "missing_field", Value::Null),
        (json!({"input": "a", "model": "m", "seed": 1}), 400, "unknown_field", Value::Null),
        (json!({"input": "a", "model": "m", "encoding_format": "int8"}), 400, "invalid_value", Value::Null),
    ];
    for (body, status, code, param) in cases {
        let request = request(Method::POST, "/v1/embeddings").header("content-type", "application/json");
        let answer = send(&router, request.body(Body::from(body.to_string())).unwrap()).await;
        let error = &answer.json()["error"];
        assert_eq!((answer.status.as_u16(), &error["code"]), (status, &json!(code)), "{body}");
        assert_eq!(error["param"], param, "{body}");
        assert_eq!((&error["type"], error["message"].is_string()), (&json!("invalid_request_error"), true));
    }
    let answer = send(&router, empty(Method::GET, "/v1/models/no%2Fsuch")).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["error"]["code"]), (404, &json!("model_not_found")));
    assert_eq!(send(&router, empty(Method::GET, "/v1/models")).await.json()["object"], "list");
}
