//! The GGUF file format, versions 2 and 3: metadata (keys and values) and tensors in one file, or in several parts.
//!
//! Opening reads the metadata only and checks all of it (`reader.rs`), in time and memory proportional to it; values
//! are read where they lie. Tensor data are read by position when asked for.
//!
//! Writing goes the same way: a [`Builder`] takes keys and tensors, the [`Writer`] it makes takes the tensors' data as
//! they come.

mod builder;
mod fingerprint;
mod map;
mod new_file;
pub(crate) use new_file::NewFile;
pub(crate) use reader::NAME_MAX;
pub(crate) use source::open_file;
pub(crate) use value::quoted;
mod reader;
mod source;
mod split;
mod tensor;
mod value;
mod writer;

use crate::error::{Error, Result, try_push, try_vec};
use reader::{Entry, METADATA, Metadata};
use source::Source;
use std::path::Path;
use std::sync::Arc;

pub use builder::Builder;
pub use source::ReadAt;
pub use split::PartLimit;
pub use tensor::{Dims, TensorInfo};
pub use value::{Array, Element, ElementType, Elements, Strings, Value};
pub use writer::Writer;

/// The key that packed files have.
pub(crate) const PACKED_VERSION_KEY: &str = "llm.packed.version";

/// An open GGUF. Immutable; share it between threads by `Arc`.
pub struct Gguf {
    source: Arc<Source>,
    name: String,
    metadata: Metadata,
    /// Where keys lie that were laid over those of the file.
    overlays: Vec<Arc<Source>>,
    /// The parts of a split file but for the first.
    others: Vec<Part>,
}

/// A further part of a split file.
#[derive(Clone)]
struct Part {
    source: Arc<Source>,
    name: String,
}

impl Gguf {
    /// Opens a file. Its metadata are mapped into memory, its tensors are read when asked for. Of a file that is split
    /// into parts `NAME-00001-of-0000N.gguf` the first opens them all.
    ///
    /// While the `Gguf` lives the file should not be changed: to replace a model, write the new one beside it and rename
    /// it over the old. If another process overwrites it, keys and tensors hold what it wrote (values are checked each
    /// time, so this is wrong data or an error, never an access outside); if it cuts the file short, reading a tensor
    /// gives an `Io` error, but reading a key may end the process by SIGBUS, as with any memory map.
    ///
    /// Errors (all with the fact `path`): `NotFound`, `Io`, `InvalidArgument` if the path is a directory, a device or a
    /// part that is not the first, `CorruptFile` and `Unsupported` naming key or tensor, `OutOfMemory`.
    pub fn open(path: &Path) -> Result<Gguf> {
        let mut gguf = Gguf::open_one(path)?;
        split::open_parts(&mut gguf, path)?;
        Ok(gguf)
    }

    /// Opens a file as [`Gguf::open`] does, but of a file that is split this part alone: its keys and its own tensors.
    ///
    /// Errors: as of [`Gguf::open`].
    pub fn open_one(path: &Path) -> Result<Gguf> {
        let name = path.display().to_string();
        let gguf = Source::open(path).and_then(|source| Gguf::read_metadata(source, name));
        gguf.map_err(|e| e.with("path", path.display()))
    }

    /// Opens a GGUF that lies in memory, for example `&'static [u8]`, `Vec<u8>` or `Arc<[u8]>`.
    ///
    /// Errors: `CorruptFile` and `Unsupported` naming key or tensor, `OutOfMemory`.
    pub fn from_bytes(bytes: impl AsRef<[u8]> + Send + Sync + 'static) -> Result<Gguf> {
        split::refuse_part(Gguf::read_metadata(Source::Memory(Box::new(bytes)), "memory".to_owned())?)
    }

    /// Opens a GGUF that the caller reads. Its metadata are copied into memory, in steps that never reach far beyond
    /// them; 1 GiB of metadata at most.
    ///
    /// Errors: `CorruptFile` and `Unsupported` naming key or tensor, `OutOfMemory`, and those of the reader.
    pub fn from_reader(reader: Box<dyn ReadAt>) -> Result<Gguf> {
        let size = reader.size();
        let source = Source::Reader { reader, size, front: Vec::new() };
        split::refuse_part(Gguf::read_metadata(source, "reader".to_owned())?)
    }

    fn read_metadata(mut source: Source, name: String) -> Result<Gguf> {
        let metadata = reader::read(&mut source)?;
        Ok(Gguf { source: Arc::new(source), name, metadata, overlays: Vec::new(), others: Vec::new() })
    }

