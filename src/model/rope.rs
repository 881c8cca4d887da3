//! Rotary frequencies and the tables of a call.

use super::config::Config;
use crate::device::RopeTable;
use crate::error::Result;
use crate::numeric::wide;

/// Angle per position of each pair, in f64.
#[derive(Debug, Clone)]
pub(crate) struct Frequencies {
    interleaved: bool,
    global: Vec<f64>,
    /// Of layers with a window, where they have their own.
    local: Option<Vec<f64>>,
}

impl Frequencies {
    /// Frequency of pair i: base^(-2i/n) / (factor * divisor_i). `divisors` is `rope_freqs.weight` (n/2).
    pub(crate) fn new(config: &Config, divisors: Option<&[f32]>) -> Self {
        let rope = &config.rope;
        let frequency = |base: f64, i: usize| wide::pow(base, -((2 * i) as f64) / rope.dims as f64);
        let pairs = 0..rope.dims / 2;
        let divisor = |i: usize| divisors.map_or(1.0, |d| f64::from(d[i]));
        Frequencies {
            interleaved: config.architecture.rope_interleaved,
            global: pairs.clone().map(|i| frequency(rope.base, i) / (rope.linear_factor * divisor(i))).collect(),
            local: config.architecture.local_rope.then(|| pairs.map(|i| frequency(rope.local_base, i)).collect()),
        }
    }

    /// The tables for `count` positions from `start` on: of layers without and with a window.
    pub(crate) fn tables(&self, start: usize, count: usize) -> Result<Tables> {
        let table = |frequencies: &[f64]| -> Result<RopeTable> {
            let n = count * frequencies.len();
            let (mut cos, mut sin) = (Vec::new(), Vec::new());
            let reserved = cos.try_reserve_exact(n).and_then(|()| sin.try_reserve_exact(n));
            reserved.map_err(|_| crate::Error::out_of_memory(format!("rotary tables of {n} angles cannot be had")))?;
            for position in start..start + count {
                for frequency in frequencies {
                    let (s, c) = wide::sin_cos(position as f64 * frequency);
                    cos.push(c as f32);
                    sin.push(s as f32);
                }
            }
            Ok(RopeTable { interleaved: self.interleaved, pairs: frequencies.len(), cos, sin })
        };
        Ok(Tables { global: table(&self.global)?, local: self.local.as_deref().map(table).transpose()? })
    }
}

/// The angles of one call.
pub(crate) struct Tables {
    global: RopeTable,
    local: Option<RopeTable>,
}

impl Tables {
    /// The table of a layer.
    pub(crate) fn of(&self, local: bool) -> &RopeTable {
        match &self.local {
            Some(table) if local => table,
            _ => &self.global,
        }
    }
}
