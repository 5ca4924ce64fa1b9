//! Collections on the wire: what a client asks for, what stands, and its figures.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::backend::{BackendBody, BackendObject, BackendView};
use super::choice::{WireFieldType, WireLanguage, WireMetric, WireQuantization, WireStorage};
use super::json::Object;
use super::template::{WireGuard, WireTemplate};
use super::time::rfc3339;
use super::unique::UniqueMap;
use crate::backend::{AnyCollection, Placement};
use crate::collection::{ChunkRequest, CollectionStats, DefinitionRequest};
use crate::embed::DEFAULT_MODEL;
use crate::http::error::ApiError;
use crate::types::{CollectionName, Language, Metric, Quantization, VectorStorage};

/// A collection to create; what is left out is filled in.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DefinitionBody {
    /// Numbers in a vector; the model's when left out.
    #[schema(minimum = 1, maximum = 4096, example = 384)]
    dim: Option<u32>,
    /// Cosine when left out.
    metric: Option<WireMetric>,
    /// How texts are embedded. With a `dim` and without this, documents bring their vectors.
    #[schema(value_type = Option<EmbeddingBody>)]
    embedding: Option<Object<EmbeddingBody>>,
    /// Parameters of the graph.
    #[schema(value_type = Option<IndexBody>)]
    index: Option<Object<IndexBody>>,
    /// Declared metadata fields; a document that does not fit is refused.
    #[schema(value_type = Option<BTreeMap<String, WireFieldType>>)]
    fields: Option<UniqueMap<WireFieldType>>,
    /// How keyword search reads the texts.
    #[schema(value_type = Option<TextBody>)]
    text: Option<Object<TextBody>>,
    /// Which personal data documents may not carry.
    #[schema(value_type = Option<WireGuard>)]
    guard: Option<Object<WireGuard>>,
    /// Splits long texts into chunks, each with a vector of its own; `{}` for the defaults. Without it a text has one
    /// vector, of as much as the model reads.
    #[schema(value_type = Option<ChunksBody>)]
    chunks: Option<Object<ChunksBody>>,
    /// Where the documents stand: here where it is left out. `"postgres"` stands for `{"type": "postgres"}`.
    #[schema(value_type = Option<BackendObject>)]
    backend: Option<BackendBody>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ChunksBody {
    /// Most tokens of a chunk, at most as many as the model reads; 256 of them when left out.
    #[schema(minimum = 1, maximum = 8192)]
    max_tokens: Option<u32>,
    /// Tokens that a chunk shares with the one before it, at most half of it; an eighth when left out.
    #[schema(minimum = 0, maximum = 4096)]
    overlap_tokens: Option<u32>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct TextBody {
    /// English when left out.
    language: Option<WireLanguage>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct EmbeddingBody {
    /// A name of `GET /v1/models`.
    #[schema(example = "sentence-transformers/all-MiniLM-L6-v2")]
    model: Option<String>,
    /// How a document's fields become its text. Documents then bring no "text".
    template: Option<WireTemplate>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct IndexBody {
    /// Neighbours a node keeps.
    #[schema(minimum = 5, maximum = 48)]
    m: Option<u32>,
    /// Candidates considered while inserting.
    #[schema(minimum = 8, maximum = 4096)]
    ef_construction: Option<u32>,
    /// Int8 when left out.
    quantization: Option<WireQuantization>,
    /// Float32 when left out.
    storage: Option<WireStorage>,
}

impl DefinitionBody {
    /// The request, and where the documents are to stand unless it is here.
    ///
    /// # Errors
    /// What is not supported yet is refused by name.
    pub(crate) fn into_request(
        self,
        name: &CollectionName,
    ) -> Result<(DefinitionRequest, Option<Placement>), ApiError> {
        let placement = self.backend.map(|backend| backend.into_placement(name)).transpose()?;
        let index = self.index.map(|Object(index)| index);
        let (model, template) = match self.embedding {
            Some(Object(EmbeddingBody { model, template })) => {
                let template = template.map(WireTemplate::into_definition).transpose()?;
                (Some(model.unwrap_or_else(|| DEFAULT_MODEL.to_owned())), template)
            }
            None => (None, None),
        };
        let request = DefinitionRequest {
            dim: self.dim,
            metric: self.metric.map(Metric::from),
            model,
            m: index.as_ref().and_then(|index| index.m),
            ef_construction: index.as_ref().and_then(|index| index.ef_construction),
            quantization: index.as_ref().and_then(|index| index.quantization).map(Quantization::from),
            storage: index.as_ref().and_then(|index| index.storage).map(VectorStorage::from),
            fields: self
                .fields
                .map(|UniqueMap(fields)| fields.into_iter().map(|(name, kind)| (name, kind.into())).collect())
                .unwrap_or_default(),
            language: self.text.and_then(|Object(text)| text.language).map(Language::from),
            template,
            guard: self.guard.map(|Object(guard)| guard.into_definition()),
            chunks: self
                .chunks
                .map(|Object(ChunksBody { max_tokens, overlap_tokens })| ChunkRequest { max_tokens, overlap_tokens }),
        };
        Ok((request, placement))
    }
}

/// A collection as it stands.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CollectionView {
    name: String,
    /// Numbers in a vector.
    dim: u32,
    metric: WireMetric,
    /// Null where documents bring their vectors.
    #[schema(required)]
    embedding: Option<EmbeddingView>,
    index: IndexView,
    fields: BTreeMap<String, WireFieldType>,
    text: TextView,
    /// Null where there is none.
    #[schema(required)]
    guard: Option<WireGuard>,
    /// Left out where a text has one vector.
    #[serde(skip_serializing_if = "Option::is_none")]
    chunks: Option<ChunksView>,
    /// Left out where the documents stand here.
    #[serde(skip_serializing_if = "Option::is_none")]
    backend: Option<BackendView>,
    /// RFC 3339, UTC.
    #[schema(format = DateTime)]
    created_at: String,
}

#[derive(Debug, Serialize, ToSchema)]
struct EmbeddingView {
    model: String,
    /// Null where documents bring their texts.
    #[schema(required)]
    template: Option<WireTemplate>,
}

#[derive(Debug, Serialize, ToSchema)]
struct ChunksView {
    max_tokens: u32,
    overlap_tokens: u32,
}

#[derive(Debug, Serialize, ToSchema)]
struct TextView {
    language: WireLanguage,
}

#[derive(Debug, Serialize, ToSchema)]
struct IndexView {
    m: u32,
    ef_construction: u32,
    quantization: WireQuantization,
    storage: WireStorage,
}

impl CollectionView {
    pub(crate) fn of(collection: &AnyCollection) -> Self {
        let definition = collection.definition();
        Self {
            name: collection.name().to_string(),
            dim: definition.dim,
            metric: definition.metric.into(),
            embedding: definition.embedding.as_ref().map(|e| EmbeddingView {
                model: e.model.clone(),
                template: definition.template.as_ref().map(WireTemplate::of),
            }),
            index: IndexView {
                m: definition.index.m,
                ef_construction: definition.index.ef_construction,
                quantization: definition.index.quantization.into(),
                storage: definition.index.storage.into(),
            },
            fields: definition.fields.iter().map(|(name, &kind)| (name.clone(), kind.into())).collect(),
            text: TextView { language: definition.text.language.into() },
            guard: definition.guard.as_ref().map(WireGuard::of),
            chunks: definition
                .chunks
                .map(|chunks| ChunksView { max_tokens: chunks.max_tokens, overlap_tokens: chunks.overlap_tokens }),
            backend: collection.placement().map(BackendView::of),
            created_at: rfc3339(collection.created_at_ms()),
        }
    }
}

/// All collections, by name.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CollectionsView {
    pub(crate) collections: Vec<CollectionView>,
}

/// How a collection is dropped.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct DropParams {
    /// Of a collection in a database: leaves its table to others, and only forgets it here.
    #[serde(default)]
    pub(crate) keep_table: bool,
}

