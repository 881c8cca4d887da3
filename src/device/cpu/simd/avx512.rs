//! AVX-512 with VNNI: 16 lanes.

use std::arch::asm;
use std::arch::x86_64::*;

use super::super::act::{BLOCK, TilePart, WORDS, four};
use super::super::lines::Aligned;
use super::{BytesAndSums, OF_AMD, Simd, TileWork, Unpacks, VECTORS};
use crate::numeric::Real;

/// Proof that the CPU has AVX-512 F, BW, DQ, VL and VNNI, and what comes with them (AVX2, FMA, F16C).
#[derive(Clone, Copy)]
pub(in crate::device::cpu) struct Avx512(());

impl Avx512 {
    /// The instruction set, where the CPU and the system support it.
    pub(in crate::device::cpu) fn new() -> Option<Self> {
        let all = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        all.then_some(Avx512(()))
    }
}

/// 16 f32. Values come from the methods of [`Avx512`] only, so having one is the same proof.
#[derive(Clone, Copy)]
pub(in crate::device::cpu) struct F(__m512);

/// 16 i32.
#[derive(Clone, Copy)]
pub(in crate::device::cpu) struct I(__m512i);

/// `$body` with intrinsics allowed.
macro_rules! simd {
    ($body:expr) => {
        // SAFETY: the CPU has the instructions: `self` exists (see `Avx512::new`). Loads and stores among them
        // stay inside slices whose length the caller of this macro has checked.
        unsafe { $body }
    };
}

/// acc[c] += codes . y[c] for the columns c that are named: one vector of codes with every column, then the next.
///
/// The order and the addresses are what matters. By intrinsics the compiler wrote a column's products one after the other,
/// where each waits for the one before, or, told the order, addresses of two registers, for which the CPU makes two
/// instructions of one.
macro_rules! in_order {
    ($acc:ident, $codes:ident, $y:ident, $half:ident, $($name:ident $c:literal)*) => {{
        const { assert!(WORDS * size_of::<i32>() == 48) };
        assert!($half < 2);
        // SAFETY: the CPU has the instructions: a value of `I` exists. acc[c] exists, so y has a column c, of whose 48 bytes
        // those up to 16 * half + 16 are read, and nothing is written; no flags and no stack are touched.
        unsafe {
            asm!(
                $(concat!("vpdpbusd 48*", $c, "({y}){{1to16}}, {w0}, {", stringify!($name), "}"),)*
                $(concat!("vpdpbusd 48*", $c, "+4({y}){{1to16}}, {w1}, {", stringify!($name), "}"),)*
                $(concat!("vpdpbusd 48*", $c, "+8({y}){{1to16}}, {w2}, {", stringify!($name), "}"),)*
                $(concat!("vpdpbusd 48*", $c, "+12({y}){{1to16}}, {w3}, {", stringify!($name), "}"),)*
                y = in(reg) $y.as_flattened()[4 * $half..].as_ptr(),
                w0 = in(zmm_reg) $codes[0].0,
                w1 = in(zmm_reg) $codes[1].0,
                w2 = in(zmm_reg) $codes[2].0,
                w3 = in(zmm_reg) $codes[3].0,
                $($name = inout(zmm_reg) $acc[$c].0,)*
                options(att_syntax, pure, readonly, nostack, preserves_flags)
            );
        }
    }};
}

/// [`Simd::dots`], for any bits.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn dots<const NY: usize>(s: Avx512, acc: &mut [I; NY], codes: [I; 4], y: &TilePart<NY>, half: usize) {
    match NY {
        12 => in_order!(acc, codes, y, half, a0 0 a1 1 a2 2 a3 3 a4 4 a5 5 a6 6 a7 7 a8 8 a9 9 a10 10 a11 11),
        8 => in_order!(acc, codes, y, half, a0 0 a1 1 a2 2 a3 3 a4 4 a5 5 a6 6 a7 7),
        // Decoding, which memory bounds.
        _ => {
            for c in 0..NY {
                acc[c] = s.dot(8, acc[c], codes, four(&y[c], half));
            }
        }
    }
}

/// Word `$j` of the codes of both vectors with that of every column.
macro_rules! two_by_word {
    ($j:literal, $($a:ident $b:ident $c:literal)*) => {
        concat!(
            "vmovdqu64 64*", $j, "({x}), %zmm29\n",
            "vmovdqu64 64*", $j, "({z}), %zmm30\n",
            $("vpbroadcastd 48*", $c, "+4*", $j, "({y}), %zmm31\n",
            "vpdpbusd %zmm31, %zmm29, {", stringify!($a), "}\n",
            "vpdpbusd %zmm31, %zmm30, {", stringify!($b), "}\n",)*
        )
    };
}

