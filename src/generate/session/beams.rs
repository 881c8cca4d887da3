//! Beam search in a session.

use super::Session;
use crate::cache::Cache;
use crate::error::Result;
use crate::generate::beam::{Beam, BeamOptions, Branch, Search};
use crate::model::Part;
use crate::numeric::FloatEnvironment;

/// A continuation that is followed.
struct Live {
    cache: Cache,
    /// The last token.
    token: [u32; 1],
}

impl Session {
    /// The most likely continuations of the session's tokens that were found, best first. The session is as before: what
    /// they have in common is shared with it, page by page if its cache is paged. Each is a text of the session's
    /// grammar, if it has one. Samplers, stop strings and limits of a generation have no part in it.
    ///
    /// # Errors
    /// `FailedPrecondition` if there are no tokens; `InvalidArgument` for a width that is 0 or above 256, a penalty
    /// that is not finite, or what [`Matcher::allowed`](crate::token::Matcher::allowed) cannot tell; `CacheFull` if there
    /// are no pages, `OutOfMemory`, `Cancelled`.
    pub fn beam_search(&mut self, options: &BeamOptions) -> Result<Vec<Beam>> {
        options.check()?;
        self.logits()?;
        self.retract();
        let _environment = FloatEnvironment::enter();
        let room = self.cache.capacity() - self.tokens.len();
        let mut search = Search::new(*options, self.model.tokenizer(), room, self.generation.grammar());
        search.show(0, &self.logits);
        let mut live = vec![Live { cache: self.cache.fork(), token: [0] }];
        loop {
            let branches = search.advance(self.model.tokenizer())?;
            if branches.is_empty() {
                return Ok(search.take());
            }
            live = self.follow(live, &branches)?;
            (0..live.len()).for_each(|i| search.show(i, self.scratch.logits.row(i)));
        }
    }

    /// The continuations that go on so, processed together.
    fn follow(&mut self, live: Vec<Live>, branches: &[Branch]) -> Result<Vec<Live>> {
        let follow = |branch: &Branch| Live { cache: live[branch.parent].cache.fork(), token: [branch.token] };
        let mut next: Vec<Live> = branches.iter().map(follow).collect();
        // A page that only one of them holds is written to where it is.
        drop(live);
        let adapters = &self.adapters;
        let mut parts: Vec<Part<'_>> = Vec::with_capacity(next.len());
        for Live { cache, token } in &mut next {
            parts.push(Part { tokens: token, asked: 0..1, cache, adapters });
        }
        self.model.forward(&self.device, &mut parts, &mut self.scratch, &self.cancel)?;
        next.iter_mut().for_each(|live| live.cache.commit(1));
        Ok(next)
    }
}
