//! The kernel's protocol counters (/proc/net/snmp, netstat and snmp6).
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Seek},
};

/// The files, below /proc/net.
const FILES: [&str; 3] = ["snmp", "netstat", "snmp6"];

/// Counters by name, as "TcpExt.ListenOverflows"; those of IPv6 as "Ip6InAddrErrors".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Statistics(BTreeMap<String, u64>);

impl Statistics {
    /// Reads the counters of the calling thread's network namespace. Files that cannot be read count
    /// nothing.
    pub(crate) fn read() -> Statistics {
        Statistics::parse(FILES.map(|name| fs::read_to_string(path(name)).unwrap_or_default()))
    }

    /// Reads the counters from the files' contents, in the order of [`FILES`].
    fn parse([snmp, netstat, snmp6]: [String; 3]) -> Statistics {
        let mut counters = BTreeMap::new();
        parse_pairs(&snmp, &mut counters);
        parse_pairs(&netstat, &mut counters);
        for line in snmp6.lines() {
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

/// The counters' files, kept open for a process that can open no more.
#[derive(Debug)]
pub(crate) struct StatisticsReader([Option<File>; 3]);

impl StatisticsReader {
    /// Opens the files of the calling thread's network namespace. Those that cannot be opened count nothing.
    pub(crate) fn open() -> StatisticsReader {
        StatisticsReader(FILES.map(|name| File::open(path(name)).ok()))
    }

    /// Reads the counters as they are now.
    pub(crate) fn read(&mut self) -> Statistics {
        let read = |file: &mut File| -> io::Result<String> {
            let mut text = String::new();
            file.rewind()?;
            file.read_to_string(&mut text)?;
            Ok(text)
        };
        Statistics::parse(
            self.0.each_mut().map(|file| file.as_mut().and_then(|file| read(file).ok()).unwrap_or_default()),
        )
    }
}

fn path(name: &str) -> String {
    format!("/proc/thread-self/net/{name}")
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
    fn open_files_tell_what_new_ones_tell() {
        let mut reader = StatisticsReader::open();
        let names = |statistics: Statistics| statistics.0.into_keys().collect::<Vec<_>>();
        assert!(names(reader.read()).contains(&"TcpExt.ListenOverflows".to_owned()));
        assert_eq!(names(reader.read()), names(Statistics::read()));
    }

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
