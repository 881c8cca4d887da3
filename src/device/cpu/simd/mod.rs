//! The small vector abstraction that the kernels are written over. An instruction set is one file beside this one.
//!
//! A value of a type that implements [`Simd`] is the proof that the CPU has the instructions: it can only be had from
//! a constructor that looked. Slices given to loads and stores must hold at least the bytes that are moved, which is
//! asserted; kernels pass arrays or exact chunks, so the compiler removes the checks.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
pub(super) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512;
#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) mod lanes;
#[cfg(target_arch = "aarch64")]
pub(super) mod neon;
pub(super) mod words;

use super::act::{BLOCK, TilePart, four};
use super::packed::ROWS;
use crate::numeric::Real;

/// Work on a tile of columns, for any number NY of them that kernels exist for.
pub(super) trait TileWork {
    fn run<S: Simd, const NY: usize>(self, s: S);
}

/// Does the work for a tile of `width` columns, in a function of its own: all widths and formats in one would take the
/// compiler minutes.
#[inline(always)]
pub(super) fn run_tile<S: Simd>(s: S, width: usize, work: impl TileWork) {
    match width {
        12 => s.run_tile::<_, 12>(work),
        8 => s.run_tile::<_, 8>(work),
        4 => s.run_tile::<_, 4>(work),
        2 => s.run_tile::<_, 2>(work),
        _ => s.run_tile::<_, 1>(work),
    }
}

/// The values y of a tile's block in 16 bits, for each column: the pairs (y0, y2) of its words, and the pairs (y1, y3).
pub(super) type Pairs<const NY: usize> = [[[i32; BLOCK / 4]; 2]; NY];

/// What of a panel is unpacked once for all of many columns, if anything.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Unpacks {
    /// Products would take as long.
    Nothing,
    /// Bytes, unsigned, that stand for themselves less 128, or for themselves in formats with mins: one kind of product
    /// is then enough for all formats.
    Bytes,
    /// Codes as they are: of unsigned ones 16 bits hold the sum of several products.
    Codes,
}

/// The most vectors that a block fills.
pub(super) const VECTORS: usize = 8;

/// The values of N blocks as bytes, and the sums of those of each half.
#[repr(align(64))]
pub(super) struct BytesAndSums<const N: usize> {
    pub bytes: [[u8; BLOCK]; N],
    pub of_halves: [[i32; 2]; N],
}

/// Whether AMD made the CPU.
#[cfg(target_arch = "x86_64")]
static OF_AMD: std::sync::LazyLock<bool> = std::sync::LazyLock::new(|| {
    let vendor = std::arch::x86_64::__cpuid(0);
    [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).as_flattened() == b"AuthenticAMD"
});

/// The usual [`AHEAD`](Simd::AHEAD).
const BOTH_CACHES: (Option<usize>, usize) = (Some(4096), 1024);

/// An instruction set: vectors of [`LANES`](Simd::LANES) f32 or i32.
pub(super) trait Simd: Copy {
    /// Lanes of a vector; divides 16.
    const LANES: usize;
    /// Vector registers.
    const REGISTERS: usize;
    /// The widest tile of columns that a matrix product has the registers for.
    const WIDEST: usize;
    /// How far ahead of the reading a matrix is asked for, in bytes: from memory into the second cache (nearer, too few
    /// lines are on their way at a time), if that is worth it, and into the first (near enough to stay). With few columns CPUs of
    /// AMD are asked otherwise, see `vector::linear`.
    const AHEAD: (Option<usize>, usize) = BOTH_CACHES;
    /// Products of signed codes with 16 bits take fewer instructions by [`dots_of_pairs`](Simd::dots_of_pairs) than by
    /// `dots_signed` of both parts.
    const PAIRS: bool = false;
    /// What is unpacked once where many columns are multiplied.
    const UNPACKS: Unpacks = Unpacks::Nothing;
    /// Panels that are multiplied together where they are unpacked: those of two vectors.
    const TOGETHER: usize = match Self::UNPACKS {
        Unpacks::Nothing => 1,
        Unpacks::Bytes | Unpacks::Codes => 2 * Self::LANES / ROWS,
    };
    /// What this instruction set differs from in its integer products alone, or itself. What has none is compiled for that one.
    type Base: Simd;
    /// A vector of f32.
    type F: Real;
    /// A vector of i32, or of LANES groups of 4 bytes.
    type I: Copy;

    fn base(self) -> Self::Base;

    /// The CPU is one of AMD's: to what matters in `vector`, the ports of integer products and what is read ahead of the reading
    /// without being asked for, these differ from Intel's with the same instructions.
    fn of_amd(self) -> bool {
        false
    }

