//! Metadata values, read where they lie: a look-up allocates nothing.

use crate::error::{Error, Result};
use std::fmt;

macro_rules! element_types {
    ($($id:literal $variant:ident $name:literal $size:expr;)*) => {
        /// The type of a metadata value, or of the elements of an array.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        pub enum ElementType {
            $(#[doc = concat!("`", $name, "`")] $variant,)*
        }

        impl ElementType {
            /// Every type, in the order of the ids.
            pub const ALL: &[ElementType] = &[$(ElementType::$variant,)*];

            /// The type of an id in the file; `None` for arrays (9) and unknown ids.
            pub(super) fn from_id(id: u32) -> Option<ElementType> {
                match id { $($id => Some(ElementType::$variant),)* _ => None }
            }

            /// The id in the file.
            pub fn id(self) -> u32 {
                match self { $(ElementType::$variant => $id,)* }
            }

            /// The name, for example `u32`.
            pub fn name(self) -> &'static str {
                match self { $(ElementType::$variant => $name,)* }
            }

            /// Bytes of an element; `None` for strings.
            pub(super) fn size(self) -> Option<usize> {
                match self { $(ElementType::$variant => $size,)* }
            }
        }
    };
}

element_types! {
    0 U8 "u8" Some(1);
    1 I8 "i8" Some(1);
    2 U16 "u16" Some(2);
    3 I16 "i16" Some(2);
    4 U32 "u32" Some(4);
    5 I32 "i32" Some(4);
    6 F32 "f32" Some(4);
    7 Bool "bool" Some(1);
    8 Str "string" None;
    10 U64 "u64" Some(8);
    11 I64 "i64" Some(8);
    12 F64 "f64" Some(8);
}

/// The id of arrays among the value types.
pub(super) const ARRAY_ID: u32 = 9;

/// A metadata value.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// A u8.
    U8(u8),
    /// An i8.
    I8(i8),
    /// A u16.
    U16(u16),
    /// An i16.
    I16(i16),
    /// A u32.
    U32(u32),
    /// An i32.
    I32(i32),
    /// An f32.
    F32(f32),
    /// A bool.
    Bool(bool),
    /// The bytes of a string, which are not always valid UTF-8: real vocabularies hold pieces of characters.
    Str(&'a [u8]),
    /// A u64.
    U64(u64),
    /// An i64.
    I64(i64),
    /// An f64.
    F64(f64),
    /// An array.
    Array(Array<'a>),
}

/// A number or bool: what an array of the metadata is made of, unless it is made of strings.
pub trait Element: Copy + Into<Value<'static>> {
    /// Its type in the file.
    const TYPE: ElementType;
}

macro_rules! elements {
    ($($rust:ty: $variant:ident,)*) => {
        $(impl Element for $rust {
            const TYPE: ElementType = ElementType::$variant;
        }

        impl From<$rust> for Value<'_> {
            fn from(value: $rust) -> Self {
                Value::$variant(value)
            }
        })*

        impl Value<'_> {
            /// Appends the value as it lies in the file: of a string its length and bytes, of an array its elements.
            pub(super) fn put(&self, out: &mut Vec<u8>) {
                match *self {
                    Value::Bool(value) => out.push(value.into()),
                    $(Value::$variant(value) => out.extend_from_slice(&value.to_le_bytes()),)*
                    Value::Str(bytes) => {
                        out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
                        out.extend_from_slice(bytes);
                    }
                    Value::Array(array) => out.extend_from_slice(array.bytes),
                }
            }
        }
    };
}

impl Element for bool {
    const TYPE: ElementType = ElementType::Bool;
}

impl From<bool> for Value<'_> {
    fn from(value: bool) -> Self {
        Value::Bool(value)
    }
}

elements! {
    u8: U8, i8: I8, u16: U16, i16: I16, u32: U32, i32: I32, u64: U64, i64: I64, f32: F32, f64: F64,
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Value::Str(text.as_bytes())
    }
}

impl<'a> From<&'a [u8]> for Value<'a> {
    fn from(text: &'a [u8]) -> Self {
        Value::Str(text)
    }
}

impl<'a> From<Array<'a>> for Value<'a> {
    fn from(array: Array<'a>) -> Self {
        Value::Array(array)
    }
}

impl<'a> Value<'a> {
    /// The type, and for an array that of its elements: [`ARRAY_ID`] stands before it in the file.
    pub(super) fn element_type(&self) -> ElementType {
        match self {
            Value::U8(_) => ElementType::U8,
            Value::I8(_) => ElementType::I8,
            Value::U16(_) => ElementType::U16,
            Value::I16(_) => ElementType::I16,
            Value::U32(_) => ElementType::U32,
            Value::I32(_) => ElementType::I32,
            Value::F32(_) => ElementType::F32,
            Value::Bool(_) => ElementType::Bool,
            Value::Str(_) => ElementType::Str,
            Value::U64(_) => ElementType::U64,
            Value::I64(_) => ElementType::I64,
            Value::F64(_) => ElementType::F64,
            Value::Array(array) => array.element,
        }
    }

