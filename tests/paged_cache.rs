//! The paged cache as an object of its own, against a model that keeps everything in plain lists.

#![allow(clippy::disallowed_methods)] // a reference is as exact as the machine allows

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

use llm::cache::{AttentionOptions, PagedCache, PagedOptions, SequenceId};
use llm::{Error, Isa, KvType, Threads};
use proptest::prelude::*;

const LAYERS: usize = 3;
const HEADS: usize = 2;
const WIDTH: usize = 4;
const ROW: usize = HEADS * WIDTH;
const PAGE: usize = 16;
const MAX_PAGES: usize = 12;

fn cache(kv_type: KvType, max_pages: usize) -> PagedCache {
    PagedCache::new(&PagedOptions {
        layers: LAYERS,
        kv_heads: HEADS,
        head_dim: WIDTH,
        max_pages,
        kv_type,
        threads: Some(Threads::new(1)),
        ..PagedOptions::default()
    })
    .unwrap()
}

/// Numbers that tell the place and the time of their writing.
fn row(stamp: u64) -> Vec<f32> {
    (0..ROW as u64).map(|i| ((stamp * 31 + i * 7) % 1009) as f32 / 512.0 - 1.0).collect()
}

#[derive(Debug, Clone)]
enum Op {
    Create,
    Fork(usize),
    Remove(usize),
    /// So many positions to the next layer in turn, or to one that may be out of order.
    Append(usize, usize, usize),
    Truncate(usize, usize),
    Attend(usize, usize, usize),
}

fn op() -> impl Strategy<Value = Op> {
    let sequence = 0..6usize;
    prop_oneof![
        1 => Just(Op::Create),
        2 => sequence.clone().prop_map(Op::Fork),
        1 => sequence.clone().prop_map(Op::Remove),
        12 => (sequence.clone(), 0..LAYERS + 3, 0..20usize).prop_map(|(s, l, n)| Op::Append(s, l, n)),
        2 => (sequence.clone(), 0..70usize).prop_map(|(s, n)| Op::Truncate(s, n)),
        2 => (sequence, 0..LAYERS, 0..5usize).prop_map(|(s, l, n)| Op::Attend(s, l, n)),
    ]
}

/// A sequence in plain lists: the rows of each layer, and which page each stretch of positions would be.
#[derive(Clone, Default)]
struct Plain {
    k: [Vec<Vec<f32>>; LAYERS],
    v: [Vec<Vec<f32>>; LAYERS],
    pages: Vec<u64>,
}

impl Plain {
    fn committed(&self) -> usize {
        self.k[LAYERS - 1].len()
    }

    fn truncate(&mut self, length: usize) {
        self.k.iter_mut().chain(&mut self.v).for_each(|rows| rows.truncate(length));
        self.pages.truncate(length.div_ceil(PAGE));
    }
}

#[derive(Default)]
struct World {
    sequences: BTreeMap<SequenceId, Plain>,
    next_page: u64,
    stamp: u64,
    forks: u64,
    copies: u64,
    peak: usize,
}

impl World {
    fn pages(&self) -> BTreeMap<u64, usize> {
        let mut holders = BTreeMap::new();
        self.sequences.values().flat_map(|s| &s.pages).for_each(|page| *holders.entry(*page).or_default() += 1);
        holders
    }

    /// Gives a sequence pages for `range`, as copy-on-write does. False if there are not enough.
    fn reserve(&mut self, id: SequenceId, range: std::ops::Range<usize>) -> bool {
        let holders = self.pages();
        let plain = &self.sequences[&id];
        let mut pages = plain.pages.clone();
        let (mut taken, mut copies) = (0, 0);
        for i in range.start / PAGE..range.end.div_ceil(PAGE) {
            match pages.get(i) {
                Some(page) if holders[page] == 1 => continue,
                Some(_) => {
                    pages[i] = self.next_page + taken;
                    copies += 1;
                }
                None => pages.push(self.next_page + taken),
            }
            taken += 1;
        }
        // Old pages are given back when the new ones are there.
        if holders.len() + taken as usize > MAX_PAGES {
            // It took what there was before it found that out.
            self.peak = MAX_PAGES;
            return false;
        }
        self.peak = self.peak.max(holders.len() + taken as usize);
        self.next_page += taken;
        self.copies += copies;
        self.sequences.get_mut(&id).unwrap().pages = pages;
        true
    }

