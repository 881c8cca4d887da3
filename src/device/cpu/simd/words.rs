//! Squares of words, for the packing of weights: it comes before the choice of an instruction set.

/// Word i of each row j as word j of row i.
#[cfg(target_arch = "x86_64")]
pub(in crate::device::cpu) fn transposed(rows: [[u8; 16]; 4]) -> [[u8; 16]; 4] {
    use std::arch::x86_64::*;
    let [a, b, c, d]: [__m128i; 4] = bytemuck::cast(rows);
    // SAFETY: SSE2 is part of x86-64.
    bytemuck::cast(unsafe {
        let (ab, ab_end) = (_mm_unpacklo_epi32(a, b), _mm_unpackhi_epi32(a, b));
        let (cd, cd_end) = (_mm_unpacklo_epi32(c, d), _mm_unpackhi_epi32(c, d));
        [
            _mm_unpacklo_epi64(ab, cd),
            _mm_unpackhi_epi64(ab, cd),
            _mm_unpacklo_epi64(ab_end, cd_end),
            _mm_unpackhi_epi64(ab_end, cd_end),
        ]
    })
}

/// Word i of each row j as word j of row i.
#[cfg(not(target_arch = "x86_64"))]
pub(in crate::device::cpu) fn transposed(rows: [[u8; 16]; 4]) -> [[u8; 16]; 4] {
    std::array::from_fn(|i| std::array::from_fn(|at| rows[at / 4][4 * i + at % 4]))
}

#[cfg(test)]
mod tests {
    #[test]
    fn words_change_places_with_their_rows() {
        let rows: [[u8; 16]; 4] = std::array::from_fn(|i| std::array::from_fn(|at| (16 * i + at) as u8));
        let transposed = super::transposed(rows);
        for (i, row) in rows.iter().enumerate() {
            for (j, word) in row.chunks(4).enumerate() {
                assert_eq!(transposed[j][4 * i..4 * i + 4], *word);
            }
        }
    }
}
