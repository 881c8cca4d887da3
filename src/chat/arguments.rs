//! Arguments of a call that a model wrote as text: what they mean by the tool's JSON schema.

use serde_json::Value as Json;

/// The name of the function of a tool or of a call.
pub(super) fn function_name(tool: &Json) -> Option<&str> {
    tool.get("function")?.get("name")?.as_str()
}

/// What a text means as the argument `key` of the tool `name`: the JSON that it spells where the schema allows a value of
/// that type, or else itself. What the schema does not say may be anything. `True`, `False` and `None`, as templates in
/// Python's way show a model its own calls, count where the schema allows their values and no text.
pub(super) fn spelt(text: &str, name: &str, key: &str, tools: &[Json]) -> Json {
    let mut allowed = Vec::new();
    if let Some(tool) = tools.iter().find(|tool| function_name(tool) == Some(name)) {
        let parameters = &tool["function"]["parameters"];
        types(&parameters["properties"][key], parameters, &mut 64, &mut allowed);
    }
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

/// Adds the types that a schema allows, a part of `whole`. At most so many `references` to other parts are followed.
fn types<'a>(schema: &'a Json, whole: &'a Json, references: &mut usize, allowed: &mut Vec<&'a str>) {
    let referred = schema["$ref"].as_str().and_then(|reference| whole.pointer(reference.strip_prefix('#')?));
    if let Some(referred) = referred.filter(|_| *references > 0) {
        *references -= 1;
        types(referred, whole, references, allowed);
    }
    match &schema["type"] {
        Json::Array(list) => allowed.extend(list.iter().filter_map(Json::as_str)),
        one => allowed.extend(one.as_str()),
    }
    if schema["enum"].as_array().is_some_and(|values| !values.is_empty() && values.iter().all(Json::is_string)) {
        allowed.push("string");
    }
    if schema["const"].is_string() {
        allowed.push("string");
    }
    for choices in ["allOf", "anyOf", "oneOf"].iter().filter_map(|key| schema[*key].as_array()) {
        choices.iter().for_each(|choice| types(choice, whole, references, allowed));
    }
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
