//! Chat templates against what jinja2 makes of them, in the environment that they are written for.

mod common;

use llm::chat::{Limits, Messages, Template};
use llm::generate::{FinishReason, GenerateOptions, Session, SessionOptions};
use llm::gguf::{Builder, Gguf};
use llm::model::CacheOptions;
use llm::sample::{Callback, CandidateLogit, Params, Sampler, Step};
use llm::token::{DecodeOptions, EncodeOptions, Tokenizer};
use llm::{Error, log};
use serde_json::{Map, Value};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

fn golden() -> Value {
    serde_json::from_slice(&common::unpacked("chat/goldens.json")).unwrap()
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

/// Sums are put into brackets before the engine sees them: what stands around them binds as it did.
#[test]
fn sums_bind_as_in_jinja2() {
    for (source, expected) in [
        ("{{ 1 + 2 * 3 - 4 }}", "3"),
        ("{{ 2 * 3 + 4 * 5 - 6 / 2 }}", "23.0"),
        ("{{ 'a' + 2 ~ 3 }}", "a23"),
        ("{{ 3 - 1 + 1 }}|{{ 3 - (1 + 1) }}|{{ -1 + 2 }}|{{ 1 + -2 }}|{{ 2 ** 3 + 1 }}", "3|1|1|-1|9"),
        ("{{ [1] + [2] == [1, 2] and 1 + 1 < 3 }}", "True"),
        ("{{ 3 in [1] + [3] }}|{{ 1 + 1 not in [1] + [3] }}", "True|True"),
        ("{{ 'a' + 'b' if 1 + 1 == 2 else 'c' + 'd' }}", "ab"),
        ("{{ 1 + 2 is odd }}", "1"),
        ("{{ 'a' + 'b'|upper }}|{{ ('a' + 'b')|upper }}", "aB|AB"),
        ("{{ [5, 6, 7][1 + 1 - 1] }}|{{ 'abcdef'[1 + 1:2 + 2] }}", "6|cd"),
        ("{{ {'a': 1 + 1, 'b': [1] + [2]} }}", "{'a': 2, 'b': [1, 2]}"),
        ("{% set x = [1] + [2] %}{{ x + [3]}}|{{x+x}}", "[1, 2, 3]|[1, 2, 1, 2]"),
        ("{% for x in [1] + [2] if x + 1 > 2 %}{{ x + x -}} {% endfor %}", "4"),
        ("{% macro f(a, b=1 + 1) %}{{ a + b }}{% endmacro %}{{ f(1 + 2) }}{{ f(1, b=2 + 3) }}", "56"),
        ("{% if 1 + 1 == 2 and not 1 + 1 == 3 %}y{% elif 'a' + 'b' %}n{% endif %}", "y"),
        ("{% with a = 1 + 2, b = 'x' + 'y' %}{{ a ~ b }}{% endwith %}", "3xy"),
        ("{{ (1, 2) + (3,) }}", "(1, 2, 3)"),
    ] {
        let template = Template::new(source, Limits::default()).unwrap();
        assert_eq!(template.render(&Map::new(), 0).unwrap(), expected, "{source}");
    }
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
    let gguf = Gguf::open(&common::real_model(common::SMOLLM2)).unwrap();
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

/// The tokenizer of the tiny model, with other keys.
fn tokenizer(change: impl Fn(&mut Builder)) -> Tokenizer {
    let mut keys = Builder::new();
    change(&mut keys);
    let gguf = Gguf::open(&common::data("gguf-bad/ok-tiny-model.gguf")).unwrap();
    Tokenizer::from_gguf(&gguf.with_keys(&keys).unwrap()).unwrap()
}

fn with_template(template: &str) -> Tokenizer {
    tokenizer(|keys| keys.set("tokenizer.chat_template", template).unwrap())
}

#[test]
fn messages_are_put_as_the_template_can_take_them() {
    let mut messages = Messages::new();
    let parts = r#"[{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
                    {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{\"x\": 1}"}}]}]"#;
    messages.add_json(parts).unwrap();
    let text_only = with_template("{% for m in messages %}{{ m.content + ';' }}{% endfor %}");
    assert_eq!(messages.render(&text_only, false).unwrap(), "a\nb;;");
    let takes_parts = with_template(
        "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}{% for part in m.content %}<{{ part.text }}>{% endfor %}{% endif %};{% endfor %}",
    );
    assert_eq!(messages.render(&takes_parts, false).unwrap(), "<a><b>;;");
    let objects = with_template("{{ messages[1].tool_calls[0].function.arguments.x + 1 }}");
    assert_eq!(messages.render(&objects, false).unwrap(), "2");
    let texts = with_template("{{ 'args: ' + messages[1].tool_calls[0].function.arguments }}");
    // The caller's own text, and what is no text as Python writes it.
    assert_eq!(messages.render(&texts, false).unwrap(), "args: {\"x\": 1}");
    messages.truncate(1).unwrap();
    let own = r#"{"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": "{\"x\":  1.0}"}}]}"#;
    messages.add_json(own).unwrap();
    assert_eq!(messages.render(&texts, false).unwrap(), "args: {\"x\":  1.0}");
    messages.truncate(1).unwrap();
    messages.add_json(&own.replace(r#""{\"x\":  1.0}""#, r#"{"x":[1,{"y":"z"}],"w":null}"#)).unwrap();
    assert_eq!(messages.render(&texts, false).unwrap(), "args: {\"x\": [1, {\"y\": \"z\"}], \"w\": null}");

    messages.add_json(r#"{"role": "user", "content": [{"type": "image", "url": "x"}]}"#).unwrap();
    let error = messages.render(&text_only, false).unwrap_err();
    assert!(matches!(error, Error::Unsupported(_)) && error.fact("found") == Some("image"), "{error:?}");
}

/// What templates of real models do: an empty content beside calls is none for those that ask for none, and thoughts
/// have other names.
#[test]
fn calls_are_put_as_the_template_looks_for_them() {
    let mut messages = Messages::new();
    messages
        .add_json(
            r#"[{"role": "user", "content": "a"},
                {"role": "assistant", "reasoning_content": "r", "content": null, "tool_calls": [{"function": {"name": "f"}}]},
                {"role": "assistant", "reasoning_content": "s", "content": "b"}]"#,
        )
        .unwrap();
    let render = |messages: &Messages, body: &str| {
        messages.render(&with_template(&format!("{{% for m in messages %}}{body};{{% endfor %}}")), false).unwrap()
    };
    let asks = ["m['content'] is none", "m.content is not none", "m[\"content\"] == None"];
    for (ask, expected) in asks.into_iter().zip(["False;True;False;", "True;True;True;", "False;True;False;"]) {
        assert_eq!(render(&messages, &format!("{{{{ {ask} }}}}")), expected, "{ask}");
    }
    assert_eq!(render(&messages, "{{ m.reasoning_content is none or m.content is none }}"), "False;True;False;");
    assert_eq!(render(&messages, "{{ m.reasoning_content is none or m.content is string }}"), "True;True;True;");
    // One that asks for none, and takes none all the same.
    let both = "{% if m.content is none and m.role == 'x' %}{% endif %}{{ m.content|length }}";
    assert_eq!(render(&messages, both), "1;0;1;");
    assert_eq!(render(&messages, "{{ m.content }}"), "a;;b;");
    assert_eq!(render(&messages, "{{ m.thinking }}"), ";r;s;");
    assert_eq!(render(&messages, "{{ m['tool_plan'] }}"), ";r;;");
    assert_eq!(
        render(&messages, "{{ m.keys()|join(',') }}"),
        "role,content;role,reasoning_content,content,tool_calls;role,reasoning_content,content;"
    );
    let both = "{% if m.content is none %}-{% endif %}{{ m.thinking }}";
    assert_eq!(render(&messages, both), ";-r;s;");
    assert_eq!(
        render(&messages, "{{ m.content==none }}{{ m.thinking_budget is defined }}"),
        "FalseFalse;TrueFalse;FalseFalse;"
    );
    assert_eq!(render(&messages, "{{ m.get('content') is none }}"), "False;True;False;");
    // The template of gpt-oss refuses content and thoughts in one message that calls.
    messages.truncate(1).unwrap();
    let both =
        r#"{"role": "assistant", "thinking": "own", "content": "", "tool_calls": [{"function": {"name": "f"}}]}"#;
    messages.add_json(both).unwrap();
    messages.add_json(&both.replace("thinking", "reasoning_content").replace("\"\"", "\"c\"")).unwrap();
    assert_eq!(render(&messages, "{{ m.thinking }}|{{ m.content }}"), "|a;own|;|c;");
}

#[test]
fn contents_are_parts_where_the_template_takes_nothing_else() {
    let mut messages = Messages::new();
    messages
        .add_json(
            r#"[{"role": "system", "content": [{"type": "text", "text": "s"}]}, {"role": "user", "content": "a"},
                {"role": "user", "content": [{"type": "text", "text": "b"}, {"type": "text", "text": "c"}]}]"#,
        )
        .unwrap();
    let only = with_template(
        "{% for m in messages %}{% for part in m['content'] %}<{{ part['text'] }}>{% endfor %};{% endfor %}",
    );
    assert_eq!(messages.render(&only, false).unwrap(), "<s>;<a>;<b><c>;");
    // The system's parts are not looked at, so they are put together.
    let users = with_template(
        "{% for m in messages %}{% if m.role == 'user' and m.content is not string %}{% for part in m.content %}<{{ part.text }}>{% endfor %}{% else %}{{ m.content }}{% endif %};{% endfor %}",
    );
    assert_eq!(messages.render(&users, false).unwrap(), "s;a;<b><c>;");
}

