//! What is done to a template's text before the engine sees it.
//!
//! - `{% generation %}` and its end, which mark the model's own text for training, become a `with` block.
//! - Lists, dicts, what is assigned, sums and products go through filters of ours (see `value`): `[a]` becomes
//!   `([a]|_own)`, `{% set x = e %}` becomes `{% set x =(e)|_own %}`, `a + b` becomes `(a + b)|_own`, `a * b` becomes
//!   `(a)|_times(b)`.
//! - What a loop goes over does too, so that a text is a list of characters: `{% for c in (e)|_each %}`.
//! - Slices become lists, since the engine's would stand on each other: `a[1:]` becomes `(a[1:]|_own)` (but where it is a
//!   test's argument without brackets, which is not kept).
//! - What is compared, tested for more than its type, or subscripted, goes through a filter that pays for reading it:
//!   `(a)|_read == b`, `(a|_read) is lower`, `(a|_read)[0]`.
//! - Nesting is limited: the engine's parser and compiler recurse, and its own limit does not see chains as in
//!   `a + a + a` or `not not a`.

use crate::error::{Error, Result};

/// Tokens of an expression that can stand in each other: those since the last comma, at each bracket that is open.
const MAX_CHAIN: usize = 1000;
/// Blocks in blocks, counting each `elif`.
const MAX_BLOCKS: usize = 300;

/// Operators of two characters.
const OPERATORS: [&str; 6] = ["==", "!=", "<=", ">=", "//", "**"];
/// Words that are no operand, so that a bracket after one begins a list.
const KEYWORDS: [&str; 8] = ["and", "else", "if", "in", "is", "not", "or", "recursive"];

/// Tests that do not read a text.
const TYPE_TESTS: [&str; 15] = [
    "boolean",
    "callable",
    "defined",
    "false",
    "filter",
    "float",
    "integer",
    "iterable",
    "mapping",
    "none",
    "number",
    "sequence",
    "string",
    "true",
    "undefined",
];

/// An open bracket.
struct Level {
    close: u8,
    /// What is written after it closes.
    after: &'static str,
    /// Where what is subscripted begins, if this is a subscript; and whether it is a slice.
    subscripted: Option<usize>,
    is_slice: bool,
    /// Where the last operand at this level begins.
    operand: usize,
    /// Where a sum at this level would begin.
    sum: usize,
    /// Whether there is a sum since then.
    in_sum: bool,
    /// Where a product at this level would begin.
    product: usize,
    /// Whether the second factor of a product is being read.
    in_times: bool,
    /// Tokens since the last separator.
    chain: usize,
}

impl Level {
    fn new(close: u8, after: &'static str, start: usize) -> Level {
        Level {
            close,
            after,
            subscripted: None,
            is_slice: false,
            operand: start,
            sum: start,
            in_sum: false,
            product: start,
            in_times: false,
            chain: 0,
        }
    }
}

