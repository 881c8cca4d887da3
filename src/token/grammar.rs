//! What a text may look like, as the tokens that may come next.
//!
//! The work is done by the `llguidance` crate: a lexer of regular expressions with derivatives (Brzozowski,
//! "Derivatives of Regular Expressions", 1964; Moskal et al., "Derivative Based Nonbacktracking Real-World Regex
//! Matching", 2023) below an Earley parser (1970), run over the tree of all tokens' bytes. Here is what this library
//! adds: the tree of its own vocabularies, one thread that looks ahead while the model computes, limits for grammars
//! of strangers, and errors.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use llguidance::ParserFactory;
use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, INVALID_TOKEN, SimpleVob, TokEnv, TokRxInfo, TokTrie};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use super::{TokenKind, Tokenizer};
use crate::error::{Error, Result};

/// Bytes of a grammar at most.
const LONGEST: usize = 1 << 16;

/// Bytes of stack for each byte of a grammar: its compiler goes from rule to rule in calls. Rules that name the next one
/// take up to 1.1 KiB for each byte that they are written in.
const STACK_PER_BYTE: usize = 4 << 10;

/// Bytes of stack whatever the grammar is.
const STACK: usize = 8 << 20;

/// States of the lexer at most, of about 1 to 2 KiB each.
const LEXER_STATES: usize = 50_000;

/// Bytes of a token at most; longer ones no grammar allows.
const LONGEST_TOKEN: usize = 1000;

/// Nodes of the tree of tokens, and tokens, at most: the numbers that fit into its nodes.
const MOST_NODES: usize = 1 << 22;

/// Tokens with the same bytes at most: each costs a step for each of the others.
const MOST_EQUAL: usize = 256;

/// Properties of an object of a schema at most, patterns for their names, and properties where their number is limited:
/// what is made of a schema grows with the square of these.
const MOST_PROPERTIES: usize = 500;
const MOST_PATTERNS: usize = 32;
const MOST_COUNTED: usize = 50;

/// The largest `multipleOf` that is not taken for another.
const LARGEST_FACTOR: f64 = 4e8;

/// What the texts of one tokenizer may look like. It does not change, and may be shared between threads.
///
/// ```no_run
/// # use llm::token::{Grammar, Tokenizer};
/// # fn example(tokenizer: &std::sync::Arc<Tokenizer>) -> llm::Result<()> {
/// let mut text = Grammar::regex(tokenizer, "[0-9]+")?.begin();
/// let digit = tokenizer.id(b"7").unwrap();
/// assert!(text.allowed()?.contains(digit));
/// text.accept(digit)?;
/// # Ok(())
/// # }
/// ```
pub struct Grammar(Arc<Compiled>);

struct Compiled {
    vocabulary: Arc<Vocabulary>,
    start: llguidance::Matcher,
    /// What may come first.
    first: Arc<TokenSet>,
}

/// A set of tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSet(SimpleVob);

/// A text that a grammar describes, as far as it is there.
pub struct Matcher {
    vocabulary: Arc<Vocabulary>,
    state: State,
}

enum State {
    /// Nothing of the text is there.
    Start(Arc<Compiled>),
    /// The set is there, or is computed when it is asked for.
    Here(Box<llguidance::Matcher>, Option<Arc<TokenSet>>),
    /// The vocabulary's thread computes the set, while somebody waits for it.
    Away {
        answer: Receiver<Answer>,
        _waiting: Arc<()>,
    },
    /// Nothing may follow.
    Complete,
    Failed(Error),
}

/// What all grammars of a tokenizer have in common.
pub(super) struct Vocabulary {
    factory: ParserFactory,
    /// Begun when there is work, and tried again if there could be none.
    worker: Mutex<Option<Worker>>,
}

/// The thread that computes sets of tokens.
struct Worker {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    /// In which it runs: a process that was forked of that one has no such thread.
    process: u32,
}

/// What is to be looked at, where the answer goes, and what is alive as long as somebody waits for it.
type Job = (Box<llguidance::Matcher>, SyncSender<Answer>, Weak<()>);

type Answer = (Box<llguidance::Matcher>, Result<TokenSet>);

