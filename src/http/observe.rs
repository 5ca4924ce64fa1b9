//! What every request passes: request id, span, metrics, guards, and the body of whatever failed.

use std::any::Any;
use std::cell::RefCell;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use tracing::{Instrument, Span};

use super::bodies;
use super::cors;
use super::error::{ApiError, Code, Failure};
use super::guard::{Guard, Passage};
use super::problem;
use super::read_on;
use super::trim;
use crate::telemetry;
use crate::types::panic_message;

/// Name of the header that carries a request's id, both ways.
const REQUEST_ID: &str = "x-request-id";
/// Longest id that is taken over from a client.
const MAX_REQUEST_ID_BYTES: usize = 128;
/// The routes that say whether the server is well and nothing more.
pub(crate) const HEALTH_ROUTES: [&str; 4] = ["/livez", "/readyz", "/healthz", "/health"];

/// Gives every request an id and a span, guards it, counts it, and writes the body of a failed one, or one that
/// panicked.
pub(crate) async fn observe(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let uri = request.uri().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("unmatched", MatchedPath::as_str);
    let id = request_id(request.headers());
    let span = tracing::info_span!("request", id = %id, method = %method, route);
    let mut in_flight = InFlight::enter(&method, route, started, &span);
    let (parts, body) = request.into_parts();
    let body = read_on::wrap(&parts.headers, body);
    let answer = bodies::scope(guarded(&guard, Request::from_parts(parts, body), next));
    let response = AssertUnwindSafe(answer).catch_unwind().instrument(span.clone()).await;
    let response = response.unwrap_or_else(|panic| span.in_scope(|| panicked(panic.as_ref())));
    let mut response = span.in_scope(|| finish(response, &method, &uri, &id));
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    in_flight.status = response.status().as_u16();
    response
}

/// What a request is counted as whose client went before its answer, as nginx does.
const CLIENT_GONE: u16 = 499;

/// One request in flight, which is counted at its end, also when its future is dropped.
struct InFlight<'a> {
    method: &'a Method,
    route: &'a str,
    status: u16,
    started: Instant,
    span: &'a Span,
}

impl<'a> InFlight<'a> {
    fn enter(method: &'a Method, route: &'a str, started: Instant, span: &'a Span) -> Self {
        metrics::gauge!(telemetry::HTTP_REQUESTS_IN_FLIGHT).increment(1.0);
        Self { method, route, status: CLIENT_GONE, started, span }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        metrics::gauge!(telemetry::HTTP_REQUESTS_IN_FLIGHT).decrement(1.0);
        count(self.method, self.route, self.status, self.started, self.span);
    }
}

/// Replaces the empty body of a failed response by one that its client can read, and logs the cause once.
fn finish(mut response: Response, method: &Method, uri: &Uri, id: &str) -> Response {
    let Some(Failure(error)) = response.extensions_mut().remove::<Failure>() else { return response };
    match &error.cause {
        Some(cause) => {
            let chain = with_sources(cause.as_ref());
            tracing::error!(code = error.code.as_str(), cause = %chain, "the request failed");
        }
        None => tracing::debug!(code = error.code.as_str(), detail = %error.detail, "the request was refused"),
    }
    if error.code == Code::AnswerTooLarge {
        trim::soon();
    }
    let mut rendered = problem::render(&error, method, uri, id);
    for (name, value) in response.headers() {
        if !rendered.headers().contains_key(name) && name != axum::http::header::CONTENT_LENGTH {
            rendered.headers_mut().append(name, value.clone());
        }
    }
    rendered
}

/// An error and its sources, joined by colons.
fn with_sources(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}

fn count(method: &Method, route: &str, status: u16, started: Instant, span: &Span) {
    let elapsed = started.elapsed();
    let labels = [("method", known(method).to_owned()), ("route", route.to_owned()), ("status", status.to_string())];
    metrics::counter!(telemetry::HTTP_REQUESTS_TOTAL, &labels).increment(1);
    metrics::histogram!(telemetry::HTTP_REQUEST_DURATION_SECONDS, &labels).record(elapsed.as_secs_f64());
    span.in_scope(|| tracing::debug!(status, took_us = elapsed.as_micros() as u64, "answered"));
}

