//! Adapters in the forward pass: each product of a projection, and what the adapters of a session add to it.

use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

use super::lora::{Lora, Pair};
use super::weights::Projection;
use crate::device::{Act, Buffer, Device, Product, Weight};
use crate::error::Result;

/// One of the products of an input: out = W x + b.
pub(crate) struct Output<'a> {
    pub projection: &'a Projection,
    /// Take x in 16 bits instead of 8.
    pub fine: bool,
    /// (T, n) result; resized.
    pub out: &'a mut Buffer,
}

impl Output<'_> {
    pub(crate) fn product(&mut self) -> Product<'_> {
        let Projection { weight, bias, .. } = self.projection;
        Product { weight, bias: bias.as_deref(), fine: self.fine, out: self.out }
    }
}

/// Adapters with their scales, in the order in which they were added.
pub(crate) type AdapterList = Vec<(Arc<Lora>, f32)>;

/// Which adapters there are: keys and values of others are other numbers.
pub(crate) fn hash_adapters(list: &AdapterList, hasher: &mut impl Hasher) {
    list.iter().for_each(|(lora, scale)| (lora.id(), scale.to_bits()).hash(hasher));
}

fn same(a: &AdapterList, b: &AdapterList) -> bool {
    let key = |(lora, scale): &(Arc<Lora>, f32)| (lora.id(), scale.to_bits());
    a.iter().map(key).eq(b.iter().map(key))
}

/// The adapters of the rows of a pass, and room for their products.
#[derive(Debug, Default)]
pub(crate) struct Adapters {
    /// Rows that have adapters, and which.
    sets: Vec<(Range<usize>, AdapterList)>,
    /// (T,R): A x, of each adapter and product of an input.
    low: Vec<(Buffer, Act)>,
    /// (T,n): B (A x), of each product of an input.
    high: Vec<Buffer>,
    /// The rows of an input that have adapters, where others have not, of each set.
    some: Vec<(Buffer, Act)>,
}

/// The product of a pair that is added to some rows of an output.
struct Step<'a> {
    set: usize,
    rows: &'a Range<usize>,
    output: usize,
    pair: &'a Pair,
    scale: f32,
}

/// y = W x, a product with floats.
fn product<'a>(weight: &'a Weight, out: &'a mut Buffer) -> Product<'a> {
    Product { weight, bias: None, fine: false, out }
}

impl Adapters {
    /// Says which adapters the rows of the next inputs have.
    pub(crate) fn assign<'a>(&mut self, rows: impl Iterator<Item = (Range<usize>, &'a AdapterList)>) {
        self.sets.clear();
        for (rows, list) in rows.filter(|(rows, list)| !rows.is_empty() && !list.is_empty()) {
            match self.sets.last_mut() {
                Some((last, other)) if last.end == rows.start && same(other, list) => last.end = rows.end,
                _ => self.sets.push((rows, list.clone())),
            }
        }
    }

    /// True if some row has an adapter that adds to this projection.
    pub(crate) fn add_to(&self, projection: &Projection) -> bool {
        let adds = |(lora, scale): &(Arc<Lora>, f32)| lora.pair(projection.index, *scale).is_some();
        self.sets.iter().any(|(_, list)| list.iter().any(adds))
    }

    /// Each output's y = W x + b, then for each adapter of a row that has a pair for it, in the order in which they were
    /// added, y = fma(s, B (A x), y) with s = scale * alpha / R. x is (T,D).
    pub(crate) fn linear<const N: usize>(
        &mut self,
        device: &Device,
        x: &Act,
        mut outputs: [Output<'_>; N],
    ) -> Result<()> {
        let Adapters { sets, low, high, some } = self;
        let mut steps: Vec<Step<'_>> = Vec::new();
        for (set, (rows, list)) in sets.iter().enumerate() {
            for (lora, scale) in list {
                for (i, output) in outputs.iter().enumerate() {
                    let pair = lora.pair(output.projection.index, *scale);
                    steps.extend(pair.map(|(pair, scale)| Step { set, rows, output: i, pair, scale }));
                }
            }
        }
        some.resize_with(some.len().max(sets.len()), Default::default);
        for ((rows, _), some) in sets.iter().zip(&mut *some).filter(|((rows, _), _)| *rows != (0..x.rows())) {
            take_rows(device, x, rows, some)?;
        }
        low.resize_with(low.len().max(steps.len()), Default::default);
        high.resize_with(high.len().max(steps.len()), Default::default);
        let base = outputs.each_mut().map(|output| (x, output.product()));
        let down = steps.iter().zip(&mut *low).map(|(step, (low, _))| {
            let x = if *step.rows == (0..x.rows()) { x } else { &some[step.set].1 };
            (x, product(&step.pair.a, low))
        });
        device.linear_each(base.into_iter().chain(down).collect())?;
        let mut low = low.iter_mut();
        // Runs of steps that add to different numbers.
        for steps in steps.chunk_by(|a, b| a.set < b.set || a.output < b.output) {
            let mut up = Vec::with_capacity(steps.len());
            for ((step, (low, act)), high) in steps.iter().zip(&mut low).zip(&mut *high) {
                device.take(low, act)?;
                up.push((&*act, product(&step.pair.b, high)));
            }
            device.linear_each(up)?;
            for (step, high) in steps.iter().zip(&*high) {
                device.add_scaled(step.scale, high, step.rows.start, outputs[step.output].out);
            }
        }
        Ok(())
    }

    /// x = W[tokens] * scale, then for each adapter x = fma(s * scale, B (A[tokens]), x). x is (T,D), A (V,R).
    pub(crate) fn embed(
        &mut self,
        device: &Device,
        tokens: &[u32],
        weight: &Weight,
        scale: f32,
        x: &mut Buffer,
    ) -> Result<()> {
        device.embed(tokens, weight, scale, x)?;
        let Adapters { sets, low, high, .. } = self;
        for (rows, list) in sets {
            for (pair, s) in list.iter().filter_map(|(lora, scale)| lora.embedding(*scale)) {
                low.resize_with(low.len().max(1), Default::default);
                high.resize_with(high.len().max(1), Default::default);
                let ((low, act), high) = (&mut low[0], &mut high[0]);
                device.embed(&tokens[rows.clone()], &pair.a, 1.0, low)?;
                device.take(low, act)?;
                device.linear(act, [product(&pair.b, high)])?;
                device.add_scaled(s * scale, high, rows.start, x);
            }
        }
        Ok(())
    }
}

/// room = some rows of an input, as floats.
fn take_rows(device: &Device, x: &Act, rows: &Range<usize>, room: &mut (Buffer, Act)) -> Result<()> {
    let (buffer, act) = room;
    buffer.reset(rows.len(), x.width())?;
    buffer.data_mut().copy_from_slice(&x.values()[rows.start * x.width()..rows.end * x.width()]);
    device.take(buffer, act)
}
