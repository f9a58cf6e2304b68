//! Parses an expression: connectives, parentheses, qualifiers (libpcap's grammar.y).
//!
//! A value without qualifiers of its own has those of the value before it: `port 80 or 443`. Only a value
//! passes qualifiers on; after `tcp` or `len > 9` there are none.
use super::{
    error::{Fault, FilterError},
    qualify::{Kind, Qualifiers, primitive},
    syntax::{Connective, Direction, IpVersion, Node, Primitive, Protocol, Relation, Value},
    token::{Token, Tokens, tokens},
    words::{self, ethertype},
};
use std::ops::Range;

/// Parentheses, and operators of one arithmetic expression, within each other.
pub(super) const MAX_DEPTH: usize = 64;

/// Tokens of an expression.
const MAX_TOKENS: usize = 32_768;

/// A position in the tokens. Failed attempts start again from a copy of the position.
pub(super) struct Parser {
    tokens: Tokens,
    end: Range<usize>,
    pub(super) at: usize,
    depth: usize,
    /// The fault of what might have been a comparison, farthest in the expression.
    attempt: Option<Fault>,
}

/// A part of the tree, and the qualifiers that the value behind it has.
type Element = (Node, Option<Qualifiers>);

/// Parses an expression.
pub(super) fn parse(text: &str) -> Result<Node, FilterError> {
    let node = tokens(text).and_then(|tokens| {
        let mut parser = Parser { tokens, end: text.len()..text.len(), at: 0, depth: 0, attempt: None };
        if parser.tokens.len() > MAX_TOKENS {
            return Err(Fault::new(&parser.end, "the expression is too long"));
        }
        match parser.expression(None, false) {
            Ok((node, _)) if parser.peek().is_none() => Ok(node),
            Ok(_) => Err(parser.farthest(parser.expected("\"and\", \"or\" or the end"))),
            Err(fault) => Err(parser.farthest(fault)),
        }
    });
    node.map_err(|fault| fault.within(text))
}

impl Parser {
    pub(super) fn peek(&self) -> Option<&Token> {
        self.peek_at(0)
    }

    fn peek_at(&self, ahead: usize) -> Option<&Token> {
        self.tokens.get(self.at + ahead).map(|(token, _)| token)
    }

    /// Returns the place of the next token.
    pub(super) fn place(&self) -> Range<usize> {
        self.tokens.get(self.at).map_or(self.end.clone(), |(_, place)| place.clone())
    }

    /// Returns the place from a token to the one before the next.
    pub(super) fn since(&self, start: usize) -> Range<usize> {
        let place = |at: usize| self.tokens.get(at).map_or(self.end.clone(), |(_, place)| place.clone());
        place(start).start..place(self.at.saturating_sub(1).max(start)).end
    }

    /// Takes the next token if it is this keyword or symbol.
    pub(super) fn take(&mut self, word: &str) -> bool {
        let next = matches!(self.peek(), Some(Token::Keyword(next) | Token::Symbol(next)) if *next == word);
        self.at += usize::from(next);
        next
    }

