//! The codes of 32 values of the rows of a vector: from planes of bits to what the integer products take.
//!
//! Vector code here has no closures: one that is not inlined would be compiled without the instruction set.

use super::super::act::{SIGN_OFFSET, TilePart};
use super::super::packed::{NIBBLES, PAIRS};
use super::super::simd::{Pairs, Simd, Unpacks};
use crate::quant::E2M1;

/// How codes are packed, and what is to be taken off their products.
pub(super) trait Codes: Copy {
    /// Bits of unsigned codes; 8 if they are signed.
    const BITS: u32;
    /// A vector is unpacked from one plane of bits, by two instructions at most.
    const QUICK: bool;
    /// Four k values of each row, in the form that `dots` wants.
    type Vector<S: Simd>: Copy;
    /// The four vectors of half `half` of the 32 values, for the rows from `lane` on.
    fn half<S: Simd>(self, s: S, codes: &[u8], half: usize, lane: usize) -> [Self::Vector<S>; 4];
    /// acc[c] += codes . y[c] for all columns of a tile, of codes as `half` gives them.
    fn dots<S: Simd, const NY: usize>(
        s: S,
        acc: &mut [S::I; NY],
        codes: [Self::Vector<S>; 4],
        y: &TilePart<NY>,
        half: usize,
    );
    /// There are `dots_of_pairs`.
    #[inline(always)]
    fn in_pairs<S: Simd>() -> bool {
        false
    }
    /// acc[c] += codes . y[c] for all columns of a tile, nothing in excess. Only where codes are `in_pairs`.
    #[inline(always)]
    fn dots_of_pairs<S: Simd, const NY: usize>(
        _s: S,
        _acc: &mut [S::I; NY],
        _codes: [Self::Vector<S>; 4],
        _y: &Pairs<NY>,
        _half: usize,
    ) {
        unreachable!("unsigned codes have no such products");
    }
    /// Of what `half` gives, the bytes that are written down, as [`Unpacks`] says.
    fn unpacked<S: Simd>(s: S, codes: Self::Vector<S>) -> S::I;
    /// What is to be added to products to have those of the numbers meant, with activations of the sum
    /// -`offset_sum` / 128.
    fn excess<S: Simd>(s: S, offset_sum: S::I) -> S::I;
}

/// A type of unsigned codes that stand for the code less 128 / 2^BELOW. (Formats with mins do not ask for the excess: their
/// codes stand for themselves. They say 0.)
macro_rules! unsigned {
    ($name:ident, $bits:literal, $half:ident, quick $quick:literal) => {
        #[derive(Clone, Copy)]
        pub(super) struct $name<const BELOW: u32>;

        impl<const BELOW: u32> Codes for $name<BELOW> {
            const BITS: u32 = $bits;
            const QUICK: bool = $quick;
            type Vector<S: Simd> = S::I;

            #[inline(always)]
            fn half<S: Simd>(self, s: S, codes: &[u8], half: usize, lane: usize) -> [S::I; 4] {
                $half(s, codes, half, lane)
            }
            #[inline(always)]
            fn dots<S: Simd, const NY: usize>(
                s: S,
                acc: &mut [S::I; NY],
                codes: [S::I; 4],
                y: &TilePart<NY>,
                half: usize,
            ) {
                s.dots($bits, acc, codes, y, half);
            }
            #[inline(always)]
            fn unpacked<S: Simd>(s: S, codes: S::I) -> S::I {
                match S::UNPACKS {
                    // No byte overflows: codes have at most 6 bits where this is not 0.
                    Unpacks::Bytes => s.add_i32(codes, s.i32((SIGN_OFFSET - (SIGN_OFFSET >> BELOW)) * 0x0101_0101)),
                    Unpacks::Codes | Unpacks::Nothing => codes,
                }
            }
            #[inline(always)]
            fn excess<S: Simd>(s: S, offset_sum: S::I) -> S::I {
                s.sar::<BELOW>(offset_sum)
            }
        }
    };
}

unsigned!(TwoBits, 2, pairs, quick true);
unsigned!(ThreeBits, 3, pairs_and_third, quick false);
unsigned!(FourBits, 4, nibbles, quick true);
unsigned!(FiveBits, 5, nibbles_and_fifth, quick false);
unsigned!(SixBits, 6, nibbles_and_upper, quick false);
unsigned!(FloatsOfFourBits, 5, floats, quick false);

/// Makes a type one of signed codes.
macro_rules! signed {
    ($name:ident, $half:ident, quick $quick:literal) => {
        impl Codes for $name {
            const BITS: u32 = 8;
            const QUICK: bool = $quick;
            type Vector<S: Simd> = S::Signed;

            #[inline(always)]
            fn half<S: Simd>(self, s: S, codes: &[u8], half: usize, lane: usize) -> [S::Signed; 4] {
                let [a, b, c, d] = $half(self, s, codes, half, lane);
                [s.flip(a), s.flip(b), s.flip(c), s.flip(d)]
            }
            #[inline(always)]
            fn dots<S: Simd, const NY: usize>(
                s: S,
                acc: &mut [S::I; NY],
                codes: [S::Signed; 4],
                y: &TilePart<NY>,
                half: usize,
            ) {
                s.dots_signed(acc, codes, y, half);
            }
            #[inline(always)]
            fn in_pairs<S: Simd>() -> bool {
                S::PAIRS
            }
            #[inline(always)]
            fn dots_of_pairs<S: Simd, const NY: usize>(
                s: S,
                acc: &mut [S::I; NY],
                codes: [S::Signed; 4],
                y: &Pairs<NY>,
                half: usize,
            ) {
                s.dots_of_pairs(acc, codes, y, half);
            }
            #[inline(always)]
            fn unpacked<S: Simd>(s: S, codes: S::Signed) -> S::I {
                s.unpacked(codes)
            }
            #[inline(always)]
            fn excess<S: Simd>(s: S, offset_sum: S::I) -> S::I {
                s.signed_excess(offset_sum)
            }
        }
    };
}

