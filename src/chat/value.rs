//! The lists and dicts of templates: Python's behaviour, and sizes that are known and limited.
//!
//! The engine's own containers can be nested without end by a loop, and may stand for more items than memory holds.
//! So every container that a template can keep is one of these: `rewrite` passes what is written or assigned in the
//! template through [`own`] and [`own_map`], and filters and methods return nothing else. A container knows how deep it
//! is and how many values it holds, those inside of others counted each time.

use super::{fuel, methods, text};
use minijinja::value::{DynObject, Enumerator, Object, ObjectRepr, Value, ValueKind};
use minijinja::{Error, ErrorKind, State};
use std::collections::HashMap;
use std::fmt::{self, Write};
use std::sync::Arc;

/// Containers in containers: more than JSON may have, as little as dropping and comparing recursively needs.
const MAX_DEPTH: u32 = 160;
/// Values in a container; a text counts as one for each [`TEXT`] bytes.
pub(super) const MAX_VALUES: u64 = 1 << 20;
const TEXT: usize = 64;

pub(super) fn error(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

#[derive(Clone, Copy)]
struct Size {
    depth: u32,
    values: u64,
    /// Units of work for reading all.
    units: u64,
}

impl Size {
    /// The size of a container of these values. Errors: too deep, too large, or a value that cannot be inside.
    fn of<'a>(items: impl Iterator<Item = &'a Value>) -> Result<Size, Error> {
        let mut size = Size { depth: 0, values: 0, units: 0 };
        for item in items {
            let inner = match (item.downcast_object_ref::<List>(), item.downcast_object_ref::<Dict>()) {
                (Some(list), _) => list.size,
                (_, Some(dict)) => dict.size,
                _ if is_plain(item) => {
                    let bytes = item.as_str().map_or(0, str::len);
                    Size { depth: 0, values: 1 + (bytes / TEXT) as u64, units: fuel::units(bytes) as u64 }
                }
                _ => return Err(error(format!("a list or dict cannot hold a value of type {}", item.kind()))),
            };
            size.depth = size.depth.max(inner.depth);
            size.values = size.values.saturating_add(inner.values);
            size.units = size.units.saturating_add(inner.units);
        }
        size.depth += 1;
        size.values += 1;
        size.units += 1;
        if size.depth > MAX_DEPTH {
            return Err(error(format!("lists and dicts more than {MAX_DEPTH} deep")));
        }
        if size.values > MAX_VALUES {
            return Err(error(format!("a list or dict of more than {MAX_VALUES} values")));
        }
        Ok(size)
    }

    fn units(self) -> usize {
        usize::try_from(self.units).unwrap_or(usize::MAX)
    }

    /// Pays for comparing a container of this size with one of another; nothing of it can fail.
    fn compare(self, other: Option<Size>) {
        fuel::visit(other.map_or(0, |other| self.units().min(other.units())));
    }
}

/// Units of work for reading all of a value.
pub(super) fn units(value: &Value) -> usize {
    match (value.downcast_object_ref::<List>(), value.downcast_object_ref::<Dict>()) {
        (Some(list), _) => list.size.units(),
        (_, Some(dict)) => dict.size.units(),
        _ => fuel::units(value.as_str().map_or(0, str::len)),
    }
}

/// Pays for one more of `count` values that are collected for a list, and refuses more than it may have.
pub(super) fn room(count: usize) -> Result<(), Error> {
    fuel::pay(1)?;
    if count as u64 > MAX_VALUES { Err(error(format!("a list of more than {MAX_VALUES} values"))) } else { Ok(()) }
}

fn is_plain(value: &Value) -> bool {
    !matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable | ValueKind::Map | ValueKind::Plain)
}

/// Whether a namespace may keep it: none that could hold the namespace again.
pub(super) fn is_keepable(value: &Value) -> bool {
    is_plain(value) || value.downcast_object_ref::<List>().is_some() || value.downcast_object_ref::<Dict>().is_some()
}

/// What kind of sequence a [`List`] is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shape {
    List,
    Tuple,
    /// An item of `groupby`: a tuple whose fields have names.
    Group,
}

