//! Matrix products: a panel of 16 rows times a tile of columns.
//!
//! One row a lane; a block's integer products are exact, so only the float step per block has an order, and each lane
//! does it in block order:
//!
//! ```text
//! acc[c] = -zero * sum_y[c]                                one 32-k block, a vector of rows x NY columns
//! for each of 8 code vectors w (4 k each):
//!     acc[c] = dot(acc[c], w, y[c])                        4 activations, broadcast from memory
//! f[c] = fma(to_f32(acc[c]), scale * d_y[c], f[c])
//! ```
//!
//! With activations in 16 bits, acc is 256 times the product with the q plus the product with the r.

use super::super::act::{FINE_WORDS, WORDS};
use super::super::linear::Job;
use super::super::packed::{FIFTH, NIBBLES, PAIR, ROWS, SCALES, UPPER, plane_bytes};
use super::super::simd::Simd;
use crate::numeric::Real;
use crate::quant::Format;

/// How far ahead of the reading a line is asked for, in bytes: far enough for the memory's latency, near enough to
/// stay in the first cache.
const AHEAD: usize = 2048;

/// Computes the panels of `job` for all its columns.
#[inline(always)]
pub(in super::super) fn linear<S: Simd>(s: S, job: &Job<'_>) {
    match job.weight.shape().format {
        Format::F32 => float::<S, F32, 64>(s, job),
        Format::F16 => float::<S, F16, 32>(s, job),
        Format::BF16 => float::<S, BF16, 32>(s, job),
        Format::Q4_0 => quantised::<S, Q4_0, NIBBLES>(s, job),
        Format::Q4_1 => quantised::<S, Q4_1, { PAIR + NIBBLES }>(s, job),
        Format::Q5_0 => quantised::<S, Q5_0, { NIBBLES + FIFTH }>(s, job),
        Format::Q5_1 => quantised::<S, Q5_1, { PAIR + NIBBLES + FIFTH }>(s, job),
        Format::Q8_0 => quantised::<S, Q8_0, 512>(s, job),
        Format::Q4K => quantised::<S, Q4K, { PAIR + SCALES + 8 * NIBBLES }>(s, job),
        Format::Q5K => quantised::<S, Q5K, { PAIR + SCALES + 8 * (NIBBLES + FIFTH) }>(s, job),
        Format::Q6K => quantised::<S, Q6K, { 8 * SIX_BIT }>(s, job),
    }
}

/// A tile's block: words by column, see `act`. W is WORDS or FINE_WORDS.
type Block<const NY: usize, const W: usize> = [[i32; NY]; W];

/// The words after the last codes: sum, sum of the second half, d, d * sum.
#[inline(always)]
fn sum<const NY: usize, const W: usize>(y: &Block<NY, W>, c: usize) -> i32 {
    y[W - 4][c]
}

#[inline(always)]
fn second_sum<const NY: usize, const W: usize>(y: &Block<NY, W>, c: usize) -> i32 {
    y[W - 3][c]
}

#[inline(always)]
fn d<const NY: usize, const W: usize>(y: &Block<NY, W>, c: usize) -> f32 {
    f32::from_bits(y[W - 2][c] as u32)
}

#[inline(always)]
fn d_sum<const NY: usize, const W: usize>(y: &Block<NY, W>, c: usize) -> f32 {
    f32::from_bits(y[W - 1][c] as u32)
}

/// The packed panel of a quantised format, whose unit is UNIT bytes.
trait Panel<const UNIT: usize> {
    /// Blocks of 32 values in a unit.
    const BLOCKS: usize;
    /// Bytes of a unit's scales in the plane.
    const PLANE: usize;
    /// What is unpacked once a unit.
    type Head<S: Simd>: Copy;
    fn head<S: Simd>(s: S, plane: &[u8], unit: &[u8; UNIT], lane: usize) -> Self::Head<S>;
    /// Adds block `b` of the unit to the accumulators of NY columns.
    fn block<S: Simd, const NY: usize, const W: usize>(
        s: S,
        head: Self::Head<S>,
        unit: &[u8; UNIT],
        place: Place,
        y: &Block<NY, W>,
        f: &mut [S::F; NY],
    );
}

