//! Python's methods of strings, lists and dicts. Those that change a list or dict are refused, as in the sandbox in
//! which templates are written to run.

use super::text::is_space;
use super::value::{Dict, List, Shape, error, own, room, units};
use super::{fuel, value};
use crate::token::is_category;
use minijinja::formatting::{FormatStyle, format};
use minijinja::value::{Kwargs, Rest, Value, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State};
use std::collections::HashSet;

/// The methods of dicts, which hide keys of these names where a template writes `dict.name`.
pub(super) const DICT: [&str; 11] =
    ["clear", "copy", "fromkeys", "get", "items", "keys", "pop", "popitem", "setdefault", "update", "values"];

/// Calls a method of a value.
pub(super) fn call(_: &mut State<'_, '_>, of: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    fuel::check()?;
    if let Some(text) = of.as_str() {
        fuel::pay_bytes(text.len())?;
        if name == "format" {
            return formatted(FormatStyle::StrFormat, text, args);
        }
        let (Rest(args), kwargs): (Rest<Value>, Kwargs) = from_args(args)?;
        let value = string(text, name, &Args { name, args, kwargs: &kwargs })?;
        kwargs.assert_all_used()?;
        return Ok(value);
    }
    if of.kind() == ValueKind::Map {
        let of = value::own_map(of.clone())?;
        if let Some(dict) = of.downcast_object_ref::<Dict>() {
            return mapping(&of, dict, name, args);
        }
    }
    if matches!(of.kind(), ValueKind::Seq | ValueKind::Iterable) {
        let of = own(of.clone())?;
        if let Some(list) = of.downcast_object_ref::<List>() {
            return sequence(&of, list, name, args);
        }
    }
    Err(Error::from(ErrorKind::UnknownMethod))
}

/// An argument: by its place, or by its name.
pub(super) fn argument(args: &[Value], kwargs: &Kwargs, place: usize, name: &str) -> Result<Option<Value>, Error> {
    args.get(place).map_or_else(|| kwargs.get(name), |value| Ok(Some(value.clone())))
}

/// A copy of the text that a value is, which is paid for.
fn text_of(value: &Value, expected: impl Fn() -> Error) -> Result<String, Error> {
    let text = value.as_str().ok_or_else(expected)?;
    fuel::pay_bytes(text.len())?;
    Ok(text.to_owned())
}

/// The arguments of a method.
struct Args<'a> {
    name: &'a str,
    args: Vec<Value>,
    kwargs: &'a Kwargs,
}

impl Args<'_> {
    fn get(&self, place: usize, name: &str) -> Result<Option<Value>, Error> {
        // Without a name there is the place alone.
        let value = argument(&self.args, self.kwargs, place, name)?;
        Ok(value.filter(|value| !value.is_none()))
    }

    fn text(&self, place: usize, name: &str) -> Result<Option<String>, Error> {
        let expected = || error(format!("{}: argument {} must be a string", self.name, place + 1));
        self.get(place, name)?.map(|value| text_of(&value, expected)).transpose()
    }

    fn needed(&self, place: usize, name: &str) -> Result<String, Error> {
        let missing = || error(format!("{}: argument {} is missing", self.name, place + 1));
        self.text(place, name)?.ok_or_else(missing)
    }

    fn number(&self, place: usize, name: &str) -> Result<Option<i64>, Error> {
        let expected = || error(format!("{}: argument {} must be an integer", self.name, place + 1));
        self.get(place, name)?.map(|value| value.as_i64().ok_or_else(expected)).transpose()
    }

    /// One string or a tuple of them.
    fn any_text(&self, place: usize) -> Result<Vec<String>, Error> {
        let value = self.get(place, "")?.unwrap_or_default();
        let expected = || error(format!("{}: a string, or a tuple of strings, is expected", self.name));
        match value.as_str() {
            Some(_) => Ok(vec![text_of(&value, expected)?]),
            None => value.try_iter()?.map(|item| text_of(&item, expected)).collect(),
        }
    }
}

fn strings<'a>(parts: impl IntoIterator<Item = &'a str>) -> Result<Value, Error> {
    List::of(parts.into_iter().map(Value::from).collect())
}

