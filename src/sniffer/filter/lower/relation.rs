//! Turns a comparison of numbers into tests of the protocols that it reads, and a calculation.
use super::{IP6_HEADER, OFFSET, ip_protocol};
use crate::{
    net::ip_protocol::ICMPV6,
    sniffer::filter::{
        condition::{
            Condition, Size,
            Size::{Byte, Half},
            Statement,
        },
        layout::Layout,
        machine::MEMORY,
        program::code,
        syntax::{IpVersion, Layer, Operator, Protocol, Relation, Value},
        words::ethertype,
    },
};

/// Largest position of a load that is a constant: behind any packet.
const MAX_POSITION: u32 = 0x000f_ffff;

/// Returns the condition of a comparison. It is false, whatever it compares, in packets without the
/// headers that it reads.
pub(super) fn lower(
    layout: &Layout,
    left: &Value,
    relation: Relation,
    right: &Value,
) -> Result<Condition, String> {
    let mut calculation = Calculation { layout, protocols: Vec::new(), statements: Vec::new() };
    let (source, constant) = calculation.pair(left, right, 0, true)?;
    let (jump, wanted) = match relation {
        Relation::Equal => (code::JEQ, true),
        Relation::NotEqual => (code::JEQ, false),
        Relation::Greater => (code::JGT, true),
        Relation::LessOrEqual => (code::JGT, false),
        Relation::GreaterOrEqual => (code::JGE, true),
        Relation::Less => (code::JGE, false),
    };
    let Calculation { mut protocols, statements, .. } = calculation;
    let test = Condition::Test { statements, jump: jump | source, constant };
    protocols.push(if wanted { test } else { test.not() });
    Ok(Condition::all(protocols))
}

/// Statements that calculate a number, and the protocols that their loads read.
struct Calculation<'a> {
    layout: &'a Layout,
    protocols: Vec<Condition>,
    statements: Vec<Statement>,
}

impl Calculation<'_> {
    fn add(&mut self, code: u16, constant: u32) {
        self.statements.push((code, constant));
    }

    /// Calculates `left` into A, and `right` into X unless it is a constant. Returns the source of the
    /// second operand, and the constant. Words of memory from `depth` on are free. Without `compared`, the
    /// protocols that the right side reads are not tested for, as in libpcap (gencode.c, gen_arth).
    fn pair(
        &mut self,
        left: &Value,
        right: &Value,
        depth: usize,
        compared: bool,
    ) -> Result<(u16, u32), String> {
        self.value(left, depth)?;
        if let Value::Number(number) = right {
            return Ok((code::K, *number));
        }
        if depth >= MEMORY {
            return Err("the arithmetic is nested too deeply".to_owned());
        }
        self.add(code::ST, depth as u32);
        let tested = self.protocols.len();
        self.value(right, depth + 1)?;
        if !compared {
            self.protocols.truncate(tested);
        }
        self.add(code::MISC | code::TAX, 0);
        self.add(code::LD | code::MEM, depth as u32);
        Ok((code::X, 0))
    }

    /// Calculates a number into A.
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), String> {
        match value {
            Value::Number(number) => self.add(code::LD | code::IMM, *number),
            Value::Length => self.add(code::LD | code::LEN | code::W, 0),
            Value::Negated(value) => {
                self.value(value, depth)?;
                self.add(code::ALU | code::NEG, 0);
            }
            Value::Calculated(left, operator, right) => {
                let (source, constant) = self.pair(left, right, depth, false)?;
                self.add(code::ALU | source | instruction(*operator), constant);
            }
            Value::Load { protocol, index, size, .. } => {
                let size = match size {
                    1 => Byte,
                    2 => Half,
                    _ => Size::Word,
                };
                self.load(*protocol, index, size, depth)?;
            }
        }
        Ok(())
    }

    /// Loads bytes of a header. The position is a constant, or calculated into A first.
    fn load(&mut self, protocol: Protocol, index: &Value, size: Size, depth: usize) -> Result<(), String> {
        let (base, behind_ip, checks) = self.header(protocol)?;
        let constant = match index {
            Value::Number(number) if *number > MAX_POSITION => {
                return Err("no packet is that long".to_owned());
            }
            Value::Number(number) => Some(*number),
            _ => {
                self.value(index, depth)?;
                None
            }
        };
        if behind_ip {
            self.add(code::LDX | code::MSH | code::B, base);
        }
        let place = match (constant, behind_ip) {
            (Some(number), true) => (code::IND, base + number),
            (Some(number), false) => (code::ABS, base + number),
            (None, _) => {
                if behind_ip {
                    self.add(code::ALU | code::ADD | code::X, 0);
                }
                self.add(code::MISC | code::TAX, 0);
                (code::IND, base)
            }
        };
        self.add(code::LD | size.code() | place.0, place.1);
        self.protocols.extend(checks);
        Ok(())
    }

    /// Returns the place of a protocol's header, whether the length of the IPv4 header there is to be
    /// added, and the tests that a packet has the header.
    fn header(&self, protocol: Protocol) -> Result<(u32, bool, Vec<Condition>), String> {
        let layout = self.layout;
        let is_first = || Condition::any_bit(Half, layout.network(6), OFFSET).not();
        Ok(match protocol.layer {
            Layer::Link => (layout.header, false, vec![Condition::Always(layout.has_link_header())]),
            Layer::Ethertype(number) if number > ethertype::MAX_LENGTH && number != ethertype::AARP => {
                (layout.network(0), false, vec![layout.is_protocol(number)?])
            }
            Layer::Transport(58, Some(IpVersion::V6)) => {
                let next = Condition::equal(Byte, layout.network(6), ICMPV6.into());
                (layout.network(IP6_HEADER), false, vec![layout.is_protocol(ethertype::IP6)?, next])
            }
            Layer::Transport(number, _) if !matches!(number, 50 | 51) => {
                let tests = vec![ip_protocol(layout, number, Some(IpVersion::V4))?, is_first()];
                (layout.network(0), true, tests)
            }
            _ => {
                let word = protocol.word;
                return Err(format!("bytes of {word} can't be read; count from ether[0], ip[0] or ip6[0]"));
            }
        })
    }
}

fn instruction(operator: Operator) -> u16 {
    match operator {
        Operator::Add => code::ADD,
        Operator::Subtract => code::SUB,
        Operator::Multiply => code::MUL,
        Operator::Divide => code::DIV,
        Operator::Modulo => code::MOD,
        Operator::And => code::AND,
        Operator::Or => code::OR,
        Operator::Xor => code::XOR,
        Operator::ShiftLeft => code::LSH,
        Operator::ShiftRight => code::RSH,
    }
}
