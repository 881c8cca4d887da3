//! The search for scales: how the formats whose encoder is free to choose (K formats, IQ4, and with importances Q4_0 to
//! Q5_1) choose.
//!
//! A group of numbers x with importances w is approximated by y = scale * level - min, each level out of a fixed set,
//! so that sum w (x - y)^2 is small. For given scale and min the best levels are the nearest; for given levels the best
//! scale and min are a weighted least-squares fit. Alternating both descends to a local minimum (Lloyd, "Least squares
//! quantization in PCM", 1982). To find a good one, several scales are measured, as ggml's quantizers for these formats
//! also do; one measurement gives the error at that scale and the one that a fit will reach, and the search descends
//! from the two where that is least.

use super::float::{HALF_MAX, f16_to_f32, f32_to_f16, inverse};
use super::levels::Levels;

/// y = scale * level - min.
#[derive(Clone, Copy, Default, PartialEq)]
pub(super) struct Line {
    pub scale: f32,
    pub min: f32,
}

/// Which mins lines may have.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Mins {
    /// 0 alone.
    Zero,
    /// Those that are not negative. Levels start at 0, scales are not negative.
    Positive,
    /// All. Levels start at 0, scales are not negative.
    Any,
}

/// The weighted sums over a group, each element at its nearest level l; r = x - y.
#[derive(Clone, Copy, Default)]
pub(super) struct Sums {
    /// w r^2.
    pub error: f32,
    pub w: f32,
    pub wl: f32,
    pub wll: f32,
    pub wr: f32,
    pub wrl: f32,
}

/// Lanes that sums are split into, so that the compiler can use vectors without changing any result.
const LANES: usize = 8;

/// The sums of a group whose length is a multiple of LANES. A function of its own in each format: inlined into closures,
/// its sums were kept in memory, which took twice the time.
#[inline(never)]
pub(super) fn measure<L: Levels>(x: &[f32], w: &[f32], levels: L, line: Line) -> Sums {
    let inverse = inverse(line.scale);
    let mut sums = [[0.0f32; LANES]; 6];
    for (x, w) in x.as_chunks::<LANES>().0.iter().zip(w.as_chunks::<LANES>().0) {
        for i in 0..LANES {
            let shifted = x[i] + line.min;
            let level = levels.nearest(shifted * inverse);
            let r = shifted - line.scale * level;
            let (wl, wr) = (w[i] * level, w[i] * r);
            sums[0][i] += wr * r;
            sums[1][i] += w[i];
            sums[2][i] += wl;
            sums[3][i] += wl * level;
            sums[4][i] += wr;
            sums[5][i] += wr * level;
        }
    }
    let [error, w, wl, wll, wr, wrl] = sums.map(|lanes| lanes.iter().sum());
    Sums { error, w, wl, wll, wr, wrl }
}

impl Sums {
    /// The least-squares line for the levels that were measured at `line`, and the error with it and them; `None` if
    /// they do not determine one.
    pub(super) fn fit(&self, line: Line, mins: Mins) -> Option<(Line, f32)> {
        if mins == Mins::Zero {
            return self.fit_through_zero(line);
        }
        let determinant = self.w * self.wll - self.wl * self.wl;
        let scale = (self.w * self.wrl - self.wl * self.wr) / determinant;
        let min = (self.wl * self.wrl - self.wll * self.wr) / determinant;
        let next = Line { scale: line.scale + scale, min: line.min + min };
        if determinant > 0.0 && next.min.is_finite() && (mins == Mins::Any || next.min >= 0.0) {
            let error = self.error - scale * self.wrl + min * self.wr;
            return (next.scale > 0.0).then_some((next, error));
        }
        self.fit_through_zero(line).filter(|(next, _)| next.scale > 0.0)
    }

    /// As `fit`, of the lines whose min is 0.
    fn fit_through_zero(&self, line: Line) -> Option<(Line, f32)> {
        let wrl = self.wrl - line.min * self.wl;
        let scale = wrl / self.wll;
        let error = self.error - line.min * (2.0 * self.wr - line.min * self.w) - scale * wrl;
        let next = Line { scale: line.scale + scale, min: 0.0 };
        (self.wll > 0.0 && next.scale.is_finite()).then_some((next, error))
    }
}

/// Where a search starts.
pub(super) struct Starts {
    /// The end of the range is taken to lie this many gaps beyond the last level.
    pub gaps: &'static [f32],
    /// It is taken to lie at the last level times this, which cuts it if this is above 1.
    pub times: &'static [f32],
}

/// For numbers: around the line that just covers the range, and two that cut it, which pays where what is far out
/// weighs little. More starts, descents or rounds gain less than one per cent of the error.
pub(super) const AROUND: Starts = Starts { gaps: &[-0.8, -0.4, 0.0, 0.4, 0.8], times: &[1.3, 2.0] };

