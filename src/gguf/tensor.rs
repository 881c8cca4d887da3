//! What a GGUF says about a tensor.

use crate::error::{Error, Result};
use crate::quant::{Format, type_info};
use std::fmt;
use std::ops::Deref;

/// At most this many dimensions.
pub(super) const MAX_DIMS: usize = 4;

/// The dimensions of a tensor in the order of the file: fastest first. A slice by another name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Dims {
    len: usize,
    sizes: [u64; MAX_DIMS],
}

impl Dims {
    /// `None` if there are too many.
    pub(super) fn new(dims: &[u64]) -> Option<Dims> {
        let mut sizes = [0; MAX_DIMS];
        sizes.get_mut(..dims.len())?.copy_from_slice(dims);
        Some(Dims { len: dims.len(), sizes })
    }
}

impl Deref for Dims {
    type Target = [u64];
    fn deref(&self) -> &[u64] {
        &self.sizes[..self.len]
    }
}

impl fmt::Debug for Dims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// `576 x 49152`, as people write shapes, in the order of the file.
impl fmt::Display for Dims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, size) in self.iter().enumerate() {
            write!(f, "{}{size}", if i == 0 { "" } else { " x " })?;
        }
        Ok(())
    }
}

/// Name, shape, type and place of a tensor. A (N,K) matrix in row-major order has `dims` [K, N].
#[derive(Clone, Debug)]
pub struct TensorInfo {
    /// The name, for example `blk.0.attn_q.weight`.
    pub name: String,
    /// The dimensions, fastest first. None at all means one element.
    pub dims: Dims,
    /// The ggml type id; one that [`type_info`] knows.
    pub type_id: u32,
    /// The position of the data in the file.
    pub offset: u64,
    /// The bytes of the data.
    pub bytes: u64,
}

impl TensorInfo {
    /// The number format. Errors: `Unsupported` naming tensor and type if this library does not decode it.
    pub fn format(&self) -> Result<Format> {
        Format::from_id(self.type_id).ok_or_else(|| {
            let message = format!("tensor {} has the type {}, which is not supported", self.name, self.type_name());
            Error::unsupported(message).with("tensor", &self.name).with("type", self.type_name())
        })
    }

    /// The name of the type, for example `Q4_K`, decoded by this library or not.
    pub fn type_name(&self) -> &'static str {
        type_info(self.type_id).map_or("unknown", |info| info.name())
    }

    /// The elements of a row: the first dimension.
    pub fn row_len(&self) -> usize {
        // That sizes fit in memory was checked when the file was opened.
        self.dims.first().map_or(1, |n| *n as usize)
    }

    /// The number of rows: the product of all dimensions but the first.
    pub fn rows(&self) -> usize {
        self.dims.iter().skip(1).map(|n| *n as usize).product()
    }

    /// The number of elements.
    pub fn elements(&self) -> usize {
        self.dims.iter().map(|n| *n as usize).product()
    }
}
