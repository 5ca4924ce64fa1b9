//! The bodies of failed requests: RFC 9457 problems, and OpenAI's shape on the routes that speak its wire.

use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::ApiError;

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

/// The shape that a route's clients expect of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    Ours,
    OpenAi,
}

impl Dialect {
    fn of(path: &str) -> Self {
        let models = path.strip_prefix("/v1/models").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if models || path == "/v1/embeddings" { Dialect::OpenAi } else { Dialect::Ours }
    }
}

/// Writes the response of a failed request. `headers` that the failing layer has set, such as `allow`, are the caller's
/// to carry over.
pub(crate) fn render(error: &ApiError, uri: &Uri, request_id: &str) -> Response {
    let mut response = match Dialect::of(uri.path()) {
        Dialect::Ours => ours(error, uri, request_id),
        Dialect::OpenAi => openai(error),
    };
    if let Some(seconds) = error.retry_after_seconds() {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
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

/// OpenAI has no 422: its clients raise `BadRequestError` for what a caller has to mend.
fn openai(error: &ApiError) -> Response {
    let status = match error.code.status() {
        StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
        other => other,
    };
    let kind = match status {
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        status if status.is_server_error() => "server_error",
        _ => "invalid_request_error",
    };
    let message = error.detail.to_string();
    let body = OpenAiErrorBody { message, kind, param: error.param, code: Some(error.code.as_str()) };
    json(status, "application/json", &OpenAiError { error: body })
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
        let response = render(&error, &Uri::from_static("/v1/collections/a?x=1"), "req-1");
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
        for path in ["/v1/embeddings", "/v1/models", "/v1/models/a/b"] {
            let response = render(&error, &path.parse().unwrap(), "r");
            assert_eq!(response.status(), 400, "{path}");
            let wanted = serde_json::json!({"error": {"message": "input is empty", "type": "invalid_request_error",
                "param": "input", "code": "invalid_input"}});
            assert_eq!(body(response).await, wanted);
        }
        assert_eq!(Dialect::of("/v1/modelsx"), Dialect::Ours);
    }

    #[test]
    fn overload_carries_retry_after() {
        let response = render(&ApiError::new(Code::Overloaded, "busy"), &Uri::from_static("/"), "r");
        assert_eq!(response.headers()["retry-after"], "1");
    }
}
