//! What a request can fail with, and the only place that turns it into a status code.

use std::borrow::Cow;
use std::error::Error;
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::collection::{BackendFault, CollectionError};
use crate::embed::EmbedError;
use crate::index::IndexError;
use crate::log::LogError;
use crate::meta::is_disk_full;
use crate::segment::SegmentError;
use crate::types::{DefinitionError, FilterError, MetadataError, NameError, VectorError};

macro_rules! codes {
    ($($name:ident $code:literal $status:ident $title:literal;)*) => {
        /// A stable code; clients branch on it, so a code is never renamed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Code { $($name,)* }

        impl Code {
            /// The code as it stands on the wire.
            pub(crate) fn as_str(self) -> &'static str {
                match self { $(Code::$name => $code,)* }
            }

            /// The same sentence for every occurrence of the code.
            pub(crate) fn title(self) -> &'static str {
                match self { $(Code::$name => $title,)* }
            }

            pub(crate) fn status(self) -> StatusCode {
                match self { $(Code::$name => StatusCode::$status,)* }
            }

            /// Every code, for the API's description and the tests.
            pub(crate) const ALL: &[Code] = &[$(Code::$name,)*];
        }
    };
}

codes! {
    InvalidJson "invalid_json" BAD_REQUEST "The body is not valid JSON";
    JsonTooDeep "json_too_deep" BAD_REQUEST "The body is nested too deep";
    InvalidPath "invalid_path" BAD_REQUEST "The path is not valid UTF-8";
    InvalidParameter "invalid_parameter" BAD_REQUEST "A query parameter is not valid";
    InvalidCursor "invalid_cursor" BAD_REQUEST "The cursor is not valid";
    BodyIncomplete "body_incomplete" BAD_REQUEST "The body ended early";
    Unauthorized "unauthorized" UNAUTHORIZED "An API key is needed";
    OriginNotAllowed "origin_not_allowed" FORBIDDEN "The origin is not allowed";
    RouteNotFound "route_not_found" NOT_FOUND "There is no such route";
    CollectionNotFound "collection_not_found" NOT_FOUND "There is no such collection";
    DocumentNotFound "document_not_found" NOT_FOUND "There is no such document";
    SourceNotFound "source_not_found" NOT_FOUND "Nothing is kept of the source";
    ModelNotFound "model_not_found" NOT_FOUND "There is no such model";
    SnapshotNotFound "snapshot_not_found" NOT_FOUND "There is no such snapshot";
    MethodNotAllowed "method_not_allowed" METHOD_NOT_ALLOWED "The route does not take this method";
    BodyTimeout "body_timeout" REQUEST_TIMEOUT "The body came too slowly";
    DefinitionConflict "definition_conflict" CONFLICT "The collection exists with another definition";
    BackendConflict "backend_conflict" CONFLICT "The table of the collection is another than needed";
    BackendDrift "backend_drift" CONFLICT "The table of the collection is not as it was made";
    BackendDimMismatch "backend_dim_mismatch" CONFLICT "The table of the collection has another dimension";
    SeqConflict "seq_conflict" CONFLICT "A document is not at the seq that was expected";
    SnapshotExists "snapshot_exists" CONFLICT "A snapshot of this name exists";
    RestoreNeedsStop "restore_needs_stop" CONFLICT "A running server is not restored";
    SinkNotFound "sink_not_found" NOT_FOUND "There is no such sink";
    SinkConflict "sink_conflict" CONFLICT "There is a sink of this name already";
    SinkBusy "sink_busy" CONFLICT "The sink cannot do this now";
    BodyTooLarge "body_too_large" PAYLOAD_TOO_LARGE "The body is too large";
    TooManyInputs "too_many_inputs" UNPROCESSABLE_ENTITY "Too many inputs in one request";
    UnsupportedMediaType "unsupported_media_type" UNSUPPORTED_MEDIA_TYPE "The content type is not supported";
    HostNotAllowed "host_not_allowed" MISDIRECTED_REQUEST "The host is not allowed";
    UnknownField "unknown_field" UNPROCESSABLE_ENTITY "The body has an unknown field";
    MissingField "missing_field" UNPROCESSABLE_ENTITY "The body lacks a field";
    InvalidValue "invalid_value" UNPROCESSABLE_ENTITY "A value has the wrong type or form";
    IntegerOutOfRange "integer_out_of_range" UNPROCESSABLE_ENTITY "An integer is outside the signed 64-bit range";
    InvalidName "invalid_name" UNPROCESSABLE_ENTITY "A name or id is not allowed";
    UnknownModel "unknown_model" UNPROCESSABLE_ENTITY "The request names an unknown model";
    InvalidDefinition "invalid_definition" UNPROCESSABLE_ENTITY "The definition is not allowed";
    FieldTypeMismatch "field_type_mismatch" UNPROCESSABLE_ENTITY "A metadata field has another type than declared";
    InvalidMetadata "invalid_metadata" UNPROCESSABLE_ENTITY "The metadata are not allowed";
    InvalidFilter "invalid_filter" UNPROCESSABLE_ENTITY "The filter is not valid";
    FilterTypeMismatch "filter_type_mismatch" UNPROCESSABLE_ENTITY "The filter asks a field what its type cannot answer";
    ContradictoryFilter "contradictory_filter" UNPROCESSABLE_ENTITY "No document can pass the filter";
    InvalidQuery "invalid_query" UNPROCESSABLE_ENTITY "The query is not valid";
    DimMismatch "dim_mismatch" UNPROCESSABLE_ENTITY "A vector has the wrong dimension";
    InvalidVector "invalid_vector" UNPROCESSABLE_ENTITY "A vector is not usable";
    NothingToIndex "nothing_to_index" UNPROCESSABLE_ENTITY "A document has neither text nor vector";
    NoModel "no_model" UNPROCESSABLE_ENTITY "The collection has no model";
    DuplicateId "duplicate_id" UNPROCESSABLE_ENTITY "An id stands twice in one request";
    TooManyDocuments "too_many_documents" UNPROCESSABLE_ENTITY "Too many documents in one request";
    TooManyChunks "too_many_chunks" UNPROCESSABLE_ENTITY "A text has too many chunks";
    InvalidChunks "invalid_chunks" UNPROCESSABLE_ENTITY "The chunks of a document are not allowed";
    TooLong "too_long" UNPROCESSABLE_ENTITY "Something is longer than its limit";
    AnswerTooLarge "answer_too_large" UNPROCESSABLE_ENTITY "The answer would be too large";
    OutOfRange "out_of_range" UNPROCESSABLE_ENTITY "A number is outside its range";
    ModeNotSupported "mode_not_supported" UNPROCESSABLE_ENTITY "This program has no such search mode";
    InvalidTemplate "invalid_template" UNPROCESSABLE_ENTITY "The template cannot be read";
    TemplateFailed "template_failed" UNPROCESSABLE_ENTITY "The template makes no text of a document";
    TextIsMade "text_is_made" UNPROCESSABLE_ENTITY "The collection's template makes the text";
    PersonalData "personal_data" UNPROCESSABLE_ENTITY "A document carries personal data";
    QuantizationNotSupported "quantization_not_supported" UNPROCESSABLE_ENTITY "The quantization does not suit the vectors";
    WaitNotSupported "wait_not_supported" UNPROCESSABLE_ENTITY "Not waiting for a write is not supported";
    DimensionsNotSupported "dimensions_not_supported" UNPROCESSABLE_ENTITY "The model does not make such vectors";
    InvalidInput "invalid_input" UNPROCESSABLE_ENTITY "The input cannot be embedded";
    InvalidSink "invalid_sink" UNPROCESSABLE_ENTITY "The sink's settings are not allowed";
    NotOnBackend "not_on_backend" UNPROCESSABLE_ENTITY "The collection's backend cannot do it";
    BackendRefused "backend_refused" UNPROCESSABLE_ENTITY "The collection's database refuses what was sent";
    ModelNotSupported "model_not_supported" UNPROCESSABLE_ENTITY "This program cannot run the model for this";
    Overloaded "overloaded" TOO_MANY_REQUESTS "Too much work is waiting";
    Internal "internal" INTERNAL_SERVER_ERROR "Something failed on our side";
    SnapshotDamaged "snapshot_damaged" INTERNAL_SERVER_ERROR "The snapshot is damaged";
    Storage "storage" INTERNAL_SERVER_ERROR "The store failed";
    ModelFailed "model_failed" INTERNAL_SERVER_ERROR "The embedding model failed";
    BackendAuthentication "backend_authentication" BAD_GATEWAY "The collection's database rejects the user name or password";
    BackendTls "backend_tls" BAD_GATEWAY "TLS to the collection's database failed";
    BackendRights "backend_rights" BAD_GATEWAY "The role of the collection's database lacks a right";
    BackendExtension "backend_extension" BAD_GATEWAY "The collection's database has no usable pgvector";
    BackendSettings "backend_settings" BAD_GATEWAY "The connection settings of the collection's database are wrong";
    SinkFailed "sink_failed" SERVICE_UNAVAILABLE "The sink's database failed";
    KeywordsNotReady "keywords_not_ready" SERVICE_UNAVAILABLE "The keyword index is not ready";
    BackendUnreachable "backend_unreachable" SERVICE_UNAVAILABLE "The collection's database cannot be reached";
    BackendBusy "backend_busy" SERVICE_UNAVAILABLE "Other transactions of the collection's database were in the way";
    WriteUnknown "write_unknown" SERVICE_UNAVAILABLE "Whether the write was done is not known";
    BackendFailed "backend_failed" SERVICE_UNAVAILABLE "The collection's database failed";
    NotWritten "not_written" SERVICE_UNAVAILABLE "The disk refused the write";
    Stopped "stopped" SERVICE_UNAVAILABLE "The database no longer accepts writes";
    Starting "starting" SERVICE_UNAVAILABLE "The server is starting";
    Stopping "stopping" SERVICE_UNAVAILABLE "The server is stopping";
    ModelNotInstalled "model_not_installed" SERVICE_UNAVAILABLE "The embedding model is not installed";
    ModelChanged "model_changed" SERVICE_UNAVAILABLE "The installed model is another than the collection's";
    Timeout "timeout" GATEWAY_TIMEOUT "The request took too long";
    BackendTimeout "backend_timeout" GATEWAY_TIMEOUT "A statement of the collection's database took too long";
    StorageFull "storage_full" INSUFFICIENT_STORAGE "The disk is full";
}

