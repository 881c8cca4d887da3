//! Where blocks keep the bits of their codes: the planes of all formats are cases of two patterns.
//!
//! In runs: a plane is cut into runs of RUN bytes. The lowest BITS bits of the bytes of a run belong to the first RUN
//! elements, the next BITS to the next RUN, and so on: a run holds `RUN * 8 / BITS` elements. In order: bit i of byte j
//! belongs to element 8 j + i.
//!
//! The functions work on words of several bytes at once; the bits that a byte's shift pushes into its neighbour are
//! masked away.

/// The lowest BITS bits of each byte of a word.
const fn mask<const BITS: usize>() -> u32 {
    0x0101_0101 * (0xFF >> (8 - BITS))
}

/// Puts the bits of a plane in runs into the codes, from bit `at` up. The plane with the lowest bits comes first: it sets
/// the codes, the others add to them. RUN is a multiple of 4.
#[inline(always)]
pub(super) fn spread<const RUN: usize, const BITS: usize>(plane: &[u8], at: u32, codes: &mut [u8]) {
    let runs = plane.as_chunks::<4>().0.chunks_exact(RUN / 4);
    for (run, codes) in runs.zip(codes.as_chunks_mut::<4>().0.chunks_exact_mut(RUN * 2 / BITS)) {
        for (field, codes) in codes.chunks_exact_mut(RUN / 4).enumerate() {
            for (code, word) in codes.iter_mut().zip(run) {
                let bits = (u32::from_le_bytes(*word) >> (field * BITS) & mask::<BITS>()) << at;
                let before = if at == 0 { 0 } else { u32::from_le_bytes(*code) };
                *code = (before | bits).to_le_bytes();
            }
        }
    }
}

/// The inverse of [`spread`]: fills a plane with bits `at` to `at + BITS` of the codes.
#[inline(always)]
pub(super) fn gather<const RUN: usize, const BITS: usize>(codes: &[u8], at: u32, plane: &mut [u8]) {
    let runs = plane.as_chunks_mut::<4>().0.chunks_exact_mut(RUN / 4);
    for (run, codes) in runs.zip(codes.as_chunks::<4>().0.chunks_exact(RUN * 2 / BITS)) {
        for (i, word) in run.iter_mut().enumerate() {
            let fields = codes.iter().skip(i).step_by(RUN / 4).enumerate();
            let bits = fields.fold(0, |bits, (field, code)| {
                bits | (u32::from_le_bytes(*code) >> at & mask::<BITS>()) << (field * BITS)
            });
            *word = bits.to_le_bytes();
        }
    }
}

/// Adds the bits of a plane in order to the codes, as their bit `at`.
#[inline(always)]
pub(super) fn spread_in_order(plane: &[u8], at: u32, codes: &mut [u8]) {
    for (byte, codes) in plane.iter().zip(codes.as_chunks_mut::<8>().0) {
        // Bit i of byte i; then, moved to the top of each byte by an addition that does not carry, 0 or 1.
        let bits = (u64::from(*byte) * 0x0101_0101_0101_0101) & 0x8040_2010_0804_0201;
        let ones = (bits + 0x7F7F_7F7F_7F7F_7F7F) >> 7 & 0x0101_0101_0101_0101;
        *codes = (u64::from_le_bytes(*codes) | ones << at).to_le_bytes();
    }
}

/// The inverse of [`spread_in_order`].
#[inline(always)]
pub(super) fn gather_in_order(codes: &[u8], at: u32, plane: &mut [u8]) {
    for (byte, codes) in plane.iter_mut().zip(codes.as_chunks::<8>().0) {
        *byte = codes.iter().enumerate().fold(0, |byte, (i, code)| byte | (code >> at & 1) << i);
    }
}