/// A collection that was dropped.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DroppedView {
    /// Always true: a collection that was not there is an error.
    pub(crate) deleted: bool,
    /// The change that dropped it; 0 where the table was kept.
    pub(crate) seq: u64,
}

/// A collection's figures.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StatsView {
    /// Documents that reads see.
    documents: u64,
    /// Immutable segments.
    segments: u64,
    /// Those of them that have a graph.
    graph_segments: u64,
    /// Documents that are in no segment yet.
    memtable_documents: u64,
    memtable_bytes: u64,
    /// Rows in segments that a later change has replaced or deleted.
    deleted_rows: u64,
    /// Bytes of the segments.
    disk_bytes: u64,
    /// The last change of the collection.
    last_seq: u64,
    /// Changes up to this one are in segments.
    sealed_seq: u64,
    /// Numbers in a vector.
    dim: u32,
    /// Null where no document has a text.
    #[schema(required)]
    text: Option<TextStatsView>,
    /// Null until a search was sampled.
    #[schema(required)]
    recall: Option<RecallView>,
}

/// Recall of a few searches that named no `ef_search`, each answered again without the graph, since the server started.
#[derive(Debug, Serialize, ToSchema)]
struct RecallView {
    /// Hits that they should have had.
    sampled_hits: u64,
    /// Of them, those that they had.
    found_hits: u64,
    /// The share that they had.
    #[schema(minimum = 0, maximum = 1)]
    recall: f64,
}

