//! AVX2 with FMA and F16C: 8 lanes, so a panel of 16 rows is two halves. With AVX-VNNI, where the CPU has it, integer
//! products take one instruction for four.

use std::arch::x86_64::*;
use std::hint::black_box;

use super::super::act::{BLOCK, TilePart, WORDS};
use super::{BOTH_CACHES, OF_AMD, Pairs, Simd, TileWork, Unpacks};
use crate::numeric::Real;

/// Proof that the CPU has AVX2, FMA and F16C, and AVX-VNNI if `VNNI`.
#[derive(Clone, Copy)]
pub(in crate::device::cpu) struct Avx2<const VNNI: bool>(());

impl<const VNNI: bool> Avx2<VNNI> {
    /// The instruction set, where the CPU and the system support it.
    pub(in crate::device::cpu) fn new() -> Option<Self> {
        let all = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
            && (!VNNI || is_x86_feature_detected!("avxvnni"));
        all.then_some(Avx2(()))
    }
}

/// 8 f32. Values come from the methods of [`Avx2`] only, so having one is the same proof.
#[derive(Clone, Copy)]
pub(in crate::device::cpu) struct F(__m256);

/// 8 i32.
#[derive(Clone, Copy)]
pub(in crate::device::cpu) struct I(__m256i);

/// `$body` with intrinsics allowed.
macro_rules! simd {
    ($body:expr) => {
        // SAFETY: the CPU has the instructions: `self` exists (see `Avx2::new`). Loads and stores among them
        // stay inside slices whose length the caller of this macro has checked.
        unsafe { $body }
    };
}

impl Real for F {
    #[inline(always)]
    fn splat(self, x: f32) -> F {
        F(simd!(_mm256_set1_ps(x)))
    }
    #[inline(always)]
    fn add(self, b: F) -> F {
        F(simd!(_mm256_add_ps(self.0, b.0)))
    }
    #[inline(always)]
    fn sub(self, b: F) -> F {
        F(simd!(_mm256_sub_ps(self.0, b.0)))
    }
    #[inline(always)]
    fn mul(self, b: F) -> F {
        F(simd!(_mm256_mul_ps(self.0, b.0)))
    }
    #[inline(always)]
    fn div(self, b: F) -> F {
        F(simd!(_mm256_div_ps(self.0, b.0)))
    }
    #[inline(always)]
    fn fma(self, b: F, c: F) -> F {
        F(simd!(_mm256_fmadd_ps(self.0, b.0, c.0)))
    }
    #[inline(always)]
    fn max(self, b: F) -> F {
        F(simd!(_mm256_max_ps(self.0, b.0)))
    }
    #[inline(always)]
    fn min(self, b: F) -> F {
        F(simd!(_mm256_min_ps(self.0, b.0)))
    }
    #[inline(always)]
    fn abs(self) -> F {
        F(simd!(_mm256_andnot_ps(_mm256_set1_ps(-0.0), self.0)))
    }
    #[inline(always)]
    fn copysign(self, sign: F) -> F {
        F(simd!({
            let mask = _mm256_set1_ps(-0.0);
            _mm256_or_ps(_mm256_andnot_ps(mask, self.0), _mm256_and_ps(mask, sign.0))
        }))
    }
    #[inline(always)]
    fn select_less(self, threshold: f32, below: F, other: F) -> F {
        F(simd!({
            let mask = _mm256_cmp_ps::<_CMP_LT_OQ>(self.0, _mm256_set1_ps(threshold));
            _mm256_blendv_ps(other.0, below.0, mask)
        }))
    }
    #[inline(always)]
    fn scale_by_power(self, n: F) -> F {
        F(simd!({
            let shift = _mm256_slli_epi32::<23>(_mm256_cvtps_epi32(n.0));
            _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(self.0), shift))
        }))
    }
    #[inline(always)]
    fn round(self) -> F {
        F(simd!(_mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0)))
    }
}