/// What a client should wait where nothing is known of what stands in the way.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A failed request. It becomes a response only through [`super::observe`], which knows the path, the request's id and
/// the dialect to answer in.
#[derive(Debug)]
pub(crate) struct ApiError {
    pub(crate) code: Code,
    /// For the client: what is wrong with this request and what to change.
    pub(crate) detail: Cow<'static, str>,
    /// The parameter at fault, where a dialect names it.
    pub(crate) param: Option<&'static str>,
    /// When to come again, where it is known.
    pub(crate) retry_after: Option<Duration>,
    /// More members of the problem's object.
    pub(crate) extra: Option<serde_json::Map<String, serde_json::Value>>,
    /// For the log, never for the client.
    pub(crate) cause: Option<Box<dyn Error + Send + Sync>>,
}

impl ApiError {
    pub(crate) fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code, detail: detail.into(), param: None, retry_after: None, extra: None, cause: None }
    }

    /// A fault of ours: the client reads a generic sentence, the log the cause.
    pub(crate) fn internal(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::fault(Code::Internal, "an unexpected fault; the server's log has it under this request's id", cause)
    }

    pub(crate) fn param(mut self, param: &'static str) -> Self {
        self.param = Some(param);
        self
    }

    /// Whether the request itself is at fault, so that it fails again however often it is sent.
    pub(crate) fn is_callers_fault(&self) -> bool {
        self.code.status().is_client_error() && self.code != Code::Overloaded
    }

    /// Whether a document is at fault, so that others may be written without it: not the collection, table or model.
    pub(crate) fn is_documents_fault(&self) -> bool {
        use Code::{CollectionNotFound, DimensionsNotSupported, InvalidTemplate, ModelNotSupported, UnknownModel};
        let of_models = [UnknownModel, ModelNotSupported, DimensionsNotSupported];
        let mut of_collections = [CollectionNotFound, InvalidTemplate].into_iter().chain(of_models);
        let is_of_collection =
            self.code.status() == StatusCode::CONFLICT || of_collections.any(|code| code == self.code);
        self.is_callers_fault() && !is_of_collection
    }

    /// When the same request may succeed.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        use Code::{
            BackendBusy, BackendUnreachable, KeywordsNotReady, NotWritten, Overloaded, Starting, Stopping, StorageFull,
            WriteUnknown,
        };
        let of_backends = [BackendUnreachable, BackendBusy, WriteUnknown];
        let mut later =
            [Overloaded, KeywordsNotReady, NotWritten, Starting, Stopping, StorageFull].into_iter().chain(of_backends);
        self.retry_after.or(later.any(|code| code == self.code).then_some(RETRY_AFTER))
    }

    fn fault(code: Code, detail: &'static str, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { cause: Some(cause.into()), ..Self::new(code, detail) }
    }

    /// A fault of the store or its disk: the client learns whether the disk is full, and which file is damaged where.
    pub(crate) fn storage(cause: impl Error + Send + Sync + 'static) -> Self {
        if is_disk_full(&cause) {
            return Self::fault(
                Code::StorageFull,
                "the disk of the data directory is full; free space and retry",
                cause,
            );
        }
        match (&cause as &dyn Error).downcast_ref().and_then(damage) {
            Some(damage) => Self {
                detail: format!("{damage}; restore a snapshot, or save what can be read with `pannier salvage`").into(),
                ..Self::fault(Code::Storage, "", cause)
            },
            None => {
                Self::fault(Code::Storage, "the store could not read or write; the server's log has the cause", cause)
            }
        }
    }
}

