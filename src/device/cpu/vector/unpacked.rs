//! Panels whose codes are unpacked to bytes, once for all the tiles of columns that they are multiplied with.
//!
//! Products and numbers are those of the packed panels, one block a unit: what is unpacked is itself a [`Panel`]. Where
//! products and the unpacking share ports (Intel's AVX-512), this saves up to a fifth of a product's instructions.

use std::cell::Cell;

use super::super::linear::Job;
use super::super::packed::{ROWS, plane_bytes};
use super::super::simd::{Simd, TileWork};
use super::codes::{Codes, EightBits};
use super::linear::{Panels, Products, QuantisedTile, prefetch};
use super::panels::{Panel, Place};
use crate::error::try_grow;

/// Bytes of the codes of a block: a vector for each four k, a byte a code.
const CODES: usize = 32 * ROWS;
/// Bytes of a row's f32 numbers.
const NUMBERS: usize = 4 * ROWS;
/// Bytes of an unpacked block: codes, scale (or those of both halves), then as many mins.
pub(super) const UNPACKED: usize = CODES + 4 * NUMBERS;

/// Bytes that are unpacked at a time, at most. They are to stay in the second cache; a panel of more is not unpacked.
const TOGETHER: usize = 384 << 10;
/// The widths of tiles that products exist for.
const WIDTHS: [usize; 2] = [12, 8];
/// Columns from which on unpacking once is worth it.
const ENOUGH: usize = 36;

/// A line of memory of blocks.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

thread_local! {
    /// As much as was ever needed, up to `TOGETHER` bytes.
    static LINES: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
}

/// Computes the panels of `job` for the tiles of some widths, which it returns, if there are enough of them.
pub(super) fn linear<S: Simd, P: Panel<UNIT>, const UNIT: usize>(s: S, how: P, job: &Job<'_>) -> &'static [usize] {
    let tiles = || job.tiles().filter(|(_, width)| WIDTHS.contains(width));
    let bytes = job.weight.shape().columns / 32 * UNPACKED;
    if !S::UNPACKS || bytes > TOGETHER || tiles().map(|(_, width)| width).sum::<usize>() < ENOUGH {
        return &[];
    }
    let together = job.panels.len().min(TOGETHER / bytes);
    let mut memory = LINES.take();
    if try_grow(&mut memory, together * bytes / size_of::<Line>(), Line([0; 64]), "unpacked codes").is_err() {
        // Then each tile unpacks for itself.
        return &[];
    }
    for first in job.panels.clone().step_by(together) {
        let range = first..job.panels.end.min(first + together);
        let blocks: &mut [u8] = &mut bytemuck::cast_slice_mut(&mut memory)[..range.len() * bytes];
        for (panel, blocks) in Panels::packed(job, range.clone()).bytes.zip(blocks.chunks_exact_mut(bytes)) {
            s.run_tile::<_, 1>(Unpack { how, panel, blocks: blocks.as_chunks_mut().0 });
        }
        for (start, width) in tiles() {
            let panels = Panels { range: range.clone(), bytes: blocks.chunks_exact(bytes) };
            let tile = QuantisedTile { how: P::Unpacked::default(), job, panels, start, first: false };
            match width {
                12 => s.run_tile::<_, 12>(tile),
                _ => s.run_tile::<_, 8>(tile),
            }
        }
    }
    LINES.set(memory);
    &WIDTHS
}

/// Unpacks a panel.
struct Unpack<'a, P, const UNIT: usize> {
    how: P,
    panel: &'a [u8],
    blocks: &'a mut [[u8; UNPACKED]],
}

impl<P: Panel<UNIT>, const UNIT: usize> TileWork for Unpack<'_, P, UNIT> {
    #[inline(always)]
    fn run<S: Simd, const NY: usize>(self, s: S) {
        let Unpack { how, panel, blocks } = self;
        let units = blocks.len() / P::BLOCKS;
        let (plane, rest) = panel.split_at(plane_bytes(units, P::PLANE));
        let units = rest.as_chunks::<UNIT>().0.iter().zip(blocks.chunks_exact_mut(P::BLOCKS));
        for (u, (unit, blocks)) in units.enumerate() {
            let plane = &plane[u * P::PLANE..(u + 1) * P::PLANE];
            for lane in (0..ROWS).step_by(S::LANES) {
                let head = P::head(s, plane, unit, lane);
                for (b, block) in blocks.iter_mut().enumerate() {
                    prefetch(s, unit, P::BLOCKS, b);
                    how.block(s, head, unit, Place { b, lane }, &mut Writer(block));
                }
            }
        }
    }
}

