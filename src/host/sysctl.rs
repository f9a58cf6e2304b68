//! The kernel settings (sysctl(8)) that netkat's own stack follows.

use std::{fs, io, ops::RangeInclusive, path::PathBuf};

/// The reason why a setting cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SysctlError {
    /// The file could not be read.
    #[error("could not read {}: {source}", path.display())]
    Unreadable {
        /// The setting's file.
        path: PathBuf,
        /// The system call's error.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{} holds \"{text}\", which is not {expected}", path.display())]
    Malformed {
        /// The setting's file.
        path: PathBuf,
        /// Its content.
        text: String,
        /// The expected content.
        expected: &'static str,
    },
}

/// Returns the congestion control of new kernel TCP connections, e.g. "cubic" or "bbr".
///
/// # Errors
/// [`SysctlError`].
pub fn tcp_congestion_control() -> Result<String, SysctlError> {
    read("net/ipv4/tcp_congestion_control").map(|(_, text)| text)
}

/// Returns the TTL of IPv4 packets where the route names none, 1 to 255.
///
/// # Errors
/// [`SysctlError`].
pub(crate) fn ip_default_ttl() -> Result<u8, SysctlError> {
    let (path, text) = read("net/ipv4/ip_default_ttl")?;
    text.parse().map_err(|_| SysctlError::Malformed { path, text, expected: "a TTL" })
}

/// Returns the first port that needs no CAP_NET_BIND_SERVICE; 65536 where every port needs it.
///
/// # Errors
/// [`SysctlError`].
pub fn ip_unprivileged_port_start() -> Result<u32, SysctlError> {
    let (path, text) = read("net/ipv4/ip_unprivileged_port_start")?;
    text.parse().map_err(|_| SysctlError::Malformed { path, text, expected: "a port" })
}

/// Returns the ports that a socket gets which asks for none.
///
/// # Errors
/// [`SysctlError`].
pub(crate) fn ip_local_port_range() -> Result<RangeInclusive<u16>, SysctlError> {
    let (path, text) = read("net/ipv4/ip_local_port_range")?;
    let mut ports = text.split_whitespace().map(str::parse::<u16>);
    match (ports.next(), ports.next()) {
        (Some(Ok(first)), Some(Ok(last))) => Ok(first..=last),
        _ => Err(SysctlError::Malformed { path, text, expected: "two ports" }),
    }
}

/// Returns whether the kernel filters IPv4 packets on this interface by the strict reverse path (RFC 3704).
/// The higher of the interface's setting and that for all counts (IN_DEV_RPFILTER in linux/inetdevice.h); 1
/// is strict.
///
/// # Errors
/// [`SysctlError`].
pub(crate) fn is_reverse_path_strict(interface: &str) -> Result<bool, SysctlError> {
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
