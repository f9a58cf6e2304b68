//! The filter of a sniffer: an expression of pcap-filter(7), or its short form HOST \[PORTS\], and flags.
use super::{PlanError, usage};
use crate::{cli::Cli, host::resolve, net::Protocol, sniffer::filter::Filter};
use std::net::Ipv6Addr;

/// Maximum VLAN tags of a frame behind which the short form looks.
const MAX_TAGS: usize = 4;

/// Returns the filter that arguments and flags ask for. Names of hosts are not looked up yet.
pub(super) fn filter(cli: &Cli) -> Result<Option<Filter>, PlanError> {
    let flags = [("ip", cli.ipv4), ("ip6", cli.ipv6), ("tcp", cli.tcp), ("udp", cli.udp)];
    let mut parts: Vec<String> =
        flags.iter().filter(|(_, given)| *given).map(|(word, _)| (*word).into()).collect();
    let words: Vec<&str> = cli.target.iter().map(String::as_str).collect();
    let expression = words.join(" ");
    let short = is_short(&words);
    match (short, words.as_slice()) {
        (_, []) => {}
        (true, [host, ports @ ..]) => {
            parts.push(self::host(host)?);
            for list in ports {
                parts.push(self::ports(list)?);
            }
        }
        (_, _) => {
            // Alone first: an error shows the expression as it was written.
            Filter::parse(&expression)?;
            parts.push(format!("({expression})"));
        }
    }
    if let Some(port) = &cli.source_port {
        if short && words.len() > 1 {
            return usage("the port is named twice, behind the host and by -p");
        }
        parts.push(ports(port)?);
    }
    if parts.is_empty() {
        return Ok(None);
    }
    let mut text = if short || parts.len() > 1 { parts.join(" and ") } else { expression };
    if short {
        // Behind VLAN tags, too, which the language sees only where it is told to. Each `vlan` moves what
        // follows it behind one more tag.
        let behind = |inner: String, _| format!("({text}) or (vlan and ({inner}))");
        text = (0..MAX_TAGS).fold(format!("({text})"), behind);
    }
    log::info!("filter: {text}");
    let filter = Filter::parse(&text)?;
    Ok(Some(if short { filter.lenient() } else { filter }))
}

/// Returns whether the words are HOST \[PORTS\] or none at all. Words of the filter language are never names
/// of hosts.
fn is_short(words: &[&str]) -> bool {
    // An address may have brackets around it, and a zone.
    let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '/' | ':' | '%');
    let is_host = |word: &str| {
        word.trim_start_matches('[').trim_end_matches(']').chars().all(letter)
            && !Filter::starts_with_word_of_the_language(&word.to_ascii_lowercase())
    };
    match words {
        [] => true,
        [host] | [host, _] => is_host(host),
        _ => false,
    }
}

/// Returns a host in short form that has a zone, and the zone.
pub(super) fn zoned_host(cli: &Cli) -> Option<(&str, &str)> {
    let words: Vec<&str> = cli.target.iter().map(String::as_str).collect();
    let host = words.first().filter(|_| is_short(&words)).map(|host| unbracketed(host))?;
    host.split_once('%').map(|(_, zone)| (host, zone))
}

fn unbracketed(host: &str) -> &str {
    host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host)
}

/// Returns the expression for a host, or for a network as 192.0.2.0/24.
fn host(text: &str) -> Result<String, PlanError> {
    let text = unbracketed(text);
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return usage(format!(
            "\"{text}\": a port, or a host? A port is written as \"port {text}\", a host by its address or name"
        ));
    }
    if let Some((host, port)) = text.split_once(':').filter(|(_, port)| !port.contains(':')) {
        return usage(format!("\"{text}\": write host and port apart: {host} {port}"));
    }
    if let Some((address, _)) = text.split_once('%') {
        // The zone tells the interface, which is no part of the filter.
        return match address.parse::<Ipv6Addr>() {
            Ok(address) => Ok(format!("host {address}")),
            Err(_) => usage(format!("\"{text}\": only an IPv6 address has a zone, as fe80::1%eth0")),
        };
    }
    let kind = if text.contains('/') { "net" } else { "host" };
    let expression = format!("{kind} {text}");
    Filter::parse(&expression)?;
    Ok(expression)
}

/// Returns the expression for a list of ports and ranges. Later fragments, which have no ports, do not pass.
fn ports(list: &str) -> Result<String, PlanError> {
    let (mut either, mut fragmented) = (Vec::new(), Vec::new());
    for part in list.split(',') {
        let range = part.split_once('-').and_then(|(first, last)| Some((number(first)?, number(last)?)));
        let expression = format!("{} {part}", if range.is_some() { "portrange" } else { "port" });
        Filter::parse(&expression)?;
        either.push(expression);
        // Source and destination port behind the fragment header of IPv6, where the language does not look.
        if let Some((first, last)) = range.or_else(|| number(part).map(|port| (port, port))) {
            let field = |at: u32| format!("(ip6[{at}:2] >= {first} and ip6[{at}:2] <= {last})");
            fragmented.extend([field(48), field(50)]);
        }
    }
    if !fragmented.is_empty() {
        let ports = fragmented.join(" or ");
        either.push(format!(
            "(ip6[6] = 44 and ip6[42:2] & 0xfff8 = 0 and (ip6[40] = 6 or ip6[40] = 17) and ({ports}))"
        ));
    }
    Ok(format!("({})", either.join(" or ")))
}

/// Returns the number of a port, of TCP or UDP.
fn number(port: &str) -> Option<u16> {
    let of = |protocol| resolve::port(port, protocol).ok();
    of(Protocol::Tcp).or_else(|| of(Protocol::Udp))
}
