//! The wire of text-embeddings-inference.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::embeddings::{Input, InputForms, read_input};
use super::value::WireValue;
use crate::embed::{InputKind, MAX_PASS_TOKENS, Piece, Pooling, TextModel};
use crate::http::error::{ApiError, Code};
use crate::types::Value;
use crate::types::limits::{MAX_EMBEDDING_INPUTS, MAX_TEXT_BYTES};

/// Texts or tokens to embed. Fields that are not listed are passed over, as the original does.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct EmbedBody {
    /// A string, an array of strings, an array of token ids, or an array of such arrays.
    #[schema(value_type = InputForms)]
    inputs: WireValue,
    /// Whether texts longer than the model reads are cut; with `false` they are refused.
    #[schema(default = true)]
    pub(crate) truncate: Option<bool>,
    /// Which end is cut off. Only `Right` is there for texts that have to be cut.
    #[schema(default = "Right")]
    pub(crate) truncation_direction: Option<TruncationDirection>,
    /// `query` or `document`: puts the model's prefix for it before each text. Nothing is put there when left out.
    pub(crate) prompt_name: Option<String>,
    /// Whether vectors are scaled to length 1.
    #[schema(default = true)]
    pub(crate) normalize: Option<bool>,
    /// Numbers in a vector, where the model allows fewer than all.
    #[schema(minimum = 1)]
    pub(crate) dimensions: Option<u32>,
}

/// Which end of a long text is cut off.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, ToSchema)]
pub(crate) enum TruncationDirection {
    #[serde(alias = "left")]
    Left,
    #[serde(alias = "right")]
    Right,
}

/// Texts to take apart.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct TokenizeBody {
    /// A string, or an array of strings.
    #[schema(value_type = TextForms)]
    inputs: WireValue,
    /// Whether the tokens that the model wants around a text are among the answer's.
    #[schema(default = true)]
    pub(crate) add_special_tokens: Option<bool>,
    /// As in `/embed`.
    pub(crate) prompt_name: Option<String>,
}

/// What `inputs` of `/tokenize` may be, for the API's description.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
enum TextForms {
    Text(String),
    Texts(Vec<String>),
}

impl EmbedBody {
    /// Takes the inputs out.
    ///
    /// # Errors
    /// As [`read_input`].
    pub(crate) fn take_inputs(&mut self) -> Result<Input, ApiError> {
        read_input(std::mem::replace(&mut self.inputs.0, Value::Null), "inputs")
    }
}

impl TokenizeBody {
    /// Takes the texts out.
    ///
    /// # Errors
    /// As [`read_input`], and [`Code::TooLong`] where they are long together: an answer is many times its text.
    pub(crate) fn take_texts(&mut self) -> Result<Vec<String>, ApiError> {
        match read_input(std::mem::replace(&mut self.inputs.0, Value::Null), "inputs")? {
            Input::Texts(texts) => {
                let got: usize = texts.iter().map(String::len).sum();
                if got > MAX_TEXT_BYTES {
                    let detail = format!("\"inputs\" are {got} bytes together, at most {MAX_TEXT_BYTES} are allowed");
                    return Err(ApiError::new(Code::TooLong, detail));
                }
                Ok(texts)
            }
            Input::Tokens(_) => Err(ApiError::new(Code::InvalidInput, "\"inputs\" must be texts, and they are tokens")),
        }
    }
}

/// The input kind that a prompt's name stands for.
///
/// # Errors
/// [`Code::InvalidValue`].
pub(crate) fn kind_of(prompt_name: Option<&str>) -> Result<InputKind, ApiError> {
    match prompt_name {
        None => Ok(InputKind::Plain),
        Some("query") => Ok(InputKind::Query),
        Some("document" | "passage") => Ok(InputKind::Document),
        Some(other) => {
            let detail = format!("\"prompt_name\" is {other:?}; it may be \"query\" or \"document\"");
            Err(ApiError::new(Code::InvalidValue, detail).param("prompt_name"))
        }
    }
}

/// A token.
#[derive(Serialize, ToSchema)]
pub(crate) struct PieceView {
    id: u32,
    /// What it stands for in the text, or its name where it is special.
    text: String,
    special: bool,
    /// Its first character; null where it is special.
    #[schema(required)]
    start: Option<usize>,
    /// The character behind its last one; null where it is special.
    #[schema(required)]
    stop: Option<usize>,
}

