//! The API's description, generated from the handlers and the wire types.

use std::sync::LazyLock;

use axum::http::{Method, header};
use axum::response::IntoResponse;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::schema::{Object, Type};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{Content, Header, OpenApi as Document, Ref, RefOr, Response, ResponseBuilder, Schema};
use utoipa::{Modify, OpenApi};

use super::error::{ApiError, Code};
use super::observe::HEALTH_ROUTES;
use super::problem::{Dialect, OllamaError, OpenAiError, Problem, TeiError};
use super::{collections, documents, health, import, metrics, models, ollama, openai, patch, replication, search};
use super::{snapshots, sources, tei, template};

#[derive(OpenApi)]
#[openapi(
    info(title = "Pannier", description = "A vector database that lives beside an application. Failed requests answer \
        with RFC 9457 problems whose `code` is stable."),
    paths(
        health::hello, health::livez, health::readyz, health::healthz, health::health, health::version,
        metrics::render, serve,
        collections::list, collections::create, collections::read, collections::drop, collections::stats,
        template::preview,
        sources::read, sources::write, sources::forget,
        documents::upsert, documents::list, documents::read, documents::delete, documents::delete_many,
        documents::count, patch::patch, patch::patch_many,
        import::import,
        search::search, search::search_by_url, search::search_batch,
        snapshots::list, snapshots::create, snapshots::read, snapshots::delete, snapshots::verify, snapshots::restore,
        replication::add, replication::list, replication::read, replication::remove, replication::pause,
        replication::resume, replication::verify, replication::repair,
        openai::embeddings, models::list, models::read,
        tei::embed, tei::embed_at_root, tei::tokenize, tei::info,
        ollama::embed, ollama::embed_prompt, ollama::tags, ollama::version,
    ),
    components(schemas(Problem, OpenAiError, TeiError, OllamaError)),
    modifiers(&Failures, &Progress, &Security),
)]
struct Api;

/// The description as JSON text, made once.
pub fn openapi_json() -> &'static str {
    static TEXT: LazyLock<String> =
        LazyLock::new(|| Api::openapi().to_json().expect("the generated description always serialises"));
    &TEXT
}

/// Describes this API.
#[utoipa::path(
    get, path = "/openapi.json", operation_id = "openapi", tag = "operations",
    responses((status = 200, body = Object, description = "OpenAPI 3.1."))
)]
pub(crate) async fn serve() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], openapi_json())
}

/// Adds to every operation the ways in which any request of its kind can fail.
struct Failures;

impl Modify for Failures {
    fn modify(&self, document: &mut Document) {
        for (path, item) in &mut document.paths.paths {
            for (method, changes, operation) in operations(path, item) {
                let dialect = Dialect::of(&method, path);
                for status in statuses(path, changes, operation) {
                    let added = failure(status, dialect);
                    operation.responses.responses.entry(status.to_string()).or_insert(RefOr::T(added));
                }
            }
        }
    }
}

/// Each operation with its method, and whether it changes what is stored.
fn operations<'a>(path: &str, item: &'a mut PathItem) -> impl Iterator<Item = (Method, bool, &'a mut Operation)> {
    let post_changes = path.starts_with("/admin/")
        || path.starts_with("/v1/collections/")
            && !["/search", "/preview", "/count"].iter().any(|reads| path.contains(reads));
    let methods = [
        (Method::GET, false, &mut item.get),
        (Method::PUT, true, &mut item.put),
        (Method::POST, post_changes, &mut item.post),
        (Method::DELETE, true, &mut item.delete),
        (Method::PATCH, true, &mut item.patch),
    ];
    methods.into_iter().filter_map(|(method, changes, operation)| Some((method, changes, operation.as_mut()?)))
}

