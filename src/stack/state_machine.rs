//! The states of one TCP connection (RFC 9293, section 3.3.2), kept by smoltcp. No other file knows
//! smoltcp's sockets.
//!
//! # Theory of operation
//!
//! smoltcp sees a connection without data, between two placeholder IPv4 addresses whatever the
//! flow's family is. All data and most segments bypass it:
//!
//! | the peer's segments | smoltcp sees |
//! |---|---|
//! | a SYN, or in SYN-RECEIVED a wrong ACK ([`SegmentOutcome::Handshake`]) | its numbers, flags and options |
//! | a reset that is believed ([`SegmentOutcome::Reset`]) | a reset where smoltcp expects one |
//! | the ACK that completes a handshake ([`Event::Established`]) | an ACK of its SYN |
//! | an ACK of our last byte and FIN ([`Event::FinAcknowledged`]) | an ACK of its FIN |
//! | the last byte before the peer's FIN ([`Event::PeerFinished`]) | the peer's FIN |
//! | everything else | nothing |
//!
//! A SYN loses its FIN and data, if it has any. In smoltcp's sequence space each FIN follows its
//! SYN at once: our FIN has the number ISS + 1, and the peer's has IRS + 1.
//!
//! In the other direction, smoltcp's SYNs, FINs and resets become calls of the recovery layer. Its
//! ACKs are dropped: the recovery layer acknowledges received data itself. It also absorbs a FIN
//! that smoltcp retransmits. A SYN is retransmitted only when smoltcp says so.
//!
//! A listener answers SYNs without a state machine, so that a flood costs little. The machine is
//! made when the ACK comes, and is shown the SYN then. It must choose the initial sequence number
//! of the SYN-ACK that was sent: [`initial_sequence`] predicts it from the seed, and a test
//! compares the two.
//!
//! smoltcp's limits with IPv6 (no super-frames, no extension headers) and its timers for data (a
//! second at least) do not matter, because it has no data.
use crate::{
    recovery::{self, Event, Recovery, SegmentOutcome},
    segment::{ACK, FIN, MAX_HEADER_LEN, RST, SYN, Segment, SeqNumber},
};
use smoltcp::{
    iface::{Config, Interface, PollResult, SocketHandle, SocketSet},
    phy::{self, ChecksumCapabilities, DeviceCapabilities, Medium},
    socket::tcp::{CongestionControl, Socket, SocketBuffer},
    time::Instant,
    wire::{HardwareAddress, IpAddress, IpCidr, IpEndpoint, Ipv4Packet},
};
use std::{net::Ipv4Addr, time::Duration};

pub use smoltcp::socket::tcp::State;

/// The local address that smoltcp sees (TEST-NET-1, RFC 5737).
const LOCAL: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The remote address that smoltcp sees.
const REMOTE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// Length of the placeholder IPv4 header, in bytes.
const IP_HEADER_LEN: usize = 20;
/// IPv4's protocol number of TCP.
const TCP: u8 = 6;
/// Size of smoltcp's receive buffer, in bytes. A FIN must fit, and data never comes.
const WINDOW: usize = 64;

/// The states of a TCP connection.
pub struct StateMachine {
    interface: Interface,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
    mss: usize,
    numbers: Numbers,
}

/// The sequence numbers of smoltcp's connection without data.
#[derive(Clone, Copy, Debug, Default)]
struct Numbers {
    /// Our initial sequence number.
    ours: SeqNumber,
    /// The peer's initial sequence number.
    theirs: SeqNumber,
    /// Our port and the peer's.
    ports: (u16, u16),
    /// Whether smoltcp has seen the ACK of its FIN.
    fin_acknowledged: bool,
    /// Whether smoltcp has seen the peer's FIN.
    peer_finished: bool,
}

impl Numbers {
    /// Returns smoltcp's RCV.NXT.
    fn expected(&self) -> SeqNumber {
        self.theirs + 1 + u32::from(self.peer_finished)
    }

    /// Returns smoltcp's SND.UNA.
    fn acknowledged(&self) -> SeqNumber {
        self.ours + 1 + u32::from(self.fin_acknowledged)
    }
}

impl StateMachine {
    /// Returns a closed connection. `mss` is the announced one, in bytes: the link's MTU less IP
    /// and TCP header (RFC 6691). `seed` determines the initial sequence number and must be
    /// unpredictable (RFC 6528).
    pub fn new(now: Duration, mss: usize, seed: u64, recovery: &mut Recovery) -> StateMachine {
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut numbers = Numbers::default();
        let mut device = Device { ingress: None, recovery, now, mss, numbers: &mut numbers };
        let mut interface = Interface::new(config, &mut device, instant(now));
        interface.update_ip_addrs(|addresses| {
            // The list has room for at least one address.
            let _ = addresses.push(IpCidr::new(IpAddress::Ipv4(LOCAL), 24));
        });
        let buffer = |len| SocketBuffer::new(vec![0; len]);
        let mut socket = Socket::new(buffer(WINDOW), buffer(0));
        // The recovery layer does these tasks.
        socket.set_congestion_control(CongestionControl::None);
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        socket.set_tsval_generator(Some(timestamp));
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let socket = sockets.add(socket);
        StateMachine { interface, sockets, socket, mss, numbers }
    }

