//! Cuts an expression into tokens (libpcap's scanner.l).
use super::{error::Fault, words};
use crate::net::MacAddr;
use std::{net::Ipv6Addr, ops::Range};

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// A keyword, in its usual spelling; `&&`, `||` and `!` are `and`, `or` and `not`.
    Keyword(&'static str),
    Name(String),
    Number(u32),
    /// An IPv4 address with two to four parts, and its bits: 8 a part.
    Dotted {
        address: u32,
        bits: u32,
    },
    Ip6(Ipv6Addr),
    Mac(MacAddr),
    Symbol(&'static str),
}

/// Tokens and their places in the expression, in bytes.
pub(super) type Tokens = Vec<(Token, Range<usize>)>;

/// Longest first.
const SYMBOLS: [(&str, Token); 25] = [
    ("&&", Token::Keyword("and")),
    ("||", Token::Keyword("or")),
    (">=", Token::Symbol(">=")),
    ("<=", Token::Symbol("<=")),
    ("!=", Token::Symbol("!=")),
    ("==", Token::Symbol("=")),
    ("<<", Token::Symbol("<<")),
    (">>", Token::Symbol(">>")),
    ("!", Token::Keyword("not")),
    ("+", Token::Symbol("+")),
    ("-", Token::Symbol("-")),
    ("*", Token::Symbol("*")),
    ("/", Token::Symbol("/")),
    ("%", Token::Symbol("%")),
    (":", Token::Symbol(":")),
    ("[", Token::Symbol("[")),
    ("]", Token::Symbol("]")),
    ("<", Token::Symbol("<")),
    (">", Token::Symbol(">")),
    ("(", Token::Symbol("(")),
    (")", Token::Symbol(")")),
    ("&", Token::Symbol("&")),
    ("|", Token::Symbol("|")),
    ("^", Token::Symbol("^")),
    ("=", Token::Symbol("=")),
];

/// Cuts an expression into tokens.
pub(super) fn tokens(text: &str) -> Result<Tokens, Fault> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let blank = rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
        if blank > 0 {
            at += blank;
            continue;
        }
        let (token, length) = token(rest, at)?;
        tokens.push((token, at..at + length));
        at += length;
    }
    Ok(tokens)
}

/// Reads the first token of `rest`, which starts at `at`. Returns its length, too.
fn token(rest: &str, at: usize) -> Result<(Token, usize), Fault> {
    if let Some((token, length)) = address(rest) {
        return Ok((token, length));
    }
    if let Some((symbol, token)) = SYMBOLS.iter().find(|(symbol, _)| rest.starts_with(symbol)) {
        return Ok((token.clone(), symbol.len()));
    }
    if let Some(name) = rest.strip_prefix('\\') {
        let name = leading(name, |c| !matches!(c, ' ' | '!' | '(' | ')' | '\n' | '\t'));
        if !name.is_empty() {
            return Ok((Token::Name(name.to_owned()), 1 + name.len()));
        }
    }
    let word = leading(rest, |c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    let word = word.trim_end_matches(['-', '_']);
    if !word.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        let first = rest.chars().next().map_or(0, char::len_utf8);
        return Err(Fault::new(&(at..at + first), "this character has no meaning in a filter"));
    }
    let place = at..at + word.len();
    let token = if let Some(keyword) = words::keyword(word) {
        Token::Keyword(keyword)
    } else if let Some(value) = words::constant(word) {
        Token::Number(value)
    } else if is_number(word) {
        Token::Number(number(word).ok_or_else(|| Fault::new(&place, "a number has 32 bits at most"))?)
    } else {
        dotted(word).ok_or_else(|| Fault::new(&place, "an IPv4 address has parts from 0 to 255"))?
    };
    Ok((token, word.len()))
}

fn leading(text: &str, wanted: impl Fn(char) -> bool) -> &str {
    text.find(|c| !wanted(c)).map_or(text, |end| text.get(..end).unwrap_or(text))
}

/// Reads a MAC address or an IPv6 address.
fn address(rest: &str) -> Option<(Token, usize)> {
    let word = leading(rest, |c| c.is_ascii_hexdigit() || matches!(c, ':' | '.' | '-'));
    let hex = leading(rest, |c| c.is_ascii_hexdigit() || matches!(c, ':' | '.'));
    if hex.contains(':')
        && let Ok(address) = hex.parse()
    {
        return Some((Token::Ip6(address), hex.len()));
    }
    let whole = rest.get(word.len()..)?.chars().next().is_none_or(|c| !c.is_ascii_alphanumeric());
    Some((Token::Mac(mac(word).filter(|_| whole)?), word.len()))
}

/// Parses a MAC address in each of the forms of pcap-filter(7).
fn mac(word: &str) -> Option<MacAddr> {
    if let Some(separator) = [':', '-', '.'].into_iter().find(|c| word.split(*c).count() == 6) {
        return word.replace(separator, ":").parse().ok();
    }
    let digits = match word.split('.').collect::<Vec<_>>().as_slice() {
        [one] if one.len() == 12 => word.to_owned(),
        parts @ [_, _, _] if parts.iter().all(|part| part.len() == 4) => parts.concat(),
        _ => return None,
    };
    let number = u64::from_str_radix(&digits, 16).ok()?;
    let [_, _, mac @ ..] = number.to_be_bytes();
    Some(MacAddr(mac))
}

fn is_number(word: &str) -> bool {
    let hexadecimal = word.strip_prefix("0x").or(word.strip_prefix("0X"));
    match hexadecimal {
        Some(digits) => !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit()),
        None => word.bytes().all(|b| b.is_ascii_digit()),
    }
}

/// Parses a number as C does: hexadecimal after 0x, octal after 0.
fn number(word: &str) -> Option<u32> {
    if let Some(digits) = word.strip_prefix("0x").or(word.strip_prefix("0X")) {
        return u32::from_str_radix(digits, 16).ok();
    }
    match word.strip_prefix('0').filter(|digits| !digits.is_empty()) {
        Some(digits) => u32::from_str_radix(digits, 8).ok(),
        None => word.parse().ok(),
    }
}

/// Reads an IPv4 address of two to four parts; other words are names. Returns `None` for an impossible
/// address.
fn dotted(word: &str) -> Option<Token> {
    let parts: Vec<&str> = word.split('.').collect();
    if !(2..=4).contains(&parts.len()) || !parts.iter().all(|part| is_number(part) && !part.is_empty()) {
        return Some(Token::Name(word.to_owned()));
    }
    let address = parts
        .iter()
        .try_fold(0u32, |address, part| Some(address << 8 | u32::from(part.parse::<u8>().ok()?)))?;
    Some(Token::Dotted { address, bits: 8 * parts.len() as u32 })
}
