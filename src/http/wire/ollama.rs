//! The wire of Ollama's embeddings.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::embeddings::{Input, checked_length, read_input, read_input_with};
use super::time::rfc3339;
use super::value::WireValue;
use crate::embed::{Embeddings, InstalledModel};
use crate::http::error::{ApiError, Code};
use crate::types::Value;

/// Texts to embed. Fields that are not listed, such as `keep_alive` and `options`, are passed over: models stay loaded.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = OllamaEmbedBody)]
pub(crate) struct EmbedBody {
    /// A name of `GET /api/tags`, with or without `:latest`, or one of Ollama's own for the same model.
    #[schema(example = "all-minilm")]
    pub(crate) model: String,
    /// A string or an array of strings. Left out or null is no text: so clients load a model before they use it.
    #[schema(value_type = Option<TextForms>)]
    input: Option<WireValue>,
    /// Whether texts longer than the model reads are cut; with `false` they are refused.
    #[schema(default = true)]
    pub(crate) truncate: Option<bool>,
    /// Numbers in a vector, where the model allows fewer than all.
    #[schema(minimum = 1)]
    pub(crate) dimensions: Option<u32>,
}

/// One text to embed. Fields that are not listed are passed over.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct PromptBody {
    /// As in `/api/embed`.
    pub(crate) model: String,
    /// The text.
    #[serde(default)]
    prompt: String,
}

impl PromptBody {
    /// Takes the text out; an empty one is no text, and no error.
    ///
    /// # Errors
    /// As [`read_input`].
    pub(crate) fn take_text(&mut self) -> Result<Input, ApiError> {
        match std::mem::take(&mut self.prompt) {
            prompt if prompt.is_empty() => Ok(Input::Texts(Vec::new())),
            prompt => read_input(Value::String(prompt), "prompt"),
        }
    }
}

/// The vector of one text.
#[derive(Serialize, ToSchema)]
pub(crate) struct PromptView {
    pub(crate) embedding: Vec<f32>,
}

/// What `input` may be, for the API's description.
#[derive(ToSchema)]
#[serde(untagged)]
#[schema(as = OllamaTexts)]
#[expect(dead_code, reason = "only its schema is used")]
enum TextForms {
    Text(String),
    Texts(Vec<String>),
}

impl EmbedBody {
    /// Takes the texts out. None, an empty string or array is no text, and no error; an empty one among others is a
    /// text.
    ///
    /// # Errors
    /// As [`read_input`].
    pub(crate) fn take_texts(&mut self) -> Result<Input, ApiError> {
        let value = self.input.take().map_or(Value::Null, |WireValue(value)| value);
        let is_empty = match &value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            _ => false,
        };
        if is_empty {
            return Ok(Input::Texts(Vec::new()));
        }
        match read_input_with(value, "input", checked_length)? {
            Input::Tokens(_) => Err(ApiError::new(Code::InvalidInput, "\"input\" must be a string or strings")),
            texts => Ok(texts),
        }
    }
}

/// Names under which Ollama's library has models that we know by others.
const LIBRARY: [(&str, &str); 9] = [
    ("all-minilm", "sentence-transformers/all-MiniLM-L6-v2"),
    ("all-minilm:22m", "sentence-transformers/all-MiniLM-L6-v2"),
    ("all-minilm:l6-v2", "sentence-transformers/all-MiniLM-L6-v2"),
    ("all-minilm:33m", "sentence-transformers/all-MiniLM-L12-v2"),
    ("all-minilm:l12-v2", "sentence-transformers/all-MiniLM-L12-v2"),
    ("nomic-embed-text", "nomic-ai/nomic-embed-text-v1.5"),
    ("nomic-embed-text:v1.5", "nomic-ai/nomic-embed-text-v1.5"),
    ("paraphrase-multilingual", "sentence-transformers/paraphrase-multilingual-mpnet-base-v2"),
    ("paraphrase-multilingual:278m", "sentence-transformers/paraphrase-multilingual-mpnet-base-v2"),
];

/// The name by which we know a model. Case does not matter, as with Ollama.
pub(crate) fn known_name(name: &str) -> &str {
    let tag = ":latest";
    let name = match name.len().checked_sub(tag.len()).and_then(|at| name.split_at_checked(at)) {
        Some((name, end)) if end.eq_ignore_ascii_case(tag) => name,
        _ => name,
    };
    LIBRARY.iter().find(|(theirs, _)| theirs.eq_ignore_ascii_case(name)).map_or(name, |(_, ours)| ours)
}

