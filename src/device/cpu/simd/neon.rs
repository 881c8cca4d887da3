//! NEON of 64-bit ARM: 4 lanes, so a panel of 16 rows is four quarters. With the dot products of ARMv8.2, where the CPU
//! has them, four products of bytes take one instruction.

use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};

use super::{Simd, TileWork};
use crate::numeric::Real;

/// Proof that the CPU has NEON, and its dot products if `DOT`.
#[derive(Clone, Copy)]
pub(in crate::device::cpu) struct Neon<const DOT: bool>(());

impl<const DOT: bool> Neon<DOT> {
    /// The instruction set, where the CPU and the system support it.
    pub(in crate::device::cpu) fn new() -> Option<Self> {
        let all = is_aarch64_feature_detected!("neon") && (!DOT || is_aarch64_feature_detected!("dotprod"));
        all.then_some(Neon(()))
    }
}

/// 4 f32. Values come from the methods of [`Neon`] only, so having one is the same proof.
#[derive(Clone, Copy)]
pub(in crate::device::cpu) struct F(float32x4_t);

/// 4 i32.
#[derive(Clone, Copy)]
pub(in crate::device::cpu) struct I(int32x4_t);

/// `$body` with intrinsics allowed.
macro_rules! simd {
    ($body:expr) => {
        // SAFETY: the CPU has the instructions: `self` exists (see `Neon::new`). Loads and stores among them
        // stay inside slices whose length the caller of this macro has checked.
        unsafe { $body }
    };
}

impl Real for F {
    #[inline(always)]
    fn splat(self, x: f32) -> F {
        F(simd!(vdupq_n_f32(x)))
    }
    #[inline(always)]
    fn add(self, b: F) -> F {
        F(simd!(vaddq_f32(self.0, b.0)))
    }
    #[inline(always)]
    fn sub(self, b: F) -> F {
        F(simd!(vsubq_f32(self.0, b.0)))
    }
    #[inline(always)]
    fn mul(self, b: F) -> F {
        F(simd!(vmulq_f32(self.0, b.0)))
    }
    #[inline(always)]
    fn div(self, b: F) -> F {
        F(simd!(vdivq_f32(self.0, b.0)))
    }
    #[inline(always)]
    fn fma(self, b: F, c: F) -> F {
        F(simd!(vfmaq_f32(c.0, self.0, b.0)))
    }
    // The instructions for the larger and the smaller treat NaN otherwise.
    #[inline(always)]
    fn max(self, b: F) -> F {
        F(simd!(vbslq_f32(vcgtq_f32(self.0, b.0), self.0, b.0)))
    }
    #[inline(always)]
    fn min(self, b: F) -> F {
        F(simd!(vbslq_f32(vcltq_f32(self.0, b.0), self.0, b.0)))
    }
    #[inline(always)]
    fn abs(self) -> F {
        F(simd!(vabsq_f32(self.0)))
    }
    #[inline(always)]
    fn copysign(self, sign: F) -> F {
        F(simd!(vbslq_f32(vdupq_n_u32(1 << 31), sign.0, self.0)))
    }
    #[inline(always)]
    fn select_less(self, threshold: f32, below: F, other: F) -> F {
        F(simd!(vbslq_f32(vcltq_f32(self.0, vdupq_n_f32(threshold)), below.0, other.0)))
    }
    #[inline(always)]
    fn scale_by_power(self, n: F) -> F {
        F(simd!({
            let shift = vshlq_n_s32::<23>(vcvtnq_s32_f32(n.0));
            vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(self.0), shift))
        }))
    }
    #[inline(always)]
    fn round(self) -> F {
        F(simd!(vrndnq_f32(self.0)))
    }
}

