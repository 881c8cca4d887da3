//! The filters, tests and functions of templates where the engine's own differ from jinja2's, or cost more than they
//! pay for.

use super::value::{self, Dict, List, MAX_VALUES, Shape, error, is_keepable, own, own_map, units};
use super::{fuel, json, methods, time};
use minijinja::value::{Kwargs, Rest, Value, ValueKind, ValueOrKwargs};
use minijinja::{AutoEscape, Environment, Error, Output, State, filters, functions};
use std::fmt;

/// An exception that the template raised, with its message.
#[derive(Debug)]
pub(super) struct Raised(pub String);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

/// The variable that holds the time, in seconds since 1970; no name that a template can write.
pub(super) const NOW: &str = "the time";

/// Registers an engine's filters, which a function applies and whose result becomes a list of ours.
macro_rules! lists {
    ($env:ident, $apply:ident: $($name:ident)*) => {
        $(
            $env.add_filter(concat!("engine ", stringify!($name)), filters::$name);
            $env.add_filter(stringify!($name), |state: &mut State, args: Rest<ValueOrKwargs>| {
                own($apply(state, concat!("engine ", stringify!($name)), args)?)
            });
        )*
    };
}

/// Applies a filter of the engine, which may read each text among its arguments for each item; the name of an attribute in
/// parts, at dots and commas.
fn apply(state: &mut State, filter: &str, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let args = args.into_values();
    let items = args.first().filter(|value| value.as_str().is_none()).and_then(Value::len).unwrap_or(1);
    // Short ones are read in the time of a visit.
    let read = |text: &str| fuel::units(text.len()) - 1 + text.bytes().filter(|c| matches!(c, b'.' | b',')).count();
    let mut each = 0;
    for arg in args.iter().skip(1) {
        each += arg.as_str().map_or(0, read);
        if let Some(named) = arg.as_object().and_then(|object| object.try_iter_pairs()).filter(|_| arg.is_kwargs()) {
            each += named.map(|(_, value)| value.as_str().map_or(0, read)).sum::<usize>();
        }
    }
    fuel::pay(each.saturating_mul(items))?;
    state.apply_filter(filter, &args)
}

/// As `apply`, for a filter that compares the items of its first argument as sorting does.
fn apply_sorting(state: &mut State, filter: &str, mut args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    if let Some(first) = args.first_mut() {
        let list = own((**first).clone())?;
        let rounds = usize::BITS - list.len().unwrap_or(0).leading_zeros();
        fuel::pay(units(&list).saturating_mul(rounds as usize))?;
        *first = list.into();
    }
    apply(state, filter, args)
}

