//! The search for scales: how the formats whose encoder is free to choose (K formats, IQ4) choose.
//!
//! A group of numbers x with importances w is approximated by y = scale * level - min, each level out of a fixed set,
//! so that sum w (x - y)^2 is small. For given scale and min the best levels are the nearest; for given levels the best
//! scale and min are a weighted least-squares fit. Alternating both descends to a local minimum (Lloyd, "Least squares
//! quantization in PCM", 1982); to find a good one it is started from several scales around the one that just
//! covers the range, as ggml's quantizers for these formats also do.
//!
//! The groups' scales (and mins) are stored as small integers times one f16 for all groups. That is the same problem
//! again, with the scales for numbers and integers for levels, and is solved by the same search.

use super::float::{f16_to_f32, f32_to_f16};

/// The set of numbers that codes 0, 1, ... stand for, ascending.
pub(super) trait Levels: Copy {
    /// The lowest and the highest.
    fn ends(self) -> [f32; 2];
    /// The usual distance between two.
    fn gap(self) -> f32;
    /// The level nearest to t; any one if t is NaN.
    fn nearest(self, t: f32) -> f32;
    /// The code of a level.
    fn code(self, level: f32) -> u8;
}

/// All integers from `low` to `high`; |low| and |high| are below 2^22.
#[derive(Clone, Copy)]
pub(super) struct Integers {
    pub low: f32,
    pub high: f32,
}

impl Levels for Integers {
    fn ends(self) -> [f32; 2] {
        [self.low, self.high]
    }
    fn gap(self) -> f32 {
        1.0
    }
    #[inline(always)]
    fn nearest(self, t: f32) -> f32 {
        // Adding 1.5 * 2^23 rounds to an integer, ties to even.
        const ROUND: f32 = 12_582_912.0;
        (t.max(self.low).min(self.high) + ROUND) - ROUND
    }
    fn code(self, level: f32) -> u8 {
        (level - self.low) as u8
    }
}

/// Places in `Table::nearest`: one for each half from -127 to 127.
const HALVES: usize = 4 * 127 + 1;

/// Ascending numbers in [-127, 127], with the nearest of them to everything.
#[derive(Clone, Copy)]
pub(super) struct Table {
    numbers: &'static [i8; 16],
    /// Place i holds the number nearest to t for t in [i / 2 - 127, i / 2 - 126.5): halfway between two integers lies
    /// at a boundary.
    nearest: &'static [i8; HALVES],
}

impl Table {
    /// What `nearest` holds.
    pub(super) const fn nearest(numbers: &[i8; 16]) -> [i8; HALVES] {
        let (mut nearest, mut i, mut n) = ([0; HALVES], 0, 0);
        while i < HALVES {
            // The sum of two numbers is twice what lies halfway.
            while n < 15 && i as i32 - 254 >= numbers[n] as i32 + numbers[n + 1] as i32 {
                n += 1;
            }
            nearest[i] = numbers[n];
            i += 1;
        }
        nearest
    }

    pub(super) const fn new(numbers: &'static [i8; 16], nearest: &'static [i8; HALVES]) -> Table {
        Table { numbers, nearest }
    }
}

impl Levels for Table {
    fn ends(self) -> [f32; 2] {
        [f32::from(self.numbers[0]), f32::from(self.numbers[15])]
    }
    fn gap(self) -> f32 {
        16.0
    }
    #[inline(always)]
    fn nearest(self, t: f32) -> f32 {
        // The conversion cuts off; below 0 and NaN become 0.
        let i = ((t + 127.0) * 2.0) as usize;
        f32::from(self.nearest[i.min(HALVES - 1)])
    }
    fn code(self, level: f32) -> u8 {
        self.numbers.iter().take_while(|&&number| f32::from(number) < level).count() as u8
    }
}

/// y = scale * level - min.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Line {
    pub scale: f32,
    pub min: f32,
}

impl Line {
    /// What [`Levels::nearest`] is asked for.
    #[inline(always)]
    fn inverse(self) -> f32 {
        if self.scale == 0.0 { 0.0 } else { 1.0 / self.scale }
    }
}

