//! Vectors in plain code, for tests: the kernels in the shapes of instruction sets that the machine does not have.

use super::{Simd, TileWork, Unpacks};
use crate::numeric::Real;

/// N lanes, 32 registers, tiles of at most `WIDEST` columns.
#[derive(Clone, Copy)]
pub(in crate::device::cpu) struct Lanes<const N: usize, const WIDEST: usize>(());

impl<const N: usize, const WIDEST: usize> Lanes<N, WIDEST> {
    pub(in crate::device::cpu) fn new() -> Option<Self> {
        Some(Lanes(()))
    }
}

#[derive(Clone, Copy)]
pub(in crate::device::cpu) struct F<const N: usize>([f32; N]);

type I<const N: usize> = [i32; N];

impl<const N: usize> F<N> {
    fn with(self, b: F<N>, f: impl Fn(f32, f32) -> f32) -> F<N> {
        F(std::array::from_fn(|i| f(self.0[i], b.0[i])))
    }
}

impl<const N: usize> Real for F<N> {
    fn splat(self, x: f32) -> Self {
        F([x; N])
    }
    fn add(self, b: Self) -> Self {
        self.with(b, Real::add)
    }
    fn sub(self, b: Self) -> Self {
        self.with(b, Real::sub)
    }
    fn mul(self, b: Self) -> Self {
        self.with(b, Real::mul)
    }
    fn div(self, b: Self) -> Self {
        self.with(b, Real::div)
    }
    fn fma(self, b: Self, c: Self) -> Self {
        F(std::array::from_fn(|i| Real::fma(self.0[i], b.0[i], c.0[i])))
    }
    fn max(self, b: Self) -> Self {
        self.with(b, Real::max)
    }
    fn min(self, b: Self) -> Self {
        self.with(b, Real::min)
    }
    fn abs(self) -> Self {
        F(self.0.map(Real::abs))
    }
    fn copysign(self, sign: Self) -> Self {
        self.with(sign, Real::copysign)
    }
    fn select_less(self, threshold: f32, below: Self, other: Self) -> Self {
        F(std::array::from_fn(|i| Real::select_less(self.0[i], threshold, below.0[i], other.0[i])))
    }
    fn scale_by_power(self, n: Self) -> Self {
        self.with(n, Real::scale_by_power)
    }
    fn round(self) -> Self {
        F(self.0.map(Real::round))
    }
}

/// acc + the products of four times four bytes in each lane, those of the codes as `byte` reads them.
fn dot<const N: usize>(acc: I<N>, codes: [I<N>; 4], y: [i32; 4], byte: fn(u8) -> i32) -> I<N> {
    std::array::from_fn(|lane| {
        let products = (0..4).flat_map(|j| codes[j][lane].to_le_bytes().into_iter().zip(y[j].to_le_bytes()));
        acc[lane] + products.map(|(code, y)| byte(code) * i32::from(y as i8)).sum::<i32>()
    })
}

/// Per 16 bits: the products of two bytes, those of the codes as `byte` reads them. It panics where 16 bits do not hold them.
fn products<const N: usize>(codes: I<N>, y: I<N>, byte: fn(u8) -> i16) -> I<N> {
    std::array::from_fn(|lane| {
        let (codes, y) = (codes[lane].to_le_bytes(), y[lane].to_le_bytes());
        let product = |i: usize| byte(codes[i]) * i16::from(y[i] as i8);
        joined([product(0) + product(1), product(2) + product(3)])
    })
}

/// The two 16 bits of a lane.
fn words(lane: i32) -> [i16; 2] {
    [lane as i16, (lane >> 16) as i16]
}

fn joined([low, high]: [i16; 2]) -> i32 {
    i32::from(high) << 16 | i32::from(low as u16)
}

impl<const N: usize, const WIDEST: usize> Simd for Lanes<N, WIDEST> {
    const LANES: usize = N;
    const REGISTERS: usize = 32;
    const WIDEST: usize = WIDEST;
    const UNPACKS: Unpacks = match N {
        16 => Unpacks::Bytes,
        // On x86-64 AVX2 has codes, and only some CPUs bytes.
        8 if cfg!(target_arch = "x86_64") => Unpacks::Bytes,
        8 => Unpacks::Codes,
        _ => Unpacks::Nothing,
    };
    type Base = Self;
    type F = F<N>;
    type I = I<N>;
    type Signed = I<N>;

    fn base(self) -> Self {
        self
    }

    fn run_tile<W: TileWork, const NY: usize>(self, work: W) {
        work.run::<_, NY>(self);
    }