struct Rewriter<'a> {
    source: &'a str,
    at: usize,
    /// What is put in where, in the order in which it was decided.
    insertions: Vec<(usize, &'static str)>,
    /// Words that are replaced.
    replacements: Vec<(std::ops::Range<usize>, &'static str)>,
    /// The brackets that are open, the tag itself first.
    levels: Vec<Level>,
    /// The sum of the levels' chains.
    chain: usize,
    /// The blocks that are open: 1, and 1 more for each `elif`.
    blocks: Vec<usize>,
    /// Whether the name of a test comes next.
    in_test: bool,
    /// Where the test's operand begins and ends.
    tested: (usize, usize),
    /// Where the argument of a test begins that stands without brackets: the engine would take ours for those of the
    /// arguments. It is not kept, so nothing need be put around it.
    argument: usize,
    /// Whether what comes next is a loop's target, or what it goes over.
    in_for: Option<bool>,
    /// Whether the last token was one that goes on with an operand: `.` or `|`.
    joined: bool,
}

/// Rewrites a template.
pub(super) fn rewrite(source: &str) -> Result<String> {
    let mut rewriter = Rewriter {
        source,
        at: 0,
        insertions: Vec::new(),
        replacements: Vec::new(),
        levels: Vec::new(),
        chain: 0,
        blocks: Vec::new(),
        in_test: false,
        tested: (0, 0),
        argument: usize::MAX,
        in_for: None,
        joined: false,
    };
    rewriter.template()?;
    Ok(rewriter.finish())
}

impl<'a> Rewriter<'a> {
    fn finish(mut self) -> String {
        // Stable: what was decided first is inside.
        self.insertions.sort_by_key(|(at, _)| *at);
        let mut out = String::with_capacity(self.source.len() + self.source.len() / 4);
        let mut copied = 0;
        let mut replacements = self.replacements.into_iter().peekable();
        for (at, text) in self.insertions.into_iter().chain([(self.source.len(), "")]) {
            while let Some((range, word)) = replacements.next_if(|(range, _)| range.start < at) {
                out.push_str(&self.source[copied..range.start]);
                out.push_str(word);
                copied = range.end;
            }
            out.push_str(&self.source[copied..at]);
            out.push_str(text);
            copied = at;
        }
        out
    }

    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    fn invalid(&self, what: &str) -> Error {
        let line = self.source[..self.at].matches('\n').count() + 1;
        Error::invalid_argument(format!("the chat template is not valid: {what} in line {line}")).with("line", line)
    }

    fn template(&mut self) -> Result<()> {
        while let Some(open) = self.rest().find('{') {
            self.at += open;
            match self.rest().as_bytes().get(1) {
                Some(b'#') => self.at += self.rest().find("#}").map_or(self.rest().len(), |end| end + 2),
                Some(b'{') => self.tag(2 + usize::from(self.rest()[2..].starts_with(['-', '+'])), "}}")?,
                Some(b'%') => self.statement()?,
                _ => self.at += 1,
            }
        }
        self.at = self.source.len();
        Ok(())
    }

    /// Passes over `{%` with its sign, and white space; gives the word there.
    fn statement_word(&self, from: usize) -> (usize, &'a str) {
        let inner = &self.source[from + 2..];
        let trimmed = inner.strip_prefix(['-', '+']).unwrap_or(inner).trim_start();
        let end = trimmed.find(|c: char| !is_word(c)).unwrap_or(trimmed.len());
        (self.source.len() - trimmed.len(), &trimmed[..end])
    }

    fn statement(&mut self) -> Result<()> {
        let (start, word) = self.statement_word(self.at);
        let end = start + word.len();
        match word {
            "raw" => return self.raw(end),
            "generation" => self.replacements.push((start..end, "with")),
            "endgeneration" => self.replacements.push((start..end, "endwith")),
            _ => {}
        }
        match word {
            "elif" => *self.blocks.last_mut().unwrap_or(&mut 0) += 1,
            "if" | "for" | "with" | "macro" | "call" | "filter" | "generation" | "autoescape" | "set" => {
                self.blocks.push(1)
            }
            _ if word.starts_with("end") => drop(self.blocks.pop()),
            _ => {}
        }
        if self.blocks.iter().sum::<usize>() > MAX_BLOCKS {
            return Err(self.invalid(&format!("more than {MAX_BLOCKS} blocks in each other")));
        }
        self.in_for = (word == "for").then_some(false);
        if word == "set" { self.set(end) } else { self.tag(end - self.at, "%}") }
    }

    /// Text up to `{% endraw %}`, which is no template.
    fn raw(&mut self, from: usize) -> Result<()> {
        self.at = from;
        while let Some(open) = self.rest().find("{%") {
            self.at += open;
            let (start, word) = self.statement_word(self.at);
            self.at += 2;
            if word == "endraw" {
                self.at = start + word.len();
                return self.tag(0, "%}");
            }
        }
        self.at = self.source.len();
        Ok(())
    }

    /// `set x = e`, where what is assigned is kept; or a `set` block.
    fn set(&mut self, end: usize) -> Result<()> {
        let target = &self.source[end..];
        let length = target.find(['=', '%', '|']).unwrap_or(target.len());
        if !target[length..].starts_with('=') {
            return self.tag(end - self.at, "%}");
        }
        // An assignment has no end of its own.
        self.blocks.pop();
        self.insertions.push((end + length + 1, "("));
        let keep = if target[..length].contains('.') { ")|_keep " } else { ")|_own " };
        self.tag_with(end + length + 1 - self.at, "%}", keep)
    }

    fn tag(&mut self, skip: usize, close: &str) -> Result<()> {
        self.tag_with(skip, close, "")
    }

    /// Reads the tokens of a tag up to its end, before which `after` is put.
    fn tag_with(&mut self, skip: usize, close: &str, after: &'static str) -> Result<()> {
        self.at += skip;
        self.levels.clear();
        self.levels.push(Level::new(0, "", self.at));
        self.chain = 0;
        // Whether what stands before is an operand: an operator or a subscript may follow.
        let mut operand = false;
        self.joined = false;
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start();
            self.at = self.source.len() - trimmed.len();
            let Some(c) = trimmed.chars().next() else { return Ok(()) };
            if self.levels.len() == 1 {
                let body = trimmed.strip_prefix(['-', '+']).unwrap_or(trimmed);
                if body.starts_with(close) {
                    self.end_sum();
                    self.end_for();
                    self.insertions.push((self.at, after));
                    self.at = self.source.len() - body.len() + close.len();
                    return Ok(());
                }
            }
            self.count()?;
            if !operand
                && !std::mem::take(&mut self.joined)
                && let Some(level) = self.levels.last_mut()
            {
                level.operand = self.at;
            }
            operand = match c {
                '\'' | '"' => {
                    self.at += string_length(trimmed);
                    true
                }
                '(' | '[' | '{' => {
                    self.open(c, operand);
                    false
                }
                ')' | ']' | '}' => {
                    self.close(c as u8)?;
                    true
                }
                c if is_word(c) => self.word(trimmed),
                _ => {
                    self.operator(trimmed, c, operand);
                    false
                }
            };
        }
    }

    /// One token more in this expression.
    fn count(&mut self) -> Result<()> {
        self.chain += 1;
        if let Some(level) = self.levels.last_mut() {
            level.chain += 1;
        }
        if self.chain > MAX_CHAIN {
            return Err(self.invalid(&format!("an expression of more than {MAX_CHAIN} parts")));
        }
        Ok(())
    }

    fn open(&mut self, c: char, operand: bool) {
        let in_argument = self.levels.last().is_some_and(|level| level.operand == self.argument);
        let mut subscripted = None;
        let (close, after) = match (c, operand) {
            ('[', _) if in_argument => (b']', ""),
            ('{', _) if in_argument => (b'}', ""),
            ('(', _) => (b')', ""),
            ('[', true) => {
                let start = self.levels.last().map_or(self.at, |level| level.operand);
                self.read(start, self.at, "|_read)");
                subscripted = Some(start);
                (b']', "")
            }
            ('[', false) => (b']', "|_own)"),
            _ => (b'}', "|_own_map)"),
        };
        if !after.is_empty() {
            self.insertions.push((self.at, "("));
        }
        self.at += 1;
        self.levels.push(Level { subscripted, ..Level::new(close, after, self.at) });
    }

    fn close(&mut self, c: u8) -> Result<()> {
        self.end_sum();
        match self.levels.pop() {
            Some(level) if level.close == c && !self.levels.is_empty() => {
                self.at += 1;
                self.insertions.push((self.at, level.after));
                if let Some(start) = level.subscripted.filter(|_| level.is_slice) {
                    self.read(start, self.at, "|_own)");
                }
                self.chain -= level.chain;
                Ok(())
            }
            _ => Err(self.invalid(&format!("a {:?} that nothing opened", char::from(c)))),
        }
    }

    /// A name, number or keyword; whether it is an operand.
    fn word(&mut self, text: &str) -> bool {
        let word = &text[..word_length(text)];
        let is_attribute = self.source[..self.at].ends_with('.');
        if is_attribute || !KEYWORDS.contains(&word) {
            let is_test = std::mem::take(&mut self.in_test);
            if is_test && !TYPE_TESTS.contains(&word) {
                self.read(self.tested.0, self.tested.1, "|_read) ");
            }
            self.at += word.len();
            return !(is_test && self.begins_argument());
        }
        if word == "is" {
            self.tested = (self.levels.last().map_or(self.at, |level| level.operand), self.at);
        }
        // A test binds more closely than a product: `is`, `is not` and `is in` go on with it.
        let goes_on = word == "is" || self.in_test;
        let is_in = self.in_test && word == "in";
        self.in_test = word == "is" || self.in_test && word == "not";
        if goes_on {
            self.at += word.len();
            if is_in {
                self.begins_argument();
            }
        } else {
            self.end_sum();
            if self.levels.len() == 1 && matches!(word, "if" | "recursive") {
                self.end_for();
            }
            self.at += word.len();
            if self.in_for == Some(false) && self.levels.len() == 1 {
                self.in_for = Some(true);
                self.insertions.push((self.at, "("));
            }
            self.begin_sum();
        }
        false
    }

    /// Behind the name of a test: whether an argument comes, which may stand without brackets. Notes where.
    fn begins_argument(&mut self) -> bool {
        let next = self.rest().trim_start();
        let begins = begins_operand(next);
        if begins {
            self.argument = self.source.len() - next.len();
        }
        begins
    }

    /// Ends what a loop goes over, if that is being read.
    fn end_for(&mut self) {
        if self.in_for.take_if(|over| *over).is_some() {
            self.insertions.push((self.at, ")|_each "));
        }
    }

    fn operator(&mut self, text: &str, c: char, operand: bool) {
        let token = OPERATORS.iter().find(|operator| text.starts_with(**operator)).copied();
        let token = token.unwrap_or(&text[..c.len_utf8()]);
        match token {
            "*" if operand => {
                self.end_times();
                if let Some(level) = self.levels.last_mut() {
                    self.insertions.push((level.product, "("));
                    // Opened last, so outside of what begins at the same place.
                    self.insertions.push((self.at, ")|_times("));
                    level.in_times = true;
                }
                self.replacements.push((self.at..self.at + 1, ""));
                self.at += 1;
            }
            "/" | "//" | "%" => {
                self.end_times();
                self.at += token.len();
            }
            "." | "|" => {
                self.joined = true;
                self.at += 1;
            }
            "**" => self.at += token.len(),
            // A sign is part of its operand.
            "+" | "-" if !operand => self.at += 1,
            "+" | "-" | "~" => {
                self.end_times();
                self.at += 1;
                self.begin_product();
                if let Some(level) = self.levels.last_mut() {
                    level.in_sum |= token == "+";
                }
            }
            "," | ":" => {
                self.end_sum();
                self.at += 1;
                self.begin_sum();
                if let Some(level) = self.levels.last_mut() {
                    level.is_slice |= token == ":";
                    self.chain -= level.chain;
                    level.chain = 0;
                }
            }
            _ => {
                self.end_sum();
                if matches!(token, "==" | "!=" | "<=" | ">=" | "<" | ">") {
                    let start = self.levels.last().map_or(self.at, |level| level.sum);
                    self.read(start, self.at, ")|_read ");
                }
                self.at += token.len();
                self.begin_sum();
            }
        }
    }

    /// Passes what stands between two places through a filter.
    fn read(&mut self, start: usize, end: usize, after: &'static str) {
        self.insertions.push((start, "("));
        self.insertions.push((end, after));
    }

    fn begin_sum(&mut self) {
        if let Some(level) = self.levels.last_mut() {
            level.sum = self.at;
        }
        self.begin_product();
    }

    fn begin_product(&mut self) {
        if let Some(level) = self.levels.last_mut() {
            level.product = self.at;
        }
    }

    /// Ends a sum, and what is open in it, if there is one here.
    fn end_sum(&mut self) {
        self.end_times();
        if let Some(level) = self.levels.last_mut()
            && std::mem::take(&mut level.in_sum)
        {
            // Opened last, so outside of what begins at the same place.
            self.insertions.push((level.sum, "("));
            self.insertions.push((self.at, ")|_own "));
        }
    }

    /// Ends the second factor of a product, if one is open here.
    fn end_times(&mut self) {
        if let Some(level) = self.levels.last_mut()
            && std::mem::take(&mut level.in_times)
        {
            self.insertions.push((self.at, ")"));
        }
    }
}

/// Whether a text begins with a string, a list, a dict, a name or a number.
fn begins_operand(text: &str) -> bool {
    let word = &text[..word_length(text)];
    text.starts_with(['\'', '"', '[', '{']) || !word.is_empty() && !KEYWORDS.contains(&word)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The length of the name or number that the text begins with.
fn word_length(text: &str) -> usize {
    let is_number = text.starts_with(|c: char| c.is_ascii_digit());
    let mut before = ' ';
    let goes_on = |c: char| {
        let goes_on = is_word(c) || is_number && (matches!(c, '+' | '-') && matches!(before, 'e' | 'E'));
        before = c;
        !goes_on
    };
    text.find(goes_on).unwrap_or(text.len())
}

/// The length of the string that the text begins with, quotes included.
fn string_length(text: &str) -> usize {
    let quote = text.as_bytes()[0];
    let mut escaped = false;
    for (i, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            byte if byte == quote => return i + 1,
            _ => {}
        }
    }
    text.len()
}
