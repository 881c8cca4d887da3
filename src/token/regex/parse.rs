//! Patterns as trees.

use super::super::unicode::{CATEGORIES, WHITE_SPACE};

/// A set of characters.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Set {
    /// Bit `i`: all characters of category `i` of [`CATEGORIES`].
    categories: u32,
    ranges: Vec<(u32, u32)>,
    negated: bool,
    /// What its members must also be in.
    and: Option<Box<Set>>,
}

impl Set {
    /// Whether it has the character, of which the category is known.
    pub fn contains(&self, c: u32, category: usize) -> bool {
        let listed = self.categories >> category & 1 == 1 || self.ranges.iter().any(|&(a, b)| a <= c && c <= b);
        listed != self.negated && self.and.as_ref().is_none_or(|and| and.contains(c, category))
    }

    /// All ranges that are written in it.
    pub fn ranges(&self) -> impl Iterator<Item = (u32, u32)> {
        let mut sets: Vec<&Set> = vec![self];
        while let Some(and) = sets.last().and_then(|set| set.and.as_deref()) {
            sets.push(and);
        }
        sets.into_iter().flat_map(|set| set.ranges.iter().copied())
    }

    fn one(c: char) -> Set {
        Set { ranges: vec![(c as u32, c as u32)], ..Set::default() }
    }
}

/// A pattern; sets by their index.
pub(super) enum Tree {
    Set(usize),
    /// `(?!set)`
    Unless(usize),
    Sequence(Vec<Tree>),
    /// The first that matches counts.
    Either(Vec<Tree>),
    /// As often as possible; `None` is without limit.
    Repeat(Box<Tree>, u32, Option<u32>),
}

struct Parser<'a> {
    rest: std::str::Chars<'a>,
    sets: Vec<Set>,
    any_case: bool,
}

/// The tree of a pattern and its sets; `None` for what is not understood.
pub(super) fn parse(pattern: &str) -> Option<(Tree, Vec<Set>)> {
    let mut parser = Parser { rest: pattern.chars(), sets: Vec::new(), any_case: false };
    let tree = parser.either()?;
    parser.rest.as_str().is_empty().then_some((tree, parser.sets))
}

impl Parser<'_> {
    fn peek(&self) -> Option<char> {
        self.rest.clone().next()
    }

    /// Passes over a text if it comes next.
    fn eat(&mut self, text: &str) -> bool {
        let after = self.rest.as_str().strip_prefix(text);
        if let Some(after) = after {
            self.rest = after.chars();
        }
        after.is_some()
    }

    /// Takes what stands before the next `end`, and passes over that.
    fn until(&mut self, end: char) -> Option<&str> {
        let (before, after) = self.rest.as_str().split_once(end)?;
        self.rest = after.chars();
        Some(before)
    }

    fn either(&mut self) -> Option<Tree> {
        let mut choices = vec![self.sequence()?];
        while self.eat("|") {
            choices.push(self.sequence()?);
        }
        Some(Tree::Either(choices))
    }

    fn sequence(&mut self) -> Option<Tree> {
        let mut parts = Vec::new();
        while !matches!(self.peek(), None | Some('|' | ')')) {
            let atom = self.atom()?;
            parts.push(self.repeated(atom)?);
        }
        Some(Tree::Sequence(parts))
    }

    fn repeated(&mut self, atom: Tree) -> Option<Tree> {
        let (least, most) = if self.eat("*") {
            (0, None)
        } else if self.eat("+") {
            (1, None)
        } else if self.eat("?") {
            (0, Some(1))
        } else if self.eat("{") {
            let counts = self.until('}')?;
            let (least, most) = counts.split_once(',').unwrap_or((counts, counts));
            (least.parse().ok()?, Some(most.parse().ok()?))
        } else {
            return Some(atom);
        };
        Some(Tree::Repeat(Box::new(atom), least, most))
    }

    fn atom(&mut self) -> Option<Tree> {
        if self.eat("(?!") {
            let set = self.set()?;
            let set = self.index(set);
            return self.eat(")").then_some(Tree::Unless(set));
        }
        if self.eat("(") {
            let outside = self.any_case;
            self.any_case = self.eat("?i:") || outside;
            self.eat("?:");
            let inside = self.either()?;
            self.any_case = outside;
            return self.eat(")").then_some(inside);
        }
        let set = self.set()?;
        Some(Tree::Set(self.index(set)))
    }

    fn index(&mut self, set: Set) -> usize {
        self.sets.iter().position(|other| *other == set).unwrap_or_else(|| {
            self.sets.push(set);
            self.sets.len() - 1
        })
    }

    /// One character, escape or class.
    fn set(&mut self) -> Option<Set> {
        if self.eat("[") {
            return self.class();
        }
        match self.rest.next()? {
            '\\' => self.escape(),
            // What may stand elsewhere in a pattern means something here.
            '*' | '+' | '?' | '{' | '(' | ')' | '.' | '^' | '$' => None,
            c => Some(self.one(c)),
        }
    }

    /// One character, in both cases where that is asked for.
    fn one(&self, c: char) -> Set {
        let mut set = Set::one(c);
        if self.any_case && c.is_ascii_alphabetic() {
            set = Set::one(c.to_ascii_lowercase());
            set.ranges.extend(Set::one(c.to_ascii_uppercase()).ranges);
            // The two others that are ASCII letters if case does not count: long s and the Kelvin sign.
            match c.to_ascii_lowercase() {
                's' => set.ranges.extend(Set::one('\u{17F}').ranges),
                'k' => set.ranges.extend(Set::one('\u{212A}').ranges),
                _ => {}
            }
        }
        set
    }

    /// What follows a backslash.
    fn escape(&mut self) -> Option<Set> {
        let white = || Set { ranges: WHITE_SPACE.to_vec(), ..Set::default() };
        Some(match self.rest.next()? {
            'r' => Set::one('\r'),
            'n' => Set::one('\n'),
            't' => Set::one('\t'),
            's' => white(),
            'S' => Set { negated: true, ..white() },
            'd' => Set { categories: categories("Nd")?, ..Set::default() },
            'p' if self.eat("{") => Set { categories: categories(self.until('}')?)?, ..Set::default() },
            c if c.is_ascii_punctuation() => Set::one(c),
            _ => return None,
        })
    }

    /// What follows `[`.
    fn class(&mut self) -> Option<Set> {
        let mut set = Set { negated: self.eat("^"), ..Set::default() };
        while !self.eat("]") {
            if self.eat("&&[") {
                set.and = Some(Box::new(self.class()?));
                continue;
            }
            let item = match self.rest.next()? {
                '\\' => self.escape()?,
                c => self.one(c),
            };
            if item.negated {
                return None;
            }
            set.categories |= item.categories;
            let ends_range = self.peek() == Some('-') && !self.rest.as_str().starts_with("-]");
            match *item.ranges {
                [(first, last)] if first == last && ends_range => {
                    self.eat("-");
                    let c = self.rest.next()?;
                    let to = if c == '\\' { self.escape()? } else { Set::one(c) };
                    set.ranges.push((first, to.ranges.first()?.0));
                }
                _ => set.ranges.extend(item.ranges),
            }
        }
        Some(set)
    }
}

/// The categories whose names begin so, as bits.
fn categories(name: &str) -> Option<u32> {
    let named = CATEGORIES.iter().zip(0..).filter(|(category, _)| category.abbreviation().starts_with(name));
    Some(named.fold(0, |bits, (_, i)| bits | 1 << i)).filter(|&bits| bits != 0)
}
