//! Encoders that run on this machine; the only place where candle is named.

mod bert;
mod blocks;
mod candle;
mod device;
#[cfg(test)]
mod family_tests;
mod kernels;
mod mpnet;
mod nomic_bert;
#[cfg(test)]
mod pair_tests;
mod pooling;
#[cfg(test)]
mod tests;
mod transformer;
mod weights;

use std::path::Path;

use rayon::ThreadPool;

use super::settings::{Architecture, Family, Settings};
use super::{Device, EmbedError, Precision};
use candle::CandleEncoder;
use kernels::{CpuLevel, Kernels};
use transformer::Transformer;
use weights::Weights;

/// Forces the instruction set of the kernels: `avx512-vnni`, `avx512`, `avx2`, `neon-dotprod`, `neon` or `scalar`.
const LEVEL_VARIABLE: &str = "PANNIER_CPU_LEVEL";

/// Set in a token of the second of two texts, which is of type 1; the others are of type 0. No table of tokens has so
/// many rows.
pub(super) const OF_SECOND: u32 = 1 << 31;

/// A token's row in the table, and its type.
fn row_and_type(token: u32) -> (u32, u32) {
    (token & !OF_SECOND, u32::from(token & OF_SECOND != 0))
}

/// A model's encoder, from tokens to pooled vectors.
#[derive(Debug)]
pub(super) struct Encoder {
    backend: Backend,
    precision: Precision,
    settings: Settings,
}

#[derive(Debug)]
enum Backend {
    /// Our own kernels, on the CPU.
    Kernels(Box<Transformer>),
    /// candle, for shapes that the kernels do not take and for other devices.
    Candle(Box<CandleEncoder>),
}

impl Encoder {
    /// Loads the weights at `path`. What candle runs is of [`Precision::Float32`], whatever is asked for; see
    /// [`Encoder::precision`].
    ///
    /// # Errors
    /// [`EmbedError::CpuLevel`], [`EmbedError::Device`], [`EmbedError::Malformed`], [`EmbedError::Compute`],
    /// [`EmbedError::Storage`].
    pub(super) fn load(
        path: &Path,
        settings: &Settings,
        precision: Precision,
        device: Device,
    ) -> Result<Self, EmbedError> {
        let setting = std::env::var_os(LEVEL_VARIABLE).filter(|setting| !setting.is_empty());
        let setting = setting.map(|setting| setting.to_string_lossy().into_owned());
        let kernels = kernels_for(setting)?;
        let weights = Weights::open(path, settings.architecture.word_table())?;
        let architecture = &settings.architecture;
        let device = device::open(device)?;
        let settings = settings.clone();
        if (device.is_cpu() || !candle::runs(architecture)) && transformer::fits(architecture) {
            let transformer = match &architecture.family {
                Family::NomicBert(rotary) => nomic_bert::load(weights, architecture, rotary, kernels, precision)?,
                _ => bert::load(weights, architecture, kernels, precision)?,
            };
            return Ok(Self { backend: Backend::Kernels(Box::new(transformer)), precision, settings });
        }
        if precision != Precision::Float32 {
            tracing::warn!(path = %path.display(), asked = precision.name(), "this model runs in float32");
        }
        let backend = Backend::Candle(Box::new(CandleEncoder::load(&weights, architecture, device)?));
        Ok(Self { backend, precision: Precision::Float32, settings })
    }

    /// Loads the weights at `path` for candle's own forward, on the CPU.
    ///
    /// # Errors
    /// As [`Encoder::load`].
    pub(super) fn load_reference(path: &Path, settings: &Settings) -> Result<Self, EmbedError> {
        let (weights, settings) = (Weights::open(path, settings.architecture.word_table())?, settings.clone());
        let model = CandleEncoder::load(&weights, &settings.architecture, candle_core::Device::Cpu)?;
        Ok(Self { backend: Backend::Candle(Box::new(model)), precision: Precision::Float32, settings })
    }

    /// The precision in which it runs.
    pub(super) fn precision(&self) -> Precision {
        self.precision
    }

    /// Whether a second pass would wait for the end of the first.
    pub(super) fn runs_alone(&self) -> bool {
        match self.backend {
            Backend::Kernels(_) => false,
            Backend::Candle(_) => true,
        }
    }

    /// Encodes sequences of 1 to [`most_tokens`] tokens of the vocabulary, some with [`OF_SECOND`], in one pass: on the
    /// calling thread, or, with `helpers`, on one of `pool` and up to so many more. candle always computes on all
    /// threads of `pool`, one pass at a time. Not to be called within `pool`. Returns one pooled vector a sequence, in
    /// order, shape `[hidden]`, not normalised.
    ///
    /// # Errors
    /// [`EmbedError::Compute`].
    pub(super) fn encode(
        &self,
        sequences: &[&[u32]],
        helpers: usize,
        pool: &ThreadPool,
    ) -> Result<Vec<Vec<f64>>, EmbedError> {
        let pooling = self.settings.pooling;
        match &self.backend {
            Backend::Kernels(transformer) if helpers == 0 => Ok(transformer.encode(sequences, pooling, 0)),
            Backend::Kernels(transformer) => Ok(pool.install(|| transformer.encode(sequences, pooling, helpers))),
            Backend::Candle(encoder) => {
                let _turn = encoder.turn();
                pool.install(|| encoder.encode(sequences, pooling))
            }
        }
    }
}

/// Whether models can run on a device. [`Device::Auto`] always can.
///
/// # Errors
/// [`EmbedError::Device`].
pub(super) fn check_device(asked: Device) -> Result<(), EmbedError> {
    match asked {
        Device::Auto => Ok(()),
        named => device::open(named).map(drop),
    }
}

/// Tokens of the longest sequence that an encoder of this architecture is given: as many as it has positions, unless it
/// needs candle, whose attention takes memory with the square of the length. The same in every build, as it decides
/// vectors.
pub(super) fn most_tokens(architecture: &Architecture) -> usize {
    let positions = architecture.usable_positions();
    match transformer::fits(architecture) {
        true => positions,
        false => positions.min(candle::most_tokens(architecture.heads)),
    }
}

/// Reads a dense layer: `{name}.weight`, `shape`, and `{name}.bias`, zeros where it has none.
///
/// # Errors
/// [`EmbedError::Malformed`], [`EmbedError::Storage`].
pub(super) fn read_linear(
    path: &Path,
    name: &str,
    shape: [usize; 2],
    with_bias: bool,
) -> Result<(Vec<f32>, Vec<f32>), EmbedError> {
    let weight = format!("{name}.weight");
    let weights = Weights::open(path, &weight)?;
    let bias = match with_bias {
        true => weights.tensor(&format!("{name}.bias"), &shape[..1])?.into_owned(),
        false => vec![0.0; shape[0]],
    };
    Ok((weights.tensor(&weight, &shape)?.into_owned(), bias))
}

/// The kernels that the setting asks for, or the fastest.
fn kernels_for(setting: Option<String>) -> Result<Kernels, EmbedError> {
    let Some(got) = setting.filter(|setting| !setting.is_empty()) else {
        return Ok(Kernels::fastest());
    };
    CpuLevel::from_name(&got).and_then(Kernels::new).ok_or_else(|| EmbedError::CpuLevel {
        got,
        available: CpuLevel::available().into_iter().map(CpuLevel::name).collect::<Vec<_>>().join(", "),
    })
}
