//! From what a caller asks of a new collection to its complete definition.

use std::collections::BTreeMap;

use crate::embed::{DEFAULT_MODEL, InputKind, Models, TextModel};
use crate::ingest::Templater;
use crate::types::limits::MAX_CHUNK_TOKENS;
use crate::types::{
    ChunkDefinition, Definition, EmbeddingDefinition, FieldType, FieldsTemplate, GuardDefinition, IndexDefinition,
    Language, Metric, Quantization, TemplateDefinition, TextDefinition, VectorStorage,
};

use super::CollectionError;

/// Characters of a setting that an error shows.
const SHOWN_CHARACTERS: usize = 200;

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

/// The first setting in which two definitions differ, as `setting: existing != asked for`, in the words of requests.
pub fn difference(existing: &Definition, asked: &Definition) -> Option<String> {
    let (old, new) = (settings(existing), settings(asked));
    let (name, old, new) =
        old.into_iter().zip(new).find(|(old, new)| old != new).map(|((name, old), (_, new))| (name, old, new))?;
    Some(format!("{name}: {} != {}", cut(&old), cut(&new)))
}

/// Every setting of a definition.
fn settings(definition: &Definition) -> [(&'static str, String); 12] {
    let Definition { dim, metric, embedding: _, index, fields, text, template, guard, chunks } = definition;
    let IndexDefinition { m, ef_construction, quantization, storage } = index;
    let TextDefinition { language } = text;
    let fields: BTreeMap<_, _> = fields.iter().map(|(name, kind)| (name, word(kind))).collect();
    let template = template.as_ref().map(|template| match template {
        TemplateDefinition::Jinja(text) => format!("{text:?}"),
        TemplateDefinition::Fields(FieldsTemplate { only, exclude, weights }) => {
            let weights: BTreeMap<_, _> =
                weights.iter().map(|(name, weight)| (name, f64::from(weight.thousandths) / 1_000.0)).collect();
            format!("{{\"fields\": {only:?}, \"exclude\": {exclude:?}, \"weights\": {weights:?}}}")
        }
    });
    let guard = guard.as_ref().map(|GuardDefinition { action, kinds, allow }| {
        let kinds: Vec<_> = kinds.iter().map(|kind| kind.name()).collect();
        let allow: Vec<_> = allow.iter().collect();
        format!("{{\"action\": {:?}, \"kinds\": {kinds:?}, \"allow\": {allow:?}}}", word(action))
    });
    let chunks = chunks.map(|ChunkDefinition { max_tokens, overlap_tokens }| {
        format!("{{\"max_tokens\": {max_tokens}, \"overlap_tokens\": {overlap_tokens}}}")
    });
    let or_none = |shown: Option<String>| shown.unwrap_or_else(|| "none".to_owned());
    [
        ("dim", dim.to_string()),
        ("metric", word(metric)),
        ("embedding", model_of(definition)),
        ("index.m", m.to_string()),
        ("index.ef_construction", ef_construction.to_string()),
        ("index.quantization", word(quantization)),
        ("index.storage", word(storage)),
        ("fields", format!("{fields:?}")),
        ("text.language", word(language)),
        ("template", or_none(template)),
        ("guard", or_none(guard)),
        ("chunks", or_none(chunks)),
    ]
}

/// The word of requests for a choice, whose names are single words.
fn word(choice: &impl std::fmt::Debug) -> String {
    format!("{choice:?}").to_lowercase()
}

/// As much as a sentence carries.
fn cut(shown: &str) -> String {
    match shown.char_indices().nth(SHOWN_CHARACTERS) {
        Some((end, _)) => format!("{}..", &shown[..end]),
        None => shown.to_owned(),
    }
}

fn model_of(definition: &Definition) -> String {
    match &definition.embedding {
        Some(embedding) => format!("{} ({})", embedding.model, embedding.fingerprint),
        None => "none".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{GuardAction, PersonalData, Weight};

    #[test]
    fn a_difference_is_told_in_the_words_of_requests() {
        let models = Models::new("/nowhere".into(), None);
        let plain = DefinitionRequest::vectors(3).complete(&models).unwrap();
        let told = |change: fn(&mut Definition)| {
            let mut asked = plain.clone();
            change(&mut asked);
            difference(&plain, &asked).unwrap()
        };
        let fields = |only: &[&str]| {
            let only = only.iter().map(|name| (*name).to_owned()).collect();
            let weights = [("title".to_owned(), Weight { thousandths: 1_500 })].into();
            TemplateDefinition::Fields(FieldsTemplate { only, weights, ..FieldsTemplate::default() })
        };
        assert_eq!(difference(&plain, &plain), None);
        assert_eq!(told(|asked| asked.index.m = 20), "index.m: 16 != 20");
        assert_eq!(told(|asked| asked.index.storage = VectorStorage::Float16), "index.storage: float32 != float16");
        assert_eq!(
            told(|asked| asked.chunks = Some(ChunkDefinition { max_tokens: 64, overlap_tokens: 8 })),
            "chunks: none != {\"max_tokens\": 64, \"overlap_tokens\": 8}"
        );
        assert_eq!(
            told(|asked| {
                let kinds = [PersonalData::Email, PersonalData::IpAddress].into();
                asked.guard = Some(GuardDefinition { action: GuardAction::Redact, kinds, allow: [].into() });
            }),
            "guard: none != {\"action\": \"redact\", \"kinds\": [\"email\", \"ip\"], \"allow\": []}"
        );
        assert_eq!(
            told(|asked| _ = asked.fields.insert("price".to_owned(), FieldType::Number)),
            "fields: {} != {\"price\": \"number\"}"
        );
        let mut asked = plain.clone();
        asked.template = Some(fields(&["title"]));
        let shown = "{\"fields\": [\"title\"], \"exclude\": [], \"weights\": {\"title\": 1.5}}";
        assert_eq!(difference(&asked, &plain).unwrap(), format!("template: {shown} != none"));
        asked.template = Some(TemplateDefinition::Jinja("x".repeat(300)));
        assert_eq!(difference(&asked, &plain).unwrap(), format!("template: \"{}.. != none", "x".repeat(199)));
    }
}
