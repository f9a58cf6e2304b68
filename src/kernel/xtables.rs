//! Reader of the nat tables of iptables' legacy back ends, by getsockopt(2) as iptables itself does.
//!
//! Asking for a table that this network namespace does not have would make it, and load its module
//! (xt_find_table_lock in net/netfilter/x_tables.c). So the reader looks at the names of the present tables
//! first.
#![allow(unsafe_code)]

use crate::host::rules::{Family, LegacyTable, extent_of};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

/// The table's name.
const TABLE: &[u8] = b"nat";
/// XT_TABLE_MAXNAMELEN.
const TABLE_NAME: usize = 32;
/// Size of struct ipt_getinfo and struct ip6t_getinfo, in bytes.
const INFO: usize = 84;
/// Offset of the entries in struct ipt_get_entries, in bytes: name, size and padding come before.
const ENTRIES_HEADER: usize = 40;
/// IPT_SO_GET_INFO and IPT_SO_GET_ENTRIES; IPv6 has the same numbers.
const GET_INFO: libc::c_int = 64;
const GET_ENTRIES: libc::c_int = 65;
/// Maximum size of a table, in bytes: some 200,000 rules.
const MAX_TABLE: usize = 64 << 20;
/// Attempts at a table whose size changes between the two requests.
const ATTEMPTS: usize = 4;

/// Returns the legacy nat tables of this network namespace, without those that cannot be read, which are
/// logged.
pub fn legacy_nat_tables() -> Vec<LegacyTable> {
    [(Family::V4, "ip_tables_names"), (Family::V6, "ip6_tables_names")]
        .into_iter()
        .filter(|(_, names)| is_present(names))
        .filter_map(|(family, _)| match read(family) {
            Ok(table) => table,
            Err(error) => {
                log::debug!("rules: iptables' legacy nat table ({family:?}) cannot be read: {error}");
                None
            }
        })
        .collect()
}

/// Returns whether this thread's network namespace has the nat table, by its list of tables.
fn is_present(names: &str) -> bool {
    match fs::read_to_string(format!("/proc/thread-self/net/{names}")) {
        Ok(names) => names.lines().any(|name| name.as_bytes() == TABLE),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => {
            log::debug!("rules: {names} cannot be read: {error}");
            false
        }
    }
}

fn read(family: Family) -> io::Result<Option<LegacyTable>> {
    let (domain, level) = match family {
        Family::V4 => (Domain::IPV4, libc::IPPROTO_IP),
        Family::V6 => (Domain::IPV6, libc::IPPROTO_IPV6),
    };
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))?;
    let mut last = io::Error::from(io::ErrorKind::InvalidData);
    for _ in 0..ATTEMPTS {
        let mut info = [0; INFO];
        info[..TABLE.len()].copy_from_slice(TABLE);
        get(socket.as_fd(), level, GET_INFO, &mut info)?;
        let Some((prerouting, size)) = extent_of(&info) else { return Ok(None) };
        if size > MAX_TABLE {
            return Err(io::Error::other(format!("it has {size} bytes")));
        }
        let mut entries = vec![0; ENTRIES_HEADER + size];
        entries[..TABLE.len()].copy_from_slice(TABLE);
        let wanted = u32::try_from(size).map_err(io::Error::other)?;
        entries[TABLE_NAME..TABLE_NAME + 4].copy_from_slice(&wanted.to_ne_bytes());
        match get(socket.as_fd(), level, GET_ENTRIES, &mut entries) {
            // The size has changed (get_entries in net/ipv4/netfilter/ip_tables.c).
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => last = error,
            Err(error) => return Err(error),
            Ok(()) => {
                entries.drain(..ENTRIES_HEADER);
                return Ok(Some(LegacyTable::new(family, entries, prerouting)));
            }
        }
    }
    Err(last)
}

/// Calls getsockopt(2) with a value that names what is wanted and takes the answer, of exactly that size.
fn get(socket: BorrowedFd, level: libc::c_int, option: libc::c_int, value: &mut [u8]) -> io::Result<()> {
    let size = libc::socklen_t::try_from(value.len()).map_err(io::Error::other)?;
    let mut answered = size;
    // SAFETY: the kernel writes at most `size` bytes to `value`, which outlives the call, and one length.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, option, value.as_mut_ptr().cast(), &raw mut answered)
    };
    match result {
        0 if answered == size => Ok(()),
        0 => Err(io::ErrorKind::InvalidData.into()),
        _ => Err(io::Error::last_os_error()),
    }
}
