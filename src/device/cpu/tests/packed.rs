//! Packing: an exact inverse, exact rows, sizes.

use super::*;

/// Row lengths that suit a format: one block, two, an odd number, more.
fn columns(format: Format) -> &'static [usize] {
    match format.block_len() {
        1 => &[1, 7, 32, 33],
        32 => &[32, 64, 96, 352],
        64 => &[64, 128, 192],
        _ => &[256, 512, 768],
    }
}

fn shapes() -> impl Iterator<Item = Shape> {
    Format::ALL.iter().flat_map(|&format| {
        let rows = [1, 15, 16, 17, 40];
        let short = columns(format).iter().flat_map(move |&columns| rows.map(|rows| Shape { format, rows, columns }));
        // More than are packed at a time.
        short.chain([Shape { format, rows: 17, columns: 4096 + 256 }])
    })
}

#[test]
fn unpacking_gives_back_the_bytes() {
    let mut rng = Rng::new(1);
    for shape in shapes() {
        let mut bytes = rng.bytes(shape.rows * shape.row_bytes());
        if shape.format == Format::TQ1_0 {
            // Of the bytes that mean the same five digits, packing keeps those that encoders write.
            for block in bytes.chunks_exact_mut(shape.format.block_bytes()) {
                let mut codes = [0; 256];
                shape.format.codes(block, &mut codes);
                shape.format.set_codes(block, &codes);
            }
        }
        let weight = packed(shape, &bytes);
        let mut found = vec![0xAA; shape.row_bytes()];
        for (r, expected) in bytes.chunks_exact(shape.row_bytes()).enumerate() {
            shape.unpack(&weight.panels_from(r / 16)[..shape.panel_bytes()], r % 16, &mut found);
            assert_eq!(found, expected, "{shape:?} row {r}");
        }
        for r in shape.rows..16 * shape.panels() {
            shape.unpack(&weight.panels_from(r / 16)[..shape.panel_bytes()], r % 16, &mut found);
            assert!(found.iter().all(|&byte| byte == 0), "{shape:?} padding row {r}");
        }
    }
}

#[test]
fn rows_decode_to_the_same_bits() {
    let mut rng = Rng::new(2);
    for shape in shapes() {
        let bytes = random_matrix(&mut rng, shape, Numbers::NotFinite);
        let weight = packed(shape, &bytes);
        let (mut found, mut expected) = (vec![9.0; shape.columns], vec![8.0; shape.columns]);
        for (r, bytes) in bytes.chunks_exact(shape.row_bytes()).enumerate() {
            weight.row(r, &mut found).unwrap();
            shape.format.decode(bytes, &mut expected).unwrap();
            assert_same(&found, &expected, || format!("{shape:?} row {r}"));
        }
    }
}

#[test]
fn a_panel_is_as_large_as_what_it_holds() {
    for shape in shapes() {
        let blocks = shape.columns / shape.format.block_len();
        let block_bytes = match shape.format {
            // Three values take two bits as in TQ2_0 where the file packs five into a byte.
            Format::TQ1_0 => 66,
            // Coordinates and signs take more than the index of a point; d and a nibble for each 16 values beside them.
            Format::IQ1S | Format::IQ1M | Format::IQ2XXS | Format::IQ2XS | Format::IQ2S => 256 * 3 / 8 + 2 + 8,
            Format::IQ3XXS | Format::IQ3S => 256 * 4 / 8 + 2 + 8,
            _ => shape.format.block_bytes(),
        };
        // The plane of scales is filled up to a whole vector.
        let scales = blocks
            * match shape.format {
                Format::F32 | Format::F16 | Format::BF16 => 0,
                Format::Q4_1 | Format::Q5_1 | Format::Q2K | Format::Q4K | Format::Q5K | Format::NVFP4 => 0,
                Format::MXFP4 => 16,
                _ => 32,
            };
        let expected = 16 * block_bytes * blocks + scales.next_multiple_of(64) - scales;
        assert_eq!(shape.panel_bytes(), expected, "{shape:?}");
        assert_eq!(shape.packed_bytes(), Some((shape.panels() * expected).next_multiple_of(64)), "{shape:?}");
        assert_eq!(shape.panels(), shape.rows.div_ceil(16));
    }
    let huge = Shape { format: Format::Q8_0, rows: usize::MAX, columns: 1 << 20 };
    assert_eq!(huge.packed_bytes(), None);
}

#[test]
fn an_arena_is_filled_once_and_read_only_after() {
    let arena = Arena::default();
    arena.fill(Arena::allocate(0).unwrap()).unwrap();
    assert!(arena.fill(Arena::allocate(64).unwrap()).is_err());
}

#[test]
fn an_arena_has_the_bytes_that_were_asked_for() {
    for bytes in [0, 64, (2 << 20) - 64, 2 << 20, (2 << 20) + 64] {
        let mut memory = Arena::allocate(bytes).unwrap();
        assert_eq!(memory.len(), bytes);
        memory.fill(1);
        let arena = Arena::default();
        arena.fill(memory).unwrap();
        assert!(arena.bytes().len() == bytes && arena.bytes().iter().all(|byte| *byte == 1), "{bytes}");
    }
    assert!(Arena::allocate(usize::MAX).is_err());
}