/// Block of the unit, and first row of the vector.
#[derive(Clone, Copy)]
struct Place {
    b: usize,
    lane: usize,
}

#[inline(always)]
fn quantised<S: Simd, P: Panel<UNIT>, const UNIT: usize>(s: S, job: &Job<'_>) {
    for (start, width) in job.act.tiles() {
        match (width, job.fine) {
            (12, false) => quantised_tile::<S, P, UNIT, 12, WORDS>(s, job, start),
            (8, false) => quantised_tile::<S, P, UNIT, 8, WORDS>(s, job, start),
            (4, false) => quantised_tile::<S, P, UNIT, 4, WORDS>(s, job, start),
            (2, false) => quantised_tile::<S, P, UNIT, 2, WORDS>(s, job, start),
            (_, false) => quantised_tile::<S, P, UNIT, 1, WORDS>(s, job, start),
            (12, true) => quantised_tile::<S, P, UNIT, 12, FINE_WORDS>(s, job, start),
            (8, true) => quantised_tile::<S, P, UNIT, 8, FINE_WORDS>(s, job, start),
            (4, true) => quantised_tile::<S, P, UNIT, 4, FINE_WORDS>(s, job, start),
            (2, true) => quantised_tile::<S, P, UNIT, 2, FINE_WORDS>(s, job, start),
            (_, true) => quantised_tile::<S, P, UNIT, 1, FINE_WORDS>(s, job, start),
        }
    }
}

#[inline(always)]
fn quantised_tile<S: Simd, P: Panel<UNIT>, const UNIT: usize, const NY: usize, const W: usize>(
    s: S,
    job: &Job<'_>,
    start: usize,
) {
    let shape = job.weight.shape();
    let units = shape.columns / (32 * P::BLOCKS);
    let plane_bytes = plane_bytes(units, P::PLANE);
    let (words, stride) = (job.act.tile(start, NY).as_chunks::<NY>().0, job.act.words());
    let panels = job.weight.panels_from(job.panels.start).chunks_exact(shape.panel_bytes());
    for (p, panel) in job.panels.clone().zip(panels) {
        let mut out = [[0.0; ROWS]; NY];
        let (plane, rest) = panel.split_at(plane_bytes);
        for lane in (0..ROWS).step_by(S::LANES) {
            let mut f = [s.f32(0.0); NY];
            let blocks = words.chunks_exact(stride * P::BLOCKS);
            for (u, (unit, y)) in rest.as_chunks::<UNIT>().0.iter().zip(blocks).enumerate() {
                if NY <= 2 && lane == 0 {
                    for line in 0..UNIT.div_ceil(64) {
                        s.prefetch(unit.as_ptr().wrapping_add(AHEAD + 64 * line));
                    }
                }
                let head = P::head(s, &plane[u * P::PLANE..(u + 1) * P::PLANE], unit, lane);
                for (b, y) in y.chunks_exact(stride).enumerate() {
                    if let Some(y) = y.first_chunk::<W>() {
                        P::block(s, head, unit, Place { b, lane }, y, &mut f);
                    }
                }
            }
            for (out, f) in out.iter_mut().zip(f) {
                s.store(f, &mut out[lane..]);
            }
        }
        job.write(p, start, &out);
    }
}

/// f += scale * d * (codes . y - 2^ZERO * sum y); exact integers up to the last step.
#[inline(always)]
fn symmetric<S: Simd, C: Codes, const ZERO: u32, const NY: usize, const W: usize>(
    s: S,
    scale: S::F,
    codes: &[u8],
    lane: usize,
    y: &Block<NY, W>,
    f: &mut [S::F; NY],
) {
    let acc = product::<S, C, NY, W>(s, codes, lane, y);
    for c in 0..NY {
        let a = s.sub_i32(acc[c], s.shl::<ZERO>(s.i32(sum(y, c))));
        f[c] = s.to_f32(a).fma(scale.mul(s.f32(d(y, c))), f[c]);
    }
}

/// f += scale * d * (codes . y) + min * (d * sum y).
#[inline(always)]
fn with_min<S: Simd, C: Codes, const NY: usize, const W: usize>(
    s: S,
    (scale, min): (S::F, S::F),
    codes: &[u8],
    lane: usize,
    y: &Block<NY, W>,
    f: &mut [S::F; NY],
) {
    let acc = product::<S, C, NY, W>(s, codes, lane, y);
    for c in 0..NY {
        f[c] = s.to_f32(acc[c]).fma(scale.mul(s.f32(d(y, c))), f[c]);
        f[c] = min.fma(s.f32(d_sum(y, c)), f[c]);
    }
}

