//! One TCP endpoint: a smoltcp interface with a single socket.
//!
//! smoltcp speaks between two placeholder IPv4 addresses, whatever the flow's real family is: the flow puts
//! the real IP header around each segment. So smoltcp's limits with IPv6 (no super-frames, no extension
//! headers) never matter, and every flow is alike. Segments go to the recovery layer, not to a device; data goes there
//! and comes from there without passing through here. smoltcp's part is the connection's state.
use crate::recovery::{self, Recovery, STACK_HEADER_LEN};
use smoltcp::{
    iface::{Config, Interface, PollResult, SocketHandle, SocketSet},
    phy::{self, ChecksumCapabilities, DeviceCapabilities, Medium},
    socket::tcp::{CongestionControl, Socket, SocketBuffer, State},
    time::Instant,
    wire::{HardwareAddress, IpAddress, IpCidr, IpEndpoint},
};
use std::{net::Ipv4Addr, num::NonZeroUsize, time::Duration};

/// The addresses that smoltcp sees (TEST-NET-1, RFC 5737).
const LOCAL: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const REMOTE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const TCP_HEADER: usize = 20;
/// What smoltcp may hand over in one piece, placeholder header included: the most that an IPv4 length field
/// holds.
const MAX_PACKET: usize = 65_535;

/// What smoltcp's receive window is, in bytes: a FIN must fit, and never more comes.
const WINDOW: usize = 64;

/// A TCP endpoint without addresses.
pub struct Endpoint {
    interface: Interface,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
    mss: usize,
}

impl Endpoint {
    /// A closed endpoint. `mss` is the one that we announce: the link's MTU less IP and TCP header, in bytes (RFC
    /// 6691). `seed` makes the initial sequence number: it must be unpredictable (RFC 6528).
    pub fn new(now: Duration, mss: usize, seed: u64, recovery: &mut Recovery) -> Endpoint {
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut device = Device { ingress: None, recovery, now, mss };
        let mut interface = Interface::new(config, &mut device, instant(now));
        interface.update_ip_addrs(|addresses| {
            // The list has room for at least one.
            let _ = addresses.push(IpCidr::new(IpAddress::Ipv4(LOCAL), 24));
        });
        let buffer = |len| SocketBuffer::new(vec![0; len]);
        let mut socket = Socket::new(buffer(WINDOW), buffer(0));
        // The recovery layer's tasks, which smoltcp must not do as well.
        socket.set_congestion_control(CongestionControl::None);
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        socket.set_tsval_generator(Some(timestamp));
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let socket = sockets.add(socket);
        Endpoint { interface, sockets, socket, mss }
    }

    /// Begins to connect.
    pub fn connect(&mut self, local_port: u16, remote_port: u16) {
        let socket = self.sockets.get_mut::<Socket>(self.socket);
        let remote = IpEndpoint::new(IpAddress::Ipv4(REMOTE), remote_port);
        let local = IpEndpoint::new(IpAddress::Ipv4(LOCAL), local_port);
        // It refuses only port 0, which no flow has, and sockets that are open already.
        if let Err(error) = socket.connect(self.interface.context(), remote, local) {
            log::error!("cannot connect from port {local_port} to port {remote_port}: {error}");
        }
    }

    /// Waits for the SYN that comes next.
    pub fn listen(&mut self, local_port: u16) {
        let endpoint = IpEndpoint::new(IpAddress::Ipv4(LOCAL), local_port);
        if let Err(error) = self.socket_mut().listen(endpoint) {
            log::error!("cannot listen on port {local_port}: {error}");
        }
    }

    pub fn socket(&self) -> &Socket<'static> {
        self.sockets.get(self.socket)
    }

    pub fn socket_mut(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.socket)
    }

    pub fn state(&self) -> State {
        self.socket().state()
    }

    /// Hands one segment to smoltcp. `packet` is the segment with [`STACK_HEADER_LEN`] bytes of room before it,
    /// at most 65535 bytes in all.
    pub fn ingress(&mut self, now: Duration, packet: &mut [u8], recovery: &mut Recovery) {
        write_placeholder(packet);
        let mut device = Device { ingress: Some(packet), recovery, now, mss: self.mss };
        self.interface.poll_ingress_single(instant(now), &mut device, &mut self.sockets);
    }

    /// Lets smoltcp write all that it has to send into the recovery layer.
    pub fn egress(&mut self, now: Duration, recovery: &mut Recovery) {
        let mut device = Device { ingress: None, recovery, now, mss: self.mss };
        loop {
            match self.interface.poll_egress(instant(now), &mut device, &mut self.sockets) {
                PollResult::None => break,
                PollResult::SocketStateChanged => {}
            }
        }
    }

    /// When smoltcp wants [`Endpoint::egress`] next; a time that has passed means at once.
    pub fn poll_at(&mut self, now: Duration) -> Option<Duration> {
        let at = self.interface.poll_at(instant(now), &self.sockets)?;
        Some(Duration::from_micros(at.total_micros().max(0) as u64))
    }
}

/// The initial sequence number of an endpoint made with `seed`: what smoltcp's generator (its src/rand.rs)
/// yields after the interface has taken an IPv4 identification that is not 0. A test holds the two against each
/// other.
pub fn initial_sequence(seed: u64) -> u32 {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(0xbb2e_fcec_3c39_611d).wrapping_add(0x7590_ef39);
        (state >> (29 - (state >> 61))) as u32
    };
    loop {
        let identification = next();
        if (identification ^ (identification >> 16)) as u16 != 0 {
            return next();
        }
    }
}

/// Fills the room before a segment with the header that smoltcp expects.
fn write_placeholder(packet: &mut [u8]) {
    let len = packet.len() as u16;
    let Some(header) = packet.first_chunk_mut::<STACK_HEADER_LEN>() else { return };
    *header = [0; STACK_HEADER_LEN];
    header[0] = 0x45;
    header[2..4].copy_from_slice(&len.to_be_bytes());
    header[8] = 64;
    header[9] = 6;
    header[12..16].copy_from_slice(&REMOTE.octets());
    header[16..20].copy_from_slice(&LOCAL.octets());
}

/// The loop's time as the recovery layer counts it.
pub fn recovery_time(now: Duration) -> recovery::Instant {
    recovery::Instant::from_nanos(now.as_nanos() as u64)
}

fn instant(now: Duration) -> Instant {
    Instant::from_micros(now.as_micros() as i64)
}

/// The TCP timestamp clock (RFC 7323, section 5.4): milliseconds since boot, so that it goes on rising from
/// one run on a port to the next, as the peer's TIME-WAIT wants (RFC 6191).
pub fn timestamp() -> u32 {
    let since_boot = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).map(Duration::from);
    since_boot.map_or(0, |time| time.as_millis() as u32)
}

/// What smoltcp takes for its network device: at most one segment in, any number out.
struct Device<'a> {
    ingress: Option<&'a [u8]>,
    recovery: &'a mut Recovery,
    now: Duration,
    mss: usize,
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
        Some((RxToken(packet), TxToken { recovery: self.recovery, now: self.now }))
    }

    fn transmit(&mut self, _: Instant) -> Option<TxToken<'_>> {
        Some(TxToken { recovery: self.recovery, now: self.now })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mss + STACK_HEADER_LEN + TCP_HEADER;
        // The flow verifies what comes and fills in what goes.
        capabilities.checksum = ChecksumCapabilities::ignored();
        capabilities.segmentation.tcpv4 = NonZeroUsize::new(MAX_PACKET);
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
}

impl phy::TxToken for TxToken<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        self.recovery.from_stack(recovery_time(self.now), len, f)
    }
}
