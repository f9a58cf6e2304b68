//! Lays out conditions as instructions: tests in their order, and jumps forward between them.
//!
//! All jumps go forward, so at a label everything that jumps there is known: what all of them have just
//! calculated is not calculated again, and what none reaches is left out.
//!
//! A conditional jump reaches 255 instructions. Where its target is farther away, it jumps to an
//! unconditional jump behind itself.
use super::{
    condition::{Condition, Statement},
    error::FilterError,
    program::{MAX_INSTRUCTIONS, PASSED, Program, code, extension},
    syntax::Connective,
};

/// A place in the program, bound to it once the place is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label(usize);

#[derive(Debug)]
enum Item {
    Statement(Statement),
    Branch { code: u16, constant: u32, then: Label, otherwise: Label },
    Goto(Label),
}

/// A program under construction.
#[derive(Debug)]
pub(super) struct Assembler {
    items: Vec<Item>,
    /// The item at which each label stands.
    labels: Vec<usize>,
    /// The statements that come last on every way to each label; `None` for a label without a way.
    ways: Vec<Option<Vec<Statement>>>,
    /// The last statements on every way for the next item.
    here: Option<Vec<Statement>>,
    passed: Label,
    rejected: Label,
}

impl Assembler {
    pub(super) fn new() -> Assembler {
        Assembler {
            items: Vec::new(),
            labels: vec![0, 0],
            ways: vec![None, None],
            here: Some(Vec::new()),
            passed: Label(0),
            rejected: Label(1),
        }
    }

    pub(super) fn label(&mut self) -> Label {
        self.labels.push(0);
        self.ways.push(None);
        Label(self.labels.len() - 1)
    }

    /// Binds a label to the next item.
    pub(super) fn bind(&mut self, label: Label) {
        self.reach(label);
        if let Some(place) = self.labels.get_mut(label.0) {
            *place = self.items.len();
        }
        self.here = self.ways.get(label.0).cloned().flatten();
    }

    /// Notes a way from here to a label.
    fn reach(&mut self, label: Label) {
        let (Some(way), Some(here)) = (self.ways.get_mut(label.0), &self.here) else { return };
        match way {
            None => *way = Some(here.clone()),
            Some(known) if known != here => known.clear(),
            Some(_) => {}
        }
    }

    fn goto(&mut self, label: Label) {
        self.reach(label);
        self.items.push(Item::Goto(label));
        self.here = None;
    }

    /// Calculates a number and branches on its comparison.
    fn branch(&mut self, statements: &[Statement], code: u16, constant: u32, then: Label, otherwise: Label) {
        let Some(before) = self.here.take() else { return };
        let known = if statements.starts_with(&before) { before.len() } else { 0 };
        self.items.extend(statements.iter().skip(known).map(|statement| Item::Statement(*statement)));
        self.here = Some(statements.to_vec());
        self.reach(then);
        self.reach(otherwise);
        self.items.push(Item::Branch { code: code::JMP | code, constant, then, otherwise });
        self.here = None;
    }

    /// Branches on data that is not in the packet.
    pub(super) fn branch_on_extension(
        &mut self,
        number: libc::c_int,
        constant: u32,
        then: Label,
        otherwise: Label,
    ) {
        let load = (code::LD | code::ABS | code::W, extension(number));
        self.branch(&[load], code::JEQ, constant, then, otherwise);
    }

    /// Rejects packets that do not satisfy a condition.
    pub(super) fn require(&mut self, condition: &Condition) {
        let satisfied = self.label();
        self.condition(condition, satisfied, self.rejected);
        self.bind(satisfied);
    }

    /// Appends a condition that decides about the packet.
    pub(super) fn part(&mut self, condition: &Condition) {
        self.condition(condition, self.passed, self.rejected);
    }

    fn condition(&mut self, condition: &Condition, then: Label, otherwise: Label) {
        match condition {
            _ if self.here.is_none() => {}
            Condition::Always(true) => self.goto(then),
            Condition::Always(false) => self.goto(otherwise),
            Condition::Not(condition) => self.condition(condition, otherwise, then),
            Condition::Test { statements, jump, constant } => {
                self.branch(statements, *jump, *constant, then, otherwise);
            }
            Condition::Chain(operands) => self.chain(operands, then, otherwise),
        }
    }

