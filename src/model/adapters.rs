//! Adapters in the forward pass: each product of a projection, and what the adapters of a session add to it.

use std::hash::{Hash, Hasher};
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
    fn product(&mut self) -> Product<'_> {
        let Projection { weight, bias, .. } = self.projection;
        Product { weight, bias: bias.as_deref(), fine: self.fine, out: self.out }
    }
}

/// The adapters of a session with their scales, and room for their products.
#[derive(Debug, Default)]
pub(crate) struct Adapters {
    list: Vec<(Arc<Lora>, f32)>,
    /// (T,R): A x, of each adapter and product of an input.
    low: Vec<(Buffer, Act)>,
    /// (T,n): B (A x), of each product of an input.
    high: Vec<Buffer>,
}

/// By which adapters there are: keys and values of others are other numbers.
impl Hash for Adapters {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.list.iter().for_each(|(lora, scale)| (lora.id(), scale.to_bits()).hash(hasher));
    }
}

/// y = W x, a product with floats.
fn product<'a>(weight: &'a Weight, out: &'a mut Buffer) -> Product<'a> {
    Product { weight, bias: None, fine: false, out }
}

impl Adapters {
    /// Adds one after those that are there.
    pub(crate) fn add(&mut self, lora: Arc<Lora>, scale: f32) {
        self.list.push((lora, scale));
    }

    /// The same adapters, with room of their own.
    pub(crate) fn fork(&self) -> Adapters {
        Adapters { list: self.list.clone(), ..Adapters::default() }
    }

    /// Removes all, and their room.
    pub(crate) fn clear(&mut self) {
        *self = Adapters::default();
    }

    /// Each output's y = W x + b, then for each adapter that has a pair for it, in the order in which they were added,
    /// y = fma(s, B (A x), y) with s = scale * alpha / R. x is (T,D).
    pub(crate) fn linear<const N: usize>(
        &mut self,
        device: &Device,
        x: &Act,
        mut outputs: [Output<'_>; N],
    ) -> Result<()> {
        let Adapters { list, low, high } = self;
        let mut steps: Vec<(usize, &Pair, f32)> = Vec::new();
        for (lora, scale) in &*list {
            for (i, output) in outputs.iter().enumerate() {
                steps.extend(lora.pair(output.projection.index, *scale).map(|(pair, s)| (i, pair, s)));
            }
        }
        let rooms = low.len().max(steps.len());
        low.resize_with(rooms, Default::default);
        high.resize_with(high.len().max(N), Default::default);
        let down = steps.iter().zip(&mut *low).map(|((_, pair, _), (low, _))| (x, product(&pair.a, low)));
        device.linear_each(outputs.iter_mut().map(|output| (x, output.product())).chain(down).collect())?;
        let mut low = low.iter_mut();
        // Runs of steps for different outputs.
        for steps in steps.chunk_by(|a, b| a.0 < b.0) {
            let mut up = Vec::with_capacity(steps.len());
            for (((_, pair, _), (low, act)), high) in steps.iter().zip(&mut low).zip(&mut *high) {
                device.take(low, act)?;
                up.push((&*act, product(&pair.b, high)));
            }
            device.linear_each(up)?;
            for ((i, _, s), high) in steps.iter().zip(&*high) {
                device.add_scaled(*s, high, outputs[*i].out);
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
        let Adapters { list, low, high } = self;
        for (pair, s) in list.iter().filter_map(|(lora, scale)| lora.embedding(*scale)) {
            low.resize_with(low.len().max(1), Default::default);
            high.resize_with(high.len().max(1), Default::default);
            let ((low, act), high) = (&mut low[0], &mut high[0]);
            device.embed(tokens, &pair.a, 1.0, low)?;
            device.take(low, act)?;
            device.linear(act, [product(&pair.b, high)])?;
            device.add_scaled(s * scale, high, x);
        }
        Ok(())
    }
}