    fn keyword(&self) -> Option<&'static str> {
        match self.peek() {
            Some(Token::Keyword(word)) => Some(word),
            _ => None,
        }
    }

    pub(super) fn expected(&self, what: &str) -> Fault {
        let message = match self.peek() {
            Some(Token::Keyword(word)) if words::refusal(word).is_some() => {
                format!("tcpdump's \"{word}\" is not supported: {}", words::refusal(word).unwrap_or_default())
            }
            Some(Token::Name(name)) if words::keyword(&name.to_ascii_lowercase()).is_some() => {
                format!("expected {what}; keywords are written in lower case")
            }
            _ => format!("expected {what}"),
        };
        Fault::new(&self.place(), message)
    }

    /// Returns the fault of an attempt that came farther than this fault, or this one.
    fn farthest(&self, fault: Fault) -> Fault {
        match &self.attempt {
            Some(attempt) if attempt.place.start > fault.place.start => attempt.clone(),
            _ => fault,
        }
    }

    /// Runs `parse` one level deeper.
    pub(super) fn deeper<T>(
        &mut self,
        parse: impl FnOnce(&mut Parser) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        if self.depth >= MAX_DEPTH {
            return Err(Fault::new(&self.place(), "parentheses or operators are nested too deeply"));
        }
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    /// Parses operands and connectives. With `values`, behind qualifiers, operands are values only.
    fn expression(&mut self, qualifiers: Option<Qualifiers>, values: bool) -> Result<Element, Fault> {
        let (first, mut qualifiers) = self.element(qualifiers, values)?;
        let mut operands = vec![(Connective::And, first)];
        loop {
            let connective = match self.keyword() {
                Some("and") => Connective::And,
                Some("or") => Connective::Or,
                _ => break,
            };
            self.at += 1;
            let (operand, next) = self.element(qualifiers, values)?;
            operands.push((connective, operand));
            qualifiers = next;
        }
        match (operands.pop(), operands.is_empty()) {
            (Some((_, only)), true) => Ok((only, qualifiers)),
            (last, _) => {
                operands.extend(last);
                Ok((Node::Chain(operands), qualifiers))
            }
        }
    }

    fn element(&mut self, qualifiers: Option<Qualifiers>, values: bool) -> Result<Element, Fault> {
        if self.take("not") {
            let (node, qualifiers) = self.deeper(|parser| parser.element(qualifiers, values))?;
            return Ok((Node::Not(Box::new(node)), qualifiers));
        }
        if !values && let Some(relation) = self.relation()? {
            return Ok((relation, None));
        }
        if self.take("(") {
            let (node, _) = self.deeper(|parser| parser.expression(qualifiers, values))?;
            return if self.take(")") { Ok((node, qualifiers)) } else { Err(self.expected("\")\"")) };
        }
        match self.keyword() {
            None => {
                let Some(qualifiers) = qualifiers else {
                    return Err(self.expected(
                        "a primitive as \"host 192.0.2.1\", \"port 80\" or \"tcp\"; a value needs a word before it \
                         that says what it is",
                    ));
                };
                Ok((self.value(qualifiers)?, Some(qualifiers)))
            }
            Some(word) if values => {
                let qualifiers = qualifiers.unwrap_or_default();
                // "ip proto tcp": the name of a protocol is a keyword, too.
                if qualifiers.kind != Some(Kind::Protocol) || words::protocol(word).is_none() {
                    return Err(self.expected(qualifiers.wanted()));
                }
                Ok((self.value(qualifiers)?, Some(qualifiers)))
            }
            Some(word) => self.primitive(word),
        }
    }

    /// Parses a comparison of numbers, if there is one here.
    fn relation(&mut self) -> Result<Option<Node>, Fault> {
        let start = self.at;
        let begins = match self.peek() {
            Some(Token::Number(_)) => true,
            Some(Token::Symbol(symbol)) => matches!(*symbol, "(" | "-"),
            Some(Token::Keyword(word)) => {
                *word == "len" || matches!(self.peek_at(1), Some(Token::Symbol("[")))
            }
            _ => false,
        };
        if !begins {
            return Ok(None);
        }
        // A number or a parenthesis at the beginning need not mean a comparison.
        let surely = !matches!(self.peek(), Some(Token::Number(_) | Token::Symbol("(")));
        let left = match self.arithmetic() {
            Ok(value) => value,
            Err(fault) if surely => return Err(fault),
            Err(fault) => {
                self.attempt = Some(self.farthest(fault));
                self.at = start;
                return Ok(None);
            }
        };
        let Some(relation) = self.comparison() else {
            if surely || matches!(left, Value::Load { .. } | Value::Calculated(..)) {
                return Err(self.expected("a comparison: =, !=, <, <=, > or >="));
            }
            self.at = start;
            return Ok(None);
        };
        let right = self.arithmetic()?;
        let place = self.since(start);
        Ok(Some(Node::Primitive(Primitive::Relation { left, relation, right }, place)))
    }

    fn comparison(&mut self) -> Option<Relation> {
        let Some(Token::Symbol(symbol)) = self.peek() else { return None };
        let relation = match *symbol {
            "=" => Relation::Equal,
            "!=" => Relation::NotEqual,
            "<" => Relation::Less,
            "<=" => Relation::LessOrEqual,
            ">" => Relation::Greater,
            ">=" => Relation::GreaterOrEqual,
            _ => return None,
        };
        self.at += 1;
        Some(relation)
    }

    /// Parses a primitive that begins with a keyword.
    fn primitive(&mut self, word: &'static str) -> Result<Element, Fault> {
        let start = self.at;
        let protocol = words::protocol(word);
        self.at += usize::from(protocol.is_some());
        let qualifiers = Qualifiers { protocol, direction: self.direction(), kind: self.kind()? };
        if qualifiers.direction.is_some() || qualifiers.kind.is_some() {
            // One value, a negated one, or several in parentheses.
            let (node, _) = self.element(Some(qualifiers), true)?;
            return Ok((node, Some(qualifiers)));
        }
        let primitive = match (protocol, self.keyword()) {
            (_, Some("broadcast")) => self.broadcast(protocol)?,
            (_, Some("multicast")) => self.multicast(protocol)?,
            (Some(protocol), _) => qualifiers.bare(protocol).ok_or_else(|| {
                self.expected(&format!(
                    "what of \"{word}\": host, proto, broadcast, multicast, src, dst or [position]"
                ))
            })?,
            (None, _) => self.other(word)?,
        };
        Ok((Node::Primitive(primitive, self.since(start)), None))
    }

    fn direction(&mut self) -> Option<Direction> {
        let word = self.keyword().filter(|word| matches!(*word, "src" | "dst"))?;
        self.at += 1;
        let other = if word == "src" { "dst" } else { "src" };
        let combined = match (self.keyword(), self.peek_at(1)) {
            (Some("or"), Some(Token::Keyword(next))) if *next == other => Direction::Either,
            (Some("and"), Some(Token::Keyword(next))) if *next == other => Direction::Both,
            _ if word == "src" => return Some(Direction::Source),
            _ => return Some(Direction::Destination),
        };
        self.at += 2;
        Some(combined)
    }

    fn kind(&mut self) -> Result<Option<Kind>, Fault> {
        let kind = match self.keyword() {
            Some("host") => Kind::Host,
            Some("net") => Kind::Net,
            Some("port") => Kind::Port,
            Some("portrange") => Kind::PortRange,
            Some("proto") => Kind::Protocol,
            Some("protochain") => {
                return Err(Fault::new(
                    &self.place(),
                    "the kernel runs no loops over header chains; write proto N, which finds N behind one header",
                ));
            }
            Some("gateway") => {
                return Err(Fault::new(
                    &self.place(),
                    "write ether host MAC and not host ADDRESS for the packets that pass a gateway",
                ));
            }
            _ => return Ok(None),
        };
        self.at += 1;
        Ok(Some(kind))
    }

    /// Parses a value with its qualifiers.
    fn value(&mut self, qualifiers: Qualifiers) -> Result<Node, Fault> {
        let start = self.at;
        let Some(token) = self.peek().cloned() else { return Err(self.expected(qualifiers.wanted())) };
        self.at += 1;
        let suffix = match token {
            Token::Dotted { .. } | Token::Ip6(_) if self.take("/") => match self.peek() {
                Some(Token::Number(length)) => Some(Token::Number(*length)),
                _ => return Err(self.expected("the length of the prefix")),
            },
            Token::Dotted { .. } if self.take("mask") => match self.peek() {
                Some(mask @ Token::Dotted { .. }) => Some(mask.clone()),
                _ => return Err(self.expected("a netmask as 255.255.255.0")),
            },
            _ => None,
        };
        self.at += usize::from(suffix.is_some());
        let place = self.since(start);
        match primitive(qualifiers, token, suffix) {
            Ok(primitive) => Ok(Node::Primitive(primitive, place)),
            Err(message) => Err(Fault::new(&place, message)),
        }
    }

    fn broadcast(&mut self, protocol: Option<Protocol>) -> Result<Primitive, Fault> {
        let primitive = match protocol.map(|protocol| protocol.word) {
            None | Some("ether" | "link") => Primitive::EtherBroadcast,
            Some("ip") => Primitive::IpBroadcast,
            Some(_) => return Err(self.expected("ether or ip before \"broadcast\"")),
        };
        self.at += 1;
        Ok(primitive)
    }

    fn multicast(&mut self, protocol: Option<Protocol>) -> Result<Primitive, Fault> {
        let primitive = match protocol.map(|protocol| protocol.word) {
            None | Some("ether" | "link") => Primitive::EtherMulticast,
            Some("ip") => Primitive::IpMulticast(IpVersion::V4),
            Some("ip6") => Primitive::IpMulticast(IpVersion::V6),
            Some(_) => return Err(self.expected("ether, ip or ip6 before \"multicast\"")),
        };
        self.at += 1;
        Ok(primitive)
    }

    /// Parses a primitive that has no qualifiers.
    fn other(&mut self, word: &str) -> Result<Primitive, Fault> {
        let unknown = self.expected("a primitive as \"host 192.0.2.1\", \"port 80\" or \"tcp\"");
        self.at += 1;
        let length = |parser: &mut Parser, relation| {
            let right = Value::Number(parser.number()?.ok_or_else(|| parser.expected("a length in bytes"))?);
            Ok(Primitive::Relation { left: Value::Length, relation, right })
        };
        Ok(match word {
            "less" => return length(self, Relation::LessOrEqual),
            "greater" => return length(self, Relation::GreaterOrEqual),
            "inbound" => Primitive::Outbound(false),
            "outbound" => Primitive::Outbound(true),
            "ifindex" => {
                let index = self.number()?.ok_or_else(|| self.expected("an interface's index"))?;
                Primitive::InterfaceIndex(index)
            }
            "vlan" => Primitive::Vlan(self.limited(0xfff, "a VLAN identifier")?),
            "mpls" => Primitive::Mpls(self.limited(0xf_ffff, "an MPLS label")?),
            "pppoes" => Primitive::PppoeSession(self.limited(0xffff, "a PPPoE session")?),
            "pppoed" => Primitive::LinkProtocol(ethertype::PPPOE_DISCOVERY),
            _ => return Err(unknown),
        })
    }

    /// Takes a number, if one is here, in any number of parentheses.
    fn number(&mut self) -> Result<Option<u32>, Fault> {
        let start = self.at;
        match self.peek() {
            Some(Token::Number(number)) => {
                let number = *number;
                self.at += 1;
                Ok(Some(number))
            }
            Some(Token::Symbol("(")) => {
                self.at += 1;
                let number = self.deeper(Parser::number)?;
                if number.is_none() || !self.take(")") {
                    self.at = start;
                    return Ok(None);
                }
                Ok(number)
            }
            _ => Ok(None),
        }
    }

    fn limited(&mut self, maximum: u32, what: &str) -> Result<Option<u32>, Fault> {
        let place = self.place();
        let number = self.number()?;
        if number.is_some_and(|number| number > maximum) {
            return Err(Fault::new(&place, format!("{what} goes up to {maximum}")));
        }
        Ok(number)
    }
}
