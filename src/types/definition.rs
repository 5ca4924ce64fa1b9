//! What a collection is: dimension, metric, model, index parameters, declared fields.

use std::collections::BTreeMap;

use super::limits::{MAX_CHUNK_TOKENS, MAX_DECLARED_FIELDS, MAX_DIM, MAX_EF, MAX_FIELD_BYTES, MIN_BINARY_DIM};
use super::{ChunkDefinition, GeoPoint, GuardDefinition, Metadata, TemplateDefinition, Value, lookup};

/// How closeness is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum Metric {
    /// Cosine similarity; vectors are normalised when they arrive.
    #[default]
    Cosine,
    /// Inner product of the vectors as they are.
    Dot,
    /// Euclidean distance.
    L2,
}

/// What the graph walk reads instead of the vectors; the best candidates are always scored again by the vectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum Quantization {
    /// One signed byte a component.
    #[default]
    Int8,
    /// The stored vectors themselves.
    None,
    /// One bit a component, for vectors of at least [`MIN_BINARY_DIM`] components.
    Binary,
}

/// How the vectors themselves are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum VectorStorage {
    /// IEEE 754 binary32: as they came.
    #[default]
    Float32,
    /// IEEE 754 binary16, half the bytes: rounded when they arrive.
    Float16,
}

/// Parameters of the HNSW graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct IndexDefinition {
    /// Neighbours a node keeps on the upper levels; twice as many on level 0. 5 to 48 (Malkov & Yashunin 2018).
    pub m: u32,
    /// Candidates considered while inserting.
    pub ef_construction: u32,
    /// What the walk reads.
    pub quantization: Quantization,
    /// How the vectors are stored.
    pub storage: VectorStorage,
}

impl Default for IndexDefinition {
    fn default() -> Self {
        Self { m: 16, ef_construction: 128, quantization: Quantization::default(), storage: VectorStorage::default() }
    }
}

/// The model that embeds a collection's texts.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct EmbeddingDefinition {
    /// Registry name, such as `sentence-transformers/all-MiniLM-L6-v2`.
    pub model: String,
    /// Digest over everything that decides the vectors: weights, tokenizer, pooling, normalisation, prefixes, length.
    pub fingerprint: String,
}

/// Declared type of a metadata field; a write that does not fit is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum FieldType {
    /// A string, or an array of strings.
    Keyword,
    /// A number.
    Number,
    /// True or false.
    Boolean,
    /// A point, `{"lat": degrees, "lon": degrees}`, or an array of points.
    Geo,
}

impl std::fmt::Display for FieldType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            FieldType::Keyword => "keyword",
            FieldType::Number => "number",
            FieldType::Boolean => "boolean",
            FieldType::Geo => "geo",
        })
    }
}

/// How a text becomes the words that keyword search finds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum Language {
    /// Lower case, and English endings removed.
    #[default]
    English,
    /// Lower case, ё as е, and Russian endings removed.
    Russian,
    /// Lower case only.
    None,
}

/// How keyword search reads a collection's texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct TextDefinition {
    /// How a text becomes words.
    pub language: Language,
}

/// A collection's definition, complete.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Definition {
    /// Numbers in a vector.
    pub dim: u32,
    /// How closeness is measured.
    pub metric: Metric,
    /// The model that embeds texts; without one, documents bring their vectors.
    pub embedding: Option<EmbeddingDefinition>,
    /// Parameters of the graph.
    pub index: IndexDefinition,
    /// Declared metadata fields.
    pub fields: BTreeMap<String, FieldType>,
    /// How keyword search reads the texts.
    pub text: TextDefinition,
    /// How the fields of a document become its text; without one, documents bring their texts.
    pub template: Option<TemplateDefinition>,
    /// Which personal data documents may not carry.
    pub guard: Option<GuardDefinition>,
    /// How long texts are split, each part with a vector of its own; `None` where a text has one vector.
    pub chunks: Option<ChunkDefinition>,
}