    /// The file with other keys: those of `keys` stand in place of its own of the same name, or join them. So whatever
    /// reads the keys takes them for the file's, as when a model is loaded.
    ///
    /// Errors: `InvalidArgument` if the alignment would be another, `OutOfMemory`.
    pub fn with_keys(&self, keys: &Builder) -> Result<Gguf> {
        if keys.entries().any(|(key, _)| key == reader::ALIGNMENT_KEY) && keys.alignment() != self.alignment() {
            let message = format!("key {}: the file's tensors lie as it says", reader::ALIGNMENT_KEY);
            return Err(Error::invalid_argument(message).with("key", reader::ALIGNMENT_KEY));
        }
        let mut overlay = Source::Memory(Box::new(writer::header(keys, None, 1, &(0..0))?));
        let added = reader::read(&mut overlay)?;
        let mut gguf = Gguf {
            source: Arc::clone(&self.source),
            name: self.name.clone(),
            metadata: self.metadata.clone(),
            overlays: self.overlays.clone(),
            others: self.others.clone(),
        };
        gguf.overlays.push(Arc::new(overlay));
        for mut entry in added.entries {
            entry.layer = gguf.overlays.len();
            match self.index_of(gguf.key(&entry)) {
                Some(index) => gguf.metadata.entries[index] = entry,
                None => try_push(&mut gguf.metadata.entries, entry, METADATA)?,
            }
        }
        let Metadata { entries, .. } = &gguf.metadata;
        gguf.metadata.by_key = reader::by_key(entries.len(), |i| gguf.key(&entries[i]).as_bytes())?;
        Ok(gguf)
    }

    /// The version of the format: 2 or 3.
    pub fn version(&self) -> u32 {
        self.metadata.version
    }

    /// The alignment of tensor data in bytes: a power of two.
    pub fn alignment(&self) -> u64 {
        self.metadata.alignment
    }

    /// The size of the whole file in bytes, with all its parts.
    pub fn file_size(&self) -> u64 {
        self.others.iter().fold(self.source.size(), |sum, part| sum.saturating_add(part.source.size()))
    }

    /// How many parts the file is split into: usually 1.
    pub fn part_count(&self) -> usize {
        1 + self.others.len()
    }

    /// True if the matrices lie in the file as kernels read them: [`Model::pack`](crate::model::Model::pack) writes such.
    pub fn is_packed(&self) -> bool {
        self.get(PACKED_VERSION_KEY).is_some()
    }

