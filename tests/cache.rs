//! Where keys and values are kept does not change one bit of a result.

mod common;

use std::sync::Arc;

use llm::cache::{CacheKind, PagedCache, PagedOptions};
use llm::generate::{Session, SessionOptions};
use llm::model::{CacheOptions, Model};
use llm::{Error, KvType, Threads};

const KINDS: [CacheKind; 3] = [CacheKind::Contiguous, CacheKind::Sliding, CacheKind::Paged];

fn tiny(name: &str) -> Arc<Model> {
    common::load(&common::unpacked_gguf(&format!("arch/{name}/model.gguf")))
}

/// Numbers below 320 that repeat late.
fn tokens(n: usize, seed: u64) -> Vec<u32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as u32 % 320
    };
    (0..n).map(|_| next()).collect()
}

fn options(cache: CacheOptions, chunk: usize) -> SessionOptions {
    SessionOptions { cache, chunk, threads: Some(Threads::new(2)), ..SessionOptions::default() }
}

fn bits(session: &mut Session) -> Vec<u32> {
    session.logits().unwrap().iter().map(|x| x.to_bits()).collect()
}

/// The logits of all tokens, taken in a first part of `first` tokens and single steps.
fn all_bits(mut session: Session, tokens: &[u32], first: usize) -> Vec<u32> {
    let v = session.model().config().vocab_size;
    let mut logits = vec![0.0; tokens.len() * v];
    session.eval(&tokens[..first], &mut logits).unwrap();
    for (token, logits) in tokens[first..].iter().zip(logits[first * v..].chunks_mut(v)) {
        session.eval(&[*token], logits).unwrap();
    }
    logits.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn every_kind_gives_the_same_bits() {
    // Windows in some layers, in all, in none; latent vectors; learned sinks; a parallel block.
    for name in ["gemma3", "mistral", "llama", "deepseek3", "gpt-oss", "falcon"] {
        let model = tiny(name);
        let tokens = tokens(300, 1);
        for (i, (window, sinks)) in [(0, 0), (24, 0), (40, 5), (7, 20)].into_iter().enumerate() {
            let kv_type = [KvType::F16, KvType::F32][i % 2];
            let cache = CacheOptions { context_length: 320, kv_type, window, sinks, ..CacheOptions::default() };
            let run = |kind, chunk, page_size| {
                let cache = CacheOptions { kind, page_size, ..cache };
                let session = Session::new(Arc::clone(&model), &options(cache, chunk)).unwrap();
                all_bits(session, &tokens, 270)
            };
            let expected = run(CacheKind::Contiguous, 0, 0);
            for (kind, chunk, page_size) in [
                (CacheKind::Contiguous, 9, 0),
                (CacheKind::Sliding, 16, 0),
                (CacheKind::Sliding, 33, 0),
                (CacheKind::Paged, 16, 0),
                (CacheKind::Paged, 50, 48),
            ] {
                let what = format!("{name}: {kind:?}, window {window}, sinks {sinks}, chunks of {chunk}");
                assert!(run(kind, chunk, page_size) == expected, "{what}");
            }
            if window > 0 {
                let all = CacheOptions { window: 0, sinks: 0, ..cache };
                let session = Session::new(Arc::clone(&model), &options(all, 0)).unwrap();
                let seen = all_bits(session, &tokens, 270);
                let v = model.config().vocab_size;
                assert_eq!(seen[..window * v], expected[..window * v], "{name}: within the window");
                // Mistral's own is shorter.
                assert!(
                    name == "mistral" && window > 16 || seen != expected,
                    "{name}: the window {window} makes no difference"
                );
            }
        }
    }
}

/// A chunk that begins anywhere within a tile, in rings of windows that are shorter than one.
#[test]
fn rings_of_short_windows_have_room_for_a_chunk() {
    let model = tiny("gemma3");
    let tokens = tokens(340, 2);
    for window in [1, 2, 13, 15, 16, 17, 18] {
        for first in [1, 8, 13, 15] {
            let run = |kind| {
                let cache = CacheOptions { kind, window, context_length: 400, ..CacheOptions::default() };
                let mut session = Session::new(Arc::clone(&model), &options(cache, 100)).unwrap();
                let parts = [0..first, first..first + 100, first + 100..first + 200, first + 200..340];
                parts.map(|part| {
                    session.append(&tokens[part]).unwrap();
                    bits(&mut session)
                })
            };
            assert!(run(CacheKind::Sliding) == run(CacheKind::Contiguous), "window {window}, {first} before");
        }
    }
}

#[test]
fn quantised_types_give_the_same_bits_in_every_kind_and_stay_near() {
    let model = common::load_real(common::SMOLLM2);
    let text = std::fs::read(common::data("models/text.txt")).unwrap();
    let tokens = model.tokenizer().encode(&text[..2000], Default::default()).unwrap();
    let run = |kind, kv_type, chunk| {
        let cache = CacheOptions { kind, kv_type, window: 300, sinks: 4, ..CacheOptions::default() };
        let mut session = Session::new(Arc::clone(&model), &options(cache, chunk)).unwrap();
        session.append(&tokens).unwrap();
        session.logits().unwrap().to_vec()
    };
    let exact = run(CacheKind::Contiguous, KvType::F32, 0);
    let mut last = 0.0;
    for (kv_type, limit) in [(KvType::F16, 1e-3), (KvType::Q8_0, 1e-2), (KvType::Q4_0, 0.5)] {
        let found = run(CacheKind::Contiguous, kv_type, 0);
        for (kind, chunk) in [(CacheKind::Sliding, 64), (CacheKind::Paged, 100)] {
            assert!(run(kind, kv_type, chunk) == found, "{kind:?} {kv_type:?}");
        }
        let error: f64 = found.iter().zip(&exact).map(|(a, b)| f64::from(a - b).powi(2)).sum();
        let error = error / exact.iter().map(|b| f64::from(*b).powi(2)).sum::<f64>();
        assert!(error > last && error < limit, "{kv_type:?}: NMSE {error:e}");
        last = error;
    }
}

/// A session that holds `tokens` and nothing else.
fn fresh(model: &Arc<Model>, cache: CacheOptions, tokens: &[u32]) -> Vec<u32> {
    let mut session = Session::new(Arc::clone(model), &options(cache, 16)).unwrap();
    session.append(tokens).unwrap();
    bits(&mut session)
}

#[test]
fn forks_go_on_apart() {
    let model = tiny("gemma3");
    for kind in KINDS {
        for length in [1, 15, 16, 37, 100] {
            let cache = CacheOptions { kind, context_length: 160, window: 30, ..CacheOptions::default() };
            let start = tokens(length, 2);
            let mut parent = Session::new(Arc::clone(&model), &options(cache, 16)).unwrap();
            parent.append(&start).unwrap();
            let mut children = [parent.fork().unwrap(), parent.fork().unwrap()];
            let mut grandchild = children[0].fork().unwrap();
            // All write, the parent between its children, and the first child twice.
            let mut expected = Vec::new();
            let [first, second] = &mut children;
            for (i, session) in [&mut *first, &mut parent, second, &mut grandchild].into_iter().enumerate() {
                let more = tokens(20 + i, 10 + i as u64);
                session.append(&more).unwrap();
                expected.push([&start[..], &more].concat());
            }
            first.append(&[5]).unwrap();
            expected[0].push(5);
            for (session, expected) in [first, &mut parent, second, &mut grandchild].into_iter().zip(&expected) {
                assert_eq!(session.tokens(), expected);
                assert!(bits(session) == fresh(&model, cache, expected), "{kind:?}, {length} tokens");
            }
        }
    }
}

#[test]
fn what_is_truncated_is_as_if_it_had_not_been() {
    let model = tiny("gemma3");
    for kind in KINDS {
        let cache = CacheOptions { kind, context_length: 400, window: 24, sinks: 3, ..CacheOptions::default() };
        let mut session = Session::new(Arc::clone(&model), &options(cache, 16)).unwrap();
        let mut expected = Vec::new();
        // Back by little, which a ring can, and by more than that; both after its places were used several times.
        for (i, (add, keep)) in
            [(200, 195), (3, 190), (40, 60), (150, 209), (30, 16), (5, 21), (60, 1)].into_iter().enumerate()
        {
            let more = tokens(add, i as u64);
            session.append(&more).unwrap();
            expected.extend(more);
            session.truncate(keep).unwrap();
            expected.truncate(keep);
            assert_eq!(session.tokens(), expected);
            assert!(bits(&mut session) == fresh(&model, cache, &expected), "{kind:?}, cut {i}");
        }
    }
}

#[test]
fn sessions_in_pages_share_what_they_begin_with() {
    let model = tiny("llama");
    let pages = |max_pages| {
        let options = PagedOptions { max_pages, threads: Some(Threads::new(2)), ..PagedOptions::default() };
        model.paged_cache(&options).unwrap()
    };
    let session = |pages: &PagedCache, window| {
        let cache = CacheOptions { window, ..CacheOptions::default() };
        Session::in_pages(Arc::clone(&model), pages, &options(cache, 50)).unwrap()
    };
    let pages = pages(24);
    let common_start = tokens(100, 3);
    let mut first = session(&pages, 0);
    first.append(&common_start).unwrap();
    let expected = bits(&mut first);
    assert_eq!((pages.stats().prefix_hits, pages.stats().pages_used), (0, 7));

    // The same tokens again: six pages are full and known, and the rest is computed.
    let mut second = session(&pages, 0);
    second.append(&common_start).unwrap();
    assert!(bits(&mut second) == expected);
    let stats = pages.stats();
    assert_eq!((stats.prefix_hits, stats.pages_used, stats.pages_shared), (6, 8, 6));

    // Exactly full pages: the last token is computed all the same, for its logits.
    let mut third = session(&pages, 0);
    third.append(&common_start[..96]).unwrap();
    assert_eq!(pages.stats().prefix_hits, 6 + 5);
    let plain = CacheOptions::default();
    assert!(bits(&mut third) == fresh(&model, plain, &common_start[..96]));
    // Computing the same page again does not keep it twice.
    assert_eq!(pages.stats().pages_used, 8);

    // Another window or another beginning is another matter.
    let mut other = session(&pages, 20);
    other.append(&common_start).unwrap();
    assert_eq!(pages.stats().prefix_hits, 11);
    drop(other);
    let mut other = session(&pages, 0);
    let shifted = [&[9][..], &common_start].concat();
    other.append(&shifted).unwrap();
    assert_eq!(pages.stats().prefix_hits, 11);
    assert!(bits(&mut other) == fresh(&model, plain, &shifted));

    // What nobody holds is kept, and makes room.
    drop((other, first, second, third));
    let stats = pages.stats();
    assert_eq!((stats.pages_used, stats.pages_shared), (0, 0));
    assert_eq!(stats.pages_idle, 18, "6 of each of the three beginnings");
    let mut again = session(&pages, 0);
    again.append(&common_start).unwrap();
    assert!(bits(&mut again) == expected);
    assert_eq!((pages.stats().prefix_hits, pages.stats().evictions), (17, 0));
    again.append(&tokens(200, 4)).unwrap();
    let stats = pages.stats();
    // 19 pages are needed for 300 tokens.
    assert_eq!((stats.pages_used, stats.pages_idle, stats.pages_peak), (19, 5, 24));
    assert_eq!(stats.evictions, 7);
    assert!(bits(&mut again) == fresh(&model, plain, &[&common_start[..], &tokens(200, 4)].concat()));
}

#[test]
fn a_full_cache_is_an_error_and_changes_nothing() {
    let model = tiny("llama");
    let options_of = PagedOptions { max_pages: 6, threads: Some(Threads::new(1)), ..PagedOptions::default() };
    let pages = model.paged_cache(&options_of).unwrap();
    let session = || Session::in_pages(Arc::clone(&model), &pages, &options(CacheOptions::default(), 16)).unwrap();
    let (mut one, mut two) = (session(), session());
    one.append(&tokens(40, 5)).unwrap();
    two.append(&tokens(40, 6)).unwrap();
    let before = (bits(&mut one), bits(&mut two));
    let error = one.append(&tokens(30, 7)).unwrap_err();
    assert!(matches!(error, Error::CacheFull(_)), "{error:?}");
    assert_eq!(error.fact("pages"), Some("6"));
    assert_eq!(one.tokens(), tokens(40, 5));
    assert!((bits(&mut one), bits(&mut two)) == before);
    // The place of one is enough for both when the other has gone.
    drop(two);
    one.append(&tokens(30, 7)).unwrap();
    let expected = [tokens(40, 5), tokens(30, 7)].concat();
    assert!(bits(&mut one) == fresh(&model, CacheOptions::default(), &expected));
}

/// A page that only the index knows beside the sequence is written to where it is if there is no other.
#[test]
fn room_in_an_own_page_needs_no_other() {
    let model = tiny("llama");
    let options_of = PagedOptions { max_pages: 3, threads: Some(Threads::new(1)), ..PagedOptions::default() };
    let pages = model.paged_cache(&options_of).unwrap();
    let mut session = Session::in_pages(Arc::clone(&model), &pages, &options(CacheOptions::default(), 16)).unwrap();
    for keep in [46, 33, 30, 2] {
        let n = session.tokens().len();
        session.append(&tokens(48 - n, n as u64 + 8)).unwrap();
        session.truncate(keep).unwrap();
        session.append(&tokens(48 - keep, keep as u64)).unwrap();
        let expected = session.tokens().to_vec();
        assert!(bits(&mut session) == fresh(&model, CacheOptions::default(), &expected), "{keep}");
        session.truncate(keep).unwrap();
    }
    // What is found is what its tokens lead to, also where a page is known again that was forgotten with those behind it.
    let all = tokens(48, 1);
    session.truncate(0).unwrap();
    session.append(&all).unwrap();
    session.truncate(10).unwrap();
    session.append(&all[10..16]).unwrap();
    let new = || Session::in_pages(Arc::clone(&model), &pages, &options(CacheOptions::default(), 16)).unwrap();
    new().append(&tokens(17, 9)).unwrap();
    session.append(&tokens(32, 2)).unwrap();
    let expected = [&all[..16], &tokens(32, 2)].concat();
    assert!(bits(&mut session) == fresh(&model, CacheOptions::default(), &expected));
    // A page that another sequence holds stays as it is.
    session.truncate(16).unwrap();
    let mut other = new();
    other.append(&[&all[..16], &tokens(17, 3)].concat()).unwrap();
    session.truncate(10).unwrap();
    let error = session.append(&[1]).unwrap_err();
    assert!(matches!(&error, Error::CacheFull(_)), "{error}");
    drop(other);
    session.append(&[1]).unwrap();
    assert!(bits(&mut session) == fresh(&model, CacheOptions::default(), &[&all[..10], &[1]].concat()));
}

#[test]
fn options_that_do_not_fit_are_refused() {
    let model = tiny("llama");
    let new = |cache| Session::new(Arc::clone(&model), &options(cache, 0));
    let refused = |cache| new(cache).err().unwrap();
    let plain = CacheOptions::default;
    assert!(matches!(refused(CacheOptions { sinks: 3, ..plain() }), Error::InvalidArgument(_)));
    assert!(matches!(refused(CacheOptions { sinks: 257, window: 9, ..plain() }), Error::InvalidArgument(_)));
    let error = refused(CacheOptions { kind: CacheKind::Paged, page_size: 24, ..plain() });
    assert!(matches!(error, Error::InvalidArgument(_)) && error.fact("found") == Some("24"));
    // Heads of 16 do not divide into blocks of 32.
    let error = refused(CacheOptions { kv_type: KvType::Q8_0, ..plain() });
    assert!(matches!(error, Error::Unsupported(_)) && error.fact("kv_type") == Some("q8_0"), "{error:?}");
    let encoder = tiny("bert");
    let sliding = CacheOptions { kind: CacheKind::Sliding, ..plain() };
    assert!(matches!(Session::new(encoder, &options(sliding, 0)), Err(Error::InvalidArgument(_))));
    let other = tiny("qwen2").paged_cache(&PagedOptions { max_pages: 3, ..PagedOptions::default() }).unwrap();
    let error = Session::in_pages(Arc::clone(&model), &other, &options(plain(), 0)).err().unwrap();
    assert!(matches!(error, Error::InvalidArgument(_)), "{error:?}");
}

#[test]
fn the_memory_of_a_ring_does_not_grow() {
    let gguf = llm::gguf::Gguf::open(&common::real_model(common::GEMMA3)).unwrap();
    let memory = |kind, kv_type, context_length| {
        let cache = CacheOptions { kind, kv_type, context_length, ..CacheOptions::default() };
        Model::memory(&gguf, &cache, 512).unwrap().kv_cache
    };
    // A head of 256 in 18 layers, 15 of which have a window of 512: rings of 512 + 511 positions, rounded up.
    let position = 2 * 256 * 2;
    assert_eq!(memory(CacheKind::Contiguous, KvType::F16, 8192), 18 * 8192 * position);
    assert_eq!(memory(CacheKind::Sliding, KvType::F16, 8192), (3 * 8192 + 15 * 1024) * position);
    assert_eq!(memory(CacheKind::Paged, KvType::F16, 8192), 18 * 8192 * position);
    assert_eq!(memory(CacheKind::Sliding, KvType::Q8_0, 8192), (3 * 8192 + 15 * 1024) * position * 17 / 32);
    assert_eq!(memory(CacheKind::Sliding, KvType::Q4_0, 8192), (3 * 8192 + 15 * 1024) * position * 9 / 32);
}