/// codes . y, exact. In 16 bits the codes are unpacked twice: accumulators for both products would not all fit into
/// registers.
#[inline(always)]
fn product<S: Simd, C: Codes, const NY: usize, const W: usize>(
    s: S,
    codes: &[u8],
    lane: usize,
    y: &Block<NY, W>,
) -> [S::I; NY] {
    let mut acc = [s.i32(0); NY];
    for group in 0..W / WORDS {
        for half in 0..2 {
            let codes = C::half(s, codes, half, lane);
            for c in 0..NY {
                acc[c] = s.dot(C::BITS, acc[c], codes, four(y, 3 * group + half, c));
            }
        }
        if group + 1 < W / WORDS {
            for c in 0..NY {
                acc[c] = s.shl::<8>(acc[c]);
            }
        }
    }
    acc
}

/// Words 4i..4i+4 of column c: the 16 q of half i, or for i - 3 the 16 r.
#[inline(always)]
fn four<const NY: usize, const W: usize>(y: &Block<NY, W>, i: usize, c: usize) -> [i32; 4] {
    [y[4 * i][c], y[4 * i + 1][c], y[4 * i + 2][c], y[4 * i + 3][c]]
}

/// The f16 numbers of the rows of a vector, as f32.
#[inline(always)]
fn row_numbers<S: Simd>(s: S, bytes: &[u8], lane: usize) -> S::F {
    s.load_f16(bytemuck::cast_slice(&bytes[2 * lane..2 * (lane + S::LANES)]))
}

/// How the codes of a block of 32 values of 16 rows are packed.
///
/// Vector code here has no closures: one that is not inlined would be compiled without the instruction set.
trait Codes {
    /// Bits of a code.
    const BITS: u32;
    /// The four vectors of codes of half `half` of the block, for the rows from `lane` on.
    fn half<S: Simd>(s: S, codes: &[u8], half: usize, lane: usize) -> [S::I; 4];
}

struct Nibbles;

impl Codes for Nibbles {
    const BITS: u32 = 4;

    #[inline(always)]
    fn half<S: Simd>(s: S, codes: &[u8], half: usize, lane: usize) -> [S::I; 4] {
        let mask = s.i32(0x0F0F_0F0F);
        let mut low = [mask; 4];
        for (j, low) in low.iter_mut().enumerate() {
            let v = s.load_bytes(&codes[64 * j + 4 * lane..]);
            *low = s.and(if half == 0 { v } else { s.shr::<4>(v) }, mask);
        }
        low
    }
}

struct NibblesAndFifth;

impl Codes for NibblesAndFifth {
    const BITS: u32 = 5;

    #[inline(always)]
    fn half<S: Simd>(s: S, codes: &[u8], half: usize, lane: usize) -> [S::I; 4] {
        let bits = s.load_bytes(&codes[NIBBLES + 4 * lane..]);
        let high = if half == 0 {
            [s.shl::<4>(bits), s.shl::<3>(bits), s.shl::<2>(bits), s.shl::<1>(bits)]
        } else {
            [bits, s.shr::<1>(bits), s.shr::<2>(bits), s.shr::<3>(bits)]
        };
        merge(s, Nibbles::half(s, codes, half, lane), high, 0x1010_1010)
    }
}

struct NibblesAndUpper;

impl Codes for NibblesAndUpper {
    const BITS: u32 = 6;

    #[inline(always)]
    fn half<S: Simd>(s: S, codes: &[u8], half: usize, lane: usize) -> [S::I; 4] {
        let bits = s.load_bytes(&codes[NIBBLES + UPPER / 2 * half + 4 * lane..]);
        let high = [s.shl::<4>(bits), s.shl::<2>(bits), bits, s.shr::<2>(bits)];
        merge(s, Nibbles::half(s, codes, half, lane), high, 0x3030_3030)
    }
}