/// The damaged file and the place in it, where that is why.
fn damage(error: &CollectionError) -> Option<String> {
    let segment = match error {
        CollectionError::Segment(error) | CollectionError::Index(IndexError::Segment(error)) => error,
        _ => return None,
    };
    matches!(segment, SegmentError::Damaged { .. }).then(|| segment.to_string())
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        response.extensions_mut().insert(Failure(std::sync::Arc::new(self)));
        response
    }
}

/// How an [`ApiError`] travels in a response's extensions to the layer that writes its body.
#[derive(Clone)]
pub(crate) struct Failure(pub(crate) std::sync::Arc<ApiError>);

fn vector_code(error: &VectorError) -> Code {
    match error {
        VectorError::DimMismatch { .. } => Code::DimMismatch,
        _ => Code::InvalidVector,
    }
}

fn filter_code(error: &FilterError) -> Code {
    match error {
        FilterError::WrongType { .. } => Code::FilterTypeMismatch,
        FilterError::Contradiction { .. } => Code::ContradictoryFilter,
        _ => Code::InvalidFilter,
    }
}

fn definition_code(error: &DefinitionError) -> Code {
    match error {
        DefinitionError::FieldType { .. } => Code::FieldTypeMismatch,
        DefinitionError::BinaryDim { .. } => Code::QuantizationNotSupported,
        _ => Code::InvalidDefinition,
    }
}

