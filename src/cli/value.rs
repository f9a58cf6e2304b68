//! Parsers of flag values: times, sizes, types of service.
use super::Dns;
use crate::net::Protocol;
use std::{ops::RangeInclusive, time::Duration};

/// Parses a port to publish: PORT, PORT/tcp or PORT/udp.
pub(super) fn published(text: &str) -> Result<(Protocol, u16), String> {
    let (port, protocol) = match text.split_once('/') {
        None => (text, Protocol::Tcp),
        Some((port, "tcp")) => (port, Protocol::Tcp),
        Some((port, "udp")) => (port, Protocol::Udp),
        Some(_) => return Err("a port is published as PORT, PORT/tcp or PORT/udp".to_owned()),
    };
    match port.parse() {
        Ok(0) | Err(_) => Err("a port is a number from 1 to 65535".to_owned()),
        Ok(port) => Ok((protocol, port)),
    }
}

/// Parses the choice of name servers.
#[expect(clippy::unnecessary_wraps, reason = "clap's form of a parser")]
pub(super) fn dns(text: &str) -> Result<Dns, String> {
    Ok(match text {
        "host" => Dns::Host,
        "relay" => Dns::Relay,
        server => Dns::Server(server.to_owned()),
    })
}

/// Parses a time: a number with ms, s, m or h behind it, or bare seconds.
///
/// # Errors
/// Advice on what to write, for any other text, a negative number or more than a century.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    let wrong = || "write a time as 500ms, 3s, 1m, 2h or bare seconds, as 1.5".to_owned();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let scale = match &text[digits.len()..] {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(wrong()),
    };
    let number: f64 = digits.parse().map_err(|_| wrong())?;
    Duration::try_from_secs_f64(number * scale).ok().filter(|time| *time <= LONGEST).ok_or_else(wrong)
}

/// Longest time of any flag, a century: longer ones are mistakes, and their sums would overflow.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);
/// Time that stands for ever.
const FOREVER: Duration = LONGEST;

/// Parses a time, of which a negative number means for ever, as nc's -q -1.
///
/// # Errors
/// As for [`time`].
pub(super) fn time_or_forever(text: &str) -> Result<Duration, String> {
    match text.strip_prefix('-') {
        Some(rest) if time(rest).is_ok_and(|time| !time.is_zero()) => Ok(FOREVER),
        _ => time(text),
    }
}

/// Parses a time to wait, which may not be zero; a negative number means for ever.
///
/// # Errors
/// As for [`time`].
pub(super) fn wait(text: &str) -> Result<Duration, String> {
    match time_or_forever(text)? {
        Duration::ZERO => Err("the time must be more than 0; -1 waits for ever".to_owned()),
        time => Ok(time),
    }
}

/// Parses a time that may not be zero.
///
/// # Errors
/// As for [`time`].
pub(super) fn positive_time(text: &str) -> Result<Duration, String> {
    match time(text)? {
        Duration::ZERO => Err("the time must be more than 0".to_owned()),
        time => Ok(time),
    }
}

/// Shortest interval of pings.
const LEAST_INTERVAL: Duration = Duration::from_millis(1);

/// Parses an interval of pings.
///
/// # Errors
/// As for [`time`].
pub(super) fn interval(text: &str) -> Result<Duration, String> {
    match time(text)? {
        time if time < LEAST_INTERVAL => Err("the interval must be at least 1ms".to_owned()),
        time => Ok(time),
    }
}

/// Range of --buffer, in bytes: from a few segments of any size to the largest window of TCP (RFC 7323,
/// section 2.3).
const BUFFER_RANGE: RangeInclusive<usize> = 64 << 10..=1 << 30;

