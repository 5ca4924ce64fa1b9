//! modules.json and what it names: the pooling, dense layers and normalisations that follow the transformer.

use std::path::Path;

use serde::Deserialize;

use super::read_json;
use crate::embed::{EmbedError, Pooling};
use crate::types::limits::MAX_DIM;

/// The file that lists a model's modules.
pub(crate) const MODULES_FILE: &str = "modules.json";

/// The modules that a text passes, by the directories of their settings, relative to the model's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Modules {
    /// Empty where the transformer's files lie beside modules.json.
    pub transformer: String,
    pub pooling: String,
    /// What follows, in order.
    pub following: Vec<Following>,
}

/// A module after the pooling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Following {
    /// A dense layer, by its directory.
    Dense(String),
    Normalise,
}

/// What a pooled vector passes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Dense(Dense),
    /// Scaled to length 1.
    Normalise,
}

/// `activation(weight * x + bias)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dense {
    /// Where its weights lie, relative to the model's directory.
    pub dir: String,
    pub inputs: usize,
    pub outputs: usize,
    pub bias: bool,
    pub activation: Activation,
}

/// What a dense layer does with its sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    Identity,
    Tanh,
    Relu,
    Gelu,
    Sigmoid,
}

#[derive(Deserialize)]
struct Module {
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct PoolingConfig {
    /// Newer files name the mode, older ones have a switch for each.
    #[serde(default)]
    pooling_mode: Option<String>,
    #[serde(default)]
    pooling_mode_cls_token: bool,
    #[serde(default)]
    pooling_mode_mean_tokens: bool,
    #[serde(default)]
    pooling_mode_max_tokens: bool,
    #[serde(default)]
    pooling_mode_mean_sqrt_len_tokens: bool,
    #[serde(default)]
    pooling_mode_weightedmean_tokens: bool,
    #[serde(default)]
    pooling_mode_lasttoken: bool,
    #[serde(default = "yes")]
    include_prompt: bool,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
struct DenseConfig {
    in_features: usize,
    out_features: usize,
    #[serde(default = "yes")]
    bias: bool,
    activation_function: String,
}

/// More modules than any model has.
const MAX_MODULES: usize = 16;

impl Modules {
    /// Reads modules.json.
    ///
    /// # Errors
    /// [`EmbedError::Malformed`], [`EmbedError::Storage`]; [`EmbedError::Unsupported`] for other modules than these.
    pub(crate) fn read(path: &Path) -> Result<Self, EmbedError> {
        let modules: Vec<Module> = read_json(path)?;
        // A type is named by its place in the Python package, which has changed; the last part has not.
        let kinds: Vec<&str> = modules.iter().map(|m| m.kind.rsplit('.').next().unwrap_or_default()).collect();
        let unsupported = || EmbedError::Unsupported {
            path: path.to_owned(),
            feature: format!("the modules {}", kinds.join(", ")),
            supported: "Transformer, Pooling and then any number of Dense and Normalize",
        };
        if modules.len() > MAX_MODULES || !matches!(kinds.as_slice(), ["Transformer", "Pooling", ..]) {
            return Err(unsupported());
        }
        for (module, kind) in modules.iter().zip(&kinds) {
            let stands_beside = *kind == "Transformer" && module.path.is_empty();
            if !stands_beside && !is_directory(&module.path) {
                let reason = format!("the path {:?} of the module {kind} is not the name of a directory", module.path);
                return Err(EmbedError::malformed(path, reason));
            }
        }
        let following = modules.iter().zip(&kinds).skip(2).filter_map(|(module, kind)| match *kind {
            "Dense" => Some(Ok(Following::Dense(module.path.clone()))),
            "Normalize" => Some(Ok(Following::Normalise)),
            // It does something in training only.
            "Dropout" => None,
            _ => Some(Err(unsupported())),
        });
        Ok(Self {
            following: following.collect::<Result<_, _>>()?,
            transformer: modules[0].path.clone(),
            pooling: modules[1].path.clone(),
        })
    }
}

/// Whether a path is one directory below the model's own.
fn is_directory(path: &str) -> bool {
    (1..=96).contains(&path.len())
        && !path.starts_with('.')
        && path.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// How tokens are pooled, and whether those of the prefix are among them.
///
/// # Errors
/// [`EmbedError::Malformed`], [`EmbedError::Unsupported`], [`EmbedError::Storage`].
pub(super) fn read_pooling(path: &Path) -> Result<(Pooling, bool), EmbedError> {
    let config: PoolingConfig = read_json(path)?;
    let modes = [
        (config.pooling_mode_mean_tokens, Pooling::Mean),
        (config.pooling_mode_cls_token, Pooling::FirstToken),
        (config.pooling_mode_max_tokens, Pooling::Max),
        (config.pooling_mode_mean_sqrt_len_tokens, Pooling::MeanSqrtLength),
        (config.pooling_mode_weightedmean_tokens, Pooling::WeightedMean),
        (config.pooling_mode_lasttoken, Pooling::LastToken),
    ];
    let chosen: Vec<&str> = match &config.pooling_mode {
        Some(mode) => vec![mode],
        None => modes.iter().filter(|(set, _)| *set).map(|(_, pooling)| pooling.name()).collect(),
    };
    let pooling = match chosen.as_slice() {
        [name] => modes.iter().map(|(_, pooling)| *pooling).find(|pooling| pooling.name() == *name),
        _ => None,
    };
    let Some(pooling) = pooling else {
        let by = if chosen.is_empty() { "nothing".to_owned() } else { chosen.join(" + ") };
        return Err(EmbedError::Unsupported {
            path: path.to_owned(),
            feature: format!("pooling by {by}"),
            supported: "one of mean, cls, max, mean_sqrt_len_tokens, weightedmean and lasttoken",
        });
    };
    Ok((pooling, config.include_prompt))
}

/// The steps after the pooling of vectors of `dim` numbers, and how many numbers leave them.
///
/// # Errors
/// [`EmbedError::Malformed`], [`EmbedError::Unsupported`], [`EmbedError::Storage`].
pub(super) fn read_steps(dir: &Path, modules: &Modules, mut dim: usize) -> Result<(Vec<Step>, usize), EmbedError> {
    let mut steps = Vec::with_capacity(modules.following.len());
    for module in &modules.following {
        steps.push(match module {
            Following::Normalise => Step::Normalise,
            Following::Dense(below) => {
                let dense = read_dense(dir, below, dim)?;
                dim = dense.outputs;
                Step::Dense(dense)
            }
        });
    }
    Ok((steps, dim))
}

fn read_dense(dir: &Path, below: &str, dim: usize) -> Result<Dense, EmbedError> {
    let path = dir.join(below).join("config.json");
    let config: DenseConfig = read_json(&path)?;
    if config.in_features != dim || !(1..=MAX_DIM).contains(&config.out_features) {
        let (inputs, outputs) = (config.in_features, config.out_features);
        let reason = format!("it makes {outputs} numbers of {inputs}; it gets {dim}, and may make 1 to {MAX_DIM}");
        return Err(EmbedError::malformed(path, reason));
    }
    let activation = match config.activation_function.rsplit('.').next().unwrap_or_default() {
        "Identity" => Activation::Identity,
        "Tanh" => Activation::Tanh,
        "ReLU" => Activation::Relu,
        "GELU" => Activation::Gelu,
        "Sigmoid" => Activation::Sigmoid,
        _ => {
            return Err(EmbedError::Unsupported {
                path,
                feature: format!("the activation {:?}", config.activation_function),
                supported: "Identity, Tanh, ReLU, GELU and Sigmoid",
            });
        }
    };
    let (inputs, outputs, bias) = (config.in_features, config.out_features, config.bias);
    Ok(Dense { dir: below.to_owned(), inputs, outputs, bias, activation })
}

impl Step {
    pub(super) fn identity(&self) -> String {
        match self {
            Step::Dense(Dense { inputs, outputs, bias, activation, .. }) => {
                format!("dense={inputs}x{outputs} bias={bias} activation={activation:?}")
            }
            Step::Normalise => "normalise".to_owned(),
        }
    }
}
