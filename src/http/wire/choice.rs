//! The named choices of a definition: metrics, kinds of vectors and fields, languages.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::types::{FieldType, Language, Metric, Quantization, VectorStorage};

/// How closeness is measured.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = Metric)]
pub(crate) enum WireMetric {
    /// Cosine similarity.
    Cosine,
    /// Inner product.
    Dot,
    /// Euclidean distance; a score is minus the distance.
    L2,
}

/// What the graph walk reads; candidates are always scored again by their vectors.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = Quantization)]
pub(crate) enum WireQuantization {
    /// One signed byte a component.
    Int8,
    /// The vectors themselves.
    None,
    /// One bit a component, for a `dim` of at least 768.
    Binary,
}

/// How the vectors are stored.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = VectorStorage)]
pub(crate) enum WireStorage {
    /// As they came.
    Float32,
    /// In half the bytes: rounded to 11 significant bits when they arrive, and returned so.
    Float16,
}

/// Declared type of a metadata field.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = FieldType)]
pub(crate) enum WireFieldType {
    /// A string, or an array of strings.
    Keyword,
    /// A number.
    Number,
    /// True or false.
    Boolean,
    /// A point, `{"lat": .., "lon": ..}` in degrees, or an array of points.
    Geo,
}

/// How keyword search makes words of texts.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = Language)]
pub(crate) enum WireLanguage {
    /// English endings do not count.
    English,
    /// Russian endings do not count, and ё is е.
    Russian,
    /// Words as they are, in lower case.
    None,
}

impl From<WireQuantization> for Quantization {
    fn from(quantization: WireQuantization) -> Self {
        match quantization {
            WireQuantization::Int8 => Quantization::Int8,
            WireQuantization::None => Quantization::None,
            WireQuantization::Binary => Quantization::Binary,
        }
    }
}

impl From<Quantization> for WireQuantization {
    fn from(quantization: Quantization) -> Self {
        match quantization {
            Quantization::Int8 => WireQuantization::Int8,
            Quantization::None => WireQuantization::None,
            Quantization::Binary => WireQuantization::Binary,
        }
    }
}

impl From<WireStorage> for VectorStorage {
    fn from(storage: WireStorage) -> Self {
        match storage {
            WireStorage::Float32 => VectorStorage::Float32,
            WireStorage::Float16 => VectorStorage::Float16,
        }
    }
}

impl From<VectorStorage> for WireStorage {
    fn from(storage: VectorStorage) -> Self {
        match storage {
            VectorStorage::Float32 => WireStorage::Float32,
            VectorStorage::Float16 => WireStorage::Float16,
        }
    }
}

impl From<WireMetric> for Metric {
    fn from(metric: WireMetric) -> Self {
        match metric {
            WireMetric::Cosine => Metric::Cosine,
            WireMetric::Dot => Metric::Dot,
            WireMetric::L2 => Metric::L2,
        }
    }
}

impl From<Metric> for WireMetric {
    fn from(metric: Metric) -> Self {
        match metric {
            Metric::Cosine => WireMetric::Cosine,
            Metric::Dot => WireMetric::Dot,
            Metric::L2 => WireMetric::L2,
        }
    }
}

impl From<WireLanguage> for Language {
    fn from(language: WireLanguage) -> Self {
        match language {
            WireLanguage::English => Language::English,
            WireLanguage::Russian => Language::Russian,
            WireLanguage::None => Language::None,
        }
    }
}

impl From<Language> for WireLanguage {
    fn from(language: Language) -> Self {
        match language {
            Language::English => WireLanguage::English,
            Language::Russian => WireLanguage::Russian,
            Language::None => WireLanguage::None,
        }
    }
}

impl From<WireFieldType> for FieldType {
    fn from(kind: WireFieldType) -> Self {
        match kind {
            WireFieldType::Keyword => FieldType::Keyword,
            WireFieldType::Number => FieldType::Number,
            WireFieldType::Boolean => FieldType::Boolean,
            WireFieldType::Geo => FieldType::Geo,
        }
    }
}

impl From<FieldType> for WireFieldType {
    fn from(kind: FieldType) -> Self {
        match kind {
            FieldType::Keyword => WireFieldType::Keyword,
            FieldType::Number => WireFieldType::Number,
            FieldType::Boolean => WireFieldType::Boolean,
            FieldType::Geo => WireFieldType::Geo,
        }
    }
}
