//! What every mode that speaks runs on: the link with its guards, the stack, and the loop that moves frames
//! between them.
//!
//! Order at start, so that no packet is lost and the kernel never answers one: port lease, programs, packet
//! socket with its filter, bind, guards. The fields below stand in the order of teardown: the guards go
//! last but for the lease, which keeps the kernel silent without them.
use super::{
    Error,
    doorkeeper::{Doorkeeper, Host},
};
use crate::{
    host::{
        capability::{self, Capability},
        interface::Interface,
        missing::Missing,
        sandbox::Sandbox,
        watch::{Change, Watch as HostWatch},
    },
    kernel::{self, Backend, Counters, Filter, FlowFilter, Guard, Loopback, PortLease, Programs},
    link::{self, Link, LinkError, PacketSocket},
    net::Protocol,
    reactor::{Interest, Reactor},
    sniffer::{
        LinkType,
        capture_file::Statistics,
        tap::{Tap, Watch},
    },
    stack::{Outlet, Path, Persona, Settings, Source, Stack},
};
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    os::fd::AsFd,
    time::Duration,
};

/// The most frames taken in one turn: ACKs must not wait for long.
const INGRESS_BUDGET: usize = 64;
/// What waits in the kernel for us may grow to this, in bytes.
pub(super) const RECEIVE_BUFFER: usize = 64 << 20;
/// How often to look after what nobody tells us of, while there are flows.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// The ports to choose from at an address that is not the host's (RFC 6335, section 6).
const EPHEMERAL: RangeInclusive<u16> = 49_152..=65_535;
/// A super-frame's length field is an IP packet's: 16 bits.
const MAX_FRAME: usize = 65_536;
/// What a super-frame must leave free of gso_max_size, in bytes: at the limit, the kernel segments in software.
const FRAME_MARGIN: usize = 15;

/// What to open.
#[derive(Clone, Debug)]
pub struct Setup {
    pub protocol: Protocol,
    /// Our addresses.
    pub local: Vec<IpAddr>,
    /// Our port; 0 for any free one.
    pub port: u16,
    /// The only peer, if there is one; port 0 stands for all of its ports.
    pub remote: Option<SocketAddr>,
    /// The interfaces that our packets come in and go out by.
    pub interfaces: Vec<Interface>,
    /// More interfaces that answers may come in by. They may go while we run.
    pub ways_back: Vec<Interface>,
    /// The addresses at which the port is held; an unspecified one stands for all of its family. None where
    /// the address is not this host's.
    pub lease: Vec<IpAddr>,
    /// The host to be instead of this one.
    pub persona: Option<Persona>,
    /// Listen to what neighbours say of their link addresses.
    pub hears_neighbours: bool,
    pub backend: Backend,
    pub vnet_header: bool,
    /// What the kernel is taken to lack.
    pub missing: Missing,
    pub segmentation: bool,
    pub settings: Settings,
    /// What is shown and recorded of our packets.
    pub watch: Watch,
    /// What is given up once everything is open.
    pub sandbox: Sandbox,
}

/// A port of ours, held against other processes for as long as this value lives.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lease: Option<PortLease>,
}

impl Port {
    /// Takes the port that `setup` wants, or any free one. Nothing else has been opened yet, so this is where
    /// missing privileges show.
    pub fn take(setup: &Setup) -> Result<Port, Error> {
        capability::require(Capability::NetRaw, "open a packet socket")?;
        capability::require(Capability::NetAdmin, "attach the ingress guard")?;
        capability::require(Capability::Bpf, "load its eBPF programs")?;
        if setup.lease.is_empty() {
            let number = match setup.port {
                0 => EPHEMERAL.start() + (unpredictable() % EPHEMERAL.len() as u64) as u16,
                port => port,
            };
            return Ok(Port { number, _lease: None });
        }
        let scope = setup.interfaces.first().map_or(0, |interface| interface.index);
        let lease = match setup.protocol {
            Protocol::Tcp => PortLease::tcp(&setup.lease, setup.port, scope)?,
            Protocol::Udp => PortLease::udp(&setup.lease, setup.port, scope)?,
        };
        Ok(Port { number: lease.port(), _lease: Some(lease) })
    }

    pub fn number(&self) -> u16 {
        self.number
    }
}

