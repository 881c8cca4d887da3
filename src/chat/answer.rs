//! What a model answers: its thoughts, its text and the tools that it calls.
//!
//! Models write calls of tools in their own ways. [`STYLES`] is THE table of them: how a block of calls begins and ends,
//! and what reads it. A reader takes what it understands from the start of a block, JSON by its own grammar, so that an
//! end mark within a text ends nothing. What it does not understand stays part of the text: nothing is lost, and a call
//! that was cut off is none.

use super::arguments::{function_name, spelt};
use aho_corasick::AhoCorasick;
use serde_json::{Map, Value as Json};

/// A call of a tool.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolCall {
    /// The model's own name for the call; empty where its style has none.
    pub id: String,
    /// The tool.
    pub name: String,
    /// By name. What a model writes as text and not as JSON is what the tool's schema takes it for: a string, or the value
    /// that it spells.
    pub arguments: Map<String, Json>,
}

/// An answer, taken apart.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Answer {
    /// The text for the user.
    pub content: String,
    /// What the model thought before.
    pub reasoning: String,
    /// In the order in which the model wrote them.
    pub tool_calls: Vec<ToolCall>,
}

/// How a block of calls is written.
struct Style {
    begin: &'static str,
    /// The mark behind the calls, unless the text ends there; "" if there is none.
    end: &'static str,
    read: Reader,
}

/// Takes calls from the start of a text, for the tools that there are; gives them and what follows.
type Reader = for<'a> fn(&'a str, &[Json]) -> Option<(Vec<ToolCall>, &'a str)>;

const fn style(begin: &'static str, end: &'static str, read: Reader) -> Style {
    Style { begin, end, read }
}

/// Of blocks that begin at the same place the first style counts that can read it.
const STYLES: &[Style] = &[
    // Hermes, Qwen 2.5 and 3, many fine-tuned models.
    style("<tool_call>", "</tool_call>", json_calls),
    // Qwen 3 Coder.
    style("<tool_call>", "</tool_call>", function_elements),
    // GLM 4.5.
    style("<tool_call>", "</tool_call>", key_value_elements),
    // Qwen 3 Coder where it forgets the outer element; Functionary and Llama 3.1's own tools with JSON inside.
    style("<function=", "</function>", function_tag),
    // Phi 4 mini.
    style("<|tool_call|>", "<|/tool_call|>", json_calls),
    // Granite 3.
    style("<|tool_call|>", "", json_calls),
    // Mistral up to version 7 of its tokenizer, and since.
    style("[TOOL_CALLS]", "", json_calls),
    style("[TOOL_CALLS]", "", named_arguments),
    // DeepSeek V3, R1 and V3.1.
    style("<｜tool▁calls▁begin｜>", "", deepseek_calls),
    // Llama 3.1 and later.
    style("<|python_tag|>", "", json_calls),
    // Command R+ and Command A.
    style("Action: ```json", "```", json_calls),
    style("<|START_ACTION|>", "<|END_ACTION|>", json_calls),
];

/// Blocks that no style can read, after which the rest is text: each may be read to its end in vain.
const MAX_UNREAD: usize = 100;

/// What encloses thoughts.
const THOUGHTS: &[(&str, &str)] = &[
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<seed:think>", "</seed:think>"),
];

/// What encloses text for the user in some styles.
const RESPONSES: &[(&str, &str)] = &[("<|START_RESPONSE|>", "<|END_RESPONSE|>"), ("<|START_TEXT|>", "<|END_TEXT|>")];

impl Answer {
    /// Takes the text of an answer apart, in which special tokens are shown. `tools`: those that the model was given, as
    /// [`Messages::set_tools`](super::Messages::set_tools) takes them. A model that writes a call without any mark is
    /// believed only if it names one of them.
    pub fn parse(text: &str, tools: &[Json]) -> Answer {
        if let Some(answer) = channels(text) {
            return answer;
        }
        let (reasoning, mut rest) = thoughts(text);
        let mut answer = Answer { reasoning: reasoning.to_owned(), ..Answer::default() };
        if let Some(calls) = unmarked(rest, tools) {
            answer.tool_calls = calls;
            return answer;
        }
        let begins = AhoCorasick::new(STYLES.iter().map(|style| style.begin));
        let (mut from, mut unread) = (0, 0);
        while unread < MAX_UNREAD
            && let Some(at) = begins.as_ref().ok().and_then(|begins| begins.find(&rest[from..]))
        {
            let at = from + at.start();
            match read_block(&rest[at..], tools) {
                Some((calls, after)) => {
                    answer.content.push_str(&rest[..at]);
                    answer.tool_calls.extend(calls);
                    (rest, from) = (after, 0);
                }
                None => {
                    unread += 1;
                    // Every block begins with a character of one byte.
                    from = at + 1;
                }
            }
        }
        answer.content.push_str(rest);
        for (begin, end) in RESPONSES {
            if let Some(inner) = answer.content.trim().strip_prefix(begin) {
                answer.content = inner.strip_suffix(end).unwrap_or(inner).to_owned();
            }
        }
        if !answer.tool_calls.is_empty() {
            answer.content.truncate(answer.content.trim_end().len());
        }
        answer
    }
}

/// The calls of the block that the text begins with, by the first style that can read it, and the text behind it.
fn read_block<'a>(text: &'a str, tools: &[Json]) -> Option<(Vec<ToolCall>, &'a str)> {
    STYLES.iter().find_map(|style| {
        let (calls, rest) = (style.read)(text.strip_prefix(style.begin)?, tools)?;
        let after = if style.end.is_empty() { Some(rest) } else { rest.trim_start().strip_prefix(style.end) };
        let after = after.or_else(|| rest.trim_start().is_empty().then_some(""))?;
        Some((calls, after))
    })
}

