//! Definitions as older versions of the manifest and of the log's payload hold them.

use std::collections::BTreeMap;

use super::definition::{
    Definition, EmbeddingDefinition, FieldType, IndexDefinition, Metric, Quantization, TextDefinition, VectorStorage,
};

/// Version 1: before keyword search.
#[derive(Clone, Debug, bincode::Encode, bincode::Decode)]
pub struct DefinitionV1 {
    dim: u32,
    metric: Metric,
    embedding: Option<EmbeddingDefinition>,
    index: IndexDefinitionV2,
    fields: BTreeMap<String, FieldType>,
}

/// Version 2: before templates, guards, chunks, and vectors of half precision.
#[derive(Clone, Debug, bincode::Encode, bincode::Decode)]
pub struct DefinitionV2 {
    dim: u32,
    metric: Metric,
    embedding: Option<EmbeddingDefinition>,
    index: IndexDefinitionV2,
    fields: BTreeMap<String, FieldType>,
    text: TextDefinition,
}

/// The parameters of the graph in versions 1 and 2.
#[derive(Clone, Copy, Debug, bincode::Encode, bincode::Decode)]
struct IndexDefinitionV2 {
    m: u32,
    ef_construction: u32,
    quantization: Quantization,
}

impl From<IndexDefinitionV2> for IndexDefinition {
    fn from(old: IndexDefinitionV2) -> Self {
        let IndexDefinitionV2 { m, ef_construction, quantization } = old;
        Self { m, ef_construction, quantization, storage: VectorStorage::Float32 }
    }
}

impl From<DefinitionV1> for DefinitionV2 {
    fn from(old: DefinitionV1) -> Self {
        let DefinitionV1 { dim, metric, embedding, index, fields } = old;
        Self { dim, metric, embedding, index, fields, text: TextDefinition::default() }
    }
}

impl From<DefinitionV2> for Definition {
    fn from(old: DefinitionV2) -> Self {
        let DefinitionV2 { dim, metric, embedding, index, fields, text } = old;
        Self { dim, metric, embedding, index: index.into(), fields, text, template: None, guard: None, chunks: None }
    }
}

impl From<DefinitionV1> for Definition {
    fn from(old: DefinitionV1) -> Self {
        DefinitionV2::from(old).into()
    }
}
