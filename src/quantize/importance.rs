//! How much the columns of each matrix matter: the mean of the squares of what they are multiplied with.
//!
//! The files are those of llama.cpp's imatrix: a GGUF with, for each matrix of the model, the sums of squares
//! (`NAME.in_sum2`, a row for each expert) and how many inputs they are of (`NAME.counts`); or its older binary file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use crate::error::{Error, Result, try_collect, try_vec};
use crate::gguf::{Builder, Gguf, NewFile, TensorInfo, quoted};
use crate::log::{self, Level};
use crate::quant::Format;

/// Importances by the name of the matrix.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Importance {
    entries: BTreeMap<String, Entry>,
    /// What the texts were called.
    pub datasets: Vec<String>,
    /// How many pieces of text were read.
    pub chunk_count: u32,
    /// The tokens of a piece.
    pub chunk_size: u32,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Entry {
    /// (matrices, columns)
    sums: Vec<f64>,
    /// (matrices)
    counts: Vec<u64>,
}

const SUMS: &str = ".in_sum2";
const COUNTS: &str = ".counts";

impl Importance {
    /// Nothing yet, of a text of this name.
    pub(crate) fn new(dataset: String, chunk_size: u32) -> Importance {
        Importance { datasets: vec![dataset], chunk_size, ..Importance::default() }
    }