fn string(text: &str, name: &str, args: &Args<'_>) -> Result<Value, Error> {
    let all = |test: fn(char) -> bool| Value::from(!text.is_empty() && text.chars().all(test));
    let cased = |wrong: fn(char) -> bool| {
        Value::from(text.chars().any(|c| c.is_lowercase() || c.is_uppercase()) && !text.chars().any(wrong))
    };
    Ok(match name {
        "strip" | "lstrip" | "rstrip" => Value::from(strip(text, name, args.text(0, "")?.as_deref())?),
        "split" | "rsplit" => {
            let limit = args.number(1, "maxsplit")?.and_then(|n| usize::try_from(n).ok());
            return strings(split(text, args.text(0, "sep")?.as_deref(), limit, name == "rsplit")?);
        }
        "splitlines" => {
            let keep = args.get(0, "keepends")?.is_some_and(|keep| keep.is_true());
            return strings(lines(text, keep)?);
        }
        "partition" | "rpartition" => {
            let separator = args.needed(0, "")?;
            let cut = if name == "partition" { text.split_once(&*separator) } else { text.rsplit_once(&*separator) };
            let parts = match cut {
                Some((before, after)) => [before, &separator, after],
                None if name == "partition" => [text, "", ""],
                None => ["", "", text],
            };
            return List::make(parts.map(Value::from).to_vec(), Shape::Tuple);
        }
        "startswith" | "endswith" => {
            let text = part(text, args.number(1, "")?, args.number(2, "")?).unwrap_or_default();
            let is_at = |affix: &String| {
                if name == "startswith" { text.starts_with(affix.as_str()) } else { text.ends_with(affix.as_str()) }
            };
            Value::from(args.any_text(0)?.iter().any(is_at))
        }
        "removeprefix" => Value::from(text.strip_prefix(&*args.needed(0, "")?).unwrap_or(text)),
        "removesuffix" => Value::from(text.strip_suffix(&*args.needed(0, "")?).unwrap_or(text)),
        "replace" => {
            let count = args.number(2, "count")?.and_then(|n| usize::try_from(n).ok());
            Value::from(replace(text, &args.needed(0, "")?, &args.needed(1, "")?, count)?)
        }
        "join" => {
            let mut joined = String::new();
            for (i, item) in args.get(0, "")?.unwrap_or_default().try_iter()?.checked().enumerate() {
                let item = item?;
                let item = item.as_str().ok_or_else(|| error("join: only strings can be joined"))?;
                fuel::pay_bytes(text.len() + item.len())?;
                joined.push_str(if i > 0 { text } else { "" });
                joined.push_str(item);
            }
            Value::from(joined)
        }
        "find" | "index" | "rfind" | "rindex" => {
            let needle = args.needed(0, "")?;
            match (position(text, &needle, args, name.starts_with('r'))?, name) {
                (Some(at), _) => Value::from(at),
                (None, "find" | "rfind") => Value::from(-1),
                (None, _) => return Err(error("substring not found")),
            }
        }
        "count" => {
            let needle = args.needed(0, "")?;
            let text = part(text, args.number(1, "")?, args.number(2, "")?);
            Value::from(text.map_or(0, |text| match needle.len() {
                0 => text.chars().count() + 1,
                _ => text.matches(&*needle).count(),
            }))
        }
        "upper" => Value::from(text.to_uppercase()),
        "lower" | "casefold" => Value::from(text.to_lowercase()),
        "title" => Value::from(title(text)),
        "capitalize" => Value::from(capitalize(text)),
        "swapcase" => {
            let swap = |c: char| if c.is_uppercase() { lower_of(c) } else { c.to_uppercase().collect() };
            Value::from(text.chars().map(swap).collect::<String>())
        }
        "zfill" | "ljust" | "rjust" | "center" => {
            let fill = if name == "zfill" { None } else { args.text(1, "")? };
            Value::from(pad(text, name, args.number(0, "")?.unwrap_or(0), fill.as_deref())?)
        }
        "isspace" => all(is_space),
        "isalpha" => all(char::is_alphabetic),
        "isalnum" => all(char::is_alphanumeric),
        "isdecimal" => all(is_decimal),
        "isdigit" => all(|c| is_decimal(c) || matches!(c, '²' | '³' | '¹' | '⁰' | '⁴'..='⁹' | '₀'..='₉')),
        "isnumeric" => all(char::is_numeric),
        "isascii" => Value::from(text.is_ascii()),
        "isupper" => cased(char::is_lowercase),
        "islower" => cased(char::is_uppercase),
        _ => return Err(Error::from(ErrorKind::UnknownMethod)),
    })
}

/// A digit of a number in some script.
fn is_decimal(c: char) -> bool {
    is_category(c, "Nd")
}

/// The text without white space at its start and end, or without what is one of `chars`.
pub(super) fn strip<'a>(text: &'a str, name: &str, chars: Option<&str>) -> Result<&'a str, Error> {
    fuel::pay_bytes(chars.map_or(0, str::len))?;
    let chars: Option<HashSet<char>> = chars.map(|chars| chars.chars().collect());
    let goes = |c: char| chars.as_ref().map_or_else(|| is_space(c), |chars| chars.contains(&c));
    let text = if name == "rstrip" { text } else { text.trim_start_matches(goes) };
    Ok(if name == "lstrip" { text } else { text.trim_end_matches(goes) })
}