/// Statuses that the layers and the extractors answer with, by what an operation takes.
fn statuses(path: &str, changes: bool, operation: &Operation) -> Vec<u16> {
    if HEALTH_ROUTES.contains(&path) {
        return vec![500];
    }
    let mut statuses = vec![401, 403, 421, 500];
    let embeds = operation.tags.iter().flatten().any(|tag| tag == tei::TAG || tag == ollama::TAG);
    if path.starts_with("/v1/") || path.starts_with("/admin/") || path == "/metrics" || embeds {
        statuses.extend([429, 503]);
        statuses.push(if changes { 507 } else { 504 });
    }
    if path.contains('{') || path.starts_with("/v1/collections") || path.starts_with("/admin/") {
        // A path or a parameter that is not valid.
        statuses.push(400);
    }
    if path.starts_with("/admin/") {
        statuses.extend([404, 409, 422, 503]);
    }
    if path.starts_with("/v1/collections/") {
        // A collection may stand in a database.
        statuses.extend([409, 502, 504]);
    }
    if path.starts_with("/v1/collections/") || embeds && operation.request_body.is_some() {
        statuses.push(422);
    }
    if operation.request_body.is_some() {
        statuses.extend([400, 408, 413, 415]);
    }
    statuses
}

fn failure(status: u16, dialect: Dialect) -> Response {
    let codes: Vec<Code> = Code::ALL.iter().copied().filter(|code| dialect.status(*code).as_u16() == status).collect();
    let names: Vec<&str> = codes.iter().map(|code| code.as_str()).collect();
    let (media, schema) = dialect.schema();
    let content = Content::new(Some(RefOr::Ref::<Schema>(Ref::from_schema_name(schema))));
    let response = ResponseBuilder::new().description(format!("One of: {}.", names.join(", "))).content(media, content);
    if codes.iter().all(|code| ApiError::new(*code, "").retry_after().is_none()) {
        return response.build();
    }
    let wait = |name: &str, unit: &str| {
        let mut header = Header::new(Object::with_type(Type::Integer));
        header.description = Some(format!("{unit} after which the same request may succeed, where it may."));
        (name.to_owned(), header)
    };
    let headers = [wait("Retry-After", "Seconds"), wait("retry-after-ms", "Milliseconds")];
    headers.into_iter().fold(response, |response, (name, header)| response.header(name, header)).build()
}

/// Says what the problem of an import that ends early has beside its other members.
struct Progress;

impl Modify for Progress {
    fn modify(&self, document: &mut Document) {
        let problem = document.components.as_mut().and_then(|components| components.schemas.get_mut("Problem"));
        if let Some(RefOr::T(Schema::Object(problem))) = problem {
            let mut report = Ref::from_schema_name("ImportView");
            report.description = "Of an import that ended early alone: the report so far.".to_owned();
            problem.properties.insert("progress".to_owned(), report.into());
        }
    }
}

/// Says how a key is sent, where the server asks for one.
struct Security;