impl From<CollectionError> for ApiError {
    fn from(error: CollectionError) -> Self {
        use CollectionError as E;
        let code = match &error {
            E::NotFound { .. } => Code::CollectionNotFound,
            E::QueryDocumentNotFound { .. } | E::DocumentNotFound { .. } => Code::DocumentNotFound,
            E::EmptyPatch { .. } => Code::InvalidValue,
            E::SeqConflict { .. } => Code::SeqConflict,
            E::Exists { .. } => Code::DefinitionConflict,
            E::Name(_) => Code::InvalidName,
            E::Definition(e) | E::Fields { source: e, .. } => definition_code(e),
            E::DocumentVector { source: e, .. } | E::QueryVector(e) => vector_code(e),
            E::Metadata { .. } => Code::InvalidMetadata,
            E::TooLong { .. } | E::Log(LogError::TooLarge { .. }) => Code::TooLong,
            E::TooManyDocuments { .. } => Code::TooManyDocuments,
            E::TooManyChunks { .. } => Code::TooManyChunks,
            E::Chunks { .. } => Code::InvalidChunks,
            E::DuplicateId { .. } => Code::DuplicateId,
            E::NothingToIndex { .. } => Code::NothingToIndex,
            E::NoModel { .. } => Code::NoModel,
            E::Query { .. } => Code::InvalidQuery,
            E::TemplateDefinition { .. } => Code::InvalidTemplate,
            E::Template { .. } => Code::TemplateFailed,
            E::TextIsMade { .. } => Code::TextIsMade,
            E::Guard { .. } => Code::PersonalData,
            E::KeywordsOff => Code::ModeNotSupported,
            E::KeywordsNotReady { .. } => Code::KeywordsNotReady,
            E::AnswerTooLarge { .. } => Code::AnswerTooLarge,
            E::Filter(e) => filter_code(e),
            E::OutOfRange { .. } => Code::OutOfRange,
            E::NotOnBackend { .. } => Code::NotOnBackend,
            E::Backend { fault, .. } => match fault {
                BackendFault::Unreachable => Code::BackendUnreachable,
                BackendFault::Busy => Code::BackendBusy,
                BackendFault::Unknown => Code::WriteUnknown,
                BackendFault::Refused => Code::BackendRefused,
                BackendFault::Conflict => Code::BackendConflict,
                BackendFault::Drift => Code::BackendDrift,
                BackendFault::Dim => Code::BackendDimMismatch,
                BackendFault::Timeout => Code::BackendTimeout,
                BackendFault::Authentication => Code::BackendAuthentication,
                BackendFault::Tls => Code::BackendTls,
                BackendFault::Rights => Code::BackendRights,
                BackendFault::Extension => Code::BackendExtension,
                BackendFault::Settings => Code::BackendSettings,
                BackendFault::Failed => Code::BackendFailed,
            },
            E::SessionsBusy { .. } | E::Overloaded | E::Overtaken { .. } => Code::Overloaded,
            E::Stopped { .. } | E::Log(LogError::Failed { .. } | LogError::Closed) => Code::Stopped,
            E::Log(LogError::NotWritten { disk_full: true, .. }) => Code::StorageFull,
            E::Log(LogError::NotWritten { .. }) => Code::NotWritten,
            E::Embed(EmbedError::Unknown { .. } | EmbedError::Name { .. }) => Code::UnknownModel,
            E::ModelChanged { .. } => Code::ModelChanged,
            _ => {
                return match error {
                    E::Embed(e) => e.into(),
                    other => ApiError::storage(other),
                };
            }
        };
        ApiError::new(code, error.to_string())
    }
}

