//! What a new GGUF will hold: its keys with their values, and its tensors by name, type and shape.

use super::new_file::NewFile;
use super::reader::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT, METADATA, NAME_MAX};
use super::split::{self, PartLimit};
use super::tensor::{Dims, MAX_DIMS, known_type, tensor_bytes};
use super::value::{ARRAY_ID, Element, ElementType, Value};
use super::writer::{Target, Writer};
use super::{Gguf, TensorInfo};
use crate::error::{Error, Result, no_room, try_push};
use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::path::Path;

/// The format's limit on the length of a tensor's name.
const TENSOR_NAME_MAX: usize = 64;

/// A tensor that will be written.
pub(super) struct Declared {
    pub name: String,
    pub dims: Dims,
    pub type_id: u32,
    pub bytes: u64,
}

/// A key and what follows it in the file: type and value.
struct Entry {
    key: String,
    bytes: Vec<u8>,
}

/// A GGUF to be: give it keys and tensors, then create the file and write the tensors' data.
///
/// ```no_run
/// # fn main() -> llm::Result<()> {
/// use llm::gguf::Builder;
/// use llm::quant::Format;
///
/// let mut builder = Builder::new();
/// builder.set("general.architecture", "llama")?;
/// builder.set_array("tokenizer.ggml.scores", &[0.0f32, -1.0])?;
/// builder.add_tensor("output_norm.weight", Format::F32.id(), &[4])?;
/// let mut writer = builder.create("model.gguf".as_ref())?;
/// writer.write("output_norm.weight", &[0; 16])?;
/// writer.finish()
/// # }
/// ```
#[derive(Default)]
pub struct Builder {
    /// In the order of the file; `None` where a key was removed.
    entries: Vec<Option<Entry>>,
    /// Positions in `entries`.
    by_key: HashMap<String, usize>,
    pub(super) tensors: Vec<Declared>,
    names: HashSet<String>,
}

impl Builder {
    /// No keys, no tensors.
    pub fn new() -> Builder {
        Builder::default()
    }