    fn f32(self, x: f32) -> F<N> {
        F([x; N])
    }
    fn load(self, x: &[f32]) -> F<N> {
        F(std::array::from_fn(|i| x[i]))
    }
    fn store(self, v: F<N>, out: &mut [f32]) {
        out[..N].copy_from_slice(&v.0);
    }
    fn load_f16(self, x: &[u16]) -> F<N> {
        F(std::array::from_fn(|i| half::f16::from_bits(x[i]).to_f32()))
    }
    fn bits_as_f32(self, a: I<N>) -> F<N> {
        F(a.map(|a| f32::from_bits(a as u32)))
    }
    fn f32_as_bits(self, v: F<N>) -> I<N> {
        v.0.map(|v| v.to_bits() as i32)
    }
    fn select(self, low: usize, high: usize, inside: F<N>, outside: F<N>) -> F<N> {
        F(std::array::from_fn(|i| if (low..high).contains(&i) { inside.0[i] } else { outside.0[i] }))
    }

    fn i32(self, x: i32) -> I<N> {
        [x; N]
    }
    fn load_bytes(self, x: &[u8]) -> I<N> {
        std::array::from_fn(|i| i32::from_le_bytes([x[4 * i], x[4 * i + 1], x[4 * i + 2], x[4 * i + 3]]))
    }
    fn load_i8(self, x: &[u8]) -> I<N> {
        std::array::from_fn(|i| i32::from(x[i] as i8))
    }
    fn load_u16(self, x: &[u16]) -> I<N> {
        std::array::from_fn(|i| i32::from(x[i]))
    }
    fn lookup(self, table: &[i8; 16], places: I<N>) -> I<N> {
        places.map(|four| i32::from_le_bytes(four.to_le_bytes().map(|place| table[usize::from(place)] as u8)))
    }
    fn and(self, a: I<N>, b: I<N>) -> I<N> {
        std::array::from_fn(|i| a[i] & b[i])
    }
    fn or(self, a: I<N>, b: I<N>) -> I<N> {
        std::array::from_fn(|i| a[i] | b[i])
    }
    fn add_i32(self, a: I<N>, b: I<N>) -> I<N> {
        std::array::from_fn(|i| a[i].wrapping_add(b[i]))
    }
    fn sub_i32(self, a: I<N>, b: I<N>) -> I<N> {
        std::array::from_fn(|i| a[i].wrapping_sub(b[i]))
    }
    fn shl<const BITS: u32>(self, a: I<N>) -> I<N> {
        a.map(|a| a << BITS)
    }
    fn shr<const BITS: u32>(self, a: I<N>) -> I<N> {
        self.shr_by(a, BITS)
    }
    fn sar<const BITS: u32>(self, a: I<N>) -> I<N> {
        a.map(|a| a >> BITS)
    }
    fn shr_by(self, a: I<N>, n: u32) -> I<N> {
        a.map(|a| (a as u32 >> n) as i32)
    }
    fn to_f32(self, a: I<N>) -> F<N> {
        F(a.map(|a| a as f32))
    }
    fn round_to_i32(self, v: F<N>) -> I<N> {
        v.0.map(|v| v.round_ties_even() as i32)
    }
    fn max_i32(self, a: I<N>, b: I<N>) -> I<N> {
        std::array::from_fn(|i| a[i].max(b[i]))
    }
    fn largest_lane(self, a: I<N>) -> i32 {
        a.into_iter().fold(i32::MIN, i32::max)
    }
    fn sum_of_lanes(self, a: I<N>) -> i32 {
        a.into_iter().sum()
    }
    fn store_low_bytes(self, a: I<N>, out: &mut [u8]) {
        out[..N].copy_from_slice(&a.map(|a| a as u8));
    }

    fn dot(self, _bits: u32, acc: I<N>, codes: [I<N>; 4], y: [i32; 4]) -> I<N> {
        dot(acc, codes, y, i32::from)
    }
    fn dot_signed(self, acc: I<N>, flipped: [I<N>; 4], y: [i32; 4]) -> I<N> {
        dot(acc, flipped, y, |code| i32::from(code as i8))
    }
    fn products(self, codes: I<N>, y: I<N>) -> I<N> {
        products(codes, y, i16::from)
    }
    fn products_signed(self, codes: I<N>, y: I<N>) -> I<N> {
        products(codes, y, |code| i16::from(code as i8))
    }
    fn add_i16(self, a: I<N>, b: I<N>) -> I<N> {
        std::array::from_fn(|lane| {
            let ([a, b], [c, d]) = (words(a[lane]), words(b[lane]));
            joined([a + c, b + d])
        })
    }
    fn widen(self, acc: I<N>, sums: I<N>) -> I<N> {
        std::array::from_fn(|lane| acc[lane] + words(sums[lane]).map(i32::from).iter().sum::<i32>())
    }
    fn flip(self, codes: I<N>) -> I<N> {
        codes
    }
    fn unpacked(self, flipped: I<N>) -> I<N> {
        match Self::UNPACKS {
            Unpacks::Bytes => flipped.map(|four| four ^ i32::from_ne_bytes([0x80; 4])),
            _ => flipped,
        }
    }
    fn signed_excess(self, _offset_sum: I<N>) -> I<N> {
        [0; N]
    }

    fn prefetch(self, _address: *const u8) {}
    fn prefetch_far(self, _address: *const u8) {}
}