/// How far the keyword index of a collection is.
#[derive(Debug, Serialize, ToSchema)]
struct TextStatsView {
    /// Documents in it.
    documents: u64,
    /// Keyword search sees every change up to this one.
    applied_seq: u64,
    /// Changes between that and `last_seq`; they are seen within a second, or at once with `refresh`.
    lag: u64,
    /// Writes of documents that wait to be read.
    waiting: u64,
    /// Documents that keyword search lacks, since they were damaged when they were to be read.
    unreadable: u64,
}

impl From<CollectionStats> for StatsView {
    fn from(stats: CollectionStats) -> Self {
        Self {
            documents: stats.documents,
            segments: stats.segments,
            graph_segments: stats.graph_segments,
            memtable_documents: stats.memtable_documents,
            memtable_bytes: stats.memtable_bytes,
            deleted_rows: stats.deleted_rows,
            disk_bytes: stats.disk_bytes,
            last_seq: stats.last_seq.0,
            sealed_seq: stats.sealed_seq.0,
            dim: stats.dim,
            text: stats.keywords.map(|keywords| TextStatsView {
                documents: keywords.documents,
                applied_seq: keywords.applied_seq.0,
                lag: stats.last_seq.0.saturating_sub(keywords.applied_seq.0),
                waiting: keywords.waiting,
                unreadable: keywords.unreadable,
            }),
            recall: stats.recall.recall().map(|recall| RecallView {
                sampled_hits: stats.recall.sampled_hits,
                found_hits: stats.recall.found_hits,
                recall,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::error::Code;
    use crate::http::wire::json;
    use crate::types::FieldType;

    fn read(text: &str) -> Result<DefinitionRequest, ApiError> {
        Ok(json::parse::<DefinitionBody>(text.as_bytes())?.into_request(&CollectionName::new("c")?)?.0)
    }

    #[test]
    fn every_key_is_optional() {
        assert!(read("{}").unwrap() == DefinitionRequest::default());
        let full = r#"{"dim":3,"metric":"l2","embedding":{"model":"m"},
            "index":{"m":8,"ef_construction":64,"quantization":"binary","storage":"float16"},"fields":{"a":"keyword"},
            "text":{"language":"russian"},"chunks":{"max_tokens":100}}"#;
        let wanted = DefinitionRequest {
            dim: Some(3),
            metric: Some(Metric::L2),
            model: Some("m".into()),
            m: Some(8),
            ef_construction: Some(64),
            quantization: Some(Quantization::Binary),
            storage: Some(VectorStorage::Float16),
            fields: [("a".to_owned(), FieldType::Keyword)].into(),
            language: Some(Language::Russian),
            template: None,
            guard: None,
            chunks: Some(ChunkRequest { max_tokens: Some(100), overlap_tokens: None }),
        };
        assert!(read(full).unwrap() == wanted);
        assert_eq!(read(r#"{"embedding":{}}"#).unwrap().model.as_deref(), Some(DEFAULT_MODEL));
        assert_eq!(read(r#"{"embedding":null}"#).unwrap().model, None);
    }

    #[test]
    fn what_is_not_there_yet_is_refused_by_name() {
        let cases = [
            (r#"{"index":{"storage":"float64"}}"#, Code::InvalidValue),
            (r#"{"embedding":{"model":"m","template":5}}"#, Code::InvalidValue),
            (r#"{"guard":{"action":"ignore"}}"#, Code::InvalidValue),
            (r#"{"metric":"hamming"}"#, Code::InvalidValue),
            (r#"{"dim":-1}"#, Code::InvalidValue),
            (r#"{"dims":1}"#, Code::UnknownField),
            (r#"{"index":{"ef":1}}"#, Code::UnknownField),
            (r#"{"fields":{"a":"date"}}"#, Code::InvalidValue),
            (r#"{"text":{"language":"klingon"}}"#, Code::InvalidValue),
            (r#"{"text":{"lang":"english"}}"#, Code::UnknownField),
            (r#"{"chunks":{"tokens":9}}"#, Code::UnknownField),
            (r#"{"chunks":{"max_tokens":-1}}"#, Code::InvalidValue),
        ];
        for (text, wanted) in cases {
            assert_eq!(read(text).err().map(|e| e.code), Some(wanted), "{text}");
        }
    }
}
