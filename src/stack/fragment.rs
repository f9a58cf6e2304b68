//! Fragmentation and reassembly, of IPv4 (RFC 791, RFC 815) and IPv6 (RFC 8200, section 4.5) alike.
//!
//! [`FragmentReassembly`] trusts no sender. Overlapping fragments condemn their datagram (RFC 5722,
//! and RFC 8200 for IPv6; IPv4 is treated alike), and an exact repetition is skipped. Memory is
//! bounded. When the bound is reached, the oldest datagram is dropped, so that fragments that never
//! become whole cannot keep out later datagrams. Fragments of the host's other sockets are among
//! those: later fragments carry no port.
use super::ip::{self, Fragment, Fragmentation, Header, Template};
use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    ops::Range,
    time::Duration,
};

/// Maximum memory of all fragments together, in bytes (Linux: net.ipv4.ipfrag_high_thresh).
pub(crate) const MEMORY: usize = 4 << 20;
/// Reassembly timeout of IPv4 (net.ipv4.ipfrag_time).
const TIMEOUT_V4: Duration = Duration::from_secs(30);
/// Reassembly timeout of IPv6 (RFC 8200, section 4.5).
const TIMEOUT_V6: Duration = Duration::from_secs(60);
/// Memory charged for a fragment besides its payload, in bytes: a generous estimate of the needs of
/// map and allocator.
const PIECE_COST: usize = 128;
/// Memory charged for a datagram besides its fragments, in bytes: an estimate likewise.
const DATAGRAM_COST: usize = 1024;
/// Maximum payload that IPv4's length field leaves behind our header, in bytes.
const MAX_PAYLOAD_V4: usize = 65_535 - ip::IPV4_HEADER;
/// Maximum payload that IPv6's length field allows, in bytes.
const MAX_PAYLOAD_V6: usize = 65_535;
/// Unit of fragment offsets, in bytes.
const UNIT: usize = 8;

/// Cuts `len` bytes of payload into fragments for packets of at most `mtu` bytes; `header` is the
/// length of a fragment's IP headers. Yields each fragment's range and whether more fragments
/// follow.
pub(crate) fn cut(len: usize, mtu: usize, header: usize) -> impl Iterator<Item = (Range<usize>, bool)> {
    let step = (mtu.saturating_sub(header) / UNIT * UNIT).max(UNIT);
    (0..len).step_by(step).map(move |at| (at..len.min(at + step), at + step < len))
}

/// The fields that a datagram's fragments have in common. `protocol` is `None` in IPv6: RFC 8200
/// takes it from the first fragment only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    source: IpAddr,
    destination: IpAddr,
    protocol: Option<u8>,
    id: u32,
}

/// An incomplete datagram.
#[derive(Debug)]
struct Partial {
    /// Serial number of the datagram, in the order of first arrival.
    number: u64,
    deadline: Duration,
    /// Fragments by offset; they never overlap.
    pieces: BTreeMap<u16, Vec<u8>>,
    /// Bytes in `pieces`.
    received: usize,
    /// The payload's length, known from the last fragment.
    len: Option<usize>,
    /// Protocol and hop limit, known from the first fragment.
    first: Option<(u8, u8)>,
    /// Whether fragments overlapped. Further fragments are dropped until the deadline.
    condemned: bool,
}

/// The relation of a fragment to those already received.
#[derive(Debug, PartialEq, Eq)]
enum Fit {
    /// The fragment brings new data.
    New,
    /// The fragment is an exact repetition.
    Repeated,
    /// The fragment contradicts earlier ones.
    Conflict,
}

impl Partial {
    /// Returns the memory that the datagram is charged for, in bytes.
    fn cost(&self) -> usize {
        DATAGRAM_COST + self.pieces.len() * PIECE_COST + self.received
    }

    /// Compares `bytes` at `offset` with the fragments received. Only the two neighbours matter,
    /// because fragments never overlap.
    fn fit(&self, offset: u16, bytes: &[u8], more: bool) -> Fit {
        let end = usize::from(offset) + bytes.len();
        let past_end = self.len.is_some_and(|len| end > len || !more && end != len);
        let (before, after) = (self.pieces.range(..=offset).next_back(), self.pieces.range(offset..).next());
        let ends_early = !more
            && self.pieces.last_key_value().is_some_and(|(at, last)| usize::from(*at) + last.len() > end);
        match (before, after) {
            _ if past_end || ends_early => Fit::Conflict,
            (Some((at, piece)), _) if *at == offset => match piece == bytes {
                true => Fit::Repeated,
                false => Fit::Conflict,
            },
            (Some((at, piece)), _) if usize::from(*at) + piece.len() > offset.into() => Fit::Conflict,
            (_, Some((at, _))) if usize::from(*at) < end => Fit::Conflict,
            _ => Fit::New,
        }
    }

