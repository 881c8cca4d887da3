//! How keys and values lie in memory.
//!
//! Positions come in tiles of 16; a tile holds all heads of a layer, and of a head first the keys and then the values.
//!
//! | type | keys | values |
//! |---|---|---|
//! | F16, F32 | `[e][16 positions]`: a vector is 16 positions of one e | `[16 positions][e]`, e padded to a multiple of 16 |
//! | Q8_0, Q4_0 | blocks of 32 e: a plane `[block][16 scales]`, then the codes of a block as a panel of weights has them, a position a row | a plane `[16 positions][block]` of scales, then `[16 positions][block]` codes as GGUF has them |
//!
//! A page holds some tiles of some layers, `[tile][layer]`, so that a large page is touched from its beginning on as it
//! fills. A sequence is a list of pages.

use half::slice::HalfFloatSliceExt;

use super::kv_page::Held;
use crate::error::{Error, Result};
use crate::quant::{Format, TO_HALF};

/// Positions of a tile.
pub(crate) const TILE: usize = 16;
/// Elements that share a scale in a quantised type.
pub(super) const BLOCK: usize = 32;

/// The number type of cached keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum KvType {
    /// IEEE half precision: rounded to nearest even, finite overflow clamped to the largest finite value.
    #[default]
    F16,
    /// Single precision, exact.
    F32,
    /// 8.5 bits: blocks of 32 elements as the format Q8_0 has them. For head widths that are multiples of 32.
    Q8_0,
    /// 4.5 bits: blocks of 32 elements as the format Q4_0 has them. For head widths that are multiples of 32.
    Q4_0,
}

/// How a type stores its elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Store {
    /// So many bytes each.
    Floats(usize),
    /// Blocks of a format, whose codes take so many bytes.
    Blocks(Format, usize),
}

impl KvType {
    /// Every type, in the order of their numbers.
    pub const ALL: [KvType; 4] = [KvType::F16, KvType::F32, KvType::Q8_0, KvType::Q4_0];

    pub(super) fn store(self) -> Store {
        match self {
            KvType::F16 => Store::Floats(2),
            KvType::F32 => Store::Floats(4),
            KvType::Q8_0 => Store::Blocks(Format::Q8_0, 32),
            KvType::Q4_0 => Store::Blocks(Format::Q4_0, 16),
        }
    }

    /// Its name: `f16`, `f32`, `q8_0`, `q4_0`.
    pub fn name(self) -> &'static str {
        match self {
            KvType::F16 => "f16",
            KvType::F32 => "f32",
            KvType::Q8_0 => "q8_0",
            KvType::Q4_0 => "q4_0",
        }
    }
}

/// The keys and values of a position in one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct KvShape {
    /// K.
    pub heads: usize,
    /// E of the keys.
    pub width: usize,
    /// E of the values.
    pub value_width: usize,
    /// Number type.
    pub kv_type: KvType,
}

impl KvShape {
    /// `Unsupported` if the heads do not divide into blocks of the type.
    pub(crate) fn check(self) -> Result<()> {
        let whole = self.width.is_multiple_of(BLOCK) && self.value_width.is_multiple_of(BLOCK);
        if whole || matches!(self.kv_type.store(), Store::Floats(_)) {
            return Ok(());
        }
        let (name, width, values) = (self.kv_type.name(), self.width, self.value_width);
        let message = format!(
            "keys and values of type {name} come in blocks of {BLOCK}, and heads of {width} and {values} do not divide into them"
        );
        Err(Error::unsupported(message).with("kv_type", name).with("head_length", width))
    }

    /// Elements between the values of two positions.
    pub(super) fn value_stride(self) -> usize {
        self.value_width.next_multiple_of(16)
    }

    /// Bytes of a head's keys in a tile.
    fn key_bytes(self) -> usize {
        match self.kv_type.store() {
            Store::Floats(bytes) => TILE * self.width * bytes,
            Store::Blocks(_, codes) => TILE * (self.width / BLOCK) * (2 + codes),
        }
    }

    /// Bytes of a head in a tile.
    fn head_bytes(self) -> usize {
        self.key_bytes()
            + match self.kv_type.store() {
                Store::Floats(bytes) => TILE * self.value_stride() * bytes,
                Store::Blocks(_, codes) => TILE * (self.value_width / BLOCK) * (2 + codes),
            }
    }