    /// Opens actively: the SYN leaves with the next [`StateMachine::egress`].
    pub fn connect(&mut self, local_port: u16, remote_port: u16) {
        let socket = self.sockets.get_mut::<Socket>(self.socket);
        let remote = IpEndpoint::new(IpAddress::Ipv4(REMOTE), remote_port);
        let local = IpEndpoint::new(IpAddress::Ipv4(LOCAL), local_port);
        // smoltcp refuses only port 0, which no flow has, and sockets that are already open.
        if let Err(error) = socket.connect(self.interface.context(), remote, local) {
            log::error!("cannot connect from port {local_port} to port {remote_port}: {error}");
        }
    }

    /// Opens passively: the next segment shown must be the SYN.
    pub fn listen(&mut self, local_port: u16) {
        let endpoint = IpEndpoint::new(IpAddress::Ipv4(LOCAL), local_port);
        if let Err(error) = self.socket_mut().listen(endpoint) {
            log::error!("cannot listen on port {local_port}: {error}");
        }
    }

    /// Closes our direction: a FIN leaves with the next [`StateMachine::egress`].
    pub fn close(&mut self) {
        self.socket_mut().close();
    }

    /// Aborts the connection: a reset leaves with the next [`StateMachine::egress`].
    pub fn abort(&mut self) {
        self.socket_mut().abort();
    }

    /// Returns the TCP state.
    pub fn state(&self) -> State {
        self.socket().state()
    }

    /// Returns whether the user may still send.
    pub fn may_send(&self) -> bool {
        self.socket().may_send()
    }

    /// Returns whether the peer may still send.
    pub fn may_receive(&self) -> bool {
        self.socket().may_recv()
    }

    fn socket(&self) -> &Socket<'static> {
        self.sockets.get(self.socket)
    }

    fn socket_mut(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.socket)
    }

    /// Handles a segment for which [`Recovery::handle_segment`] has returned `outcome`.
    pub fn ingress(
        &mut self,
        now: Duration,
        segment: &Segment,
        outcome: SegmentOutcome,
        recovery: &mut Recovery,
    ) {
        match outcome {
            SegmentOutcome::Processed | SegmentOutcome::InOrder => {}
            SegmentOutcome::Handshake => {
                if segment.is(SYN) {
                    self.numbers.theirs = segment.seq;
                }
                let flags = segment.flags & (SYN | ACK);
                self.show(now, Segment { flags, payload_len: 0, ..*segment }, recovery);
            }
            SegmentOutcome::Reset => {
                let expects = !matches!(self.state(), State::Listen | State::SynSent | State::SynReceived);
                let seq = if expects { self.numbers.expected() } else { segment.seq };
                let flags = segment.flags & (RST | ACK);
                self.show(now, Segment { seq, flags, payload_len: 0, ..*segment }, recovery);
            }
        }
        self.follow(now, recovery);
    }

    /// Handles the recovery layer's events.
    pub(crate) fn follow(&mut self, now: Duration, recovery: &mut Recovery) {
        while let Some(event) = recovery.poll_event() {
            let fin = match event {
                Event::Established => 0,
                Event::FinAcknowledged => {
                    self.numbers.fin_acknowledged = true;
                    0
                }
                Event::PeerFinished => FIN,
            };
            let segment = Segment {
                source: self.numbers.ports.1,
                destination: self.numbers.ports.0,
                seq: self.numbers.expected(),
                ack: self.numbers.acknowledged(),
                flags: ACK | fin,
                window: u16::MAX,
                ..Segment::default()
            };
            self.show(now, segment, recovery);
            self.numbers.peer_finished |= event == Event::PeerFinished;
        }
    }

    /// Passes a segment to smoltcp behind a placeholder IPv4 header.
    fn show(&mut self, now: Duration, segment: Segment, recovery: &mut Recovery) {
        let mut packet = [0; IP_HEADER_LEN + MAX_HEADER_LEN];
        let Some((ip, tcp)) = packet.split_first_chunk_mut::<IP_HEADER_LEN>() else { return };
        let Some(tcp) = tcp.first_chunk_mut::<MAX_HEADER_LEN>() else { return };
        let len = IP_HEADER_LEN + segment.write(tcp);
        let mut header = Ipv4Packet::new_unchecked(ip);
        header.set_version(4);
        header.set_header_len(IP_HEADER_LEN as u8);
        header.set_total_len(len as u16);
        header.set_hop_limit(64);
        header.set_next_header(TCP.into());
        header.set_src_addr(REMOTE);
        header.set_dst_addr(LOCAL);
        let (mss, numbers) = (self.mss, &mut self.numbers);
        let mut device = Device { ingress: packet.get(..len), recovery, now, mss, numbers };
        self.interface.poll_ingress_single(instant(now), &mut device, &mut self.sockets);
    }

    /// Passes everything that smoltcp has to send to the recovery layer.
    pub fn egress(&mut self, now: Duration, recovery: &mut Recovery) {
        let mut device = Device { ingress: None, recovery, now, mss: self.mss, numbers: &mut self.numbers };
        loop {
            match self.interface.poll_egress(instant(now), &mut device, &mut self.sockets) {
                PollResult::None => break,
                PollResult::SocketStateChanged => {}
            }
        }
    }

    /// Returns when [`StateMachine::egress`] is due next; a time in the past means at once.
    pub fn poll_at(&mut self, now: Duration) -> Option<Duration> {
        let at = self.interface.poll_at(instant(now), &self.sockets)?;
        Some(Duration::from_micros(at.total_micros().max(0) as u64))
    }
}

