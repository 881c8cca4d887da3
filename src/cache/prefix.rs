//! Full pages by the tokens that lead to them.
//!
//! A page's key is the hash of the key of the page before it and its own tokens, so that the same tokens after another
//! start are another key. A hit is verified: the tokens are compared, and the page before was.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use crate::device::KvPage;

#[derive(Debug)]
struct Entry {
    salt: u64,
    parent: Option<u64>,
    tokens: Box<[u32]>,
    page: Arc<KvPage>,
    /// Entries whose parent it is.
    children: usize,
    /// When it was last found or made.
    used: u64,
}

/// The pages that can be found.
#[derive(Debug, Default)]
pub(super) struct Index {
    entries: HashMap<u64, Entry>,
    /// Entries without children by `used`: what may go first.
    leaves: BTreeMap<u64, u64>,
    clock: u64,
}

fn key(salt: u64, parent: Option<u64>, tokens: &[u32]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (salt, parent, tokens).hash(&mut hasher);
    hasher.finish()
}

impl Index {
    /// The entry of these tokens, if it is theirs and no other's of the same hash.
    fn get(&mut self, salt: u64, parent: Option<u64>, tokens: &[u32]) -> Option<(u64, &mut Entry)> {
        let key = key(salt, parent, tokens);
        let entry = self.entries.get_mut(&key)?;
        let same = entry.salt == salt && entry.parent == parent && *entry.tokens == *tokens;
        same.then_some((key, entry))
    }

    /// The pages of the first of these stretches of tokens, as far as there are any, and their keys.
    pub(super) fn find<'a>(
        &mut self,
        salt: u64,
        stretches: impl Iterator<Item = &'a [u32]>,
    ) -> (Vec<Arc<KvPage>>, Vec<u64>) {
        let (mut pages, mut keys) = (Vec::new(), Vec::new());
        for tokens in stretches {
            let Some((key, entry)) = self.get(salt, keys.last().copied(), tokens) else { break };
            pages.push(Arc::clone(&entry.page));
            keys.push(key);
        }
        // The first is the last to go.
        keys.iter().rev().for_each(|key| self.touch(*key));
        (pages, keys)
    }

    /// Makes `page` the one of these tokens, or gives the one that there is. With its key; `None` if another page has
    /// that, or the page before is not here.
    pub(super) fn insert(
        &mut self,
        salt: u64,
        parent: Option<u64>,
        tokens: &[u32],
        page: &Arc<KvPage>,
    ) -> Option<(u64, Option<Arc<KvPage>>)> {
        if let Some((key, entry)) = self.get(salt, parent, tokens) {
            let known = Arc::clone(&entry.page);
            self.touch(key);
            return Some((key, Some(known)));
        }
        let key = key(salt, parent, tokens);
        if self.entries.contains_key(&key) || parent.is_some_and(|parent| !self.entries.contains_key(&parent)) {
            return None;
        }
        if let Some(parent) = parent.and_then(|parent| self.entries.get_mut(&parent)) {
            parent.children += 1;
            self.leaves.remove(&parent.used);
        }
        let (tokens, page) = (tokens.into(), Arc::clone(page));
        self.entries.insert(key, Entry { salt, parent, tokens, page, children: 0, used: 0 });
        self.touch(key);
        Some((key, None))
    }

    fn touch(&mut self, key: u64) {
        self.clock += 1;
        let Some(entry) = self.entries.get_mut(&key) else { return };
        if entry.children == 0 {
            self.leaves.remove(&entry.used);
            self.leaves.insert(self.clock, key);
        }
        entry.used = self.clock;
    }

    /// Forgets the page that was not used for the longest time, of those that nobody else holds and no other follows.
    /// False if there is none.
    pub(super) fn evict(&mut self) -> bool {
        // Nobody else can come to hold a page meanwhile: that takes one who holds it, or this index.
        let idle = |key: &u64| self.entries.get(key).is_some_and(|entry| Arc::strong_count(&entry.page) == 1);
        let Some(key) = self.leaves.values().copied().find(idle) else { return false };
        self.remove(key);
        true
    }

    /// Forgets a page that one sequence holds, and all that follow it: gives how many these are. None if others hold it.
    pub(super) fn forget(&mut self, page: &Arc<KvPage>) -> usize {
        let found = self.entries.iter().find(|(_, entry)| Arc::ptr_eq(&entry.page, page));
        // Who holds one that follows holds this one too. Nobody can come to hold it meanwhile: see `evict`.
        let Some((&key, _)) = found.filter(|(_, entry)| Arc::strong_count(&entry.page) == 2) else { return 0 };
        let mut children: HashMap<u64, Vec<u64>> = HashMap::new();
        for (key, entry) in &self.entries {
            if let Some(parent) = entry.parent {
                children.entry(parent).or_default().push(*key);
            }
        }
        let mut keys = vec![key];
        for i in 0.. {
            let Some(parent) = keys.get(i) else { break };
            keys.extend(children.remove(parent).unwrap_or_default());
        }
        keys.iter().rev().for_each(|key| self.remove(*key));
        keys.len()
    }

    /// Removes an entry without children.
    fn remove(&mut self, key: u64) {
        let Some(entry) = self.entries.remove(&key) else { return };
        self.leaves.remove(&entry.used);
        if let Some((key, parent)) = entry.parent.and_then(|key| Some((key, self.entries.get_mut(&key)?))) {
            parent.children -= 1;
            if parent.children == 0 {
                self.leaves.insert(parent.used, key);
            }
        }
    }
}