/// acc[v][c] += codes[v] . y[c] for the columns c that are named: a word of the codes of both vectors with every column, then
/// the next. A column's word is loaded once.
macro_rules! two_in_order {
    ($acc:ident, $codes:ident, $y:ident, $half:ident, $($a:ident $b:ident $c:literal)*) => {{
        const { assert!(WORDS * size_of::<i32>() == 48) };
        assert!($half < 2);
        let [first, second] = $acc;
        // SAFETY: the CPU has the instructions: a value of `I` exists. first[c] exists, so y has a column c, of whose 48
        // bytes those up to 16 * half + 16 are read, and of both codes 256 bytes, which `dots_of_two` has seen to be there;
        // nothing is written; no flags and no stack are touched.
        unsafe {
            asm!(
                two_by_word!(0, $($a $b $c)*),
                two_by_word!(1, $($a $b $c)*),
                two_by_word!(2, $($a $b $c)*),
                two_by_word!(3, $($a $b $c)*),
                x = in(reg) $codes[0].as_ptr(),
                z = in(reg) $codes[1].as_ptr(),
                y = in(reg) $y.as_flattened()[4 * $half..].as_ptr(),
                $($a = inout(zmm_reg) first[$c].0,
                $b = inout(zmm_reg) second[$c].0,)*
                out("zmm29") _,
                out("zmm30") _,
                out("zmm31") _,
                options(att_syntax, pure, readonly, nostack, preserves_flags)
            );
        }
    }};
}

/// [`Simd::dots_of_two`].
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn dots_of_two<const NC: usize>(acc: &mut [[I; NC]; 2], codes: [&[u8]; 2], y: &TilePart<NC>, half: usize) {
    assert!(codes[0].len() >= 256 && codes[1].len() >= 256);
    match NC {
        6 => two_in_order!(acc, codes, y, half, a0 b0 0 a1 b1 1 a2 b2 2 a3 b3 3 a4 b4 4 a5 b5 5),
        4 => two_in_order!(acc, codes, y, half, a0 b0 0 a1 b1 1 a2 b2 2 a3 b3 3),
        _ => unreachable!("there are products for 6 and 4 columns"),
    }
}

impl Real for F {
    #[inline(always)]
    fn splat(self, x: f32) -> F {
        F(simd!(_mm512_set1_ps(x)))
    }
    #[inline(always)]
    fn add(self, b: F) -> F {
        F(simd!(_mm512_add_ps(self.0, b.0)))
    }
    #[inline(always)]
    fn sub(self, b: F) -> F {
        F(simd!(_mm512_sub_ps(self.0, b.0)))
    }
    #[inline(always)]
    fn mul(self, b: F) -> F {
        F(simd!(_mm512_mul_ps(self.0, b.0)))
    }
    #[inline(always)]
    fn div(self, b: F) -> F {
        F(simd!(_mm512_div_ps(self.0, b.0)))
    }
    #[inline(always)]
    fn fma(self, b: F, c: F) -> F {
        F(simd!(_mm512_fmadd_ps(self.0, b.0, c.0)))
    }
    #[inline(always)]
    fn max(self, b: F) -> F {
        F(simd!(_mm512_max_ps(self.0, b.0)))
    }
    #[inline(always)]
    fn min(self, b: F) -> F {
        F(simd!(_mm512_min_ps(self.0, b.0)))
    }
    #[inline(always)]
    fn abs(self) -> F {
        F(simd!(_mm512_abs_ps(self.0)))
    }
    #[inline(always)]
    fn copysign(self, sign: F) -> F {
        // Bitwise select: where the mask is set take `sign`, elsewhere the magnitude.
        F(simd!(_mm512_castsi512_ps(_mm512_ternarylogic_epi32::<0xE4>(
            _mm512_castps_si512(self.0),
            _mm512_castps_si512(sign.0),
            _mm512_set1_epi32(i32::MAX),
        ))))
    }
    #[inline(always)]
    fn select_less(self, threshold: f32, below: F, other: F) -> F {
        F(simd!({
            let mask = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, _mm512_set1_ps(threshold));
            _mm512_mask_blend_ps(mask, other.0, below.0)
        }))
    }
    #[inline(always)]
    fn scale_by_power(self, n: F) -> F {
        F(simd!({
            let shift = _mm512_slli_epi32::<23>(_mm512_cvtps_epi32(n.0));
            _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(self.0), shift))
        }))
    }
    #[inline(always)]
    fn round(self) -> F {
        F(simd!(_mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0)))
    }
}

impl Simd for Avx512 {
    const LANES: usize = 16;
    const REGISTERS: usize = 32;
    const WIDEST: usize = 12;
    const UNPACKS: Unpacks = Unpacks::Bytes;
    type Base = Self;
    type F = F;
    type I = I;
    type Signed = I;

    #[inline(always)]
    fn base(self) -> Self {
        self
    }

    fn of_amd(self) -> bool {
        *OF_AMD
    }