    /// Adds inputs of matrix `matrix` of `matrices` of a tensor: rows of `width` values. Errors: `OutOfMemory`.
    pub(crate) fn add(
        &mut self,
        name: &str,
        (matrix, matrices): (usize, usize),
        width: usize,
        rows: &[f32],
    ) -> Result<()> {
        let entry = match self.entries.get_mut(name) {
            Some(entry) => entry,
            None => {
                let sums = try_vec(matrices.saturating_mul(width), 0f64, "the importances of a tensor")?;
                let counts = try_vec(matrices, 0u64, "the importances of a tensor")?;
                self.entries.entry(name.to_owned()).or_insert(Entry { sums, counts })
            }
        };
        let sums = &mut entry.sums[matrix * width..(matrix + 1) * width];
        for row in rows.chunks_exact(width) {
            sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x) * f64::from(*x));
            entry.counts[matrix] += 1;
        }
        Ok(())
    }

    /// The number of matrices.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Says how many of the tensors to be quantised, `quantised`, have no importances.
    ///
    /// Errors: `InvalidArgument` if they are of no tensor of the file: they are those of another model.
    pub(super) fn check_names<'a>(&self, gguf: &Gguf, quantised: impl Iterator<Item = &'a str>) -> Result<()> {
        let (mut all, mut without) = (0, 0);
        for name in quantised {
            all += 1;
            without += usize::from(!self.entries.contains_key(name));
        }
        if all > 0 && self.entries.keys().all(|name| gguf.tensor(name).is_none()) {
            let (expected, found) = (gguf.tensors().len(), self.len());
            let message = format!("none of the {found} importances is of one of the file's {expected} tensors");
            return Err(Error::invalid_argument(message).with("expected", expected).with("found", found));
        }
        if without > 0 {
            log::event(Level::Warn, format_args!("{without} of {all} tensors to be quantised have no importances"));
        }
        Ok(())
    }

    /// The importance of the columns of a tensor, a row for each of its matrices or one for all; `None` if it is not
    /// known. A matrix without inputs has 1 everywhere.
    ///
    /// Errors: `InvalidArgument` naming the tensor if there are not as many as it has columns.
    pub(super) fn weights(&self, tensor: &TensorInfo) -> Result<Option<Vec<f32>>> {
        let Some(entry) = self.entries.get(&tensor.name) else { return Ok(None) };
        let matrices: u64 = tensor.dims.iter().skip(2).product();
        let (expected, found, name) = (tensor.row_len(), entry.sums.len(), &tensor.name);
        if found != expected && found as u64 != expected as u64 * matrices {
            let message =
                format!("tensor {name} has {matrices} matrices of {expected} columns, but {found} importances");
            let error = Error::invalid_argument(message).with("tensor", name);
            return Err(error.with("expected", expected).with("found", found));
        }
        let mut weights = try_vec(found, 1f32, "the importances of a tensor")?;
        let each = found / entry.counts.len().max(1);
        let matrices = weights.chunks_mut(each.max(1)).zip(entry.sums.chunks(each.max(1))).zip(&entry.counts);
        for ((weights, sums), count) in matrices.filter(|(_, count)| **count > 0) {
            for (weight, sum) in weights.iter_mut().zip(sums) {
                *weight = (sum / *count as f64) as f32;
            }
        }
        if let Some(i) = weights.iter().position(|weight| !(weight.is_finite() && *weight >= 0.0)) {
            let message = format!("tensor {name}: the importance of column {i} is {}", weights[i]);
            return Err(Error::invalid_argument(message).with("tensor", name).with("index", i));
        }
        Ok(Some(weights))
    }

    /// What a quantised file says about the importances it was made with.
    pub(super) fn describe(&self, builder: &mut Builder) -> Result<()> {
        if let Some(dataset) = self.datasets.last() {
            builder.set("quantize.imatrix.dataset", &**dataset)?;
        }
        builder.set("quantize.imatrix.entries_count", i32::try_from(self.len()).unwrap_or(i32::MAX))?;
        builder.set("quantize.imatrix.chunks_count", i32::try_from(self.chunk_count).unwrap_or(i32::MAX))
    }

    /// Writes a GGUF. Errors: as [`Builder::create`].
    pub fn write(&self, path: &Path) -> Result<()> {
        self.write_in(NewFile::create(path)?)
    }

    /// The same in a file that was opened before.
    pub(crate) fn write_in(&self, file: NewFile) -> Result<()> {
        let mut builder = Builder::new();
        builder.set("general.type", "imatrix")?;
        builder.set_strings("imatrix.datasets", &self.datasets)?;
        builder.set("imatrix.chunk_count", self.chunk_count)?;
        builder.set("imatrix.chunk_size", self.chunk_size)?;
        for (name, entry) in &self.entries {
            let matrices = entry.counts.len() as u64;
            let columns = entry.sums.len() as u64 / matrices.max(1);
            builder.declare(&format!("{name}{SUMS}"), Format::F32.id(), &[columns, matrices])?;
            builder.declare(&format!("{name}{COUNTS}"), Format::F32.id(), &[1, matrices])?;
        }
        let mut writer = builder.create_in(file)?;
        for (name, entry) in &self.entries {
            let sums: Vec<u8> = entry.sums.iter().flat_map(|sum| (*sum as f32).to_le_bytes()).collect();
            writer.write(&format!("{name}{SUMS}"), &sums)?;
            let counts: Vec<u8> = entry.counts.iter().flat_map(|count| (*count as f32).to_le_bytes()).collect();
            writer.write(&format!("{name}{COUNTS}"), &counts)?;
        }
        writer.finish()
    }

    /// Reads a file of either format.
    ///
    /// Errors: `NotFound`, `Io`, `CorruptFile`, `OutOfMemory`, with the fact `path`.
    pub fn read(path: &Path) -> Result<Importance> {
        let with_path = |error: Error| match error.fact("path") {
            Some(_) => error,
            None => error.with("path", path.display()),
        };
        let begins = |path| {
            let mut magic = [0; 4];
            File::open(path).is_ok_and(|mut file| file.read_exact(&mut magic).is_ok() && magic == *b"GGUF")
        };
        // What is no file is left to the first, which says so: to open a pipe would wait for its writer.
        let is_gguf = !path.is_file() || begins(path);
        if is_gguf { Gguf::open(path).and_then(|gguf| read_gguf(&gguf)) } else { read_binary(path) }.map_err(with_path)
    }
}

