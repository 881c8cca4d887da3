//! Room in a full context.

use super::Session;
use super::wanted::Wanted;
use crate::error::{Error, Result};
use crate::numeric::FloatEnvironment;

/// Positions that are moved at a time.
const CHUNK: usize = 512;

impl Session {
    /// Drops the older half of the tokens behind the first `keep`, so that a conversation goes on where its context is
    /// full; gives how many were dropped. Those behind them move up: their keys are turned back by as many positions,
    /// and keep what they know of the dropped ones. Where that cannot be done (learned positions, a sliding cache that
    /// has forgotten some), the tokens that stay are processed again. Results differ from those of a session that
    /// never had the dropped tokens; pages are not shared with sessions that have the same ones.
    ///
    /// A generation goes on where it is, also one that ended because the context was full.
    ///
    /// # Errors
    /// `InvalidArgument` if there are fewer than `keep` tokens; `OutOfMemory`, `CacheFull` if there are no pages for a
    /// copy, `Cancelled`: nothing has changed then.
    pub fn shift(&mut self, keep: usize) -> Result<usize> {
        let n = self.tokens.len();
        if keep > n {
            let message = format!("{keep} tokens are to be kept, but the session holds {n}");
            return Err(Error::invalid_argument(message).with("expected", keep).with("found", n));
        }
        let _environment = FloatEnvironment::enter();
        self.retract();
        let dropped = (n - keep).div_ceil(2);
        if dropped == 0 {
            return Ok(0);
        }
        let moved = keep + dropped;
        let left = [&self.tokens[..keep], &self.tokens[moved..]].concat();
        let whole = self.cache.is_whole() && self.model.keys_turn();
        let empty = self.cache.empty()?;
        let old = std::mem::replace(&mut self.cache, empty);
        let result = if whole {
            // The last token that is left is processed again: its logits are asked for.
            let held = old.length().min(if moved < n { n } else { keep }.saturating_sub(1));
            let (device, scratch) = (&self.device, &mut self.scratch);
            let parts = [0..keep.min(held), moved.min(held)..held];
            parts.into_iter().try_for_each(|part| {
                let by = if part.start < moved { 0 } else { dropped };
                self.model.move_keys(device, scratch, &old, part, by, &mut self.cache, CHUNK)
            })
        } else {
            Ok(())
        };
        if let Err(error) = result {
            self.cache = old;
            return Err(error);
        }
        self.cache.set_altered(whole && !left.is_empty());
        let before = std::mem::replace(&mut self.tokens, left);
        if let Err(error) = if self.tokens.is_empty() { Ok(()) } else { self.catch_up(0, Wanted::Last) } {
            (self.cache, self.tokens) = (old, before);
            return Err(error);
        }
        self.generation.shifted(keep..moved);
        Ok(dropped)
    }
}
