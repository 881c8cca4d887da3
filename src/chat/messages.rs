//! A conversation as data: messages, tools and the variables of a template.

use super::answer::Answer;
use super::arguments::function_name;
use super::json::dumps;
use super::template::{Limits, Looks, Template};
use crate::error::{Error, Result};
use crate::log::{self, Level};
use crate::token::{EncodeOptions, Tokenizer};
use serde_json::{Map, Value as Json, json};
use std::collections::HashSet;
use std::time::{SystemTime, UNIX_EPOCH};

/// A conversation. Messages have the form that chat APIs have made common: an object with the `role` ("system", "user",
/// "assistant", "tool" or what the model's template knows), the `content` (a text, or a list of parts like
/// `{"type": "text", "text": "…"}`), and where they apply `reasoning_content`, `tool_calls`
/// (`[{"id": "…", "type": "function", "function": {"name": "…", "arguments": {…}}}]`), `tool_call_id` and `name`.
#[derive(Debug, Clone, Default)]
pub struct Messages {
    messages: Vec<Json>,
    tools: Vec<Json>,
    variables: Map<String, Json>,
    template: Option<String>,
    time: Option<i64>,
}

fn invalid(what: impl Into<String>) -> Error {
    Error::invalid_argument(what)
}

/// A JSON value that a caller wrote.
fn parse(what: &'static str, text: &str) -> Result<Json> {
    serde_json::from_str(text)
        .map_err(|e| invalid(format!("{what} is not JSON: {e}")).with("line", e.line()).with("column", e.column()))
}

impl Messages {
    /// A conversation without messages.
    pub fn new() -> Messages {
        Messages::default()
    }

    /// The number of messages.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether there are no messages.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// A message.
    pub fn get(&self, index: usize) -> Option<&Json> {
        self.messages.get(index)
    }

    /// Adds a message of text.
    pub fn add(&mut self, role: &str, content: &str) {
        self.messages.push(json!({"role": role, "content": content}));
    }

    /// Adds a message, or a list of messages, that is written as JSON. Nothing is added if one is wrong.
    ///
    /// # Errors
    /// `InvalidArgument` if it is not JSON, or no object with a `role`; if its `content` is neither text, null nor a list
    /// of parts, or its `tool_calls` are no list of calls of named functions.
    pub fn add_json(&mut self, text: &str) -> Result<()> {
        let messages = match parse("the message", text)? {
            Json::Array(messages) => messages,
            message => vec![message],
        };
        messages.iter().try_for_each(check)?;
        self.messages.extend(messages);
        Ok(())
    }

    /// Adds what the model answered, taken apart by [`Answer::parse`]: the text with its special tokens shown, without
    /// the token that ended it. Calls without an `id` get one of nine letters and digits.
    pub fn add_answer(&mut self, text: &str) {
        let answer = Answer::parse(text, &self.tools);
        let mut message = json!({"role": "assistant", "content": answer.content});
        if !answer.reasoning.is_empty() {
            message["reasoning_content"] = answer.reasoning.into();
        }
        let earlier = self.messages.iter().filter_map(|message| message.get("tool_calls")?.as_array()).flatten();
        let own = answer.tool_calls.iter().map(|call| call.id.clone());
        let taken: HashSet<String> =
            earlier.filter_map(|call| Some(call.get("id")?.as_str()?.to_owned())).chain(own).collect();
        let mut ids = (1..).map(|n| format!("call{n:05}")).filter(|id| !taken.contains(id));
        let mut calls = Vec::new();
        for call in answer.tool_calls {
            let id = if call.id.is_empty() { ids.next().unwrap_or_default() } else { call.id };
            calls.push(json!({
                "id": id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }));
        }
        if !calls.is_empty() {
            message["tool_calls"] = calls.into();
        }
        self.messages.push(message);
    }

    /// Keeps the first messages.
    ///
    /// # Errors
    /// `InvalidArgument` if there are fewer.
    pub fn truncate(&mut self, length: usize) -> Result<()> {
        let found = self.len();
        if length > found {
            let message = format!("{length} messages are to be kept, but there are {found}");
            return Err(invalid(message).with("expected", length).with("found", found));
        }
        self.messages.truncate(length);
        Ok(())
    }

    /// Sets the tools that the model may call: a JSON list of
    /// `{"type": "function", "function": {"name": "…", "description": "…", "parameters": JSON-schema}}`.
    ///
    /// # Errors
    /// `InvalidArgument` if it is something else.
    pub fn set_tools(&mut self, text: &str) -> Result<()> {
        let wrong = || invalid("tools must be a list of objects with a \"function\" that has a \"name\"");
        let Json::Array(tools) = parse("the list of tools", text)? else { return Err(wrong()) };
        if !tools.iter().all(|tool| function_name(tool).is_some()) {
            return Err(wrong());
        }
        self.tools = tools;
        Ok(())
    }