/// Signed bytes.
#[derive(Clone, Copy)]
pub(super) struct Bytes;
signed!(Bytes, bytes, quick true);

/// Three bits, for a number of a table.
#[derive(Clone, Copy)]
pub(super) struct ThreeLookedUp(pub &'static [i8; 16]);
signed!(ThreeLookedUp, three_looked_up, quick false);

/// Four bits, for a number of a table.
#[derive(Clone, Copy)]
pub(super) struct FourLookedUp(pub &'static [i8; 16]);
signed!(FourLookedUp, four_looked_up, quick false);

#[inline(always)]
fn bytes<S: Simd>(_: Bytes, s: S, codes: &[u8], half: usize, lane: usize) -> [S::I; 4] {
    let at = 256 * half + 4 * lane;
    [
        s.load_bytes(&codes[at..]),
        s.load_bytes(&codes[at + 64..]),
        s.load_bytes(&codes[at + 128..]),
        s.load_bytes(&codes[at + 192..]),
    ]
}

#[inline(always)]
fn nibbles<S: Simd>(s: S, codes: &[u8], half: usize, lane: usize) -> [S::I; 4] {
    let mask = s.i32(0x0F0F_0F0F);
    let mut low = [mask; 4];
    for (j, low) in low.iter_mut().enumerate() {
        let v = s.load_bytes(&codes[64 * j + 4 * lane..]);
        *low = s.and(if half == 0 { v } else { s.shr::<4>(v) }, mask);
    }
    low
}

#[inline(always)]
fn pairs<S: Simd>(s: S, codes: &[u8], half: usize, lane: usize) -> [S::I; 4] {
    let (v, mask) = (s.load_bytes(&codes[64 * half + 4 * lane..]), s.i32(0x0303_0303));
    [s.and(v, mask), s.and(s.shr::<2>(v), mask), s.and(s.shr::<4>(v), mask), s.and(s.shr::<6>(v), mask)]
}

#[inline(always)]
fn pairs_and_third<S: Simd>(s: S, codes: &[u8], half: usize, lane: usize) -> [S::I; 4] {
    let bits = s.load_bytes(&codes[PAIRS + 4 * lane..]);
    let third = if half == 0 {
        [s.shl::<2>(bits), s.shl::<1>(bits), bits, s.shr::<1>(bits)]
    } else {
        [s.shr::<2>(bits), s.shr::<3>(bits), s.shr::<4>(bits), s.shr::<5>(bits)]
    };
    merge(s, pairs(s, codes, half, lane), third, 0x0404_0404)
}

#[inline(always)]
fn nibbles_and_fifth<S: Simd>(s: S, codes: &[u8], half: usize, lane: usize) -> [S::I; 4] {
    let bits = s.load_bytes(&codes[NIBBLES + 4 * lane..]);
    let fifth = if half == 0 {
        [s.shl::<4>(bits), s.shl::<3>(bits), s.shl::<2>(bits), s.shl::<1>(bits)]
    } else {
        [bits, s.shr::<1>(bits), s.shr::<2>(bits), s.shr::<3>(bits)]
    };
    merge(s, nibbles(s, codes, half, lane), fifth, 0x1010_1010)
}

#[inline(always)]
fn nibbles_and_upper<S: Simd>(s: S, codes: &[u8], half: usize, lane: usize) -> [S::I; 4] {
    let bits = s.load_bytes(&codes[NIBBLES + PAIRS / 2 * half + 4 * lane..]);
    let upper = [s.shl::<4>(bits), s.shl::<2>(bits), bits, s.shr::<2>(bits)];
    merge(s, nibbles(s, codes, half, lane), upper, 0x3030_3030)
}

/// low | high & mask
#[inline(always)]
fn merge<S: Simd>(s: S, mut low: [S::I; 4], high: [S::I; 4], mask: i32) -> [S::I; 4] {
    for j in 0..4 {
        low[j] = s.or(low[j], s.and(high[j], s.i32(mask)));
    }
    low
}

#[inline(always)]
fn three_looked_up<S: Simd>(table: ThreeLookedUp, s: S, codes: &[u8], half: usize, lane: usize) -> [S::I; 4] {
    lookup(s, table.0, pairs_and_third(s, codes, half, lane))
}

#[inline(always)]
fn four_looked_up<S: Simd>(table: FourLookedUp, s: S, codes: &[u8], half: usize, lane: usize) -> [S::I; 4] {
    lookup(s, table.0, nibbles(s, codes, half, lane))
}

/// The numbers of MXFP4 and NVFP4, and 16: five bits without sign.
#[inline(always)]
fn floats<S: Simd>(s: S, codes: &[u8], half: usize, lane: usize) -> [S::I; 4] {
    const PLUS_16: [i8; 16] = {
        let (mut table, mut i) = (E2M1, 0);
        while i < 16 {
            table[i] += 16;
            i += 1;
        }
        table
    };
    lookup(s, &PLUS_16, nibbles(s, codes, half, lane))
}

#[inline(always)]
fn lookup<S: Simd>(s: S, table: &[i8; 16], mut codes: [S::I; 4]) -> [S::I; 4] {
    for codes in &mut codes {
        *codes = s.lookup(table, *codes);
    }
    codes
}
