//! Attention: every instruction set, thread count and split of the same tokens gives the same bits, positions that are
//! not live never matter, and the result is a softmax.

use std::sync::Arc;

use super::super::{Held, KvPool, KvQuery, KvShape, KvTarget, KvType, KvView, PageShape, Places};
use super::*;
use crate::device::Attention;
use crate::quant::Format;

/// A layer's cache that was full of NaN before anything was stored.
struct Cache {
    shape: KvShape,
    places: Places,
    pages: Vec<Held>,
}

impl Cache {
    fn new(heads: usize, width: usize, positions: usize, kv_type: KvType) -> Cache {
        Cache::in_pages((heads, width, kv_type), positions.div_ceil(16), 1, 0)
    }

    /// In `count` pages of `tiles`, the first `pinned` tiles of which are kept if there are more positions.
    fn in_pages((heads, width, kv_type): (usize, usize, KvType), tiles: usize, count: usize, pinned: usize) -> Cache {
        let shape = KvShape { heads, width, value_width: width, kv_type };
        let pool = KvPool::new(PageShape { kv: shape, layers: 1, tiles }, count, 0).unwrap();
        let page = || {
            let mut page = pool.take().unwrap().unwrap();
            page.tiles_mut(0).for_each(|bytes| bytes.fill(0xFF));
            Held::new(Arc::new(page))
        };
        Cache { shape, places: Places { tiles, pinned }, pages: (0..count).map(|_| page()).collect() }
    }

    fn append(&mut self, device: &Device, position: usize, k: &[f32], v: &[f32]) {
        let width = self.shape.heads * self.shape.width;
        let (k, v) = (buffer(width, k), buffer(width, v));
        let Cache { shape, places, pages } = self;
        let rows = 0..k.rows();
        let target = KvTarget { shape: *shape, layer: 0, places: *places, pages, position, rows };
        device.kv_append(vec![target], &k, &v).unwrap();
    }

    fn view(&self) -> KvView<'_> {
        KvView { shape: self.shape, layer: 0, places: self.places, pages: &self.pages }
    }

    /// The queries of positions from `start` on.
    fn query(&self, start: usize, q: &Buffer) -> KvQuery<'_> {
        KvQuery { view: self.view(), rows: 0..q.rows(), start, end: start + q.rows() }
    }
}

/// Queries, keys and values of some positions, and what is asked of them.
struct Case {
    /// K.
    kv_heads: usize,
    /// H / K.
    group: usize,
    /// E.
    width: usize,
    positions: usize,
    kv_type: KvType,
    cap: Option<f32>,
    window: Option<usize>,
    pinned: usize,
    causal: bool,
    sinks: Option<Vec<f32>>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

impl Case {
    fn new(rng: &mut Rng, (kv_heads, group, width): (usize, usize, usize), positions: usize) -> Case {
        let n = positions * kv_heads * width;
        // Queries large enough that some positions weigh much more than others.
        let q = rng.floats(n * group).into_iter().map(|x| 6.0 * x).collect();
        let (k, v) = (rng.floats(n), rng.floats(n));
        Case {
            kv_heads,
            group,
            width,
            positions,
            kv_type: KvType::F16,
            cap: None,
            window: None,
            pinned: 0,
            causal: true,
            sinks: None,
            q,
            k,
            v,
        }
    }

    fn heads(&self) -> usize {
        self.kv_heads * self.group
    }

    fn op(&self) -> Attention<'_> {
        let scale = 1.0 / (self.width as f32).sqrt();
        Attention {
            heads: self.heads(),
            scale,
            cap: self.cap,
            window: self.window,
            pinned: self.pinned,
            causal: self.causal,
            sinks: self.sinks.as_deref(),
            precision: Precision::Float,
        }
    }

    fn append(&self, device: &Device, cache: &mut Cache, positions: std::ops::Range<usize>) {
        let row = self.kv_heads * self.width;
        let own = positions.start * row..positions.end * row;
        cache.append(device, positions.start, &self.k[own.clone()], &self.v[own]);
    }

