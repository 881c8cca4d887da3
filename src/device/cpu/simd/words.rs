//! Bytes of several rows, for what is done with any instruction set: the packing of weights, the layout of queries.

/// Copies the first N bytes of each of R rows, of which each begins `stride` bytes after the one before. There is one check
/// for all: with one for each, a model took a tenth longer to load.
#[inline(always)]
pub(in crate::device::cpu) fn gather<const N: usize, const R: usize>(
    rows: &[u8],
    stride: usize,
    out: &mut [[u8; N]; R],
) {
    let end = stride.checked_mul(R - 1).and_then(|last| last.checked_add(N));
    assert!(end.is_some_and(|end| end <= rows.len()));
    for (r, out) in out.iter_mut().enumerate() {
        // SAFETY: r is at most R - 1, so that r * stride + N is at most `end`, which lies in the slice. An array of bytes
        // may be anywhere.
        *out = unsafe { rows.as_ptr().add(r * stride).cast::<[u8; N]>().read() };
    }
}

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
    fn bytes_are_gathered_from_each_row_that_is_there() {
        let rows: [u8; 21] = std::array::from_fn(|i| i as u8);
        let mut found = [[0; 3]; 4];
        super::gather(&rows, 6, &mut found);
        assert_eq!(found, [[0, 1, 2], [6, 7, 8], [12, 13, 14], [18, 19, 20]]);
        for (bytes, stride) in [(20, 6), (21, 7), (21, usize::MAX / 2), (21, usize::MAX)] {
            let gather = || super::gather::<3, 4>(&rows[..bytes], stride, &mut [[0; 3]; 4]);
            assert!(std::panic::catch_unwind(gather).is_err(), "{bytes} bytes, {stride} apart");
        }
    }

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