/// Everything that a template may call.
pub(super) fn install(env: &mut Environment<'static>) {
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_formatter(write);
    env.set_unknown_method_callback(methods::call);
    // No function of jinja2's, and one that writes out everything before it is paid for.
    env.remove_global("debug");

    // What `rewrite` calls.
    env.add_filter("_own", own);
    env.add_filter("_own_map", own_map);
    env.add_filter("_keep", keep);
    env.add_filter("_read", read);
    env.add_filter("_each", each);
    env.add_filter("_times", times);

    lists!(env, apply: batch list lines map reject rejectattr select selectattr slice split zip);
    lists!(env, apply_sorting: sort unique);
    env.add_filter("capitalize", |text: String| methods::capitalize(&text));
    env.add_filter("chain", chain);
    env.add_filter("center", |text: String, width: Option<i64>| {
        methods::pad(&text, "center", width.unwrap_or(80), None)
    });
    env.add_filter("dictsort", dictsort);
    env.add_filter("engine dictsort", filters::dictsort);
    env.add_filter("format", |text: &str, args: Rest<Value>| {
        methods::formatted(minijinja::formatting::FormatStyle::Printf, text, &args)
    });
    env.add_filter("engine groupby", filters::groupby);
    env.add_filter("groupby", groupby);
    env.add_filter("float", |value: &Value, default: Option<f64>| {
        number_of(value).map_or(default.unwrap_or(0.0), |number| number.float())
    });
    env.add_filter("indent", indent);
    env.add_filter("engine int", filters::int);
    env.add_filter("int", |state: &mut State, value: &Value, default: Option<Value>, base: Option<u32>| {
        if let Some(base) = base.filter(|&base| base != 10) {
            let default = default.unwrap_or(Value::from(0));
            return Ok(integer_of_base(value.as_str().unwrap_or_default(), base).map_or(default, Value::from));
        }
        match number_of(value) {
            None => Ok(default.unwrap_or(Value::from(0))),
            Some(Number::Integer(n)) => Ok(Value::from(n)),
            Some(Number::Float(x)) => state.apply_filter("engine int", &[Value::from(x)]),
        }
    });
    env.add_filter("items", items);
    env.add_filter("length", length);
    env.add_filter("count", length);
    env.add_filter("replace", |text: &Value, old: &Value, new: &Value, count: Option<usize>| {
        methods::replace(&string(text)?, &string(old)?, &string(new)?, count)
    });
    env.add_filter("reverse", reverse);
    env.add_filter("string", string);
    env.add_filter("sum", sum);
    env.add_filter("tojson", json::tojson);
    env.add_filter("trim", |text: &Value, chars: Option<String>| {
        let text = string(text)?;
        fuel::pay_bytes(text.len())?;
        Ok::<_, Error>(methods::strip(&text, "strip", chars.as_deref())?.to_owned())
    });
    env.add_filter("wordcount", |text: String| {
        text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|w| !w.is_empty()).count()
    });

    env.add_test("callable", |value: &Value| value.kind() == ValueKind::Plain);
    env.add_test("iterable", |value: &Value| value.try_iter().is_ok() && !value.is_none());
    env.add_test("sequence", |value: &Value| {
        use ValueKind::{Iterable, Map, Seq, String, Undefined};
        matches!(value.kind(), Iterable | Map | Seq | String | Undefined)
    });

    env.add_function("dict", dict);
    env.add_function("range", range);
    env.add_function("raise_exception", |message: &Value| -> Result<Value, Error> {
        Err(error("the template raised an exception").with_source(Raised(message.to_string())))
    });
    env.add_function("strftime_now", |state: &State, format: &str| {
        let now = state.lookup(NOW).and_then(|now| now.as_i64()).unwrap_or(0);
        // Two bytes of a format give up to 24.
        fuel::pay_bytes(format.len().saturating_mul(12))?;
        Ok::<_, Error>(time::strftime(now, format))
    });
    env.add_global("engine namespace", Value::from_function(functions::namespace));
    env.add_function("namespace", namespace);
}

/// How a value is printed.
fn write(out: &mut Output, _: &mut State, value: &Value) -> Result<(), Error> {
    let written = match value.as_str() {
        Some(text) => out.write_str(text),
        None => value::write_str(out, value),
    };
    written.map_err(|_| error("the text cannot be written"))?;
    fuel::check()
}

/// Python's `str`.
fn string(value: &Value) -> Result<String, Error> {
    let mut text = String::new();
    match value.as_str() {
        Some(value) => text.push_str(value),
        None => value::write_str(&mut text, value).map_err(|_| error("the text cannot be written"))?,
    }
    fuel::pay_bytes(text.len())?;
    Ok(text)
}

/// Pays for a text that a comparison, a test or a subscript reads, which the engine does not see.
fn read(value: Value) -> Result<Value, Error> {
    fuel::pay_bytes(value.as_str().map_or(0, str::len))?;
    Ok(value)
}

/// What a loop goes over: a text is its characters, whose number the loop should know; as it is, if they may be too many
/// for a list.
fn each(value: Value) -> Result<Value, Error> {
    match value.as_str().filter(|text| (text.len() as u64) < MAX_VALUES) {
        Some(text) => List::of(text.chars().map(Value::from).collect()),
        None => Ok(value),
    }
}

/// What a namespace's attribute is set to.
fn keep(value: Value) -> Result<Value, Error> {
    let value = own(value)?;
    if is_keepable(&value) {
        Ok(value)
    } else {
        Err(error(format!("a namespace cannot hold a value of type {}", value.kind())))
    }
}

fn namespace(state: &mut State, value: Option<Value>, kwargs: Kwargs) -> Result<Value, Error> {
    let values = dict(value, kwargs)?;
    let make = state.lookup("engine namespace").unwrap_or_default();
    make.call(state, &[values])
}

/// `a * b`. The engine's own makes lists that stand for any number of items.
fn times(a: &Value, b: &Value) -> Result<Value, Error> {
    if let (Some(x), Some(y)) = (number(a), number(b)) {
        return match (x, y) {
            (Number::Integer(x), Number::Integer(y)) => {
                x.checked_mul(y).map(Value::from).ok_or_else(|| error("a product that is too large"))
            }
            (x, y) => Ok(Value::from(x.float() * y.float())),
        };
    }
    let (repeated, count) = if a.as_i64().is_some() { (b, a) } else { (a, b) };
    let expected = || error(format!("{} cannot be multiplied with {}", a.kind(), b.kind()));
    let count = usize::try_from(count.as_i64().ok_or_else(expected)?.max(0)).unwrap_or(usize::MAX);
    if let Some(text) = repeated.as_str() {
        fuel::pay_bytes(text.len().saturating_mul(count))?;
        return Ok(Value::from(text.repeat(count)));
    }
    let owned = own(repeated.clone())?;
    let list = owned.downcast_object_ref::<List>().ok_or_else(expected)?;
    fuel::pay(list.items.len().saturating_mul(count))?;
    let items = std::iter::repeat_n(&list.items, count).flatten().cloned();
    List::make(items.collect(), list.shape)
}