    /// The value of a type from its bytes (of a string: without its length). `None` if there are too few.
    pub(super) fn from_bytes(kind: ElementType, bytes: &'a [u8]) -> Option<Value<'a>> {
        Some(match kind {
            ElementType::U8 => Value::U8(u8::from_le_bytes(*bytes.first_chunk()?)),
            ElementType::I8 => Value::I8(i8::from_le_bytes(*bytes.first_chunk()?)),
            ElementType::U16 => Value::U16(u16::from_le_bytes(*bytes.first_chunk()?)),
            ElementType::I16 => Value::I16(i16::from_le_bytes(*bytes.first_chunk()?)),
            ElementType::U32 => Value::U32(u32::from_le_bytes(*bytes.first_chunk()?)),
            ElementType::I32 => Value::I32(i32::from_le_bytes(*bytes.first_chunk()?)),
            ElementType::F32 => Value::F32(f32::from_le_bytes(*bytes.first_chunk()?)),
            // Any byte but 0 is true.
            ElementType::Bool => Value::Bool(*bytes.first()? != 0),
            ElementType::Str => Value::Str(bytes),
            ElementType::U64 => Value::U64(u64::from_le_bytes(*bytes.first_chunk()?)),
            ElementType::I64 => Value::I64(i64::from_le_bytes(*bytes.first_chunk()?)),
            ElementType::F64 => Value::F64(f64::from_le_bytes(*bytes.first_chunk()?)),
        })
    }

    /// The integer, whatever its width; `None` if it is not an integer.
    pub fn as_integer(&self) -> Option<i128> {
        match *self {
            Value::U8(v) => Some(v.into()),
            Value::I8(v) => Some(v.into()),
            Value::U16(v) => Some(v.into()),
            Value::I16(v) => Some(v.into()),
            Value::U32(v) => Some(v.into()),
            Value::I32(v) => Some(v.into()),
            Value::U64(v) => Some(v.into()),
            Value::I64(v) => Some(v.into()),
            _ => None,
        }
    }

    /// The float, an f64 rounded to f32; `None` if it is not a float.
    pub fn as_f32(&self) -> Option<f32> {
        match *self {
            Value::F32(v) => Some(v),
            Value::F64(v) => Some(v as f32),
            _ => None,
        }
    }

    /// The bool; `None` if it is not one.
    pub fn as_bool(&self) -> Option<bool> {
        match *self {
            Value::Bool(v) => Some(v),
            _ => None,
        }
    }
}

/// Type and value in few words, for messages: `u32 7`, `string "llama"`, `array of 3 i32`.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::U8(v) => write!(f, "u8 {v}"),
            Value::I8(v) => write!(f, "i8 {v}"),
            Value::U16(v) => write!(f, "u16 {v}"),
            Value::I16(v) => write!(f, "i16 {v}"),
            Value::U32(v) => write!(f, "u32 {v}"),
            Value::I32(v) => write!(f, "i32 {v}"),
            Value::F32(v) => write!(f, "f32 {v}"),
            Value::Bool(v) => write!(f, "bool {v}"),
            Value::Str(v) => write!(f, "string {}", quoted(v)),
            Value::U64(v) => write!(f, "u64 {v}"),
            Value::I64(v) => write!(f, "i64 {v}"),
            Value::F64(v) => write!(f, "f64 {v}"),
            Value::Array(array) => write!(f, "array of {} {}", array.len(), array.element_type().name()),
        }
    }
}

/// Bytes of a file as they may stand in a message: in quotes, escaped, cut if long.
pub(crate) fn quoted(bytes: &[u8]) -> String {
    const LONGEST: usize = 80;
    match bytes.get(..LONGEST) {
        Some(start) if bytes.len() > LONGEST => format!("\"{}...\"", start.escape_ascii()),
        _ => match std::str::from_utf8(bytes) {
            Ok(text) => format!("{text:?}"),
            Err(_) => format!("\"{}\"", bytes.escape_ascii()),
        },
    }
}

/// An array in the metadata. Nothing is copied until asked for.
#[derive(Clone, Copy)]
pub struct Array<'a> {
    pub(super) key: &'a str,
    pub(super) element: ElementType,
    pub(super) len: usize,
    pub(super) bytes: &'a [u8],
}

impl<'a> Array<'a> {
    /// The type of the elements.
    pub fn element_type(&self) -> ElementType {
        self.element
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements in order.
    pub fn iter(&self) -> Elements<'a> {
        Elements { element: self.element, left: self.len, bytes: self.bytes }
    }

