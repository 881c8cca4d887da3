//! The lanes of every vector type do what f32 does: each operation of `Real`, the functions over it, loads and stores.

use super::super::act::{TilePart, four};
use super::super::simd::Simd;
use super::*;
use crate::numeric::{self, Real};

/// Numbers of every kind, specials first; a multiple of 16 of them.
fn numbers(rng: &mut Rng) -> Vec<f32> {
    let specials = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        -f32::NAN,
        f32::MAX,
        -f32::MAX,
        f32::MIN_POSITIVE,
        1e-45,
        -1e-45,
        -87.0,
        88.0,
        -87.000_01,
        88.000_01,
        0.625,
        -0.625,
        0.5,
        1.5,
        2.5,
        -2.5,
        43.9,
        44.1,
    ];
    let mut x = Vec::new();
    for a in specials {
        x.extend(specials.map(|_| a));
    }
    x.extend((0..4000).map(|_| f32::from_bits(rng.next_u64() as u32)));
    x.extend((0..20_000).map(|_| 100.0 * rng.signed()));
    x.extend((0..4000).map(|_| rng.signed()));
    x.resize(x.len().next_multiple_of(16), 0.0);
    x
}

/// A permutation of `x`, so that two and three operands meet in other pairs; the specials meet each other.
fn shuffled(rng: &mut Rng, x: &[f32], specials: usize) -> Vec<f32> {
    let mut y = x.to_vec();
    let pairs = specials * specials;
    for (i, y) in y.iter_mut().enumerate().take(pairs) {
        *y = x[i % specials * specials];
    }
    for i in pairs..x.len() {
        y.swap(i, pairs + rng.below(x.len() - pairs));
    }
    y
}

fn check<S: Simd>(s: S, isa: Isa) {
    let mut rng = Rng::new(50);
    let x = numbers(&mut rng);
    let y = shuffled(&mut rng, &x, 25);
    let z = shuffled(&mut rng, &x, 25).into_iter().rev().collect::<Vec<_>>();
    macro_rules! same {
        ($name:literal, |$a:ident, $b:ident, $c:ident| $body:expr) => {
            let expected: Vec<f32> = (0..x.len())
                .map(|i| {
                    let ($a, $b, $c) = (x[i], y[i], z[i]);
                    let _ = ($b, $c);
                    $body
                })
                .collect();
            let mut found = vec![0.0; x.len()];
            for i in (0..x.len()).step_by(S::LANES) {
                let ($a, $b, $c) = (s.load(&x[i..]), s.load(&y[i..]), s.load(&z[i..]));
                let _ = ($b, $c);
                s.store($body, &mut found[i..]);
            }
            assert_same(&found, &expected, || format!("{isa} {}", $name));
        };
    }
    same!("splat", |a, b, c| a.splat(1.25));
    same!("add", |a, b, c| Real::add(a, b));
    same!("sub", |a, b, c| Real::sub(a, b));
    same!("mul", |a, b, c| Real::mul(a, b));
    same!("div", |a, b, c| Real::div(a, b));
    same!("fma", |a, b, c| Real::fma(a, b, c));
    same!("max", |a, b, c| Real::max(a, b));
    same!("min", |a, b, c| Real::min(a, b));
    same!("abs", |a, b, c| Real::abs(a));
    same!("copysign", |a, b, c| Real::copysign(a, b));
    same!("select_less", |a, b, c| Real::select_less(a, 0.5, b, c));
    same!("round", |a, b, c| Real::round(Real::min(Real::max(a, a.splat(-4e6)), a.splat(4e6))));
    same!("exp", |a, b, c| numeric::exp(a));
    same!("tanh", |a, b, c| numeric::tanh(a));
    same!("silu", |a, b, c| numeric::silu(a));
    same!("gelu_tanh", |a, b, c| numeric::gelu_tanh(a));
    same!("erf", |a, b, c| numeric::erf(a));
    same!("gelu_erf", |a, b, c| numeric::gelu_erf(a));
    // In its domain alone.
    let n: Vec<f32> = (0..256).map(|i| (i % 254 - 126) as f32).collect();
    let m: Vec<f32> = (0..256).map(|i| 0.5 + i as f32 / 256.0 * 1.5).collect();
    for i in (0..256).step_by(S::LANES) {
        let mut found = vec![0.0; S::LANES];
        s.store(s.load(&m[i..]).scale_by_power(s.load(&n[i..])), &mut found);
        let expected: Vec<f32> = (i..i + S::LANES).map(|i| m[i].scale_by_power(n[i])).collect();
        assert_same(&found, &expected, || format!("{isa} scale_by_power"));
    }
    halves(s, isa);
    lanes(s, isa);
    integers(s, isa);
}

