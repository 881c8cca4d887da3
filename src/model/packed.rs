//! Files whose matrices are packed as the kernels read them, so that loading maps them: nothing is copied, and
//! processes that load the same file share its memory.
//!
//! Such a file is a GGUF with the keys of the model's file, its other tensors, and these:
//!
//! | key | value |
//! |---|---|
//! | `llm.packed.version` | u32: [`VERSION`] |
//! | `llm.packed.layout` | string: `x16`, the layout of `device::cpu::packed` |
//! | `llm.packed.checksum` | u32: of the tensors of the model's file, for saved sessions |
//! | `llm.packed.names` | strings: the tensors that are packed |
//! | `llm.packed.types` | u32: their ggml types |
//! | `llm.packed.dimensions` | u64: four for each, fastest first, ones at the end |
//!
//! The tensor [`WEIGHTS`] is what [`Plan::load`](super::plan::Plan::load) fills memory with: all matrices in the order in
//! which the architecture asks for them, each from a multiple of 64 bytes on. So a version stands for that order too.
//! The tensor [`TABLES`] holds the tables of the tokenizer. A file without it, or with other keys of the tokenizer than
//! those it was made of, loads as well, but for the time it takes to make them.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::path::Path;

use super::plan::Plan;
use super::weights::Weights;
use super::{LoadOptions, Model};
use crate::device::{Arena, Threads};
use crate::error::{Error, Result, try_vec};
use crate::gguf::{Builder, Gguf, NAME_MAX, PACKED_VERSION_KEY, TensorInfo};
use crate::token::{TABLES, Tokenizer};

/// The version of the packing.
const VERSION: u32 = 2;
/// The name of the layout.
const LAYOUT: &str = "x16";
/// The tensor that holds the packed matrices, as bytes.
pub(super) const WEIGHTS: &str = "llm.packed.weights";
/// The ggml type of bytes.
const BYTES: u32 = 24;
/// Panels are read in vectors of so many bytes.
const ALIGNMENT: u64 = 64;
/// Bytes that are written between two looks at cancel and progress.
const PIECE: usize = 16 << 20;

const LAYOUT_KEY: &str = "llm.packed.layout";
const CHECKSUM_KEY: &str = "llm.packed.checksum";
const NAMES_KEY: &str = "llm.packed.names";
const TYPES_KEY: &str = "llm.packed.types";
const DIMENSIONS_KEY: &str = "llm.packed.dimensions";

/// What a packed file says of the tensors that are packed in it.
pub(super) struct Packed {
    tensors: Vec<TensorInfo>,
    by_name: HashMap<String, usize>,
    checksum: u32,
}

impl Packed {
    /// `None` if the file is not packed.
    ///
    /// # Errors
    /// `Unsupported` for another version or layout; `CorruptFile` naming the key or tensor.
    pub(super) fn of(gguf: &Gguf) -> Result<Option<Packed>> {
        let Some(version) = gguf.u32(PACKED_VERSION_KEY)? else { return Ok(None) };
        let wrong =
            |message: String, key: &str| Error::corrupt_file(message).with("key", key).with("path", gguf.name());
        let missing = |key: &str| wrong(format!("key {key} is missing"), key);
        let layout = gguf.str(LAYOUT_KEY)?.ok_or_else(|| missing(LAYOUT_KEY))?;
        if version != VERSION || layout != LAYOUT {
            let message = format!(
                "the file is packed in version {version} of the layout {layout}, this library reads version {VERSION} of \
                 {LAYOUT}: pack the model's file again"
            );
            let error = Error::unsupported(message).with("expected", VERSION).with("found", version);
            return Err(error.with("layout", layout).with("path", gguf.name()));
        }
        let checksum = gguf.u32(CHECKSUM_KEY)?.ok_or_else(|| missing(CHECKSUM_KEY))?;
        let array = |key: &'static str| gguf.array(key)?.ok_or_else(|| missing(key));
        let names = array(NAMES_KEY)?;
        let names = names.strings().ok_or_else(|| wrong(format!("key {NAMES_KEY}: expected strings"), NAMES_KEY))?;
        let (types, dimensions) = (array(TYPES_KEY)?, array(DIMENSIONS_KEY)?);
        if types.len() != names.len() || Some(dimensions.len()) != names.len().checked_mul(4) {
            let message = format!(
                "expected a type and four dimensions for each of {} packed tensors, found {} and {}",
                names.len(),
                types.len(),
                dimensions.len()
            );
            return Err(wrong(message, DIMENSIONS_KEY));
        }
        let (types, dimensions) = (types.to_u32s()?, dimensions.to_u64s()?);
        let (mut tensors, mut by_name) = (Vec::new(), HashMap::new());
        for ((name, type_id), dims) in names.zip(types).zip(dimensions.as_chunks::<4>().0) {
            if name.len() > NAME_MAX as usize {
                let message = format!("a tensor's name has {} bytes, expected at most {NAME_MAX}", name.len());
                return Err(wrong(message, NAMES_KEY).with("found", name.len()));
            }
            let name = String::from_utf8_lossy(name).into_owned();
            let used = dims.iter().rposition(|n| *n != 1).map_or(1, |last| last + 1);
            let tensor = TensorInfo::without_data(&name, type_id, &dims[..used])?;
            if gguf.tensor(&name).is_some() || by_name.insert(name, tensors.len()).is_some() {
                return Err(wrong(format!("the tensor {} is there twice", tensor.name), NAMES_KEY));
            }
            tensors.push(tensor);
        }
        Ok(Some(Packed { tensors, by_name, checksum }))
    }

