//! The packed panels of the quantised formats: where a unit keeps its numbers, and which product they enter.

use super::super::act::SIGN_OFFSET;
use super::super::packed::{BITS, NIBBLES, PAIRS, ROWS, SCALES, TWO};
use super::super::simd::Simd;
use super::codes::{
    Bytes, Codes, FiveBits, FloatsOfFourBits, FourBits, FourLookedUp, SixBits, ThreeBits, ThreeLookedUp, TwoBits,
};
use super::linear::{Products, row_numbers};
use super::unpacked::{Halves, HalvesWithMins, Symmetric, Unpacked, WithMin};
use crate::numeric::Real;
use crate::quant::IQ4;

/// Block of the unit, and first row of the vector.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub b: usize,
    pub lane: usize,
}

/// The packed panel of a quantised format, whose unit is UNIT bytes.
pub(super) trait Panel<const UNIT: usize>: Copy {
    /// Blocks of 32 values in a unit.
    const BLOCKS: usize;
    /// Bytes of a unit's scales in the plane.
    const PLANE: usize;
    /// How its codes are packed; what `block` hands over.
    type Codes: Codes;
    /// What its unpacked blocks hold.
    type Unpacked: Unpacked;
    /// What is unpacked once a unit.
    type Head<S: Simd>: Copy;
    fn head<S: Simd>(s: S, plane: &[u8], unit: &[u8; UNIT], lane: usize) -> Self::Head<S>;
    /// Hands block `b` of the unit to `products`.
    fn block<S: Simd, P: Products<S>>(
        self,
        s: S,
        head: &Self::Head<S>,
        unit: &[u8; UNIT],
        place: Place,
        products: &mut P,
    );
}

/// A symmetric format whose unit has one scale, in the plane, and BLOCKS times CODES bytes of codes.
macro_rules! symmetric_format {
    ($name:ident, blocks $blocks:literal, codes $bytes:expr, $type:ty: $codes:expr) => {
        #[derive(Clone, Copy)]
        pub(super) struct $name;

        impl Panel<{ $blocks * ($bytes) }> for $name {
            const BLOCKS: usize = $blocks;
            const PLANE: usize = 2 * ROWS;
            type Codes = $type;
            type Unpacked = Symmetric;
            type Head<S: Simd> = S::F;

            #[inline(always)]
            fn head<S: Simd>(s: S, plane: &[u8], _unit: &[u8; $blocks * ($bytes)], lane: usize) -> S::F {
                row_numbers(s, plane, lane)
            }

            #[inline(always)]
            fn block<S: Simd, P: Products<S>>(
                self,
                s: S,
                scale: &S::F,
                unit: &[u8; $blocks * ($bytes)],
                place: Place,
                products: &mut P,
            ) {
                let codes: &[u8] = if $blocks == 1 { unit } else { &unit[place.b * ($bytes)..] };
                products.symmetric::<Self::Codes>(s, *scale, ($codes, codes), place.lane);
            }
        }
    };
}

symmetric_format!(Q4_0, blocks 1, codes NIBBLES, FourBits<4>: FourBits);
symmetric_format!(Q5_0, blocks 1, codes NIBBLES + BITS, FiveBits<3>: FiveBits);
symmetric_format!(Q8_0, blocks 1, codes 512, Bytes: Bytes);
symmetric_format!(IQ4NL, blocks 1, codes NIBBLES, FourLookedUp: FourLookedUp(&IQ4));
symmetric_format!(Ternary, blocks 8, codes PAIRS, TwoBits<7>: TwoBits);

#[derive(Clone, Copy)]
pub(super) struct MXFP4;

impl Panel<NIBBLES> for MXFP4 {
    const BLOCKS: usize = 1;
    const PLANE: usize = ROWS;
    type Codes = FloatsOfFourBits<3>;
    type Unpacked = Symmetric;
    type Head<S: Simd> = S::F;

    /// 2^(e - 128) as the product of 2^(h - 64) and 2^(e - h - 64), h = e / 2: the result may be subnormal, they are not.
    #[inline(always)]
    fn head<S: Simd>(s: S, plane: &[u8], _unit: &[u8; NIBBLES], lane: usize) -> S::F {
        let e = s.and(s.load_i8(&plane[lane..]), s.i32(0xFF));
        let (half, bias) = (s.shr::<1>(e), s.i32(127 - 64));
        let rest = s.sub_i32(e, half);
        let first = s.bits_as_f32(s.shl::<23>(s.add_i32(half, bias)));
        first.mul(s.bits_as_f32(s.shl::<23>(s.add_i32(rest, bias))))
    }

