//! The words of the domain: plain values without IO and without async.

mod chain;
mod chunk;
mod definition;
mod document;
mod explain;
mod filter;
mod frozen;
mod geo;
mod graph_builder;
mod guard;
pub mod half;
mod ids;
pub mod limits;
mod merge_patch;
mod metadata;
mod panic;
mod patch;
mod row_set;
mod search;
mod template;
mod vector;

pub(crate) use chain::Chain;
pub use chunk::{Chunk, ChunkDefinition, ChunkSpan};
pub use definition::{
    Definition, DefinitionError, EmbeddingDefinition, FieldType, IndexDefinition, Language, Metric, Quantization,
    TextDefinition, VectorStorage,
};
pub use document::{Document, EmbeddingState, NewDocument, StoredDocument};
pub use explain::{Explain, FilterUse, Method, SegmentExplain};
pub use filter::{Condition, Filter, FilterError, contradiction};
pub use frozen::{DefinitionV1, DefinitionV2};
pub use geo::{EARTH_RADIUS_METERS, GeoPoint};
pub use graph_builder::GraphBuilder;
pub use guard::{GuardAction, GuardDefinition, PersonalData};
pub use ids::{CollectionId, CollectionName, DocumentId, NameError, Ordinal, SegmentId, Seq};
pub use merge_patch::merge_patch;
pub use metadata::{Metadata, MetadataError, Value, check_metadata, lookup, metadata_bytes, metadata_memory};
pub use panic::{guarded, panic_message};
pub use patch::{DocumentPatch, Edit, IfSeq};
pub use row_set::RowSet;
pub use search::{
    Facet, Fusion, Grouping, Hit, HitChunk, HitGroup, Include, Mode, Paging, Plan, Query, Rerank, SearchAfter,
    SearchRequest, SearchResponse, carried_value_bytes,
};
pub use template::{DEFAULT_EXCLUDED_FIELDS, FieldsTemplate, TemplateDefinition, Weight};
pub use vector::{NUMBER_BYTES, VectorError, admit_vector, check_vector, check_vector_for, normalise, round_to_half};
