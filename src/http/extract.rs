//! What handlers take from a request: names from the path, parameters, JSON bodies; every refusal is an `ApiError`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use super::bodies::{self, Held, Room, SMALL_BODY_BYTES};
use super::error::{ApiError, Code};
use super::limits;
use super::state::AppState;
use super::trim;
use super::wire::json;
use crate::snapshot::SnapshotName;
use crate::types::limits::{MAX_BODY_BYTES, MAX_SETTINGS_BYTES};
use crate::types::{CollectionName, DocumentId, NameError};

/// Most characters that a refusal repeats of an unknown parameter's name,
const MAX_NAME_CHARS: usize = 100;
/// and of the whole sentence, from its beginning and from its end.
const MAX_DETAIL: (usize, usize) = (400, 100);
/// Bodies up to this length are parsed where they arrive; longer ones on a thread that may block.
const INLINE_PARSE_BYTES: usize = 64 << 10;
/// Bodies that are not small are parsed a few at a time: what is read of them may take many times their length.
static LARGE_PARSES: Semaphore = Semaphore::const_new(4);

/// The collection that a path names.
pub(crate) struct InCollection(pub(crate) CollectionName);

/// The source that a path names; its name has the form of a collection's.
pub(crate) struct InSource(pub(crate) CollectionName);

/// The document that a path names.
pub(crate) struct DocumentPath {
    pub(crate) collection: CollectionName,
    pub(crate) id: DocumentId,
}

/// The model that a path names.
pub(crate) struct InModel(pub(crate) String);

/// The snapshot that a path names.
pub(crate) struct InSnapshot(pub(crate) SnapshotName);
/// The sink that a path names.
pub(crate) struct InSink(pub(crate) String);

/// A query string's parameters.
pub(crate) struct Params<T>(pub(crate) T);

/// A query string without parameters: of a route that has none, so that none is passed over.
pub(crate) struct NoParams;

/// A JSON body.
pub(crate) struct JsonBody<T>(pub(crate) T);

/// A JSON body, whatever its content type: what curl sends unless told otherwise.
pub(crate) struct UntypedJsonBody<T>(pub(crate) T);

/// A JSON body of settings, at most [`MAX_SETTINGS_BYTES`], that may be missing altogether.
pub(crate) struct OptionalJsonBody<T>(pub(crate) T);

async fn path_values<S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<HashMap<String, String>, ApiError> {
    match Path::<HashMap<String, String>>::from_request_parts(parts, state).await {
        Ok(Path(values)) => Ok(values),
        Err(_) => Err(ApiError::new(Code::InvalidPath, "percent-encode names and ids in the path as UTF-8")),
    }
}

impl<S: Send + Sync> FromRequestParts<S> for InCollection {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let values = path_values(parts, state).await?;
        Ok(Self(CollectionName::new(values.get("collection").map_or("", String::as_str))?))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for InSource {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let values = path_values(parts, state).await?;
        let name = CollectionName::new(values.get("source").map_or("", String::as_str));
        let of_source = |error: NameError| error.to_string().replacen("collection name", "source name", 1);
        name.map(Self).map_err(|error| ApiError::new(Code::InvalidName, of_source(error)))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for DocumentPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let values = path_values(parts, state).await?;
        let collection = CollectionName::new(values.get("collection").map_or("", String::as_str))?;
        // The end of `documents/delete` is fixed, as that of `documents/count`, and still a document may have that id.
        let fixed = parts.uri.path().rsplit('/').next().unwrap_or_default();
        let id = DocumentId::new(values.get("id").map_or(fixed, String::as_str))?;
        Ok(Self { collection, id })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for InSnapshot {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let values = path_values(parts, state).await?;
        Ok(Self(SnapshotName::new(values.get("snapshot").map_or("", String::as_str))?))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for InModel {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let mut values = path_values(parts, state).await?;
        Ok(Self(values.remove("model").unwrap_or_default()))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for InSink {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let mut values = path_values(parts, state).await?;
        Ok(Self(values.remove("sink").unwrap_or_default()))
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        // What reads the parameters would put U+FFFD in the place of other bytes, and something else would be searched.
        if parts.uri.query().is_some_and(|query| percent_decode_str(query).decode_utf8().is_err()) {
            let detail = "the query string is not UTF-8; percent-encode parameters as UTF-8";
            return Err(ApiError::new(Code::InvalidParameter, detail));
        }
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(params)) => Ok(Self(params)),
            Err(QueryRejection::FailedToDeserializeQueryString(error)) => {
                Err(ApiError::new(Code::InvalidParameter, parameter_refused(&error.body_text())))
            }
            Err(error) => Err(ApiError::new(Code::InvalidParameter, error.to_string())),
        }
    }
}

/// axum's sentence about a query string, in the words of who wrote it.
fn parameter_refused(said: &str) -> String {
    let said = said.strip_prefix("Failed to deserialize query string: ").unwrap_or(said);
    // It begins with the parameter's name, where it is about a value.
    let (name, fault) = said.split_once(": ").unwrap_or(("", said));
    let quoted = |start: &str| fault.strip_prefix(start)?.split_once('`');
    let detail = if let Some((missing, _)) = quoted("missing field `") {
        format!("parameter {missing:?} is missing")
    } else if let Some((twice, _)) = quoted("duplicate field `") {
        format!("parameter {twice:?} stands there twice")
    } else if let Some((unknown, rest)) = quoted("unknown field `") {
        format!("unknown parameter {:?}{rest}", json::shortened(unknown, MAX_NAME_CHARS, 0))
    } else {
        let fault = match fault {
            "invalid digit found in string" | "cannot parse integer from empty string" => {
                "it is no whole number from 0"
            }
            "number too large to fit in target type" => "the number is too large",
            other => other,
        };
        if name.is_empty() { fault.to_owned() } else { format!("parameter {name:?}: {fault}") }
    };
    json::shortened(&detail, MAX_DETAIL.0, MAX_DETAIL.1).into_owned()
}

impl<S: Send + Sync> FromRequestParts<S> for NoParams {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Params(sent) = Params::<Vec<(String, String)>>::from_request_parts(parts, state).await?;
        match sent.first() {
            None => Ok(Self),
            Some((name, _)) => {
                let name: String = name.chars().take(MAX_NAME_CHARS).collect();
                let detail =
                    format!("unknown parameter {name:?}: this route has none; settings of a request stand in its body");
                Err(ApiError::new(Code::InvalidParameter, detail))
            }
        }
    }
}

