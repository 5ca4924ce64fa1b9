//! Encoders that run on this machine; the only place where candle is named.

mod bert;
mod candle_bert;
mod embeddings;
mod kernels;
#[cfg(test)]
mod tests;
mod weights;
mod workspace;

use std::path::Path;

use rayon::ThreadPool;

use super::EmbedError;
use super::settings::Settings;
use bert::Bert;
use candle_bert::CandleBert;
use kernels::{CpuLevel, Kernels};
use weights::Weights;

/// Forces the instruction set of the kernels: `avx512`, `avx2` or `scalar`.
const LEVEL_VARIABLE: &str = "PANNIER_CPU_LEVEL";

/// A model's encoder, from tokens to pooled vectors.
#[derive(Debug)]
pub(super) struct Encoder {
    backend: Backend,
    settings: Settings,
}

#[derive(Debug)]
enum Backend {
    /// Our own kernels, on the CPU.
    Kernels(Box<Bert>),
    /// candle, for shapes that the kernels do not take and for other devices.
    Candle(Box<CandleBert>),
}

impl Encoder {
    /// Loads the weights at `path`.
    ///
    /// # Errors
    /// [`EmbedError::CpuLevel`], [`EmbedError::Malformed`], [`EmbedError::Compute`], [`EmbedError::Storage`].
    pub(super) fn load(path: &Path, settings: &Settings) -> Result<Self, EmbedError> {
        let setting = std::env::var_os(LEVEL_VARIABLE).map(|setting| setting.to_string_lossy().into_owned());
        let kernels = kernels_for(setting)?;
        let weights = Weights::open(path)?;
        let architecture = &settings.architecture;
        let device = candle_bert::device()?;
        let backend = if device.is_cpu() && Bert::fits(architecture) {
            Backend::Kernels(Box::new(Bert::load(weights, architecture, kernels)?))
        } else {
            Backend::Candle(Box::new(CandleBert::load(&weights, architecture, device)?))
        };
        Ok(Self { backend, settings: settings.clone() })
    }

    /// Encodes sequences of 1 to `max_positions` tokens of the vocabulary in one pass: on the calling thread, but for
    /// candle, which computes on the threads of `pool`. Returns one pooled vector a sequence, in order, shape `[hidden]`,
    /// not normalised.
    ///
    /// # Errors
    /// [`EmbedError::Compute`].
    pub(super) fn encode(&self, sequences: &[&[u32]], pool: &ThreadPool) -> Result<Vec<Vec<f64>>, EmbedError> {
        let pooling = self.settings.pooling;
        match &self.backend {
            Backend::Kernels(bert) => Ok(bert.encode(sequences, pooling)),
            Backend::Candle(bert) => pool.install(|| bert.encode(sequences, pooling)),
        }
    }
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
