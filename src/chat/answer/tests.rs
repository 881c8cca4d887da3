//! Answers in every style, whole, cut off and odd.

use super::*;
use serde_json::json;

fn call(name: &str, arguments: Json) -> ToolCall {
    super::call(name, "", arguments.as_object().unwrap().clone()).unwrap()
}

fn tools(names: &[&str]) -> Vec<Json> {
    names.iter().map(|name| json!({"type": "function", "function": {"name": name}})).collect()
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
fn a_call_that_was_cut_off_is_none() {
    let texts = [
        "<tool_call>\n<function=w>\n<parameter=path>\n/etc/pass",
        "<tool_call>\n<function=w>\n<parameter=path>\n/etc\n</parameter>\n",
        "<tool_call>\n<function=w>",
        "<function=w>\n<parameter=path>\n/etc/pass",
        "<tool_call>w\n<arg_key>path</arg_key>\n<arg_value>/etc</arg_value>\n",
        "<tool_call>w\n<arg_key>path</arg_key>\n<arg_value>/etc",
        "<tool_call>get_wea",
        "Write <tool_call>name</tool_call> to call.",
        "<|tool_call|>[{\"name\": \"a\"",
        "[TOOL_CALLS]a[ARGS]{\"x\": ",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>w\n```json\n{\"x\":",
    ];
    for text in texts {
        assert_eq!(Answer::parse(text, &[]), Answer { content: text.to_owned(), ..Answer::default() });
    }
    // A tool without arguments.
    assert_eq!(Answer::parse("<tool_call>w</tool_call>", &tools(&["w"])).tool_calls, [call("w", json!({}))]);
    // The calls before one that was cut off.
    let one = "<｜tool▁call▁begin｜>w<｜tool▁sep｜>{\"n\": 1}<｜tool▁call▁end｜>";
    let cut = "<｜tool▁call▁begin｜>w<｜tool▁sep｜>{\"n\":";
    for (text, rest) in [
        (format!("<｜tool▁calls▁begin｜>{one}{cut}"), cut),
        ("[TOOL_CALLS]w[ARGS]{\"n\": 1}[TOOL_CALLS]w[ARGS]{\"n\":".to_owned(), "[TOOL_CALLS]w[ARGS]{\"n\":"),
        ("[TOOL_CALLS] [{\"name\": \"w\", \"arguments\": {\"n\": 1}}]\nok".to_owned(), "\nok"),
        ("<|tool_call|>[{\"name\": \"w\", \"arguments\": {\"n\": 1}}] ok".to_owned(), " ok"),
    ] {
        let answer = Answer::parse(&text, &[]);
        assert_eq!((&*answer.content, answer.tool_calls), (rest, vec![call("w", json!({"n": 1}))]), "{text}");
    }
}

#[test]
fn an_end_mark_within_an_argument_ends_nothing() {
    for (begin, end, mark) in [
        ("<tool_call>\n{\"name\": \"w\", \"arguments\": ", "}\n</tool_call>", "</tool_call>"),
        ("<tool_call><function=w>", "</function></tool_call>", "</function></tool_call>"),
        ("<function=w>", "</function>", "</function>"),
        ("[TOOL_CALLS]w[ARGS]", "", "[TOOL_CALLS] b"),
        (
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>w\n```json\n",
            "\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
            "```sh ```json <｜tool▁call▁end｜>",
        ),
        (
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>w<｜tool▁sep｜>",
            "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
            "```json ```",
        ),
        ("Action: ```json\n[{\"tool_name\": \"w\", \"parameters\": ", "}]\n```", "```sh\n```"),
        ("<|channel|>commentary to=functions.w<|message|>", "<|call|>", "<|start|>assistant<|end|>"),
    ] {
        let arguments = json!({"text": format!("a {mark} b")});
        let answer = Answer::parse(&format!("{begin}{arguments}{end}"), &[]);
        assert_eq!((&*answer.content, &answer.tool_calls[..]), ("", &[call("w", arguments)][..]), "{begin}");
    }
    let text = "<tool_call><function=w>\n<parameter=text>\na </parameter> b </tool_call>\n</parameter>\n</function>\n<function=v>\n</function>\n</tool_call>";
    let answer = Answer::parse(text, &[]);
    let expected = [call("w", json!({"text": "a </parameter> b </tool_call>"})), call("v", json!({}))];
    assert_eq!((&*answer.content, &answer.tool_calls[..]), ("", &expected[..]));
}

