//! What `benches/kernels.rs` times: products with a matrix of any format and size. Not part of the API.

use std::sync::Arc;

use super::{Act, Arena, Buffer, Device, Isa, PANEL_ROWS, Precision, Product, Shape, Threads, Weight};
use crate::error::Result;
use crate::quant::Format;
use crate::rng::Rng;

/// One matrix, and activations to multiply it with.
pub struct Linear {
    device: Device,
    weight: Weight,
    act: Act,
    out: Buffer,
}

impl Linear {
    /// A (rows, columns) matrix of random numbers in `format`, which is repeated every 16 rows; `tokens` columns of
    /// activations in 8 bits.
    pub fn new(
        format: Format,
        (rows, columns): (usize, usize),
        tokens: usize,
        threads: Threads,
        isa: Isa,
    ) -> Result<Linear> {
        let (device, shape) = (Device::new(threads, isa)?, Shape { format, rows, columns });
        let mut rng = Rng::new(1);
        let mut floats = |n: usize| -> Vec<f32> { (0..n).map(|_| (2.0 * rng.next_f64() - 1.0) as f32).collect() };
        let mut bytes = vec![0; PANEL_ROWS * shape.row_bytes()];
        format.encode(&floats(PANEL_ROWS * columns), &mut bytes)?;
        let mut memory = Arena::allocate(shape.packed_bytes().unwrap_or(usize::MAX))?;
        let (first, others) = memory.split_at_mut(shape.panel_bytes());
        shape.pack(&bytes, first);
        others.chunks_exact_mut(first.len()).for_each(|panel| panel.copy_from_slice(first));
        let arena = Arena::default();
        arena.fill(memory)?;

        let (mut x, mut act) = (Buffer::default(), Act::default());
        x.reset(tokens, columns)?;
        x.data_mut().copy_from_slice(&floats(tokens * columns));
        device.add_norm(&mut x, None, None, &mut act, Precision::Eight)?;
        Ok(Linear { device, weight: Weight::new(shape, Arc::new(arena), 0), act, out: Buffer::default() })
    }

    /// Computes the products.
    pub fn run(&mut self) -> Result<()> {
        let product = Product { weight: &self.weight, bias: None, fine: false, out: &mut self.out };
        self.device.linear(&self.act, [product])
    }

    /// Bytes of the packed matrix, all of which a run reads.
    pub fn bytes(&self) -> usize {
        self.weight.shape().packed_bytes().unwrap_or_default()
    }

    /// Additions and multiplications of a run.
    pub fn operations(&self) -> usize {
        let shape = self.weight.shape();
        2 * shape.rows * shape.columns * self.act.rows()
    }
}