/// A list or tuple.
pub(super) struct List {
    pub(super) items: Vec<Value>,
    pub(super) shape: Shape,
    size: Size,
    /// Units of work for going over the items, which may be to compare each text among them with another.
    visit: usize,
}

impl List {
    pub(super) fn make(items: Vec<Value>, shape: Shape) -> Result<Value, Error> {
        fuel::pay(items.len())?;
        let size = Size::of(items.iter())?;
        let visit = items.iter().map(|item| fuel::units(item.as_str().map_or(0, str::len))).sum();
        Ok(Value::from_object(List { items, shape, size, visit }))
    }

    pub(super) fn of(items: Vec<Value>) -> Result<Value, Error> {
        List::make(items, Shape::List)
    }
}

impl fmt::Debug for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("List")
    }
}

impl Object for List {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.items.get(key.as_usize()?).cloned()
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        match (self.shape, key) {
            (Shape::Group, "grouper") => self.items.first().cloned(),
            (Shape::Group, "list") => self.items.get(1).cloned(),
            _ => None,
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        if fuel::visit(self.visit) { Enumerator::Seq(self.items.len()) } else { Enumerator::Empty }
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.items.len())
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (open, close) = if self.shape == Shape::List { ("[", "]") } else { ("(", ")") };
        f.write_str(open)?;
        for (i, item) in self.items.iter().enumerate() {
            f.write_str(if i > 0 { ", " } else { "" })?;
            write_repr(f, item)?;
        }
        f.write_str(if self.shape != Shape::List && self.items.len() == 1 { "," } else { "" })?;
        f.write_str(close)
    }

    /// Leaves the comparison to the engine.
    fn custom_cmp(self: &Arc<Self>, other: &DynObject) -> Option<std::cmp::Ordering> {
        self.size.compare(other.downcast_ref::<List>().map(|other| other.size));
        None
    }
}

/// A dict: keys in the order in which they came.
pub(super) struct Dict {
    pub(super) entries: Vec<(Value, Value)>,
    index: HashMap<Value, usize>,
    size: Size,
}

impl Dict {
    /// Of equal keys the last value counts, in the place of the first.
    pub(super) fn make(pairs: impl Iterator<Item = (Value, Value)>) -> Result<Value, Error> {
        let mut entries: Vec<(Value, Value)> = Vec::new();
        let mut index = HashMap::new();
        for (key, value) in pairs {
            fuel::pay(2 + units(&key))?;
            if !is_key(&key) {
                return Err(error(format!("unhashable type: {}", key.kind())));
            }
            match index.get(&key) {
                Some(&at) => {
                    let entry: &mut (Value, Value) = &mut entries[at];
                    entry.1 = value;
                }
                None => {
                    index.insert(key.clone(), entries.len());
                    entries.push((key, value));
                }
            }
        }
        let size = Size::of(entries.iter().flat_map(|(key, value)| [key, value]))?;
        Ok(Value::from_object(Dict { entries, index, size }))
    }

    pub(super) fn get(&self, key: &Value) -> Option<&Value> {
        // Only what is hashed at once, and paid for: a key cannot make the lookup long.
        if !is_key(key) || !fuel::bytes(key.as_str().map_or(0, str::len)) {
            return None;
        }
        let at = *self.index.get(key)?;
        self.entries.get(at).map(|(_, value)| value)
    }
}

fn is_key(key: &Value) -> bool {
    matches!(key.kind(), ValueKind::String | ValueKind::Number | ValueKind::Bool | ValueKind::None)
}

impl fmt::Debug for Dict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dict")
    }
}

impl Object for Dict {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Map
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get(key).cloned()
    }

    /// `dict.items` is Python's method, even if there is a key of that name; `dict["items"]` is the key's value.
    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        match methods::DICT.iter().find(|name| **name == key) {
            Some(name) => Some(Value::from_object(Method { of: Value::from_dyn_object(Arc::clone(self)), name })),
            None => self.get(&Value::from(key)).cloned(),
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        if !fuel::visit(self.entries.len()) {
            return Enumerator::Empty;
        }
        let this = Arc::clone(self);
        let entry = move |i: usize| this.entries.get(i).cloned().unwrap_or_default();
        Enumerator::KeyValueIter(Box::new((0..self.entries.len()).map(entry)))
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.entries.len())
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('{')?;
        for (i, (key, value)) in self.entries.iter().enumerate() {
            f.write_str(if i > 0 { ", " } else { "" })?;
            write_repr(f, key)?;
            f.write_str(": ")?;
            write_repr(f, value)?;
        }
        f.write_char('}')
    }

    /// Leaves the comparison to the engine.
    fn custom_cmp(self: &Arc<Self>, other: &DynObject) -> Option<std::cmp::Ordering> {
        self.size.compare(other.downcast_ref::<Dict>().map(|other| other.size));
        None
    }
}

