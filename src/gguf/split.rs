//! GGUF files in several parts: `NAME-00001-of-00003.gguf` and so on.
//!
//! Each part is a GGUF whose keys say which it is (`split.no`, from 0) and how many there are (`split.count`); the first
//! has the model's keys and the number of all tensors (`split.tensors.count`). Every tensor lies in one part.

use super::builder::Builder;
use super::reader::{self, METADATA};
use super::source::Source;
use super::writer::header_bytes;
use super::{Gguf, Part};
use crate::error::{Error, Result, try_push};
use std::ffi::OsStr;
use std::ops::Range;
use std::path::{Path, PathBuf};

const NUMBER: &str = "split.no";
const COUNT: &str = "split.count";
const TENSORS: &str = "split.tensors.count";

/// What could not be had, in errors of memory.
pub(super) const PARTS: &str = "the parts of a file";

/// The keys about the split.
pub(super) const KEYS: [&str; 3] = [NUMBER, COUNT, TENSORS];

/// What a part of a split file holds at most; `None` is no limit.
#[derive(Debug, Clone, Copy, Default)]
pub struct PartLimit {
    /// Bytes of the part's file. A tensor that is larger has a part of its own.
    pub bytes: Option<u64>,
    /// Tensors.
    pub tensors: Option<usize>,
}

impl PartLimit {
    /// The tensors of each part.
    pub(super) fn parts(self, builder: &Builder) -> Result<Vec<Range<usize>>> {
        if self.bytes == Some(0) || self.tensors == Some(0) {
            return Err(Error::invalid_argument("a part cannot be limited to 0 bytes or tensors"));
        }
        let (most_bytes, most_tensors) = (self.bytes.unwrap_or(u64::MAX), self.tensors.unwrap_or(usize::MAX));
        let alignment = builder.alignment();
        let padded = |bytes: u64| bytes.checked_next_multiple_of(alignment).unwrap_or(u64::MAX);
        let mut parts: Vec<Range<usize>> = Vec::new();
        let mut part = 0..0;
        let (mut header, mut data) = (header_bytes(builder, Some(0), 0..0), 0u64);
        for (i, tensor) in builder.tensors.iter().enumerate() {
            let info = tensor.header_bytes();
            let size = padded(header + info).saturating_add(data).saturating_add(padded(tensor.bytes));
            if !part.is_empty() && (size > most_bytes || part.len() == most_tensors) {
                try_push(&mut parts, std::mem::replace(&mut part, i..i), PARTS)?;
                (header, data) = (header_bytes(builder, Some(parts.len()), 0..0), 0);
            }
            part.end = i + 1;
            header += info;
            data = data.saturating_add(padded(tensor.bytes));
        }
        try_push(&mut parts, part, PARTS)?;
        let (count, most) = (parts.len(), usize::from(u16::MAX));
        if count > most || i32::try_from(builder.tensors.len()).is_err() {
            let message = format!("expected at most {most} parts, found {count}: allow larger ones");
            return Err(Error::invalid_argument(message).with("expected", most).with("found", count));
        }
        Ok(parts)
    }
}

