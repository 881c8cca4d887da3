//! How keys and values lie in memory, for one layer of one sequence.
//!
//! Positions come in tiles of 16; a tile holds all heads. The keys of a head are a panel like the weights',
//! `[e][16 positions]`, so that a vector is 16 positions of one e; the values follow, `[16 positions][e]` with e padded
//! to a multiple of 16, so that a vector is 16 e of one position.

use half::slice::HalfFloatSliceExt;

/// Positions of a tile.
pub(crate) const TILE: usize = 16;

/// The number type of cached keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KvType {
    /// IEEE half precision: rounded to nearest even, finite overflow clamped to the largest finite value.
    #[default]
    F16,
    /// Single precision, exact.
    F32,
}

impl KvType {
    /// Bytes of an element.
    pub(crate) fn bytes(self) -> usize {
        match self {
            KvType::F16 => 2,
            KvType::F32 => 4,
        }
    }
}

/// The shape of one layer's cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KvShape {
    /// K.
    pub heads: usize,
    /// E of the keys.
    pub width: usize,
    /// E of the values.
    pub value_width: usize,
    /// Tiles: capacity in positions / 16.
    pub tiles: usize,
    /// Number type.
    pub kv_type: KvType,
}

impl KvShape {
    /// Elements between the values of two positions.
    pub(super) fn value_stride(self) -> usize {
        self.value_width.next_multiple_of(16)
    }

    /// Elements of a head in a tile: keys, then values.
    fn head_elements(self) -> usize {
        TILE * (self.width + self.value_stride())
    }

    /// Bytes of a tile.
    pub(crate) fn tile_bytes(self) -> usize {
        self.heads * self.head_elements() * self.kv_type.bytes()
    }

    /// Bytes of a layer; `None` on overflow.
    pub(crate) fn bytes(self) -> Option<usize> {
        self.tiles.checked_mul(self.tile_bytes())
    }
}

/// A layer's elements.
#[derive(Clone, Copy)]
pub(super) enum Elements<'a> {
    F16(&'a [u16]),
    F32(&'a [f32]),
}

/// A layer's keys and values, to be read.
#[derive(Clone, Copy)]
pub(crate) struct KvView<'a> {
    pub(super) shape: KvShape,
    pub(super) elements: Elements<'a>,
    /// E.
    pub(super) width: usize,
}

impl<'a> KvView<'a> {
    /// The view of the bytes of a layer.
    pub(crate) fn new(shape: KvShape, bytes: &'a [u8]) -> Self {
        let elements = match shape.kv_type {
            KvType::F16 => Elements::F16(bytemuck::cast_slice(bytes)),
            KvType::F32 => Elements::F32(bytemuck::cast_slice(bytes)),
        };
        KvView { shape, elements, width: shape.width }
    }

    /// Where the keys of a head begin in a tile.
    pub(super) fn key_tile(&self, head: usize, tile: usize) -> usize {
        (tile * self.shape.heads + head) * self.shape.head_elements()
    }

    /// Where the values of a head begin in a tile.
    pub(super) fn value_tile(&self, head: usize, tile: usize) -> usize {
        self.key_tile(head, tile) + TILE * self.shape.width
    }

    fn at(&self, index: usize) -> f32 {
        match self.elements {
            Elements::F16(x) => half::f16::from_bits(x[index]).to_f32(),
            Elements::F32(x) => x[index],
        }
    }

    /// Element e of the key at `position`.
    pub(super) fn key(&self, head: usize, position: usize, e: usize) -> f32 {
        self.at(self.key_tile(head, position / TILE) + e * TILE + position % TILE)
    }

    /// Element e of the value at `position`; zero in the padding.
    pub(super) fn value(&self, head: usize, position: usize, e: usize) -> f32 {
        self.at(self.value_tile(head, position / TILE) + position % TILE * self.shape.value_stride() + e)
    }
}

/// Writes the keys and values of consecutive positions of one tile, the first at `lane`. k and v are (T, K * E), each
/// with its own E.
pub(super) fn append(shape: KvShape, tile: &mut [u8], lane: usize, k: &[f32], v: &[f32]) {
    match shape.kv_type {
        KvType::F16 => append_as(shape, bytemuck::cast_slice_mut::<u8, u16>(tile), lane, k, v, round_to_f16),
        KvType::F32 => {
            append_as(shape, bytemuck::cast_slice_mut::<u8, f32>(tile), lane, k, v, <[f32]>::copy_from_slice)
        }
    }
}

fn append_as<X: Copy + Default>(
    shape: KvShape,
    tile: &mut [X],
    lane: usize,
    k: &[f32],
    v: &[f32],
    convert: impl Fn(&mut [X], &[f32]),
) {
    let (e, ve, stride) = (shape.width, shape.value_width, shape.value_stride());
    // Keys are converted a part at a time and then spread over the columns.
    let mut part = [X::default(); 64];
    let rows = k.chunks_exact(shape.heads * e).zip(v.chunks_exact(shape.heads * ve));
    for (lane, (k, v)) in (lane..).zip(rows) {
        let heads = tile.chunks_exact_mut(shape.head_elements());
        for ((tile, k), v) in heads.zip(k.chunks_exact(e)).zip(v.chunks_exact(ve)) {
            let (keys, values) = tile.split_at_mut(TILE * e);
            for (keys, k) in keys.chunks_mut(TILE * part.len()).zip(k.chunks(part.len())) {
                let part = &mut part[..k.len()];
                convert(part, k);
                for (column, &x) in keys.chunks_exact_mut(TILE).zip(&*part) {
                    column[lane] = x;
                }
            }
            convert(&mut values[lane * stride..lane * stride + ve], v);
        }
    }
}

/// Half precision bits: nearest even, finite overflow clamped to +-65504; infinities and NaN pass.
fn round_to_f16(out: &mut [u16], x: &[f32]) {
    let out: &mut [half::f16] = bytemuck::cast_slice_mut(out);
    out.convert_from_f32_slice(x);
    for (out, x) in out.iter_mut().zip(x) {
        if out.is_infinite() && x.is_finite() {
            *out = half::f16::MAX.copysign(*out);
        }
    }
}
