//! Blocks of groups whose scales and mins are small integers times one f16 for all groups: K formats and IQ4_XS.
//!
//! What to multiply the integers with is the same problem again, with the scales for numbers and integers for levels, and
//! is found by the same search. Where a few groups lie far above the others, it may be better to cut those than to round
//! the others to 0 or 1: that is tried too. In the end the two f16 are fitted to the integers and codes.

use super::float::{f32_to_f16, inverse};
use super::levels::{Integers, Levels};
use super::search::{AROUND, Line, Mins, Starts, Sums, encode, half, measure, relative, search};

/// A block of groups that share f16 scales.
pub(super) struct Groups<const G: usize> {
    /// Little-endian halves: what the groups' scales and mins are multiplied with.
    pub d: [u8; 2],
    pub dmin: [u8; 2],
    pub scales: [i8; G],
    pub mins: [u8; G],
    pub codes: [u8; 256],
}

/// For scales and mins: also coarser, as other integers may fit better to numbers that are alike.
const COARSER: Starts = Starts {
    times: &[0.98, 0.96, 0.94, 0.92, 0.9, 0.88, 0.86, 0.84, 0.82, 0.8, 0.75, 0.7, 0.65, 0.6, 0.5, 0.4, 0.3],
    ..AROUND
};

/// The scales that are tried: these beside the nearest.
const BESIDE: &[f32] = &[0.0, -1.0, 1.0];

/// How often what the integers are multiplied with is fitted.
const REFITS: usize = 2;

/// Numbers below this part of the largest may do better without it.
const FAR: f32 = 0.25;

/// The finite half nearest to x, but not 0 for another x: integers can make 0 of it.
fn unit(x: f32) -> f32 {
    // The least positive half.
    const LEAST: f32 = 1.0 / (1 << 24) as f32;
    if x != 0.0 && half(x) == 0.0 { LEAST.copysign(x) } else { half(x) }
}

/// The numbers of a block, and what may stand for them: y = units.scale scale level - units.min min, with integers scale
/// and min for each group.
struct Block<'a, L, const G: usize> {
    x: &'a [f32],
    w: [f32; 256],
    levels: L,
    scales: Integers,
    mins: Integers,
    kind: Mins,
    /// The error of each group as zeros.
    squares: [f32; G],
}

/// Units, the integers of each group with them, and the error.
struct Trial<const G: usize> {
    error: f32,
    units: Line,
    integers: [Line; G],
    /// The least-squares fit of the units.
    next: Line,
}

/// The line of a group.
fn times(units: Line, integers: Line) -> Line {
    Line { scale: units.scale * integers.scale, min: units.min * integers.min }
}

/// The integer nearest to number / unit.
fn nearest(number: f32, unit: f32, integers: Integers) -> f32 {
    integers.nearest(number * inverse(unit))
}

impl<L: Levels, const G: usize> Block<'_, L, G> {
    fn group(&self, g: usize) -> (&[f32], &[f32]) {
        let size = self.x.len() / G;
        (&self.x[g * size..(g + 1) * size], &self.w[g * size..(g + 1) * size])
    }

    /// The integers of group g whose own best line is `own`, with scales `beside` the nearest; and the sums with them.
    fn integers(&self, g: usize, own: Line, units: Line, beside: &[f32]) -> (Line, Sums) {
        let (x, w) = self.group(g);
        let near = |min: f32| nearest(min, units.min, self.mins);
        let mut best = (Line::default(), Sums { error: self.squares[g], ..Sums::default() });
        let middle = nearest(own.scale, units.scale, self.scales);
        for beside in beside {
            let scale = (middle + beside).max(self.scales.low).min(self.scales.high);
            let mut integers = Line { scale, min: near(own.min) };
            for _ in 0..2 {
                let line = times(units, integers);
                let sums = measure(x, w, self.levels, line);
                if sums.error < best.1.error {
                    best = (integers, sums);
                }
                // With these levels.
                let min = near(line.min - sums.wr / sums.w);
                if min == integers.min {
                    break;
                }
                integers.min = min;
            }
        }
        best
    }

    /// The integers of all groups.
    fn attempt(&self, own: &[Line; G], units: Line, beside: &[f32]) -> Trial<G> {
        let mut integers = [Line::default(); G];
        // The block's sums, with scale * level for the levels.
        let mut all = Sums::default();
        for (g, integers) in integers.iter_mut().enumerate() {
            let (found, sums) = self.integers(g, own[g], units, beside);
            *integers = found;
            all.error += sums.error;
            all.w += found.min * found.min * sums.w;
            all.wl += found.min * found.scale * sums.wl;
            all.wll += found.scale * found.scale * sums.wll;
            all.wr += found.min * sums.wr;
            all.wrl += found.scale * sums.wrl;
        }
        let next = all.fit(units, self.kind).map_or(units, |(next, _)| storable(next));
        Trial { error: all.error, units, integers, next }
    }

    /// The best of `best` and trials that cut the groups far above the others.
    fn cut(&self, own: &[Line; G], mut best: Trial<G>) -> Trial<G> {
        let mins = units_of(own.map(|line| line.min), self.mins.high);
        for (i, scale) in units_of(own.map(|line| line.scale), self.scales.high).into_iter().enumerate() {
            for (k, &min) in mins.iter().enumerate() {
                if (i == 0 || scale > 0.0) && (k == 0 || min > 0.0) {
                    let trial = self.attempt(own, Line { scale, min }, &[0.0]);
                    if trial.error < best.error {
                        best = trial;
                    }
                }
            }
        }
        best
    }

    /// Fits units to integers and codes, and these to the units, as long as that helps.
    fn refit(&self, mut best: Trial<G>) -> Trial<G> {
        for _ in 0..REFITS {
            if best.next == best.units {
                break;
            }
            let own = best.integers.map(|integers| times(best.units, integers));
            let trial = self.attempt(&own, best.next, BESIDE);
            if trial.error < best.error {
                best = trial;
            } else {
                break;
            }
        }
        best
    }
}

