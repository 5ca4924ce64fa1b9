//! The bodies of failed requests: RFC 9457 problems, and others' shapes on the routes that speak their wires.

use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::{ApiError, Code};

/// What `retry-after` says, in milliseconds.
const RETRY_AFTER_MS: &str = "retry-after-ms";

/// A failed request (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// A URI for the kind of problem: `urn:pannier:problem:` and the code.
    #[serde(rename = "type")]
    #[schema(example = "urn:pannier:problem:collection_not_found")]
    kind: String,
    /// The same for every problem of the kind.
    #[schema(example = "There is no such collection")]
    title: &'static str,
    /// The status code.
    #[schema(example = 404)]
    status: u16,
    /// What is wrong with this request, and what to change.
    detail: String,
    /// The path of the request.
    #[schema(example = "/v1/collections/articles")]
    instance: String,
    /// The kind of problem, stable.
    #[schema(example = "collection_not_found")]
    code: &'static str,
    /// The same as the response's `x-request-id`.
    request_id: String,
    #[serde(flatten)]
    #[schema(ignore)]
    extra: Option<serde_json::Map<String, serde_json::Value>>,
}

/// A failed request in OpenAI's shape; the four keys are always there.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OpenAiError {
    error: OpenAiErrorBody,
}

#[derive(Debug, Serialize, ToSchema)]
struct OpenAiErrorBody {
    /// What is wrong, and what to change.
    message: String,
    /// `invalid_request_error`, `rate_limit_error` or `server_error`.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The request's field at fault.
    param: Option<&'static str>,
    /// The kind of problem, stable.
    code: Option<&'static str>,
}

/// A failed request in the shape of text-embeddings-inference.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TeiError {
    /// What is wrong, and what to change.
    error: String,
    /// `validation`, `tokenizer`, `overloaded`, `backend` or `unhealthy`.
    #[schema(value_type = String, example = "validation")]
    error_type: &'static str,
}

/// A failed request in Ollama's shape.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OllamaError {
    /// What is wrong, and what to change.
    error: String,
}

/// The shape that a route's clients expect of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Ours,
    OpenAi,
    Tei,
    Ollama,
}

/// What OpenAI's clients ask for below `/v1`, or below the address alone where its user forgot that. Most is not there,
/// and they show a sentence of no other shape.
const OPENAI: [&str; 5] = ["/embeddings", "/models", "/chat", "/completions", "/responses"];

impl Dialect {
    /// The shape of a path, whether or not there is such a route.
    pub(crate) fn of(method: &Method, path: &str) -> Self {
        let below = path.strip_prefix("/v1").unwrap_or(path);
        let rest = OPENAI.iter().find_map(|base| below.strip_prefix(base));
        match path {
            _ if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) => Dialect::OpenAi,
            "/embed" | "/tokenize" | "/info" => Dialect::Tei,
            "/decode" | "/embed_all" | "/embed_sparse" | "/predict" | "/rerank" | "/similarity" => Dialect::Tei,
            // Its clients post to the server's root, too.
            "/" if method == Method::POST => Dialect::Tei,
            _ if path.starts_with("/api/") => Dialect::Ollama,
            _ => Dialect::Ours,
        }
    }

    /// Media type and schema of its errors.
    pub(crate) fn schema(self) -> (&'static str, &'static str) {
        match self {
            Dialect::Ours => ("application/problem+json", "Problem"),
            Dialect::OpenAi => ("application/json", "OpenAiError"),
            Dialect::Tei => ("application/json", "TeiError"),
            Dialect::Ollama => ("application/json", "OllamaError"),
        }
    }

    /// The status with which it answers a code.
    pub(crate) fn status(self, code: Code) -> StatusCode {
        match (self, code.status()) {
            // OpenAI and Ollama have no 422: their clients expect 400 for what a caller has to mend.
            (Dialect::OpenAi | Dialect::Ollama, StatusCode::UNPROCESSABLE_ENTITY) => StatusCode::BAD_REQUEST,
            (Dialect::Tei, _) if code == Code::TooManyInputs => StatusCode::PAYLOAD_TOO_LARGE,
            (_, status) => status,
        }
    }
}

/// Writes the response of a failed request. `headers` that the failing layer has set, such as `allow`, are the caller's
/// to carry over.
pub(crate) fn render(error: &ApiError, method: &Method, uri: &Uri, request_id: &str) -> Response {
    let dialect = Dialect::of(method, uri.path());
    let status = dialect.status(error.code);
    let mut response = match dialect {
        Dialect::Ours => ours(error, uri, request_id),
        Dialect::OpenAi => openai(error, status),
        Dialect::Tei => tei(error, status),
        Dialect::Ollama => json(status, "application/json", &OllamaError { error: error.detail.to_string() }),
    };
    if let Some(wait) = error.retry_after() {
        let headers = response.headers_mut();
        headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs_f64().ceil() as u64));
        // OpenAI's clients look for the finer one first.
        headers.insert(RETRY_AFTER_MS, HeaderValue::from(wait.as_millis() as u64));
    }
    if response.status() == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