    #[inline(never)]
    fn run_tile<W: TileWork, const NY: usize>(self, work: W) {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
        fn compiled<W: TileWork, const NY: usize>(s: Avx512, work: W) {
            work.run::<_, NY>(s);
        }
        simd!(compiled::<W, NY>(self, work));
    }

    #[inline(always)]
    fn f32(self, x: f32) -> F {
        F(simd!(_mm512_set1_ps(x)))
    }
    #[inline(always)]
    fn load(self, x: &[f32]) -> F {
        assert!(x.len() >= 16);
        F(simd!(_mm512_loadu_ps(x.as_ptr())))
    }
    #[inline(always)]
    fn store(self, v: F, out: &mut [f32]) {
        assert!(out.len() >= 16);
        simd!(_mm512_storeu_ps(out.as_mut_ptr(), v.0))
    }
    #[inline(always)]
    fn load_f16(self, x: &[u16]) -> F {
        assert!(x.len() >= 16);
        F(simd!(_mm512_cvtph_ps(_mm256_loadu_si256(x.as_ptr().cast()))))
    }
    #[inline(always)]
    fn bits_as_f32(self, a: I) -> F {
        F(simd!(_mm512_castsi512_ps(a.0)))
    }
    #[inline(always)]
    fn f32_as_bits(self, v: F) -> I {
        I(simd!(_mm512_castps_si512(v.0)))
    }
    #[inline(always)]
    fn select(self, low: usize, high: usize, inside: F, outside: F) -> F {
        let mask = (0xFFFF_u32 >> (16 - high)) & (0xFFFF_u32 << low);
        F(simd!(_mm512_mask_blend_ps(mask as u16, outside.0, inside.0)))
    }

