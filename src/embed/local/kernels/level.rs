//! Which instruction set the kernels use.

#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512, vnni};
#[cfg(target_arch = "aarch64")]
use super::{dotprod, neon};

/// An instruction set that the kernels are built for, of each architecture the slowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CpuLevel {
    /// Plain Rust.
    Scalar,
    /// AArch64 with NEON.
    Neon,
    /// AArch64 with NEON and dot products of 8 bits.
    NeonDotprod,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// x86-64 with AVX-512 F; int8 as on [`CpuLevel::Avx2`].
    Avx512,
    /// x86-64 with AVX-512 F and VNNI.
    Avx512Vnni,
}

impl CpuLevel {
    /// Every level, slowest first.
    pub(crate) const ALL: [CpuLevel; 6] = [
        CpuLevel::Scalar,
        CpuLevel::Neon,
        CpuLevel::NeonDotprod,
        CpuLevel::Avx2,
        CpuLevel::Avx512,
        CpuLevel::Avx512Vnni,
    ];

    /// As settings write it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            CpuLevel::Scalar => "scalar",
            CpuLevel::Neon => "neon",
            CpuLevel::NeonDotprod => "neon-dotprod",
            CpuLevel::Avx2 => "avx2",
            CpuLevel::Avx512 => "avx512",
            CpuLevel::Avx512Vnni => "avx512-vnni",
        }
    }

    /// The level that settings write as `name`.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name() == name)
    }

    /// Whether this CPU has it.
    pub(crate) fn is_available(self) -> bool {
        match self {
            CpuLevel::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            CpuLevel::Avx2 => avx2::is_available(),
            #[cfg(target_arch = "x86_64")]
            CpuLevel::Avx512 => avx512::is_available(),
            #[cfg(target_arch = "x86_64")]
            CpuLevel::Avx512Vnni => vnni::is_available(),
            #[cfg(target_arch = "aarch64")]
            CpuLevel::Neon => neon::is_available(),
            #[cfg(target_arch = "aarch64")]
            CpuLevel::NeonDotprod => dotprod::is_available(),
            _ => false,
        }
    }

    /// The fastest that this CPU has.
    pub(crate) fn fastest() -> Self {
        Self::ALL.into_iter().rev().find(|level| level.is_available()).unwrap_or(CpuLevel::Scalar)
    }

    /// Those that this CPU has, slowest first.
    pub(crate) fn available() -> Vec<Self> {
        Self::ALL.into_iter().filter(|level| level.is_available()).collect()
    }
}
