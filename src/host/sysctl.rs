//! The few kernel settings that decide how our own stack behaves.

use std::{fs, io, ops::RangeInclusive, path::PathBuf};

/// A setting that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SysctlError {
    #[error("could not read {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{} holds \"{text}\", which is not {expected}", path.display())]
    Malformed { path: PathBuf, text: String, expected: &'static str },
}

/// The congestion control that new kernel TCP connections get, e.g. "cubic" or "bbr".
pub fn tcp_congestion_control() -> Result<String, SysctlError> {
    read("net/ipv4/tcp_congestion_control").map(|(_, text)| text)
}

/// The ports that the kernel gives to sockets which ask for none in particular.
pub fn ip_local_port_range() -> Result<RangeInclusive<u16>, SysctlError> {
    let (path, text) = read("net/ipv4/ip_local_port_range")?;
    let mut numbers = text.split_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(first)), Some(Ok(last))) if first <= last => Ok(first..=last),
        _ => Err(SysctlError::Malformed { path, text, expected: "a range of ports" }),
    }
}

/// The first port that needs no CAP_NET_BIND_SERVICE; 65536 where every port needs it.
pub fn ip_unprivileged_port_start() -> Result<u32, SysctlError> {
    let (path, text) = read("net/ipv4/ip_unprivileged_port_start")?;
    text.parse().map_err(|_| SysctlError::Malformed { path, text, expected: "a port" })
}

/// Whether the kernel drops IPv4 packets on this interface whose source it would not answer by the same (RFC 3704,
/// strict reverse path filtering). The higher of the interface's and of everybody's setting counts (IN_DEV_RPFILTER in
/// linux/inetdevice.h); 1 is strict.
pub fn is_reverse_path_strict(interface: &str) -> Result<bool, SysctlError> {
    let mut highest = 0;
    for scope in ["all", interface] {
        let (path, text) = read(&format!("net/ipv4/conf/{scope}/rp_filter"))?;
        let value: u8 =
            text.parse().map_err(|_| SysctlError::Malformed { path, text, expected: "0, 1 or 2" })?;
        highest = highest.max(value);
    }
    Ok(highest == 1)
}

/// Reads a setting in the calling thread's network namespace.
fn read(name: &str) -> Result<(PathBuf, String), SysctlError> {
    let path = PathBuf::from("/proc/sys").join(name);
    match fs::read_to_string(&path) {
        Ok(text) => Ok((path, text.trim().to_owned())),
        Err(source) => Err(SysctlError::Unreadable { path, source }),
    }
}