    /// A satisfied operand skips what is connected by `or`, up to the next `and`; any other operand the
    /// reverse.
    fn chain(&mut self, operands: &[(Connective, Condition)], then: Label, otherwise: Label) {
        let mut targets = Vec::with_capacity(operands.len());
        let (mut and, mut or) = (then, otherwise);
        for (connective, _) in operands.iter().rev() {
            let start = self.label();
            targets.push((start, and, or));
            match connective {
                Connective::And => and = start,
                Connective::Or => or = start,
            }
        }
        for ((_, condition), (start, and, or)) in operands.iter().zip(targets.into_iter().rev()) {
            self.bind(start);
            self.condition(condition, and, or);
        }
    }

    /// Returns the program.
    ///
    /// # Errors
    /// [`FilterError::TooComplex`].
    pub(super) fn finish(mut self) -> Result<Program, FilterError> {
        for (label, answer) in [(self.passed, PASSED), (self.rejected, 0)] {
            self.bind(label);
            self.items.push(Item::Statement((code::RET | code::K, answer)));
        }
        // Each far jump makes others longer: repeat until none changes.
        let mut far = vec![(false, false); self.items.len()];
        loop {
            let places = self.places(&far);
            let mut changed = false;
            for (at, (item, far)) in self.items.iter().zip(&mut far).enumerate() {
                let Item::Branch { then, otherwise, .. } = item else { continue };
                let distance = |label| self.distance(&places, at, label);
                // The two jumps behind this one add to the distance at most 2.
                let now = (far.0 || distance(*then) > 253, far.1 || distance(*otherwise) > 253);
                changed |= now != *far;
                *far = now;
            }
            if !changed {
                return self.encode(&places, &far);
            }
        }
    }

    /// Returns the place of each item's first instruction, and of the end.
    fn places(&self, far: &[(bool, bool)]) -> Vec<usize> {
        let mut places = Vec::with_capacity(self.items.len() + 1);
        let mut place = 0;
        for (item, far) in self.items.iter().zip(far) {
            places.push(place);
            place += match item {
                Item::Branch { .. } => 1 + usize::from(far.0) + usize::from(far.1),
                Item::Statement(_) | Item::Goto(_) => 1,
            };
        }
        places.push(place);
        places
    }

    fn place(&self, places: &[usize], label: Label) -> usize {
        let item = self.labels.get(label.0).copied().unwrap_or_default();
        places.get(item).copied().unwrap_or_default()
    }

    /// Returns the instructions between the one at an item's place and a label.
    fn distance(&self, places: &[usize], at: usize, label: Label) -> usize {
        let from = places.get(at).copied().unwrap_or_default() + 1;
        self.place(places, label).saturating_sub(from)
    }

    fn encode(&self, places: &[usize], far: &[(bool, bool)]) -> Result<Program, FilterError> {
        let instructions = places.last().copied().unwrap_or_default();
        if instructions > MAX_INSTRUCTIONS {
            return Err(FilterError::TooComplex { instructions, limit: MAX_INSTRUCTIONS });
        }
        let mut code = Vec::with_capacity(instructions);
        let goto = |from: usize, label| {
            let distance = self.place(places, label).saturating_sub(from + 1);
            libc::sock_filter { code: code::JMP | code::JA, jt: 0, jf: 0, k: distance as u32 }
        };
        for (at, (item, far)) in self.items.iter().zip(far).enumerate() {
            match item {
                Item::Statement((statement, k)) => {
                    code.push(libc::sock_filter { code: *statement, jt: 0, jf: 0, k: *k });
                }
                Item::Goto(label) => code.push(goto(code.len(), *label)),
                Item::Branch { code: jump, constant, then, otherwise } => {
                    let near = |label| self.distance(places, at, label) as u8;
                    let jt = if far.0 { 0 } else { near(*then) };
                    let jf = if far.1 { u8::from(far.0) } else { near(*otherwise) };
                    code.push(libc::sock_filter { code: *jump, jt, jf, k: *constant });
                    for (far, label) in [(far.0, then), (far.1, otherwise)] {
                        if far {
                            code.push(goto(code.len(), *label));
                        }
                    }
                }
            }
        }
        Ok(Program::new(code))
    }
}
