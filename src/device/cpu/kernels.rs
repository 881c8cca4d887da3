//! The table of kernels of each instruction set, and the choice among them.
#![allow(unsafe_code)]

use std::fmt;
use std::str::FromStr;

use super::act::{ActRows, Plain};
use super::attention::{Partial, Tile};
use super::linear::Job;
use super::scalar;
use super::simd::Simd;
#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64")))]
use super::simd::lanes::Lanes;
#[cfg(target_arch = "aarch64")]
use super::simd::neon::Neon;
#[cfg(target_arch = "x86_64")]
use super::simd::{avx2::Avx2, avx512::Avx512};
use crate::device::Activation;
use crate::error::{Error, Result};
use crate::numeric;

/// An instruction set that kernels exist for. All give the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Plain code: the reference, and what runs where there is nothing else.
    Scalar,
    /// NEON of 64-bit ARM, and its dot products where the CPU has them.
    Neon,
    /// AVX2 with FMA and F16C, and AVX-VNNI where the CPU has it.
    Avx2,
    /// AVX-512 F, BW, DQ, VL with VNNI.
    Avx512,
}

impl Isa {
    /// All of them, slowest first.
    pub const ALL: [Isa; 4] = [Isa::Scalar, Isa::Neon, Isa::Avx2, Isa::Avx512];