    /// The result for the queries at positions from..to, whose keys and values are stored in chunks of `chunk`.
    fn run(&self, device: &Device, from: usize, to: usize, chunk: usize) -> Vec<f32> {
        let mut cache = Cache::new(self.kv_heads, self.width, self.positions, self.kv_type);
        self.append(device, &mut cache, 0..from);
        let row = self.heads() * self.width;
        let mut all = Vec::new();
        for start in (from..to).step_by(chunk) {
            let end = to.min(start + chunk);
            self.append(device, &mut cache, start..end);
            all.extend(self.attend(device, &cache, start..end));
        }
        assert_eq!(all.len(), (to - from) * row);
        all
    }

    fn attend(&self, device: &Device, cache: &Cache, positions: std::ops::Range<usize>) -> Vec<f32> {
        let row = self.heads() * self.width;
        let q = buffer(row, &self.q[positions.start * row..positions.end * row]);
        let mut out = Act::default();
        device.attention(&q, &[cache.query(positions.start, &q)], &self.op(), &mut out).unwrap();
        assert_eq!((out.rows(), out.width()), (positions.len(), row));
        out.values().to_vec()
    }

    fn name(&self, from: usize, to: usize) -> String {
        let Case { kv_heads, group, width, kv_type, cap, window, .. } = self;
        format!("K {kv_heads} group {group} E {width} {kv_type:?} cap {cap:?} window {window:?} positions {from}..{to}")
    }

    /// Compares the result of every device for the queries at from..to.
    fn check_devices(&self, devices: &[(String, Device)], from: usize, to: usize) {
        let whole = |device| self.run(device, from, to, to - from);
        let expected = whole(&devices[0].1);
        for (name, device) in &devices[1..] {
            assert_same(&whole(device), &expected, || format!("{name}: {}", self.name(from, to)));
        }
    }
}

/// The number types for heads of this width.
fn types(width: usize) -> &'static [KvType] {
    let all = &[KvType::F16, KvType::F32, KvType::Q8_0, KvType::Q4_0];
    if width.is_multiple_of(32) { all } else { &all[..2] }
}

#[test]
fn every_instruction_set_and_thread_count_gives_the_same_bits() {
    let devices = devices();
    let mut rng = Rng::new(20);
    let mut i = 0;
    for width in [8, 16, 48, 64, 80, 128, 256] {
        for (kv_heads, group) in [(1, 1), (2, 3), (1, 4), (3, 7), (1, 7)] {
            for _ in 0..2 {
                i += 1;
                let start = [0, 255, 16, 257, 15][i % 5];
                let t = [1, 5, 17, 1][i / 2 % 4];
                let mut case = Case::new(&mut rng, (kv_heads, group, width), start + t);
                case.kv_type = types(width)[i % types(width).len()];
                case.pinned = [0, 3, 40][i % 3];
                case.cap = [None, Some(50.0), None][i % 3];
                case.window = [None, Some(16), Some(300), None][i % 4];
                case.sinks = (i % 5 < 2).then(|| rng.floats(kv_heads * group));
                case.check_devices(&devices, start, start + t);
            }
        }
    }
}

#[test]
fn the_edges_of_tiles_segments_and_windows() {
    let devices = devices();
    let mut rng = Rng::new(21);
    for (i, start) in [0, 15, 16, 255, 256, 257, 600].into_iter().enumerate() {
        for (j, t) in [1, 5, 17, 64].into_iter().enumerate() {
            for (l, window) in [None, Some(1), Some(16), Some(300)].into_iter().enumerate() {
                let width = if (i + j) % 2 == 0 { 16 } else { 32 };
                let mut case = Case::new(&mut rng, (1, 3, width), start + t);
                case.window = window;
                case.cap = ((i + j + l) % 2 == 0).then_some(50.0);
                case.kv_type = types(width)[(i + l) % types(width).len()];
                case.pinned = [0, 18][(i + j) % 2];
                case.check_devices(&devices, start, start + t);
            }
        }
    }
}

