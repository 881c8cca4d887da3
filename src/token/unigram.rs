//! SentencePiece's unigram model (Kudo, 2018): of all ways to cut a text into tokens the one whose scores, the logarithms
//! of the tokens' probabilities, have the largest sum.

use super::charsmap::Charsmap;
use super::merge::{NONE, out_of_memory};
use super::spm::SPACE_MARK;
use super::table::{Merge, MergeTable, seed};
use super::unicode::{characters, first_char};
use super::vocab::{TokenKind, Vocab};
use crate::error::{Error, Result};
use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;

/// What an unknown character costs more than the least likely token.
const UNKNOWN_PENALTY: f64 = 10.0;

/// Longer tokens come of no trainer (SentencePiece makes them of 16 characters at most if not told otherwise) and are not
/// looked for: a text must not be read again at each place for their sake.
const LONGEST: usize = 256;

/// How a text is changed before it is cut.
#[derive(Clone, Copy)]
pub(crate) struct Spaces {
    /// A space is put before it.
    pub prefix: bool,
    /// Spaces at its start and end are removed, and of several only one stays.
    pub collapse: bool,
}

pub(crate) struct Unigram {
    charsmap: Option<Charsmap>,
    pub spaces: Spaces,
    starts: Starts,
    unknown_score: f64,
}

/// The best way to cut the text before some place.
#[derive(Clone, Copy)]
struct Best {
    score: f64,
    /// The last token, [`NONE`] for an unknown character, and where it begins.
    token: u32,
    start: u32,
}

/// The starts of tokens as a trie.
struct Starts {
    /// What a start and a byte merge into is a longer start.
    longer: MergeTable,
    /// The token that a start is, or [`NONE`], and its score.
    tokens: Vec<(u32, f64)>,
}

impl Starts {
    /// `tokens`: in the order of their bytes; the bytes, the token and its score.
    fn new(tokens: &[(&[u8], u32, f64)]) -> Result<Starts> {
        // The bytes of each that it does not share with the one before.
        let shared = |a: &[u8], b: &[u8]| a.iter().zip(b).take_while(|(a, b)| a == b).count();
        let first = tokens.first().map_or(0, |(text, ..)| text.len());
        let count = tokens.windows(2).map(|pair| pair[1].0.len() - shared(pair[0].0, pair[1].0)).sum::<usize>() + first;
        let mut starts = Starts { longer: MergeTable::new(seed(), count)?, tokens: Vec::new() };
        starts.tokens.try_reserve_exact(count + 1).map_err(out_of_memory)?;
        starts.tokens.push((NONE, 0.0));
        for &(text, token, score) in tokens {
            let mut start = 0;
            for &byte in text {
                start = starts.after(start, byte).unwrap_or_else(|| {
                    let longer = starts.tokens.len() as u32;
                    starts.longer.insert(start, byte.into(), Merge { rank: 0, id: longer });
                    starts.tokens.push((NONE, 0.0));
                    longer
                });
            }
            starts.tokens[start as usize] = (token, score);
        }
        Ok(starts)
    }

    fn after(&self, start: u32, byte: u8) -> Option<u32> {
        self.longer.get(start, byte.into()).map(|merge| merge.id)
    }

    /// The tokens that the text begins with, the shortest first: length, token, score.
    fn of(&self, text: &[u8]) -> impl Iterator<Item = (usize, u32, f64)> {
        let path = text.iter().scan(0, |start, &byte| {
            *start = self.after(*start, byte)?;
            Some(self.tokens[*start as usize])
        });
        path.zip(1..).filter(|((token, _), _)| *token != NONE).map(|((token, score), length)| (length, token, score))
    }
}

impl Unigram {
    pub fn new(vocab: &Vocab, charsmap: Option<Charsmap>, spaces: Spaces) -> Result<Unigram> {
        // Finite, so that every place can be reached.
        let score = |id: u32| match f64::from(vocab.score(id)) {
            nan if nan.is_nan() => -1e30,
            score => score.clamp(-1e30, 1e30),
        };
        let normal = |id: &u32| vocab.kind(*id) == Some(TokenKind::Normal);
        let ids = || (0..vocab.len() as u32).filter(normal);
        let mut tokens = Vec::new();
        tokens.try_reserve_exact(ids().count()).map_err(out_of_memory)?;
        let found = |id: u32| vocab.piece(id).filter(|text| text.len() <= LONGEST && vocab.ordinary(text) == Some(id));
        tokens.extend(ids().filter_map(|id| Some((found(id)?, id, score(id)))));
        tokens.sort_unstable_by_key(|&(text, ..)| text);
        let unknown_score = ids().map(score).fold(0.0, f64::min) - UNKNOWN_PENALTY;
        Ok(Unigram { charsmap, spaces, starts: Starts::new(&tokens)?, unknown_score })
    }

