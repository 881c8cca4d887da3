//! A step of all sequences of a batch, in pieces: a layer, a part of the logits, or one choice.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::sequence::Sequence;
use super::{EngineStats, Event, Inbox};
use crate::cache::PagedCache;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::model::{Model, Part, Pass, Scratch};
use crate::sample::Candidates;

/// What the thread that polls works on.
pub(super) struct Core {
    pub model: Arc<Model>,
    device: Device,
    pub pages: Arc<PagedCache>,
    pub max_batch: usize,
    pub chunk: usize,
    /// Those that have not ended. While a step is under way its members are the first, and have their parts.
    pub sequences: Vec<Sequence>,
    step: Option<Step>,
    scratch: Scratch,
    /// What the sequences' samplers work in.
    candidates: Candidates,
    /// Seconds of a layer for a token, lately.
    cost: f64,
    /// What a layer took, lately.
    pub layer: Duration,
    /// Tokens of the vocabulary whose logits take about as long.
    part: usize,
    pub events: Vec<Event>,
    pub counts: EngineStats,
    entered: bool,
}

/// The step under way.
struct Step {
    members: usize,
    stage: Stage,
}

enum Stage {
    Layers(Pass),
    /// From so many of the vocabulary on.
    Logits(usize),
    /// The members that have not chosen, and their rows of logits.
    Choices(Vec<(usize, usize)>),
}

/// A part of the logits at least: enough that all threads have some of it.
const LEAST_PART: usize = 1024;

/// How long a piece of work waits for a grammar.
const PATIENCE: Duration = Duration::from_micros(200);

/// The weight of the latest layer in the average of their costs.
const RECENT: f64 = 0.1;

fn parts(members: &mut [Sequence]) -> Vec<Part<'_>> {
    members.iter_mut().map(Sequence::for_pass).collect()
}

impl Core {
    pub(super) fn new(
        model: Arc<Model>,
        device: Device,
        pages: Arc<PagedCache>,
        max_batch: usize,
        chunk: usize,
    ) -> Core {
        Core {
            model,
            device,
            pages,
            max_batch,
            chunk,
            sequences: Vec::new(),
            step: None,
            scratch: Scratch::default(),
            candidates: Candidates::new(),
            cost: 0.0,
            layer: Duration::ZERO,
            part: LEAST_PART,
            events: Vec::new(),
            counts: EngineStats::default(),
            entered: false,
        }
    }