    /// The name: `scalar`, `neon`, `avx2`, `avx512`.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Neon => "neon",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
        }
    }

    /// True if this CPU and system have it.
    pub fn is_available(self) -> bool {
        Kernels::get(self).is_ok()
    }

    /// The fastest that this CPU has, or what the environment variable `LLM_ISA` names.
    ///
    /// # Errors
    /// `Unsupported` if `LLM_ISA` names none, or one that the CPU lacks.
    pub fn choose() -> Result<Isa> {
        match std::env::var("LLM_ISA") {
            Ok(name) if !name.is_empty() => {
                let isa: Isa = name.parse()?;
                Kernels::get(isa).map(|_| isa)
            }
            _ => Ok(Isa::ALL.into_iter().rev().find(|isa| isa.is_available()).unwrap_or(Isa::Scalar)),
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Isa {
    type Err = Error;

    fn from_str(name: &str) -> Result<Isa> {
        Isa::ALL.into_iter().find(|isa| isa.name() == name).ok_or_else(|| {
            Error::unsupported(format!("there is no instruction set \"{name}\"; there are scalar, neon, avx2, avx512"))
                .with("isa", name)
        })
    }
}

/// out = activation(gate), times up where it is given: (activation, gate, up, out).
type Gated = fn(Activation, &[f32], Option<&[f32]>, &mut [f32]);

/// The kernels of one instruction set.
pub(super) struct Kernels {
    /// The widest tile of columns that `linear` takes.
    pub widest: usize,
    /// The panels that it multiplies together where there are many columns.
    pub together: usize,
    pub linear: fn(&Job<'_>),
    pub quantise: fn(&mut ActRows<'_>),
    pub sum_of_squares: fn(&[f32]) -> f32,
    pub gated: Gated,
    pub softcap: fn(f32, &mut [f32]),
    pub add_scaled: fn(f32, &[f32], &mut [f32]),
    pub attend: fn(&Tile<'_>, usize, &mut Partial),
    pub merge: fn(&mut Partial, &Partial),
}

static SCALAR: Kernels = Kernels {
    widest: 12,
    together: 1,
    linear: scalar::linear,
    quantise: |rows| rows.quantise(Plain),
    sum_of_squares: scalar::sum_of_squares,
    gated: scalar::gated,
    softcap: |cap, x| x.iter_mut().for_each(|x| *x = numeric::tanh(*x / cap) * cap),
    add_scaled: scalar::add_scaled,
    attend: scalar::attend,
    merge: scalar::merge,
};

/// The instruction set of a table. It is never None: `Kernels::variants` gives a table out only where this, or an instruction set
/// that has it as its base, is Some.
fn of_table<S>(simd: Option<S>) -> S {
    simd.unwrap_or_else(|| unreachable!("the table is given out only where the CPU has it"))
}

/// The table of an instruction set.
macro_rules! instance {
    // Each kernel of `vector` compiled with its features.
    ($table:ident, $simd:path, $features:literal) => {
        static $table: Kernels = {
            use super::vector::{attention, linear, quantise::Vectors, rows};

            fn simd() -> $simd {
                of_table(<$simd>::new())
            }

            #[target_feature(enable = $features)]
            fn quantise(s: $simd, rows: &mut ActRows<'_>) {
                rows.quantise(Vectors(s));
            }
            #[target_feature(enable = $features)]
            fn sum_of_squares(s: $simd, x: &[f32]) -> f32 {
                rows::sum_of_squares(s, x)
            }
            #[target_feature(enable = $features)]
            fn gated(s: $simd, activation: Activation, gate: &[f32], up: Option<&[f32]>, out: &mut [f32]) {
                rows::gated(s, activation, gate, up, out);
            }
            #[target_feature(enable = $features)]
            fn softcap(s: $simd, cap: f32, x: &mut [f32]) {
                rows::softcap(s, cap, x);
            }
            #[target_feature(enable = $features)]
            fn add_scaled(s: $simd, scale: f32, x: &[f32], y: &mut [f32]) {
                rows::add_scaled(s, scale, x, y);
            }
            #[target_feature(enable = $features)]
            fn merge(s: $simd, into: &mut Partial, from: &Partial) {
                attention::merge(s, into, from);
            }

            // SAFETY (of all calls below): the functions need the CPU features that `simd()` is the proof of.
            Kernels {
                widest: <$simd>::WIDEST,
                together: <$simd>::TOGETHER,
                linear: |job| linear::linear(simd(), job),
                // SAFETY: as above.
                quantise: |rows| unsafe { quantise(simd(), rows) },
                // SAFETY: as above.
                sum_of_squares: |x| unsafe { sum_of_squares(simd(), x) },
                // SAFETY: as above.
                gated: |activation, gate, up, out| unsafe { gated(simd(), activation, gate, up, out) },
                // SAFETY: as above.
                softcap: |cap, x| unsafe { softcap(simd(), cap, x) },
                // SAFETY: as above.
                add_scaled: |scale, x, y| unsafe { add_scaled(simd(), scale, x, y) },
                attend: |tile, segment, partial| attention::attend(simd(), tile, segment, partial),
                // SAFETY: as above.
                merge: |into, from| unsafe { merge(simd(), into, from) },
            }
        };
    };
    // Of one that differs from that of `$base` in its integer products alone.
    ($table:ident, $simd:path, products beside those of $base:ident) => {
        static $table: Kernels = {
            use super::vector::{attention, linear};

            fn simd() -> $simd {
                of_table(<$simd>::new())
            }

            Kernels {
                widest: <$simd>::WIDEST,
                together: <$simd>::TOGETHER,
                linear: |job| linear::linear(simd(), job),
                attend: |tile, segment, partial| attention::attend(simd(), tile, segment, partial),
                ..$base
            }
        };
    };
}

#[cfg(target_arch = "x86_64")]
instance!(AVX2, Avx2<false>, "avx2,fma,f16c");
#[cfg(target_arch = "x86_64")]
instance!(AVX_VNNI, Avx2<true>, products beside those of AVX2);
#[cfg(target_arch = "x86_64")]
instance!(AVX512, Avx512, "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c");
#[cfg(target_arch = "aarch64")]
instance!(NEON, Neon<false>, "neon");
#[cfg(target_arch = "aarch64")]
instance!(NEON_DOT, Neon<true>, products beside those of NEON);
// The kernels as NEON, AVX-VNNI and AVX-512 shape them, where the CPU has none of these. The features are those that every CPU has.
#[cfg(all(test, target_arch = "x86_64"))]
instance!(LANES_4, Lanes<4, 8>, "sse2");
#[cfg(all(test, target_arch = "x86_64"))]
instance!(LANES_8, Lanes<8, 4>, "sse2");
#[cfg(all(test, target_arch = "x86_64"))]
instance!(LANES_16, Lanes<16, 12>, "sse2");
#[cfg(all(test, target_arch = "aarch64"))]
instance!(LANES_8, Lanes<8, 4>, "neon");
#[cfg(all(test, target_arch = "aarch64"))]
instance!(LANES_16, Lanes<16, 12>, "neon");

impl Kernels {
    /// The tables in plain code with the shapes of other CPUs' vectors.
    #[cfg(test)]
    pub(super) fn shapes() -> Vec<(&'static str, &'static Kernels)> {
        #[cfg(target_arch = "x86_64")]
        return vec![("4 lanes", &LANES_4), ("8 lanes", &LANES_8), ("16 lanes", &LANES_16)];
        #[cfg(target_arch = "aarch64")]
        return vec![("8 lanes", &LANES_8), ("16 lanes", &LANES_16)];
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        return Vec::new();
    }

    /// The tables of `isa` that the CPU has what is needed for, the fastest first.
    pub(super) fn variants(isa: Isa) -> impl Iterator<Item = &'static Kernels> {
        let variants: [Option<&'static Kernels>; 2] = match isa {
            Isa::Scalar => [Some(&SCALAR), None],
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => [Avx2::<true>::new().map(|_| &AVX_VNNI), Avx2::<false>::new().map(|_| &AVX2)],
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => [Avx512::new().map(|_| &AVX512), None],
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => [Neon::<true>::new().map(|_| &NEON_DOT), Neon::<false>::new().map(|_| &NEON)],
            // Those of other architectures.
            _ => [None, None],
        };
        variants.into_iter().flatten()
    }

    /// The table of `isa`, if the CPU has it.
    pub(super) fn get(isa: Isa) -> Result<&'static Kernels> {
        Self::variants(isa).next().ok_or_else(|| {
            Error::unsupported(format!("this CPU does not have the instruction set {isa}")).with("isa", isa)
        })
    }
}
