//! Conversions of what C passes in: pointers with lengths, outputs, texts, structs that grow.

use std::ffi::{CStr, c_char, c_void};
use std::path::PathBuf;
use std::ptr::NonNull;

use crate::error::{Error, Result};

/// As a length: the text ends at its first zero byte. The header defines it by hand.
const NUL_TERMINATED: usize = usize::MAX;

fn null(argument: &'static str) -> Error {
    Error::invalid_argument(format!("{argument} is NULL")).with("argument", argument)
}

/// A pointer that is neither NULL nor misaligned.
fn checked<T>(pointer: *const T, argument: &'static str) -> Result<NonNull<T>> {
    let pointer = NonNull::new(pointer.cast_mut()).ok_or_else(|| null(argument))?;
    if !pointer.is_aligned() {
        return Err(Error::invalid_argument(format!("{argument} is not aligned")).with("argument", argument));
    }
    Ok(pointer)
}

fn check_bytes<T>(len: usize, argument: &'static str) -> Result<()> {
    if len.checked_mul(size_of::<T>()).is_none_or(|bytes| bytes > isize::MAX as usize) {
        return Err(Error::invalid_argument(format!("{argument} cannot have {len} elements"))
            .with("argument", argument)
            .with("length", len));
    }
    Ok(())
}

/// The caller's `len` elements; with length 0 the pointer may be NULL.
///
/// # Safety
/// `pointer` is NULL or points to `len` elements that do not change during `'a`.
pub(super) unsafe fn slice<'a, T>(pointer: *const T, len: usize, argument: &'static str) -> Result<&'a [T]> {
    if len == 0 {
        return Ok(&[]);
    }
    check_bytes::<T>(len, argument)?;
    let pointer = checked(pointer, argument)?;
    // SAFETY: aligned, of a possible size, and the caller promises the elements.
    Ok(unsafe { std::slice::from_raw_parts(pointer.as_ptr(), len) })
}

/// The caller's buffer of `len` elements; with length 0 the pointer may be NULL.
///
/// # Safety
/// `pointer` is NULL or points to `len` initialised elements (numbers, of any value) that nobody else uses during `'a`.
pub(super) unsafe fn buffer<'a, T>(pointer: *mut T, len: usize, argument: &'static str) -> Result<&'a mut [T]> {
    if len == 0 {
        return Ok(&mut []);
    }
    check_bytes::<T>(len, argument)?;
    let pointer = checked(pointer, argument)?;
    // SAFETY: aligned, of a possible size, and the caller promises the elements.
    Ok(unsafe { std::slice::from_raw_parts_mut(pointer.as_ptr(), len) })
}

/// The caller's text of any bytes.
///
/// # Safety
/// As [`slice`]; with `LLM_NUL_TERMINATED` a zero byte ends the text.
pub(super) unsafe fn text<'a>(pointer: *const c_char, len: usize, argument: &'static str) -> Result<&'a [u8]> {
    if len == NUL_TERMINATED {
        let pointer = checked(pointer, argument)?;
        // SAFETY: the caller promises a zero byte.
        return Ok(unsafe { CStr::from_ptr(pointer.as_ptr()) }.to_bytes());
    }
    // SAFETY: the caller's promise.
    unsafe { slice(pointer.cast::<u8>(), len, argument) }
}

/// The caller's UTF-8 text.
///
/// # Safety
/// As [`text`].
pub(super) unsafe fn utf8<'a>(pointer: *const c_char, len: usize, argument: &'static str) -> Result<&'a str> {
    // SAFETY: the caller's promise.
    let bytes = unsafe { text(pointer, len, argument) }?;
    std::str::from_utf8(bytes).map_err(|e| {
        let offset = e.valid_up_to();
        Error::invalid_argument(format!("{argument} is not UTF-8: the byte at {offset} fits nothing"))
            .with("argument", argument)
            .with("offset", offset)
    })
}

