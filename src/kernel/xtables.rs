//! Reader of the tables of iptables' legacy back ends, by getsockopt(2) as iptables itself does.
//!
//! Asking for a table that this network namespace does not have would make it, and load its module
//! (xt_find_table_lock in net/netfilter/x_tables.c). So the reader looks at the names of the present tables
//! first.
#![allow(unsafe_code)]

use crate::host::rules::{Family, LegacyTable};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

/// The table of translations.
const NAT: &str = "nat";
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

/// A legacy table as getsockopt(2) gives it: its entries with their counters, and where its chains begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LegacyBlob {
    /// The table's family.
    pub family: Family,
    /// The table's name.
    pub table: String,
    /// The offset of each hook's chain, by the hook's number; `None` for a hook without one.
    pub chains: [Option<usize>; 5],
    /// The offset of each chain's policy.
    pub policies: [Option<usize>; 5],
    /// struct ipt_entry or ip6t_entry, one behind the other.
    pub entries: Vec<u8>,
}

/// Returns the legacy nat tables of this network namespace, without those that cannot be read, which are
/// logged.
pub fn legacy_nat_tables() -> Vec<LegacyTable> {
    let tables = [Family::V4, Family::V6].into_iter().filter_map(|family| {
        let names = names(family).unwrap_or_else(|error| {
            log::debug!("rules: the names of {family:?} tables cannot be read: {error}");
            Vec::new()
        });
        names.iter().any(|name| name == NAT).then_some(())?;
        let blob = socket(family).and_then(|socket| read(&socket, family, NAT)).inspect_err(|error| {
            log::debug!("rules: iptables' legacy nat table ({family:?}) cannot be read: {error}");
        });
        let blob = blob.ok()?;
        Some(LegacyTable::new(family, blob.entries, blob.chains[0]?))
    });
    tables.collect()
}

/// Returns the legacy tables of a family that this thread's network namespace has.
///
/// # Errors
/// EACCES where their names cannot be read: only root may.
pub(crate) fn legacy_tables(family: Family) -> io::Result<Vec<LegacyBlob>> {
    LegacyReader::open(family)?.read()
}

/// A reader of a family's legacy tables, whose names it knows and whose socket is open.
#[derive(Debug)]
pub(crate) struct LegacyReader {
    family: Family,
    names: Vec<String>,
    /// `None` without tables.
    socket: Option<Socket>,
}

impl LegacyReader {
    /// Looks which tables this thread's network namespace has.
    ///
    /// # Errors
    /// EACCES where their names cannot be read: only root may.
    pub(crate) fn open(family: Family) -> io::Result<LegacyReader> {
        let names = names(family)?;
        let socket = if names.is_empty() { None } else { Some(socket(family)?) };
        Ok(LegacyReader { family, names, socket })
    }

    /// Reads the tables.
    ///
    /// # Errors
    /// Those of getsockopt(2).
    pub(crate) fn read(&self) -> io::Result<Vec<LegacyBlob>> {
        let Some(socket) = &self.socket else { return Ok(Vec::new()) };
        self.names.iter().map(|name| read(socket, self.family, name)).collect()
    }
}

/// Opens a socket for the questions of a family.
fn socket(family: Family) -> io::Result<Socket> {
    let domain = if family == Family::V4 { Domain::IPV4 } else { Domain::IPV6 };
    Socket::new(domain, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))
}

/// Returns the names of the tables that this thread's network namespace has.
fn names(family: Family) -> io::Result<Vec<String>> {
    let file = if family == Family::V4 { "ip_tables_names" } else { "ip6_tables_names" };
    match fs::read_to_string(format!("/proc/thread-self/net/{file}")) {
        Ok(names) => Ok(names.lines().filter(|name| name.len() < TABLE_NAME).map(str::to_owned).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn read(socket: &Socket, family: Family, table: &str) -> io::Result<LegacyBlob> {
    let level = if family == Family::V4 { libc::IPPROTO_IP } else { libc::IPPROTO_IPV6 };
    let mut last = io::Error::from(io::ErrorKind::InvalidData);
    for _ in 0..ATTEMPTS {
        let mut info = [0; INFO];
        info[..table.len()].copy_from_slice(table.as_bytes());
        get(socket.as_fd(), level, GET_INFO, &mut info)?;
        let word = |at: usize| {
            let bytes = info.get(at..).and_then(|rest| rest.first_chunk());
            bytes.map_or(0, |bytes| u32::from_ne_bytes(*bytes))
        };
        // struct ipt_getinfo: name[32], valid_hooks, hook_entry[5], underflow[5], num_entries, size.
        let size = word(80) as usize;
        let offsets = |first: usize| {
            [0, 1, 2, 3, 4].map(|hook| (word(32) & 1 << hook != 0).then(|| word(first + 4 * hook) as usize))
        };
        if size > MAX_TABLE {
            return Err(io::Error::other(format!("it has {size} bytes")));
        }
        let mut entries = vec![0; ENTRIES_HEADER + size];
        entries[..table.len()].copy_from_slice(table.as_bytes());
        let wanted = u32::try_from(size).map_err(io::Error::other)?;
        entries[TABLE_NAME..TABLE_NAME + 4].copy_from_slice(&wanted.to_ne_bytes());
        match get(socket.as_fd(), level, GET_ENTRIES, &mut entries) {
            // The size has changed (get_entries in net/ipv4/netfilter/ip_tables.c).
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => last = error,
            Err(error) => return Err(error),
            Ok(()) => {
                entries.drain(..ENTRIES_HEADER);
                let (chains, policies) = (offsets(36), offsets(56));
                return Ok(LegacyBlob { family, table: table.to_owned(), chains, policies, entries });
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