/// Vectors in the order of the input.
#[derive(Serialize, ToSchema)]
pub(crate) struct EmbedView {
    /// The name that was asked for.
    model: String,
    embeddings: Vec<Vec<f32>>,
    /// Nanoseconds of the whole.
    total_duration: u64,
    /// Nanoseconds until the model was there.
    load_duration: u64,
    /// Tokens that the model read.
    prompt_eval_count: usize,
}

impl EmbedView {
    pub(crate) fn of(embeddings: Embeddings, model: String, total: Duration, load: Duration) -> Self {
        let nanoseconds = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self {
            model,
            prompt_eval_count: embeddings.token_counts.iter().sum(),
            embeddings: embeddings.vectors,
            total_duration: nanoseconds(total),
            load_duration: nanoseconds(load),
        }
    }
}

/// The installed models.
#[derive(Serialize, ToSchema)]
pub(crate) struct TagsView {
    models: Vec<TagView>,
}

#[derive(Serialize, ToSchema)]
struct TagView {
    name: String,
    model: String,
    #[schema(format = DateTime)]
    modified_at: String,
    /// Bytes of its files.
    size: u64,
    /// Empty: the digest of a model is that of each of its files.
    #[schema(value_type = String)]
    digest: &'static str,
    details: DetailsView,
}

#[derive(Serialize, ToSchema)]
struct DetailsView {
    #[schema(value_type = String)]
    parent_model: &'static str,
    #[schema(value_type = String, example = "safetensors")]
    format: &'static str,
    #[schema(value_type = String)]
    family: &'static str,
    #[schema(value_type = Vec<String>)]
    families: [&'static str; 1],
    #[schema(value_type = String)]
    parameter_size: &'static str,
    #[schema(value_type = String)]
    quantization_level: &'static str,
}

impl TagsView {
    pub(crate) fn of(models: Vec<InstalledModel>) -> Self {
        let details = || DetailsView {
            parent_model: "",
            format: "safetensors",
            family: "bert",
            families: ["bert"],
            parameter_size: "",
            quantization_level: "",
        };
        let tag = |model: InstalledModel| {
            let modified = std::fs::metadata(&model.dir).and_then(|metadata| metadata.modified()).ok();
            let since = modified.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok()).unwrap_or_default();
            TagView {
                name: model.name.clone(),
                model: model.name,
                modified_at: rfc3339(i64::try_from(since.as_millis()).unwrap_or_default()),
                size: model.size_bytes,
                digest: "",
                details: details(),
            }
        };
        Self { models: models.into_iter().map(tag).collect() }
    }
}

/// The server's version.
#[derive(Serialize, ToSchema)]
#[schema(as = OllamaVersion)]
pub(crate) struct VersionView {
    #[schema(value_type = String, example = "0.1.0")]
    pub(crate) version: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::wire::json;

    fn take(input: &str) -> Result<Input, Code> {
        let body =
            json::parse::<EmbedBody>(format!("{{\"model\":\"m\",\"input\":{input},\"options\":{{}}}}").as_bytes());
        body.unwrap().take_texts().map_err(|error| error.code)
    }

    #[test]
    fn texts_and_nothing_else() {
        assert_eq!(take(r#""a""#), Ok(Input::Texts(vec!["a".into()])));
        assert_eq!(take(r#"["a","b"]"#), Ok(Input::Texts(vec!["a".into(), "b".into()])));
        assert_eq!((take("[]"), take(r#""""#)), (Ok(Input::Texts(vec![])), Ok(Input::Texts(vec![]))));
        for input in ["[1]", "[[1]]", "1", "[null]", "[\"a\",1]"] {
            assert_eq!(take(input), Err(Code::InvalidInput), "{input}");
        }
    }

    #[test]
    fn names_of_the_library_are_known() {
        assert_eq!(known_name("all-minilm:latest"), "sentence-transformers/all-MiniLM-L6-v2");
        assert_eq!(known_name("me/model:latest"), "me/model");
        assert_eq!(known_name("me/model"), "me/model");
    }

    #[test]
    fn the_answer_is_ollamas() {
        let embeddings = Embeddings {
            vectors: vec![vec![1.0, 0.5]],
            token_counts: vec![3],
            truncated: vec![false],
            ..Embeddings::default()
        };
        let view = EmbedView::of(embeddings, "m".into(), Duration::from_micros(2), Duration::from_nanos(7));
        let wanted = serde_json::json!({"model": "m", "embeddings": [[1.0, 0.5]], "total_duration": 2_000,
            "load_duration": 7, "prompt_eval_count": 3});
        assert_eq!(serde_json::to_value(view).unwrap(), wanted);
    }
}