/// The caller's path.
///
/// # Safety
/// As [`text`].
pub(super) unsafe fn path(pointer: *const c_char, len: usize, argument: &'static str) -> Result<PathBuf> {
    // SAFETY: the caller's promise.
    let bytes = unsafe { text(pointer, len, argument) }?;
    #[cfg(unix)]
    let path = {
        use std::os::unix::ffi::OsStrExt;
        std::ffi::OsStr::from_bytes(bytes)
    };
    #[cfg(not(unix))]
    let path = std::str::from_utf8(bytes)
        .map_err(|_| Error::invalid_argument(format!("{argument} is not UTF-8")).with("argument", argument))?;
    Ok(PathBuf::from(path))
}

/// Where C wants a result. Checked at the start of a call, written at its successful end.
pub(super) struct Out<T>(NonNull<T>);

impl<T> Out<T> {
    pub(super) fn write(self, value: T) {
        // SAFETY: `out` got it from a caller who promises that it can be written to.
        unsafe { self.0.write(value) }
    }
}

/// An output that is written if the caller wants it.
pub(super) struct OutOrNull<T>(Option<Out<T>>);

impl<T> OutOrNull<T> {
    pub(super) fn write(self, value: T) {
        if let Some(out) = self.0 {
            out.write(value);
        }
    }
}

/// An output that is not NULL.
///
/// # Safety
/// `pointer` is NULL or can be written to until the call ends.
pub(super) unsafe fn out<T>(pointer: *mut T, argument: &'static str) -> Result<Out<T>> {
    checked(pointer, argument).map(Out)
}

/// An output that may be NULL.
///
/// # Safety
/// As [`out`].
pub(super) unsafe fn out_or_null<T>(pointer: *mut T, argument: &'static str) -> Result<OutOrNull<T>> {
    Ok(OutOrNull(if pointer.is_null() { None } else { Some(Out(checked(pointer, argument)?)) }))
}

/// A callback that must be given.
pub(super) fn callback<F>(function: Option<F>, argument: &'static str) -> Result<F> {
    function.ok_or_else(|| null(argument))
}

/// What C wants to get back in its callback.
#[derive(Clone, Copy)]
pub(super) struct UserData(pub(super) *mut c_void);

// SAFETY: the library never looks behind the pointer; the header says on which threads callbacks run.
unsafe impl Send for UserData {}
// SAFETY: as above.
unsafe impl Sync for UserData {}

/// A parameter that is one of the values of an enumeration.
pub(super) fn one_of<T: Copy>(value: i32, known: &[(i32, T)], argument: &'static str) -> Result<T> {
    known.iter().find(|(number, _)| *number == value).map(|(_, meaning)| *meaning).ok_or_else(|| {
        Error::invalid_argument(format!("{argument} has no value {value}"))
            .with("argument", argument)
            .with("found", value)
    })
}

/// Flags of which only some bits are known.
pub(super) fn flags(value: u32, known: u32, argument: &'static str) -> Result<u32> {
    if value & !known != 0 {
        return Err(Error::unsupported(format!("{argument} has unknown bits {:#x}", value & !known))
            .with("argument", argument)
            .with("found", format!("{value:#x}")));
    }
    Ok(value)
}

/// A struct of the header that begins with `struct_size` and grows at its end.
///
/// # Safety
/// `repr(C)`, without padding, begins with `struct_size: usize`, and is valid for all bytes that C may give it.
pub(super) unsafe trait Growing: Copy {
    const DEFAULT: Self;
}

/// Writes the defaults into a struct of which the caller knows the first `size` bytes.
///
/// # Safety
/// `pointer` is NULL or points to `size` bytes.
pub(super) unsafe fn init<P: Growing>(pointer: *mut P, size: usize) -> Option<()> {
    if pointer.is_null() || size < size_of::<usize>() {
        return None;
    }
    // SAFETY: the caller promises `size` bytes.
    unsafe { fill(pointer, size, P::DEFAULT) };
    Some(())
}

/// Writes the first `size` bytes of the value, with `struct_size` = `size`, and zeros after its end.
unsafe fn fill<P: Growing>(pointer: *mut P, size: usize, value: P) {
    let known = size.min(size_of::<P>());
    let bytes = pointer.cast::<u8>();
    // SAFETY: the caller promises `size` bytes, of which `known` also exist in `value`; P begins with a usize.
    unsafe {
        bytes.copy_from_nonoverlapping((&raw const value).cast(), known);
        bytes.add(known).write_bytes(0, size - known);
        bytes.cast::<usize>().write_unaligned(size);
    }
}