impl Grammar {
    /// The texts that are JSON values which a schema describes (JSON Schema, draft 2020-12; the older drafts from 4 on
    /// by their `$schema`), without white space but one space after each colon and comma. `$ref` reaches what is in
    /// the schema itself. Numbers of a schema are taken as f64.
    ///
    /// # Errors
    /// `InvalidArgument` for what is no JSON, a schema that is wrong or uses a key that cannot be kept to, or one that no
    /// value fits; `OutOfMemory`; `Unsupported` if the vocabulary is too large.
    pub fn json_schema(tokenizer: &Tokenizer, schema: &str) -> Result<Grammar> {
        Grammar::new(tokenizer, schema, "schema", || {
            let no_json = |e| Error::invalid_argument(format!("it is no JSON: {e}"));
            let mut schema: Value = serde_json::from_str(schema).map_err(no_json)?;
            check_schema(&schema)?;
            if let Some(keys) = schema.as_object_mut() {
                let spaces = json!({ "item_separator": ", ", "key_separator": ": ", "whitespace_flexible": false });
                keys.insert("x-guidance".into(), spaces);
            }
            Ok(TopLevelGrammar::from_json_schema(schema))
        })
    }

    /// The texts that a regular expression matches as a whole, in the syntax of the `regex` crate, without word boundaries
    /// and lazy repetition; anchors stand for nothing at its ends.
    ///
    /// # Errors
    /// As `json_schema`.
    pub fn regex(tokenizer: &Tokenizer, pattern: &str) -> Result<Grammar> {
        Grammar::new(tokenizer, pattern, "regular expression", || Ok(TopLevelGrammar::from_regex(pattern)))
    }

    /// The texts of a context-free grammar in the notation of the Lark parser, whose first rule is `start`; llguidance's
    /// documentation has the details. `<name>` is a special token.
    ///
    /// # Errors
    /// As `json_schema`.
    pub fn lark(tokenizer: &Tokenizer, grammar: &str) -> Result<Grammar> {
        Grammar::new(tokenizer, grammar, "grammar", || {
            for (_, text) in grammar.match_indices("%json").map(|(at, word)| grammar.split_at(at + word.len())) {
                // What is no JSON is no schema, and told by the compiler.
                if let Some(Ok(schema)) = serde_json::Deserializer::from_str(text).into_iter().next() {
                    check_schema(&schema)?;
                }
            }
            Ok(TopLevelGrammar::from_lark(grammar.into()))
        })
    }

    fn new(
        tokenizer: &Tokenizer,
        text: &str,
        what: &str,
        read: impl FnOnce() -> Result<TopLevelGrammar> + Send,
    ) -> Result<Grammar> {
        if text.len() > LONGEST {
            let message = format!("the {what} has {} bytes, there can be {LONGEST}", text.len());
            return Err(Error::invalid_argument(message).with("expected", LONGEST).with("found", text.len()));
        }
        let vocabulary = Arc::clone(tokenizer.vocabulary()?);
        let compile = || -> Result<(llguidance::Matcher, TokenSet)> {
            let parser = vocabulary.factory.create_parser(read()?);
            let mut start = llguidance::Matcher::new(parser);
            let first = allowed(&mut start)?;
            Ok((start, first))
        };
        let wrong = |e: Error| {
            let message = e.detail().message();
            // Only of a grammar it is a place in the text.
            let message = if what == "grammar" { message } else { without_place(message) };
            Error::invalid_argument(format!("the {what} is not usable: {message}"))
        };
        let (start, first) = on_stack(STACK + text.len() * STACK_PER_BYTE, compile)?.map_err(wrong)?;
        Ok(Grammar(Arc::new(Compiled { vocabulary, start, first: Arc::new(first) })))
    }

    /// Whether it was made for this tokenizer.
    pub(crate) fn is_for(&self, tokenizer: &Tokenizer) -> bool {
        // Where it was made for this tokenizer, that has a vocabulary.
        matches!(tokenizer.vocabulary.get(), Some(Ok(vocabulary)) if Arc::ptr_eq(vocabulary, &self.0.vocabulary))
    }

    /// A text of which nothing is there.
    pub fn begin(&self) -> Matcher {
        Matcher { vocabulary: Arc::clone(&self.0.vocabulary), state: State::Start(Arc::clone(&self.0)) }
    }
}

impl TokenSet {
    /// Whether a token is in it.
    pub fn contains(&self, token: u32) -> bool {
        (token as usize) < self.0.len() && self.0.is_allowed(token)
    }

