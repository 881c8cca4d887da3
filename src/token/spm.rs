//! SentencePiece's merge by score (Kudo and Richardson, 2018): a text starts as its characters, and of all
//! neighbours that together are a token those of the highest score merge first.

use super::merge::{Merger, NONE, Symbol, out_of_memory};
use super::table::Merge;
use super::unicode::characters;
use super::vocab::Vocab;
use crate::error::Result;

/// U+2581, which stands for a space in tokens.
pub(crate) const SPACE_MARK: &[u8] = "\u{2581}".as_bytes();

/// Appends a token with its space marks turned into spaces. A token that has a space already cannot come of merging,
/// since the text's own spaces become marks: the result is false.
pub(crate) fn write_spaces(token: &[u8], out: &mut Vec<u8>) -> bool {
    let (mut rest, mut mergeable) = (token, true);
    loop {
        // Most tokens have one mark, at their start.
        while let Some(after) = rest.strip_prefix(SPACE_MARK) {
            out.push(b' ');
            rest = after;
        }
        mergeable &= rest.first() != Some(&b' ');
        let Some(at) = rest.iter().skip(1).position(|byte| *byte == SPACE_MARK[0] || *byte == b' ') else { break };
        let (before, from) = rest.split_at(at + 1);
        out.extend_from_slice(before);
        rest = from;
    }
    out.extend_from_slice(rest);
    mergeable
}

/// A score as a rank: the higher the score, the lower the rank. NaN comes last.
fn rank(score: f32) -> u32 {
    // + 0.0 makes -0 and 0 the same score.
    let bits = if score.is_nan() { f32::NEG_INFINITY } else { score + 0.0 }.to_bits();
    // Positive floats order as their bits; negative ones the other way round.
    if bits >> 31 == 0 { !(bits | 1 << 31) } else { bits }
}

/// Appends the tokens of a text without special tokens, with a space put before it if `prefix`.
pub(crate) fn encode(vocab: &Vocab, text: &[u8], prefix: bool, merger: &mut Merger, ids: &mut Vec<u32>) -> Result<()> {
    merge_characters(vocab, text, prefix, merger, ids, |stretch, left, right| {
        let id = vocab.ordinary(&stretch[left.start as usize..right.end as usize])?;
        Some(Merge { rank: rank(vocab.score(id)), id })
    })
}

/// Merges the characters of a text as `join` says and appends the tokens. Of a character that is no token each byte gives
/// its byte token or else the unknown token, or nothing if there is neither. The symbols' places are in the stretch of
/// text that `join` is given.
pub(super) fn merge_characters(
    vocab: &Vocab,
    text: &[u8],
    prefix: bool,
    merger: &mut Merger,
    ids: &mut Vec<u32>,
    join: impl Fn(&[u8], &Symbol, &Symbol) -> Option<Merge>,
) -> Result<()> {
    // The characters since the last place that no token spans, and where each ends.
    let (mut stretch, mut ends): (Vec<u8>, Vec<u32>) = (Vec::new(), Vec::new());
    for character in prefix.then_some(SPACE_MARK).into_iter().chain(characters(text)) {
        let character = if character == SPACE_MARK { b" " } else { character };
        if let (Some(&last), Some(&first)) = (stretch.last(), character.first())
            && !vocab.spans(last, first)
        {
            flush(vocab, &stretch, &ends, merger, ids, &join)?;
            stretch.clear();
            ends.clear();
        }
        stretch.try_reserve(character.len()).map_err(out_of_memory)?;
        stretch.extend_from_slice(character);
        ends.try_reserve(1).map_err(out_of_memory)?;
        ends.push(stretch.len() as u32);
    }
    flush(vocab, &stretch, &ends, merger, ids, &join)
}

/// Merges the characters of a stretch, which end at `ends`, and appends its tokens.
fn flush(
    vocab: &Vocab,
    stretch: &[u8],
    ends: &[u32],
    merger: &mut Merger,
    ids: &mut Vec<u32>,
    join: &impl Fn(&[u8], &Symbol, &Symbol) -> Option<Merge>,
) -> Result<()> {
    ids.try_reserve(stretch.len()).map_err(out_of_memory)?;
    if let Some(known) = merger.words.get(stretch) {
        ids.extend_from_slice(known);
        return Ok(());
    }
    merger.clear();
    let mut start = 0;
    for &end in ends {
        let character = &stretch[start..end as usize];
        merger.push(vocab.ordinary(character).unwrap_or(NONE), end)?;
        start = end as usize;
    }
    merger.run(|left, right| join(stretch, left, right))?;
    let from = ids.len();
    for symbol in merger.symbols() {
        let bytes = &stretch[symbol.start as usize..symbol.end as usize];
        if symbol.id != NONE {
            ids.push(symbol.id);
        } else {
            let byte = |&b: &u8| Some(vocab.byte(b)).filter(|&id| id != NONE).or(vocab.unk);
            ids.extend(bytes.iter().filter_map(byte));
        }
    }
    merger.words.put(stretch, &ids[from..]);
    Ok(())
}