    #[inline(always)]
    fn block<S: Simd, P: Products<S>>(self, s: S, scale: &S::F, unit: &[u8; NIBBLES], place: Place, products: &mut P) {
        products.symmetric::<Self::Codes>(s, *scale, (FloatsOfFourBits, unit), place.lane);
    }
}

/// Bytes of a unit of IQ4_XS: low and high bits of the scales, then the codes.
pub(super) const IQ4XS_UNIT: usize = 64 + 32 + 8 * NIBBLES;

/// D, and the 6-bit scales of 8 blocks: their low four bits a nibble each, the others two bits each.
#[derive(Clone, Copy)]
pub(super) struct IQ4XSHead<S: Simd> {
    d: S::F,
    low: S::I,
    high: S::I,
}

#[derive(Clone, Copy)]
pub(super) struct IQ4XS;

impl Panel<IQ4XS_UNIT> for IQ4XS {
    const BLOCKS: usize = 8;
    const PLANE: usize = 2 * ROWS;
    type Codes = FourLookedUp;
    type Unpacked = Symmetric;
    type Head<S: Simd> = IQ4XSHead<S>;

    #[inline(always)]
    fn head<S: Simd>(s: S, plane: &[u8], unit: &[u8; IQ4XS_UNIT], lane: usize) -> IQ4XSHead<S> {
        IQ4XSHead {
            d: row_numbers(s, plane, lane),
            low: s.load_bytes(&unit[4 * lane..]),
            high: s.load_u16(bytemuck::cast_slice(&unit[64 + 2 * lane..64 + 2 * (lane + S::LANES)])),
        }
    }

    #[inline(always)]
    fn block<S: Simd, P: Products<S>>(
        self,
        s: S,
        head: &IQ4XSHead<S>,
        unit: &[u8; IQ4XS_UNIT],
        place: Place,
        products: &mut P,
    ) {
        let low = s.and(s.shr_by(head.low, 4 * place.b as u32), s.i32(15));
        let high = s.and(s.shr_by(head.high, 2 * place.b as u32), s.i32(3));
        let scale = s.to_f32(s.sub_i32(s.or(low, s.shl::<4>(high)), s.i32(32)));
        let codes = &unit[96..].as_chunks::<NIBBLES>().0[place.b];
        products.symmetric::<Self::Codes>(s, head.d.mul(scale), (FourLookedUp(&IQ4), codes), place.lane);
    }
}

/// A format with a min, one block a unit.
macro_rules! min_format {
    ($name:ident, codes $bytes:expr, $codes:path) => {
        #[derive(Clone, Copy)]
        pub(super) struct $name;

        impl Panel<{ TWO + $bytes }> for $name {
            const BLOCKS: usize = 1;
            const PLANE: usize = 0;
            type Codes = $codes;
            type Unpacked = WithMin;
            type Head<S: Simd> = (S::F, S::F);

            #[inline(always)]
            fn head<S: Simd>(s: S, _plane: &[u8], unit: &[u8; TWO + $bytes], lane: usize) -> (S::F, S::F) {
                (row_numbers(s, unit, lane), row_numbers(s, &unit[TWO / 2..], lane))
            }

            #[inline(always)]
            fn block<S: Simd, P: Products<S>>(
                self,
                s: S,
                head: &(S::F, S::F),
                unit: &[u8; TWO + $bytes],
                place: Place,
                products: &mut P,
            ) {
                products.with_min::<Self::Codes>(s, *head, ($codes, &unit[TWO..]), place.lane);
            }
        }
    };
}

min_format!(Q4_1, codes NIBBLES, FourBits::<0>);
min_format!(Q5_1, codes NIBBLES + BITS, FiveBits::<0>);

/// D, Dmin and the 6-bit scales and mins of 8 blocks: four to a vector, a byte each.
#[derive(Clone, Copy)]
pub(super) struct KHead<S: Simd> {
    d: S::F,
    dmin: S::F,
    scales: [S::I; 2],
    mins: [S::I; 2],
}

