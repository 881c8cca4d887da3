//! What a model answers: its thoughts, its text and the tools that it calls.
//!
//! Models write calls of tools in their own ways. [`STYLES`] is THE table of them: how a block of calls begins and ends,
//! and what reads it. A block that its reader does not understand stays part of the text, so nothing is lost.

use aho_corasick::AhoCorasick;
use serde_json::{Map, Value as Json};

/// A call of a tool.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolCall {
    /// The model's own name for the call; empty where its style has none.
    pub id: String,
    /// The tool.
    pub name: String,
    /// By name. What a model writes as text and not as JSON is a string, or the value that it spells.
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
    /// The block may also end with the text; "" if only that ends it.
    end: &'static str,
    read: fn(&str) -> Option<Vec<ToolCall>>,
}

/// Of blocks that begin at the same place the first style counts that can read it.
const STYLES: &[Style] = &[
    // Hermes, Qwen 2.5 and 3, many fine-tuned models.
    Style { begin: "<tool_call>", end: "</tool_call>", read: json_calls },
    // Qwen 3 Coder.
    Style { begin: "<tool_call>", end: "</tool_call>", read: function_element },
    // GLM 4.5.
    Style { begin: "<tool_call>", end: "</tool_call>", read: key_value_elements },
    // Qwen 3 Coder where it forgets the outer element; Functionary and Llama 3.1's own tools with JSON inside.
    Style { begin: "<function=", end: "</function>", read: function_tag },
    // Phi 4 mini.
    Style { begin: "<|tool_call|>", end: "<|/tool_call|>", read: json_calls },
    // Granite 3.
    Style { begin: "<|tool_call|>", end: "", read: json_calls },
    // Mistral up to version 7 of its tokenizer, and since.
    Style { begin: "[TOOL_CALLS]", end: "", read: json_calls },
    Style { begin: "[TOOL_CALLS]", end: "", read: named_arguments },
    // DeepSeek V3, R1 and V3.1.
    Style { begin: "<｜tool▁calls▁begin｜>", end: "<｜tool▁calls▁end｜>", read: deepseek_calls },
    // Llama 3.1 and later.
    Style { begin: "<|python_tag|>", end: "", read: json_calls },
    // Command R+ and Command A.
    Style { begin: "Action: ```json", end: "```", read: json_calls },
    Style { begin: "<|START_ACTION|>", end: "<|END_ACTION|>", read: json_calls },
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
    /// Takes the text of an answer apart, in which special tokens are shown. `tools`: the names of the tools that the
    /// model was given; a model that writes a call without any mark is believed only if it names one.
    pub fn parse(text: &str, tools: &[&str]) -> Answer {
        if text.contains("<|channel|>") {
            return channels(text);
        }
        let (reasoning, rest) = thoughts(text);
        let mut answer = Answer { reasoning: reasoning.to_owned(), ..Answer::default() };
        let unmarked = json_calls(rest).filter(|calls| calls.iter().all(|call| tools.contains(&&*call.name)));
        if let Some(calls) = unmarked {
            answer.tool_calls = calls;
            return answer;
        }
        let begins = AhoCorasick::new(STYLES.iter().map(|style| style.begin));
        let (mut rest, mut from, mut unread) = (rest, 0, 0);
        while unread < MAX_UNREAD
            && let Some(at) = begins.as_ref().ok().and_then(|begins| begins.find(&rest[from..]))
        {
            let at = from + at.start();
            match read_block(&rest[at..]) {
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
fn read_block(text: &str) -> Option<(Vec<ToolCall>, &str)> {
    STYLES.iter().find_map(|style| {
        let block = text.strip_prefix(style.begin)?;
        let ended = if style.end.is_empty() { None } else { block.split_once(style.end) };
        let (body, after) = ended.unwrap_or((block, ""));
        Some(((style.read)(body)?, after))
    })
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

/// Harmony, the format of gpt-oss: messages with a channel, and perhaps a recipient.
fn channels(text: &str) -> Answer {
    let mut answer = Answer::default();
    let append = |to: &mut String, text: &str| {
        if !to.is_empty() && !text.is_empty() {
            to.push('\n');
        }
        to.push_str(text);
    };
    for message in text.split("<|start|>") {
        let Some((header, body)) = message.split_once("<|message|>") else {
            continue;
        };
        let end = ["<|end|>", "<|call|>", "<|return|>"].iter().filter_map(|end| body.find(end)).min();
        let body = &body[..end.unwrap_or(body.len())];
        let recipient = header.split_once("to=").map(|(_, to)| to.split(['<', ' ']).next().unwrap_or_default());
        let channel = header.split_once("<|channel|>").map_or("", |(_, channel)| channel.trim_start());
        match (recipient, serde_json::from_str(body)) {
            (Some(name), Ok(arguments)) => {
                let name = name.strip_prefix("functions.").unwrap_or(name).to_owned();
                answer.tool_calls.push(ToolCall { id: String::new(), name, arguments });
            }
            _ if channel.starts_with("analysis") => append(&mut answer.reasoning, body),
            _ => append(&mut answer.content, body),
        }
    }
    answer
}

/// One or more calls as JSON: objects or lists of them, one after the other.
fn json_calls(text: &str) -> Option<Vec<ToolCall>> {
    let mut calls = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Json>();
        match values.next()?.ok()? {
            Json::Array(items) => calls.extend(items.into_iter().map(json_call).collect::<Option<Vec<_>>>()?),
            value => calls.push(json_call(value)?),
        }
        rest = rest[values.byte_offset()..].trim_start_matches(|c: char| c.is_whitespace() || matches!(c, ';' | ','));
    }
    (!calls.is_empty()).then_some(calls)
}

/// One call as JSON, by any of the names that its parts have.
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
        None | Some(Json::Null) => Map::new(),
        Some(_) => return None,
    };
    Some(ToolCall { id, name, arguments })
}

/// A call, unless its name is no name.
fn call(name: &str, id: &str, arguments: Map<String, Json>) -> Option<ToolCall> {
    let is_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '/');
    let is_named = !name.is_empty() && name.chars().all(is_name);
    is_named.then(|| ToolCall { id: id.to_owned(), name: name.to_owned(), arguments })
}

/// What an argument's text spells: JSON, or else itself.
fn spelt(text: &str) -> Json {
    serde_json::from_str(text).unwrap_or_else(|_| Json::String(text.to_owned()))
}

/// `<function=NAME>` and its `<parameter=NAME>` elements.
fn function_element(text: &str) -> Option<Vec<ToolCall>> {
    function_tag(text.trim().strip_prefix("<function=")?.trim_end().strip_suffix("</function>")?)
}

/// What follows `<function=`: the name, `>`, and the arguments as elements or as JSON.
fn function_tag(text: &str) -> Option<Vec<ToolCall>> {
    let (name, body) = text.split_once('>')?;
    if let Ok(arguments) = serde_json::from_str(body.trim()) {
        return Some(vec![call(name, "", arguments)?]);
    }
    let mut arguments = Map::new();
    for element in body.split("</parameter>").map(str::trim).filter(|element| !element.is_empty()) {
        let (key, value) = element.strip_prefix("<parameter=")?.split_once('>')?;
        let value = value.strip_prefix('\n').unwrap_or(value);
        arguments.insert(key.to_owned(), spelt(value.strip_suffix('\n').unwrap_or(value)));
    }
    Some(vec![call(name, "", arguments)?])
}

/// The name, then pairs of `<arg_key>` and `<arg_value>`.
fn key_value_elements(text: &str) -> Option<Vec<ToolCall>> {
    let (name, body) = text.split_once("<arg_key>").unwrap_or((text, ""));
    let mut arguments = Map::new();
    for pair in body.split("<arg_key>").filter(|pair| !pair.trim().is_empty()) {
        let (key, rest) = pair.split_once("</arg_key>")?;
        let value = rest.trim().strip_prefix("<arg_value>")?.strip_suffix("</arg_value>")?;
        arguments.insert(key.trim().to_owned(), spelt(value));
    }
    Some(vec![call(name.trim(), "", arguments)?])
}

/// `NAME[ARGS]{…}`, with `[CALL_ID]…` between in some versions, one or more.
fn named_arguments(text: &str) -> Option<Vec<ToolCall>> {
    let one = |text: &str| {
        let (name, arguments) = text.split_once("[ARGS]")?;
        let (name, id) = name.split_once("[CALL_ID]").unwrap_or((name, ""));
        call(name.trim(), id.trim(), serde_json::from_str(arguments.trim()).ok()?)
    };
    text.split("[TOOL_CALLS]").map(one).collect()
}

/// Calls between their own marks: `function<sep>NAME`, a line, JSON in a fence; or `NAME<sep>JSON`.
fn deepseek_calls(text: &str) -> Option<Vec<ToolCall>> {
    let mut calls = Vec::new();
    for one in text.split("<｜tool▁call▁begin｜>").skip(1) {
        let (first, second) = one.split("<｜tool▁call▁end｜>").next()?.split_once("<｜tool▁sep｜>")?;
        let (name, arguments) = match second.split_once("```json") {
            Some((name, fenced)) => (name, fenced.split("```").next()?),
            None => (first, second),
        };
        calls.push(call(name.trim(), "", serde_json::from_str(arguments.trim()).ok()?)?);
    }
    (!calls.is_empty()).then_some(calls)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn call(name: &str, arguments: Json) -> ToolCall {
        super::call(name, "", arguments.as_object().unwrap().clone()).unwrap()
    }

    #[test]
    fn every_style_is_read() {
        let arguments = json!({"place": "Bad Tölz", "days": 3});
        let one = vec![call("get_weather", arguments.clone())];
        let json = r#"{"name": "get_weather", "arguments": {"place": "Bad Tölz", "days": 3}}"#;
        let cohere =
            r#"[{"tool_call_id": "0", "tool_name": "get_weather", "parameters": {"place": "Bad Tölz", "days": 3}}]"#;
        let elements =
            "get_weather>\n<parameter=place>\nBad Tölz\n</parameter>\n<parameter=days>\n3\n</parameter>\n</function>";
        let keys = "get_weather\n<arg_key>place</arg_key>\n<arg_value>Bad Tölz</arg_value>\n<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n";
        let plain = r#"{"place": "Bad Tölz", "days": 3}"#;
        for (text, id) in [
            (format!("Hm.\n<tool_call>\n{json}\n</tool_call>"), ""),
            (format!("Hm.\n<tool_call>\n{json}"), ""),
            (format!("Hm. <tool_call>\n<function={elements}\n</tool_call>"), ""),
            (format!("Hm. <function={elements}"), ""),
            (format!("Hm. <function=get_weather>{plain}</function>"), ""),
            (format!("Hm.\n<tool_call>{keys}</tool_call>"), ""),
            (format!("Hm. <|tool_call|>[{json}]<|/tool_call|>"), ""),
            (format!("Hm.<|tool_call|>[{json}]"), ""),
            (format!("Hm.[TOOL_CALLS] [{json}]"), ""),
            (format!("Hm.[TOOL_CALLS]get_weather[ARGS]{plain}"), ""),
            (format!("Hm.[TOOL_CALLS]get_weather[CALL_ID]abc[ARGS]{plain}"), "abc"),
            (format!("Hm.<|python_tag|>{}", json.replace("arguments", "parameters")), ""),
            (format!("Hm.\nAction: ```json\n{cohere}\n```"), "0"),
            (format!("Hm.<|START_ACTION|>{cohere}<|END_ACTION|>"), "0"),
            (
                format!(
                    "Hm.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n{plain}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
                ),
                "",
            ),
            (
                format!(
                    "Hm.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{plain}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
                ),
                "",
            ),
        ] {
            let answer = Answer::parse(&text, &[]);
            let mut expected = one.clone();
            expected[0].id = id.to_owned();
            assert_eq!((&*answer.content, &answer.tool_calls), ("Hm.", &expected), "{text}");
        }
    }

    #[test]
    fn several_calls_and_text_around_them() {
        let text = "A<tool_call>{\"name\": \"a\"}</tool_call>B<tool_call>{\"name\":\"b\",\"arguments\":\"{\\\"x\\\":1}\"}</tool_call>C ";
        let answer = Answer::parse(text, &[]);
        assert_eq!(answer.content, "ABC");
        assert_eq!(answer.tool_calls, [call("a", json!({})), call("b", json!({"x": 1}))]);
        let answer = Answer::parse("[TOOL_CALLS]a[ARGS]{}[TOOL_CALLS]b[ARGS]{\"x\": 1}", &[]);
        assert_eq!(answer.tool_calls, [call("a", json!({})), call("b", json!({"x": 1}))]);
        let text = r#"<|python_tag|>{"name": "a", "parameters": {}}; {"name": "b", "parameters": {"x": 1}}"#;
        assert_eq!(Answer::parse(text, &[]).tool_calls.len(), 2);
    }

    #[test]
    fn what_is_no_call_stays_text() {
        let texts = [
            "",
            " a \n",
            "<tool_call>nonsense {</tool_call> x",
            "<tool_call>{\"name\": 1}</tool_call>",
            "[TOOL_CALLS] none",
            "<function=a b>{}</function>",
            "{\"name\": \"a\", \"parameters\": {}}",
            "Action: ```json\n[1]\n```",
            "a <think> b",
        ];
        for text in texts {
            assert_eq!(Answer::parse(text, &[]), Answer { content: text.to_owned(), ..Answer::default() });
        }
        // One block that cannot be read does not hide the next.
        let answer = Answer::parse("<tool_call>?!</tool_call><tool_call>{\"name\": \"a\"}</tool_call>", &[]);
        assert_eq!((&*answer.content, answer.tool_calls.len()), ("<tool_call>?!</tool_call>", 1));
    }

    #[test]
    fn a_call_without_marks_must_name_a_tool() {
        let text = " {\"name\": \"a\", \"parameters\": {\"x\": 1}}\n";
        assert_eq!(Answer::parse(text, &["a", "b"]).tool_calls, [call("a", json!({"x": 1}))]);
        assert_eq!(Answer::parse(text, &["b"]).content, text);
    }

    #[test]
    fn thoughts_are_set_apart() {
        for text in ["<think>\nHm.\n</think>\n\nYes.", "\nHm.\n</think>\n\nYes.", "[THINK]Hm.[/THINK]Yes."] {
            let answer = Answer::parse(text, &[]);
            assert_eq!((&*answer.reasoning, &*answer.content), ("Hm.", "Yes."), "{text}");
        }
        let text = "<|START_THINKING|>Hm.<|END_THINKING|><|START_RESPONSE|>Yes.<|END_RESPONSE|>";
        let answer = Answer::parse(text, &[]);
        assert_eq!((&*answer.reasoning, &*answer.content), ("Hm.", "Yes."));
        let answer = Answer::parse("<think>Hm", &[]);
        assert_eq!((&*answer.reasoning, &*answer.content), ("Hm", ""));
        let answer = Answer::parse("<think>Hm.</think><tool_call>{\"name\": \"a\"}</tool_call>", &[]);
        assert_eq!((&*answer.reasoning, &*answer.content, answer.tool_calls.len()), ("Hm.", "", 1));
    }

    #[test]
    fn channels_are_set_apart() {
        let text = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary to=functions.a <|constrain|>json<|message|>{\"x\": 1}<|call|>";
        let answer = Answer::parse(text, &[]);
        assert_eq!((&*answer.reasoning, &*answer.content), ("Hm.", ""));
        assert_eq!(answer.tool_calls, [call("a", json!({"x": 1}))]);
        let text = " to=functions.a<|channel|>commentary json<|message|>{\"x\": 1}";
        assert_eq!(Answer::parse(text, &[]).tool_calls, [call("a", json!({"x": 1}))]);
        let answer = Answer::parse("<|channel|>final<|message|>Yes.<|return|>", &[]);
        assert_eq!((&*answer.reasoning, &*answer.content), ("", "Yes."));
    }

    #[test]
    fn long_answers_take_linear_time() {
        for unit in
            ["<tool_call>", "<tool_call>{</tool_call>", "[TOOL_CALLS]", "<function=", "<think>", "[", "<|start|>"]
        {
            let text = unit.repeat((1 << 20) / unit.len());
            assert!(Answer::parse(&text, &[]).tool_calls.is_empty());
        }
    }
}