/// The method as a label: clients can make up methods, labels have to be few.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::PUT => "PUT",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        _ => "other",
    }
}

/// The client's own id where it is short and plain, else a new one of 128 random bits.
fn request_id(headers: &HeaderMap) -> String {
    let sane = |id: &&str| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':' | b'/' | b'+' | b'=');
        (1..=MAX_REQUEST_ID_BYTES).contains(&id.len()) && id.bytes().all(plain)
    };
    if let Some(id) = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok()).filter(sane) {
        return id.to_owned();
    }
    format!("{:032x}", random_bits())
}

/// 128 random bits, of those that this thread asked the system for when its last were used up.
fn random_bits() -> u128 {
    const BITS: usize = size_of::<u128>();
    thread_local! {
        static UNUSED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    UNUSED.with_borrow_mut(|unused| {
        if unused.len() < BITS {
            unused.resize(256 * BITS, 0);
            // Without randomness ids are zero: a log that is harder to read is better than no answer.
            let _ = getrandom::fill(unused);
        }
        let bits = unused.last_chunk().map_or(0, |bits| u128::from_ne_bytes(*bits));
        unused.truncate(unused.len() - BITS);
        bits
    })
}

/// Holds host, origin and API key to the rules; the health routes are open to anybody.
async fn guarded(guard: &Guard, request: Request, next: Next) -> Response {
    let is_open = HEALTH_ROUTES.contains(&request.uri().path());
    let passage = match guard.check(request.method(), request.uri(), request.headers()) {
        Ok(passage) => passage,
        Err(_) if is_open => Passage::Plain,
        Err(error) => return error.into_response(),
    };
    if let Passage::Preflight(origin) = &passage {
        return cors::preflight(origin, request.headers());
    }
    let mut response = match guard.check_key(request.headers()) {
        Err(error) if !is_open => error.into_response(),
        _ => next.run(request).await,
    };
    if let Passage::CrossOrigin(origin) = &passage {
        cors::allow(response.headers_mut(), origin);
    }
    response
}

/// What a panicking handler answers.
fn panicked(panic: &(dyn Any + Send)) -> Response {
    ApiError::internal(format!("in a handler: {}", panic_message(panic))).into_response()
}

pub(crate) async fn unknown_route(method: Method, uri: Uri) -> ApiError {
    let hint = match uri.path() {
        "/embeddings" | "/models" => "OpenAI's clients need the address with /v1 at its end",
        _ => "GET /openapi.json lists every route",
    };
    let detail = format!("there is no route {method} {}; {hint}", uri.path());
    ApiError::new(Code::RouteNotFound, detail)
}

pub(crate) async fn wrong_method(method: Method) -> ApiError {
    ApiError::new(
        Code::MethodNotAllowed,
        format!("this route does not take {method}; the allow header lists what it takes"),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn sane_request_ids_are_taken_over_and_others_replaced() {
        let with = |id: &[u8]| {
            request_id(&HeaderMap::from_iter([(REQUEST_ID.parse().unwrap(), HeaderValue::from_bytes(id).unwrap())]))
        };
        assert_eq!(with(b"Root=1-abc_9.z"), "Root=1-abc_9.z");
        for id in [&b""[..], b"a b", b"a\"b", &[b'x'; 129], b"\xff"] {
            let made = with(id);
            assert!(made.len() == 32 && made.bytes().all(|b| b.is_ascii_hexdigit()), "{id:?} {made}");
        }
        let made: HashSet<_> = (0..1_000).map(|_| request_id(&HeaderMap::new())).collect();
        assert_eq!(made.len(), 1_000);
    }

    #[test]
    fn the_chain_of_causes_is_one_line() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] std::io::Error);
        assert_eq!(with_sources(&Outer(std::io::Error::other("inner"))), "outer: inner");
    }
}