impl From<EmbedError> for ApiError {
    fn from(error: EmbedError) -> Self {
        let code = match &error {
            EmbedError::NotInstalled { .. } => Code::ModelNotInstalled,
            EmbedError::Unknown { .. } | EmbedError::Name { .. } => Code::ModelNotFound,
            EmbedError::Token { .. } | EmbedError::NoTokens { .. } | EmbedError::ForeignTokens { .. } => {
                Code::InvalidInput
            }
            EmbedError::Dimensions { .. } => Code::DimensionsNotSupported,
            EmbedError::Disabled => Code::ModelNotInstalled,
            EmbedError::Unsupported { .. } | EmbedError::Pickle { .. } => Code::ModelNotSupported,
            EmbedError::Malformed { .. }
            | EmbedError::Damaged { .. }
            | EmbedError::Vector { .. }
            | EmbedError::Device { .. } => Code::ModelFailed,
            EmbedError::Overloaded { retry_after, .. } => {
                let retry_after = Some(*retry_after);
                return Self { retry_after, ..ApiError::new(Code::Overloaded, error.to_string()) };
            }
            // Nobody reads it.
            EmbedError::Cancelled => Code::Timeout,
            _ => {
                let detail = "the embedding model could not be read or run; the server's log has the cause";
                return ApiError::fault(Code::ModelFailed, detail, error);
            }
        };
        ApiError::new(code, error.to_string())
    }
}

