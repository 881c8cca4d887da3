//! Where the bytes of a GGUF come from: a file, memory, or the caller's reader.

use super::map::{map, map_part};
use crate::error::{Error, Result};
use memmap2::Mmap;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::Path;

/// Random access to a GGUF that lies neither in a file nor in memory: an archive, a game's asset package, a blob store.
pub trait ReadAt: Send + Sync {
    /// The number of bytes. It must not change.
    fn size(&self) -> u64;

    /// Fills `out` with the bytes from `offset` on; never asked beyond [`ReadAt::size`]. Several threads may call it at
    /// the same time.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<()>;
}

/// Metadata is read from a [`ReadAt`] in steps that start here and double.
const FIRST_STEP: usize = 64 << 10;

/// More metadata than this is not taken from a [`ReadAt`], whose stated size is all that bounds it otherwise. The
/// largest vocabularies of today take 20 MiB.
const METADATA_MAX: usize = 1 << 30;

/// A GGUF's bytes. The front part, which holds the metadata, is a slice; all of it can be read by position.
pub(super) enum Source {
    File { map: Mmap, file: File },
    Memory(Box<dyn AsRef<[u8]> + Send + Sync>),
    Reader { reader: Box<dyn ReadAt>, size: u64, front: Vec<u8> },
}

/// What `verb` could not be done with a file, and why.
fn failed(verb: &str, path: &Path, e: io::Error) -> Error {
    let message = format!("cannot {verb} {}: {e}", path.display());
    match e.kind() {
        ErrorKind::NotFound => Error::not_found(message),
        ErrorKind::InvalidInput => Error::invalid_argument(message),
        _ => Error::io(message),
    }
}

/// Opens a file, which is to be `expected`: `InvalidArgument` for a directory, a device or a pipe.
pub(crate) fn open_file(path: &Path, expected: &str) -> Result<File> {
    let fail = |e| failed("open", path, e);
    // Asked before opening: to open a pipe would wait for its writer.
    let kind = std::fs::metadata(path).map_err(fail)?;
    if !kind.is_file() {
        let found = if kind.is_dir() { "a directory" } else { "a device or pipe" };
        let message = format!("expected {expected}, found {found}: {}", path.display());
        return Err(Error::invalid_argument(message).with("expected", "a file").with("found", found));
    }
    File::open(path).map_err(fail)
}

impl Source {
    pub(super) fn open(path: &Path) -> Result<Source> {
        let file = open_file(path, "a GGUF file")?;
        let map = map(&file).map_err(|e| failed("map", path, e))?;
        Ok(Source::File { map, file })
    }

    /// The bytes at the front that are at hand: all but for a reader, there those asked for by [`Source::reach`].
    pub(super) fn front(&self) -> &[u8] {
        match self {
            Source::File { map, .. } => map,
            Source::Memory(bytes) => (**bytes).as_ref(),
            Source::Reader { front, .. } => front,
        }
    }

    pub(super) fn size(&self) -> u64 {
        match self {
            Source::Reader { size, .. } => *size,
            _ => self.front().len() as u64,
        }
    }

    /// Makes [`Source::front`] at least `end` bytes long, where `end` is within the size.
    pub(super) fn reach(&mut self, end: usize) -> Result<()> {
        let Source::Reader { reader, size, front } = self else { return Ok(()) };
        let have = front.len();
        if end <= have {
            return Ok(());
        }
        if end > METADATA_MAX {
            let message =
                format!("expected at most {METADATA_MAX} bytes of metadata from a reader, found {end} or more");
            return Err(Error::unsupported(message).with("expected", METADATA_MAX).with("found", end));
        }
        let step = end.max(2 * have).clamp(FIRST_STEP, METADATA_MAX);
        let step = usize::try_from(*size).map_or(step, |size| step.min(size)).max(end);
        front.try_reserve_exact(step - have).map_err(|_| {
            Error::out_of_memory(format!("the metadata needs {step} bytes, which cannot be had")).with("bytes", step)
        })?;
        front.resize(step, 0);
        let result = front.get_mut(have..).map_or(Ok(()), |new| reader.read_at(have as u64, new));
        if result.is_err() {
            front.truncate(have);
        }
        result
    }

    /// Fills `out` with the bytes from `offset` on. A file is read, not mapped: weights pass through memory once.
    pub(super) fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let beyond = || {
            let message = format!("expected {} bytes at offset {offset}, found a file of {}", out.len(), self.size());
            Error::invalid_argument(message).with("offset", offset)
        };
        let end = offset.checked_add(out.len() as u64).filter(|end| *end <= self.size()).ok_or_else(beyond)?;
        match self {
            Source::File { file, .. } => read_exact_at(file, offset, out).map_err(|e| {
                Error::io(format!("cannot read {} bytes at offset {offset}: {e}", out.len())).with("offset", offset)
            }),
            Source::Memory(bytes) => {
                let bytes = (**bytes).as_ref().get(offset as usize..end as usize).ok_or_else(beyond)?;
                out.copy_from_slice(bytes);
                Ok(())
            }
            Source::Reader { reader, .. } => reader.read_at(offset, out),
        }
    }

    /// Maps the bytes from `offset` on, within the size; `None` if they do not lie in a file.
    pub(super) fn map(&self, offset: u64, bytes: usize) -> Result<Option<Mmap>> {
        let Source::File { file, .. } = self else { return Ok(None) };
        let fail = |e| Error::io(format!("cannot map {bytes} bytes at offset {offset}: {e}")).with("offset", offset);
        map_part(file, offset, bytes).map(Some).map_err(fail)
    }
}

/// Fills `out` with the file's bytes from `offset` on. Several threads may do so at the same time.
#[cfg(unix)]
fn read_exact_at(file: &File, offset: u64, out: &mut [u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, out, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut offset: u64, mut out: &mut [u8]) -> io::Result<()> {
    use std::os::windows::fs::FileExt;
    while !out.is_empty() {
        match file.seek_read(out, offset) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(n) => (offset, out) = (offset + n as u64, &mut out[n..]),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