    /// Bytes of a tile.
    pub(crate) fn tile_bytes(self) -> usize {
        self.heads * self.head_bytes()
    }

    /// Keys and values of a head, of the bytes of a tile.
    fn head(self, tile: &[u8], head: usize) -> (&[u8], &[u8]) {
        tile[head * self.head_bytes()..(head + 1) * self.head_bytes()].split_at(self.key_bytes())
    }
}

/// Where a sequence keeps its tiles: in its pages one after the other; beyond them, which only a ring gets to, they
/// begin again after the first `pinned` tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Places {
    /// Tiles of a page.
    pub tiles: usize,
    /// Tiles that are never overwritten.
    pub pinned: usize,
}

impl Places {
    /// The place of a tile, of those of `pages` pages.
    #[inline(always)]
    pub(crate) fn of(self, tile: usize, pages: usize) -> usize {
        let all = pages * self.tiles;
        if tile < all { tile } else { self.pinned + (tile - self.pinned) % (all - self.pinned) }
    }
}

/// A layer's keys and values of one sequence, to be read.
#[derive(Clone, Copy)]
pub(crate) struct KvView<'a> {
    pub shape: KvShape,
    /// Of those in the pages.
    pub layer: usize,
    pub places: Places,
    pub pages: &'a [Held],
}

impl<'a> KvView<'a> {
    /// A tile, as bytes.
    pub(crate) fn tile(&self, tile: usize) -> &'a [u8] {
        let place = self.places.of(tile, self.pages.len());
        self.pages[place / self.places.tiles].tile(self.layer, place % self.places.tiles)
    }

    /// Keys and values of a head in a tile, as bytes.
    #[inline(always)]
    pub(super) fn head(&self, head: usize, tile: usize) -> (&'a [u8], &'a [u8]) {
        let place = self.places.of(tile, self.pages.len());
        let page = &self.pages[place / self.places.tiles];
        self.shape.head(page.tile(self.layer, place % self.places.tiles), head)
    }

    /// A float type's element e of the key at `position`.
    pub(super) fn key(&self, head: usize, position: usize, e: usize) -> f32 {
        self.float(self.head(head, position / TILE).0, e * TILE + position % TILE)
    }

    /// A float type's element e of the value at `position`; zero in the padding.
    pub(super) fn value(&self, head: usize, position: usize, e: usize) -> f32 {
        let values = self.head(head, position / TILE).1;
        self.float(values, position % TILE * self.shape.value_stride() + e)
    }

    fn float(&self, elements: &[u8], i: usize) -> f32 {
        match self.shape.kv_type {
            KvType::F32 => bytemuck::cast_slice::<u8, f32>(elements)[i],
            _ => half::f16::from_bits(bytemuck::cast_slice::<u8, u16>(elements)[i]).to_f32(),
        }
    }

    /// A quantised type's block of the key at `position`: its scale, and the integers that this multiplies.
    pub(super) fn key_block(&self, head: usize, position: usize, block: usize) -> (f32, [i32; BLOCK]) {
        let Store::Blocks(_, bytes) = self.shape.kv_type.store() else { unreachable!("a type of blocks") };
        let (scales, codes) = self.head(head, position / TILE).0.split_at(2 * TILE * (self.shape.width / BLOCK));
        let (codes, row) = (&codes[block * TILE * bytes..], position % TILE);
        let own = |i: usize| codes[64 * (i / 4) + 4 * row + i % 4];
        (scale(scales, block * TILE + row), numbers(bytes, own))
    }

    /// As `key_block`, of the value.
    pub(super) fn value_block(&self, head: usize, position: usize, block: usize) -> (f32, [i32; BLOCK]) {
        let Store::Blocks(_, bytes) = self.shape.kv_type.store() else { unreachable!("a type of blocks") };
        let blocks = self.shape.value_width / BLOCK;
        let (scales, codes) = self.head(head, position / TILE).1.split_at(2 * TILE * blocks);
        let at = position % TILE * blocks + block;
        (scale(scales, at), numbers(bytes, |i| codes[at * bytes + i]))
    }

    /// The key of a head at `position`, as numbers.
    pub(crate) fn read_key(&self, head: usize, position: usize, out: &mut [f32]) {
        match self.shape.kv_type.store() {
            Store::Floats(_) => out.iter_mut().enumerate().for_each(|(e, out)| *out = self.key(head, position, e)),
            Store::Blocks(..) => spread(out, |b| self.key_block(head, position, b)),
        }
    }

    /// The value of a head at `position`, as numbers.
    pub(crate) fn read_value(&self, head: usize, position: usize, out: &mut [f32]) {
        match self.shape.kv_type.store() {
            Store::Floats(_) => out.iter_mut().enumerate().for_each(|(e, out)| *out = self.value(head, position, e)),
            Store::Blocks(..) => spread(out, |b| self.value_block(head, position, b)),
        }
    }
}

