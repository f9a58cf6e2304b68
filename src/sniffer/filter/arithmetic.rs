//! Parses arithmetic.
//!
//! `|`, `&`, shifts, `+ -` and `* /` bind in this order, the last ones tightest. libpcap's grammar gives
//! `%` and `^` no precedence: their right side reaches as far as it can.
use super::{
    error::Fault,
    parser::{MAX_DEPTH, Parser},
    syntax::{Operator, Value},
    token::Token,
    words,
};

impl Parser {
    /// Parses an arithmetic expression.
    pub(super) fn arithmetic(&mut self) -> Result<Value, Fault> {
        self.deeper(|parser| parser.operation(0))
    }

    /// Parses operators that bind at least as tightly as `tightness`.
    fn operation(&mut self, tightness: u8) -> Result<Value, Fault> {
        let mut left = self.operand()?;
        for _ in 0..MAX_DEPTH {
            let Some((operator, binds)) =
                self.operator().filter(|(_, binds)| binds.is_none_or(|binds| binds >= tightness))
            else {
                return Ok(left);
            };
            self.at += 1;
            let place = self.place();
            let right = self.deeper(|parser| parser.operation(binds.map_or(0, |binds| binds + 1)))?;
            if let Value::Number(number) = right {
                match operator {
                    Operator::Divide | Operator::Modulo if number == 0 => {
                        return Err(Fault::new(&place, "division by zero"));
                    }
                    Operator::ShiftLeft | Operator::ShiftRight if number > 31 => {
                        return Err(Fault::new(&place, "numbers have 32 bits: shift by 31 at most"));
                    }
                    _ => {}
                }
            }
            left = Value::Calculated(Box::new(left), operator, Box::new(right));
        }
        Err(Fault::new(&self.place(), "the arithmetic has too many operators"))
    }

    /// Returns the next operator and how tightly it binds.
    fn operator(&self) -> Option<(Operator, Option<u8>)> {
        let Some(Token::Symbol(symbol)) = self.peek() else { return None };
        Some(match *symbol {
            "|" => (Operator::Or, Some(1)),
            "&" => (Operator::And, Some(2)),
            "<<" => (Operator::ShiftLeft, Some(3)),
            ">>" => (Operator::ShiftRight, Some(3)),
            "+" => (Operator::Add, Some(4)),
            "-" => (Operator::Subtract, Some(4)),
            "*" => (Operator::Multiply, Some(5)),
            "/" => (Operator::Divide, Some(5)),
            "%" => (Operator::Modulo, None),
            "^" => (Operator::Xor, None),
            _ => return None,
        })
    }

    fn operand(&mut self) -> Result<Value, Fault> {
        let start = self.at;
        match self.peek() {
            Some(Token::Number(number)) => {
                let number = *number;
                self.at += 1;
                Ok(Value::Number(number))
            }
            Some(Token::Symbol("-")) => {
                self.at += 1;
                Ok(Value::Negated(Box::new(self.deeper(|parser| parser.operation(6))?)))
            }
            Some(Token::Symbol("(")) => {
                self.at += 1;
                let value = self.arithmetic()?;
                if self.take(")") { Ok(value) } else { Err(self.expected("an operator or \")\"")) }
            }
            Some(Token::Keyword("len")) => {
                self.at += 1;
                Ok(Value::Length)
            }
            Some(Token::Keyword(word)) => {
                let Some(protocol) = words::protocol(word) else { return Err(self.expected(WANTED)) };
                self.at += 1;
                if !self.take("[") {
                    return Err(self.expected(&format!("a position as {}[0]", protocol.word)));
                }
                let index = Box::new(self.arithmetic()?);
                let size = if self.take(":") { self.size()? } else { 1 };
                if !self.take("]") {
                    return Err(self.expected("\"]\""));
                }
                Ok(Value::Load { protocol, index, size, place: self.since(start) })
            }
            _ => Err(self.expected(WANTED)),
        }
    }

    /// Parses the size of a load, in bytes.
    fn size(&mut self) -> Result<u32, Fault> {
        match self.peek() {
            Some(Token::Number(size @ (1 | 2 | 4))) => {
                let size = *size;
                self.at += 1;
                Ok(size)
            }
            _ => Err(self.expected("a size of 1, 2 or 4 bytes")),
        }
    }
}

/// One side of a comparison.
const WANTED: &str = "a number, len, or bytes of a header as tcp[13]";
