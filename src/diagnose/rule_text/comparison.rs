//! Comparisons as text: of a whole field, of some of its bits; and the conditions that they are for later fields.
use super::datatype::{Datatype, host_number};
use super::selector::{ARP, Dependency, IPV4, IPV6, Selector};

/// enum nft_cmp_ops.
pub(super) const EQUAL: u32 = 0;
pub(super) const NOT_EQUAL: u32 = 1;
pub(super) const LESS_OR_EQUAL: u32 = 3;
pub(super) const GREATER_OR_EQUAL: u32 = 5;
pub(super) const OPERATORS: [&str; 6] = ["", "!= ", "< ", "<= ", "> ", ">= "];

/// Returns the condition that a comparison is, if nft inserts such.
pub(super) fn dependency(selector: &Selector, bytes: &[u8]) -> Option<Dependency> {
    match (selector.name.as_str(), bytes) {
        ("meta nfproto", [protocol, ..]) => Some(Dependency::Network(*protocol)),
        ("meta protocol" | "ether type", [high, low]) => match u16::from_be_bytes([*high, *low]) {
            0x800 => Some(Dependency::Network(IPV4)),
            0x806 => Some(Dependency::Network(ARP)),
            0x86dd => Some(Dependency::Network(IPV6)),
            0x8100 => Some(Dependency::Vlan),
            _ => None,
        },
        ("meta l4proto", [protocol, ..]) => Some(Dependency::Transport(*protocol)),
        ("iiftype", _) if host_number(bytes) == 1 => Some(Dependency::Ether),
        _ => None,
    }
}

/// Returns the protocol that a comparison of the IP header's own field fixes, which nft prints.
pub(super) fn header_protocol(selector: &Selector, bytes: &[u8]) -> Option<Dependency> {
    match (selector.name.as_str(), bytes) {
        ("ip protocol" | "ip6 nexthdr", [protocol, ..]) => Some(Dependency::Transport(*protocol)),
        _ => None,
    }
}

/// Returns the text of a comparison of some of a field's bits.
pub(super) fn masked(
    selector: &Selector,
    mask: &[u8],
    xor: &[u8],
    how: u32,
    operator: &str,
    bytes: &[u8],
) -> String {
    let (name, datatype) = (&selector.name, selector.datatype);
    let unchanged = xor.iter().all(|byte| *byte == 0);
    let zero = bytes.iter().all(|byte| *byte == 0);
    if let Some((field, shift)) = bit_field(selector, mask).filter(|_| unchanged) {
        let number = super::datatype::network_number(bytes) >> shift;
        let text = match field.datatype {
            Datatype::Dscp | Datatype::Ecn => field.datatype.text(&[number as u8]),
            _ => number.to_string(),
        };
        return format!("{} {operator}{text}", field.name);
    }
    if let Some(length) = datatype.address_length().filter(|_| unchanged && how <= NOT_EQUAL) {
        let mut last = bytes.to_vec();
        last.iter_mut().zip(mask).for_each(|(byte, mask)| *byte |= !mask);
        if let Some(bits) = super::datatype::prefix_of(bytes, &last).filter(|_| bytes.len() == length) {
            return format!("{name} {operator}{}/{bits}", datatype.text(bytes));
        }
    }
    if datatype.is_flags() && unchanged {
        let (set, mask) = (datatype.text(bytes), datatype.text(mask));
        return match (how, zero) {
            (NOT_EQUAL, true) => format!("{name} {mask}"),
            (EQUAL, true) => format!("{name} ! {mask}"),
            _ => format!("{name} {operator}{set} / {mask}"),
        };
    }
    let operator = if how == EQUAL { "== " } else { operator };
    format!("{} {operator}{}", arithmetic(selector, mask, xor), datatype.text(bytes))
}

/// Returns the name of the bits that a mask selects from a field, and the number of bits below them.
fn bit_field(selector: &Selector, mask: &[u8]) -> Option<(Selector, u32)> {
    let (name, datatype, shift) = match (selector.name.as_str(), mask) {
        ("ip dscp", [0xfc]) => ("ip dscp", Datatype::Dscp, 2),
        ("ip dscp", [0x03]) => ("ip ecn", Datatype::Ecn, 0),
        ("ip6 dscp", [0x0f, 0xc0]) => ("ip6 dscp", Datatype::Dscp, 6),
        ("ip6 dscp", [0x00, 0x30]) => ("ip6 ecn", Datatype::Ecn, 4),
        ("ip version", [0xf0]) => ("ip version", Datatype::Number, 4),
        ("ip version", [0x0f]) => ("ip hdrlength", Datatype::Number, 0),
        ("tcp doff", [0xf0]) => ("tcp doff", Datatype::Number, 4),
        ("vlan tci", [0x0f, 0xff]) => ("vlan id", Datatype::Number, 0),
        ("vlan tci", [0xe0, 0x00]) => ("vlan pcp", Datatype::Number, 13),
        _ => return None,
    };
    Some((Selector::new(name, datatype), shift))
}

/// Returns the text of `field & mask ^ xor` in nft's simplest form.
pub(super) fn arithmetic(selector: &Selector, mask: &[u8], xor: &[u8]) -> String {
    let (name, datatype) = (&selector.name, selector.datatype);
    let text = |bytes: &[u8]| match datatype {
        Datatype::Mark | Datatype::Number => datatype.text(bytes),
        Datatype::CtState | Datatype::CtStatus | Datatype::HostNumber => format!("{:#x}", host_number(bytes)),
        _ => format!("{:#x}", super::datatype::network_number(bytes)),
    };
    let complement = mask.iter().zip(xor).all(|(mask, xor)| *mask == !xor);
    let all = mask.iter().all(|byte| *byte == 0xff);
    match (xor.iter().all(|byte| *byte == 0), all, complement) {
        (true, _, _) => format!("{name} & {}", text(mask)),
        (false, true, _) => format!("{name} ^ {}", text(xor)),
        (false, _, true) => format!("{name} | {}", text(xor)),
        _ => format!("{name} & {} ^ {}", text(mask), text(xor)),
    }
}
