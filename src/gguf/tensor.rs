//! What a GGUF says about a tensor.

use crate::error::{Error, Result};
use crate::quant::{Format, TypeInfo, type_info};
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
    /// Which part of a split file holds the data; 0 in a file of one part.
    pub part: usize,
    /// The position of the data in that file.
    pub offset: u64,
    /// The bytes of the data.
    pub bytes: u64,
}

impl TensorInfo {
    /// A tensor whose data lie elsewhere: none of them can be read.
    ///
    /// Errors: `CorruptFile` if the dimensions are too many or too large, or the first no multiple of the type's block
    /// length; `Unsupported` if the type is unknown.
    pub(crate) fn without_data(name: &str, type_id: u32, dims: &[u64]) -> Result<TensorInfo> {
        let wrong = |message: String| Error::corrupt_file(format!("tensor {name}: {message}")).with("tensor", name);
        let dims = Dims::new(dims).ok_or_else(|| wrong(format!("expected at most {MAX_DIMS} dimensions")))?;
        tensor_bytes(&dims, known_type(name, type_id)?, wrong)?;
        Ok(TensorInfo { name: name.to_owned(), dims, type_id, part: 0, offset: 0, bytes: 0 })
    }

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

/// The type of an id. Errors: `Unsupported` naming the tensor and the id.
pub(super) fn known_type(tensor: &str, type_id: u32) -> Result<&'static TypeInfo> {
    type_info(type_id).ok_or_else(|| {
        let message =
            format!("tensor {tensor} has the type {type_id}, which is unknown or was removed from the format");
        Error::unsupported(message).with("tensor", tensor).with("type", type_id)
    })
}

/// The bytes that a tensor of these dimensions takes. `wrong` makes the error from what is wrong.
pub(super) fn tensor_bytes(dims: &Dims, info: &TypeInfo, wrong: impl FnOnce(String) -> Error) -> Result<u64> {
    // A dimension of 0 makes the tensor empty, but does not excuse the others.
    let fits = |n: u64| i64::try_from(n).is_ok() && usize::try_from(n).is_ok();
    let product =
        |dims: &[u64]| dims.iter().try_fold(1u64, |product, n| product.checked_mul((*n).max(1)).filter(|n| fits(*n)));
    if !dims.iter().all(|n| fits(*n)) || product(dims).is_none() {
        return Err(
            wrong(format!("expected fewer than 2^63 elements, found the dimensions {dims}")).with("found", dims)
        );
    }
    let row_len = dims.first().copied().unwrap_or(1);
    let Some(row_bytes) = usize::try_from(row_len).ok().and_then(|n| info.row_bytes(n)) else {
        let (name, block_len) = (info.name(), info.block_len());
        let message = format!("expected rows of a multiple of {block_len} elements ({name}), found {row_len}");
        return Err(wrong(message).with("expected", block_len).with("found", row_len));
    };
    dims.iter().skip(1).try_fold(row_bytes as u64, |bytes, n| bytes.checked_mul(*n)).ok_or_else(|| {
        wrong(format!("expected fewer than 2^64 bytes, found the dimensions {dims} of type {}", info.name()))
            .with("found", dims)
    })
}