/// The weighted sums over a group, each element at its nearest level.
#[derive(Clone, Copy, Default)]
struct Sums {
    /// w (x - y)^2.
    error: f32,
    w: f32,
    wl: f32,
    wll: f32,
    wx: f32,
    wxl: f32,
}

/// Lanes that sums are split into, so that the compiler can use vectors without changing any result.
const LANES: usize = 8;

/// The sums of a group whose length is a multiple of LANES.
#[inline(always)]
fn measure<L: Levels>(x: &[f32], w: &[f32], levels: L, line: Line) -> Sums {
    let inverse = line.inverse();
    let mut sums = [[0.0f32; LANES]; 6];
    for (x, w) in x.as_chunks::<LANES>().0.iter().zip(w.as_chunks::<LANES>().0) {
        for i in 0..LANES {
            let level = levels.nearest((x[i] + line.min) * inverse);
            let error = x[i] - (line.scale * level - line.min);
            let (wl, wx) = (w[i] * level, w[i] * x[i]);
            sums[0][i] += w[i] * error * error;
            sums[1][i] += w[i];
            sums[2][i] += wl;
            sums[3][i] += wl * level;
            sums[4][i] += wx;
            sums[5][i] += wx * level;
        }
    }
    let [error, w, wl, wll, wx, wxl] = sums.map(|lanes| lanes.iter().sum());
    Sums { error, w, wl, wll, wx, wxl }
}

impl Sums {
    /// The least-squares line for the levels that were measured; `None` if they do not determine one.
    fn fit(&self, mins: bool) -> Option<Line> {
        let through_zero = || {
            let scale = self.wxl / self.wll;
            (self.wll > 0.0 && scale.is_finite()).then_some(Line { scale, min: 0.0 })
        };
        if !mins {
            return through_zero();
        }
        let determinant = self.w * self.wll - self.wl * self.wl;
        let scale = (self.w * self.wxl - self.wl * self.wx) / determinant;
        let min = (self.wl * self.wxl - self.wll * self.wx) / determinant;
        if !(determinant > 0.0 && scale > 0.0 && min.is_finite()) {
            return None;
        }
        // Stored mins cannot be negative.
        if min < 0.0 { through_zero() } else { Some(Line { scale, min }) }
    }
}

// More starts or rounds than these gain less than one per cent of the error, for twice the time.

/// Starts on each side of the scale that just covers the range.
const STEPS: i32 = 2;
/// The distance between starts: the end of the range moves by this part of the gap between levels.
const STEP: f32 = 0.4;
/// Descents from each start.
const ROUNDS: usize = 2;

/// The weights of at most 32 elements; where all are 0, equal ones that do not count beside those of other groups, so
/// that the elements become something near and not 0.
pub(super) fn or_indifferent(w: &[f32]) -> &[f32] {
    if w.iter().any(|w| *w > 0.0) { w } else { &[1e-12; 32][..w.len()] }
}

/// A line for a group whose length is a multiple of 8. With `mins`, levels start at 0 and scale and min are not
/// negative; without, min is 0. `storable` rounds a scale to one that can be stored.
pub(super) fn search<L: Levels>(x: &[f32], w: &[f32], levels: L, mins: bool, storable: impl Fn(f32) -> f32) -> Line {
    let (mut low, mut high) = (0.0f32, 0.0f32);
    for (&x, &w) in x.iter().zip(w) {
        if w > 0.0 {
            (low, high) = (low.min(x), high.max(x));
        }
    }
    // With a min: from the lowest element, or 0, to the highest. Without: from 0 to the one of largest magnitude.
    let (range, min) = if mins { (high - low, -low) } else { (if high > -low { high } else { low }, 0.0) };
    // The line that just covers the range stands where errors overflow or are no numbers.
    let covering = if range == 0.0 { 0.0 } else { range / levels.ends()[1] };
    let mut best = (f32::INFINITY, Line { scale: storable(covering), min });
    if range == 0.0 {
        return best.1;
    }
    for end in levels.ends().into_iter().filter(|end| *end != 0.0) {
        for step in -STEPS..=STEPS {
            let mut line = Line { scale: range / (end + step as f32 * STEP * levels.gap()), min };
            for _ in 0..=ROUNDS {
                line.scale = storable(line.scale);
                let sums = measure(x, w, levels, line);
                if sums.error < best.0 {
                    best = (sums.error, line);
                }
                match sums.fit(mins) {
                    Some(next) if next != line => line = next,
                    _ => break,
                }
            }
        }
    }
    best.1
}