/// The parts of a text; without a separator it is split at white space and none of them is empty.
fn split<'a>(
    text: &'a str,
    separator: Option<&str>,
    limit: Option<usize>,
    from_right: bool,
) -> Result<Vec<&'a str>, Error> {
    let mut parts = Vec::new();
    let cuts = limit.unwrap_or(usize::MAX);
    let found = match separator {
        Some(separator) => text.matches(separator).count(),
        None => text.chars().filter(|&c| is_space(c)).count(),
    };
    room(found.min(cuts))?;
    match separator {
        Some("") => return Err(error("empty separator")),
        Some(separator) if from_right => parts.extend(text.rsplitn(cuts.saturating_add(1), separator)),
        Some(separator) => parts.extend(text.splitn(cuts.saturating_add(1), separator)),
        None => {
            let trim = |text: &'a str| {
                if from_right { text.trim_end_matches(is_space) } else { text.trim_start_matches(is_space) }
            };
            let mut rest = trim(text);
            while !rest.is_empty() && parts.len() < cuts {
                let cut = if from_right { rest.rfind(is_space) } else { rest.find(is_space) };
                let Some(at) = cut else { break };
                let (before, after) = rest.split_at(at);
                let (word, others) =
                    if from_right { (after.trim_start_matches(is_space), before) } else { (before, after) };
                parts.push(word);
                rest = trim(others);
            }
            let rest = if from_right { rest.trim_start_matches(is_space) } else { rest.trim_end_matches(is_space) };
            // What is left over by a limit keeps the space at its own end.
            let rest = match (rest.is_empty(), parts.len() < cuts || limit.is_none(), from_right) {
                (true, ..) | (_, true, _) => rest,
                (false, false, false) => trim_part(text, rest, false),
                (false, false, true) => trim_part(text, rest, true),
            };
            if !rest.is_empty() {
                parts.push(rest);
            }
        }
    }
    if from_right {
        parts.reverse();
    }
    Ok(parts)
}

/// `rest`, a part of `text`, up to the end of the text, or from its start on.
fn trim_part<'a>(text: &'a str, rest: &'a str, from_start: bool) -> &'a str {
    let at = rest.as_ptr() as usize - text.as_ptr() as usize;
    if from_start { &text[..at + rest.len()] } else { &text[at..] }
}

/// Python's `str.splitlines`.
fn lines(text: &str, keep_ends: bool) -> Result<Vec<&str>, Error> {
    let is_end =
        |c: char| matches!(c, '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}');
    room(text.chars().filter(|&c| is_end(c)).count())?;
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(is_end) {
        let end = rest[at..].chars().next().map_or(1, char::len_utf8);
        let end = at + if rest[at..].starts_with("\r\n") { 2 } else { end };
        lines.push(&rest[..if keep_ends { end } else { at }]);
        rest = &rest[end..];
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    Ok(lines)
}

pub(super) fn replace(text: &str, old: &str, new: &str, count: Option<usize>) -> Result<String, Error> {
    let found = if old.is_empty() { text.chars().count() + 1 } else { text.matches(old).count() };
    fuel::pay_bytes(text.len().saturating_add(found.min(count.unwrap_or(found)).saturating_mul(new.len())))?;
    Ok(match count {
        Some(count) => text.replacen(old, new, count),
        None => text.replace(old, new),
    })
}

/// The byte at which a character begins, counted as Python counts: from the end if negative, within the text.
fn byte_at(text: &str, index: i64) -> usize {
    let count = || text.chars().count() as i64;
    let index = if index < 0 { (index + count()).max(0) } else { index };
    text.char_indices().nth(usize::try_from(index).unwrap_or(usize::MAX)).map_or(text.len(), |(at, _)| at)
}

/// `text[start:end]`; `None` if it begins after its end.
fn part(text: &str, start: Option<i64>, end: Option<i64>) -> Option<&str> {
    let (start, end) = (start.map_or(0, |i| byte_at(text, i)), end.map_or(text.len(), |i| byte_at(text, i)));
    text.get(start..end)
}

/// The index of the first, or last, occurrence, in characters.
fn position(text: &str, needle: &str, args: &Args<'_>, last: bool) -> Result<Option<usize>, Error> {
    let start = args.number(1, "")?;
    let offset = start.map_or(0, |i| byte_at(text, i));
    let found = part(text, start, args.number(2, "")?)
        .and_then(|part| if last { part.rfind(needle) } else { part.find(needle) });
    Ok(found.map(|at| text[..offset + at].chars().count()))
}

fn lower_of(c: char) -> String {
    c.to_lowercase().collect()
}

/// Python's `str.title`: a capital after everything that is no letter.
fn title(text: &str) -> String {
    let mut in_word = false;
    let mut out = String::new();
    for c in text.chars() {
        if in_word {
            out.push_str(&lower_of(c))
        } else {
            out.extend(c.to_uppercase())
        }
        in_word = c.is_lowercase() || c.is_uppercase();
    }
    out
}

pub(super) fn capitalize(text: &str) -> String {
    let mut chars = text.chars();
    chars
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(chars.as_str().to_lowercase().chars()).collect())
}