impl<T: DeserializeOwned + Send + 'static> FromRequest<AppState> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        json_of(request, MAX_BODY_BYTES, state).await.map(Self)
    }
}

impl<T: DeserializeOwned + Send + 'static> FromRequest<AppState> for UntypedJsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        take(&parts.headers, body, MAX_BODY_BYTES, state).await.map(Self)
    }
}

impl<T: DeserializeOwned + Default + Send + 'static> FromRequest<AppState> for OptionalJsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        if request.body().is_end_stream() {
            return Ok(Self(T::default()));
        }
        json_of(request, MAX_SETTINGS_BYTES, state).await.map(Self)
    }
}

/// The value of a JSON body of at most `most` bytes.
async fn json_of<T>(request: Request, most: usize, state: &AppState) -> Result<T, ApiError>
where
    T: DeserializeOwned + Send + 'static,
{
    let (parts, body) = request.into_parts();
    if !is_json(&parts.headers) {
        return Err(ApiError::new(Code::UnsupportedMediaType, "send JSON with \"Content-Type: application/json\""));
    }
    take(&parts.headers, body, most, state).await
}

/// Reads and parses a body of at most `most` bytes, once there is room for it.
async fn take<T>(headers: &HeaderMap, body: Body, most: usize, state: &AppState) -> Result<T, ApiError>
where
    T: DeserializeOwned + Send + 'static,
{
    check_encoding(headers)?;
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > most as u64) {
        return Err(too_large(most));
    }
    let (bytes, mut held) = read(body, declared.map(|length| length as usize), most, state).await?;
    let length = bytes.len();
    let (value, taken) = parse(bytes).await?;
    if let Some(held) = &mut held {
        // Numbers and texts take twice what they are written with, at most.
        held.settle(2 * length + taken)?;
    }
    bodies::keep(held);
    Ok(value)
}

fn too_large(most: usize) -> ApiError {
    let instead = if most < MAX_BODY_BYTES { "" } else { "; send less at once or use the import stream" };
    ApiError::new(Code::BodyTooLarge, format!("the body is longer than {most} bytes{instead}"))
}

fn is_json(headers: &HeaderMap) -> bool {
    media_type(headers).is_some_and(|media| media == "application/json" || media.ends_with("+json"))
}

/// The content type without its parameters, in lower case.
pub(crate) fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

/// Reads a whole body of at most `most` bytes, once there is room for it. One that does not declare its length asks for
/// room when it turns out to be long.
async fn read(
    body: Body,
    declared: Option<usize>,
    most: usize,
    state: &AppState,
) -> Result<(Bytes, Option<Held>), ApiError> {
    let (timeout, room) = (state.config().limits.body_timeout, state.body_room());
    let mut body = Limited::new(body, most);
    let Some(length) = declared else { return read_undeclared(&mut body, most, timeout, room).await };
    let held = room.take(length, timeout).await?;
    let bytes = in_time(timeout, timeout, most, body.collect()).await?.to_bytes();
    trim::after(bytes.len());
    Ok((bytes, held))
}

async fn read_undeclared(
    body: &mut Limited<Body>,
    most: usize,
    timeout: Duration,
    room: &Arc<Room>,
) -> Result<(Bytes, Option<Held>), ApiError> {
    let (started, mut bytes) = (Instant::now(), Vec::new());
    let begin = async {
        while bytes.len() <= SMALL_BODY_BYTES {
            match body.frame().await.transpose()? {
                // Trailers carry nothing of it.
                Some(frame) => frame.data_ref().into_iter().for_each(|data| bytes.extend_from_slice(data)),
                None => return Ok(true),
            }
        }
        Ok::<_, axum::BoxError>(false)
    };
    let is_whole = in_time(timeout, timeout, most, begin).await?;
    let mut held = None;
    if !is_whole {
        let left = timeout.saturating_sub(started.elapsed());
        held = room.take(most, timeout).await?;
        let rest = in_time(left, timeout, most, body.collect()).await?.to_bytes();
        bytes.extend_from_slice(&rest);
    }
    trim::after(bytes.len());
    Ok((bytes.into(), held))
}