    /// Sets a key to a value: a number, a bool, a text of any bytes, or an array of another file. A key that is there
    /// keeps its place.
    ///
    /// Errors: `InvalidArgument` if the key is empty or longer than 65535 bytes, or if it is `general.alignment` and the
    /// value no u32 that is a power of two; `OutOfMemory`.
    pub fn set<'v>(&mut self, key: &str, value: impl Into<Value<'v>>) -> Result<()> {
        let value = value.into();
        if key == ALIGNMENT_KEY && !matches!(value, Value::U32(n) if n.is_power_of_two()) {
            return Err(bad_alignment(value));
        }
        let mut bytes = Vec::new();
        let element = value.element_type();
        match value {
            Value::Array(array) => {
                start_array(&mut bytes, element, array.len() as u64, array.bytes.len())?;
            }
            Value::Str(text) => start(&mut bytes, element.id(), 8 + text.len())?,
            _ => start(&mut bytes, element.id(), 8)?,
        }
        value.put(&mut bytes);
        self.insert(key, bytes)
    }

    /// Sets a key to an array of numbers or bools. Errors: as [`Builder::set`].
    pub fn set_array<T: Element>(&mut self, key: &str, elements: &[T]) -> Result<()> {
        let mut bytes = Vec::new();
        start_array(&mut bytes, T::TYPE, elements.len() as u64, size_of_val(elements))?;
        for element in elements {
            (*element).into().put(&mut bytes);
        }
        self.insert_array(key, bytes)
    }

    /// Sets a key to an array of numbers or bools given as the bytes of the file: little-endian.
    ///
    /// Errors: as [`Builder::set`]; `InvalidArgument` also if the bytes are no whole elements or the type is that of
    /// strings.
    pub fn set_raw_array(&mut self, key: &str, element: ElementType, elements: &[u8]) -> Result<()> {
        let Some(size) = element.size().filter(|size| elements.len().is_multiple_of(*size)) else {
            let (found, name) = (elements.len(), element.name());
            let message = format!("key {key}: {found} bytes are no array of elements of type {name}");
            return Err(Error::invalid_argument(message).with("key", key).with("found", found).with("type", name));
        };
        let mut bytes = Vec::new();
        start_array(&mut bytes, element, (elements.len() / size) as u64, elements.len())?;
        bytes.extend_from_slice(elements);
        self.insert_array(key, bytes)
    }

    /// Sets a key to an array of texts of any bytes. Errors: as [`Builder::set`].
    pub fn set_strings<S: AsRef<[u8]>>(&mut self, key: &str, texts: &[S]) -> Result<()> {
        let total = texts.iter().fold(0usize, |sum, text| sum.saturating_add(8 + text.as_ref().len()));
        let mut bytes = Vec::new();
        start_array(&mut bytes, ElementType::Str, texts.len() as u64, total)?;
        for text in texts {
            Value::Str(text.as_ref()).put(&mut bytes);
        }
        self.insert_array(key, bytes)
    }

    /// Sets all keys of an open file, in its order; of a split file all but those about the split.
    /// Errors: as [`Builder::set`].
    pub fn copy_keys(&mut self, gguf: &Gguf) -> Result<()> {
        for (key, value) in gguf.keys() {
            if gguf.part_count() == 1 || !split::KEYS.contains(&key) {
                self.set(key, value)?;
            }
        }
        Ok(())
    }

    /// Removes a key and returns whether it was there.
    pub fn remove(&mut self, key: &str) -> bool {
        let found = self.by_key.remove(key).and_then(|i| self.entries.get_mut(i));
        found.and_then(Option::take).is_some()
    }

    /// Adds a tensor: its name, its type by ggml's id ([`crate::quant::Format::id`], or another that
    /// [`crate::quant::type_info`] knows) and its dimensions, fastest first.
    ///
    /// Errors: `InvalidArgument` naming the tensor if there is one of that name, if the name is longer than 64 bytes,
    /// and if the dimensions are more than 4, too large, or the first no multiple of the type's block length;
    /// `Unsupported` if the type is unknown; `OutOfMemory`.
    pub fn add_tensor(&mut self, name: &str, type_id: u32, dims: &[u64]) -> Result<()> {
        let n = name.len();
        if n > TENSOR_NAME_MAX {
            let message = format!("tensor {name}: expected a name of at most {TENSOR_NAME_MAX} bytes, found {n}");
            let error = Error::invalid_argument(message).with("tensor", name);
            return Err(error.with("expected", TENSOR_NAME_MAX).with("found", n));
        }
        self.declare(name, type_id, dims)
    }

    /// As [`Builder::add_tensor`], whatever the length of the name: one that was read, or is made of one, may be longer.
    pub(crate) fn declare(&mut self, name: &str, type_id: u32, dims: &[u64]) -> Result<()> {
        let wrong = |message: String| Error::invalid_argument(format!("tensor {name}: {message}")).with("tensor", name);
        if self.names.contains(name) {
            return Err(wrong("the name is taken".to_owned()));
        }
        let Some(dims) = Dims::new(dims) else {
            let message = format!("expected at most {MAX_DIMS} dimensions, found {}", dims.len());
            return Err(wrong(message).with("expected", MAX_DIMS).with("found", dims.len()));
        };
        let bytes = tensor_bytes(&dims, known_type(name, type_id)?, wrong)?;
        self.names.try_reserve(1).map_err(|_| no_room::<String>(self.names.len() + 1, METADATA))?;
        try_push(&mut self.tensors, Declared { name: name.to_owned(), dims, type_id, bytes }, METADATA)?;
        self.names.insert(name.to_owned());
        Ok(())
    }

    /// Adds a tensor like one of an open file, whatever the length of its name. Errors: as [`Builder::add_tensor`].
    pub fn add_tensor_like(&mut self, tensor: &TensorInfo) -> Result<()> {
        self.declare(&tensor.name, tensor.type_id, &tensor.dims)
    }

    /// Begins to write a file of this name; what the builder holds goes to the writer. The data go to a temporary file
    /// beside it, which takes the name when
    /// [`Writer::finish`] is called: until then a file of that name stays as it is. A device or a pipe is written as it
    /// is.
    ///
    /// Errors: `Io`, `NotFound` and `InvalidArgument` with the fact `path`; the builder stays as it was then.
    pub fn create(&mut self, path: &Path) -> Result<Writer> {
        self.create_in(NewFile::create(path)?)
    }

    /// The same in a file that was opened before.
    pub(crate) fn create_in(&mut self, file: NewFile) -> Result<Writer> {
        let all = 0..self.tensors.len();
        Writer::begin(self, Target::File(Some(file)), vec![all])
    }

    /// As [`Builder::create`], but split into parts `NAME-00001-of-0000N.gguf`, where `path` is `NAME` or `NAME.gguf`.
    /// A part takes tensors as long as it stays within `limit`, and at least one.
    ///
    /// Errors: as [`Builder::create`]; `InvalidArgument` also if a limit is 0 or there would be more than 65535 parts.
    pub fn create_split(&mut self, path: &Path, limit: PartLimit) -> Result<Writer> {
        let parts = limit.parts(self)?;
        Writer::begin(self, Target::Split(split::prefix(path)), parts)
    }

    /// Begins to write to anything that takes bytes in order.
    ///
    /// Errors: `Io`.
    pub fn write_to(&mut self, output: Box<dyn Write + Send>) -> Result<Writer> {
        let all = 0..self.tensors.len();
        Writer::begin(self, Target::Stream(output), vec![all])
    }

    pub(super) fn alignment(&self) -> u64 {
        let entry = self.by_key.get(ALIGNMENT_KEY).and_then(|i| self.entries.get(*i)?.as_ref());
        let value = entry.and_then(|entry| entry.bytes.get(4..)?.first_chunk().copied());
        value.map_or(DEFAULT_ALIGNMENT, |n| u32::from_le_bytes(n).into())
    }

    /// Keys, each with its type and value as they lie in the file.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.entries.iter().flatten().map(|entry| (&*entry.key, &*entry.bytes))
    }

    fn insert_array(&mut self, key: &str, bytes: Vec<u8>) -> Result<()> {
        if key == ALIGNMENT_KEY {
            return Err(bad_alignment("an array"));
        }
        self.insert(key, bytes)
    }

    fn insert(&mut self, key: &str, bytes: Vec<u8>) -> Result<()> {
        if key.is_empty() || key.len() as u64 > NAME_MAX {
            let message = format!("expected a key of 1 to {NAME_MAX} bytes, found a length of {}", key.len());
            return Err(Error::invalid_argument(message).with("found", key.len()));
        }
        let entry = Some(Entry { key: key.to_owned(), bytes });
        if let Some(place) = self.by_key.get(key).and_then(|i| self.entries.get_mut(*i)) {
            *place = entry;
            return Ok(());
        }
        self.by_key.try_reserve(1).map_err(|_| no_room::<(String, usize)>(self.by_key.len() + 1, METADATA))?;
        try_push(&mut self.entries, entry, METADATA)?;
        self.by_key.insert(key.to_owned(), self.entries.len() - 1);
        Ok(())
    }
}

fn bad_alignment(found: impl std::fmt::Display) -> Error {
    let expected = "a u32 that is a power of two";
    Error::invalid_argument(format!("key {ALIGNMENT_KEY}: expected {expected}, found {found}"))
        .with("key", ALIGNMENT_KEY)
        .with("expected", expected)
        .with("found", found)
}

/// The type of a value, and room for `n` bytes of it.
fn start(out: &mut Vec<u8>, id: u32, n: usize) -> Result<()> {
    let n = n.saturating_add(16);
    out.try_reserve_exact(n).map_err(|_| no_room::<u8>(n, METADATA))?;
    out.extend_from_slice(&id.to_le_bytes());
    Ok(())
}

/// The types and the length of an array, and room for its `n` bytes.
fn start_array(out: &mut Vec<u8>, element: ElementType, len: u64, n: usize) -> Result<()> {
    start(out, ARRAY_ID, n)?;
    out.extend_from_slice(&element.id().to_le_bytes());
    out.extend_from_slice(&len.to_le_bytes());
    Ok(())
}
