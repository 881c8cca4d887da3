//! Parses the metadata of a GGUF: header, keys and values, tensor infos. Everything the file states is bounded here,
//! before it is used; what this module lets pass can be relied on.
//!
//! The format, versions 2 and 3 (`docs/gguf.md` of ggml): magic, version u32, tensor count u64, key count u64; for each
//! key a string, a type u32, a value; for each tensor a string, the number of dimensions u32, dimensions u64, type u32,
//! offset u64; padding to the alignment; data. Strings and arrays state their length (u64) first. Little-endian.

use super::source::Source;
use super::tensor::{Dims, MAX_DIMS, TensorInfo, known_type, tensor_bytes};
use super::value::{ARRAY_ID, ElementType, Value, quoted, take_string};
use crate::error::{Error, Result, try_collect, try_push};
use std::fmt::Display;
use std::ops::Range;

/// The alignment of tensor data unless the key [`ALIGNMENT_KEY`] states one.
pub(super) const DEFAULT_ALIGNMENT: u64 = 32;
pub(super) const ALIGNMENT_KEY: &str = "general.alignment";

/// The format's limit on the length of a key. Tensor names, which it limits to 64 bytes, are held to the same: longer
/// ones exist, and do no harm.
pub(crate) const NAME_MAX: u64 = 65535;

/// Key and value as places in the source.
#[derive(Clone)]
pub(super) struct Entry {
    /// 0: the file; n: the n-th overlay, see `Gguf::with_keys`.
    pub layer: usize,
    pub key: Range<usize>,
    pub element: ElementType,
    /// The length, if the value is an array.
    pub array: Option<usize>,
    /// The value: for a string its bytes, for an array its elements.
    pub value: Range<usize>,
}

/// What the metadata says.
#[derive(Clone)]
pub(super) struct Metadata {
    pub version: u32,
    pub alignment: u64,
    pub entries: Vec<Entry>,
    /// Positions in `entries` in the order of the keys, for look-ups.
    pub by_key: Vec<usize>,
    pub tensors: Vec<TensorInfo>,
    /// Positions in `tensors` in the order of the names.
    pub by_name: Vec<usize>,
}

/// Reads the metadata. Errors: `CorruptFile` or `Unsupported` naming key or tensor; errors of the source.
pub(super) fn read(source: &mut Source) -> Result<Metadata> {
    let mut cursor = Cursor { source, at: 0, place: Place::Header };
    let version = cursor.header()?;
    let tensor_count = cursor.u64()?;
    let key_count = cursor.u64()?;
    // The least that an entry takes: length, one byte of key, type, one byte of value; and for a tensor length, number
    // of dimensions, type and offset.
    cursor.check_count("keys", key_count, 8 + 1 + 4 + 1)?;
    cursor.check_count("tensors", tensor_count, 8 + 4 + 4 + 8)?;

    // Nothing is reserved by a count that the file states.
    let mut entries = Vec::new();
    for i in 0..key_count {
        cursor.place = Place::Key(i);
        let entry = cursor.entry()?;
        try_push(&mut entries, entry, METADATA)?;
    }
    let key = |i: usize| front(cursor.source, entries.get(i).map(|entry: &Entry| entry.key.clone()));
    let by_key = by_key(entries.len(), key)?;
    let alignment = alignment(cursor.source, &entries)?;

    let mut tensors = Vec::new();
    for i in 0..tensor_count {
        cursor.place = Place::Tensor(i);
        let tensor = cursor.tensor()?;
        try_push(&mut tensors, tensor, METADATA)?;
    }
    let by_name = by_name(&tensors)?;
    let end = cursor.at as u64;
    place_tensors(&mut tensors, end, alignment, cursor.source.size())?;
    Ok(Metadata { version, alignment, entries, by_key, tensors, by_name })
}

/// The bytes of a place in the front of the source.
pub(super) fn front(source: &Source, place: Option<Range<usize>>) -> &[u8] {
    place.and_then(|place| source.front().get(place)).unwrap_or_default()
}