fn spread(out: &mut [f32], block: impl Fn(usize) -> (f32, [i32; BLOCK])) {
    for (b, out) in out.chunks_exact_mut(BLOCK).enumerate() {
        let (scale, codes) = block(b);
        out.iter_mut().zip(codes).for_each(|(out, code)| *out = scale * code as f32);
    }
}

fn scale(scales: &[u8], i: usize) -> f32 {
    half::f16::from_bits(bytemuck::cast_slice::<u8, u16>(scales)[i]).to_f32()
}

/// The integers of a block of Q8_0 (32 bytes) or Q4_0 (16).
fn numbers(bytes: usize, byte: impl Fn(usize) -> u8) -> [i32; BLOCK] {
    std::array::from_fn(|i| {
        if bytes == BLOCK { i32::from(byte(i) as i8) } else { i32::from(byte(i % bytes) >> (4 * (i / bytes)) & 15) - 8 }
    })
}

/// Where keys and values are to be written: rows of k and v become the positions of one sequence from `position` on.
pub(crate) struct KvTarget<'a> {
    pub shape: KvShape,
    pub layer: usize,
    pub places: Places,
    /// Those that are written to must have no other owner.
    pub pages: &'a mut [Held],
    pub position: usize,
    pub rows: std::ops::Range<usize>,
}

/// Some rows that go into one tile, the first at `lane`.
pub(super) struct TileRows<'a> {
    pub shape: KvShape,
    pub tile: &'a mut [u8],
    pub lane: usize,
    pub rows: std::ops::Range<usize>,
}

impl<'a> KvTarget<'a> {
    /// The rows, cut by tile.
    pub(super) fn tiles(self, parts: &mut Vec<TileRows<'a>>) -> Result<()> {
        let KvTarget { shape, layer, places, pages, position, rows } = self;
        let end = position + rows.len();
        let count = pages.len();
        // (place, tile), in the order in which pages are walked.
        let tiles = (position / TILE..end.div_ceil(TILE)).map(|tile| (places.of(tile, count), tile));
        let mut tiles: Vec<(usize, usize)> = tiles.collect();
        tiles.sort_unstable();
        debug_assert!(tiles.array_windows().all(|[a, b]| a.0 != b.0), "the cache has room");
        // Pages and tiles that are not wanted are skipped at once, however long the sequence is.
        let missing = || Error::internal("a tile that is not reserved is written to");
        let (mut pages, mut next_page) = (pages.iter_mut(), 0);
        let mut wanted = tiles.into_iter().peekable();
        while let Some((first, _)) = wanted.peek() {
            let i = first / places.tiles;
            let page = pages.nth(i - next_page).ok_or_else(missing)?;
            let page = page.get_mut().ok_or_else(|| Error::internal("a page that is shared is written to"))?;
            let (mut all, mut next) = (page.tiles_mut(layer), i * places.tiles);
            while let Some((place, tile)) = wanted.next_if(|(place, _)| place / places.tiles == i) {
                let tile_bytes = all.nth(place - next).ok_or_else(missing)?;
                let (from, to) = (position.max(tile * TILE), end.min((tile + 1) * TILE));
                let own = rows.start + from - position..rows.start + to - position;
                parts.push(TileRows { shape, tile: tile_bytes, lane: from % TILE, rows: own });
                next = place + 1;
            }
            next_page = i + 1;
        }
        Ok(())
    }
}