/// What is read of a body of at most `most` bytes within `left`, which is what is left of `timeout`.
async fn in_time<T>(
    left: Duration,
    timeout: Duration,
    most: usize,
    read: impl Future<Output = Result<T, axum::BoxError>>,
) -> Result<T, ApiError> {
    match limits::reading_body(tokio::time::timeout(left, read)).await {
        Ok(Ok(read)) => Ok(read),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(most)),
        Ok(Err(_)) => Err(ApiError::new(Code::BodyIncomplete, "the body ended before its announced length")),
        Err(_) => Err(limits::slow_body(timeout)),
    }
}

/// Refuses compressed bodies, which would be read as they are.
///
/// # Errors
/// [`Code::UnsupportedMediaType`].
pub(crate) fn check_encoding(headers: &HeaderMap) -> Result<(), ApiError> {
    match headers.get(header::CONTENT_ENCODING) {
        Some(encoding) if !encoding.as_bytes().eq_ignore_ascii_case(b"identity") => {
            let detail = "compressed bodies are not taken; send it as it is, without \"Content-Encoding\"";
            Err(ApiError::new(Code::UnsupportedMediaType, detail))
        }
        _ => Ok(()),
    }
}

/// The value, and the bytes of memory that its parts of any shape take.
pub(crate) async fn parse<T: DeserializeOwned + Send + 'static>(bytes: Bytes) -> Result<(T, usize), ApiError> {
    if bytes.len() <= INLINE_PARSE_BYTES {
        return json::parse_measured(&bytes);
    }
    let place = match bytes.len() > SMALL_BODY_BYTES {
        true => Some(LARGE_PARSES.acquire().await.map_err(ApiError::internal)?),
        false => None,
    };
    let task = tokio::task::spawn_blocking(move || {
        let _place = place;
        json::parse_measured(&bytes)
    });
    task.await.unwrap_or_else(|error| Err(ApiError::internal(error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    /// What a query string is refused with.
    async fn refused<T: DeserializeOwned>(query: &str) -> String {
        let request = axum::http::Request::get(format!("/?{query}")).body(()).unwrap();
        let (mut parts, ()) = request.into_parts();
        let Err(error) = Params::<T>::from_request_parts(&mut parts, &()).await else { panic!("{query} was taken") };
        assert_eq!(error.code, Code::InvalidParameter, "{query}");
        error.detail.into_owned()
    }

    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Asked {
        q: String,
        limit: Option<u32>,
    }

    #[tokio::test]
    async fn parameters_that_are_not_utf8_are_refused_and_none_is_changed() {
        for query in ["q=caf%e9", "q=a&limit=%ff", "%c3=1&%a9=2", "q=%c3&q=%a9"] {
            assert!(refused::<Asked>(query).await.contains("percent-encode parameters as UTF-8"), "{query}");
            assert!(refused::<Vec<(String, String)>>(query).await.contains("as UTF-8"), "{query}");
        }
        let (mut parts, ()) = axum::http::Request::get("/?q=caf%C3%A9+%2B&limit=3").body(()).unwrap().into_parts();
        let Ok(Params(asked)) = Params::<Asked>::from_request_parts(&mut parts, &()).await else { panic!("refused") };
        assert_eq!((asked.q.as_str(), asked.limit), ("caf\u{e9} +", Some(3)));
    }

    #[tokio::test]
    async fn a_refused_parameter_is_named() {
        assert_eq!(refused::<Asked>("limit=1").await, "parameter \"q\" is missing");
        assert_eq!(refused::<Asked>("q=a&limit=x").await, "parameter \"limit\": it is no whole number from 0");
        assert_eq!(refused::<Asked>("q=a&limit=99999999999").await, "parameter \"limit\": the number is too large");
        assert_eq!(refused::<Asked>("q=a&q=b").await, "parameter \"q\" stands there twice");
        assert_eq!(refused::<Asked>("q=a&page=2").await, "unknown parameter \"page\", expected `q` or `limit`");
        let long = format!("q=a&{}=1", "p".repeat(10_000));
        assert!(refused::<Asked>(&long).await.len() < 400, "the name was repeated");
    }

    #[test]
    fn only_json_types_are_json() {
        let is = |value: &'static str| {
            is_json(&HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(value))]))
        };
        assert!(is("application/json") && is("Application/JSON; charset=utf-8") && is("application/x+json"));
        assert!(!is("text/plain") && !is("application/x-www-form-urlencoded") && !is("application/jsonp"));
        assert!(!is_json(&HeaderMap::new()));
    }
}