/// The calls of a text that is nothing but calls of known tools as JSON.
fn unmarked(text: &str, tools: &[Json]) -> Option<Vec<ToolCall>> {
    let (calls, after) = json_calls(text, tools)?;
    let known = calls.iter().all(|call| is_tool(&call.name, tools));
    (known && after.trim_start().is_empty()).then_some(calls)
}

fn is_tool(name: &str, tools: &[Json]) -> bool {
    tools.iter().any(|tool| function_name(tool) == Some(name))
}

/// Thoughts at the start of the text, and what follows them. A prompt may have begun the thoughts already.
fn thoughts(text: &str) -> (&str, &str) {
    for (begin, end) in THOUGHTS {
        let opened = text.trim_start().strip_prefix(begin);
        match opened.unwrap_or(text).split_once(end) {
            Some((inner, rest)) if opened.is_some() || !inner.contains(begin) => {
                return (inner.trim_matches(['\n', '\r', ' ']), rest.trim_start_matches(['\n', '\r', ' ']));
            }
            // The answer ended in thought.
            None if opened.is_some() => return (opened.unwrap_or_default().trim(), ""),
            _ => {}
        }
    }
    ("", text)
}

/// Harmony, the format of gpt-oss: messages with a channel, and perhaps a recipient. `None` if the text begins otherwise.
fn channels(text: &str) -> Option<Answer> {
    const START: &str = "<|start|>assistant";
    let ends = AhoCorasick::new(["<|end|>", "<|call|>", "<|return|>", START]).ok()?;
    let end_of = |text: &str| ends.find(text).map_or(text.len(), |end| end.start());
    let mut answer = Answer::default();
    let mut rest = text.trim_start();
    let mut any = false;
    loop {
        let message = rest.strip_prefix(START).unwrap_or(rest);
        let is_header = ["<|channel|>", "to="].iter().any(|begin| message.trim_start().starts_with(begin));
        let parts = message.split_once("<|message|>").filter(|(header, _)| is_header && header.contains("<|channel|>"));
        let Some((header, body)) = parts else { break };
        any = true;
        let recipient = header.split_once("to=").map(|(_, to)| to.split(['<', ' ']).next().unwrap_or_default());
        let channel = header.split_once("<|channel|>").map_or("", |(_, channel)| channel.trim_start());
        let value = json(body).map(|(value, after)| (value, after.split_at(end_of(after))));
        match (recipient, value) {
            (Some(name), Some((Json::Object(arguments), (between, after)))) if between.trim_start().is_empty() => {
                let name = name.strip_prefix("functions.").unwrap_or(name).to_owned();
                answer.tool_calls.push(ToolCall { id: String::new(), name, arguments });
                rest = after;
            }
            _ => {
                let (text, after) = body.split_at(end_of(body));
                let to = if channel.starts_with("analysis") { &mut answer.reasoning } else { &mut answer.content };
                append(to, text);
                rest = after;
            }
        }
        rest = ["<|end|>", "<|call|>", "<|return|>"].iter().find_map(|end| rest.strip_prefix(end)).unwrap_or(rest);
    }
    append(&mut answer.content, rest);
    any.then_some(answer)
}