/// Writes down what the product of a block takes.
struct Writer<'a>(&'a mut [u8; UNPACKED]);

impl Writer<'_> {
    #[inline(always)]
    fn codes<S: Simd, C: Codes>(&mut self, s: S, (how, codes): (C, &[u8]), lane: usize) {
        for half in 0..2 {
            let vectors = how.half(s, codes, half, lane);
            for (j, &vector) in vectors.iter().enumerate() {
                let out = &mut self.0[256 * half + 64 * j + 4 * lane..][..4 * S::LANES];
                s.store(s.bits_as_f32(C::unsigned(s, vector)), bytemuck::cast_slice_mut(out));
            }
        }
    }

    #[inline(always)]
    fn numbers<S: Simd>(&mut self, s: S, place: usize, numbers: S::F, lane: usize) {
        let out = &mut self.0[CODES + place * NUMBERS + 4 * lane..][..4 * S::LANES];
        s.store(numbers, bytemuck::cast_slice_mut(out));
    }
}

impl<S: Simd> Products<S> for Writer<'_> {
    #[inline(always)]
    fn symmetric<C: Codes>(&mut self, s: S, scale: S::F, codes: (C, &[u8]), lane: usize) {
        self.codes(s, codes, lane);
        self.numbers(s, 0, scale, lane);
    }

    #[inline(always)]
    fn with_min<C: Codes>(&mut self, s: S, (scale, min): (S::F, S::F), codes: (C, &[u8]), lane: usize) {
        self.codes(s, codes, lane);
        self.numbers(s, 0, scale, lane);
        self.numbers(s, 1, min, lane);
    }

    #[inline(always)]
    fn halves<C: Codes>(
        &mut self,
        s: S,
        (scales, mins): ([S::F; 2], Option<[S::F; 2]>),
        codes: (C, &[u8]),
        lane: usize,
    ) {
        self.codes(s, codes, lane);
        for half in 0..2 {
            self.numbers(s, half, scales[half], lane);
            if let Some(mins) = mins {
                self.numbers(s, 2 + half, mins[half], lane);
            }
        }
    }
}

/// The numbers in place `place` of a block.
#[inline(always)]
fn numbers<S: Simd>(s: S, block: &[u8; UNPACKED], place: usize, lane: usize) -> S::F {
    s.load(bytemuck::cast_slice(&block[CODES + place * NUMBERS + 4 * lane..][..4 * S::LANES]))
}

/// Makes a type the panels of unpacked blocks that are added by a method of [`Products`].
macro_rules! unpacked {
    ($(#[$doc:meta])* $name:ident, $s:ident, $block:ident, $lane:ident, $product:ident $numbers:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default)]
        pub(super) struct $name;

        impl Panel<UNPACKED> for $name {
            const BLOCKS: usize = 1;
            const PLANE: usize = 0;
            type Unpacked = Self;
            type Head<S: Simd> = ();

            #[inline(always)]
            fn head<S: Simd>(_s: S, _plane: &[u8], _unit: &[u8; UNPACKED], _lane: usize) {}

            #[inline(always)]
            fn block<S: Simd, P: Products<S>>(
                self,
                $s: S,
                _head: (),
                $block: &[u8; UNPACKED],
                place: Place,
                products: &mut P,
            ) {
                let $lane = place.lane;
                products.$product($s, $numbers, (EightBits::<0>, &$block[..CODES]), $lane);
            }
        }
    };
}

unpacked!(
    /// With codes that stand for themselves less 128.
    Symmetric, s, block, lane, symmetric numbers(s, block, 0, lane)
);
unpacked!(
    /// With a min.
    WithMin, s, block, lane, with_min (numbers(s, block, 0, lane), numbers(s, block, 1, lane))
);
unpacked!(
    /// As `Symmetric`, with a scale for each half.
    Halves, s, block, lane, halves ([numbers(s, block, 0, lane), numbers(s, block, 1, lane)], None)
);
unpacked!(
    /// As `WithMin`, likewise.
    HalvesWithMins, s, block, lane,
    halves (
        [numbers(s, block, 0, lane), numbers(s, block, 1, lane)],
        Some([numbers(s, block, 2, lane), numbers(s, block, 3, lane)])
    )
);
