//! The tables of a tokenizer as bytes that can be mapped. A packed file has them as the tensor [`TABLES`], so that
//! loading need not make them again.
//!
//! The bytes are columns of numbers, one after the other: the length in bytes (u64), padding to a multiple of
//! [`ALIGNMENT`], the numbers, padding. The first column is what [`head`] gives. Numbers are in the byte order of the
//! machine: on another the head differs.
//!
//! What is mapped may have been written by anybody, and the keys of the file changed since. So the head holds a
//! checksum of the keys, and each table checks what it takes: nothing in it may lead outside it, or make a search long.

use crate::error::{Error, Result};
use crate::gguf::Gguf;
use bytemuck::{NoUninit, Pod};
use memmap2::Mmap;
use std::hash::{DefaultHasher, Hasher};
use std::marker::PhantomData;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// The tensor that holds the tables, as bytes.
pub(crate) const TABLES: &str = "llm.packed.tables";
/// Begins the tables; its last byte is the version.
const MAGIC: u64 = u64::from_le_bytes(*b"llmtabl\x01");
const ALIGNMENT: usize = 64;

/// Whether tables are made of what this key says.
fn is_key(key: &str) -> bool {
    key.starts_with("tokenizer.ggml.")
}

fn head(gguf: &Gguf) -> [u64; 2] {
    let mut crc = crc32fast::Hasher::new();
    gguf.visit_keys(is_key, |bytes| crc.update(bytes));
    [MAGIC, crc.finalize().into()]
}

/// A start value for the hashes of stored tables. It depends on all keys, so that the same file is always packed alike, and
/// no vocabulary can be written whose keys collide (SipHash, Aumasson and Bernstein, 2012).
pub(super) fn seed(gguf: &Gguf) -> u64 {
    let mut hasher = DefaultHasher::new();
    gguf.visit_keys(is_key, |bytes| hasher.write(bytes));
    hasher.finish()
}

/// Numbers of a table: made, or mapped.
pub(crate) enum Column<T> {
    Made(Vec<T>),
    Mapped(Arc<Mmap>, Range<usize>, PhantomData<T>),
}

impl<T> Column<T> {
    /// The numbers to be changed; `None` if they are mapped.
    #[inline]
    pub fn made(&mut self) -> Option<&mut Vec<T>> {
        match self {
            Column::Made(numbers) => Some(numbers),
            Column::Mapped(..) => None,
        }
    }
}

impl<T: Pod> Deref for Column<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        match self {
            Column::Made(numbers) => numbers,
            // Length and place are checked where the column is taken.
            Column::Mapped(map, range, _) => bytemuck::cast_slice(&map[range.clone()]),
        }
    }
}

/// Tables that are being stored.
pub(super) struct Store(Vec<u8>);

impl Store {
    /// For the tokenizer of `gguf`.
    pub fn new(gguf: &Gguf) -> Result<Store> {
        let mut store = Store(Vec::new());
        store.put(&head(gguf))?;
        Ok(store)
    }

    pub fn put<T: NoUninit>(&mut self, column: &[T]) -> Result<()> {
        let column: &[u8] = bytemuck::cast_slice(column);
        self.0
            .try_reserve(column.len() + 2 * ALIGNMENT)
            .map_err(|_| Error::out_of_memory("the tables of the vocabulary need memory that cannot be had"))?;
        for bytes in [&(column.len() as u64).to_ne_bytes(), column] {
            self.0.extend_from_slice(bytes);
            self.0.resize(self.0.len().next_multiple_of(ALIGNMENT), 0);
        }
        Ok(())
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Tables that were stored, taken in the same order.
pub(super) struct Stored {
    map: Arc<Mmap>,
    at: usize,
}

impl Stored {
    /// Those of a file, if it has some that can be mapped and are those of its keys.
    pub fn of(gguf: &Gguf) -> Result<Option<Stored>> {
        let tensor = gguf.tensor(TABLES).filter(|tensor| tensor.bytes > 0);
        let Some(map) = tensor.map(|tensor| gguf.map(tensor)).transpose()?.flatten() else {
            return Ok(None);
        };
        let mut stored = Stored { map: Arc::new(map), at: 0 };
        let is_aligned = stored.map.as_ptr().addr().is_multiple_of(ALIGNMENT);
        let same = is_aligned && stored.take::<u64>().is_ok_and(|found| *found == head(gguf));
        Ok(Some(stored).filter(|_| same))
    }

    pub fn take<T: Pod>(&mut self) -> Result<Column<T>> {
        let map = Arc::clone(&self.map);
        let length = map.get(self.at..).and_then(|rest| rest.first_chunk()).map(|bytes| u64::from_ne_bytes(*bytes));
        let start = self.at.saturating_add(ALIGNMENT);
        let column = length.and_then(|length| Some(start..start.checked_add(length.try_into().ok()?)?));
        let column =
            column.filter(|column| map.get(column.clone()).is_some_and(|b| b.len().is_multiple_of(size_of::<T>())));
        let column = column.ok_or_else(|| wrong("end within a column"))?;
        self.at = column.end.next_multiple_of(ALIGNMENT);
        Ok(Column::Mapped(map, column, PhantomData))
    }

    /// A column of so many numbers.
    pub fn take_exactly<T: Pod>(&mut self, count: usize) -> Result<Column<T>> {
        let column = self.take()?;
        if column.len() == count { Ok(column) } else { Err(wrong("have a column of another length")) }
    }

    /// A column of one number.
    pub fn take_number(&mut self) -> Result<u64> {
        self.take_exactly(1).map(|column| column[0])
    }
}

/// The error of tables in which something is wrong.
pub(super) fn wrong(what: &str) -> Error {
    Error::corrupt_file(format!("the tables of the vocabulary {what}: pack the model's file again"))
        .with("tensor", TABLES)
}
