//! The tables of a tokenizer, made for a quarter of a million short keys: one buffer for all pieces, hash tables with
//! open addressing and linear probing, no allocation per key. All can be stored, and used where they lie in a packed file.

use super::stored::{Column, Store, Stored, wrong};
use crate::error::{Error, Result, try_vec};
use bytemuck::{Pod, Zeroable};
use std::hash::{BuildHasher, Hasher, RandomState};

/// The pieces of a vocabulary one after the other in one buffer.
pub(crate) struct Pieces {
    bytes: Column<u8>,
    /// Where each piece ends.
    ends: Column<u32>,
}

impl Pieces {
    /// No pieces, with room for `count` of `bytes` bytes in all.
    pub fn with_capacity(count: usize, bytes: usize) -> Result<Pieces> {
        let (mut text, mut ends) = (Vec::new(), Vec::new());
        ends.try_reserve_exact(count).map_err(|_| out_of_memory())?;
        text.try_reserve_exact(bytes).map_err(|_| out_of_memory())?;
        Ok(Pieces { bytes: Column::Made(text), ends: Column::Made(ends) })
    }

    pub fn store(&self, store: &mut Store) -> Result<()> {
        store.put(&self.bytes)?;
        store.put(&self.ends)
    }

    /// `count` pieces that were stored.
    pub fn stored(stored: &mut Stored, count: usize) -> Result<Pieces> {
        let pieces = Pieces { bytes: stored.take()?, ends: stored.take_exactly(count)? };
        let end = pieces.ends.last().map_or(0, |end| *end as usize);
        if pieces.ends.is_sorted() && end == pieces.bytes.len() {
            Ok(pieces)
        } else {
            Err(wrong("disagree on the pieces"))
        }
    }

    /// Adds a piece that `write` appends to the buffer, for which there must be room.
    #[inline]
    pub fn push<T>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> T) -> Result<T> {
        let (Some(bytes), Some(ends)) = (self.bytes.made(), self.ends.made()) else {
            return Err(Error::internal("a piece is added to those of a file"));
        };
        let result = write(bytes);
        let end = u32::try_from(bytes.len()).map_err(|_| {
            Error::unsupported("a vocabulary of more than 4 GiB of text").with("key", "tokenizer.ggml.tokens")
        })?;
        ends.push(end);
        Ok(result)
    }

    /// The length of the longest piece.
    fn longest(&self) -> usize {
        let first = self.ends.first().copied().unwrap_or(0);
        self.ends.array_windows().map(|[start, end]| end - start).fold(first, u32::max) as usize
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// The bytes of piece `id`; `None` beyond the last.
    pub fn get(&self, id: u32) -> Option<&[u8]> {
        let id = id as usize;
        let end = *self.ends.get(id)? as usize;
        let start = id.checked_sub(1).and_then(|before| self.ends.get(before)).map_or(0, |&start| start as usize);
        self.bytes.get(start..end)
    }
}

fn out_of_memory() -> Error {
    Error::out_of_memory("the vocabulary needs memory that cannot be had")
}

/// Mixes by a multiplication whose two halves are folded (the core of wyhash, Wang Yi, 2019).
#[inline]
fn fold(x: u64) -> u64 {
    let product = u128::from(x) * 0x9E37_79B9_7F4A_7C15;
    (product as u64) ^ ((product >> 64) as u64)
}

/// A start value that the writer of a file cannot know, so that no file can make all its keys collide.
pub(super) fn seed() -> u64 {
    RandomState::new().build_hasher().finish()
}

pub(super) fn hash(seed: u64, key: &[u8]) -> u64 {
    let (words, tail) = key.as_chunks::<8>();
    let mut state = seed;
    for word in words {
        state = fold(state ^ u64::from_le_bytes(*word));
    }
    // At most 7 bytes, so that the length has a place of its own.
    let word = match (key.last_chunk(), tail.first_chunk(), tail.last_chunk()) {
        (Some(last), ..) => u64::from_le_bytes(*last).checked_shr(64 - 8 * tail.len() as u32).unwrap_or(0),
        (None, Some(first), Some(last)) => {
            let (first, last) = (u32::from_le_bytes(*first), u32::from_le_bytes(*last));
            u64::from(first) | u64::from(last) << (8 * tail.len() - 32)
        }
        _ => tail.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte)),
    };
    fold(state ^ word ^ (key.len() as u64) << 56)
}

/// The number of slots for `keys` keys: a power of two that stays at least a third empty.
fn slot_count(keys: usize) -> usize {
    (keys + keys / 2 + 2).next_power_of_two()
}

/// How many keys a table looks at before it takes them in.
pub(super) const TOGETHER: usize = 64;

/// Slots that are filled one after the other, at most, in a table that was stored: so long a search may take. With a
/// seed that nobody chose there are hardly ever 200.
const LONGEST_RUN: usize = 1024;

