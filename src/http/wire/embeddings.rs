//! OpenAI's embeddings on the wire.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::value::WireValue;
use super::vector::to_base64;
use crate::embed::{Embeddings, InputKind, InstalledModel};
use crate::http::error::{ApiError, Code};
use crate::types::Value;
use crate::types::limits::{MAX_EMBEDDING_INPUTS, MAX_TEXT_BYTES};

/// Texts or tokens to embed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EmbeddingsBody {
    /// A string, an array of strings, an array of token ids, or an array of such arrays; at most 2,048 of them. Token
    /// ids are those of the model's own tokenizer with its special tokens around each text, as `POST /tokenize` gives
    /// them; other lists are refused.
    #[schema(value_type = InputForms)]
    input: WireValue,
    /// A name of `GET /v1/models`.
    #[schema(example = "sentence-transformers/all-MiniLM-L6-v2")]
    pub(crate) model: String,
    /// How vectors are written; as numbers when left out.
    pub(crate) encoding_format: Option<EncodingFormat>,
    /// Numbers in a vector, where the model allows fewer than all.
    #[schema(minimum = 1)]
    pub(crate) dimensions: Option<u32>,
    /// What texts are for, which decides what the model has before them; `document` when left out. OpenAI has no such
    /// field.
    pub(crate) input_type: Option<InputType>,
    /// Taken and not used.
    #[expect(dead_code, reason = "clients send it")]
    user: Option<String>,
}

/// What `input` may be, for the API's description.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is used; the value is read as WireValue for better errors")]
pub(crate) enum InputForms {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u32>),
    TokenLists(Vec<Vec<u32>>),
}

/// How vectors are written.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EncodingFormat {
    /// An array of numbers.
    #[default]
    Float,
    /// Little-endian f32, base64.
    Base64,
}

/// What texts are for.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum InputType {
    /// To search with.
    Query,
    /// To be stored and found.
    Document,
}

impl From<InputType> for InputKind {
    fn from(input: InputType) -> Self {
        match input {
            InputType::Query => InputKind::Query,
            InputType::Document => InputKind::Document,
        }
    }
}

/// What to embed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Input {
    Texts(Vec<String>),
    Tokens(Vec<Vec<u32>>),
}

impl EmbeddingsBody {
    /// Takes the input out.
    ///
    /// # Errors
    /// As [`read_input`].
    pub(crate) fn take_input(&mut self) -> Result<Input, ApiError> {
        read_input(std::mem::replace(&mut self.input.0, Value::Null), "input")
    }
}

/// Reads what to embed in the forms of [`InputForms`]. `name`: the field's.
///
/// # Errors
/// [`Code::InvalidInput`] when it is empty, mixed or too long, [`Code::TooManyInputs`].
pub(crate) fn read_input(value: Value, name: &'static str) -> Result<Input, ApiError> {
    read_input_with(value, name, checked_text)
}

/// As [`read_input`], with a check of each text of its own.
///
/// # Errors
/// As there.
pub(crate) fn read_input_with(
    value: Value,
    name: &'static str,
    checked_text: fn(usize, String) -> Result<String, String>,
) -> Result<Input, ApiError> {
    let refuse = |detail: String| ApiError::new(Code::InvalidInput, detail).param(name);
    let items = match value {
        Value::String(text) => return Ok(Input::Texts(vec![checked_text(0, text).map_err(refuse)?])),
        Value::Array(items) => items,
        other => return Err(refuse(format!("{name:?} must be a string or an array, not {}", other.kind()))),
    };
    match items.first() {
        None => Err(refuse(format!("{name:?} is empty; send at least one text"))),
        Some(Value::Int(_)) => Ok(Input::Tokens(vec![tokens(0, items).map_err(refuse)?])),
        Some(_) if items.len() > MAX_EMBEDDING_INPUTS => {
            let got = items.len();
            let detail = format!("{name:?} holds {got} inputs, at most {MAX_EMBEDDING_INPUTS} are allowed at once");
            Err(ApiError::new(Code::TooManyInputs, detail).param(name))
        }
        Some(Value::String(_)) => {
            let texts = items.into_iter().enumerate().map(|(index, item)| match item {
                Value::String(text) => checked_text(index, text),
                other => Err(format!("{name:?} must hold strings only, and item {index} is {}", other.kind())),
            });
            Ok(Input::Texts(texts.collect::<Result<_, _>>().map_err(refuse)?))
        }
        Some(Value::Array(_)) => {
            let lists = items.into_iter().enumerate().map(|(index, item)| match item {
                Value::Array(ids) => tokens(index, ids),
                other => {
                    Err(format!("{name:?} must hold arrays of token ids only, and item {index} is {}", other.kind()))
                }
            });
            Ok(Input::Tokens(lists.collect::<Result<_, _>>().map_err(refuse)?))
        }
        Some(other) => Err(refuse(format!("{name:?} must hold strings or token ids, not {}", other.kind()))),
    }
}

fn checked_text(index: usize, text: String) -> Result<String, String> {
    match text.len() {
        0 => Err(format!("text {index} is an empty string; send at least one character")),
        _ => checked_length(index, text),
    }
}

/// Any text that is not too long, an empty one too.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn checked_length(index: usize, text: String) -> Result<String, String> {
    match text.len() {
        got if got > MAX_TEXT_BYTES => {
            Err(format!("text {index} is {got} bytes long, at most {MAX_TEXT_BYTES} are allowed"))
        }
        _ => Ok(text),
    }
}

fn tokens(index: usize, items: Vec<Value>) -> Result<Vec<u32>, String> {
    if items.is_empty() {
        return Err(format!("list {index} is empty; send at least one token id"));
    }
    let token = |item: Value| match item {
        Value::Int(id) => u32::try_from(id).map_err(|_| format!("{id} is no token id")),
        other => Err(format!("list {index} must hold token ids only, and one is {}", other.kind())),
    };
    items.into_iter().map(token).collect()
}

