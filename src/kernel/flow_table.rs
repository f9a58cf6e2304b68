//! The flow table: the flows that are ours among those at our port, as bpf/flow.h reads it.
//!
//! The table is a BPF array mapped into our memory. Writing it takes no bpf(2), which the sandbox refuses,
//! as many kernels do to a process without CAP_BPF, and the programs know a flow as soon as
//! [`FlowTable::insert`] returns. An entry is one aligned word, so the programs never see half of one.
#![allow(unsafe_code)]

use super::skeleton::types::bucket;
use crate::net::FiveTuple;
use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd, BorrowedFd},
    ptr::NonNull,
};

/// 32-bit words that the hash covers: HASH_WORDS in bpf/flow.h.
const WORDS: usize = 10;
/// Entries of a bucket: BUCKET in bpf/flow.h.
const BUCKET: usize = 8;
/// Slots per flow, enough that both buckets of a flow are never full.
const ROOM: usize = 2;
/// Maximum number of buckets: 32 MiB.
const MAX_BUCKETS: usize = 1 << 19;

/// Returns the number of buckets of a table for `flows` flows, a power of two.
pub(super) fn buckets(flows: usize) -> u32 {
    let buckets = flows.saturating_mul(ROOM).div_ceil(BUCKET).clamp(1, MAX_BUCKETS);
    // At most MAX_BUCKETS, which is a power of two itself.
    buckets.next_power_of_two() as u32
}

/// The secret key of a table's hash.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key(pub(super) [u64; WORDS + 1]);

impl Key {
    /// Returns a random key.
    ///
    /// # Errors
    /// The kernel's generator of random numbers (getrandom(2)).
    pub(super) fn random() -> io::Result<Key> {
        let mut key = [0; WORDS + 1];
        for word in &mut key {
            *word = getrandom::u64().map_err(io::Error::other)?;
        }
        Ok(Key(key))
    }

    /// Returns the entry of a flow, never 0: `hash_flow()` in bpf/flow.h.
    fn entry(&self, flow: &FlowKey) -> u64 {
        let [remote, local] = [flow.remote, flow.local].map(|end| address_words(end.ip()));
        let [remote_port, local_port] = [flow.remote, flow.local].map(|end| u64::from(end.port().to_be()));
        let family = if flow.local.is_ipv4() { 4 } else { 6 };
        let ends = family << 40 | u64::from(flow.protocol) << 32 | local_port << 16 | remote_port;
        let words = [remote[0], remote[1], local[0], local[1], ends];
        let words = words.into_iter().flat_map(|w| [w >> 32, w & 0xffff_ffff]);
        let [keys @ .., start] = &self.0;
        let mut h = words.zip(keys).fold(*start, |h, (word, key)| h.wrapping_add(word.wrapping_mul(*key)));
        h ^= h >> 33;
        h = h.wrapping_mul(0xff51_afd7_ed55_8ccd);
        h ^= h >> 33;
        h = h.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        h ^= h >> 33;
        h.max(1)
    }
}

/// A flow of any protocol, as the table has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// The protocol's number in the IP header.
    pub protocol: u8,
    /// This host's address and port; of an ICMP echo, the identifier.
    pub local: SocketAddr,
    /// The peer's address and port; port 0 where any port of the peer is meant (bpf/command.h).
    pub remote: SocketAddr,
}

impl From<&FiveTuple> for FlowKey {
    fn from(tuple: &FiveTuple) -> FlowKey {
        FlowKey { protocol: tuple.protocol.number(), local: tuple.local, remote: tuple.remote }
    }
}

/// Returns an address as the two words that `struct packet` in bpf/flow.h holds.
fn address_words(address: IpAddr) -> [u64; 2] {
    match address {
        IpAddr::V4(v4) => [u32::from_ne_bytes(v4.octets()).into(), 0],
        IpAddr::V6(v6) => halves(v6),
    }
}

/// Returns an IPv6 address as the two numbers that a program loads from a packet.
pub(super) fn halves(address: Ipv6Addr) -> [u64; 2] {
    let bits = address.to_bits();
    [(bits >> 64) as u64, bits as u64].map(u64::to_be)
}