impl Modify for Security {
    fn modify(&self, document: &mut Document) {
        let in_header = |name: &str| SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new(name)));
        let schemes = [
            ("bearer", SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build())),
            ("xApiKey", in_header("x-api-key")),
            ("apiKey", in_header("api-key")),
        ];
        // The empty requirement: a server on loopback may ask for no key.
        let mut allowed = vec![SecurityRequirement::default()];
        allowed.extend(schemes.iter().map(|(name, _)| SecurityRequirement::new(*name, Vec::<String>::new())));
        document.security = Some(allowed);
        let components = document.components.get_or_insert_default();
        components.security_schemes.extend(schemes.map(|(name, scheme)| (name.to_owned(), scheme)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn every_operation_has_an_id_and_describes_its_failures() {
        let document: Value = serde_json::from_str(openapi_json()).unwrap();
        let mut ids = std::collections::BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let id = operation["operationId"].as_str().unwrap();
                assert!(ids.insert(id.to_owned()), "{method} {path}: {id} stands twice");
                assert!(operation["responses"]["500"].is_object(), "{method} {path}");
                let done = ["200", "201"].iter().any(|status| operation["responses"][status].is_object());
                assert!(done, "{method} {path}");
            }
        }
        assert_eq!(ids.len(), 54);
    }

    #[test]
    fn failures_of_a_database_are_described_where_a_collection_is_asked() {
        let document: Value = serde_json::from_str(openapi_json()).unwrap();
        for (path, method) in
            [("search", "post"), ("documents", "post"), ("documents", "patch"), ("documents", "get"), ("stats", "get")]
        {
            let responses = &document["paths"][format!("/v1/collections/{{collection}}/{path}")][method]["responses"];
            for (status, code) in [
                ("409", "backend_drift"),
                ("502", "backend_rights"),
                ("503", "backend_unreachable"),
                ("504", "backend_timeout"),
            ] {
                let said = responses[status]["description"].as_str().unwrap_or_default();
                assert!(said.contains(code), "{method} {path} {status}: {said}");
            }
        }
    }

    #[test]
    fn a_change_of_the_sinks_may_find_the_disk_full_and_is_not_cut_off() {
        let document: Value = serde_json::from_str(openapi_json()).unwrap();
        for path in ["", "/{sink}/pause", "/{sink}/resume"] {
            let responses = &document["paths"][format!("/admin/replication{path}")]["post"]["responses"];
            assert!(responses["507"].is_object() && responses["504"].is_null(), "{path}: {responses}");
        }
    }

    #[test]
    fn keys_waits_and_the_report_of_an_import_are_described() {
        let document: Value = serde_json::from_str(openapi_json()).unwrap();
        let schemes = document["components"]["securitySchemes"].as_object().unwrap();
        let names: std::collections::BTreeSet<_> =
            schemes.values().map(|scheme| scheme["name"].as_str().or(scheme["scheme"].as_str()).unwrap()).collect();
        assert_eq!(names, ["api-key", "bearer", "x-api-key"].into());
        let required = document["security"].as_array().unwrap();
        assert!(schemes.keys().all(|name| required.iter().any(|one| one.get(name).is_some())), "{required:?}");
        assert!(required.iter().any(|one| one.as_object().unwrap().is_empty()), "{required:?}");
        let progress = &document["components"]["schemas"]["Problem"]["properties"]["progress"]["$ref"];
        assert_eq!(progress, "#/components/schemas/ImportView");
        let responses = &document["paths"]["/v1/collections/{collection}/documents"]["post"]["responses"];
        for (status, waits) in [("429", true), ("503", true), ("507", true), ("413", false), ("500", false)] {
            assert!(responses[status].is_object(), "{status}");
            for name in ["Retry-After", "retry-after-ms"] {
                assert_eq!(responses[status]["headers"][name].is_object(), waits, "{status} {name}");
            }
        }
    }

    #[test]
    fn a_patch_has_an_example_and_its_conflict() {
        let document: Value = serde_json::from_str(openapi_json()).unwrap();
        let schemas = &document["components"]["schemas"];
        for (path, body) in [("documents", "PatchesBody"), ("documents/{id}", "PatchBody")] {
            let operation = &document["paths"][format!("/v1/collections/{{collection}}/{path}")]["patch"];
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"]["$ref"];
            assert_eq!(schema, &format!("#/components/schemas/{body}"));
            assert!(schemas[body]["example"].is_object(), "{body}: {}", schemas[body]);
            let said = operation["responses"]["409"]["description"].as_str().unwrap_or_default();
            assert!(said.contains("seq_conflict"), "{path}: {said}");
            assert!(operation["responses"]["507"].is_object() && operation["responses"]["422"].is_object(), "{path}");
        }
        assert!(schemas["DocumentPatch"]["required"].as_array().is_some_and(|names| names.len() == 1));
    }

    #[test]
    fn values_of_metadata_are_of_any_type() {
        let document: Value = serde_json::from_str(openapi_json()).unwrap();
        for name in ["HitGroup", "FacetValue"] {
            let value = &document["components"]["schemas"][name]["properties"]["value"];
            assert!(value.is_object() && value.get("type").is_none() && value.get("$ref").is_none(), "{name}: {value}");
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn references(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(map) => {
                    for (key, value) in map {
                        match value.as_str() {
                            Some(target) if key == "$ref" => found.push(target.to_owned()),
                            _ => references(value, found),
                        }
                    }
                }
                Value::Array(items) => items.iter().for_each(|item| references(item, found)),
                _ => {}
            }
        }
        let document: Value = serde_json::from_str(openapi_json()).unwrap();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 20);
        for target in found {
            assert!(document.pointer(target.trim_start_matches('#')).is_some(), "{target}");
        }
    }
}