    /// Sets a variable of the template, as `enable_thinking`, to a JSON value.
    ///
    /// # Errors
    /// `InvalidArgument` if the value is not JSON, or for the names that messages and tools have.
    pub fn set_variable(&mut self, name: &str, text: &str) -> Result<()> {
        if ["messages", "tools", "add_generation_prompt"].contains(&name) {
            return Err(invalid(format!("the variable {name:?} has a function of its own")).with("name", name));
        }
        self.variables.insert(name.to_owned(), parse("the value", text)?);
        Ok(())
    }

    /// Sets the template, in jinja2's language; `None`: the model's own.
    pub fn set_template(&mut self, template: Option<&str>) {
        self.template = template.map(str::to_owned);
    }

    /// Sets the time that templates see, in seconds since 1970 (UTC); `None`: that of the system.
    pub fn set_time(&mut self, time: Option<i64>) {
        self.time = time;
    }

    /// The text of the conversation, as the template has it. `answer`: with the beginning of the assistant's next
    /// message, so that the model goes on with it.
    ///
    /// Where a template cannot take some form, another is given: a list of parts as the texts put together, a text as one
    /// part, the arguments of calls as JSON text, `reasoning_content` as `thinking` or `tool_plan`, none as the content of a
    /// message that calls tools and says nothing. The template that a file names `tool_use` is taken if there are tools.
    ///
    /// # Errors
    /// `NotFound` if there is no template; `InvalidArgument` if the template refuses the conversation (fact
    /// `exception`), fails, or needs more than [`Limits`] allow; `Unsupported` for parts that are no text if the
    /// template takes none.
    pub fn render(&self, tokenizer: &Tokenizer, answer: bool) -> Result<String> {
        let tool_use = || tokenizer.chat_template(Some("tool_use")).filter(|_| !self.tools.is_empty());
        let missing = || {
            Error::not_found("the model has no chat template (key tokenizer.chat_template): set one")
                .with("key", "tokenizer.chat_template")
        };
        let own = || tool_use().or_else(|| tokenizer.chat_template(None));
        let source = self.template.as_deref().or_else(own).ok_or_else(missing)?;
        if !self.tools.is_empty() && !source.contains("tools") {
            log::event(Level::Warn, format_args!("the chat template passes over tools: the model does not see them"));
        }
        let bytes = |values: &[Json]| serde_json::to_vec(values).map_or(0, |text| text.len());
        let limits = Limits::of_conversation(self.len(), bytes(&self.messages) + bytes(&self.tools));
        let template = Template::new(source, limits)?;
        let now = self.time.unwrap_or_else(|| {
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs().min(i64::MAX as u64) as i64)
        });
        let mut variables = self.variables.clone();
        for (name, token) in [("bos_token", tokenizer.bos()), ("eos_token", tokenizer.eos())] {
            let piece = token.and_then(|token| tokenizer.piece(token).ok()).unwrap_or_default();
            variables.entry(name).or_insert_with(|| String::from_utf8_lossy(piece).into());
        }
        variables.entry("documents").or_insert(Json::Null);
        let tools = if self.tools.is_empty() { Json::Null } else { self.tools.clone().into() };
        variables.insert("tools".into(), tools);
        variables.insert("add_generation_prompt".into(), answer.into());
        self.render_in_some_form(&template, variables, now)
    }

    /// The tokens of that text. Errors: as `render`, and `OutOfMemory`.
    pub fn encode(&self, tokenizer: &Tokenizer, answer: bool) -> Result<Vec<u32>> {
        // The template writes what begins a text itself.
        let options = EncodeOptions { add_special: false, parse_special: true };
        tokenizer.encode(self.render(tokenizer, answer)?.as_bytes(), options)
    }

    /// Renders the messages in the first form that the template can take.
    fn render_in_some_form(&self, template: &Template, mut variables: Map<String, Json>, now: i64) -> Result<String> {
        let mut looks = template.looks();
        let mut render = |looks: Looks, form: Form| {
            variables.insert("messages".into(), self.normal(looks, form)?.into());
            template.render(&variables, now)
        };
        let parts = if looks.parts { Parts::Own } else { Parts::Joined };
        let mut form = Form { parts, arguments_as_text: false };
        let mut rendered = render(looks, form);
        let called = || self.messages.iter().any(|message| message.get("tool_calls").is_some());
        // Where another form may help: not where it refused, or reached a limit.
        let fails = |rendered: &Result<String>| match rendered {
            Err(error @ Error::InvalidArgument(_)) => {
                ["exception", "steps", "work", "bytes"].iter().all(|fact| error.fact(fact).is_none())
            }
            _ => false,
        };
        if fails(&rendered) && called() {
            form.arguments_as_text = true;
            rendered = render(looks, form).or(rendered);
            if fails(&rendered) && looks.none {
                (looks.none, form.arguments_as_text) = (false, false);
                rendered = render(looks, form).or(rendered);
            }
        }
        let text = rendered?;
        if !looks.parts {
            return Ok(text);
        }
        // A template that looks at parts may do so for users alone, and print others as Python writes lists.
        let is_list = |message: &Json| message["content"].is_array() && message["role"] != "user";
        let written = ["{'type': '", "{'text': '"].iter().any(|part| text.contains(part));
        if written && self.messages.iter().any(is_list) {
            form.parts = Parts::OfUsers;
            return Ok(render(looks, form).unwrap_or(text));
        }
        // Or it may look at nothing else, and drop what is no list.
        let is_lost = |text: &str| {
            let users = self.messages.iter().filter(|message| message["role"] == "user");
            let mut rest = text;
            // They come in their order.
            users.filter_map(|message| message["content"].as_str()).map(str::trim).any(|content| {
                let found = rest.find(content);
                rest = found.map_or("", |at| &rest[at + content.len()..]);
                found.is_none()
            })
        };
        if is_lost(&text) {
            form.parts = Parts::Always;
            return Ok(render(looks, form).ok().filter(|text| !is_lost(text)).unwrap_or(text));
        }
        Ok(text)
    }

    /// The messages in a form for a template.
    fn normal(&self, looks: Looks, form: Form) -> Result<Vec<Json>> {
        let mut messages = self.messages.clone();
        for message in messages.iter_mut().filter_map(Json::as_object_mut) {
            let calls =
                message.get("tool_calls").is_some_and(|calls| calls.as_array().is_some_and(|all| !all.is_empty()));
            let keeps_parts = match form.parts {
                Parts::Joined => false,
                Parts::OfUsers => message.get("role").is_some_and(|role| role == "user"),
                Parts::Own | Parts::Always => true,
            };
            // Where it is known, it keeps its place.
            let content = message.get_mut("content").map(Json::take).unwrap_or_default();
            let is_empty = content.is_null() || content == "";
            let content = match content {
                Json::Array(items) if !keeps_parts => joined(&items)?.into(),
                Json::String(text) if form.parts == Parts::Always => json!([{"type": "text", "text": text}]),
                _ if calls && looks.none && is_empty => Json::Null,
                Json::Null => "".into(),
                content => content,
            };
            // gpt-oss refuses both thoughts and content before a call.
            let names = [("thinking", looks.thinking && (is_empty || !calls)), ("tool_plan", looks.tool_plan && calls)];
            message.insert("content".into(), content);
            if let Some(reasoning) = message.get("reasoning_content").cloned() {
                for (name, _) in names.into_iter().filter(|(_, looked_at)| *looked_at) {
                    message.entry(name).or_insert_with(|| reasoning.clone());
                }
            }
            let calls = message.get_mut("tool_calls").and_then(Json::as_array_mut);
            for function in calls.into_iter().flatten().filter_map(|call| call.get_mut("function")) {
                function["arguments"] = match function["arguments"].take() {
                    Json::Null => json!({}),
                    Json::String(text) if !form.arguments_as_text => {
                        serde_json::from_str(&text).unwrap_or(Json::String(text))
                    }
                    value if form.arguments_as_text && !value.is_string() => dumps(&value).into(),
                    value => value,
                };
            }
        }
        Ok(messages)
    }
}

