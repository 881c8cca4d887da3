//! Rotary frequencies and the tables of a call.

use super::arch::{LocalRope, Positions};
use super::config::{Config, Rope, Rotation, Scaling};
use crate::device::RopeTable;
use crate::error::Result;
use crate::numeric::wide;

/// Divisors of the frequencies that a file gives in tensors, (n/2) each.
#[derive(Debug, Default)]
pub(crate) struct Divisors {
    /// `rope_freqs.weight`.
    pub all: Option<Vec<f32>>,
    /// `rope_factors_short.weight` and `rope_factors_long.weight`: for contexts up to the first training's, and beyond
    /// (Ding et al., "LongRoPE", 2024).
    pub short_and_long: Option<(Vec<f32>, Vec<f32>)>,
}

/// Angle per position of each pair, in f64, and what cosines and sines are multiplied by.
#[derive(Debug, Clone)]
struct Table {
    angles: Vec<f64>,
    factor: f64,
}

/// The frequencies of a model.
#[derive(Debug, Clone)]
pub(crate) struct Frequencies {
    interleaved: bool,
    /// For sessions with a context up to `original_context`, and beyond.
    short: Table,
    long: Option<Table>,
    original_context: usize,
    /// Of layers with a window, where it is another.
    local: Option<Table>,
}

/// base^(-2i/n) of each pair.
fn plain(base: f64, dims: usize) -> Vec<f64> {
    (0..dims / 2).map(|i| wide::pow(base, -((2 * i) as f64) / dims as f64)).collect()
}

/// The frequencies stretched as `rope` says.
fn scaled(rope: &Rope) -> Table {
    let mut angles = plain(rope.base, rope.dims);
    let factor = match rope.scaling {
        Scaling::Linear(factor) => {
            angles.iter_mut().for_each(|angle| *angle /= factor);
            1.0
        }
        Scaling::Yarn { factor, beta_fast, beta_slow, magnitude } => {
            // The pair that turns `turns` times within the original context.
            let (n, context) = (rope.dims as f64, rope.original_context as f64);
            let pair =
                |turns: f64| n * wide::ln(context / (turns * 2.0 * std::f64::consts::PI)) / (2.0 * wide::ln(rope.base));
            let low = pair(beta_fast).floor().max(0.0);
            let high = pair(beta_slow).ceil().min(n - 1.0);
            for (i, angle) in angles.iter_mut().enumerate() {
                let ramp = ((i as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0);
                *angle = *angle / factor * ramp + *angle * (1.0 - ramp);
            }
            magnitude
        }
    };
    Table { angles, factor: rope.attention_factor.unwrap_or(1.0) * factor }
}

/// The frequencies divided one by one.
fn divided(table: &Table, divisors: &[f32]) -> Table {
    let angles = table.angles.iter().zip(divisors).map(|(angle, divisor)| angle / f64::from(*divisor));
    Table { angles: angles.collect(), factor: table.factor }
}

impl Frequencies {
    /// The frequencies of a model.
    pub(crate) fn new(config: &Config, divisors: &Divisors) -> Self {
        let rope = &config.rope;
        let mut table = scaled(rope);
        if let Some(all) = &divisors.all {
            table = divided(&table, all);
        }
        let (short, long) = match &divisors.short_and_long {
            Some((short, long)) => {
                if rope.attention_factor.is_none() {
                    let original = rope.original_context as f64;
                    let ratio = config.context_length as f64 / original;
                    if ratio > 1.0 {
                        table.factor = (1.0 + wide::ln(ratio) / wide::ln(original)).sqrt();
                    }
                }
                (divided(&table, short), Some(divided(&table, long)))
            }
            None => (table, None),
        };
        let local = match config.architecture.local_rope {
            LocalRope::Same => None,
            LocalRope::Scaled if rope.local_base == rope.base => None,
            LocalRope::Scaled => Some(scaled(&Rope { base: rope.local_base, ..rope.clone() })),
            LocalRope::Own | LocalRope::Unscaled => {
                Some(Table { angles: plain(rope.local_base, rope.dims), factor: 1.0 })
            }
        };
        Frequencies {
            interleaved: config.architecture.positions == Positions::RotaryInterleaved,
            short,
            long,
            original_context: rope.original_context,
            local,
        }
    }

    /// True if sessions of `context` positions have frequencies of their own.
    pub(crate) fn is_long(&self, context: usize) -> bool {
        self.long.is_some() && context > self.original_context
    }

    /// The tables for `positions`, in a session of `context` positions: of layers without and with a window.
    pub(crate) fn tables(&self, positions: &[usize], context: usize) -> Result<Tables> {
        let positions = positions.iter().map(|&position| position as f64);
        self.tables_of(positions, context, |table| table.factor)
    }

    /// The tables that take `rows` keys in a session of `context` positions `by` positions back.
    pub(crate) fn back(&self, by: usize, rows: usize, context: usize) -> Result<Tables> {
        self.tables_of(std::iter::repeat_n(-(by as f64), rows), context, |_| 1.0)
    }

    fn tables_of(
        &self,
        positions: impl ExactSizeIterator<Item = f64> + Clone,
        context: usize,
        factor: fn(&Table) -> f64,
    ) -> Result<Tables> {
        let table = |table: &Table| -> Result<RopeTable> {
            let (n, factor) = (positions.len() * table.angles.len(), factor(table));
            let (mut cos, mut sin) = (Vec::new(), Vec::new());
            let reserved = cos.try_reserve_exact(n).and_then(|()| sin.try_reserve_exact(n));
            reserved.map_err(|_| crate::Error::out_of_memory(format!("rotary tables of {n} angles cannot be had")))?;
            for position in positions.clone() {
                for angle in &table.angles {
                    let (s, c) = wide::sin_cos(position * angle);
                    cos.push((c * factor) as f32);
                    sin.push((s * factor) as f32);
                }
            }
            Ok(RopeTable { interleaved: self.interleaved, pairs: table.angles.len(), cos, sin })
        };
        let global = if self.is_long(context) { self.long.as_ref() } else { None }.unwrap_or(&self.short);
        let none = RopeTable { interleaved: self.interleaved, pairs: 0, cos: Vec::new(), sin: Vec::new() };
        Ok(Tables { none, global: table(global)?, local: self.local.as_ref().map(table).transpose()? })
    }
}

/// The angles of one call.
pub(crate) struct Tables {
    none: RopeTable,
    global: RopeTable,
    local: Option<RopeTable>,
}

impl Tables {
    /// The table of a layer.
    pub(crate) fn of(&self, rotation: Rotation) -> &RopeTable {
        match (rotation, &self.local) {
            (Rotation::None, _) => &self.none,
            (Rotation::Local, Some(table)) => table,
            _ => &self.global,
        }
    }
}