/// Adds a message's text to those before it.
fn append(to: &mut String, text: &str) {
    if !to.is_empty() && !text.is_empty() {
        to.push('\n');
    }
    to.push_str(text);
}

/// The object or list that the text begins with, and what follows it.
fn json(text: &str) -> Option<(Json, &str)> {
    let text = text.trim_start();
    let mut values = serde_json::Deserializer::from_str(text.strip_prefix(['{', '[']).map(|_| text)?).into_iter();
    let value = values.next()?.ok()?;
    Some((value, &text[values.byte_offset()..]))
}

/// One or more calls as JSON: objects or lists of them, one after the other.
fn json_calls<'a>(text: &'a str, _: &[Json]) -> Option<(Vec<ToolCall>, &'a str)> {
    let (mut calls, mut rest) = (Vec::new(), text);
    while let Some((value, after)) = json(rest.trim_start_matches(|c: char| c.is_whitespace() || ";,".contains(c))) {
        let items = if let Json::Array(items) = value { items } else { vec![value] };
        let Some(more) = items.into_iter().map(json_call).collect::<Option<Vec<_>>>() else { break };
        calls.extend(more);
        rest = after;
    }
    (!calls.is_empty()).then_some((calls, rest))
}

/// One call as JSON, by any of the names that its parts have. Without arguments it has nothing else: that would be lost.
fn json_call(value: Json) -> Option<ToolCall> {
    let Json::Object(mut object) = value else { return None };
    let text = |value: Option<&Json>| value.and_then(Json::as_str).map(str::to_owned);
    let id = ["id", "tool_call_id", "call_id"].iter().find_map(|key| text(object.get(*key))).unwrap_or_default();
    if let Some(Json::Object(function)) = object.get("function") {
        object = function.clone();
    }
    let name = ["name", "tool_name", "function"].iter().find_map(|key| text(object.get(*key)))?;
    let arguments = ["arguments", "parameters"].iter().find_map(|key| object.remove(*key));
    let arguments = match arguments {
        Some(Json::Object(arguments)) => arguments,
        Some(Json::String(text)) => serde_json::from_str(&text).ok()?,
        None if object.keys().any(|key| !BESIDE_ARGUMENTS.contains(&&**key)) => return None,
        None | Some(Json::Null) => Map::new(),
        Some(_) => return None,
    };
    Some(ToolCall { id, name, arguments })
}

/// The keys of a call but its arguments.
const BESIDE_ARGUMENTS: [&str; 7] = ["name", "tool_name", "function", "id", "tool_call_id", "call_id", "type"];

/// A call, unless its name is no name.
fn call(name: &str, id: &str, arguments: Map<String, Json>) -> Option<ToolCall> {
    let is_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '/');
    let is_named = !name.is_empty() && name.chars().all(is_name);
    is_named.then(|| ToolCall { id: id.to_owned(), name: name.to_owned(), arguments })
}

/// The text up to an end mark behind which one of `next` begins, and what is behind the mark.
fn enclosed<'a>(text: &'a str, end: &str, next: [&str; 2]) -> Option<(&'a str, &'a str)> {
    let ends = text.match_indices(end).map(|(at, _)| (&text[..at], &text[at + end.len()..]));
    let mut ends = ends.filter(|(_, after)| next.iter().any(|next| after.trim_start().starts_with(next)));
    ends.next()
}

/// `<function=NAME>` elements.
fn function_elements<'a>(text: &'a str, tools: &[Json]) -> Option<(Vec<ToolCall>, &'a str)> {
    let (mut calls, mut rest) = (Vec::new(), text);
    while let Some(element) = rest.trim_start().strip_prefix("<function=") {
        let (more, after) = function_tag(element, tools)?;
        calls.extend(more);
        rest = after.trim_start().strip_prefix("</function>")?;
    }
    (!calls.is_empty()).then_some((calls, rest))
}