/// A running stack on its link.
pub struct Engine {
    pub stack: Stack,
    link: Tap<PacketSocket>,
    pub reactor: Reactor,
    _loopback: Option<Loopback>,
    guards: Vec<Guard>,
    programs: Programs,
    port: Port,
    /// The last wait said that no frame is there, and nothing has been done since.
    link_empty: bool,
    checked_at: Duration,
    leak: Leak,
    watch: HostWatch,
    door: Doorkeeper,
    /// The interfaces as we know them, by index.
    interfaces: HashMap<u32, Interface>,
    /// The programs that ran before the guards when these were attached; asking later takes a capability.
    ahead: Vec<String>,
    sandbox: Sandbox,
}

impl Engine {
    /// Opens everything; frames arrive from now on, and the kernel answers none of ours.
    pub fn open(setup: &Setup, port: Port) -> Result<Engine, Error> {
        kernel::map_large_buffers();
        let reactor = Reactor::new().map_err(Error::Reactor)?;
        let watch = HostWatch::open()?;
        let programs = Programs::load(&Filter::Flow(FlowFilter {
            protocol: setup.protocol,
            local_addresses: setup.local.clone(),
            local_port: port.number,
            remote_address: setup.remote.map(|r| r.ip()),
            remote_port: setup.remote.map(|r| r.port()).filter(|port| *port != 0),
            loopback_network: setup.lease.contains(&Ipv4Addr::UNSPECIFIED.into()),
            neighbour_discovery: setup.persona.is_some() || setup.hears_neighbours,
            assumed_mac: setup.persona.map(|persona| persona.mac),
        }))?
        .without(setup.missing);
        let interfaces: Vec<_> = setup.interfaces.iter().chain(&setup.ways_back).collect();
        let single = match interfaces.as_slice() {
            [only] => Some(only.index),
            _ => None,
        };
        let mut link = PacketSocket::open(&link::Options {
            interface: single,
            capture: programs.capture_fd(),
            vnet_header: setup.vnet_header,
            missing: setup.missing,
            segmentation: setup.segmentation,
            outgoing: false,
            timestamps: false,
            receive_buffer: RECEIVE_BUFFER,
        })?;
        if let Some(persona) = setup.persona {
            link.set_promiscuous(persona.interface)?;
        }
        link.bind()?;
        let watched =
            interfaces.iter().map(|i| (i.index, i.name.as_str(), LinkType::of_hardware(i.hardware)));
        let link = Tap::new(link, setup.watch.clone(), watched, true)?;
        let names: Vec<_> = interfaces.iter().map(|i| i.name.as_str()).collect();
        log::info!("raw socket: {}", names.join(", "));
        let mut guards = Vec::with_capacity(interfaces.len());
        let mut loopback = None;
        for interface in interfaces {
            guards.push(Guard::attach(&programs, interface.index, setup.backend)?);
            if interface.loopback && setup.local.iter().any(IpAddr::is_ipv4) {
                loopback = Some(Loopback::attach(&programs, interface.index, setup.backend)?);
            }
        }
        if let Some(guard) = guards.first() {
            log::info!("guard attached: {} ({:?})", names.join(", "), guard.backend());
        }
        let ahead = guards.iter().flat_map(|guard| guard.ahead().unwrap_or_default()).collect();
        let mut stack = Stack::new(setup.settings.clone(), unpredictable);
        stack.ask_ways_back();
        let door = Doorkeeper::new(setup, port.number);
        Ok(Engine {
            stack,
            link,
            reactor,
            _loopback: loopback,
            guards,
            programs,
            port,
            link_empty: false,
            checked_at: Duration::ZERO,
            leak: Leak::default(),
            watch,
            door,
            interfaces: setup.interfaces.iter().map(|i| (i.index, i.clone())).collect(),
            ahead,
            sandbox: setup.sandbox,
        })
    }

    /// What packets may measure on an interface, where the route allows `mtu` bytes.
    pub fn path(&self, interface: &Interface, mtu: u32) -> Path {
        let max_segments = match self.link.offloads().segmentation {
            true => interface.gso_max_segs as usize,
            false => 1,
        };
        let max_frame = (interface.gso_max_size as usize).min(MAX_FRAME).saturating_sub(FRAME_MARGIN);
        Path { mtu: mtu as usize, max_frame, max_segments }
    }

    /// The paths of a listener's interfaces.
    pub fn paths(&self, interfaces: &[Interface]) -> HashMap<u32, Path> {
        interfaces.iter().map(|i| (i.index, self.path(i, i.mtu))).collect()
    }

    /// Packets that the guard kept from the kernel so far.
    pub fn kept(&self) -> u64 {
        self.programs.counters().dropped
    }

    /// Our port.
    pub fn port(&self) -> u16 {
        self.port.number
    }