    /// Copies the logits (V) of the set's tokens, and -infinity for all others, to `masked`.
    pub(crate) fn mask(&self, logits: &[f32], masked: &mut Vec<f32>) -> Result<()> {
        masked.clear();
        masked.try_reserve_exact(logits.len()).map_err(|_| Error::out_of_memory("the masked logits cannot be had"))?;
        masked.resize(logits.len(), f32::NEG_INFINITY);
        for ((bits, masked), logits) in self.0.as_slice().iter().zip(masked.chunks_mut(32)).zip(logits.chunks(32)) {
            for (_, (masked, logit)) in (0..).zip(masked.iter_mut().zip(logits)).filter(|(i, _)| bits >> i & 1 == 1) {
                *masked = *logit;
            }
        }
        Ok(())
    }
}

impl State {
    /// What the other thread answered; `None` if it has gone.
    fn back(answer: Option<Answer>) -> State {
        match answer {
            Some((matcher, Ok(set))) => State::Here(matcher, Some(Arc::new(set))),
            Some((_, Err(e))) => State::Failed(e),
            None => State::Failed(Error::internal("the thread that looks for tokens has gone")),
        }
    }
}

impl Matcher {
    /// The tokens that may come next: those that end a generation among them exactly if the text may end here.
    ///
    /// # Errors
    /// `InvalidArgument` if the grammar is too ambiguous or too large to tell, or the vocabulary has no token for what
    /// must come; `FailedPrecondition` if nothing may follow.
    pub fn allowed(&mut self) -> Result<Arc<TokenSet>> {
        self.look_ahead();
        if let State::Away { answer, .. } = &self.state {
            self.state = State::back(answer.recv().ok());
        }
        match &self.state {
            State::Start(grammar) => Ok(Arc::clone(&grammar.first)),
            State::Here(_, Some(set)) => Ok(Arc::clone(set)),
            State::Here(_, None) => Err(Error::out_of_memory("there can be no thread that looks for tokens")),
            State::Failed(e) => Err(e.clone()),
            State::Complete | State::Away { .. } => Err(Error::failed_precondition("the grammar lets nothing follow")),
        }
    }

    /// The errors of [`accept`](Self::accept), for a token that ends the text too.
    pub(crate) fn check(&mut self, token: u32) -> Result<()> {
        if self.allowed()?.contains(token) {
            return Ok(());
        }
        let message = format!("the grammar does not allow token {token} here");
        Err(Error::invalid_argument(message).with("token", token))
    }

    /// Waits for the other thread, for a while. True if [`allowed`](Self::allowed) has nothing to wait for.
    pub(crate) fn is_ready(&mut self, patience: Duration) -> bool {
        self.look_ahead();
        if let State::Away { answer, .. } = &self.state {
            self.state = match answer.recv_timeout(patience) {
                Ok(answer) => State::back(Some(answer)),
                Err(RecvTimeoutError::Timeout) => return false,
                Err(RecvTimeoutError::Disconnected) => State::back(None),
            };
        }
        true
    }

    /// Gives the error from now on.
    pub(crate) fn fail(&mut self, error: Error) -> Error {
        self.state = State::Failed(error.clone());
        error
    }