/// As in jinja2: the argument of a test is a value with its subscripts and attributes, with brackets or without.
#[test]
fn tests_take_arguments_without_brackets() {
    let render = |source: &str| {
        let template = Template::new(source, Limits::default()).unwrap();
        let value = serde_json::json!({"role": "user", "n": [4, 2]});
        template.render(&Map::from_iter([("m".to_owned(), value)]), 0).unwrap()
    };
    for (source, expected) in [
        ("{{ m.role is eq ['user'][0] }}", "True"),
        ("{{ m.role is eq m['role'] }}", "True"),
        ("{{ m.n is eq [4, 2] }}", "True"),
        ("{{ m.n[0] is divisibleby m.n[1] }}", "True"),
        ("{{ m.n[0] is not divisibleby 3 and m.role[0] == 'u' }}", "True"),
        ("{{ m is eq {'role': 'user', 'n': [4, 2]} }}", "True"),
        ("{{ m.role is startingwith 'us' if m.role is defined else 0 }}", "True"),
        ("{{ (m.role is lower) == true }}", "True"),
    ] {
        assert_eq!(render(source), expected, "{source}");
    }
}

/// A loop knows how long a text is.
#[test]
fn loops_over_texts_have_ends() {
    let render = |source: &str| {
        let template = Template::new(source, Limits::default()).unwrap();
        template.render(&Map::from_iter([("s".to_owned(), "sün".into())]), 0).unwrap()
    };
    for (source, expected) in [
        ("{% for c in s %}{{ c }}{{ '' if loop.last else ',' }}{% endfor %}", "s,ü,n"),
        ("{% for c in s if c != 'n' %}{{ c }}{{ loop.length }}{% endfor %}", "s2ü2"),
        ("{% for c in s recursive %}{{ c }}{% endfor %}", "sün"),
        ("{% for c in s or 'x' %}{{ loop.revindex }}{% endfor %}", "321"),
        ("{% for c in s ~ 'x' + 'y' -%} {{ c }} {%- endfor %}", "sünxy"),
        ("{% for a, b in [[1, 2]] %}{{ a in [1] }}{{ b }}{% endfor %}", "True2"),
        ("{% for c in [1] if c in [1] %}{{ c }}{% endfor %}", "1"),
    ] {
        assert_eq!(render(source), expected, "{source}");
    }
    for length in [(1 << 20) - 1, 1 << 20, (1 << 20) + 1] {
        let template = Template::new(
            "{% for c in s %}{% if loop.first %}{{ c }}{% endif %}{% endfor %}",
            Limits::of_conversation(1, 3 << 20),
        )
        .unwrap();
        let text = "x".repeat(length);
        assert_eq!(template.render(&Map::from_iter([("s".to_owned(), text.into())]), 0).unwrap(), "x", "{length}");
    }
}

