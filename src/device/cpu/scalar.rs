//! The kernels in plain code: what every vector kernel must equal bit for bit, and what runs where there is none.
//!
//! Quantised products follow the format's row in the comments of [`linear`]; `a` is always an exact integer sum, of the
//! codes with q, or with 256 q + r where the activations are taken in 16 bits.

use super::act::{BLOCK, FINE_WORDS, WORDS};
use super::attention::{Partial, SEGMENT, Tile};
use super::linear::Job;
use super::packed::{FIFTH, NIBBLES, PAIR, ROWS, SCALES, UPPER, fifth, nibble, plane_bytes, upper};
use crate::device::Activation;
use crate::numeric::{self, fma};
use crate::quant::Format;

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
        let y = activation.apply(*gate);
        *out = up.map_or(y, |up| y * up[i]);
    }
}

/// The numbers of one block of one row: 32 integer codes and what they are multiplied with.
enum Block {
    /// w = scale * code.
    Symmetric { scale: f32, codes: [i32; BLOCK] },
    /// w = scale * code + min.
    WithMin { scale: f32, min: f32, codes: [i32; BLOCK] },
    /// w = d * scale of the half * code; `scales` are the products d * scale.
    Halves { scales: [f32; 2], codes: [i32; BLOCK] },
}

fn f16_at(bytes: &[u8], i: usize) -> f32 {
    half::f16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]]).to_f32()
}

/// Block `b` of row `r` of a panel of rows of `columns` values.
fn block(format: Format, panel: &[u8], columns: usize, r: usize, b: usize) -> Block {
    let plane_bytes = |values: usize| plane_bytes(columns / values, 32);
    let low = |part: &[u8], zero| std::array::from_fn(|k| i32::from(nibble(part, r, k)) - zero);
    let five = |part: &[u8], zero| {
        let bits = fifth(&part[NIBBLES..], r);
        std::array::from_fn(|k| i32::from(nibble(part, r, k)) + (((bits >> k & 1) as i32) << 4) - zero)
    };
    match format {
        Format::Q4_0 => {
            let part = &panel[plane_bytes(32) + b * NIBBLES..];
            Block::Symmetric { scale: f16_at(&panel[32 * b..], r), codes: low(part, 8) }
        }
        Format::Q5_0 => {
            let part = &panel[plane_bytes(32) + b * (NIBBLES + FIFTH)..];
            Block::Symmetric { scale: f16_at(&panel[32 * b..], r), codes: five(part, 16) }
        }
        Format::Q8_0 => {
            let part = &panel[plane_bytes(32) + b * 512..];
            let codes = std::array::from_fn(|k| i32::from(part[64 * (k / 4) + 4 * r + k % 4] as i8));
            Block::Symmetric { scale: f16_at(&panel[32 * b..], r), codes }
        }
        Format::Q4_1 => {
            let unit = &panel[b * (PAIR + NIBBLES)..];
            let (scale, min) = (f16_at(unit, r), f16_at(unit, ROWS + r));
            Block::WithMin { scale, min, codes: low(&unit[PAIR..], 0) }
        }
        Format::Q5_1 => {
            let unit = &panel[b * (PAIR + NIBBLES + FIFTH)..];
            let (scale, min) = (f16_at(unit, r), f16_at(unit, ROWS + r));
            Block::WithMin { scale, min, codes: five(&unit[PAIR..], 0) }
        }
        Format::Q4K | Format::Q5K => {
            let size = if format == Format::Q5K { NIBBLES + FIFTH } else { NIBBLES };
            let unit = &panel[b / 8 * (PAIR + SCALES + 8 * size)..];
            let j = b % 8;
            let byte = |i: usize| unit[PAIR + 64 * (i / 4) + 4 * r + i % 4];
            let (scale, min) = if j < 4 {
                (byte(j) & 63, byte(j + 4) & 63)
            } else {
                (byte(j + 4) & 15 | byte(j - 4) >> 6 << 4, byte(j + 4) >> 4 | byte(j) >> 6 << 4)
            };
            let part = &unit[PAIR + SCALES + j * size..];
            Block::WithMin {
                scale: f16_at(unit, r) * f32::from(scale),
                min: 0.0 - f16_at(unit, ROWS + r) * f32::from(min),
                codes: if format == Format::Q5K { five(part, 0) } else { low(part, 0) },
            }
        }
        Format::Q6K => {
            let part = &panel[plane_bytes(256) + b * (NIBBLES + UPPER + 2 * ROWS)..];
            let d = f16_at(&panel[b / 8 * 32..], r);
            let scale = |half: usize| d * f32::from(part[NIBBLES + UPPER + ROWS * half + r] as i8);
            let codes = std::array::from_fn(|k| {
                i32::from(nibble(part, r, k)) + (i32::from(upper(&part[NIBBLES..], r, k)) << 4) - 32
            });
            Block::Halves { scales: [scale(0), scale(1)], codes }
        }
        Format::F32 | Format::F16 | Format::BF16 => unreachable!("float formats have no integer codes"),
    }
}

