//! The tensors of GGUF files: names, shapes, bytes, values.

use std::ffi::{c_char, c_void};

use super::args::{self, Growing};
use super::bytes::llm_view_t;
use super::error::llm_error_t;
use super::gguf::llm_gguf_t;
use super::handle;
use super::status::llm_status_t;
use crate::error::{Error, Result};
use crate::gguf::{Gguf, TensorInfo};
use crate::quant::Format;

/// What a GGUF file says about a tensor. Set struct_size before it is filled.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct llm_tensor_info_t {
    /// sizeof(llm_tensor_info_t).
    pub struct_size: usize,
    /// Borrowed from the file object, lives as long.
    pub name: llm_view_t,
    /// The name of the type: "Q4_K". A constant.
    pub type_name: llm_view_t,
    /// Elements per dimension, the fastest first (as in the file); 1 beyond dimension_count.
    pub dimensions: [u64; 4],
    /// 0 to 4.
    pub dimension_count: u32,
    /// The number of the type in GGUF files.
    pub type_id: u32,
    /// Of the tensor's data from the start of the file, in bytes.
    pub offset: u64,
    /// Of the tensor's data.
    pub bytes: u64,
    /// Which part of a split file holds the data, from 0: `offset` counts from the start of that part.
    pub part: u64,
}

// SAFETY: repr(C), begins with struct_size, only numbers and pointers, no padding (layout_tests).
unsafe impl Growing for llm_tensor_info_t {
    const DEFAULT: Self = {
        let empty = llm_view_t { data: c"".as_ptr(), size: 0 };
        llm_tensor_info_t {
            struct_size: size_of::<Self>(),
            name: empty,
            type_name: empty,
            dimensions: [1; 4],
            dimension_count: 0,
            type_id: 0,
            offset: 0,
            bytes: 0,
            part: 0,
        }
    };
}

/// The number of tensors.
///
/// @param[in] gguf A file.
/// @return The number; 0 if it is no file.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_tensor_count(gguf: *const llm_gguf_t) -> usize {
    value!(0, { Some(handle::shared(gguf, "gguf").ok()?.tensors().len()) })
}

fn tensor(gguf: &Gguf, index: usize) -> Result<&TensorInfo> {
    let count = gguf.tensors().len();
    gguf.tensors().get(index).ok_or_else(|| {
        Error::not_found(format!("there is no tensor {index}: the file has {count}"))
            .with("index", index)
            .with("tensor_count", count)
    })
}

/// Name, shape, type and place of a tensor.
///
/// @param[in] gguf A file.
/// @param[in] index Less than llm_gguf_tensor_count.
/// @param[in,out] info Filled; its struct_size must be set.
/// @param[out] error @nullable Why it failed.
/// @status NOT_FOUND
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_tensor_info(
    gguf: *const llm_gguf_t,
    index: usize,
    info: *mut llm_tensor_info_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let gguf = handle::shared(gguf, "gguf")?;
        let out = args::info(info, "info")?;
        let tensor = tensor(&gguf, index)?;
        let mut info = llm_tensor_info_t {
            name: llm_view_t::of(tensor.name.as_bytes()),
            type_name: llm_view_t::of(tensor.type_name().as_bytes()),
            dimension_count: u32::try_from(tensor.dims.len()).unwrap_or(4),
            type_id: tensor.type_id,
            offset: tensor.offset,
            bytes: tensor.bytes,
            part: tensor.part as u64,
            ..Growing::DEFAULT
        };
        for (to, from) in info.dimensions.iter_mut().zip(tensor.dims.iter()) {
            *to = *from;
        }
        out.write(info);
        Ok(())
    })
}

/// The index of a tensor.
///
/// @param[in] gguf A file.
/// @param[in] name The tensor's name.
/// @param[in] name_size Its length, or LLM_NUL_TERMINATED.
/// @param[out] index Of the tensor.
/// @param[out] error @nullable Why it failed.
/// @status NOT_FOUND
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_tensor_find(
    gguf: *const llm_gguf_t,
    name: *const c_char,
    name_size: usize,
    index: *mut usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let gguf = handle::shared(gguf, "gguf")?;
        let name = args::utf8(name, name_size, "name")?;
        let out = args::out(index, "index")?;
        let found = gguf.tensor_index(name);
        out.write(
            found.ok_or_else(|| Error::not_found(format!("the file has no tensor {name}")).with("tensor", name))?,
        );
        Ok(())
    })
}

/// The number of a type in GGUF files, by its name.
///
/// @param[in] name "Q4_K" and the like, in upper or lower case: the types that this version decodes.
/// @param[in] name_size Its length, or LLM_NUL_TERMINATED.
/// @param[out] type_id As llm_tensor_info_t has it.
/// @param[out] error @nullable Why it failed.
/// @status NOT_FOUND
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_type_find(
    name: *const c_char,
    name_size: usize,
    type_id: *mut u32,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let name = args::utf8(name, name_size, "name")?;
        let out = args::out(type_id, "type_id")?;
        let format = Format::from_name(name)
            .ok_or_else(|| Error::not_found(format!("there is no type {name}")).with("type", name))?;
        out.write(format.id());
        Ok(())
    })
}

/// Reads bytes of a tensor's data as they are in the file.
///
/// @param[in] gguf A file.
/// @param[in] index Less than llm_gguf_tensor_count.
/// @param[in] offset From the start of the tensor's data, in bytes.
/// @param[out] out Room for `out_size` bytes, of which some may be written if the call fails.
/// @param[in] out_size How many bytes to read: offset + out_size is at most the size of the tensor's data.
/// @param[out] error @nullable Why it failed.
/// @status NOT_FOUND, IO; INVALID_ARGUMENT if the range is not in the tensor
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_tensor_read(
    gguf: *const llm_gguf_t,
    index: usize,
    offset: u64,
    out: *mut c_void,
    out_size: usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let gguf = handle::shared(gguf, "gguf")?;
        let out = args::buffer::<u8>(out.cast(), out_size, "out")?;
        gguf.read(tensor(&gguf, index)?, offset, out)
    })
}

/// Decodes a tensor to floats, in the order of the file (the first dimension is the fastest).
///
/// @param[in] gguf A file.
/// @param[in] index Less than llm_gguf_tensor_count.
/// @param[out] out Room for `capacity` floats.
/// @param[in] capacity At least the tensor's number of elements.
/// @param[out] error @nullable Why it failed.
/// @status NOT_FOUND, IO, BUFFER_TOO_SMALL, OUT_OF_MEMORY; UNSUPPORTED for types that this version does not decode
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_gguf_tensor_decode(
    gguf: *const llm_gguf_t,
    index: usize,
    out: *mut f32,
    capacity: usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let gguf = handle::shared(gguf, "gguf")?;
        let out = args::buffer(out, capacity, "out")?;
        let tensor = tensor(&gguf, index)?;
        let elements = tensor.elements();
        if capacity < elements {
            return Err(args::too_small("out", elements, capacity).with("tensor", &tensor.name));
        }
        let values = gguf.decode(tensor)?;
        for (to, from) in out.iter_mut().zip(values) {
            *to = from;
        }
        Ok(())
    })
}
