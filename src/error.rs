//! The one error type of the crate. Each variant is one status code of the C ABI.

use std::fmt;

/// A result whose error is the crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong: a message for people and the facts behind it by key, so that a program can use them too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Detail {
    message: String,
    facts: Vec<(&'static str, String)>,
}

impl Detail {
    /// The message, one sentence without a final stop.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The facts in the order in which they were added, for example `("tensor", "blk.0.attn_q.weight")`.
    pub fn facts(&self) -> &[(&'static str, String)] {
        &self.facts
    }
}

impl fmt::Display for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

macro_rules! errors {
    ($($(#[$doc:meta])* $variant:ident $constructor:ident,)*) => {
        /// Everything that can fail, by kind. The kinds are the status codes of `llm.h`.
        #[derive(Debug, Clone, thiserror::Error)]
        pub enum Error {
            $($(#[$doc])* #[error("{0}")] $variant(Box<Detail>),)*
        }

        impl Error {
            $($(#[$doc])*
            pub fn $constructor(message: impl Into<String>) -> Self {
                Error::$variant(Box::new(Detail { message: one_line(cut(message.into())), facts: Vec::new() }))
            })*

            /// Message and facts.
            pub fn detail(&self) -> &Detail {
                match self { $(Error::$variant(detail) => detail,)* }
            }

            fn detail_mut(&mut self) -> &mut Detail {
                match self { $(Error::$variant(detail) => detail,)* }
            }
        }
    };
}

errors! {
    /// An argument is outside its domain.
    InvalidArgument invalid_argument,
    /// A file, key, tensor or token that was asked for does not exist.
    NotFound not_found,
    /// The operating system failed to read or write.
    Io io,
    /// A file contradicts its format.
    CorruptFile corrupt_file,
    /// A valid request or file that this library does not implement.
    Unsupported unsupported,
    /// Memory could not be had.
    OutOfMemory out_of_memory,
    /// No room for more positions in the key/value cache.
    CacheFull cache_full,
    /// The caller's buffer is too small.
    BufferTooSmall buffer_too_small,
    /// The caller asked for it to stop.
    Cancelled cancelled,
    /// The caller's callback asked for it to stop.
    Aborted aborted,
    /// The object is in use by another call.
    Busy busy,
    /// The object is not in a state in which this can be done.
    FailedPrecondition failed_precondition,
    /// A device (GPU) failed.
    Device device,
    /// A defect of the library.
    Internal internal,
}

impl Error {
    /// Adds a fact, for example `.with("tensor", name)`.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.detail_mut().facts.push((key, cut(value.to_string())));
        self
    }

    /// The value of a fact.
    pub fn fact(&self, key: &str) -> Option<&str> {
        self.detail().facts.iter().find(|(k, _)| *k == key).map(|(_, value)| value.as_str())
    }
}

/// A text of a bounded length: a string of a file may have a gigabyte.
fn cut(mut text: String) -> String {
    const MOST: usize = 4096;
    if text.len() > MOST {
        text.truncate(text.floor_char_boundary(MOST));
        text.push_str("...");
        text.shrink_to_fit();
    }
    text
}

/// A text of one line: control characters, which names in a file may have, are escaped.
pub(crate) fn one_line(text: String) -> String {
    if !text.contains(char::is_control) {
        return text;
    }
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}

/// The first `needed` elements of a caller's buffer, or `BufferTooSmall`: `what` says what they are.
pub(crate) fn first_of<'a, T>(buffer: &'a mut [T], needed: usize, what: fmt::Arguments<'_>) -> Result<&'a mut [T]> {
    let found = buffer.len();
    buffer.get_mut(..needed).ok_or_else(|| {
        let message = format!("{what}; the buffer holds {found}");
        Error::buffer_too_small(message).with("needed", needed).with("capacity", found)
    })
}

/// That `n` items cannot be had.
pub(crate) fn no_room<T>(n: usize, what: &'static str) -> Error {
    let bytes = n.saturating_mul(size_of::<T>());
    let message = format!("{what} needs {bytes} bytes, which cannot be had");
    Error::out_of_memory(message).with("bytes", bytes).with("what", what)
}

/// A vector of `n` copies of `value`; the error of a size that cannot be had names `what`.
pub(crate) fn try_vec<T: Clone>(n: usize, value: T, what: &'static str) -> Result<Vec<T>> {
    let mut v = Vec::new();
    v.try_reserve_exact(n).map_err(|_| no_room::<T>(n, what))?;
    v.resize(n, value);
    Ok(v)
}

/// Makes a list as long as `n` if it is shorter, of copies of `value`; as [`try_vec`]. It never gets shorter, since each
/// time that it grew again it would be filled.
pub(crate) fn try_grow<T: Clone>(v: &mut Vec<T>, n: usize, value: T, what: &'static str) -> Result<()> {
    if n > v.len() {
        *v = try_vec(n, value, what)?;
    }
    Ok(())
}

/// Appends an item; as [`try_vec`].
pub(crate) fn try_push<T>(v: &mut Vec<T>, item: T, what: &'static str) -> Result<()> {
    v.try_reserve(1).map_err(|_| no_room::<T>(v.len().saturating_add(1), what))?;
    v.push(item);
    Ok(())
}

/// The items in order; as [`try_vec`].
pub(crate) fn try_collect<T>(items: impl IntoIterator<Item = T>, what: &'static str) -> Result<Vec<T>> {
    let (mut items, mut v) = (items.into_iter(), Vec::new());
    let least = items.size_hint().0;
    v.try_reserve_exact(least).map_err(|_| no_room::<T>(least, what))?;
    items.try_for_each(|item| try_push(&mut v, item, what))?;
    Ok(v)
}

/// A copy of a list; as [`try_vec`].
pub(crate) fn try_copy<T: Copy>(list: &[T], what: &'static str) -> Result<Vec<T>> {
    let Some(first) = list.first() else { return Ok(Vec::new()) };
    let mut copy = try_vec(list.len(), *first, what)?;
    copy.copy_from_slice(list);
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_facts_are_cut() {
        let long = "\u{e4}".repeat(1 << 20);
        let error = Error::corrupt_file(format!("x{long}")).with("found", &long).with("expected", "a");
        assert_eq!(error.to_string(), format!("x{}...", "\u{e4}".repeat(2047)));
        assert_eq!(error.fact("found"), Some(&*format!("{}...", "\u{e4}".repeat(2048))));
        assert_eq!(error.fact("expected"), Some("a"));
    }

    #[test]
    fn a_message_is_one_line() {
        let error = Error::not_found("no tensor a\nERROR \u{1b}[31mb\0").with("tensor", "a\nb");
        assert_eq!(error.to_string(), "no tensor a\\nERROR \\u{1b}[31mb\\u{0}");
        assert_eq!(error.fact("tensor"), Some("a\nb"));
        assert_eq!(one_line("ä b".to_owned()), "ä b");
    }
}