/// low | high & mask
#[inline(always)]
fn merge<S: Simd>(s: S, mut low: [S::I; 4], high: [S::I; 4], mask: i32) -> [S::I; 4] {
    for j in 0..4 {
        low[j] = s.or(low[j], s.and(high[j], s.i32(mask)));
    }
    low
}

/// A symmetric format with one block a unit and its scales in the plane.
macro_rules! symmetric_format {
    ($name:ident, unit $unit:expr, zero $zero:literal, $codes:ident) => {
        struct $name;

        impl Panel<{ $unit }> for $name {
            const BLOCKS: usize = 1;
            const PLANE: usize = 32;
            type Head<S: Simd> = S::F;

            #[inline(always)]
            fn head<S: Simd>(s: S, plane: &[u8], _unit: &[u8; $unit], lane: usize) -> S::F {
                row_numbers(s, plane, lane)
            }

            #[inline(always)]
            fn block<S: Simd, const NY: usize, const W: usize>(
                s: S,
                scale: S::F,
                unit: &[u8; $unit],
                place: Place,
                y: &Block<NY, W>,
                f: &mut [S::F; NY],
            ) {
                symmetric::<S, $codes, $zero, NY, W>(s, scale, unit, place.lane, y, f);
            }
        }
    };
}

symmetric_format!(Q4_0, unit NIBBLES, zero 3, Nibbles);
symmetric_format!(Q5_0, unit NIBBLES + FIFTH, zero 4, NibblesAndFifth);

/// A format with a min, one block a unit.
macro_rules! min_format {
    ($name:ident, unit $unit:expr, $codes:ident) => {
        struct $name;

        impl Panel<{ $unit }> for $name {
            const BLOCKS: usize = 1;
            const PLANE: usize = 0;
            type Head<S: Simd> = (S::F, S::F);

            #[inline(always)]
            fn head<S: Simd>(s: S, _plane: &[u8], unit: &[u8; $unit], lane: usize) -> (S::F, S::F) {
                (row_numbers(s, unit, lane), row_numbers(s, &unit[PAIR / 2..], lane))
            }

            #[inline(always)]
            fn block<S: Simd, const NY: usize, const W: usize>(
                s: S,
                head: (S::F, S::F),
                unit: &[u8; $unit],
                place: Place,
                y: &Block<NY, W>,
                f: &mut [S::F; NY],
            ) {
                with_min::<S, $codes, NY, W>(s, head, &unit[PAIR..], place.lane, y, f);
            }
        }
    };
}

min_format!(Q4_1, unit PAIR + NIBBLES, Nibbles);
min_format!(Q5_1, unit PAIR + NIBBLES + FIFTH, NibblesAndFifth);

struct Q8_0;

impl Panel<512> for Q8_0 {
    const BLOCKS: usize = 1;
    const PLANE: usize = 32;
    type Head<S: Simd> = S::F;

    #[inline(always)]
    fn head<S: Simd>(s: S, plane: &[u8], _unit: &[u8; 512], lane: usize) -> S::F {
        row_numbers(s, plane, lane)
    }

    #[inline(always)]
    fn block<S: Simd, const NY: usize, const W: usize>(
        s: S,
        scale: S::F,
        unit: &[u8; 512],
        place: Place,
        y: &Block<NY, W>,
        f: &mut [S::F; NY],
    ) {
        let mut acc = [s.i32(0); NY];
        for group in 0..W / WORDS {
            for half in 0..2 {
                let codes = [
                    s.flip(s.load_bytes(&unit[256 * half + 4 * place.lane..])),
                    s.flip(s.load_bytes(&unit[256 * half + 64 + 4 * place.lane..])),
                    s.flip(s.load_bytes(&unit[256 * half + 128 + 4 * place.lane..])),
                    s.flip(s.load_bytes(&unit[256 * half + 192 + 4 * place.lane..])),
                ];
                for c in 0..NY {
                    acc[c] = s.dot_signed(acc[c], codes, four(y, 3 * group + half, c));
                }
            }
            if group + 1 < W / WORDS {
                for c in 0..NY {
                    acc[c] = s.shl::<8>(acc[c]);
                }
            }
        }
        for c in 0..NY {
            let a = s.add_i32(acc[c], s.signed_excess(sum(y, c)));
            f[c] = s.to_f32(a).fma(scale.mul(s.f32(d(y, c))), f[c]);
        }
    }
}