impl<S: Simd> KHead<S> {
    #[inline(always)]
    fn new(s: S, unit: &[u8], lane: usize) -> Self {
        let u0 = s.load_bytes(&unit[TWO + 4 * lane..]);
        let u1 = s.load_bytes(&unit[TWO + 64 + 4 * lane..]);
        let u2 = s.load_bytes(&unit[TWO + 128 + 4 * lane..]);
        let (six, four, upper) = (s.i32(0x3F3F_3F3F), s.i32(0x0F0F_0F0F), s.i32(0x3030_3030));
        KHead {
            d: row_numbers(s, unit, lane),
            dmin: row_numbers(s, &unit[TWO / 2..], lane),
            scales: [s.and(u0, six), s.or(s.and(u2, four), s.and(s.shr::<2>(u0), upper))],
            mins: [s.and(u1, six), s.or(s.and(s.shr::<4>(u2), four), s.and(s.shr::<2>(u1), upper))],
        }
    }

    /// s = D * scale and m = -(Dmin * min) of block `b`.
    #[inline(always)]
    fn scale_and_min(&self, s: S, b: usize) -> (S::F, S::F) {
        let (shift, byte) = (8 * (b as u32 % 4), s.i32(0xFF));
        let scale = s.to_f32(s.and(s.shr_by(self.scales[b / 4], shift), byte));
        let min = s.to_f32(s.and(s.shr_by(self.mins[b / 4], shift), byte));
        (self.d.mul(scale), s.f32(0.0).sub(self.dmin.mul(min)))
    }
}

/// A format of 256 values with 6-bit scales and mins.
macro_rules! k_format {
    ($name:ident, codes $size:expr, $codes:path) => {
        #[derive(Clone, Copy)]
        pub(super) struct $name;

        impl Panel<{ TWO + SCALES + 8 * ($size) }> for $name {
            const BLOCKS: usize = 8;
            const PLANE: usize = 0;
            type Codes = $codes;
            type Unpacked = WithMin;
            type Head<S: Simd> = KHead<S>;

            #[inline(always)]
            fn head<S: Simd>(s: S, _plane: &[u8], unit: &[u8; TWO + SCALES + 8 * ($size)], lane: usize) -> KHead<S> {
                KHead::new(s, unit, lane)
            }

            #[inline(always)]
            fn block<S: Simd, P: Products<S>>(
                self,
                s: S,
                head: &KHead<S>,
                unit: &[u8; TWO + SCALES + 8 * ($size)],
                place: Place,
                products: &mut P,
            ) {
                let codes = &unit[TWO + SCALES..].as_chunks::<{ $size }>().0[place.b];
                let numbers = head.scale_and_min(s, place.b);
                products.with_min::<Self::Codes>(s, numbers, ($codes, codes), place.lane);
            }
        }
    };
}

k_format!(Q4K, codes NIBBLES, FourBits::<0>);
k_format!(Q5K, codes NIBBLES + BITS, FiveBits::<0>);

#[derive(Clone, Copy)]
pub(super) struct Q6K;

/// Bytes of a block of Q6_K: codes, then the scales of its two halves.
const Q6K_BLOCK: usize = NIBBLES + PAIRS + 2 * ROWS;
/// Bytes of a unit of Q6_K.
pub(super) const Q6K_UNIT: usize = 8 * Q6K_BLOCK;

impl Panel<Q6K_UNIT> for Q6K {
    const BLOCKS: usize = 8;
    const PLANE: usize = 2 * ROWS;
    type Codes = SixBits<2>;
    type Unpacked = Halves;
    type Head<S: Simd> = S::F;

    #[inline(always)]
    fn head<S: Simd>(s: S, plane: &[u8], _unit: &[u8; Q6K_UNIT], lane: usize) -> S::F {
        row_numbers(s, plane, lane)
    }

    #[inline(always)]
    fn block<S: Simd, P: Products<S>>(self, s: S, d: &S::F, unit: &[u8; Q6K_UNIT], place: Place, products: &mut P) {
        let part = &unit.as_chunks::<Q6K_BLOCK>().0[place.b];
        let tail = &part[NIBBLES + PAIRS..];
        let first = d.mul(s.to_f32(s.load_i8(&tail[place.lane..])));
        let second = d.mul(s.to_f32(s.load_i8(&tail[ROWS + place.lane..])));
        products.halves::<Self::Codes>(s, ([first, second], None), (SixBits, part), place.lane);
    }
}

#[derive(Clone, Copy)]
pub(super) struct Q3K;

/// Bytes of a unit of Q3_K: packed scales, then the codes.
pub(super) const Q3K_UNIT: usize = SCALES + 8 * (PAIRS + BITS);

