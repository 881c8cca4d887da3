//! Panels whose codes are unpacked to bytes, once for all the tiles of columns that they are multiplied with.
//!
//! Products and numbers are those of the packed panels. Where products and the unpacking share ports (VNNI on Intel's CPUs), this
//! saves up to a fifth of a product's instructions; and it makes room for another order of them: see [`super::two_vectors`].

use std::cell::Cell;

use bytemuck::Zeroable;

use super::super::linear::Job;
use super::super::packed::{ROWS, plane_bytes};
use super::super::simd::{Simd, TileWork, Unpacks};
use super::codes::{Bytes, Codes};
use super::linear::{Products, prefetch};
use super::panels::{Panel, Place};
use super::two_vectors::TwoVectors;
use crate::error::try_grow;

/// Bytes of the codes of a block: a vector for each four k, a byte a code.
pub(super) const CODES: usize = 32 * ROWS;

/// An unpacked block: codes, and the rows' scales (or those of both halves), then as many mins.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub(super) struct UnpackedBlock {
    pub codes: [u8; CODES],
    pub numbers: [[f32; ROWS]; 4],
}

/// Bytes of an unpacked block.
const UNPACKED: usize = size_of::<UnpackedBlock>();

/// Bytes that are unpacked at a time, at most, or the panels that are multiplied together. They are to stay in the second
/// cache; a panel of more is not unpacked.
const MOST: usize = 384 << 10;

thread_local! {
    /// As much as was ever needed, up to `MOST` bytes or two panels.
    static BLOCKS: Cell<Vec<UnpackedBlock>> = const { Cell::new(Vec::new()) };
}

/// Computes the panels of `job` for the tiles of some widths, which it returns, if there are enough of them.
pub(super) fn linear<S: Simd, P: Panel<UNIT>, const UNIT: usize>(s: S, how: P, job: &Job<'_>) -> &'static [usize] {
    // The widths of tiles that products exist for, the columns from which on unpacking once is worth it, and the bytes that
    // are unpacked at a time, at most.
    let (widths, enough, most): (&[usize], usize, usize) = match S::UNPACKS {
        Unpacks::Nothing => return &[],
        Unpacks::Codes if job.fine => return &[],
        Unpacks::Bytes if S::LANES == 16 => {
            // AMD's CPUs have integer products in two of four ports, Intel's in both of two. (Formats of larger units have scales
            // to unpack, too.)
            let quick = P::Codes::QUICK && P::BLOCKS == 1;
            let enough = match s.of_amd() {
                true if quick => return &[],
                true if !P::Unpacked::HALVES => 8 * 12,
                _ => 3 * 12,
            };
            (&[12, 8], enough, MOST)
        }
        Unpacks::Bytes | Unpacks::Codes => (&[4], 12, 128 << 10),
    };
    const { assert!(S::TOGETHER > 0) }
    let length = job.weight.shape().columns / 32;
    let columns = job.tiles().map(|(_, width)| width).filter(|width| widths.contains(width));
    if length * UNPACKED > MOST || columns.sum::<usize>() < enough {
        return &[];
    }
    let batch = ((most / (length * UNPACKED) / S::TOGETHER).max(1) * S::TOGETHER).min(job.panels.len()).max(1);
    let mut memory = BLOCKS.take();
    if try_grow(&mut memory, batch * length, Zeroable::zeroed(), "unpacked codes").is_err() {
        // Then each tile unpacks for itself.
        return &[];
    }
    for first in job.panels.clone().step_by(batch) {
        let range = first..job.panels.end.min(first + batch);
        let blocks = &mut memory[..range.len() * length];
        for (panel, blocks) in job.packed_from(range.start).zip(blocks.chunks_exact_mut(length)) {
            s.run_tile::<_, 1>(Unpack { how, panel, blocks });
        }
        // Bytes are of one type, whatever the codes were.
        let of_codes = || TwoVectors::<P::Codes, P::Unpacked>::new(job, range.clone(), blocks);
        let of_bytes = || TwoVectors::<Bytes, P::Unpacked>::new(job, range.clone(), blocks);
        for &width in widths {
            match (S::UNPACKS, width) {
                (Unpacks::Codes, 4) => s.run_tile::<_, 2>(of_codes()),
                (Unpacks::Bytes, 4) if S::LANES == 8 => s.run_tile::<_, 2>(of_bytes()),
                (Unpacks::Bytes, 8) if S::LANES == 16 => s.run_tile::<_, 4>(of_bytes()),
                (Unpacks::Bytes, 12) if S::LANES == 16 => s.run_tile::<_, 6>(of_bytes()),
                _ => unreachable!("tiles of {width} columns are not unpacked"),
            }
        }
    }
    BLOCKS.set(memory);
    widths
}

/// Unpacks a panel.
struct Unpack<'a, P, const UNIT: usize> {
    how: P,
    panel: &'a [u8],
    blocks: &'a mut [UnpackedBlock],
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
                    prefetch(s, S::AHEAD, unit, P::BLOCKS, b);
                    how.block(s, &head, unit, Place { b, lane }, &mut Writer(block));
                }
            }
        }
    }
}

/// Writes down what the product of a block takes.
struct Writer<'a>(&'a mut UnpackedBlock);

impl Writer<'_> {
    #[inline(always)]
    fn codes<S: Simd, C: Codes>(&mut self, s: S, (how, codes): (C, &[u8]), lane: usize) {
        for half in 0..2 {
            let vectors = how.half(s, codes, half, lane);
            for (j, &vector) in vectors.iter().enumerate() {
                let out = &mut self.0.codes[256 * half + 64 * j + 4 * lane..][..4 * S::LANES];
                s.store(s.bits_as_f32(C::unpacked(s, vector)), bytemuck::cast_slice_mut(out));
            }
        }
    }

    #[inline(always)]
    fn numbers<S: Simd>(&mut self, s: S, place: usize, numbers: S::F, lane: usize) {
        s.store(numbers, &mut self.0.numbers[place][lane..]);
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

/// What is in the unpacked blocks of a format.
pub(super) trait Unpacked {
    /// Each half of a block has its scale.
    const HALVES: bool;
    const MINS: bool;
}

/// The unpacked blocks with these.
pub(super) struct Form<const HALVES: bool, const MINS: bool>;

impl<const HALVES: bool, const MINS: bool> Unpacked for Form<HALVES, MINS> {
    const HALVES: bool = HALVES;
    const MINS: bool = MINS;
}

/// One scale a block.
pub(super) type Symmetric = Form<false, false>;
/// One scale and one min.
pub(super) type WithMin = Form<false, true>;
/// A scale for each half.
pub(super) type Halves = Form<true, false>;
/// A scale and a min for each half.
pub(super) type HalvesWithMins = Form<true, true>;
