//! Tests of the CPU device. The scalar kernels are held against definitions in f64 or in plain code, every other
//! instruction set that this CPU has (`tests/isa.rs` says which it must have) against the scalar kernels, bit for bit.

mod attention;
mod linear;
mod lines;
mod packed;
mod quantise;
mod real;
mod rows;
mod threads;

use std::sync::Arc;

use super::act::{Act, Precision, WORDS};
use super::kernels::Kernels;
use super::{Arena, Buffer, Device, Isa, Shape, Threads, Weight};
use crate::quant::{Format, Scales};
use crate::rng::Rng;

/// A device of one thread for every variant of every instruction set of this CPU, scalar first.
fn variants() -> impl Iterator<Item = (String, Device)> {
    let of = |isa| Kernels::variants(isa).enumerate().map(move |(i, kernels)| (format!("{isa} {i}"), kernels));
    let device = |(name, kernels)| (name, Device { threads: Threads::new(1), kernels });
    Isa::ALL.into_iter().flat_map(of).map(device)
}

/// The variants, and the same kernels in plain code with the shapes of other CPUs' vectors.
fn variants_and_shapes() -> impl Iterator<Item = (String, Device)> {
    let device = |(name, kernels): (&str, _)| (name.to_owned(), Device { threads: Threads::new(1), kernels });
    variants().chain(Kernels::shapes().into_iter().map(device))
}

/// A device of every variant with every number of threads from 1 to 3, the first is scalar on one thread; and of every
/// shape.
fn devices() -> Vec<(String, Device)> {
    let others = [2, 3].map(Threads::new);
    let mut devices: Vec<(String, Device)> = variants_and_shapes().collect();
    for threads in &others {
        for (name, Device { kernels, .. }) in variants() {
            devices
                .push((format!("{name} on {} threads", threads.count()), Device { threads: threads.clone(), kernels }));
        }
    }
    devices
}

/// As `tests/isa.rs`, for the variants: nothing that the CPU has is skipped in silence.
#[cfg(target_os = "linux")]
#[test]
fn both_variants_of_an_instruction_set_are_tested() {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap();
    let has = |flag: &str| cpuinfo.split_whitespace().any(|word| word == flag);
    for (isa, flag) in [(Isa::Avx2, "avx_vnni"), (Isa::Neon, "asimddp")] {
        let expected = usize::from(isa.is_available()) + usize::from(has(flag));
        assert_eq!(Kernels::variants(isa).count(), expected, "{isa}");
    }
}

/// Where two results differ in a bit; all NaN are equal.
#[track_caller]
fn assert_same(found: &[f32], expected: &[f32], what: impl Fn() -> String) {
    assert_eq!(found.len(), expected.len(), "{}", what());
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let same = found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
        assert!(same, "{}: value {i} is {found:e}, expected {expected:e}", what());
    }
}

impl Rng {
    fn below(&mut self, n: usize) -> usize {
        (self.next_u64() % n as u64) as usize
    }

    /// Uniform in [-1, 1).
    fn signed(&mut self) -> f32 {
        (2.0 * self.next_f64() - 1.0) as f32
    }

    fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.signed()).collect()
    }

    fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next_u64() as u8).collect()
    }
}

/// What the numbers of a random matrix or activation may be.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Numbers {
    Ordinary,
    /// Zeros, subnormals and the largest numbers among them.
    Extreme,
    /// Infinities and NaN among those.
    NotFinite,
}

/// A random f16, near 1 if ordinary.
fn random_half(rng: &mut Rng, numbers: Numbers) -> u16 {
    const EXTREME: [u16; 8] = [0x0000, 0x8000, 0x0001, 0x03FF, 0x8155, 0x0400, 0x7BFF, 0xFBFF];
    match numbers {
        Numbers::NotFinite if rng.below(40) == 0 => [0x7C00, 0xFC00, 0x7E00][rng.below(3)],
        Numbers::Extreme | Numbers::NotFinite if rng.below(3) == 0 => EXTREME[rng.below(8)],
        _ => half::f16::from_f32(rng.signed()).to_bits(),
    }
}

/// Random f32 of the same kind.
fn random_floats(rng: &mut Rng, n: usize, numbers: Numbers) -> Vec<f32> {
    const EXTREME: [f32; 10] = [0.0, -0.0, 1e-45, -3e-39, 1e-30, 7.5e-31, 1e10, -3e38, 0.5, 1000.0];
    let mut one = |_| match numbers {
        Numbers::NotFinite if rng.below(200) == 0 => [f32::INFINITY, f32::NEG_INFINITY, f32::NAN][rng.below(3)],
        Numbers::Extreme | Numbers::NotFinite if rng.below(8) == 0 => EXTREME[rng.below(10)],
        _ => rng.signed(),
    };
    (0..n).map(&mut one).collect()
}