/// Standard deviations that count as near.
const NEAR: f32 = 2.5;

/// The most promising lines, which are descended from.
const DESCENTS: usize = 3;
/// The lines of a descent.
const ROUNDS: usize = 2;

/// The range and the min of lines that cover the numbers from `low` to `high`: from the lowest number to the highest, or
/// from 0 to the one of largest magnitude. A min is stored as a half, so numbers above all halves are reached by the range.
fn covered(low: f32, high: f32, mins: Mins) -> (f32, f32) {
    match mins {
        Mins::Zero => (if high > -low { high } else { low }, 0.0),
        Mins::Positive => (high - low.min(0.0), -low.min(0.0)),
        Mins::Any => (high - low.min(HALF_MAX), -low.min(HALF_MAX)),
    }
}

/// The line that covers what lies near the mean, as weights see it: they may hardly see what is far out. `zeros` are the
/// sums with zeros for levels, `low` and `high` the ends of all numbers, `end` the last level.
fn near_mean(zeros: &Sums, [low, high]: [f32; 2], end: f32, mins: Mins) -> Line {
    let mean = if mins == Mins::Zero { 0.0 } else { zeros.wr / zeros.w };
    let spread = NEAR * (zeros.error / zeros.w - mean * mean).max(0.0).sqrt();
    let (range, min) = covered(low.max(mean - spread), high.min(mean + spread), mins);
    Line { scale: range / end, min }
}

/// A line for a group whose length is a multiple of 8. `storable` rounds to a line that can be stored.
pub(super) fn search<L: Levels>(
    x: &[f32],
    w: &[f32],
    levels: L,
    mins: Mins,
    starts: Starts,
    storable: impl Fn(Line) -> Line,
) -> Line {
    let (mut low, mut high) = (f32::INFINITY, f32::NEG_INFINITY);
    for (&x, _) in x.iter().zip(w).filter(|(_, w)| **w > 0.0) {
        (low, high) = (low.min(x), high.max(x));
    }
    if low > high {
        // Nothing has a weight.
        (low, high) = (0.0, 0.0);
    }
    let (range, min) = covered(low, high, mins);
    // The line that just covers the range stands where errors overflow or are no numbers.
    let covering = if range == 0.0 { 0.0 } else { range / levels.ends()[1] };
    let mut best = (f32::INFINITY, storable(Line { scale: covering, min }));
    if range == 0.0 {
        return best.1;
    }
    let mut look = |line: Line| {
        let line = storable(line);
        let sums = measure(x, w, levels, line);
        if sums.error < best.0 {
            best = (sums.error, line);
        }
        sums.fit(line, mins).filter(|(next, _)| *next != line)
    };
    // Sorted by error, the least first.
    let mut promising = [None; DESCENTS];
    let mut start = |line: Line| {
        let mut next = look(line);
        for place in &mut promising {
            if let Some((_, error)) = next
                && place.is_none_or(|(_, least)| error < least)
            {
                std::mem::swap(place, &mut next);
            }
        }
    };
    for end in levels.ends().into_iter().filter(|end| *end != 0.0) {
        for gaps in starts.gaps {
            start(Line { scale: range / (end + gaps * levels.gap()), min });
        }
        for times in starts.times {
            let scale = range / (end * times);
            start(Line { scale, min });
            // With a min, either end can be cut.
            let other = scale * end - high;
            if mins == Mins::Any || mins == Mins::Positive && other >= 0.0 {
                start(Line { scale, min: other });
            }
        }
    }
    start(near_mean(&measure(x, w, levels, Line::default()), [low, high], levels.ends()[1], mins));
    for mut next in promising {
        for _ in 0..ROUNDS {
            let Some((line, _)) = next else { break };
            next = look(line);
        }
    }
    best.1
}

/// The finite half nearest to x.
pub(super) fn half(x: f32) -> f32 {
    f16_to_f32(f32_to_f16(x.clamp(-HALF_MAX, HALF_MAX)))
}

/// The weights of a block, the largest of them 1. None is 0, so that what does not count becomes something near and not
/// just anything; the least do not count beside others.
pub(super) fn relative<const N: usize>(weights: Option<&[f32]>) -> [f32; N] {
    let mut relative = [1.0; N];
    let Some(weights) = weights else { return relative };
    let largest = weights.iter().copied().fold(0.0, f32::max);
    if largest > 0.0 {
        relative.iter_mut().zip(weights).for_each(|(own, weight)| *own = (weight / largest).max(1e-12));
    }
    relative
}

/// The codes of the levels nearest to x.
pub(super) fn encode<L: Levels>(x: &[f32], levels: L, line: Line, codes: &mut [u8]) {
    let inverse = inverse(line.scale);
    for (x, code) in x.iter().zip(codes) {
        *code = levels.code(levels.nearest((x + line.min) * inverse));
    }
}
