//! Texts to vectors: models, where they come from, and the encoders that run them.

mod error;
mod registry;
mod types;

#[cfg(feature = "local-models")]
mod batcher;
#[cfg(feature = "local-models")]
mod cache;
#[cfg(feature = "local-models")]
mod cross_encoder;
#[cfg(feature = "local-models")]
mod files;
#[cfg(feature = "local-models")]
mod head;
#[cfg(feature = "local-models")]
mod local;
#[cfg(feature = "local-models")]
mod lock_file;
#[cfg(feature = "local-models")]
mod model;
#[cfg(feature = "local-models")]
mod models;
#[cfg(feature = "local-models")]
mod pull;
#[cfg(feature = "local-models")]
mod settings;
#[cfg(feature = "local-models")]
mod slots;
#[cfg(feature = "local-models")]
mod store;
#[cfg(all(test, feature = "local-models"))]
mod tests;
#[cfg(feature = "local-models")]
mod tokenizer;

#[cfg(not(feature = "local-models"))]
mod disabled;

#[cfg(feature = "local-models")]
pub use batcher::{CancelOnDrop, Cancellation, MAX_PASS_TOKENS};
#[cfg(all(any(test, feature = "fuzzing"), feature = "local-models"))]
pub(crate) use cache::fuzz as cache_fuzz;
#[cfg(feature = "local-models")]
pub use cross_encoder::CrossEncoder;
#[cfg(not(feature = "local-models"))]
pub use disabled::{Cancellation, CrossEncoder, Models, TextModel};
pub use error::{EmbedError, PullFailure};
#[cfg(feature = "local-models")]
pub use model::TextModel;
#[cfg(feature = "local-models")]
pub use models::Models;
pub use registry::{DEFAULT_MODEL, KNOWN_MODELS, KnownDigest, KnownFile, KnownModel, KnownPackage, ModelKind, find};
#[cfg(all(any(test, feature = "fuzzing"), feature = "local-models"))]
pub(crate) use tokenizer::fuzz;
pub use types::{
    Compute, Device, Dimensions, Embeddings, InputKind, InstalledModel, Piece, Pooling, Precision, PullProgress,
    VerifiedFile, default_models_dir,
};