    /// Adds a token.
    ///
    /// # Errors
    /// Those of `allowed`; `InvalidArgument` if the token is not allowed, and nothing changes.
    pub fn accept(&mut self, token: u32) -> Result<()> {
        self.check(token)?;
        if let State::Start(grammar) = &self.state {
            // With a lexer of its own: what others have matched cannot bring it nearer to a limit.
            self.state = State::Here(Box::new(grammar.start.deep_clone()), None);
        }
        let State::Here(matcher, set) = &mut self.state else { return Ok(()) };
        *set = None;
        match matcher.consume_token(token) {
            Err(e) => Err(self.fail(error(&e))),
            Ok(()) if matcher.is_stopped() => {
                self.state = State::Complete;
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Another text, which begins as this one. Both go on with the same lexer: it is for the continuations of one search.
    pub(crate) fn fork(&mut self) -> Result<Matcher> {
        self.allowed()?;
        let state = match &self.state {
            State::Start(grammar) => State::Start(Arc::clone(grammar)),
            State::Here(matcher, set) => State::Here(matcher.clone(), set.clone()),
            // As `allowed` has waited.
            State::Away { .. } | State::Complete | State::Failed(_) => {
                return Err(Error::internal("a text without a state"));
            }
        };
        Ok(Matcher { vocabulary: Arc::clone(&self.vocabulary), state })
    }

    /// True if nothing may follow.
    pub fn is_complete(&self) -> bool {
        matches!(self.state, State::Complete)
    }

    /// Begins to look for what is [`allowed`](Self::allowed), on another thread.
    pub fn look_ahead(&mut self) {
        if !matches!(self.state, State::Here(_, None)) {
            return;
        }
        let Some(jobs) = self.vocabulary.jobs() else { return };
        let (answer, receiver) = sync_channel(1);
        let waiting = Arc::new(());
        let alive = Arc::downgrade(&waiting);
        let away = State::Away { answer: receiver, _waiting: waiting };
        if let State::Here(matcher, _) = std::mem::replace(&mut self.state, away)
            && let Err(job) = jobs.send((matcher, answer, alive))
        {
            self.state = State::Here(job.0.0, None);
        }
    }
}

fn allowed(matcher: &mut llguidance::Matcher) -> Result<TokenSet> {
    matcher.compute_mask_or_eos().map(TokenSet).map_err(|e| error(&e))
}

/// Refuses what takes the compiler of schemas too long, or what it takes for something else.
fn check_schema(schema: &Value) -> Result<()> {
    match schema {
        Value::Array(items) => items.iter().try_for_each(check_schema),
        Value::Object(keys) => {
            let count = |key: &str| keys.get(key).and_then(Value::as_object).map_or(0, Map::len);
            let counted = ["minProperties", "maxProperties"].iter().any(|key| keys.contains_key(*key));
            for (key, most) in [
                ("properties", if counted { MOST_COUNTED } else { MOST_PROPERTIES }),
                ("patternProperties", MOST_PATTERNS),
            ] {
                let found = count(key);
                if found > most {
                    let message = format!("an object has {found} {key}, there can be {most}");
                    return Err(Error::invalid_argument(message).with("expected", most).with("found", found));
                }
            }
            if let Some(factor) = keys.get("multipleOf").and_then(Value::as_f64).filter(|x| x.abs() > LARGEST_FACTOR) {
                let message = format!("multipleOf is {factor}, it can be {LARGEST_FACTOR}");
                return Err(Error::invalid_argument(message).with("found", factor));
            }
            keys.values().try_for_each(check_schema)
        }
        _ => Ok(()),
    }
}

/// What llguidance reports, in one sentence.
fn error(error: &impl std::fmt::Display) -> Error {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    let mut line: String = first.chars().take(300).collect();
    if line == "NoExtensionBias" {
        line = "no token can come next".into();
    } else if line.starts_with("lexer precomputation failed") {
        line = "its words have too many states".into();
    }
    // The parser of regular expressions shows the place before it says what is wrong there.
    if let Some(wrong) = text.lines().find_map(|line| line.strip_prefix("error: ")) {
        line.push(' ');
        line.extend(wrong.chars().take(300));
    }
    Error::invalid_argument(line)
}

/// A message without the place in the grammar that was made of the text: `at 1(8): `.
fn without_place(message: &str) -> &str {
    let place = |message: &str| {
        let (place, rest) = message.strip_prefix("at ")?.split_once("): ")?;
        let is_place = place.chars().all(|c| c.is_ascii_digit() || c == '(');
        is_place.then_some(rest.len())
    };
    place(message).map_or(message, |left| &message[message.len() - left..])
}

/// What `work` gives, called with so many bytes of stack.
fn on_stack<T: Send>(bytes: usize, work: impl FnOnce() -> T + Send) -> Result<T> {
    thread::scope(|scope| {
        let out_of_memory =
            |e| Error::out_of_memory(format!("no thread with a stack of {bytes} bytes can be had: {e}"));
        let thread = thread::Builder::new().stack_size(bytes).spawn_scoped(scope, work).map_err(out_of_memory)?;
        thread.join().map_err(|_| Error::internal("the compiler of grammars panicked"))
    })
}

impl Vocabulary {
    pub(super) fn new(tokenizer: &Tokenizer) -> Result<Vocabulary> {
        on_stack(STACK, || Vocabulary::of(tokenizer))?
    }

    fn of(tokenizer: &Tokenizer) -> Result<Vocabulary> {
        let words: Vec<Vec<u8>> = (0..tokenizer.vocab_size() as u32).map(|token| word(tokenizer, token)).collect();
        check_size(&words)?;
        let ends: Vec<u32> = (0..words.len() as u32).filter(|&token| tokenizer.is_eog(token)).collect();
        let mut tree = TokTrie::from(&TokRxInfo::new(words.len() as u32, INVALID_TOKEN), &words);
        if !ends.is_empty() {
            tree = tree.with_eos_tokens(&ends);
        }
        let environment: TokEnv = Arc::new(ApproximateTokEnv::new(tree));
        let unusable = |e| Error::unsupported(format!("the vocabulary cannot be used with grammars: {e}"));
        let mut factory = ParserFactory::new_simple(&environment).map_err(unusable)?;
        factory.quiet();
        let limits = factory.limits_mut();
        limits.verbose_errors = false;
        limits.max_lexer_states = LEXER_STATES;
        Ok(Vocabulary { factory, worker: Mutex::new(None) })
    }

    /// Where the thread takes its work from; `None` if there can be no thread now.
    fn jobs(&self) -> Option<Sender<Job>> {
        let start = || {
            let (jobs, queue) = channel::<Job>();
            let work = move || {
                for (mut matcher, answer, waiting) in queue {
                    // Nobody waits if the text was dropped, now or in the meantime.
                    if waiting.strong_count() > 0 {
                        let set = allowed(&mut matcher);
                        let _ = answer.send((matcher, set));
                    }
                }
            };
            // For any grammar: what it has to do first shows only as a text goes on.
            let builder = thread::Builder::new().name("llm-grammar".into());
            let thread = builder.stack_size(STACK + LONGEST * STACK_PER_BYTE).spawn(work).ok()?;
            Some(Worker { jobs: Some(jobs), thread: Some(thread), process: std::process::id() })
        };
        let mut worker = self.worker.lock();
        if worker.is_none() {
            *worker = start();
        }
        worker.as_ref()?.jobs.clone()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && self.process == std::process::id()
        {
            let _ = thread.join();
        }
    }
}

/// How a token stands in the tree: its bytes, behind a mark if it is special; nothing if no text has it.
fn word(tokenizer: &Tokenizer, token: u32) -> Vec<u8> {
    let piece = tokenizer.vocab.piece(token).unwrap_or_default();
    match tokenizer.kind(token) {
        None => Vec::new(),
        _ if piece.is_empty() || piece.len() > LONGEST_TOKEN => Vec::new(),
        // Those that end a generation too, whatever the file calls them: as text they would end it in the middle.
        _ if tokenizer.is_eog(token) => [&[TokTrie::SPECIAL_TOKEN_MARKER], piece].concat(),
        Some(TokenKind::Unused) => Vec::new(),
        Some(TokenKind::Control | TokenKind::Unknown) => [&[TokTrie::SPECIAL_TOKEN_MARKER], piece].concat(),
        _ if piece[0] == TokTrie::SPECIAL_TOKEN_MARKER => Vec::new(),
        _ => piece.to_vec(),
    }
}

/// `Unsupported` if the tree cannot hold so many tokens.
fn check_size(words: &[Vec<u8>]) -> Result<()> {
    let mut sorted: Vec<&Vec<u8>> = words.iter().collect();
    sorted.sort();
    let common = |pair: &[&Vec<u8>]| pair[0].iter().zip(pair[1]).take_while(|(a, b)| a == b).count();
    // A node for each byte that is not shared with the word before, and for each word that is there twice.
    let nodes: usize = sorted.windows(2).map(|pair| (pair[1].len() - common(pair)).max(1)).sum();
    let equal = sorted.chunk_by(|a, b| a == b).filter(|equal| !equal[0].is_empty()).map(<[_]>::len).max().unwrap_or(0);
    if equal > MOST_EQUAL {
        let message = format!("grammars cannot be used with a vocabulary that has a token {equal} times");
        return Err(Error::unsupported(message).with("expected", MOST_EQUAL).with("found", equal));
    }
    let nodes = nodes + sorted.first().map_or(0, |word| word.len()) + 1;
    if nodes < MOST_NODES {
        return Ok(());
    }
    let message = format!("grammars can be used with vocabularies of up to {MOST_NODES} pieces, this one has {nodes}");
    Err(Error::unsupported(message).with("expected", MOST_NODES).with("found", nodes))
}