/// Reads parameters: the caller's bytes over the defaults; NULL means the defaults.
///
/// # Safety
/// `pointer` is NULL or points to a `struct_size` and as many bytes as that says.
pub(super) unsafe fn params<P: Growing>(pointer: *const P, argument: &'static str) -> Result<P> {
    let mut value = P::DEFAULT;
    if pointer.is_null() {
        return Ok(value);
    }
    // SAFETY: the caller's promise.
    let size = unsafe { struct_size(pointer, argument) }?;
    let known = size.min(size_of::<P>());
    // SAFETY: the caller promises `size` bytes; the trait says that any of them are valid in a P.
    let tail = unsafe {
        (&raw mut value).cast::<u8>().copy_from_nonoverlapping(pointer.cast(), known);
        std::slice::from_raw_parts(pointer.cast::<u8>().add(known), size - known)
    };
    if let Some(at) = tail.iter().position(|byte| *byte != 0) {
        return Err(Error::unsupported(format!(
            "{argument} sets a field at byte {} that this version lacks",
            known + at
        ))
        .with("argument", argument)
        .with("struct_size", size)
        .with("expected", size_of::<P>()));
    }
    Ok(value)
}

/// As [`params`], of parameters that have to be given.
///
/// # Safety
/// As [`params`].
pub(super) unsafe fn required<P: Growing>(pointer: *const P, argument: &'static str) -> Result<P> {
    checked(pointer, argument)?;
    // SAFETY: the caller's promise.
    unsafe { params(pointer, argument) }
}

/// A struct for the library to fill.
pub(super) struct Info<P: Growing>(NonNull<P>, usize);

impl<P: Growing> Info<P> {
    pub(super) fn write(self, value: P) {
        // SAFETY: `info` got it from a caller who promises as many bytes.
        unsafe { fill(self.0.as_ptr(), self.1, value) }
    }
}

/// A struct that the library is to fill, as far as the caller knows it.
///
/// # Safety
/// `pointer` is NULL or points to a `struct_size` and as many bytes as that says.
pub(super) unsafe fn info<P: Growing>(pointer: *mut P, argument: &'static str) -> Result<Info<P>> {
    let checked = checked(pointer, argument)?;
    // SAFETY: the caller's promise.
    let size = unsafe { struct_size(pointer, argument) }?;
    Ok(Info(checked, size))
}

/// By how much a struct may be larger in a newer header of the same ABI: more is no size but garbage.
const MOST_NEWER: usize = 512;

/// The size at the start of a caller's struct.
unsafe fn struct_size<P>(pointer: *const P, argument: &'static str) -> Result<usize> {
    let pointer = checked(pointer, argument)?;
    // SAFETY: aligned; the caller promises a `struct_size`.
    let size = unsafe { pointer.cast::<usize>().read() };
    if !(size_of::<usize>()..=size_of::<P>() + MOST_NEWER).contains(&size) {
        return Err(Error::invalid_argument(format!("{argument} has a struct_size of {size}: was it initialised?"))
            .with("argument", argument)
            .with("struct_size", size)
            .with("expected", size_of::<P>()));
    }
    Ok(size)
}

/// Copies a result to the start of the caller's buffer. Errors: `BufferTooSmall`.
pub(super) fn copy<T: Copy>(values: &[T], buffer: &mut [T], argument: &'static str) -> Result<()> {
    let capacity = buffer.len();
    let room = buffer.get_mut(..values.len()).ok_or_else(|| too_small(argument, values.len(), capacity))?;
    room.copy_from_slice(values);
    Ok(())
}

/// The caller's buffer has no room for the result.
pub(super) fn too_small(argument: &'static str, needed: impl std::fmt::Display, capacity: usize) -> Error {
    Error::buffer_too_small(format!("{argument} has room for {capacity} elements and {needed} are needed"))
        .with("argument", argument)
        .with("needed", needed)
        .with("capacity", capacity)
}

/// There are not so many of what was asked for by its index.
pub(super) fn beyond(noun: &str, index: usize, count: usize) -> Error {
    let message = format!("{noun} {index} was asked for, there are {count}");
    Error::not_found(message).with("index", index).with("expected", count)
}