/// How messages are given to a template.
#[derive(Clone, Copy)]
struct Form {
    parts: Parts,
    arguments_as_text: bool,
}

/// Which contents are lists of parts.
#[derive(Clone, Copy, PartialEq)]
enum Parts {
    /// None: their texts are put together.
    Joined,
    /// Those that are given so.
    Own,
    /// Of those, the ones of users.
    OfUsers,
    /// All: a text is one part.
    Always,
}

fn check(message: &Json) -> Result<()> {
    let Some(object) = message.as_object().filter(|object| object.get("role").is_some_and(Json::is_string)) else {
        return Err(invalid("a message must be an object with a \"role\"").with("key", "role"));
    };
    if !matches!(object.get("content"), None | Some(Json::Null | Json::String(_) | Json::Array(_))) {
        let message = "a message's \"content\" must be a text or a list of parts";
        return Err(invalid(message).with("key", "content"));
    }
    let calls = match object.get("tool_calls") {
        None | Some(Json::Null) => return Ok(()),
        Some(calls) => calls.as_array(),
    };
    if !calls.is_some_and(|calls| calls.iter().all(|call| function_name(call).is_some())) {
        let message = "a message's \"tool_calls\" must be a list of objects with a \"function\" that has a \"name\"";
        return Err(invalid(message).with("key", "tool_calls"));
    }
    Ok(())
}

/// The texts of parts, a line each.
fn joined(parts: &[Json]) -> Result<String> {
    let text = |part: &Json| {
        part.get("text").or(Some(part)).and_then(Json::as_str).map(str::to_owned).ok_or_else(|| {
            let kind = part.get("type").and_then(Json::as_str).unwrap_or("of no type").to_owned();
            Error::unsupported(format!("the chat template takes no parts of content but text; found {kind:?}"))
                .with("found", kind)
        })
    };
    Ok(parts.iter().map(text).collect::<Result<Vec<_>>>()?.join("\n"))
}
