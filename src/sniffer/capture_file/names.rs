//! The names that a pcapng file has of its own (name resolution blocks; pcapng, section 4.5).
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use pcap_parser::{NameRecordType, NameResolutionBlock};

use super::reader::CaptureReader;

/// Names that are kept, at most: a forged file has no end of them.
const MAX_NAMES: usize = 100_000;

/// An address and one of its names.
pub(super) type NamedAddress = (IpAddr, String);

/// Returns the addresses that a file on disk gives to `host`; none for anything that can be read only
/// once, and for a file that cannot be read.
pub fn addresses_in(path: &Path, host: &str) -> Vec<IpAddr> {
    if !path.is_file() {
        return Vec::new();
    }
    let Ok(reader) = CaptureReader::open(path) else { return Vec::new() };
    let mut reader = reader.with_names();
    while let Ok(Some(_)) = reader.read() {}
    let mut found = Vec::new();
    for (address, name) in reader.into_names() {
        let same = name.trim_end_matches('.').eq_ignore_ascii_case(host.trim_end_matches('.'));
        if same && !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

/// Returns the names of a block.
pub(super) fn read(block: &NameResolutionBlock<'_>) -> Vec<NamedAddress> {
    let names = block.nr.iter().filter_map(|record| {
        let value = record.record_value;
        let (address, names) = match record.record_type {
            NameRecordType::Ipv4 => {
                let (address, names) = value.split_first_chunk::<4>()?;
                (IpAddr::V4(Ipv4Addr::from(*address)), names)
            }
            NameRecordType::Ipv6 => {
                let (address, names) = value.split_first_chunk::<16>()?;
                (IpAddr::V6(Ipv6Addr::from(*address)), names)
            }
            _ => return None,
        };
        // Each name ends with a zero; zeros pad the record.
        let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
        Some(names.map(move |name| (address, String::from_utf8_lossy(name).into_owned())))
    });
    names.flatten().take(MAX_NAMES).collect()
}

/// Adds names to those that are wanted.
pub(super) fn extend(names: Option<&mut Vec<NamedAddress>>, found: Vec<NamedAddress>) {
    if let Some(names) = names {
        let room = MAX_NAMES.saturating_sub(names.len());
        names.extend(found.into_iter().take(room));
    }
}