/// The panels of `job` for all its columns:
/// * symmetric: f = fma(a, s * d, f);
/// * with min: f = fma(a, s * d, f), then f = fma(m, d * sum, f);
/// * halves: g = a0 * s0, g = fma(a1, s1, g), f = fma(g, d, f);
/// * float: f = fma(w, x, f), k ascending.
pub(super) fn linear(job: &Job<'_>) {
    let shape = job.weight.shape();
    let panels = job.weight.panels_from(job.panels.start).chunks_exact(shape.panel_bytes());
    for (p, panel) in job.panels.clone().zip(panels) {
        for (start, width) in job.act.tiles() {
            let mut out = [[0.0; ROWS]; super::act::WIDTHS[0]];
            for r in 0..ROWS {
                let row = row(job, panel, r, start, width);
                out.iter_mut().zip(row).for_each(|(out, f)| out[r] = f);
            }
            job.write(p, start, &out[..width]);
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
    let own = if job.fine { FINE_WORDS } else { WORDS };
    for (b, words) in job.act.tile(start, width).chunks_exact(job.act.words() * width).enumerate() {
        let block = block(shape.format, panel, shape.columns, r, b);
        for (c, f) in f.iter_mut().enumerate().take(width) {
            let word = |i: usize| words[i * width + c];
            // d is number(2) and d * sum number(3) of the last four words.
            let number = |i: usize| f32::from_bits(word(own - 4 + i) as u32);
            let code = |first: usize, k: usize| i32::from(word(first + k / 4).to_le_bytes()[k % 4] as i8);
            let y: [i32; BLOCK] =
                std::array::from_fn(|k| if job.fine { code(0, k) * 256 + code(WORDS, k) } else { code(0, k) });
            let a = |codes: &[i32; BLOCK], from: usize, to: usize| -> f32 {
                (from..to).map(|k| codes[k] * y[k]).sum::<i32>() as f32
            };
            match &block {
                Block::Symmetric { scale, codes } => *f = fma(a(codes, 0, 32), scale * number(2), *f),
                Block::WithMin { scale, min, codes } => {
                    *f = fma(a(codes, 0, 32), scale * number(2), *f);
                    *f = fma(*min, number(3), *f);
                }
                Block::Halves { scales, codes } => {
                    let g = fma(a(codes, 16, 32), scales[1], a(codes, 0, 16) * scales[0]);
                    *f = fma(g, number(2), *f);
                }
            }
        }
    }
    f
}

/// The attention of a tile's rows over the live positions of one segment: for each row
/// s = fma chain over e of q * k, capped: cap * tanh(s / cap); m = max s over 16 lanes (position mod 16), then the tree;
/// p = exp(s - m); l = the 16-lane sum of p; o[e] = fma(p, v, o[e]), positions ascending.
pub(super) fn attend(tile: &Tile<'_>, segment: usize, partial: &mut Partial) {
    let first = segment * SEGMENT;
    for r in 0..tile.rows {
        let (low, high) = (tile.low[r].max(first), tile.high[r].min(first + SEGMENT));
        partial.live[r] = low < high;
        if low >= high {
            continue;
        }
        let mut p = [0.0; SEGMENT];
        let mut lanes = [f32::NEG_INFINITY; 16];
        for position in low..high {
            let mut score = 0.0;
            for e in 0..tile.kv.width {
                score = fma(tile.kv.key(tile.head, position, e), tile.q[e * tile.stride + r], score);
            }
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
            for (e, o) in o.iter_mut().enumerate() {
                *o = fma(p, tile.kv.value(tile.head, position, e), *o);
            }
        }
        (partial.m[r], partial.l[r]) = (m, tree_sum(sums));
    }
}

/// Merges the next segment's partial into a row's running (M, L, O): M' = max(M, m), a = exp(M - M'), b = exp(m - M'),
/// L = fma(L, a, l * b), O = fma(O, a, o * b). The first live segment sets them.
pub(super) fn merge(into: &mut Partial, from: &Partial) {
    for r in 0..into.rows() {
        let Some((a, b)) = into.weights(from, r) else { continue };
        for (o, add) in into.o_mut(r).iter_mut().zip(from.o(r)) {
            *o = fma(*o, a, add * b);
        }
    }
}
