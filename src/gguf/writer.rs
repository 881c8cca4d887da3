//! Writes a GGUF: the metadata first, then the data of the tensors, in order, as they come.

use super::builder::{Builder, Declared};
use super::new_file::NewFile;
use super::reader::{ALIGNMENT_KEY, METADATA};
use super::split;
use crate::error::{Error, Result, no_room, try_push};
use std::io::Write;
use std::ops::Range;
use std::path::PathBuf;

/// The version of the format that is written.
const VERSION: u32 = 3;

/// Where a GGUF goes.
pub(super) enum Target {
    /// The file, until its part begins.
    File(Option<NewFile>),
    /// Parts: the path before `-00001-of-0000N.gguf`.
    Split(PathBuf),
    Stream(Box<dyn Write + Send>),
}

/// A GGUF that is being written. Dropped before it is finished, it leaves no file and an old one untouched.
pub struct Writer {
    contents: Builder,
    target: Target,
    /// The tensors of each part.
    parts: Vec<Range<usize>>,
    /// The part that is being written, and the ones that are complete.
    file: Option<NewFile>,
    complete: Vec<NewFile>,
    /// The tensor whose data come next, and how much of them has come.
    next: usize,
    written: u64,
    failed: bool,
}

impl Declared {
    /// What the tensor takes in the metadata.
    pub(super) fn header_bytes(&self) -> u64 {
        8 + self.name.len() as u64 + 4 + 8 * self.dims.len() as u64 + 4 + 8
    }
}

/// The bytes of the metadata of a part (`None`: of the whole), without the padding that follows.
pub(super) fn header_bytes(contents: &Builder, part: Option<usize>, tensors: Range<usize>) -> u64 {
    let entry = |key: &str, bytes: &[u8]| 8 + key.len() as u64 + bytes.len() as u64;
    let own: u64 = entries(contents, part).map(|(key, bytes)| entry(key, bytes)).sum();
    let of_split = if part.is_some() { &split::entries(0, 0, 0)[..] } else { &[] };
    let of_split: u64 = of_split.iter().map(|(key, bytes)| entry(key, bytes)).sum();
    let tensors: u64 = contents.tensors.get(tensors).unwrap_or_default().iter().map(Declared::header_bytes).sum();
    24 + own + of_split + tensors
}

/// The keys of a part (`None`: of the whole) but for those about the split: all go to the first part, and to the others
/// what their own tensors need.
fn entries(contents: &Builder, part: Option<usize>) -> impl Iterator<Item = (&str, &[u8])> {
    contents.entries().filter(move |(key, _)| match part {
        None => true,
        Some(0) => !split::KEYS.contains(key),
        Some(_) => *key == ALIGNMENT_KEY,
    })
}

/// The metadata of one of `parts` (`None`: of the whole).
pub(super) fn header(contents: &Builder, part: Option<usize>, parts: usize, tensors: &Range<usize>) -> Result<Vec<u8>> {
    let size = usize::try_from(header_bytes(contents, part, tensors.clone())).unwrap_or(usize::MAX);
    let mut out = Vec::new();
    out.try_reserve_exact(size).map_err(|_| no_room::<u8>(size, METADATA))?;
    let of_split = part.map(|number| split::entries(number, parts, contents.tensors.len()));
    let of_split = of_split.iter().flatten().map(|(key, bytes)| (*key, &**bytes));
    let keys = entries(contents, part).count() + of_split.clone().count();
    out.extend_from_slice(b"GGUF");
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&(tensors.len() as u64).to_le_bytes());
    out.extend_from_slice(&(keys as u64).to_le_bytes());
    for (key, bytes) in entries(contents, part).chain(of_split) {
        out.extend_from_slice(&(key.len() as u64).to_le_bytes());
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(bytes);
    }
    let alignment = contents.alignment();
    let mut offset = 0u64;
    for tensor in contents.tensors.get(tensors.clone()).unwrap_or_default() {
        out.extend_from_slice(&(tensor.name.len() as u64).to_le_bytes());
        out.extend_from_slice(tensor.name.as_bytes());
        out.extend_from_slice(&(tensor.dims.len() as u32).to_le_bytes());
        tensor.dims.iter().for_each(|n| out.extend_from_slice(&n.to_le_bytes()));
        out.extend_from_slice(&tensor.type_id.to_le_bytes());
        out.extend_from_slice(&offset.to_le_bytes());
        let end = offset.checked_add(tensor.bytes).and_then(|end| end.checked_next_multiple_of(alignment));
        offset = end.ok_or_else(|| {
            let message = format!("tensor {}: expected a file of fewer than 2^64 bytes", tensor.name);
            Error::invalid_argument(message).with("tensor", &tensor.name)
        })?;
    }
    Ok(out)
}

impl Writer {
    /// Takes the contents, if it can begin.
    pub(super) fn begin(contents: &mut Builder, target: Target, parts: Vec<Range<usize>>) -> Result<Writer> {
        let (file, complete) = (None, Vec::new());
        let mut writer = Writer {
            contents: std::mem::take(contents),
            target,
            parts,
            file,
            complete,
            next: 0,
            written: 0,
            failed: false,
        };
        match writer.begin_part() {
            Ok(()) => Ok(writer),
            Err(error) => {
                *contents = writer.contents;
                Err(error)
            }
        }
    }

