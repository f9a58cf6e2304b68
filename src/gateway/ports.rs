//! The command's ephemeral ports: a range that the host's kernel does not choose from, and that no other
//! command has.
//!
//! The free ports above the host's own range (net.ipv4.ip_local_port_range) are cut into blocks. A run takes the
//! first half of the longest row of free blocks, and so leaves room for the next one. A block is marked by a
//! name in the abstract AF_UNIX name space, which is the network namespace's, as ports are, and goes with its
//! holder however that ends.
use crate::host::sysctl;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, socket};
use std::{
    ops::RangeInclusive,
    os::fd::{AsRawFd, OwnedFd},
};

/// Ports of a block.
const BLOCK: u16 = 64;
/// Fewest ports of a range outside of the host's that is worth using.
const ENOUGH: usize = 1024;
/// Linux's default for net.ipv4.ip_local_port_range.
const DEFAULT: RangeInclusive<u16> = 32_768..=60_999;

/// A range of ports, kept from other runs for as long as this value lives.
#[derive(Debug)]
pub(crate) struct EphemeralPorts {
    pub range: RangeInclusive<u16>,
    _marks: Vec<OwnedFd>,
}

/// Takes a range of ephemeral ports for a command.
pub(crate) fn ephemeral_ports() -> EphemeralPorts {
    let host = sysctl::ip_local_port_range().unwrap_or_else(|error| {
        log::debug!("{error}; assuming the kernel's default");
        DEFAULT
    });
    let mut marks: Vec<(u16, Option<OwnedFd>)> =
        blocks(&host).into_iter().map(|first| (first, mark(first))).collect();
    let (start, length) = longest(&marks.iter().map(|(_, mark)| mark.is_some()).collect::<Vec<_>>());
    let taken = length.div_ceil(2);
    if taken == 0 {
        log::warn!("no range of ports is left for the command: some that it chooses may be the host's");
        return EphemeralPorts { range: host, _marks: Vec::new() };
    }
    let ours: Vec<_> = marks.drain(start..start + taken).collect();
    let first = ours.first().map_or(0, |(port, _)| *port);
    let last = ours.last().map_or(0, |(port, _)| *port).saturating_add(BLOCK - 1);
    EphemeralPorts { range: first..=last, _marks: ours.into_iter().filter_map(|(_, mark)| mark).collect() }
}

/// Returns the first ports of the blocks: above the host's range if there is room, else at its end.
fn blocks(host: &RangeInclusive<u16>) -> Vec<u16> {
    let above = host.end().saturating_add(1);
    let first = if usize::from(u16::MAX - above) >= ENOUGH { above } else { u16::MAX - 4 * BLOCK * 16 };
    let aligned = first.next_multiple_of(BLOCK);
    // The last block would hold port 65535, which some programs take for no port.
    (aligned..=u16::MAX - 2 * BLOCK).step_by(BLOCK.into()).collect()
}

/// Returns start and length of the longest row of free blocks.
fn longest(free: &[bool]) -> (usize, usize) {
    let (mut best, mut start) = ((0, 0), 0);
    for (at, is_free) in free.iter().enumerate() {
        if !is_free {
            start = at + 1;
        } else if at + 1 - start > best.1 {
            best = (start, at + 1 - start);
        }
    }
    best
}

/// Marks a block, unless another run has it.
fn mark(first: u16) -> Option<OwnedFd> {
    let socket = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).ok()?;
    let name = UnixAddr::new_abstract(format!("netkat/ports/{first}").as_bytes()).ok()?;
    bind(socket.as_raw_fd(), &name).ok()?;
    Some(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_lie_above_the_hosts_ports_or_at_their_end() {
        assert_eq!(blocks(&DEFAULT).first(), Some(&61_056));
        assert_eq!(blocks(&(1024..=65_535)).len(), 62);
        assert!(blocks(&DEFAULT).iter().all(|first| first.checked_add(BLOCK).is_some()));
    }

    #[test]
    fn the_longest_row_is_found() {
        assert_eq!(longest(&[]), (0, 0));
        assert_eq!(longest(&[false, true, true, false, true]), (1, 2));
        assert_eq!(longest(&[true, true, true]), (0, 3));
        assert_eq!(longest(&[false, false]), (0, 0));
    }

    #[test]
    fn two_runs_have_different_ports() {
        let (one, two) = (ephemeral_ports(), ephemeral_ports());
        assert!(one.range.end() < two.range.start() || two.range.end() < one.range.start());
    }
}