impl From<NameError> for ApiError {
    fn from(error: NameError) -> Self {
        ApiError::new(Code::InvalidName, error.to_string())
    }
}

impl From<FilterError> for ApiError {
    fn from(error: FilterError) -> Self {
        ApiError::new(filter_code(&error), error.to_string())
    }
}

impl From<MetadataError> for ApiError {
    fn from(error: MetadataError) -> Self {
        ApiError::new(Code::InvalidMetadata, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::{GuardError, TemplateError};
    use crate::manifest::ManifestError;
    use crate::types::{CollectionName, DocumentId, FieldType, PersonalData, Seq};

    #[test]
    fn codes_are_snake_case_and_unique() {
        let mut seen = std::collections::BTreeSet::new();
        for code in Code::ALL {
            assert!(code.as_str().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{code:?}");
            assert!(seen.insert(code.as_str()), "{code:?}");
            assert!(code.status().is_client_error() || code.status().is_server_error(), "{code:?}");
        }
    }

    #[test]
    fn the_guide_has_every_code() {
        let guide = include_str!("../../docs/guide/errors.md");
        let rows: Vec<&str> = guide.lines().filter(|line| line.starts_with("| `")).collect();
        for code in Code::ALL {
            let row = format!("| `{}` | {} | {} |", code.as_str(), code.status().as_u16(), code.title());
            let found: Vec<&&str> = rows.iter().filter(|line| line.starts_with(&row)).collect();
            assert_eq!(found.len(), 1, "{row}");
            assert_eq!(found[0].contains("| later"), ApiError::new(*code, "").retry_after().is_some(), "{row}");
        }
        assert_eq!(rows.len(), Code::ALL.len(), "the guide has a code that there is not");
    }

    #[test]
    fn what_the_caller_can_mend_is_a_client_error_with_its_sentence() {
        let error = ApiError::from(CollectionError::NotFound { name: CollectionName::new("a").unwrap() });
        assert_eq!((error.code, error.code.status().as_u16()), (Code::CollectionNotFound, 404));
        assert!(error.detail.contains("PUT /v1/collections/a"), "{}", error.detail);
        let dim = CollectionError::QueryVector(VectorError::DimMismatch { expected: 3, got: 2 });
        assert_eq!(ApiError::from(dim).code, Code::DimMismatch);
        let zero = CollectionError::QueryVector(VectorError::Norm { norm: 0.0 });
        assert_eq!(ApiError::from(zero).code, Code::InvalidVector);
    }

    #[test]
    fn every_failure_of_a_collection_has_its_code() {
        use CollectionError as E;
        let name = || CollectionName::new("a").unwrap();
        let id = || DocumentId::new("a").unwrap();
        let text = String::new;
        let guard = GuardError { place: text(), kind: PersonalData::Card, can_redact: false };
        let syntax = || TemplateError::Syntax { line: 1, reason: text() };
        let field = || DefinitionError::FieldType { field: text(), expected: FieldType::Number, got: "null" };
        let dim = || VectorError::DimMismatch { expected: 3, got: 2 };
        let changed = E::ModelChanged { name: name(), model: text(), expected: text(), got: text(), made_in: None };
        let unknown = || EmbedError::Unknown { name: text(), known: text() };
        let invalid = ManifestError::Invalid { reason: text() };
        let failures = [
            (E::NotFound { name: name() }, Code::CollectionNotFound),
            (E::Exists { name: name(), difference: text() }, Code::DefinitionConflict),
            (E::Name(NameError::Document { got: text() }), Code::InvalidName),
            (E::Definition(DefinitionError::WeighedChunks), Code::InvalidDefinition),
            (E::Definition(DefinitionError::BinaryDim { dim: 1 }), Code::QuantizationNotSupported),
            (E::Fields { id: id(), source: field() }, Code::FieldTypeMismatch),
            (E::DocumentVector { id: id(), source: dim() }, Code::DimMismatch),
            (E::QueryVector(VectorError::Norm { norm: 0.0 }), Code::InvalidVector),
            (E::Metadata { id: id(), source: MetadataError::TooDeep }, Code::InvalidMetadata),
            (E::TooLong { what: text(), got: 2, max: 1 }, Code::TooLong),
            (E::TooManyDocuments { got: 2, max: 1 }, Code::TooManyDocuments),
            (E::TooManyChunks { what: text(), got: 2, max: 1 }, Code::TooManyChunks),
            (E::Chunks { id: id(), detail: text() }, Code::InvalidChunks),
            (E::DuplicateId { id: id() }, Code::DuplicateId),
            (E::NothingToIndex { id: id() }, Code::NothingToIndex),
            (E::TextIsMade { id: id() }, Code::TextIsMade),
            (E::TemplateDefinition { source: syntax() }, Code::InvalidTemplate),
            (E::Template { id: id(), source: syntax() }, Code::TemplateFailed),
            (E::Guard { id: id(), source: guard }, Code::PersonalData),
            (E::NoModel { name: name() }, Code::NoModel),
            (changed, Code::ModelChanged),
            (E::QueryDocumentNotFound { id: id() }, Code::DocumentNotFound),
            (E::DocumentNotFound { name: name(), id: id() }, Code::DocumentNotFound),
            (E::EmptyPatch { id: id() }, Code::InvalidValue),
            (E::SeqConflict { id: id(), expected: Seq(1), stands: Seq(2) }, Code::SeqConflict),
            (E::Overtaken { id: id() }, Code::Overloaded),
            (E::Query { detail: text() }, Code::InvalidQuery),
            (E::KeywordsOff, Code::ModeNotSupported),
            (E::Filter(FilterError::TooDeep), Code::InvalidFilter),
            (E::Filter(FilterError::Contradiction { reason: text() }), Code::ContradictoryFilter),
            (E::AnswerTooLarge { max: 1 }, Code::AnswerTooLarge),
            (E::OutOfRange { name: "n", got: text(), min: text(), max: text() }, Code::OutOfRange),
            (E::NotOnBackend { name: name(), cannot: text() }, Code::NotOnBackend),
            (E::SessionsBusy { name: name(), sessions: 8 }, Code::Overloaded),
            (E::Overloaded, Code::Overloaded),
            (E::KeywordsNotReady { name: name(), reason: text() }, Code::KeywordsNotReady),
            (E::Unmerged { reason: text() }, Code::Storage),
            (E::Stopped { reason: text() }, Code::Stopped),
            (E::Embed(unknown()), Code::UnknownModel),
            (E::Embed(EmbedError::Disabled), Code::ModelNotInstalled),
            (E::Embed(EmbedError::Compute { reason: text() }), Code::ModelFailed),
            (E::Log(LogError::Closed), Code::Stopped),
            (E::Log(LogError::Encode { reason: text() }), Code::Storage),
            (E::Index(IndexError::Cancelled), Code::Storage),
            (E::Manifest(invalid), Code::Storage),
        ];
        for (failure, code) in failures {
            let said = failure.to_string();
            assert_eq!(ApiError::from(failure).code, code, "{said}");
        }
        // Asked for by name, a model that is not known is not found.
        assert_eq!(ApiError::from(unknown()).code, Code::ModelNotFound);
    }

    #[test]
    fn every_fault_of_a_backend_has_its_code() {
        let cases = [
            (BackendFault::Unreachable, Code::BackendUnreachable),
            (BackendFault::Busy, Code::BackendBusy),
            (BackendFault::Timeout, Code::BackendTimeout),
            (BackendFault::Unknown, Code::WriteUnknown),
            (BackendFault::Refused, Code::BackendRefused),
            (BackendFault::Conflict, Code::BackendConflict),
            (BackendFault::Drift, Code::BackendDrift),
            (BackendFault::Dim, Code::BackendDimMismatch),
            (BackendFault::Authentication, Code::BackendAuthentication),
            (BackendFault::Tls, Code::BackendTls),
            (BackendFault::Rights, Code::BackendRights),
            (BackendFault::Extension, Code::BackendExtension),
            (BackendFault::Settings, Code::BackendSettings),
            (BackendFault::Failed, Code::BackendFailed),
        ];
        for (fault, code) in cases {
            let name = CollectionName::new("a").unwrap();
            let error = ApiError::from(CollectionError::Backend { name, fault, detail: "the server's words".into() });
            assert_eq!((error.code, error.cause.is_some()), (code, false), "{fault:?}");
            assert_eq!(error.detail, "collection \"a\": the server's words");
        }
    }

    #[test]
    fn a_change_that_no_record_holds_is_the_callers_to_split() {
        let error = ApiError::from(CollectionError::from(LogError::TooLarge { got: 70 << 20, max: 64 << 20 }));
        assert_eq!((error.code, error.code.status().as_u16()), (Code::TooLong, 422));
        assert!(error.is_callers_fault() && error.detail.contains("send fewer documents"), "{}", error.detail);
    }

    #[test]
    fn what_no_document_can_mend_is_no_documents_fault() {
        let is = |code| ApiError::new(code, "").is_documents_fault();
        for code in [Code::DimMismatch, Code::NoModel, Code::BackendRefused, Code::NotOnBackend, Code::PersonalData] {
            assert!(is(code), "{code:?}");
        }
        let of_tables = [Code::BackendConflict, Code::BackendDrift, Code::BackendDimMismatch, Code::BackendRights];
        let of_models = [Code::UnknownModel, Code::ModelNotSupported, Code::DimensionsNotSupported, Code::ModelFailed];
        for code in [of_tables, of_models].as_flattened() {
            assert!(!is(*code), "{code:?}");
        }
        for code in [Code::CollectionNotFound, Code::InvalidTemplate, Code::Overloaded, Code::StorageFull] {
            assert!(!is(code), "{code:?}");
        }
    }

    #[test]
    fn damage_is_told_with_file_and_offset() {
        let (path, reason) = ("segments/1/1/2.seg", "a wrong checksum");
        let damaged = || SegmentError::Damaged { path: path.into(), offset: 4_096, reason: reason.to_owned() };
        for error in [CollectionError::Segment(damaged()), CollectionError::Index(IndexError::Segment(damaged()))] {
            let error = ApiError::from(error);
            assert_eq!(error.code, Code::Storage);
            assert!(
                error.detail.starts_with("segments/1/1/2.seg is damaged at offset 4096: a wrong checksum;"),
                "{error:?}"
            );
            assert!(error.cause.is_some());
        }
    }

    #[test]
    fn overload_asks_to_retry() {
        let error = ApiError::from(CollectionError::Overloaded);
        assert_eq!((error.code.status().as_u16(), error.retry_after()), (429, Some(RETRY_AFTER)));
        assert!(!error.is_callers_fault());
        let retry_after = Duration::from_millis(2_500);
        let error = ApiError::from(EmbedError::Overloaded { waiting_tokens: 9, retry_after });
        assert_eq!((error.code.status().as_u16(), error.retry_after()), (429, Some(retry_after)));
    }

    #[test]
    fn a_write_that_the_disk_refused_may_be_tried_again() {
        for (disk_full, status) in [(true, 507), (false, 503)] {
            let refused = LogError::NotWritten { reason: "no".into(), disk_full };
            let error = ApiError::from(CollectionError::from(refused));
            assert_eq!(error.code.status().as_u16(), status);
            assert!(error.retry_after().is_some() && !error.is_callers_fault());
        }
        let stopped = ApiError::from(CollectionError::from(LogError::Failed { reason: "no".into() }));
        assert_eq!((stopped.code, stopped.retry_after()), (Code::Stopped, None));
    }
}