    /// Appends data of a tensor. The tensors come in the order in which they were added, each in any number of pieces.
    ///
    /// Errors: `InvalidArgument` naming the tensor if it is not the turn of this one, or if it has less data than that;
    /// `Io`, and those of [`Builder::create`] where the next part begins, after which nothing more can be written.
    pub fn write(&mut self, tensor: &str, data: &[u8]) -> Result<()> {
        self.check()?;
        // Those without data that stand before it end now.
        let left = self.contents.tensors.get(self.next..).unwrap_or_default();
        let empty = left.iter().take_while(|next| next.bytes == 0 && next.name != tensor).count();
        let Some(declared) = left.get(empty).filter(|declared| declared.name == tensor) else {
            return Err(self.out_of_turn(tensor));
        };
        let (bytes, written) = (declared.bytes, if empty == 0 { self.written } else { 0 });
        if data.len() as u64 > bytes - written {
            let found = written + data.len() as u64;
            let message = format!("tensor {tensor} has {bytes} bytes of data, but {found} were given");
            let error = Error::invalid_argument(message).with("tensor", tensor);
            return Err(error.with("expected", bytes).with("found", found));
        }
        for _ in 0..empty {
            self.end_tensor()?;
        }
        self.put(data)?;
        self.written += data.len() as u64;
        if self.written == bytes { self.end_tensor() } else { Ok(()) }
    }

    /// Ends the file: all is written to the disk, and the file gets its name (of several parts the first gets it last).
    ///
    /// Errors: `FailedPrecondition` naming the tensor whose data are missing, or if a write failed; `Io`. The file does
    /// not appear then. Of a split file that replaces another the names are given one by one: should one fail, those
    /// given before are taken back, and the old parts of these names are gone.
    pub fn finish(mut self) -> Result<()> {
        self.check()?;
        while self.contents.tensors.get(self.next).is_some_and(|declared| declared.bytes == 0) {
            self.end_tensor()?;
        }
        if let Some(declared) = self.contents.tensors.get(self.next) {
            let (name, expected, found) = (&declared.name, declared.bytes, self.written);
            let message = format!("tensor {name} needs {expected} bytes of data, but {found} were given");
            let error = Error::failed_precondition(message).with("tensor", name);
            return Err(error.with("expected", expected).with("found", found));
        }
        self.end_part()?;
        if let Target::Stream(output) = &mut self.target {
            output.flush().map_err(stream_failure)?;
        }
        for i in (0..self.complete.len()).rev() {
            let Some(file) = self.complete.get_mut(i) else { continue };
            if let Err(error) = file.commit() {
                // The parts of two files under one name would be worse than some that are missing.
                self.complete.drain(i + 1..).for_each(NewFile::withdraw);
                return Err(error);
            }
        }
        Ok(())
    }

    /// The name of the tensor whose data come next; `None` if all have come.
    pub fn next_tensor(&self) -> Option<&str> {
        self.contents.tensors.get(self.next).map(|declared| &*declared.name)
    }

    fn check(&self) -> Result<()> {
        if self.failed { Err(Error::failed_precondition("an earlier write to this file failed")) } else { Ok(()) }
    }

    fn out_of_turn(&self, tensor: &str) -> Error {
        let expected = self.next_tensor().map_or("no more".to_owned(), |next| format!("those of {next}"));
        Error::invalid_argument(format!("data of the tensor {tensor} were given, expected {expected}"))
            .with("tensor", tensor)
            .with("expected", self.next_tensor().unwrap_or_default())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.check()?;
        let result = match (&mut self.target, &mut self.file) {
            (Target::Stream(output), _) => output.write_all(bytes).map_err(stream_failure),
            (_, Some(file)) => file.write(bytes),
            (_, None) => Err(Error::internal("no file is open")),
        };
        self.noting(result)
    }

    /// Sees to it that after a failure nothing more is written, and that no file appears.
    fn noting(&mut self, result: Result<()>) -> Result<()> {
        if result.is_err() {
            self.failed = true;
            self.file = None;
            self.complete.clear();
        }
        result
    }

    /// Zeros up to the next multiple of the alignment after `position`.
    fn pad(&mut self, position: u64) -> Result<()> {
        let alignment = self.contents.alignment();
        let mut left = (alignment - position % alignment) % alignment;
        while left > 0 {
            let n = left.min(4096);
            self.put(&[0; 4096][..n as usize])?;
            left -= n;
        }
        Ok(())
    }

    fn part(&self) -> Range<usize> {
        self.parts.get(self.complete.len()).cloned().unwrap_or_default()
    }

    /// Opens the next part and writes its metadata.
    fn begin_part(&mut self) -> Result<()> {
        let begun = self.open_part();
        self.noting(begun)
    }

    fn open_part(&mut self) -> Result<()> {
        let (number, tensors) = (self.complete.len(), self.part());
        let split = matches!(self.target, Target::Split(_)).then_some(number);
        self.file = match &mut self.target {
            Target::File(file) => file.take(),
            Target::Split(prefix) => Some(NewFile::create(&split::part_path(prefix, number, self.parts.len()))?),
            Target::Stream(_) => None,
        };
        let header = header(&self.contents, split, self.parts.len(), &tensors)?;
        self.put(&header)?;
        if tensors.is_empty() { Ok(()) } else { self.pad(header.len() as u64) }
    }

    /// Ends the data of the tensor whose turn it is.
    fn end_tensor(&mut self) -> Result<()> {
        self.pad(self.written)?;
        self.written = 0;
        self.next += 1;
        if self.next == self.part().end && self.complete.len() + 1 < self.parts.len() {
            self.end_part()?;
            self.begin_part()?;
        }
        Ok(())
    }

    fn end_part(&mut self) -> Result<()> {
        let Some(mut file) = self.file.take() else { return Ok(()) };
        let closed = file.close().and_then(|()| try_push(&mut self.complete, file, split::PARTS));
        self.noting(closed)
    }
}

fn stream_failure(e: std::io::Error) -> Error {
    Error::io(format!("cannot write the file: {e}"))
}