impl<const VNNI: bool> Avx2<VNNI> {
    /// acc + codes . y by AVX-VNNI.
    #[inline(always)]
    fn dot_bytes(self, mut acc: __m256i, codes: [__m256i; 4], y: [i32; 4]) -> __m256i {
        for j in 0..4 {
            acc = simd!(_mm256_dpbusd_avx_epi32(acc, codes[j], _mm256_set1_epi32(y[j])));
        }
        acc
    }
}

impl<const VNNI: bool> Simd for Avx2<VNNI> {
    const LANES: usize = 8;
    const REGISTERS: usize = 16;
    const WIDEST: usize = 4;
    // Measured on AMD's family 25, with one column, which is no longer asked for so there: Gemma-3-270M decoded 6 % faster than
    // where both caches are asked for, SmolLM2-135M as fast.
    const AHEAD: (Option<usize>, usize) = if VNNI { BOTH_CACHES } else { (None, 2048) };
    const PAIRS: bool = !VNNI;
    const UNPACKS: Unpacks = if VNNI { Unpacks::Bytes } else { Unpacks::Codes };
    type Base = Avx2<false>;
    type F = F;
    type I = I;
    /// With VNNI, the codes plus 128.
    type Signed = I;

    #[inline(always)]
    fn base(self) -> Avx2<false> {
        Avx2(())
    }

    fn of_amd(self) -> bool {
        *OF_AMD
    }

    #[inline(never)]
    fn run_tile<W: TileWork, const NY: usize>(self, work: W) {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn plain<W: TileWork, const NY: usize>(s: impl Simd, work: W) {
            work.run::<_, NY>(s);
        }
        #[target_feature(enable = "avx2,fma,f16c,avxvnni")]
        fn vnni<W: TileWork, const NY: usize>(s: impl Simd, work: W) {
            work.run::<_, NY>(s);
        }
        if VNNI { simd!(vnni::<W, NY>(self, work)) } else { simd!(plain::<W, NY>(self, work)) }
    }

    #[inline(always)]
    fn f32(self, x: f32) -> F {
        F(simd!(_mm256_set1_ps(x)))
    }
    #[inline(always)]
    fn load(self, x: &[f32]) -> F {
        assert!(x.len() >= 8);
        F(simd!(_mm256_loadu_ps(x.as_ptr())))
    }
    #[inline(always)]
    fn store(self, v: F, out: &mut [f32]) {
        assert!(out.len() >= 8);
        simd!(_mm256_storeu_ps(out.as_mut_ptr(), v.0))
    }
    #[inline(always)]
    fn load_f16(self, x: &[u16]) -> F {
        assert!(x.len() >= 8);
        F(simd!(_mm256_cvtph_ps(_mm_loadu_si128(x.as_ptr().cast()))))
    }
    #[inline(always)]
    fn bits_as_f32(self, a: I) -> F {
        F(simd!(_mm256_castsi256_ps(a.0)))
    }
    #[inline(always)]
    fn f32_as_bits(self, v: F) -> I {
        I(simd!(_mm256_castps_si256(v.0)))
    }
    #[inline(always)]
    fn select(self, low: usize, high: usize, inside: F, outside: F) -> F {
        F(simd!({
            let lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            let above = _mm256_cmpgt_epi32(lane, _mm256_set1_epi32(low as i32 - 1));
            let below = _mm256_cmpgt_epi32(_mm256_set1_epi32(high as i32), lane);
            let mask = _mm256_castsi256_ps(_mm256_and_si256(above, below));
            _mm256_blendv_ps(outside.0, inside.0, mask)
        }))
    }

