//! The candidates of one draw. Selection is partial: the whole vocabulary is passed over in linear time, and only
//! those that may be kept are sorted.

use std::cmp::Ordering;

use crate::error::{Error, Result};
use crate::numeric::wide;

/// A token that can still be drawn. The logit is never NaN or +infinity; -infinity means masked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item {
    pub id: u32,
    pub logit: f64,
}

/// Most likely first, ties by the smaller id: a total order, since ids are distinct.
fn by_probability(a: &Item, b: &Item) -> Ordering {
    b.logit.partial_cmp(&a.logit).unwrap_or(Ordering::Equal).then(a.id.cmp(&b.id))
}

/// In which order the items stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Id,
    Probability,
    /// Sorted by probability once; logits have changed since.
    Stale,
}

/// The candidates, at least one of them.
#[derive(Debug)]
pub(super) struct Candidates {
    items: Vec<Item>,
    order: Order,
}

/// Nothing is held between draws: a copy is empty.
impl Clone for Candidates {
    fn clone(&self) -> Self {
        Candidates::new()
    }
}

impl Candidates {
    pub fn new() -> Self {
        Candidates { items: Vec::new(), order: Order::Id }
    }

    /// Starts anew with every token of the vocabulary. A NaN counts as -infinity, +infinity as the largest f32.
    pub fn fill(&mut self, logits: &[f32]) -> Result<()> {
        if logits.is_empty() {
            return Err(Error::invalid_argument("there are no logits to sample from").with("logits", 0));
        }
        let Ok(n) = u32::try_from(logits.len()) else {
            return Err(Error::invalid_argument("more logits than there are token ids").with("logits", logits.len()));
        };
        self.items.clear();
        self.items.try_reserve_exact(logits.len()).map_err(|_| {
            let bytes = logits.len().saturating_mul(size_of::<Item>());
            Error::out_of_memory(format!("the sampler's candidates need {bytes} bytes, which cannot be had"))
                .with("bytes", bytes)
        })?;
        let finite = |x: f32| if x.is_nan() { f64::NEG_INFINITY } else { f64::from(x.min(f32::MAX)) };
        self.items.extend((0..n).zip(logits).map(|(id, &x)| Item { id, logit: finite(x) }));
        self.order = Order::Id;
        Ok(())
    }

    /// The largest logit.
    pub fn max(&self) -> f64 {
        self.items.iter().fold(f64::NEG_INFINITY, |max, item| if item.logit > max { item.logit } else { max })
    }

    /// Replaces every logit.
    pub fn change_all(&mut self, f: impl Fn(f64) -> f64) {
        for item in &mut self.items {
            item.logit = f(item.logit).min(f64::MAX);
        }
        self.logits_changed();
    }

    /// Replaces the logits of some tokens; `ids` is sorted and has no repetition.
    pub fn change(&mut self, ids: &[u32], f: impl Fn(f64) -> f64) {
        if self.order == Order::Id {
            for id in ids {
                if let Ok(i) = self.items.binary_search_by_key(id, |item| item.id)
                    && let Some(item) = self.items.get_mut(i)
                {
                    item.logit = f(item.logit).min(f64::MAX);
                }
            }
            return;
        }
        for item in self.items.iter_mut().filter(|item| ids.binary_search(&item.id).is_ok()) {
            item.logit = f(item.logit).min(f64::MAX);
        }
        self.logits_changed();
    }

    /// Masks every token but the most likely one.
    pub fn mask_all_but_best(&mut self) {
        let Some(best) = self.items.iter().copied().min_by(by_probability) else { return };
        for item in self.items.iter_mut().filter(|item| item.id != best.id) {
            item.logit = f64::NEG_INFINITY;
        }
        self.logits_changed();
    }

    /// Keeps the tokens with at least this logit, in the order in which they stand, if they are `min_keep` or more;
    /// otherwise the `min_keep` most likely.
    pub fn keep_from(&mut self, logit: f64, min_keep: usize) {
        let passing = self.items.iter().filter(|item| item.logit >= logit).count();
        if passing >= min_keep.max(1) {
            self.items.retain(|item| item.logit >= logit);
        } else {
            self.keep_best(min_keep);
        }
    }

