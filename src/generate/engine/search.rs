//! Beam searches among the sequences: each continuation that a search follows is a sequence, and when the logits
//! behind all of them are known, those that go on take their place.

use super::sequence::Sequence;
use super::step::Core;
use super::{Event, RequestId};
use crate::error::{Error, Result};
use crate::generate::beam::Branch;

impl Core {
    /// Goes on with the searches that have the logits behind all their continuations.
    pub(super) fn follow_searches(&mut self) {
        let ready = |sequence: &&Sequence| {
            sequence.index == 0 && sequence.search.as_ref().is_some_and(|search| search.lock().is_ready())
        };
        let requests: Vec<RequestId> = self.sequences.iter().filter(ready).map(|sequence| sequence.request).collect();
        for request in requests {
            if let Err(error) = self.follow(request)
                && let Some(i) = self.sequences.iter().position(|sequence| sequence.request == request)
            {
                self.end(i, &error);
            }
        }
        self.sequences.retain(|sequence| !sequence.ended);
    }

    fn follow(&mut self, request: RequestId) -> Result<()> {
        let mut members: Vec<&Sequence> = self.sequences.iter().filter(|member| member.request == request).collect();
        members.sort_by_key(|member| member.index);
        let Some(first) = members.first() else { return Ok(()) };
        let (name, Some(search)) = (first.name(), first.search.clone()) else { return Ok(()) };
        let branches = search.lock().advance(self.model.tokenizer())?;
        let branch = |(index, branch): (usize, &Branch)| {
            let mut next = members[branch.parent].fork(index)?;
            next.tokens.push(branch.token);
            Ok(next)
        };
        let next: Vec<Sequence> = branches.iter().enumerate().map(branch).collect::<Result<_>>()?;
        self.sequences.retain(|sequence| sequence.request != request);
        if next.is_empty() {
            let mut search = search.lock();
            let (width, beams) = (search.width(), search.take());
            self.counts.finished += beams.len() as u64;
            self.counts.failed += (width - beams.len()) as u64;
            self.counts.generated_tokens += beams.iter().map(|beam| beam.tokens.len() as u64).sum::<u64>();
            let mut beams = beams.into_iter();
            for index in 0..width {
                let (request, tag) = name;
                let event = |token, text, outcome| Event { request, tag, index, token, logprobs: None, text, outcome };
                let Some(beam) = beams.next() else {
                    let error = Error::not_found("the search found fewer continuations").with("found", index);
                    self.events.push(Event::failed(name, index, error));
                    continue;
                };
                self.events.extend(beam.tokens.iter().map(|&token| event(Some(token), Vec::new(), None)));
                self.events.push(event(None, beam.text, Some(Ok(beam.finish))));
            }
        }
        self.sequences.extend(next);
        Ok(())
    }

    /// Ends the search that sequence i belongs to, if it does, with an error for each continuation that was asked for.
    pub(super) fn end_search(&mut self, i: usize, error: &Error) -> Option<Vec<Event>> {
        let width = self.sequences[i].search.as_ref()?.lock().width();
        let name = self.sequences[i].name();
        for member in self.sequences.iter_mut().filter(|member| member.name() == name) {
            member.end();
        }
        Some((0..width).map(|index| Event::failed(name, index, error.clone())).collect())
    }
}