impl From<Piece> for PieceView {
    fn from(piece: Piece) -> Self {
        let Piece { id, text, special, range } = piece;
        let (start, stop) = range.unzip();
        Self { id, text, special, start, stop }
    }
}

/// The model, and how much it takes at once.
#[derive(Serialize, ToSchema)]
pub(crate) struct InfoView {
    /// The model's name.
    model_id: String,
    /// The fingerprint of its vectors.
    model_sha: String,
    #[schema(value_type = String, example = "float32")]
    model_dtype: &'static str,
    served_model_name: String,
    model_type: ModelTypeView,
    /// Engine calls at once.
    max_concurrent_requests: usize,
    /// Tokens read of a text.
    max_input_length: usize,
    /// Tokens of a pass.
    max_batch_tokens: usize,
    max_batch_requests: Option<usize>,
    /// Inputs of a request.
    max_client_batch_size: usize,
    /// Texts that are too long are cut unless a request says otherwise.
    auto_truncate: bool,
    tokenization_workers: usize,
    #[schema(value_type = String)]
    version: &'static str,
}

#[derive(Serialize, ToSchema)]
struct ModelTypeView {
    embedding: PoolingView,
}

#[derive(Serialize, ToSchema)]
struct PoolingView {
    /// `mean`, `cls`, `last_token` or, where the original has no name, `max`, `mean_sqrt_len` or `weighted_mean`.
    #[schema(value_type = String)]
    pooling: &'static str,
}

fn pooling_name(pooling: Pooling) -> &'static str {
    match pooling {
        Pooling::Mean => "mean",
        Pooling::FirstToken => "cls",
        Pooling::LastToken => "last_token",
        Pooling::Max => "max",
        Pooling::MeanSqrtLength => "mean_sqrt_len",
        Pooling::WeightedMean => "weighted_mean",
    }
}

impl InfoView {
    pub(crate) fn of(model: &TextModel, max_concurrent_requests: usize) -> Self {
        Self {
            model_id: model.name().to_owned(),
            model_sha: model.fingerprint().to_owned(),
            model_dtype: model.precision().name(),
            served_model_name: model.name().to_owned(),
            model_type: ModelTypeView { embedding: PoolingView { pooling: pooling_name(model.pooling()) } },
            max_concurrent_requests,
            max_input_length: model.max_tokens(),
            max_batch_tokens: MAX_PASS_TOKENS,
            max_batch_requests: None,
            max_client_batch_size: MAX_EMBEDDING_INPUTS,
            auto_truncate: true,
            tokenization_workers: max_concurrent_requests,
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::wire::json;

    fn read(body: &str) -> Result<EmbedBody, ApiError> {
        json::parse(body.as_bytes())
    }

    #[test]
    fn what_is_left_out_is_the_originals_default_and_unknown_fields_are_passed_over() {
        let mut body = read(r#"{"inputs":"a","parameters":{},"x":1}"#).unwrap();
        assert_eq!(body.take_inputs().unwrap(), Input::Texts(vec!["a".into()]));
        assert_eq!((body.truncate, body.normalize, body.dimensions), (None, None, None));
        assert_eq!(body.truncation_direction, None);
        let body = read(r#"{"inputs":[[1,2]],"truncate":false,"truncation_direction":"Left"}"#).unwrap();
        assert_eq!((body.truncate, body.truncation_direction), (Some(false), Some(TruncationDirection::Left)));
    }

    #[test]
    fn prompts_are_the_kinds_of_input() {
        assert_eq!(kind_of(None).unwrap(), InputKind::Plain);
        assert_eq!(kind_of(Some("query")).unwrap(), InputKind::Query);
        assert_eq!(kind_of(Some("passage")).unwrap(), InputKind::Document);
        assert_eq!(kind_of(Some("s2s")).unwrap_err().code, Code::InvalidValue);
    }

    #[test]
    fn only_texts_of_some_length_are_taken_apart() {
        let take = |inputs: &str| {
            let body = json::parse::<TokenizeBody>(format!("{{\"inputs\":{inputs}}}").as_bytes());
            body.unwrap().take_texts().map_err(|error| error.code)
        };
        assert_eq!(take(r#"["a","b"]"#).unwrap(), ["a", "b"]);
        assert_eq!(take("[1]").unwrap_err(), Code::InvalidInput);
        let half = "a".repeat(MAX_TEXT_BYTES / 2 + 1);
        assert_eq!(take(&format!("[{half:?},{half:?}]")).unwrap_err(), Code::TooLong);
    }
}
