//! The kernels in plain code: what every vector kernel must equal bit for bit, and what runs where there is none.
//!
//! Quantised products follow the format's row in the comments of [`linear`]; `a` is always an exact integer sum, of the
//! codes with q, or with 256 q + r where the activations are taken in 16 bits.

use super::act::{BLOCK, SIGN_OFFSET, WORDS};
use super::attention::{Partial, SEGMENT, Tile};
use super::kv::Store;
use super::linear::Job;
use super::packed::{ROWS, Shape, TWO};
use crate::device::Activation;
use crate::numeric::{self, fma};
use crate::quant::{E2M1, Format, IQ1, IQ2, IQ3_S, IQ3_XXS, IQ4, e4m3, power_of_two};

/// Adds 16 partial sums in a fixed tree: p[i] += p[i + 8], then + 4, + 2, + 1.
pub(super) fn tree_sum(lanes: [f32; 16]) -> f32 {
    tree(lanes, |a, b| a + b)
}

/// The largest of 16 lanes, by the same tree.
pub(super) fn tree_max(lanes: [f32; 16]) -> f32 {
    tree(lanes, numeric::Real::max)
}

fn tree(mut lanes: [f32; 16], f: impl Fn(f32, f32) -> f32) -> f32 {
    for distance in [8, 4, 2, 1] {
        for i in 0..distance {
            lanes[i] = f(lanes[i], lanes[i + distance]);
        }
    }
    lanes[0]
}

/// The sum of the squares of x: lane i mod 16 takes fma(x, x, lane) in ascending order, then the tree.
pub(super) fn sum_of_squares(x: &[f32]) -> f32 {
    let mut lanes = [0.0; 16];
    for (i, &x) in x.iter().enumerate() {
        lanes[i % 16] = fma(x, x, lanes[i % 16]);
    }
    tree_sum(lanes)
}

/// out = activation(gate) * up, or activation(gate) alone.
pub(super) fn gated(activation: Activation, gate: &[f32], up: Option<&[f32]>, out: &mut [f32]) {
    for (i, (out, gate)) in out.iter_mut().zip(gate).enumerate() {
        *out = up.map_or_else(|| activation.apply(*gate), |up| activation.gate(*gate, up[i]));
    }
}

/// y = fma(scale, x, y).
pub(super) fn add_scaled(scale: f32, x: &[f32], y: &mut [f32]) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y = fma(scale, *x, *y));
}

/// The numbers of one block of one row: 32 integer codes and what they are multiplied with.
enum Block {
    /// w = scale * code.
    Symmetric { scale: f32, codes: [i32; BLOCK] },
    /// w = scale * code + min.
    WithMin { scale: f32, min: f32, codes: [i32; BLOCK] },
    /// w = scale of the half * code - min of the half.
    Halves { scales: [f32; 2], mins: Option<[f32; 2]>, codes: [i32; BLOCK] },
}

fn f16_at(bytes: &[u8], i: usize) -> f32 {
    half::f16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]]).to_f32()
}

