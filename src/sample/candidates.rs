//! The candidates of one draw. Selection is partial: the whole vocabulary is passed over in linear time, and only
//! those that may be kept are sorted.

use std::cmp::Ordering;

use super::steps::CandidateLogit;
use crate::error::{Error, Result, try_collect, try_vec};
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
    /// Neither.
    Stale,
}

/// The candidates, at least one of them.
#[derive(Debug)]
pub(crate) struct Candidates {
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
        check(logits)?;
        self.reserve(logits.len())?;
        self.items.extend((0..).zip(logits).map(|(id, &x)| Item { id, logit: finite(x) }));
        self.order = Order::Id;
        Ok(())
    }

    /// As `fill` and then `keep_best`, in one pass that looks closer only where a logit is above the k-th best so far.
    pub fn fill_best(&mut self, logits: &[f32], k: usize) -> Result<()> {
        const STRIDE: usize = 64;
        check(logits)?;
        let k = k.max(1);
        let room = k.saturating_mul(2).max(STRIDE);
        if room > logits.len() / 2 {
            self.fill(logits)?;
            self.keep_best(k);
            return Ok(());
        }
        self.reserve(room)?;
        let mut bar: Option<Item> = None;
        for (ids, stretch) in (0..).step_by(STRIDE).zip(logits.chunks(STRIDE)) {
            if let Some(bar) = bar {
                // A maximum in lanes, which the compiler makes vectors of; what is not a number is in none.
                let mut lanes = [f32::NEG_INFINITY; 16];
                for part in stretch.chunks(16) {
                    for (lane, x) in lanes.iter_mut().zip(part) {
                        *lane = if *x > *lane { *x } else { *lane };
                    }
                }
                // Of equals the first stays.
                if lanes.iter().all(|x| f64::from(*x) <= bar.logit) {
                    continue;
                }
            }
            for (id, &x) in (ids..).zip(stretch) {
                let item = Item { id, logit: finite(x) };
                if bar.is_some_and(|bar| item.logit <= bar.logit) {
                    continue;
                }
                self.items.push(item);
                if self.items.len() == room {
                    let (_, kth, _) = self.items.select_nth_unstable_by(k - 1, by_probability);
                    bar = Some(*kth);
                    self.items.truncate(k);
                }
            }
        }
        self.order = Order::Stale;
        self.keep_best(k);
        Ok(())
    }

    /// Empties the list and makes room for so many.
    fn reserve(&mut self, n: usize) -> Result<()> {
        self.items.clear();
        self.items.try_reserve_exact(n).map_err(|_| {
            let bytes = n.saturating_mul(size_of::<Item>());
            Error::out_of_memory(format!("the sampler's candidates need {bytes} bytes, which cannot be had"))
                .with("bytes", bytes)
        })
    }

    /// How many there are, masked ones too.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// The logits, in the order in which the items stand.
    pub fn logits(&self) -> impl Iterator<Item = f64> {
        self.items.iter().map(|item| item.logit)
    }

    /// Tokens and logits, in the order in which they stand.
    pub fn items(&self) -> impl Iterator<Item = (u32, f64)> {
        self.items.iter().map(|item| (item.id, item.logit))
    }

    /// The entropy of the probabilities, in nats.
    pub fn entropy(&self) -> f64 {
        let max = self.max();
        let total = self.total(max);
        let terms = self.items.iter().filter(|item| item.logit > f64::NEG_INFINITY);
        wide::ln(total) - terms.map(|item| weight(item.logit, max) * (item.logit - max)).sum::<f64>() / total
    }

    /// The largest logit.
    pub fn max(&self) -> f64 {
        largest(self.logits())
    }

    /// Replaces every logit.
    pub fn change_all(&mut self, f: impl Fn(f64) -> f64) {
        for item in &mut self.items {
            item.logit = f(item.logit).min(f64::MAX);
        }
        self.logits_changed();
    }

    /// Replaces the logits of some tokens by `f(i, logit)`, where i is the token's place in `ids`, which are sorted
    /// and have no repetition.
    pub fn change(&mut self, ids: &[u32], f: impl Fn(usize, f64) -> f64) {
        if self.order == Order::Id {
            for (i, id) in ids.iter().enumerate() {
                if let Ok(at) = self.items.binary_search_by_key(id, |item| item.id) {
                    self.items[at].logit = f(i, self.items[at].logit).min(f64::MAX);
                }
            }
            return;
        }
        for item in &mut self.items {
            if let Ok(i) = ids.binary_search(&item.id) {
                item.logit = f(i, item.logit).min(f64::MAX);
            }
        }
        self.logits_changed();
    }

    /// Masks some tokens, which are sorted, unless no other would be left.
    pub fn ban(&mut self, ids: &[u32]) {
        let left = |item: &Item| item.logit > f64::NEG_INFINITY && ids.binary_search(&item.id).is_err();
        if self.items.iter().any(left) {
            self.change(ids, |_, _| f64::NEG_INFINITY);
        }
    }

    /// Lets a caller's function change the logits.
    pub fn call(&mut self, f: &dyn Fn(&mut [CandidateLogit])) -> Result<()> {
        let mut shown = try_vec(self.items.len(), CandidateLogit { id: 0, logit: 0.0 }, "the callback's candidates")?;
        let narrow = |item: &Item| CandidateLogit { id: item.id, logit: item.logit as f32 };
        shown.iter_mut().zip(&self.items).for_each(|(shown, item)| *shown = narrow(item));
        f(&mut shown);
        for (item, shown) in self.items.iter_mut().zip(shown) {
            // What was not changed keeps its precision.
            if shown.logit.to_bits() != narrow(item).logit.to_bits() {
                item.logit = finite(shown.logit);
            }
        }
        self.logits_changed();
        Ok(())
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
        let total = self.total(max);
        self.keep_weight(share * total, max, min_keep);
    }

    /// As `keep_share`, up to the one with which the weights sum to `goal`; `max` is the largest logit.
    fn keep_weight(&mut self, goal: f64, max: f64, min_keep: usize) {
        let (mut sum, mut n) = (0.0, 0);
        let mut sorted = if self.order == Order::Probability { self.items.len() } else { 0 };
        while n < self.items.len() {
            if n == sorted {
                sorted = sort_more(&mut self.items, sorted, by_probability);
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

    /// Keeps the tokens nearest to the expected surprise, nearest first and of equals the likelier, up to the one with
    /// which their probabilities sum to more than `share`, and at least `min_keep`.
    pub fn keep_typical(&mut self, share: f64, min_keep: usize) -> Result<()> {
        let max = self.max();
        if max == f64::NEG_INFINITY {
            return Ok(());
        }
        let (total, entropy) = (self.total(max), self.entropy());
        let log_total = wide::ln(total);
        let mut shifts = try_vec(self.items.len(), (0.0, Item { id: 0, logit: 0.0 }), "the sampler's candidates")?;
        for (shift, item) in shifts.iter_mut().zip(&self.items) {
            *shift = ((log_total - (item.logit - max) - entropy).abs(), *item);
        }
        let by_shift = |a: &(f64, Item), b: &(f64, Item)| a.0.total_cmp(&b.0).then_with(|| by_probability(&a.1, &b.1));
        let (mut sum, mut n, mut sorted) = (0.0, 0, 0);
        while n < shifts.len() {
            if n == sorted {
                sorted = sort_more(&mut shifts, sorted, by_shift);
            }
            sum += weight(shifts[n].1.logit, max) / total;
            n += 1;
            if sum > share && n >= min_keep {
                break;
            }
        }
        self.items.clear();
        self.items.extend(shifts[..n].iter().map(|(_, item)| *item));
        self.order = Order::Stale;
        Ok(())
    }

    /// Keeps the tokens whose surprise is at most `nats`, or else the most likely one.
    pub fn keep_surprise(&mut self, nats: f64) {
        let max = self.max();
        self.keep_from(max + wide::ln(self.total(max)) - nats, 1);
    }

    /// Removes the tokens whose probability is at least `threshold`, but the least likely of them, if at least `min_keep`
    /// stay.
    pub fn drop_likely(&mut self, threshold: f64, min_keep: usize) {
        let max = self.max();
        let total = self.total(max);
        // What is masked never counts, however low the threshold.
        let probability = |item: &Item| weight(item.logit, max) / total;
        let likely = |item: &Item| probability(item) > 0.0 && probability(item) >= threshold;
        let dropped = self.items.iter().filter(|item| likely(item)).count().saturating_sub(1);
        let Some(least) = self.items.iter().copied().filter(likely).max_by(by_probability) else { return };
        if dropped > 0 && self.items.len() - dropped >= min_keep {
            self.items.retain(|item| !likely(item) || item.id == least.id);
        }
    }

    /// The logits of the up to `n` most likely tokens, most likely first, without masked ones.
    pub fn best_logits(&mut self, n: usize) -> Result<Vec<f64>> {
        let mut sorted = if self.order == Order::Probability { self.items.len() } else { 0 };
        while sorted < n.min(self.items.len()) {
            sorted = sort_more(&mut self.items, sorted, by_probability);
            self.order = Order::Stale;
        }
        let best = self.items.iter().take(n).map(|item| item.logit);
        try_collect(best.filter(|logit| *logit > f64::NEG_INFINITY), "the sampler's logits")
    }

    /// All probabilities, largest first.
    pub fn sorted_probabilities(&mut self) -> Result<Vec<f64>> {
        self.sort();
        let max = self.max();
        let total = self.total(max);
        let mut p = try_vec(self.items.len(), 0.0, "the sampler's probabilities")?;
        p.iter_mut().zip(&self.items).for_each(|(p, item)| *p = weight(item.logit, max) / total);
        Ok(p)
    }

    /// The token with which the sum of the probabilities, most likely first, reaches `u`, and its probability. Uses the
    /// candidates up.
    pub fn draw(&mut self, u: f64) -> (u32, f64) {
        let max = self.max();
        let total = self.total(max);
        self.keep_weight(u * total, max, 1);
        let drawn = self.items.last().map_or((0, max), |item| (item.id, item.logit));
        (drawn.0, if total > 0.0 { weight(drawn.1, max) / total } else { 1.0 })
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
        total(&self.items, |item| item.logit, max)
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
}

/// Sorts more items into place where `sorted` are, and says how many are then. Usually a few will do; the steps grow
/// fourfold, so that the passes over the rest stay few when they do not.
fn sort_more<T>(items: &mut [T], sorted: usize, by: impl Fn(&T, &T) -> Ordering) -> usize {
    let end = sorted.saturating_mul(4).max(64).min(items.len());
    if end < items.len() {
        items[sorted..].select_nth_unstable_by(end - sorted - 1, &by);
    }
    items[sorted..end].sort_unstable_by(&by);
    end
}

/// There are logits, and ids for them.
fn check(logits: &[f32]) -> Result<()> {
    if logits.is_empty() {
        return Err(Error::invalid_argument("there are no logits to sample from").with("logits", 0));
    }
    if u32::try_from(logits.len()).is_err() {
        return Err(Error::invalid_argument("more logits than there are token ids").with("logits", logits.len()));
    }
    Ok(())
}

fn largest(logits: impl Iterator<Item = f64>) -> f64 {
    logits.fold(f64::NEG_INFINITY, |max, logit| if logit > max { logit } else { max })
}

/// The logarithm of the sum of exp(logit); 0 where all are masked.
pub(super) fn log_total(logits: &[f32]) -> f64 {
    let max = largest(logits.iter().map(|&x| finite(x)));
    if max == f64::NEG_INFINITY { 0.0 } else { max + wide::ln(total(logits, |&x| finite(x), max)) }
}

/// The sum of the weights of what has these logits, in order.
fn total<T>(all: &[T], logit: impl Fn(&T) -> f64, max: f64) -> f64 {
    if max == f64::NEG_INFINITY {
        return 0.0;
    }
    let (eights, rest) = all.as_chunks::<8>();
    let sum = eights.iter().fold(0.0, |sum, eight| {
        let weights = wide::exp_all::<8>(std::array::from_fn(|i| logit(&eight[i]) - max));
        weights.iter().fold(sum, |sum, weight| sum + weight)
    });
    rest.iter().fold(sum, |sum, item| sum + weight(logit(item), max))
}

/// A NaN counts as -infinity, +infinity as the largest f32.
pub(super) fn finite(x: f32) -> f64 {
    if x.is_nan() { f64::NEG_INFINITY } else { f64::from(x.min(f32::MAX)) }
}

/// A number in proportion to the probability, 1 for the most likely token; 0 if masked.
fn weight(logit: f64, max: f64) -> f64 {
    if logit == f64::NEG_INFINITY { 0.0 } else { wide::exp(logit - max) }
}
