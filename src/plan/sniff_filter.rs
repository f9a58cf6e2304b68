//! The filter of a sniffer: an expression of pcap-filter(7), or its short form HOST [PORTS], and flags.
use super::{PlanError, usage};
use crate::{cli::Cli, host::resolve, sniffer::filter::Filter};

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
        // Behind VLAN tags, too, which the language sees only where it is told to.
        let behind = (0..=MAX_TAGS).map(|tags| format!("({}{text})", "vlan and ".repeat(tags)));
        text = behind.collect::<Vec<_>>().join(" or ");
    }
    log::info!("filter: {text}");
    let filter = Filter::parse(&text)?;
    Ok(Some(if short { filter.lenient() } else { filter }))
}

/// Returns whether the words are HOST [PORTS] or none at all. Words of the filter language are never names
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

/// Returns the expression for a host, or for a network as 192.0.2.0/24.
fn host(text: &str) -> Result<String, PlanError> {
    let text = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return usage(format!(
            "\"{text}\": a port, or a host? A port is written as \"port {text}\", a host by its address or name"
        ));
    }
    if let Some((host, port)) = text.split_once(':').filter(|(_, port)| !port.contains(':')) {
        return usage(format!("\"{text}\": write host and port apart: {host} {port}"));
    }
    if let Some((address, zone)) = text.split_once('%') {
        // The zone tells the interface, which -i does here.
        resolve::addresses(text, 0, resolve::Family::V6, resolve::Names::Numeric)?;
        log::debug!("the zone {zone} is left out");
        return Ok(format!("host {address}"));
    }
    let kind = if text.contains('/') { "net" } else { "host" };
    let expression = format!("{kind} {text}");
    Filter::parse(&expression)?;
    Ok(expression)
}

/// Returns the expression for a list of ports and ranges. Later fragments, which have no ports, do not pass.
fn ports(list: &str) -> Result<String, PlanError> {
    let digits = |end: &str| !end.is_empty() && end.bytes().all(|b| b.is_ascii_digit());
    let mut either = Vec::new();
    for port in list.split(',') {
        let is_range = port.split_once('-').is_some_and(|(first, last)| digits(first) && digits(last));
        let expression = format!("{} {port}", if is_range { "portrange" } else { "port" });
        Filter::parse(&expression)?;
        either.push(expression);
    }
    Ok(format!("({})", either.join(" or ")))
}
