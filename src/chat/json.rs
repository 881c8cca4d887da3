//! The filter `tojson`: Python's `json.dumps`, with the options that chat templates may give it.

use super::methods::argument;
use super::value::{Dict, List, as_float, error};
use super::{fuel, text};
use minijinja::Error;
use minijinja::value::{Kwargs, Rest, Value, ValueKind};
use serde_json::Value as Json;
use std::fmt::Write;

/// How JSON is written.
struct Style {
    ensure_ascii: bool,
    /// What a level is indented by; `None`: all in one line.
    indent: Option<String>,
    /// Between items, and after a key.
    item: String,
    key: String,
    sort_keys: bool,
}

/// An option that is something.
fn option(args: &[Value], kwargs: &Kwargs, place: usize, name: &str) -> Result<Option<Value>, Error> {
    Ok(argument(args, kwargs, place, name)?.filter(|value| !value.is_none() && !value.is_undefined()))
}

/// `tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
pub(super) fn tojson(value: &Value, args: Rest<Value>, kwargs: Kwargs) -> Result<String, Error> {
    let is_true = |value: Option<Value>| value.is_some_and(|value| value.is_true());
    let indent = match option(&args, &kwargs, 1, "indent")? {
        None => None,
        Some(indent) => Some(match (indent.as_str(), indent.as_i64()) {
            (Some(text), _) => text.to_owned(),
            (None, Some(n)) => " ".repeat(usize::try_from(n.clamp(0, 64)).unwrap_or(0)),
            (None, None) => return Err(error("tojson: indent must be a number or a string")),
        }),
    };
    let separators = match option(&args, &kwargs, 2, "separators")? {
        None => None,
        Some(pair) => {
            let pair: Vec<Value> = pair.try_iter()?.collect();
            match pair.iter().map(Value::as_str).collect::<Vec<_>>()[..] {
                [Some(item), Some(key)] => Some((item.to_owned(), key.to_owned())),
                _ => return Err(error("tojson: separators must be two strings")),
            }
        }
    };
    let (item, key) =
        separators.unwrap_or_else(|| (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()));
    let style = Style {
        ensure_ascii: is_true(option(&args, &kwargs, 0, "ensure_ascii")?),
        sort_keys: is_true(option(&args, &kwargs, 3, "sort_keys")?),
        indent,
        item,
        key,
    };
    kwargs.assert_all_used()?;
    let mut out = String::new();
    style.write(&mut out, value, 0)?;
    Ok(out)
}

/// A value as Python's `json.dumps` writes it, outside of a render.
pub(super) fn dumps(value: &Json) -> String {
    match value {
        Json::Array(items) => format!("[{}]", items.iter().map(dumps).collect::<Vec<_>>().join(", ")),
        Json::Object(map) => {
            let entry = |(key, value): (&String, &Json)| format!("{}: {}", Json::from(key.as_str()), dumps(value));
            format!("{{{}}}", map.iter().map(entry).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// Writes what may be of any length.
fn push(out: &mut String, text: &str) -> Result<(), Error> {
    fuel::pay_bytes(text.len())?;
    out.push_str(text);
    Ok(())
}

impl Style {
    fn write(&self, out: &mut String, value: &Value, level: usize) -> Result<(), Error> {
        fuel::pay(2)?;
        let failed = |_| error("no room for the JSON text");
        if let Some(list) = value.downcast_object_ref::<List>() {
            return self.sequence(out, list.items.iter(), level);
        }
        if let Some(dict) = value.downcast_object_ref::<Dict>() {
            return self.mapping(out, dict.entries.iter().map(|(key, value)| (key, value)).collect(), level);
        }
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::String => self.string(out, value.as_str().unwrap_or_default())?,
            ValueKind::Number => match as_float(value) {
                Some(x) if x.is_nan() => out.push_str("NaN"),
                Some(x) if x.is_infinite() => out.push_str(if x > 0.0 { "Infinity" } else { "-Infinity" }),
                Some(x) => text::write_float(out, x).map_err(failed)?,
                None => write!(out, "{value}").map_err(failed)?,
            },
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.checked().collect::<Result<_, _>>()?;
                self.sequence(out, items.iter(), level)?;
            }
            ValueKind::Map => {
                let map = value.as_object().and_then(|map| map.try_iter_pairs()).into_iter().flatten();
                let pairs: Vec<(Value, Value)> = map.collect();
                self.mapping(out, pairs.iter().map(|(key, value)| (key, value)).collect(), level)?;
            }
            kind => return Err(error(format!("a value of type {kind} is not JSON serializable"))),
        }
        Ok(())
    }

    fn line(&self, out: &mut String, level: usize) -> Result<(), Error> {
        if let Some(indent) = &self.indent {
            fuel::pay_bytes(indent.len().saturating_mul(level))?;
            out.push('\n');
            (0..level).for_each(|_| out.push_str(indent));
        }
        Ok(())
    }

    fn sequence<'a>(
        &self,
        out: &mut String,
        items: impl ExactSizeIterator<Item = &'a Value>,
        level: usize,
    ) -> Result<(), Error> {
        out.push('[');
        let is_empty = items.len() == 0;
        for (i, item) in items.enumerate() {
            if i > 0 {
                push(out, &self.item)?;
            }
            self.line(out, level + 1)?;
            self.write(out, item, level + 1)?;
        }
        if !is_empty {
            self.line(out, level)?;
        }
        out.push(']');
        Ok(())
    }

    fn mapping(&self, out: &mut String, mut pairs: Vec<(&Value, &Value)>, level: usize) -> Result<(), Error> {
        if self.sort_keys {
            pairs.sort_by(|a, b| a.0.cmp(b.0));
        }
        out.push('{');
        for (i, (key, value)) in pairs.iter().enumerate() {
            if i > 0 {
                push(out, &self.item)?;
            }
            self.line(out, level + 1)?;
            match key.kind() {
                ValueKind::String => self.string(out, key.as_str().unwrap_or_default())?,
                ValueKind::None | ValueKind::Bool | ValueKind::Number => {
                    out.push('"');
                    self.write(out, key, level)?;
                    out.push('"');
                }
                kind => return Err(error(format!("a key of type {kind} is not JSON serializable"))),
            }
            push(out, &self.key)?;
            self.write(out, value, level + 1)?;
        }
        if !pairs.is_empty() {
            self.line(out, level)?;
        }
        out.push('}');
        Ok(())
    }

    fn string(&self, out: &mut String, text: &str) -> Result<(), Error> {
        fuel::pay_bytes(text.len())?;
        let failed = |_| error("no room for the JSON text");
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                c if c < ' ' || self.ensure_ascii && c > '~' => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        write!(out, "\\u{unit:04x}").map_err(failed)?;
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
        Ok(())
    }
}