/// Chunks of any size, one position after the other, and everything at once: the same bits. Slots beyond the live
/// positions hold NaN in each but the last.
#[test]
fn the_split_of_a_prompt_does_not_matter() {
    let mut rng = Rng::new(22);
    for (window, kv_type) in [(None, KvType::F16), (Some(20), KvType::Q8_0), (Some(260), KvType::F32)] {
        let mut case = Case::new(&mut rng, (2, 2, 32), 530);
        (case.window, case.kv_type, case.pinned) = (window, kv_type, if window.is_some() { 7 } else { 0 });
        let whole = case.run(&Device::new(Threads::new(1), Isa::Scalar).unwrap(), 0, 530, 530);
        for (name, device) in devices() {
            for chunk in [1, 7, 64, 256, 530] {
                let found = case.run(&device, 0, 530, chunk);
                assert_same(&found, &whole, || format!("{name}, window {window:?}, chunks of {chunk}"));
            }
        }
    }
}

/// Without a causal mask each query sees the positions to the end, whichever of them are queries.
#[test]
fn without_a_mask_some_queries_see_what_all_see() {
    let mut rng = Rng::new(31);
    let mut case = Case::new(&mut rng, (2, 2, 32), 300);
    case.causal = false;
    let row = case.heads() * case.width;
    for (name, device) in devices() {
        let mut cache = Cache::new(2, 32, 300, case.kv_type);
        case.append(&device, &mut cache, 0..300);
        let whole = case.attend(&device, &cache, 0..300);
        for own in [0..1, 17..40, 290..300] {
            let own_values = own.start * row..own.end * row;
            let q = buffer(row, &case.q[own_values.clone()]);
            let query = KvQuery { end: 300, ..cache.query(own.start, &q) };
            let mut out = Act::default();
            device.attention(&q, &[query], &case.op(), &mut out).unwrap();
            assert_same(out.values(), &whole[own_values], || format!("{name}, queries {own:?}"));
        }
    }
}

/// The same positions in small pages, in a ring that has just room for the window, and beside other sequences.
#[test]
fn where_positions_lie_does_not_matter() {
    let mut rng = Rng::new(28);
    for (i, kv_type) in [KvType::F16, KvType::F32, KvType::Q8_0, KvType::Q4_0].into_iter().enumerate() {
        for (window, pinned) in [(None, 0), (Some(33), 0), (Some(40), 18), (Some(260), 256)] {
            let mut case = Case::new(&mut rng, (2, 3, 32), 620);
            (case.window, case.pinned, case.kv_type) = (window, pinned, kv_type);
            let (q_row, chunk) = (case.heads() * case.width, 50);
            let whole = case.run(&Device::new(Threads::new(1), Isa::Scalar).unwrap(), 0, 620, chunk);
            for (name, device) in devices().into_iter().skip(i % 2).step_by(2) {
                let mut pages = Cache::in_pages((2, 32, kv_type), 2, 20, 0);
                let pinned_tiles = pinned.div_ceil(16);
                let ring = window.map_or(39, |window| pinned_tiles + (window + chunk - 1).div_ceil(16));
                let mut ring = Cache::in_pages((2, 32, kv_type), ring, 1, pinned_tiles);
                for start in (0..620).step_by(chunk) {
                    let own = start..620.min(start + chunk);
                    case.append(&device, &mut pages, own.clone());
                    case.append(&device, &mut ring, own.clone());
                    // The queries of the ring stand between those of the pages.
                    let q = &case.q[own.start * q_row..own.end * q_row];
                    let (first, n) = (own.len() / 2, own.len());
                    let q = buffer(q_row, &[&q[..first * q_row], q, &q[first * q_row..]].concat());
                    let queries = [
                        KvQuery { rows: 0..first, ..pages.query(own.start, &q) },
                        KvQuery { rows: first..first + n, ..ring.query(own.start, &q) },
                        KvQuery { rows: first + n..2 * n, ..pages.query(own.start + first, &q) },
                    ];
                    let mut out = Act::default();
                    device.attention(&q, &queries, &case.op(), &mut out).unwrap();
                    let expected = &whole[own.start * q_row..own.end * q_row];
                    let expected = [&expected[..first * q_row], expected, &expected[first * q_row..]].concat();
                    assert_same(out.values(), &expected, || {
                        format!("{name}: {kv_type:?}, window {window:?}, pinned {pinned}, from {start}")
                    });
                }
            }
        }
    }
}