/// Parses a buffer size: bytes, or a number with K, M or G behind it.
///
/// # Errors
/// Advice on what to write, for any other text and for sizes beyond 64K to 1G.
pub(super) fn buffer_size(text: &str) -> Result<usize, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let scale = match &text[digits.len()..] {
        "" => 1,
        "k" | "K" => 1 << 10,
        "m" | "M" => 1 << 20,
        "g" | "G" => 1 << 30,
        _ => return Err("write a size in bytes, or as 512K, 4M, 1G".to_owned()),
    };
    let size = digits.parse::<usize>().ok().and_then(|n| n.checked_mul(scale));
    match size.filter(|size| BUFFER_RANGE.contains(size)) {
        Some(size) => Ok(size),
        None => Err("a buffer has 64K to 1G bytes".to_owned()),
    }
}

/// Names of the type-of-service byte: those of nc's -T (RFC 1349), and per-hop behaviours (RFC 2474, RFC
/// 2597, RFC 3246), whose DSCP is the upper six bits.
const SERVICES: [(&str, u8); 25] = [
    ("lowcost", 0x02),
    ("reliability", 0x04),
    ("throughput", 0x08),
    ("lowdelay", 0x10),
    ("cs0", 0x00),
    ("cs1", 0x20),
    ("cs2", 0x40),
    ("cs3", 0x60),
    ("cs4", 0x80),
    ("cs5", 0xa0),
    ("cs6", 0xc0),
    ("cs7", 0xe0),
    ("af11", 0x28),
    ("af12", 0x30),
    ("af13", 0x38),
    ("af21", 0x48),
    ("af22", 0x50),
    ("af23", 0x58),
    ("af31", 0x68),
    ("af32", 0x70),
    ("af33", 0x78),
    ("af41", 0x88),
    ("af42", 0x90),
    ("af43", 0x98),
    ("ef", 0xb8),
];

/// Parses a type-of-service byte: a name, or 0 to 255, in hexadecimal after 0x.
///
/// # Errors
/// Advice on what to write, for any other text.
pub(super) fn type_of_service(text: &str) -> Result<u8, String> {
    let name = text.to_ascii_lowercase();
    if let Some((_, value)) = SERVICES.iter().find(|(known, _)| *known == name) {
        return Ok(*value);
    }
    let number = match name.strip_prefix("0x") {
        Some(digits) => u8::from_str_radix(digits, 16),
        None => name.parse(),
    };
    number
        .map_err(|_| "write 0 to 255, 0x00 to 0xff, or a name: lowdelay, cs0 to cs7, af11 to af43, ef".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_and_without_unit() {
        for (text, millis) in
            [("500ms", 500), ("3s", 3000), ("1m", 60_000), ("2", 2000), ("0.25", 250), ("0", 0)]
        {
            assert_eq!(time(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "-1", "1d", "1 s", "nan", "inf", "1e400", "1e15", "\u{661}"] {
            assert!(time(text).is_err(), "{text}");
        }
        assert_eq!(positive_time("1ms"), Ok(Duration::from_millis(1)));
        assert!(positive_time("0").is_err());
        for text in ["-1", "-1s", "-5", "-0.5"] {
            assert_eq!((wait(text), time_or_forever(text)), (Ok(FOREVER), Ok(FOREVER)), "{text}");
        }
        assert!(wait("0").is_err() && wait("-0").is_err() && wait("--1").is_err() && wait("-x").is_err());
        assert_eq!(time_or_forever("0"), Ok(Duration::ZERO));
    }

    #[test]
    fn sizes_have_units_and_limits() {
        assert_eq!(buffer_size("64K"), Ok(65_536));
        assert_eq!(buffer_size("8m"), Ok(8 << 20));
        for text in ["", "1", "2G", "-1M", "4MB", "99999999999999999999"] {
            assert!(buffer_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn types_of_service_have_names_and_numbers() {
        for (text, value) in
            [("0", 0), ("255", 255), ("0xB8", 184), ("ef", 184), ("AF11", 40), ("cs7", 224), ("lowdelay", 16)]
        {
            assert_eq!(type_of_service(text), Ok(value), "{text}");
        }
        for text in ["", "256", "-1", "0x", "0x100", "af44", "cs8"] {
            assert!(type_of_service(text).is_err(), "{text}");
        }
    }
}