    fn check(&self, cache: &PagedCache) {
        let (stats, holders) = (cache.stats(), self.pages());
        assert_eq!(stats.pages_total, MAX_PAGES as u64);
        assert_eq!(stats.pages_used as usize, holders.len());
        assert_eq!(stats.pages_shared as usize, holders.values().filter(|n| **n > 1).count());
        assert_eq!((stats.forks, stats.copies, stats.pages_idle), (self.forks, self.copies, 0));
        assert_eq!(stats.pages_peak as usize, self.peak);
        assert_eq!(stats.sequences as usize, self.sequences.len());
        assert_eq!(stats.positions as usize, self.sequences.values().map(Plain::committed).sum::<usize>());
        let page_bytes = LAYERS * PAGE * HEADS * (WIDTH + 16) * 4;
        assert_eq!(stats.bytes as usize, holders.len() * page_bytes);
        let mut out = vec![0.0; ROW];
        for (id, plain) in &self.sequences {
            assert_eq!(cache.sequence_length(*id).unwrap(), plain.committed());
            for layer in 0..LAYERS {
                let n = plain.k[layer].len();
                let some: BTreeSet<usize> = [0, n / 3, n / 2, n.saturating_sub(2), n.saturating_sub(1)].into();
                for position in some.into_iter().filter(|p| *p < n) {
                    cache.get_k(*id, layer, position, &mut out).unwrap();
                    assert_eq!(out, plain.k[layer][position], "key of {position} in layer {layer}");
                    cache.get_v(*id, layer, position, &mut out).unwrap();
                    assert_eq!(out, plain.v[layer][position], "value of {position} in layer {layer}");
                }
                assert!(matches!(cache.get_k(*id, layer, n, &mut out), Err(Error::InvalidArgument(_))));
            }
        }
    }

    fn run(&mut self, cache: &PagedCache, op: &Op) {
        let ids: Vec<SequenceId> = self.sequences.keys().copied().collect();
        let pick = |i: usize| ids.get(i % ids.len().max(1)).copied();
        match *op {
            Op::Create => {
                self.sequences.insert(cache.create_sequence().unwrap(), Plain::default());
            }
            Op::Fork(i) => {
                let Some(id) = pick(i) else { return };
                let mut plain = self.sequences[&id].clone();
                plain.truncate(plain.committed());
                self.forks += 1;
                self.sequences.insert(cache.fork_sequence(id).unwrap(), plain);
            }
            Op::Remove(i) => {
                let Some(id) = pick(i) else { return };
                cache.remove_sequence(id).unwrap();
                self.sequences.remove(&id);
                assert!(matches!(cache.sequence_length(id), Err(Error::NotFound(_))));
            }
            Op::Append(i, layer, n) => {
                let Some(id) = pick(i) else { return };
                let plain = &self.sequences[&id];
                // Most of the time what is next: the first layer that has less than the one before, by as much.
                let behind = (1..LAYERS).find(|l| plain.k[*l].len() < plain.k[*l - 1].len());
                let (layer, n) = match (layer < LAYERS, behind) {
                    (true, _) => (layer, n),
                    (false, Some(l)) => (l, plain.k[l - 1].len() - plain.k[l].len()),
                    (false, None) => (0, n),
                };
                let start = plain.k[layer].len();
                let rows: Vec<Vec<f32>> = (0..2 * n as u64).map(|j| row(self.stamp + j)).collect();
                self.stamp += 2 * n as u64;
                let (k, v) = (rows[..n].concat(), rows[n..].concat());
                let result = cache.append_tokens(id, layer, &k, &v);
                if layer > 0 && start + n > self.sequences[&id].k[layer - 1].len() {
                    assert!(matches!(result, Err(Error::FailedPrecondition(_))), "{result:?}");
                } else if n > 0 && !self.reserve(id, start..start + n) {
                    assert!(matches!(result, Err(Error::CacheFull(_))), "{result:?}");
                } else {
                    result.unwrap();
                    let plain = self.sequences.get_mut(&id).unwrap();
                    plain.k[layer].extend(rows[..n].to_vec());
                    plain.v[layer].extend(rows[n..].to_vec());
                }
            }
            Op::Truncate(i, length) => {
                let Some(id) = pick(i) else { return };
                let plain = self.sequences.get_mut(&id).unwrap();
                let result = cache.truncate_sequence(id, length);
                if length > plain.committed() {
                    assert!(matches!(result, Err(Error::InvalidArgument(_))));
                } else {
                    result.unwrap();
                    plain.truncate(length);
                }
            }
            Op::Attend(i, layer, n) => {
                let Some(id) = pick(i) else { return };
                let plain = &self.sequences[&id];
                let options = AttentionOptions { heads: 2 * HEADS, scale: None, softcap: None, window: None };
                let q: Vec<f32> = (0..2 * n as u64).flat_map(|j| row(j + 5)).collect();
                let mut out = vec![7.0; q.len()];
                let result = cache.attention(id, layer, &q, &options, &mut out);
                if n > plain.k[layer].len() {
                    assert!(matches!(result, Err(Error::InvalidArgument(_))));
                    return;
                }
                result.unwrap();
                for (out, expected) in out.iter().zip(attention(&q, &plain.k[layer], &plain.v[layer])) {
                    assert!((f64::from(*out) - expected).abs() < 1e-5, "{out} for {expected}");
                }
            }
        }
    }
}