/// A flow table, mapped into our memory.
#[derive(Debug)]
pub struct FlowTable {
    buckets: NonNull<bucket>,
    /// The number of buckets, a power of two, less one.
    mask: usize,
    key: Key,
}

impl FlowTable {
    /// Maps the array of `buckets` buckets that `map` is.
    ///
    /// # Errors
    /// The kernel's (mmap(2)).
    pub(super) fn map(map: BorrowedFd, buckets: u32, key: Key) -> io::Result<FlowTable> {
        let count = buckets as usize;
        // SAFETY: a fresh shared mapping at an address of the kernel's choice aliases no memory of ours.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                count * size_of::<bucket>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        let mapped = NonNull::new(at.cast()).filter(|_| at != libc::MAP_FAILED);
        let buckets = mapped.ok_or_else(io::Error::last_os_error)?;
        Ok(FlowTable { buckets, mask: count.saturating_sub(1), key })
    }

    /// Adds a flow: its packets are ours from now on. Returns whether the table had room, which it has for
    /// as many flows as it was made for. Adding a flow again has no effect.
    pub fn insert(&mut self, flow: impl Into<FlowKey>) -> bool {
        let entry = self.key.entry(&flow.into());
        let places = self.places(entry);
        if places.into_iter().any(|place| self.find(place, entry).is_some()) {
            return true;
        }
        let load = |place| (0..BUCKET).filter(|slot| self.read(place, *slot) != 0).count();
        let emptier = places.into_iter().min_by_key(|place| load(*place)).unwrap_or(places[0]);
        match self.find(emptier, 0) {
            Some(slot) => self.write(emptier, slot, entry),
            None => return false,
        }
        true
    }

    /// Removes a flow: its packets are not ours from now on.
    pub fn remove(&mut self, flow: impl Into<FlowKey>) {
        let entry = self.key.entry(&flow.into());
        for place in self.places(entry) {
            if let Some(slot) = self.find(place, entry) {
                self.write(place, slot, 0);
            }
        }
    }

    /// Returns the two buckets of an entry, which may be the same.
    fn places(&self, entry: u64) -> [usize; 2] {
        [entry as usize & self.mask, (entry >> 32) as usize & self.mask]
    }

    fn find(&self, place: usize, entry: u64) -> Option<usize> {
        (0..BUCKET).find(|slot| self.read(place, *slot) == entry)
    }

    fn slot(&self, place: usize, slot: usize) -> *mut u64 {
        assert!(place <= self.mask && slot < BUCKET);
        // SAFETY: the mapping has `mask + 1` buckets of BUCKET words and lives as long as `self`.
        unsafe { (&raw mut (*self.buckets.as_ptr().add(place)).flows).cast::<u64>().add(slot) }
    }

    fn read(&self, place: usize, slot: usize) -> u64 {
        // SAFETY: the word is mapped and aligned; the programs only read it.
        unsafe { self.slot(place, slot).read_volatile() }
    }

    fn write(&mut self, place: usize, slot: usize, entry: u64) {
        // SAFETY: the word is mapped and writable. The programs read it at any time, hence the volatile
        // write; it is aligned, so it is written whole.
        unsafe { self.slot(place, slot).write_volatile(entry) };
    }
}