/// The order of `n` keys, none of which may occur twice.
pub(super) fn by_key<'n>(n: usize, key: impl Fn(usize) -> &'n [u8]) -> Result<Vec<usize>> {
    sorted("key", n, key)
}

/// The order of the tensors' names, none of which may occur twice.
pub(super) fn by_name(tensors: &[TensorInfo]) -> Result<Vec<usize>> {
    sorted("tensor", tensors.len(), |i| tensors.get(i).map_or(&[][..], |tensor| tensor.name.as_bytes()))
}

/// The order of `n` names, none of which may occur twice; `what` has them.
fn sorted<'n>(what: &'static str, n: usize, name: impl Fn(usize) -> &'n [u8]) -> Result<Vec<usize>> {
    let mut order = try_collect(0..n, METADATA)?;
    order.sort_unstable_by(|&a, &b| name(a).cmp(name(b)));
    for pair in order.windows(2) {
        if let [a, b] = *pair
            && name(a) == name(b)
        {
            let twice = String::from_utf8_lossy(name(a));
            return Err(Error::corrupt_file(format!("{what} {twice} occurs more than once")).with(what, twice));
        }
    }
    Ok(order)
}

/// What could not be had, in errors of memory.
pub(super) const METADATA: &str = "the metadata";

/// The value of the alignment key: a u32 that is a power of two.
fn alignment(source: &Source, entries: &[Entry]) -> Result<u64> {
    let Some(entry) = entries.iter().find(|entry| front(source, Some(entry.key.clone())) == ALIGNMENT_KEY.as_bytes())
    else {
        return Ok(DEFAULT_ALIGNMENT);
    };
    let value = Value::from_bytes(entry.element, front(source, Some(entry.value.clone())));
    match value {
        Some(Value::U32(n)) if entry.array.is_none() && n.is_power_of_two() => Ok(n.into()),
        _ => {
            let found = match value {
                Some(value) if entry.array.is_none() => value.to_string(),
                _ => format!("an array of {}", entry.element.name()),
            };
            let expected = "a u32 that is a power of two";
            Err(Error::corrupt_file(format!("key {ALIGNMENT_KEY}: expected {expected}, found {found}"))
                .with("key", ALIGNMENT_KEY)
                .with("expected", expected)
                .with("found", found))
        }
    }
}

/// Turns the offsets, which count from the start of the data, into positions in the file, and checks that each tensor
/// lies within the file and none overlaps another. Gaps between tensors and a missing padding at the end may be.
fn place_tensors(tensors: &mut [TensorInfo], metadata_end: u64, alignment: u64, size: u64) -> Result<()> {
    let corrupt = |tensor: &TensorInfo, message: String| Error::corrupt_file(message).with("tensor", &tensor.name);
    for tensor in tensors.iter_mut() {
        let offset = tensor.offset;
        if offset % alignment != 0 {
            let message =
                format!("tensor {}: expected an offset that is a multiple of {alignment}, found {offset}", tensor.name);
            return Err(corrupt(tensor, message).with("offset", offset).with("expected", alignment));
        }
        let start = metadata_end.checked_next_multiple_of(alignment).and_then(|data| data.checked_add(offset));
        let end = start.and_then(|start| start.checked_add(tensor.bytes));
        match (start, end) {
            (Some(start), Some(end)) if end <= size => tensor.offset = start,
            _ => {
                let bytes = tensor.bytes;
                let end = end.map_or("beyond 2^64".to_owned(), |end| end.to_string());
                let message = format!(
                    "tensor {}: its {bytes} bytes at offset {offset} of the data end at {end}, but the file ends at {size}",
                    tensor.name
                );
                return Err(corrupt(tensor, message).with("offset", offset).with("expected", end).with("found", size));
            }
        }
    }
    let mut order = try_collect(tensors.iter().filter(|tensor| tensor.bytes > 0), METADATA)?;
    order.sort_unstable_by_key(|tensor| tensor.offset);
    for pair in order.windows(2) {
        if let [a, b] = *pair
            && a.offset + a.bytes > b.offset
        {
            let message = format!(
                "tensors {} and {} overlap: {} bytes from {}, {} from {}",
                a.name, b.name, a.bytes, a.offset, b.bytes, b.offset
            );
            return Err(corrupt(b, message).with("offset", b.offset));
        }
    }
    Ok(())
}

