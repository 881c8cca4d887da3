//! Templates: what they are given, and how they are run.

use super::builtins::{self, NOW, Raised};
use super::fuel;
use super::rewrite::rewrite;
use super::value::from_json;
use crate::error::{Error, Result};
use crate::log::Contained;
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, Value};
use serde_json::{Map, Value as Json};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::thread;

/// How much of the machine a template may use. Each limit gives `InvalidArgument` when it is reached, at the same place
/// on every machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a template.
    pub template_bytes: usize,
    /// Steps of a render: instructions of the engine.
    pub steps: u64,
    /// Units of work on values: one for each item that is visited, one for every 16 bytes that are read or made.
    pub work: u64,
    /// Bytes of a rendered text.
    pub output_bytes: usize,
}

impl Default for Limits {
    /// What short conversations need, many times over.
    fn default() -> Limits {
        Limits { template_bytes: 256 << 10, steps: 2_000_000, work: 16_000_000, output_bytes: 32 << 20 }
    }
}

impl Limits {
    /// For so many messages, of so many bytes with the tools: some templates look at every message for each, or at every
    /// character. There is no more for those beyond 3 MB, or 1,700 messages.
    pub fn of_conversation(messages: usize, bytes: usize) -> Limits {
        let size = messages.saturating_mul(messages).saturating_add(bytes).min(3_000_000) as u64;
        let default = Limits::default();
        Limits { steps: default.steps + 64 * size, work: default.work + 8 * size, ..default }
    }
}

/// What the engine's parser, interpreter and our recursive values need at the deepest that the limits allow, several
/// times over. Address space; only what is touched becomes memory.
const STACK: usize = 16 << 20;
/// Calls of macros in macros, times 4.
const RECURSION: usize = 400;

/// A chat template, compiled.
pub struct Template {
    environment: Environment<'static>,
    limits: Limits,
    looks: Looks,
}

/// What a template looks at, by its text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Looks {
    /// The parts of a message's content.
    pub parts: bool,
    /// Content that is none.
    pub none: bool,
    /// A message's `thinking`: another name for `reasoning_content`.
    pub thinking: bool,
    /// And another, of messages that call tools.
    pub tool_plan: bool,
}

impl Template {
    /// Compiles a template.
    ///
    /// # Errors
    /// `InvalidArgument` naming the `line` if it is no template, and if it is larger or more deeply nested than the
    /// limits allow; `OutOfMemory` if no thread can be had to compile it on.
    pub fn new(source: &str, limits: Limits) -> Result<Template> {
        if source.len() > limits.template_bytes {
            let message = format!("a chat template of {} bytes; the limit is {}", source.len(), limits.template_bytes);
            return Err(Error::invalid_argument(message).with("bytes", source.len()));
        }
        let rewritten = rewrite(&source.replace("\r\n", "\n").replace('\r', "\n"))?;
        let environment = on_own_stack(|| {
            let mut environment = Environment::new();
            let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
            environment.set_syntax(syntax.map_err(|e| Error::internal(e.to_string()))?);
            environment.set_recursion_limit(RECURSION);
            environment.set_fuel(Some(limits.steps));
            builtins::install(&mut environment);
            let compiled = environment.add_template_owned("chat", rewritten);
            compiled.map_err(|e| failure(&e, "the chat template is not valid"))?;
            Ok(environment)
        })?;
        Ok(Template { environment, limits, looks: Looks::of(source) })
    }

    pub(super) fn looks(&self) -> Looks {
        self.looks
    }

    /// The text that the template makes of the variables at a time, in seconds since 1970 (UTC).
    ///
    /// # Errors
    /// `InvalidArgument`: the template raised an exception (fact `exception`), failed, or reached a limit.
    pub fn render(&self, variables: &Map<String, Json>, now: i64) -> Result<String> {
        on_own_stack(|| {
            fuel::fill(self.limits.work);
            self.run(variables, now)
        })
    }

