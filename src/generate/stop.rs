//! Stop strings: text that may begin one is held back until it is clear that it does not.

use std::sync::Arc;

use crate::error::{Result, try_collect, try_copy, try_push, try_vec};

/// Looks for stop strings in a stream of text, one Knuth-Morris-Pratt automaton each ("Fast Pattern Matching in
/// Strings", 1977), so that a byte costs constant time on average whatever the strings are.
#[derive(Debug, Default)]
pub(crate) struct Stops {
    matches: Vec<Match>,
    /// Text that was taken in and not given out.
    held: Vec<u8>,
}

/// A stop string.
#[derive(Debug)]
struct Pattern {
    text: Vec<u8>,
    /// For each prefix, the length of its longest proper prefix that is its suffix too.
    failure: Vec<usize>,
}

/// A pattern, and how many of its bytes the stream ends with.
#[derive(Debug)]
struct Match {
    pattern: Arc<Pattern>,
    bytes: usize,
}

impl Pattern {
    fn new(text: &[u8]) -> Result<Self> {
        let mut failure = try_vec(text.len(), 0, "a stop string")?;
        let mut k = 0;
        for i in 1..text.len() {
            while k > 0 && text[i] != text[k] {
                k = failure[k - 1];
            }
            k += usize::from(text[i] == text[k]);
            failure[i] = k;
        }
        Ok(Pattern { text: try_copy(text, "a stop string")?, failure })
    }
}

impl Match {
    /// Nothing yet.
    fn of(pattern: &Arc<Pattern>) -> Match {
        Match { pattern: Arc::clone(pattern), bytes: 0 }
    }

    /// Takes a byte; true if the pattern is complete.
    fn push(&mut self, byte: u8) -> bool {
        let Pattern { text, failure } = &*self.pattern;
        while self.bytes > 0 && text[self.bytes] != byte {
            self.bytes = failure[self.bytes - 1];
        }
        self.bytes += usize::from(text[self.bytes] == byte);
        self.bytes == text.len()
    }
}

impl Stops {
    /// Adds a string, which must not be empty.
    pub(crate) fn add(&mut self, text: &[u8]) -> Result<()> {
        try_push(&mut self.matches, Match::of(&Arc::new(Pattern::new(text)?)), "the stop strings")
    }

    /// The same strings, for another text.
    pub(crate) fn fresh(&self) -> Result<Stops> {
        let matches = self.matches.iter().map(|found| Match::of(&found.pattern));
        Ok(Stops { matches: try_collect(matches, "the stop strings")?, held: Vec::new() })
    }

    /// Removes all strings; what is held back is given out with the next text.
    pub(crate) fn clear(&mut self) {
        self.matches.clear();
    }

    /// Forgets the text held back and what was matched.
    pub(crate) fn restart(&mut self) {
        self.held.clear();
        self.matches.iter_mut().for_each(|found| found.bytes = 0);
    }

    /// Takes more text and puts into `out` what can no longer belong to a stop string. True if one was found: then
    /// `out` gets what stood before it, and what follows it is dropped.
    pub(crate) fn push(&mut self, text: &[u8], out: &mut Vec<u8>) -> bool {
        for &byte in text {
            self.held.push(byte);
            let mut found = 0;
            for next in &mut self.matches {
                if next.push(byte) {
                    found = found.max(next.bytes);
                }
            }
            if found > 0 {
                out.extend_from_slice(&self.held[..self.held.len() - found]);
                self.restart();
                return true;
            }
        }
        let keep = self.matches.iter().map(|found| found.bytes).max().unwrap_or(0);
        out.extend(self.held.drain(..self.held.len() - keep));
        false
    }

    /// Gives out what is held back: the text has ended.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.held);
        self.restart();
    }
}

#[cfg(test)]
mod tests {
    use super::Stops;

    /// Feeds the pieces and gives (text, found) with `|` after each piece's output.
    fn run(stops: &[&str], pieces: &[&str]) -> String {
        let mut matcher = Stops::default();
        stops.iter().for_each(|s| matcher.add(s.as_bytes()).unwrap());
        let mut all = String::new();
        for piece in pieces {
            let mut out = Vec::new();
            let found = matcher.push(piece.as_bytes(), &mut out);
            all += &String::from_utf8(out).unwrap();
            if found {
                return all + "!";
            }
            all.push('|');
        }
        let mut out = Vec::new();
        matcher.finish(&mut out);
        all + &String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_that_may_begin_a_stop_is_held_and_a_stop_is_never_given_out() {
        assert_eq!(run(&["END"], &["a E", "N", "D b"]), "a ||!");
        assert_eq!(run(&["END"], &["a E", "N", "x"]), "a ||ENx|");
        assert_eq!(run(&["END"], &["EEN", "EN"]), "E|EN|EN");
        assert_eq!(run(&["aab"], &["aa", "aab"]), "|aa!");
        assert_eq!(run(&[], &["a", "b"]), "a|b|");
    }

    #[test]
    fn of_stops_that_end_together_the_longest_counts_and_the_first_to_end_wins() {
        assert_eq!(run(&["yz", "xyz"], &["wxyz"]), "w!");
        assert_eq!(run(&["abcd", "bc"], &["abcd"]), "a!");
    }

    #[test]
    fn a_stop_is_found_as_searching_the_whole_text_finds_it() {
        // All texts of 8 letters over {a, b}, cut at every place, against a plain search.
        for bits in 0..256u32 {
            let text: String = (0..8).map(|i| if bits >> i & 1 == 1 { 'a' } else { 'b' }).collect();
            for stop in ["aba", "aab", "bbb", "ab"] {
                for cut in 0..=8 {
                    let got = run(&[stop], &[&text[..cut], &text[cut..]]).replace('|', "");
                    let expected = text.find(stop).map_or(text.clone(), |at| format!("{}!", &text[..at]));
                    assert_eq!(got, expected, "{stop} in {text} cut at {cut}");
                }
            }
        }
    }
}