pub(super) fn pad(text: &str, name: &str, width: i64, fill: Option<&str>) -> Result<String, Error> {
    let length = text.chars().count();
    let missing = usize::try_from(width).unwrap_or(0).saturating_sub(length);
    fuel::pay_bytes(text.len().saturating_add(missing.saturating_mul(4)))?;
    let fill = if name == "zfill" { "0" } else { fill.unwrap_or(" ") };
    if fill.chars().count() != 1 {
        return Err(error(format!("{name}: the fill must be one character")));
    }
    Ok(match name {
        "zfill" => {
            let (sign, digits) = text.split_at(usize::from(text.starts_with(['+', '-'])));
            format!("{sign}{}{digits}", fill.repeat(missing))
        }
        "ljust" => format!("{text}{}", fill.repeat(missing)),
        "rjust" => format!("{}{text}", fill.repeat(missing)),
        _ => {
            // Of an odd number the larger half goes left if the width is odd.
            let left = missing / 2 + (missing & usize::try_from(width).unwrap_or(0) & 1);
            format!("{}{text}{}", fill.repeat(left), fill.repeat(missing - left))
        }
    })
}

/// Formats, unless the text asks for widths that only fill memory.
pub(super) fn formatted(style: FormatStyle, text: &str, args: &[Value]) -> Result<Value, Error> {
    const DIGITS: usize = 4;
    if text.split(|c: char| !c.is_ascii_digit()).any(|digits| digits.len() > DIGITS) {
        return Err(error(format!("format: numbers of more than {DIGITS} digits")));
    }
    let size: usize = args.iter().map(|arg| arg.as_str().map_or(64, str::len)).fold(0, usize::saturating_add);
    let fields = text.matches(['{', '%']).count();
    fuel::pay_bytes(fields.saturating_mul(size.saturating_add(10_000)))?;
    Ok(Value::from(format(style, text, args)?))
}

fn sequence(of: &Value, list: &List, name: &str, args: &[Value]) -> Result<Value, Error> {
    match name {
        "index" | "count" => {
            let (needle,): (&Value,) = from_args(args)?;
            fuel::pay(units(of))?;
            if name == "count" {
                return Ok(Value::from(list.items.iter().filter(|item| *item == needle).count()));
            }
            let at = list.items.iter().position(|item| item == needle);
            at.map(Value::from).ok_or_else(|| error("the value is not in the list"))
        }
        "copy" => Ok(of.clone()),
        "append" | "extend" | "insert" | "pop" | "remove" | "clear" | "reverse" | "sort" => {
            Err(immutable("list", name))
        }
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

fn immutable(kind: &str, name: &str) -> Error {
    error(format!("{kind}.{name}: templates cannot change a {kind}"))
}

fn mapping(of: &Value, dict: &Dict, name: &str, args: &[Value]) -> Result<Value, Error> {
    if !DICT.contains(&name) {
        return Err(Error::from(ErrorKind::UnknownMethod));
    }
    match name {
        "get" => {
            let (key, default): (&Value, Option<Value>) = from_args(args)?;
            return Ok(dict.get(key).cloned().or(default).unwrap_or(Value::from(())));
        }
        "clear" | "pop" | "popitem" | "setdefault" | "update" | "fromkeys" => return Err(immutable("dict", name)),
        _ => {}
    }
    let () = from_args(args)?;
    match name {
        "copy" => Ok(of.clone()),
        "keys" => List::of(dict.entries.iter().map(|(key, _)| key.clone()).collect()),
        "values" => List::of(dict.entries.iter().map(|(_, value)| value.clone()).collect()),
        _ => items(dict),
    }
}

/// The entries as a list of tuples.
pub(super) fn items(dict: &Dict) -> Result<Value, Error> {
    let pair = |(key, value): &(Value, Value)| List::make(vec![key.clone(), value.clone()], Shape::Tuple);
    List::of(dict.entries.iter().map(pair).collect::<Result<_, _>>()?)
}
