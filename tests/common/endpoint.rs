//! A host: one smoltcp interface with one TCP socket, above the recovery layer.
use std::{collections::VecDeque, num::NonZeroUsize};

use netkat::recovery::{Config, Disposition, Instant, MemoryPool, Recovery, STACK_HEADER_LEN};
use smoltcp::{
    iface::{Config as InterfaceConfig, Interface, SocketHandle, SocketSet},
    phy::{Checksum, Device, DeviceCapabilities, Medium, RxToken, TxToken},
    socket::tcp::{CongestionControl, Socket, SocketBuffer, State},
    time::Instant as StackInstant,
    wire::{HardwareAddress, IpCidr, Ipv4Address},
};

const ADDRESSES: [Ipv4Address; 2] = [Ipv4Address::new(192, 0, 2, 1), Ipv4Address::new(192, 0, 2, 2)];
const PORT: u16 = 7;
/// The stream that every sender sends: a table whose length is prime to every buffer's.
const PATTERN: usize = 65_521;

/// How a host behaves.
#[derive(Clone, Debug)]
pub struct Behaviour {
    pub config: Config,
    /// For the buffers.
    pub pool: MemoryPool,
    /// Bytes to send before closing.
    pub to_send: u64,
    /// Sends back what it receives, instead; closes after the peer did.
    pub echo: bool,
    /// The most bytes that the application reads at one time, and how often: a slow reader.
    pub read_chunk: usize,
    pub read_every: std::time::Duration,
    pub timestamps: bool,
    pub seed: u64,
}

pub struct Endpoint {
    index: usize,
    pub behaviour: Behaviour,
    pub layer: Recovery,
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    now: Instant,
    inbox: VecDeque<Vec<u8>>,
    pattern: Vec<u8>,
    pub sent: u64,
    pub received: u64,
    pub echoed: VecDeque<u8>,
    next_read: Instant,
    pub finished_reading: Option<Instant>,
}

fn timestamp() -> u32 {
    0xffff_fff0
}

impl Endpoint {
    /// Host 0 connects, host 1 listens; both connect if `active`.
    pub fn new(index: usize, active: bool, behaviour: Behaviour) -> Self {
        let layer = Recovery::sharing(behaviour.config.clone(), &behaviour.pool);
        let mut port = Port {
            index,
            now: Instant::ZERO,
            layer: &mut Recovery::new(behaviour.config.clone()),
            inbox: &mut VecDeque::new(),
        };
        let mut config = InterfaceConfig::new(HardwareAddress::Ip);
        config.random_seed = behaviour.seed;
        let mut interface = Interface::new(config, &mut port, StackInstant::ZERO);
        interface.update_ip_addrs(|list| {
            let _ = list.push(IpCidr::new(ADDRESSES[index].into(), 24));
        });
        let buffer = |len| SocketBuffer::new(vec![0; len]);
        let mut socket = Socket::new(buffer(64), buffer(0));
        socket.set_congestion_control(CongestionControl::None);
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        if behaviour.timestamps {
            socket.set_tsval_generator(Some(timestamp));
        }
        let mut sockets = SocketSet::new(vec![]);
        if active {
            socket
                .connect(interface.context(), (ADDRESSES[1 - index], PORT), PORT)
                .expect("a fresh socket connects");
        } else {
            socket.listen(PORT).expect("a fresh socket listens");
        }
        let handle = sockets.add(socket);
        let pattern =
            (0..2 * PATTERN as u64).map(|n| (((n % PATTERN as u64) * 0x9e37_79b9) >> 7) as u8).collect();
        Endpoint {
            index,
            behaviour,
            layer,
            interface,
            sockets,
            handle,
            now: Instant::ZERO,
            inbox: VecDeque::new(),
            pattern,
            sent: 0,
            received: 0,
            echoed: VecDeque::new(),
            next_read: Instant::ZERO,
            finished_reading: None,
        }
    }

    pub fn state(&self) -> State {
        self.sockets.get::<Socket>(self.handle).state()
    }

    /// Everything was sent and acknowledged, everything received.
    pub fn is_done(&self) -> bool {
        matches!(self.state(), State::Closed | State::TimeWait) && self.finished_reading.is_some()
    }

    pub fn abort(&mut self) {
        self.sockets.get_mut::<Socket>(self.handle).abort();
    }

    /// Takes the segments that have arrived and lets the stack and the application run.
    pub fn run(&mut self, now: Instant, arrived: impl Iterator<Item = Vec<u8>>) {
        self.now = now;
        self.inbox.extend(arrived);
        self.poll();
        self.application();
        self.poll();
    }

    fn poll(&mut self) {
        let time = StackInstant::from_micros((self.now.nanos() / 1000) as i64);
        let mut port =
            Port { index: self.index, now: self.now, layer: &mut self.layer, inbox: &mut self.inbox };
        self.interface.poll(time, &mut port, &mut self.sockets);
    }