/// The keys of part `number` of `count`, of `tensors` in all, with types and values as they lie in the file.
pub(super) fn entries(number: usize, count: usize, tensors: usize) -> [(&'static str, Vec<u8>); 3] {
    const U16: u32 = 2;
    const I32: u32 = 5;
    // That they fit was checked when the parts were planned.
    let short = |n: usize| [&U16.to_le_bytes()[..], &(n as u16).to_le_bytes()].concat();
    let long = |n: usize| [I32.to_le_bytes(), (n as i32).to_le_bytes()].concat();
    [(NUMBER, short(number)), (COUNT, short(count)), (TENSORS, long(tensors))]
}

/// `NAME` of `NAME.gguf`.
pub(super) fn prefix(path: &Path) -> PathBuf {
    if path.extension().is_some_and(|extension| extension == "gguf") {
        path.with_extension("")
    } else {
        path.to_owned()
    }
}

/// The path of part `number` (from 0) of `count`.
pub(super) fn part_path(prefix: &Path, number: usize, count: usize) -> PathBuf {
    let mut path = prefix.as_os_str().to_owned();
    path.push(format!("-{:05}-of-{count:05}.gguf", number + 1));
    path.into()
}

/// `NAME`, the part's number (from 0) and the count of a path `NAME-00001-of-00003.gguf`.
fn parse(path: &Path) -> Option<(PathBuf, u64, u64)> {
    let name = path.file_name()?;
    let text = name.to_string_lossy();
    let (rest, count) = text.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let (before, number) = rest.rsplit_once('-')?;
    let digits = |text: &str| {
        let good = text.len() >= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
        if good { text.parse::<u64>().ok() } else { None }
    };
    let prefix = path.with_file_name(without_end(name, text.len() - before.len())?);
    Some((prefix, digits(number)?.checked_sub(1)?, digits(count)?))
}

/// A name, which may be any bytes, without its last `n`, which are ASCII.
#[cfg(unix)]
fn without_end(name: &OsStr, n: usize) -> Option<&OsStr> {
    use std::os::unix::ffi::OsStrExt;
    let bytes = name.as_bytes();
    bytes.get(..bytes.len().checked_sub(n)?).map(OsStr::from_bytes)
}

#[cfg(not(unix))]
fn without_end(name: &OsStr, n: usize) -> Option<&OsStr> {
    let text = name.to_str()?;
    text.get(..text.len().checked_sub(n)?).map(OsStr::new)
}

/// Opens the other parts, if `first` was opened from `path` and is the first of several.
pub(super) fn open_parts(first: &mut Gguf, path: &Path) -> Result<()> {
    let count = first.u64(COUNT)?.unwrap_or(1);
    if count <= 1 {
        return Ok(());
    }
    let this = |error: Error| error.with("path", path.display());
    let number = first.number(NUMBER)?;
    let named = parse(path).filter(|(_, _, n)| *n == count);
    let Some((prefix, named_number, _)) = named else {
        let expected = format!("a name that ends in -{:05}-of-{count:05}.gguf", number.saturating_add(1));
        let message = format!("this is a part of a file split into {count}: expected {expected}");
        return Err(this(Error::invalid_argument(message).with("expected", expected)));
    };
    // A part is a path long, and parts that do not exist end the loop below.
    let part_path = |number: u64| part_path(&prefix, number as usize, count as usize);
    if number > 0 {
        let first = part_path(0);
        let message =
            format!("this is part {} of {count}: open the first, {}", number.saturating_add(1), first.display());
        return Err(this(Error::invalid_argument(message).with("expected", first.display()).with("found", number)));
    }
    if named_number != number {
        let message = format!("key {NUMBER} says that this is part 1, the name that it is part {}", named_number + 1);
        return Err(this(Error::corrupt_file(message).with("key", NUMBER).with("found", number)));
    }
    for number in 1..count {
        let path = part_path(number);
        open_part(first, &path, number, count).map_err(|error| match error.fact("path") {
            Some(_) => error,
            None => error.with("path", path.display()),
        })?;
    }
    first.metadata.by_name = reader::by_name(&first.metadata.tensors).map_err(this)?;
    let (expected, found) = (first.number(TENSORS)?, first.metadata.tensors.len());
    if expected != found as u64 {
        let message = format!("key {TENSORS}: the {count} parts have {found} tensors, expected {expected}");
        return Err(this(
            Error::corrupt_file(message).with("key", TENSORS).with("expected", expected).with("found", found),
        ));
    }
    Ok(())
}

/// Opens one part and adds its tensors.
fn open_part(first: &mut Gguf, path: &Path, number: u64, count: u64) -> Result<()> {
    let part = Gguf::read_metadata(Source::open(path)?, path.display().to_string())?;
    for (key, expected) in [(NUMBER, number), (COUNT, count)] {
        let found = part.number(key)?;
        if found != expected {
            let message = format!("key {key}: expected {expected} in part {} of {count}, found {found}", number + 1);
            return Err(Error::corrupt_file(message).with("key", key).with("expected", expected).with("found", found));
        }
    }
    try_push(&mut first.others, Part { source: part.source, name: part.name }, PARTS)?;
    for mut tensor in part.metadata.tensors {
        tensor.part = first.others.len();
        try_push(&mut first.metadata.tensors, tensor, METADATA)?;
    }
    Ok(())
}

impl Gguf {
    /// The value of a key that must be there.
    fn number(&self, key: &'static str) -> Result<u64> {
        self.u64(key)?.ok_or_else(|| {
            let message = format!("key {key} is missing in a part of a split file");
            self.name_file(0, Error::corrupt_file(message).with("key", key))
        })
    }
}

/// Refuses a part that was not opened from a path, where its other parts cannot be found.
pub(super) fn refuse_part(gguf: Gguf) -> Result<Gguf> {
    match gguf.u64(COUNT)? {
        Some(count) if count > 1 => {
            let message =
                format!("this is a part of a file split into {count}, which can only be opened from its path");
            Err(Error::unsupported(message).with("key", COUNT).with("found", count))
        }
        _ => Ok(gguf),
    }
}