/// No id is given twice, whatever a conversation has.
#[test]
fn calls_have_ids_of_their_own() {
    let mut messages = Messages::new();
    messages
        .add_json(r#"{"role": "assistant", "tool_calls": [{"id": "call00002", "function": {"name": "f"}}]}"#)
        .unwrap();
    messages.add_answer("[TOOL_CALLS]a[ARGS]{}[TOOL_CALLS]b[ARGS]{}[TOOL_CALLS]c[CALL_ID]call00001[ARGS]{}");
    let ids: Vec<_> =
        messages.get(1).unwrap()["tool_calls"].as_array().unwrap().iter().map(|call| &call["id"]).collect();
    assert_eq!(ids, ["call00003", "call00004", "call00001"]);
}

/// No form is tried after a limit was reached: each would reach it again.
#[test]
fn a_limit_is_reached_once() {
    let mut messages = Messages::new();
    messages.add_json(r#"{"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}"#).unwrap();
    let endless = "{% for m in messages %}{% if m.content is none %}{% endif %}{% endfor %}{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}";
    let error = messages.render(&with_template(endless), false).unwrap_err();
    assert!(error.fact("steps").is_some() || error.fact("work").is_some(), "{error:?}");
    messages.add("user", &"x".repeat(2_000_000));
    let endless =
        "{% for i in range(99999) %}{% if messages[1].content == messages[1].content %}{% endif %}{% endfor %}";
    let error = messages.render(&with_template(endless), false).unwrap_err();
    assert!(error.fact("work").is_some() && error.to_string().contains("units of work"), "{error:?}");
}

/// Templates that look at every message for each, or at every character.
#[test]
fn long_conversations_have_the_steps_that_they_need() {
    let mut messages = Messages::new();
    (0..1500).for_each(|i| messages.add(if i % 2 == 0 { "user" } else { "assistant" }, "Yes."));
    let each = with_template(
        "{% for m in messages %}{% for f in messages[loop.index:] %}{% if f.role == 'assistant' %}{% endif %}{% endfor %}{% endfor %}done",
    );
    assert_eq!(messages.render(&each, false).unwrap(), "done");
    let filtered = with_template(
        "{% for m in messages %}{% set a = messages|selectattr('role', 'equalto', 'assistant')|list %}{% set b = messages[loop.index0:]|map(attribute='role')|unique|list %}{% endfor %}done",
    );
    assert_eq!(messages.render(&filtered, false).unwrap(), "done");
    let mut messages = Messages::new();
    messages.add("user", &"x".repeat(400_000));
    let characters = with_template(
        "{% for m in messages %}{% for c in m.content %}{% if c == 'y' %}{% endif %}{% endfor %}{{ m.content }}{% endfor %}",
    );
    assert_eq!(messages.render(&characters, false).unwrap().len(), 400_000);
}

/// In the log, since it is no error.
#[test]
fn tools_that_a_template_passes_over_are_told() {
    let mut messages = Messages::new();
    messages.add("user", "a");
    let (blind, seeing) = (with_template("{{ messages|length }}"), with_template("{{ tools|length }}"));
    let told = common::logged(|| {
        messages.render(&blind, false).unwrap();
        messages.set_tools(r#"[{"type": "function", "function": {"name": "f"}}]"#).unwrap();
        messages.render(&seeing, false).unwrap();
    });
    assert!(told.is_empty(), "{told:?}");
    let told = common::logged(|| _ = messages.render(&blind, false).unwrap());
    let expected = "the chat template passes over tools: the model does not see them".to_owned();
    assert_eq!(told, [(log::Level::Warn, expected)]);
}

#[test]
fn templates_see_the_variables_that_they_expect() {
    let mut messages = Messages::new();
    let t = with_template(
        "{{ bos_token }}|{{ eos_token }}|{{ tools is none }}|{{ documents is none }}|{{ add_generation_prompt }}|{{ x is defined }}",
    );
    let expected = |answer: &str| {
        let piece = |token: Option<u32>| String::from_utf8(t.piece(token.unwrap()).unwrap().to_vec()).unwrap();
        format!("{}|{}|True|True|{answer}|False", piece(t.bos()), piece(t.eos()))
    };
    assert_eq!(messages.render(&t, false).unwrap(), expected("False"));
    assert_eq!(messages.render(&t, true).unwrap(), expected("True"));
    messages.set_variable("bos_token", "\"B\"").unwrap();
    messages.set_variable("x", "[1]").unwrap();
    assert!(messages.render(&t, true).unwrap().starts_with("B|"));
    assert!(messages.render(&t, true).unwrap().ends_with("|True|True"));

    // A file's template for tools is taken if there are tools; one that the caller sets always.
    let t = tokenizer(|keys| {
        keys.set("tokenizer.chat_template", "plain").unwrap();
        keys.set("tokenizer.chat_template.tool_use", "{{ tools[0].function.name }}").unwrap();
        keys.set("tokenizer.chat_templates", "no template").unwrap();
    });
    assert_eq!((t.chat_template(None), t.chat_template(Some("s"))), (Some("plain"), None));
    assert_eq!(messages.render(&t, false).unwrap(), "plain");
    messages.set_tools(r#"[{"type": "function", "function": {"name": "f"}}]"#).unwrap();
    assert_eq!(messages.render(&t, false).unwrap(), "f");
    messages.set_template(Some("mine"));
    assert_eq!(messages.render(&t, false).unwrap(), "mine");
    messages.set_template(None);
    assert!(matches!(messages.render(&tokenizer(|_| ()), false).unwrap_err(), Error::NotFound(_)));
}

/// Each turn processes its own tokens only, and the bits are those of the whole conversation processed at once.
#[test]
fn a_session_keeps_what_it_has_in_common_with_a_conversation() {
    let gguf = Gguf::open(&common::data("gguf-bad/ok-tiny-model.gguf")).unwrap();
    let model = common::load(&gguf);
    let options = SessionOptions {
        cache: CacheOptions { context_length: 1024, ..CacheOptions::default() },
        ..SessionOptions::default()
    };
    let session = || Session::new(Arc::clone(&model), &options).unwrap();
    let mut messages = Messages::new();
    messages.set_template(Some(
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{{ '[assistant]' if add_generation_prompt }}",
    ));
    let mut one = session();
    for turn in ["abc", "d e", ""] {
        messages.add("user", turn);
        let before = one.tokens().len();
        let count = one.append_messages(&messages, true).unwrap();
        assert!(count > 0 && one.tokens().len() >= before.min(count), "{before} {count}");
        let mut other = session();
        let all = other.append_messages(&messages, true).unwrap();
        assert_eq!((all, other.tokens()), (one.tokens().len(), one.tokens()));
        assert!(all == count || count < all, "{count} of {all}");
        assert_eq!(one.logits().unwrap(), other.logits().unwrap());
        one.start(GenerateOptions { max_tokens: 5, ignore_eog: true });
        one.generate(&mut Sampler::usual(&Params::default()).unwrap(), |_| ControlFlow::Continue(())).unwrap();
        one.answer(&mut messages).unwrap();
    }
    assert_eq!(messages.len(), 6);
    // Nothing is new: after an answer that is empty another can begin all the same.
    let end = (0..).find(|&token| model.tokenizer().is_eog(token)).unwrap();
    let mut ending = Sampler::new(0);
    let only = move |all: &mut [CandidateLogit]| all.iter_mut().for_each(|c| c.logit = 9.0 * f32::from(c.id == end));
    ending.push(Step::Callback(Callback::new(only))).unwrap();
    ending.push(Step::TopK(1)).unwrap();
    one.append_messages(&messages, true).unwrap();
    one.start(GenerateOptions::default());
    for _ in 0..2 {
        assert_eq!(one.append_messages(&messages, true).unwrap(), 0);
        assert_eq!(one.next(&mut ending).unwrap().finish, Some(FinishReason::Eog));
    }
    // A change in the middle costs what follows it.
    let length = one.tokens().len();
    messages.truncate(5).unwrap();
    messages.add("assistant", "other");
    let count = one.append_messages(&messages, false).unwrap();
    assert!(count < length / 2, "{count} of {length}");
}

/// An answer is the text that was given out: not a stop string, and not what may become one.
#[test]
fn an_answer_is_what_was_given_out() {
    let model = common::load(&Gguf::open(&common::data("gguf-bad/ok-tiny-model.gguf")).unwrap());
    let render = |messages: &mut Messages| {
        messages.set_template(Some("{% for m in messages %}{{ m.content }}{% endfor %}"));
        messages.render(model.tokenizer(), false).unwrap()
    };
    // A model that writes this.
    let all = "one E, END two";
    let script = model.tokenizer().encode(all.as_bytes(), EncodeOptions::default()).unwrap();
    let (place, mut sampler) = (AtomicUsize::new(0), Sampler::new(0));
    let next = move |candidates: &mut [CandidateLogit]| {
        let token = script[place.fetch_add(1, Ordering::Relaxed)];
        candidates.iter_mut().for_each(|c| c.logit = if c.id == token { 0.0 } else { f32::NEG_INFINITY });
    };
    sampler.push(Step::Callback(Callback::new(next))).unwrap();
    let mut session = Session::new(Arc::clone(&model), &SessionOptions::default()).unwrap();
    session.append_text(b"abc", EncodeOptions::default()).unwrap();
    let prompt = session.tokens().len();
    assert!(matches!(session.answer(&mut Messages::new()), Err(Error::FailedPrecondition(_))));
    session.start(GenerateOptions { max_tokens: 30, ignore_eog: true });
    session.add_stop(b"END").unwrap();
    let (mut given, mut withheld) = (String::new(), 0);
    loop {
        let next = session.next(&mut sampler).unwrap();
        given.push_str(std::str::from_utf8(next.text).unwrap());
        let finish = next.finish;
        let mut messages = Messages::new();
        session.answer(&mut messages).unwrap();
        // Without the space that SentencePiece puts before a text.
        assert_eq!(render(&mut messages), given.strip_prefix(" ").unwrap_or(&given));
        let made = model.tokenizer().decode(&session.tokens()[prompt..], DecodeOptions::default()).unwrap();
        withheld += usize::from(made.len() > given.trim_start().len());
        if finish == Some(FinishReason::Stop) {
            break;
        }
    }
    assert_eq!((given.trim_start(), withheld > 1), ("one E, ", true));
}

/// An answer is what was generated, also where a shift has dropped the beginning of it from the context.
#[test]
fn an_answer_over_a_shift_is_whole() {
    let model = common::load(&Gguf::open(&common::data("gguf-bad/ok-tiny-model.gguf")).unwrap());
    let cache = CacheOptions { context_length: 64, ..CacheOptions::default() };
    let mut session = Session::new(Arc::clone(&model), &SessionOptions { cache, ..SessionOptions::default() }).unwrap();
    let mut messages = Messages::new();
    messages.set_template(Some("[system]be kind{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"));
    messages.add("user", "abc");
    session.append_messages(&messages, true).unwrap();
    let kept = session.tokens().len();
    session.start(GenerateOptions { max_tokens: 150, ignore_eog: true });
    let (mut sampler, mut given) = (Sampler::usual(&Params::default()).unwrap(), Vec::new());
    loop {
        let next = session.next(&mut sampler).unwrap();
        given.extend(next.token);
        match next.finish {
            Some(FinishReason::ContextFull) => _ = session.shift(kept).unwrap(),
            Some(_) => break,
            None => {}
        }
    }
    assert_eq!(given.len(), 150);
    session.answer(&mut messages).unwrap();
    let shown = DecodeOptions { show_special: true, ..DecodeOptions::default() };
    let text = model.tokenizer().decode(&given, shown).unwrap();
    let mut expected = Messages::new();
    expected.add("user", "abc");
    expected.add_answer(&String::from_utf8_lossy(&text));
    let template = "{{ messages|tojson }}";
    messages.set_template(Some(template));
    expected.set_template(Some(template));
    let render = |messages: &Messages| messages.render(model.tokenizer(), false).unwrap();
    assert_eq!(render(&messages), render(&expected));
}

#[test]
fn fill_in_prompts() {
    let t = tokenizer(|keys| {
        keys.set("tokenizer.ggml.fim_pre_token_id", 10u32).unwrap();
        keys.set("tokenizer.ggml.fim_suf_token_id", 11u32).unwrap();
        keys.set("tokenizer.ggml.fim_mid_token_id", 12u32).unwrap();
        keys.set("tokenizer.ggml.add_bos_token", true).unwrap();
    });
    let encode = |text: &str| t.encode(text.as_bytes(), EncodeOptions::default()).unwrap();
    let expected = [vec![t.bos().unwrap(), 10], encode("ab"), vec![11], encode("c"), vec![12]].concat();
    assert_eq!(t.fill_in_prompt(b"ab", b"c").unwrap(), expected);
    let t = tokenizer(|keys| keys.set("tokenizer.ggml.fim_pre_token_id", 10u32).unwrap());
    assert_eq!(t.fill_in_prompt(b"", b"").unwrap_err().fact("token"), Some("fill-suffix"));
}