/// D, Dmin and the 6-bit scales and mins of 8 blocks: four to a vector, a byte each.
#[derive(Clone, Copy)]
struct KHead<S: Simd> {
    d: S::F,
    dmin: S::F,
    scales: [S::I; 2],
    mins: [S::I; 2],
}

impl<S: Simd> KHead<S> {
    #[inline(always)]
    fn new(s: S, unit: &[u8], lane: usize) -> Self {
        let u0 = s.load_bytes(&unit[PAIR + 4 * lane..]);
        let u1 = s.load_bytes(&unit[PAIR + 64 + 4 * lane..]);
        let u2 = s.load_bytes(&unit[PAIR + 128 + 4 * lane..]);
        let (six, four, upper) = (s.i32(0x3F3F_3F3F), s.i32(0x0F0F_0F0F), s.i32(0x3030_3030));
        KHead {
            d: row_numbers(s, unit, lane),
            dmin: row_numbers(s, &unit[PAIR / 2..], lane),
            scales: [s.and(u0, six), s.or(s.and(u2, four), s.and(s.shr::<2>(u0), upper))],
            mins: [s.and(u1, six), s.or(s.and(s.shr::<4>(u2), four), s.and(s.shr::<2>(u1), upper))],
        }
    }

    /// s = D * scale and m = -(Dmin * min) of block `b`.
    #[inline(always)]
    fn scale_and_min(self, s: S, b: usize) -> (S::F, S::F) {
        let (shift, byte) = (8 * (b as u32 % 4), s.i32(0xFF));
        let scale = s.to_f32(s.and(s.shr_by(self.scales[b / 4], shift), byte));
        let min = s.to_f32(s.and(s.shr_by(self.mins[b / 4], shift), byte));
        (self.d.mul(scale), s.f32(0.0).sub(self.dmin.mul(min)))
    }
}

/// A format of 256 values with 6-bit scales and mins.
macro_rules! k_format {
    ($name:ident, codes $size:expr, $codes:ident) => {
        struct $name;

        impl Panel<{ PAIR + SCALES + 8 * ($size) }> for $name {
            const BLOCKS: usize = 8;
            const PLANE: usize = 0;
            type Head<S: Simd> = KHead<S>;

            #[inline(always)]
            fn head<S: Simd>(s: S, _plane: &[u8], unit: &[u8; PAIR + SCALES + 8 * ($size)], lane: usize) -> KHead<S> {
                KHead::new(s, unit, lane)
            }

            #[inline(always)]
            fn block<S: Simd, const NY: usize, const W: usize>(
                s: S,
                head: KHead<S>,
                unit: &[u8; PAIR + SCALES + 8 * ($size)],
                place: Place,
                y: &Block<NY, W>,
                f: &mut [S::F; NY],
            ) {
                let codes = &unit[PAIR + SCALES..].as_chunks::<{ $size }>().0[place.b];
                let numbers = head.scale_and_min(s, place.b);
                with_min::<S, $codes, NY, W>(s, numbers, codes, place.lane, y, f);
            }
        }
    };
}

k_format!(Q4K, codes NIBBLES, Nibbles);
k_format!(Q5K, codes NIBBLES + FIFTH, NibblesAndFifth);

struct Q6K;

/// Bytes of a block of Q6_K: codes, then the scales of its two halves.
const SIX_BIT: usize = NIBBLES + UPPER + 2 * ROWS;

impl Panel<{ 8 * SIX_BIT }> for Q6K {
    const BLOCKS: usize = 8;
    const PLANE: usize = 32;
    type Head<S: Simd> = S::F;

    #[inline(always)]
    fn head<S: Simd>(s: S, plane: &[u8], _unit: &[u8; 8 * SIX_BIT], lane: usize) -> S::F {
        row_numbers(s, plane, lane)
    }