/// Block `b` of 32 values of row `r` of a panel.
fn block(shape: Shape, panel: &[u8], r: usize, b: usize) -> Block {
    let blocks = shape.format.block_len() / BLOCK;
    let ((scale, head), j) = (shape.head(panel, b / blocks), b % blocks);
    let mut codes = [0; BLOCK];
    let tail = shape.codes(panel, r, b, &mut codes);
    let minus = |zero: i32| codes.map(|q| i32::from(q) - zero);
    let looked_up = |table: &[i8; 16]| codes.map(|q| i32::from(table[usize::from(q)]));
    let of_halves = |number: &dyn Fn(usize) -> f32| [number(0), number(1)];
    let grid = |table: &[i8; 16], factor: f32| {
        let scale = |half: usize| {
            let nibble = head[64 * (j / 4) + 4 * r + j % 4] >> (4 * half) & 15;
            f16_at(scale, r) * factor * f32::from(2 * nibble + 1)
        };
        Block::Halves { scales: of_halves(&scale), mins: None, codes: looked_up(table) }
    };
    match shape.format {
        Format::Q4_0 => Block::Symmetric { scale: f16_at(scale, r), codes: minus(8) },
        Format::Q5_0 => Block::Symmetric { scale: f16_at(scale, r), codes: minus(16) },
        Format::Q8_0 => Block::Symmetric { scale: f16_at(scale, r), codes: codes.map(|q| i32::from(q as i8)) },
        Format::IQ4NL => Block::Symmetric { scale: f16_at(scale, r), codes: looked_up(&IQ4) },
        Format::MXFP4 => Block::Symmetric { scale: power_of_two(scale[r]), codes: looked_up(&E2M1) },
        Format::TQ1_0 | Format::TQ2_0 => Block::Symmetric { scale: f16_at(scale, r), codes: minus(1) },
        Format::IQ4XS => {
            let (low, high) =
                (head[4 * r + j / 2] >> (4 * (j % 2)) & 15, head[64 + 2 * r + j / 4] >> (2 * (j % 4)) & 3);
            let six_bits = f32::from((low | high << 4) as i8 - 32);
            Block::Symmetric { scale: f16_at(scale, r) * six_bits, codes: looked_up(&IQ4) }
        }
        Format::Q4_1 | Format::Q5_1 => {
            Block::WithMin { scale: f16_at(head, r), min: f16_at(head, ROWS + r), codes: minus(0) }
        }
        Format::Q4K | Format::Q5K => {
            let byte = |i: usize| head[TWO + 64 * (i / 4) + 4 * r + i % 4];
            let (scale, min) = if j < 4 {
                (byte(j) & 63, byte(j + 4) & 63)
            } else {
                (byte(j + 4) & 15 | byte(j - 4) >> 6 << 4, byte(j + 4) >> 4 | byte(j) >> 6 << 4)
            };
            Block::WithMin {
                scale: f16_at(head, r) * f32::from(scale),
                min: 0.0 - f16_at(head, ROWS + r) * f32::from(min),
                codes: minus(0),
            }
        }
        Format::Q6K => {
            let scale = |half: usize| f16_at(scale, r) * f32::from(tail[ROWS * half + r] as i8);
            Block::Halves { scales: of_halves(&scale), mins: None, codes: minus(32) }
        }
        Format::Q3K => {
            let scale = |half: usize| {
                let (g, byte) = (2 * j + half, |i: usize| head[64 * (i / 4) + 4 * r + i % 4]);
                let six_bits = byte(g % 8) >> (g / 8 * 4) & 15 | (byte(8 + g % 4) >> (g / 4 * 2) & 3) << 4;
                f16_at(scale, r) * f32::from(six_bits as i8 - 32)
            };
            Block::Halves { scales: of_halves(&scale), mins: None, codes: minus(4) }
        }
        Format::Q2K => {
            let scale = |half: usize| f16_at(head, r) * f32::from(tail[ROWS * half + r] & 15);
            let min = |half: usize| f16_at(head, ROWS + r) * f32::from(tail[ROWS * half + r] >> 4);
            Block::Halves { scales: of_halves(&scale), mins: Some(of_halves(&min)), codes: minus(0) }
        }
        Format::NVFP4 => {
            let scale = |half: usize| e4m3(tail[ROWS * half + r]);
            Block::Halves { scales: of_halves(&scale), mins: None, codes: looked_up(&E2M1) }
        }
        Format::IQ1S | Format::IQ1M => grid(&IQ1, 0.125),
        Format::IQ2XXS | Format::IQ2XS | Format::IQ2S => grid(&IQ2, 0.125),
        Format::IQ3XXS => grid(&IQ3_XXS, 0.5),
        Format::IQ3S => grid(&IQ3_S, 0.5),
        Format::F32 | Format::F16 | Format::BF16 => unreachable!("float formats have no integer codes"),
    }
}