    /// Gives up all that the rest of the run and the teardown do not need: a clsact filter, unlike a tcx link,
    /// has to be taken away by hand. Whatever is opened by its name must be open by now.
    pub fn enter_sandbox(&self) -> Result<(), Error> {
        let clsact = self.guards.iter().any(|guard| guard.backend() == Backend::Clsact);
        let keep: &[Capability] = if clsact { &[Capability::NetAdmin] } else { &[] };
        Ok(self.sandbox.enter(keep)?)
    }

    /// Takes what has arrived, up to a budget; whether anything had.
    pub fn ingress(&mut self, now: Duration) -> Result<bool, Error> {
        self.ingress_to(now, &mut |_, _| 0)
    }

    /// The same, but `outlet` may take data where it lies; see [`Stack::ingress_to`].
    pub fn ingress_to(&mut self, now: Duration, outlet: &mut Outlet<'_>) -> Result<bool, Error> {
        if std::mem::take(&mut self.link_empty) {
            return Ok(false);
        }
        let mut host = Host { watch: &mut self.watch, interfaces: &self.interfaces };
        for taken in 0..INGRESS_BUDGET {
            match self.link.receive() {
                Ok(Some(received)) => self.door.show(now, received, &mut self.stack, &mut host, outlet),
                Ok(None) => {
                    self.door.show_parked(now, &mut self.stack, &mut host, outlet);
                    return Ok(taken > 0);
                }
                Err(error @ LinkError::Down { .. }) => {
                    log::warn!("{error}; waiting for it to come back");
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// Sends what is due; whether there is more.
    pub fn egress(&mut self, now: Duration) -> Result<bool, Error> {
        let more = self.stack.egress(now, &mut self.link)?;
        for tuple in self.stack.take_unlocated() {
            let Some(flow) = self.stack.peek(&tuple) else { continue };
            let interface = flow.next_hop().interface;
            if let Some(address) = self.watch.next_hop(interface, tuple.local.ip(), tuple.remote.ip()) {
                log::debug!("{tuple}: the way back leads to {address}");
                self.stack.locate(&tuple, address);
            }
        }
        Ok(more)
    }

    /// Sends `bytes` to the UDP port's peer as datagrams of `size` bytes; see [`stack::DatagramSocket::send`].
    pub fn send_datagrams(&mut self, bytes: &[u8], size: usize) -> Result<(), Error> {
        Ok(self.stack.datagrams.send(&mut self.link, bytes, size)?)
    }

    /// What the kernel received for us, and dropped for want of room, since the last call.
    pub fn statistics(&self) -> link::Statistics {
        self.link.link().statistics().unwrap_or_else(|error| {
            log::debug!("cannot tell how many frames were dropped: {error}");
            link::Statistics::default()
        })
    }

    /// Waits for a frame, for one of `interests`, for a signal, or for the time when something is due.
    pub fn wait(&mut self, interests: &mut [Interest<'_>], deadline: Option<Duration>) -> Result<(), Error> {
        self.pause(true, None, interests, deadline)
    }

    /// The same, without sleeping before `awake_until`.
    pub fn wait_awake(
        &mut self,
        interests: &mut [Interest<'_>],
        deadline: Option<Duration>,
        awake_until: Option<Duration>,
    ) -> Result<(), Error> {
        self.pause(true, awake_until, interests, deadline)
    }

    /// The same for anything but a frame: what arrives meanwhile stays in the packet socket's buffer.
    pub fn wait_without_link(
        &mut self,
        interests: &mut [Interest<'_>],
        deadline: Option<Duration>,
    ) -> Result<(), Error> {
        self.pause(false, None, interests, deadline)
    }

    fn pause(
        &mut self,
        link: bool,
        awake_until: Option<Duration>,
        interests: &mut [Interest<'_>],
        deadline: Option<Duration>,
    ) -> Result<(), Error> {
        let now = self.reactor.now();
        if now >= self.checked_at + CHECK_INTERVAL {
            self.checked_at = now;
            self.check();
        }
        let beat = self.programs.heartbeat_interval().map(|interval| now + interval);
        self.programs.beat();
        // An idle listener need not wake.
        let check = (!self.stack.is_idle()).then_some(self.checked_at + CHECK_INTERVAL);
        let at = [deadline, self.stack.poll_at(), beat, check].into_iter().flatten().min();
        self.link.flush();
        let mut own = [Interest::readable(self.watch.as_fd()), Interest::readable(self.link.as_fd())];
        let waited_for = if link { &mut own[..] } else { &mut own[..1] };
        let signal = self.reactor.wait(waited_for, interests, at, awake_until).map_err(Error::Reactor)?;
        let changed = own[0].ready;
        self.link_empty = link && !own[1].ready;
        match signal {
            Some(signal) => Err(Error::Interrupted(signal)),
            None if changed => self.follow_changes(),
            None => Ok(()),
        }
    }

    /// Takes in what has changed on this host.
    fn follow_changes(&mut self) -> Result<(), Error> {
        let now = self.reactor.now();
        for change in self.watch.changes()? {
            match change {
                Change::Neighbour { interface, address, mac } => {
                    self.stack.move_neighbour(now, interface, address, mac, Source::Kernel);
                    self.stack.forget_ways_back();
                }
                Change::Interface(interface) => self.change_interface(now, interface),
                Change::InterfaceGone(index) => self.lose_interface(index)?,
                Change::Missed => {
                    self.stack.forget_ways_back();
                    for index in self.interfaces.keys().copied().collect::<Vec<_>>() {
                        match self.watch.interface(index)? {
                            Some(interface) => self.change_interface(now, interface),
                            None => self.lose_interface(index)?,
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn change_interface(&mut self, now: Duration, is: Interface) {
        let Some(was) = self.interfaces.get_mut(&is.index) else { return };
        if *was == is {
            return;
        }
        if was.name != is.name {
            log::info!("interface {} is called {} now", was.name, is.name);
        }
        let was = std::mem::replace(was, is.clone());
        self.stack.forget_ways_back();
        self.stack.change_interface(now, &was, &is);
    }

    /// An interface is gone: that is the end if it was the only one, and of the flows that used it.
    fn lose_interface(&mut self, index: u32) -> Result<(), Error> {
        let Some(Interface { name, .. }) = self.interfaces.remove(&index) else { return Ok(()) };
        self.stack.strand(index, &name);
        match self.interfaces.is_empty() {
            true => Err(LinkError::Gone { interface: name }.into()),
            false => Ok(()),
        }
    }
}

impl Engine {
    /// Runs until `done` has an answer; `None` if `deadline` passes before.
    pub fn run_until<T>(
        &mut self,
        deadline: Option<Duration>,
        mut done: impl FnMut(&mut Stack) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        loop {
            let now = self.reactor.now();
            let busy = self.ingress(now)? | self.egress(now)?;
            if let Some(answer) = done(&mut self.stack) {
                return Ok(Some(answer));
            }
            if deadline.is_some_and(|at| at <= now) {
                return Ok(None);
            }
            if !busy {
                self.wait(&mut [], deadline)?;
            }
        }
    }
}

impl Engine {
    /// Looks after what nobody tells us of: packets that the guard did not get.
    pub fn check(&mut self) {
        if self.leak.grew(&self.programs.counters()) {
            let who = match self.ahead.as_slice() {
                [] => "a program that was attached at tc ingress after netkat had started".to_owned(),
                names => names.join(", "),
            };
            log::warn!(
                "{who}, ahead of the guard, lets our packets reach the kernel, which may reset the connection"
            );
        }
    }
}

/// Packets that we saw and the guard did not.
#[derive(Debug, Default)]
struct Leak {
    /// At the last look. What arrived before the guard was attached counts, too, and so may a packet that is
    /// just between the two.
    seen: Option<u64>,
    warned: bool,
}

impl Leak {
    /// Whether there are more than at the first look: told once.
    fn grew(&mut self, counters: &Counters) -> bool {
        let leaked = counters.flow.saturating_sub(counters.dropped);
        let first = *self.seen.get_or_insert(leaked);
        let news = !self.warned && leaked > first + 1;
        self.warned |= news;
        news
    }
}

/// The last lines, and what the kernel counted.
impl Drop for Engine {
    fn drop(&mut self) {
        if self.link.is_watched() {
            match self.link.link().statistics() {
                Ok(link::Statistics { received, dropped }) => {
                    self.link.statistics(&Statistics { received: received.into(), dropped: dropped.into() });
                }
                Err(error) => log::debug!("cannot read the packet socket's statistics: {error}"),
            }
            self.link.flush();
        }
    }
}

/// A number that nobody can predict; the kernel's generator does not fail once it is seeded (getrandom(2)).
fn unpredictable() -> u64 {
    getrandom::u64().unwrap_or_else(|error| {
        log::warn!("no random numbers from the kernel ({error}): sequence numbers are predictable");
        std::process::id().into()
    })
}