/// Whether every search in slots ends soon, at an empty one.
fn have_gaps<T>(slots: &[T], is_empty: impl Fn(&T) -> bool) -> bool {
    let (mut run, mut longest) = (0, 0);
    // After the last slot a search goes on at the first.
    for slot in slots.iter().chain(slots.iter().take(LONGEST_RUN)) {
        run = if is_empty(slot) { 0 } else { run + 1 };
        longest = longest.max(run);
    }
    slots.len().is_power_of_two() && longest < slots.len().min(LONGEST_RUN)
}

/// From the bytes of a piece to its id. The bytes themselves stay in [`Pieces`].
pub(crate) struct PieceTable {
    seed: u64,
    /// 1 + the id in the bits of `id_mask`, bits of the hash in the others; 0 is an empty slot.
    slots: Column<u32>,
    id_mask: u32,
    longest: usize,
}

/// The bits that 1 + an id of `ids` needs.
fn id_mask(ids: usize) -> u32 {
    u32::MAX.checked_shr((ids as u32).leading_zeros()).unwrap_or(0)
}

impl PieceTable {
    /// A table for at most `keys` keys, of `ids` ids.
    pub fn new(seed: u64, keys: usize, ids: usize) -> Result<PieceTable> {
        let slots = Column::Made(try_vec(slot_count(keys), 0, "the table of the vocabulary")?);
        Ok(PieceTable { seed, slots, id_mask: id_mask(ids), longest: 0 })
    }

    pub fn store(&self, store: &mut Store) -> Result<()> {
        store.put(&[self.seed])?;
        store.put(&self.slots)
    }

    /// A table of `ids` ids that was stored.
    pub fn stored(stored: &mut Stored, pieces: &Pieces, ids: usize) -> Result<PieceTable> {
        let (seed, slots, id_mask) = (stored.take_number()?, stored.take::<u32>()?, id_mask(ids));
        let is_id = |slot: &u32| (1..=ids).contains(&((slot & id_mask) as usize));
        if !have_gaps(&slots, |slot| *slot == 0) || !slots.iter().all(|slot| *slot == 0 || is_id(slot)) {
            return Err(wrong("have pieces that cannot be found"));
        }
        Ok(PieceTable { seed, slots, id_mask, longest: pieces.longest() })
    }

    /// The slot that holds the key of this hash or, if there is none, the empty one in which it belongs; with the bits of
    /// the hash that stand in it.
    fn slot(&self, pieces: &Pieces, key: &[u8], hash: u64) -> (usize, u32) {
        let slots = &*self.slots;
        let (tag, mask) = ((hash >> 32) as u32 & !self.id_mask, slots.len() - 1);
        let mut at = hash as usize & mask;
        // An end also where another process has overwritten a file that is mapped.
        for _ in 0..slots.len() {
            let Some(&slot) = slots.get(at) else { break };
            let same = || slot & !self.id_mask == tag && pieces.get((slot & self.id_mask) - 1) == Some(key);
            if slot == 0 || same() {
                break;
            }
            at = (at + 1) & mask;
        }
        (at, tag)
    }

    /// Adds the key of piece `id`; a key that is there keeps its id, so that of equal pieces the first counts.
    /// No more keys may be added than `new` was told.
    pub fn insert(&mut self, pieces: &Pieces, id: u32) {
        let Some(key) = pieces.get(id) else { return };
        self.insert_hashed(pieces, id, key, hash(self.seed, key));
    }

    /// As `insert`, for each of some. Their slots are looked at before any is filled: memory answers many at a time.
    pub fn insert_all(&mut self, pieces: &Pieces, ids: &[u32]) {
        for ids in ids.chunks(TOGETHER) {
            let mut hashes = [0; TOGETHER];
            for (&id, own) in ids.iter().zip(&mut hashes) {
                *own = hash(self.seed, pieces.get(id).unwrap_or_default());
            }
            // A loop of its own, so short that the CPU asks for many slots before the first is there.
            let slots = &*self.slots;
            let look = |seen, hash: &u64| seen ^ slots[*hash as usize & (slots.len() - 1)];
            std::hint::black_box(hashes[..ids.len()].iter().fold(0, look));
            for (&id, hash) in ids.iter().zip(hashes) {
                self.insert_hashed(pieces, id, pieces.get(id).unwrap_or_default(), hash);
            }
        }
    }

    fn insert_hashed(&mut self, pieces: &Pieces, id: u32, key: &[u8], hash: u64) {
        let (at, tag) = self.slot(pieces, key, hash);
        if let Some(slot @ &mut 0) = self.slots.made().and_then(|slots| slots.get_mut(at)) {
            *slot = tag | (id + 1);
            self.longest = self.longest.max(key.len());
        }
    }

    /// The length of the longest key.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// The id of the piece with exactly these bytes.
    pub fn get(&self, pieces: &Pieces, key: &[u8]) -> Option<u32> {
        if key.len() > self.longest {
            return None;
        }
        let (at, _) = self.slot(pieces, key, hash(self.seed, key));
        (self.slots.get(at)? & self.id_mask).checked_sub(1)
    }
}

