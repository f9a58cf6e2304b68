//! Rules of iptables-legacy in iptables' words, from the entries of a table (linux/netfilter_ipv4/ip_tables.h,
//! linux/netfilter_ipv6/ip6_tables.h; layouts of 64-bit machines).
use super::datatype::{Datatype, name};
use super::xtables::{Target, host, match_text, not, prefix, target};

/// The fields of struct ipt_entry and ip6t_entry that iptables prints.
#[derive(Clone, Copy, Debug)]
struct Layout {
    address: usize,
    interfaces: usize,
    protocol: usize,
    flags: usize,
    inverted: usize,
    target: usize,
    /// The flag that makes a jump a goto.
    goto: u8,
    header: usize,
}

const IPV4: Layout = Layout {
    address: 4,
    interfaces: 16,
    protocol: 80,
    flags: 82,
    inverted: 83,
    target: 88,
    goto: 2,
    header: 112,
};
const IPV6: Layout = Layout {
    address: 16,
    interfaces: 64,
    protocol: 128,
    flags: 131,
    inverted: 132,
    target: 140,
    goto: 4,
    header: 168,
};
/// Size of struct xt_entry_match and xt_entry_target, in bytes: size, name, revision; then the data.
const EXTENSION: usize = 32;
/// IFNAMSIZ.
const INTERFACE: usize = 16;

/// Returns `-A CHAIN …` for an entry of a legacy table (struct ipt_entry, ip6t_entry) and the facts of its
/// target; `None` if the entry is cut. `chain_at` names the user's chain whose rules begin at an offset.
pub(crate) fn legacy_rule(
    entry: &[u8],
    chain: &str,
    v6: bool,
    chain_at: impl Fn(usize) -> Option<String>,
) -> Option<(String, Target)> {
    let layout = if v6 { IPV6 } else { IPV4 };
    let inverted = *entry.get(layout.inverted)?;
    let mut words = vec![format!("-A {chain}")];
    addresses(&mut words, entry, layout, inverted, v6)?;
    interfaces(&mut words, entry, layout, inverted)?;
    let protocol = host(entry, layout.protocol, 2)?;
    if protocol != 0 {
        let name = match protocol {
            58 if v6 => "ipv6-icmp".into(),
            protocol => Datatype::Protocol.text(&[protocol as u8]),
        };
        // XT_INV_PROTO.
        words.push(format!("{}-p {name}", not(inverted & 0x40 != 0)));
    }
    let target_at = host(entry, layout.target, 2)? as usize;
    let mut at = layout.header;
    while at < target_at {
        let (name, revision, info, size) = extension(entry, at)?;
        words.push(match_text(name, revision, info, v6));
        at += size;
    }
    let (name, revision, info, _) = extension(entry, target_at)?;
    let mut target = target(name, revision, info, v6);
    if let (b"", Some(jump)) = (name, host(info, 0, 4).filter(|jump| (*jump as u32).cast_signed() >= 0)) {
        let word = if *entry.get(layout.flags)? & layout.goto != 0 { "-g" } else { "-j" };
        target.text = match chain_at(jump as usize) {
            Some(chain) => format!("{word} {chain}"),
            // A rule without a target jumps to the next one.
            None => String::new(),
        };
    }
    words.push(target.text.clone());
    words.retain(|word| !word.is_empty());
    Some((crate::text::beginning(&words.join(" "), 2000), target))
}

fn addresses(words: &mut Vec<String>, entry: &[u8], layout: Layout, inverted: u8, v6: bool) -> Option<()> {
    let part = |nth: usize| entry.get(nth * layout.address..(nth + 1) * layout.address);
    // IPT_INV_SRCIP, IPT_INV_DSTIP.
    for (option, nth, bit) in [("-s", 0, 0x08), ("-d", 1, 0x10)] {
        let (address, mask) = (part(nth)?, part(nth + 2)?);
        if mask.iter().any(|byte| *byte != 0) || inverted & bit != 0 {
            words.push(format!("{}{option} {}", not(inverted & bit != 0), prefix(address, mask, v6)));
        }
    }
    Some(())
}

fn interfaces(words: &mut Vec<String>, entry: &[u8], layout: Layout, inverted: u8) -> Option<()> {
    let part = |nth: usize| {
        let at = layout.interfaces + nth * INTERFACE;
        entry.get(at..at + INTERFACE)
    };
    // IPT_INV_VIA_IN, IPT_INV_VIA_OUT.
    for (option, nth, bit) in [("-i", 0, 1), ("-o", 1, 2)] {
        let (interface, mask) = (part(nth)?, part(nth + 2)?);
        let significant = mask.iter().take_while(|byte| **byte != 0).count();
        let length = interface.iter().take_while(|byte| **byte != 0).count();
        if significant > 0 {
            // A mask that ends with the name's last character is a wildcard.
            let wildcard = if significant <= length { "+" } else { "" };
            let shown = name(interface.get(..significant.min(length))?);
            words.push(format!("{}{option} {shown}{wildcard}", not(inverted & bit != 0)));
        }
    }
    Some(())
}

/// Returns name, revision, data and size of the match or target at an offset.
fn extension(entry: &[u8], at: usize) -> Option<(&[u8], u32, &[u8], usize)> {
    let size = host(entry, at, 2)? as usize;
    let bytes = entry.get(at..at.checked_add(size)?)?;
    let name = bytes.get(2..EXTENSION - 1)?.split(|byte| *byte == 0).next()?;
    Some((name, u32::from(*bytes.get(EXTENSION - 1)?), bytes.get(EXTENSION..)?, size.max(1)))
}
