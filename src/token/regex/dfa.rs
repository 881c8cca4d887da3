//! Trees as tables: a program of small steps, as in the engine of Thompson (1968), and from it an automaton each of whose
//! states is a list of steps in the order in which backtracking would try them.

use super::classes::{Classes, END};
use super::parse::Tree;
use std::collections::HashMap;

enum Step {
    /// A character of the set, then the next step.
    Set(usize),
    /// No character of the set comes next; then the next step.
    Unless(usize),
    /// One step or, if that leads nowhere, the other.
    Either(usize, usize),
    Jump(usize),
    Match,
}

/// The state before the first character.
pub(super) const START: u16 = 0;
/// The state in which no match is possible any more.
pub(super) const DEAD: u16 = 1;

/// More states than any pattern of a pre-tokenizer needs.
const MOST_STATES: usize = 4096;

/// Set in a transition if a match ends before the character.
const MATCHED: u16 = 1 << 15;

pub(super) struct Dfa {
    /// Next state by state and class.
    transitions: Vec<u16>,
    classes: usize,
}

impl Dfa {
    /// `None` if the automaton is too large.
    pub fn new(tree: &Tree, classes: &Classes) -> Option<Dfa> {
        let mut program = Vec::new();
        emit(tree, &mut program);
        program.push(Step::Match);

        let mut start = Vec::new();
        follow(&program, 0, &mut start);
        let mut states = vec![start, Vec::new()];
        let mut numbers: HashMap<Vec<usize>, u16> = states.iter().cloned().zip(0..).collect();
        let mut transitions = Vec::new();
        let mut at = 0;
        while at < states.len() {
            for class in 0..classes.len() {
                let mut next = Vec::new();
                let matched = advance(&program, classes, &states[at], class as u8, &mut next);
                let number = *numbers.entry(next).or_insert_with_key(|next| {
                    states.push(next.clone());
                    (states.len() - 1) as u16
                });
                transitions.push(number | if matched { MATCHED } else { 0 });
            }
            at += 1;
            if states.len() > MOST_STATES {
                return None;
            }
        }
        Some(Dfa { transitions, classes: classes.len() })
    }

    /// The state after a character, and whether a match ends before it.
    #[inline]
    pub fn step(&self, state: u16, class: u8) -> (u16, bool) {
        let next = self.transitions[usize::from(state) * self.classes + usize::from(class)];
        (next & !MATCHED, next & MATCHED != 0)
    }

    /// Whether a match may begin with a character of the class.
    #[inline]
    pub fn begins(&self, class: u8) -> bool {
        self.step(START, class).0 != DEAD
    }
}

fn emit(tree: &Tree, program: &mut Vec<Step>) {
    match tree {
        Tree::Set(set) => program.push(Step::Set(*set)),
        Tree::Unless(set) => program.push(Step::Unless(*set)),
        Tree::Sequence(parts) => parts.iter().for_each(|part| emit(part, program)),
        Tree::Either(choices) => {
            let mut jumps = Vec::new();
            for (i, choice) in choices.iter().enumerate() {
                let either = program.len();
                if i + 1 == choices.len() {
                    emit(choice, program);
                    continue;
                }
                program.push(Step::Match); // to be replaced
                emit(choice, program);
                jumps.push(program.len());
                program.push(Step::Match); // to be replaced
                program[either] = Step::Either(either + 1, program.len());
            }
            let end = program.len();
            jumps.into_iter().for_each(|jump| program[jump] = Step::Jump(end));
        }
        Tree::Repeat(part, least, most) => {
            (0..*least).for_each(|_| emit(part, program));
            let optional = |program: &mut Vec<Step>| {
                let either = program.len();
                program.push(Step::Match); // to be replaced
                emit(part, program);
                either
            };
            match most {
                None => {
                    let either = optional(program);
                    program.push(Step::Jump(either));
                    program[either] = Step::Either(either + 1, program.len());
                }
                Some(most) => {
                    let choices: Vec<usize> = (*least..*most).map(|_| optional(program)).collect();
                    let end = program.len();
                    choices.into_iter().for_each(|either| program[either] = Step::Either(either + 1, end));
                }
            }
        }
    }
}

/// Adds the steps that look at the text which are reached from a step without looking, in order of preference.
fn follow(program: &[Step], from: usize, list: &mut Vec<usize>) {
    let mut seen = vec![false; program.len()];
    list.iter().for_each(|&step| seen[step] = true);
    let mut open = vec![from];
    while let Some(step) = open.pop() {
        if std::mem::replace(&mut seen[step], true) {
            continue;
        }
        match program[step] {
            Step::Either(first, second) => open.extend([second, first]),
            Step::Jump(to) => open.push(to),
            _ => list.push(step),
        }
    }
}

/// Reads a character of the class: adds the steps of the next state, and says whether a match ends before the character.
fn advance(program: &[Step], classes: &Classes, state: &[usize], class: u8, next: &mut Vec<usize>) -> bool {
    for &step in state {
        match program[step] {
            Step::Set(set) if class != END && classes.contains(set, class) => follow(program, step + 1, next),
            Step::Unless(set) if class == END || !classes.contains(set, class) => {
                let mut after = Vec::new();
                follow(program, step + 1, &mut after);
                if advance(program, classes, &after, class, next) {
                    return true;
                }
            }
            // What comes later in the list would only count if this did not match.
            Step::Match => return true,
            _ => {}
        }
    }
    false
}