/// Vectors in the order of the input.
#[derive(Serialize, ToSchema)]
pub(crate) struct EmbeddingsView {
    #[schema(value_type = String, example = "list")]
    object: &'static str,
    data: Vec<EmbeddingView>,
    model: String,
    usage: UsageView,
}

#[derive(Serialize, ToSchema)]
#[schema(as = OpenAiEmbedding)]
struct EmbeddingView {
    #[schema(value_type = String, example = "embedding")]
    object: &'static str,
    index: usize,
    embedding: EmbeddingValue,
    /// True where the text was longer than the model reads and was cut; left out otherwise.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    truncated: bool,
}

/// Numbers, or base64 of little-endian f32.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum EmbeddingValue {
    Float(Vec<f32>),
    Base64(String),
}

#[derive(Serialize, ToSchema)]
struct UsageView {
    /// Tokens that the model read.
    prompt_tokens: usize,
    /// The same.
    total_tokens: usize,
}

impl EmbeddingsView {
    pub(crate) fn of(embeddings: Embeddings, model: String, format: EncodingFormat) -> Self {
        let tokens = embeddings.token_counts.iter().sum();
        let vectors = embeddings.vectors.into_iter().zip(embeddings.truncated).enumerate();
        let data = vectors.map(|(index, (vector, truncated))| EmbeddingView {
            object: "embedding",
            index,
            embedding: match format {
                EncodingFormat::Float => EmbeddingValue::Float(vector),
                EncodingFormat::Base64 => EmbeddingValue::Base64(to_base64(&vector)),
            },
            truncated,
        });
        let usage = UsageView { prompt_tokens: tokens, total_tokens: tokens };
        Self { object: "list", data: data.collect(), model, usage }
    }
}

/// The models that are installed.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelsView {
    #[schema(value_type = String, example = "list")]
    object: &'static str,
    data: Vec<ModelView>,
}

/// A model that is installed.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelView {
    pub(crate) id: String,
    #[schema(value_type = String, example = "model")]
    object: &'static str,
    /// Seconds since the Unix epoch; 0, since a model's files do not say.
    created: i64,
    /// The part of the name before the slash.
    owned_by: String,
    /// Numbers in a vector.
    dim: usize,
    /// Tokens that the model reads of a text.
    max_tokens: usize,
    licence: Option<String>,
}

impl ModelView {
    pub(crate) fn of(model: InstalledModel) -> Self {
        let owner = model.name.split_once('/').map_or("local", |(owner, _)| owner);
        Self {
            owned_by: owner.to_owned(),
            object: "model",
            created: 0,
            dim: model.dim,
            max_tokens: model.max_tokens,
            licence: model.licence.clone(),
            id: model.name.to_string(),
        }
    }
}

impl ModelsView {
    pub(crate) fn of(models: Vec<InstalledModel>) -> Self {
        Self { object: "list", data: models.into_iter().map(ModelView::of).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::wire::json;

    fn read(input: &str) -> Result<Input, ApiError> {
        json::parse::<EmbeddingsBody>(format!("{{\"model\":\"m\",\"input\":{input}}}").as_bytes())?.take_input()
    }

    #[test]
    fn the_four_forms_of_input() {
        assert_eq!(read(r#""a""#).unwrap(), Input::Texts(vec!["a".into()]));
        assert_eq!(read(r#"["a","b"]"#).unwrap(), Input::Texts(vec!["a".into(), "b".into()]));
        assert_eq!(read("[1,2]").unwrap(), Input::Tokens(vec![vec![1, 2]]));
        assert_eq!(read("[[1,2],[3]]").unwrap(), Input::Tokens(vec![vec![1, 2], vec![3]]));
    }

    #[test]
    fn other_forms_are_refused_with_the_parameters_name() {
        let many = format!("[{}\"a\"]", "\"a\",".repeat(MAX_EMBEDDING_INPUTS));
        let long = format!("\"{}\"", "a".repeat(MAX_TEXT_BYTES + 1));
        let cases = [
            "\"\"",
            "[]",
            "[\"\"]",
            "[[]]",
            "[[1],[]]",
            "{}",
            "1",
            "null",
            "[\"a\",1]",
            "[1,\"a\"]",
            "[1.5]",
            "[-1]",
            "[[1],2]",
            "[null]",
            "[4294967296]",
            &many,
            &long,
        ];
        for text in cases {
            let error = read(text).unwrap_err();
            let code = if text == many { Code::TooManyInputs } else { Code::InvalidInput };
            assert_eq!((error.code, error.param), (code, Some("input")), "{}", &text[..text.len().min(40)]);
        }
    }

    #[test]
    fn the_answer_is_openais() {
        let embeddings = || Embeddings {
            vectors: vec![vec![1.0, -2.0], vec![0.5, 0.0]],
            token_counts: vec![3, 4],
            truncated: vec![false, true],
            cached: 0,
        };
        let write = |format| serde_json::to_value(EmbeddingsView::of(embeddings(), "m".into(), format)).unwrap();
        let wanted = serde_json::json!({
            "object": "list",
            "data": [
                {"object": "embedding", "index": 0, "embedding": [1.0, -2.0]},
                {"object": "embedding", "index": 1, "embedding": [0.5, 0.0], "truncated": true},
            ],
            "model": "m",
            "usage": {"prompt_tokens": 7, "total_tokens": 7},
        });
        assert_eq!(write(EncodingFormat::Float), wanted);
        assert_eq!(write(EncodingFormat::Base64)["data"][0]["embedding"], "AACAPwAAAMA=");
    }
}