    /// Does the work in a function that is compiled for this instruction set. It is not inlined, and says so here:
    /// `inline(never)` of a function with target features is heard only in callers that have these (Rust 1.95).
    fn run_tile<W: TileWork, const NY: usize>(self, work: W);

    /// The same value in every lane.
    fn f32(self, x: f32) -> Self::F;
    fn load(self, x: &[f32]) -> Self::F;
    fn store(self, v: Self::F, out: &mut [f32]);
    /// IEEE half precision to f32, exact.
    fn load_f16(self, x: &[u16]) -> Self::F;
    /// The f32 of these bits.
    fn bits_as_f32(self, a: Self::I) -> Self::F;
    /// The bits of f32 values.
    fn f32_as_bits(self, v: Self::F) -> Self::I;
    /// The upper halves of f32 values.
    #[inline(always)]
    fn load_bf16(self, x: &[u16]) -> Self::F {
        self.bits_as_f32(self.shl::<16>(self.load_u16(x)))
    }
    /// `inside` in lanes low..high, `outside` elsewhere.
    fn select(self, low: usize, high: usize, inside: Self::F, outside: Self::F) -> Self::F;

    fn i32(self, x: i32) -> Self::I;
    /// LANES * 4 bytes.
    fn load_bytes(self, x: &[u8]) -> Self::I;
    /// LANES signed bytes, one a lane.
    fn load_i8(self, x: &[u8]) -> Self::I;
    /// LANES unsigned numbers.
    fn load_u16(self, x: &[u16]) -> Self::I;
    /// `table[byte]` for every byte of `places`, each below 16.
    fn lookup(self, table: &[i8; 16], places: Self::I) -> Self::I;
    fn and(self, a: Self::I, b: Self::I) -> Self::I;
    fn or(self, a: Self::I, b: Self::I) -> Self::I;
    fn add_i32(self, a: Self::I, b: Self::I) -> Self::I;
    fn sub_i32(self, a: Self::I, b: Self::I) -> Self::I;
    /// Every 32-bit lane shifted to the left.
    fn shl<const N: u32>(self, a: Self::I) -> Self::I;
    /// Every 32-bit lane shifted to the right, zeros moving in.
    fn shr<const N: u32>(self, a: Self::I) -> Self::I;
    /// Every 32-bit lane shifted to the right, its sign bit moving in.
    fn sar<const N: u32>(self, a: Self::I) -> Self::I;
    /// As `shr`, by a count known only at run time.
    fn shr_by(self, a: Self::I, n: u32) -> Self::I;
    /// i32 to f32, rounded to nearest even.
    fn to_f32(self, a: Self::I) -> Self::F;
    /// f32 to i32, rounded to nearest even. The values must be in i32's range.
    fn round_to_i32(self, v: Self::F) -> Self::I;
    fn max_i32(self, a: Self::I, b: Self::I) -> Self::I;
    fn largest_lane(self, a: Self::I) -> i32;
    fn sum_of_lanes(self, a: Self::I) -> i32;
    /// Stores the low byte of each lane.
    fn store_low_bytes(self, a: Self::I, out: &mut [u8]);
    /// `largest_lane` of each.
    #[inline(always)]
    fn largest_lanes<const N: usize>(self, a: [Self::I; N]) -> [i32; N] {
        let mut largest = [0; N];
        for n in 0..N {
            largest[n] = self.largest_lane(a[n]);
        }
        largest
    }
    /// What the words of N blocks are made of whose values, in [-127, 127], are in the first of these vectors.
    #[inline(always)]
    fn bytes_and_sums<const N: usize>(self, values: &[[Self::I; VECTORS]; N]) -> BytesAndSums<N> {
        let mut out = BytesAndSums { bytes: [[0; BLOCK]; N], of_halves: [[0; 2]; N] };
        for (n, values) in values.iter().enumerate() {
            let mut sums = [self.i32(0); 2];
            for (v, &vector) in values.iter().enumerate().take(BLOCK / Self::LANES) {
                self.store_low_bytes(vector, &mut out.bytes[n][v * Self::LANES..]);
                let half = v * Self::LANES / (BLOCK / 2);
                sums[half] = self.add_i32(sums[half], vector);
            }
            out.of_halves[n] = [self.sum_of_lanes(sums[0]), self.sum_of_lanes(sums[1])];
        }
        out
    }

