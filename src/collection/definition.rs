//! From what a caller asks of a new collection to its complete definition.

use std::collections::BTreeMap;

use crate::embed::{DEFAULT_MODEL, InputKind, Models, TextModel};
use crate::ingest::Templater;
use crate::types::limits::MAX_CHUNK_TOKENS;
use crate::types::{
    ChunkDefinition, Definition, EmbeddingDefinition, FieldType, GuardDefinition, IndexDefinition, Language, Metric,
    Quantization, TemplateDefinition, TextDefinition, VectorStorage,
};

use super::CollectionError;

/// What a caller asks of a new collection; what is `None` is filled in.
///
/// With neither `dim` nor `model`, texts are embedded by the default model. With `dim` alone, documents bring their
/// vectors. With both, `dim` is the model's or one to which its vectors can be cut.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DefinitionRequest {
    /// Numbers in a vector.
    pub dim: Option<u32>,
    /// How closeness is measured.
    pub metric: Option<Metric>,
    /// The model that embeds texts.
    pub model: Option<String>,
    /// Neighbours of a graph node.
    pub m: Option<u32>,
    /// Candidates considered while building the graph.
    pub ef_construction: Option<u32>,
    /// What the graph walk reads.
    pub quantization: Option<Quantization>,
    /// How the vectors are stored.
    pub storage: Option<VectorStorage>,
    /// Declared metadata fields.
    pub fields: BTreeMap<String, FieldType>,
    /// How keyword search makes words of texts.
    pub language: Option<Language>,
    /// How fields become texts.
    pub template: Option<TemplateDefinition>,
    /// Which personal data are kept out.
    pub guard: Option<GuardDefinition>,
    /// Whether long texts are split, and how.
    pub chunks: Option<ChunkRequest>,
}

/// How texts are to be split; what is `None` is filled in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChunkRequest {
    /// Most tokens of a chunk: by default as many as the model reads, at most 256.
    pub max_tokens: Option<u32>,
    /// Tokens that a chunk shares with the one before it: by default an eighth.
    pub overlap_tokens: Option<u32>,
}

/// Tokens of a chunk where nobody said: more of them blur what a vector says.
const DEFAULT_CHUNK_TOKENS: u32 = 256;
/// Parts of a chunk that its overlap is one of, where nobody said.
const OVERLAP_PART: u32 = 8;

impl DefinitionRequest {
    /// A collection whose documents bring vectors of this dimension.
    pub fn vectors(dim: u32) -> Self {
        Self { dim: Some(dim), ..Self::default() }
    }

    /// Fills in what was left open, and checks it.
    ///
    /// # Errors
    /// [`CollectionError`] names the setting, or the model that is not there.
    pub(crate) fn complete(&self, models: &Models) -> Result<Definition, CollectionError> {
        if let Some(template) = &self.template {
            template.check()?;
            Templater::new(template).map_err(|source| CollectionError::TemplateDefinition { source })?;
        }
        let default = IndexDefinition::default();
        let model = match (&self.model, self.dim) {
            (Some(name), _) => Some(name.as_str()),
            (None, None) => Some(DEFAULT_MODEL),
            (None, Some(_)) => None,
        };
        let (embedding, model_dim, room) = match model {
            Some(name) => {
                let model = models.load(name)?;
                let dim = self.dim.map_or(model.dim(), |dim| dim as usize);
                model.check_dimensions(dim)?;
                let embedding =
                    EmbeddingDefinition { model: model.name().to_owned(), fingerprint: model.fingerprint_at(dim) };
                let room = self.chunks.map(|_| room_for_chunks(&model)).transpose()?;
                (Some(embedding), Some(model.dim() as u32), room)
            }
            None => (None, None, None),
        };
        let dim = self.dim.or(model_dim).expect("without a dim the default model was chosen, and it has one");
        let definition = Definition {
            dim,
            metric: self.metric.unwrap_or_default(),
            embedding,
            index: IndexDefinition {
                m: self.m.unwrap_or(default.m),
                ef_construction: self.ef_construction.unwrap_or(default.ef_construction),
                quantization: self.quantization.unwrap_or(default.quantization),
                storage: self.storage.unwrap_or(default.storage),
            },
            fields: self.fields.clone(),
            text: TextDefinition { language: self.language.unwrap_or_default() },
            template: self.template.clone(),
            guard: self.guard.clone(),
            chunks: self.chunks.map(|chunks| chunks.complete(room)).transpose()?,
        };
        definition.check_new()?;
        Ok(definition)
    }
}

impl ChunkRequest {
    /// `room`: tokens of a text that the model reads.
    fn complete(self, room: Option<u32>) -> Result<ChunkDefinition, CollectionError> {
        let most = room.unwrap_or(MAX_CHUNK_TOKENS as u32);
        let max_tokens = self.max_tokens.unwrap_or(DEFAULT_CHUNK_TOKENS.min(most));
        if !(1..=most).contains(&max_tokens) {
            return Err(super::out_of_range("chunks.max_tokens", max_tokens, 1, most));
        }
        let overlap_tokens = self.overlap_tokens.unwrap_or(max_tokens / OVERLAP_PART);
        Ok(ChunkDefinition { max_tokens, overlap_tokens })
    }
}

/// Tokens of a text that a model reads, beside the special ones and those that it wants before a document.
fn room_for_chunks(model: &TextModel) -> Result<u32, CollectionError> {
    let taken = model.tokenize("", InputKind::Document, true)?.len();
    Ok(model.max_tokens().saturating_sub(taken) as u32)
}

/// The first setting in which two definitions differ, as `setting: existing != asked for`.
pub fn difference(existing: &Definition, asked: &Definition) -> Option<String> {
    let rows: [(&str, String, String); 9] = [
        ("dim", existing.dim.to_string(), asked.dim.to_string()),
        ("metric", format!("{:?}", existing.metric), format!("{:?}", asked.metric)),
        ("embedding", model_of(existing), model_of(asked)),
        ("index", format!("{:?}", existing.index), format!("{:?}", asked.index)),
        ("fields", format!("{:?}", existing.fields), format!("{:?}", asked.fields)),
        ("text", format!("{:?}", existing.text), format!("{:?}", asked.text)),
        ("template", format!("{:?}", existing.template), format!("{:?}", asked.template)),
        ("guard", format!("{:?}", existing.guard), format!("{:?}", asked.guard)),
        ("chunks", format!("{:?}", existing.chunks), format!("{:?}", asked.chunks)),
    ];
    let (name, old, new) = rows.into_iter().find(|(_, old, new)| old != new)?;
    Some(format!("{name}: {old} != {new}"))
}

fn model_of(definition: &Definition) -> String {
    match &definition.embedding {
        Some(embedding) => format!("{} ({})", embedding.model, embedding.fingerprint),
        None => "none".to_owned(),
    }
}
