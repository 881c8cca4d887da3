//! The alphabet of a pattern: characters that no set of the pattern tells apart are one class.

use super::super::unicode::{CATEGORIES, category, first_char};
use super::parse::Set;

/// Ranges shorter than this are looked at character by character, to have no class that no character is in.
const SHORT: u32 = 0x400;

/// The class that is no character: the end of the text.
pub(super) const END: u8 = 0;

pub(super) struct Classes {
    ascii: [u8; 128],
    /// Where ranges of characters begin inside which only the category counts; the first is 0.
    starts: Vec<u32>,
    /// Class by range and category.
    classes: Vec<[u8; CATEGORIES.len()]>,
    /// Bit `s` of entry `c`: whether set `s` of the pattern has the characters of class `c`.
    members: Vec<u64>,
}

impl Classes {
    /// `None` for more sets or classes than there is room for.
    pub fn new(sets: &[Set]) -> Option<Classes> {
        if sets.len() > 64 {
            return None;
        }
        let mut starts: Vec<u32> = sets.iter().flat_map(Set::ranges).flat_map(|(a, b)| [a, b + 1]).collect();
        starts.push(0);
        starts.sort_unstable();
        starts.dedup();
        let mut classes = Vec::new();
        // The end of the text is in no set; where a set is asked for there, the answer is no.
        let mut members = vec![0];
        for (i, &first) in starts.iter().enumerate() {
            let after = starts.get(i + 1).copied().unwrap_or(0x11_0000);
            let mut row = [END; CATEGORIES.len()];
            for (index, class) in row.iter_mut().enumerate() {
                let of_category = |c: u32| char::from_u32(c).is_some_and(|c| category(c) == index);
                if after - first < SHORT && !(first..after).any(of_category) {
                    continue;
                }
                let has = sets.iter().enumerate().map(|(s, set)| u64::from(set.contains(first, index)) << s).sum();
                let found = members.iter().skip(1).position(|&m| m == has).map(|at| at + 1);
                let number = found.unwrap_or(members.len());
                if found.is_none() {
                    members.push(has);
                }
                *class = u8::try_from(number).ok()?;
            }
            classes.push(row);
        }
        let mut all = Classes { ascii: [END; 128], starts, classes, members };
        all.ascii = std::array::from_fn(|c| all.class(char::from(c as u8)));
        Some(all)
    }

    fn class(&self, c: char) -> u8 {
        let range = self.starts.partition_point(|&start| start <= c as u32) - 1;
        self.classes[range][category(c)]
    }

    /// The class of the first character and its length in bytes, which is 0 at the end of the text.
    #[inline]
    pub fn first(&self, text: &[u8]) -> (u8, usize) {
        match text.first() {
            None => (END, 0),
            Some(&c @ 0..0x80) => (self.ascii[usize::from(c)], 1),
            Some(_) => {
                let (c, length) = first_char(text);
                (self.class(c), length)
            }
        }
    }

    /// The number of classes, with [`END`].
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether set `set` has the characters of the class.
    pub fn contains(&self, set: usize, class: u8) -> bool {
        self.members[usize::from(class)] >> set & 1 == 1
    }
}
