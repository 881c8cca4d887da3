//! Memory maps of a file: the unsafe lines of the reader.

#![allow(unsafe_code)]

use memmap2::{Mmap, MmapOptions};
use std::fs::File;

/// Maps a whole file for reading. What happens when the file is changed is told at [`super::Gguf::open`].
pub(super) fn map(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: the map is private and read-only, so nothing in this process writes to it, and the file stays open as
    // long as the map. Another process can still change the file. The reader is built for that: it reads the map as
    // plain bytes only, checks every length each time against the map's fixed size, and keeps no typed reference
    // into it whose validity depends on the content (text is checked for UTF-8 whenever it is handed out).
    unsafe { Mmap::map(file) }
}

/// Maps `bytes` bytes from `offset` on, which the file must have, for reading.
pub(super) fn map_part(file: &File, offset: u64, bytes: usize) -> std::io::Result<Mmap> {
    // SAFETY: as above. Weights and tables are read as bytes and plain numbers, of which any are valid; what a number leads
    // to is looked up with a check; and the map's size is fixed.
    unsafe { MmapOptions::new().offset(offset).len(bytes).map(file) }
}