/// What is being read, for messages.
enum Place {
    Header,
    Key(u64),
    Value(String),
    Tensor(u64),
    Info(String),
}

impl Place {
    fn corrupt(&self, message: impl Display) -> Error {
        self.error(Error::corrupt_file, message)
    }

    fn unsupported(&self, message: impl Display) -> Error {
        self.error(Error::unsupported, message)
    }

    fn error(&self, kind: fn(String) -> Error, message: impl Display) -> Error {
        match self {
            Place::Header => kind(format!("header: {message}")),
            Place::Key(i) => kind(format!("key number {i}: {message}")).with("key_index", i),
            Place::Value(key) => kind(format!("key {key}: {message}")).with("key", key),
            Place::Tensor(i) => kind(format!("tensor number {i}: {message}")).with("tensor_index", i),
            Place::Info(name) => kind(format!("tensor {name}: {message}")).with("tensor", name),
        }
    }
}

/// A position in the metadata that only moves forward.
struct Cursor<'s> {
    source: &'s mut Source,
    at: usize,
    place: Place,
}

impl Cursor<'_> {
    fn remaining(&self) -> u64 {
        self.source.size().saturating_sub(self.at as u64)
    }

    /// Moves over `n` bytes, which must exist, and returns where they lie.
    fn skip(&mut self, n: u64) -> Result<Range<usize>> {
        let end = usize::try_from(n).ok().filter(|_| n <= self.remaining()).and_then(|n| self.at.checked_add(n));
        let Some(end) = end else {
            let found = self.remaining();
            let message = format!("expected {n} bytes at offset {}, found {found} before the end of the file", self.at);
            return Err(self.place.corrupt(message).with("offset", self.at).with("expected", n).with("found", found));
        };
        self.source.reach(end)?;
        let range = self.at..end;
        self.at = end;
        Ok(range)
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N]> {
        let place = self.skip(N as u64)?;
        front(self.source, Some(place)).first_chunk().copied().ok_or_else(|| Error::internal("the metadata has shrunk"))
    }

    fn u32(&mut self) -> Result<u32> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64> {
        self.bytes().map(u64::from_le_bytes)
    }

    /// Refuses a number of things of at least `least` bytes each that the rest of the file cannot hold.
    fn check_count(&self, what: &str, count: u64, least: u64) -> Result<()> {
        let most = self.remaining() / least;
        if count <= most {
            return Ok(());
        }
        let message =
            format!("expected at most {most} {what}, which is what the rest of the file can hold, found {count}");
        Err(self.place.corrupt(message).with("offset", self.at).with("expected", most).with("found", count))
    }

    /// Magic and version.
    fn header(&mut self) -> Result<u32> {
        let magic: [u8; 4] = self.bytes()?;
        if magic != *b"GGUF" {
            let found = quoted(&magic);
            let message = format!("not a GGUF file: expected the magic \"GGUF\", found {found}");
            return Err(Error::corrupt_file(message).with("expected", "GGUF").with("found", found).with("offset", 0));
        }
        let version = self.u32()?;
        let refuse = |message: String| Error::unsupported(message).with("expected", "2 or 3").with("found", version);
        match version {
            2 | 3 => Ok(version),
            0 => {
                Err(self.place.corrupt("expected version 2 or 3, found 0").with("expected", "2 or 3").with("found", 0))
            }
            _ if version & 0xFFFF == 0 => {
                let version = version.swap_bytes();
                Err(refuse(format!(
                    "this is a big-endian GGUF file (version {version}); only little-endian ones are read"
                )))
            }
            _ => Err(refuse(format!("GGUF version {version} is not supported: expected 2 or 3"))),
        }
    }

    /// A key or tensor name: valid UTF-8, neither empty (where it must not be) nor long.
    fn name(&mut self, least: u64) -> Result<(Range<usize>, String)> {
        let at = self.at;
        let n = self.u64()?;
        if n < least || n > NAME_MAX {
            let message =
                format!("expected a name of {least} to {NAME_MAX} bytes at offset {at}, found a length of {n}");
            return Err(self.place.corrupt(message).with("offset", at).with("found", n));
        }
        let place = self.skip(n)?;
        let bytes = front(self.source, Some(place.clone()));
        match std::str::from_utf8(bytes) {
            Ok(name) => Ok((place, name.to_owned())),
            Err(_) => {
                let found = quoted(bytes);
                let message = format!("expected a name in UTF-8 at offset {at}, found {found}");
                Err(self.place.corrupt(message).with("offset", at).with("found", found))
            }
        }
    }

    /// One key with its value.
    fn entry(&mut self) -> Result<Entry> {
        let (key, name) = self.name(1)?;
        self.place = Place::Value(name);
        let id = self.u32()?;
        if id != ARRAY_ID {
            let element = self.element_type(id)?;
            let value = self.scalar(element)?;
            return Ok(Entry { layer: 0, key, element, array: None, value });
        }
        let id = self.u32()?;
        if id == ARRAY_ID {
            return Err(self.place.unsupported("arrays of arrays are not read").with("offset", self.at));
        }
        let element = self.element_type(id)?;
        let len = self.u64()?;
        // A string takes at least its length field.
        let least = element.size().unwrap_or(8) as u64;
        self.check_count(&format!("elements of type {}", element.name()), len, least)?;
        let start = self.at;
        if element == ElementType::Str {
            self.skip_strings(len)?;
        } else {
            self.skip(len * least)?;
        }
        // `len` is at most the file's size, and the file's bytes up to here are in memory.
        Ok(Entry { layer: 0, key, element, array: Some(len as usize), value: start..self.at })
    }

    fn element_type(&self, id: u32) -> Result<ElementType> {
        ElementType::from_id(id).ok_or_else(|| {
            let message = format!("expected a value type from 0 to 12, found {id}");
            self.place.corrupt(message).with("offset", self.at).with("found", id)
        })
    }

    /// Moves over `n` strings.
    fn skip_strings(&mut self, n: u64) -> Result<()> {
        let mut left = n;
        while left > 0 {
            let mut bytes = front(self.source, Some(self.at..self.source.front().len()));
            let at_hand = bytes.len();
            while left > 0 && take_string(&mut bytes).is_some() {
                left -= 1;
            }
            self.at += at_hand - bytes.len();
            // The next is not at hand yet, or nowhere.
            if left > 0 {
                self.scalar(ElementType::Str)?;
                left -= 1;
            }
        }
        Ok(())
    }

    /// A value that is no array.
    fn scalar(&mut self, element: ElementType) -> Result<Range<usize>> {
        let n = match element.size() {
            Some(n) => n as u64,
            None => self.u64()?,
        };
        self.skip(n)
    }

    /// One tensor info. Its offset is still that of the file: from the start of the data.
    fn tensor(&mut self) -> Result<TensorInfo> {
        let (_, name) = self.name(0)?;
        self.place = Place::Info(name.clone());
        let n_dims = self.u32()?;
        let mut sizes = [0; MAX_DIMS];
        let Some(sizes) = sizes.get_mut(..n_dims as usize) else {
            let message = format!("expected at most {MAX_DIMS} dimensions, found {n_dims}");
            return Err(self.place.corrupt(message).with("expected", MAX_DIMS).with("found", n_dims));
        };
        for size in sizes.iter_mut() {
            *size = self.u64()?;
        }
        let dims = Dims::new(sizes).ok_or_else(|| Error::internal("too many dimensions"))?;
        let type_id = self.u32()?;
        let offset = self.u64()?;
        let info = known_type(&name, type_id)?;
        let bytes = tensor_bytes(&dims, info, |message| self.place.corrupt(message))?;
        Ok(TensorInfo { name, dims, type_id, part: 0, offset, bytes })
    }
}