/// The panels of `job` for all its columns:
/// * symmetric: f = fma(a, s * d, f);
/// * with min: f = fma(a, s * d, f), then f = fma(m, d * sum, f);
/// * halves: g = a0 * s0, g = fma(a1, s1, g), f = fma(g, d, f); with mins then n = m0 * h0, n = fma(m1, h1, n),
///   f = fma(-n, d, f), where h0 and h1 are the sums of the halves' activations;
/// * float: f = fma(w, x, f), k ascending.
pub(super) fn linear(job: &Job<'_>) {
    let shape = job.weight.shape();
    let panels = job.weight.panels_from(job.panels.start).chunks_exact(shape.panel_bytes());
    for (p, panel) in job.panels.clone().zip(panels) {
        for (start, width) in job.tiles() {
            let mut out = [[0.0; ROWS]; super::act::WIDTHS[0]];
            for r in 0..ROWS {
                let row = row(job, panel, r, start, width);
                out.iter_mut().zip(row).for_each(|(out, f)| out[r] = f);
            }
            job.write(p, start, &mut out[..width]);
        }
    }
}

/// One row of a panel times one tile.
fn row(job: &Job<'_>, panel: &[u8], r: usize, start: usize, width: usize) -> [f32; super::act::WIDTHS[0]] {
    let shape = job.weight.shape();
    let mut f = [0.0; super::act::WIDTHS[0]];
    if !job.weight.takes_blocks() {
        for k in 0..shape.columns {
            let w = match shape.format {
                Format::F32 => f32::from_le_bytes(std::array::from_fn(|i| panel[64 * k + 4 * r + i])),
                Format::F16 => f16_at(&panel[32 * k..], r),
                _ => half::bf16::from_le_bytes([panel[32 * k + 2 * r], panel[32 * k + 2 * r + 1]]).to_f32(),
            };
            for (c, f) in f.iter_mut().enumerate().take(width) {
                *f = fma(w, job.act.values()[(start + c) * shape.columns + k], *f);
            }
        }
        return f;
    }
    let parts = job.act.tile(start, width).as_chunks::<WORDS>().0.chunks_exact(width);
    for (b, parts) in parts.collect::<Vec<_>>().chunks_exact(job.act.parts()).enumerate() {
        let block = block(shape, panel, r, b);
        for (c, f) in f.iter_mut().enumerate().take(width) {
            let part = |part: usize| &parts[part][c];
            let code = |words: &[i32; WORDS], k: usize| i32::from(words[k / 4].to_le_bytes()[k % 4] as i8);
            let y: [i32; BLOCK] = std::array::from_fn(|k| {
                if job.fine { code(part(0), k) * 256 + code(part(1), k) } else { code(part(0), k) }
            });
            let [.., offset_sum, second_offset_sum, d, d_sum] = *part(usize::from(job.fine));
            let (d, d_sum) = (f32::from_bits(d as u32), f32::from_bits(d_sum as u32));
            let a = |codes: &[i32; BLOCK], from: usize, to: usize| -> f32 {
                (from..to).map(|k| codes[k] * y[k]).sum::<i32>() as f32
            };
            match &block {
                Block::Symmetric { scale, codes } => *f = fma(a(codes, 0, 32), scale * d, *f),
                Block::WithMin { scale, min, codes } => {
                    *f = fma(a(codes, 0, 32), scale * d, *f);
                    *f = fma(*min, d_sum, *f);
                }
                Block::Halves { scales, mins, codes } => {
                    let g = fma(a(codes, 16, 32), scales[1], a(codes, 0, 16) * scales[0]);
                    *f = fma(g, d, *f);
                    if let Some(mins) = mins {
                        let minus_second = second_offset_sum / SIGN_OFFSET;
                        let minus_first = offset_sum / SIGN_OFFSET - minus_second;
                        *f = fma(fma(mins[1], minus_second as f32, mins[0] * minus_first as f32), d, *f);
                    }
                }
            }
        }
    }
    f
}