/// D and the 6-bit scales of 16 half blocks: four to a vector, a byte each.
#[derive(Clone, Copy)]
pub(super) struct Q3KHead<S: Simd> {
    d: S::F,
    scales: [S::I; 4],
}

impl Panel<Q3K_UNIT> for Q3K {
    const BLOCKS: usize = 8;
    const PLANE: usize = 2 * ROWS;
    type Codes = ThreeBits<5>;
    type Unpacked = Halves;
    type Head<S: Simd> = Q3KHead<S>;

    #[inline(always)]
    fn head<S: Simd>(s: S, plane: &[u8], unit: &[u8; Q3K_UNIT], lane: usize) -> Q3KHead<S> {
        let u0 = s.load_bytes(&unit[4 * lane..]);
        let u1 = s.load_bytes(&unit[64 + 4 * lane..]);
        let u2 = s.load_bytes(&unit[128 + 4 * lane..]);
        let (four, upper) = (s.i32(0x0F0F_0F0F), s.i32(0x3030_3030));
        let scales = [
            s.or(s.and(u0, four), s.and(s.shl::<4>(u2), upper)),
            s.or(s.and(u1, four), s.and(s.shl::<2>(u2), upper)),
            s.or(s.and(s.shr::<4>(u0), four), s.and(u2, upper)),
            s.or(s.and(s.shr::<4>(u1), four), s.and(s.shr::<2>(u2), upper)),
        ];
        Q3KHead { d: row_numbers(s, plane, lane), scales }
    }

    #[inline(always)]
    fn block<S: Simd, P: Products<S>>(
        self,
        s: S,
        head: &Q3KHead<S>,
        unit: &[u8; Q3K_UNIT],
        place: Place,
        products: &mut P,
    ) {
        let codes = &unit[SCALES..].as_chunks::<{ PAIRS + BITS }>().0[place.b];
        let mut scales = [head.d; 2];
        for (half, scale) in scales.iter_mut().enumerate() {
            let g = 2 * place.b + half;
            let six_bits = s.and(s.shr_by(head.scales[g / 4], 8 * (g as u32 % 4)), s.i32(0xFF));
            *scale = head.d.mul(s.to_f32(s.sub_i32(six_bits, s.i32(32))));
        }
        products.halves::<Self::Codes>(s, (scales, None), (ThreeBits, codes), place.lane);
    }
}

#[derive(Clone, Copy)]
pub(super) struct Q2K;

/// Bytes of a block of Q2_K: codes, then scales and mins of its two halves, a nibble each.
const Q2K_BLOCK: usize = PAIRS + 2 * ROWS;
/// Bytes of a unit of Q2_K.
pub(super) const Q2K_UNIT: usize = TWO + 8 * Q2K_BLOCK;

impl Panel<Q2K_UNIT> for Q2K {
    const BLOCKS: usize = 8;
    const PLANE: usize = 0;
    type Codes = TwoBits<0>;
    type Unpacked = HalvesWithMins;
    type Head<S: Simd> = (S::F, S::F);

    #[inline(always)]
    fn head<S: Simd>(s: S, _plane: &[u8], unit: &[u8; Q2K_UNIT], lane: usize) -> (S::F, S::F) {
        let per_sum = s.f32(1.0 / SIGN_OFFSET as f32);
        (row_numbers(s, unit, lane), row_numbers(s, &unit[TWO / 2..], lane).mul(per_sum))
    }

    #[inline(always)]
    fn block<S: Simd, P: Products<S>>(
        self,
        s: S,
        &(d, dmin): &(S::F, S::F),
        unit: &[u8; Q2K_UNIT],
        place: Place,
        products: &mut P,
    ) {
        let part = &unit[TWO..].as_chunks::<Q2K_BLOCK>().0[place.b];
        let (mut scales, mut mins, four) = ([d; 2], [dmin; 2], s.i32(15));
        for half in 0..2 {
            let both = s.load_i8(&part[PAIRS + ROWS * half + place.lane..]);
            scales[half] = d.mul(s.to_f32(s.and(both, four)));
            mins[half] = dmin.mul(s.to_f32(s.and(s.shr::<4>(both), four)));
        }
        products.halves::<Self::Codes>(s, (scales, Some(mins)), (TwoBits, part), place.lane);
    }
}

#[derive(Clone, Copy)]
pub(super) struct NVFP4;

