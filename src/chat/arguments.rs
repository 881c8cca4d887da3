//! Arguments of a call that a model wrote as text: what they mean by the tool's JSON schema.

use serde_json::Value as Json;

/// The name of the function of a tool or of a call.
pub(super) fn function_name(tool: &Json) -> Option<&str> {
    tool.get("function")?.get("name")?.as_str()
}

/// What a text means as the argument `key` of the tool `name`: the JSON that it spells where the schema allows a value of
/// that type, or else itself. What the schema does not say may be anything. `True`, `False` and `None`, as Python writes them,
/// are taken for JSON's where the schema allows that value and no string.
pub(super) fn spelt(text: &str, name: &str, key: &str, tools: &[Json]) -> Json {
    let tool = tools.iter().find(|tool| function_name(tool) == Some(name));
    let parameters = tool.map(|tool| &tool["function"]["parameters"]);
    let allowed = parameters.map_or(Vec::new(), |parameters| types(&parameters["properties"][key], parameters));
    let is_text = allowed.contains(&"string");
    let is_allowed = |value: &Json| names(value).iter().any(|name| allowed.contains(name));
    let python = || match text {
        "True" => Some(Json::Bool(true)),
        "False" => Some(Json::Bool(false)),
        "None" => Some(Json::Null),
        _ => None,
    };
    let value = serde_json::from_str(text).ok().or_else(|| python().filter(|value| !is_text && is_allowed(value)));
    // A text needs no quotes where it may be one.
    value.filter(|value| !is_text || is_allowed(value)).unwrap_or_else(|| text.into())
}

/// References to other parts of a schema that are followed.
const MOST_REFERENCES: usize = 64;

/// The types that a schema allows, a part of `whole`.
fn types<'a>(schema: &'a Json, whole: &'a Json) -> Vec<&'a str> {
    let (mut allowed, mut references) = (Vec::new(), 0);
    let mut left = vec![schema];
    while let Some(schema) = left.pop() {
        let referred = schema["$ref"].as_str().and_then(|reference| whole.pointer(reference.strip_prefix('#')?));
        if let Some(referred) = referred.filter(|_| references < MOST_REFERENCES) {
            references += 1;
            left.push(referred);
        }
        match &schema["type"] {
            Json::Array(list) => allowed.extend(list.iter().filter_map(Json::as_str)),
            one => allowed.extend(one.as_str()),
        }
        let texts = |values: &Vec<Json>| !values.is_empty() && values.iter().all(Json::is_string);
        if schema["const"].is_string() || schema["enum"].as_array().is_some_and(texts) {
            allowed.push("string");
        }
        left.extend(["allOf", "anyOf", "oneOf"].iter().filter_map(|key| schema[*key].as_array()).flatten());
    }
    allowed
}

/// The names of a value's type, but for texts.
fn names(value: &Json) -> &'static [&'static str] {
    match value {
        Json::Null => &["null"],
        Json::Bool(_) => &["boolean"],
        Json::Number(number) if number.is_f64() => &["number"],
        Json::Number(_) => &["number", "integer"],
        Json::Array(_) => &["array"],
        Json::Object(_) => &["object"],
        Json::String(_) => &[],
    }
}