/// Writes the keys and values of consecutive positions of one tile, the first at `lane`. k and v are (T, K * E), each
/// with its own E.
pub(super) fn append(shape: KvShape, tile: &mut [u8], lane: usize, k: &[f32], v: &[f32]) {
    let rows = k.chunks_exact(shape.heads * shape.width).zip(v.chunks_exact(shape.heads * shape.value_width));
    for (lane, (k, v)) in (lane..).zip(rows) {
        let heads = tile.chunks_exact_mut(shape.head_bytes());
        let parts = k.chunks_exact(shape.width).zip(v.chunks_exact(shape.value_width));
        for (head, (k, v)) in heads.zip(parts) {
            let (keys, values) = head.split_at_mut(shape.key_bytes());
            match shape.kv_type.store() {
                Store::Floats(2) => append_floats::<u16>((keys, values), lane, k, v, round_to_f16),
                Store::Floats(_) => append_floats::<f32>((keys, values), lane, k, v, <[f32]>::copy_from_slice),
                Store::Blocks(format, bytes) => {
                    let (scales, codes) = keys.split_at_mut(2 * TILE * (shape.width / BLOCK));
                    for (b, x) in k.as_chunks::<BLOCK>().0.iter().enumerate() {
                        let block = encode(format, bytes, x);
                        scales[2 * (b * TILE + lane)..][..2].copy_from_slice(&block[..2]);
                        for (i, four) in block[2..2 + bytes].chunks_exact(4).enumerate() {
                            codes[b * TILE * bytes + 64 * i + 4 * lane..][..4].copy_from_slice(four);
                        }
                    }
                    let blocks = shape.value_width / BLOCK;
                    let (scales, codes) = values.split_at_mut(2 * TILE * blocks);
                    for (b, x) in (lane * blocks..).zip(v.as_chunks::<BLOCK>().0) {
                        let block = encode(format, bytes, x);
                        scales[2 * b..][..2].copy_from_slice(&block[..2]);
                        codes[b * bytes..][..bytes].copy_from_slice(&block[2..2 + bytes]);
                    }
                }
            }
        }
    }
}

fn append_floats<X: bytemuck::Pod + Default>(
    (keys, values): (&mut [u8], &mut [u8]),
    lane: usize,
    k: &[f32],
    v: &[f32],
    convert: impl Fn(&mut [X], &[f32]),
) {
    let (keys, values) = (bytemuck::cast_slice_mut::<u8, X>(keys), bytemuck::cast_slice_mut::<u8, X>(values));
    // Keys are converted a part at a time and then spread over the columns.
    let mut part = [X::default(); 64];
    for (keys, k) in keys.chunks_mut(TILE * part.len()).zip(k.chunks(part.len())) {
        let part = &mut part[..k.len()];
        convert(part, k);
        for (column, &x) in keys.chunks_exact_mut(TILE).zip(&*part) {
            column[lane] = x;
        }
    }
    let stride = values.len() / TILE;
    convert(&mut values[lane * stride..lane * stride + v.len()], v);
}

/// A block of a format whose scale, an f16, comes first. An element that is infinite or not a number makes the scale NaN,
/// so that results show it; a scale beyond f16 becomes the largest.
fn encode(format: Format, bytes: usize, x: &[f32; BLOCK]) -> [u8; 2 + BLOCK] {
    let mut block = [0; 2 + BLOCK];
    if !x.iter().all(|x| x.is_finite()) {
        block[..2].copy_from_slice(&half::f16::NAN.to_le_bytes());
        return block;
    }
    // Never fails: one whole block, of a format that encodes.
    let _ = format.encode(x, &mut block[..2 + bytes]);
    let d = half::f16::from_le_bytes([block[0], block[1]]);
    if d.is_infinite() {
        block[..2].copy_from_slice(&half::f16::MAX.copysign(d).to_le_bytes());
    }
    block
}

/// Half precision bits: nearest even, finite overflow clamped to +-65504; infinities and NaN pass.
fn round_to_f16(out: &mut [u16], x: &[f32]) {
    let out: &mut [half::f16] = bytemuck::cast_slice_mut(out);
    out.convert_from_f32_slice(x);
    // Asked of all at once: it hardly ever is so.
    let largest = x.iter().fold(0, |largest, x| largest.max(x.to_bits() as i32 & i32::MAX));
    if largest <= TO_HALF.to_bits() as i32 {
        return;
    }
    for (out, x) in out.iter_mut().zip(x) {
        if out.is_infinite() && x.is_finite() {
            *out = half::f16::MAX.copysign(*out);
        }
    }
}