fn read_gguf(gguf: &Gguf) -> Result<Importance> {
    let kind = gguf.str("general.type")?.unwrap_or_default();
    if kind != "imatrix" {
        let message = format!("key general.type: expected \"imatrix\", found {}", quoted(kind.as_bytes()));
        return Err(Error::corrupt_file(message).with("key", "general.type").with("found", kind));
    }
    let mut importance = Importance {
        chunk_count: gguf.u32("imatrix.chunk_count")?.unwrap_or(0),
        chunk_size: gguf.u32("imatrix.chunk_size")?.unwrap_or(0),
        ..Importance::default()
    };
    if let Some(texts) = gguf.array("imatrix.datasets")?.and_then(|array| array.strings()) {
        importance.datasets = texts.map(|text| String::from_utf8_lossy(text).into_owned()).collect();
    }
    for tensor in gguf.tensors() {
        let Some(name) = tensor.name.strip_suffix(SUMS) else { continue };
        let counts = format!("{name}{COUNTS}");
        let counts = gguf
            .tensor(&counts)
            .ok_or_else(|| Error::corrupt_file(format!("the tensor {counts} is missing")).with("tensor", &counts))?;
        let (found, matrices) = (gguf.decode(counts)?, tensor.dims.iter().skip(1).product::<u64>());
        if found.len() != 1 && found.len() as u64 != matrices || tensor.row_len() == 0 {
            let message = format!("tensor {name}: {} counts are not of {matrices} matrices", found.len());
            let error = Error::corrupt_file(message).with("tensor", name);
            return Err(error.with("expected", matrices).with("found", found.len()));
        }
        if let Some(count) = found.iter().find(|count| !(count.is_finite() && **count >= 0.0)) {
            let message = format!("tensor {name}: {count} is no count of inputs");
            return Err(Error::corrupt_file(message).with("tensor", name).with("found", count));
        }
        let counts = try_collect(found.into_iter().map(|count| count as u64), "the importances of a tensor")?;
        let sums = widened(gguf.decode(tensor)?.into_iter())?;
        importance.entries.insert(name.to_owned(), Entry { sums, counts });
    }
    Ok(importance)
}

fn widened(values: impl Iterator<Item = f32>) -> Result<Vec<f64>> {
    try_collect(values.map(f64::from), "the importances of a tensor")
}

/// The older format, all numbers of 32 bits: how many entries; for each the length of its name, the name, the number of
/// calls, how many values, and the values, each a mean times the calls; then the chunks, and the dataset's name with its
/// length. The last two may be missing.
fn read_binary(path: &Path) -> Result<Importance> {
    let file = File::open(path).map_err(|e| Error::io(format!("cannot open {}: {e}", path.display())))?;
    let size = file.metadata().map_or(0, |metadata| metadata.len());
    let mut file = Binary { file: BufReader::new(file), left: size };
    let mut importance = Importance::default();
    for i in 0..file.count("entries")? {
        let n = file.count("bytes of a name")?;
        let name = String::from_utf8(file.bytes(n)?)
            .map_err(|_| Error::corrupt_file(format!("the name of entry {i} is not UTF-8")).with("index", i))?;
        let calls = file.count("calls")?.max(1);
        let n = file.count("values")?;
        let bytes = file.bytes(n.saturating_mul(4)).map_err(|error| error.with("tensor", &name))?;
        let sums = widened(bytes.as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value)))?;
        importance.entries.insert(name, Entry { sums, counts: vec![calls as u64] });
    }
    if let Ok(chunks) = file.count("chunks") {
        importance.chunk_count = u32::try_from(chunks).unwrap_or(u32::MAX);
        if let Ok(dataset) = file.count("bytes of the dataset's name").and_then(|n| file.bytes(n)) {
            importance.datasets = vec![String::from_utf8_lossy(&dataset).into_owned()];
        }
    }
    Ok(importance)
}

struct Binary {
    file: BufReader<File>,
    left: u64,
}

impl Binary {
    fn bytes(&mut self, n: usize) -> Result<Vec<u8>> {
        if n as u64 > self.left {
            let left = self.left;
            let message = format!("no importance file: expected {n} bytes, found {left} before the end of the file");
            return Err(Error::corrupt_file(message).with("expected", n).with("found", left));
        }
        let mut bytes = try_vec(n, 0u8, "a part of an importance file")?;
        self.file.read_exact(&mut bytes).map_err(|e| Error::io(format!("cannot read the importance file: {e}")))?;
        self.left -= n as u64;
        Ok(bytes)
    }

    fn count(&mut self, what: &str) -> Result<usize> {
        let bytes = self.bytes(4)?;
        let n = bytes.first_chunk().copied().map_or(-1, i32::from_le_bytes);
        usize::try_from(n).map_err(|_| {
            Error::corrupt_file(format!("no importance file: expected a number of {what}, found {n}")).with("found", n)
        })
    }
}