    pub(super) fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    pub(super) fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(*self.by_name.get(name)?)
    }

    /// [`Gguf::tensors_checksum`] of the model's file.
    pub(super) fn tensors_checksum(&self) -> u32 {
        self.checksum
    }
}

/// `CorruptFile` if the packed matrices of a file are less than `bytes` bytes.
pub(super) fn check_room(gguf: &Gguf, bytes: usize) -> Result<()> {
    let found = gguf.tensor(WEIGHTS).map_or(0, |weights| weights.bytes);
    if bytes as u64 <= found {
        return Ok(());
    }
    let message = format!("the packed matrices need {bytes} bytes or more, the tensor {WEIGHTS} has {found}");
    let error = Error::corrupt_file(message).with("tensor", WEIGHTS).with("path", gguf.name());
    Err(error.with("expected", bytes).with("found", found))
}

/// Fills memory for `bytes` bytes of matrices from a packed file: with a map of it, or a copy if it lies in no file.
pub(super) fn fill(arena: &Arena, gguf: &Gguf, bytes: usize) -> Result<()> {
    let wrong = |message: String| Error::corrupt_file(message).with("tensor", WEIGHTS).with("path", gguf.name());
    let weights = gguf.tensor(WEIGHTS).ok_or_else(|| wrong(format!("the tensor {WEIGHTS} is missing")))?;
    if weights.type_id != BYTES || weights.bytes != bytes as u64 || bytes == 0 {
        let message = format!("the packed matrices need {bytes} bytes, the tensor {WEIGHTS} has {}", weights.bytes);
        return Err(wrong(message).with("expected", bytes).with("found", weights.bytes));
    }
    // A file that was not written by this library may have them anywhere: they are copied then.
    if weights.offset.is_multiple_of(ALIGNMENT)
        && let Some(map) = gguf.map(weights)?
    {
        return arena.share(map);
    }
    let mut memory = Arena::allocate(bytes)?;
    gguf.read(weights, 0, &mut memory)?;
    arena.fill(memory)
}

impl Model {
    /// Writes the model of `gguf` as a file whose matrices are packed as the kernels read them: loading it maps them,
    /// which takes milliseconds, and processes that load it share their memory. It computes the same bits. Needs the
    /// memory of the loaded model. The file appears when it is complete.
    ///
    /// `progress` is called on this thread with the bytes done and the bytes in all; if it breaks, the call ends with
    /// `Aborted`.
    ///
    /// # Errors
    /// As [`load`](Model::load); `InvalidArgument` if the file is packed already.
    pub fn pack(
        gguf: &Gguf,
        path: &Path,
        options: &LoadOptions,
        mut progress: impl FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<()> {
        if gguf.is_packed() {
            return Err(Error::invalid_argument("the file is packed already").with("path", gguf.name()));
        }
        let (config, _) = Model::outline(gguf)?;
        let mut plan = Plan::new(gguf, None);
        Weights::new(&mut plan, &config)?;
        let packed = plan.packed_tensors();
        let mut builder = Builder::new();
        builder.copy_keys(gguf)?;
        builder.set("general.alignment", gguf.alignment().max(ALIGNMENT) as u32)?;
        builder.set(PACKED_VERSION_KEY, VERSION)?;
        builder.set(LAYOUT_KEY, LAYOUT)?;
        builder.set(CHECKSUM_KEY, gguf.tensors_checksum()?)?;
        builder.set_strings(NAMES_KEY, &packed.iter().map(|tensor| &tensor.name).collect::<Vec<_>>())?;
        builder.set_array(TYPES_KEY, &packed.iter().map(|tensor| tensor.type_id).collect::<Vec<_>>())?;
        let dimensions = packed.iter().flat_map(|tensor| (0..4).map(|i| tensor.dims.get(i).copied().unwrap_or(1)));
        builder.set_array(DIMENSIONS_KEY, &dimensions.collect::<Vec<u64>>())?;
        builder.add_tensor(WEIGHTS, BYTES, &[plan.bytes() as u64])?;
        let tables = Tokenizer::stored(gguf)?;
        builder.add_tensor(TABLES, BYTES, &[tables.len() as u64])?;
        let names: HashSet<&str> = packed.iter().map(|tensor| &*tensor.name).collect();
        let rest: Vec<&TensorInfo> = gguf.tensors().iter().filter(|tensor| !names.contains(&*tensor.name)).collect();
        rest.iter().try_for_each(|tensor| builder.add_tensor_like(tensor))?;
        let mut writer = builder.create(path)?;
        let threads = options.threads.clone().unwrap_or_else(Threads::automatic);
        // Reading is half of the work, writing the other.
        let arena = plan.load(&threads, &options.cancel, || Ok(()), |done, total| progress(done, 2 * total))?;
        let total = arena.bytes().len() as u64;
        let mut done = total;
        for piece in arena.bytes().chunks(PIECE) {
            options.cancel.check("packing the model")?;
            writer.write(WEIGHTS, piece)?;
            done += piece.len() as u64;
            if progress(done, 2 * total).is_break() {
                return Err(Error::aborted("the progress callback stopped the packing of the model"));
            }
        }
        writer.write(TABLES, &tables)?;
        for tensor in rest {
            let mut bytes = try_vec(tensor.bytes as usize, 0u8, "a tensor")?;
            gguf.read(tensor, 0, &mut bytes)?;
            writer.write(&tensor.name, &bytes)?;
        }
        writer.finish()
    }
}