/// A method that was named and not called.
struct Method {
    of: Value,
    name: &'static str,
}

impl fmt::Debug for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<built-in method {} of dict object>", self.name)
    }
}

impl Object for Method {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
        methods::call(state, &self.of, self.name, args)
    }

    fn custom_cmp(self: &Arc<Self>, _: &DynObject) -> Option<std::cmp::Ordering> {
        None
    }
}

/// Python's `repr`. Writes nothing once the budget is spent: this is called where nothing may fail.
pub(super) fn write_repr(out: &mut impl Write, value: &Value) -> fmt::Result {
    match value.as_str() {
        Some(text) if fuel::bytes(text.len()) => text::write_quoted(out, text),
        None if fuel::visit(1) => write_str(out, value),
        _ => Ok(()),
    }
}

/// Python's `str`, of what is no string.
pub(super) fn write_str(out: &mut impl Write, value: &Value) -> fmt::Result {
    match as_float(value) {
        Some(x) => text::write_float(out, x),
        None => write!(out, "{value}"),
    }
}

/// The number, if it is a float.
pub(super) fn as_float(value: &Value) -> Option<f64> {
    let is_float = value.kind() == ValueKind::Number && !value.is_integer();
    is_float.then(|| f64::try_from(value.clone()).ok()).flatten()
}

/// Adds what a value gives when it is iterated, each as [`own`] makes it, to the items of a list.
pub(super) fn collect(items: &mut Vec<Value>, value: &Value) -> Result<(), Error> {
    for item in value.try_iter()?.checked() {
        room(items.len() + 1)?;
        let item = own(item?)?;
        // A namespace could hold the list again: its values as they are now take its place.
        items.push(if item.kind() == ValueKind::Map { own_map(item)? } else { item });
    }
    Ok(())
}

/// A sequence as one of ours, with the sequences in it; other values as they are.
pub(super) fn own(value: Value) -> Result<Value, Error> {
    fuel::check()?;
    let is_sequence = matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable);
    if !is_sequence || value.downcast_object_ref::<List>().is_some() {
        return Ok(value);
    }
    let shape = if value.is_tuple() { Shape::Tuple } else { Shape::List };
    let mut items = Vec::new();
    collect(&mut items, &value)?;
    List::make(items, shape)
}

/// A mapping as one of ours.
pub(super) fn own_map(value: Value) -> Result<Value, Error> {
    fuel::check()?;
    if value.downcast_object_ref::<Dict>().is_some() {
        return Ok(value);
    }
    let map = value.as_object().ok_or_else(|| error("expected a mapping"))?;
    let mut pairs = Vec::new();
    for (key, value) in map.try_iter_pairs().ok_or_else(|| error("expected a mapping"))? {
        pairs.push((key, own(value)?));
    }
    Dict::make(pairs.into_iter())
}

/// A JSON value.
pub(super) fn from_json(json: &serde_json::Value) -> Result<Value, Error> {
    use serde_json::Value as Json;
    Ok(match json {
        Json::Null => Value::from(()),
        Json::Bool(b) => Value::from(*b),
        Json::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(n), _) => Value::from(n),
            (_, Some(n)) => Value::from(n),
            _ => Value::from(n.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(s) => Value::from(s.as_str()),
        Json::Array(items) => List::of(items.iter().map(from_json).collect::<Result<_, _>>()?)?,
        Json::Object(map) => {
            let pairs: Result<Vec<_>, Error> =
                map.iter().map(|(key, value)| Ok((Value::from(key.as_str()), from_json(value)?))).collect();
            Dict::make(pairs?.into_iter())?
        }
    })
}