/// Softmax attention of the last rows in f64: two query heads for each key/value head.
fn attention(q: &[f32], k: &[Vec<f32>], v: &[Vec<f32>]) -> Vec<f64> {
    let count = q.len() / (2 * ROW);
    let mut out = Vec::new();
    for (t, q) in q.chunks(2 * ROW).enumerate() {
        let seen = k.len() - count + t + 1;
        for (head, q) in q.chunks(WIDTH).enumerate() {
            let own = head / 2 * WIDTH..(head / 2 + 1) * WIDTH;
            let dot = |k: &[f32]| q.iter().zip(k).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
            let weights: Vec<f64> = k[..seen].iter().map(|k| (dot(&k[own.clone()]) / 2.0).exp()).collect();
            let total: f64 = weights.iter().sum();
            for e in own {
                out.push(v.iter().zip(&weights).map(|(v, w)| f64::from(v[e]) * w).sum::<f64>() / total);
            }
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_does_what_plain_lists_do(ops in proptest::collection::vec(op(), 1..120)) {
        let cache = cache(KvType::F32, MAX_PAGES);
        let mut world = World::default();
        world.run(&cache, &Op::Create);
        for op in &ops {
            world.run(&cache, op);
            world.check(&cache);
        }
        // Nothing leaks.
        world.sequences.keys().for_each(|id| cache.remove_sequence(*id).unwrap());
        prop_assert_eq!(cache.stats().pages_used, 0);
        prop_assert_eq!(cache.stats().bytes, 0);
    }
}

/// Both children and the parent write into the page that they share: each has its own then, and one copy less is made
/// than there are holders.
#[test]
fn a_shared_tail_is_copied_when_it_is_written() {
    let cache = cache(KvType::F32, MAX_PAGES);
    let append = |id, stamp| {
        for layer in 0..LAYERS {
            cache.append_tokens(id, layer, &row(stamp), &row(stamp + 1)).unwrap();
        }
    };
    let parent = cache.create_sequence().unwrap();
    (0..20).for_each(|i| append(parent, i));
    let children = [cache.fork_sequence(parent).unwrap(), cache.fork_sequence(parent).unwrap()];
    let stats = cache.stats();
    assert_eq!((stats.pages_used, stats.pages_shared, stats.copies, stats.positions), (2, 2, 0, 60));
    for (i, (id, copies, used, shared)) in
        [(children[0], 1, 3, 2), (parent, 2, 4, 1), (children[1], 2, 4, 1)].into_iter().enumerate()
    {
        append(id, 100 * (i as u64 + 1));
        let stats = cache.stats();
        assert_eq!((stats.copies, stats.pages_used, stats.pages_shared), (copies, used, shared), "writer {i}");
    }
    let mut out = vec![0.0; ROW];
    for (id, stamp) in [(children[0], 100), (parent, 200), (children[1], 300)] {
        assert_eq!(cache.sequence_length(id).unwrap(), 21);
        for layer in 0..LAYERS {
            for position in 0..20 {
                cache.get_k(id, layer, position, &mut out).unwrap();
                assert_eq!(out, row(position as u64));
            }
            cache.get_v(id, layer, 20, &mut out).unwrap();
            assert_eq!(out, row(stamp + 1));
        }
    }
}

#[test]
fn readers_and_writers_of_different_sequences_do_not_meet() {
    let cache = cache(KvType::F16, 400);
    let fill = |id, n: u64| {
        for i in 0..n {
            (0..LAYERS).for_each(|layer| cache.append_tokens(id, layer, &row(i), &row(i)).unwrap());
        }
    };
    let parent = cache.create_sequence().unwrap();
    fill(parent, 40);
    let options = AttentionOptions { heads: HEADS, scale: Some(0.5), softcap: Some(3.0), window: Some(30) };
    let attend = |id| {
        let mut out = vec![0.0; ROW];
        cache.attention(id, 1, &row(3), &options, &mut out).unwrap();
        out.iter().map(|x| x.to_bits()).collect::<Vec<u32>>()
    };
    let expected = attend(parent);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..40 {
                        // The parent may be in use by the reader.
                        let child = loop {
                            match cache.fork_sequence(parent) {
                                Ok(child) => break child,
                                Err(error) => assert!(matches!(error, Error::Busy(_)), "{error:?}"),
                            }
                        };
                        fill(child, 25);
                        assert_eq!(cache.sequence_length(child).unwrap(), 65);
                        cache.truncate_sequence(child, 40).unwrap();
                        assert_eq!(attend(child), expected);
                        cache.remove_sequence(child).unwrap();
                    }
                })
            })
            .collect();
        let reader = scope.spawn(|| {
            let (mut read, mut out) = (0, vec![0.0; ROW]);
            while !done.load(Ordering::Relaxed) || read < 100 {
                match cache.get_k(parent, 2, 17, &mut out) {
                    Ok(()) => read += 1,
                    Err(error) => assert!(matches!(error, Error::Busy(_)), "{error:?}"),
                }
                assert!(cache.stats().pages_used >= 3);
            }
        });
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap();
    });
    let stats = cache.stats();
    assert_eq!((stats.pages_used, stats.pages_shared, stats.sequences), (3, 0, 1));
    assert_eq!((stats.forks, stats.copies), (120, 120));
}