#[test]
fn positions_before_the_window_may_hold_anything() {
    let mut rng = Rng::new(23);
    for (window, start, t) in [(1, 40, 3), (16, 300, 20), (20, 31, 1), (257, 600, 5)] {
        let mut case = Case::new(&mut rng, (2, 3, 48), start + t);
        case.window = Some(window);
        for (name, device) in devices() {
            let mut cache = Cache::new(2, 48, start + t, KvType::F16);
            case.append(&device, &mut cache, 0..start + t);
            let expected = case.attend(&device, &cache, start..start + t);
            assert!(expected.iter().all(|x| x.is_finite()), "{name}");
            let dead = start + 1 - window;
            for strange in [f32::NAN, f32::INFINITY, 60000.0] {
                let garbage = vec![strange; dead * 2 * 48];
                cache.append(&device, 0, &garbage, &garbage);
                let found = case.attend(&device, &cache, start..start + t);
                assert_same(&found, &expected, || format!("{name}: window {window} at {start}, {strange}"));
            }
        }
    }
}

/// Softmax attention in f64 over the cached numbers, and the bound of the f32 result's error, for one query head.
fn definition(case: &Case, position: usize, head: usize) -> (Vec<f64>, f64) {
    let width = case.width;
    let row = |x: &[f32], at: usize| x[at * width..(at + 1) * width].to_vec();
    // What the cache keeps of a row.
    let stored = |x: &[f32], at: usize| -> Vec<f64> {
        let mut kept = row(x, at);
        match case.kv_type {
            KvType::F16 => kept.iter_mut().for_each(|x| *x = half::f16::from_f32(*x).to_f32()),
            KvType::F32 => {}
            KvType::Q8_0 | KvType::Q4_0 => {
                let format = if case.kv_type == KvType::Q8_0 { Format::Q8_0 } else { Format::Q4_0 };
                let mut bytes = vec![0; format.row_bytes(width).unwrap()];
                format.encode(&kept, &mut bytes).unwrap();
                format.decode(&bytes, &mut kept).unwrap();
            }
        }
        kept.into_iter().map(f64::from).collect()
    };
    let mut q: Vec<f64> =
        row(&case.q, position * case.heads() + head).iter().map(|x| f64::from(x * case.op().scale)).collect();
    if matches!(case.kv_type, KvType::Q8_0 | KvType::Q4_0) {
        for block in q.chunks_mut(32) {
            let d = block.iter().fold(0f64, |m, x| m.max(x.abs())) / 127.0;
            block.iter_mut().for_each(|x| *x = (*x / d).round_ties_even() * d);
        }
    }
    let low = case.window.map_or(0, |window| (position + 1).saturating_sub(window));
    let (mut scores, mut magnitude) = (Vec::new(), 0f64);
    let seen = (0..low.min(case.pinned)).chain(low..=position);
    for p in seen.clone() {
        let k = stored(&case.k, p * case.kv_heads + head / case.group);
        let terms = || q.iter().zip(&k).map(|(q, k)| q * k);
        magnitude = magnitude.max(terms().map(f64::abs).sum());
        let score: f64 = terms().sum();
        scores.push(case.cap.map_or(score, |cap| f64::from(cap) * tanh(score / f64::from(cap))));
    }
    let m = scores.iter().fold(f64::NEG_INFINITY, |m, &s| m.max(s));
    let weights: Vec<f64> = scores.iter().map(|s| crate::numeric::wide::exp(s - m)).collect();
    let total: f64 = weights.iter().sum();
    let mut out = vec![0.0; width];
    for (p, weight) in seen.zip(&weights) {
        for (o, v) in out.iter_mut().zip(stored(&case.v, p * case.kv_heads + head / case.group)) {
            *o += weight / total * v;
        }
    }
    // A score is a chain of E roundings, each of at most 2^-24 of the terms' magnitudes so far; with the rounding of
    // q * scale, of the cap and of s - m that makes it off by `score`, and so exp by that, relatively, and 2^-22 of its
    // own. Sums of n terms add n 2^-24; numerator and denominator both have this error. |v| < 1.
    let score = (width as f64 + 8.0) * magnitude * 2f64.powi(-24);
    let sums = (scores.len() as f64 + 16.0) * 2f64.powi(-24);
    (out, 2.0 * (score + sums + 2f64.powi(-22)))
}