    /// The text as tokens have it: its characters mapped and its spaces put in order.
    fn normalized(&self, text: &[u8], begins: bool) -> Result<Vec<u8>> {
        let Spaces { prefix, collapse } = self.spaces;
        let mut out = Vec::new();
        // The prefix, or spaces of which one must be put before the next character.
        let mut due = begins && prefix;
        let mut append = |piece: &[u8]| {
            out.try_reserve(piece.len() + 1).map_err(out_of_memory)?;
            for character in characters(piece) {
                if collapse && character == b" " {
                    due |= !out.is_empty();
                    continue;
                }
                if std::mem::take(&mut due) {
                    out.push(b' ');
                }
                out.extend_from_slice(if character == SPACE_MARK { b" " } else { character });
            }
            Ok(())
        };
        match &self.charsmap {
            Some(map) => map.apply(text, &mut append)?,
            None => characters(text).try_for_each(|character| match first_char(character) {
                (char::REPLACEMENT_CHARACTER, _) => append("\u{FFFD}".as_bytes()),
                _ => append(character),
            })?,
        }
        if prefix && !collapse && out.is_empty() && !text.is_empty() {
            out.push(b' ');
        }
        Ok(out)
    }

    /// Appends the tokens of a text without special tokens. The bytes of an unknown character give their byte tokens;
    /// where these are lacking, all unknown characters in a row together give the unknown token, or nothing if there
    /// is none.
    pub fn encode(&self, vocab: &Vocab, text: &[u8], begins: bool, ids: &mut Vec<u32>) -> Result<()> {
        let text = &*self.normalized(text, begins)?;
        if u32::try_from(text.len()).is_err() {
            return Err(Error::invalid_argument(format!(
                "a text of {} bytes once normalized, 4 GiB or more",
                text.len()
            ))
            .with("bytes", text.len()));
        }
        let mut way = Way::new()?;
        let mut after_unknown = false;
        let mut commit = |way: &mut Way, place: usize| {
            ids.try_reserve(place - way.first).map_err(out_of_memory)?;
            way.take(place, |token, bytes| {
                let by_bytes = || text[bytes.clone()].iter().map(|&b| vocab.byte(b));
                match token {
                    NONE if by_bytes().all(|id| id != NONE) => ids.extend(by_bytes()),
                    NONE if std::mem::replace(&mut after_unknown, true) => return,
                    NONE => return ids.extend(vocab.unk),
                    token => ids.push(token),
                }
                after_unknown = false;
            })
        };

        let mut place = 0;
        for character in characters(text) {
            if way.is_due(place) {
                let certain = way.certain(place);
                commit(&mut way, certain)?;
            }
            way.reach(place + LONGEST)?;
            let mut known = false;
            for (length, token, score) in self.starts.of(&text[place..]) {
                known |= length == character.len();
                way.offer(place, length, token, score);
            }
            if !known {
                way.offer(place, character.len(), NONE, self.unknown_score);
            }
            place += character.len();
        }
        commit(&mut way, place)
    }
}

/// The best ways to cut a text before each of its places (Viterbi, 1967); of equally good ones that with the longest last
/// token. Kept are the places from which the ways still differ: soon after it is read the beginning of a text is certain.
struct Way {
    /// The place of the first.
    first: usize,
    best: VecDeque<Best>,
    /// The number of kept places at which to look for what is certain.
    due: usize,
    /// Scratch: a part of the way, the last token first.
    tokens: Vec<(u32, Range<usize>)>,
}

impl Way {
    /// Places that are kept before it is asked what is certain.
    const KEPT: usize = 16 << 10;

    fn new() -> Result<Way> {
        let mut way = Way { first: 0, best: VecDeque::new(), due: Way::KEPT, tokens: Vec::new() };
        way.reach(0)?;
        way.best[0].score = 0.0;
        Ok(way)
    }

    /// Keeps the places up to this one.
    fn reach(&mut self, place: usize) -> Result<()> {
        let count = place + 1 - self.first;
        if count > self.best.len() {
            self.best.try_reserve(count - self.best.len()).map_err(out_of_memory)?;
            self.best.resize(count, Best { score: f64::NEG_INFINITY, token: NONE, start: 0 });
        }
        Ok(())
    }

    /// A token of this length from a place on that has been reached.
    fn offer(&mut self, place: usize, length: usize, token: u32, score: f64) {
        let start = place - self.first;
        let score = self.best[start].score + score;
        let there = &mut self.best[start + length];
        if score > there.score {
            *there = Best { score, token, start: place as u32 };
        }
    }

    fn is_due(&self, place: usize) -> bool {
        place - self.first >= self.due
    }

    /// The last place that the best ways to `place` and to all known places behind it have in common.
    fn certain(&self, place: usize) -> usize {
        let known = |place: &usize| self.best[place - self.first].score > f64::NEG_INFINITY;
        let mut ends: BTreeSet<usize> = (place..self.first + self.best.len()).filter(known).collect();
        while ends.len() > 1
            && let Some(last) = ends.pop_last()
        {
            ends.insert(self.best[last - self.first].start as usize);
        }
        ends.pop_last().unwrap_or(self.first)
    }

    /// Gives the tokens up to a place, in order, and forgets them.
    fn take(&mut self, place: usize, mut give: impl FnMut(u32, Range<usize>)) -> Result<()> {
        let mut end = place;
        while end > self.first {
            let Best { token, start, .. } = self.best[end - self.first];
            self.tokens.try_reserve(1).map_err(out_of_memory)?;
            self.tokens.push((token, start as usize..end));
            end = start as usize;
        }
        self.tokens.drain(..).rev().for_each(|(token, bytes)| give(token, bytes));
        self.best.drain(..place - self.first);
        self.first = place;
        // Ways that stay apart are not followed at every step.
        self.due = Way::KEPT.max(2 * self.best.len());
        Ok(())
    }
}