/// What is stored is the nearest that the type has, and every instruction set attends to the same bits.
#[test]
fn types_round_as_they_should() {
    let x: Vec<f32> = (0..64).map(|i| (i as f32 * 0.37).sin() * 3.0).collect();
    let mut results: Vec<Vec<u32>> = Vec::new();
    for (kv_type, limit) in [(KvType::F32, 0.0), (KvType::F16, 1e-3), (KvType::Q8_0, 0.013), (KvType::Q4_0, 0.4)] {
        let mut of_type: Option<Vec<u32>> = None;
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            let cache = PagedCache::new(&PagedOptions {
                layers: 1,
                kv_heads: 1,
                head_dim: 64,
                max_pages: 2,
                page_size: 32,
                kv_type,
                threads: Some(Threads::new(2)),
                isa: Some(isa),
            })
            .unwrap();
            let id = cache.create_sequence().unwrap();
            for _ in 0..40 {
                cache.append_tokens(id, 0, &x, &x).unwrap();
            }
            let mut out = vec![0.0; 64];
            for position in [0, 17, 39] {
                cache.get_k(id, 0, position, &mut out).unwrap();
                let worst = out.iter().zip(&x).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(worst <= limit, "{kv_type:?}: {worst}");
            }
            let options = AttentionOptions { heads: 2, scale: None, softcap: None, window: None };
            let mut out = vec![0.0; 128];
            cache.attention(id, 0, &[&x[..], &x[..]].concat(), &options, &mut out).unwrap();
            let bits: Vec<u32> = out.iter().map(|x| x.to_bits()).collect();
            assert_eq!(of_type.get_or_insert(bits.clone()), &bits, "{kv_type:?} {isa}");
        }
        results.extend(of_type);
    }
    assert_eq!(results.iter().collect::<BTreeSet<_>>().len(), 4, "each type rounds in its own way");
}