fn tanh(x: f64) -> f64 {
    let e = crate::numeric::wide::exp(2.0 * x);
    1.0 - 2.0 / (e + 1.0)
}

#[test]
fn attention_is_a_softmax_over_the_live_positions() {
    let mut rng = Rng::new(24);
    let device = Device::new(Threads::new(1), Isa::Scalar).unwrap();
    let cases = [
        (8, None, None, KvType::F16),
        (64, Some(5.0), None, KvType::F32),
        (16, None, Some(17), KvType::F16),
        (128, None, Some(300), KvType::F32),
        (80, Some(50.0), None, KvType::F16),
        (64, None, Some(300), KvType::Q8_0),
        (32, None, Some(17), KvType::Q4_0),
        (96, Some(50.0), None, KvType::Q8_0),
    ];
    for (i, (width, cap, window, kv_type)) in cases.into_iter().enumerate() {
        let mut case = Case::new(&mut rng, (2, 3, width), 530);
        (case.cap, case.window, case.kv_type, case.pinned) = (cap, window, kv_type, [0, 5, 20][i % 3]);
        for position in [0, 1, 16, 255, 256, 257, 529] {
            let found = case.run(&device, position, position + 1, 1);
            for (head, found) in found.chunks_exact(width).enumerate() {
                let (expected, limit) = definition(&case, position, head);
                assert!(limit < 1e-3);
                for (found, expected) in found.iter().zip(expected) {
                    let error = (f64::from(*found) - expected).abs();
                    let name = case.name(position, position + 1);
                    assert!(error <= limit, "{name}, head {head}: {found} for {expected}, limit {limit:e}");
                }
            }
        }
    }
}

#[test]
fn what_is_not_a_number_among_the_live_positions_is_seen() {
    for (name, device) in devices() {
        let case = Case::new(&mut Rng::new(25), (1, 2, 16), 300);
        let mut cache = Cache::new(1, 16, 300, KvType::F32);
        case.append(&device, &mut cache, 0..300);
        cache.append(&device, 100, &[f32::NAN; 16], &[1.0; 16]);
        let found = case.attend(&device, &cache, 99..101);
        assert!(found[..32].iter().all(|x| x.is_finite()), "{name}: before it");
        assert!(found[32..].iter().all(|x| x.is_nan()), "{name}: from it on");
    }
}

#[test]
fn results_are_quantised_where_that_is_asked_for() {
    let case = Case::new(&mut Rng::new(26), (2, 2, 16), 20);
    for (name, device) in devices() {
        let mut cache = Cache::new(2, 16, 20, KvType::F16);
        case.append(&device, &mut cache, 0..20);
        let (q, op) = (buffer(64, &case.q), Attention { precision: Precision::Eight, ..case.op() });
        let mut out = Act::default();
        device.attention(&q, &[cache.query(0, &q)], &op, &mut out).unwrap();
        let expected = act(&device, 64, out.values(), Precision::Eight);
        for t in 0..20 {
            assert_eq!(quantised(&out, t), quantised(&expected, t), "{name} row {t}");
        }
    }
}

/// The nearest half precision number, ties to even, found among all of them; overflow gives the largest.
fn nearest_half(x: f32) -> u16 {
    let value = |bits: u16| half::f16::from_bits(bits).to_f64();
    let a = f64::from(x.abs());
    // Bit patterns of positive numbers ascend as the numbers do.
    let (mut low, mut high) = (0u16, 0x7BFF);
    while low < high {
        let middle = (low + high).div_ceil(2);
        if value(middle) <= a { low = middle } else { high = middle - 1 }
    }
    if low < 0x7BFF {
        let (below, above) = (a - value(low), value(low + 1) - a);
        if above < below || above == below && low % 2 == 1 {
            low += 1;
        }
    }
    low | ((x.to_bits() >> 16) as u16 & 0x8000)
}

