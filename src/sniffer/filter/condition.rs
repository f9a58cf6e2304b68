//! Conditions: tests of a packet's bytes, connected as in the expression.
use super::{
    program::{code, extension},
    syntax::Connective,
};

/// An instruction without jumps: its code and its constant.
pub(super) type Statement = (u16, u32);

/// A condition that a packet satisfies or not.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Condition {
    Always(bool),
    /// Statements that leave a number in A, and its comparison with `constant` or, by the code of the
    /// jump, with X.
    Test {
        statements: Vec<Statement>,
        jump: u16,
        constant: u32,
    },
    Not(Box<Condition>),
    /// Operands from left to right; the first one's connective means nothing.
    Chain(Vec<(Connective, Condition)>),
}

/// Bytes of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    Byte,
    Half,
    Word,
}

impl Size {
    /// Returns the size's part of an instruction's code.
    pub(super) fn code(self) -> u16 {
        match self {
            Size::Byte => code::B,
            Size::Half => code::H,
            Size::Word => code::W,
        }
    }
}

impl Condition {
    pub(super) fn not(self) -> Condition {
        Condition::Not(Box::new(self))
    }

    /// Returns the condition that all of `conditions` are satisfied, tested in their order.
    pub(super) fn all(conditions: impl IntoIterator<Item = Condition>) -> Condition {
        Condition::chain(Connective::And, conditions, true)
    }

    /// Returns the condition that any of `conditions` is satisfied, tested in their order.
    pub(super) fn any(conditions: impl IntoIterator<Item = Condition>) -> Condition {
        Condition::chain(Connective::Or, conditions, false)
    }

    fn chain(
        connective: Connective,
        conditions: impl IntoIterator<Item = Condition>,
        neutral: bool,
    ) -> Condition {
        let mut operands: Vec<_> = conditions
            .into_iter()
            .filter(|condition| *condition != Condition::Always(neutral))
            .map(|condition| (connective, condition))
            .collect();
        match (operands.pop(), operands.is_empty()) {
            (None, _) => Condition::Always(neutral),
            (Some((_, only)), true) => only,
            (Some(last), false) => {
                operands.push(last);
                Condition::Chain(operands)
            }
        }
    }

    /// Compares some bits of data that is not in the packet with a number.
    pub(super) fn extension(number: libc::c_int, mask: u32, constant: u32) -> Condition {
        let load = (code::LD | code::ABS | code::W, extension(number));
        let statements = vec![load, (code::ALU | code::AND | code::K, mask)];
        Condition::Test { statements, jump: code::JEQ | code::K, constant }
    }

    /// Compares bytes at a position with a number.
    pub(super) fn compare(size: Size, at: u32, jump: u16, constant: u32) -> Condition {
        let load = (code::LD | code::ABS | size.code(), at);
        Condition::Test { statements: vec![load], jump: jump | code::K, constant }
    }

    pub(super) fn equal(size: Size, at: u32, constant: u32) -> Condition {
        Condition::compare(size, at, code::JEQ, constant)
    }

    pub(super) fn greater(size: Size, at: u32, constant: u32) -> Condition {
        Condition::compare(size, at, code::JGT, constant)
    }

    pub(super) fn at_least(size: Size, at: u32, constant: u32) -> Condition {
        Condition::compare(size, at, code::JGE, constant)
    }

    pub(super) fn any_bit(size: Size, at: u32, bits: u32) -> Condition {
        Condition::compare(size, at, code::JSET, bits)
    }

    /// Compares the bits of a mask.
    pub(super) fn masked(size: Size, at: u32, mask: u32, constant: u32) -> Condition {
        match mask {
            0 => Condition::Always(constant == 0),
            u32::MAX => Condition::equal(size, at, constant),
            _ => {
                let load = (code::LD | code::ABS | size.code(), at);
                let and = (code::ALU | code::AND | code::K, mask);
                Condition::Test { statements: vec![load, and], jump: code::JEQ | code::K, constant }
            }
        }
    }
}