fn halves<S: Simd>(s: S, isa: Isa) {
    let bits: Vec<u16> = (0..=u16::MAX).collect();
    let (mut f16, mut bf16) = (vec![0.0; bits.len()], vec![0.0; bits.len()]);
    for i in (0..bits.len()).step_by(S::LANES) {
        s.store(s.load_f16(&bits[i..]), &mut f16[i..]);
        s.store(s.load_bf16(&bits[i..]), &mut bf16[i..]);
    }
    let expected: Vec<f32> = bits.iter().map(|&bits| half::f16::from_bits(bits).to_f32()).collect();
    assert_same(&f16, &expected, || format!("{isa} f16"));
    let expected: Vec<f32> = bits.iter().map(|&bits| f32::from_bits(u32::from(bits) << 16)).collect();
    assert_same(&bf16, &expected, || format!("{isa} bf16"));
}

fn lanes<S: Simd>(s: S, isa: Isa) {
    for low in 0..=S::LANES {
        for high in 0..=S::LANES {
            let mut found = vec![0.0; S::LANES];
            s.store(s.select(low, high, s.f32(1.0), s.f32(2.0)), &mut found);
            let expected: Vec<f32> = (0..S::LANES).map(|i| if (low..high).contains(&i) { 1.0 } else { 2.0 }).collect();
            assert_eq!(found, expected, "{isa} {low}..{high}");
        }
    }
}

/// The i32 lanes: through `to_f32`, 16 bits at a time, since an f32 holds those exactly.
fn values<S: Simd>(s: S, v: S::I) -> Vec<i32> {
    let (mut low, mut high) = (vec![0.0; S::LANES], vec![0.0; S::LANES]);
    s.store(s.to_f32(s.and(v, s.i32(0xFFFF))), &mut low);
    s.store(s.to_f32(s.shr::<16>(v)), &mut high);
    low.iter().zip(&high).map(|(low, high)| (*low as u32 | (*high as u32) << 16) as i32).collect()
}

fn integers<S: Simd>(s: S, isa: Isa) {
    let mut rng = Rng::new(51);
    let n = 4 * S::LANES;
    let word = |bytes: &[u8], i: usize| i32::from_le_bytes(std::array::from_fn(|j| bytes[4 * i + j]));
    for _ in 0..2000 {
        let (a, b) = (rng.bytes(n), rng.bytes(n));
        let (va, vb) = (s.load_bytes(&a), s.load_bytes(&b));
        let check = |what: &str, v: S::I, expected: &dyn Fn(i32, i32) -> i32| {
            let expected: Vec<i32> = (0..S::LANES).map(|i| expected(word(&a, i), word(&b, i))).collect();
            assert_eq!(values(s, v), expected, "{isa} {what}");
        };
        check("and", s.and(va, vb), &|a, b| a & b);
        check("or", s.or(va, vb), &|a, b| a | b);
        check("add", s.add_i32(va, vb), &i32::wrapping_add);
        check("sub", s.sub_i32(va, vb), &i32::wrapping_sub);
        check("shl", s.shl::<5>(va), &|a, _| a << 5);
        check("shr", s.shr::<3>(va), &|a, _| (a as u32 >> 3) as i32);
        check("sar", s.sar::<3>(va), &|a, _| a >> 3);
        check("shr_by", s.shr_by(va, 24), &|a, _| (a as u32 >> 24) as i32);
        let mut found = vec![0.0; S::LANES];
        s.store(s.to_f32(va), &mut found);
        assert_eq!(found, (0..S::LANES).map(|i| word(&a, i) as f32).collect::<Vec<_>>(), "{isa} to_f32");
        assert_eq!(values(s, s.load_i8(&a)), a[..S::LANES].iter().map(|&a| i32::from(a as i8)).collect::<Vec<_>>());
    }
}

