//! Chat templates against what jinja2 makes of them, in the environment that they are written for.

mod common;

use llm::chat::{Limits, Template};
use serde_json::{Map, Value};

fn golden() -> Value {
    let text = zstd::decode_all(std::fs::File::open(common::data("chat/goldens.json.zst")).unwrap()).unwrap();
    serde_json::from_slice(&text).unwrap()
}

fn object(value: &Value) -> &Map<String, Value> {
    value.as_object().unwrap()
}

/// What a case says, beside what came out.
fn judge(source: &str, case: &Value, variables: &Map<String, Value>, now: i64) -> Option<String> {
    let rendered = Template::new(source, Limits::default()).and_then(|template| template.render(variables, now));
    let expected = ["text", "exception"].map(|key| case[key].as_str());
    match (&rendered, expected) {
        (Ok(text), [Some(expected), _]) if text == expected => None,
        (Err(error), [_, Some(expected)]) if error.fact("exception") == Some(expected) => None,
        (Err(error), [None, None]) if error.fact("exception").is_none() => None,
        _ => Some(format!("expected {:?}\nfound    {:?}\n", expected, rendered.map_err(|e| e.to_string()))),
    }
}

#[test]
fn expressions_and_statements_are_as_in_jinja2() {
    let golden = golden();
    let now = golden["now"].as_i64().unwrap();
    let mut wrong = Vec::new();
    for case in golden["snippets"].as_array().unwrap() {
        let source = case["source"].as_str().unwrap();
        wrong.extend(judge(source, case, object(&golden["variables"]), now).map(|what| format!("{source}\n{what}")));
    }
    assert!(wrong.is_empty(), "{}\n{} wrong", wrong.join("\n"), wrong.len());
}

#[test]
fn templates_are_as_in_jinja2() {
    let golden = golden();
    let now = golden["now"].as_i64().unwrap();
    let mut wrong = Vec::new();
    for case in golden["conversations"].as_array().unwrap() {
        let (name, conversation) = (case["template"].as_str().unwrap(), case["conversation"].as_str().unwrap());
        let source = std::fs::read_to_string(common::data(&format!("chat/templates/{name}.jinja"))).unwrap();
        let mut variables = object(&golden["common"]).clone();
        let mut messages = golden["messages"][conversation].clone();
        // The template that only puts texts together gets arguments as text.
        if name == "markers" {
            for message in messages.as_array_mut().unwrap() {
                for call in message.get_mut("tool_calls").and_then(Value::as_array_mut).into_iter().flatten() {
                    let arguments = &mut call["function"]["arguments"];
                    *arguments = Value::from(python_json(arguments));
                }
            }
        }
        variables.insert("messages".into(), messages);
        for extra in case["extra"].as_array().unwrap() {
            let extra = extra.as_str().unwrap();
            variables.insert(extra.into(), golden["extras"][extra].clone());
        }
        let wrong_here = judge(&source, case, &variables, now);
        wrong.extend(wrong_here.map(|what| format!("{name}, {conversation}, {}\n{what}", case["extra"])));
    }
    assert!(wrong.is_empty(), "{}\n{} wrong", wrong.join("\n"), wrong.len());
}

/// JSON as Python writes it.
fn python_json(value: &Value) -> String {
    let template = Template::new("{{ v | tojson(ensure_ascii=true) }}", Limits::default()).unwrap();
    template.render(&Map::from_iter([("v".to_owned(), value.clone())]), 0).unwrap()
}

#[test]
fn the_template_of_a_real_model() {
    let gguf = llm::gguf::Gguf::open(&common::real_model(common::SMOLLM2)).unwrap();
    let source = gguf.str("tokenizer.chat_template").unwrap().unwrap();
    let template = Template::new(source, Limits::default()).unwrap();
    let messages = serde_json::json!([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]);
    let mut variables = Map::from_iter([("messages".to_owned(), messages)]);
    let expected = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n\
                    <|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYes?<|im_end|>\n";
    assert_eq!(template.render(&variables, 0).unwrap(), expected);
    variables.insert("add_generation_prompt".into(), true.into());
    assert_eq!(template.render(&variables, 0).unwrap(), format!("{expected}<|im_start|>assistant\n"));
}