    #[inline(always)]
    fn i32(self, x: i32) -> I {
        I(simd!(_mm512_set1_epi32(x)))
    }
    #[inline(always)]
    fn load_bytes(self, x: &[u8]) -> I {
        assert!(x.len() >= 64);
        I(simd!(_mm512_loadu_si512(x.as_ptr().cast())))
    }
    #[inline(always)]
    fn load_i8(self, x: &[u8]) -> I {
        assert!(x.len() >= 16);
        I(simd!(_mm512_cvtepi8_epi32(_mm_loadu_si128(x.as_ptr().cast()))))
    }
    #[inline(always)]
    fn load_u16(self, x: &[u16]) -> I {
        assert!(x.len() >= 16);
        I(simd!(_mm512_cvtepu16_epi32(_mm256_loadu_si256(x.as_ptr().cast()))))
    }
    #[inline(always)]
    fn lookup(self, table: &[i8; 16], places: I) -> I {
        I(simd!({
            let table = _mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast()));
            _mm512_shuffle_epi8(table, places.0)
        }))
    }
    #[inline(always)]
    fn and(self, a: I, b: I) -> I {
        I(simd!(_mm512_and_si512(a.0, b.0)))
    }
    #[inline(always)]
    fn or(self, a: I, b: I) -> I {
        I(simd!(_mm512_or_si512(a.0, b.0)))
    }
    #[inline(always)]
    fn add_i32(self, a: I, b: I) -> I {
        I(simd!(_mm512_add_epi32(a.0, b.0)))
    }
    #[inline(always)]
    fn sub_i32(self, a: I, b: I) -> I {
        I(simd!(_mm512_sub_epi32(a.0, b.0)))
    }
    #[inline(always)]
    fn shl<const N: u32>(self, a: I) -> I {
        I(simd!(_mm512_slli_epi32::<N>(a.0)))
    }
    #[inline(always)]
    fn shr<const N: u32>(self, a: I) -> I {
        I(simd!(_mm512_srli_epi32::<N>(a.0)))
    }
    #[inline(always)]
    fn sar<const N: u32>(self, a: I) -> I {
        I(simd!(_mm512_srai_epi32::<N>(a.0)))
    }
    #[inline(always)]
    fn shr_by(self, a: I, n: u32) -> I {
        I(simd!(_mm512_srl_epi32(a.0, _mm_cvtsi32_si128(n as i32))))
    }
    #[inline(always)]
    fn to_f32(self, a: I) -> F {
        F(simd!(_mm512_cvtepi32_ps(a.0)))
    }
    #[inline(always)]
    fn round_to_i32(self, v: F) -> I {
        I(simd!(_mm512_cvtps_epi32(v.0)))
    }
    #[inline(always)]
    fn max_i32(self, a: I, b: I) -> I {
        I(simd!(_mm512_max_epi32(a.0, b.0)))
    }
    #[inline(always)]
    fn largest_lane(self, a: I) -> i32 {
        simd!(_mm512_reduce_max_epi32(a.0))
    }
    #[inline(always)]
    fn sum_of_lanes(self, a: I) -> i32 {
        simd!(_mm512_reduce_add_epi32(a.0))
    }
    #[inline(always)]
    fn store_low_bytes(self, a: I, out: &mut [u8]) {
        assert!(out.len() >= 16);
        simd!(_mm_storeu_si128(out.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(a.0)))
    }

    /// Of four vectors, pairs of lanes of all at a time.
    #[inline(always)]
    fn largest_lanes<const N: usize>(self, a: [I; N]) -> [i32; N] {
        let mut largest = [0; N];
        if N == 4 {
            simd!({
                let [a, b, c, d] = [a[0].0, a[1].0, a[2].0, a[3].0];
                let ab = _mm512_max_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
                let cd = _mm512_max_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
                let all = _mm512_max_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
                let all = _mm256_max_epi32(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64::<1>(all));
                let all = _mm_max_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256::<1>(all));
                _mm_storeu_si128(largest.as_mut_ptr().cast(), all);
            });
        } else {
            for n in 0..N {
                largest[n] = self.largest_lane(a[n]);
            }
        }
        largest
    }
    /// Two blocks a vector.
    #[inline(always)]
    fn bytes_and_sums<const N: usize>(self, values: &[[I; VECTORS]; N]) -> BytesAndSums<N> {
        let mut out = BytesAndSums { bytes: [[0; BLOCK]; N], of_halves: [[0; 2]; N] };
        for n in (0..N).step_by(2) {
            let (first, second) = (values[n], values[(n + 1).min(N - 1)]);
            let mut sums = Aligned([0; 16]);
            simd!({
                // Each 128 bits hold four values of each of the four vectors.
                let words = _mm512_packs_epi32(first[0].0, first[1].0);
                let bytes = _mm512_packs_epi16(words, _mm512_packs_epi32(second[0].0, second[1].0));
                let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
                let bytes = _mm512_permutexvar_epi32(order, bytes);
                // Now a half of a block.
                let four = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8(1), bytes);
                let two = _mm512_add_epi32(four, _mm512_shuffle_epi32::<0x4E>(four));
                let one = _mm512_add_epi32(two, _mm512_shuffle_epi32::<0xB1>(two));
                _mm512_storeu_si512(sums.0.as_mut_ptr().cast(), one);
                _mm256_storeu_si256(out.bytes[n].as_mut_ptr().cast(), _mm512_castsi512_si256(bytes));
                if n + 1 < N {
                    let second = _mm512_extracti64x4_epi64::<1>(bytes);
                    _mm256_storeu_si256(out.bytes[n + 1].as_mut_ptr().cast(), second);
                }
            });
            out.of_halves[n] = [sums.0[0], sums.0[4]];
            if n + 1 < N {
                out.of_halves[n + 1] = [sums.0[8], sums.0[12]];
            }
        }
        out
    }

    #[inline(always)]
    fn dot(self, _bits: u32, acc: I, codes: [I; 4], y: [i32; 4]) -> I {
        let mut acc = acc.0;
        for j in 0..4 {
            acc = simd!(_mm512_dpbusd_epi32(acc, codes[j].0, _mm512_set1_epi32(y[j])));
        }
        I(acc)
    }
    #[inline(always)]
    fn dots<const NY: usize>(self, _bits: u32, acc: &mut [I; NY], codes: [I; 4], y: &TilePart<NY>, half: usize) {
        simd!(dots(self, acc, codes, y, half));
    }
    #[inline(always)]
    fn dots_signed<const NY: usize>(self, acc: &mut [I; NY], flipped: [I; 4], y: &TilePart<NY>, half: usize) {
        simd!(dots(self, acc, flipped, y, half));
    }
    #[inline(always)]
    fn dots_of_two<const NC: usize>(self, acc: &mut [[I; NC]; 2], codes: [&[u8]; 2], y: &TilePart<NC>, half: usize) {
        simd!(dots_of_two(acc, codes, y, half));
    }
    #[inline(always)]
    fn dot_signed(self, acc: I, flipped: [I; 4], y: [i32; 4]) -> I {
        self.dot(8, acc, flipped, y)
    }
    /// Codes + 128, unsigned.
    #[inline(always)]
    fn flip(self, codes: I) -> I {
        I(simd!(_mm512_xor_si512(codes.0, _mm512_set1_epi8(-128))))
    }
    #[inline(always)]
    fn unpacked(self, flipped: I) -> I {
        flipped
    }
    #[inline(always)]
    fn signed_excess(self, offset_sum: I) -> I {
        offset_sum
    }

    #[inline(always)]
    fn prefetch_far(self, address: *const u8) {
        simd!(_mm_prefetch::<_MM_HINT_T1>(address.cast()))
    }
    #[inline(always)]
    fn prefetch(self, address: *const u8) {
        simd!(_mm_prefetch::<_MM_HINT_T0>(address.cast()))
    }
}