#[test]
fn arguments_as_text_are_what_the_schema_says() {
    let kinds = json!({
        "text": {"type": "string"},
        "maybe": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "one": {"enum": ["1", "2"]},
        "both": {"type": ["string", "integer"]},
        "number": {"type": "number"},
        "flag": {"type": "boolean"},
        "flag or text": {"type": ["boolean", "string"]},
        "nothing": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "named": {"$ref": "#/$defs/S"},
        "round": {"$ref": "#/$defs/R"},
        "all": {"allOf": [{"$ref": "#/$defs/S"}]},
        "constant": {"const": "12"},
    });
    let named = json!({"S": {"type": "string"}, "R": {"allOf": [{"$ref": "#/$defs/R"}, {"$ref": "#/$defs/R"}]}});
    let function = json!({"name": "w", "parameters": {"type": "object", "properties": kinds, "$defs": named}});
    let tools = [json!({"type": "function", "function": function})];
    for (key, text, expected) in [
        ("text", "{\"a\": 1}", json!("{\"a\": 1}")),
        ("text", "12345", json!("12345")),
        ("text", "null", json!("null")),
        ("text", "\"quoted\"", json!("\"quoted\"")),
        ("text", "line\n", json!("line\n")),
        ("text", " a ", json!(" a ")),
        ("maybe", "null", json!(null)),
        ("maybe", "true", json!("true")),
        ("one", "1", json!("1")),
        ("both", "1", json!(1)),
        ("both", "1.5", json!("1.5")),
        ("number", "1.5", json!(1.5)),
        ("number", "much", json!("much")),
        ("unknown", "[1]", json!([1])),
        ("flag", "true", json!(true)),
        ("flag", "True", json!(true)),
        ("flag", "False", json!(false)),
        ("flag", "None", json!("None")),
        ("flag or text", "True", json!("True")),
        ("flag or text", "true", json!(true)),
        ("nothing", "None", json!(null)),
        ("unknown", "True", json!("True")),
        ("named", "12", json!("12")),
        ("round", "12", json!(12)),
        ("all", "12", json!("12")),
        ("constant", "12", json!("12")),
    ] {
        let expected = [call("w", json!({key: expected}))];
        let coder = format!("<function=w>\n<parameter={key}>\n{text}\n</parameter>\n</function>");
        assert_eq!(Answer::parse(&coder, &tools).tool_calls, expected, "{key} {text}");
        let glm = format!("<tool_call>w\n<arg_key>{key}</arg_key>\n<arg_value>{text}</arg_value>\n</tool_call>");
        assert_eq!(Answer::parse(&glm, &tools).tool_calls, expected, "{key} {text}");
    }
}

/// Schemas come from strangers too: each reference leads through as many schemas as JSON may be deep.
#[test]
fn deep_schemas_need_no_stack() {
    let mut schema = json!({"$ref": "#/properties/k"});
    for _ in 0..50 {
        schema = json!({"allOf": [schema]});
    }
    let function = json!({"name": "w", "parameters": {"properties": {"k": schema}}});
    let tools = [json!({"type": "function", "function": function})];
    let parse = move || Answer::parse("<function=w>\n<parameter=k>\n1\n</parameter>\n</function>", &tools).tool_calls;
    let thread = std::thread::Builder::new().stack_size(256 << 10).spawn(parse).unwrap();
    assert_eq!(thread.join().unwrap(), [call("w", json!({"k": 1}))]);
}

#[test]
fn a_call_without_marks_must_name_a_tool() {
    let text = " {\"name\": \"a\", \"parameters\": {\"x\": 1}}\n";
    assert_eq!(Answer::parse(text, &tools(&["a", "b"])).tool_calls, [call("a", json!({"x": 1}))]);
    assert_eq!(Answer::parse(text, &tools(&["b"])).content, text);
    assert_eq!(Answer::parse("{\"name\": \"a\"}", &tools(&["a"])).tool_calls, [call("a", json!({}))]);
    for data in ["{\"name\": \"a\", \"age\": 3}", "{\"name\": \"a\", \"parameters\": {}} {\"name\": \"a\", \"age\": 3}"]
    {
        assert_eq!(Answer::parse(data, &tools(&["a"])).content, data);
    }
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
    let answer = Answer::parse("<|start|>assistant<|channel|>final<|message|>Yes.<|end|>\nMore", &[]);
    assert_eq!(answer.content, "Yes.\n\nMore");
    let text = "<|channel|>commentary to=functions.a<|message|>{\"x\": 1}.<|call|><|start|>assistant<|channel|>final<|message|>Yes.";
    assert_eq!(Answer::parse(text, &[]).content, "{\"x\": 1}.\nYes.");
    // Text about channels is text.
    for text in ["The token <|channel|> begins one.", "Hello <|channel|>final<|message|>x", "<|channel|>fin"] {
        assert_eq!(Answer::parse(text, &[]).content, text);
    }
}

#[test]
fn long_answers_take_linear_time() {
    for unit in [
        "<tool_call>",
        "<tool_call>{</tool_call>",
        "[TOOL_CALLS]",
        "<function=",
        "<think>",
        "[",
        "<|start|>",
        "<|channel|>final<|message|>x<|end|>",
    ] {
        let time = |size: usize| {
            let text = unit.repeat(size / unit.len());
            let start = std::time::Instant::now();
            assert!(Answer::parse(&text, &[]).tool_calls.is_empty());
            start.elapsed()
        };
        // The best of three; what is short is lost in the noise. Eight times the text, where a square takes 64 times.
        let best = |size: usize| (0..3).map(|_| time(size)).min().unwrap().max(std::time::Duration::from_millis(1));
        // A machine that is busy at the wrong moment gets other chances.
        assert!((0..5).any(|_| best(4 << 20) < 24 * best(1 << 19)), "{unit}");
    }
}