    fn run(&self, variables: &Map<String, Json>, now: i64) -> Result<String> {
        let failed = |e: minijinja::Error| failure(&e, "the chat template failed");
        let mut context = BTreeMap::from([(NOW.to_owned(), Value::from(now))]);
        for (name, value) in variables {
            context.insert(name.clone(), from_json(value).map_err(failed)?);
        }
        let template = self.environment.get_template("chat").map_err(failed)?;
        let mut out = Limited { bytes: Vec::new(), limit: self.limits.output_bytes, failure: None };
        let rendered = template.render_captured_to(Value::from(context), &mut out).map(drop);
        if fuel::spent() {
            let message = format!("the chat template needs more than {} units of work", self.limits.work);
            return Err(Error::invalid_argument(message).with("work", self.limits.work));
        }
        if rendered.as_ref().is_err_and(is_out_of_fuel) {
            let message = format!("the chat template needs more than {} steps", self.limits.steps);
            return Err(Error::invalid_argument(message).with("steps", self.limits.steps));
        }
        if let Some(failure) = out.failure {
            return Err(failure);
        }
        rendered.map_err(failed)?;
        String::from_utf8(out.bytes).map_err(|e| Error::internal(e.to_string()))
    }
}

impl Looks {
    fn of(source: &str) -> Looks {
        let ends = |text: &str| !text.starts_with(|c: char| c.is_alphanumeric() || c == '_');
        let begins = |text: &str| text.ends_with(['\'', '"', '.']);
        let names = |name: &str| {
            source.match_indices(name).any(|(at, _)| begins(&source[..at]) && ends(&source[at + name.len()..]))
        };
        Looks {
            parts: loops_over_content(source),
            none: asks_for_none(source),
            thinking: names("thinking"),
            tool_plan: names("tool_plan"),
        }
    }
}

/// Whether something is done for a content that is none.
fn asks_for_none(source: &str) -> bool {
    ["'content'", "\"content\"", ".content"].iter().any(|content| {
        source.split(content).skip(1).any(|after| {
            let after = after.trim_start_matches([']', ')']).trim_start();
            let operand =
                after.strip_prefix("==").or_else(|| after.strip_prefix("is ")).unwrap_or_default().trim_start();
            operand.starts_with("none") || operand.starts_with("None")
        })
    })
}

/// Whether some `for` goes over a message's content.
fn loops_over_content(source: &str) -> bool {
    let loops = source.split("{%").filter_map(|tag| tag.split("%}").next());
    let mut loops = loops.filter(|tag| tag.trim_start_matches(['-', '+']).trim_start().starts_with("for "));
    loops.any(|tag| tag.split_once(" in ").is_some_and(|(_, over)| over.contains("content")))
}

/// Runs on a thread of its own: what templates need of the stack is known, what the caller has left is not.
fn on_own_stack<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let contained = || {
            let _contained = Contained::new();
            work()
        };
        let thread = thread::Builder::new().name("llm-chat".into()).stack_size(STACK).spawn_scoped(scope, contained);
        let thread = thread.map_err(|e| Error::out_of_memory(format!("no thread for a chat template: {e}")))?;
        // The engine's arithmetic panics in some corners. What it worked on is lost with the thread, and nothing of ours.
        thread.join().unwrap_or_else(|_| Err(Error::invalid_argument("the chat template made its engine panic")))
    })
}

/// The text of a render, up to a limit.
struct Limited {
    bytes: Vec<u8>,
    limit: usize,
    failure: Option<Error>,
}

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let limit = self.limit;
        if bytes.len() > limit - self.bytes.len() {
            let message = format!("the chat template writes more than {limit} bytes");
            self.failure = Some(Error::invalid_argument(message).with("bytes", limit));
        } else if self.bytes.try_reserve(bytes.len()).is_err() {
            self.failure = Some(Error::out_of_memory("the text of the conversation cannot be had"));
        }
        if self.failure.is_some() {
            return Err(io::Error::other("the text ends here"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An error and those that led to it.
fn causes(error: &minijinja::Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}

fn is_out_of_fuel(error: &minijinja::Error) -> bool {
    let mut engine = causes(error).filter_map(|e| e.downcast_ref::<minijinja::Error>());
    engine.any(|e| e.kind() == ErrorKind::OutOfFuel)
}

/// An error of the engine as one of ours.
fn failure(error: &minijinja::Error, what: &str) -> Error {
    if let Some(Raised(message)) = causes(error).find_map(|e| e.downcast_ref()) {
        return Error::invalid_argument(format!("the chat template refuses the conversation: {message}"))
            .with("exception", message);
    }
    let engine = causes(error).filter_map(|e| e.downcast_ref::<minijinja::Error>());
    let innermost = engine.last().unwrap_or(error);
    let detail = innermost.detail().map_or_else(|| innermost.kind().to_string(), str::to_owned);
    match error.line() {
        Some(line) => Error::invalid_argument(format!("{what}: {detail} in line {line}")).with("line", line),
        None => Error::invalid_argument(format!("{what}: {detail}")),
    }
}