/// The units nearest to these that can be stored.
fn storable(units: Line) -> Line {
    Line { scale: unit(units.scale), min: unit(units.min) }
}

/// The units with which the largest of `numbers` is `high`, and likewise without those that lie far above the others; 0
/// where none are left.
fn units_of<const G: usize>(numbers: [f32; G], high: f32) -> [f32; 4] {
    let mut below = f32::INFINITY;
    std::array::from_fn(|_| {
        let left = numbers.iter().map(|number| number.abs()).filter(|number| *number <= below);
        let largest = left.fold(0.0, f32::max);
        below = FAR * largest;
        if largest == 0.0 { 0.0 } else { unit(largest / high) }
    })
}

/// The block of 256 elements in G groups: y = d scale level - dmin min. `scales` are the integers that a scale may be;
/// `mins` those of a min, if the format has any.
pub(super) fn groups<const G: usize, L: Levels>(
    x: &[f32],
    weights: Option<&[f32]>,
    levels: L,
    scales: Integers,
    mins: Option<Integers>,
) -> Groups<G> {
    let size = x.len() / G;
    let kind = if mins.is_some() { Mins::Positive } else { Mins::Zero };
    // Without mins, 0 is the only one.
    let mins = mins.unwrap_or(Integers { low: 0.0, high: 0.0 });
    let w = relative(weights);
    let mut block = Block::<L, G> { x, w, levels, scales, mins, kind, squares: [0.0; G] };
    let mut own = [Line::default(); G];
    // The numbers of each group, and how much an error in them costs.
    let (mut own_scales, mut scale_costs, mut own_mins, mut min_costs) = ([0.0; G], [0.0; G], [0.0; G], [0.0; G]);
    for g in 0..G {
        let (x, w) = (&x[g * size..(g + 1) * size], &w[g * size..(g + 1) * size]);
        own[g] = search(x, w, levels, kind, AROUND, |line| line);
        let sums = measure(x, w, levels, own[g]);
        (own_scales[g], scale_costs[g]) = (own[g].scale, sums.wll);
        (own_mins[g], min_costs[g]) = (own[g].min, sums.w);
        block.squares[g] = measure(x, w, levels, Line::default()).error;
    }
    let d = search(&own_scales, &scale_costs, scales, Mins::Zero, COARSER, storable).scale;
    let dmin = search(&own_mins, &min_costs, mins, Mins::Zero, COARSER, storable).scale;
    let best = block.attempt(&own, Line { scale: d, min: dmin }, BESIDE);
    let best = block.refit(block.cut(&own, best));
    let mut out = Groups {
        d: f32_to_f16(best.units.scale),
        dmin: f32_to_f16(best.units.min),
        scales: best.integers.map(|integers| integers.scale as i8),
        mins: best.integers.map(|integers| integers.min as u8),
        codes: [0; 256],
    };
    for g in 0..G {
        encode(block.group(g).0, levels, times(best.units, best.integers[g]), &mut out.codes[g * size..(g + 1) * size]);
    }
    out
}
