//! Arguments of a call that a model wrote as text: what they mean by the tool's JSON schema.

use serde_json::Value as Json;

/// The name of the function of a tool or of a call.
pub(super) fn function_name(tool: &Json) -> Option<&str> {
    tool.get("function")?.get("name")?.as_str()
}

/// What a text means as the argument `key` of the tool `name`: the JSON that it spells where the schema allows a value of
/// that type, or else itself. What the schema does not say may be anything.
pub(super) fn spelt(text: &str, name: &str, key: &str, tools: &[Json]) -> Json {
    let mut allowed = Vec::new();
    if let Some(tool) = tools.iter().find(|tool| function_name(tool) == Some(name)) {
        types(&tool["function"]["parameters"]["properties"][key], &mut allowed);
    }
    let value = serde_json::from_str(text).ok();
    // A text needs no quotes where it may be one.
    let is_value =
        |value: &Json| !allowed.contains(&"string") || names(value).iter().any(|name| allowed.contains(name));
    value.filter(is_value).unwrap_or_else(|| text.into())
}

/// Adds the types that a schema allows.
fn types<'a>(schema: &'a Json, allowed: &mut Vec<&'a str>) {
    match &schema["type"] {
        Json::Array(list) => allowed.extend(list.iter().filter_map(Json::as_str)),
        one => allowed.extend(one.as_str()),
    }
    if schema["enum"].as_array().is_some_and(|values| !values.is_empty() && values.iter().all(Json::is_string)) {
        allowed.push("string");
    }
    for choices in ["anyOf", "oneOf"].iter().filter_map(|key| schema[*key].as_array()) {
        choices.iter().for_each(|choice| types(choice, allowed));
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