/// Where a block of a format keeps its f16 numbers. (IQ1_M has one, in pieces.)
fn halves_of_block(format: Format) -> &'static [usize] {
    match format {
        Format::F32 | Format::BF16 | Format::MXFP4 | Format::NVFP4 | Format::IQ1M => &[],
        Format::F16 | Format::Q4_0 | Format::Q5_0 | Format::Q8_0 | Format::IQ4NL | Format::IQ4XS => &[0],
        Format::IQ1S | Format::IQ2XXS | Format::IQ2XS | Format::IQ2S | Format::IQ3XXS | Format::IQ3S => &[0],
        Format::Q4_1 | Format::Q5_1 | Format::Q4K | Format::Q5K => &[0, 2],
        Format::Q2K => &[80, 82],
        Format::Q3K => &[108],
        Format::Q6K => &[208],
        Format::TQ1_0 => &[52],
        Format::TQ2_0 => &[64],
    }
}

/// The GGUF bytes of a random matrix: any codes, numbers of the kind asked for.
fn random_matrix(rng: &mut Rng, shape: Shape, numbers: Numbers) -> Vec<u8> {
    let n = shape.rows * shape.row_bytes();
    if matches!(shape.format, Format::F32 | Format::BF16) {
        let mut bytes = vec![0; n];
        shape.format.encode(&random_floats(rng, shape.rows * shape.columns, numbers), &mut bytes).unwrap();
        return bytes;
    }
    let mut bytes = rng.bytes(n);
    for block in bytes.chunks_exact_mut(shape.format.block_bytes()) {
        for &at in halves_of_block(shape.format) {
            block[at..at + 2].copy_from_slice(&random_half(rng, numbers).to_le_bytes());
        }
        if shape.format == Format::IQ1M {
            let (half, mut scales) = (random_half(rng, numbers), [Scales::default()]);
            shape.format.scales(block, &mut scales);
            shape.format.set_scales(block, Scales { d: half.to_le_bytes(), ..scales[0] });
        }
        if shape.format == Format::MXFP4 && numbers == Numbers::Ordinary {
            // An exponent: 2^-8 to 2^7.
            block[0] = 120 + block[0] % 16;
        }
    }
    bytes
}

/// Packs a matrix from its GGUF bytes, behind another 128 bytes in the arena.
fn packed(shape: Shape, bytes: &[u8]) -> Weight {
    const OFFSET: usize = 128;
    let mut memory = Arena::allocate(OFFSET + shape.packed_bytes().unwrap()).unwrap();
    memory[..OFFSET].fill(0xFF);
    let rows = bytes.chunks(super::PANEL_ROWS * shape.row_bytes());
    for (rows, panel) in rows.zip(memory[OFFSET..].chunks_exact_mut(shape.panel_bytes())) {
        shape.pack(rows, panel);
    }
    let arena = Arena::default();
    arena.fill(memory).unwrap();
    Weight::new(shape, Arc::new(arena), OFFSET)
}

/// A buffer with these values, rows of `width`.
fn buffer(width: usize, values: &[f32]) -> Buffer {
    let mut buffer = Buffer::default();
    buffer.reset(values.len() / width, width).unwrap();
    buffer.data_mut().copy_from_slice(values);
    buffer
}

/// Activations with these values, rows of `width`, in the device's tiles.
fn act(device: &Device, width: usize, values: &[f32], precision: Precision) -> Act {
    let mut act = Act::default();
    act.reset(values.len() / width, width, precision, device.kernels.widest).unwrap();
    for mut rows in act.rows_mut(1) {
        rows.values.copy_from_slice(&values[rows.start * width..][..rows.values.len()]);
        (device.kernels.quantise)(&mut rows);
    }
    act
}

/// The values that stand in column `t` of quantised activations, in their precision; and the raw words `[block][word]`.
fn quantised(act: &Act, t: usize) -> (Vec<f64>, Vec<Vec<i32>>) {
    let (start, width) = act.tiles(0).find(|&(start, width)| (start..start + width).contains(&t)).unwrap();
    let parts = act.tile(start, width).chunks_exact(WORDS).collect::<Vec<_>>();
    let words: Vec<Vec<i32>> = parts
        .chunks_exact(act.parts() * width)
        .map(|block| block.iter().skip(t - start).step_by(width).copied().flatten().copied().collect())
        .collect();
    let values = words.iter().flat_map(|block| {
        let d = f64::from(f32::from_bits(block[block.len() - 2] as u32));
        let fine = block.len() == 2 * WORDS;
        let codes = |first: usize| block[first..first + 8].iter().flat_map(|word| word.to_le_bytes());
        let rest = codes(if fine { WORDS } else { 0 });
        codes(0).zip(rest).map(move |(q, r)| {
            let (q, r) = (f64::from(q as i8), f64::from(r as i8));
            d * if fine { 256.0 * q + r } else { q }
        })
    });
    (values.collect(), words)
}