/// Bytes of a block of NVFP4: codes, then the scales of its two halves.
const NVFP4_BLOCK: usize = NIBBLES + 2 * ROWS;
/// Bytes of a unit of NVFP4.
pub(super) const NVFP4_UNIT: usize = 2 * NVFP4_BLOCK;

impl Panel<NVFP4_UNIT> for NVFP4 {
    const BLOCKS: usize = 2;
    const PLANE: usize = 0;
    type Codes = FloatsOfFourBits<3>;
    type Unpacked = Halves;
    type Head<S: Simd> = ();

    #[inline(always)]
    fn head<S: Simd>(_s: S, _plane: &[u8], _unit: &[u8; NVFP4_UNIT], _lane: usize) {}

    #[inline(always)]
    fn block<S: Simd, P: Products<S>>(self, s: S, _head: &(), unit: &[u8; NVFP4_UNIT], place: Place, products: &mut P) {
        let part = &unit.as_chunks::<NVFP4_BLOCK>().0[place.b];
        let scales = [e4m3(s, &part[NIBBLES + place.lane..]), e4m3(s, &part[NIBBLES + ROWS + place.lane..])];
        products.halves::<Self::Codes>(s, (scales, None), (FloatsOfFourBits, part), place.lane);
    }
}

/// Half of the magnitudes of E4M3 floats: their bits as those of an f32, whose exponent is then too low by 120. 0x7F
/// is 0.
#[inline(always)]
fn e4m3<S: Simd>(s: S, bytes: &[u8]) -> S::F {
    let byte = s.load_i8(bytes);
    let number = s.bits_as_f32(s.shl::<20>(s.and(byte, s.i32(0x7F))));
    let half = number.mul(s.f32(f32::from_bits((127 + 120 - 1) << 23)));
    s.to_f32(byte).sub(s.f32(127.0)).abs().select_less(0.5, s.f32(0.0), half)
}

/// Bytes of the scales of a unit of a grid format: 16 rows of 16 nibbles.
const GRID_SCALES: usize = 128;

/// A grid format: numbers of a table, and two scales for the halves of 32 values: D * FACTOR * (2 * nibble + 1).
macro_rules! grid_format {
    ($name:ident, factor $factor:literal, codes $size:expr, $codes:ident) => {
        #[derive(Clone, Copy)]
        pub(super) struct $name(pub &'static [i8; 16]);

        impl Panel<{ GRID_SCALES + 8 * ($size) }> for $name {
            const BLOCKS: usize = 8;
            const PLANE: usize = 2 * ROWS;
            type Codes = $codes;
            type Unpacked = Halves;
            type Head<S: Simd> = (S::F, [S::I; 2]);

            #[inline(always)]
            fn head<S: Simd>(
                s: S,
                plane: &[u8],
                unit: &[u8; GRID_SCALES + 8 * ($size)],
                lane: usize,
            ) -> (S::F, [S::I; 2]) {
                let d = row_numbers(s, plane, lane).mul(s.f32($factor));
                (d, [s.load_bytes(&unit[4 * lane..]), s.load_bytes(&unit[64 + 4 * lane..])])
            }

            #[inline(always)]
            fn block<S: Simd, P: Products<S>>(
                self,
                s: S,
                (d, nibbles): &(S::F, [S::I; 2]),
                unit: &[u8; GRID_SCALES + 8 * ($size)],
                place: Place,
                products: &mut P,
            ) {
                let codes = &unit[GRID_SCALES..].as_chunks::<{ $size }>().0[place.b];
                let mut scales = [*d; 2];
                for (half, scale) in scales.iter_mut().enumerate() {
                    let shift = 8 * (place.b as u32 % 4) + 4 * half as u32;
                    let nibble = s.and(s.shr_by(nibbles[place.b / 4], shift), s.i32(15));
                    *scale = d.mul(s.to_f32(s.or(s.shl::<1>(nibble), s.i32(1))));
                }
                products.halves::<Self::Codes>(s, (scales, None), ($codes(self.0), codes), place.lane);
            }
        }
    };
}

grid_format!(Grid2, factor 0.125, codes PAIRS + BITS, ThreeLookedUp);
grid_format!(Grid3, factor 0.5, codes NIBBLES, FourLookedUp);
/// Bytes of a unit of IQ1 and IQ2.
pub(super) const GRID2_UNIT: usize = GRID_SCALES + 8 * (PAIRS + BITS);
/// Bytes of a unit of IQ3.
pub(super) const GRID3_UNIT: usize = GRID_SCALES + 8 * NIBBLES;