    fn application(&mut self) {
        let socket = self.sockets.get_mut::<Socket>(self.handle);
        if self.now >= self.next_read {
            let mut left = self.behaviour.read_chunk;
            while left > 0 && self.layer.readable() > 0 {
                let (received, echo) = (self.received, self.behaviour.echo);
                let taken = self.layer.read(left, |bytes| {
                    let len = bytes.len();
                    // Whoever only reads checks every byte; an echo's sender checks it when it comes back.
                    let at = received as usize % PATTERN;
                    let len = len.min(PATTERN);
                    assert!(
                        bytes[..len] == self.pattern[at..at + len],
                        "the stream is wrong near byte {received}"
                    );
                    if echo {
                        self.echoed.extend(&bytes[..len]);
                    }
                    Ok::<_, std::convert::Infallible>(len)
                });
                let taken = taken.unwrap_or(0);
                self.received += taken as u64;
                left -= taken;
                self.next_read = self.now + self.behaviour.read_every;
                if echo && self.echoed.len() > 1 << 16 {
                    break;
                }
            }
        }
        if !socket.may_recv()
            && self.layer.readable() == 0
            && socket.state() != State::SynSent
            && socket.state() != State::Listen
            && socket.state() != State::SynReceived
        {
            self.finished_reading.get_or_insert(self.now);
        }
        if self.behaviour.echo {
            while !self.echoed.is_empty() && socket.may_send() {
                let (front, _) = self.echoed.as_slices();
                let sent = send_slice(&mut self.layer, front);
                if sent == 0 {
                    break;
                }
                self.echoed.drain(..sent);
                self.sent += sent as u64;
            }
            if self.echoed.is_empty() && socket.state() == State::CloseWait && self.layer.readable() == 0 {
                socket.close();
            }
            return;
        }
        while self.sent < self.behaviour.to_send && socket.may_send() {
            let at = self.sent as usize % PATTERN;
            let len = (self.behaviour.to_send - self.sent).min(PATTERN as u64) as usize;
            let sent = send_slice(&mut self.layer, &self.pattern[at..at + len]);
            if sent == 0 {
                break;
            }
            self.sent += sent as u64;
        }
        let open = matches!(socket.state(), State::Established | State::CloseWait);
        if open && self.sent == self.behaviour.to_send {
            socket.close();
        }
    }

    /// When something is to be done next.
    pub fn next_at(&mut self) -> Option<Instant> {
        let time = StackInstant::from_micros((self.now.nanos() / 1000) as i64);
        let stack = self
            .interface
            .poll_at(time, &self.sockets)
            .map(|at| Instant::from_nanos(at.total_micros() as u64 * 1000));
        let layer = self.layer.poll_at(self.now);
        let read = (self.layer.readable() > 0).then_some(self.next_read);
        [stack, layer, read].into_iter().flatten().min()
    }

    /// The segments that go out now, super-frames cut as the link would.
    pub fn transmit(&mut self, now: Instant, mut send: impl FnMut(Vec<u8>)) {
        while let Some(frame) = self.layer.poll_transmit(now) {
            let payload = frame.payload.concat();
            let size = frame.gso_size.map_or(payload.len().max(1), usize::from);
            assert!(payload.len() <= size.max(self.behaviour.config.max_frame), "a frame is too large");
            let last = payload.len().div_ceil(size).max(1) - 1;
            for index in 0..=last {
                let part = &payload[index * size..((index + 1) * size).min(payload.len())];
                let mut segment = frame.header.to_vec();
                let seq = u32::from_be_bytes(segment[4..8].try_into().expect("four bytes"));
                let seq = seq.wrapping_add((index * size) as u32);
                segment[4..8].copy_from_slice(&seq.to_be_bytes());
                if index < last {
                    segment[13] &= !0x09;
                }
                segment.extend_from_slice(part);
                send(segment);
            }
        }
    }
}

fn send_slice(layer: &mut Recovery, bytes: &[u8]) -> usize {
    let sent = layer.write(usize::MAX, |room| {
        let len = bytes.len().min(room.len());
        room[..len].copy_from_slice(&bytes[..len]);
        Ok::<_, std::convert::Infallible>(len)
    });
    sent.unwrap_or(0)
}

/// The device that smoltcp sees.
struct Port<'a> {
    index: usize,
    now: Instant,
    layer: &'a mut Recovery,
    inbox: &'a mut VecDeque<Vec<u8>>,
}

struct Receive(Vec<u8>);

struct Send<'a> {
    now: Instant,
    layer: &'a mut Recovery,
}

impl RxToken for Receive {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Send<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        self.layer.from_stack(self.now, len, f)
    }
}

impl Device for Port<'_> {
    type RxToken<'b>
        = Receive
    where
        Self: 'b;
    type TxToken<'b>
        = Send<'b>
    where
        Self: 'b;

    fn receive(&mut self, _: StackInstant) -> Option<(Receive, Send<'_>)> {
        let mut packet = vec![0; STACK_HEADER_LEN];
        if let Some(segment) = self.layer.for_stack() {
            packet.extend_from_slice(segment);
        } else {
            loop {
                let mut segment = self.inbox.pop_front()?;
                if self.layer.from_wire(self.now, &mut segment) == Disposition::Show {
                    packet.append(&mut segment);
                    break;
                }
                if let Some(segment) = self.layer.for_stack() {
                    packet.extend_from_slice(segment);
                    break;
                }
            }
        }
        let len = packet.len() as u16;
        packet[0] = 0x45;
        packet[2..4].copy_from_slice(&len.to_be_bytes());
        packet[8] = 64;
        packet[9] = 6;
        packet[12..16].copy_from_slice(&ADDRESSES[1 - self.index].octets());
        packet[16..20].copy_from_slice(&ADDRESSES[self.index].octets());
        Some((Receive(packet), Send { now: self.now, layer: self.layer }))
    }

    fn transmit(&mut self, _: StackInstant) -> Option<Send<'_>> {
        Some(Send { now: self.now, layer: self.layer })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = 1500;
        capabilities.checksum.ipv4 = Checksum::None;
        capabilities.checksum.tcp = Checksum::None;
        capabilities.segmentation.tcpv4 = NonZeroUsize::new(65_000);
        capabilities
    }
}