    #[inline(always)]
    fn i32(self, x: i32) -> I {
        I(simd!(_mm256_set1_epi32(x)))
    }
    #[inline(always)]
    fn load_bytes(self, x: &[u8]) -> I {
        assert!(x.len() >= 32);
        I(simd!(_mm256_loadu_si256(x.as_ptr().cast())))
    }
    #[inline(always)]
    fn load_i8(self, x: &[u8]) -> I {
        assert!(x.len() >= 8);
        I(simd!(_mm256_cvtepi8_epi32(_mm_loadl_epi64(x.as_ptr().cast()))))
    }
    #[inline(always)]
    fn load_u16(self, x: &[u16]) -> I {
        assert!(x.len() >= 8);
        I(simd!(_mm256_cvtepu16_epi32(_mm_loadu_si128(x.as_ptr().cast()))))
    }
    #[inline(always)]
    fn lookup(self, table: &[i8; 16], places: I) -> I {
        I(simd!({
            let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
            _mm256_shuffle_epi8(table, places.0)
        }))
    }
    #[inline(always)]
    fn and(self, a: I, b: I) -> I {
        I(simd!(_mm256_and_si256(a.0, b.0)))
    }
    #[inline(always)]
    fn or(self, a: I, b: I) -> I {
        I(simd!(_mm256_or_si256(a.0, b.0)))
    }
    #[inline(always)]
    fn add_i32(self, a: I, b: I) -> I {
        I(simd!(_mm256_add_epi32(a.0, b.0)))
    }
    #[inline(always)]
    fn sub_i32(self, a: I, b: I) -> I {
        I(simd!(_mm256_sub_epi32(a.0, b.0)))
    }
    #[inline(always)]
    fn shl<const N: u32>(self, a: I) -> I {
        I(simd!(_mm256_sll_epi32(a.0, _mm_cvtsi32_si128(N as i32))))
    }
    #[inline(always)]
    fn shr<const N: u32>(self, a: I) -> I {
        I(simd!(_mm256_srl_epi32(a.0, _mm_cvtsi32_si128(N as i32))))
    }
    #[inline(always)]
    fn sar<const N: u32>(self, a: I) -> I {
        I(simd!(_mm256_sra_epi32(a.0, _mm_cvtsi32_si128(N as i32))))
    }
    #[inline(always)]
    fn shr_by(self, a: I, n: u32) -> I {
        I(simd!(_mm256_srl_epi32(a.0, _mm_cvtsi32_si128(n as i32))))
    }
    #[inline(always)]
    fn to_f32(self, a: I) -> F {
        F(simd!(_mm256_cvtepi32_ps(a.0)))
    }
    #[inline(always)]
    fn round_to_i32(self, v: F) -> I {
        I(simd!(_mm256_cvtps_epi32(v.0)))
    }
    #[inline(always)]
    fn max_i32(self, a: I, b: I) -> I {
        I(simd!(_mm256_max_epi32(a.0, b.0)))
    }
    #[inline(always)]
    fn largest_lane(self, a: I) -> i32 {
        simd!({
            let four = _mm_max_epi32(_mm256_castsi256_si128(a.0), _mm256_extracti128_si256::<1>(a.0));
            let two = _mm_max_epi32(four, _mm_shuffle_epi32::<0b01_00_11_10>(four));
            _mm_cvtsi128_si32(_mm_max_epi32(two, _mm_shuffle_epi32::<0b10_11_00_01>(two)))
        })
    }
    #[inline(always)]
    fn sum_of_lanes(self, a: I) -> i32 {
        simd!({
            let four = _mm_add_epi32(_mm256_castsi256_si128(a.0), _mm256_extracti128_si256::<1>(a.0));
            let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b01_00_11_10>(four));
            _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<0b10_11_00_01>(two)))
        })
    }
    #[inline(always)]
    fn store_low_bytes(self, a: I, out: &mut [u8]) {
        assert!(out.len() >= 8);
        simd!({
            let low = _mm256_and_si256(a.0, _mm256_set1_epi32(0xFF));
            let words = _mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256::<1>(low));
            _mm_storel_epi64(out.as_mut_ptr().cast(), _mm_packus_epi16(words, words));
        })
    }

    #[inline(always)]
    fn dot(self, bits: u32, acc: I, codes: [I; 4], y: [i32; 4]) -> I {
        if VNNI {
            return I(self.dot_bytes(acc.0, [codes[0].0, codes[1].0, codes[2].0, codes[3].0], y));
        }
        let product = [
            self.products(codes[0], self.i32(y[0])),
            self.products(codes[1], self.i32(y[1])),
            self.products(codes[2], self.i32(y[2])),
            self.products(codes[3], self.i32(y[3])),
        ];
        let (first, second) = (self.add_i16(product[0], product[1]), self.add_i16(product[2], product[3]));
        // One product holds at most 2 * 127 * (2^bits - 1); an i16 holds four of them below 6 bits, two at 6.
        if bits < 6 { self.widen(acc, self.add_i16(first, second)) } else { self.widen(self.widen(acc, first), second) }
    }
    #[inline(always)]
    fn dot_signed(self, acc: I, flipped: [I; 4], y: [i32; 4]) -> I {
        if VNNI {
            return self.dot(8, acc, flipped, y);
        }
        let mut acc = acc;
        for j in 0..4 {
            acc = self.widen(acc, self.products_signed(flipped[j], self.i32(y[j])));
        }
        acc
    }
    #[inline(always)]
    fn products(self, codes: I, y: I) -> I {
        I(simd!(_mm256_maddubs_epi16(codes.0, y.0)))
    }
    #[inline(always)]
    fn products_signed(self, codes: I, y: I) -> I {
        // |code| times y with the code's sign: at most 2 * 128 * 127, which an i16 holds once.
        I(simd!(_mm256_maddubs_epi16(_mm256_abs_epi8(codes.0), _mm256_sign_epi8(y.0, codes.0))))
    }
    #[inline(always)]
    fn add_i16(self, a: I, b: I) -> I {
        I(simd!(_mm256_add_epi16(a.0, b.0)))
    }
    #[inline(always)]
    fn widen(self, acc: I, sums: I) -> I {
        I(simd!(_mm256_add_epi32(acc.0, _mm256_madd_epi16(sums.0, _mm256_set1_epi16(1)))))
    }
    #[inline(always)]
    fn pairs<const NY: usize>(self, q: &TilePart<NY>, r: &TilePart<NY>) -> Pairs<NY> {
        let mut y = [[[0; BLOCK / 4]; 2]; NY];
        for c in 0..NY {
            let (q, r): (&[i32; WORDS], &[i32; WORDS]) = (&q[c], &r[c]);
            simd!({
                let (q, r) = (_mm256_loadu_si256(q.as_ptr().cast()), _mm256_loadu_si256(r.as_ptr().cast()));
                let even = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(r));
                let even = _mm256_add_epi16(_mm256_slli_epi16::<8>(q), even);
                let odd = _mm256_and_si256(q, _mm256_set1_epi16(-256));
                let odd = _mm256_add_epi16(odd, _mm256_srai_epi16::<8>(r));
                _mm256_storeu_si256(y[c][0].as_mut_ptr().cast(), even);
                _mm256_storeu_si256(y[c][1].as_mut_ptr().cast(), odd);
            });
        }
        // From memory a word goes into all lanes at no cost; the compiler would rather keep vectors and shuffle them.
        black_box(y)
    }
    #[inline(always)]
    fn dots_of_pairs<const NY: usize>(self, acc: &mut [I; NY], flipped: [I; 4], y: &Pairs<NY>, half: usize) {
        for j in 0..4 {
            let codes = flipped[j].0;
            let even = simd!(_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(codes)));
            let odd = simd!(_mm256_srai_epi16::<8>(codes));
            for c in 0..NY {
                let [evens, odds] = y[c];
                // |256 q + r| < 2^15, so two products are below 2^23, and those of a block below 2^27.
                let sum = simd!(_mm256_add_epi32(
                    _mm256_madd_epi16(even, _mm256_set1_epi32(evens[4 * half + j])),
                    _mm256_madd_epi16(odd, _mm256_set1_epi32(odds[4 * half + j])),
                ));
                acc[c] = self.add_i32(acc[c], I(sum));
            }
        }
    }
    #[inline(always)]
    fn flip(self, codes: I) -> I {
        if VNNI { I(simd!(_mm256_xor_si256(codes.0, _mm256_set1_epi8(i8::MIN)))) } else { codes }
    }
    #[inline(always)]
    fn unpacked(self, flipped: I) -> I {
        flipped
    }
    #[inline(always)]
    fn signed_excess(self, offset_sum: I) -> I {
        if VNNI { offset_sum } else { self.i32(0) }
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