/// Sums of products of bytes at the ends of their ranges, where an i16 on the way would overflow first.
fn dots<S: Simd>(s: S, isa: Isa) {
    let mut rng = Rng::new(52);
    let n = 4 * S::LANES;
    for round in 0..3000 {
        let extreme = round % 3 == 0;
        let y: [[i8; 4]; 4] = std::array::from_fn(|_| {
            std::array::from_fn(
                |_| if extreme { [127, -127][rng.below(2)] } else { (rng.below(255) as i32 - 127) as i8 },
            )
        });
        let words = y.map(|four| i32::from_le_bytes(four.map(|y| y as u8)));
        let sum: i32 = y.iter().flatten().map(|&y| i32::from(y)).sum();
        for bits in [4, 5, 6] {
            let top = (1 << bits) - 1;
            let code = |byte: u8| if extreme { top } else { byte & top };
            let codes: [Vec<u8>; 4] = std::array::from_fn(|_| rng.bytes(n).into_iter().map(code).collect());
            let loaded = std::array::from_fn(|j| s.load_bytes(&codes[j]));
            let expected: Vec<i32> = (0..S::LANES)
                .map(|lane| {
                    5 + (0..16)
                        .map(|i| i32::from(codes[i / 4][4 * lane + i % 4]) * i32::from(y[i / 4][i % 4]))
                        .sum::<i32>()
                })
                .collect();
            assert_eq!(values(s, s.dot(bits, s.i32(5), loaded, words)), expected, "{isa} {bits} bits");
        }
        let code = |byte: u8| if extreme { [0x80, 0x7F, 0x81][byte as usize % 3] } else { byte };
        let codes: [Vec<u8>; 4] = std::array::from_fn(|_| rng.bytes(n).into_iter().map(code).collect());
        let loaded = std::array::from_fn(|j| s.flip(s.load_bytes(&codes[j])));
        let expected: Vec<i32> = (0..S::LANES)
            .map(|lane| {
                (0..16).map(|i| i32::from(codes[i / 4][4 * lane + i % 4] as i8) * i32::from(y[i / 4][i % 4])).sum()
            })
            .collect();
        let found = s.add_i32(s.dot_signed(s.i32(0), loaded, words), s.signed_excess(s.i32(-128 * sum)));
        assert_eq!(values(s, found), expected, "{isa} signed");
    }
}

/// Products of a tile are those of each of its columns with either half of its codes.
fn columns<S: Simd, const NY: usize>(s: S, isa: Isa) {
    let mut rng = Rng::new(53);
    for _ in 0..100 {
        let y: TilePart<NY> = std::array::from_fn(|_| {
            std::array::from_fn(|_| i32::from_le_bytes(std::array::from_fn(|_| (rng.below(255) as i32 - 127) as u8)))
        });
        let bytes: [Vec<u8>; 4] = std::array::from_fn(|_| rng.bytes(4 * S::LANES));
        let codes = bytes.each_ref().map(|bytes| s.and(s.load_bytes(bytes), s.i32(0x0F0F_0F0F)));
        let flipped = bytes.each_ref().map(|bytes| s.flip(s.load_bytes(bytes)));
        let start = std::array::from_fn(|c| s.i32(1000 * c as i32));
        for half in 0..2 {
            let (mut unsigned, mut signed) = (start, start);
            s.dots(4, &mut unsigned, codes, &y, half);
            s.dots_signed(&mut signed, flipped, &y, half);
            for c in 0..NY {
                let own = four(&y[c], half);
                let expected = [s.dot(4, start[c], codes, own), s.dot_signed(start[c], flipped, own)];
                let found = [unsigned[c], signed[c]];
                let [found, expected] = [found, expected].map(|both| both.map(|v| values(s, v)));
                assert_eq!(found, expected, "{isa}, half {half} of column {c} of {NY}");
            }
        }
    }
}

/// All of the above, where the CPU has the instructions.
fn check_all<S: Simd>(s: Option<S>, isa: Isa) {
    if let Some(s) = s {
        check(s, isa);
        dots(s, isa);
        columns::<S, 1>(s, isa);
        columns::<S, 8>(s, isa);
        columns::<S, 12>(s, isa);
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn avx2_lanes_are_f32() {
    use super::super::simd::avx2::Avx2;
    check_all(Avx2::<false>::new(), Isa::Avx2);
    check_all(Avx2::<true>::new(), Isa::Avx2);
}

#[cfg(target_arch = "x86_64")]
#[test]
fn avx512_lanes_are_f32() {
    check_all(super::super::simd::avx512::Avx512::new(), Isa::Avx512);
}

#[cfg(target_arch = "aarch64")]
#[test]
fn neon_lanes_are_f32() {
    use super::super::simd::neon::Neon;
    check_all(Neon::<false>::new(), Isa::Neon);
    check_all(Neon::<true>::new(), Isa::Neon);
}
