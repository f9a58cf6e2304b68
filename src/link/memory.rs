//! A link in memory for tests: two ends, a seeded path between them, and the test's clock.
//!
//! The link has no offloads: every frame is one wire segment with a complete checksum, which the
//! receiver verifies.
use super::{
    ChecksumState, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Link, LinkError, LinkHeader,
    MAX_LINK_HEADER, NextHop, Offloads, Outgoing, Received, header,
};
use crate::net::arphrd;
use std::{cell::RefCell, collections::BTreeMap, rc::Rc, time::Duration};

/// Impairments of a path, each with its own probability in 1/1000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Impairment {
    /// Drops the frame.
    pub loss: u16,
    /// Delivers the frame twice.
    pub duplication: u16,
    /// Delays the frame by up to ten times the delay more.
    pub reordering: u16,
    /// Flips a bit.
    pub corruption: u16,
    /// One-way delay.
    pub delay: Duration,
}

/// Frames in flight in one direction, by arrival time and order of transmission.
#[derive(Debug, Default)]
struct Wire {
    frames: BTreeMap<(Duration, u64), Vec<u8>>,
    sent: u64,
}

/// State that both ends share.
#[derive(Debug)]
struct Shared {
    now: Duration,
    random: u64,
    impairment: Impairment,
    wires: [Wire; 2],
}

impl Shared {
    /// xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift generators").
    fn random(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn happens(&mut self, per_mille: u16) -> bool {
        self.random() % 1000 < per_mille.into()
    }

    fn send(&mut self, end: usize, mut frame: Vec<u8>) {
        if self.happens(self.impairment.loss) {
            return;
        }
        if self.happens(self.impairment.corruption) {
            // Spares the link header: damage there would misdeliver the frame, not corrupt it.
            let bit = MAX_LINK_HEADER * 8 + self.random() as usize % ((frame.len() - MAX_LINK_HEADER) * 8);
            frame[bit / 8] ^= 1 << (bit % 8);
        }
        let copies = 1 + usize::from(self.happens(self.impairment.duplication));
        for _ in 0..copies {
            let mut at = self.now + self.impairment.delay;
            if self.happens(self.impairment.reordering) {
                at += self.impairment.delay * (self.random() % 10 + 1) as u32;
            }
            let wire = &mut self.wires[end];
            wire.sent += 1;
            wire.frames.insert((at, wire.sent), frame.clone());
        }
    }

    /// Returns the next frame from a wire if its arrival time has passed.
    fn arrive(&mut self, end: usize) -> Option<Vec<u8>> {
        let frames = &mut self.wires[end].frames;
        let next = frames.first_entry()?;
        (next.key().0 <= self.now).then(|| next.remove())
    }
}

/// An end of the link.
#[derive(Debug)]
pub struct MemoryLink {
    shared: Rc<RefCell<Shared>>,
    /// The wire that this end sends on; the other is for receiving.
    end: usize,
    frame: Vec<u8>,
}

/// The clock and the path of a pair of ends.
#[derive(Debug)]
pub struct Medium(Rc<RefCell<Shared>>);

impl Medium {
    /// Returns a path and its two ends. Equal seeds (not 0) impair equal frames equally.
    pub fn new(impairment: Impairment, seed: u64) -> (Medium, MemoryLink, MemoryLink) {
        let now = Duration::from_secs(1);
        let shared = Shared { now, random: seed.max(1), impairment, wires: Default::default() };
        let shared = Rc::new(RefCell::new(shared));
        let end = |end| MemoryLink { shared: shared.clone(), end, frame: Vec::new() };
        (Medium(shared.clone()), end(0), end(1))
    }

    /// Returns the clock.
    pub fn now(&self) -> Duration {
        self.0.borrow().now
    }

    /// Returns the arrival time of the next frame at either end.
    pub fn next_arrival(&self) -> Option<Duration> {
        let shared = self.0.borrow();
        shared.wires.iter().filter_map(|wire| wire.frames.keys().next()).map(|(at, _)| *at).min()
    }

    /// Advances the clock; an earlier time has no effect.
    pub fn advance(&self, to: Duration) {
        let mut shared = self.0.borrow_mut();
        shared.now = shared.now.max(to);
    }
}

impl Link for MemoryLink {
    fn receive(&mut self) -> Result<Option<Received<'_>>, LinkError> {
        let Some(frame) = self.shared.borrow_mut().arrive(1 - self.end) else { return Ok(None) };
        self.frame = frame;
        let link = header::parse(&self.frame, arphrd::ETHER, 0);
        let wire_len = self.frame.len();
        Ok(Some(Received {
            reply: NextHop { interface: 1, header: link.reply },
            frame: &mut self.frame,
            network: link.len,
            ethertype: link.ethertype,
            checksum: ChecksumState::Unverified,
            segment_size: 0,
            hardware_type: arphrd::ETHER,
            vlan: None,
            outgoing: false,
            wire_len,
            time: None,
        }))
    }

    fn transmit(&mut self, next_hop: &NextHop, packet: &Outgoing<'_>) -> Result<(), LinkError> {
        debug_assert!(matches!(next_hop.header, LinkHeader::Ethernet { .. }));
        debug_assert!(matches!(packet.ethertype, ETHERTYPE_IPV4 | ETHERTYPE_IPV6 | ETHERTYPE_ARP));
        let mut frame = vec![0; MAX_LINK_HEADER];
        if let Some(front) = frame.first_chunk_mut() {
            next_hop.header.write(packet.ethertype, front);
        }
        frame.extend_from_slice(packet.headers);
        frame.extend_from_slice(packet.payload[0]);
        frame.extend_from_slice(packet.payload[1]);
        self.shared.borrow_mut().send(self.end, frame);
        Ok(())
    }

    fn offloads(&self) -> Offloads {
        Offloads { checksum: false, segmentation: false }
    }
}