    /// Returns whether all fragments have arrived.
    fn is_whole(&self) -> bool {
        self.len == Some(self.received)
    }
}

/// A table of incomplete datagrams.
#[derive(Debug, Default)]
pub(crate) struct FragmentReassembly {
    datagrams: HashMap<Key, Partial>,
    /// The keys in the order of first arrival.
    order: BTreeMap<u64, Key>,
    begun: u64,
    /// Memory that `datagrams` occupies, in bytes; never more than [`MEMORY`].
    held: usize,
}

impl FragmentReassembly {
    /// Adds a fragment: `packet`, whose IP header is `header`. Returns the whole packet with an IP
    /// header of its own if this was the last fragment missing. The checksum of that packet is not
    /// verified.
    pub(crate) fn insert(&mut self, now: Duration, header: &Header, packet: &[u8]) -> Option<Vec<u8>> {
        let Fragment { id, offset, more } = header.fragment?;
        let bytes = packet.get(header.transport..header.end)?;
        let limit = if header.source.is_ipv4() { MAX_PAYLOAD_V4 } else { MAX_PAYLOAD_V6 };
        let end = usize::from(offset) + bytes.len();
        if bytes.is_empty() || more && bytes.len() % UNIT != 0 || end > limit {
            log::debug!("dropping a malformed fragment from {}", header.source);
            return None;
        }
        self.expire(now);
        let key = Key {
            source: header.source,
            destination: header.destination,
            protocol: header.source.is_ipv4().then_some(header.protocol),
            id,
        };
        let mut partial = match self.take(&key) {
            Some(partial) if partial.deadline > now => partial,
            _ => self.begin(now, &key),
        };
        match partial.fit(offset, bytes, more) {
            _ if partial.condemned => {}
            Fit::Repeated => {}
            Fit::Conflict => {
                log::debug!("dropping a datagram from {} whose fragments overlap", key.source);
                partial.condemned = true;
                partial.pieces.clear();
                partial.received = 0;
            }
            Fit::New => {
                partial.pieces.insert(offset, bytes.to_vec());
                partial.received += bytes.len();
                if !more {
                    partial.len = Some(end);
                }
                if offset == 0 {
                    partial.first = Some((header.protocol, header.hop_limit));
                }
            }
        }
        if partial.is_whole() {
            return join(&key, &partial);
        }
        self.put(key, partial);
        None
    }

    fn begin(&mut self, now: Duration, key: &Key) -> Partial {
        self.begun += 1;
        Partial {
            number: self.begun,
            deadline: now + if key.source.is_ipv4() { TIMEOUT_V4 } else { TIMEOUT_V6 },
            pieces: BTreeMap::new(),
            received: 0,
            len: None,
            first: None,
            condemned: false,
        }
    }

    fn take(&mut self, key: &Key) -> Option<Partial> {
        let partial = self.datagrams.remove(key)?;
        self.order.remove(&partial.number);
        self.held -= partial.cost();
        Some(partial)
    }

    fn put(&mut self, key: Key, partial: Partial) {
        self.held += partial.cost();
        self.order.insert(partial.number, key);
        self.datagrams.insert(key, partial);
        while self.held > MEMORY {
            let Some(oldest) = self.oldest() else { break };
            self.take(&oldest);
        }
    }

    fn oldest(&self) -> Option<Key> {
        self.order.first_key_value().map(|(_, key)| *key)
    }

    /// Drops the datagrams whose timeout has passed, from the oldest on.
    fn expire(&mut self, now: Duration) {
        while let Some(oldest) = self.oldest()
            && self.datagrams.get(&oldest).is_none_or(|partial| partial.deadline <= now)
        {
            self.take(&oldest);
        }
    }
}