#[test]
fn cached_halves_are_the_nearest_and_stay_finite() {
    let mut rng = Rng::new(27);
    let mut x: Vec<f32> = (0..4000).map(|_| f32::from_bits(rng.next_u64() as u32)).filter(|x| x.is_finite()).collect();
    x.extend((0..4000).map(|_| rng.signed() * 2f64.powi(rng.below(44) as i32 - 26) as f32));
    // Exactly between two halves, and a step to each side; around the largest.
    for bits in [0u16, 1, 2, 0x3FF, 0x400, 0x401, 0x3C00, 0x3C01, 0x7BFE] {
        let tie = ((half::f16::from_bits(bits).to_f64() + half::f16::from_bits(bits + 1).to_f64()) / 2.0) as f32;
        x.extend([tie, f32::from_bits(tie.to_bits() - 1), f32::from_bits(tie.to_bits() + 1), -tie]);
    }
    x.extend([65504.0, 65519.996, 65520.0, 65536.0, -65520.0, f32::MAX, -f32::MAX, 0.0, -0.0, 1e-45, -1e-45]);
    x.resize(x.len().next_multiple_of(24), 1.0);
    let positions = x.len() / 24;
    for (name, device) in devices() {
        let mut cache = Cache::new(2, 12, positions, KvType::F16);
        let negated: Vec<f32> = x.iter().map(|x| -x).collect();
        cache.append(&device, 0, &x, &negated);
        let view = cache.view();
        for (i, &x) in x.iter().enumerate() {
            let (position, head, e) = (i / 24, i % 24 / 12, i % 12);
            let expected = half::f16::from_bits(nearest_half(x)).to_f32();
            let found = (view.key(head, position, e), view.value(head, position, e));
            assert_same(&[found.0, found.1], &[expected, -expected], || format!("{name}: {x:e}"));
        }
        // The same where nothing larger is beside them.
        for x in [65519.996, 65520.0, -65520.0] {
            cache.append(&device, 3, &[x; 24], &[1.0; 24]);
            let expected = half::f16::from_bits(nearest_half(x)).to_f32();
            assert_same(&[cache.view().key(1, 3, 5)], &[expected], || format!("{name}: {x} alone"));
        }
        let strange = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
        cache.append(&device, 3, &[0, 1, 2, 0].map(|i| strange[i]).repeat(6), &[0.0; 24]);
        let found = [0, 1, 2].map(|e| cache.view().key(0, 3, e));
        assert_same(&found, &strange, || name.clone());
    }
}

#[test]
fn singles_are_cached_as_they_are() {
    let x = [1.0e-45, -0.0, f32::MAX, f32::NAN, 1.1, f32::INFINITY, 3.3e-20, -7.0];
    let device = Device::new(Threads::new(2), Isa::Scalar).unwrap();
    let mut cache = Cache::new(1, 8, 40, KvType::F32);
    for position in [0, 15, 16, 39] {
        cache.append(&device, position, &x, &x);
        let view = cache.view();
        let (keys, values) = (
            [0, 1, 2, 3, 4, 5, 6, 7].map(|e| view.key(0, position, e)),
            [0, 1, 2, 3, 4, 5, 6, 7].map(|e| view.value(0, position, e)),
        );
        assert_same(&keys, &x, || format!("key at {position}"));
        assert_same(&values, &x, || format!("value at {position}"));
    }
}

#[test]
fn nothing_is_written_beside_what_is_appended() {
    let device = Device::new(Threads::new(3), Isa::Scalar).unwrap();
    for (position, t) in [(0, 1), (5, 11), (5, 12), (16, 16), (10, 40)] {
        let mut cache = Cache::new(2, 8, 64, KvType::F32);
        cache.append(&device, position, &vec![1.0; t * 16], &vec![2.0; t * 16]);
        for p in 0..64 {
            let view = cache.view();
            for (head, e) in [(0, 0), (0, 7), (1, 0), (1, 7)] {
                let found = (view.key(head, p, e), view.value(head, p, e));
                let inside = (position..position + t).contains(&p);
                assert!(
                    if inside { found == (1.0, 2.0) } else { found.0.is_nan() && found.1.is_nan() },
                    "{position}+{t}: {p}"
                );
            }
        }
    }
}

#[test]
fn sums_that_do_not_fit_into_memory_are_an_error() {
    for stride in [usize::MAX, usize::MAX / 64, isize::MAX as usize / 4] {
        let error = super::super::attention::Partial::new(1, stride).unwrap_err();
        assert!(matches!(error, crate::Error::OutOfMemory(_)), "{error}");
    }
}
