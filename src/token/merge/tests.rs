//! The order of merges, and that the work they take grows with the text, not faster.

use super::super::table::Merge;
use super::{Merger, NONE};
use std::collections::HashMap;

fn merged(ids: &[u32], rules: &HashMap<(u32, u32), Merge>) -> Vec<u32> {
    let mut merger = Merger::default();
    for (&id, end) in ids.iter().zip(1..) {
        merger.push(id, end).unwrap();
    }
    merger.run(|left, right| rules.get(&(left.id, right.id)).copied()).unwrap();
    let symbols: Vec<_> = merger.symbols().copied().collect();
    let mut at = 0;
    for symbol in &symbols {
        assert_eq!(symbol.start, at);
        at = symbol.end;
    }
    assert_eq!(at as usize, ids.len());
    symbols.iter().map(|symbol| symbol.id).collect()
}

/// The definition: the lowest rank first, of equal ranks the leftmost, one merge at a time.
fn naive(ids: &[u32], rules: &HashMap<(u32, u32), Merge>) -> Vec<u32> {
    let mut ids = ids.to_vec();
    let pair = |ids: &[u32], i: usize| rules.get(&(ids[i], ids[i + 1])).copied();
    while let Some((_, i)) = (1..ids.len()).filter_map(|i| Some((pair(&ids, i - 1)?.rank, i - 1))).min() {
        ids[i] = pair(&ids, i).unwrap().id;
        ids.remove(i + 1);
    }
    ids
}

#[test]
fn merges_as_defined() {
    let mut rng = crate::rng::Rng::new(7);
    let mut random = || rng.next_u64() % 1000;
    for round in 0..2020 {
        let letters = 1 + random() % 4;
        let mut rules = HashMap::new();
        for id in letters..letters + 12 {
            // Ranks repeat, as scores may.
            let merge = Merge { rank: (random() % 6) as u32, id: id as u32 };
            rules.insert(((random() % id) as u32, (random() % id) as u32), merge);
        }
        // The last ones are long.
        let length = if round < 2000 { random() % 40 } else { 1000 + random() };
        let ids: Vec<u32> = (0..length).map(|_| (random() % letters) as u32).collect();
        assert!(merged(&ids, &rules) == naive(&ids, &rules), "{ids:?} {rules:?}");
    }
}

#[test]
fn the_empty_text_and_a_reused_merger() {
    let mut merger = Merger::default();
    for count in [0, 3, 0, 2] {
        merger.clear();
        (1..=count as u32).for_each(|end| merger.push(NONE, end).unwrap());
        merger.run(|_, _| None).unwrap();
        assert_eq!(merger.symbols().count(), count);
    }
}

#[test]
fn work_is_linear() {
    // Every power of two of one letter is a token, the hardest text for a merger.
    for count in [1000, 1 << 16] {
        let mut merger = Merger::default();
        (1..=count as u32).for_each(|end| merger.push(0, end).unwrap());
        let mut joins = 0;
        let equal = |left: &super::Symbol, right: &super::Symbol| {
            joins += 1;
            (left.id == right.id).then_some(Merge { rank: left.id, id: left.id + 1 })
        };
        merger.run(equal).unwrap();
        assert!(joins <= 3 * count, "{joins} questions for {count} symbols");
    }
}