/// Latent attention has values that are narrower than its keys.
#[test]
fn sequences_of_two_widths_are_for_sessions() {
    let model = common::load(&common::unpacked_gguf("arch/deepseek3/model.gguf"));
    let cache = model.paged_cache(&PagedOptions { max_pages: 3, ..PagedOptions::default() }).unwrap();
    let error = cache.create_sequence().unwrap_err();
    assert!(matches!(&error, Error::Unsupported(_)) && error.fact("expected") != error.fact("found"), "{error}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let good = || PagedOptions { layers: 1, kv_heads: 1, head_dim: 8, max_pages: 4, ..PagedOptions::default() };
    for (name, options) in [
        ("num_layers", PagedOptions { layers: 0, ..good() }),
        ("num_layers", PagedOptions { layers: 65_537, ..good() }),
        ("num_kv_heads", PagedOptions { kv_heads: 0, ..good() }),
        ("head_dim", PagedOptions { head_dim: 0, ..good() }),
        ("max_pages", PagedOptions { max_pages: 0, ..good() }),
        ("page_size", PagedOptions { page_size: 8, ..good() }),
        ("page_size", PagedOptions { page_size: 40, ..good() }),
    ] {
        let error = PagedCache::new(&options).err().unwrap();
        assert!(matches!(error, Error::InvalidArgument(_)), "{error:?}");
        assert_eq!(error.fact("argument"), Some(name));
    }
    let of_blocks = PagedOptions { kv_type: KvType::Q4_0, ..good() };
    assert!(matches!(PagedCache::new(&of_blocks), Err(Error::Unsupported(_))));
    let huge = PagedOptions { kv_heads: usize::MAX / 2, head_dim: 64, ..good() };
    assert!(matches!(PagedCache::new(&huge), Err(Error::OutOfMemory(_))));
    let huge = PagedOptions { layers: 65_536, page_size: 1 << 60, ..good() };
    assert!(matches!(PagedCache::new(&huge), Err(Error::OutOfMemory(_))));

    let cache = PagedCache::new(&good()).unwrap();
    let id = cache.create_sequence().unwrap();
    let x = [1.0; 16];
    assert!(matches!(cache.append_tokens(id, 1, &x, &x), Err(Error::InvalidArgument(_))));
    assert!(matches!(cache.append_tokens(id, 0, &x[..9], &x[..9]), Err(Error::InvalidArgument(_))));
    assert!(matches!(cache.append_tokens(id, 0, &x, &x[..8]), Err(Error::InvalidArgument(_))));
    assert!(matches!(cache.append_tokens(id + 1, 0, &x, &x), Err(Error::NotFound(_))));
    cache.append_tokens(id, 0, &x, &x).unwrap();
    let mut small = [0.0; 7];
    assert!(matches!(cache.get_k(id, 0, 0, &mut small), Err(Error::BufferTooSmall(_))));
    let blind = AttentionOptions { heads: 1, scale: None, softcap: None, window: Some(0) };
    let error = cache.attention(id, 0, &[0.0; 8], &blind, &mut [0.0; 8]).unwrap_err();
    assert_eq!(error.fact("argument"), Some("window"));
    let attend = |heads, scale, q: &[f32], out: &mut [f32]| {
        cache.attention(id, 0, q, &AttentionOptions { heads, scale, softcap: None, window: None }, out)
    };
    let mut out = [0.0; 16];
    assert!(matches!(attend(0, None, &x, &mut out), Err(Error::InvalidArgument(_))));
    assert!(matches!(attend(2, Some(f32::NAN), &x, &mut out), Err(Error::InvalidArgument(_))));
    assert!(matches!(attend(3, None, &x, &mut out), Err(Error::InvalidArgument(_))));
    assert!(matches!(attend(1, None, &x, &mut out[..15]), Err(Error::BufferTooSmall(_))));
    attend(2, None, &x, &mut out).unwrap();
    assert_eq!(out, x);
}