/// What two neighbouring tokens merge into.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Merge {
    /// Merges of lower rank come first.
    pub rank: u32,
    pub id: u32,
}

/// From two tokens to what they merge into.
pub(crate) struct MergeTable {
    seed: u64,
    slots: Column<MergeSlot>,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct MergeSlot {
    /// Left id and right id.
    pair: u64,
    merge: Merge,
}

/// No pair: ids are below `u32::MAX`.
const NO_PAIR: u64 = u64::MAX;

fn pair(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

impl MergeTable {
    /// A table for at most `keys` merges.
    pub fn new(seed: u64, keys: usize) -> Result<MergeTable> {
        let empty = MergeSlot { pair: NO_PAIR, merge: Merge { rank: u32::MAX, id: u32::MAX } };
        Ok(MergeTable { seed, slots: Column::Made(try_vec(slot_count(keys), empty, "the table of merges")?) })
    }

    pub fn store(&self, store: &mut Store) -> Result<()> {
        store.put(&[self.seed])?;
        store.put(&self.slots)
    }

    /// A table that was stored, of merges into one of `ids` ids.
    pub fn stored(stored: &mut Stored, ids: usize) -> Result<MergeTable> {
        let (seed, slots) = (stored.take_number()?, stored.take::<MergeSlot>()?);
        let is_empty = |slot: &MergeSlot| slot.pair == NO_PAIR;
        if !have_gaps(&slots, is_empty) || !slots.iter().all(|slot| is_empty(slot) || (slot.merge.id as usize) < ids) {
            return Err(wrong("have merges that cannot be found"));
        }
        Ok(MergeTable { seed, slots })
    }

    fn slot(slots: &[MergeSlot], seed: u64, left: u32, right: u32) -> (usize, u64) {
        let key = pair(left, right);
        let mask = slots.len() - 1;
        let mut at = fold(seed ^ key) as usize & mask;
        for _ in 0..slots.len() {
            let Some(slot) = slots.get(at) else { break };
            if slot.pair == key || slot.pair == NO_PAIR {
                break;
            }
            at = (at + 1) & mask;
        }
        (at, key)
    }

    /// Adds a merge; of two merges of the same pair the first counts.
    /// No more merges may be added than `new` was told.
    pub fn insert(&mut self, left: u32, right: u32, merge: Merge) {
        let Some(slots) = self.slots.made() else { return };
        let (at, pair) = MergeTable::slot(slots, self.seed, left, right);
        if let Some(slot @ MergeSlot { pair: NO_PAIR, .. }) = slots.get_mut(at) {
            *slot = MergeSlot { pair, merge };
        }
    }

    /// As `insert`, for each of some: left, right and what they merge into. As in [`PieceTable::insert_all`], memory answers
    /// many at a time.
    pub fn insert_all(&mut self, merges: &[(u32, u32, Merge)]) {
        for merges in merges.chunks(TOGETHER) {
            let slots = &*self.slots;
            let look = |seen, &(left, right, _): &(u32, u32, Merge)| {
                seen ^ slots[fold(self.seed ^ pair(left, right)) as usize & (slots.len() - 1)].pair
            };
            std::hint::black_box(merges.iter().fold(0, look));
            merges.iter().for_each(|&(left, right, merge)| self.insert(left, right, merge));
        }
    }

    /// What the pair merges into.
    pub fn get(&self, left: u32, right: u32) -> Option<Merge> {
        let slots = &*self.slots;
        let (at, _) = MergeTable::slot(slots, self.seed, left, right);
        slots.get(at).filter(|slot| slot.pair != NO_PAIR).map(|slot| slot.merge)
    }
}

/// Which byte comes right after which inside the tokens that merging can give. Where a text has two bytes that no token
/// has, nothing merges across: a text can be cut there, mostly before spaces.
pub(crate) struct Adjacency {
    /// Entry `b` of entry `a`: whether `b` follows `a`.
    follows: Box<[[bool; 256]; 256]>,
}

impl Adjacency {
    pub fn new() -> Adjacency {
        Adjacency { follows: Box::new([[false; 256]; 256]) }
    }

    pub fn store(&self, store: &mut Store) -> Result<()> {
        store.put(self.follows.as_flattened())
    }

    pub fn stored(stored: &mut Stored) -> Result<Adjacency> {
        let mut adjacency = Adjacency::new();
        let column = stored.take_exactly::<u8>(1 << 16)?;
        adjacency.follows.as_flattened_mut().iter_mut().zip(&*column).for_each(|(follows, byte)| *follows = *byte != 0);
        Ok(adjacency)
    }

    pub fn insert(&mut self, piece: &[u8]) {
        let follows = &mut *self.follows;
        for &[a, b] in piece.array_windows() {
            follows[usize::from(a)][usize::from(b)] = true;
        }
    }

    pub fn get(&self, a: u8, b: u8) -> bool {
        self.follows[usize::from(a)][usize::from(b)]
    }
}