/// A block of groups that share f16 scales.
pub(super) struct Groups<const G: usize> {
    /// Little-endian halves: what the groups' scales and mins are multiplied with.
    pub d: [u8; 2],
    pub dmin: [u8; 2],
    pub scales: [i8; G],
    pub mins: [u8; G],
    pub codes: [u8; 256],
}

/// The finite half nearest to x.
pub(super) fn half(x: f32) -> f32 {
    f16_to_f32(f32_to_f16(x.clamp(-65504.0, 65504.0)))
}

/// The block of 256 elements in G groups: y = d scale level - dmin min. `scales` are the integers that a scale may be;
/// `mins` those of a min, if the format has any.
pub(super) fn groups<const G: usize, L: Levels>(
    x: &[f32],
    w: &[f32],
    levels: L,
    scales: Integers,
    mins: Option<Integers>,
) -> Groups<G> {
    let size = x.len() / G;
    let group = |g: usize| (&x[g * size..(g + 1) * size], or_indifferent(&w[g * size..(g + 1) * size]));
    // The numbers of each group, and how much an error in them costs.
    let (mut own_scales, mut scale_costs, mut own_mins, mut min_costs) = ([0.0; G], [0.0; G], [0.0; G], [0.0; G]);
    for g in 0..G {
        let (x, w) = group(g);
        let line = search(x, w, levels, mins.is_some(), |scale| scale);
        let sums = measure(x, w, levels, line);
        (own_scales[g], scale_costs[g]) = (line.scale, sums.wll);
        (own_mins[g], min_costs[g]) = (line.min, sums.w);
    }
    let d = search(&own_scales, &scale_costs, scales, false, half).scale;
    // Without mins, 0 is the only one.
    let mins = mins.unwrap_or(Integers { low: 0.0, high: 0.0 });
    let dmin = search(&own_mins, &min_costs, mins, false, half).scale;
    let mut out = Groups { d: f32_to_f16(d), dmin: f32_to_f16(dmin), scales: [0; G], mins: [0; G], codes: [0; 256] };
    // The two scales were rounded apart: the best pair of integers may lie one beside the nearest.
    let around = |number: f32, step: f32, integers: Integers| {
        let nearest = integers.nearest(number * Line { scale: step, min: 0.0 }.inverse());
        [nearest, nearest - 1.0, nearest + 1.0].map(|near| near.max(integers.low).min(integers.high))
    };
    for g in 0..G {
        let (x, w) = group(g);
        let mut best: Option<(f32, Line, i8, u8)> = None;
        for scale in around(own_scales[g], d, scales) {
            for min in around(own_mins[g], dmin, mins) {
                let line = Line { scale: d * scale, min: dmin * min };
                let error = measure(x, w, levels, line).error;
                if best.is_none_or(|(least, ..)| error < least) {
                    best = Some((error, line, scale as i8, min as u8));
                }
            }
        }
        let Some((_, line, scale, min)) = best else { continue };
        (out.scales[g], out.mins[g]) = (scale, min);
        encode(x, levels, line, &mut out.codes[g * size..(g + 1) * size]);
    }
    out
}

/// The codes of the levels nearest to x.
pub(super) fn encode<L: Levels>(x: &[f32], levels: L, line: Line, codes: &mut [u8]) {
    let inverse = line.inverse();
    for (x, code) in x.iter().zip(codes) {
        *code = levels.code(levels.nearest((x + line.min) * inverse));
    }
}