    /// Begins a call; `FailedPrecondition` if a panic left the last one.
    pub(super) fn enter(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.entered, true) {
            return Err(Error::failed_precondition("an earlier call on the engine panicked: its state is lost"));
        }
        Ok(())
    }

    pub(super) fn leave(&mut self) {
        self.entered = false;
    }

    /// True if there are sequences that have not ended.
    pub(super) fn busy(&self) -> bool {
        self.sequences.iter().any(|sequence| !sequence.ended)
    }

    pub(super) fn stats(&self) -> EngineStats {
        let (mut running, mut waiting) = (0, 0);
        for sequence in self.sequences.iter().filter(|sequence| !sequence.ended) {
            *(if sequence.cache.pages() > 0 { &mut running } else { &mut waiting }) += 1;
        }
        EngineStats { running, waiting, ..self.counts }
    }

    /// Does the next piece of work; false if there is none. If it fails, the step begins again.
    pub(super) fn advance(&mut self, inbox: &Mutex<Inbox>, budget: Option<Duration>) -> Result<bool> {
        let start = Instant::now();
        let result = match self.step {
            None => self.begin(inbox, budget),
            Some(_) => self.go_on(budget.is_some()).map(|()| true),
        };
        if result.is_err() {
            self.step = None;
            for sequence in &mut self.sequences {
                sequence.cache.truncate(sequence.cache.length());
                sequence.part = 0..0;
            }
        }
        let time = start.elapsed();
        self.counts.time += time;
        self.counts.largest_quantum = self.counts.largest_quantum.max(time);
        result
    }

    /// Takes what has arrived and begins a step.
    fn begin(&mut self, inbox: &Mutex<Inbox>, budget: Option<Duration>) -> Result<bool> {
        let cancelled = {
            let mut inbox = inbox.lock();
            self.sequences.append(&mut inbox.submitted);
            std::mem::take(&mut inbox.cancelled)
        };
        if !cancelled.is_empty() {
            let error = Error::cancelled("the request was cancelled");
            for i in 0..self.sequences.len() {
                if cancelled.contains(&self.sequences[i].request) && !self.sequences[i].ended {
                    self.end(i, &error);
                }
            }
        }
        self.sequences.retain(|sequence| !sequence.ended);
        if self.sequences.is_empty() {
            return Ok(false);
        }
        // A layer is to take a quarter of the budget.
        let chunk = match budget {
            // As few as possible until it is known what a layer takes.
            Some(_) if self.cost == 0.0 => 0,
            Some(budget) => ((budget.as_secs_f64() / 4.0 / self.cost) as usize).min(self.chunk),
            None => self.chunk,
        };
        let members = self.plan(chunk)?;
        if members > 0 {
            let mut parts = parts(&mut self.sequences[..members]);
            let pass = self.model.begin(&self.device, &mut parts, &mut self.scratch)?;
            self.step = Some(Step { members, stage: Stage::Layers(pass) });
        }
        Ok(true)
    }

    /// Ends sequence i with an error.
    pub(super) fn end(&mut self, i: usize, error: &Error) {
        let events = match self.end_search(i, error) {
            Some(events) => events,
            None => self.sequences[i].fail(error),
        };
        let counter = match error {
            Error::Cancelled(_) => &mut self.counts.cancelled,
            _ => &mut self.counts.failed,
        };
        *counter += events.len() as u64;
        self.events.extend(events);
    }

    /// Goes on with the step, `finely` in pieces of about a layer's time.
    fn go_on(&mut self, finely: bool) -> Result<()> {
        let Some(Step { members, stage }) = &mut self.step else { return Ok(()) };
        let members = *members;
        match stage {
            Stage::Layers(pass) => {
                let start = Instant::now();
                let mut parts = parts(&mut self.sequences[..members]);
                let tokens: usize = parts.iter().map(|part| part.tokens.len()).sum();
                if self.model.layer(&self.device, pass, &mut parts, &mut self.scratch)? {
                    // A model's last layer leaves most of a prompt out: it does not tell what others cost, unless there are
                    // none.
                    if self.scratch.rows() == tokens || self.cost == 0.0 {
                        self.layer = start.elapsed();
                        let cost = self.layer.as_secs_f64() / tokens as f64;
                        self.cost += if self.cost == 0.0 { cost } else { RECENT * (cost - self.cost) };
                    }
                } else {
                    self.model.end(&self.device, &mut self.scratch)?;
                    *stage = Stage::Logits(0);
                }
                Ok(())
            }
            Stage::Logits(done) => {
                let start = Instant::now();
                let most = if finely { self.part } else { usize::MAX };
                if let Some(next) = self.model.logits_from(&self.device, *done, most, &mut self.scratch)? {
                    let layers = start.elapsed().as_secs_f64() / self.layer.as_secs_f64().max(1e-6);
                    // Doubled or halved at most: one measurement may be far off.
                    let part = (next - *done) as f64 / layers.clamp(0.5, 2.0);
                    self.part = (part as usize).next_multiple_of(LEAST_PART);
                    *done = next;
                    return Ok(());
                }
                self.counts.steps += 1;
                self.counts.members += members as u64;
                self.counts.largest_batch = self.counts.largest_batch.max(members as u64);
                for Sequence { cache, salt, tokens, part, prompt, .. } in &mut self.sequences[..members] {
                    self.counts.prompt_tokens += prompt.saturating_sub(part.start).min(part.len()) as u64;
                    cache.commit(part.len());
                    cache.publish(*salt, tokens);
                }
                let asking = (0..members).filter(|&i| self.sequences[i].asks());
                *stage = Stage::Choices(asking.zip(0..).collect());
                Ok(())
            }
            Stage::Choices(left) => {
                let Some(&(first, _)) = left.first() else {
                    self.step = None;
                    self.sequences.iter_mut().for_each(|sequence| sequence.part = 0..0);
                    self.sequences.retain(|sequence| !sequence.ended);
                    self.follow_searches();
                    return Ok(());
                };
                // Those that wait for their grammars let the others go first.
                let sequences = &mut self.sequences;
                match left.iter().position(|&(i, _)| sequences[i].is_ready(Duration::ZERO)) {
                    Some(at) => {
                        let (i, row) = left.remove(at);
                        let forks = self.choose(i, row);
                        if let Some(Step { stage: Stage::Choices(left), .. }) = &mut self.step {
                            left.extend(forks.map(|fork| (fork, row)));
                        }
                    }
                    None => _ = sequences[first].is_ready(PATIENCE),
                }
                Ok(())
            }
        }
    }

    /// Sequence i chooses by row r of the logits. Gives the places of those that it is the first of, which are to choose
    /// by the same row.
    fn choose(&mut self, i: usize, r: usize) -> Range<usize> {
        let end = self.sequences.len();
        let logits = self.scratch.logits.row(r);
        let sequence = &mut self.sequences[i];
        if let Some(search) = &sequence.search {
            search.lock().show(sequence.index, logits);
            sequence.shown = true;
            return end..end;
        }
        let (name, index) = (sequence.name(), sequence.index);
        let siblings = std::mem::take(&mut sequence.siblings);
        let forks: Vec<_> = (index + 1..=index + siblings).map(|n| (n, sequence.fork(n))).collect();
        let mut events = vec![sequence.choose(logits, &mut self.candidates)];
        for (n, fork) in forks {
            match fork {
                Ok(fork) => self.sequences.push(fork),
                Err(error) => events.push(Event::failed(name, n, error)),
            }
        }
        for event in events {
            let counts = &mut self.counts;
            counts.generated_tokens += u64::from(event.token.is_some());
            match &event.outcome {
                None => {}
                Some(Ok(_)) => counts.finished += 1,
                Some(Err(_)) => counts.failed += 1,
            }
            self.events.push(event);
        }
        end..self.sequences.len()
    }
}