fn ours(error: &ApiError, uri: &Uri, request_id: &str) -> Response {
    let status = error.code.status();
    let problem = Problem {
        kind: format!("urn:pannier:problem:{}", error.code.as_str()),
        title: error.code.title(),
        status: status.as_u16(),
        detail: error.detail.to_string(),
        instance: uri.path().to_owned(),
        code: error.code.as_str(),
        request_id: request_id.to_owned(),
        extra: error.extra.clone(),
    };
    json(status, "application/problem+json", &problem)
}

fn openai(error: &ApiError, status: StatusCode) -> Response {
    let kind = match status {
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        status if status.is_server_error() => "server_error",
        _ => "invalid_request_error",
    };
    let message = error.detail.to_string();
    let body = OpenAiErrorBody { message, kind, param: error.param, code: Some(error.code.as_str()) };
    json(status, "application/json", &OpenAiError { error: body })
}

fn tei(error: &ApiError, status: StatusCode) -> Response {
    let error_type = match error.code {
        Code::Overloaded => "overloaded",
        Code::ModelNotInstalled | Code::Stopped | Code::Starting | Code::Stopping => "unhealthy",
        _ if status.is_server_error() => "backend",
        _ => "validation",
    };
    json(status, "application/json", &TeiError { error: error.detail.to_string(), error_type })
}

fn json(status: StatusCode, content_type: &'static str, body: &impl Serialize) -> Response {
    let bytes = serde_json::to_vec(body).expect("strings and numbers always serialise");
    (status, [(header::CONTENT_TYPE, content_type)], bytes).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::error::Code;
    use http_body_util::BodyExt;

    async fn body(response: Response) -> serde_json::Value {
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        serde_json::from_slice(&bytes).unwrap()
    }

    #[tokio::test]
    async fn a_problem_has_every_member() {
        let error = ApiError::new(Code::CollectionNotFound, "there is no collection \"a\"");
        let response = render(&error, &Method::GET, &Uri::from_static("/v1/collections/a?x=1"), "req-1");
        assert_eq!(response.status(), 404);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        let wanted = serde_json::json!({
            "type": "urn:pannier:problem:collection_not_found",
            "title": "There is no such collection",
            "status": 404,
            "detail": "there is no collection \"a\"",
            "instance": "/v1/collections/a",
            "code": "collection_not_found",
            "request_id": "req-1",
        });
        assert_eq!(body(response).await, wanted);
    }

    #[tokio::test]
    async fn openai_routes_answer_in_openais_shape() {
        let error = ApiError::new(Code::InvalidInput, "input is empty").param("input");
        for path in ["/v1/embeddings", "/v1/models", "/v1/models/a/b", "/embeddings", "/v1/chat/completions"] {
            let response = render(&error, &Method::POST, &path.parse().unwrap(), "r");
            assert_eq!(response.status(), 400, "{path}");
            let wanted = serde_json::json!({"error": {"message": "input is empty", "type": "invalid_request_error",
                "param": "input", "code": "invalid_input"}});
            assert_eq!(body(response).await, wanted);
        }
        for path in ["/v1/modelsx", "/v1", "/v1/collections/chat", "/v2/embeddings"] {
            assert_eq!(Dialect::of(&Method::GET, path), Dialect::Ours, "{path}");
        }
        assert_eq!(Dialect::of(&Method::GET, "/"), Dialect::Ours);
    }

    #[tokio::test]
    async fn other_dialects_answer_in_their_shapes() {
        let error = ApiError::new(Code::InvalidInput, "inputs is empty");
        for path in ["/embed", "/tokenize", "/", "/similarity"] {
            let response = render(&error, &Method::POST, &path.parse().unwrap(), "r");
            assert_eq!(response.status(), 422, "{path}");
            let wanted = serde_json::json!({"error": "inputs is empty", "error_type": "validation"});
            assert_eq!(body(response).await, wanted);
        }
        let response =
            render(&ApiError::new(Code::Overloaded, "busy"), &Method::POST, &Uri::from_static("/embed"), "r");
        assert_eq!(response.status(), 429);
        assert_eq!(body(response).await, serde_json::json!({"error": "busy", "error_type": "overloaded"}));
        let response = render(&error, &Method::POST, &Uri::from_static("/api/embed"), "r");
        assert_eq!(response.status(), 400);
        assert_eq!(body(response).await, serde_json::json!({"error": "inputs is empty"}));
    }

    #[test]
    fn overload_carries_retry_after() {
        let retry_after = Some(std::time::Duration::from_millis(1_500));
        let error = ApiError { retry_after, ..ApiError::new(Code::Overloaded, "busy") };
        let response = render(&error, &Method::GET, &Uri::from_static("/"), "r");
        assert_eq!(
            (&response.headers()["retry-after"], &response.headers()["retry-after-ms"]),
            (&"2".parse().unwrap(), &"1500".parse().unwrap())
        );
    }
}