enum Number {
    Integer(i128),
    Float(f64),
}

impl Number {
    fn float(&self) -> f64 {
        match self {
            Number::Integer(n) => *n as f64,
            Number::Float(x) => *x,
        }
    }
}

fn number(value: &Value) -> Option<Number> {
    match value.kind() {
        ValueKind::Bool => Some(Number::Integer(value.is_true().into())),
        ValueKind::Number => Some(match value::as_float(value) {
            Some(x) => Number::Float(x),
            None => Number::Integer(i128::try_from(value.clone()).ok()?),
        }),
        _ => None,
    }
}

/// The number that a value is, or that its text says.
fn number_of(value: &Value) -> Option<Number> {
    match value.as_str().map(str::trim) {
        None => number(value),
        Some(text) => {
            let float = || text.parse().ok().map(Number::Float);
            text.parse().ok().map(Number::Integer).or_else(float)
        }
    }
}

/// The number that a text says in a base, with or without the base's prefix.
fn integer_of_base(text: &str, base: u32) -> Option<i64> {
    let text = text.trim().to_ascii_lowercase();
    let prefix = match base {
        2 => "0b",
        8 => "0o",
        16 => "0x",
        _ => "",
    };
    let digits = text.strip_prefix(prefix).unwrap_or(&text);
    (2..=36).contains(&base).then(|| i64::from_str_radix(digits, base).ok()).flatten()
}

/// `indent(text, width=4, first=False, blank=False)`: every line but the first, and but the empty ones.
fn indent(text: &Value, args: Rest<Value>, kwargs: Kwargs) -> Result<String, Error> {
    let text = string(text)?;
    let option = |place: usize, name: &str| methods::argument(&args, &kwargs, place, name);
    let width = option(0, "width")?.unwrap_or(Value::from(4));
    let prefix = match (width.as_str(), width.as_usize()) {
        (Some(text), _) => text.to_owned(),
        (None, Some(count)) if count <= MAX_RANGE => " ".repeat(count),
        _ => return Err(error("indent: the width must be a text, or a number of spaces")),
    };
    let is_true = |value: Option<Value>| value.is_some_and(|value| value.is_true());
    let (first, blank) = (is_true(option(1, "first")?), is_true(option(2, "blank")?));
    kwargs.assert_all_used()?;
    let mut out = String::new();
    for (i, line) in text.split('\n').enumerate() {
        fuel::pay_bytes(prefix.len() + line.len())?;
        out.push_str(if i > 0 { "\n" } else { "" });
        out.push_str(if if i > 0 { blank || !line.is_empty() } else { first } { &prefix } else { "" });
        out.push_str(line);
    }
    Ok(out)
}

fn length(value: &Value) -> Result<usize, Error> {
    match value.kind() {
        ValueKind::Undefined => Ok(0),
        kind => value.len().ok_or_else(|| error(format!("a value of type {kind} has no length"))),
    }
}

/// The items of all sequences, or the entries of all mappings.
fn chain(values: Rest<Value>) -> Result<Value, Error> {
    if values.iter().all(|value| value.kind() == ValueKind::Map) {
        let mut pairs = Vec::new();
        for value in &values.0 {
            let owned = own_map(value.clone())?;
            let entries = owned.downcast_object_ref::<Dict>().map_or(&[][..], |dict| &dict.entries);
            fuel::pay(entries.len())?;
            pairs.extend_from_slice(entries);
        }
        return Dict::make(pairs.into_iter());
    }
    let mut items = Vec::new();
    values.iter().try_for_each(|value| value::collect(&mut items, value))?;
    List::of(items)
}

fn reverse(value: &Value) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        fuel::pay_bytes(text.len())?;
        return Ok(Value::from(text.chars().rev().collect::<String>()));
    }
    let mut items: Vec<Value> = value.try_iter()?.checked().collect::<Result<_, _>>()?;
    items.reverse();
    List::of(items)
}

fn items(value: &Value) -> Result<Value, Error> {
    if value.is_undefined() {
        return List::of(vec![]);
    }
    let owned = own_map(value.clone())?;
    methods::items(owned.downcast_object_ref::<Dict>().ok_or_else(|| error("items: expected a mapping"))?)
}

