//! The words of the domain: plain values without IO and without async.

mod definition;
mod document;
mod filter;
mod graph_builder;
mod ids;
pub mod limits;
mod metadata;
mod search;
mod vector;

pub use definition::{
    Definition, DefinitionError, DefinitionV1, EmbeddingDefinition, FieldType, IndexDefinition, Language, Metric,
    Quantization, TextDefinition,
};
pub use document::{Document, EmbeddingState, NewDocument, StoredDocument};
pub use filter::{Condition, Filter, FilterError};
pub use graph_builder::GraphBuilder;
pub use ids::{CollectionId, CollectionName, DocumentId, NameError, Ordinal, SegmentId, Seq};
pub use metadata::{Metadata, MetadataError, Value, check_metadata, lookup, metadata_bytes};
pub use search::{
    Facet, Fusion, Grouping, Hit, HitGroup, Include, Mode, Paging, Plan, Query, SearchAfter, SearchRequest,
    SearchResponse,
};
pub use vector::{VectorError, check_vector, normalise};
