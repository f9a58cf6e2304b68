//! The kernel's protocol counters (/proc/net/snmp, netstat and snmp6).
use std::{collections::BTreeMap, fs};

/// Counters by name, as "TcpExt.ListenOverflows"; those of IPv6 as "Ip6InAddrErrors".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Statistics(BTreeMap<String, u64>);

impl Statistics {
    /// Reads the counters of the calling thread's network namespace. Files that cannot be read count
    /// nothing.
    pub(crate) fn read() -> Statistics {
        let file = |name| fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default();
        let mut counters = BTreeMap::new();
        for name in ["snmp", "netstat"] {
            parse_pairs(&file(name), &mut counters);
        }
        for line in file("snmp6").lines() {
            if let Some((name, value)) = line.split_once(char::is_whitespace)
                && let Ok(value) = value.trim().parse()
            {
                counters.insert(name.to_owned(), value);
            }
        }
        Statistics(counters)
    }

    /// Returns how far a counter has moved since an earlier reading.
    pub(crate) fn moved(&self, earlier: &Statistics, name: &str) -> u64 {
        let value = |statistics: &Statistics| statistics.0.get(name).copied().unwrap_or(0);
        value(self).saturating_sub(value(earlier))
    }
}

/// Reads pairs of lines: names, then values, both behind the protocol's name and a colon.
fn parse_pairs(text: &str, into: &mut BTreeMap<String, u64>) {
    let mut lines = text.lines();
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        let (Some((protocol, names)), Some((_, values))) = (names.split_once(':'), values.split_once(':'))
        else {
            continue;
        };
        for (name, value) in names.split_whitespace().zip(values.split_whitespace()) {
            if let Ok(value) = value.parse() {
                into.insert(format!("{protocol}.{name}"), value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_move() {
        let mut before = Statistics::default();
        parse_pairs("TcpExt: A B\nTcpExt: 1 -1\nodd: line\n", &mut before.0);
        let mut after = Statistics::default();
        parse_pairs("TcpExt: A B\nTcpExt: 4 2\n", &mut after.0);
        assert_eq!((after.moved(&before, "TcpExt.A"), before.moved(&after, "TcpExt.A")), (3, 0));
        assert_eq!(after.moved(&before, "TcpExt.B"), 2);
    }
}