    /// The strings in order, as bytes; `None` if the elements are no strings.
    pub fn strings(&self) -> Option<Strings<'a>> {
        (self.element == ElementType::Str).then_some(Strings { left: self.len, bytes: self.bytes })
    }

    /// The elements as they are in the file, little-endian, and the bytes of each; `None` for strings.
    pub fn raw(&self) -> Option<(&'a [u8], usize)> {
        Some((self.bytes, self.element.size()?))
    }

    /// The elements as f32, from numbers of any type. Errors: `CorruptFile` naming the key, `OutOfMemory`.
    pub fn to_f32s(&self) -> Result<Vec<f32>> {
        if self.element == ElementType::F32 {
            return self.words(f32::from_le_bytes);
        }
        self.convert("numbers", |value| value.as_f32().or_else(|| value.as_integer().map(|n| n as f32)))
    }

    /// The elements as i32, from integers of any width. Errors: `CorruptFile` naming the key and the element that is no
    /// integer or does not fit, `OutOfMemory`.
    pub fn to_i32s(&self) -> Result<Vec<i32>> {
        if self.element == ElementType::I32 {
            return self.words(i32::from_le_bytes);
        }
        self.convert("integers of 32 bits", |value| value.as_integer()?.try_into().ok())
    }

    /// The elements as u32, from integers of any width. Errors: `CorruptFile` naming the key and the element that is no
    /// integer or does not fit, `OutOfMemory`.
    pub fn to_u32s(&self) -> Result<Vec<u32>> {
        self.convert("non-negative integers of 32 bits", |value| value.as_integer()?.try_into().ok())
    }

    /// As [`to_u32s`](Self::to_u32s), of 64 bits.
    pub fn to_u64s(&self) -> Result<Vec<u64>> {
        self.convert("non-negative integers", |value| value.as_integer()?.try_into().ok())
    }

    /// The elements as bools. Errors: `CorruptFile` naming the key, `OutOfMemory`.
    pub fn to_bools(&self) -> Result<Vec<bool>> {
        self.convert("bools", |value| value.as_bool())
    }

    fn room<T>(&self) -> Result<Vec<T>> {
        let mut out = Vec::new();
        out.try_reserve_exact(self.len).map_err(|_| {
            Error::out_of_memory(format!("the {} elements of key {} cannot be had", self.len, self.key))
                .with("key", self.key)
        })?;
        Ok(out)
    }

    /// The elements of an array of 4-byte numbers.
    fn words<T>(&self, read: fn([u8; 4]) -> T) -> Result<Vec<T>> {
        let mut out = self.room()?;
        out.extend(self.bytes.as_chunks().0.iter().map(|word| read(*word)));
        Ok(out)
    }

    fn convert<T>(&self, expected: &'static str, f: impl Fn(Value<'a>) -> Option<T>) -> Result<Vec<T>> {
        let mut out = self.room()?;
        for (i, value) in self.iter().enumerate() {
            out.push(f(value).ok_or_else(|| {
                Error::corrupt_file(format!(
                    "key {}: expected an array of {expected}, found {value} at index {i}",
                    self.key
                ))
                .with("key", self.key)
                .with("expected", expected)
                .with("found", value)
                .with("index", i)
            })?);
        }
        Ok(out)
    }
}

/// Key, length and type: an array may hold a vocabulary.
impl fmt::Debug for Array<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, Value::Array(*self))
    }
}

/// Iterator over the elements of an [`Array`].
pub struct Elements<'a> {
    element: ElementType,
    left: usize,
    bytes: &'a [u8],
}

impl<'a> Iterator for Elements<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        self.left = self.left.checked_sub(1)?;
        let Some(size) = self.element.size() else { return take_string(&mut self.bytes).map(Value::Str) };
        let (element, rest) = self.bytes.split_at_checked(size)?;
        self.bytes = rest;
        Value::from_bytes(self.element, element)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Elements<'_> {}

/// Iterator over the strings of an [`Array`].
pub struct Strings<'a> {
    left: usize,
    bytes: &'a [u8],
}

impl Strings<'_> {
    /// The bytes of those that are left, without their lengths.
    pub(crate) fn text_bytes(&self) -> usize {
        self.bytes.len().saturating_sub(self.left * size_of::<u64>())
    }
}

impl<'a> Iterator for Strings<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        self.left = self.left.checked_sub(1)?;
        take_string(&mut self.bytes)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Strings<'_> {}

/// Takes a string, its length before it, off the front; `None`, and nothing taken, if it is not there whole.
#[inline]
pub(super) fn take_string<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (string, rest) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    *bytes = rest;
    Some(string)
}