/// Returns the initial sequence number of a state machine made with `seed`. smoltcp's generator
/// (its src/rand.rs) yields it after the interface has taken an IPv4 identification that is not 0.
pub(crate) fn initial_sequence(seed: u64) -> SeqNumber {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(0xbb2e_fcec_3c39_611d).wrapping_add(0x7590_ef39);
        (state >> (29 - (state >> 61))) as u32
    };
    loop {
        let identification = next();
        if (identification ^ (identification >> 16)) as u16 != 0 {
            return SeqNumber(next());
        }
    }
}

/// Returns the loop's time as the recovery layer counts it.
pub(crate) fn recovery_time(now: Duration) -> recovery::Instant {
    recovery::Instant::from_nanos(now.as_nanos() as u64)
}

fn instant(now: Duration) -> Instant {
    Instant::from_micros(now.as_micros() as i64)
}

/// Returns the TCP timestamp clock (RFC 7323, section 5.4), in milliseconds since boot. The clock
/// keeps rising from one run on a port to the next, as the peer's TIME-WAIT requires (RFC 6191).
pub(crate) fn timestamp() -> u32 {
    let since_boot = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).map(Duration::from);
    since_boot.map_or(0, |time| time.as_millis() as u32)
}

/// A network device for smoltcp: at most one segment in, any number out.
struct Device<'a> {
    ingress: Option<&'a [u8]>,
    recovery: &'a mut Recovery,
    now: Duration,
    mss: usize,
    numbers: &'a mut Numbers,
}

impl Device<'_> {
    fn sender(&mut self) -> TxToken<'_> {
        TxToken { recovery: self.recovery, now: self.now, numbers: self.numbers }
    }
}

impl phy::Device for Device<'_> {
    type RxToken<'t>
        = RxToken<'t>
    where
        Self: 't;
    type TxToken<'t>
        = TxToken<'t>
    where
        Self: 't;

    fn receive(&mut self, _: Instant) -> Option<(RxToken<'_>, TxToken<'_>)> {
        let packet = self.ingress.take()?;
        Some((RxToken(packet), self.sender()))
    }

    fn transmit(&mut self, _: Instant) -> Option<TxToken<'_>> {
        Some(self.sender())
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mss + IP_HEADER_LEN + crate::segment::MIN_HEADER_LEN;
        // The placeholder's checksums are never checked.
        capabilities.checksum = ChecksumCapabilities::ignored();
        capabilities
    }
}

struct RxToken<'a>(&'a [u8]);

impl phy::RxToken for RxToken<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

struct TxToken<'a> {
    recovery: &'a mut Recovery,
    now: Duration,
    numbers: &'a mut Numbers,
}

impl phy::TxToken for TxToken<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        // smoltcp's IPv4 header has no options.
        if let Some(segment) = packet.get(IP_HEADER_LEN..).and_then(Segment::parse) {
            if segment.is(SYN) {
                self.numbers.ours = segment.seq;
                self.numbers.ports = (segment.source, segment.destination);
                self.recovery.send_syn(recovery_time(self.now), &segment);
            } else if segment.is(RST) {
                self.recovery.send_reset(&segment);
            } else if segment.is(FIN) {
                self.recovery.send_fin();
            }
        }
        result
    }
}

#[cfg(test)]
mod tests;