impl Drop for FlowTable {
    fn drop(&mut self) {
        let length = (self.mask + 1) * size_of::<bucket>();
        // SAFETY: this is the mapping that FlowTable::map made, and nothing uses it any more.
        if unsafe { libc::munmap(self.buckets.as_ptr().cast(), length) } != 0 {
            log::debug!("cannot unmap the flow table: {}", io::Error::last_os_error());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Protocol;
    use proptest::prelude::*;
    use std::{collections::HashSet, fs::File, net::SocketAddr, os::fd::AsFd};

    /// A table in a file of its own instead of a BPF map.
    fn table(flows: usize) -> FlowTable {
        let fd = nix::sys::memfd::memfd_create("flows", nix::sys::memfd::MFdFlags::empty()).expect("a memfd");
        let file = File::from(fd);
        let count = buckets(flows);
        file.set_len((count as usize * size_of::<bucket>()) as u64).expect("room");
        FlowTable::map(file.as_fd(), count, Key::random().expect("random numbers")).expect("mapped")
    }

    fn flow(number: u32) -> FiveTuple {
        let [_, a, b, c] = number.to_be_bytes();
        FiveTuple {
            protocol: Protocol::Tcp,
            local: SocketAddr::from(([10, 0, 0, 1], 80)),
            remote: SocketAddr::from(([10, a, b, c], 40_000 + number as u16 % 7)),
        }
    }

    fn holds(table: &FlowTable, flow: &FiveTuple) -> bool {
        let entry = table.key.entry(&flow.into());
        table.places(entry).into_iter().any(|place| table.find(place, entry).is_some())
    }

    /// IPv4 addresses fill the beginning of a word.
    #[test]
    fn addresses_of_both_versions_with_the_same_bytes_are_two_flows() {
        let mut table = table(8);
        let between = |local: &str, remote: &str| {
            let at = |text: &str| text.parse().expect("an address and a port");
            FiveTuple { protocol: Protocol::Tcp, local: at(local), remote: at(remote) }
        };
        let v4 = between("32.1.13.184:80", "32.2.0.0:5000");
        assert!(table.insert(&v4) && holds(&table, &v4));
        assert!(!holds(&table, &between("[2001:db8::]:80", "[2002::]:5000")));
    }

    #[test]
    fn as_many_as_it_was_made_for_find_room() {
        for count in [1, 8, 1000, 40_000] {
            let mut table = table(count);
            let flows: Vec<_> = (0..count as u32).map(flow).collect();
            for flow in &flows {
                assert!(table.insert(flow), "{count}");
            }
            assert!(flows.iter().all(|flow| holds(&table, flow)), "{count}");
            assert!(!holds(&table, &super::tests::flow(count as u32)));
        }
    }

    #[test]
    fn its_size_is_bounded() {
        assert_eq!(buckets(0), 1);
        assert_eq!(buckets(usize::MAX) as usize, MAX_BUCKETS);
        let mut one = table(0);
        let found = (0..100).filter(|number| one.insert(&flow(*number))).count();
        assert_eq!(found, BUCKET);
    }

    #[test]
    fn every_part_of_a_flow_counts() {
        let at = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let mut table = table(8);
        let flow = FiveTuple {
            protocol: Protocol::Tcp,
            local: at("[fd00:1:2:3:4:5:6:7]:80"),
            remote: at("[fd00:8:9:a:b:c:d:e]:90"),
        };
        assert!(table.insert(&flow));
        for word in 0..8 {
            let other = |end: SocketAddr| {
                let IpAddr::V6(v6) = end.ip() else { return end };
                let mut words = v6.segments();
                words[word] ^= 1;
                SocketAddr::new(Ipv6Addr::from(words).into(), end.port())
            };
            assert!(!holds(&table, &FiveTuple { local: other(flow.local), ..flow }));
            assert!(!holds(&table, &FiveTuple { remote: other(flow.remote), ..flow }));
        }
        assert!(!holds(&table, &FiveTuple { remote: at("[fd00:8:9:a:b:c:d:e]:91"), ..flow }));
        assert!(!holds(&table, &FiveTuple { local: at("[fd00:1:2:3:4:5:6:7]:81"), ..flow }));
        assert!(!holds(&table, &FiveTuple { protocol: Protocol::Udp, ..flow }));
        assert!(holds(&table, &flow));
    }

    proptest! {
        #[test]
        fn it_holds_what_was_inserted_and_not_removed(
            steps in proptest::collection::vec((any::<bool>(), 0..40u32), 0..300),
        ) {
            let (mut table, mut model) = (table(40), HashSet::new());
            for (insert, number) in steps {
                match insert {
                    true => {
                        prop_assert!(table.insert(&flow(number)));
                        model.insert(number);
                    }
                    false => {
                        table.remove(&flow(number));
                        model.remove(&number);
                    }
                }
            }
            for number in 0..40 {
                prop_assert_eq!(holds(&table, &flow(number)), model.contains(&number));
            }
        }
    }
}