    /// The path of the first part, or `memory` or `reader`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All keys with their values, in the order of the file.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = (&str, Value<'_>)> {
        self.metadata.entries.iter().map(|entry| (self.key(entry), self.value(entry)))
    }

    /// The key at an index among [`Gguf::keys`], with its value.
    pub fn entry(&self, index: usize) -> Option<(&str, Value<'_>)> {
        self.metadata.entries.get(index).map(|entry| (self.key(entry), self.value(entry)))
    }

    /// The index of a key among [`Gguf::keys`].
    pub fn index_of(&self, key: &str) -> Option<usize> {
        let Metadata { entries, by_key, .. } = &self.metadata;
        let order = |&i: &usize| entries.get(i).map_or("", |entry| self.key(entry)).cmp(key);
        by_key.get(by_key.binary_search_by(order).ok()?).copied()
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<Value<'_>> {
        self.entry(self.index_of(key)?).map(|(_, value)| value)
    }

    /// Where an entry lies.
    fn layer(&self, entry: &Entry) -> &Source {
        entry.layer.checked_sub(1).and_then(|i| self.overlays.get(i)).unwrap_or(&self.source)
    }

    fn key(&self, entry: &Entry) -> &str {
        // Checked when the file was opened; a file changed since then gives the empty string.
        std::str::from_utf8(reader::front(self.layer(entry), Some(entry.key.clone()))).unwrap_or_default()
    }

    fn value(&self, entry: &Entry) -> Value<'_> {
        let bytes = reader::front(self.layer(entry), Some(entry.value.clone()));
        match entry.array {
            Some(len) => Value::Array(Array { key: self.key(entry), element: entry.element, len, bytes }),
            None => Value::from_bytes(entry.element, bytes).unwrap_or(Value::Str(&[])),
        }
    }

    /// The value of a key as `T`, which `convert` gets from it if it has the right type.
    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        convert: impl Fn(Value<'a>) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match convert(value) {
            Some(converted) => Ok(Some(converted)),
            None => Err(self.name_file(
                0,
                Error::corrupt_file(format!("key {key}: expected {expected}, found {value}"))
                    .with("key", key)
                    .with("expected", expected)
                    .with("found", value),
            )),
        }
    }

    /// The value of a key that is a non-negative integer of any type, as far as it fits; `None` if there is no such key.
    /// Errors: `CorruptFile` naming the key if the value is something else.
    pub fn u32(&self, key: &str) -> Result<Option<u32>> {
        self.typed(key, "an integer from 0 to 2^32 - 1", |value| value.as_integer()?.try_into().ok())
    }

    /// As [`Gguf::u32`], up to 2^64 - 1.
    pub fn u64(&self, key: &str) -> Result<Option<u64>> {
        self.typed(key, "an integer from 0 to 2^64 - 1", |value| value.as_integer()?.try_into().ok())
    }

    /// The value of a key that is an f32 or f64; `None` if there is no such key. Errors: `CorruptFile` naming the key if
    /// the value is something else.
    pub fn f32(&self, key: &str) -> Result<Option<f32>> {
        self.typed(key, "a float", |value| value.as_f32())
    }

    /// The value of a key that is a bool; `None` if there is no such key. Errors: `CorruptFile` naming the key if the
    /// value is something else.
    pub fn bool(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "a bool", |value| value.as_bool())
    }

    /// The value of a key that is a string; `None` if there is no such key. Errors: `CorruptFile` naming the key if the
    /// value is something else or not UTF-8.
    pub fn str(&self, key: &str) -> Result<Option<&str>> {
        self.typed(key, "a string in UTF-8", |value| match value {
            Value::Str(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        })
    }

    /// The value of a key that is an array; `None` if there is no such key. Errors: `CorruptFile` naming the key if the
    /// value is something else.
    pub fn array(&self, key: &str) -> Result<Option<Array<'_>>> {
        self.typed(key, "an array", |value| match value {
            Value::Array(array) => Some(array),
            _ => None,
        })
    }

    /// All tensors, in the order of the file.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.metadata.tensors
    }

    /// The index of a tensor among [`Gguf::tensors`].
    pub fn tensor_index(&self, name: &str) -> Option<usize> {
        let Metadata { tensors, by_name, .. } = &self.metadata;
        let order = |&i: &usize| tensors.get(i).map_or("", |tensor| &tensor.name).cmp(name);
        by_name.get(by_name.binary_search_by(order).ok()?).copied()
    }

    /// The tensor of a name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.metadata.tensors.get(self.tensor_index(name)?)
    }

    /// Fills `out` with the bytes of a tensor's data from `offset` (within the tensor) on. Any number of threads may read
    /// at the same time.
    ///
    /// Errors: `InvalidArgument` if that reaches beyond the tensor, `Io`, and those of the reader.
    pub fn read(&self, tensor: &TensorInfo, offset: u64, out: &mut [u8]) -> Result<()> {
        let end = offset.checked_add(out.len() as u64);
        if end.is_none_or(|end| end > tensor.bytes) {
            let (name, bytes, n) = (&tensor.name, tensor.bytes, out.len());
            let message =
                format!("tensor {name}: expected to read within its {bytes} bytes, found {n} from offset {offset}");
            let error = Error::invalid_argument(message).with("tensor", name).with("offset", offset);
            return Err(self.name_file(tensor.part, error));
        }
        let at = tensor.offset.saturating_add(offset);
        let read = self.source_of(tensor)?.read_at(at, out);
        read.map_err(|e| self.name_file(tensor.part, e.with("tensor", &tensor.name)))
    }

    /// Maps a tensor's data, which must not be empty; `None` if they do not lie in a file. When the file is cut short,
    /// reading the map ends the process by SIGBUS.
    pub(crate) fn map(&self, tensor: &TensorInfo) -> Result<Option<memmap2::Mmap>> {
        let map = self.source_of(tensor)?.map(tensor.offset, tensor.bytes as usize);
        map.map_err(|e| self.name_file(tensor.part, e.with("tensor", &tensor.name)))
    }

    /// The part with a tensor's data.
    fn source_of(&self, tensor: &TensorInfo) -> Result<&Source> {
        match tensor.part.checked_sub(1) {
            None => Ok(&self.source),
            Some(other) => {
                let part = self.others.get(other);
                Ok(&part.ok_or_else(|| Error::invalid_argument("the tensor is not of this file"))?.source)
            }
        }
    }

    /// All elements of a tensor, in the order of the file. Memory: 4 bytes an element, and 1 MiB at most.
    ///
    /// Errors: `Unsupported` naming the type, `OutOfMemory`, and those of [`Gguf::read`].
    pub fn decode(&self, tensor: &TensorInfo) -> Result<Vec<f32>> {
        let format = tensor.format()?;
        let mut out = try_vec(tensor.elements(), 0.0, "a decoded tensor")?;
        let blocks = ((1 << 20) / format.block_bytes()).min(out.len() / format.block_len()).max(1);
        let mut buffer = try_vec(blocks * format.block_bytes(), 0, "a part of a tensor")?;
        let mut offset = 0;
        for out in out.chunks_mut(blocks * format.block_len()) {
            let n = out.len() / format.block_len() * format.block_bytes();
            let Some(bytes) = buffer.get_mut(..n) else {
                return Err(Error::internal("a chunk larger than its buffer"));
            };
            self.read(tensor, offset, bytes)?;
            format.decode(bytes, out)?;
            offset += n as u64;
        }
        Ok(out)
    }

    /// Adds the fact `path` of a part, if this is a file.
    fn name_file(&self, part: usize, error: Error) -> Error {
        let other = part.checked_sub(1).and_then(|other| self.others.get(other));
        match *self.source {
            Source::File { .. } => error.with("path", other.map_or(&self.name, |other| &other.name)),
            _ => error,
        }
    }
}