/// The attention of a tile's rows over the live positions of one segment: for each row
/// s = the score of a position, capped: cap * tanh(s / cap); m = max s over 16 lanes (position mod 16), then the tree;
/// p = exp(s - m); l = the 16-lane sum of p; o += p * v, positions ascending.
///
/// Scores of float keys are fma chains over e. Those of quantised keys are the product of a symmetric format with the
/// query in blocks of 8 bits: s = fma(a, scale * d, s), blocks ascending. Values enter by o[e] = fma(p, v, o[e]),
/// those of a block with t = p * scale by o[e] = fma(code, t, o[e]).
pub(super) fn attend(tile: &Tile<'_>, segment: usize, partial: &mut Partial) {
    let first = segment * SEGMENT;
    let quantised = matches!(tile.kv.shape.kv_type.store(), Store::Blocks(..));
    for r in 0..tile.rows {
        let (low, high) = (tile.low[r].max(first), tile.high[r].min(first + SEGMENT));
        partial.live[r] = low < high;
        if low >= high {
            continue;
        }
        let mut p = [0.0; SEGMENT];
        let mut lanes = [f32::NEG_INFINITY; 16];
        for position in low..high {
            let mut score = if quantised { block_score(tile, r, position) } else { float_score(tile, r, position) };
            if let Some(cap) = tile.cap {
                score = numeric::tanh(score / cap) * cap;
            }
            p[position - first] = score;
            lanes[position % 16] = numeric::Real::max(lanes[position % 16], score);
        }
        let m = tree_max(lanes);
        let mut sums = [0.0; 16];
        let o = partial.o_mut(r);
        o.fill(0.0);
        for position in low..high {
            let p = numeric::exp(p[position - first] - m);
            sums[position % 16] += p;
            if quantised {
                for (b, o) in o.chunks_exact_mut(BLOCK).enumerate() {
                    let (scale, codes) = tile.kv.value_block(tile.head, position, b);
                    let t = p * scale;
                    o.iter_mut().zip(codes).for_each(|(o, code)| *o = fma(t, code as f32, *o));
                }
            } else {
                for (e, o) in o.iter_mut().enumerate() {
                    *o = fma(p, tile.kv.value(tile.head, position, e), *o);
                }
            }
        }
        (partial.m[r], partial.l[r]) = (m, tree_sum(sums));
    }
}

fn float_score(tile: &Tile<'_>, r: usize, position: usize) -> f32 {
    let queries = tile.q.iter().skip(r).step_by(tile.stride);
    queries.enumerate().fold(0.0, |score, (e, q)| fma(tile.kv.key(tile.head, position, e), *q, score))
}

fn block_score(tile: &Tile<'_>, r: usize, position: usize) -> f32 {
    let blocks = tile.blocks.chunks_exact(WORDS * tile.stride).enumerate();
    blocks.fold(0.0, |score, (b, words)| {
        let word = |i: usize| words[r * WORDS + i];
        let (scale, codes) = tile.kv.key_block(tile.head, position, b);
        let query = |k: usize| i32::from(word(k / 4).to_le_bytes()[k % 4] as i8);
        let a: i32 = codes.iter().enumerate().map(|(k, code)| code * query(k)).sum();
        fma(a as f32, scale * f32::from_bits(word(WORDS - 2) as u32), score)
    })
}

/// Merges the next segment's partial into a row's running (M, L, O): M' = max(M, m), a = exp(M - M'), b = exp(m - M'),
/// L = fma(L, a, l * b), O = fma(O, a, o * b). The first live segment sets them.
pub(super) fn merge(into: &mut Partial, from: &Partial) {
    for r in 0..into.rows() {
        if !into.joins(from, r) {
            continue;
        }
        let m = numeric::Real::max(into.m[r], from.m[r]);
        let (a, b) = (numeric::exp(into.m[r] - m), numeric::exp(from.m[r] - m));
        (into.m[r], into.l[r]) = (m, fma(into.l[r], a, from.l[r] * b));
        for (o, add) in into.o_mut(r).iter_mut().zip(from.o(r)) {
            *o = fma(*o, a, add * b);
        }
    }
}