/// Why a definition, or a document against it, was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DefinitionError {
    /// A number is outside its range.
    #[error("{name} is {got}, allowed are {min} to {max}")]
    OutOfRange {
        /// The setting.
        name: &'static str,
        /// As asked for.
        got: u64,
        /// Smallest allowed.
        min: u64,
        /// Largest allowed.
        max: u64,
    },
    /// One bit a component says too little of vectors of so few components.
    #[error(
        "index.quantization is binary and dim is {dim}: one bit a component ranks rows well only from dim \
         {MIN_BINARY_DIM} on, and below it finding the nearest would take more comparisons than the bits save; use \
         \"int8\", and \"storage\": \"float16\" where bytes count"
    )]
    BinaryDim {
        /// As asked for.
        dim: u32,
    },
    /// A field that the definition names has no name, or too long a one.
    #[error("a field's name has 1 to {MAX_FIELD_BYTES} bytes, {field:?} has {len}")]
    FieldName {
        /// The name as given, cut to 100 characters.
        field: String,
        /// Its length, in bytes.
        len: usize,
    },
    /// A text cannot be divided into weighed fields and into chunks at once.
    #[error(
        "\"chunks\" and the \"weights\" of a template do not go together: one vector of weighed fields, or one for each chunk"
    )]
    WeighedChunks,
    /// A metadata value does not fit the field's declared type.
    #[error("metadata field {field:?} is declared as {expected} and the document holds {got}{}", form_of(*.expected))]
    FieldType {
        /// The field.
        field: String,
        /// As declared.
        expected: FieldType,
        /// What kind of value came.
        got: &'static str,
    },
}

impl DefinitionError {
    /// That a name of a field is empty or too long.
    pub(super) fn field_name(field: &str) -> Self {
        Self::FieldName { field: field.chars().take(100).collect(), len: field.len() }
    }
}

/// What a field of a type that has a form of its own looks like.
fn form_of(expected: FieldType) -> &'static str {
    match expected {
        FieldType::Geo => "; write {\"lat\": -90 to 90, \"lon\": -180 to 180}",
        _ => "",
    }
}

impl Definition {
    /// Checks every number against its range, and the names of the declared fields. What is stored passes it.
    ///
    /// # Errors
    /// [`DefinitionError::OutOfRange`] or [`DefinitionError::FieldName`] names the first setting that is outside.
    pub fn check(&self) -> Result<(), DefinitionError> {
        let within = |name, got: u32, min: u64, max: u64| {
            if (min..=max).contains(&u64::from(got)) {
                return Ok(());
            }
            Err(DefinitionError::OutOfRange { name, got: u64::from(got), min, max })
        };
        within("dim", self.dim, 1, MAX_DIM as u64)?;
        within("index.m", self.index.m, 5, 48)?;
        within("index.ef_construction", self.index.ef_construction, 8, MAX_EF as u64)?;
        if self.index.quantization == Quantization::Binary && self.dim < MIN_BINARY_DIM {
            return Err(DefinitionError::BinaryDim { dim: self.dim });
        }
        within("the number of declared fields", self.fields.len() as u32, 0, MAX_DECLARED_FIELDS as u64)?;
        if let Some(chunks) = self.chunks {
            within("chunks.max_tokens", chunks.max_tokens, 1, MAX_CHUNK_TOKENS as u64)?;
            within("chunks.overlap_tokens", chunks.overlap_tokens, 0, u64::from(chunks.max_tokens) / 2)?;
            if self.template.as_ref().is_some_and(TemplateDefinition::has_weights) {
                return Err(DefinitionError::WeighedChunks);
            }
        }
        self.template.as_ref().map_or(Ok(()), TemplateDefinition::check)?;
        match self.fields.keys().find(|name| name.is_empty() || name.len() > MAX_FIELD_BYTES) {
            Some(field) => Err(DefinitionError::field_name(field)),
            None => Ok(()),
        }
    }

    /// As [`Definition::check`], for a definition that somebody asks for. Bounds also what had no bound before, and of
    /// which stored definitions may have more: what a guard allows, and less: its kinds.
    ///
    /// # Errors
    /// As [`Definition::check`].
    pub fn check_new(&self) -> Result<(), DefinitionError> {
        self.check()?;
        self.guard.as_ref().map_or(Ok(()), GuardDefinition::check)
    }

    /// Checks a document's metadata against the declared fields, nested ones by their path. Null and missing fit any
    /// type.
    ///
    /// # Errors
    /// [`DefinitionError::FieldType`] names the first field that does not fit.
    pub fn check_fields(&self, metadata: &Metadata) -> Result<(), DefinitionError> {
        for (field, &expected) in &self.fields {
            let Some(value) = lookup(metadata, field) else { continue };
            let fits = match (expected, value) {
                (_, Value::Null) => true,
                (FieldType::Keyword, Value::String(_)) => true,
                (FieldType::Keyword, Value::Array(items)) => items.iter().all(|v| matches!(v, Value::String(_))),
                (FieldType::Number, Value::Int(_) | Value::Float(_)) => true,
                (FieldType::Boolean, Value::Bool(_)) => true,
                (FieldType::Geo, Value::Array(items)) => items.iter().all(|v| GeoPoint::of(v).is_some()),
                (FieldType::Geo, value) => GeoPoint::of(value).is_some(),
                _ => false,
            };
            if !fits {
                return Err(DefinitionError::FieldType { field: field.clone(), expected, got: value.kind() });
            }
        }
        Ok(())
    }
}