/// What follows `<function=`: the name, `>`, and the arguments as `<parameter=KEY>` elements or as JSON.
fn function_tag<'a>(text: &'a str, tools: &[Json]) -> Option<(Vec<ToolCall>, &'a str)> {
    let (name, mut rest) = text.split_once('>')?;
    if let Some((Json::Object(arguments), after)) = json(rest) {
        return Some((vec![call(name, "", arguments)?], after));
    }
    let mut arguments = Map::new();
    while !rest.trim_start().starts_with("</function>") {
        let (key, value) = rest.trim_start().strip_prefix("<parameter=")?.split_once('>')?;
        let (value, after) = enclosed(value, "</parameter>", ["<parameter=", "</function>"])?;
        let value = value.strip_prefix('\n').unwrap_or(value);
        arguments.insert(key.to_owned(), spelt(value.strip_suffix('\n').unwrap_or(value), name, key, tools));
        rest = after;
    }
    Some((vec![call(name, "", arguments)?], rest))
}

/// The name, then pairs of `<arg_key>` and `<arg_value>`. A name alone must be that of a tool.
fn key_value_elements<'a>(text: &'a str, tools: &[Json]) -> Option<(Vec<ToolCall>, &'a str)> {
    let (name, mut rest) = text.split_at(text.find('<')?);
    let (name, mut arguments) = (name.trim(), Map::new());
    while let Some(pair) = rest.trim_start().strip_prefix("<arg_key>") {
        let (key, value) = pair.split_once("</arg_key>")?;
        let value = value.trim_start().strip_prefix("<arg_value>")?;
        let (value, after) = enclosed(value, "</arg_value>", ["<arg_key>", "</tool_call>"])?;
        arguments.insert(key.trim().to_owned(), spelt(value, name, key.trim(), tools));
        rest = after;
    }
    let is_call = !arguments.is_empty() || is_tool(name, tools);
    Some((vec![call(name, "", arguments).filter(|_| is_call)?], rest))
}

/// `NAME[ARGS]{…}`, with `[CALL_ID]…` between in some versions.
fn named_arguments<'a>(text: &'a str, _: &[Json]) -> Option<(Vec<ToolCall>, &'a str)> {
    let (name, rest) = text.split_once("[ARGS]")?;
    let (name, id) = name.split_once("[CALL_ID]").unwrap_or((name, ""));
    let (Json::Object(arguments), after) = json(rest)? else { return None };
    Some((vec![call(name.trim(), id.trim(), arguments)?], after))
}

/// Calls between their own marks, and the mark that ends them all.
fn deepseek_calls<'a>(text: &'a str, _: &[Json]) -> Option<(Vec<ToolCall>, &'a str)> {
    let (mut calls, mut rest) = (Vec::new(), text);
    while let Some((call, after)) = deepseek_call(rest.trim_start()) {
        calls.push(call);
        rest = after;
    }
    let after = rest.trim_start().strip_prefix("<｜tool▁calls▁end｜>").unwrap_or(rest);
    (!calls.is_empty()).then_some((calls, after))
}

/// `function<sep>NAME`, a line, JSON in a fence; or `NAME<sep>JSON`.
fn deepseek_call(text: &str) -> Option<(ToolCall, &str)> {
    let (first, second) = text.strip_prefix("<｜tool▁call▁begin｜>")?.split_once("<｜tool▁sep｜>")?;
    let bare = json(second);
    let (name, (arguments, after)) = match bare {
        Some(bare) => (first, bare),
        None => {
            let (name, fenced) = second.split_once("```json")?;
            let (arguments, after) = json(fenced)?;
            (name, (arguments, after.trim_start().strip_prefix("```").unwrap_or(after)))
        }
    };
    let Json::Object(arguments) = arguments else { return None };
    let after = after.trim_start().strip_prefix("<｜tool▁call▁end｜>").unwrap_or(after);
    Some((call(name.trim(), "", arguments)?, after))
}

#[cfg(test)]
mod tests;