/// `sum(attribute=None, start=0)`, of numbers, or of lists where the start is one.
fn sum(state: &mut State, values: Value, args: Rest<Value>, kwargs: Kwargs) -> Result<Value, Error> {
    let attribute = methods::argument(&args, &kwargs, 0, "attribute")?.filter(|value| !value.is_none());
    let start = methods::argument(&args, &kwargs, 1, "start")?.unwrap_or(Value::from(0));
    kwargs.assert_all_used()?;
    let values = match attribute {
        Some(attribute) => {
            let by = Kwargs::from_iter([("attribute", attribute)]);
            state.apply_filter("map", &[values, by.into()])?
        }
        None => own(values)?,
    };
    let wrong = |value: &Value| error(format!("sum: a value of type {} cannot be added", value.kind()));
    let Some(mut total) = number(&start) else {
        let shape = own(start.clone())?.downcast_object_ref::<List>().map_or(Shape::List, |list| list.shape);
        let mut items = Vec::new();
        for list in std::iter::once(start).chain(values.try_iter()?) {
            if !matches!(list.kind(), ValueKind::Seq | ValueKind::Iterable) {
                return Err(wrong(&list));
            }
            value::collect(&mut items, &list)?;
        }
        return List::make(items, shape);
    };
    for value in values.try_iter()? {
        total = match (total, number(&value).ok_or_else(|| wrong(&value))?) {
            (Number::Integer(a), Number::Integer(b)) => {
                Number::Integer(a.checked_add(b).ok_or_else(|| error("a sum that is too large"))?)
            }
            (a, b) => Number::Float(a.float() + b.float()),
        };
    }
    Ok(match total {
        Number::Integer(n) => Value::from(n),
        Number::Float(x) => Value::from(x),
    })
}

/// Pairs as tuples.
fn dictsort(state: &mut State, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let sorted = apply_sorting(state, "engine dictsort", args)?;
    let pair = |pair: Value| List::make(pair.try_iter()?.collect(), Shape::Tuple);
    List::of(sorted.try_iter()?.map(pair).collect::<Result<_, _>>()?)
}

fn groupby(state: &mut State, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let groups = apply_sorting(state, "engine groupby", args)?;
    let group = |group: Value| {
        let fields: Result<Vec<Value>, Error> = group.try_iter()?.map(own).collect();
        List::make(fields?, Shape::Group)
    };
    List::of(groups.try_iter()?.map(group).collect::<Result<_, _>>()?)
}

/// `dict(mapping or pairs, name=value)`.
fn dict(value: Option<Value>, kwargs: Kwargs) -> Result<Value, Error> {
    let mut pairs = Vec::new();
    if let Some(value) = value {
        if value.kind() == ValueKind::Map {
            let owned = own_map(value)?;
            pairs.extend(owned.downcast_object_ref::<Dict>().into_iter().flat_map(|dict| dict.entries.iter().cloned()));
        } else {
            for pair in value.try_iter()?.checked() {
                let mut pair = pair?.try_iter()?;
                match (pair.next(), pair.next(), pair.next()) {
                    (Some(key), Some(value), None) => pairs.push((key, value)),
                    _ => return Err(error("dict: expected pairs")),
                }
            }
        }
    }
    let names: Vec<String> = kwargs.args().map(str::to_owned).collect();
    for name in names {
        let value = own(kwargs.get(&name)?)?;
        pairs.push((Value::from(name), value));
    }
    Dict::make(pairs.into_iter())
}

/// As many items as the sandbox allows.
const MAX_RANGE: usize = 100_000;

fn range(a: i64, b: Option<i64>, step: Option<i64>) -> Result<Value, Error> {
    let (start, end, step) = (if b.is_some() { a } else { 0 }, b.unwrap_or(a), step.unwrap_or(1));
    if step == 0 {
        return Err(error("range: the step must not be 0"));
    }
    let distance = i128::from(end) - i128::from(start);
    let is_ahead = distance.signum() == i128::from(step.signum());
    let count = if is_ahead { distance.unsigned_abs().div_ceil(u128::from(step.unsigned_abs())) } else { 0 };
    let too_long = || error(format!("range: more than {MAX_RANGE} items"));
    let count = usize::try_from(count).ok().filter(|&count| count <= MAX_RANGE).ok_or_else(too_long)?;
    // Each is between start and end; what is multiplied may be beyond an i64.
    List::of((0..count as i64).map(|i| Value::from(start.wrapping_add(i.wrapping_mul(step)))).collect())
}