/// Builds the packet out of its fragments.
fn join(key: &Key, partial: &Partial) -> Option<Vec<u8>> {
    let (protocol, hop_limit) = partial.first?;
    let template = Template {
        source: key.source,
        destination: key.destination,
        protocol,
        hop_limit,
        traffic_class: 0,
        flow_label: 0,
    };
    let mut packet = vec![0; template.header_len()];
    template.write(partial.received, 0, Fragmentation::Forbidden, &mut packet);
    packet.reserve_exact(partial.received);
    for piece in partial.pieces.values() {
        packet.extend_from_slice(piece);
    }
    Some(packet)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*, sample::Index};

    const AT: Duration = Duration::from_secs(1);

    fn template(v6: bool) -> Template {
        let (source, destination): (IpAddr, IpAddr) = match v6 {
            false => ([192, 0, 2, 1].into(), [192, 0, 2, 2].into()),
            true => ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap()),
        };
        Template { source, destination, protocol: ip::UDP, hop_limit: 9, traffic_class: 0, flow_label: 0 }
    }

    fn packet(v6: bool, fragment: Fragment, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 48];
        let len = template(v6).write(payload.len(), 0, Fragmentation::Fragment(fragment), &mut bytes);
        bytes.truncate(len);
        bytes.extend_from_slice(payload);
        bytes
    }

    fn fragments(v6: bool, id: u32, payload: &[u8], mtu: usize) -> Vec<Vec<u8>> {
        cut(payload.len(), mtu, if v6 { 48 } else { 20 })
            .map(|(range, more)| {
                packet(v6, Fragment { id, offset: range.start as u16, more }, &payload[range])
            })
            .collect()
    }

    fn insert(reassembly: &mut FragmentReassembly, now: Duration, packet: &[u8]) -> Option<Vec<u8>> {
        let whole = reassembly.insert(now, &ip::parse(packet, false).expect("our own packet"), packet);
        assert!(reassembly.held <= MEMORY);
        assert_eq!(reassembly.held, reassembly.datagrams.values().map(Partial::cost).sum::<usize>());
        assert_eq!(reassembly.order.len(), reassembly.datagrams.len());
        whole
    }

    fn payload_of(whole: &[u8]) -> (u8, &[u8]) {
        let header = ip::parse(whole, false).expect("a whole packet");
        assert_eq!((header.fragment, header.hop_limit), (None, 9));
        (header.protocol, &whole[header.transport..header.end])
    }

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 7 + i / 256) as u8).collect()
    }

    #[test]
    fn fragments_fill_the_mtu() {
        let sizes: Vec<_> = fragments(false, 1, &bytes(4000), 1500).iter().map(Vec::len).collect();
        assert_eq!(sizes, [1500, 1500, 20 + 4000 - 2 * 1480]);
        let sizes: Vec<_> = fragments(true, 1, &bytes(4000), 1500).iter().map(Vec::len).collect();
        assert_eq!(sizes, [1496, 1496, 48 + 4000 - 2 * 1448]);
    }

    #[test]
    fn an_overlap_condemns_the_datagram_and_what_follows_of_it() {
        let data = bytes(64);
        let piece = |at: usize, len: usize| {
            packet(true, Fragment { id: 5, offset: at as u16, more: at + len < 64 }, &data[at..at + len])
        };
        for (first, second) in
            [((16, 16), (8, 16)), ((16, 16), (24, 16)), ((8, 32), (16, 8)), ((16, 8), (8, 32))]
        {
            let mut reassembly = FragmentReassembly::default();
            assert_eq!(insert(&mut reassembly, AT, &piece(first.0, first.1)), None);
            assert_eq!(insert(&mut reassembly, AT, &piece(second.0, second.1)), None);
            for at in [0, 8, 16, 24, 32, 40, 48, 56] {
                assert_eq!(insert(&mut reassembly, AT, &piece(at, 8)), None, "{first:?} {second:?}");
            }
            assert_eq!(reassembly.held, DATAGRAM_COST);
        }
    }

    #[test]
    fn a_second_end_that_differs_condemns_the_datagram() {
        for (first, second) in [(24, 16), (16, 24)] {
            let mut reassembly = FragmentReassembly::default();
            for at in [first, second] {
                let last = Fragment { id: 1, offset: at, more: false };
                assert_eq!(insert(&mut reassembly, AT, &packet(false, last, &bytes(8))), None);
            }
            for at in [0, 8, 16, 24] {
                let fragment = Fragment { id: 1, offset: at, more: true };
                assert_eq!(insert(&mut reassembly, AT, &packet(false, fragment, &bytes(8))), None);
            }
        }
    }

    #[test]
    fn pieces_of_different_datagrams_do_not_mix() {
        let (mut reassembly, data) = (FragmentReassembly::default(), bytes(3000));
        let pieces = [1, 2].map(|id| fragments(false, id, &data, 1500));
        assert_eq!(insert(&mut reassembly, AT, &pieces[0][0]), None);
        assert_eq!(insert(&mut reassembly, AT, &pieces[1][1]), None);
        assert_eq!(insert(&mut reassembly, AT, &pieces[1][2]), None);
        assert!(insert(&mut reassembly, AT, &pieces[1][0]).is_some());
    }

    #[test]
    fn what_stays_incomplete_expires() {
        for (v6, timeout) in [(false, TIMEOUT_V4), (true, TIMEOUT_V6)] {
            let (mut reassembly, pieces) =
                (FragmentReassembly::default(), fragments(v6, 1, &bytes(2000), 1500));
            assert_eq!(insert(&mut reassembly, AT, &pieces[0]), None);
            assert_eq!(insert(&mut reassembly, AT + timeout, &pieces[1]), None);
            assert!(insert(&mut reassembly, AT + timeout, &pieces[0]).is_some());
            assert_eq!(reassembly.held, 0);
        }
    }

    #[test]
    fn the_latest_datagram_is_whole_even_in_a_flood() {
        let (mut reassembly, data) = (FragmentReassembly::default(), bytes(60_000));
        for id in 0..20_000 {
            insert(
                &mut reassembly,
                AT,
                &packet(false, Fragment { id, offset: 8, more: true }, &data[..1400]),
            );
        }
        let pieces = fragments(false, 30_000, &data, 1500);
        let (last, others) = pieces.split_last().expect("many pieces");
        for piece in others {
            assert_eq!(insert(&mut reassembly, AT, piece), None);
        }
        assert!(insert(&mut reassembly, AT, last).is_some());
    }

    #[test]
    fn oversized_and_unaligned_pieces_are_refused() {
        let mut reassembly = FragmentReassembly::default();
        for (offset, more, len) in [(65_528, false, 16), (0, true, 12), (8, true, 0), (65_512, false, 8)] {
            insert(&mut reassembly, AT, &packet(false, Fragment { id: 1, offset, more }, &bytes(len)));
        }
        assert_eq!(reassembly.held, 0);
    }

    #[test]
    fn extension_headers_behind_the_fragment_header_are_found_again() {
        let mut reassembly = FragmentReassembly::default();
        // Destination options (6 bytes of padding), then UDP.
        let mut payload = vec![ip::UDP, 0, 1, 4, 0, 0, 0, 0];
        payload.extend(bytes(40));
        let mut whole = None;
        for mut piece in fragments(true, 1, &payload, 48 + 16) {
            piece[40] = 60;
            whole = insert(&mut reassembly, AT, &piece);
        }
        let whole = whole.expect("the last piece completes it");
        assert_eq!(payload_of(&whole), (ip::UDP, bytes(40).as_slice()));
    }

    proptest! {
        #[test]
        fn any_cutting_order_and_repetition_gives_back_the_datagram(
            v6: bool,
            len in 1..20_000usize,
            mtu in 68..9000usize,
            swaps in vec((any::<Index>(), any::<Index>()), 0..64),
            repeated in vec((any::<Index>(), any::<Index>()), 0..8),
        ) {
            let data = bytes(len);
            let mut pieces = fragments(v6, 77, &data, mtu);
            prop_assume!(pieces.len() > 1);
            let missing = pieces.len();
            for (a, b) in swaps {
                let (a, b) = (a.index(pieces.len()), b.index(pieces.len()));
                pieces.swap(a, b);
            }
            let mut reassembly = FragmentReassembly::default();
            let mut seen = std::collections::BTreeSet::new();
            let mut order: Vec<_> = (0..missing).collect();
            for (piece, at) in repeated {
                order.insert(at.index(order.len()), piece.index(missing));
            }
            for piece in order {
                seen.insert(piece);
                let whole = insert(&mut reassembly, AT, &pieces[piece]);
                prop_assert_eq!(whole.is_some(), seen.len() == missing);
                if let Some(whole) = whole {
                    prop_assert_eq!(payload_of(&whole), (ip::UDP, data.as_slice()));
                    return Ok(());
                }
            }
        }

        #[test]
        fn hostile_fragments_neither_panic_nor_exceed_the_bound(
            v6: bool,
            pieces in vec((0..4u32, any::<u16>(), any::<bool>(), 0..2000usize, 0..40_000u64), 1..400),
        ) {
            let (mut reassembly, mut now) = (FragmentReassembly::default(), AT);
            for (id, offset, more, len, wait) in pieces {
                now += Duration::from_millis(wait);
                let fragment = Fragment { id, offset: offset & !7, more: more || offset < 8 };
                let packet = packet(v6, fragment, &bytes(len));
                if let Some(whole) = insert(&mut reassembly, now, &packet) {
                    payload_of(&whole);
                }
            }
        }
    }
}