    /// Keeps the `k` most likely tokens (at least one), sorted.
    ///
    /// The kept ones gather at the front. Once there are 2k, the worse half is dropped and the k-th best becomes the
    /// bar that later ones must pass, so the time is linear whatever the order of the logits.
    pub fn keep_best(&mut self, k: usize) {
        let k = k.max(1);
        if k < self.items.len() && self.order != Order::Probability {
            let room = k.saturating_mul(2).max(64);
            let mut gathered = 0;
            let mut bar: Option<Item> = None;
            for i in 0..self.items.len() {
                let item = self.items[i];
                if bar.is_some_and(|bar| by_probability(&item, &bar) == Ordering::Greater) {
                    continue;
                }
                self.items[gathered] = item;
                gathered += 1;
                if gathered == room {
                    let (_, kth, _) = self.items[..gathered].select_nth_unstable_by(k - 1, by_probability);
                    bar = Some(*kth);
                    gathered = k;
                }
            }
            self.items.truncate(gathered);
        }
        self.sort();
        self.items.truncate(k);
    }

    /// Keeps the most likely tokens up to the one with which their probabilities sum to `share`, and at least
    /// `min_keep`, sorted. Masked tokens are kept only if `min_keep` asks for them.
    pub fn keep_share(&mut self, share: f64, min_keep: usize) {
        let max = self.max();
        // Before anything moves: the items' order follows from their values alone, and so does the sum's last bit.
        let goal = share * self.total(max);
        let (mut sum, mut n) = (0.0, 0);
        let mut sorted = if self.order == Order::Probability { self.items.len() } else { 0 };
        while n < self.items.len() {
            if n == sorted {
                sorted = self.sort_more(sorted);
            }
            let w = weight(self.items[n].logit, max);
            if w == 0.0 && n >= min_keep.max(1) {
                break;
            }
            sum += w;
            n += 1;
            if sum >= goal && n >= min_keep {
                break;
            }
        }
        self.items.truncate(n);
        self.order = Order::Probability;
    }

    /// The token with which the sum of the probabilities, most likely first, reaches `u`. Uses the candidates up.
    pub fn draw(&mut self, u: f64) -> u32 {
        self.keep_share(u, 1);
        self.items.last().map_or(0, |item| item.id)
    }

    /// The candidates and their probabilities, most likely first. Where all are masked, the smallest id has it all,
    /// which is also what `draw` gives.
    pub fn probabilities(&mut self) -> impl Iterator<Item = (u32, f64)> {
        self.sort();
        let max = self.max();
        if max == f64::NEG_INFINITY {
            self.items.truncate(1);
        }
        let total = self.total(max);
        self.items.iter().map(move |item| (item.id, if total > 0.0 { weight(item.logit, max) / total } else { 1.0 }))
    }

    /// The sum of the weights.
    fn total(&self, max: f64) -> f64 {
        self.items.iter().map(|item| weight(item.logit, max)).sum()
    }

    fn logits_changed(&mut self) {
        if self.order == Order::Probability {
            self.order = Order::Stale;
        }
    }

    fn sort(&mut self) {
        if self.order != Order::Probability {
            self.items.sort_unstable_by(by_probability);
            self.order = Order::Probability;
        }
    }

    /// Sorts more items into place where `sorted` are, and says how many are then. Usually a few will do; the steps
    /// grow fourfold, so that the passes over the rest stay few when they do not.
    fn sort_more(&mut self, sorted: usize) -> usize {
        let end = sorted.saturating_mul(4).max(64).min(self.items.len());
        if end < self.items.len() {
            self.items[sorted..].select_nth_unstable_by(end - sorted - 1, by_probability);
        }
        self.items[sorted..end].sort_unstable_by(by_probability);
        end
    }
}

/// A number in proportion to the probability, 1 for the most likely token; 0 if masked.
fn weight(logit: f64, max: f64) -> f64 {
    if logit == f64::NEG_INFINITY { 0.0 } else { wide::exp(logit - max) }
}