    /// Per lane: acc + the products of four times four bytes, `codes` unsigned and below 2^bits, `y` signed
    /// in [-127, 127] and the same in every lane. `bits` is a constant where it is called.
    fn dot(self, bits: u32, acc: Self::I, codes: [Self::I; 4], y: [i32; 4]) -> Self::I;
    /// As `dot` for signed codes; `flipped` is what [`flip`](Simd::flip) made of them.
    fn dot_signed(self, acc: Self::I, flipped: [Self::Signed; 4], y: [i32; 4]) -> Self::I;
    /// `dot` for all columns of a tile, with half `half` of their codes.
    #[inline(always)]
    fn dots<const NY: usize>(
        self,
        bits: u32,
        acc: &mut [Self::I; NY],
        codes: [Self::I; 4],
        y: &TilePart<NY>,
        half: usize,
    ) {
        for c in 0..NY {
            acc[c] = self.dot(bits, acc[c], codes, four(&y[c], half));
        }
    }
    /// `dot_signed`, likewise.
    #[inline(always)]
    fn dots_signed<const NY: usize>(
        self,
        acc: &mut [Self::I; NY],
        flipped: [Self::Signed; 4],
        y: &TilePart<NY>,
        half: usize,
    ) {
        for c in 0..NY {
            acc[c] = self.dot_signed(acc[c], flipped, four(&y[c], half));
        }
    }
    /// acc[v][c] += codes[v] . y[c] for two vectors of rows and all columns, with half `half` of their codes: unpacked bytes,
    /// the vectors of a panel's codes beginning 64 bytes apart. Only where what is unpacked is [`Unpacks::Bytes`].
    #[inline(always)]
    fn dots_of_two<const NC: usize>(
        self,
        acc: &mut [[Self::I; NC]; 2],
        codes: [&[u8]; 2],
        y: &TilePart<NC>,
        half: usize,
    ) {
        for v in 0..2 {
            let mut words = [self.i32(0); 4];
            for j in 0..4 {
                words[j] = self.load_bytes(&codes[v][4 * ROWS * j..]);
            }
            self.dots(8, &mut acc[v], words, y, half);
        }
    }
    /// Per 16 bits: the products of two bytes of `codes`, unsigned and below 2^6, with those of `y`, signed in [-127, 127].
    /// Only where what is unpacked is [`Unpacks::Codes`], as the next three.
    #[inline(always)]
    fn products(self, _codes: Self::I, _y: Self::I) -> Self::I {
        unreachable!("the instruction set makes no products of 16 bits");
    }
    /// The same of signed codes.
    #[inline(always)]
    fn products_signed(self, _codes: Self::I, _y: Self::I) -> Self::I {
        unreachable!("the instruction set makes no products of 16 bits");
    }
    #[inline(always)]
    fn add_i16(self, _a: Self::I, _b: Self::I) -> Self::I {
        unreachable!("the instruction set makes no products of 16 bits");
    }
    /// Per lane: acc + both 16 bits of `sums`.
    #[inline(always)]
    fn widen(self, _acc: Self::I, _sums: Self::I) -> Self::I {
        unreachable!("the instruction set makes no products of 16 bits");
    }
    /// The values 256 q + r of a tile's block, as `dots_of_pairs` takes them.
    #[inline(always)]
    fn pairs<const NY: usize>(self, _q: &TilePart<NY>, _r: &TilePart<NY>) -> Pairs<NY> {
        unreachable!("the instruction set has no PAIRS");
    }
    /// acc[c] += codes . y[c] for all columns of a tile, with half `half` of their values.
    #[inline(always)]
    fn dots_of_pairs<const NY: usize>(
        self,
        _acc: &mut [Self::I; NY],
        _flipped: [Self::Signed; 4],
        _y: &Pairs<NY>,
        _half: usize,
    ) {
        unreachable!("the instruction set has no PAIRS");
    }
    /// Signed codes in the form that `dot_signed` wants.
    type Signed: Copy;
    fn flip(self, codes: Self::I) -> Self::Signed;
    /// Such codes as they are unpacked, see [`Unpacks`].
    #[inline(always)]
    fn unpacked(self, _flipped: Self::Signed) -> Self::I {
        unreachable!("the instruction set does not unpack");
    }
    /// What is to be added to the results of `dot_signed` to have the exact product, with activations of the sum
    /// -`offset_sum` / 128.
    fn signed_excess(self, offset_sum: Self::I) -> Self::I;

    /// Asks for the cache line at `address`, which may be anything, into the first cache.
    fn prefetch(self, address: *const u8);
    /// As `prefetch`, into the second cache.
    fn prefetch_far(self, address: *const u8);
}