/// acc + codes . y, y four words for every lane. (The intrinsic for it is not stable.)
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sdot(mut acc: int32x4_t, [a, b, c, d]: [int32x4_t; 4], y: int32x4_t) -> int32x4_t {
    // SAFETY: the instructions, which this function's features allow, work on the registers named.
    unsafe {
        asm!(
            "sdot {acc:v}.4s, {a:v}.16b, {y:v}.4b[0]",
            "sdot {acc:v}.4s, {b:v}.16b, {y:v}.4b[1]",
            "sdot {acc:v}.4s, {c:v}.16b, {y:v}.4b[2]",
            "sdot {acc:v}.4s, {d:v}.16b, {y:v}.4b[3]",
            acc = inout(vreg) acc,
            a = in(vreg) a,
            b = in(vreg) b,
            c = in(vreg) c,
            d = in(vreg) d,
            y = in(vreg) y,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    acc
}

impl<const DOT: bool> Neon<DOT> {
    /// acc + codes . y, for signed codes.
    #[inline(always)]
    fn dot_bytes(self, acc: I, codes: [I; 4], y: [i32; 4]) -> I {
        if DOT {
            let codes = [codes[0].0, codes[1].0, codes[2].0, codes[3].0];
            return I(simd!(sdot(acc.0, codes, vld1q_s32(y.as_ptr()))));
        }
        let mut acc = acc.0;
        for j in 0..4 {
            acc = simd!({
                let (codes, y) = (vreinterpretq_s8_s32(codes[j].0), vreinterpretq_s8_s32(vdupq_n_s32(y[j])));
                let (low, high) = (vmull_s8(vget_low_s8(codes), vget_low_s8(y)), vmull_high_s8(codes, y));
                // Two products are at most 2 * 128 * 127, which an i16 holds.
                vpadalq_s16(acc, vpaddq_s16(low, high))
            });
        }
        I(acc)
    }
}

impl<const DOT: bool> Simd for Neon<DOT> {
    const LANES: usize = 4;
    const REGISTERS: usize = 32;
    const WIDEST: usize = 8;
    type Base = Neon<false>;
    type F = F;
    type I = I;
    type Signed = I;

    #[inline(always)]
    fn base(self) -> Neon<false> {
        Neon(())
    }

    #[inline(never)]
    fn run_tile<W: TileWork, const NY: usize>(self, work: W) {
        #[target_feature(enable = "neon")]
        fn plain<W: TileWork, const NY: usize>(s: impl Simd, work: W) {
            work.run::<_, NY>(s);
        }
        #[target_feature(enable = "neon,dotprod")]
        fn dot<W: TileWork, const NY: usize>(s: impl Simd, work: W) {
            work.run::<_, NY>(s);
        }
        if DOT { simd!(dot::<W, NY>(self, work)) } else { simd!(plain::<W, NY>(self, work)) }
    }

    #[inline(always)]
    fn f32(self, x: f32) -> F {
        F(simd!(vdupq_n_f32(x)))
    }
    #[inline(always)]
    fn load(self, x: &[f32]) -> F {
        assert!(x.len() >= 4);
        F(simd!(vld1q_f32(x.as_ptr())))
    }
    #[inline(always)]
    fn store(self, v: F, out: &mut [f32]) {
        assert!(out.len() >= 4);
        simd!(vst1q_f32(out.as_mut_ptr(), v.0))
    }
    #[inline(always)]
    fn load_f16(self, x: &[u16]) -> F {
        assert!(x.len() >= 4);
        F(simd!(vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(x.as_ptr())))))
    }
    #[inline(always)]
    fn bits_as_f32(self, a: I) -> F {
        F(simd!(vreinterpretq_f32_s32(a.0)))
    }
    #[inline(always)]
    fn f32_as_bits(self, v: F) -> I {
        I(simd!(vreinterpretq_s32_f32(v.0)))
    }
    #[inline(always)]
    fn select(self, low: usize, high: usize, inside: F, outside: F) -> F {
        F(simd!({
            let lane = vld1q_u32([0, 1, 2, 3].as_ptr());
            let (low, high) = (vdupq_n_u32(low as u32), vdupq_n_u32(high as u32));
            vbslq_f32(vandq_u32(vcgeq_u32(lane, low), vcltq_u32(lane, high)), inside.0, outside.0)
        }))
    }

    #[inline(always)]
    fn i32(self, x: i32) -> I {
        I(simd!(vdupq_n_s32(x)))
    }
    #[inline(always)]
    fn load_bytes(self, x: &[u8]) -> I {
        assert!(x.len() >= 16);
        I(simd!(vreinterpretq_s32_u8(vld1q_u8(x.as_ptr()))))
    }
    #[inline(always)]
    fn load_i8(self, x: &[u8]) -> I {
        let four = u32::from_le_bytes([x[0], x[1], x[2], x[3]]);
        I(simd!(vmovl_s16(vget_low_s16(vmovl_s8(vcreate_s8(u64::from(four)))))))
    }
    #[inline(always)]
    fn load_u16(self, x: &[u16]) -> I {
        assert!(x.len() >= 4);
        I(simd!(vreinterpretq_s32_u32(vmovl_u16(vld1_u16(x.as_ptr())))))
    }
    #[inline(always)]
    fn lookup(self, table: &[i8; 16], places: I) -> I {
        I(simd!(vreinterpretq_s32_s8(vqtbl1q_s8(vld1q_s8(table.as_ptr()), vreinterpretq_u8_s32(places.0)))))
    }
    #[inline(always)]
    fn and(self, a: I, b: I) -> I {
        I(simd!(vandq_s32(a.0, b.0)))
    }
    #[inline(always)]
    fn or(self, a: I, b: I) -> I {
        I(simd!(vorrq_s32(a.0, b.0)))
    }
    #[inline(always)]
    fn add_i32(self, a: I, b: I) -> I {
        I(simd!(vaddq_s32(a.0, b.0)))
    }
    #[inline(always)]
    fn sub_i32(self, a: I, b: I) -> I {
        I(simd!(vsubq_s32(a.0, b.0)))
    }
    #[inline(always)]
    fn shl<const N: u32>(self, a: I) -> I {
        I(simd!(vshlq_s32(a.0, vdupq_n_s32(N as i32))))
    }
    #[inline(always)]
    fn shr<const N: u32>(self, a: I) -> I {
        self.shr_by(a, N)
    }
    #[inline(always)]
    fn sar<const N: u32>(self, a: I) -> I {
        I(simd!(vshlq_s32(a.0, vdupq_n_s32(-(N as i32)))))
    }
    #[inline(always)]
    fn shr_by(self, a: I, n: u32) -> I {
        I(simd!(vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(a.0), vdupq_n_s32(-(n as i32))))))
    }
    #[inline(always)]
    fn to_f32(self, a: I) -> F {
        F(simd!(vcvtq_f32_s32(a.0)))
    }
    #[inline(always)]
    fn round_to_i32(self, v: F) -> I {
        I(simd!(vcvtnq_s32_f32(v.0)))
    }
    #[inline(always)]
    fn max_i32(self, a: I, b: I) -> I {
        I(simd!(vmaxq_s32(a.0, b.0)))
    }
    #[inline(always)]
    fn largest_lane(self, a: I) -> i32 {
        simd!(vmaxvq_s32(a.0))
    }
    #[inline(always)]
    fn sum_of_lanes(self, a: I) -> i32 {
        simd!(vaddvq_s32(a.0))
    }
    #[inline(always)]
    fn store_low_bytes(self, a: I, out: &mut [u8]) {
        let four = simd!({
            let words = vmovn_s32(a.0);
            vget_lane_u32::<0>(vreinterpret_u32_s8(vmovn_s16(vcombine_s16(words, words))))
        });
        out[..4].copy_from_slice(&four.to_le_bytes());
    }

    #[inline(always)]
    fn dot(self, bits: u32, acc: I, codes: [I; 4], y: [i32; 4]) -> I {
        // So short, they are signed bytes too.
        debug_assert!(bits < 8);
        self.dot_bytes(acc, codes, y)
    }
    #[inline(always)]
    fn dot_signed(self, acc: I, flipped: [I; 4], y: [i32; 4]) -> I {
        self.dot_bytes(acc, flipped, y)
    }
    #[inline(always)]
    fn flip(self, codes: I) -> I {
        codes
    }
    #[inline(always)]
    fn signed_excess(self, _offset_sum: I) -> I {
        self.i32(0)
    }

    #[inline(always)]
    fn prefetch(self, address: *const u8) {
        // SAFETY: a hint, for any address.
        unsafe { asm!("prfm pldl1keep, [{}]", in(reg) address, options(nostack, preserves_flags, readonly)) }
    }
    #[inline(always)]
    fn prefetch_far(self, address: *const u8) {
        // SAFETY: a hint, for any address.
        unsafe { asm!("prfm pldl2keep, [{}]", in(reg) address, options(nostack, preserves_flags, readonly)) }
    }
}