    /// g = a0 * s0, then fma(a1, s1, g), then f = fma(g, d, f), where a0 and a1 are the two halves' products.
    #[inline(always)]
    fn block<S: Simd, const NY: usize, const W: usize>(
        s: S,
        d: S::F,
        unit: &[u8; 8 * SIX_BIT],
        place: Place,
        y: &Block<NY, W>,
        f: &mut [S::F; NY],
    ) {
        let part = &unit.as_chunks::<SIX_BIT>().0[place.b];
        let mut g = [s.f32(0.0); NY];
        for half in 0..2 {
            let scale = d.mul(s.to_f32(s.load_i8(&part[NIBBLES + UPPER + ROWS * half + place.lane..])));
            let codes = NibblesAndUpper::half(s, part, half, place.lane);
            for c in 0..NY {
                let second = s.i32(second_sum(y, c));
                let own = if half == 0 { s.sub_i32(s.i32(sum(y, c)), second) } else { second };
                let start = s.sub_i32(s.i32(0), s.shl::<5>(own));
                let a = if W == FINE_WORDS {
                    let upper = s.dot(6, s.i32(0), codes, four(y, half, c));
                    s.add_i32(s.dot(6, start, codes, four(y, half + 3, c)), s.shl::<8>(upper))
                } else {
                    s.dot(6, start, codes, four(y, half, c))
                };
                let a = s.to_f32(a);
                g[c] = if half == 0 { a.mul(scale) } else { a.fma(scale, g[c]) };
            }
        }
        for c in 0..NY {
            f[c] = g[c].fma(s.f32(self::d(y, c)), f[c]);
        }
    }
}

/// The packed panel of a float format: BYTES bytes hold one k of 16 rows.
trait FloatPanel<const BYTES: usize> {
    fn load<S: Simd>(s: S, one: &[u8; BYTES], lane: usize) -> S::F;
}

struct F32;

impl FloatPanel<64> for F32 {
    #[inline(always)]
    fn load<S: Simd>(s: S, one: &[u8; 64], lane: usize) -> S::F {
        s.load(bytemuck::cast_slice(&one[4 * lane..4 * (lane + S::LANES)]))
    }
}

struct F16;

impl FloatPanel<32> for F16 {
    #[inline(always)]
    fn load<S: Simd>(s: S, one: &[u8; 32], lane: usize) -> S::F {
        row_numbers(s, one, lane)
    }
}

struct BF16;

impl FloatPanel<32> for BF16 {
    #[inline(always)]
    fn load<S: Simd>(s: S, one: &[u8; 32], lane: usize) -> S::F {
        s.load_bf16(bytemuck::cast_slice(&one[2 * lane..2 * (lane + S::LANES)]))
    }
}

#[inline(always)]
fn float<S: Simd, P: FloatPanel<BYTES>, const BYTES: usize>(s: S, job: &Job<'_>) {
    for (start, width) in job.act.tiles() {
        match width {
            12 => float_tile::<S, P, BYTES, 12>(s, job, start),
            8 => float_tile::<S, P, BYTES, 8>(s, job, start),
            4 => float_tile::<S, P, BYTES, 4>(s, job, start),
            2 => float_tile::<S, P, BYTES, 2>(s, job, start),
            _ => float_tile::<S, P, BYTES, 1>(s, job, start),
        }
    }
}

/// f = fma(w, x, f), k ascending.
#[inline(always)]
fn float_tile<S: Simd, P: FloatPanel<BYTES>, const BYTES: usize, const NY: usize>(s: S, job: &Job<'_>, start: usize) {
    let shape = job.weight.shape();
    let n = shape.columns;
    let mut x: [&[f32]; NY] = [&[]; NY];
    for (c, x) in x.iter_mut().enumerate() {
        *x = &job.act.values()[(start + c) * n..(start + c + 1) * n];
    }
    let panels = job.weight.panels_from(job.panels.start).chunks_exact(shape.panel_bytes());
    for (p, panel) in job.panels.clone().zip(panels) {
        let mut out = [[0.0; ROWS]; NY];
        for lane in (0..ROWS).step_by(S::LANES) {
            let mut f = [s.f32(0.0); NY];
            for (k, one) in panel.as_chunks::<BYTES>().0[..n].iter().enumerate() {
                let w = P::load(s, one, lane);
                for c in 0..NY {
                    f[c] = w.fma(s.f32(x[c][k]), f[c]);
                }
            }
            for (out, f) in out.iter_mut().zip(f) {
                s.store(f, &mut out[lane..]);
            }
        }
        job.write(p, start, &out);
    }
}
